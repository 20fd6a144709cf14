"""How well an order of an epoch mixes its source.

Owns: statistics of source positions over batches, relative to a random permutation. Does not own:
how an order is made (`frazil.loader.order`).

Of a random permutation of N positions with variance s^2 (denominator N - 1), the mean of a batch of
B has variance s^2 (1/B - 1/N), the variance inside a batch is s^2, and a batch's number and its
mean do not correlate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ShuffleQuality:
    """Statistics of an epoch of `batches` full batches; of a random permutation 0, 1 and 1.

    Attributes
    ----------
    correlation : of the number of a batch with the mean source position in it.
    mean_spread : variance of the batches' means, over what a random permutation gives.
    within_spread : mean variance inside the batches, over that of all positions.
    batches : their number; by chance, the figures differ from 0, 1 and 1 by about 1, 1.4 and
        1.4 / sqrt(B) over its square root.
    """

    correlation: float
    mean_spread: float
    within_spread: float
    batches: int


def shuffle_quality(positions: NDArray[np.int64], batch_size: int) -> ShuffleQuality:
    """Return the quality of an order.

    Parameters
    ----------
    positions : (N,) source position of each row, in the order in which rows are trained.
    batch_size : B >= 2; what is left behind the last full batch is not looked at.
    """
    whole = len(positions) // batch_size
    batches = positions[: whole * batch_size].reshape(whole, batch_size).astype(np.float64)
    variance = positions.astype(np.float64).var(ddof=1)
    means = batches.mean(axis=1)
    expected = variance * (1 / batch_size - 1 / len(positions))
    return ShuffleQuality(
        correlation=float(np.corrcoef(np.arange(whole), means)[0, 1]),
        mean_spread=float(means.var(ddof=1) / expected),
        within_spread=float(batches.var(axis=1, ddof=1).mean() / variance),
        batches=whole,
    )
