"""What maps and mean images look like: the sign of the density, spikes, rings.

Owns: the figures. Does not own: the maps (`score`) and what follows from the figures (`findings`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.preflight.sample import Sample
from frazil.engines.preflight.score import Score, damped_maps
from frazil.geometry.packing import to_real_space
from frazil.geometry.slicing import slice_response, volume_from_half_grid

# Radii as fractions of the box.
_CENTRE, _OUTSIDE, _EDGE = 0.2, (0.35, 0.5), (0.36, 0.5)
_SPIKE_REACH = 0.3
_SHELL_NEIGHBOURS = 3


@dataclass(frozen=True)
class Shape:
    """Figures of the maps of a sample.

    Attributes
    ----------
    skewness : third moment of the density over the second to the power 3/2, both across half maps,
        so that noise adds nothing: positive for a compact molecule of positive density.
    centre_excess : mean density within 0.2 box of the centre minus that outside 0.35 box, over the
        root mean square of the density; positive for a solid molecule.
    spike : how much the centre voxel stands out of its neighbours, in units of the voxel that
        stands out most elsewhere near the centre; a map without a spike has about 1 or less.
    image_spike : the same of the mean of all images as they are; centred_spike : of the mean of
        the centred ones, in which a particle is sharper, and what belongs to the detector is not.
    edge_ring : largest mean density of a shell beyond 0.36 box that its neighbours do not have,
        over the root mean square of the density within 0.2 box.
    """

    skewness: float
    centre_excess: float
    spike: float
    image_spike: float
    centred_spike: float
    edge_ring: float


def shape_of(sample: Sample, found: Score, centred: Tensor) -> tuple[Shape, NDArray[np.float32]]:
    """Return the figures, and the map (d, d, d) of both half sets.

    Parameters
    ----------
    centred : (n, P) the sample's data, moved by the shifts.
    """
    halves, volume = real_maps(sample, found)
    means = torch.stack([sample.data.mean(0), centred.mean(0)])
    images = to_real_space(means, sample.geometry.disc)
    shape = Shape(
        skewness(*halves),
        centre_excess(volume),
        spike(volume),
        spike(images[0]),
        spike(images[1]),
        edge_ring(volume),
    )
    return shape, volume.numpy()


def real_maps(sample: Sample, found: Score) -> tuple[Tensor, Tensor]:
    """Return the damped half maps (2, d, d, d) and the map of both, in real space."""
    geometry = sample.geometry
    grids = damped_maps(found.numerator, found.weight, geometry)[0]
    response = slice_response(geometry.box_px).clamp(min=0.1)
    halves = torch.stack([volume_from_half_grid(grid) for grid in grids]) / response
    return halves, halves.mean(0)


def skewness(a: Tensor, b: Tensor) -> float:
    """Return the skewness across two half maps; 0 where they have nothing in common.

    a^2 b and a b^2 have the expectation of the cube of what both show, as their noise is their own.
    """
    second = float((a * b).mean())
    third = float((a * a * b + a * b * b).mean()) / 2
    return third / second**1.5 if second > 0 else 0.0


def centre_excess(volume: Tensor) -> float:
    """Return the mean in the centre minus that outside, over the root mean square."""
    radius = radii(volume)
    outside = (radius > _OUTSIDE[0]) & (radius <= _OUTSIDE[1])
    difference = volume[radius < _CENTRE].mean() - volume[outside].mean()
    return _over(difference, volume)


def spike(values: Tensor) -> float:
    """Return how much the centre of an image or map stands out of its neighbours."""
    side, dims = values.shape[-1], values.ndim
    excess = values
    for _ in range(2):  # twice, as the top of a small particle stands out once
        around = sum(excess.roll(step, axis) for axis in range(dims) for step in (-1, 1))
        excess = excess - torch.as_tensor(around) / (2 * dims)
    excess = excess.abs()
    radius = radii(values) * side
    # The neighbours of a spike stand out of theirs, too.
    near = (radius < _SPIKE_REACH * side) & (radius > 3.5)
    largest = float(excess[near].max())
    return float(excess[(side // 2,) * dims]) / largest if largest > 0 else 0.0


def edge_ring(volume: Tensor) -> float:
    """Return the largest mean of a shell near the edge that its neighbours do not have."""
    side = volume.shape[-1]
    radius = radii(volume)
    shell = torch.round(radius * side).long().reshape(-1)
    counts = torch.bincount(shell).clamp(min=1)
    profile = (torch.bincount(shell, volume.reshape(-1).double()) / counts)[: side // 2 + 1]
    excess = profile[1:-1] - (profile[:-2] + profile[2:]) / 2
    edge = excess[round(_EDGE[0] * side) - 1 :]
    return _over(edge.abs().max(), volume[radius < _CENTRE])


def power_ring(rms: NDArray[np.floating]) -> tuple[int, float]:
    """Return the shell (from 1) whose power stands out of its neighbours most, and by what factor.

    Parameters
    ----------
    rms : (S,) root mean square of |F| in shells 1, 2, ...
    """
    power = np.asarray(rms, np.float64) ** 2
    reach = _SHELL_NEIGHBOURS
    best = (0, 0.0)
    for i in range(2 * reach, len(power) - reach):
        around = np.concatenate([power[i - reach : i - 1], power[i + 2 : i + reach + 1]])
        factor = float(power[i] / np.median(around)) if np.median(around) > 0 else 0.0
        if factor > best[1]:
            best = (i + 1, factor)
    return best


def radii(values: Tensor) -> Tensor:
    """Return the distance of each pixel or voxel from pixel D/2, in boxes."""
    side = values.shape[-1]
    axis = (torch.arange(side) - side // 2).double() / side
    squared = sum(
        axis.view([-1 if number == own else 1 for number in range(values.ndim)]) ** 2
        for own in range(values.ndim)
    )
    return torch.sqrt(torch.as_tensor(squared))


def _over(value: Tensor, values: Tensor) -> float:
    """Return a value over the root mean square of others, 0 where they are all 0."""
    scale = float(torch.sqrt((values.double() ** 2).mean()))
    return float(value) / scale if scale > 0 else 0.0
