"""Columns of particles that their files hold: those of a table, of a .cs and of a .star.

Owns: the names by which they are asked for. Does not own: files (`frazil.io`), columns of runs
(`frazil.analysis.run_columns`), what is asked (`frazil.analysis.expression`).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.analysis.expression import Column, Words
from frazil.geometry.rotations import to_relion_euler
from frazil.io.cryosparc_join import CsColumns
from frazil.io.particles import FLAGS, ParticleTable
from frazil.io.star import StarTable, read_star

_PLAIN = (
    "uid",
    "index",
    "pixel_size_ang",
    "defocus_u_ang",
    "defocus_v_ang",
    "astigmatism_deg",
    "voltage_kv",
    "cs_mm",
    "amplitude_contrast",
    "phase_shift_deg",
    "half_set",
    "image_gain",
    "flags",
)
_ANGLES = ("rot_deg", "tilt_deg", "psi_deg")
_SHIFTS = ("shift_x_ang", "shift_y_ang")
TABLE_NAMES = ("row", *_PLAIN, "defocus_ang", *_SHIFTS, *_ANGLES, "source", "optics_group", "group")


class TableColumns:
    """Columns of a particle table, whose rows may be mapped from a file: each is copied when asked.

    Parameters
    ----------
    rows : (N,) of PARTICLE_DTYPE.
    texts : what the columns source, optics_group and group mean.
    """

    def __init__(self, rows: NDArray[np.void], texts: dict[str, tuple[str, ...]]) -> None:
        self.rows = rows
        self.texts = texts

    def names(self) -> list[str]:
        """Return all names, whether the values are known or not."""
        return [*TABLE_NAMES, *FLAGS]

    def get(self, name: str) -> Column | None:
        """Return a column (N,); None when there is none of this name."""
        if name == "row":
            return np.arange(len(self.rows))
        if name in self.texts:
            return Words(np.array(self.rows[name]), self.texts[name])
        if name in _PLAIN:
            return np.array(self.rows[name])
        if name in FLAGS:
            return (np.array(self.rows["flags"]) & FLAGS[name]) != 0
        if name == "defocus_ang":
            u, v = (np.array(self.rows[f"defocus_{axis}_ang"], np.float64) for axis in "uv")
            return (u + v) / 2
        if name in _SHIFTS:
            return np.array(self.rows["shift_ang"][:, _SHIFTS.index(name)])
        if name in _ANGLES:
            rotation = torch.from_numpy(np.array(self.rows["rotation"]))
            return to_relion_euler(rotation)[_ANGLES.index(name)].numpy()
        return None


class LazyTable:
    """Columns of a table that is read when the first of them is asked for."""

    def __init__(self, read: Callable[[], ParticleTable]) -> None:
        self._read = read
        self._columns: TableColumns | None = None

    @property
    def columns(self) -> TableColumns:
        """The columns; reads the table."""
        if self._columns is None:
            self._columns = of_table(self._read())
        return self._columns

    def names(self) -> list[str]:
        """Return all names."""
        return [*TABLE_NAMES, *FLAGS]

    def get(self, name: str) -> Column | None:
        """Return a column (N,); None when there is none of this name."""
        return self.columns.get(name) if name in self.names() else None


def of_table(table: ParticleTable) -> TableColumns:
    """Return the columns of a table."""
    return TableColumns(
        table.rows,
        {
            "source": table.sources,
            "optics_group": table.optics_groups,
            "group": table.groups,
        },
    )


class CsNative:
    """Fields of a .cs and its passthroughs by their own names."""

    def __init__(self, columns: CsColumns) -> None:
        self._columns = columns

    def names(self) -> list[str]:
        """Return the names of all fields."""
        return list(self._columns.names)

    def get(self, name: str) -> Column | None:
        """Return a field (N,) or (N, k); None when there is none of this name."""
        if name not in self._columns.names:
            return None
        values = self._columns.get(name)
        return None if values is None else as_column(values)


class StarNative:
    """Columns of the particles of a STAR file by their labels, with or without underscore."""

    def __init__(self, path: Path) -> None:
        self._table: StarTable = read_star(path).particles

    def names(self) -> list[str]:
        """Return the labels."""
        return list(self._table.names)

    def get(self, name: str) -> Column | None:
        """Return a column (N,): numbers if the first value is one, else text."""
        if name not in self._table:
            return None
        first = next(self._table.iterate(name), "0")
        try:
            float(first)
        except ValueError:
            return coded(self._table.iterate(name))
        return self._table.numbers([name])[:, 0]


def as_column(values: NDArray[Any]) -> Column:
    """Return an array as a column: texts become words."""
    if values.dtype.kind not in "SU":
        return values
    distinct, codes = np.unique(values, return_inverse=True)
    texts = [
        t.decode("utf-8", "surrogateescape") if isinstance(t, bytes) else str(t)
        for t in distinct.tolist()
    ]
    return Words(codes.astype(np.int32), tuple(texts))


def coded(texts: Iterable[str]) -> Words:
    """Return texts, one per row, as words."""
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(text, len(numbers)) for text in texts]
    return Words(np.array(codes, np.int32), tuple(numbers))
