"""Volumes and particles as grey pictures for the report.

Owns: slices and projections of volumes, particle thumbnails in real space, grey scaling, a grey
PNG. Does not own: plots with axes (`plots`), the page (`report`).
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.geometry.packing import half_disc, to_real_space
from frazil.store.reader import ParticleStore

Pictures = NDArray[np.float32]
VIEWS = ("slice xy", "slice xz", "slice yz", "along z", "along y", "along x")
"""What the tiles of `volume_views` are: slices through the centre, then projections."""

LARGEST_TILE_PX = 128
THUMBNAIL_BOX_PX = 96
THUMBNAIL_LOW_PASS_ANG = 20.0
_GAP_PX = 2


def volume_views(volume: NDArray[np.float32]) -> Pictures:
    """Return three central slices and three projections (6, d, d) of a volume [z, y, x].

    Slices go through pixel D/2. Boxes larger than LARGEST_TILE_PX are shown by block means.
    """
    middle = volume.shape[0] // 2
    slices = [volume[middle], volume[:, middle], volume[:, :, middle]]
    projections = [volume.sum(axis) for axis in range(3)]
    step = -(-volume.shape[0] // LARGEST_TILE_PX)
    return np.stack([_block_means(tile, step) for tile in (*slices, *projections)])


def strips(views: Sequence[Pictures]) -> list[bytes]:
    """Return one PNG per volume, its tiles side by side, all in common grey scales.

    Slices share one scale and projections another, over all volumes, so that shades compare.
    """
    stack = np.stack(list(views))  # (K, 6, d, d)
    scaled = np.concatenate([to_grey(stack[:, :3]), to_grey(stack[:, 3:])], axis=1)
    return [grey_png(side_by_side(tiles)) for tiles in scaled]


def film(views: Sequence[Pictures], view: int) -> bytes:
    """Return one PNG with the same view of each volume side by side, in a common grey scale."""
    return grey_png(side_by_side(to_grey(np.stack([tiles[view] for tiles in views]))))


def particle_thumbnails(store: ParticleStore, rows: NDArray[np.int64]) -> tuple[Pictures, float]:
    """Return real-space pictures (n, d, d) of rows of a store, and their low-pass in Angstrom.

    Boxes larger than THUMBNAIL_BOX_PX are Fourier-cropped, and a Gaussian that falls to one half
    at THUMBNAIL_LOW_PASS_ANG (or at a quarter of the sampling frequency, where that is lower or
    the pixel size unknown; then 0 is returned) makes particles visible in the noise.
    """
    box_px = min(store.box_px, THUMBNAIL_BOX_PX)
    disc = half_disc(box_px)
    packed = store.images(rows, box_px)
    shell, low_pass_ang = box_px / 4, 0.0
    if store.pixel_size_ang is not None:
        box_ang = store.pixel_size_ang * store.box_px
        shell = min(shell, box_ang / THUMBNAIL_LOW_PASS_ANG)
        low_pass_ang = box_ang / shell
    radius = torch.sqrt((disc.kx**2 + disc.ky**2).float())
    packed = packed * torch.exp2(-((radius / shell) ** 2))
    return to_real_space(packed, disc).numpy(), low_pass_ang


def thumbnail_pngs(pictures: Pictures) -> list[bytes]:
    """Return one PNG per picture, each from 3 standard deviations below its mean to 3 above."""
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    deviation = centred.std(axis=(1, 2), keepdims=True)
    scaled = centred / np.where(deviation > 0, deviation, 1) / 6 + 0.5
    return [grey_png((picture.clip(0, 1) * 255).astype(np.uint8)) for picture in scaled]


def to_grey(pictures: Pictures) -> NDArray[np.uint8]:
    """Return pictures as 0 to 255 over one common range that leaves out few extreme pixels."""
    low, high = np.percentile(pictures, (0.5, 99.8))
    spread = high - low if high > low else 1.0
    return (((pictures - low) / spread).clip(0, 1) * 255).astype(np.uint8)


def side_by_side(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return tiles (n, d, d) in one row, a white gap between them."""
    gap = np.full((tiles.shape[1], _GAP_PX), 255, np.uint8)
    parts = [tiles[0]]
    for tile in tiles[1:]:
        parts += [gap, tile]
    return np.concatenate(parts, axis=1)


def grey_png(picture: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit grey PNG of a picture (height, width), row 0 on top.

    References
    ----------
    PNG specification (ISO/IEC 15948): IHDR, one IDAT with filter 0 on each row, IEND.
    """
    height, width = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = np.zeros((height, width + 1), np.uint8)  # a filter byte, then the pixels
    rows[:, 1:] = picture
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _block_means(picture: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    if step == 1:
        return picture
    side = picture.shape[0] // step * step
    blocks = picture[:side, :side].reshape(side // step, step, side // step, step)
    return blocks.mean(axis=(1, 3))
