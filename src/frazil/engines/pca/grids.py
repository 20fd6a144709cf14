"""Volumes as half grids, and the geometry of a working box.

Owns: what the kernels need to know of a box, the layouts of volumes (complex half grids, lanes of
real numbers, real space), the mask in real space. Does not own: slices (`kernels`).

A working box of side d = 2r holds the frequencies |k| <= r of the full box, so it is the same
piece of space with larger pixels. With a padding of p the grid is p times finer than the box's
frequencies; volumes then have the side p d.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.geometry.fourier import fft3_centred, ifft3_centred
from frazil.geometry.packing import HalfDisc, half_disc
from frazil.geometry.slicing import (
    half_grid_from_volume,
    half_grid_shape,
    slice_response,
    volume_from_half_grid,
)


@dataclass(frozen=True, eq=False)
class Geometry:
    """A working box: its disc, the frequencies in voxels, and the shell of every voxel.

    Attributes
    ----------
    shape : (3,) int64 of the half grid.
    kx, ky : (P,) float32 in voxels of the grid.
    shell : (P,) int64, of the coefficients (1 to r).
    voxel_shell : (V,) int64, |k| rounded, in cycles per box; -1 outside |k| <= r.
    voxel_copies : (V,) float64, how many voxels of the whole grid one stands for: 2, on kx = 0: 1.
    """

    disc: HalfDisc
    padding: int
    shape: NDArray[np.int64]
    kx: NDArray[np.float32]
    ky: NDArray[np.float32]
    shell: NDArray[np.int64]
    voxel_shell: NDArray[np.int64]
    voxel_copies: NDArray[np.float64]

    @property
    def box_px(self) -> int:
        """Side d of the working box."""
        return self.disc.box_px

    @property
    def side_px(self) -> int:
        """Side of the volumes: padding times the box."""
        return self.padding * self.disc.box_px

    @classmethod
    def of(cls, box_px: int, padding: int = 1) -> "Geometry":
        """Return the geometry of a working box of even side box_px."""
        disc = half_disc(box_px)
        side = padding * box_px
        across = np.arange(-side // 2, side // 2 + 2)
        along = np.arange(side // 2 + 2)
        squared = across[:, None, None] ** 2 + across[None, :, None] ** 2 + along**2
        radius = np.sqrt(squared) / padding
        shell = np.where(4 * squared <= side * side, np.rint(radius), -1).astype(np.int64)
        copies = np.full(squared.shape, 2.0)
        copies[:, :, 0] = 1.0
        return cls(
            disc,
            padding,
            np.array(half_grid_shape(side), np.int64),
            (padding * disc.kx).numpy().astype(np.float32),
            (padding * disc.ky).numpy().astype(np.float32),
            disc.shell.numpy().copy(),
            shell.reshape(-1),
            np.where(shell >= 0, copies, 0.0).reshape(-1),
        )

    def empty(self, volumes: int) -> Tensor:
        """Return (L, Z, Y, X) complex64 zeros."""
        return torch.zeros((volumes, *self.shape.tolist()), dtype=torch.complex64)

    def shell_means(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the mean of (V,) values over each shell 0 to r of the whole grid."""
        inside = self.voxel_shell >= 0
        shell, weight = self.voxel_shell[inside], self.voxel_copies[inside]
        total = np.bincount(shell, weight * values[inside])
        return total / np.bincount(shell, weight)


def to_lanes(grids: Tensor) -> NDArray[np.float32]:
    """Return half grids (L, Z, Y, X) as the flat array (V * 2L,) of the kernels."""
    parts = torch.cat([grids.real, grids.imag]).reshape(2 * len(grids), -1)
    return parts.T.contiguous().view(-1).numpy()


def from_lanes(lanes: NDArray[np.float32], geometry: Geometry) -> Tensor:
    """Return the half grids (L, Z, Y, X) of a flat array (V * 2L,)."""
    shape = geometry.shape.tolist()
    parts = torch.from_numpy(lanes).view(int(np.prod(shape)), 2, -1)
    joined = torch.complex(parts[:, 0].T.contiguous(), parts[:, 1].T.contiguous())
    return joined.view(-1, *shape)


def to_real_space(grids: Tensor) -> Tensor:
    """Return volumes (L, n, n, n) float32 of half grids (L, Z, Y, X)."""
    return torch.stack([volume_from_half_grid(grid) for grid in grids])


def to_half_grids(volumes: Tensor, geometry: Geometry) -> Tensor:
    """Return half grids (L, Z, Y, X) of volumes (L, n, n, n); 0 outside |k| <= r."""
    inside = torch.from_numpy(geometry.voxel_shell >= 0).view(*geometry.shape.tolist())
    return torch.stack([half_grid_from_volume(volume) * inside for volume in volumes])


def masked(grids: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
    """Return half grids of the volumes times a mask (d, d, d) of the working box."""
    if mask is None:
        return grids
    margin = (geometry.side_px - geometry.box_px) // 2
    wide = torch.nn.functional.pad(mask, (margin,) * 6)
    return to_half_grids(to_real_space(grids) * wide, geometry)


def resized(grids: Tensor, geometry: Geometry) -> Tensor:
    """Return half grids of another working box: cut, or filled with 0 at new frequencies."""
    before, after = grids.shape[1] - 2, geometry.side_px
    common = min(before, after) // 2
    out = geometry.empty(len(grids))
    old, new = before // 2, after // 2
    source = grids[
        :, old - common : old + common + 1, old - common : old + common + 1, : common + 1
    ]
    out[:, new - common : new + common + 1, new - common : new + common + 1, : common + 1] = source
    inside = torch.from_numpy(geometry.voxel_shell >= 0).view(*geometry.shape.tolist())
    return out * inside


def resampled(volume: Tensor, box_px: int) -> Tensor:
    """Return a volume (D, D, D) on a grid of another even side, by cutting or padding its FT."""
    side = volume.shape[-1]
    if side == box_px:
        return volume
    common = min(side, box_px)
    transform = fft3_centred(volume)
    start, new = (side - common) // 2, (box_px - common) // 2
    cut = transform[(slice(start, start + common),) * 3]
    full = cut.new_zeros((box_px,) * 3)
    full[(slice(new, new + common),) * 3] = cut
    return ifft3_centred(full).real * (box_px / side) ** 3


def finished_maps(grids: Tensor, geometry: Geometry) -> Tensor:
    """Return what the slices of half grids are slices of: maps (L, d, d, d) float32.

    Trilinear interpolation of a transform multiplies the volume by sinc^2 along each axis, so the
    fitted volume is the map divided by that.
    """
    side = geometry.side_px
    volumes = to_real_space(grids) * slice_response(side)
    margin = (side - geometry.box_px) // 2
    cut = slice(margin, side - margin)
    return volumes[:, cut, cut, cut].contiguous()


def unfinished_grids(maps: Tensor, geometry: Geometry) -> Tensor:
    """Return half grids whose slices are those of maps (L, D, D, D); padding 1 only."""
    return to_half_grids(maps / slice_response(geometry.box_px), geometry)


def inner_products(a: Tensor, b: Tensor, geometry: Geometry) -> NDArray[np.float64]:
    """Return (La, Lb) real inner products of half grids over the whole of |k| <= r."""
    weight = torch.from_numpy(np.sqrt(geometry.voxel_copies).astype(np.float32))
    flat = [torch.view_as_real(g.reshape(len(g), -1) * weight).reshape(len(g), -1) for g in (a, b)]
    return (flat[0].double() @ flat[1].double().T).numpy()
