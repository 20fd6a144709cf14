"""A consensus map and its FSC as files.

Owns: the names and formats of what back-projection writes, and FSC curves as text. Does not own:
the map (`frazil.engines.backproject`), the curve (`frazil.metrics.fsc`).
"""

import json
from pathlib import Path
from typing import Any

import torch

from frazil.analysis.plots import fsc_figure, pose_figure, save_figure
from frazil.engines.backproject import Reconstruction
from frazil.io.atomic import write_text_atomic
from frazil.io.mrc_writer import write_volume
from frazil.metrics.fsc import fsc, resolution_at, shell_resolution_ang

THRESHOLDS = (0.5, 0.143)


def write_consensus(
    result: Reconstruction,
    pixel_size_ang: float,
    out: Path,
    facts: dict[str, Any],
    rotations: torch.Tensor,
    with_fsc: bool = True,
) -> list[str]:
    """Write map, half maps, their FSC, plots and backproject.json; return lines to say.

    Parameters
    ----------
    result : the maps; without half maps there is no FSC either.
    pixel_size_ang : for the headers and the resolutions, A.
    out : folder, which exists. backproject.json is written last.
    facts : what else belongs into backproject.json.
    rotations : (n, 3, 3) that were used; their viewing directions are drawn into poses.png.
    with_fsc : compare the half maps.
    """
    named = dict(zip(("half_map_a.mrc", "half_map_b.mrc"), result.halves, strict=False))
    named["backproject.mrc"] = result.volume
    for name, volume in named.items():
        write_volume(out / name, volume.numpy(), pixel_size_ang)
    lines = [f"wrote {', '.join(named)}"]
    facts = {**facts, "particles": list(result.counts), "pixel_size_ang": pixel_size_ang}
    if with_fsc and result.halves:
        curve = fsc(*result.halves)
        box_px = result.volume.shape[-1]
        facts["resolution_ang"] = resolutions(curve, box_px, pixel_size_ang)
        write_text_atomic(out / "fsc-vals.txt", fsc_text(curve, box_px, pixel_size_ang))
        figure = fsc_figure(
            {"half maps": curve.numpy()}, box_px, pixel_size_ang, "half maps, unmasked"
        )
        save_figure(figure, out / "fsc-plot.png")
        lines += resolution_lines(curve, box_px, pixel_size_ang)
    save_figure(pose_figure(rotations.numpy()), out / "poses.png")
    write_text_atomic(out / "backproject.json", json.dumps(facts, indent=1) + "\n")
    return lines


def fsc_text(curve: torch.Tensor, box_px: int, pixel_size_ang: float) -> str:
    """Return a curve (S,) as text: shell, resolution (A), FSC; numpy.loadtxt reads it."""
    rows = [
        f"{shell} {shell_resolution_ang(shell, box_px, pixel_size_ang):.4f} {value:.6f}"
        for shell, value in enumerate(curve.tolist())
    ]
    return "\n".join(["# shell resolution_ang fsc", *rows]) + "\n"


def resolutions(curve: torch.Tensor, box_px: int, pixel_size_ang: float) -> dict[str, float]:
    """Return the resolution (A) at each threshold, by the threshold's name."""
    return {f"{t:g}": resolution_at(curve, t, box_px, pixel_size_ang) for t in THRESHOLDS}


def resolution_lines(curve: torch.Tensor, box_px: int, pixel_size_ang: float) -> list[str]:
    """Return one line per threshold; a curve that stays above it is said to reach Nyquist."""
    lines = []
    for name, value in resolutions(curve, box_px, pixel_size_ang).items():
        above = bool((curve[1:] >= float(name)).all())
        note = " (Nyquist: the curve stays above)" if above else ""
        lines.append(f"resolution at FSC={name}: {value:.3f} A{note}")
    return lines
