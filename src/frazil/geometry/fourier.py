"""Centred Fourier transforms and Fourier cropping.

Owns: the transform convention of the project (see the package) and the Hartley form of it.
Does not own: the packing of coefficients into vectors (`packing`).
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

_IMAGE_AXES = (-2, -1)
_VOLUME_AXES = (-3, -2, -1)


def fft2_centred(images: Float[Tensor, "... D D"]) -> Complex[Tensor, "... D D"]:
    """Return the centred transform of images; frequency 0 is at index D/2, axes (ky, kx)."""
    shifted = torch.fft.ifftshift(images, dim=_IMAGE_AXES)
    return torch.fft.fftshift(torch.fft.fft2(shifted), dim=_IMAGE_AXES)


def ifft2_centred(transform: Complex[Tensor, "... D D"]) -> Complex[Tensor, "... D D"]:
    """Return the inverse of `fft2_centred` (divides by D^2; real images come back complex)."""
    shifted = torch.fft.ifftshift(transform, dim=_IMAGE_AXES)
    return torch.fft.fftshift(torch.fft.ifft2(shifted), dim=_IMAGE_AXES)


def fft3_centred(volumes: Float[Tensor, "... D D D"]) -> Complex[Tensor, "... D D D"]:
    """Return the centred transform of volumes; frequency 0 at index D/2, axes (kz, ky, kx)."""
    shifted = torch.fft.ifftshift(volumes, dim=_VOLUME_AXES)
    return torch.fft.fftshift(torch.fft.fftn(shifted, dim=_VOLUME_AXES), dim=_VOLUME_AXES)


def ifft3_centred(transform: Complex[Tensor, "... D D D"]) -> Complex[Tensor, "... D D D"]:
    """Return the inverse of `fft3_centred` (divides by D^3; real volumes come back complex)."""
    shifted = torch.fft.ifftshift(transform, dim=_VOLUME_AXES)
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=_VOLUME_AXES), dim=_VOLUME_AXES)


def fourier_crop2(transform: Complex[Tensor, "... D D"], box_px: int) -> Complex[Tensor, "... d d"]:
    """Return the central box_px x box_px coefficients of a centred transform, unchanged.

    The real-space image of the cropped box has (D/box_px)^2 times the grey values of the
    original, because the coefficients are unnormalised (the convention of cryoDRGN). Frequency 0
    goes to index box_px // 2, so an odd box_px (D + 1) of a larger box holds k and -k of the disc.

    Raises
    ------
    ValueError : box_px is larger than the side of the transform.
    """
    kept = _central(transform.shape[-1], box_px)
    return transform[..., kept, kept]


def fourier_crop3(
    transform: Complex[Tensor, "... D D D"], box_px: int
) -> Complex[Tensor, "... d d d"]:
    """Return the central box_px^3 coefficients of a centred transform, unchanged.

    Raises
    ------
    ValueError : box_px is larger than the side of the transform.
    """
    kept = _central(transform.shape[-1], box_px)
    return transform[..., kept, kept, kept]


def hartley_from_fourier(transform: Complex[Tensor, "... S S"]) -> Float[Tensor, "... S S"]:
    """Return H = Re F - Im F."""
    return transform.real - transform.imag


def fourier_from_hartley(hartley: Float[Tensor, "... S S"]) -> Complex[Tensor, "... S S"]:
    """Return F of real images from H on a centred grid of odd side (k and -k both present).

    With H = Re F - Im F, Re F even and Im F odd in k: Re F(k) = (H(k) + H(-k)) / 2 and
    Im F(k) = (H(-k) - H(k)) / 2.
    """
    mirrored = torch.flip(hartley, dims=_IMAGE_AXES)  # H(-k)
    return torch.complex((hartley + mirrored) / 2, (mirrored - hartley) / 2)


def _central(side: int, box_px: int) -> slice:
    """Return the indices of box_px frequencies about index side // 2, where frequency 0 is."""
    if not 0 < box_px <= side:
        raise ValueError(f"a transform of side {side} cannot be cropped to {box_px} px")
    start = side // 2 - box_px // 2
    return slice(start, start + box_px)
