"""Pick lists: text files of particles that a person chose, one per line.

Owns: the lines. Does not own: selections as frazil writes them (`frazil.io.selection_file`).

A line is a row (0-based), uid:UID, or an image as RELION names it, 12@stack.mrcs (1-based). Blank
lines and those that begin with # are left out.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError, MissingFileError
from frazil.io.identities import MOST_IMAGES, Identify, Identities, find
from frazil.io.star import split_image_name

_UID = "uid:"


def read_picks(path: Path, count: int, identities: Identify, origin: str) -> NDArray[np.int64]:
    """Return the distinct rows (n,) that a pick list means, ascending.

    Parameters
    ----------
    count : number of particles of the set.
    identities : gives the identities of all of them, when a line names a uid or image.
    origin : the set's name, for messages.

    Raises
    ------
    MissingFileError : no such file.
    InputError : a line that names no particle, or one that the set does not have.
    """
    picks = _lines(path)
    rows: list[int] = []
    uids: dict[int, int] = {}  # uid -> line
    images: dict[tuple[str, int], int] = {}  # (stack, index) -> line
    for number, pick in picks:
        try:
            if pick.startswith(_UID):
                uids[_below(int(pick.removeprefix(_UID)), 1 << 64)] = number
            elif "@" in pick:
                index, stack = split_image_name(pick)
                images[stack, _below(index, MOST_IMAGES)] = number
            else:
                rows.append(int(pick))
        except ValueError as error:
            raise InputError(
                f"{path}:{number}: '{pick[:60]}': a row (0-based), uid:UID or 12@stack.mrcs is "
                "wanted"
            ) from error
        if rows and not 0 <= rows[-1] < count:
            raise InputError(
                f"{path}:{number}: row {rows[-1]}, but {origin} has {count} particles (rows 0 to "
                f"{count - 1})"
            )
    parts = [np.array(rows, np.int64)]
    if uids:
        wanted = Identities(uid=np.array(list(uids), np.uint64))
        parts.append(_found(wanted, list(uids.values()), path, identities(False), origin))
    if images:
        parts.append(
            _found(_images(list(images)), list(images.values()), path, identities(True), origin)
        )
    return np.unique(np.concatenate(parts))


def _below(number: int, limit: int) -> int:
    """Return a number from 0 on that is below a limit; ValueError for any other."""
    if not 0 <= number < limit:
        raise ValueError(number)
    return number


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, text) of every line that is neither blank nor a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: a list of particles is wanted, one per line") from error
    picks = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    picks = [(number, pick) for number, pick in picks if pick and not pick.startswith("#")]
    if not picks:
        raise InputError(f"{path}: the selection is empty")
    return picks


def _images(names: list[tuple[str, int]]) -> Identities:
    """Return the identities of (stack, 0-based index)."""
    numbers = {stack: number for number, stack in enumerate(dict.fromkeys(s for s, _ in names))}
    source = np.array([numbers[stack] for stack, _ in names])
    return Identities(
        source=source, index=np.array([index for _, index in names]), sources=tuple(numbers)
    )


def _found(
    wanted: Identities, lines: list[int], path: Path, there: Identities, origin: str
) -> NDArray[np.int64]:
    """Return the rows of wanted particles; refuse those that are not there."""
    found = find(wanted, there)
    if found is None:
        kind = "uids" if wanted.uid is not None else "images"
        raise InputError(f"{path}: names {kind}, which {origin} does not have; give rows")
    if found.missing.size:
        raise InputError(
            f"{path}:{lines[int(found.missing[0])]}: names a particle that is not in {origin} "
            f"({found.missing.size} lines do); give the set that the list was made for"
        )
    return found.rows
