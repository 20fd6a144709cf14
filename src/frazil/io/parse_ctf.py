"""CTF parameters of .star and .cs files as cryoDRGN's ctf.pkl.

Owns: the nine columns, which flag supplies which, and what is said when flags and file disagree.
Does not own: the formats (`star`, `cryosparc`), the pickle (`pickles`) or the plot (analysis).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.accounts import RowAccount
from frazil.io.cryosparc import CsColumns, check_positive
from frazil.io.outputs import check_output
from frazil.io.parse import (
    box_of,
    box_warning,
    check_even,
    check_some,
    differ,
)
from frazil.io.parse_settings import CtfCsSettings, CtfStarSettings
from frazil.io.particles import CTF_COLUMNS
from frazil.io.pickles import write_pickle
from frazil.io.star import particles_from_star, read_star
from frazil.io.star_labels import (
    dialect_of,
    pixel_size_labels,
    states,
    states_pixel_size,
)

# The flag that supplies a column of the table instead.
_FLAGS = {
    "voltage_kv": "--kv",
    "cs_mm": "--cs",
    "amplitude_contrast": "-w",
    "phase_shift_deg": "--ps",
}
# In the order of CTF_COLUMNS: field, and whether it is in rad.
_CS = (
    ("ctf/df1_A", False),
    ("ctf/df2_A", False),
    ("ctf/df_angle_rad", True),
    ("ctf/accel_kv", False),
    ("ctf/cs_mm", False),
    ("ctf/amp_contrast", False),
    ("ctf/phase_shift_rad", True),
)
_SHOWN = (
    ("box", "px"),
    ("pixel size", "A/px"),
    ("defocus U", "A"),
    ("defocus V", "A"),
    ("astigmatism angle", "deg"),
    ("voltage", "kV"),
    ("Cs", "mm"),
    ("amplitude contrast", ""),
    ("phase shift", "deg"),
)


@dataclass(frozen=True, eq=False)
class ParsedCtf:
    """Parameters (N, 9) float32 ready for a ctf.pkl, and lines that say how they came about."""

    parameters: NDArray[np.float32]
    lines: tuple[str, ...]


def write_ctf(settings: CtfStarSettings | CtfCsSettings) -> ParsedCtf:
    """Write the ctf.pkl of a .star or .cs file and return what was written.

    See `ctf_from_star` and `ctf_from_cs`.
    """
    out = Path(settings.out)
    check_output(out)
    check_even(settings.box_px)
    if isinstance(settings, CtfStarSettings):
        parsed = ctf_from_star(settings)
    else:
        parsed = ctf_from_cs(settings)
    write_pickle(out, parsed.parameters)
    lines = [*parsed.lines, "row 0:", *_first_row(parsed.parameters[0])]
    lines.append(f"wrote {out}: {len(parsed.parameters)} CTFs")
    return ParsedCtf(parsed.parameters, tuple(lines))


def ctf_from_star(settings: CtfStarSettings) -> ParsedCtf:
    """Return the CTF parameters of a .star file of RELION or cisTEM, row by row.

    Columns: box px, A/px, defocus U A, defocus V A, astigmatism angle deg, kV, Cs mm, amplitude
    contrast, phase shift deg. Pixel size and microscope are those of each row's optics group; a
    flag replaces the file's value in all rows.

    Raises
    ------
    InputError : a column is missing; names it, the file and the flag that supplies it.
    """
    path = Path(settings.input)
    star = read_star(path)
    check_some(len(star.particles), settings.input)
    stated = states_pixel_size(star)
    table = particles_from_star(path, pixel_size_ang=None if stated else settings.pixel_size_ang)
    lines = [RowAccount.all_of(len(table)).line()]
    box_px, where = box_of(table)
    values: dict[str, Any] = {"box": _given(settings.box_px, box_px, where, lines, path)}
    sizes = table.rows["pixel_size_ang"]
    if not np.isfinite(sizes).all() and settings.pixel_size_ang is None:
        raise InputError(f"{path}: no column {pixel_size_labels(star)}; give --Apix")
    values["size"] = _override("--Apix", settings.pixel_size_ang, sizes if stated else None, lines)
    missing, labels = [], dialect_of(star.particles).ctf
    for name in CTF_COLUMNS:
        label, flag = labels[name], _FLAGS.get(name, "")
        given = getattr(settings, name, None)
        unsaid = name == "phase_shift_deg" and not states(star, label)
        found = table.rows[name] if np.isfinite(table.rows[name]).all() and not unsaid else None
        if unsaid and given is None:
            lines.append(f"note: no {label} in the file, taken as 0 (--ps gives another)")
            values[name] = 0.0
        elif given is None and found is None:
            missing.append(f"{label} (or give {flag})" if flag else label)
        else:
            values[name] = _override(flag, given, found, lines)
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; give the .star of the CTF estimation or of a "
            "refinement"
        )
    return _assembled(len(table), values, lines, path)


def ctf_from_cs(settings: CtfCsSettings) -> ParsedCtf:
    """Return the CTF parameters of a cryoSPARC .cs file, row by row; columns as `ctf_from_star`.

    Raises
    ------
    InputError : a field is missing, or a value is not a number; names field, file and row.
    """
    columns = CsColumns(Path(settings.input))
    check_some(len(columns), settings.input)
    columns.load(["blob/shape", "blob/psize_A", *(field for field, _ in _CS)])
    lines = [RowAccount.all_of(len(columns)).line()]
    shape = columns.get("blob/shape")
    found_px = None if shape is None else int(shape[0, 0])
    if shape is not None and settings.box_px is None and (shape != found_px).any():
        raise InputError(f"{settings.input}: blob/shape differs between rows; give -D")
    box_px = _given(settings.box_px, found_px, "blob/shape", lines, Path(settings.input))
    values: dict[str, Any] = {"box": box_px}
    sizes = columns.get("blob/psize_A")
    if sizes is None and settings.pixel_size_ang is None:
        raise InputError(f"{settings.input}: no field blob/psize_A; give --Apix")
    if sizes is not None and settings.pixel_size_ang is None:
        check_positive(sizes, "blob/psize_A", columns.path)
    values["size"] = _override("--Apix", settings.pixel_size_ang, sizes, lines)
    for name, (field, in_rad) in zip(CTF_COLUMNS, _CS, strict=True):
        if name == "phase_shift_deg" and columns.get(field) is None:
            lines.append(f"note: no field {field}, taken as 0")
            values[name] = 0.0
            continue
        column = columns.need(field).astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise InputError(
                f"{settings.input}: row {bad[0]} (0-based) has a {field} that is not a number "
                f"({bad.size} rows); leave these particles out"
            )
        values[name] = np.rad2deg(column) if in_rad else column
    return _assembled(len(columns), values, lines, columns.path)


def _given(
    given_px: int | None, found_px: int | None, where: str, lines: list[str], path: Path
) -> int:
    """Return the box to use; warn when -D is another than the file's."""
    if given_px is None and found_px is None:
        raise InputError(
            f"{path}: no box size (_rlnImageSize, blob/shape), and no stack to read it from; "
            "give -D"
        )
    if given_px is None or found_px is None or given_px == found_px:
        return int(given_px or found_px or 0)
    lines.append(box_warning(given_px, found_px, where))
    return given_px


def _override(flag: str, given: float | None, found: Any, lines: list[str]) -> Any:
    """Return the flag's value or else the file's (N,); warn when the flag replaces another."""
    if given is None:
        return found
    if found is not None:
        other = [value for value in np.unique(found).tolist() if differ(given, value)]
        if other:
            shown = ", ".join(f"{value:.6g}" for value in other[:3])
            more = ", ..." if len(other) > 3 else ""
            lines.append(f"warning: {flag} {given:g} is used, but the file says {shown}{more}")
    return given


def _assembled(count: int, values: dict[str, Any], lines: list[str], path: Path) -> ParsedCtf:
    """Return the columns side by side; single values go into every row."""
    parameters = np.empty((count, 9), np.float32)
    for place, name in enumerate(("box", "size", *CTF_COLUMNS)):
        parameters[:, place] = values[name]
    off = np.flatnonzero(parameters[:, 5] <= 0)
    if off.size:
        raise InputError(
            f"{path}: row {off[0]} (0-based) has a voltage of {parameters[off[0], 5]:g} kV; it "
            "must be positive, correct the file"
        )
    return ParsedCtf(parameters, tuple(lines))


def _first_row(row: NDArray[np.float32]) -> list[str]:
    """Return the parameters of one particle, one line each, aligned."""
    width = max(len(name) for name, _ in _SHOWN)
    return [
        f"  {name:<{width}} : {value:.7g} {unit}".rstrip()
        for (name, unit), value in zip(_SHOWN, row.tolist(), strict=True)
    ]
