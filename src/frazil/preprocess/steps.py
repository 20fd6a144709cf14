"""The steps from a real image to its packed coefficients, as pure functions.

Owns: window, sign, Fourier crop and their order, and resampling to another pixel size. Does not
own: reading (`frazil.io`), precision (`frazil.store.codec`) or threads (`pipeline`).
"""

from dataclasses import dataclass, replace

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
    `waves` are set where the frequencies of the disc are not those of the source's box.
    """

    domain: str
    source_box_px: int
    disc: HalfDisc
    crop_first: bool
    weight: Tensor
    waves: "Waves | None" = None

    @property
    def box_px(self) -> int:
        """Side of the packed box, px."""
        return self.disc.box_px


def plan_transform(
    settings: ImageSettings, source_box_px: int, domain: str, window_px: float | None = None
) -> ImageTransform:
    """Return the transform of images of a source box.

    Parameters
    ----------
    domain : "real" or "hartley"; Hartley images (cryoDRGN's .ft stacks) were windowed and inverted
        when they were made.
    window_px : side of the part of the image that the window spans (and that is left without a
        window), in pixels of the source; default, all of it.
    """
    box_px = settings.box_px or source_box_px
    crop_first = settings.window_order == "crop-first"
    side = box_px if crop_first else source_box_px
    weight = torch.ones(side, side)
    if settings.window:
        part = 1.0 if window_px is None else window_px / side
        weight = soft_window(side, settings.window_r * part, WINDOW_OUTER * part)
    elif window_px is not None:
        inside = (torch.arange(side) - side // 2).abs() < window_px / 2
        weight = weight * inside * inside[:, None]
    weight = weight * (1.0 if settings.uninvert_data else -1.0)
    return ImageTransform(domain, source_box_px, half_disc(box_px), crop_first, weight)


@dataclass(frozen=True, eq=False)
class Waves:
    """exp(-2 pi i f k x) at the pixels x of a side: the two factors of a transform at any step f.

    `columns` (S, 2, D/2 + 1) float32 holds real and imaginary parts for kx >= 0, `rows`
    (D + 1, S) complex64 those for -D/2 <= ky <= D/2.
    """

    columns: Tensor
    rows: Tensor

    @classmethod
    def of(cls, side_px: int, radius_px: int, cycles_per_px: float) -> "Waves":
        """Return the waves of k = 1 .. radius_px times `cycles_per_px`; the origin is pixel S/2."""
        x = torch.arange(side_px, dtype=torch.float64) - side_px // 2
        k = torch.arange(-radius_px, radius_px + 1, dtype=torch.float64)
        turns = cycles_per_px * k[:, None] * x  # (D + 1, S)
        waves = torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)
        columns = torch.view_as_real(waves[radius_px:].T).movedim(-1, 1)
        return cls(columns.float().contiguous(), waves.to(torch.complex64))


def resampled_transform(
    transform: ImageTransform, cycles_per_px: float, grey_scale: float
) -> ImageTransform:
    """Return the transform of images whose frequency k is at k * cycles_per_px.

    Parameters
    ----------
    transform : of that source box, window-first.
    cycles_per_px : frequency of k = 1 in cycles per pixel of the source.
    grey_scale : what the coefficients are multiplied by.
    """
    side, box_px = transform.source_box_px, transform.box_px
    weight = transform.weight * grey_scale
    if cycles_per_px == 1 / side and box_px <= side:
        return replace(transform, weight=weight)
    return replace(
        transform, weight=weight, waves=Waves.of(side, transform.disc.radius_px, cycles_per_px)
    )


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
    if transform.waves is not None:
        return _at_frequencies(images * transform.weight, transform.waves, transform.disc)
    return pack_images(images * transform.weight, transform.disc)


def _at_frequencies(
    images: Float[Tensor, "B S S"], waves: Waves, disc: HalfDisc
) -> Complex[Tensor, "B P"]:
    """Return the coefficients of the disc at the frequencies of the waves."""
    side, radius = images.shape[-1], disc.radius_px
    place = (disc.ky + radius) * (radius + 1) + disc.kx
    packed = torch.empty(len(images), len(disc), dtype=torch.complex64)
    # One by one: a product of matrices may round differently with other images beside.
    for image, out in zip(images, packed, strict=True):
        half = (image @ waves.columns.view(side, -1)).view(side, 2, -1)  # (S, 2, D/2 + 1)
        full = waves.rows @ torch.complex(half[:, 0], half[:, 1])  # (D + 1, D/2 + 1)
        torch.index_select(full.view(-1), 0, place, out=out)
    return packed


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
