"""A training that begins at a run of train_pca.

Owns: reading what the run knows (volumes, their prior, the mask, each particle's posterior), and
giving it to a model. Does not own: the models (`frazil.models`), the steps of the volumes
(`volumes`).
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry, unfinished_grids
from frazil.engines.pca.mixture_files import read_statistics
from frazil.engines.pca.outputs import PROGRAM, load_linear
from frazil.engines.pca.prior import ridges
from frazil.engines.pca.state import State
from frazil.engines.vae.settings import VaeSettings
from frazil.errors import InputError
from frazil.loader.prefetch import ParticleLoader
from frazil.models.posterior import PosteriorEncoder
from frazil.models.vae import VAE
from frazil.runs.checkpoint import load_checkpoint
from frazil.runs.folder import Run


@dataclass(frozen=True, eq=False)
class PcaStart:
    """What a run of train_pca says of the particles that are trained.

    Attributes
    ----------
    grids : half grids (K + 1, Z, Y, X) of mean and components, in units of the training.
    ridge : (K + 1, S) prior precision of volumes by shell, for images whose noise has variance 1.
    mask : (D, D, D), or None.
    rows : (n,) trained rows; mean, logvar (n, K) : of their latents.
    """

    grids: Tensor
    ridge: NDArray[np.float64]
    mask: Tensor | None
    rows: Tensor
    mean: Tensor
    logvar: Tensor

    @classmethod
    def read(cls, path: Path, loader: ParticleLoader) -> "PcaStart":
        """Return the start of a loader's particles.

        Raises
        ------
        InputError : the run is of another box, or lacks some of the particles.
        MissingFileError, CorruptDataError : it is not a whole run.
        """
        run = Run.open(path)
        if run.config["box_px"] != loader.box_px:
            raise InputError(
                f"--init {path}: was fitted at {run.config['box_px']} px, these particles have "
                f"{loader.box_px} px; give -D {run.config['box_px']}"
            )
        model, _ = load_linear(path)
        scale = run.config["norm"][1] / loader.norm_scale
        grids = unfinished_grids(scale * model.maps, Geometry.of(loader.box_px))
        tensors, facts = load_checkpoint(run.checkpoint_path)
        state = State.restored(tensors, facts["state"])
        noise = (state.deviation.astype(np.float64) ** 2).mean(0)
        rows = loader.columns.rows
        chosen = _places(run, rows)
        statistics = read_statistics(run).part(chosen)
        variance = np.diagonal(np.linalg.inv(statistics.precision), axis1=1, axis2=2)
        return cls(
            grids,
            ridges(state.mean_ridge, state.power_ratio) * noise,
            state.mask,
            rows,
            torch.from_numpy(statistics.means).float(),
            torch.from_numpy(np.log(variance)).float(),
        )

    def give(self, model: VAE) -> None:
        """Put volumes and posteriors into a model that has made no step."""
        if model.grids is not None:
            volumes = model.grids.lanes.shape[1] // 2
            model.grids.set_grids(self.grids[:volumes])
        if isinstance(model.encoder, PosteriorEncoder):
            model.encoder.give(self.rows, self.mean, self.logvar)


def with_components(settings: VaeSettings) -> VaeSettings:
    """Return the settings with the number of components of --init, if it was given.

    Raises
    ------
    InputError : not a run of train_pca, or one with fewer components than --zdim.
    MissingFileError, CorruptDataError : not a run.
    """
    path = settings.training.init
    if path is None:
        return settings
    config = Run.open(Path(path)).config
    if config.get("program") != PROGRAM:
        raise InputError(f"--init {path}: is a run of {config.get('program')}, {PROGRAM} is wanted")
    components = int(config["model"]["zdim"])
    if settings.model.zdim > components:
        raise InputError(
            f"--zdim {settings.model.zdim}: --init {path} has {components} components; "
            f"give --zdim {components} or less"
        )
    model = msgspec.structs.replace(settings.model, init_components=components)
    return msgspec.structs.replace(settings, model=model)


def init_digest(path: str | None) -> str | None:
    """Return a digest of a run's latents, which change with everything else of it; None for None.

    Raises
    ------
    MissingFileError, CorruptDataError : it is not a finished run.
    """
    if path is None:
        return None
    return xxhash.xxh3_64(read_statistics(Run.open(Path(path))).product.tobytes()).hexdigest()


def _places(run: Run, rows: Tensor) -> NDArray[np.int64]:
    """Return the places (n,) of trained rows in a run's files."""
    known = run.rows()
    order = np.argsort(known)
    found = np.searchsorted(known, rows.numpy(), sorter=order).clip(0, len(known) - 1)
    places = order[found]
    missing = np.flatnonzero(known[places] != rows.numpy())
    if missing.size:
        raise InputError(
            f"--init {run.path}: has no latent of row {int(rows[missing[0]])} and "
            f"{missing.size - 1} more; fit these particles, or give its --ind"
        )
    return np.asarray(places, np.int64)
