"""What a fit holds in memory.

Owns: the bytes of sums, volumes and buffers, in memory and on a GPU, and the refusal of what cannot
fit. Does not own: the particles' buffers (`frazil.loader`).
"""

from dataclasses import dataclass

import numpy as np

from frazil.engines.pca.device_pass import CHUNK_BYTES
from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.streaming import BATCH_COEFFICIENTS, working_bytes
from frazil.engines.pca.sums import FLUSH_IMAGES, lane_count
from frazil.errors import BudgetError
from frazil.store.budget import memory_flag, size_text

# Least that is left for the particles.
_LOADER_BYTES = 64 << 20


@dataclass(frozen=True)
class Needs:
    """Bytes of a fit: sums of the M-step, volumes, buffers of threads, results per particle."""

    sums: int
    volumes: int
    buffers: int
    results: int

    @property
    def total(self) -> int:
        """All together."""
        return self.sums + self.volumes + self.buffers + self.results


def needs(geometry: Geometry, zdim: int, fitted: int, embedded: int, threads: int) -> Needs:
    """Return the bytes of the largest pass: both half sets at the largest working box.

    Parameters
    ----------
    fitted, embedded : particles of the fit, and of the last pass.
    """
    voxels = int(np.prod(geometry.shape))
    volumes = zdim + 1
    sets = max(2, 2 * (threads // 2), threads)
    width = 4 if fitted <= FLUSH_IMAGES else 12
    one = voxels * lane_count(volumes)
    sums = one * (sets * width + (4 if width == 4 else 8))
    return Needs(
        sums,
        8 * volumes * voxels * 8,
        working_bytes(volumes, geometry) * sets + 16 * BATCH_COEFFICIENTS,
        4 * embedded * (zdim + zdim * zdim) + 16 * embedded,
    )


def check_budget(wanted: Needs, budget_bytes: int) -> int:
    """Return the bytes that are left for the particles.

    Raises
    ------
    BudgetError : the fit does not fit.
    """
    left = budget_bytes - wanted.total
    if left < _LOADER_BYTES:
        raise BudgetError(
            f"the sums and volumes of this fit take {size_text(wanted.total)}, "
            f"{size_text(budget_bytes)} are allowed; give a smaller -D or --zdim, fewer "
            f"--max-threads, or {memory_flag(wanted.total + _LOADER_BYTES)}"
        )
    return left


def device_bytes(geometry: Geometry, zdim: int) -> int:
    """Return the bytes on a GPU of a pass: volumes and sums of both half sets, a chunk, a batch."""
    voxels, volumes = int(np.prod(geometry.shape)), zdim + 1
    both = 2 * 4 * voxels * (2 * volumes + lane_count(volumes))
    return both + CHUNK_BYTES + 24 * BATCH_COEFFICIENTS


def check_device(wanted_bytes: int, free_bytes: int, name: str) -> None:
    """Refuse a pass that a GPU has no memory for.

    Raises
    ------
    BudgetError : names what would help.
    """
    if wanted_bytes > free_bytes:
        raise BudgetError(
            f"--device {name}: a pass takes {size_text(wanted_bytes)} of its memory, "
            f"{size_text(free_bytes)} are free; give a smaller -D or --zdim, or --device cpu"
        )
