"""Particles to choose from: a store, a run, or a particle file, with every column there is of them.

Owns: opening any of them, and the way from a name to a column. Does not own: the columns
(`table_columns`, `run_columns`), conditions (`expression`), the choice (`select`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from frazil.analysis.expression import Column, Words
from frazil.analysis.run_columns import GivenColumns, RunColumns
from frazil.analysis.table_columns import (
    CsNative,
    LazyTable,
    StarNative,
    TableColumns,
    of_table,
)
from frazil.errors import InputError, MissingFileError
from frazil.io.cryosparc_groups import is_job_folder
from frazil.io.cryosparc_join import CsColumns
from frazil.io.identities import Identify, Identities, distinct_uids
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from frazil.io.paths import NO_HINTS, Places, PlaceSettings
from frazil.io.selection_file import is_selection, read_rows, read_selection_file
from frazil.runs.folder import Run, is_run
from frazil.store.reader import ParticleStore

Say = Callable[[str], None]


class Provider(Protocol):
    """Columns by name; None where there is none of the name."""

    def names(self) -> list[str]:
        """Return the names."""

    def get(self, name: str) -> Column | None:
        """Return a column of all rows."""


@dataclass(eq=False)
class ParticleSet:
    """Particles and their columns; n of the N rows of a file or store.

    Attributes
    ----------
    path : the store or particle file that row numbers belong to.
    origin : what the user named.
    total : N.
    rows : (n,) ascending rows of the set, None for all.
    whole : columns of N rows.
    own : columns of n rows, which go before those of the same name.
    identify : gives the identities of all N rows.
    unknown : of each column that was asked for, how many rows have no value.
    """

    path: Path
    origin: str
    total: int
    rows: NDArray[np.int64] | None
    whole: list[Provider]
    own: list[Provider]
    identify: Identify
    say: Say
    unknown: dict[str, int] = field(default_factory=dict)
    _kept: dict[str, Column] = field(default_factory=dict)
    _identities: dict[bool, Identities] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of particles, n."""
        return self.total if self.rows is None else len(self.rows)

    def identities(self, images: bool) -> Identities:
        """Return the identities of all N rows; without `images` uids alone will do."""
        if images not in self._identities:
            self._identities[images] = self.identify(images)
        return self._identities[images]

    def file_rows(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the file of some of the n particles."""
        return places if self.rows is None else self.rows[places]

    def names(self) -> list[str]:
        """Return the names of all columns."""
        return list(dict.fromkeys(n for p in (*self.own, *self.whole) for n in p.names()))

    def get(self, name: str) -> Column | None:
        """Return a column of the n particles; None when there is none of this name.

        Raises
        ------
        InputError : it is unknown of every particle.
        """
        if name not in self._kept:
            column = self.find(name)
            if column is None:
                return None
            self._count_unknown(name, column)
            self._kept[name] = column
        return self._kept[name]

    def selected(self, path: str) -> NDArray[np.bool_]:
        """Return (n,) whether a particle is in a selection of any kind."""
        chosen = np.zeros(self.total, np.bool_)
        rows = read_rows(Path(path), self.total, self.identities, str(self.path), self.say)
        chosen[rows] = True
        if self.rows is None:
            return chosen
        outside = int(chosen.sum()) - int(chosen[self.rows].sum())
        if outside:
            self.say(f"{path}: {outside} of its particles have no latent in {self.origin}")
        return chosen[self.rows]

    def find(self, name: str) -> Column | None:
        """Return a column of the n particles, known or not; None when there is none."""
        for provider in self.own:
            column = provider.get(name)
            if column is not None:
                return column
        for provider in self.whole:
            column = provider.get(name)
            if column is not None:
                return column if self.rows is None else taken(column, self.rows)
        return None

    def _count_unknown(self, name: str, column: Column) -> None:
        if isinstance(column, Words):
            lost = int((column.codes < 0).sum())
        elif column.dtype.kind == "f":
            lost = int(np.isnan(column).reshape(len(column), -1).any(axis=1).sum())
        else:
            lost = int((column < 0).sum()) if name == "half_set" else 0
        if lost and lost == self.count:
            raise InputError(f"{self.origin}: {name} is not known of any particle")
        if lost:
            self.unknown[name] = lost


def open_set(
    source: Path,
    places: Places = NO_HINTS,
    epoch: int | None = None,
    given: Sequence[str] = (),
    say: Say = print,
) -> ParticleSet:
    """Return the particles of a store, a run folder, or a particle file.

    Parameters
    ----------
    places : where the stacks may be that a particle file names.
    epoch : of a run; default the last one.
    given : the user's own columns, NAME=FILE, one value per particle.

    Raises
    ------
    MissingFileError, InputError, CorruptDataError : see what opens them.
    """
    if not source.exists():
        raise MissingFileError(f"{source}: no such file or folder")
    if is_selection(source):
        found = _of_selection(source, say)
    elif is_run(source):
        found = _of_run(RunColumns(Run.open(source), epoch), source, places, say)
    elif epoch is not None:
        raise InputError(f"--epoch {epoch}: is for run folders; {source} is none")
    else:
        found = _of_file(source, places, say)
    found.own.insert(0, GivenColumns(given, found.count, str(source)))
    return found


def taken(column: Column, rows: NDArray[np.int64]) -> Column:
    """Return the values of some rows of a column."""
    if isinstance(column, Words):
        return Words(column.codes[rows], column.texts)
    return column[rows]


def _of_run(columns: RunColumns, source: Path, places: Places, say: Say) -> ParticleSet:
    """Return the particles of a run that have latents."""
    run, rows = columns.run, columns.latents.rows
    path = Path(run.config["store"])
    if run.is_lazy:
        settings = run.config.get("settings", {}).get("data", {})
        given = {name: settings[name] for name in ("datadir", "maps") if name in settings}
        places = places if places != NO_HINTS else msgspec.convert(given, PlaceSettings).places()
    if not path.exists():
        raise MissingFileError(
            f"{path}: is not there, but {source} was trained from it; restore it"
        )
    found = _of_file(path, places, say)
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < found.total:
        raise InputError(
            f"{source}: was trained on row {rows.max()} (0-based) of {path}, which has only "
            f"{found.total}: it is another one by now; restore the one that was trained"
        )
    if "particles" in run.config and int(run.config["particles"]) != len(rows):
        raise InputError(
            f"{source}: rows.npy has {len(rows)} rows, but {run.config['particles']} were trained"
        )
    found.origin = str(source)
    ascending = bool((np.diff(rows) > 0).all())
    found.rows = rows if ascending else np.sort(rows)
    found.own.append(columns if ascending else _Sorted(columns))
    return found


def _of_selection(path: Path, say: Say) -> ParticleSet:
    """Return the particles of a selection, of which nothing but their identity is known."""
    selection = read_selection_file(path)
    count = len(selection)
    whole: list[Provider] = [_RowColumn(count)]
    return ParticleSet(path, str(path), count, None, whole, [], lambda _: selection.identities, say)


class _Sorted:
    """Columns of a run whose rows do not ascend, in the order of the rows."""

    def __init__(self, columns: RunColumns) -> None:
        self._columns = columns
        self._order = np.argsort(columns.latents.rows, kind="stable")
        self.names = columns.names

    def get(self, name: str) -> Column | None:
        """Return a column, its rows ascending."""
        column = self._columns.get(name)
        return None if column is None else taken(column, self._order)


def _of_file(path: Path, places: Places, say: Say) -> ParticleSet:
    """Return the particles of a store or particle file."""
    if path.is_dir() and not is_job_folder(path):
        store = ParticleStore.open(path)
        table = store.table()
        columns = TableColumns(store.rows, of_table(table).texts)
        whole: list[Provider] = [columns]
        return ParticleSet(
            path,
            str(path),
            store.count,
            None,
            whole,
            [],
            lambda _: Identities.of(store.rows, store.sources),
            say,
        )
    if path.suffix in (".cs", ".csg") or is_job_folder(path):
        return _of_cs(path, places, say)
    table = open_particles(path, places)
    whole = [of_table(table)]
    if path.suffix == ".star":
        whole.insert(0, StarNative(path))
    return ParticleSet(
        path,
        str(path),
        len(table),
        None,
        whole,
        [],
        lambda _: Identities.of(table.rows, table.sources),
        say,
    )


def _of_cs(path: Path, places: Places, say: Say) -> ParticleSet:
    """Return the particles of a .cs, of which only the columns that are asked for are read."""
    columns = CsColumns(path)

    def read() -> ParticleTable:
        return open_particles(path, places)

    def identify(images: bool) -> Identities:
        uid = None if images else columns.get("uid")
        known = None if uid is None else distinct_uids(uid)
        if known is not None:
            return Identities(uid=known)
        table = open_particles(path, places, poses=False)
        return Identities.of(table.rows, table.sources)

    whole: list[Provider] = [CsNative(columns), _RowColumn(len(columns)), LazyTable(read)]
    return ParticleSet(path, str(path), len(columns), None, whole, [], identify, say)


class _RowColumn:
    """The row number, which needs no table."""

    def __init__(self, count: int) -> None:
        self._count = count

    def names(self) -> list[str]:
        """Return its name."""
        return ["row"]

    def get(self, name: str) -> Column | None:
        """Return 0 .. N-1."""
        return np.arange(self._count) if name == "row" else None
