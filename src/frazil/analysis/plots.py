"""Figures of an analysis, in one style.

Owns: how things are drawn. Every function returns a figure and touches neither files nor global
state; `save_figure` writes one, `png_bytes` gives it to the report. Does not own: the numbers.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from frazil.io.atomic import atomic_path

STYLE: Any = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#667085",
    "axes.labelcolor": "#344054",
    "xtick.color": "#667085",
    "ytick.color": "#667085",
    "axes.grid": False,
    "legend.frameon": False,
}
INK, ACCENT, SECOND = "#1d2939", "#1570ef", "#e04f16"
# From this many points on, density is drawn instead of dots.
_HEXBIN_FROM = 20_000


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(png_bytes(figure))


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def embedding_figure(
    points: NDArray[Any],
    names: tuple[str, str],
    title: str,
    labels: NDArray[Any] | None = None,
    centres: NDArray[np.int64] | None = None,
) -> Figure:
    """Return the picture of latents at points (n, 2), or a histogram of points (n, 1).

    Parameters
    ----------
    names : what the axes are.
    labels : (n,) cluster of each point, shown as colour while there are few enough points; larger
        sets are shown as density.
    centres : (K,) points that stand for the clusters; they are marked and numbered from 1.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 5.0), layout="constrained")
        axes = figure.add_subplot()
        if points.shape[1] == 1:
            axes.hist(points[:, 0], bins=60, color=ACCENT)
            axes.set(xlabel=names[0], ylabel="particles", title=title)
            return figure
        if len(points) >= _HEXBIN_FROM:
            _draw_density(figure, axes, points)
        else:
            _draw_dots(axes, points, labels)
        if centres is not None:
            _mark(axes, points[centres])
        axes.set(xlabel=names[0], ylabel=names[1], title=title)
        return figure


def learning_figure(
    intervals: Sequence[Mapping[str, float]], epochs: Sequence[Mapping[str, float]]
) -> Figure:
    """Return reconstruction loss and KL divergence over the epochs.

    Parameters
    ----------
    intervals : points within epochs: keys "at" (epochs done, a fraction), "gen_loss", "kld".
    epochs : means of whole epochs, the same keys.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.2), layout="constrained")
        panels = figure.subplots(1, 2)
        names = (("gen_loss", "reconstruction loss"), ("kld", "KL divergence"))
        for axes, (key, title) in zip(panels, names, strict=True):
            at = [point["at"] for point in intervals]
            axes.plot(at, [point[key] for point in intervals], color="#b2ccff", lw=1)
            at = [point["at"] for point in epochs]
            means = [point[key] for point in epochs]
            axes.plot(
                at,
                means,
                "o-",
                color=ACCENT,
                ms=3.5,
                lw=1.5,
                label="mean of each epoch, at its middle",
            )
            _focus(axes, means)
            axes.set(xlabel="epochs", title=title)
            axes.set_xlim(0, max((int(point["at"]) + 1 for point in epochs), default=1))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(5))
        panels[0].legend(loc="upper right")
        return figure


def fsc_figure(
    curves: Mapping[str, NDArray[Any]], box_px: int, pixel_size_ang: float, title: str
) -> Figure:
    """Return FSC curves (S,) over spatial frequency, resolution in Angstrom on the ticks."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for (name, curve), colour in zip(
            curves.items(), (ACCENT, SECOND, "#099250", "#7839ee") * 8, strict=False
        ):
            frequency = np.arange(len(curve)) / (box_px * pixel_size_ang)
            axes.plot(frequency, curve, color=colour, lw=1.6, label=name)
        for threshold in (0.5, 0.143):
            axes.axhline(threshold, color="#98a2b3", lw=0.8, ls="--")
            axes.annotate(
                f"{threshold:g}",
                (1.0, threshold),
                xycoords=("axes fraction", "data"),
                xytext=(2, 0),
                textcoords="offset points",
                va="center",
                color="#667085",
            )
        axes.set(xlabel="resolution (Å)", ylabel="FSC", title=title, ylim=(-0.1, 1.05))
        axes.set_xlim(0, 0.5 / pixel_size_ang)
        axes.xaxis.set_major_formatter(FuncFormatter(_as_resolution))
        if len(curves) > 1:
            axes.legend(loc="lower left")
        return figure


def component_figure(
    power_ratio: Sequence[float], agreement: Sequence[float], threshold: float
) -> Figure:
    """Return bars of the power (K,) of components, and of the agreement (K,) of two half sets."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        number = np.arange(1, len(power_ratio) + 1)
        left.bar(number, power_ratio, color=ACCENT)
        left.set(xlabel="component", title="power, relative to the mean's")
        colours = [ACCENT if value > threshold else "#98a2b3" for value in agreement]
        right.bar(number, agreement, color=colours)
        right.axhline(threshold, color="#667085", lw=0.8, ls="--")
        right.set(xlabel="direction", ylim=(0, 1), title="correlation of the half sets")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


def pose_figure(rotations: NDArray[np.float32]) -> Figure:
    """Return the density of viewing directions of rotations (n, 3, 3) on an equal-area map.

    The viewing direction is the third row of R, the model direction that points along the beam.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        draw_views(figure, figure.add_subplot(), rotations)
        return figure


def draw_views(figure: Figure, axes: Axes, rotations: NDArray[np.float32]) -> None:
    """Draw what `pose_figure` shows into axes."""
    x, y, z = rotations[:, 2, :].T
    longitude = np.degrees(np.arctan2(y, x))
    bins = int(np.clip(np.sqrt(len(x)) / 4, 8, 72))
    edges = (np.linspace(-180, 180, 2 * bins + 1), np.linspace(-1, 1, bins + 1))
    counts = np.histogram2d(longitude, z, bins=edges)[0].T
    image = axes.pcolormesh(*edges, counts, cmap="viridis", vmin=0, rasterized=True)
    axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
    axes.set_title("viewing directions (equal area)")
    ticks = (-90, -45, -20, 0, 20, 45, 90)
    axes.set_yticks([float(np.sin(np.radians(t))) for t in ticks], [str(t) for t in ticks])
    axes.set_xticks(range(-180, 181, 60))
    figure.colorbar(image, ax=axes, label="particles", pad=0.01)


def _draw_density(figure: Figure, axes: Axes, points: NDArray[Any]) -> None:
    cells = axes.hexbin(points[:, 0], points[:, 1], gridsize=70, bins="log", cmap="Blues", mincnt=1)
    figure.colorbar(cells, ax=axes, label="particles per cell", pad=0.01, shrink=0.8)


def _draw_dots(axes: Axes, points: NDArray[Any], labels: NDArray[Any] | None) -> None:
    size = float(np.clip(6000 / max(len(points), 1), 1.5, 14))
    colour: Any = ACCENT
    if labels is not None:
        # Clusters are numbered so that neighbours follow each other: so do their colours.
        count = int(labels.max()) + 1
        colour = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count))[labels]
    axes.scatter(points[:, 0], points[:, 1], s=size, c=colour, linewidths=0, alpha=0.55)


def _mark(axes: Axes, points: NDArray[Any]) -> None:
    """Mark and number points (K, 2) from 1."""
    axes.scatter(points[:, 0], points[:, 1], s=26, c="white", edgecolors=INK, linewidths=1.2)
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="white")]
    for number, point in enumerate(points, start=1):
        text = axes.annotate(
            str(number),
            (float(point[0]), float(point[1])),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=9,
            fontweight="bold",
            color=INK,
        )
        text.set_path_effects(outline)


def _focus(axes: Axes, means: Sequence[float]) -> None:
    """Fit the vertical axis to the means of epochs, with a margin; the first steps are cut off."""
    if len(means) < 2:
        return
    low, high = min(means), max(means)
    margin = 0.15 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _as_resolution(frequency: float, _position: int) -> str:
    return "∞" if frequency <= 0 else f"{1 / frequency:.3g}"
