"""The consensus map: back-projection of particles with known poses into Fourier space.

Owns: the weighted sums of both half sets, their normalisation to maps, the half-set assignment.
Does not own: interpolation (`frazil.geometry.slicing`), the stream of particles (`frazil.loader`),
the FSC (`frazil.metrics.fsc`). Memory is two half grids of sums, whatever the number of particles.

Every coefficient y of a centred image is a sample of CTF * V on a central slice, so the
least-squares map is sum(CTF y) / sum(CTF^2), both sums spread over the grid by the adjoint of
trilinear interpolation.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.backproject_settings import BackprojectSettings
from frazil.errors import InputError
from frazil.geometry.ctf import ctf
from frazil.geometry.packing import HalfDisc
from frazil.geometry.rotations import slice_coordinates
from frazil.geometry.shifts import shift_phase
from frazil.geometry.slicing import (
    half_grid_shape,
    insert,
    insert_real,
    symmetrise,
    volume_from_half_grid,
)
from frazil.loader.batches import ParticleBatch

# Coefficients inserted at a time: eight neighbours with index and weight each, about 40 MB.
_CHUNK_COEFFICIENTS = 1 << 18
# The product of sinc^2 over three axes is at least about 0.4 inside the sphere |x| <= D/2.
_SMALLEST_RESPONSE = 0.4


@dataclass(frozen=True, eq=False)
class MapSums:
    """The sums of one or two half sets; filled in place by `add_batch`.

    Attributes
    ----------
    numerator : (halves, Z, Y, X) complex64 half grids, sum of weight times coefficient.
    weight : (halves, Z, Y, X) float32 half grids, sum of CTF^2 (or of 1).
    counts : (halves,) int64, images in each half.
    """

    disc: HalfDisc
    numerator: Tensor
    weight: Tensor
    counts: Tensor

    @classmethod
    def zeros(cls, disc: HalfDisc, halves: int) -> "MapSums":
        """Return empty sums for 1 or 2 half sets."""
        shape = (halves, *half_grid_shape(disc.box_px))
        numerator = torch.zeros(shape, dtype=torch.complex64)
        return cls(disc, numerator, torch.zeros(shape), torch.zeros(halves, dtype=torch.int64))


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Maps (D, D, D) float32 in grey values of the source images; `halves` is empty or a pair."""

    volume: Tensor
    halves: tuple[Tensor, ...]
    counts: tuple[int, ...]


def backproject(
    batches: Iterable[ParticleBatch],
    disc: HalfDisc,
    half_of_row: NDArray[np.uint8],
    settings: BackprojectSettings,
    norm_scale: float = 1.0,
) -> Reconstruction:
    """Return the consensus map of a stream of particles, and its half maps.

    Parameters
    ----------
    batches : each particle once, in any order.
    disc : the coefficients of the batches.
    half_of_row : (N,) 0 or 1 for every row of the store (`assign_halves`).
    settings : weights and normalisation.
    norm_scale : what the coefficients were divided by; the maps are multiplied by it.

    Raises
    ------
    InputError : no particles came.
    """
    sums = MapSums.zeros(disc, 2 if settings.half_maps else 1)
    for batch in batches:
        half = torch.from_numpy(half_of_row[batch.rows.numpy()]).long()
        add_batch(sums, batch, half if settings.half_maps else torch.zeros_like(half), settings)
    if not int(sums.counts.sum()):
        raise InputError("there are no particles to back-project; check --ind and --first")
    halves = tuple(
        norm_scale * normalised_map(numerator, weight, settings)
        for numerator, weight in zip(sums.numerator, sums.weight, strict=True)
    )
    if len(halves) == 1:
        return Reconstruction(halves[0], (), tuple(sums.counts.tolist()))
    volume = normalised_map(sums.numerator.sum(0), sums.weight.sum(0), settings)
    return Reconstruction(norm_scale * volume, halves, tuple(sums.counts.tolist()))


def add_batch(
    sums: MapSums, batch: ParticleBatch, half: Tensor, settings: BackprojectSettings
) -> None:
    """Add a batch to the sums, in place; `half` (B,) says into which half set each image goes."""
    disc = sums.disc
    rows = max(1, _CHUNK_COEFFICIENTS // len(disc))
    for number in range(len(sums.counts)):
        chosen = torch.nonzero(half == number).reshape(-1)
        sums.counts[number] += len(chosen)
        for part in torch.split(chosen, rows):
            # 1. Centre the particles.
            phase = shift_phase(disc.kx, disc.ky, batch.shifts_px[part], disc.box_px)
            values = batch.coefficients[part] * phase  # (b, P)
            # 2. Weight by the CTF.
            transfer = _transfer(batch, part, disc, settings)
            # 3. Spread onto the grid.
            k3 = slice_coordinates(batch.rotations[part], disc.kx.float(), disc.ky.float())
            insert(sums.numerator[number], k3, values * transfer)
            insert_real(sums.weight[number], k3, transfer**2)


def normalised_map(numerator: Tensor, weight: Tensor, settings: BackprojectSettings) -> Tensor:
    """Return the real map (D, D, D) of one half grid of sums.

    The regularisation is a Wiener filter with one constant: `reg_weight` times the mean weight in
    the sphere |k| <= D/2 is added to the weights. The mean grey value of the map is 0, as k = 0 is
    not stored.
    """
    total = symmetrise(numerator)
    weights = symmetrise(weight.to(total.dtype)).real
    inside = _inside_sphere(weight.shape)
    # Of the other half of the sphere only the plane kx = 0 is in the half grid, too.
    copies = torch.full(weight.shape[2:], 2.0)
    copies[0] = 1.0
    mean = (weights * inside * copies).sum(dtype=torch.float64) / (inside * copies).sum()
    weights = weights + settings.reg_weight * float(mean)
    seen = inside & (weights > 0)
    grid = torch.where(seen, total / weights.clamp(min=torch.finfo(weights.dtype).tiny), 0)
    volume = volume_from_half_grid(grid)
    if settings.correct_interpolation:
        volume = volume / interpolation_response(volume.shape[-1])
    return volume


def interpolation_response(box_px: int) -> Tensor:
    """Return what trilinear insertion multiplies a map by, (D, D, D) float32.

    Spreading a coefficient with a triangle of half width 1 convolves the transform with it, which
    multiplies the map by sinc^2(x/D) sinc^2(y/D) sinc^2(z/D). Beyond the sphere of radius D/2,
    where there is only noise, the value is kept from falling further.
    """
    axis = torch.sinc((torch.arange(box_px) - box_px // 2) / box_px) ** 2
    response = axis[:, None, None] * axis[None, :, None] * axis[None, None, :]
    return response.clamp(min=_SMALLEST_RESPONSE)


def assign_halves(
    rows: NDArray[np.int64], count: int, stored: NDArray[np.int8] | None = None
) -> NDArray[np.uint8]:
    """Return the half set, 0 or 1, of every row of a store.

    Parameters
    ----------
    rows : (n,) the selected rows in their order; they go to halves 0, 1, 0, 1, ...
    count : N, rows of the store.
    stored : (N,) half sets 1 or 2 of the input, taken instead when given.

    Raises
    ------
    InputError : a selected row has no stored half set.
    """
    halves = np.zeros(count, np.uint8)
    if stored is None:
        halves[rows] = np.arange(len(rows)) % 2
        return halves
    unknown = rows[(stored[rows] != 1) & (stored[rows] != 2)]
    if unknown.size:
        raise InputError(
            f"--half-set stored: row {unknown[0]} (0-based) has no half set; "
            "use --half-set even-odd"
        )
    halves[rows] = stored[rows] - 1
    return halves


def _transfer(
    batch: ParticleBatch, part: Tensor, disc: HalfDisc, settings: BackprojectSettings
) -> Tensor:
    """Return the factor (b, P) of each coefficient: the CTF, its sign, or 1."""
    if batch.ctf_parameters is None:
        return torch.ones(len(part), len(disc))
    values = ctf(disc.kx, disc.ky, batch.ctf_parameters[part], disc.box_px)
    return torch.sign(values) if settings.ctf_alg == "flip" else values


def _inside_sphere(shape: torch.Size) -> Tensor:
    """Return which points of a half grid have |k| <= D/2."""
    radius = shape[2] - 2
    across = torch.arange(-radius, radius + 2) ** 2
    along = torch.arange(radius + 2) ** 2
    return across[:, None, None] + across[None, :, None] + along <= radius**2
