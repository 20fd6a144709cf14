"""The way back: a subset, or new columns, in the file that the particles came from.

Owns: which rows of the original belong to which particles, the names of new columns, and the
account of rows. Does not own: the formats (`frazil.io`), the columns (`particle_set`).
"""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frazil.analysis.expression import Words
from frazil.analysis.particle_set import ParticleSet, open_set
from frazil.analysis.select_settings import ExportSettings
from frazil.errors import InputError
from frazil.io.atomic import write_text_atomic
from frazil.io.cryosparc_group_writer import KNOWN_RESULTS, edited_group, group_of, new_group
from frazil.io.cryosparc_groups import is_job_folder
from frazil.io.cryosparc_join import CsColumns, write_joined
from frazil.io.identities import Found, Identities, distinct_uids, find, turned
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from frazil.io.paths import Places
from frazil.io.selection_file import identity_kinds, named_identity
from frazil.io.star import copy_rows, read_star
from frazil.runs.folder import make_folder

Say = Callable[[str], None]
New = dict[str, NDArray[Any]]
_LATENT = re.compile(r"z\d+")


class _Original(Protocol):
    """The file that is written into: N rows."""

    @property
    def count(self) -> int:
        """Number of rows, N."""

    def identities(self, images: bool) -> Identities:
        """Return the identities of all rows; without `images` uids alone will do."""

    def write(self, out: Path, rows: NDArray[np.int64], columns: New, say: Say) -> None:
        """Write some rows (m,), ascending, with new columns (m,)."""


def export(settings: ExportSettings, say: Say = print) -> None:
    """Write the particles of a set, and columns of them, into a copy of their original file.

    Rows keep their order there, and every other column and table its bytes. Particles are found by
    uid, or by stack and index in it, never by row.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : what is wrong with an input; nothing is written
        then.
    """
    into, out = Path(settings.into), Path(settings.out)
    original = _open_original(into, out, settings.places())
    there = open_set(
        Path(settings.source), settings.places(), settings.epoch, settings.columns, say
    )
    chosen = np.arange(there.count)
    if settings.ind is not None:
        chosen = np.flatnonzero(there.selected(settings.ind))
    of_all = f" of {there.count}" if len(chosen) < there.count else ""
    say(f"{there.origin}: {len(chosen)}{of_all} particles")
    columns = _columns(settings.add, there)
    found = _found(settings, there, chosen, original)
    for note in found.notes:
        say(note)
    rows = found.rows
    new = {name: values[chosen][found.wanted] for name, values in columns.items()}
    left = original.count - len(rows)
    if settings.keep_all:
        new = {name: _spread(values, rows, original.count) for name, values in new.items()}
        rows = np.arange(original.count)
        say(f"{into}: all {original.count} rows are kept, {left} of them without values")
    else:
        say(f"{into}: {len(rows)} of {original.count} rows are kept, {left} left out")
    make_folder(out.parent)
    original.write(out, rows, new, say)


def _found(
    settings: ExportSettings, there: ParticleSet, chosen: NDArray[np.int64], original: _Original
) -> Found:
    """Return where the chosen particles are in the original."""
    wanted, target, found = Identities(), Identities(), None
    for images in (True,) if settings.all_copies else (False, True):
        wanted = there.identities(images).take(there.file_rows(chosen))
        target = original.identities(images)
        found = find(wanted, target, settings.all_copies)
        if found is not None:
            break
    if found is None:
        raise InputError(
            f"{settings.into}: has {identity_kinds(target)}, {there.origin} has "
            f"{identity_kinds(wanted)}: particles cannot be found by identity; give the file that "
            "they came from"
        )
    if found.missing.size and not (settings.drop_missing and len(found.rows)):
        raise InputError(
            f"{settings.into}: {found.missing.size} of {len(chosen)} particles of {there.origin} "
            f"are not in it, the first is {named_identity(wanted, int(found.missing[0]))}; give "
            "the file that they came from, or --drop-missing"
        )
    if found.missing.size:
        there.say(f"{found.missing.size} of {len(chosen)} particles are not in {settings.into}")
    other = turned(wanted, target, found)
    if other.size and not settings.all_copies:
        raise InputError(
            f"{settings.into}: {other.size} rows have another pose than in {there.origin} (the "
            f"first is row {found.rows[other[0]]}, 0-based), and several rows share an image, so "
            "they may be in another order; give the file that the particles came from, or "
            "--all-copies"
        )
    return found


def _columns(names: str | None, there: ParticleSet) -> New:
    """Return the columns to add by their name, each (n,)."""
    wanted: list[str] = []
    for name in (names or "").split(","):
        if name.strip() == "latents":
            latents = [known for known in there.names() if _LATENT.fullmatch(known)]
            if not latents:
                raise InputError(f"--columns latents: {there.origin} has none; give a run")
            wanted += latents
        elif name.strip():
            wanted.append(name.strip())
    columns: New = {}
    for name in wanted:
        column = there.get(name)
        if column is None:
            known = ", ".join(there.names())
            raise InputError(f"--columns {name}: {there.origin} has {known}")
        if isinstance(column, Words):
            column = np.array([*column.texts, ""])[column.codes]
        if column.ndim > 1:
            raise InputError(f"--columns {name}: holds several numbers; name one, as {name}0")
        columns[name] = _written_type(column)
    return columns


def _written_type(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in a type that both formats take."""
    if values.dtype.kind == "b":
        return values.astype(np.int32)
    if values.dtype.kind in "iu" and values.dtype.itemsize < 4:
        return values.astype(np.int32)
    return values


def _spread(values: NDArray[Any], rows: NDArray[np.int64], count: int) -> NDArray[Any]:
    """Return (count,) with the values at `rows`; elsewhere nan, -1 or an empty text."""
    kind = values.dtype.kind
    if kind == "u":
        values = values.astype(np.int64)
    empty: Any = {"f": np.nan, "i": -1, "u": -1, "U": ""}[kind]
    spread = np.full(count, empty, values.dtype)
    spread[rows] = values
    return spread


def _open_original(into: Path, out: Path, places: Places) -> _Original:
    """Return the file that is written into, when `out` is of the same kind."""
    is_cs = into.suffix in (".cs", ".csg") or is_job_folder(into)
    if not is_cs and into.suffix != ".star":
        raise InputError(f"--into {into}: a .cs, .csg or .star is wanted")
    suffix = ".cs" if is_cs else ".star"
    if out.suffix != suffix:
        raise InputError(f"-o {out}: the name must end in {suffix}, as --into is {into}")
    if out.absolute() == into.absolute():
        raise InputError(f"-o {out}: is the original, which stays as it is; give another name")
    return _CsOriginal(into, out, places) if is_cs else _StarOriginal(into, places)


class _StarOriginal:
    """A .star file."""

    def __init__(self, path: Path, places: Places) -> None:
        self.path = path
        self._table = open_particles(path, places)

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self._table)

    def identities(self, images: bool) -> Identities:
        """Return the identities of all rows."""
        return Identities.of(self._table.rows, self._table.sources)

    def write(self, out: Path, rows: NDArray[np.int64], columns: New, say: Say) -> None:
        """Write rows with new columns _frazilNAME behind the others."""
        known = read_star(self.path).particles
        named = {_star_label(name): values for name, values in columns.items()}
        replaced = {label: v for label, v in named.items() if label in known}
        appended = {label: v for label, v in named.items() if label not in known}
        copy_rows(self.path, out, rows, replaced, append=appended)
        for what, labels in (("added", appended), ("replaced", replaced)):
            if labels:
                say(f"columns {what}: {', '.join(labels)}")
        say(f"{out}: {len(rows)} particles")


class _CsOriginal:
    """A .cs with the files that go with it; written as one .cs and its .csg."""

    def __init__(self, path: Path, out: Path, places: Places) -> None:
        self.path, self._places = path, places
        self._columns = CsColumns(path)
        self.group = path if path.suffix == ".csg" else group_of(self._columns.path)
        if self.group is not None and out.with_suffix(".csg").absolute() == self.group.absolute():
            raise InputError(f"-o {out}: its .csg would replace {self.group}; give another name")

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self._columns)

    def identities(self, images: bool) -> Identities:
        """Return the identities of all rows."""
        uid = None if images else self._columns.get("uid")
        known = None if uid is None else distinct_uids(uid)
        if known is not None:
            return Identities(uid=known)
        table: ParticleTable = open_particles(self.path, self._places, poses=False)
        return Identities.of(table.rows, table.sources)

    def write(self, out: Path, rows: NDArray[np.int64], columns: New, say: Say) -> None:
        """Write rows with new fields frazil/NAME, and the .csg that names the results."""
        named = {f"frazil/{name.replace('/', '_')}": _bytes(v) for name, v in columns.items()}
        group = out.with_suffix(".csg")
        group.unlink(missing_ok=True)
        for line in write_joined(self._columns, out, rows, named):
            say(line)
        if self.group is not None:
            text = edited_group(self.group.read_text(encoding="utf-8"), out.name, len(rows))
        else:
            text = new_group(self._columns.names, out.name, len(rows), datetime.now())
            self._say_unlisted(group, say)
        write_text_atomic(group, text)
        if named:
            say(f"fields added: {', '.join(named)}")
        self._say_relative(out, say)
        say(f"{out}: {len(rows)} particles; {group}: for cryoSPARC's Import Result Group")

    def _say_unlisted(self, group: Path, say: Say) -> None:
        """Say which results a new .csg does not name."""
        results = dict.fromkeys(n.partition("/")[0] for n in self._columns.names if "/" in n)
        unlisted = [name for name in results if name not in KNOWN_RESULTS]
        if unlisted:
            say(
                f"{group}: does not name {', '.join(unlisted)}, whose type is not known; give the "
                "job's .csg as --into to keep them"
            )

    def _say_relative(self, out: Path, say: Say) -> None:
        """Warn when stacks are named relative to the folder that is left."""
        source = self.group or self._columns.path
        if (
            out.parent.resolve() == source.parent.resolve()
            or "blob/path" not in self._columns.names
        ):
            return
        names = self._columns.categories("blob/path").texts
        if any(name.startswith(">") for name in names):
            say(
                f"warning: stacks are named relative to {source.parent} (blob/path begins with >); "
                f"move {out.name} and its .csg there before cryoSPARC reads them"
            )


def _bytes(values: NDArray[Any]) -> NDArray[Any]:
    """Return text as bytes, as cryoSPARC keeps it; numbers as they are."""
    return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values


def _star_label(name: str) -> str:
    """Return the label of a new column: z0 is _frazilZ0."""
    words = re.split(r"[^0-9A-Za-z]+", name.removeprefix("_"))
    return "_frazil" + "".join(word[:1].upper() + word[1:] for word in words)
