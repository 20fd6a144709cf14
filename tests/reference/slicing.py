"""Trilinear interpolation and its adjoint on a full grid, cell by cell."""

from collections.abc import Iterator
from itertools import product
from math import floor

import numpy as np
from numpy.typing import NDArray


def cells(point: NDArray[np.float64], centre: int) -> Iterator[tuple[tuple[int, int, int], float]]:
    """Yield ((z, y, x) index, weight) of the eight neighbours of the frequency (kx, ky, kz)."""
    low = [floor(value) for value in point]
    for step in product((0, 1), repeat=3):
        weight = 1.0
        for value, base, up in zip(point, low, step, strict=True):
            weight *= (value - base) if up else 1 - (value - base)
        x, y, z = (base + up + centre for base, up in zip(low, step, strict=True))
        yield (z, y, x), weight


def extract(full: NDArray[np.complex128], points: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the interpolated values of a full centred grid of odd side at (M, 3) points."""
    centre = full.shape[0] // 2
    return np.array([sum(w * full[i] for i, w in cells(p, centre)) for p in points])


def insert(
    side: int, points: NDArray[np.float64], values: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """Return a full centred grid of odd side with the values spread from (M, 3) points."""
    full = np.zeros((side, side, side), complex)
    for point, value in zip(points, values, strict=True):
        for index, weight in cells(point, side // 2):
            full[index] += weight * value
    return full
