"""What the fields of cryoSPARC's particles mean: images, poses, shifts, CTF, groups.

Owns: the way from the columns of a .cs to a `ParticleTable`, and the lines that say where each
quantity came from. Does not own: files and joins (`cryosparc_files`, `cryosparc_groups`,
`cryosparc_join`), nor the rotation formula (`frazil.geometry.rotations`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.geometry.rotations import from_cryosparc
from frazil.io.cryosparc_files import read_cs, write_cs
from frazil.io.cryosparc_groups import find_cs_files
from frazil.io.cryosparc_join import CsColumns
from frazil.io.particles import ParticleTable, empty_rows
from frazil.io.paths import NO_HINTS, Places, resolve_stacks

__all__ = ["CsColumns", "particles_from_cs", "read_alignment", "read_cs", "write_cs"]

_CTF_FIELDS = {
    "defocus_u_ang": "ctf/df1_A",
    "defocus_v_ang": "ctf/df2_A",
    "astigmatism_deg": "ctf/df_angle_rad",
    "voltage_kv": "ctf/accel_kv",
    "cs_mm": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "phase_shift_deg": "ctf/phase_shift_rad",
}
_BLOB_FIELDS = ("blob/path", "blob/idx", "blob/shape", "blob/psize_A", "blob/sign")
_NOT_APPLIED = (
    "ctf/shift_A",
    "ctf/tilt_A",
    "ctf/trefoil_A",
    "ctf/tetra_A",
    "ctf/anisomag",
    "ctf/bfactor",
)
_SOURCE_UID = "sym_expand/src_uid"
_PER_CLASS = re.compile(r"(alignments_class_|alignments_class3D_)(\d+)/pose")
_MULTI = "alignments3D_multi"
_POSE_FIELDS = ("pose", "shift", "psize_A", "split")
_ROW_SHAPES = {"pose": (3,), "shift": (2,), "blob/shape": (2,)}
_POSE_BLOCK = 1 << 18


@dataclass(frozen=True)
class CsAlignment:
    """Poses as cryoSPARC writes them: rotation vectors (rad), shifts in pixels of `psize_ang`.

    `field` is what the fields begin with, e.g. "alignments3D".
    """

    field: str
    rotation_vector: NDArray[np.floating[Any]]  # (N, 3)
    shift_px: NDArray[np.floating[Any]]  # (N, 2)
    psize_ang: NDArray[np.floating[Any]] | None  # (N,)
    split: NDArray[np.integer[Any]] | None  # (N,) 0 or 1


def rotations_of(rotation_vector: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return rotations (N, 3, 3), model to image frame, of rotation vectors (N, 3) in rad."""
    rotations = np.empty((len(rotation_vector), 3, 3), np.float32)
    for start in range(0, len(rotations), _POSE_BLOCK):
        part = slice(start, start + _POSE_BLOCK)
        vectors = torch.from_numpy(rotation_vector[part].astype(np.float64))
        rotations[part] = from_cryosparc(vectors).numpy()
    return rotations


def alignment_field(columns: CsColumns, class_index: int | None = None) -> str | None:
    """Return what the fields of the 3D poses begin with; None when there are no 3D poses at all.

    Parameters
    ----------
    columns : the particles.
    class_index : choose this class of poses by class: `alignments_class_N` (ab initio),
        `alignments_class3D_N`, or `alignments3D_multi` (heterogeneous refinement and 3D
        classification), whose arrays hold a pose for each class.

    Raises
    ------
    InputError : poses of several classes and none chosen, or a class that is not there.
    """
    names = columns.names
    classes = {int(m[2]): f"{m[1]}{m[2]}" for m in map(_PER_CLASS.fullmatch, names) if m}
    multi = f"{_MULTI}/pose" in names
    if multi:
        shape = _shape_of(columns, f"{_MULTI}/pose")
        classes |= {k: _MULTI for k in range(shape[0] if len(shape) == 2 else 0)}
    single = "alignments3D/pose" in names
    if class_index is None or class_index == columns.files.chosen_class:
        if single:
            return "alignments3D"
        if class_index is None and len(classes) < 2:
            return next(iter(classes.values()), None)
    if class_index in classes:
        return classes[class_index]
    if not classes and not single:
        return None
    numbers = sorted(classes)
    found = ", ".join(map(str, numbers)) if len(numbers) < 9 else f"0 to {numbers[-1]}"
    if class_index is None:
        raise InputError(
            f"{columns.path}: poses by class ({found}), none common to all; choose a class with "
            "--class N, or give the file of one class"
        )
    raise InputError(
        f"{columns.path}: --class {class_index}: it has no poses of that class, but of "
        f"{found or 'no class'}; "
        + ("leave --class out for alignments3D" if single else "choose a class it has")
    )


def read_alignment(columns: CsColumns, class_index: int | None = None) -> CsAlignment | None:
    """Return the alignment of every particle, or None when there are no 3D poses at all.

    See `alignment_field` for the parameters and what is refused.
    """
    field = alignment_field(columns, class_index)
    if field is None:
        return None
    fields = [f"{field}/{name}" for name in _POSE_FIELDS]
    check_types(columns, fields)
    columns.load(fields)
    pose, shift = columns.need(f"{field}/pose"), columns.need(f"{field}/shift")
    if field == _MULTI and class_index is not None:
        pose, shift = pose[:, class_index], shift[:, class_index]
    elif field == _MULTI:
        pose, shift = pose[:, 0], shift[:, 0]
    return CsAlignment(
        field, pose, shift, columns.get(f"{field}/psize_A"), columns.get(f"{field}/split")
    )


def check_types(columns: CsColumns, names: Sequence[str]) -> None:
    """Raise InputError when a field that is there holds anything but what it should.

    blob/path is text, all others numbers; a row holds 3 of a pose, 2 of a shift, 1 of the rest
    (fields of `_MULTI` have one such for each class).
    """
    for name in names:
        holder = columns.holder(name)
        if holder is None:
            continue
        found, last = holder.dtype[name], name.split("/")[-1]
        shape = (
            _ROW_SHAPES.get(name, _ROW_SHAPES.get(last, ())) if name not in _NOT_APPLIED else None
        )
        if name.startswith(_MULTI) and last in _ROW_SHAPES:
            shape = (*found.shape[:1], *_ROW_SHAPES[last])
        kinds = "SU" if name == "blob/path" else "fiu"
        if found.base.kind not in kinds or shape not in (None, found.shape):
            what = "text" if kinds == "SU" else "numbers"
            raise InputError(
                f"{holder.path}: {name} holds {found} in each row, {what} of shape {shape} are "
                "wanted; export it again"
            )


def _shape_of(columns: CsColumns, name: str) -> tuple[int, ...]:
    """Return the shape of one row of a field."""
    holder = columns.holder(name)
    return () if holder is None else holder.dtype[name].shape


def particles_from_cs(
    path: Path,
    places: Places = NO_HINTS,
    *,
    class_index: int | None = None,
    poses: bool = True,
) -> ParticleTable:
    """Return the particles of a .cs, a .csg, or the folder of a cryoSPARC job.

    A zero rotation vector is the identity. Shifts are in pixels of alignments3D/psize_A (of
    blob/psize_A, with a note, where that is missing). `half_set` is alignments3D/split + 1.
    Fields that the main file lacks are taken from those that go with it (`find_cs_files`), by uid.

    Parameters
    ----------
    path : the file or folder.
    places : where the stacks may be, beside what the file says.
    class_index : the class to take, of a folder or file that has several; see `alignment_field`.
    poses : False leaves poses and half-sets unknown, whatever there is.

    Raises
    ------
    MissingFileError, InputError : naming file and field.
    """
    path = Path(path)
    columns = CsColumns(find_cs_files(path, class_index))
    field = alignment_field(columns, class_index) if poses else None
    wanted = ["uid", *_BLOB_FIELDS, *_CTF_FIELDS.values(), "ctf/exp_group_id", _SOURCE_UID]
    wanted += [f"{field}/{name}" for name in _POSE_FIELDS] if field else []
    check_types(columns, [*wanted, *_NOT_APPLIED])
    columns.load(wanted, _NOT_APPLIED)
    notes: list[str] = []
    rows = empty_rows(len(columns))
    uid = columns.get("uid")
    if uid is not None:
        rows["uid"] = uid
    sources, box_px, blob_sign = _fill_blob(rows, columns, places, notes)
    _fill_ctf(rows, columns, notes)
    optics_groups = _fill_optics(rows, columns)
    alignment = read_alignment(columns, class_index) if poses else None
    arithmetic = ""
    if alignment is not None:
        arithmetic = _fill_alignment(rows, alignment, columns, notes)
    elif poses:
        notes.append(_no_poses(columns))
    _note_expansion(columns, notes)
    said = (*columns.files.lines, *columns.accounts(), *_taken(columns))
    return ParticleTable(
        rows,
        sources,
        box_px,
        optics_groups,
        blob_sign=blob_sign,
        origin=str(path),
        notes=tuple(notes),
        provenance=tuple(filter(None, (*said, arithmetic))),
    )


def _taken(columns: CsColumns) -> Iterator[str]:
    """Yield, for each kind of quantity, its fields and the file that they came from."""
    kinds = (
        ("identity", ("uid",)),
        ("images", _BLOB_FIELDS),
        ("CTF", tuple(_CTF_FIELDS.values())),
        ("optics group", ("ctf/exp_group_id",)),
        ("poses", tuple(n for n in columns.taken_from if n.startswith("alignments"))),
    )
    for kind, fields in kinds:
        files: dict[Path, list[str]] = {}
        for field in fields:
            if field in columns.taken_from:
                files.setdefault(columns.taken_from[field], []).append(field)
        for file, names in files.items():
            yield f"{kind}: {', '.join(names)} of {file.name}"


def _no_poses(columns: CsColumns) -> str:
    """Return why there are no poses."""
    if any(name.startswith("alignments2D/") for name in columns.names):
        return (
            f"{columns.path}: no 3D poses: it has 2D alignments only (alignments2D), which do not "
            "orient particles in 3D; give the particles of an ab-initio job or a refinement"
        )
    return f"{columns.path}: no poses in this file"


def _note_expansion(columns: CsColumns, notes: list[str]) -> None:
    """Note how many particles a symmetry expansion began with."""
    source = columns.get(_SOURCE_UID)
    if source is not None and len(source):
        count = len(np.unique(source))
        notes.append(
            f"{columns.path}: symmetry expansion: {len(source)} rows of {count} particles "
            f"({_SOURCE_UID}); each image is stored once"
        )


def _fill_blob(
    rows: NDArray[np.void], columns: CsColumns, places: Places, notes: list[str]
) -> tuple[tuple[str, ...], int | None, int | None]:
    """Fill source, index and pixel size; return (stacks, box, sign)."""
    path = columns.path
    stacks = columns.categories("blob/path")
    rows["source"] = stacks.codes
    rows["index"] = columns.need("blob/idx").astype(np.int64)
    pixel_size_ang = columns.get("blob/psize_A")
    if pixel_size_ang is not None:
        check_positive(pixel_size_ang, "blob/psize_A", path)
        rows["pixel_size_ang"] = pixel_size_ang
    shape = columns.get("blob/shape")
    box_px = None
    if shape is not None and len(shape):
        odd = np.flatnonzero((shape != shape[0, 0]).any(axis=1))
        if odd.size:
            raise InputError(
                f"{path}: row {odd[0]} (0-based) has blob/shape {shape[odd[0]].tolist()}, row 0 "
                f"has {shape[0].tolist()}; square images of one box are wanted, select them"
            )
        box_px = int(shape[0, 0])
    sign = columns.get("blob/sign")
    signs = [] if sign is None else np.unique(np.sign(sign)).tolist()
    if len(signs) > 1:
        notes.append(f"{path}: blob/sign is mixed (some particles are dark, some light)")
    blob_sign = int(signs[0]) if len(signs) == 1 else None
    return resolve_stacks(stacks.texts, path, places), box_px, blob_sign


def _fill_ctf(rows: NDArray[np.void], columns: CsColumns, notes: list[str]) -> None:
    """Fill the CTF columns; angles from rad to deg; a missing phase shift is zero."""
    missing = []
    for name, field in _CTF_FIELDS.items():
        values = columns.get(field)
        if values is None:
            missing.append(field)
        elif field.endswith("_rad"):
            with np.errstate(over="ignore"):  # beyond float32: told as no number, with the row
                rows[name] = np.rad2deg(values.astype(np.float64))
        else:
            rows[name] = values
    if missing == ["ctf/phase_shift_rad"]:
        rows["phase_shift_deg"] = 0.0
        notes.append(f"{columns.path}: no ctf/phase_shift_rad, taken as 0")
    elif missing:
        notes.append(f"{columns.path}: no CTF: {', '.join(missing)} missing")
    terms = [(name, columns.get(name)) for name in _NOT_APPLIED]
    counts = [f"{name} ({int(c.sum())} rows)" for name, c in terms if c is not None and c.any()]
    if counts:
        notes.append(f"{columns.path}: not zero, and not applied: {', '.join(counts)}")


def _fill_optics(rows: NDArray[np.void], columns: CsColumns) -> tuple[str, ...]:
    """Fill the optics group from ctf/exp_group_id; return the groups' names."""
    group = columns.get("ctf/exp_group_id")
    if group is None:
        return ()
    names, codes = np.unique(group, return_inverse=True)
    rows["optics_group"] = codes
    return tuple(str(name) for name in names.tolist())


def _fill_alignment(
    rows: NDArray[np.void], alignment: CsAlignment, columns: CsColumns, notes: list[str]
) -> str:
    """Fill rotation, shift in A and half-set; return the arithmetic of one shift, if any."""
    path, field = columns.path, alignment.field
    for what, values in (("pose", alignment.rotation_vector), ("shift", alignment.shift_px)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise InputError(
                f"{path}: row {bad[0]} (0-based) has a {what} that is not a number "
                f"({bad.size} rows); leave these particles out in cryoSPARC"
            )
    rows["rotation"] = rotations_of(alignment.rotation_vector)
    psize_ang, scale = alignment.psize_ang, f"{field}/psize_A"
    if psize_ang is None:
        notes.append(f"{path}: {field}/psize_A is missing, shifts scaled by blob/psize_A")
        psize_ang, scale = columns.need("blob/psize_A"), "blob/psize_A"
    check_positive(psize_ang, scale, path)
    with np.errstate(over="ignore"):
        rows["shift_ang"] = alignment.shift_px * psize_ang[:, None]
    if alignment.split is not None:
        known = np.isin(alignment.split, (0, 1))
        rows["half_set"] = np.where(known, alignment.split.astype(np.int64) + 1, -1)
    if not len(rows):
        return ""
    row = int(np.argmax(np.abs(alignment.shift_px).max(axis=1) > 0))
    x_px, y_px = alignment.shift_px[row].tolist()
    x_ang, y_ang = rows["shift_ang"][row].tolist()
    return (
        f"row {row} (0-based): shift ({x_px:.6g}, {y_px:.6g}) px x {psize_ang[row]:.6g} A/px "
        f"({scale}) = ({x_ang:.6g}, {y_ang:.6g}) A"
    )


def check_positive(values: NDArray[Any], field: str, path: Path) -> None:
    """Raise InputError naming the first row whose pixel size cannot be one."""
    bad = np.flatnonzero(~((values > 0) & np.isfinite(values)))
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0]} (0-based) has {field} {values[bad[0]]}; it must be positive"
        )
