"""numpy's .npy files, read so that a damaged one costs nothing.

Owns: `load_npy`, and reading a header. A header that says more than the file holds is found before
anything is allocated, and objects, which could run code, are refused. Does not own: what the arrays
mean, and the errors that name a remedy.
"""

import threading
import tokenize
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# numpy has Python parse a header; Python 3.11 counts the depth of its parser for all threads
# together, and now and then raises SystemError (github.com/python/cpython/issues/106905).
_ONE_PARSER = threading.Lock()
# What numpy and Python raise on the way through a damaged header.
_BAD_HEADER = (
    *(ValueError, TypeError, EOFError, SyntaxError, OverflowError, KeyError, AttributeError),
    *(tokenize.TokenError, MemoryError, RecursionError, UserWarning),
)


def load_npy(path: Path, *, mapped: bool = False, max_header_bytes: int = 10_000) -> NDArray[Any]:
    """Return the array of a .npy file; `mapped` leaves it on disk.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : not such a file, objects in it, or fewer bytes than its header says; one line.
    """
    try:
        with path.open("rb") as file:
            _read_magic(file)
        with _ONE_PARSER:
            array = np.load(
                path, mmap_mode="r", allow_pickle=False, max_header_size=max_header_bytes
            )
    except FileNotFoundError:
        raise
    except (*_BAD_HEADER, OSError) as error:
        raise ValueError(one_line(error)) from error
    return array if mapped else np.array(array)


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, whether by columns, type) of a .npy of version 1, and stand behind its header.

    Raises
    ------
    ValueError : no such header.
    """
    try:
        version = _read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} of .npy")
        with _ONE_PARSER:
            shape, by_columns, kind = np.lib.format.read_array_header_1_0(file)
    except _BAD_HEADER as error:
        raise ValueError(one_line(error)) from error
    return shape, by_columns, kind


def one_line(error: BaseException) -> str:
    """Return what an error says, shortened to one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _read_magic(file: IO[bytes]) -> tuple[int, int]:
    version: tuple[int, int] = np.lib.format.read_magic(file)
    return version
