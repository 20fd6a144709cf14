"""Agreement with simulated truth goes by row, not by position."""

from pathlib import Path

import numpy as np
import pytest

from frazil.analysis.truth import agreement_with_truth
from frazil.errors import InputError
from frazil.runs.folder import Run


def test_latents_of_a_subset_meet_the_truth_of_their_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-60, 60, 400)
    rows = rng.permutation(400)[:300]
    np.save(tmp_path / "truth.npy", truth)
    run = Run.create(tmp_path / "run", {}, overwrite=False)
    run.write_rows(rows)
    latents = np.stack([truth[rows], rng.normal(size=300)], axis=1).astype(np.float32)
    np.save(run.latents_path(1), latents)
    assert agreement_with_truth(run, 1, tmp_path / "truth.npy")["linear_r2"] > 0.999
    run.write_rows(np.sort(rows))  # positive control: joined by position, nothing agrees
    assert agreement_with_truth(run, 1, tmp_path / "truth.npy")["linear_r2"] < 0.2


def test_truth_of_a_smaller_set_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "truth.npy", np.zeros(5))
    run = Run.create(tmp_path / "run", {}, overwrite=False)
    run.write_rows(np.arange(6))
    with pytest.raises(InputError, match="5 conformations"):
        agreement_with_truth(run, 1, tmp_path / "truth.npy")
