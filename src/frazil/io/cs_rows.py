"""Rows of a .cs file, copied with all columns, and one row as text.

Owns: these. Does not own: what the columns mean (`cryosparc`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.atomic import atomic_path, npy_header
from frazil.io.cryosparc_files import read_cs

_BLOCK_BYTES = 16 << 20


def copy_cs_rows(
    path: Path,
    out: Path,
    rows: NDArray[np.int64],
    advance: Callable[[int], None] = lambda rows: None,
) -> None:
    """Write some rows of a .cs file, in the order given, every column byte for byte.

    A few megabytes are held at a time, however large the file. `advance` is called with the number
    of rows after each block.
    """
    array = read_cs(path)
    if array.dtype.hasobject:
        raise InputError(f"{path}: has a column of Python objects; export it again")
    step = max(1, _BLOCK_BYTES // max(1, array.dtype.itemsize))
    with atomic_path(Path(out)) as temporary, temporary.open("wb") as file:
        file.write(npy_header(array.dtype, len(rows)))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            file.write(array[part].tobytes())
            advance(len(part))


def first_row(path: Path) -> tuple[int, dict[str, object]]:
    """Return the number of rows, and column -> value of the first one (none when it is empty)."""
    array = read_cs(path)
    names = array.dtype.names or ()
    return len(array), {name: array[name][0].tolist() for name in names if len(array)}
