"""Ranks of torchrun find together what one process finds alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from frazil.engines.distributed import ONE_RANK, joined
from frazil.errors import InputError
from frazil.io.mrc import read_volume
from tests.engines.test_pca_fit import make_store

FLAGS = "--zdim 2 --low-radius 8 --low-iterations 8"


def train(store: Path, outdir: Path, ranks: int, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run train_pca in processes of its own."""
    command = [sys.executable, "-m", "frazil.cli.main"]
    if ranks > 1:
        launcher = f"torch.distributed.run --standalone --nproc-per-node {ranks} -m"
        command = [sys.executable, "-m", *launcher.split(), "frazil.cli.main"]
    words = f"train_pca {store} {FLAGS} -o {outdir}".split()
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *words, *flags], capture_output=True, text=True, env=quiet)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def alone(store: Path) -> Path:
    """Return the run of one process."""
    done = train(store, store.parent / "alone", 1)
    assert done.returncode == 0, done.stderr
    return store.parent / "alone"


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_find_what_one_process_finds(store: Path, alone: Path, ranks: int) -> None:
    outdir = store.parent / f"run{ranks}"
    done = train(store, outdir, ranks)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("components are real") == 1  # one of them speaks
    for name in ("z.npy", "precisions.npy", "noise_deviation.npy"):
        one, other = np.load(alone / name), np.load(outdir / name)
        assert np.isfinite(other).all()
        assert np.abs(one - other).max() < 2e-3 * np.abs(one).max()
    for name in ("mean.mrc", "component_1.mrc", "half_map_b.mrc"):
        one, other = read_volume(alone / name)[0], read_volume(outdir / name)[0]
        assert np.abs(one - other).max() < 2e-3 * np.abs(one).max()
    journals = [(run / "metrics.jsonl").read_text().splitlines() for run in (alone, outdir)]
    assert len(journals[0]) == len(journals[1])


def test_what_a_rank_refuses_is_said_and_nothing_is_left(store: Path, tmp_path: Path) -> None:
    done = train(store, tmp_path / "run", 2, "--memory", "1M")
    assert done.returncode != 0
    assert "give a smaller -D or --zdim" in done.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_half_of_the_variables_of_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined() as ranks:
        assert ranks == ONE_RANK
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start with torchrun"), joined():
        pass
