"""cryoSPARC .cs files: structured arrays, read column by column.

Owns: the .cs file, its passthrough files (joined on uid), and what its fields mean. Does not own:
images (`frazil.io.images`), nor the rotation formula (`frazil.geometry.rotations`).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.errors import InputError, MissingFileError
from frazil.geometry.rotations import from_cryosparc
from frazil.io.atomic import write_npy_atomic
from frazil.io.particles import ParticleTable, empty_rows
from frazil.io.paths import NO_HINTS, Places, resolve_stacks

_MAX_HEADER_BYTES = 1 << 30
_CTF_FIELDS = {
    "defocus_u_ang": "ctf/df1_A",
    "defocus_v_ang": "ctf/df2_A",
    "astigmatism_deg": "ctf/df_angle_rad",
    "voltage_kv": "ctf/accel_kv",
    "cs_mm": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "phase_shift_deg": "ctf/phase_shift_rad",
}
_JOB = re.compile(r"(P\d+_J\d+|J\d+)_")
_CLASS = re.compile(r"class_(\d+)")


def read_cs(path: Path) -> NDArray[np.void]:
    """Return a .cs file as a read-only structured array (N,), mapped, not loaded.

    Take a column (`array["blob/idx"]`) and copy it; rows are far apart in the file.

    Raises
    ------
    MissingFileError : no such file.
    InputError : the compressed CSDAT format, or no .cs file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if magic == b"\x95CSDAT":
        raise InputError(
            f"{path}: compressed .cs (CSDAT); expand it with cryosparc-tools: "
            "Dataset.load(IN).save(OUT, format=1)"
        )
    if magic != b"\x93NUMPY":
        raise InputError(f"{path}: not a .cs file (it does not begin as a numpy array does)")
    try:
        array = np.load(path, mmap_mode="r", max_header_size=_MAX_HEADER_BYTES, allow_pickle=False)
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged .cs file ({reason}); export it again") from error
    if array.dtype.names is None or array.ndim != 1:
        raise InputError(f"{path}: a table of named columns is wanted, found {array.dtype}")
    return array


def write_cs(path: Path, array: NDArray[np.void]) -> None:
    """Write a structured array (N,) as .cs, whole or not at all."""
    if array.dtype.names is None or array.ndim != 1:
        raise InputError(f"{path}: a table of named columns is wanted, found {array.dtype}")
    write_npy_atomic(Path(path), array)


class CsColumns:
    """Columns of a .cs file and, for fields it lacks, of passthrough files beside it.

    Passthrough rows are joined on `uid`, never by row number.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._main = read_cs(self.path)
        self._others: list[tuple[Path, NDArray[np.void], NDArray[np.int64]]] | None = None

    def __len__(self) -> int:
        return len(self._main)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all fields, those of the passthrough files included."""
        names = dict.fromkeys(self._main.dtype.names or ())
        for _, array, _ in self._passthrough():
            names.update(dict.fromkeys(array.dtype.names or ()))
        return tuple(names)

    def get(self, name: str) -> NDArray[Any] | None:
        """Return a copy of one column in the order of the main file, or None when nowhere."""
        if name in (self._main.dtype.names or ()):
            return np.array(self._main[name])
        for _, array, rows in self._passthrough():
            if name in (array.dtype.names or ()):
                return np.array(array[name])[rows]
        return None

    def need(self, name: str) -> NDArray[Any]:
        """Return a column; InputError naming the fields there are when it is missing."""
        values = self.get(name)
        if values is None:
            raise InputError(
                f"{self.path}: no field {name} (it has {', '.join(self.names)}); put its "
                "*_passthrough_particles.cs beside it"
            )
        return values

    def _passthrough(self) -> list[tuple[Path, NDArray[np.void], NDArray[np.int64]]]:
        """Return (file, its array, its row of each particle), read when first needed."""
        if self._others is None:
            self._others = [
                (file, array, self._rows_of(file, array))
                for file in _passthrough_files(self.path)
                if "uid" in ((array := read_cs(file)).dtype.names or ())
            ]
        return self._others

    def _rows_of(self, file: Path, array: NDArray[np.void]) -> NDArray[np.int64]:
        """Return for each particle its row in a passthrough file."""
        if "uid" not in (self._main.dtype.names or ()):
            raise InputError(f"{self.path}: no field uid, so {file.name} cannot be joined to it")
        uids, wanted = np.array(array["uid"]), np.array(self._main["uid"])
        order = np.argsort(uids, kind="stable")
        ordered = uids[order]
        repeats = int((ordered[1:] == ordered[:-1]).sum())
        places = np.minimum(np.searchsorted(ordered, wanted), max(0, len(ordered) - 1))
        missing = int((ordered[places] != wanted).sum()) if len(ordered) else len(wanted)
        if repeats or missing:
            raise InputError(
                f"{file}: cannot be joined to {self.path.name} on uid: {missing} of {len(wanted)} "
                f"particles are not in it, {repeats} uids occur twice; remove it from the folder "
                "if it belongs to another job"
            )
        return order[places]


def _passthrough_files(path: Path) -> list[Path]:
    """Return the passthrough files of the same job (and class, where both name one)."""
    job, number = _JOB.search(path.name), _CLASS.search(path.name)
    found = []
    for file in sorted(path.parent.glob("*passthrough_particles*.cs")):
        its_job, its_number = _JOB.search(file.name), _CLASS.search(file.name)
        same_job = job is None or (its_job is not None and its_job[1] == job[1])
        same_class = number is None or its_number is None or its_number[1] == number[1]
        if file.name != path.name and same_job and same_class:
            found.append(file)
    return found


@dataclass(frozen=True)
class CsAlignment:
    """Poses as cryoSPARC writes them: rotation vectors (rad), shifts in pixels of `psize_ang`."""

    rotation_vector: NDArray[np.float64]  # (N, 3)
    shift_px: NDArray[np.float64]  # (N, 2)
    psize_ang: NDArray[np.float64] | None  # (N,)
    split: NDArray[np.int64] | None  # (N,) 0 or 1


def read_alignment(
    columns: CsColumns, abinit: bool = False, class_index: int = 0
) -> CsAlignment | None:
    """Return the alignment of every particle, or None when the file holds none at all.

    Parameters
    ----------
    columns : the file.
    abinit : take `alignments_class_N` (ab-initio jobs) where N is `class_index`, instead of
        `alignments3D`.

    Raises
    ------
    InputError : the alignment asked for is not there, but others are.
    """
    prefixes = ["alignments3D"]
    if abinit:
        prefixes = [f"alignments_class_{class_index}", f"alignments_class3D_{class_index}"]
    for prefix in prefixes:
        pose = columns.get(f"{prefix}/pose")
        if pose is None:
            continue
        if pose.ndim != 2 or pose.shape[1] != 3:
            raise InputError(
                f"{columns.path}: {prefix}/pose is of shape {pose.shape}, rotation vectors (N, 3) "
                "are wanted"
            )
        psize, split = columns.get(f"{prefix}/psize_A"), columns.get(f"{prefix}/split")
        return CsAlignment(
            pose.astype(np.float64),
            columns.need(f"{prefix}/shift").astype(np.float64),
            None if psize is None else psize.astype(np.float64),
            None if split is None else split.astype(np.int64),
        )
    others = [n.rsplit("/", 1)[0] for n in columns.names if re.match(r"alignments\w*/pose$", n)]
    others = [name for name in others if name != "alignments2D"]
    if not others and not abinit:
        return None
    raise InputError(
        f"{columns.path}: no field {' or '.join(prefixes)}/pose, it has poses "
        f"{', '.join(others) or 'of no kind'}; "
        + ("choose a class it has" if abinit else "give --abinit for an ab-initio job")
    )


def particles_from_cs(
    path: Path,
    places: Places = NO_HINTS,
    *,
    abinit: bool = False,
    class_index: int = 0,
    poses: bool = True,
) -> ParticleTable:
    """Return the particles of a .cs file.

    A zero rotation vector is the identity. Shifts are in pixels of alignments3D/psize_A (of
    blob/psize_A, with a note, where that is missing). `half_set` is alignments3D/split + 1.
    Fields that the file lacks are taken from `*_passthrough_particles*.cs` beside it, by uid.

    Parameters
    ----------
    path : the .cs file.
    places : where the stacks may be, beside what the file says.
    abinit, class_index : see `read_alignment`.
    poses : False leaves poses and half-sets unknown, whatever there is.

    Raises
    ------
    MissingFileError, InputError : naming file and field.
    """
    path = Path(path)
    columns = CsColumns(path)
    notes: list[str] = []
    rows = empty_rows(len(columns))
    uid = columns.get("uid")
    if uid is not None:
        rows["uid"] = uid
    sources, box_px, blob_sign = _fill_blob(rows, columns, places, notes)
    _fill_ctf(rows, columns, notes)
    optics_groups = _fill_optics(rows, columns)
    alignment = read_alignment(columns, abinit, class_index) if poses else None
    if alignment is not None:
        _fill_alignment(rows, alignment, columns, notes)
    elif poses:
        notes.append(f"{path}: no poses in this file")
    return ParticleTable(
        rows,
        sources,
        box_px,
        optics_groups,
        blob_sign=blob_sign,
        origin=str(path),
        notes=tuple(notes),
    )


def _fill_blob(
    rows: NDArray[np.void], columns: CsColumns, places: Places, notes: list[str]
) -> tuple[tuple[str, ...], int | None, int | None]:
    """Fill source, index and pixel size; return (stacks, box, sign)."""
    path = columns.path
    numbers: dict[Any, int] = {}
    names = columns.need("blob/path").tolist()
    rows["source"] = [numbers.setdefault(name, len(numbers)) for name in names]
    texts = [n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in numbers]
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
    return resolve_stacks(texts, path, places), box_px, blob_sign


def _fill_ctf(rows: NDArray[np.void], columns: CsColumns, notes: list[str]) -> None:
    """Fill the CTF columns; angles from rad to deg; a missing phase shift is zero."""
    missing = []
    for name, field in _CTF_FIELDS.items():
        values = columns.get(field)
        if values is None:
            missing.append(field)
        elif field.endswith("_rad"):
            rows[name] = np.rad2deg(values.astype(np.float64))
        else:
            rows[name] = values
    if missing == ["ctf/phase_shift_rad"]:
        rows["phase_shift_deg"] = 0.0
        notes.append(f"{columns.path}: no ctf/phase_shift_rad, taken as 0")
    elif missing:
        notes.append(f"{columns.path}: no CTF: {', '.join(missing)} missing")


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
) -> None:
    """Fill rotation, shift in A and half-set."""
    path = columns.path
    for what, values in (("pose", alignment.rotation_vector), ("shift", alignment.shift_px)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise InputError(
                f"{path}: row {bad[0]} (0-based) has a {what} that is not a number "
                f"({bad.size} rows); leave these particles out in cryoSPARC"
            )
    rows["rotation"] = from_cryosparc(torch.from_numpy(alignment.rotation_vector)).numpy()
    psize_ang = alignment.psize_ang
    if psize_ang is None:
        notes.append(f"{path}: alignments3D/psize_A is missing, shifts scaled by blob/psize_A")
        psize_ang = columns.need("blob/psize_A").astype(np.float64)
    check_positive(psize_ang, "alignments3D/psize_A", path)
    rows["shift_ang"] = alignment.shift_px * psize_ang[:, None]
    if alignment.split is not None:
        rows["half_set"] = np.where(np.isin(alignment.split, (0, 1)), alignment.split + 1, -1)


def check_positive(values: NDArray[Any], field: str, path: Path) -> None:
    """Raise InputError naming the first row whose pixel size cannot be one."""
    bad = np.flatnonzero(~((values > 0) & np.isfinite(values)))
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0]} (0-based) has {field} {values[bad[0]]}; it must be positive"
        )
