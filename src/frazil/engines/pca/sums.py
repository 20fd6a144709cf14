"""The M-step: normal equations of all voxels, and their solution.

Owns: the sums over images of one model, and the step they give. Does not own: the loop over images
(`streaming`), the prior (`prior`).

The model of a coefficient is a convex combination (trilinear weights w_v) of voxels V_v, so with
the residual r of the present volumes |r - sum w_v d_v|^2 <= sum w_v |r - d_v|^2 for every change
d. The right-hand side separates into voxels and equals the left at d = 0: minimising it, with the
expectation over the latents, never raises the penalised loss (De Pierro 1995). Per voxel it reads
A = sum w c^2/s^2 E[z z^T], b = sum w c/s^2 E[(y - c a z) z], and with the prior precision R
V <- V + (A + R)^-1 (b - R V).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.distributed import Ranks
from frazil.engines.pca.grids import Geometry, from_lanes, to_lanes
from frazil.engines.pca.kernels import solve_kernel

Sums = NDArray[np.float32] | NDArray[np.float64]

# Images whose sums are kept in float32; then they are added to float64.
FLUSH_IMAGES = 16_384


def lane_count(volumes: int) -> int:
    """Return M, the real numbers per voxel of the sums of L volumes."""
    return volumes * (volumes + 1) // 2 + 2 * volumes


@dataclass(eq=False)
class VoxelSums:
    """Sums over images, (V * M,): float32 of the last images, float64 of those before (or None)."""

    volumes: int
    recent: NDArray[np.float32]
    total: NDArray[np.float64] | None = None
    images: int = 0
    _recent_images: int = field(default=0)

    @classmethod
    def zeros(cls, volumes: int, geometry: Geometry) -> "VoxelSums":
        """Return empty sums of L volumes."""
        voxels = int(np.prod(geometry.shape))
        return cls(volumes, np.zeros(voxels * lane_count(volumes), np.float32))

    def count(self, images: int) -> None:
        """Note that this many images were added to `recent`."""
        self.images += images
        self._recent_images += images
        if self._recent_images >= FLUSH_IMAGES:
            self._flush()

    def add(self, other: "VoxelSums") -> None:
        """Add other sums to these."""
        if other.total is not None:
            self._flush()
            other._flush()
            self.total = _sum(self.total, other.total)
        else:
            self.recent += other.recent
        self.images += other.images

    def join(self, ranks: Ranks) -> None:
        """Add the sums of all ranks, in place; they are the same on each afterwards."""
        if ranks.any(self.total is not None):
            self._flush()
        ranks.add(self.recent if self.total is None else self.total)

    def numbers(self) -> dict[str, int]:
        """Return the counts of images, as `restore` takes them."""
        return {"voxel_images": self.images, "recent_images": self._recent_images}

    def restore(
        self,
        recent: NDArray[np.float32],
        total: NDArray[np.float64] | None,
        numbers: Mapping[str, int],
    ) -> None:
        """Become the sums that these were, with all of them as they were."""
        self.recent[:], self.total = recent, total
        self.images, self._recent_images = numbers["voxel_images"], numbers["recent_images"]

    def _flush(self) -> None:
        self.total = _sum(self.total, self.recent)
        self.recent[:] = 0
        self._recent_images = 0

    def symmetric(self, geometry: Geometry) -> Sums:
        """Return the sums with the plane kx = 0 joined, (V, M), as `slicing.symmetrise` does."""
        if self.total is not None:
            self._flush()
        chosen = self.recent if self.total is None else self.total
        return joined_plane(chosen.reshape(len(geometry.voxel_shell), -1), self.volumes, geometry)


def joined_plane(sums: Sums, volumes: int, geometry: Geometry) -> Sums:
    """Return sums (V, M) with the plane kx = 0 joined, as `slicing.symmetrise` does.

    Parameters
    ----------
    volumes : L; the last L lanes are the imaginary right-hand sides.
    """
    grid = sums.reshape(*geometry.shape.tolist(), -1).copy()
    plane = grid[:-1, :-1, 0].copy()
    mirrored = plane[::-1, ::-1].copy()
    mirrored[..., -volumes:] *= -1
    grid[:-1, :-1, 0] = plane + mirrored
    return grid.reshape(sums.shape)


def _sum(
    total: NDArray[np.float64] | None, part: NDArray[np.float32] | NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if part is None:
        raise ValueError("there is nothing to add")
    if total is None:
        return part.astype(np.float64)
    total += part
    return total


def mean_weight(
    sums: NDArray[np.float32] | NDArray[np.float64], geometry: Geometry
) -> NDArray[np.float64]:
    """Return (S,) the mean over shells of sum w c^2/s^2, the inverse variance of the mean map."""
    return geometry.shell_means(sums[:, 0].astype(np.float64))


def maximise(
    sums: NDArray[np.float32] | NDArray[np.float64],
    ridge: NDArray[np.float64],
    grids: Tensor,
    geometry: Geometry,
) -> Tensor:
    """Return the half grids (L, Z, Y, X) after the M-step.

    Parameters
    ----------
    sums : (V, M) of `VoxelSums.symmetric`.
    ridge : (L, S) prior precision 1/tau^2 of each volume and shell.
    grids : the volumes that the residuals belong to.
    """
    former = to_lanes(grids)
    out = np.empty_like(former)
    solve = solve_kernel(len(grids))
    solve(sums.reshape(-1), ridge, geometry.voxel_shell, former, out)
    return from_lanes(out, geometry)


def penalty(grids: Tensor, ridge: NDArray[np.float64], geometry: Geometry) -> float:
    """Return the prior's part of the loss, sum ridge |V|^2 over independent voxels.

    On the plane kx = 0 a voxel and its mirror image are one number, so each counts half.
    """
    inside = geometry.voxel_shell >= 0
    power = grids.reshape(len(grids), -1).abs().double().numpy()[:, inside] ** 2
    weight = ridge[:, geometry.voxel_shell[inside]] * geometry.voxel_copies[inside] / 2
    return float((weight * power).sum())


def upper_triangle(second: Tensor) -> Tensor:
    """Return (B, L(L+1)/2) float32 of symmetric matrices (B, L, L), by rows."""
    rows, columns = torch.triu_indices(second.shape[1], second.shape[1])
    return second[:, rows, columns].float()
