"""The soft real-space window.

Owns: the window of cryoDRGN's preprocessing. Does not own: when it is applied
(`frazil.preprocess.steps`).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def soft_window(box_px: int, inner: float = 0.85, outer: float = 0.99) -> Float[Tensor, "D D"]:
    """Return a circular window: 1 inside radius `inner`, falling linearly to 0 at `outer`.

    Radii are fractions of half the box, counted from pixel D/2.

    Raises
    ------
    ValueError : unless 0 <= inner < outer.
    """
    if not 0 <= inner < outer:
        raise ValueError(f"the window needs 0 <= inner < outer, not {inner} and {outer}")
    axis = (torch.arange(box_px, dtype=torch.float64) - box_px / 2) / (box_px / 2)
    radius = torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    return ((outer - radius) / (outer - inner)).clamp(0, 1).float()
