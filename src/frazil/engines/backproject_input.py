"""The particles that are back-projected.

Owns: the way from the flags to the loader and the half sets. Does not own: the way to a store
(`frazil.engines.particles`), streaming (`frazil.loader`), the sums (`backproject`).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.engines.backproject import Reconstruction, assign_halves, backproject
from frazil.engines.backproject_settings import BackprojectInput, BackprojectSettings
from frazil.engines.particles import Say, counted, open_store, open_tier, rows_used, selected_rows
from frazil.engines.plan import backprojection_plan, backprojection_window
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.settings import PackSettings
from frazil.store.budget import allowance
from frazil.store.manifest import check_box


def open_loader(
    given: BackprojectInput, settings: BackprojectSettings, out: Path, say: Say
) -> ParticleLoader:
    """Return the loader of the selected particles; says what back-projecting them will take.

    Anything but a store is packed into --cache, or `out`, first, and read from there again while
    the input is unchanged; of a store, --cache keeps a copy of what is read.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : the input cannot be used, or has no poses.
    BudgetError : the maps and a window of the loader do not fit into --memory.
    """
    memory, halves = allowance(given.memory), 2 if settings.half_maps else 1
    packing = PackSettings(box_px=given.box_px, uninvert_data=given.uninvert_data)
    store = open_store(given, out, packing, say)
    rows = selected = selected_rows(given, store, say)
    if given.first is not None:
        rows = (np.arange(store.count) if rows is None else rows)[: given.first]
    box_px = given.box_px or store.box_px
    check_box(box_px, store.box_px, "the store")
    window = backprojection_window(store, box_px, given.batch_size, halves, memory)
    reading = LoaderSettings(batch_size=given.batch_size, window_rows=window)
    tier = open_tier(given, store, say)
    loader = ParticleLoader(store, reading, rows, box_px, tier=tier)
    say(rows_used(loader, selected, given.first).line("used"))
    for line in backprojection_plan(loader, halves, memory):
        say(line)
    return loader


def reconstruct(loader: ParticleLoader, settings: BackprojectSettings) -> Reconstruction:
    """Return the consensus map of a loader's particles, each read once; progress on stderr.

    Raises
    ------
    InputError : half sets are asked for that the particles do not have.
    """
    store = loader.store
    stored: NDArray[Any] | None = None
    if settings.half_maps and settings.half_set == "stored":
        stored = np.asarray(store.rows["half_set"])
    halves = assign_halves(loader.columns.rows.numpy(), store.count, stored)
    batches = counted(loader, "back-projecting")
    return backproject(batches, loader.disc, halves, settings, loader.norm_scale)
