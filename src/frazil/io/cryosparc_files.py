"""One cryoSPARC .cs file: a structured array on disk, read in blocks of rows.

Owns: opening and writing a .cs, and reading chosen columns in one pass with bounded memory. Does
not own: what the fields mean (`cryosparc`), nor which files belong together (`cryosparc_groups`).
"""

import ast
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.atomic import write_npy_atomic

_MAX_HEADER_BYTES = 1 << 24  # 1,000 classes take 1 MB
_BAD_HEADER = (
    ValueError,
    SyntaxError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
    DeprecationWarning,  # of a type that numpy gives up, where warnings are errors
)
_PYTHON_2_LONG = re.compile(r"\b(\d+)L\b")
_BLOCK_BYTES = 32 << 20
_CSDAT = (b"\x94CSDAT", b"\x95CSDAT")
_PARQUET = b"PAR1"


def read_cs(path: Path) -> NDArray[np.void]:
    """Return a .cs file as a read-only structured array (N,), mapped, not loaded.

    A column taken from it touches every page of the file; `CsFile.read` takes several at once, with
    bounded memory. `CsFile.of` says what is refused.
    """
    return CsFile.of(path).mapped()


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
        """Return a .cs file.

        Raises
        ------
        MissingFileError : no such file.
        InputError : one of the compressed formats, no .cs file, or a damaged one.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = file.read(12)
                _check_magic(path, start)
                # Version 1 has two bytes of length, later ones four.
                offset, length = 10, int.from_bytes(start[8:10], "little")
                if start[6:7] != b"\x01":
                    offset, length = 12, int.from_bytes(start[8:12], "little")
                file.seek(offset)
                text = file.read(min(length, _MAX_HEADER_BYTES + 1))
        except FileNotFoundError as error:
            raise MissingFileError(f"{path}: no such file") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        try:
            if len(text) != length:
                raise ValueError(f"a header of {length} bytes")
            dtype, shape = _described(text.decode("utf-8" if start[6:7] == b"\x03" else "latin1"))
            if dtype.names is not None and len(shape) == 1:
                short = offset + length + shape[0] * dtype.itemsize - size
                if short > 0 or not dtype.itemsize:
                    raise ValueError(f"{short} bytes are missing at its end")
        except (*_BAD_HEADER, KeyError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path}: damaged .cs file ({reason}); export it again") from error
        if dtype.names is None or len(shape) != 1:
            raise InputError(f"{path}: a table of named columns is wanted, found {dtype}")
        return cls(path, dtype, shape[0], offset + length)

    def mapped(self) -> NDArray[np.void]:
        """Return all rows as a read-only array (N,), mapped, not loaded."""
        with self.path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(pages, self.dtype, self.count, self.offset)

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


def _check_magic(path: Path, start: bytes) -> None:
    """Raise InputError unless a file begins as a numpy array does."""
    if start[:6] in _CSDAT or start.startswith(_PARQUET):
        kind = "CSDAT" if start[:6] in _CSDAT else "Parquet"
        raise InputError(
            f"{path}: compressed .cs ({kind}); expand it with cryosparc-tools: "
            "Dataset.load(IN).save(OUT, format=1)"
        )
    if start[:6] != b"\x93NUMPY":
        raise InputError(f"{path}: not a .cs file (it does not begin as a numpy array does)")


def _described(text: str) -> tuple[np.dtype[np.void], tuple[int, ...]]:
    """Return type and shape that the header of a numpy file describes.

    Raises
    ------
    ValueError, KeyError, or one of `_BAD_HEADER` : it describes no array of plain values.
    """
    try:
        facts = ast.literal_eval(text.strip())
    except SyntaxError:
        facts = ast.literal_eval(_PYTHON_2_LONG.sub(r"\1", text.strip()))
    dtype, shape = np.lib.format.descr_to_dtype(facts["descr"]), facts["shape"]
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not whole or (facts["fortran_order"] and len(shape) > 1):
        raise ValueError(f"shape {shape}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return dtype, shape


def _codes(values: NDArray[Any], known: dict[Any, int]) -> NDArray[np.int32]:
    """Return the number of each value (n,), adding new ones to `known`; runs are looked up once."""
    heads = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    codes = [known.setdefault(value, len(known)) for value in values[heads].tolist()]
    return np.repeat(np.array(codes, np.int32), np.diff(np.append(heads, len(values))))
