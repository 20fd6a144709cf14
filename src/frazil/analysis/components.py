"""Plots of a linear model: FSC of the half sets, power of the components, their latents.

Owns: what is drawn, and the names of the files. Does not own: the figures measured
(`frazil.engines.pca.outputs`).
"""

from pathlib import Path

import numpy as np

from frazil.analysis import plots
from frazil.engines.pca.outputs import REAL_CORRELATION, Reliability

SHOWN_CURVES = 4


def write_plots(table: Reliability, box_px: int, pixel_size_ang: float, folder: Path) -> list[Path]:
    """Write fsc.png and eigenvalues.png into a run folder; return their paths."""
    curves = {"mean": np.asarray(table.fsc_consensus)}
    curves |= {
        f"component {k}": np.asarray(curve)
        for k, curve in enumerate(table.fsc_components[: SHOWN_CURVES - 1], start=1)
    }
    title = "independent half sets, within the mask"
    paths = [folder / "fsc.png", folder / "eigenvalues.png"]
    plots.save_figure(plots.fsc_figure(curves, box_px, pixel_size_ang, title), paths[0])
    figure = plots.component_figure(table.power_ratio, table.canonical, REAL_CORRELATION)
    plots.save_figure(figure, paths[1])
    return paths
