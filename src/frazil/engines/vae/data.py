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
from frazil.engines.vae.meanwhile import PackingMeanwhile
from frazil.engines.vae.settings import VaeSettings
from frazil.errors import InputError
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.lazy import LazyStore
from frazil.preprocess.settings import PackSettings
from frazil.store.budget import allowed_bytes
from frazil.store.records import ParticleRecords


def settle(settings: VaeSettings, say: Say) -> VaeSettings:
    """Return the settings without --lazy and --while-packing where the input is a store.

    Raises
    ------
    InputError : both are given.
    """
    data = settings.data
    if data.lazy and data.while_packing:
        raise InputError("--lazy packs nothing, --while-packing does; give one of them")
    if not (data.lazy or data.while_packing) or not particles.is_packed(data):
        return settings
    flag = "--lazy" if data.lazy else "--while-packing"
    say(f"{flag}: no effect, {data.particles} is packed already and is streamed anyhow")
    data = msgspec.structs.replace(data, lazy=False, while_packing=False)
    return msgspec.structs.replace(settings, data=data)


def open_store(settings: VaeSettings, outdir: Path, say: Say) -> ParticleRecords:
    """Return the input's particles: a store, or their source under --lazy and --while-packing.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : see `engines.particles.open_store`.
    """
    data, packing = settings.data, _pack_settings(settings)
    if not (data.lazy or data.while_packing):
        hint = "; --while-packing trains the first epoch meanwhile"
        return particles.open_store(data, outdir, packing, say, hint)
    table = particles.read_table(data, say)
    source = LazyStore.of(table, packing, particles.selected_rows(data, table, say))
    how = "nothing is packed" if data.lazy else "the first epoch is trained while it is packed"
    say(
        f"{data.particles}: is read as it is, {how}; the unit of intensity is that of "
        f"{source.sampled} of {len(source.prepared)} images"
    )
    return source


def packing_meanwhile(
    store: ParticleRecords, settings: VaeSettings, outdir: Path, command: str
) -> PackingMeanwhile | None:
    """Return the packing that goes on during the first epoch, not begun yet; None without one."""
    if not settings.data.while_packing or not isinstance(store, LazyStore):
        return None
    return PackingMeanwhile(store, particles.store_path(settings.data, outdir), command)


def make_loader(
    store: ParticleRecords, settings: VaeSettings, say: Say, norm_scale: float | None = None
) -> ParticleLoader:
    """Return the loader of the rows to train; says what was left out and what is unknown.

    Parameters
    ----------
    norm_scale : in place of the store's own; --norm goes before it.

    Raises
    ------
    InputError : no poses, a selection that does not fit, or nothing left to train.
    BudgetError : --memory is too small.
    """
    data, training = settings.data, settings.training
    if data.norm is not None and not data.norm[1] > 0:
        raise InputError(f"--norm {data.norm[0]:g} {data.norm[1]:g}: the scale must be positive")
    seed = training.seed if training.shuffle_seed is None else training.shuffle_seed
    selected = particles.selected_rows(data, store, say)
    loader = ParticleLoader(
        store,
        LoaderSettings(
            batch_size=training.batch_size,
            seed=seed,
            window_rows=data.shuffler_size or LoaderSettings().window_rows,
            memory_bytes=allowed_bytes(data.memory),
        ),
        rows=selected,
        box_px=data.box_px,
        norm_scale=norm_scale if data.norm is None else data.norm[1],
        tier=particles.open_tier(data, store, say),
    )
    say(particles.rows_used(loader, selected).line("used"))
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
