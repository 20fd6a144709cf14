"""Shifts of images as phase ramps.

Owns: the sign of a shift. Does not own: the unit on file (`frazil.io` converts to Angstrom).
"""

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor


def shift_phase(
    kx: Shaped[Tensor, " P"], ky: Shaped[Tensor, " P"], shift_px: Float[Tensor, "B 2"], box_px: int
) -> Complex[Tensor, "B P"]:
    """Return exp(-2 pi i (kx tx + ky ty) / D): times F, it moves the image by (tx, ty) px.

    Parameters
    ----------
    kx, ky : frequencies in cycles per box.
    shift_px : (x, y), the shift that centres the particle, in px of the box of side D.
    box_px : D.
    """
    angle = shift_px[:, :1] * kx.to(shift_px) + shift_px[:, 1:] * ky.to(shift_px)
    angle = angle * (-2 * torch.pi / box_px)
    return torch.polar(torch.ones_like(angle), angle)
