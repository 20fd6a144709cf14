"""Paths through the latent space along which volumes are made.

Owns: traversals along principal components. Does not own: the volumes (`volumes`).
"""

import numpy as np
from numpy.typing import NDArray

from frazil.analysis.embed import PrincipalAxes

LOW_PERCENTILE, HIGH_PERCENTILE = 5.0, 95.0


def traverse_axis(
    z: NDArray[np.float32], axes: PrincipalAxes, number: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return points (count, Z) on one principal axis, and their coordinates (count,) along it.

    The points are evenly spaced between the 5th and 95th percentile of the latents' coordinates;
    their other coordinates are those of the mean.

    Parameters
    ----------
    z : (n, Z) latents.
    number : principal component, from 1.

    Raises
    ------
    ValueError : there is no such component, or count < 2.
    """
    if not 1 <= number <= len(axes.axes):
        raise ValueError(f"principal component {number} of {len(axes.axes)}")
    if count < 2:
        raise ValueError(f"a path needs at least 2 points, not {count}")
    along = axes.project(z)[:, number - 1]
    low, high = np.percentile(along, (LOW_PERCENTILE, HIGH_PERCENTILE))
    steps = np.linspace(low, high, count)
    coordinates = np.zeros((count, len(axes.axes)))
    coordinates[:, number - 1] = steps
    return axes.at(coordinates), steps
