"""The particles that are trained: a store, whatever the input was.

Owns: the way from the flags to a store with poses and CTF, and a loader of the selected rows. Does
not own: packing (`frazil.preprocess`) and streaming (`frazil.loader`).
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from frazil.engines.vae.settings import VaeSettings
from frazil.errors import InputError
from frazil.io.images import open_particles
from frazil.io.pickles import check_indices, read_indices
from frazil.loader.budget import default_budget_bytes, parse_bytes
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.inputs import join_pickles
from frazil.preprocess.pipeline import open_or_pack
from frazil.preprocess.settings import PackSettings
from frazil.store.reader import ParticleStore

Say = Callable[[str], None]


def open_store(settings: VaeSettings, outdir: Path, say: Say) -> ParticleStore:
    """Return a store of the input's particles, with the poses and CTF to be trained with.

    A store is opened; anything else is packed first, into --cache or the run folder, and what was
    packed is used again while the input is unchanged.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : the input cannot be used.
    """
    data = settings.data
    path = Path(data.particles)
    if path.suffix == ".frz" or (path / "manifest.json").is_file():
        store = ParticleStore.open(path)
        if data.poses or data.ctf:
            table = join_pickles(store.table(), data.poses, data.ctf)
            _say_all(table.notes, say)
            store = store.with_rows(table.rows)
        return store
    datadir = Path(data.datadir) if data.datadir else None
    table = open_particles(path, datadir, poses=data.poses is None)
    table = join_pickles(table, data.poses, data.ctf)
    _require_poses(table.rows, path)
    _say_all(table.notes, say)
    folder = Path(data.cache) if data.cache else outdir
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{path.name.removesuffix(path.suffix).removesuffix('.ft')}.frz"
    say(f"{path}: is packed into {out}, or read from there when it has not changed")
    return open_or_pack(table, out, _pack_settings(settings))


def make_loader(store: ParticleStore, settings: VaeSettings, say: Say) -> ParticleLoader:
    """Return the loader of the rows to train; says what was left out and what is unknown.

    Raises
    ------
    InputError : no poses, a selection that does not fit, or nothing left to train.
    BudgetError : --memory is too small.
    """
    data, training = settings.data, settings.training
    rows = None
    if data.ind is not None:
        rows = read_indices(Path(data.ind))
        check_indices(rows, store.count, Path(data.ind))
    _require_poses(store.rows, Path(data.particles))
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
        rows=rows,
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
    parts = [rows, columns.rotations.numpy(), columns.shifts_px.numpy(), columns.gain.numpy()]
    if columns.ctf_parameters is not None:
        parts.append(columns.ctf_parameters.numpy())
    places = loader.store.rows[rows]
    parts += [places["shard"], places["slot"], loader.store.checksums]
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


def _require_poses(rows: NDArray[np.void], path: Path) -> None:
    """Raise InputError when no row has a pose (rows that lack one among others: the loader)."""
    if not np.isfinite(rows["rotation"]).any():
        raise InputError(f"{path}: holds no poses, and training needs them; give --poses")


def _say_all(lines: tuple[str, ...], say: Say) -> None:
    for line in lines:
        say(line)
