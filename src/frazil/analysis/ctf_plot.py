"""A plot of one particle's CTF.

Owns: the picture. Does not own: the formula (`frazil.geometry.ctf`).
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.geometry.ctf import ctf
from frazil.io.atomic import atomic_path

_POINTS = 2000


def plot_ctf(path: Path, parameters: NDArray[np.float32]) -> None:
    """Write a PNG of the CTF from zero to Nyquist, along the axes of defocus U and V.

    Parameters
    ----------
    path : the picture; its folder is made when absent.
    parameters : (9,) one row of a ctf.pkl.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    box_px, pixel_size_ang = int(parameters[0]), float(parameters[1])
    radius = torch.linspace(0, box_px / 2, _POINTS, dtype=torch.float64)
    per_ang = (radius / (box_px * pixel_size_ang)).numpy()
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(0, color="0.7", linewidth=0.8)
    columns = torch.from_numpy(parameters[1:].astype(np.float64))[None]
    names = (("U", 0.0, parameters[2], "C0"), ("V", 90.0, parameters[3], "C1"))
    for name, turn_deg, defocus_ang, colour in names:
        angle = np.deg2rad(float(parameters[4]) + turn_deg)
        values = ctf(radius * np.cos(angle), radius * np.sin(angle), columns, box_px)[0]
        label = f"along defocus {name} ({defocus_ang / 1e4:.3f} um)"
        axes.plot(per_ang, values.numpy(), color=colour, linewidth=0.9, label=label)
    axes.set_xlim(0, per_ang[-1])
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel("spatial frequency (1/A)")
    axes.set_ylabel("CTF")
    ticks = axes.get_xticks()[1:]
    above = axes.secondary_xaxis("top")
    above.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    above.set_xlabel("resolution (A)")
    axes.set_title(
        f"particle 0: {parameters[5]:g} kV, Cs {parameters[6]:g} mm, amplitude contrast "
        f"{parameters[7]:g}, phase shift {parameters[8]:g} deg",
        fontsize=9,
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
