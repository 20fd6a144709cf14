"""Finding the stacks that a table names.

Owns: the order in which places are tried, as `--datadir` users know it. Does not own: opening
stacks (`frazil.io.images`).
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from frazil.errors import InputError, MissingFileError


def candidate_paths(name: str, table_file: Path, datadir: Path | None) -> list[Path]:
    """Return the places where the stack `name` may be, in the order they are tried.

    With `datadir`: datadir/name, then datadir/basename. Then: the table's folder/name, `name` as it
    is (from the working folder, or absolute), the table's folder/basename. A leading ">" that
    cryoSPARC puts before some names is taken off.
    """
    plain = Path(name.lstrip(">"))
    folder = Path(table_file).parent
    tried = [] if datadir is None else [Path(datadir) / plain, Path(datadir) / plain.name]
    tried += [folder / plain, plain, folder / plain.name]
    return list(dict.fromkeys(tried))


def resolve_path(name: str, table_file: Path, datadir: Path | None, row: int) -> Path:
    """Return the absolute path of the first place where the stack `name` of a row is.

    Raises
    ------
    MissingFileError : it is in none of them; the message lists them.
    """
    tried = candidate_paths(name, table_file, datadir)
    for path in tried:
        if path.is_file():
            return path.absolute()
    places = ", ".join(_shorten(path) for path in tried)
    raise MissingFileError(
        f"{table_file}: row {row} (0-based): stack {name} not found; tried {places}; give "
        "--datadir FOLDER"
    )


def resolve_stacks(names: Sequence[str], table_file: Path, datadir: Path | None) -> tuple[str, ...]:
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
        tried = candidate_paths(name, table_file, datadir)
        path = next((p for p in tried if p.is_file()), tried[0]).absolute()
        other = taken.setdefault(str(path), name)
        if _normal(other) != _normal(name):
            raise InputError(
                f"{table_file}: stacks {other} and {name} would both be read from {path}; "
                "keep their folders apart under --datadir"
            )
        paths.append(str(path))
    return tuple(paths)


def _normal(name: str) -> str:
    """Return a stack's name without ">" and "./"."""
    return str(PurePosixPath(name.lstrip(">")))


def _shorten(path: Path, longest: int = 80) -> str:
    """Return a path cut in the middle to at most `longest` characters."""
    text = str(path)
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
