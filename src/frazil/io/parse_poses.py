"""Poses of .star and .cs files as cryoDRGN's pose.pkl: rotations, and shifts in fractions of a box.

Owns: how a shift becomes a fraction, and what is said when flags and file disagree. Does not own:
the formats (`star`, `cryosparc`) or the pickle (`pickles`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.cryosparc import CsAlignment, CsColumns, read_alignment, rotations_of
from frazil.io.cryosparc_groups import find_cs_files
from frazil.io.outputs import check_output
from frazil.io.parse import (
    DIFFERENT,
    box_of,
    box_warning,
    check_even,
    check_some,
    differ,
)
from frazil.io.parse_settings import PoseCsSettings, PoseStarSettings
from frazil.io.pickles import write_pickle
from frazil.io.star import StarFile, particles_from_star, read_star
from frazil.io.star_labels import Dialect, dialect_of, pixel_size_labels, states_pixel_size
from frazil.io.star_table import StarTable

_HETREFINE_SCALE = 2  # older heterogeneous refinements wrote shifts at half the sampling


@dataclass(frozen=True, eq=False)
class ParsedPoses:
    """Poses ready for a pose.pkl, and lines that say how they came about.

    `rotation` (N, 3, 3) float32 maps model to image frame; `shift` (N, 2) float32 is the shift
    (x, y) that centres the particle, as a fraction of the box.
    """

    rotation: NDArray[np.float32]
    shift: NDArray[np.float32]
    lines: tuple[str, ...]


def write_star_poses(settings: PoseStarSettings) -> tuple[str, ...]:
    """Write the pose.pkl of a .star file; return lines for the log. See `poses_from_star`."""
    return _write(Path(settings.out), lambda: poses_from_star(settings))


def write_cs_poses(settings: PoseCsSettings) -> tuple[str, ...]:
    """Write the pose.pkl of a .cs file; return lines for the log. See `poses_from_cs`."""
    return _write(Path(settings.out), lambda: poses_from_cs(settings))


def _write(out: Path, parse: Any) -> tuple[str, ...]:
    check_output(out)
    poses: ParsedPoses = parse()
    write_pickle(out, (poses.rotation, poses.shift))
    return (*poses.lines, f"wrote {out}: {len(poses.rotation)} poses")


def poses_from_star(settings: PoseStarSettings) -> ParsedPoses:
    """Return the poses of a .star file of RELION or cisTEM.

    Shifts in A (_rlnOriginX/YAngst) are divided by pixel size times box, each row by the pixel
    size of its own optics group; shifts in pixels (_rlnOriginX/Y) by the box. Shifts that the file
    does not have are zero.

    Raises
    ------
    InputError : a missing angle, half a shift, or an unknown pixel size or box; names the column
        or flag that supplies it.
    """
    path = Path(settings.input)
    check_even(settings.box_px)
    star = read_star(path)
    particles = star.particles
    check_some(len(particles), settings.input)
    dialect = dialect_of(particles)
    missing = [label for label in dialect.angles if label not in particles]
    if missing:
        raise InputError(
            f"{path}: data_{particles.name} has no column {', '.join(missing)}, so no poses; give "
            "the .star of a refinement"
        )
    kind = _shift_columns(particles, dialect)
    # Shifts in pixels need no pixel size: with 1 A/px they pass through as they are.
    stated = states_pixel_size(star)
    override = 1.0 if kind == dialect.shifts_px else (None if stated else settings.pixel_size_ang)
    table = particles_from_star(path, pixel_size_ang=override)
    angles = particles.numbers(dialect.angles)[0]
    lines = [
        f"{len(table)} particles",
        f"row 0: rot, tilt, psi = {_vector(angles, '.5f')} deg",
        *_matrix_lines(table.rows["rotation"]),
    ]
    shift = np.zeros((len(table), 2))
    if not kind:
        lines.append(
            f"note: the file has no shifts ({dialect.shifts_ang[0]}): they are written as zeros"
        )
    elif np.any(table.rows["shift_ang"]):
        box_px = _star_box(settings, *box_of(table), lines)
        values = table.rows["shift_ang"].astype(np.float64)
        if kind == dialect.shifts_px:
            if settings.pixel_size_ang:
                lines.append("note: shifts are in pixels, so --Apix is not needed")
            shift = values / box_px
            lines.append(
                f"row 0: shift {_vector(values[0])} px / {box_px} px = "
                f"{_vector(shift[0])} of the box"
            )
        else:
            pixel_size_ang = _star_pixel_sizes(settings, star, table.rows["pixel_size_ang"], lines)
            shift = values / (pixel_size_ang * box_px)[:, None]
            lines.append(
                f"row 0: shift {_vector(values[0])} A / ({pixel_size_ang[0]:.6g} A/px x {box_px} "
                f"px) = {_vector(shift[0])} of the box"
            )
    return _finished(table.rows["rotation"], shift, lines)


def _shift_columns(particles: StarTable, dialect: Dialect) -> tuple[str, str] | None:
    """Return the columns of the shifts, None without any; InputError when only one is there."""
    for pair in dialect.shift_pairs:
        there = [label for label in pair if label in particles]
        if len(there) == 1:
            raise InputError(
                f"{particles.path}: data_{particles.name} has {there[0]}, but not "
                f"{next(label for label in pair if label != there[0])}; add it or remove both"
            )
        if there:
            return pair
    return None


def _star_box(
    settings: PoseStarSettings, found_px: int | None, where: str, lines: list[str]
) -> int:
    """Return the box to use; warn when the flag and the file disagree."""
    if settings.box_px is None:
        if found_px is None:
            raise InputError(
                f"{settings.input}: no box size (_rlnImageSize), and no stack to read it from; "
                "give -D"
            )
        lines.append(f"box {found_px} px, from {where}")
        return found_px
    if found_px not in (None, settings.box_px):
        lines.append(box_warning(settings.box_px, found_px, where))
        lines.append(f"         shifts come out {found_px / settings.box_px:.6g} times as large")
    return settings.box_px


def _star_pixel_sizes(
    settings: PoseStarSettings, star: StarFile, found_ang: NDArray[np.float64], lines: list[str]
) -> NDArray[np.float64]:
    """Return (N,) pixel sizes in A; warn when the flag and the file disagree."""
    given = settings.pixel_size_ang
    if given is None:
        if not np.isfinite(found_ang).all():
            raise InputError(
                f"{settings.input}: shifts are in A, and there is no column "
                f"{pixel_size_labels(star)}; give --Apix"
            )
        return found_ang
    if states_pixel_size(star):
        other = [size for size in np.unique(found_ang).tolist() if differ(given, size)]
        if other:
            lines.append(
                f"warning: --Apix {given:g} is used, but the file says {other[0]:.6g} A/px: shifts "
                f"come out {other[0] / given:.6g} times as large"
            )
    return np.full(len(found_ang), given)


def poses_from_cs(settings: PoseCsSettings) -> ParsedPoses:
    """Return the poses of a cryoSPARC .cs file.

    The shift is in pixels of alignments3D/psize_A, so it is shift x psize_A / (box x
    blob/psize_A) of the box. With -D it is shift / D, and a warning shows both results when they
    differ by more than 0.1 %.

    Raises
    ------
    InputError : no poses, a value that is not a number, or an unknown box; names field or flag.
    """
    check_even(settings.box_px)
    class_index = 0 if settings.abinit and settings.class_index is None else settings.class_index
    columns = CsColumns(find_cs_files(Path(settings.input), class_index))
    check_some(len(columns), settings.input)
    alignment = read_alignment(columns, class_index)
    if alignment is None:
        raise InputError(
            f"{settings.input}: no field alignments3D/pose; give the particles of a refinement, "
            "or put the passthrough file that holds it beside this one"
        )
    for what, field in (("pose", alignment.rotation_vector), ("shift", alignment.shift_px)):
        _check_finite(field, what, settings.input)
    rotation = rotations_of(alignment.rotation_vector)
    vector = _vector(alignment.rotation_vector[0])
    lines = [
        f"{len(rotation)} particles",
        f"row 0: {alignment.field}/pose = {vector} rad",
        *_matrix_lines(rotation),
    ]
    shift, said = _cs_shifts(alignment, columns, settings)
    return _finished(rotation, shift, [*lines, *said])


def _cs_shifts(
    alignment: CsAlignment, columns: CsColumns, settings: PoseCsSettings
) -> tuple[NDArray[np.float64], list[str]]:
    """Return (N, 2) shifts as fractions of the box, and lines on their arithmetic."""
    columns.load(["blob/psize_A", "blob/shape"])
    shift_px = alignment.shift_px.astype(np.float64)
    psize, blob = alignment.psize_ang, columns.get("blob/psize_A")
    shape = columns.get("blob/shape")
    box = None if shape is None else shape[:, 0].astype(np.float64)  # (N,)
    scale = float(_HETREFINE_SCALE if settings.hetrefine else 1)
    lines: list[str] = []
    if psize is not None and blob is not None:
        with np.errstate(divide="ignore", invalid="ignore"):  # checked below, with the row
            ratio = psize.astype(np.float64) / blob.astype(np.float64)
        if settings.hetrefine and settings.box_px is None:
            lines.append("note: --hetrefine changes nothing here, alignments3D/psize_A is known")
    elif psize is None:
        ratio = np.full(len(shift_px), scale)
        if settings.box_px is None:
            lines.append("note: no alignments3D/psize_A: shifts are taken in pixels of the images")
    else:
        ratio, box = (
            psize.astype(np.float64),
            None,
        )  # without blob/psize_A the box in A is not known
    _check_finite(ratio, "pixel size", settings.input)
    by_file = None if box is None else shift_px * (ratio / box)[:, None]
    if settings.box_px is None:
        if by_file is None or box is None:
            raise InputError(
                f"{settings.input}: no field {'blob/shape' if shape is None else 'blob/psize_A'}, "
                "so the box is not known; give -D"
            )
        lines.append(_by_file_line(alignment, blob, box, by_file))
        return by_file, lines
    by_flag = shift_px * scale / settings.box_px
    times = f" x {scale:g}" if scale != 1 else ""
    lines.append(
        f"row 0: shift {_vector(shift_px[0])} px{times} / {settings.box_px} px = "
        f"{_vector(by_flag[0])} of the box"
    )
    if by_file is not None and box is not None:
        wrong = np.flatnonzero(np.abs(settings.box_px * ratio / (scale * box) - 1) > DIFFERENT)
        if wrong.size:
            row = int(wrong[0])
            right_px = scale * box[row] / ratio[row]
            lines.append(
                f"warning: -D {settings.box_px} is used, but box x blob/psize_A / "
                f"alignments3D/psize_A is {right_px:.6g} ({len(wrong)} rows): row {row} "
                f"(0-based) gets {_vector(by_flag[row])}, the file's own figures give "
                f"{_vector(by_file[row])}; leave -D out to use them"
            )
    return by_flag, lines


def _by_file_line(
    alignment: CsAlignment,
    blob_ang: NDArray[Any] | None,
    box: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> str:
    """Return the arithmetic of row 0 when the file itself gives the scale."""
    start = f"row 0: shift {_vector(alignment.shift_px[0])} px"
    if alignment.psize_ang is None or blob_ang is None:
        return f"{start} / {box[0]:g} px = {_vector(shift[0])} of the box"
    return (
        f"{start} x {alignment.psize_ang[0]:.6g} A/px / ({box[0]:g} px x {blob_ang[0]:.6g} A/px) = "
        f"{_vector(shift[0])} of the box"
    )


def _check_finite(values: NDArray[np.floating[Any]], what: str, path: str) -> None:
    """Raise InputError naming the first row (0-based) that holds no number."""
    finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        raise InputError(
            f"{path}: row {int(np.argmin(finite))} (0-based) has a {what} that is not a number "
            f"({int((~finite).sum())} rows); leave these particles out"
        )


def _finished(
    rotation: NDArray[np.float32], shift: NDArray[np.float64], lines: list[str]
) -> ParsedPoses:
    """Return the poses in the types of a pose.pkl; warn of shifts that cannot be."""
    far = np.flatnonzero((np.abs(shift) > 0.5).any(axis=1))
    if far.size:
        lines.append(
            f"warning: {len(far)} shifts are more than half the box, the first in row {far[0]} "
            f"(0-based): {_vector(shift[far[0]])}; check the box"
        )
    return ParsedPoses(
        np.ascontiguousarray(rotation, np.float32), shift.astype(np.float32), tuple(lines)
    )


def _matrix_lines(rotation: NDArray[np.float32]) -> list[str]:
    """Return the first rotation matrix, one line per row."""
    rows = [f"  {_vector(row, '9.6f')}" for row in rotation[0]]
    return ["row 0: rotation (model to image frame) =", *rows]


def _vector(values: NDArray[Any], form: str = ".6g") -> str:
    """Return numbers in brackets."""
    return f"({', '.join(format(float(value), form) for value in values)})"
