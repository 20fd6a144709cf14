"""What the parse commands share: the box, and words of warning.

Owns: these. Does not own: poses (`parse_poses`) and CTF (`parse_ctf`).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frazil.errors import FrazilError, InputError
from frazil.io.mrc import read_header
from frazil.io.particles import ParticleTable

DIFFERENT = 1e-3
"""Relative difference above which a flag and the file disagree."""


def check_some(count: int, path: str) -> None:
    """Raise InputError when a particle file has no row."""
    if not count:
        raise InputError(f"{path}: no particles in it")


def check_even(box_px: int | None) -> None:
    """Raise InputError when -D is odd."""
    if box_px is not None and box_px % 2:
        raise InputError(f"-D {box_px}: the box must be an even number of pixels")


def differ(given: float, found: float) -> bool:
    """Return whether two values differ by more than 0.1 % (a zero differs from all but zero)."""
    return abs(given - found) > DIFFERENT * abs(found)


def box_of(table: ParticleTable) -> tuple[int | None, str]:
    """Return the box of a table's images, and where it is written.

    Where the metadata does not say it, it is that of the first stack; (None, "") when that is not
    there or not readable, because poses and CTF can be parsed without images.
    """
    boxes = sorted(set(table.boxes_px))
    if len(boxes) > 1:
        raise InputError(
            f"{table.origin}: holds images of {' and '.join(map(str, boxes))} px; a pickle is of "
            "one box, so pack the file itself (frazil preprocess), which resamples them"
        )
    if table.box_px is not None:
        return table.box_px, table.origin
    if not len(table):
        return None, ""
    stack = table.sources[table.rows["source"][0]]
    try:
        return read_header(Path(stack)).nx, stack
    except FrazilError:
        return None, ""


def box_warning(given_px: int, found_px: int, where: str) -> str:
    """Return the warning that -D is not the box of the images."""
    return f"warning: -D {given_px} is used, but the box in {where} is {found_px} px"


def scale_warning(table: ParticleTable, header_ang: NDArray[np.float64], ctf: str) -> list[str]:
    """Return the warning that the CTF's pixel size is not that of the stacks' headers."""
    given = table.rows["pixel_size_ang"]
    bad = np.flatnonzero(
        np.isfinite(header_ang) & (np.abs(given - header_ang) > DIFFERENT * header_ang)
    )
    if not bad.size:
        return []
    row = int(bad[0])
    return [
        f"warning: {ctf}: {given[row]:.6g} A/px in the box of the images is written, but the stack "
        f"of row {row} (0-based) says {header_ang[row]:.6g} ({bad.size} rows)"
    ]
