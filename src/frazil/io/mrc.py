"""MRC stacks and volumes: header, and images by number.

Owns: the 1024-byte header (MRC2014 and IMOD), pixel types, byte order, 64-bit offsets. Images are
read with preadv, never mapped into memory (mapped pages count as memory and are read one by one).
Does not own: which images are read (`frazil.io.images`), nor writing (`frazil.io.mrc_writer`, whose
names are given on here).
"""

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.direct import advise, is_direct, read_at
from frazil.io.mrc_writer import HEADER_BYTES, StackWriter, write_volume

__all__ = [
    "HEADER_BYTES",
    "MrcHeader",
    "StackWriter",
    "check_images",
    "header_of",
    "open_file",
    "read_header",
    "read_headers",
    "read_images",
    "read_open_images",
    "read_volume",
    "write_volume",
]

_CHUNK_BYTES = 16 << 20
_OPENING_THREADS = 8
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}
_FOUR_BITS = 101  # SerialEM: two pixels in a byte, the left one in the low bits
_REMEDIES = {
    3: "complex int16 (a transform); convert it to real-space images (mode 2)",
    4: "complex float32 (a transform); convert it to real-space images (mode 2)",
    16: "colour; convert it to grey values with `colornewst` or `newstack -mode 2 IN OUT` (IMOD)",
}
_COMPRESSED = {
    b"\x1f\x8b\x08": ("gzip", "gunzip -k"),
    b"BZh": ("bzip2", "bunzip2 -k"),
    b"\xfd7zXZ": ("xz", "unxz -k"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_IMOD_STAMP = 1146047817
_IMOD_SIGNED, _IMOD_TWO_IN_A_BYTE = 1, 16
_PIXEL_SIZES_ANG = (1e-3, 1e6)


@dataclass(frozen=True)
class MrcHeader:
    """What the header says, and how much of it the file holds.

    `dtype` carries the byte order (mode 101: that of two pixels); `pixel_size_ang` is 0.0 where the
    header has none that makes sense; `whole_images` counts the sections that lie completely inside
    the file.
    """

    path: Path
    nx: int
    ny: int
    nz: int
    mode: int
    dtype: np.dtype[Any]
    data_offset: int
    pixel_size_ang: float
    frame_bytes: int
    whole_images: int
    is_volume: bool
    unsigned_bytes: bool
    axes: tuple[int, int, int]

    @property
    def byte_order(self) -> str:
        """ "<" little or ">" big endian."""
        return ">" if self.dtype.newbyteorder("<") != self.dtype else "<"


def read_header(path: Path) -> MrcHeader:
    """Return the header of an MRC file, in either byte order, with or without a valid stamp.

    A wrong or empty machine stamp and a missing "MAP " are common and are ignored: the byte order
    is the one in which mode and size make sense. Mode 0 is signed unless the IMOD stamp is there
    without its "signed" bit, or, without that stamp, the header's range is that of unsigned bytes
    (minimum not negative, maximum above 127). Extended headers of any kind are skipped.

    Raises
    ------
    MissingFileError : no such file.
    InputError : compressed, not MRC, or of a mode that cannot be used.
    CorruptDataError : shorter than a header.
    """
    path = Path(path)
    descriptor = open_file(path)
    try:
        return header_of(descriptor, path)
    finally:
        os.close(descriptor)


def read_headers(paths: Sequence[str]) -> list[MrcHeader | None]:
    """Return the headers of several files, None where there is no file; errors as `read_header`.

    Each is one open, fstat and read; threads do it, because on a network file system each waits.
    """

    def header_or_none(path: str) -> MrcHeader | None:
        try:
            return read_header(Path(path))
        except MissingFileError:
            return None

    with ThreadPoolExecutor(_OPENING_THREADS) as pool:
        return list(pool.map(header_or_none, paths))


def open_file(path: Path) -> int:
    """Return a read-only file descriptor; the caller closes it.

    Raises
    ------
    MissingFileError : no such file.
    InputError : a folder, or not readable.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
    except (FileNotFoundError, ValueError) as error:  # a zero byte is in no file's name
        raise MissingFileError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error


def header_of(descriptor: int, path: Path) -> MrcHeader:
    """Return the header of an open MRC file (one fstat, one pread); errors as `read_header`."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: a file is wanted, this is a folder or a device")
    raw = os.pread(descriptor, HEADER_BYTES, 0)
    for magic, (name, command) in _COMPRESSED.items():
        if raw.startswith(magic):
            raise InputError(
                f"{path}: compressed with {name}, in which no image can be found without expanding "
                f"all; expand it first: {command} {path}"
            )
    if len(raw) < HEADER_BYTES:
        raise CorruptDataError(
            f"{path}: {len(raw)} bytes, shorter than an MRC header ({HEADER_BYTES} bytes); "
            "copy the file again"
        )
    order = _byte_order(raw, status.st_size, path)
    return _parse_header(raw, order, status.st_size, path)


def _byte_order(raw: bytes, size_bytes: int, path: Path) -> str:
    """Return "<" or ">", whichever makes a plausible header; the machine stamp breaks a tie."""
    stamped = {0x44: "<", 0x11: ">"}.get(raw[212], "")
    candidates = []
    for order in "<>":
        nx, ny, _, mode = struct.unpack_from(f"{order}4i", raw)
        if (mode in _DTYPES or mode in _REMEDIES) and 0 < nx < 1 << 20 and 0 < ny < 1 << 20:
            too_big = HEADER_BYTES + ny * _row_bytes(nx, mode) > size_bytes
            candidates.append((too_big, order != stamped, nx, order))
    if not candidates:
        sizes = struct.unpack_from(f"{stamped or '<'}4i", raw)
        raise InputError(
            f"{path}: not an MRC file, or its header is damaged "
            "(it says nx {}, ny {}, nz {}, mode {}); check that this is the right file".format(
                *sizes
            )
        )
    return min(candidates)[3]


def _row_bytes(nx: int, mode: int) -> int:
    """Return the bytes of one row of an image."""
    return (nx + 1) // 2 if mode == _FOUR_BITS else nx * np.dtype(_DTYPES.get(mode, "f4")).itemsize


def _parse_header(raw: bytes, order: str, size_bytes: int, path: Path) -> MrcHeader:
    """Return the header of 1024 raw bytes in a known byte order."""
    nx, ny, nz, mode = struct.unpack_from(f"{order}4i", raw)
    if mode in _REMEDIES:
        raise InputError(f"{path}: mode {mode} is {_REMEDIES[mode]}")
    mx = struct.unpack_from(f"{order}i", raw, 28)[0]
    cell_x_ang = struct.unpack_from(f"{order}f", raw, 40)[0]
    axes = struct.unpack_from(f"{order}3i", raw, 64)
    least, most = struct.unpack_from(f"{order}2f", raw, 76)
    ispg, extended_bytes = struct.unpack_from(f"{order}2i", raw, 88)
    imod_stamp, imod_flags = struct.unpack_from(f"{order}2i", raw, 152)
    if nz <= 0 or extended_bytes < 0:
        raise InputError(
            f"{path}: the header says {nz} sections and an extended header of {extended_bytes} "
            "bytes; it is damaged, write the file again"
        )
    of_imod = mode == 0 and imod_stamp == _IMOD_STAMP
    if of_imod and imod_flags & _IMOD_TWO_IN_A_BYTE:
        raise InputError(
            f"{path}: holds two 4-bit values in a byte of mode 0 (IMOD's flag); convert it with "
            "`newstack -mode 1 IN OUT` (IMOD)"
        )
    in_range = mode == 0 and least >= 0 and 127 < most < 256
    unsigned = not imod_flags & _IMOD_SIGNED if of_imod else in_range
    dtype = np.dtype("u1" if unsigned else order + _DTYPES[mode])
    frame_bytes = ny * _row_bytes(nx, mode)
    data_offset = HEADER_BYTES + extended_bytes
    whole = max(0, size_bytes - data_offset) // frame_bytes
    pixel_size_ang = cell_x_ang / mx if mx > 0 else 0.0
    if not _PIXEL_SIZES_ANG[0] <= pixel_size_ang <= _PIXEL_SIZES_ANG[1]:  # NaN, too
        pixel_size_ang = 0.0
    return MrcHeader(
        path=path,
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        dtype=dtype,
        data_offset=data_offset,
        pixel_size_ang=pixel_size_ang,
        frame_bytes=frame_bytes,
        whole_images=min(nz, whole),
        is_volume=ispg != 0 and nx == ny == nz,
        unsigned_bytes=unsigned,
        axes=axes if sorted(axes) == [1, 2, 3] else (1, 2, 3),
    )


def read_images(
    source: MrcHeader | Path, indices: ArrayLike, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return images of a stack as float32, in the order asked.

    Parameters
    ----------
    source : a header, or the path of a stack.
    indices : (n,) integers, 0-based; any order, repeats allowed.
    out : (n, ny, nx) float32, C-contiguous, filled and returned when given.

    Raises
    ------
    InputError : an index beyond what the header says.
    CorruptDataError : an image that the file is too short to hold.
    """
    header = source if isinstance(source, MrcHeader) else read_header(Path(source))
    descriptor = open_file(header.path)
    try:
        return read_open_images(descriptor, header, indices, out)
    finally:
        os.close(descriptor)


def read_open_images(
    descriptor: int,
    header: MrcHeader,
    indices: ArrayLike,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return images of an open stack as `read_images` does; may run in several threads at once.

    Consecutive indices are read in one request of up to 16 MiB, and the system is told of the
    next request before the present one is waited for.
    """
    # int64 before any arithmetic: uint32 * stride wraps, and returned another particle's image.
    wanted = np.asarray(indices).astype(np.int64)
    check_images(header, wanted)
    shape = (len(wanted), header.ny, header.nx)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"out must be a contiguous float32 array of shape {shape}")
    runs = list(_runs(wanted, max(1, _CHUNK_BYTES // header.frame_bytes)))
    for number, (start, stop) in enumerate(runs):
        if number + 1 < len(runs) and not is_direct(descriptor):
            _advise(descriptor, header, int(wanted[runs[number + 1][0]]), runs[number + 1])
        _read_run(descriptor, header, int(wanted[start]), out[start:stop])
    return out


def check_images(header: MrcHeader, indices: NDArray[np.int64]) -> None:
    """Raise unless every image of `indices` (n,) exists and is whole in the file."""
    bad = indices[(indices < 0) | (indices >= header.nz)]
    if bad.size:
        raise InputError(
            f"{header.path}: image {bad[0]} (0-based) wanted, the stack has {header.nz} images"
        )
    bad = indices[indices >= header.whole_images]
    if bad.size:
        raise CorruptDataError(
            f"{header.path}: the file is cut short, image {bad[0]} (0-based) is missing: "
            f"{header.whole_images} of {header.nz} images are whole; copy the file again, or "
            "leave the others out with --ind"
        )


def _runs(indices: NDArray[np.int64], longest: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of stretches of consecutive indices, none longer than `longest`."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    bounds = [0, *breaks.tolist(), len(indices)]
    for start, stop in pairwise(bounds):
        for first in range(start, stop, longest):
            yield first, min(first + longest, stop)


def _advise(descriptor: int, header: MrcHeader, first: int, run: tuple[int, int]) -> None:
    """Tell the system that a run of images, beginning with image `first`, is wanted soon."""
    offset = header.data_offset + first * header.frame_bytes
    length = (run[1] - run[0]) * header.frame_bytes
    advise(descriptor, offset, length, "POSIX_FADV_WILLNEED")


def _read_run(descriptor: int, header: MrcHeader, first: int, out: NDArray[np.float32]) -> None:
    """Fill `out` (n, ny, nx) with consecutive images from image `first` on."""
    offset = header.data_offset + first * header.frame_bytes
    if header.dtype == np.dtype("=f4"):
        _fill(descriptor, offset, out, header.path)
        return
    row_items = header.frame_bytes // header.ny // header.dtype.itemsize
    raw = np.empty((*out.shape[:2], row_items), header.dtype)
    _fill(descriptor, offset, raw, header.path)
    if header.mode == _FOUR_BITS:
        out[..., 0::2] = raw & 15
        out[..., 1::2] = raw[..., : header.nx // 2] >> 4
    elif header.mode == 12:
        _copy_float16(raw, out)
    else:
        np.copyto(out, raw)


def _copy_float16(raw: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """Widen float16 through torch, which is seven times as fast as numpy here."""
    import torch

    native = raw if raw.dtype.isnative else raw.byteswap().view(np.dtype("=f2"))
    torch.from_numpy(out).copy_(torch.from_numpy(native))


def _fill(descriptor: int, offset: int, array: NDArray[Any], path: Path) -> None:
    """Fill a contiguous array from the file."""
    wanted = array.reshape(-1).view(np.uint8)
    got = read_at(descriptor, wanted, offset)
    if got < len(wanted):
        raise CorruptDataError(
            f"{path}: the file became shorter while it was read (at byte {offset + got}); "
            "copy it again and give the same command"
        )


def read_volume(path: Path) -> tuple[NDArray[np.float32], float]:
    """Return a cubic volume (D, D, D) float32 as [z, y, x], and its pixel size in A (0.0 unset).

    Raises
    ------
    InputError : not a cube. CorruptDataError : cut short.
    """
    header = read_header(path)
    if not header.nx == header.ny == header.nz:
        raise InputError(
            f"{path}: a cubic volume is wanted, this is {header.nx} x {header.ny} x {header.nz}"
            + (" (a stack of images?)" if header.nx == header.ny else "")
        )
    volume = read_images(header, np.arange(header.nz))
    file_axes = header.axes[::-1]  # which of x, y, z (1, 2, 3) each array axis runs along
    order = tuple(file_axes.index(axis) for axis in (3, 2, 1))
    return np.ascontiguousarray(volume.transpose(order)), header.pixel_size_ang
