"""Filters of real images: correction of CTF phases, and translation.

Owns: the half transform that they share, and its Nyquist lines. Does not own: the CTF (`ctf`), the
sign of a shift (`shifts`), reading or writing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from frazil.geometry.ctf import ctf


def phase_flip(
    images: Float[Tensor, "B D D"], parameters: Float[Tensor, "B 8"]
) -> Float[Tensor, "B D D"]:
    """Return each image with its coefficients multiplied by the sign of its own CTF.

    Where the CTF is 0 the sign is that of low frequencies, -1. With the CTF of `frazil.geometry`
    dark particles become light. A second flip gives the images back.

    Parameters
    ----------
    parameters : as of `ctf`, pixel size of this box.
    """
    box_px = images.shape[-1]
    ky, kx = _half_frequencies(box_px)
    grid_y, grid_x = torch.meshgrid(ky, kx, indexing="ij")
    # In the column kx = D/2 the coefficients at ky and -ky are partners and need one sign, which
    # the CTF with astigmatism does not give them: that at ky > 0 is taken.
    grid_y = torch.where(2 * grid_x == box_px, grid_y.abs(), grid_y)
    values = ctf(grid_x.reshape(-1), grid_y.reshape(-1), parameters, box_px)
    sign = torch.where(values > 0, 1.0, -1.0).reshape(len(images), len(ky), len(kx))
    return _filtered(images, sign.to(images.dtype))


def translate(
    images: Float[Tensor, "B D D"], shift_px: Float[Tensor, "B 2"]
) -> Float[Tensor, "B D D"]:
    """Return each image moved by its own shift (x, y) in px, what leaves comes in opposite.

    Whole shifts are `torch.roll`. On the Nyquist lines the mean of the phases at -D/2 and +D/2,
    which are one coefficient, keeps the image real.
    """
    box_px = images.shape[-1]
    ky, kx = _half_frequencies(box_px)
    phase_x = _ramp(kx, shift_px[:, 0], box_px)
    phase_y = _ramp(ky, shift_px[:, 1], box_px)
    return _filtered(images, phase_y[:, :, None] * phase_x[:, None, :])


def _half_frequencies(box_px: int) -> tuple[Tensor, Tensor]:
    """Return (ky, kx) of the half transform, cycles per box, in torch's order."""
    return (
        torch.fft.fftfreq(box_px, 1 / box_px, dtype=torch.float64),
        torch.fft.rfftfreq(box_px, 1 / box_px, dtype=torch.float64),
    )


def _ramp(k: Tensor, shift_px: Tensor, box_px: int) -> Tensor:
    """Return exp(-2 pi i k t / D) (B, K); at |k| = D/2 the mean of both signs of k."""
    angle = shift_px[:, None].double() * k * (-2 * torch.pi / box_px)
    phase = torch.polar(torch.ones_like(angle), angle)
    nyquist = 2 * k.abs() == box_px
    return torch.where(nyquist, torch.complex(phase.real, torch.zeros_like(angle)), phase)


def _filtered(images: Tensor, factor: Tensor) -> Tensor:
    """Return the images (B, D, D) with their half transforms times `factor` (B, D, D//2 + 1)."""
    kind = torch.complex64 if images.dtype == torch.float32 else torch.complex128
    if factor.is_complex():
        factor = factor.to(kind)
    return torch.fft.irfft2(torch.fft.rfft2(images) * factor, s=images.shape[-2:])
