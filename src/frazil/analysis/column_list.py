"""The columns of a set of particles as lines of text.

Owns: their ranges and counts for people. Does not own: the columns (`particle_set`).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from frazil.analysis.expression import Column, Words
from frazil.analysis.facts import counts_text
from frazil.analysis.particle_set import open_set
from frazil.analysis.select_settings import SetSettings
from frazil.errors import InputError


def column_lines(settings: SetSettings) -> Iterator[str]:
    """Yield one line per column that is known of any particle: its range, or common texts."""
    there = open_set(
        Path(settings.source),
        settings.places(),
        settings.epoch,
        settings.columns,
    )
    yield f"{there.origin}: {there.count} particles"
    names = there.names()
    width = max(map(len, names))
    for name in names:
        try:
            column = there.find(name)
        except InputError:
            continue
        if column is not None:
            text = _described(column, unknown=0 if name == "uid" else -1)
            if text:
                yield f"  {name:<{width}}  {text}"


def _described(column: Column, unknown: int) -> str:
    """Return a column in a few words; nothing of one that is unknown throughout."""
    if isinstance(column, Words):
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.texts))
        order = np.argsort(-counts, kind="stable")
        named = {column.texts[k]: int(counts[k]) for k in order.tolist() if counts[k]}
        return counts_text(named, most=3)
    if column.ndim > 1:
        return f"{column.shape[1:]} numbers each, as name[0]"
    if column.dtype == np.bool_:
        return f"true of {int(column.sum())}"
    known = column[np.isfinite(column)]
    if column.dtype.kind in "iu":
        known = column[column != unknown]
    if not known.size:
        return ""
    low, high = known.min(), known.max()
    text = f"{low:.6g} to {high:.6g}" if column.dtype.kind == "f" else f"{low} to {high}"
    lost = len(column) - len(known)
    return text + (f", unknown of {lost}" if lost else "")
