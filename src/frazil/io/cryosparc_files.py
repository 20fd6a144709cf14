"""One cryoSPARC .cs file: a structured array on disk, read in blocks of rows.

Owns: opening and writing a .cs, and reading chosen columns in one pass with bounded memory. Does
not own: what the fields mean (`cryosparc`), nor which files belong together (`cryosparc_groups`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.atomic import write_npy_atomic

_MAX_HEADER_BYTES = 1 << 30
_BLOCK_BYTES = 32 << 20
_CSDAT = (b"\x94CSDAT", b"\x95CSDAT")
_PARQUET = b"PAR1"


def read_cs(path: Path) -> NDArray[np.void]:
    """Return a .cs file as a read-only structured array (N,), mapped, not loaded.

    A column taken from it touches every page of the file; `CsFile.read` takes several at once, with
    bounded memory.

    Raises
    ------
    MissingFileError : no such file.
    InputError : one of the compressed formats, or no .cs file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if magic in _CSDAT or magic.startswith(_PARQUET):
        kind = "CSDAT" if magic in _CSDAT else "Parquet"
        raise InputError(
            f"{path}: compressed .cs ({kind}); expand it with cryosparc-tools: "
            "Dataset.load(IN).save(OUT, format=1)"
        )
    if magic != b"\x93NUMPY":
        raise InputError(f"{path}: not a .cs file (it does not begin as a numpy array does)")
    try:
        array = np.load(path, mmap_mode="r", max_header_size=_MAX_HEADER_BYTES, allow_pickle=False)
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged .cs file ({reason}); export it again") from error
    if array.dtype.names is None or array.ndim != 1:
        raise InputError(f"{path}: a table of named columns is wanted, found {array.dtype}")
    return array


def write_cs(path: Path, array: NDArray[np.void]) -> None:
    """Write a structured array (N,) as .cs, whole or not at all."""
    if array.dtype.names is None or array.ndim != 1:
        raise InputError(f"{path}: a table of named columns is wanted, found {array.dtype}")
    write_npy_atomic(Path(path), array)


@dataclass(frozen=True, eq=False)
class Categories:
    """A column of text: each distinct value once, in order of appearance, and codes (N,) int32."""

    values: tuple[bytes | str, ...]
    codes: NDArray[np.int32]

    @property
    def texts(self) -> list[str]:
        """The values as text."""
        return [
            v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v for v in self.values
        ]

    def take(self, rows: NDArray[np.int64]) -> "Categories":
        """Return the column of the given rows, the values again in order of appearance."""
        used, first, codes = np.unique(self.codes[rows], return_index=True, return_inverse=True)
        order = np.argsort(first)
        values = tuple(self.values[number] for number in used[order].tolist())
        return Categories(values, np.argsort(order).astype(np.int32)[codes])


Column = NDArray[Any] | Categories


@dataclass(frozen=True, eq=False)
class CsFile:
    """An open .cs file: N rows of `dtype` that begin at byte `offset`; nothing is held in memory.

    Made by `CsFile.of`, which reads the header only.
    """

    path: Path
    dtype: np.dtype[np.void]
    count: int
    offset: int

    @classmethod
    def of(cls, path: Path) -> "CsFile":
        """Return a .cs file; see `read_cs` for what is refused."""
        array = read_cs(path)
        return cls(Path(path), array.dtype, len(array), int(getattr(array, "offset", 0)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields."""
        return self.dtype.names or ()

    def blocks(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """Yield (first row, rows) of about 32 MB each, through read calls: no page stays mapped.

        Raises
        ------
        CorruptDataError : the file became shorter.
        """
        step = max(1, _BLOCK_BYTES // self.dtype.itemsize)
        buffer = np.empty(min(step, self.count), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            for start in range(0, self.count, step):
                block = buffer[: min(step, self.count - start)]
                self._fill(file, block)
                yield start, block

    def read(self, names: Sequence[str], nonzero: Sequence[str] = ()) -> dict[str, Column]:
        """Return columns, copied in one pass over the file; text as `Categories`.

        Of the columns `nonzero` only (N,) bool: whether any number of the row is not zero.
        """
        columns: dict[str, Any] = {}
        numbers: dict[str, dict[Any, int]] = {}
        for name in names:
            kind = self.dtype[name]
            if kind.kind in "SU":
                numbers[name] = {}
                columns[name] = np.empty(self.count, np.int32)
            else:
                columns[name] = np.empty((self.count, *kind.shape), kind.base.newbyteorder("="))
        columns |= {name: np.empty(self.count, np.bool_) for name in nonzero}
        for start, block in self.blocks() if columns else ():
            part = slice(start, start + len(block))
            for name, column in columns.items():
                values = block[name]
                if name in numbers:
                    values = _codes(values, numbers[name])
                elif name in nonzero:
                    values = values.reshape(len(block), -1) != 0
                    values = np.asarray(values.any(axis=1))
                column[part] = values
        for name, known in numbers.items():
            columns[name] = Categories(tuple(known), columns[name])
        return columns

    def _fill(self, file: Any, block: NDArray[np.void]) -> None:
        """Fill a block with the next rows."""
        view = block.view(np.uint8)
        while view.size:
            got = file.readinto(view)
            if not got:
                raise CorruptDataError(
                    f"{self.path}: became shorter while it was read; copy it again"
                )
            view = view[got:]


def _codes(values: NDArray[Any], known: dict[Any, int]) -> NDArray[np.int32]:
    """Return the number of each value (n,), adding new ones to `known`; runs are looked up once."""
    heads = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    codes = [known.setdefault(value, len(known)) for value in values[heads].tolist()]
    return np.repeat(np.array(codes, np.int32), np.diff(np.append(heads, len(values))))
