"""Finding the stacks that a table names.

Owns: the order in which places are tried, as `--datadir` users know it. Does not own: opening
stacks (`frazil.io.images`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from frazil.errors import InputError, MissingFileError
from frazil.settings import Settings, option


@dataclass(frozen=True)
class Places:
    """Where the user says that stacks are.

    `datadir` is a folder that names are relative to; `maps` are (old, new) beginnings of names.
    """

    datadir: Path | None = None
    maps: tuple[tuple[str, str], ...] = ()


NO_HINTS = Places()


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


def candidate_paths(name: str, table_file: Path, places: Places) -> list[Path]:
    """Return the places where the stack `name` may be, in the order they are tried.

    First every mapped name. With `datadir`: datadir/name, then datadir/basename. Then: the
    table's folder/name, `name` as it
    is (from the working folder, or absolute), the table's folder/basename. A leading ">" that
    cryoSPARC puts before some names is taken off.
    """
    plain = Path(name.lstrip(">"))
    folder, datadir = Path(table_file).parent, places.datadir
    tried = _mapped(plain, places.maps)
    tried += [] if datadir is None else [datadir / plain, datadir / plain.name]
    tried += [folder / plain, plain, folder / plain.name]
    return list(dict.fromkeys(tried))


def resolve_path(name: str, table_file: Path, places: Places, row: int) -> Path:
    """Return the absolute path of the first place where the stack `name` of a row is.

    Raises
    ------
    MissingFileError : it is in none of them; the message lists them.
    """
    tried = candidate_paths(name, table_file, places)
    for path in tried:
        if path.is_file():
            return path.absolute()
    places = ", ".join(_shorten(path) for path in tried)
    raise MissingFileError(
        f"{table_file}: row {row} (0-based): stack {name} not found; tried {places}; give "
        "--datadir FOLDER"
    )


def resolve_stacks(names: Sequence[str], table_file: Path, places: Places) -> tuple[str, ...]:
    """Return the absolute path of every stack of a table, found or not.

    A stack that is nowhere gets its first candidate, because poses and CTF can be used without
    images; `open_images` then says what is missing.

    Raises
    ------
    InputError : two different names end at one file because only the basename was found.
    """
    paths: list[str] = []
    taken: dict[str, str] = {}
    for name in names:
        tried = candidate_paths(name, table_file, places)
        path = next((p for p in tried if p.is_file()), tried[0]).absolute()
        other = taken.setdefault(str(path), name)
        if _normal(other) != _normal(name):
            raise InputError(
                f"{table_file}: stacks {other} and {name} would both be read from {path}; "
                "keep their folders apart under --datadir"
            )
        paths.append(str(path))
    return tuple(paths)


def _mapped(name: Path, maps: tuple[tuple[str, str], ...]) -> list[Path]:
    """Return the name under every `new` whose `old` it begins with, the longest `old` first."""
    fitting = [(old, new) for old, new in maps if name.is_relative_to(old)]
    fitting.sort(key=lambda pair: len(PurePosixPath(pair[0]).parts), reverse=True)
    return [Path(new) / name.relative_to(old) for old, new in fitting]


def _normal(name: str) -> str:
    """Return a stack's name without ">" and "./"."""
    return str(PurePosixPath(name.lstrip(">")))


def _shorten(path: Path, longest: int = 80) -> str:
    """Return a path cut in the middle to at most `longest` characters."""
    text = str(path)
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
