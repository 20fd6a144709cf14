"""Random subsets of particle rows.

Owns: which rows a seed selects, equal to `cryodrgn_utils select_random`. Does not own: reading
selections (`pickles`) or joining them to particles (`particles`).
"""

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError

_MOST_PARTICLES = 1 << 32


def random_rows(
    total: int, count: int | None = None, fraction: float | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """Return random distinct rows of 0 .. total-1, ascending, (n,) int64.

    Parameters
    ----------
    total : number of particles.
    count : number of rows to select, 1 to total. Either this or `fraction`.
    fraction : part of the rows to select, above 0, at most 1; rounded down to a whole number.
    seed : of numpy's legacy generator, 0 to 2^32 - 1, so that a seed gives cryoDRGN's subset.

    Raises
    ------
    InputError : both or neither of count and fraction, or a value out of its range.
    """
    if total > _MOST_PARTICLES:
        raise InputError(f"{total} particles: more than {_MOST_PARTICLES}; check the number")
    if (count is None) == (fraction is None):
        raise InputError("give either -n or --frac" + (", not both" if count is not None else ""))
    if fraction is not None:
        if not 0 < fraction <= 1:
            raise InputError(f"--frac {fraction:g}: must be more than 0 and at most 1")
        count = int(total * fraction)
        if count < 1:
            raise InputError(f"--frac {fraction:g}: of {total} particles selects none; give more")
    if count is None or not 1 <= count <= total:
        raise InputError(f"-n {count}: must be from 1 to the {total} particles there are")
    if not 0 <= seed < 1 << 32:
        raise InputError(f"--seed {seed}: must be from 0 to {(1 << 32) - 1}")
    chosen = np.random.RandomState(seed).choice(np.arange(total), count, replace=False)
    return np.sort(chosen).astype(np.int64)


def other_rows(rows: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return the rows of 0 .. total-1 that are not in `rows`, ascending."""
    left = np.ones(total, bool)
    left[rows] = False
    return np.flatnonzero(left).astype(np.int64)
