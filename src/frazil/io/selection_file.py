"""Selections of particles as files: identities and the rule that chose them.

Owns: the .sel format, and the rows that any selection (.sel, or the row numbers of .pkl, .npy and
.txt) means in a set of particles. Does not own: identities (`frazil.io.identities`), row numbers
(`frazil.io.pickles`), nor the choice (`frazil.analysis.select`).

A .sel is a zip of .npy arrays, as numpy.load reads: format (1), rule, origin (the set it was chosen
from), total (rows of that set), and of n particles uid (n,), source (n,), index (n,) and sources
(S,), copy (n,) and rotation (n, 3, 3); those that are unknown are left out.
"""

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import CorruptDataError, FrazilError, InputError, MissingFileError
from frazil.io.atomic import atomic_path
from frazil.io.identities import MOST_IMAGES, Found, Identify, Identities, find, turned
from frazil.io.images import open_particles
from frazil.io.npy import read_npy_header
from frazil.io.pick_list import read_picks
from frazil.io.pickles import read_selection

SUFFIX = ".sel"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen particles.

    Parameters
    ----------
    identities : of the n particles.
    rule : what chose them, for people.
    origin : the set that they were chosen from, as the user gave it.
    total : number of rows of that set.
    """

    identities: Identities
    rule: str
    origin: str
    total: int

    def __len__(self) -> int:
        return len(self.identities)


def is_selection(path: Path) -> bool:
    """Return whether a file is a selection by identity, which its suffix tells."""
    return path.suffix == SUFFIX


def write_selection(path: Path, selection: Selection) -> None:
    """Write a selection, whole or not at all."""
    known = selection.identities
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(_FORMAT),
        "rule": np.array(selection.rule),
        "origin": np.array(selection.origin),
        "total": np.array(selection.total),
    }
    if known.uid is not None:
        arrays["uid"] = known.uid
    if known.source is not None and known.index is not None:
        arrays["source"], arrays["index"] = _narrow(known.source), _narrow(known.index)
        names = [name.encode("utf-8", "surrogateescape") for name in known.sources]
        arrays["sources"] = np.array(names, dtype="S")
    if known.copy is not None:
        arrays["copy"] = _narrow(known.copy)
    if known.rotation is not None:
        arrays["rotation"] = known.rotation
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_selection_file(path: Path) -> Selection:
    """Return the selection of a .sel file.

    Raises
    ------
    MissingFileError : no such file.
    InputError : no .sel file, or of a newer format.
    CorruptDataError : damaged (each array has its checksum in the zip).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a selection ({SUFFIX}) is wanted")
    arrays = _read_arrays(path)
    if "format" not in arrays or arrays["format"].shape != ():
        raise InputError(f"{path}: not a selection; make one with frazil select")
    if int(arrays["format"]) > _FORMAT:
        raise InputError(f"{path}: of a newer format ({arrays['format']}); install a newer frazil")
    identities = Identities(
        uid=arrays.get("uid"),
        source=arrays.get("source"),
        index=arrays.get("index"),
        sources=tuple(
            name.decode("utf-8", "surrogateescape") for name in arrays.get("sources", _EMPTY)
        ),
        copy=arrays.get("copy"),
        rotation=arrays.get("rotation"),
    )
    _check(path, identities)
    rule, origin = (str(arrays.get(name, "")) for name in ("rule", "origin"))
    return Selection(identities, rule, origin, int(arrays.get("total", len(identities))))


def read_rows(
    path: Path,
    count: int,
    identities: Identify,
    origin: str,
    say: Callable[[str], None] | None = None,
) -> NDArray[np.int64]:
    """Return the distinct rows (n,) of a set that a selection means: what --ind takes.

    Row numbers (.pkl, .npy, .txt) come in their order; a .sel and a pick list (.txt, see
    `frazil.io.pick_list`), which know particles by their identity, give ascending rows.

    Parameters
    ----------
    count : number of particles of the set, N.
    identities : gives the identities of all of them, when they are needed.
    origin : the set's name, for messages.
    say : takes lines worth telling the user.

    Raises
    ------
    MissingFileError, InputError, CorruptDataError : see `read_selection`, `read_selection_file` and
        `find_selected`.
    """
    if path.suffix == ".txt" and _names_particles(path):
        return read_picks(path, count, identities, origin)
    if not is_selection(path):
        return read_selection(path, count)
    selection = read_selection_file(path)
    there = identities(selection.identities.uid is None)
    found = find_selected(selection, path, there, origin)
    if say is not None:
        for note in found.notes:
            say(f"{path}: {note}")
    return found.rows


def read_rows_of(ind: Path, path: Path, count: int) -> NDArray[np.int64]:
    """Return the rows (n,) of a particle file of `count` rows that a selection means.

    Raises
    ------
    MissingFileError, InputError, CorruptDataError : see `read_rows`.
    """

    def identities(images: bool) -> Identities:
        table = open_particles(path, poses=False)
        return Identities.of(table.rows, table.sources)

    return read_rows(ind, count, identities, str(path))


def _names_particles(path: Path) -> bool:
    """Return whether a text file holds more than row numbers."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return any(not line.replace(b" ", b"").strip().isdigit() for line in file if line.strip())


def find_selected(
    selection: Selection, path: Path, there: Identities, origin: str, all_copies: bool = False
) -> Found:
    """Return where the particles of a selection are in a set; all of them must be there.

    Raises
    ------
    InputError : some, or all, are not there; or rows over one image are in another order.
    """
    found = find(selection.identities, there, all_copies)
    if found is None:
        raise InputError(
            f"{path}: has {identity_kinds(selection.identities)}, {origin} has "
            f"{identity_kinds(there)}: particles cannot be found by identity; select from a file "
            "that has the same"
        )
    if found.missing.size:
        first = named_identity(selection.identities, int(found.missing[0]))
        raise InputError(
            f"{path}: {found.missing.size} of its {len(selection)} particles are not in {origin}, "
            f"the first is {first}; it was chosen from {selection.origin}: give that set, or "
            "select again"
        )
    other = turned(selection.identities, there, found)
    if other.size and not all_copies:
        raise InputError(
            f"{path}: {other.size} rows of {origin} have another pose than when they were chosen "
            f"(the first is row {found.rows[other[0]]}, 0-based), and several rows share an image, "
            "so they may be in another order; select again"
        )
    return found


_EMPTY: NDArray[np.bytes_] = np.empty(0, "S1")


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a zip of .npy files; nothing larger than the file is allocated."""
    data = path.read_bytes()  # of a file, zipfile asks for as much as a damaged directory says
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > len(data):
                raise InputError(f"{path}: not a selection; make one with frazil select")
            return {
                member.filename.removesuffix(".npy"): _array(archive.read(member), path)
                for member in members
            }
    except FrazilError:
        raise
    except zipfile.BadZipFile as error:
        raise CorruptDataError(f"{path}: damaged selection ({error}); select again") from error
    except (NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a selection ({error})") from error


def _array(data: bytes, path: Path) -> NDArray[Any]:
    """Return the array in the bytes of a .npy file."""
    stream = io.BytesIO(data)
    try:
        shape, by_columns, kind = read_npy_header(stream)
        body = data[stream.tell() :]
        if kind.hasobject or by_columns or len(body) != math.prod(shape) * kind.itemsize:
            raise ValueError("an array that is not plain")
        return np.frombuffer(body, kind).reshape(shape)
    except ValueError as error:
        raise CorruptDataError(f"{path}: damaged selection ({error}); select again") from error


def _check(path: Path, identities: Identities) -> None:
    """Raise CorruptDataError unless the arrays of a selection fit together."""
    n = len(identities)
    columns = (identities.uid, identities.source, identities.index, identities.copy)
    fit = all(c is None or (c.shape == (n,) and c.dtype.kind in "iu") for c in columns)
    fit = fit and (identities.source is None) == (identities.index is None) and n > 0
    if fit and identities.source is not None and identities.index is not None:
        fit = 0 <= int(identities.source.min()) <= int(identities.source.max())
        fit = fit and int(identities.source.max()) < len(identities.sources)
        fit = fit and 0 <= int(identities.index.min()) <= int(identities.index.max())
        fit = fit and int(identities.index.max()) < MOST_IMAGES
    if identities.rotation is not None:
        fit = fit and identities.rotation.shape == (n, 3, 3)
    if not fit:
        raise CorruptDataError(f"{path}: its arrays do not fit together; select again")


def _narrow(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return integers from 0 on in the smallest type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def identity_kinds(identities: Identities) -> str:
    """Return which identities are known, for a message."""
    kinds = (("uids", identities.uid), ("images", identities.source))
    return " and ".join(name for name, known in kinds if known is not None) or "no identities"


def named_identity(identities: Identities, place: int) -> str:
    """Return one particle for a message."""
    parts = []
    if identities.uid is not None:
        parts.append(f"uid {identities.uid[place]}")
    if identities.source is not None and identities.index is not None:
        stack = identities.sources[int(identities.source[place])]
        parts.append(f"image {identities.index[place]} (0-based) of {stack}")
    if identities.copy is not None:
        parts.append(f"row {identities.copy[place]} (0-based) over it")
    return ", ".join(parts)
