"""Particle STAR files as particles: RELION 3.0 to 5, and cisTEM.

Owns: pixel size, optics groups, poses, shifts, CTF and groups of a particle STAR file. Does not
own: the labels (`frazil.io.star_labels`), the format (`frazil.io.star_format`,
`frazil.io.star_writer`, whose names are given on here), nor the images (`frazil.io.images`).
"""

from collections.abc import Callable, Sequence
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
from frazil.io.star_labels import (
    CISTEM,
    CISTEM_ACTIVITY,
    CISTEM_STACK,
    RELION,
    dialect_of,
    pixel_size_labels,
    split_image_name,
)
from frazil.io.star_provenance import star_provenance
from frazil.io.star_table import text_of
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

# RELION's labels that count beside those of `star_labels`.
_BOX, _OPTICS = "_rlnImageSize", "_rlnOpticsGroup"
# Takes rows, the number of the first, and their tokens.
_TextReader = Callable[[NDArray[np.void], int, Sequence[bytes]], None]


def particles_from_star(
    path: Path, places: Places = NO_HINTS, *, pixel_size_ang: float | None = None
) -> ParticleTable:
    """Return the particles of a STAR file of RELION (3.0, 3.1, 4, 5) or cisTEM.

    A value in the particle table goes before the same label of the optics table, as in RELION.
    Pixel size: _rlnImagePixelSize, else 1e4 * _rlnDetectorPixelSize (um) / _rlnMagnification, else
    _rlnPixelSize. Poses need all three angles. Shifts: _rlnOriginX/YAngst, else _rlnOriginX/Y (px)
    times the pixel size; without either they are unknown, and none are applied. A phase shift that
    is not there is 0, as in RELION; whatever else is missing stays NaN, and a note says so.
    `half_set` is _rlnRandomSubset (1 or 2), `group` follows _rlnGroupName or _rlnTomoParticleName.
    An image name is "index@stack", 1-based; a bare name is the first image of that stack.

    cisTEM: phi, theta, psi are rot, tilt, psi; shifts (A) run the other way. An image is
    _cisTEMPositionInStack (1-based) of _cisTEMStackFilename, without which the stack is taken to
    lie beside the file under its name. cisTEM writes phase shifts in radians, and reads degrees:
    they are radians unless one is beyond 2 pi; a note says which.

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
    reader.load(rows)
    optics_groups = reader.fill_optics_groups(rows)
    reader.fill_pixel_size(rows, pixel_size_ang)
    reader.fill_poses(rows)
    reader.fill_shifts(rows)
    reader.fill_ctf(rows)
    reader.fill_half_sets(rows)
    stacks = reader.stacks(places)
    boxes_px = reader.boxes_px(rows, len(stacks))
    return ParticleTable(
        rows,
        stacks,
        boxes_px[0] if len(set(boxes_px)) == 1 else None,
        optics_groups,
        tuple(reader.groups),
        origin=str(path),
        notes=tuple(reader.notes),
        provenance=star_provenance(reader.star, rows),
        boxes_px=boxes_px,
    )


@dataclass
class _Reader:
    """The columns of one STAR file that have a meaning here, joined with its optics table.

    `stack_names` and `groups` number the names in the order in which they appear.
    """

    star: StarFile
    notes: list[str] = field(default_factory=list)
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    stack_names: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.particles = self.star.particles
        self.dialect = dialect_of(self.particles)
        self.optics = self.star.optics
        self.optics_row: NDArray[np.int64] | None = None  # (N,) row in the optics table

    def load(self, rows: NDArray[np.void]) -> None:
        """Read all numbers that are needed, image names and groups, in one pass."""
        there, readers = self._wanted_numbers(), self._text_readers()
        self.columns = {label: np.empty(len(self.particles)) for label in there}
        for first, numbers, texts in self.particles.parsed(there, list(readers)):
            part = slice(first, first + len(numbers))
            for label, values in zip(there, numbers.T, strict=True):
                self.columns[label][part] = values
            for take, tokens in zip(readers.values(), texts, strict=True):
                take(rows[part], first, tokens)
        if self.dialect is CISTEM:
            self._number_cistem(rows)
        if self.optics is not None:
            self.optics_row = self._join_optics(self.optics)

    def _wanted_numbers(self) -> list[str]:
        """Return the labels of the numbers that are needed and there."""
        dialect = self.dialect
        wanted = [*dialect.angles, *dialect.ctf.values(), dialect.half_set, _OPTICS, _BOX]
        for labels in (*dialect.shift_pairs, *dialect.pixel_sizes):
            wanted += labels
        if dialect is CISTEM:
            wanted += [dialect.image, CISTEM_ACTIVITY]
        return [label for label in wanted if label in self.particles]

    def _text_readers(self) -> dict[str, _TextReader]:
        """Return what takes the text of which column."""
        readers: dict[str, _TextReader] = {}
        if self.dialect is RELION:
            readers[RELION.image] = self._take_image_names
        elif CISTEM_STACK in self.particles:
            readers[CISTEM_STACK] = self._take_stack_names
        group = next((label for label in self.dialect.groups if label in self.particles), None)
        if group is not None:
            readers[group] = self._take_groups
        return readers

    def _take_image_names(
        self, rows: NDArray[np.void], first: int, tokens: Sequence[bytes]
    ) -> None:
        """Fill stack and index from tokens index@stack."""
        parts = [token.partition(b"@") for token in tokens]
        if b"".join([part[0] for part in parts]).isdigit() and all(part[2] for part in parts):
            rows["index"] = np.array([int(part[0] or b"0") for part in parts]) - 1
            rows["source"] = self._numbered(self.stack_names, [part[2] for part in parts])
            if not len(parts) or rows["index"].min() >= 0:
                return
        for place, name in enumerate(map(text_of, tokens)):  # quoted, bare, or wrong
            try:
                rows["index"][place], stack = split_image_name(name)
            except ValueError:
                wanted = "index@stack with an index from 1 on"
                self.particles.refuse(first + place, self.dialect.image, wanted)
            number = self.stack_names.setdefault(stack, len(self.stack_names))
            rows["source"][place] = number

    def _take_stack_names(self, rows: NDArray[np.void], _: int, tokens: Sequence[bytes]) -> None:
        rows["source"] = self._numbered(self.stack_names, tokens)

    def _take_groups(self, rows: NDArray[np.void], _: int, tokens: Sequence[bytes]) -> None:
        rows["group"] = self._numbered(self.groups, tokens)

    def _numbered(self, names: dict[str, int], tokens: Sequence[bytes]) -> list[int]:
        """Return the number of each token's name, which is made where it is new."""
        number_of = {
            token: names.setdefault(text_of(token), len(names)) for token in dict.fromkeys(tokens)
        }
        return [number_of[token] for token in tokens]

    def _number_cistem(self, rows: NDArray[np.void]) -> None:
        """Fill the index of cisTEM's images, and the stack where the file names none."""
        position = self.columns[CISTEM.image]
        bad = np.flatnonzero((position < 1) | (position % 1 != 0))
        if bad.size:
            self.particles.refuse(int(bad[0]), CISTEM.image, "a whole number from 1 on")
        rows["index"] = position - 1
        if "" in self.stack_names and len(self.stack_names) > 1:
            row = int(np.argmax(rows["source"] == self.stack_names[""]))
            self.particles.refuse(row, CISTEM_STACK, "the name of a stack")
        if not self.stack_names or "" in self.stack_names:
            rows["source"] = 0
            self.stack_names.clear()
        inactive = int((self.columns.get(CISTEM_ACTIVITY, np.zeros(0)) < 0).sum())
        if inactive:
            self.notes.append(
                f"{self.star.path}: {inactive} particles are switched off in cisTEM "
                f"({CISTEM_ACTIVITY} below 0); they are kept (leave them out with --ind)"
            )
        self.notes.append(
            f"{self.star.path}: particles in cisTEM's stacks are dark as a rule: give "
            "--uninvert-data if so"
        )

    def stacks(self, places: Places) -> tuple[str, ...]:
        """Return the path of every stack, found or not."""
        path = self.star.path
        if self.stack_names or not len(self.particles):
            return resolve_stacks(list(self.stack_names), path, places)
        beside = [path.with_suffix(suffix).name for suffix in (".mrc", ".mrcs")]
        found = [resolve_stacks([name], path, places) for name in beside]
        chosen = next((stacks for stacks in found if Path(stacks[0]).is_file()), found[0])
        self.notes.append(f"{path}: names no stack ({CISTEM_STACK}); {chosen[0]} is taken")
        return chosen

    def _join_optics(self, optics: StarTable) -> NDArray[np.int64]:
        """Return each particle's row in the optics table."""
        group = self.columns.get(_OPTICS)
        if group is None:
            if len(optics) != 1:
                raise InputError(
                    f"{self.star.path}: {len(optics)} optics groups, but the particles have no "
                    f"column {_OPTICS}"
                )
            return np.zeros(len(self.particles), np.int64)
        numbers = optics.numbers([_OPTICS])[:, 0]
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
            label = "_rlnOpticsGroupName" if named else _OPTICS
            if label in self.optics:
                return tuple(self.optics.strings(label))
            return tuple(str(number + 1) for number in range(len(self.optics)))
        group = self.columns.get(_OPTICS)
        if group is None:
            return ()
        numbers, rows["optics_group"] = np.unique(group, return_inverse=True)
        return tuple(f"{number:g}" for number in numbers.tolist())

    def fill_pixel_size(self, rows: NDArray[np.void], given_ang: float | None) -> None:
        """Fill the pixel size in A."""
        known = (self._pixel_size(labels) for labels in self.dialect.pixel_sizes)
        size = next((size for size in known if size is not None), None)
        if size is not None:
            self._check_positive(size, "pixel size")
            rows["pixel_size_ang"] = size
        if given_ang is not None:
            rows["pixel_size_ang"] = given_ang
        elif size is None:
            self.notes.append(f"{self.star.path}: no pixel size ({pixel_size_labels(self.star)})")

    def _pixel_size(self, labels: tuple[str, ...]) -> NDArray[np.float64] | None:
        """Return what one label says in A, or two: magnification and detector pixel in um."""
        values = [self.get(label) for label in labels]
        if len(values) == 1:
            return values[0]
        magnification, detector_um = values
        if magnification is None or detector_um is None:
            return None
        self._check_positive(magnification, labels[0])
        return 1e4 * detector_um / magnification

    def fill_poses(self, rows: NDArray[np.void]) -> None:
        """Fill the rotations when all three angles are there."""
        labels = self.dialect.angles
        angles = [self.columns.get(label) for label in labels]
        rot, tilt, psi = (a if a is None else torch.from_numpy(a) for a in angles)
        if rot is not None and tilt is not None and psi is not None:
            rows["rotation"] = from_relion_euler(rot, tilt, psi).numpy()
            if "_rlnTomoSubtomogramRot" in self.particles:
                self.notes.append(f"{self.star.path}: _rlnTomoSubtomogramRot/Tilt/Psi not applied")
            return
        missing = [label for label, a in zip(labels, angles, strict=True) if a is None]
        self.notes.append(f"{self.star.path}: no poses: {', '.join(missing)} missing")

    def fill_shifts(self, rows: NDArray[np.void]) -> None:
        """Fill the shifts in A."""
        in_ang = [self.columns.get(label) for label in self.dialect.shifts_ang]
        in_px = [self.columns.get(label) for label in self.dialect.shifts_px or ()]
        if in_ang[0] is not None and in_ang[1] is not None:
            rows["shift_ang"] = self.dialect.shift_sign * np.stack([in_ang[0], in_ang[1]], axis=1)
        elif in_px and in_px[0] is not None and in_px[1] is not None:
            shift_px = np.stack([in_px[0], in_px[1]], axis=1)
            pixel_size_ang = rows["pixel_size_ang"][:, None]
            if shift_px.any() and not np.isfinite(pixel_size_ang).all():
                raise InputError(
                    f"{self.star.path}: shifts in pixels (_rlnOriginX/Y), but no pixel size to "
                    "scale them by; give --Apix"
                )
            rows["shift_ang"] = np.where(shift_px == 0, 0.0, shift_px * pixel_size_ang)
        elif np.isfinite(rows["rotation"]).all():
            label = " and ".join(self.dialect.shifts_ang)
            self.notes.append(f"{self.star.path}: no shifts ({label}); none are applied")

    def fill_ctf(self, rows: NDArray[np.void]) -> None:
        """Fill the CTF columns; a missing phase shift is 0."""
        labels, missing = self.dialect.ctf, []
        for name in CTF_COLUMNS:
            values = self.get(labels[name])
            if values is None:
                missing.append(labels[name])
            else:
                rows[name] = values
        phase = labels["phase_shift_deg"]
        if phase in missing and labels["defocus_u_ang"] not in missing:
            missing.remove(phase)
            rows["phase_shift_deg"] = 0.0
            self.notes.append(f"{self.star.path}: no {phase}, taken as 0")
        elif self.dialect is CISTEM and rows["phase_shift_deg"].any():
            self._scale_phase_shift(rows)
        if missing:
            self.notes.append(f"{self.star.path}: CTF incomplete: {', '.join(missing)} missing")

    def _scale_phase_shift(self, rows: NDArray[np.void]) -> None:
        """Bring cisTEM's phase shifts to degrees; see `particles_from_star`."""
        largest = float(np.abs(rows["phase_shift_deg"]).max())
        in_rad = largest <= 2 * np.pi
        if in_rad:
            rows["phase_shift_deg"] = np.rad2deg(rows["phase_shift_deg"])
        self.notes.append(
            f"{self.star.path}: {CISTEM.ctf['phase_shift_deg']} up to {largest:g} is taken as "
            f"{'radians' if in_rad else 'degrees'}"
        )

    def fill_half_sets(self, rows: NDArray[np.void]) -> None:
        """Fill the half-set, 1 or 2."""
        subset = self.columns.get(self.dialect.half_set)
        if subset is not None:
            rows["half_set"] = np.where(np.isin(subset, (1, 2)), subset, -1)

    def boxes_px(self, rows: NDArray[np.void], stacks: int) -> tuple[int, ...]:
        """Return _rlnImageSize of each stack; empty without it."""
        size = self.get(_BOX)
        if size is None or not len(size):
            return ()
        boxes = np.zeros(stacks)
        boxes[rows["source"]] = size
        other = np.flatnonzero(boxes[rows["source"]] != size)
        if other.size:
            row = int(other[0])
            raise InputError(
                f"{self.star.path}: row {row} (0-based) has {_BOX} {size[row]:g}, other images of "
                f"its stack have {boxes[rows['source'][row]]:g}; correct the file"
            )
        return tuple(boxes.astype(np.int64).tolist())

    def _check_positive(self, values: NDArray[np.float64], what: str) -> None:
        """Raise InputError naming the first row whose value is not positive."""
        bad = np.flatnonzero(values <= 0)
        if bad.size:
            row = int(bad[0])
            raise InputError(
                f"{self.star.path}:{self.particles.line_of(row)}: row {row} (0-based) has "
                f"{what} {values[row]:g}; it must be positive"
            )
