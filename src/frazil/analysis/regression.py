"""Maps by regression as files.

Owns: names and formats of maps, half maps, their FSC and what was chosen for them. Does not own:
the maps (`frazil.engines.regression`), what is done to a volume (`volumes`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.analysis.consensus import fsc_text, resolutions
from frazil.analysis.settings import VolumeSettings
from frazil.analysis.volumes import (
    TrainedGrid,
    check_latent_points,
    check_volume_settings,
    evaluate_volume,
    volumes_need,
    write_z_values,
    written_pixel_size_ang,
)
from frazil.engines.particles import Say
from frazil.engines.regression.maps import PointMap
from frazil.engines.regression.regress import neighbourhood, regress
from frazil.engines.regression.settings import RegressionSettings
from frazil.engines.regression.source import Source
from frazil.io.atomic import write_text_atomic
from frazil.io.mrc_writer import write_volume
from frazil.models.linear import LinearModel
from frazil.store.budget import allowance

# What is written beside NAME.mrc.
_ENDINGS = ("_half_a.mrc", "_half_b.mrc", "_fsc.txt", ".json")

# A shell whose residual holds less signal than this is said to add nothing.
_SHARE = 0.05


def beside(path: Path) -> list[Path]:
    """Return the files that belong to a map NAME.mrc."""
    return [path.with_name(path.stem + ending) for ending in _ENDINGS]


def write_regression(
    source: Source,
    points: NDArray[np.float32],
    origin: str,
    paths: list[Path],
    volume_settings: VolumeSettings,
    settings: RegressionSettings,
    say: Say,
    many: bool,
) -> None:
    """Write the map at each point (T, Z), its half maps, FSC and facts, as they are found.

    Parameters
    ----------
    origin : the flag that the points came from.
    paths : NAME.mrc of each point.
    many : they are in a folder of their own, which gets z_values.txt.

    Raises
    ------
    InputError : a point of another dimension, or without particles near it.
    BudgetError : memory or disk is too small.
    """
    memory = allowance(settings.memory)
    check_latent_points(points, source.latents.shape[1], origin)
    grid = TrainedGrid(source.box_px, source.pixel_size_ang, source.norm_scale)
    check_volume_settings(grid, volume_settings)
    around = neighbourhood(source, points, settings.min_particles)
    folder = paths[0].parent
    written = volumes_need(3 * len(paths), grid, volume_settings, folder)
    say(written.line())
    written.check()
    found = regress(source, points, around.sizes, memory, settings.max_threads, say)
    for number, (one, path) in enumerate(zip(found, paths, strict=True)):
        if many and not number:
            folder.mkdir(parents=True, exist_ok=True)
        facts = describe(one, points[number], int(around.near[number]), around.sizes, grid)
        write_map(one, path, facts, grid, volume_settings)
        say(_line(path, facts))
    if many:
        write_z_values(folder / "z_values.txt", points)


def write_map(
    one: PointMap, path: Path, facts: dict[str, Any], grid: TrainedGrid, settings: VolumeSettings
) -> None:
    """Write a map NAME.mrc and what belongs to it; NAME.json last, so what has it is whole."""
    half_a, half_b, curve, described = beside(path)
    described.unlink(missing_ok=True)
    for name, volume in ((half_a, one.halves[0]), (half_b, one.halves[1]), (path, one.volume)):
        data = evaluate_volume(LinearModel(volume[None]), torch.zeros(0), grid, settings)
        write_volume(name, data, written_pixel_size_ang(grid, settings))
    write_text_atomic(curve, fsc_text(one.curve, grid.box_px, grid.pixel_size_ang or 1.0))
    write_text_atomic(described, json.dumps(facts, indent=1) + "\n")


def describe(
    one: PointMap,
    point: NDArray[np.float32],
    near: int,
    sizes: NDArray[np.int64],
    grid: TrainedGrid,
) -> dict[str, Any]:
    """Return what is known of a map, for its .json.

    Parameters
    ----------
    near : particles near the point; `sizes` (J,) images in each ball.
    """
    return {
        "point": [float(value) for value in point],
        "particles_near": near,
        "balls": sizes.tolist(),
        "images_by_shell": sizes[one.ball[1:]].tolist(),
        "signal_share_by_shell": [round(float(value), 4) for value in one.share[1:]],
        "resolution_ang": resolutions(one.curve, grid.box_px, grid.pixel_size_ang or 1.0),
    }


def _line(path: Path, facts: dict[str, Any]) -> str:
    used = [
        images
        for images, share in zip(
            facts["images_by_shell"], facts["signal_share_by_shell"], strict=True
        )
        if share >= _SHARE
    ]
    made = f"the nearest {min(used)} to {max(used)} add to it" if used else "none adds to the base"
    return (
        f"{path.name}: {facts['particles_near']} particles near, {made}; half maps agree (FSC "
        f"0.143) to {facts['resolution_ang']['0.143']:.3g} A"
    )
