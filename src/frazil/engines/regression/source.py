"""What a regression is made of: images, latents, and the model of the run.

Owns: the way from a run folder, or a store with a latent file, to those. Does not own: poses and
CTF of the store (`frazil.engines.particles`), what is done with them (`regress`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines import particles
from frazil.engines.pca.grids import Geometry, unfinished_grids
from frazil.engines.pca.loop import first_deviation
from frazil.engines.pca.mask import read_mask, sphere
from frazil.engines.pca.outputs import PROGRAM, load_linear
from frazil.engines.regression.neighbours import plain_precision
from frazil.engines.regression.settings import RegressionSettings
from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.pickles import read_pickle
from frazil.runs.folder import Run, is_run
from frazil.store.reader import ParticleStore


@dataclass(frozen=True, eq=False)
class Source:
    """Images and latents.

    Attributes
    ----------
    rows : (n,) of the store, in the order of latents (n, Z) and of precisions.
    precision : (n, Z, Z) of each latent, or (Z, Z) for all.
    grids : (Z + 1, Z, Y, X) half grids of the run's linear model; None for other latents.
    deviation : (groups, S) noise deviation, in units of the norm scale.
    mask : (D, D, D).
    """

    store: ParticleStore
    rows: NDArray[np.int64]
    latents: NDArray[np.float32]
    precision: NDArray[np.floating]
    grids: Tensor | None
    deviation: NDArray[np.float32]
    mask: Tensor
    box_px: int
    pixel_size_ang: float | None
    norm_scale: float

    @property
    def geometry(self) -> Geometry:
        """Geometry of the box."""
        return Geometry.of(self.box_px)


def open_source(path: Path, epoch: int | None, settings: RegressionSettings) -> Source:
    """Return what a regression at the latents of a run, or of --latents, is made of.

    Raises
    ------
    InputError : neither a run folder nor a store with --latents; latents that do not fit.
    MissingFileError : the run's particles, latents or files are not there.
    """
    if is_run(path):
        return _of_run(Run.open(path), epoch, settings)
    if not (path / "manifest.json").is_file():
        raise InputError(
            f"{path}: a run folder, or a store and --latents, is wanted by --maps regression"
        )
    if settings.latents is None:
        raise InputError(f"{path}: is a store; give --latents, one for each of its rows")
    store = ParticleStore.open(path)
    rows, scale = np.arange(store.count), store.rms()
    latents = read_latents(Path(settings.latents), len(rows))
    return Source(
        store,
        rows,
        latents,
        plain_precision(latents),
        None,
        first_deviation(store, store.box_px, scale),
        _mask(settings, None, store.box_px),
        store.box_px,
        store.pixel_size_ang,
        scale,
    )


def _of_run(run: Run, epoch: int | None, settings: RegressionSettings) -> Source:
    """Return that of a run folder."""
    store = particles.trained_store(run)
    config, rows = run.config, run.rows()
    box_px, scale = int(config["box_px"]), float(config["norm"][1])
    grids: Tensor | None = None
    deviation = first_deviation(store, box_px, scale)
    if settings.latents is None:
        latents = run.latents(run.last_epoch if epoch is None else epoch)
    else:
        latents = read_latents(Path(settings.latents), len(rows))
    if len(latents) != len(rows) or (len(rows) and int(rows.max()) >= store.count):
        raise CorruptDataError(
            f"{run.path}: latents, rows.npy and {store.path} do not fit together"
        )
    precision: NDArray[np.floating] = plain_precision(latents)
    if config.get("program") == PROGRAM:
        deviation = (_array(run, "noise_deviation.npy") / scale).astype(np.float32)
        if settings.latents is None:
            precision = _array(run, "precisions.npy")
            grids = unfinished_grids(load_linear(run.path, epoch)[0].maps, Geometry.of(box_px))
    return Source(
        store,
        rows,
        latents,
        precision,
        grids,
        deviation,
        _mask(settings, run, box_px),
        box_px,
        config.get("pixel_size_ang"),
        scale,
    )


def read_latents(path: Path, count: int) -> NDArray[np.float32]:
    """Return (n, Z) latents of a .npy or .pkl file.

    Raises
    ------
    MissingFileError : no such file.
    InputError : not a finite table with one row for each of `count` particles.
    """
    if not path.is_file():
        raise MissingFileError(f"--latents {path}: no such file")
    try:
        found = read_pickle(path) if path.suffix == ".pkl" else np.load(path, allow_pickle=False)
        latents = np.asarray(found, np.float32)
    except (ValueError, TypeError, EOFError) as error:
        raise InputError(f"--latents {path}: is not a table of numbers ({error})") from error
    if latents.ndim != 2 or len(latents) != count or not latents.shape[1]:
        raise InputError(f"--latents {path}: {latents.shape} values, ({count}, Z) wanted")
    bad = np.flatnonzero(~np.isfinite(latents).all(axis=1))
    if bad.size:
        raise InputError(f"--latents {path}: row {bad[0]} (0-based) is not finite")
    return latents


def _array(run: Run, name: str) -> NDArray[np.float32]:
    path = run.path / name
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a finished run of train_pca has it")
    array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return array


def _mask(settings: RegressionSettings, run: Run | None, box_px: int) -> Tensor:
    """Return the mask of --mask, that of the run, or a sphere."""
    given = settings.mask
    if given is None and run is not None and (run.path / "mask.mrc").is_file():
        given = str(run.path / "mask.mrc")
    return sphere(box_px) if given is None else read_mask(given, box_px)
