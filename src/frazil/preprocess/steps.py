"""The steps from a real image to its packed coefficients, as pure functions.

Owns: window, sign, Fourier crop and their order. Does not own: reading (`frazil.io`), precision
(`frazil.store.codec`) or threads (`pipeline`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from frazil.geometry.fourier import fourier_from_hartley
from frazil.geometry.packing import HalfDisc, half_disc, pack, pack_images
from frazil.geometry.window import soft_window
from frazil.preprocess.settings import WINDOW_OUTER, ImageSettings

# Images transformed at once: few enough to stay in a core's cache.
SUB_BATCH = 4


@dataclass(frozen=True, eq=False)
class ImageTransform:
    """What happens to every image of one set; made by `plan_transform`.

    `weight` is the window times the sign, (D0, D0) for window-first or (D, D) for crop-first.
    """

    domain: str
    source_box_px: int
    disc: HalfDisc
    crop_first: bool
    weight: Tensor

    @property
    def box_px(self) -> int:
        """Side of the packed box, px."""
        return self.disc.box_px


def plan_transform(settings: ImageSettings, source_box_px: int, domain: str) -> ImageTransform:
    """Return the transform of images of a source box; `domain` is "real" or "hartley".

    Hartley images (cryoDRGN's .ft stacks) were windowed and inverted when they were made.
    """
    box_px = settings.box_px or source_box_px
    crop_first = settings.window_order == "crop-first"
    side = box_px if crop_first else source_box_px
    weight = torch.ones(side, side)
    if settings.window:
        weight = soft_window(side, settings.window_r, WINDOW_OUTER)
    weight = weight * (1.0 if settings.uninvert_data else -1.0)
    return ImageTransform(domain, source_box_px, half_disc(box_px), crop_first, weight)


def packed_coefficients(
    images: Float[Tensor, "B S S"], transform: ImageTransform
) -> Complex[Tensor, "B P"]:
    """Return the coefficients of the disc, in the store's order and the source's units."""
    packed = torch.empty(len(images), len(transform.disc), dtype=torch.complex64)
    for start in range(0, len(images), SUB_BATCH):
        part = images[start : start + SUB_BATCH]
        packed[start : start + SUB_BATCH] = _pack_part(part, transform)
    return packed


def _pack_part(images: Tensor, transform: ImageTransform) -> Tensor:
    if transform.domain == "hartley":
        return pack(fourier_from_hartley(images), transform.disc)
    if transform.crop_first:
        images = downsample_images(images, transform.box_px)
    return pack_images(images * transform.weight, transform.disc)


def downsample_images(images: Float[Tensor, "B S S"], box_px: int) -> Float[Tensor, "B D D"]:
    """Return images Fourier-cropped to a smaller box.

    Grey values grow by (S/D)^2, so that sums over pixels stay (cryoDRGN's convention). The rows
    and columns at -D/2 are the mean of the original coefficients at -D/2 and +D/2.
    """
    side, radius = images.shape[-1], box_px // 2
    if side == box_px:
        return images
    rows = torch.fft.rfft(images, dim=-1)[..., : radius + 1]
    half = torch.fft.fft(rows, dim=-2)
    cropped = torch.cat([half[:, : radius + 1], half[:, side - radius + 1 :]], dim=1)
    cropped[:, radius] = (half[:, radius] + half[:, side - radius]) / 2
    # The origin moves from S/2 to D/2: both phases are (-1)^(kx + ky) and cancel.
    return torch.fft.irfft2(cropped, s=(box_px, box_px))


def downsample_volume(volume: Float[Tensor, "S S S"], box_px: int) -> Float[Tensor, "D D D"]:
    """Return a volume Fourier-cropped to a smaller box; grey values grow by (S/D)^3."""
    side, radius = volume.shape[-1], box_px // 2
    if side == box_px:
        return volume
    half = torch.fft.rfftn(volume)[..., : radius + 1]
    for axis in (0, 1):
        half = half.movedim(axis, 0)
        cropped = torch.cat([half[: radius + 1], half[side - radius + 1 :]])
        cropped[radius] = (half[radius] + half[side - radius]) / 2
        half = cropped.movedim(0, axis)
    return torch.fft.irfftn(half, s=(box_px,) * 3)


def hartley_images(
    images: Float[Tensor, "B S S"], transform: ImageTransform
) -> Float[Tensor, "B D1 D1"]:
    """Return cryoDRGN's preprocessed images: Hartley, centred, side D + 1, zero frequency kept.

    The samples at +D/2 are those of the original transform, not copies of those at -D/2; after a
    crop to D before the window the two are aliases of each other.
    """
    side = transform.box_px + 1
    out = torch.empty(len(images), side, side)
    for start in range(0, len(images), SUB_BATCH):
        part = images[start : start + SUB_BATCH]
        if transform.crop_first:
            part = downsample_images(part, transform.box_px)
        _hartley_part(part * transform.weight, out[start : start + SUB_BATCH])
    return out


def _hartley_part(images: Tensor, out: Tensor) -> None:
    """Fill (B, D+1, D+1) with the centred Hartley transforms of a few images."""
    radius = out.shape[-1] // 2
    # 1. The half 0 <= kx <= D/2 of the transform, columns contiguous: (B, kx, ky).
    rows = torch.fft.rfft(images, dim=-1)[..., : radius + 1]
    half = torch.fft.fft(rows.transpose(-2, -1).contiguous(), dim=-1)
    # 2. -D/2 <= ky <= D/2; the origin moves from pixel 0 to the middle by (-1)^(kx + ky).
    ky = torch.arange(-radius, radius + 1)
    half = half.index_select(-1, ky % images.shape[-1])
    half = half * (1 - 2 * ((ky + torch.arange(radius + 1)[:, None]) % 2))
    # 3. H(k) = Re F - Im F, and H(-k) = Re F + Im F.
    out[..., radius:] = (half.real - half.imag).transpose(-2, -1)
    out[..., :radius] = (half.real + half.imag)[:, 1:].flip(-2, -1).transpose(-2, -1)
