"""From sums of rings to a map: bandwidth and shrinkage by half-set cross-validation.

Owns: the estimate of each bandwidth, how well it predicts the other half set, and the estimate
that takes the best of each shell. Does not own: the sums (`streaming`), the base (`maps`).

Per voxel, a ball j of half set h gives A = sum w c^2/s^2 and, for the residual to the base,
b = sum w c/s^2 r. The estimate x = b / (A + R), R the mean of A in the shell, is masked in real
space. The loss of g x against the smallest ball (0) of the other half set is, but for a constant,
sum A0 |g x|^2 - 2 Re(g x* b0): least at g = sum Re(x* b0) / sum A0 |x|^2, where it is minus
(sum Re(x* b0))^2 / sum A0 |x|^2. In every shell the ball with the least loss is taken. Noise of the
halves is independent, so a residual that is not there in both gets g = 0.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry, to_half_grids, to_real_space
from frazil.engines.pca.sums import joined_plane

Array = NDArray[np.float64]
Grid = NDArray[np.complex64]

# Shells on either side over which the figures of a shell are averaged, with falling weight.
SMOOTHING = 4
# Part of the mean weight of a shell that regularises the mean of a half set.
MEAN_RIDGE = 0.02
# An agreement of this many deviations of chance, or less, is taken for noise.
CHANCE_DEVIATIONS = 2.0
LARGEST_SHARE = 0.9999


@dataclass(frozen=True, eq=False)
class Balls:
    """Normal equations of all bandwidths: weight (2, J, V), right (2, J, V) complex, per half."""

    weight: NDArray[np.float32]
    right: Grid

    @classmethod
    def of(cls, sums: NDArray[np.float32], side: int, geometry: Geometry) -> "Balls":
        """Return those of the sums of rings (2, J, V * M), with right-hand side number `side`."""
        halves, count, _ = sums.shape
        voxels = len(geometry.voxel_shell)
        sides = sums.shape[-1] // voxels // 2
        weight = np.empty((halves, count, voxels), np.float32)
        right = np.empty((halves, count, voxels), np.complex64)
        for half in range(halves):
            for ring in range(count):
                lanes = joined_plane(sums[half, ring].reshape(voxels, -1), sides, geometry)
                weight[half, ring] = lanes[:, 0]
                right[half, ring].real = lanes[:, 1 + side]
                right[half, ring].imag = lanes[:, 1 + sides + side]
        return cls(np.cumsum(weight, axis=1, out=weight), np.cumsum(right, axis=1, out=right))

    def around(self, base: Grid) -> "Balls":
        """Return those of the residual to grids (2, V), one of each half set.

        A voxel's residual is b - A base: as if every slice point lay on a voxel.
        """
        return Balls(self.weight, self.right - self.weight * base[:, None])


@dataclass(frozen=True, eq=False)
class Choice:
    """Per shell (S,): the ball, by number, and which share of its half-set estimate is signal."""

    ball: NDArray[np.int64]
    share: Array


def estimate(
    weight: NDArray[np.floating],
    right: NDArray[np.complexfloating],
    ridge: float | Array,
    geometry: Geometry,
) -> Grid:
    """Return (V,) right / (weight + ridge times the mean weight of the shell); 0 outside.

    Parameters
    ----------
    ridge : one number, or (S,).
    """
    shell = geometry.voxel_shell
    level = ridge * geometry.shell_means(weight)
    total = weight + np.where(shell >= 0, level[shell], 1)
    seen = (shell >= 0) & (total > 0)
    return np.divide(right, total, out=np.zeros_like(right), where=seen).astype(np.complex64)


def choose(balls: Balls, mask: Tensor, geometry: Geometry) -> Choice:
    """Return the best ball of every shell, and how far its estimate is to be trusted."""
    count = balls.weight.shape[1]
    shells = geometry.box_px // 2 + 1
    agree, power = np.zeros((count, shells)), np.zeros((count, shells))
    for ball in range(count):
        for half in (0, 1):
            grid = estimate(balls.weight[half, ball], balls.right[half, ball], 1.0, geometry)
            grid = masked_grid(grid, mask, geometry)
            other = balls.weight[1 - half, 0], balls.right[1 - half, 0]
            agree[ball] += shell_sums((grid.conj() * other[1]).real, geometry)
            power[ball] += shell_sums(other[0] * np.abs(grid) ** 2, geometry)
    agree, power = smoothed(agree), smoothed(power)
    gain = np.clip(agree, 0, None) / np.maximum(power, 1e-300)
    score = gain * agree
    ball = score.argmax(0)
    best = np.arange(shells)
    # x with R = A is half of b / A.
    share = gain[ball, best] / 2 * beyond_chance(score[ball, best])
    return Choice(ball, np.clip(share, 0, LARGEST_SHARE))


def beyond_chance(score: Array) -> Array:
    """Return (S,) the part of an agreement that is not what noise gives by chance, 0 to 1.

    Parameters
    ----------
    score : (S,) agree^2 / power, both smoothed. For noise, where b0 has the variance A0, agree^2
        is on average the power in one direction of prediction. The two directions are nearly the
        same number, so theirs is twice that; smoothing with weights t lowers it by sum t^2.
    """
    weights = triangle()
    chance = 2 * (weights**2).sum()
    return np.clip(1 - CHANCE_DEVIATIONS**2 * chance / np.maximum(score, 1e-300), 0, 1)


def of_both(balls: Balls, choice: Choice, geometry: Geometry) -> Grid:
    """Return (V,) the Wiener estimate from both half sets, which are twice the images of one."""
    share = 2 * choice.share / (1 + choice.share)
    return _shellwise(balls.weight.sum(0), balls.right.sum(0), choice.ball, share, geometry)


def of_half(balls: Balls, choice: Choice, half: int, geometry: Geometry) -> Grid:
    """Return (V,) the Wiener estimate from one half set."""
    return _shellwise(balls.weight[half], balls.right[half], choice.ball, choice.share, geometry)


def wiener_ridge(share: Array) -> Array:
    """Return the ridge, in mean weights, that leaves this share of an estimate: noise / signal."""
    return (1 - share) / np.maximum(share, 1e-9)


def _shellwise(
    weight: NDArray[np.float32],
    right: Grid,
    ball: NDArray[np.int64],
    share: Array,
    geometry: Geometry,
) -> Grid:
    """Return (V,) an estimate that takes each shell from its ball; weight and right (J, V)."""
    out = np.zeros(weight.shape[-1], np.complex64)
    shell = geometry.voxel_shell
    for number in np.unique(ball):
        grid = estimate(weight[number], right[number], wiener_ridge(share), geometry)
        here = (shell >= 0) & (ball[shell] == number)
        out[here] = grid[here]
    return out


def masked_grid(grid: Grid, mask: Tensor, geometry: Geometry) -> Grid:
    """Return the half grid (V,) of the volume times a mask."""
    volume = to_volume(grid, geometry) * mask
    return to_half_grids(volume[None], geometry)[0].reshape(-1).numpy()


def to_volume(grid: Grid, geometry: Geometry) -> Tensor:
    """Return the volume (D, D, D) of a half grid (V,)."""
    shape = geometry.shape.tolist()
    return to_real_space(torch.from_numpy(grid).view(1, *shape))[0]


def shell_sums(values: NDArray[np.floating], geometry: Geometry) -> Array:
    """Return (S,) the sum of (V,) values over each shell of the whole grid."""
    inside = geometry.voxel_shell >= 0
    weight = geometry.voxel_copies[inside] * values[inside]
    shells = geometry.box_px // 2 + 1
    return np.bincount(geometry.voxel_shell[inside], weight, shells).astype(np.float64)


def smoothed(curves: Array) -> Array:
    """Return curves (J, S) averaged over neighbouring shells with a triangle."""
    padded = np.pad(curves, ((0, 0), (SMOOTHING, SMOOTHING)))
    return np.stack([np.convolve(curve, triangle(), "valid") for curve in padded])


def triangle() -> Array:
    """Return the weights of a smoothed figure's shells; their sum is 1."""
    rising = np.arange(1, SMOOTHING + 2, dtype=np.float64)
    weights = np.concatenate([rising, rising[-2::-1]])
    return weights / weights.sum()
