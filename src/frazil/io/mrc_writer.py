"""Writing MRC stacks and volumes: float32, little endian, whole or not at all.

Owns: the header that we write and the streaming writer. Does not own: reading (`frazil.io.mrc`).
"""

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from frazil.errors import InputError
from frazil.io.atomic import atomic_path

HEADER_BYTES = 1024
_NVERSION = 20141


def write_volume(path: Path, volume: ArrayLike, pixel_size_ang: float) -> None:
    """Write a volume (nz, ny, nx) as float32 (mode 2, ispg 1), whole or not at all."""
    data = np.ascontiguousarray(volume, dtype="<f4")
    if data.ndim != 3 or not data.size:
        raise ValueError(f"a volume (nz, ny, nx) is wanted, not {data.shape}")
    statistics = Statistics()
    statistics.add(data)
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(_header_bytes(data.shape, pixel_size_ang, statistics, ispg=1))
        file.write(data.data)


class StackWriter:
    """Streams float32 images, in order, into an MRC stack that appears when all are written.

    Use as a context manager; leaving it with another number of images than `count` raises and
    leaves nothing behind.

    Parameters
    ----------
    path : the stack to write (mode 2, ispg 0).
    box : (ny, nx) in pixels.
    count : number of images to come.
    pixel_size_ang : pixel size in A; 0.0 when unknown.
    """

    def __init__(self, path: Path, box: tuple[int, int], count: int, pixel_size_ang: float) -> None:
        if count < 1 or min(box) < 1:
            raise InputError(f"{path}: cannot write a stack of {count} images of {box} px")
        self.path = Path(path)
        self.box = box
        self.count = count
        self.written = 0
        self._pixel_size_ang = pixel_size_ang
        self._statistics = Statistics()
        self._session: AbstractContextManager[BinaryIO] | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> "StackWriter":
        self._session = self._open()
        self._file = self._session.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            session, self._session, self._file = self._session, None, None
            session.__exit__(kind, error, trace)

    def write(self, images: ArrayLike) -> None:
        """Append images (n, ny, nx), or one (ny, nx).

        Raises
        ------
        ValueError : another box. InputError : more images than announced.
        """
        if self._file is None:
            raise ValueError("write() outside of the `with` block")
        data = np.ascontiguousarray(images, dtype="<f4")
        if not data.size:
            return
        data = data.reshape(-1, *data.shape[-2:])
        if data.shape[1:] != self.box:
            raise ValueError(f"images of {self.box} px wanted, not {data.shape[1:]}")
        if self.written + len(data) > self.count:
            raise InputError(f"{self.path}: more than the {self.count} images announced")
        self._statistics.add(data)
        self._file.write(data.data)
        self.written += len(data)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """Yield the temporary file; on success check the count and write the header."""
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            file.write(bytes(HEADER_BYTES))
            yield file
            if self.written != self.count:
                raise InputError(
                    f"{self.path}: {self.count} images announced, {self.written} written"
                )
            shape = (self.count, *self.box)
            file.seek(0)
            file.write(_header_bytes(shape, self._pixel_size_ang, self._statistics, ispg=0))


class Statistics:
    """Running minimum, maximum, mean and standard deviation of all pixels (finite or not)."""

    def __init__(self) -> None:
        self.count = 0
        self.low, self.high = np.inf, -np.inf
        self.total = self.squares = 0.0

    def add(self, data: NDArray[np.float32]) -> None:
        """Take the pixels of `data` into account."""
        flat = data.reshape(-1)
        self.count += flat.size
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        with np.errstate(invalid="ignore", over="ignore"):
            self.total += float(flat.sum(dtype=np.float64))
            self.squares += float(np.dot(flat, flat))

    def values(self) -> tuple[float, float, float, float]:
        """Return (min, max, mean, rms deviation)."""
        mean = self.total / self.count
        return self.low, self.high, mean, max(0.0, self.squares / self.count - mean**2) ** 0.5


def _header_bytes(
    shape: tuple[int, ...], pixel_size_ang: float, statistics: Statistics, ispg: int
) -> bytes:
    """Return the 1024 bytes of a little-endian float32 header for data of shape (nz, ny, nx)."""
    nz, ny, nx = shape
    mz = nz if ispg else 1  # MRC2014: sections of an image stack are no extent in z
    low, high, mean, deviation = statistics.values()
    header = bytearray(HEADER_BYTES)
    struct.pack_into("<10i", header, 0, nx, ny, nz, 2, 0, 0, 0, nx, ny, mz)
    cell_ang = [count * pixel_size_ang for count in (nx, ny, mz)]
    struct.pack_into("<6f", header, 40, *cell_ang, 90.0, 90.0, 90.0)
    struct.pack_into("<3i3f2i", header, 64, 1, 2, 3, low, high, mean, ispg, 0)
    struct.pack_into("<i", header, 108, _NVERSION)
    struct.pack_into("<4s4Bf", header, 208, b"MAP ", 0x44, 0x44, 0, 0, deviation)
    struct.pack_into("<i80s", header, 220, 1, b"frazil".ljust(80))
    return bytes(header)
