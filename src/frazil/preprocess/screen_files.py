"""The list of flagged images in a store: screen.tsv for machines and people, screen.png to look at.

Owns: their content and order. Does not own: the flags (`blocks`, `screening`).
"""

import io
from pathlib import Path

import numpy as np

from frazil.geometry.packing import half_disc, to_real_space
from frazil.io.atomic import write_bytes_atomic, write_text_atomic
from frazil.io.particles import FLAG_CONSTANT, FLAG_LEFT_OUT, FLAG_NONFINITE, FLAGS
from frazil.preprocess.prepared import PreparedImages
from frazil.preprocess.screening import Screening
from frazil.store.reader import ParticleStore

LIST_NAME, SHEET_NAME = "screen.tsv", "screen.png"
COLUMNS = ("row", "rows", "uid", "stack", "index", "optics_group", "flags", "score", "why")
SHEET_IMAGES, SHEET_COLUMNS = 100, 10
_TILE_PX = 128
_GREY_STD = 4.0


def write_screen_files(
    folder: Path, store: ParticleStore, prepared: PreparedImages, screening: Screening
) -> None:
    """Write both files into the folder of a store, if any image is flagged.

    The list has a line for each flagged image, in the order of the input: first row (0-based) and
    number of rows, uid (0: unknown), stack and index (0-based) in it, optics group, flags, the
    farthest score of an outlier, and what is far. The sheet shows the worst.
    """
    listed = np.flatnonzero(screening.flags)
    if not listed.size:
        return
    first_row = prepared.distinct.rows[listed]
    order = np.argsort(first_row, kind="stable")
    lines = _lines(listed[order], prepared, screening)
    write_text_atomic(folder / LIST_NAME, "\n".join(["\t".join(COLUMNS), *lines]) + "\n")
    worst = _worst(listed, screening)[:SHEET_IMAGES]
    rows = prepared.distinct.rows[worst]
    write_bytes_atomic(folder / SHEET_NAME, _sheet(store, rows, _labels(worst, rows, screening)))


def _lines(listed: np.ndarray, prepared: PreparedImages, screening: Screening) -> list[str]:
    """Return one line per image."""
    table, names = prepared.table, prepared.group_names
    counts = np.bincount(prepared.distinct.image_of_row, minlength=len(prepared))
    lines = []
    for image in listed.tolist():
        row = int(prepared.distinct.rows[image])
        place, score, why = table.rows[row], "", ""
        if (outlier := _outlier(screening, image)) is not None:
            score, why = f"{screening.score[outlier].max():.1f}", screening.reasons(outlier)
        group = names[prepared.group[image]] if names else ""
        fields = (
            row,
            counts[image],
            place["uid"],
            table.sources[place["source"]],
            place["index"],
            group,
            ",".join(flag_names(int(screening.flags[image]))),
            score,
            why,
        )
        lines.append("\t".join(_plain(str(field)) for field in fields))
    return lines


def flag_names(flags: int) -> list[str]:
    """Return the names of flags that are set, but for what follows from --drop-bad."""
    return [name for name, bit in FLAGS.items() if flags & bit and bit != FLAG_LEFT_OUT]


def _plain(text: str) -> str:
    """Return a text without tabs and newlines, which would break the table."""
    return text.replace("\t", " ").replace("\n", " ")


def _outlier(screening: Screening, image: int) -> int | None:
    """Return the place of an image among the outliers; None when it is none."""
    place = int(np.searchsorted(screening.outliers, image))
    found = place < len(screening.outliers) and screening.outliers[place] == image
    return place if found else None


def _worst(listed: np.ndarray, screening: Screening) -> np.ndarray:
    """Return flagged images, worst first: outliers by score, clipped ones, blank ones."""
    score = np.zeros(len(screening.flags), np.float32)
    score[screening.outliers] = screening.score.max(axis=1)
    blank = screening.flags[listed] & (FLAG_CONSTANT | FLAG_NONFINITE) > 0
    return listed[np.lexsort((listed, -score[listed], blank))]


def _labels(worst: np.ndarray, rows: np.ndarray, screening: Screening) -> list[str]:
    """Return what is written on each tile: its row, and its farthest measure or else its flags."""
    labels = []
    for image, row in zip(worst.tolist(), rows.tolist(), strict=True):
        outlier = _outlier(screening, image)
        if outlier is None:
            what = ", ".join(flag_names(int(screening.flags[image])))
        else:
            what = screening.reasons(outlier).split(",")[0]
        labels.append(f"row {row}\n{what}")
    return labels


def _sheet(store: ParticleStore, rows: np.ndarray, labels: list[str]) -> bytes:
    """Return a PNG of the images of some rows in real space, each in grey levels of its own."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    box_px = min(store.box_px, _TILE_PX)
    pictures = to_real_space(store.images(rows, box_px), half_disc(box_px)).numpy()
    deviation = pictures.std(axis=(1, 2), keepdims=True)
    pictures = pictures / np.where(deviation > 0, deviation, 1)
    lines = -(-len(rows) // SHEET_COLUMNS)
    columns = min(len(rows), SHEET_COLUMNS)
    with matplotlib.rc_context({"font.size": 7}):
        figure = Figure(figsize=(1.4 * columns, 1.85 * lines), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        for number, axes in enumerate(figure.subplots(lines, columns, squeeze=False).flat):
            axes.set_axis_off()
            if number < len(rows):
                axes.imshow(pictures[number], "gray", vmin=-_GREY_STD, vmax=_GREY_STD)
                axes.set_title(labels[number])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
