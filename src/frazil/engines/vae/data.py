"""The particles that are trained.

Owns: how the flags of train_vae pack and select particles, and a digest of what is trained. Does
not own: the way to a store (`frazil.engines.particles`) and streaming (`frazil.loader`).
"""

from pathlib import Path

import msgspec
import numpy as np
import xxhash

from frazil.engines import particles
from frazil.engines.particles import Say
from frazil.engines.vae.settings import VaeSettings
from frazil.errors import InputError
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.settings import PackSettings
from frazil.store.budget import default_budget_bytes, parse_bytes
from frazil.store.reader import ParticleStore


def open_store(settings: VaeSettings, outdir: Path, say: Say) -> ParticleStore:
    """Return a store of the input's particles; see `engines.particles.open_store`."""
    return particles.open_store(settings.data, outdir, _pack_settings(settings), say)


def make_loader(store: ParticleStore, settings: VaeSettings, say: Say) -> ParticleLoader:
    """Return the loader of the rows to train; says what was left out and what is unknown.

    Raises
    ------
    InputError : no poses, a selection that does not fit, or nothing left to train.
    BudgetError : --memory is too small.
    """
    data, training = settings.data, settings.training
    if data.norm is not None and not data.norm[1] > 0:
        raise InputError(f"--norm {data.norm[0]:g} {data.norm[1]:g}: the scale must be positive")
    seed = training.seed if training.shuffle_seed is None else training.shuffle_seed
    budget = parse_bytes(data.memory) if data.memory else default_budget_bytes()
    loader = ParticleLoader(
        store,
        LoaderSettings(
            batch_size=training.batch_size,
            seed=seed,
            window_rows=data.shuffler_size or LoaderSettings().window_rows,
            memory_bytes=budget,
        ),
        rows=particles.selected_rows(data, store),
        box_px=data.box_px,
        norm_scale=None if data.norm is None else data.norm[1],
    )
    if loader.excluded:
        say(f"{loader.excluded} images hold pixels that are not finite and are left out")
    if loader.columns.ctf_parameters is None:
        say("no CTF is known: training without one")
    if data.norm is not None and data.norm[0]:
        say("the shift of --norm moves F(0) only, which is not trained: it changes nothing")
    return loader


def data_digest(loader: ParticleLoader) -> str:
    """Return a digest of what is trained: images, rows, poses, shifts, CTF, scale and order."""
    columns = loader.columns
    rows = columns.rows.numpy()
    digest = xxhash.xxh3_64()
    parts = [rows, columns.rotations.numpy(), columns.shifts_px.numpy()]
    if columns.ctf_parameters is not None:
        parts.append(columns.ctf_parameters.numpy())
    parts += loader.store.identity(rows)
    for part in (*parts, np.float64(loader.norm_scale)):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _pack_settings(settings: VaeSettings) -> PackSettings:
    data = settings.data
    packing = PackSettings(
        box_px=data.box_px,
        window=data.window,
        window_r=data.window_r,
        uninvert_data=data.uninvert_data,
        precision=data.precision,
    )
    if data.max_threads is None:
        return packing
    return msgspec.structs.replace(packing, max_threads=data.max_threads)
