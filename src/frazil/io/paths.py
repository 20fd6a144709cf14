"""Finding the stacks that a table names.

Owns: the order in which places are tried, and what is said of stacks that are nowhere. Does not
own: what a project folder is (`frazil.io.projects`), opening stacks (`frazil.io.images`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Annotated

from frazil.errors import InputError
from frazil.io.projects import project_folders, starts_of
from frazil.settings import Settings, option


@dataclass(frozen=True)
class Places:
    """Where the user says that stacks are.

    `datadir` is a folder that names are relative to; `maps` are (old, new) beginnings of names.
    """

    datadir: Path | None = None
    maps: tuple[tuple[str, str], ...] = ()


NO_HINTS = Places()

_UID_PREFIX = re.compile(r"^\d{12,}_(?=.)")
_THREADS = 16  # a look at a network file system is a wait, not work
_FEW = 32


class PlaceSettings(Settings, frozen=True, kw_only=True):
    """Flags of every command that reads particles whose stacks are named in a file."""

    datadir: Annotated[
        str | None,
        option("--datadir", metavar="DIR", help="folder that stacks named in the input lie in"),
    ] = None
    maps: Annotated[
        tuple[str, ...],
        option(
            "--map",
            metavar="OLD=NEW",
            repeat=True,
            help="names of stacks that begin with OLD begin with NEW here; may be repeated",
        ),
    ] = ()

    def places(self) -> Places:
        """Return the places that the flags name.

        Raises
        ------
        InputError : a --map that is not OLD=NEW.
        """
        pairs = [text.partition("=") for text in self.maps]
        for old, equals, new in pairs:
            if not (old and equals and new):
                raise InputError(
                    f"--map {old}{equals}{new}: OLD=NEW is wanted, e.g. --map /data=/mnt/data"
                )
        datadir = Path(self.datadir) if self.datadir else None
        return Places(datadir, tuple((old, new) for old, _, new in pairs))


def resolve_stacks(names: Sequence[str], table_file: Path, places: Places) -> tuple[str, ...]:
    """Return the absolute path of every stack of a table, found or not.

    Poses and CTF can be used without images, so one that is nowhere gets the path in --datadir, or
    beside the table; what needs the images refuses with `missing_message`. A stack costs one look
    at the disk where it is, and a folder that does not exist is asked for once, not once a stack.

    Raises
    ------
    InputError : two different names end at one file.
    """
    search = StackSearch(names, table_file, places)
    if len(names) > _FEW:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(search.find, names, chunksize=_FEW))
    else:
        found = [search.find(name) for name in names]
    taken: dict[Path, str] = {}
    for name, path in zip(names, found, strict=True):
        other = taken.setdefault(path, name) if path is not None else name
        if plain_name(other) != plain_name(name):
            raise InputError(
                f"{table_file}: stacks {other} and {name} would both be read from {path}; "
                "keep their folders apart under --datadir"
            )
    return tuple(str(p or search.nominal(name)) for name, p in zip(names, found, strict=True))


def plain_name(name: str) -> str:
    """Return a stack's name without the ">" that cryoSPARC puts before some, and without "./"."""
    return str(PurePosixPath(name.lstrip(">")))


class StackSearch:
    """Where the stacks of one table may be. Threads may share it."""

    def __init__(self, names: Sequence[str], table_file: Path, places: Places) -> None:
        self._names, self._file, self._places = names, Path(table_file), places
        self._folders = starts_of(self._file)
        self._lock = Lock()
        self._is_folder: dict[Path, Future[bool]] = {}

    @cached_property
    def _projects(self) -> list[Path]:
        return project_folders(self._file)

    @cached_property
    def _ends(self) -> Counter[str]:
        """How many of the wanted names end with each end of a name."""
        ends: Counter[str] = Counter()
        for name in {plain_name(name) for name in self._names}:
            ends.update({end for spelling in _spellings(name) for end in _all_ends(spelling)})
        return ends

    def find(self, name: str) -> Path | None:
        """Return the absolute path of the first place where a stack is; None when nowhere.

        Of links whose target is not there, the target's path is mapped by --map, too.
        """
        for path in self.candidates(name):
            if self._is_there(path):
                return path.absolute()
        for link in filter(self._is_link, self.candidates(name)):
            for path in self._mapped(link_target(link)):
                if self._is_there(path):
                    return path.absolute()
        return None

    def nominal(self, name: str) -> Path:
        """Return the absolute path that stands for a stack that is nowhere."""
        return (self._base / plain_name(name)).absolute()

    def name_of(self, path: str) -> str:
        """Return the name of a stack from its `nominal` path."""
        base = self._base.absolute()
        return str(Path(path).relative_to(base)) if Path(path).is_relative_to(base) else path

    @property
    def _base(self) -> Path:
        return self._places.datadir or self._folders[0]

    def has_namesake(self, name: str) -> bool:
        """Return whether another stack has the same name in another folder."""
        return self._ends[_all_ends(plain_name(name))[-1]] > 1

    def candidates(self, name: str) -> Iterator[Path]:
        """Yield the places where a stack may be, in the order they are tried, as in docs/paths.md.

        A name without its whole folder is looked for only if no other wanted name ends like it.
        """
        datadir = self._places.datadir
        for number, spelling in enumerate(_spellings(plain_name(name))):
            whole, *shorter = _all_ends(spelling)
            if number and self._ends[whole] > 1:
                continue
            ends = [end for end in shorter if self._ends[end] == 1]
            yield from self._mapped(Path(spelling))
            if datadir is not None:
                yield from (datadir / end for end in (whole, *ends))
            if spelling.startswith("/"):
                yield Path(spelling)
            else:
                yield from (folder / spelling for folder in self._folders)
                yield Path(spelling)
                yield from (folder / spelling for folder in self._projects)
            if ends and "/" not in ends[-1]:
                yield from (folder / ends[-1] for folder in self._folders)

    def _mapped(self, name: Path) -> Iterator[Path]:
        """Yield the name under every NEW whose OLD it begins with, the longest OLD first."""
        fitting = [pair for pair in self._places.maps if name.is_relative_to(pair[0])]
        for old, new in sorted(fitting, key=lambda pair: -len(Path(pair[0]).parts)):
            yield Path(new) / name.relative_to(old)

    def _is_there(self, path: Path) -> bool:
        """Return whether a file is there; that its folder is there is asked once a folder."""
        folder = path.parent
        with self._lock:
            asked = folder in self._is_folder
            answer = self._is_folder.setdefault(folder, Future())
        if not asked:
            answer.set_result(_ask(folder.is_dir))
        return answer.result() and _ask(path.is_file)

    def _is_link(self, path: Path) -> bool:
        answer = self._is_folder.get(path.parent)
        return (answer is None or answer.result()) and _ask(path.is_symlink)


def missing_message(
    table_file: Path, missing: Sequence[tuple[int, str]], wanted: Sequence[str], places: Places
) -> str:
    """Return one line on the stacks that were not found.

    Parameters
    ----------
    missing : (first row that needs it, its path by `resolve_stacks`) of each.
    wanted : all paths, those of the missing ones included.
    """
    missing = sorted(missing)
    search = StackSearch(wanted, table_file, places)
    names = [search.name_of(path) for _, path in missing[:3]]
    rows = [row for row, _ in missing[:3]]
    examples = "; ".join(
        f"row {row} (0-based) {_named(search, name)}" for row, name in zip(rows, names, strict=True)
    )
    alike = search.has_namesake(names[0])
    tried = list(dict.fromkeys(search.candidates(names[0])))
    shown = ", ".join(_shorten(path) for path in tried[:6])
    more = f" and {len(tried) - 6} more places" if len(tried) > 6 else ""
    return (
        f"{table_file}: {len(wanted) - len(missing):,} of {len(wanted):,} stacks found; missing: "
        f"{examples}{', ...' if len(missing) > 3 else ''} (tried for the first: {shown}{more}); "
        "give --datadir FOLDER or --map OLD=NEW"
        + (", with the folders inside it, since stacks have the same names" if alike else "")
    )


def link_target(link: Path) -> Path:
    """Return the path that a link names, relative ones from the link's folder."""
    return link.parent / link.readlink()


def _named(search: StackSearch, name: str) -> str:
    """Return a missing stack's name, with what it links to where it is a link."""
    for path in search.candidates(name):
        if _ask(path.is_symlink):
            return f"{_shorten(path)} (a link to {_shorten(link_target(path))}, which is not there)"
    return _shorten(name)


def _ask(question: Callable[[], bool]) -> bool:
    """Return the answer; False of a name that no file can have, or in a folder that is closed."""
    try:
        return question()
    except (OSError, ValueError):
        return False


def _spellings(name: str) -> list[str]:
    """Return a plain name, and without the number that cryoSPARC puts before imported files."""
    folder, slash, base = name.rpartition("/")
    bare = _UID_PREFIX.sub("", base)
    return [name] if bare == base else [name, folder + slash + bare]


def _all_ends(name: str) -> list[str]:
    """Return a name, without its first folder, without its first two, ..., its last part alone."""
    parts = name.lstrip("/").split("/")
    return ["/".join(parts[number:]) for number in range(len(parts))]


def _shorten(path: Path | str, longest: int = 80) -> str:
    """Return a path cut in the middle to at most `longest` characters."""
    text = str(path)
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
