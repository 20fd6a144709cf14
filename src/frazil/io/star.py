"""RELION STAR files as particles: what the labels of RELION 3.0 to 5 mean.

Owns: pixel size, optics groups, poses, shifts, CTF and groups of a particle STAR file. Does not
own: the format (`frazil.io.star_format`, `frazil.io.star_writer`, whose names are given on here),
nor the images (`frazil.io.images`).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.geometry.rotations import from_relion_euler
from frazil.io.particles import CTF_COLUMNS, ParticleTable, empty_rows
from frazil.io.paths import NO_HINTS, Places, resolve_stacks
from frazil.io.star_format import StarFile, StarTable, read_star
from frazil.io.star_provenance import star_provenance
from frazil.io.star_writer import copy_rows, write_star

__all__ = [
    "StarFile",
    "StarTable",
    "copy_rows",
    "particles_from_star",
    "read_star",
    "split_image_name",
    "write_star",
]

_ANGLES = ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")
_CTF_LABELS = {
    "defocus_u_ang": "_rlnDefocusU",
    "defocus_v_ang": "_rlnDefocusV",
    "astigmatism_deg": "_rlnDefocusAngle",
    "voltage_kv": "_rlnVoltage",
    "cs_mm": "_rlnSphericalAberration",
    "amplitude_contrast": "_rlnAmplitudeContrast",
    "phase_shift_deg": "_rlnPhaseShift",
}
_SHIFTS_ANG = ("_rlnOriginXAngst", "_rlnOriginYAngst")
_SHIFTS_PX = ("_rlnOriginX", "_rlnOriginY")
_DETECTOR = ("_rlnMagnification", "_rlnDetectorPixelSize")
_GROUPS = ("_rlnGroupName", "_rlnTomoParticleName")


def particles_from_star(
    path: Path, places: Places = NO_HINTS, *, pixel_size_ang: float | None = None
) -> ParticleTable:
    """Return the particles of a RELION STAR file (3.0, 3.1, 4, 5).

    A value in the particle table goes before the same label of the optics table, as in RELION.
    Pixel size: _rlnImagePixelSize, else 1e4 * _rlnDetectorPixelSize (um) / _rlnMagnification, else
    _rlnPixelSize. Poses need all three angles. Shifts: _rlnOriginX/YAngst, else _rlnOriginX/Y (px)
    times the pixel size; without either they are unknown, and none are applied. A phase shift that
    is not there is 0, as in RELION; whatever else is missing stays NaN, and a note says so.
    `half_set` is _rlnRandomSubset (1 or 2), `group` follows _rlnGroupName or _rlnTomoParticleName.
    An image name is "index@stack", 1-based; a bare name is the first image of that stack.

    Parameters
    ----------
    path : STAR file.
    places : where the stacks may be, beside what the file says.
    pixel_size_ang : pixel size to use whatever the file says; shifts in pixels are scaled by it.

    Raises
    ------
    MissingFileError : no such file.
    InputError : a missing column or a bad value, with file, line and column.
    """
    reader = _Reader(read_star(Path(path)))
    if "_rlnTomoVisibleFrames" in reader.particles:
        raise InputError(
            f"{path}: 2D tilt-series stacks of RELION 5 (_rlnTomoVisibleFrames) hold several "
            "images per particle; export one row per tilt image"
        )
    rows = empty_rows(len(reader.particles))
    names, rows["source"], rows["index"] = _image_names(reader.particles)
    reader.load()
    optics_groups = reader.fill_optics_groups(rows)
    reader.fill_pixel_size(rows, pixel_size_ang)
    reader.fill_poses(rows)
    reader.fill_shifts(rows)
    reader.fill_ctf(rows)
    reader.fill_half_sets(rows)
    groups = reader.fill_groups(rows)
    return ParticleTable(
        rows,
        resolve_stacks(names, Path(path), places),
        reader.box_px(),
        optics_groups,
        groups,
        origin=str(path),
        notes=tuple(reader.notes),
        provenance=star_provenance(reader.star, rows),
    )


def split_image_name(name: str) -> tuple[int, str]:
    """Return (0-based index, stack) of an image name "000012@stack.mrcs"; a bare name is image 0.

    Raises
    ------
    ValueError : the index is not a number from 1 on.
    """
    number, at, stack = name.partition("@")
    if not at:
        return 0, name
    index = int(number) - 1
    if index < 0 or not stack:
        raise ValueError(name)
    return index, stack


def _image_names(
    table: StarTable,
) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64]]:
    """Return the stacks, and of each row the number of its stack and the index in it."""
    numbers: dict[str, int] = {}
    sources, indices = np.empty(len(table), np.int32), np.empty(len(table), np.int64)
    for row, name in enumerate(table.iterate("_rlnImageName")):
        try:
            indices[row], stack = split_image_name(name)
        except ValueError as error:
            raise InputError(
                f"{table.path}:{table.line_of(row)}: row {row} (0-based) has _rlnImageName = "
                f"{name}; index@stack with an index from 1 on is wanted"
            ) from error
        sources[row] = numbers.setdefault(stack, len(numbers))
    return list(numbers), sources, indices


@dataclass
class _Reader:
    """The columns of one STAR file that have a meaning here, joined with its optics table."""

    star: StarFile
    notes: list[str] = field(default_factory=list)
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.particles = self.star.particles
        self.optics = self.star.blocks.get("optics")
        self.optics_row: NDArray[np.int64] | None = None  # (N,) row in the optics table

    def load(self) -> None:
        """Read all numbers that are needed, in one pass over the particles."""
        wanted = [*_ANGLES, *_CTF_LABELS.values(), *_SHIFTS_ANG, *_SHIFTS_PX, *_DETECTOR]
        wanted += ["_rlnImagePixelSize", "_rlnPixelSize", "_rlnRandomSubset"]
        wanted += ["_rlnOpticsGroup", "_rlnImageSize"]
        there = [label for label in wanted if label in self.particles]
        values = self.particles.numbers(there)
        self.columns = {label: values[:, place] for place, label in enumerate(there)}
        if self.optics is not None:
            self.optics_row = self._join_optics(self.optics)

    def _join_optics(self, optics: StarTable) -> NDArray[np.int64]:
        """Return each particle's row in the optics table."""
        group = self.columns.get("_rlnOpticsGroup")
        if group is None:
            if len(optics) != 1:
                raise InputError(
                    f"{self.star.path}: {len(optics)} optics groups, but the particles have no "
                    "column _rlnOpticsGroup"
                )
            return np.zeros(len(self.particles), np.int64)
        numbers = optics.numbers(["_rlnOpticsGroup"])[:, 0]
        order = np.argsort(numbers)
        place = np.minimum(np.searchsorted(numbers[order], group), max(0, len(order) - 1))
        joined = order[place] if len(order) else np.zeros(len(group), np.int64)
        wrong = np.flatnonzero(numbers[joined] != group) if len(order) else np.arange(len(group))
        if wrong.size:
            row = int(wrong[0])
            raise InputError(
                f"{self.star.path}:{self.particles.line_of(row)}: row {row} (0-based) is of "
                f"optics group {group[row]:g}, which data_optics does not have"
            )
        return joined

    def get(self, label: str) -> NDArray[np.float64] | None:
        """Return a column (N,) of the particles, else of their optics groups, else None."""
        if label in self.columns:
            return self.columns[label]
        if self.optics is not None and self.optics_row is not None and label in self.optics:
            return self.optics.numbers([label])[:, 0][self.optics_row]
        return None

    def fill_optics_groups(self, rows: NDArray[np.void]) -> tuple[str, ...]:
        """Fill the optics group; return the groups' names (numbers when they have none)."""
        if self.optics is not None and self.optics_row is not None:
            rows["optics_group"] = self.optics_row
            named = "_rlnOpticsGroupName" in self.optics
            label = "_rlnOpticsGroupName" if named else "_rlnOpticsGroup"
            if label in self.optics:
                return tuple(self.optics.strings(label))
            return tuple(str(number + 1) for number in range(len(self.optics)))
        group = self.columns.get("_rlnOpticsGroup")
        if group is None:
            return ()
        numbers, rows["optics_group"] = np.unique(group, return_inverse=True)
        return tuple(f"{number:g}" for number in numbers.tolist())

    def fill_pixel_size(self, rows: NDArray[np.void], given_ang: float | None) -> None:
        """Fill the pixel size in A."""
        size = self.get("_rlnImagePixelSize")
        if size is None:
            magnification, detector_um = (self.get(label) for label in _DETECTOR)
            if magnification is not None and detector_um is not None:
                self._check_positive(magnification, _DETECTOR[0])
                size = 1e4 * detector_um / magnification
        if size is None:
            size = self.get("_rlnPixelSize")
        if size is not None:
            self._check_positive(size, "pixel size")
            rows["pixel_size_ang"] = size
        if given_ang is not None:
            rows["pixel_size_ang"] = given_ang
        elif size is None:
            self.notes.append(
                f"{self.star.path}: no pixel size (_rlnImagePixelSize, or _rlnMagnification with "
                "_rlnDetectorPixelSize)"
            )

    def fill_poses(self, rows: NDArray[np.void]) -> None:
        """Fill the rotations when all three angles are there."""
        angles = [self.columns.get(label) for label in _ANGLES]
        rot, tilt, psi = (a if a is None else torch.from_numpy(a.copy()) for a in angles)
        if rot is not None and tilt is not None and psi is not None:
            rows["rotation"] = from_relion_euler(rot, tilt, psi).numpy()
            if "_rlnTomoSubtomogramRot" in self.particles:
                self.notes.append(f"{self.star.path}: _rlnTomoSubtomogramRot/Tilt/Psi not applied")
            return
        missing = [label for label, a in zip(_ANGLES, angles, strict=True) if a is None]
        self.notes.append(f"{self.star.path}: no poses: {', '.join(missing)} missing")

    def fill_shifts(self, rows: NDArray[np.void]) -> None:
        """Fill the shifts in A."""
        in_ang = [self.columns.get(label) for label in _SHIFTS_ANG]
        in_px = [self.columns.get(label) for label in _SHIFTS_PX]
        if in_ang[0] is not None and in_ang[1] is not None:
            rows["shift_ang"] = np.stack([in_ang[0], in_ang[1]], axis=1)
        elif in_px[0] is not None and in_px[1] is not None:
            shift_px = np.stack([in_px[0], in_px[1]], axis=1)
            pixel_size_ang = rows["pixel_size_ang"][:, None]
            if shift_px.any() and not np.isfinite(pixel_size_ang).all():
                raise InputError(
                    f"{self.star.path}: shifts in pixels (_rlnOriginX/Y), but no pixel size to "
                    "scale them by; give --Apix"
                )
            rows["shift_ang"] = np.where(shift_px == 0, 0.0, shift_px * pixel_size_ang)
        elif np.isfinite(rows["rotation"]).all():
            self.notes.append(f"{self.star.path}: no shifts (_rlnOriginX/YAngst); none are applied")

    def fill_ctf(self, rows: NDArray[np.void]) -> None:
        """Fill the CTF columns; a missing phase shift is 0."""
        missing = []
        for name in CTF_COLUMNS:
            values = self.get(_CTF_LABELS[name])
            if values is None:
                missing.append(_CTF_LABELS[name])
            else:
                rows[name] = values
        if "_rlnPhaseShift" in missing and "_rlnDefocusU" not in missing:
            missing.remove("_rlnPhaseShift")
            rows["phase_shift_deg"] = 0.0
            self.notes.append(f"{self.star.path}: no _rlnPhaseShift, taken as 0")
        if missing:
            self.notes.append(f"{self.star.path}: CTF incomplete: {', '.join(missing)} missing")

    def fill_half_sets(self, rows: NDArray[np.void]) -> None:
        """Fill the half-set, 1 or 2."""
        subset = self.columns.get("_rlnRandomSubset")
        if subset is not None:
            rows["half_set"] = np.where(np.isin(subset, (1, 2)), subset, -1)

    def fill_groups(self, rows: NDArray[np.void]) -> tuple[str, ...]:
        """Fill the group; return the groups' names in the order they appear."""
        label = next((label for label in _GROUPS if label in self.particles), None)
        if label is None:
            return ()
        numbers: dict[str, int] = {}
        names = self.particles.iterate(label)
        rows["group"] = [numbers.setdefault(name, len(numbers)) for name in names]
        return tuple(numbers)

    def box_px(self) -> int | None:
        """Return _rlnImageSize when all particles share it."""
        size = self.get("_rlnImageSize")
        if size is None or not len(size):
            return None
        other = np.flatnonzero(size != size[0])
        if other.size:
            raise InputError(
                f"{self.star.path}: row {other[0]} (0-based) has _rlnImageSize "
                f"{size[other[0]]:g}, row 0 has {size[0]:g}; images of one box are wanted"
            )
        return int(size[0])

    def _check_positive(self, values: NDArray[np.float64], what: str) -> None:
        """Raise InputError naming the first row whose value is not positive."""
        bad = np.flatnonzero(values <= 0)
        if bad.size:
            row = int(bad[0])
            raise InputError(
                f"{self.star.path}:{self.particles.line_of(row)}: row {row} (0-based) has "
                f"{what} {values[row]:g}; it must be positive"
            )
