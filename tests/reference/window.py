"""The soft window as a loop over pixels."""

import numpy as np
from numpy.typing import NDArray


def soft_window(box_px: int, inner: float, outer: float) -> NDArray[np.float64]:
    """Return 1 inside `inner`, 0 outside `outer` (fractions of half the box), linear between."""
    axis = np.linspace(-1, 1, box_px, endpoint=False)
    window = np.zeros((box_px, box_px))
    for row, y in enumerate(axis):
        for column, x in enumerate(axis):
            r = np.hypot(x, y)
            if r < inner:
                window[row, column] = 1
            elif r < outer:
                window[row, column] = 1 - (r - inner) / (outer - inner)
    return window
