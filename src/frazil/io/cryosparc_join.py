"""Columns of a set of particles whose fields lie in several .cs files, joined on uid.

Owns: the join, where a field is taken from, the account of rows, and writing one joined .cs. Does
not own: finding the files (`cryosparc_groups`), nor what the fields mean (`cryosparc`).
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from frazil.errors import InputError
from frazil.io.atomic import atomic_path, npy_header
from frazil.io.cryosparc_files import Categories, Column, CsFile, read_cs
from frazil.io.cryosparc_groups import CsFiles, find_cs_files


@dataclass(frozen=True, eq=False)
class Join:
    """How a file's rows go to the particles: its row of each (N,), None when they are the same."""

    rows: NDArray[np.int64] | None
    line: str

    def take(self, column: Column) -> Column:
        """Return a column of the file in the order of the particles."""
        if self.rows is None:
            return column
        return column.take(self.rows) if isinstance(column, Categories) else column[self.rows]


class CsColumns:
    """Columns of the particles of a .cs, and, for fields it lacks, of the files that go with it.

    Rows of other files are joined on `uid`, never by row number. `load` reads several columns in
    one pass; `get` and `need` hand a column out.

    Parameters
    ----------
    source : a .cs, a .csg, a job's folder, or the files as `find_cs_files` gives them.
    """

    def __init__(self, source: Path | CsFiles) -> None:
        self.files = source if isinstance(source, CsFiles) else find_cs_files(Path(source))
        self.path = self.files.main
        self.main = self._opened(self.path)
        self.taken_from: dict[str, Path] = {}
        self._joins: dict[Path, Join] = {}
        self._columns: dict[str, Column] = {}

    def __len__(self) -> int:
        return self.main.count

    @cached_property
    def others(self) -> tuple[CsFile, ...]:
        """The other files that have a uid; only their headers are read."""
        files = tuple(self._opened(path) for path in self.files.others)
        return tuple(file for file in files if "uid" in file.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all fields, those of the other files included."""
        names = dict.fromkeys(self.main.names)
        for file in self.others:
            names.update(dict.fromkeys(file.names))
        return tuple(names)

    def holder(self, name: str) -> CsFile | None:
        """Return the file that a field is taken from: that of the .csg, the main one, or another.

        None when no file has it.
        """
        owners = dict(self.files.owners)
        if name in self.main.names and owners.get(name.split("/")[0], self.path) == self.path:
            return self.main
        holders = [f for f in (self.main, *self.others) if name in f.names and name != "uid"]
        owner = owners.get(name.split("/")[0])
        return next((f for f in holders if f.path == owner), holders[0] if holders else None)

    def load(self, names: Sequence[str], nonzero: Sequence[str] = ()) -> None:
        """Read the named columns that there are, each file in one pass.

        Of the columns `nonzero` it is kept whether any number of a row is not zero, (N,) bool.
        """
        wanted: dict[Path, tuple[CsFile, list[str], list[str]]] = {}  # names, nonzero
        for name in dict.fromkeys((*names, *nonzero)):
            holder = None if name in self._columns else self.holder(name)
            if holder is not None:
                _, whole, tested = wanted.setdefault(holder.path, (holder, [], []))
                (whole if name in names else tested).append(name)
        for file, whole, tested in wanted.values():
            join = self.join(file)
            for name, column in file.read(whole, tested).items():
                self._columns[name] = column if join is None else join.take(column)
                self.taken_from[name] = file.path

    def accounts(self) -> tuple[str, ...]:
        """Return what was joined so far: rows of each file, and how many were left out."""
        return tuple(join.line for join in self._joins.values())

    def get(self, name: str) -> NDArray[Any] | None:
        """Return one column in the order of the particles, or None when nowhere."""
        self.load([name])
        column = self._columns.get(name)
        if isinstance(column, Categories):
            return np.array(column.values)[column.codes]
        return column

    def need(self, name: str) -> NDArray[Any]:
        """Return a column; InputError naming the fields there are when it is missing."""
        values = self.get(name)
        return self._missing(name) if values is None else values

    def categories(self, name: str) -> Categories:
        """Return a column of text; InputError when it is missing, or no text."""
        self.load([name])
        column = self._columns.get(name)
        return column if isinstance(column, Categories) else self._missing(name)

    def join(self, file: CsFile) -> Join | None:
        """Return how a file's rows go to the particles; None for the main file itself.

        Raises
        ------
        InputError : particles that are not in it, or a uid that is there twice.
        """
        if file.path == self.path:
            return None
        if file.path not in self._joins:
            self._joins[file.path] = self._join(file)
        return self._joins[file.path]

    def _join(self, file: CsFile) -> Join:
        if "uid" not in self.main.names:
            raise InputError(
                f"{self.path}: no field uid, so {file.path.name} cannot be joined to it"
            )
        wanted, uids = self.need("uid"), np.asarray(file.read(["uid"])["uid"])
        rows, lost, repeats = match_uids(wanted, uids)
        if lost.size or repeats:
            first = f", the first in row {lost[0]} (0-based)" if lost.size else ""
            raise InputError(
                f"{file.path}: cannot be joined to {self.path.name} on uid: {lost.size} of "
                f"{len(wanted)} particles are not in it{first}, {repeats} uids occur twice; remove "
                "it from the folder if it belongs to another job"
            )
        foreign = 0 if rows is None else len(uids) - len(np.unique(rows))
        reordered = rows is not None and bool((np.diff(rows) < 0).any())
        return Join(
            rows,
            f"{file.path}: {len(uids)} rows, {len(wanted)} particles joined on uid"
            + (", which is in another order there" if reordered else "")
            + (f"; {foreign} rows belong to other particles, left out" if foreign else ""),
        )

    def _opened(self, path: Path) -> CsFile:
        """Return a file whose number of rows is what the .csg says."""
        file, items = CsFile.of(path), dict(self.files.items).get(path)
        if items not in (None, file.count):
            raise InputError(
                f"{path}: has {file.count} rows, but the .csg that names it says {items} items; "
                "export the group again, or correct num_items"
            )
        return file

    def _missing(self, name: str) -> Any:
        raise InputError(
            f"{self.path}: no field {name} (it has {', '.join(self.names)}); put its "
            "*_passthrough_particles.cs beside it"
        )


def match_uids(
    wanted: NDArray[np.uint64], uids: NDArray[np.uint64]
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64], int]:
    """Return where each wanted uid is: (rows (N,), places of those that are nowhere, repeats).

    `rows` is None when both lists are the same; `repeats` counts the uids that occur again.
    """
    nowhere = np.empty(0, np.int64)
    if len(wanted) == len(uids) and bool((wanted == uids).all()):
        ordered = np.sort(uids)
        return None, nowhere, int((ordered[1:] == ordered[:-1]).sum())
    if not len(uids):
        return nowhere, np.arange(len(wanted)), 0
    order = np.argsort(uids, kind="stable")
    ordered = uids[order]
    repeats = int((ordered[1:] == ordered[:-1]).sum())
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return order[places], np.flatnonzero(ordered[places] != wanted), repeats


def write_joined(
    columns: CsColumns,
    out: Path,
    kept: NDArray[np.int64] | None = None,
    added: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[str, ...]:
    """Write one .cs with all fields of all files, joined on uid; return what was joined.

    Each field comes from the file that `CsColumns.holder` names. Rows and their order are those of
    the main file. Memory is bounded: blocks of rows are copied.

    Parameters
    ----------
    kept : (m,) ascending rows to write; default all.
    added : new fields, or fields to replace, each of m values.

    Raises
    ------
    InputError : see `CsColumns.join`; or `out` is one of the files that are read.
    """
    inputs = [columns.main, *columns.others]
    if any(out.absolute() == file.path.absolute() for file in inputs):
        raise InputError(f"-o {out}: is read as input; give it another name")
    holders = {name: columns.holder(name) for name in columns.names}
    added = added or {}
    fields = {name: file.dtype[name] for name, file in holders.items() if file is not None}
    fields |= {name: values.dtype for name, values in added.items()}
    dtype = np.dtype(list(fields.items()))
    kept = np.arange(len(columns)) if kept is None else kept
    joins = [columns.join(file) for file in inputs]
    arrays = [read_cs(file.path) for file in inputs]
    by_file = [
        [
            name
            for name, holder in holders.items()
            if holder is not None and holder.path == file.path and name not in added
        ]
        for file in inputs
    ]
    with atomic_path(out) as temporary, temporary.open("wb") as stream:
        stream.write(npy_header(dtype, len(kept)))
        for start, block in _progress(columns.main, f"writing {out.name}"):
            first, stop = np.searchsorted(kept, [start, start + len(block)])
            part = kept[first:stop]
            rows = np.zeros(len(part), dtype)
            for name, values in added.items():
                rows[name] = values[first:stop]
            for join, array, names in zip(joins, arrays, by_file, strict=True):
                place = part if join is None or join.rows is None else join.rows[part]
                source = block[part - start] if join is None else array[place]
                for name in names:
                    rows[name] = source[name]
            stream.write(rows.view(np.uint8).data)
    return tuple(join.line for join in joins if join is not None)


def _progress(file: CsFile, what: str) -> Iterator[tuple[int, NDArray[np.void]]]:
    """Yield the blocks of a file, with a bar on stderr: rows, rate and time left."""
    with tqdm(total=file.count, desc=what, unit="row", file=sys.stderr, delay=2.0) as bar:
        for start, block in file.blocks():
            yield start, block
            bar.update(len(block))
