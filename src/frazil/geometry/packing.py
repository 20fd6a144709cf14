"""The half-plane disc: which Fourier coefficients of an image are kept, and in what order.

Owns: the set {k : 0 < |k| <= D/2} of one half plane, its order (resolution bands, then small
tiles), and the maps image <-> vector. The transform of a real image is Hermitian, so the half
plane holds all of the disc. Does not own: precision and bytes (`frazil.store`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

TILE_PX = 8
FIRST_BAND_RADIUS_PX = 16


@dataclass(frozen=True, eq=False)
class HalfDisc:
    """The P kept frequencies of a box of side D px, with kx > 0, or kx = 0 and ky > 0.

    Attributes
    ----------
    box_px : D, even.
    kx, ky : (P,) frequencies in cycles per box.
    shell : (P,) |k| rounded up, 1 to D/2: shell r is the ring (r-1, r], so the disc of a smaller
        box of radius r is exactly the shells up to r.
    bands : (start, stop, radius) per resolution band: coefficients [start, stop) have
        |k| <= radius; the radii are 16, 32, 64, ... and at last D/2.
    """

    box_px: int
    kx: Int64[Tensor, " P"]
    ky: Int64[Tensor, " P"]
    shell: Int64[Tensor, " P"]
    bands: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return int(self.kx.shape[0])

    @property
    def radius_px(self) -> int:
        """D/2, the largest |k| kept."""
        return self.box_px // 2


@lru_cache(maxsize=16)
def half_disc(box_px: int) -> HalfDisc:
    """Return the half-plane disc of a box, in the order in which a store keeps it.

    Band by band outwards; inside a band by square tiles of TILE_PX frequencies (tile row, tile
    column), and inside a tile by (ky, kx). The disc of a box whose radius is 16, 32, 64, ... is a
    prefix of that of every larger box.

    Raises
    ------
    ValueError : box_px is odd or smaller than 4.
    """
    if box_px % 2 or box_px < 4:
        raise ValueError(f"the box must be even and at least 4 px, not {box_px}")
    radius = box_px // 2
    ky, kx = torch.meshgrid(
        torch.arange(-radius, radius + 1), torch.arange(0, radius + 1), indexing="ij"
    )
    ky, kx = ky.reshape(-1), kx.reshape(-1)
    squared = kx * kx + ky * ky
    keep = (squared <= radius * radius) & ((kx > 0) | (ky > 0))
    ky, kx, squared = ky[keep], kx[keep], squared[keep]

    radii = [FIRST_BAND_RADIUS_PX]
    while radii[-1] < radius:
        radii.append(2 * radii[-1])
    radii[-1] = radius
    band = torch.bucketize(squared, torch.tensor([r * r for r in radii]))  # (P,)

    # One integer key per coefficient: (band, tile row, tile column, ky, kx), all made positive.
    span = 2 * box_px + 2 * TILE_PX
    key = band
    for part in (ky // TILE_PX, kx // TILE_PX, ky, kx):
        key = key * span + (part + span // 2)
    order = torch.argsort(key)
    counts = torch.bincount(band, minlength=len(radii)).tolist()
    edges = [sum(counts[:i]) for i in range(len(radii) + 1)]
    bands = tuple((edges[i], edges[i + 1], radii[i]) for i in range(len(radii)))
    shell = torch.ceil(torch.sqrt(squared.double())).long()
    return HalfDisc(box_px, kx[order], ky[order], shell[order], bands)


def pack(transform: Complex[Tensor, "... S S"], disc: HalfDisc) -> Complex[Tensor, "... P"]:
    """Return the coefficients of the disc from a centred transform of side S >= D.

    S may be even (frequency 0 at S/2; the +S/2 row is then read from -S/2, its alias) or odd
    (frequency 0 at (S-1)/2).

    Raises
    ------
    ValueError : the transform is smaller than the box of the disc.
    """
    side = transform.shape[-1]
    _check_side(side, disc)
    centre = side // 2
    rows, columns = (disc.ky + centre) % side, (disc.kx + centre) % side
    return transform[..., rows, columns]


def unpack(packed: Complex[Tensor, "... P"], disc: HalfDisc) -> Complex[Tensor, "... S S"]:
    """Return the centred Hermitian (D+1) x (D+1) transform; zero at k = 0 and outside the disc."""
    side = disc.box_px + 1
    centre = disc.radius_px
    full = packed.new_zeros((*packed.shape[:-1], side, side))
    full[..., disc.ky + centre, disc.kx + centre] = packed
    full[..., centre - disc.ky, centre - disc.kx] = packed.conj()
    return full


def pack_images(images: Float[Tensor, "B D D"], disc: HalfDisc) -> Complex[Tensor, "B P"]:
    """Return the disc's coefficients of real images (on the CPU) of a side at least the disc's.

    Equal to `pack(fft2_centred(images), disc)`, with only the needed columns transformed twice.
    Fast when B is small enough for the images to stay in the processor's cache (about 4).

    Raises
    ------
    ValueError : the images are smaller than the box of the disc.
    """
    side = images.shape[-1]
    _check_side(side, disc)
    # 1. Rows: real transform, keep 0 <= kx <= radius; laid out so that columns are contiguous.
    rows = torch.fft.rfft(images, dim=-1)[..., : disc.radius_px + 1]
    columns = _transposed(rows)  # (B, radius + 1, D)
    # 2. Columns of what is left.
    half = torch.fft.fft(columns, dim=-1)
    # 3. Gather the disc; the origin moves from pixel 0 to pixel D/2 by (-1)^(kx + ky).
    index, sign = _gathering(disc, side)
    # numpy takes three times as fast as torch here.
    packed = torch.from_numpy(np.take(half.flatten(-2).numpy(), index.numpy(), axis=-1))
    return packed.mul_(sign.to(images.dtype))


def _transposed(rows: Complex[Tensor, "B D R"]) -> Complex[Tensor, "B R D"]:
    """Return contiguous columns; numpy copies them five times as fast as torch, as 8-byte items."""
    if rows.dtype != torch.complex64:
        return rows.transpose(-2, -1).contiguous()
    columns = torch.empty(rows.shape[0], rows.shape[2], rows.shape[1], dtype=rows.dtype)
    np.copyto(columns.numpy().view(np.int64), rows.numpy().view(np.int64).transpose(0, 2, 1))
    return columns


@lru_cache(maxsize=16)
def _gathering(disc: HalfDisc, side: int) -> tuple[Tensor, Tensor]:
    """Return (P,) places in (radius + 1) x side transforms, and the checkerboard as float32."""
    return disc.kx * side + disc.ky % side, _checkerboard(disc).float()


def to_real_space(
    packed: Complex[Tensor, "B P"], disc: HalfDisc, box_px: int | None = None
) -> Float[Tensor, "B D D"]:
    """Return real images of side box_px (default: the disc's box), mean 0, divided by box_px^2.

    Inverse of `pack_images` for images whose transform is zero at k = 0 and outside the disc. At
    |k| = box_px/2 on the axes only the real part is representable in a box of side box_px. A
    smaller box_px (even) keeps the coefficients of its own disc, |k| <= box_px/2.
    """
    side = disc.box_px if box_px is None else box_px
    kx, ky = disc.kx, disc.ky
    values = packed * _checkerboard(disc).to(packed.real.dtype)
    if side < disc.box_px:
        inside = 4 * (kx * kx + ky * ky) <= side * side
        kx, ky, values = kx[inside], ky[inside], values[:, inside]
    half = packed.new_zeros((packed.shape[0], side, side // 2 + 1))
    half[:, ky % side, kx] = values
    on_axis = (kx == 0) & (2 * ky < side)
    half[:, -ky[on_axis] % side, 0] = values[:, on_axis].conj()
    return torch.fft.irfft2(half, s=(side, side))


def hartley_values(packed: Complex[Tensor, "... P"]) -> Float[Tensor, "... Q"]:
    """Return the Hartley values of the whole disc, (H(k) for all P, then H(-k) for all P).

    H(k) = Re F - Im F and H(-k) = Re F + Im F, so H(k)^2 + H(-k)^2 = 2 |F(k)|^2.
    """
    return torch.cat([packed.real - packed.imag, packed.real + packed.imag], dim=-1)


def _check_side(side: int, disc: HalfDisc) -> None:
    """Raise ValueError when a transform of this side lacks coefficients of the disc."""
    if side < disc.box_px:
        raise ValueError(f"the disc of a {disc.box_px} px box is not within a side of {side} px")


def _checkerboard(disc: HalfDisc) -> Int64[Tensor, " P"]:
    """Return (-1)^(kx + ky), the phase of a move of the origin by half the box."""
    return 1 - 2 * ((disc.kx + disc.ky) % 2)
