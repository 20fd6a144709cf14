"""A RELION STAR file made from a particle table.

Owns: which columns RELION 3.0 and 3.1 want, in which unit, and the optics groups. Does not own: the
format (`star_writer`), reading (`star`), or where the table comes from (`star_input`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.geometry.rotations import to_relion_euler
from frazil.io.particles import ParticleTable
from frazil.io.star_writer import Columns

_MAGNIFICATION = 10000.0
_OPTICS = {
    "_rlnVoltage": "voltage_kv",
    "_rlnSphericalAberration": "cs_mm",
    "_rlnAmplitudeContrast": "amplitude_contrast",
}
_DEFOCUS = {
    "_rlnDefocusU": "defocus_u_ang",
    "_rlnDefocusV": "defocus_v_ang",
    "_rlnDefocusAngle": "astigmatism_deg",
    "_rlnPhaseShift": "phase_shift_deg",
}
_POSES = ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")
_SHIFTS_PX = ("_rlnOriginX", "_rlnOriginY")
_SHIFTS_ANG = ("_rlnOriginXAngst", "_rlnOriginYAngst")
MADE = frozenset(
    (
        *("_rlnImageName", "_rlnOpticsGroup", "_rlnOpticsGroupName", "_rlnRandomSubset"),
        *("_rlnImagePixelSize", "_rlnPixelSize", "_rlnMagnification", "_rlnDetectorPixelSize"),
        *("_rlnImageSize", "_rlnImageDimensionality", "_rlnCtfDataAreCtfPremultiplied"),
        *(*_OPTICS, *_DEFOCUS, *_POSES, *_SHIFTS_PX, *_SHIFTS_ANG),
    )
)
"""Columns that `star_blocks` makes from the table, so that none is kept beside them."""


def star_blocks(
    table: ParticleTable,
    names: Sequence[str],
    kept: Mapping[str, Sequence[str]],
    relion30: bool = False,
) -> dict[str, Columns]:
    """Return the tables of a STAR file by name, for `write_star`.

    What the table does not know (poses, shifts, CTF, half sets) has no column. RELION 3.1 has
    shifts in A and an optics table, one group per combination of pixel size, voltage, Cs, amplitude
    contrast and optics group of the table. RELION 3.0 has shifts in pixels and all of it per row.

    Parameters
    ----------
    table : N particles, with pixel size.
    names : (N,) image names, "index@stack".
    kept : further columns of text, (N,) each.
    """
    rows = table.rows
    columns: dict[str, Sequence[Any] | NDArray[Any]] = {"_rlnImageName": list(names), **kept}
    columns.update(_known(rows, _DEFOCUS))
    columns.update(_poses(table, relion30))
    if np.isin(rows["half_set"], (1, 2)).all():
        columns["_rlnRandomSubset"] = rows["half_set"].astype(np.int64)
    pixel_size_ang = rows["pixel_size_ang"].astype(np.float32)
    if relion30:
        columns.update(_known(rows, _OPTICS))
        columns["_rlnMagnification"] = np.full(len(rows), _MAGNIFICATION)
        columns["_rlnDetectorPixelSize"] = pixel_size_ang  # um: 1e4 A over the magnification
        return {"": columns}
    first, columns["_rlnOpticsGroup"] = _groups(rows, pixel_size_ang)
    optics: dict[str, Sequence[Any] | NDArray[Any]] = {
        "_rlnOpticsGroup": np.arange(1, len(first) + 1),
        "_rlnOpticsGroupName": [f"opticsGroup{n}" for n in range(1, len(first) + 1)],
        **_known(rows[first], _OPTICS),
        "_rlnImagePixelSize": pixel_size_ang[first],
        "_rlnImageDimensionality": np.full(len(first), 2),
    }
    if table.box_px is not None:
        optics["_rlnImageSize"] = np.full(len(first), table.box_px)
    return {"optics": optics, "particles": columns}


def _known(rows: NDArray[np.void], labels: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Return label -> values of those columns that are known in every row."""
    return {label: rows[name] for label, name in labels.items() if np.isfinite(rows[name]).all()}


def _poses(table: ParticleTable, relion30: bool) -> dict[str, NDArray[Any]]:
    """Return the columns of angles (deg) and shifts, where they are known."""
    columns: dict[str, NDArray[Any]] = {}
    if table.has_pose:
        angles = to_relion_euler(torch.from_numpy(table.rows["rotation"].astype(np.float64)))
        columns |= {label: a.numpy().round(6) for label, a in zip(_POSES, angles, strict=True)}
    if table.has_shift:
        shift = table.rows["shift_ang"].astype(np.float64)
        if relion30:
            shift = shift / table.rows["pixel_size_ang"][:, None]
        labels = _SHIFTS_PX if relion30 else _SHIFTS_ANG
        columns |= {label: shift[:, place].round(6) for place, label in enumerate(labels)}
    return columns


def _groups(
    rows: NDArray[np.void], pixel_size_ang: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a row of each optics group, and each row's group (from 1), in order of appearance."""
    keys = [rows[name] for name in (*_OPTICS.values(), "optics_group")]
    table = np.stack([np.nan_to_num(key.astype(np.float64)) for key in (*keys, pixel_size_ang)], 1)
    _, first, of_row = np.unique(table, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[of_row.reshape(-1)] + 1
