"""The particles that are back-projected: a loader over a store, whatever the input was.

Owns: the way from the flags to the loader and the half sets. Does not own: packing
(`frazil.preprocess`), streaming (`frazil.loader`), the sums (`backproject`).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from frazil.engines.backproject import Reconstruction, assign_halves, backproject
from frazil.engines.backproject_settings import BackprojectInput, BackprojectSettings
from frazil.errors import InputError
from frazil.io.images import open_particles
from frazil.io.pickles import check_indices, read_indices
from frazil.loader.batches import ParticleBatch
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.inputs import join_pickles
from frazil.preprocess.pipeline import open_or_pack
from frazil.preprocess.settings import PackSettings
from frazil.store.reader import ParticleStore

Say = Callable[[str], None]


def open_loader(given: BackprojectInput, out: Path, say: Say) -> ParticleLoader:
    """Return the loader of the selected particles.

    Anything but a store is packed into --cache, or `out`, first, and read from there again while
    the input is unchanged.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : the input cannot be used, or has no poses.
    """
    path = Path(given.particles)
    if path.suffix == ".frz" or (path / "manifest.json").is_file():
        store = ParticleStore.open(path)
        table = join_pickles(store.table(), given.poses, given.ctf)
        if given.uninvert_data:
            say("--uninvert-data no longer changes anything: the sign was chosen by preprocess")
        store = store.with_rows(table.rows)
    else:
        datadir = Path(given.datadir) if given.datadir else None
        table = open_particles(path, datadir, poses=given.poses is None)
        table = join_pickles(table, given.poses, given.ctf)
        folder = Path(given.cache) if given.cache else out
        folder.mkdir(parents=True, exist_ok=True)
        packed = folder / f"{path.name.removesuffix(path.suffix).removesuffix('.ft')}.frz"
        say(f"{path}: is packed into {packed}, or read from there when it has not changed")
        settings = PackSettings(box_px=given.box_px, uninvert_data=given.uninvert_data)
        store = open_or_pack(table, packed, settings)
    for note in table.notes:
        say(note)
    if not np.isfinite(store.rows["rotation"]).any():
        raise InputError(f"{path}: holds no poses; give --poses")
    settings_of_loader = LoaderSettings(batch_size=given.batch_size)
    return ParticleLoader(store, settings_of_loader, _selection(given, store), given.box_px)


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
    with tqdm(total=loader.row_count, unit="img", desc="back-projecting") as bar:

        def counted() -> Iterator[ParticleBatch]:
            for batch in loader.in_order():
                yield batch
                bar.update(len(batch.rows))

        return backproject(counted(), loader.disc, halves, settings, loader.norm_scale)


def _selection(given: BackprojectInput, store: ParticleStore) -> NDArray[np.int64]:
    """Return the selected rows (n,) in their order."""
    rows = np.arange(store.count)
    if given.ind is not None:
        rows = read_indices(Path(given.ind))
        check_indices(rows, store.count, Path(given.ind))
    return rows if given.first is None else rows[: given.first]
