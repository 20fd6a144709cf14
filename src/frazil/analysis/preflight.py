"""Preflight as files: its report and figure in the folder of a store, and as lines of a log.

Owns: where a report is kept, when it is made anew, the figure. Does not own: the check
(`frazil.engines.preflight`).

A store's own files stay as they are: preflight.json and preflight.png lie beside them, and nothing
else reads them.
"""

import errno
import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib
import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from frazil.analysis.plots import ACCENT, SECOND, STYLE, draw_views, save_figure
from frazil.engines.preflight.report import REPORT_VERSION, Report
from frazil.engines.preflight.run import (
    FEWEST_PARTICLES,
    SMALLEST_BOX_PX,
    Preflight,
    preflight,
    report_key,
)
from frazil.engines.preflight.search import SIGNIFICANT
from frazil.engines.preflight.settings import PreflightSettings
from frazil.errors import InputError
from frazil.io.atomic import write_bytes_atomic
from frazil.loader.prefetch import ParticleLoader
from frazil.store.reader import ParticleStore
from frazil.store.records import ParticleRecords

REPORT_NAME, FIGURE_NAME = "preflight.json", "preflight.png"
_LINE_CHARACTERS = 62
_NOT_WRITABLE = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


def show_preflight(
    store: ParticleRecords,
    say: Callable[[str], None],
    selected: NDArray[np.int64] | None = None,
    memory_bytes: int | None = None,
) -> None:
    """Say the report of what is about to be used; what forbids one is said, and is no error.

    Parameters
    ----------
    selected : (m,) rows that will be used; None: all.
    memory_bytes : ceiling of memory.
    """
    if not isinstance(store, ParticleStore):
        say("preflight: left out, as these particles are not packed")
        return
    try:
        report = checked(store, PreflightSettings(), selected, memory_bytes, say)
    except InputError as error:
        say(f"preflight: left out ({error})")
        return
    for line in report.lines():
        say(line)


def used_rows(loader: ParticleLoader) -> NDArray[np.int64] | None:
    """Return the rows (m,) of a loader; None when these are all that can be used."""
    if loader.row_count + sum(loader.excluded.values()) == loader.store.count:
        return None
    return loader.columns.rows.numpy()


def checked(
    store: ParticleStore,
    settings: PreflightSettings,
    selected: NDArray[np.int64] | None = None,
    memory_bytes: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Return the report of a store: the one in its folder while nothing has changed, or a new one.

    Raises
    ------
    InputError : too few particles, too small a box, or a row without a pose.
    CorruptDataError : a shard is damaged.
    """
    kept = kept_report(store, settings, selected)
    if kept is not None:
        return kept
    count = store.count if selected is None else len(selected)
    if count < FEWEST_PARTICLES or store.box_px < SMALLEST_BOX_PX:
        raise InputError(
            f"{store.path}: {count} particles of {store.box_px} px, at least {FEWEST_PARTICLES} of "
            f"{SMALLEST_BOX_PX} px are needed to tell anything"
        )
    if say is not None:
        say("preflight: back-projects a sample (seconds; --no-preflight leaves it out)")
    found = preflight(store, settings, selected, memory_bytes)
    try:
        write_preflight(found, store.path)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        if say is not None:
            say(f"preflight: {store.path} cannot be written, so the report is not kept")
    return found.report


def kept_report(
    store: ParticleStore, settings: PreflightSettings, selected: NDArray[np.int64] | None
) -> Report | None:
    """Return the report in a store's folder; None when there is none, or one of something else."""
    try:
        found = msgspec.json.decode((store.path / REPORT_NAME).read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError):
        return None
    fits = found.version == REPORT_VERSION and found.key == report_key(store, settings, selected)
    return found if fits else None


def write_preflight(found: Preflight, folder: Path) -> None:
    """Write figure and report into a folder, the report last."""
    save_figure(preflight_figure(found), folder / FIGURE_NAME)
    text = msgspec.json.format(msgspec.json.encode(found.report), indent=1)
    write_bytes_atomic(folder / REPORT_NAME, text + b"\n")


def preflight_figure(found: Preflight) -> Figure:
    """Return FSC, map, viewing directions, spectra of the optics groups, and the alternatives."""
    report = found.report
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.5, 7.2), layout="constrained")
        panels = figure.subplots(2, 3)
        _draw_fsc(panels[0, 0], report)
        _draw_map(panels[0, 1], found.volume)
        draw_views(figure, panels[0, 2], found.sample.rotations.numpy())
        panels[0, 2].set_title(f"viewing directions, efficiency {report.efficiency:.2f}")
        _draw_spectra(panels[1, 0], found)
        _draw_trials(panels[1, 1], report)
        panels[1, 2].axis("off")
        panels[1, 2].text(0, 1, _text(report), va="top", fontsize=8)
        return figure


def _draw_fsc(axes: Axes, report: Report) -> None:
    shells = np.arange(len(report.fsc))
    axes.plot(shells, report.fsc, color=ACCENT)
    axes.axhline(0.143, color="#98a2b3", lw=0.8, ls="--")
    unit = "px" if report.pixel_size_ang is None else "A"
    title = f"FSC of half maps: {report.resolution_ang:.3g} {unit}"
    axes.set(xlabel="cycles per box", ylim=(-0.1, 1.05), title=title)


def _draw_map(axes: Axes, volume: NDArray[np.float32]) -> None:
    middle = volume.shape[0] // 2
    slices = [volume[middle], volume[:, middle], volume[:, :, middle]]
    projection = volume.mean(0) * np.ptp(slices[0]) / max(float(np.ptp(volume.mean(0))), 1e-20)
    rows = [np.concatenate(pair, axis=1) for pair in ((slices[2], projection), slices[:2])]
    axes.imshow(np.concatenate(rows), cmap="gray", origin="lower")
    axes.set(title="map: slices xy, xz, yz; projection", xticks=[], yticks=[])


def _draw_spectra(axes: Axes, found: Preflight) -> None:
    """Draw the RMS of |F| of each optics group over the shells of the store's box."""
    for number, (name, rms) in enumerate(found.group_rms.items()):
        colour = matplotlib.colormaps["viridis"](number / max(len(found.group_rms), 1))
        axes.semilogy(np.arange(1, len(rms) + 1), rms, color=colour, lw=1, label=name)
    axes.set(xlabel="cycles per box", title="RMS of |F|, by optics group")
    if 1 < len(found.group_rms) <= 8:
        axes.legend(fontsize=8)


def _draw_trials(axes: Axes, report: Report) -> None:
    """Draw how each alternative compares with what is given; to the right of the line it wins."""
    names = [trial.name for trial in report.trials]
    sigmas = [trial.sigmas for trial in report.trials]
    colours = [SECOND if value > SIGNIFICANT else ACCENT for value in sigmas]
    axes.barh(names, sigmas, color=colours)
    axes.axvline(SIGNIFICANT, color="#667085", lw=0.8, ls="--")
    axes.set_xscale("symlog", linthresh=10)
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="sigma better than what is given", title="alternatives")


def _text(report: Report) -> str:
    """Return the findings as a paragraph each."""
    lines = [line.removeprefix("preflight: ") for line in report.lines()]
    return "\n\n".join(textwrap.fill(line, _LINE_CHARACTERS) for line in lines)
