"""Writing a file so that it is either there and whole, or not there.

Owns: the temporary name, the fsync, the rename and the one-line error when the disk is full. Does
not own: what is written.
"""

import errno
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from frazil.errors import BudgetError, InputError, MissingFileError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` when the block ends well.

    The temporary file is called ".NAME.TOKEN.SUFFIX", so it sorts apart and keeps the suffix that
    some writers go by. On success it is synced to disk and renamed over `path`, and the folder is
    synced; on any exception, KeyboardInterrupt included, it is removed and `path` is as it was.

    Parameters
    ----------
    path : file to write; its folder must exist.

    Raises
    ------
    MissingFileError : the folder of `path` does not exist.
    BudgetError : the disk or the quota is full.
    InputError : the folder may not be written to, or `path` is a folder itself.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise MissingFileError(f"{path}: the folder {path.parent} does not exist; create it first")
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise BudgetError(
                f"{path}: the disk (or quota) is full, nothing was written; "
                "free space and run the command again, or choose another output folder"
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise InputError(
                f"{path}: may not be written ({error.strerror}); choose another output folder"
            ) from error
        raise
    finally:
        with suppress(OSError):  # on a read-only file system, which must not hide the cause
            temporary.unlink()


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` (UTF-8, newlines as they are) to `path`, whole or not at all."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_npy_atomic(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write `array` to `path` as .npy (any suffix, memory order kept), whole or not at all.

    Raises
    ------
    InputError : the array holds Python objects.
    """
    if array.dtype.hasobject:
        raise InputError(f"{path}: an array of Python objects cannot be written as .npy")
    # Not by np.save: on a full disk it raises an OSError that does not say so.
    facts = np.lib.format.header_data_from_array_1_0(array)
    data = array.T if facts["fortran_order"] else np.ascontiguousarray(array)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(facts))
        file.write(data.reshape(-1).view(np.uint8).data)


def npy_header(dtype: np.dtype[Any], count: int) -> bytes:
    """Return what a .npy file of (count,) begins with."""
    descr = np.lib.format.dtype_to_descr(dtype)
    return _header({"descr": descr, "fortran_order": False, "shape": (count,)})


def _header(facts: Any) -> bytes:
    """Return the header of a .npy file, of version 1.0 where it fits."""
    header = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(header, facts)
    except ValueError:  # longer than 64 kB
        header = io.BytesIO()
        np.lib.format.write_array_header_2_0(header, facts)
    return header.getvalue()


def _sync(path: Path) -> None:
    """Force a file's data, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
