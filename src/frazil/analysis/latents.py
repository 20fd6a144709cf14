"""The latents of a run, with the particles that they belong to.

Owns: reading them together and checking that they fit. Does not own: the files' names
(`frazil.runs.folder`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frazil.errors import CorruptDataError
from frazil.runs.folder import Run


@dataclass(frozen=True, eq=False)
class Latents:
    """Latent means of one epoch: z (n, Z) float32, and rows (n,) int64 of the store."""

    epoch: int
    z: NDArray[np.float32]
    rows: NDArray[np.int64]


def load_latents(run: Run, epoch: int | None = None) -> Latents:
    """Return the latents of an epoch, by default of the last one with weights.

    Raises
    ------
    MissingFileError : the run has no such epoch.
    CorruptDataError : latents and rows do not belong together, or a latent is not finite.
    """
    epoch = run.last_epoch if epoch is None else epoch
    z, rows = run.latents(epoch), run.rows()
    path = run.latents_path(epoch)
    if z.ndim != 2 or len(z) != len(rows):
        raise CorruptDataError(f"{path}: {z.shape} latents for {len(rows)} rows in rows.npy")
    bad = np.flatnonzero(~np.isfinite(z).all(axis=1))
    if bad.size:
        raise CorruptDataError(
            f"{path}: row {bad[0]} (0-based) and {bad.size - 1} more are not finite; "
            "analyse an earlier epoch"
        )
    return Latents(epoch, z, rows)
