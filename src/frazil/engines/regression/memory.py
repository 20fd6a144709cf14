"""What a regression holds in memory, and how many targets fit into a pass.

Owns: the bytes of sums and buffers, groups of targets, and the refusal of what cannot fit. Does not
own: limits (`frazil.store.budget`), the particles' buffers (`frazil.loader`).
"""

from dataclasses import dataclass

import numpy as np

from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.streaming import working_bytes
from frazil.engines.regression.streaming import BATCH_COEFFICIENTS, lane_count
from frazil.errors import BudgetError
from frazil.loader.plan import loader_size
from frazil.loader.prefetch import LoaderSettings
from frazil.store.budget import Allowance, memory_flag, size_text
from frazil.store.manifest import Manifest

# What torch and numba load on first use, and what the allocator keeps of buffers that were freed
# (measured at 64 px). The program itself, 0.32 GB with its libraries, is not counted.
_LIBRARIES = 224 << 20


@dataclass(frozen=True)
class Needs:
    """Bytes of a pass: of each target, and of all else but the particles' windows."""

    target: int
    fixed: int


@dataclass(frozen=True)
class Passes:
    """How a regression is done: targets of a pass, passes, rows of a window, bytes of each part."""

    targets: int
    passes: int
    window_rows: int
    sums_bytes: int
    fixed_bytes: int
    loader_bytes: int

    def line(self, memory: Allowance) -> str:
        """Return what is planned."""
        return (
            f"plan: {self.passes} pass{'es' if self.passes > 1 else ''} over the particles, "
            f"{self.targets} map{'s' if self.targets > 1 else ''} in each; "
            f"{size_text(self.sums_bytes)} of memory for their sums, {size_text(self.fixed_bytes)} "
            f"for buffers, up to {size_text(self.loader_bytes)} for particles; {memory}"
        )


def needs(geometry: Geometry, balls: int, sides: int, latents_bytes: int, threads: int) -> Needs:
    """Return the bytes of a pass.

    Parameters
    ----------
    sides : right-hand sides.
    latents_bytes : of latents and precisions.
    """
    voxels = int(np.prod(geometry.shape))
    target = 2 * balls * voxels * lane_count(sides) * 4
    # Of one target at a time: weight and right-hand side of all balls, twice, and some volumes.
    solving = 2 * 2 * balls * voxels * 12 + 16 * voxels * 8
    everything = 2 * voxels * 3 * (4 + 8 + 8) + 4 * voxels * 8
    batch = BATCH_COEFFICIENTS * (40 + 4 * 2 * (sides + 1) * (1 + threads))
    fixed = solving + everything + batch + working_bytes(8, geometry) + latents_bytes + _LIBRARIES
    return Needs(target, fixed)


def plan_passes(
    wanted: Needs, targets: int, manifest: Manifest, box_px: int, memory: Allowance
) -> Passes:
    """Return as few passes as the memory allows, all of nearly one size.

    Raises
    ------
    BudgetError : not even one target fits; names the memory that is enough.
    """
    size = loader_size(manifest, box_px)
    least = 2 * (size.chunk_rows + 1) * size.row_bytes
    left = memory.bytes - wanted.fixed - least
    fitting = left // wanted.target
    if fitting < 1:
        enough = wanted.fixed + least + wanted.target
        raise BudgetError(
            f"one map of {box_px} px takes {size_text(enough)} (sums of all bandwidths, buffers); "
            f"{memory}; give {memory_flag(enough)}"
        )
    passes = -(-targets // fitting)
    group = -(-targets // passes)
    loader_bytes = memory.bytes - wanted.fixed - group * wanted.target
    rows = max(1, min(LoaderSettings().window_rows, size.window_rows_within(loader_bytes)))
    return Passes(group, passes, rows, group * wanted.target, wanted.fixed, loader_bytes)
