"""The particle table: one row of metadata per particle, whatever file it came from.

Owns: the row type, the flag bits, row selection, and joining cryoDRGN's pose and CTF arrays (which
carry no identity and go by row order). Units are Angstrom, degrees and kV. Does not own: reading
any file format, nor the images (`frazil.io.images`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from frazil.errors import InputError
from frazil.geometry.ctf import CTF_COLUMNS as CTF_PARAMETERS
from frazil.io.paths import NO_HINTS, Places

PARTICLE_DTYPE = np.dtype(
    [
        ("uid", "<u8"),
        ("source", "<i4"),
        ("index", "<i8"),
        ("shard", "<i4"),
        ("slot", "<i4"),
        ("rotation", "<f4", (3, 3)),
        ("shift_ang", "<f4", (2,)),
        ("pixel_size_ang", "<f8"),
        ("defocus_u_ang", "<f4"),
        ("defocus_v_ang", "<f4"),
        ("astigmatism_deg", "<f4"),
        ("voltage_kv", "<f4"),
        ("cs_mm", "<f4"),
        ("amplitude_contrast", "<f4"),
        ("phase_shift_deg", "<f4"),
        ("optics_group", "<i4"),
        ("half_set", "<i1"),
        ("group", "<i4"),
        ("image_gain", "<f4"),
        ("flags", "<u4"),
    ]
)
"""One particle. Unknown numbers are NaN, unknown integers -1, an unknown uid 0.

`source` indexes `ParticleTable.sources`, `index` is the image's 0-based place in that stack (-1
never occurs), `shard` and `slot` are its place in a store. `rotation` maps model to image frame,
`shift_ang` (x, y) centres the particle when applied to the image. `optics_group` and `group`
(tilt series or micrograph group) index the table's names. `half_set` is 1 or 2.
"""

FLAG_NONFINITE = 1
"""The image holds NaN or infinite pixels: listed, never trained."""
FLAG_CLIPPED = 2
"""Coefficients were clipped by the store's precision."""
FLAG_CONSTANT = 4
"""All pixels of the image are equal."""
FLAG_OUTLIER = 8
"""The image is far from all others of its optics group, see `frazil.preprocess.screening`."""
FLAG_LEFT_OUT = 16
"""The row is bad and is not used, because --drop-bad was given."""

FLAGS = {
    "nonfinite": FLAG_NONFINITE,
    "clipped": FLAG_CLIPPED,
    "constant": FLAG_CONSTANT,
    "outlier": FLAG_OUTLIER,
    "left_out": FLAG_LEFT_OUT,
}
"""Names of the flags, as they are shown and kept in manifests."""
FLAGS_BAD = FLAG_NONFINITE | FLAG_CONSTANT | FLAG_OUTLIER
"""What --strict refuses and --drop-bad leaves out. A clipped image is as good as any other."""
FLAGS_UNUSED = FLAG_NONFINITE | FLAG_LEFT_OUT
"""Rows with one of these are never used."""


def unused_reasons(flags: NDArray[np.uint32]) -> dict[str, int]:
    """Return why rows with FLAGS_UNUSED are not used, each under one reason -> rows."""
    nonfinite = flags & FLAG_NONFINITE > 0
    left_out = (flags & FLAG_LEFT_OUT > 0) & ~nonfinite
    return {"non-finite": int(nonfinite.sum()), "--drop-bad": int(left_out.sum())}


CTF_COLUMNS = CTF_PARAMETERS[1:]
"""Columns of the CTF in the order of cryoDRGN's ctf.pkl, whose columns 0 and 1 are box and A/px."""


def empty_rows(n: int) -> NDArray[np.void]:
    """Return (n,) rows of PARTICLE_DTYPE in which everything is unknown and no flag is set."""
    row = np.zeros(1, PARTICLE_DTYPE)
    for name in PARTICLE_DTYPE.names or ():
        kind = PARTICLE_DTYPE[name].base.kind
        if kind == "f":
            row[name] = np.nan
        elif kind == "i":
            row[name] = -1
    return np.repeat(row, n)


@dataclass(frozen=True)
class ParticleTable:
    """Particles in the order of the input file.

    Parameters
    ----------
    rows : (N,) of PARTICLE_DTYPE.
    sources : absolute paths of the stacks, indexed by the column `source`.
    box_px : box of the source images in pixels, None when unknown or of several sizes. Of Fourier
        images (domain "hartley", side D+1) it is D.
    boxes_px : box of each source that the metadata state; empty when they state none.
    optics_groups, groups : names that the columns `optics_group` and `group` index.
    blob_sign : cryoSPARC's blob/sign, -1 when particles are dark; None when unknown or mixed.
    origin : the file that the table came from, as the user gave it.
    places : where the user says that stacks are.
    notes : lines worth telling the user.
    provenance : lines that say which file and column each quantity came from.
    """

    rows: NDArray[np.void]
    sources: tuple[str, ...]
    box_px: int | None = None
    optics_groups: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    blob_sign: int | None = None
    origin: str = ""
    places: Places = NO_HINTS
    notes: tuple[str, ...] = ()
    provenance: tuple[str, ...] = ()
    boxes_px: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rows.dtype != PARTICLE_DTYPE or self.rows.ndim != 1:
            raise TypeError(f"rows must be (N,) of PARTICLE_DTYPE, found {self.rows.dtype}")
        if self.boxes_px and len(self.boxes_px) != len(self.sources):
            raise ValueError(f"{len(self.boxes_px)} boxes given for {len(self.sources)} sources")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_pose(self) -> bool:
        """True when every row has a rotation; InputError when only some have one."""
        return self._all_finite(("rotation",), "rotation")

    @property
    def has_shift(self) -> bool:
        """True when every row has a shift; InputError when only some have one."""
        return self._all_finite(("shift_ang",), "shift")

    @property
    def has_ctf(self) -> bool:
        """True when every row has all of CTF_COLUMNS; InputError when only some do, or at 0 kV."""
        off = np.flatnonzero(self.rows["voltage_kv"] <= 0)  # False for NaN
        if off.size:
            raise InputError(
                f"{self.origin}: row {off[0]} (0-based) has a voltage of "
                f"{self.rows['voltage_kv'][off[0]]:g} kV ({off.size} rows); correct the file"
            )
        return self._all_finite(CTF_COLUMNS, "CTF")

    @property
    def has_pixel_size(self) -> bool:
        """True when every row has a pixel size; InputError when only some have one."""
        return self._all_finite(("pixel_size_ang",), "pixel size")

    @property
    def missing_ctf_columns(self) -> tuple[str, ...]:
        """Those of CTF_COLUMNS that are unknown in at least one row."""
        return tuple(c for c in CTF_COLUMNS if not np.isfinite(self.rows[c]).all())

    def take(self, indices: ArrayLike) -> "ParticleTable":
        """Return the table of the given rows, in the given order (repeats allowed).

        Parameters
        ----------
        indices : (n,) integers, 0 <= index < N.

        Raises
        ------
        InputError : not integers, or out of range.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.dtype.kind not in "iu" and chosen.size):
            raise InputError(f"{self.origin}: rows must be a list of integers, not {chosen.dtype}")
        chosen = chosen.astype(np.int64)
        bad = np.flatnonzero((chosen < 0) | (chosen >= len(self)))
        if bad.size:
            raise InputError(
                f"{self.origin}: entry {bad[0]} (0-based) of the selection asks for row "
                f"{chosen[bad[0]]}, but there are {len(self)} rows (0 to {len(self) - 1})"
            )
        return replace(self, rows=self.rows[chosen])

    def told(
        self, line: str, instead_of: tuple[str, ...], notes: Sequence[str] = ()
    ) -> "ParticleTable":
        """Return the table with a line of provenance in place of those that begin otherwise.

        Parameters
        ----------
        line : where a quantity now comes from.
        instead_of : the beginnings of the lines that are no longer true.
        notes : more notes.
        """
        kept = [text for text in self.provenance if not text.startswith(instead_of)]
        return replace(self, provenance=(*kept, line), notes=(*self.notes, *notes))

    def with_pixel_size(self, pixel_size_ang: float) -> "ParticleTable":
        """Return the table with one pixel size (A) in all rows; shifts stay the same in A."""
        if not (np.isfinite(pixel_size_ang) and pixel_size_ang > 0):
            raise InputError(f"pixel size must be positive, not {pixel_size_ang}")
        rows = self.rows.copy()
        rows["pixel_size_ang"] = pixel_size_ang
        return replace(self, rows=rows)

    def with_poses(
        self,
        rotation: NDArray[np.floating[Any]],
        shift_fraction: NDArray[np.floating[Any]] | None = None,
        box_px: int | None = None,
    ) -> "ParticleTable":
        """Return the table with the poses of a cryoDRGN pose.pkl, joined by row order.

        Parameters
        ----------
        rotation : (N, 3, 3), model frame to image frame.
        shift_fraction : (N, 2) shift (x, y) that centres the particle, as a fraction of the box;
            None leaves the shifts unknown, which means none are applied.
        box_px : box of the source images, where the table does not know it.

        Raises
        ------
        InputError : another number of rows, or shifts without a box or pixel size to scale them.
        """
        rotation = np.asarray(rotation)
        self._check_shape(rotation, (len(self), 3, 3), "poses")
        rows = self.rows.copy()
        rows["rotation"] = rotation
        rows["shift_ang"] = np.nan
        if shift_fraction is not None:
            fraction = np.asarray(shift_fraction, np.float64)
            self._check_shape(fraction, (len(self), 2), "shifts")
            rows["shift_ang"] = fraction * self._box_ang(fraction, box_px)
        return replace(self, rows=rows)

    def with_ctf(
        self, ctf: NDArray[np.floating[Any]], box_px: int | None = None
    ) -> "ParticleTable":
        """Return the table with the CTF of a cryoDRGN ctf.pkl, joined by row order.

        The A/px of column 1 belongs to the box of column 0, which may be that of downsampled
        images; the pixel size of the source is A/px * column 0 / source box.

        Parameters
        ----------
        ctf : (N, 9): box px, A/px, defocus U A, defocus V A, angle deg, kV, Cs mm, amplitude
            contrast, phase shift deg.
        box_px : box of the source images, where the table does not know it.

        Raises
        ------
        InputError : another number of rows, or an unknown source box.
        """
        ctf = np.asarray(ctf, np.float64)
        self._check_shape(ctf, (len(self), 9), "CTF")
        box_px = box_px or self.box_px
        if box_px is None:
            raise InputError(
                f"{self.origin}: the box of the images is not known, so the pixel size of the CTF "
                "parameters cannot be placed; give the image stack"
            )
        rows = self.rows.copy()
        rows["pixel_size_ang"] = ctf[:, 1] * ctf[:, 0] / box_px
        for column, name in enumerate(CTF_COLUMNS, start=2):
            rows[name] = ctf[:, column]
        return replace(self, rows=rows)

    def ctf_array(self) -> NDArray[np.float64]:
        """Return (N, 8): pixel size A, then CTF_COLUMNS; the parameters of `geometry.ctf`."""
        columns = CTF_PARAMETERS
        return np.stack([self.rows[name].astype(np.float64) for name in columns], axis=1)

    def _box_ang(
        self, fraction: NDArray[np.float64], box_px: int | None
    ) -> NDArray[np.float64] | float:
        """Return the side of each image in A, (N, 1); any number will do when no shift is set."""
        if not fraction.any():
            return 1.0
        box_px = box_px or self.box_px
        if box_px is None:
            raise InputError(
                f"{self.origin}: shifts are fractions of the box, and the box of the images is "
                "not known; give the image stack"
            )
        if not self.has_pixel_size:
            raise InputError(
                f"{self.origin}: shifts are fractions of the box, and the pixel size is not "
                "known; give --ctf (or --Apix)"
            )
        return self.rows["pixel_size_ang"][:, None] * box_px

    def _check_shape(
        self, array: NDArray[np.floating[Any]], wanted: tuple[int, ...], what: str
    ) -> None:
        """Raise InputError unless `array` has the shape `wanted`."""
        if array.shape != wanted:
            raise InputError(
                f"{self.origin}: {what} of shape {wanted} wanted for its {len(self)} particles, "
                f"found {array.shape}; they must belong to the same particles in the same order"
            )

    def _all_finite(self, names: tuple[str, ...], what: str) -> bool:
        """Return whether all rows are finite in all of `names`; refuse a mixture."""
        known = np.ones(len(self), bool)
        for name in names:
            values = np.isfinite(self.rows[name])
            known &= values.all(axis=tuple(range(1, values.ndim)))
        if known.all():
            return True
        if not known.any():
            return False
        raise InputError(
            f"{self.origin}: row {int(np.argmin(known))} (0-based) has no {what}, while row "
            f"{int(np.argmax(known))} has one ({int(known.sum())} of {len(self)} do); "
            "complete the file or select the rows with --ind"
        )
