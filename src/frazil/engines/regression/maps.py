"""Maps, half maps and their FSC at points of a latent space.

Owns: what a map is made of, and the order of groups of points. Does not own: passes (`streaming`),
shrinkage (`shrinkage`), where images and latents come from (`source`), files (`frazil.analysis`).

With a linear model (train_pca), a map is the model's at the point, plus the shrunk residual of the
images near it. Without one, the consensus map takes the model's place. Half maps never use the
model: they are the consensus of a half set plus its shrunk residual to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.backproject import interpolation_response
from frazil.engines.pca import prior
from frazil.engines.pca.grids import Geometry, finished_maps, to_half_grids, to_real_space
from frazil.engines.pca.sums import VoxelSums
from frazil.engines.regression import shrinkage
from frazil.engines.regression.shrinkage import Balls, Grid
from frazil.engines.regression.streaming import RegressionSums
from frazil.metrics.fsc import fsc


@dataclass(frozen=True, eq=False)
class PointMap:
    """What is found at one point; maps (D, D, D) float32 in units of the data's norm scale.

    Attributes
    ----------
    halves : of disjoint half sets, not masked.
    curve : (S,) FSC of the half maps within the mask.
    ball, share : (S,) number of the ball, and share of signal in the residual to the base.
    """

    volume: Tensor
    halves: tuple[Tensor, Tensor]
    curve: Tensor
    ball: NDArray[np.int64]
    share: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Consensus:
    """What all images say: grids (2, V) of the half sets, and the map of both, to its FSC."""

    halves: Grid
    volume: Tensor


def consensus(
    everything: tuple[VoxelSums, VoxelSums], mask: Tensor, geometry: Geometry
) -> Consensus:
    """Return the mean of each half set, and the Wiener estimate of both by the FSC of the halves.

    The Wiener filter is all the sharpening there is: a shell keeps its measured amplitude as far
    as the half maps agree on it.
    """
    sums = [one.symmetric(geometry) for one in everything]
    weight = np.stack([one[:, 0] for one in sums]).astype(np.float32)
    right = np.stack([one[:, 1] + 1j * one[:, 2] for one in sums]).astype(np.complex64)
    halves = np.stack(
        [
            shrinkage.estimate(w, r, shrinkage.MEAN_RIDGE, geometry)
            for w, r in zip(weight, right, strict=True)
        ]
    )
    pair = [shrinkage.to_volume(half, geometry) for half in halves]
    curve = fsc(pair[0], pair[1], mask)
    ratio = 2 * prior.signal_to_noise(curve)
    ridge = shrinkage.wiener_ridge(ratio / (1 + ratio))
    both = shrinkage.estimate(weight.sum(0), right.sum(0), ridge, geometry)
    return Consensus(halves, corrected(both, geometry) * mask)


def corrected(grid: Grid, geometry: Geometry) -> Tensor:
    """Return the map (D, D, D) of an estimate (V,), free of the fall-off of insertion.

    The correction in real space leaks to k = 0 and beyond |k| = D/2, where there are no data; that
    is cut off.
    """
    volume = shrinkage.to_volume(grid, geometry) / interpolation_response(geometry.box_px)
    volume = volume - volume.mean()
    return to_real_space(to_half_grids(volume[None], geometry))[0]


def model_map(grids: Tensor, point: NDArray[np.floating], geometry: Geometry) -> Tensor:
    """Return the map (D, D, D) of a linear model's grids (L, Z, Y, X) at a point (L - 1,)."""
    weights = torch.from_numpy(np.concatenate([[1.0], point])).to(grids.dtype)
    return finished_maps(torch.einsum("l...,l->...", grids, weights)[None], geometry)[0]


def maps_of(
    sums: RegressionSums, bases: list[Tensor] | None, mask: Tensor, geometry: Geometry
) -> Iterator[PointMap]:
    """Yield the map of every target of a pass.

    Parameters
    ----------
    bases : the model's map at each target, when the first right-hand side is the residual to it.
    mask : (D, D, D), multiplied into the map and into what the halves are compared by.
    """
    mean = consensus(sums.everything, mask, geometry)
    for number, local in enumerate(sums.local):
        plain = Balls.of(local, 0 if bases is None else 1, geometry).around(mean.halves)
        own = shrinkage.choose(plain, mask, geometry)
        pair = [
            corrected(mean.halves[half] + shrinkage.of_half(plain, own, half, geometry), geometry)
            for half in (0, 1)
        ]
        if bases is None:
            balls, choice, base = plain, own, mean.volume
        else:
            del plain
            balls = Balls.of(local, 0, geometry)
            choice, base = shrinkage.choose(balls, mask, geometry), bases[number]
        residual = corrected(shrinkage.of_both(balls, choice, geometry), geometry)
        yield PointMap(
            base + residual * mask,
            (pair[0], pair[1]),
            fsc(pair[0], pair[1], mask),
            choice.ball,
            choice.share,
        )
