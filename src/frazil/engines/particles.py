"""The particles of an engine: a store, whatever the input was.

Owns: the way from a command's flags to a store with poses and CTF. Does not own: packing
(`frazil.preprocess`) and streaming (`frazil.loader`).
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from frazil.errors import InputError, MissingFileError
from frazil.io.accounts import RowAccount
from frazil.io.identities import Identities
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from frazil.io.paths import Places
from frazil.io.selection_file import read_rows
from frazil.loader.batches import ParticleBatch
from frazil.loader.prefetch import ParticleLoader
from frazil.loader.tier import Tier
from frazil.preprocess.inputs import check_scale, join_pickles
from frazil.preprocess.planned import plan_and_pack
from frazil.preprocess.settings import PackSettings
from frazil.runs.folder import Run, make_folder
from frazil.settings import described_fields
from frazil.store.reader import ParticleStore
from frazil.store.records import ParticleRecords

Say = Callable[[str], None]


class ParticleFlags(Protocol):
    """The fields that the settings of every engine share; all are paths as the user gave them."""

    @property
    def particles(self) -> str:
        """A store, or anything that is packed into one."""

    @property
    def poses(self) -> str | None:
        """A pickle of poses, in place of those of the input."""

    @property
    def ctf(self) -> str | None:
        """A pickle of CTF parameters, in place of those of the input."""

    @property
    def class_index(self) -> int | None:
        """Class of a cryoSPARC job that has several."""

    @property
    def ind(self) -> str | None:
        """A selection: identities (.sel) or row numbers (.pkl)."""

    def places(self) -> Places:
        """Where the stacks that are named in the input may be."""

    @property
    def cache(self) -> str | None:
        """Fast local disk: where the packed store is kept (None: in the output folder), or a copy
        of what is read of a store (None: no copy)."""


def open_store(
    given: ParticleFlags, out: Path, packing: PackSettings, say: Say, hint: str = ""
) -> ParticleStore:
    """Return a store of the input's particles, with the poses and CTF to be used.

    A store is opened; anything else is packed first, into --cache or `out`, and what was packed
    is used again while the input is unchanged.

    Parameters
    ----------
    hint : what to add where it is said that packing comes first.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : the input cannot be used, or has no poses.
    """
    path = Path(given.particles)
    if is_packed(given):
        store = ParticleStore.open(path)
        _say_unused(packing, path, say)
        table = _joined(store.table(), given, say)
        check_scale(store, table, given.ctf)
        return store.with_rows(table.rows) if given.poses or given.ctf else store
    table = read_table(given, say)
    target = store_path(given, out)
    say(f"{path}: is packed into {target}, or read from there when it has not changed{hint}")
    return plan_and_pack(table, target, packing, say)


def trained_store(run: Run) -> ParticleStore:
    """Return the store of a finished run, with the poses and CTF that it was trained with.

    Raises
    ------
    InputError : the run was trained from particle files (--lazy).
    MissingFileError : the store is not where it was.
    """
    if run.is_lazy:
        raise InputError(
            f"{run.path}: was trained with --lazy, so there is no store of its particles; train "
            "without it"
        )
    path = Path(run.config["store"])
    if not (path / "manifest.json").is_file():
        raise MissingFileError(
            f"{path}: no such store, from which {run.path} was trained; restore it"
        )
    store = ParticleStore.open(path)
    data = run.config.get("settings", {}).get("data", {})
    poses, ctf = data.get("poses"), data.get("ctf")
    # What was no store was packed with them, into a store of another name.
    if (poses or ctf) and Path(data["particles"]).name == path.name:
        return store.with_rows(join_pickles(store.table(), poses, ctf).rows)
    return store


def counted(loader: ParticleLoader, what: str) -> Iterator[ParticleBatch]:
    """Yield all batches in storage order, with a bar on stderr: particles, rate and time left."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    with tqdm(
        total=loader.row_count, desc=what, unit="img", file=sys.stderr, mininterval=interval
    ) as bar:
        for batch in loader.in_order():
            yield batch
            bar.update(len(batch.rows))


def open_tier(given: ParticleFlags, store: ParticleRecords, say: Say) -> Tier | None:
    """Return the copy in --cache of a store that was given as input; None without one.

    Raises
    ------
    InputError : the folder cannot be used.
    """
    if given.cache is None or not isinstance(store, ParticleStore) or not is_packed(given):
        return None
    return Tier(store, Path(given.cache), say)


def is_packed(given: ParticleFlags) -> bool:
    """Return whether the input is a store."""
    path = Path(given.particles)
    return path.suffix == ".frz" or (path / "manifest.json").is_file()


def read_table(given: ParticleFlags, say: Say) -> ParticleTable:
    """Return the particles of an input that is not a store, with the poses and CTF to be used.

    Raises
    ------
    InputError, MissingFileError : the input cannot be used, or has no poses.
    """
    path = Path(given.particles)
    table = open_particles(
        path, given.places(), poses=given.poses is None, class_index=given.class_index
    )
    if not len(table):
        raise InputError(f"{path}: holds no particles; give a file with at least one row")
    return _joined(table, given, say)


def store_path(given: ParticleFlags, out: Path) -> Path:
    """Return where the store of an input is kept: in --cache or `out`, which is made."""
    path = Path(given.particles)
    folder = Path(given.cache) if given.cache else out
    make_folder(folder)
    return folder / f"{path.name.removesuffix(path.suffix).removesuffix('.ft')}.frz"


def selected_rows(
    given: ParticleFlags, there: ParticleRecords | ParticleTable, say: Say
) -> NDArray[np.int64] | None:
    """Return the rows (n,) of the particles there that --ind means; None without it.

    Raises
    ------
    InputError, MissingFileError : the selection does not fit the input, or is not there.
    """
    if given.ind is None:
        return None
    name = there.origin if isinstance(there, ParticleTable) else str(there.path)
    return read_rows(
        Path(given.ind),
        len(there.rows),
        lambda _: Identities.of(there.rows, there.sources),
        name,
        say,
    )


def rows_used(
    loader: ParticleLoader, selected: NDArray[np.int64] | None, first: int | None = None
) -> RowAccount:
    """Return how many rows of the particles a loader uses, and why not all.

    Parameters
    ----------
    selected : what --ind names, as `selected_rows` returns it.
    first : the most of them that were taken.
    """
    count = loader.store.count
    named = count if selected is None else len(selected)
    taken = named if first is None else min(first, named)
    dropped = {"--ind": count - named, "--first": named - taken, **loader.excluded}
    return RowAccount(count, loader.row_count, dropped)


def _joined(table: ParticleTable, given: ParticleFlags, say: Say) -> ParticleTable:
    """Return the table with --poses and --ctf; says its notes."""
    table = join_pickles(table, given.poses, given.ctf)
    # Rows that lack a pose among others that have one are named by the loader.
    if not np.isfinite(table.rows["rotation"]).any():
        why = next((note for note in table.notes if "no 3D poses: " in note), "")
        because = f" ({why.partition('no 3D poses: ')[2]})" if why else ""
        raise InputError(f"{given.particles}: holds no poses{because}; give --poses")
    for note in table.notes:
        say(note)
    return table


def _say_unused(packing: PackSettings, path: Path, say: Say) -> None:
    """Say which flags of packing were given for particles that are packed already."""
    flags = [
        field.flags[0]
        for field in described_fields(PackSettings)
        if field.name != "box_px" and getattr(packing, field.name) != field.default
    ]
    if flags:
        say(f"{' '.join(flags)}: no effect, as {path} is packed already (frazil preprocess)")
