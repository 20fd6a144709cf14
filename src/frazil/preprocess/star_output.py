"""The STAR file of downsampled stacks: new image names, box and pixel size, all else as it was.

Owns: where each stack goes, and which values change. Does not own: the stacks (`downsample`) or
the STAR format (`frazil.io`).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.particles import ParticleTable
from frazil.io.star import copy_rows, read_star, split_image_name
from frazil.io.star_format import StarFile, StarTable
from frazil.io.star_labels import RELION, dialect_of, states
from frazil.preprocess.inputs import DistinctImages

# Lengths in pixels of the image, which shrink with it (the ...Angst columns stay).
_IN_PIXELS = ("_rlnOriginX", "_rlnOriginY", "_rlnOriginXPrior", "_rlnOriginYPrior")
_PIXEL_SIZES = ("_rlnImagePixelSize", "_rlnPixelSize", "_rlnDetectorPixelSize")
_BOX = "_rlnImageSize"
Changes = dict[str, NDArray[Any] | list[str]]


@dataclass(frozen=True, eq=False)
class StarPlan:
    """Stacks to write with the table rows of their images, and what each kept row is called."""

    stacks: list[tuple[Path, NDArray[np.int64]]]
    rows: NDArray[np.int64]  # (n,) rows of the input file
    names: list[str]  # (n,)


def plan_star(
    source: Path, table: ParticleTable, rows: NDArray[np.int64], out: Path, folder: Path
) -> StarPlan:
    """Return one stack per stack of the input, holding the images that are used, each once.

    A stack keeps its name, and the folders of a relative name, below `folder`. An absolute name
    keeps its basename, or all of it where another stack has the same basename.

    Parameters
    ----------
    source : the .star file that was read.
    table : the particles kept.
    rows : (n,) their rows in `source`.
    out : the .star file to write; image names are relative to its folder where they can be.

    Raises
    ------
    InputError : two stacks would get one name.
    """
    distinct = DistinctImages.of(table)
    stack_of_image = table.rows["source"][distinct.rows]
    starts = np.flatnonzero(np.diff(stack_of_image, prepend=-1))
    groups = np.split(distinct.rows, starts[1:])
    originals = _original_names(source, rows, table)
    relative = _relative_names([originals[int(stack_of_image[start])] for start in starts], source)
    paths = [folder / name for name in relative]
    called = [_name_in_star(path, out) for path in paths]
    number = np.searchsorted(starts, distinct.image_of_row, side="right") - 1  # stack of each row
    place = distinct.image_of_row - starts[number] + 1
    pairs = zip(place.tolist(), number.tolist(), strict=True)
    names = [f"{index:06d}@{called[stack]}" for index, stack in pairs]
    return StarPlan(list(zip(paths, groups, strict=True)), rows, names)


def _original_names(source: Path, rows: NDArray[np.int64], table: ParticleTable) -> dict[int, str]:
    """Return for each stack of the table what the file calls it."""
    particles = read_star(source).particles
    if dialect_of(particles) is not RELION:
        raise InputError(
            f"{source}: written by {dialect_of(particles).program}; only a RELION .star can be "
            "written, give -o X.mrcs or X.txt"
        )
    names = list(particles.iterate(RELION.image))
    stacks, first = np.unique(table.rows["source"], return_index=True)
    return {
        stack: split_image_name(names[rows[row]])[1]
        for stack, row in zip(stacks.tolist(), first.tolist(), strict=True)
    }


def _relative_names(originals: list[str], source: Path) -> list[str]:
    """Return a relative name for each stack, all different."""
    plain = [PurePosixPath(name.lstrip(">")) for name in originals]
    basenames = Counter(path.name for path in plain)
    names = []
    for path in plain:
        parts = [part for part in path.parts if part not in ("/", "..", ".")]
        alone = path.is_absolute() and basenames[path.name] == 1
        names.append(path.name if alone else "/".join(parts))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        which = [o for o, name in zip(originals, names, strict=True) if name == twice[0]]
        raise InputError(
            f"{source}: stacks {which[0]} and {which[1]} would both be written as {twice[0]}; "
            "downsample them one by one (--ind)"
        )
    return names


def _name_in_star(path: Path, out: Path) -> str:
    """Return a stack's path from the folder of `out`, or else its absolute path."""
    absolute, folder = path.absolute(), out.parent.absolute()
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)


def write_scaled_star(
    source: Path, out: Path, plan: StarPlan, old_box_px: int, box_px: int
) -> list[str]:
    """Write the STAR file of downsampled stacks; return lines that say what was written.

    Changed are image names, box, pixel size (of the detector in old files) and shifts in pixels;
    every other table, column and comment is copied as it stands.
    """
    star = read_star(source)
    particles = star.particles
    scaled = _scaled(particles, old_box_px, box_px)
    replace: Changes = {label: np.asarray(scaled[label])[plan.rows] for label in scaled}
    replace["_rlnImageName"] = plan.names
    tables = {}
    if star.optics is not None and star.optics.name != particles.name:
        tables["optics"] = _scaled(star.optics, old_box_px, box_px)
    copy_rows(source, out, plan.rows, replace, tables)
    lines = [f"{out}: {len(plan.rows)} particles"]
    if not _has_pixel_size(star):
        lines.append(
            f"note: {source} has no pixel size; that of the new images is "
            f"{old_box_px / box_px:g} times the old one"
        )
    return lines


def _has_pixel_size(star: StarFile) -> bool:
    return any(states(star, label) for label in _PIXEL_SIZES)


def _scaled(table: StarTable, old_box_px: int, box_px: int) -> Changes:
    """Return the columns of a table that change with the box, with their new values."""
    factor = old_box_px / box_px
    factors = dict.fromkeys(_PIXEL_SIZES, factor) | dict.fromkeys(_IN_PIXELS, 1 / factor)
    labels = [label for label in factors if label in table]
    values = table.numbers(labels)
    changed: Changes = {
        label: values[:, place] * factors[label] for place, label in enumerate(labels)
    }
    if _BOX in table:
        changed[_BOX] = np.full(len(table), box_px, np.int64)
    return changed
