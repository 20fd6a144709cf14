"""A part of a STAR file's particles, by row, by tilt series, or divided by micrograph.

Owns: which rows are kept and how the files are called. Does not own: copying them unchanged
(`star_writer`).
"""

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.pickles import read_selection
from frazil.io.selection_file import read_rows_of
from frazil.io.star_format import StarFile, StarTable, read_star
from frazil.io.star_writer import copy_rows, split_rows

_SERIES = ("_rlnGroupName", "_rlnTomoParticleName", "_rlnTomoParticleId", "_rlnGroupNumber")
_MICROGRAPH = "_rlnMicrographName"


def filter_star(
    path: Path, out: Path, ind: Path, tilts: bool = False, by_micrograph: bool = False
) -> list[str]:
    """Write the particles that a selection names; return lines that say what was written.

    Optics table, columns, comments and the text of every row are copied byte for byte.

    Parameters
    ----------
    path : STAR file; its particles are the table with _rlnImageName.
    out : file to write; of `by_micrograph` a folder.
    ind : selection of rows, in whose order they are written; of `tilts` one of particles.
    tilts : a row is a tilt image; the images of a particle share _rlnGroupName (or
        _rlnTomoParticleName), and particles count in the order in which they first appear.
    by_micrograph : write one file per _rlnMicrographName, called as it is.

    Raises
    ------
    InputError : rows out of range or named twice, or a column that is needed is missing.
    """
    star = read_star(path)
    particles = star.particles
    if tilts:
        numbers, count = _series(star)
        chosen = read_selection(ind, count)
        rows = _rows_of(numbers, chosen, count)
        what = f"{len(chosen)} of {count} particles, {len(rows)} of {len(particles)} tilt images"
    else:
        rows = read_rows_of(ind, path, len(particles))
        what = f"{len(rows)} of {len(particles)} particles"
    if not by_micrograph:
        copy_rows(path, out, rows)
        return [f"{out}: {what}"]
    parts = _by_micrograph(particles, rows, out)
    out.mkdir(parents=True, exist_ok=True)
    split_rows(path, parts)
    return [f"{out}: {what}, in {len(parts)} files, one per micrograph"]


def _series(star: StarFile) -> tuple[NDArray[np.int64], int]:
    """Return of each row the number of its particle, and how many particles there are."""
    particles = star.particles
    label = next((label for label in _SERIES if label in particles), None)
    if label is None:
        raise InputError(
            f"{star.path}: --et needs a column that says which tilt images are of one particle "
            f"({', '.join(_SERIES)}); leave --et out if each row is a particle"
        )
    known: dict[str, int] = {}
    numbers = [known.setdefault(name, len(known)) for name in particles.iterate(label)]
    return np.array(numbers, np.int64), len(known)


def _rows_of(
    numbers: NDArray[np.int64], chosen: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the rows of the chosen particles, in the order chosen, each one's in file order."""
    place = np.full(count, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(place[numbers] >= 0)
    return rows[np.argsort(place[numbers[rows]], kind="stable")]


def _by_micrograph(
    particles: StarTable, rows: NDArray[np.int64], folder: Path
) -> dict[Path, NDArray[np.int64]]:
    """Return file -> its rows; the name has the folder where the stem alone is not unique."""
    if not particles.is_loop:
        raise InputError(f"{particles.path}: holds one particle; leave -m out")
    names = particles.strings(_MICROGRAPH)
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(names[row], []).append(row)
    stems: dict[str, list[str]] = {}
    for name in groups:
        stems.setdefault(PurePosixPath(name).stem, []).append(name)
    files: dict[Path, NDArray[np.int64]] = {}
    for stem, same in stems.items():
        for name in same:
            plain = PurePosixPath(name.lstrip("/")).with_suffix("")
            called = stem if len(same) == 1 else "_".join(plain.parts)
            file = folder / f"{called}.star"
            if file in files:
                raise InputError(
                    f"{particles.path}: micrographs {' and '.join(same[:2])} would both be "
                    f"written as {file}; rename one of them"
                )
            files[file] = np.array(groups[name], np.int64)
    return files
