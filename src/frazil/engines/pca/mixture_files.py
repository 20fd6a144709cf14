"""The mixture of a run: fitted to its files, written beside them, and read back.

Owns: mixture.npz and mixture.json. Does not own: the fit (`mixture`).
"""

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.engines.particles import Say
from frazil.engines.pca import mixture as fitting
from frazil.engines.pca.mixture import Mixture, Statistics
from frazil.engines.pca.mixture_settings import MixtureSettings
from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.atomic import write_bytes_atomic, write_text_atomic
from frazil.runs.folder import Run

ARRAYS = "mixture.npz"
FIGURES = "mixture.json"


@dataclass(frozen=True, eq=False)
class Labelled:
    """A run's mixture, and of its n particles the component (n,) and posterior mean (n, K)."""

    mixture: Mixture
    labels: NDArray[np.int32]
    z: NDArray[np.float32]


def fit_mixture(run: Run, settings: MixtureSettings, say: Say) -> Labelled:
    """Fit a mixture to a finished run of train_pca, and write it into its folder.

    Raises
    ------
    MissingFileError, CorruptDataError : the run has no z.npy and precisions.npy that fit.
    InputError : fewer than four particles for each component.
    """
    data = read_statistics(run)
    began = time.process_time()
    candidates: list[fitting.Candidate] = []
    wanted = settings.count
    if wanted is None:
        say("choosing the number of components by the likelihood of held-out half sets")
        candidates = fitting.choose(data, settings.floor, settings.restarts, settings.seed)
        wanted = fitting.chosen_components(candidates)
    if len(data) < 4 * wanted:
        raise InputError(
            f"--components {wanted}: {len(data)} particles are too few; give fewer components"
        )
    mixture = fitting.fit(data, wanted, settings.floor, settings.restarts, settings.seed)
    found = fitting.expect(mixture, data)
    labelled = Labelled(
        mixture,
        found.responsibilities.argmax(1).astype(np.int32),
        found.means.astype(np.float32),
    )
    figures = {
        "components": len(mixture.weights),
        "weights": mixture.weights.tolist(),
        "log_likelihood_per_particle": float(found.evidence.mean()),
        "mean_largest_responsibility": float(found.responsibilities.max(1).mean()),
        "settings": settings.to_json(),
        "candidates": [
            {
                "components": one.components,
                "held_out_per_particle": float(one.held_out.mean()),
                "bic_per_particle": one.bic,
            }
            for one in candidates
        ],
        "cpu_seconds": time.process_time() - began,
    }
    _write(run, labelled, found.responsibilities, figures)
    for line in described(figures):
        say(line)
    return labelled


def read_statistics(run: Run) -> Statistics:
    """Return the likelihoods of a finished run's particles.

    Raises
    ------
    MissingFileError, CorruptDataError : z.npy and precisions.npy are not there, or do not fit.
    """
    mean, precision = (_array(run.path / name) for name in ("z.npy", "precisions.npy"))
    if mean.ndim != 2 or precision.shape != (*mean.shape, mean.shape[1]):
        raise CorruptDataError(
            f"{run.path / 'precisions.npy'}: has shape {precision.shape}, z.npy {mean.shape}; "
            "run frazil train_pca again with --overwrite"
        )
    return Statistics.of(mean, precision)


def read_mixture(run: Run) -> Labelled | None:
    """Return the mixture of a run; None where there is none.

    Raises
    ------
    CorruptDataError : it is damaged.
    """
    path = run.path / ARRAYS
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            mixture = Mixture(file["weights"], file["means"], file["covariances"])
            return Labelled(mixture, file["labels"], file["z"])
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise CorruptDataError(f"{path}: {error}; run frazil mixture again") from error


def described(figures: dict[str, Any]) -> list[str]:
    """Return a mixture as lines of the log."""
    lines = [
        f"{one['components']:3d} components: held-out log likelihood per particle "
        f"{one['held_out_per_particle']:.4f}, BIC {one['bic_per_particle']:.4f}"
        for one in figures["candidates"]
    ]
    shares = " ".join(f"{100 * weight:.1f}" for weight in figures["weights"])
    return [
        *lines,
        f"mixture of {figures['components']}: shares {shares} %; particles belong to theirs with "
        f"{100 * figures['mean_largest_responsibility']:.1f} % on average; "
        f"{figures['cpu_seconds']:.1f} CPU-seconds",
    ]


def _write(
    run: Run, labelled: Labelled, share: NDArray[np.float32], figures: dict[str, Any]
) -> None:
    held = io.BytesIO()
    mixture = labelled.mixture
    np.savez(
        held,
        weights=mixture.weights,
        means=mixture.means,
        covariances=mixture.covariances,
        responsibilities=share,
        labels=labelled.labels,
        z=labelled.z,
    )
    write_bytes_atomic(run.path / ARRAYS, held.getvalue())
    write_text_atomic(run.path / FIGURES, json.dumps(figures, indent=1) + "\n")


def _array(path: Path) -> NDArray[np.float32]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a finished run of train_pca is wanted")
    try:
        array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptDataError(f"{path}: is not a whole .npy file ({error})") from error
    return array
