"""How evenly viewing directions sample Fourier space.

Owns: the sampling of directions by slices, and one figure for it. Does not own: plots.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_DIRECTIONS = 1000
# Slices are as thick as half a voxel at 16 cycles per box, and thicker where views are few.
_THICKNESS, _WANTED_VIEWS = 1 / 32, 60
_FLOOR = 0.01


def fourier_sampling(views: Float[Tensor, "N 3"]) -> Float[Tensor, " M"]:
    """Return how often each direction of Fourier space is sampled, relative to the mean.

    Parameters
    ----------
    views : unit vectors along the beam in the model frame, the third row of each rotation. The
        slice of a view holds the directions across it.
    """
    grid = fibonacci_sphere(_DIRECTIONS).to(views)
    thickness = min(1.0, max(_THICKNESS, _WANTED_VIEWS / max(len(views), 1)))
    counts = torch.zeros(len(grid), dtype=torch.float64)
    for part in torch.split(views, 4096):
        counts += ((grid @ part.T).abs() < thickness).sum(1)
    mean = counts.mean()
    return counts / mean if mean > 0 else counts


def sampling_efficiency(sampling: Float[Tensor, " M"]) -> float:
    """Return the harmonic over the arithmetic mean of a sampling: 1 for even views, near 0 for one.

    Noise in a direction goes with the inverse of its sampling, so this is the part of the images
    that evenly spread views would need for the same noise. Directions never seen count as seen at
    a hundredth of the mean.

    References
    ----------
    Baldwin & Lyumkis 2020, the sampling compensation factor.
    """
    mean = sampling.mean()
    return float(1 / (mean * (1 / sampling.clamp(min=_FLOOR * float(mean))).mean()))


def fibonacci_sphere(count: int) -> Float[Tensor, "M 3"]:
    """Return directions spread evenly over the sphere, float64."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    angle = torch.pi * (1 + 5**0.5) * index
    radius = torch.sqrt(1 - z**2)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), z], dim=1)
