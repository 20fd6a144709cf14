"""The metadata files of a simulated set: .star, .cs, poses.pkl and ctf.pkl.

Owns: which fields each program expects and in which unit. Does not own: the file formats
(`frazil.io`), the values (`sampling`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.geometry.rotations import to_cryosparc, to_relion_euler
from frazil.io.cryosparc import write_cs
from frazil.io.pickles import write_pickle
from frazil.io.star_writer import Columns, write_star
from frazil.simulate.images import Grid
from frazil.simulate.sampling import Draw

METADATA_NAMES = ("particles.star", "particles.cs", "poses.pkl", "ctf.pkl")


@dataclass(frozen=True)
class Stacks:
    """Which image of which stack each row is.

    Attributes
    ----------
    names : file names, relative to the folder of the data set.
    stack : (N,) number of the stack of each row.
    index : (N,) 0-based image of that stack.
    """

    names: tuple[str, ...]
    stack: NDArray[np.int64]
    index: NDArray[np.int64]

    def count(self, stack: int) -> int:
        """Return how many images a stack holds."""
        return int(np.count_nonzero(self.stack == stack))


def divide_into_stacks(count: int, stacks: int) -> Stacks:
    """Return N rows divided in order over stacks of nearly equal size."""
    sizes = [len(part) for part in np.array_split(np.empty(count, dtype=np.bool_), stacks)]
    digits = max(3, len(str(stacks - 1)))
    names = [f"particles_{i:0{digits}d}.mrcs" for i in range(stacks)]
    return Stacks(
        tuple(names) if stacks > 1 else ("particles.mrcs",),
        np.repeat(np.arange(stacks), sizes),
        np.concatenate([np.arange(size) for size in sizes]),
    )


def write_relion_star(
    path: Path,
    draw: Draw,
    grid: Grid,
    stacks: Stacks,
    order: NDArray[np.int64],
    with_ctf: bool,
) -> None:
    """Write a RELION 3.1 .star: optics table, poses, shifts in Angstrom, CTF, half sets.

    Parameters
    ----------
    path : file to write.
    draw, grid, stacks : the particles; `stacks` names are written as they are.
    order : (N,) stack row of each row of the .star.
    with_ctf : whether the images have a CTF.
    """
    ctf = draw.ctf[order]
    rot, tilt, psi = to_relion_euler(torch.from_numpy(draw.told_rotation[order]))
    shift_ang = draw.told_shift_px[order] * grid.pixel_size_ang
    groups = range(1, 2 + int(draw.optics_group.max()))
    columns: dict[str, Sequence[Any] | NDArray[Any]] = {
        "_rlnImageName": [
            f"{index + 1}@{stacks.names[stack]}"
            for stack, index in zip(stacks.stack[order], stacks.index[order], strict=True)
        ],
        "_rlnOpticsGroup": draw.optics_group[order] + 1,
        "_rlnAngleRot": rot.numpy().round(6),
        "_rlnAngleTilt": tilt.numpy().round(6),
        "_rlnAnglePsi": psi.numpy().round(6),
        "_rlnOriginXAngst": shift_ang[:, 0].round(6),
        "_rlnOriginYAngst": shift_ang[:, 1].round(6),
        "_rlnRandomSubset": draw.half_set[order],
    }
    if with_ctf:
        columns["_rlnDefocusU"] = ctf[:, 1].round(6)
        columns["_rlnDefocusV"] = ctf[:, 2].round(6)
        columns["_rlnDefocusAngle"] = ctf[:, 3].round(6)
        columns["_rlnPhaseShift"] = ctf[:, 7].round(6)
    optics: Columns = {
        "_rlnOpticsGroup": list(groups),
        "_rlnOpticsGroupName": [f"opticsGroup{group}" for group in groups],
        "_rlnVoltage": [ctf[0, 4]] * len(groups),
        "_rlnSphericalAberration": [ctf[0, 5]] * len(groups),
        "_rlnAmplitudeContrast": [ctf[0, 6]] * len(groups),
        "_rlnImagePixelSize": [ctf[0, 0]] * len(groups),
        "_rlnImageSize": [grid.box_px] * len(groups),
        "_rlnImageDimensionality": [2] * len(groups),
    }
    write_star(path, {"optics": optics, "particles": columns})


def write_cryosparc_cs(path: Path, draw: Draw, grid: Grid, stacks: Stacks, with_ctf: bool) -> None:
    """Write a cryoSPARC .cs with blob, alignments3D and, `with_ctf`, ctf fields."""
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = [
        ("uid", "<u8"),
        ("blob/path", f"S{max(map(len, stacks.names))}"),
        ("blob/idx", "<u4"),
        ("blob/shape", "<u4", (2,)),
        ("blob/psize_A", "<f4"),
        ("blob/sign", "<f4"),
        ("alignments3D/split", "<u4"),
        ("alignments3D/shift", "<f4", (2,)),
        ("alignments3D/pose", "<f4", (3,)),
        ("alignments3D/psize_A", "<f4"),
        ("alignments3D/alpha", "<f4"),
    ]
    ctf = {
        "ctf/df1_A": draw.ctf[:, 1],
        "ctf/df2_A": draw.ctf[:, 2],
        "ctf/df_angle_rad": np.radians(draw.ctf[:, 3]),
        "ctf/accel_kv": draw.ctf[:, 4],
        "ctf/cs_mm": draw.ctf[:, 5],
        "ctf/amp_contrast": draw.ctf[:, 6],
        "ctf/phase_shift_rad": np.radians(draw.ctf[:, 7]),
    }
    if with_ctf:
        fields += [("ctf/exp_group_id", "<u4"), *((name, "<f4") for name in ctf)]
    rows = np.zeros(len(draw), dtype=np.dtype(fields))
    rows["uid"] = draw.uid
    rows["blob/path"] = np.array(stacks.names, dtype="S")[stacks.stack]
    rows["blob/idx"] = stacks.index
    rows["blob/shape"] = grid.box_px
    rows["blob/psize_A"] = rows["alignments3D/psize_A"] = grid.pixel_size_ang
    rows["blob/sign"] = 1.0
    rows["alignments3D/split"] = draw.half_set - 1
    rows["alignments3D/shift"] = draw.told_shift_px
    rows["alignments3D/pose"] = to_cryosparc(torch.from_numpy(draw.told_rotation)).numpy()
    rows["alignments3D/alpha"] = draw.gain
    if with_ctf:
        rows["ctf/exp_group_id"] = draw.optics_group + 1
        for name, values in ctf.items():
            rows[name] = values
    write_cs(path, rows)


def write_cryodrgn_pickles(folder: Path, draw: Draw, grid: Grid, with_ctf: bool) -> list[str]:
    """Write poses.pkl (shifts as a fraction of the box) and, `with_ctf`, ctf.pkl; return names."""
    rotation = draw.told_rotation.astype(np.float32)
    translation = (draw.told_shift_px / grid.box_px).astype(np.float32)
    write_pickle(folder / "poses.pkl", (rotation, translation))
    if not with_ctf:
        return ["poses.pkl"]
    box = np.full((len(draw), 1), grid.box_px)
    write_pickle(folder / "ctf.pkl", np.concatenate([box, draw.ctf], axis=1).astype(np.float32))
    return ["poses.pkl", "ctf.pkl"]
