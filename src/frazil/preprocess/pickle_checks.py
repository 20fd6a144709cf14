"""Pickles of poses and CTF against what the particle file itself says of the same particles.

A pickle names no particles: its rows are taken to be those of the particle file. Where that file
has poses and CTF of its own, rows in another order, transposed rotations, and shifts of another
sign or scale show before anything is trained.

Owns: these comparisons. Does not own: reading pickles (`frazil.io.pickles`), the checks of a pickle
alone, or joining (`inputs`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.particles import ParticleTable
from frazil.io.pickles import far_shifts

_SAME_MATRIX = 1e-3
_SAME_DEFOCUS_ANG = 1.0
_SAME_BOX = 1e-3
_FAR_DEG = 30.0
_FAR_DEFOCUS_ANG = 2000.0
_REMEDY = "make it again from this file with frazil parse_"


def pose_notes(
    table: ParticleTable,
    rotation: NDArray[np.float64],
    shift: NDArray[np.float64] | None,
    path: str,
) -> list[str]:
    """Return what to tell of poses that differ from those of the particle file; [] if they do not.

    Parameters
    ----------
    table : the particles with the poses of their file, if it has any.
    rotation, shift : (N, 3, 3), and (N, 2) as fractions of the box, of the pickle.
    path : the pickle, for messages.

    Raises
    ------
    InputError : the poses of the file in another order, transposed, or with negated shifts.
    """
    far_shifted = _far_notes(shift, path)
    own = table.rows["rotation"].astype(np.float64)
    if not len(own) or not np.isfinite(own).all():
        return far_shifted
    same = np.abs(rotation - own).max(axis=(1, 2)) < _SAME_MATRIX
    if same.all():
        return [*far_shifted, *_shift_notes(table, shift, path)]
    first = int(np.argmin(same))
    if _same_values(rotation.reshape(-1, 9), own.reshape(-1, 9), _SAME_MATRIX / 10):
        raise InputError(
            f"{path}: row {first} (0-based) is not the pose of that row of {table.origin}, but all "
            f"its poses are in that file, in another order; {_REMEDY}pose_star or _csparc, or "
            "leave --poses out"
        )
    if np.abs(rotation.transpose(0, 2, 1) - own).max() < _SAME_MATRIX:
        raise InputError(
            f"{path}: row {first} (0-based) and all others are the transposed rotations of "
            f"{table.origin} (image to model frame); {_REMEDY}pose_star or _csparc"
        )
    median_deg = _median_angle_deg(rotation, own)
    far = median_deg > _FAR_DEG
    return [
        *far_shifted,
        ("warning: " if far else "note: ")
        + f"{path}: {int((~same).sum())} of {len(own)} poses are not those of {table.origin} (by "
        f"{median_deg:.3g} deg in the median, after a common turn), the first in row {first} "
        "(0-based); those of the pickle are used"
        + ("; check that it belongs to these particles, in this order" if far else ""),
    ]


def ctf_notes(table: ParticleTable, ctf: NDArray[np.float64], path: str) -> list[str]:
    """Return what to tell of CTF parameters that differ from those of the particle file.

    Parameters
    ----------
    table : the particles with the CTF of their file, if it has one.
    ctf : (N, 9) of a ctf.pkl.
    path : the pickle, for messages.

    Raises
    ------
    InputError : the defoci of the file in another order, or another size of the box in A.
    """
    notes = _box_notes(table, ctf, path)
    own = np.stack([table.rows[f"defocus_{axis}_ang"] for axis in "uv"], axis=1).astype(np.float64)
    if not len(own) or not np.isfinite(own).all():
        return notes
    difference = np.abs(ctf[:, 2:4] - own).max(axis=1)
    same = difference < _SAME_DEFOCUS_ANG
    if same.all():
        return notes
    first = int(np.argmin(same))
    if _same_values(ctf[:, 2:4], own, _SAME_DEFOCUS_ANG / 10):
        raise InputError(
            f"{path}: row {first} (0-based) is not the defocus of that row of {table.origin}, but "
            f"all its defoci are in that file, in another order; {_REMEDY}ctf_star or _csparc, or "
            "leave --ctf out"
        )
    median_ang = float(np.median(difference))
    far = median_ang > _FAR_DEFOCUS_ANG
    return [
        *notes,
        ("warning: " if far else "note: ")
        + f"{path}: {int((~same).sum())} of {len(own)} defoci are not those of {table.origin} (by "
        f"{median_ang:.4g} A in the median), the first in row {first} (0-based); those of the "
        "pickle are used"
        + ("; check that it belongs to these particles, in this order" if far else ""),
    ]


def _shift_notes(
    table: ParticleTable, fraction: NDArray[np.float64] | None, path: str
) -> list[str]:
    """Return what to tell of shifts, of the same rotations, that differ from those of the file."""
    own = table.rows["shift_ang"].astype(np.float64)
    if fraction is None or table.box_px is None or not own.any() or not np.isfinite(own).all():
        return []
    given = fraction * (table.rows["pixel_size_ang"] * table.box_px)[:, None]
    if not np.isfinite(given).all():
        return []
    scale = float((given * own).sum() / (own * own).sum())
    row = int(np.argmax(np.abs(own).max(axis=1)))
    left = np.abs(given - scale * own).max()
    if left > 1e-3 * np.abs(own).max() or abs(scale - 1) < _SAME_BOX:
        return []
    both = f"row {row} (0-based) gets {_pair(given[row])} A, the file says {_pair(own[row])} A"
    if abs(scale + 1) < _SAME_BOX:
        raise InputError(
            f"{path}: shifts are those of {table.origin} with the other sign: {both}; "
            f"{_REMEDY}pose_star or _csparc"
        )
    return [
        f"warning: {path}: shifts are {scale:.6g} times those of {table.origin}: {both}; those of "
        "the pickle are used (was it made with the -D of another box? leave --poses out to use the "
        "file's)"
    ]


def _box_notes(table: ParticleTable, ctf: NDArray[np.float64], path: str) -> list[str]:
    """Return what to say when a ctf.pkl gives images another size in Angstrom than they have.

    Raises
    ------
    InputError : the particles have a CTF of their own, whose pixel size is another. What has none
        is a stack: the pixel size in its header is often wrong, so that of the ctf.pkl is used.
    """
    box_px, sizes = table.box_px, table.rows["pixel_size_ang"]
    if box_px is None:
        return []
    off = np.abs(ctf[:, 0] * ctf[:, 1] / (sizes * box_px) - 1) > _SAME_BOX  # False for NaN
    if not off.any():
        return []
    row = int(np.argmax(off))
    found = (
        f"{path}: row {row} (0-based) has {ctf[row, 0]:g} px x {ctf[row, 1]:.6g} A/px = "
        f"{ctf[row, 0] * ctf[row, 1]:.6g} A, {table.origin} has {box_px} px x "
        f"{sizes[row]:.6g} A/px = {box_px * sizes[row]:.6g} A ({int(off.sum())} rows differ)"
    )
    if table.missing_ctf_columns:
        return [f"{found}; that of {path} is used"]
    raise InputError(
        f"{found}; leave --ctf out, or make it again with -D {box_px} --Apix {sizes[row]:.6g} "
        f"(frazil parse_ctf_star, parse_ctf_csparc); if {table.origin} is wrong, give its stacks "
        "(.mrcs, .txt) in its place"
    )


def _far_notes(shift: NDArray[np.float64] | None, path: str) -> list[str]:
    """Return what to say of shifts (N, 2) beyond half the box."""
    far = np.zeros(0) if shift is None else far_shifts(shift)
    if not far.size:
        return []
    return [
        f"{path}: {far.size} rows have shifts of more than half the box, first row {far[0]} "
        "(0-based): are they fractions of the box, not pixels?"
    ]


def _same_values(one: NDArray[Any], other: NDArray[Any], tolerance: float) -> bool:
    """Return whether the columns of two arrays (N, C) hold the same values in some order.

    Two different sets of N random poses agree like this to about 1 / sqrt(N) only.
    """
    return all(
        bool(np.abs(np.sort(one[:, c]) - np.sort(other[:, c])).max() < tolerance)
        for c in range(one.shape[1])
    )


def _median_angle_deg(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the median angle between rotations (N, 3, 3), after the best turn of the model."""
    u, _, vt = np.linalg.svd((other.transpose(0, 2, 1) @ one).mean(axis=0))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    trace = ((other @ turn) * one).sum(axis=(1, 2))
    return float(np.rad2deg(np.median(np.arccos(((trace - 1) / 2).clip(-1, 1)))))


def _pair(values: NDArray[np.float64]) -> str:
    """Return two numbers in brackets."""
    return f"({values[0]:.5g}, {values[1]:.5g})"
