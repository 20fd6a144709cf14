"""Copies of MRC files that differ in one thing and keep the rest of the header.

Owns: another pixel size, other pixels under the same header (cell, origin, axes, labels, extended
header), the mirror of a map, and the header's fields by name. Does not own: what a header means
(`mrc`), nor files of our own (`mrc_writer`).
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import CorruptDataError, InputError
from frazil.io.atomic import atomic_path
from frazil.io.mrc import HEADER_BYTES, MrcHeader, check_images, read_header, read_images
from frazil.io.mrc_writer import Statistics

_BLOCK_BYTES = 16 << 20
_Z = 3  # the number of the z axis in mapc, mapr, maps
_FIELDS = (
    "4i nx ny nz mode|3i nxstart nystart nzstart|3i mx my mz|3f xlen ylen zlen|"
    "3f alpha beta gamma|3i mapc mapr maps|3f amin amax amean|2i ispg next"
)
_ORIGIN_BYTE, _STAMP_BYTE, _RMS_BYTE, _LABELS_BYTE = 196, 208, 216, 224
_STAMPS = {"<": b"MAP DD\0\0", ">": b"MAP \x11\x11\0\0"}
Sections = NDArray[np.float32]
Advance = Callable[[int], None]


def section_blocks(header: MrcHeader, order: NDArray[np.int64] | None = None) -> Iterator[Sections]:
    """Yield the sections of a file (n, ny, nx) in blocks of about 16 MB, all or in some order.

    Raises
    ------
    CorruptDataError : the file is cut short.
    """
    wanted = np.arange(header.nz) if order is None else order
    check_images(header, wanted)
    step = max(1, _BLOCK_BYTES // (4 * header.nx * header.ny))
    for start in range(0, len(wanted), step):
        yield read_images(header, wanted[start : start + step])


def mirrored_blocks(header: MrcHeader) -> Iterator[Sections]:
    """Yield the sections of a map of the other hand: z mirrored about its origin, voxel D/2.

    The plane z = D/2 stays, so that poses fit as before; of an even side the plane 0, which has no
    partner, stays as well. Twice gives the map back. z is the axis that the header calls so.

    Raises
    ------
    InputError : a stack of images.
    """
    if header.path.suffix in (".mrcs", ".st") or header.nz == 1:
        raise InputError(f"{header.path}: images have no hand; a map (.mrc) is wanted")
    axis = header.axes.index(_Z)  # 0 columns, 1 rows, 2 sections
    side = (header.nx, header.ny, header.nz)[axis]
    mirror = (2 * (side // 2) - np.arange(side)) % side
    if axis == 2:
        yield from section_blocks(header, mirror)
        return
    for block in section_blocks(header):
        yield np.ascontiguousarray(block.take(mirror, axis=2 - axis))


def write_like(
    header: MrcHeader,
    out: Path,
    blocks: Iterable[Sections],
    pixel_size_ang: float | None = None,
    advance: Advance = lambda sections: None,
) -> int:
    """Write other sections under a file's header, as float32, whole or not at all.

    Parameters
    ----------
    header : of the file whose header is kept; byte order and extended header with it.
    out : file to write.
    blocks : sections (n, ny, nx), nz in all.
    pixel_size_ang : pixel size in A; None keeps the file's.
    advance : called with the number of sections after each block.

    Returns
    -------
    int : number of sections with pixels that are not finite.
    """
    raw, order = _raw_header(header)
    statistics, written, bad = Statistics(), 0, 0
    with atomic_path(Path(out)) as temporary, temporary.open("wb") as file:
        file.write(raw)
        for block in blocks:
            statistics.add(block)
            bad += int((~np.isfinite(block).all(axis=(1, 2))).sum())
            file.write(block.astype(f"{order}f4", copy=False).data)
            written += len(block)
            advance(len(block))
        if written != header.nz:
            raise ValueError(f"{written} sections given for {header.nz}")
        low, high, mean, deviation = statistics.values()
        struct.pack_into(f"{order}i", raw, 12, 2)
        struct.pack_into(f"{order}3f", raw, 76, low, high, mean)
        raw[_STAMP_BYTE : _STAMP_BYTE + 8] = _STAMPS[order]
        struct.pack_into(f"{order}f", raw, _RMS_BYTE, deviation)
        if pixel_size_ang is not None:
            _set_cell(raw, order, pixel_size_ang)
        file.seek(0)
        file.write(raw)
    return bad


def set_pixel_size(
    path: Path, out: Path, pixel_size_ang: float, advance: Advance = lambda sections: None
) -> MrcHeader:
    """Copy a file with another pixel size (A) in its header; return the header that it had.

    Every other byte stays as it is, whatever the mode. `out` may be `path`: the copy replaces it
    when it is whole.

    Raises
    ------
    InputError : the pixel size is not positive.
    CorruptDataError : the file is cut short.
    """
    header = read_header(path)
    if not (np.isfinite(pixel_size_ang) and pixel_size_ang > 0):
        raise InputError(f"--Apix {pixel_size_ang}: must be positive")
    check_images(header, np.arange(header.nz))
    raw, order = _raw_header(header)
    _set_cell(raw, order, pixel_size_ang)
    step = max(1, _BLOCK_BYTES // header.frame_bytes)
    with (
        header.path.open("rb") as source,
        atomic_path(Path(out)) as temporary,
        temporary.open("wb") as file,
    ):
        file.write(raw)
        source.seek(len(raw))
        while block := source.read(step * header.frame_bytes):
            file.write(block)
            advance(len(block) // header.frame_bytes)
    return header


def header_fields(path: Path) -> dict[str, Any]:
    """Return the fields of a header by the names that MRC programs give them.

    `labels` are those in use, without blanks; `next` is the size of the extended header in bytes;
    `order` is the byte order.
    """
    header = read_header(path)
    raw, order = _raw_header(header)
    fields: dict[str, Any] = {}
    offset = 0
    for group in _FIELDS.split("|"):
        form, *names = group.split()
        fields.update(zip(names, struct.unpack_from(order + form, raw, offset), strict=True))
        offset += 4 * len(names)
    fields["nversion"] = struct.unpack_from(f"{order}i", raw, 108)[0]
    origin = struct.unpack_from(f"{order}3f", raw, _ORIGIN_BYTE)
    fields.update(zip(("xorg", "yorg", "zorg"), origin, strict=True))
    fields["cmap"] = bytes(raw[_STAMP_BYTE : _STAMP_BYTE + 4])
    fields["stamp"] = bytes(raw[_STAMP_BYTE + 4 : _STAMP_BYTE + 8])
    fields["rms"], fields["nlabl"] = struct.unpack_from(f"{order}fi", raw, _RMS_BYTE)
    texts = [raw[start : start + 80] for start in range(_LABELS_BYTE, HEADER_BYTES, 80)]
    plain = [bytes(text).strip(b"\0 ").decode("latin1") for text in texts]
    fields["labels"] = [text for text in plain if text]
    fields["order"] = {"<": "little", ">": "big"}[order]
    return fields


def _raw_header(header: MrcHeader) -> tuple[bytearray, str]:
    """Return the header with the extended one, and its byte order ("<" or ">")."""
    with header.path.open("rb") as file:
        raw = bytearray(file.read(header.data_offset))
    if len(raw) < header.data_offset:
        raise CorruptDataError(
            f"{header.path}: {len(raw)} bytes, its header alone says {header.data_offset}; "
            "copy the file again"
        )
    return raw, "<" if struct.unpack_from("<i", raw)[0] == header.nx else ">"


def _set_cell(raw: bytearray, order: str, pixel_size_ang: float) -> None:
    """Set the cell to a pixel size; a grid (mx, my, mz) that is not set becomes nx, ny, nz."""
    size = struct.unpack_from(f"{order}3i", raw)
    grid = struct.unpack_from(f"{order}3i", raw, 28)
    grid = tuple(g if g > 0 else n for g, n in zip(grid, size, strict=True))
    struct.pack_into(f"{order}3i", raw, 28, *grid)
    struct.pack_into(f"{order}3f", raw, 40, *(g * pixel_size_ang for g in grid))
