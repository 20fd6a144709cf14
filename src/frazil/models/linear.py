"""The linear model of volumes: a mean and K components.

Owns: the map from a latent to coefficients. Does not own: how the volumes are found
(`frazil.engines.pca`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from frazil.geometry.slicing import half_grid_from_volume


@dataclass(frozen=True)
class LinearConfig:
    """Sizes of the model: `zdim` components."""

    zdim: int


class LinearModel:
    """Volumes mean + sum of z_k times component k.

    Parameters
    ----------
    maps : (K + 1, D, D, D) float32, the mean first, in units of the data's norm scale.
    """

    def __init__(self, maps: Tensor) -> None:
        self.config = LinearConfig(len(maps) - 1)
        self._maps = Parameter(maps, requires_grad=False)
        self._grids = torch.stack([half_grid_from_volume(volume) for volume in maps])

    @property
    def maps(self) -> Tensor:
        """Mean and components (K + 1, D, D, D)."""
        return self._maps.data

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the weights; `recurse` is there for the likeness to a torch module."""
        return iter([self._maps])

    def decode_points(self, points: Tensor, z: Tensor) -> Tensor:
        """Return (M,) complex64 coefficients of the volume of z (Z,) at points (M, 3).

        Parameters
        ----------
        points : whole numbers (kx, ky, kz) in cycles per box, |k| <= D/2.
        """
        weights = torch.cat([z.new_ones(1), z]).to(self._grids.dtype)
        return weights @ values_at(self._grids, points)


def values_at(grids: Tensor, points: Tensor) -> Tensor:
    """Return (L, M) complex coefficients of half grids (L, Z, Y, X) at whole points (M, 3)."""
    where = torch.round(points).long()
    flipped = where[:, 0] < 0
    where = torch.where(flipped[:, None], -where, where)
    radius = grids.shape[-1] - 2
    x, y, z = where.unbind(1)
    found = grids[:, z + radius, y + radius, x]
    return torch.where(flipped, found.conj(), found)
