"""Small images of a linear model, in memory, for the tests of the pca engine."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frazil.engines.pca.grids import Geometry, to_half_grids
from frazil.engines.pca.streaming import Fit
from frazil.geometry.ctf import ctf
from frazil.geometry.rotations import random_rotations, slice_coordinates
from frazil.geometry.shifts import shift_phase
from frazil.geometry.slicing import extract
from frazil.loader.batches import ParticleBatch


@dataclass(frozen=True, eq=False)
class Case:
    """Images y = c P (mu + V z) + noise, and what they were made of."""

    geometry: Geometry
    grids: Tensor
    latents: Tensor
    everything: ParticleBatch
    deviation: np.ndarray

    def batches(self, size: int) -> Iterator[ParticleBatch]:
        """Yield the images in batches."""
        whole = self.everything
        for part in torch.split(torch.arange(len(whole.rows)), size):
            yield ParticleBatch(
                whole.rows[part],
                whole.coefficients[part],
                whole.rotations[part],
                whole.shifts_px[part],
                None if whole.ctf_parameters is None else whole.ctf_parameters[part],
            )

    def fit(self, models: list[Tensor], model_of_row: np.ndarray | None = None) -> Fit:
        """Return a fit of models to these images; two optics groups in turns."""
        rows = np.arange(len(self.everything.rows))
        owner = np.zeros_like(rows) if model_of_row is None else model_of_row
        return Fit(models, self.deviation, owner, rows % 2, self.geometry)


def smooth_grids(geometry: Geometry, volumes: int, seed: int) -> Tensor:
    """Return half grids of smooth random volumes, components about a third of the mean."""
    generator = torch.Generator().manual_seed(seed)
    side = geometry.side_px
    noise = torch.randn(volumes, side, side, side, generator=generator)
    axis = torch.arange(side) - side // 2
    square = axis**2
    radius = (square[:, None, None] + square[None, :, None] + square[None, None, :]).float()
    noise = noise * torch.exp(-radius / (2 * (side / 6) ** 2))
    noise[1:] *= 0.33
    return to_half_grids(noise, geometry)


def make_case(
    count: int = 60, box_px: int = 12, zdim: int = 2, noise: float = 4.0, padding: int = 1
) -> Case:
    """Return `count` images; noise deviations differ between shells and optics groups."""
    geometry = Geometry.of(box_px, padding)
    disc = geometry.disc
    grids = smooth_grids(geometry, zdim + 1, 5)
    generator = torch.Generator().manual_seed(7)
    rotations = random_rotations(count, generator)
    latents = torch.randn(count, zdim, generator=generator)
    shifts = torch.rand(count, 2, generator=generator) - 0.5
    parameters = torch.tensor([[4.0, 0, 0, 30, 300, 2.7, 0.1, 0]]).repeat(count, 1)
    parameters[:, 1] = 10_000 + 10_000 * torch.rand(count, generator=generator)
    parameters[:, 2] = parameters[:, 1] - 500
    points = padding * slice_coordinates(rotations, disc.kx.to(rotations), disc.ky.to(rotations))
    slices = torch.stack([extract(grid.to(torch.complex128), points.double()) for grid in grids])
    weights = torch.cat([torch.ones(count, 1), latents], 1).to(slices.dtype)
    clean = torch.einsum("lbp,bl->bp", slices, weights)
    clean = clean * ctf(disc.kx, disc.ky, parameters.double(), box_px)
    clean = clean * shift_phase(disc.kx, disc.ky, -shifts.double(), box_px)
    deviation = noise * (1 + 0.2 * np.arange(box_px // 2 + 1)) * np.array([[1.0], [1.5]])
    draw = torch.randn(count, len(disc), 2, generator=generator, dtype=torch.float64)
    scale = torch.from_numpy(deviation[np.arange(count) % 2][:, geometry.shell]) / 2**0.5
    observed = clean + torch.view_as_complex(draw * scale[:, :, None])
    batch = ParticleBatch(
        torch.arange(count),
        observed.to(torch.complex64),
        rotations.float(),
        shifts.float(),
        parameters,
    )
    return Case(geometry, grids, latents, batch, deviation.astype(np.float32))
