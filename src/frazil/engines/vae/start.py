"""How a run begins, or goes on.

Owns: the decision between a new run, a continuation and a refusal, and what config.json says.
Does not own: the loop (`loop`), the folder's names (`frazil.runs`).
"""

from pathlib import Path
from typing import Any

import msgspec

from frazil import __version__
from frazil.engines.vae.data import data_digest
from frazil.engines.vae.device import choose_device
from frazil.engines.vae.meanwhile import PackingMeanwhile
from frazil.engines.vae.settings import VaeSettings, differing_names
from frazil.engines.vae.state import Training
from frazil.engines.vae.warm import init_digest
from frazil.errors import InputError, MissingFileError, OutputExistsError
from frazil.loader.prefetch import ParticleLoader
from frazil.models.encodings import check_pe_type
from frazil.runs.checkpoint import load_checkpoint, without_prefix
from frazil.runs.folder import Run, is_run


def check_request(outdir: Path, settings: VaeSettings, overwrite: bool) -> None:
    """Refuse what can be refused before particles are read or packed, which may take hours.

    Raises
    ------
    InputError, MissingFileError : a device or features that there are not, weights that are not
        there.
    OutputExistsError : the folder holds a run with other settings.
    """
    choose_device(settings.training.device)
    check_pe_type(settings.model.pe_type)
    if settings.model.decoder == "basis" and settings.training.init is None:
        raise InputError("--decoder basis: begins at a run of train_pca; give --init RUN")
    load = settings.training.load
    if load not in (None, "latest") and not Path(str(load)).is_file():
        raise MissingFileError(f"--load {load}: no such file; give a weights.N.safetensors")
    if is_run(outdir) and not overwrite:
        run = Run.open(outdir)
        _refuse(run, differing_names(settings, run.config.get("settings", {})))


def begin_or_resume(
    outdir: Path,
    settings: VaeSettings,
    loader: ParticleLoader,
    command: str,
    overwrite: bool,
    packing: PackingMeanwhile | None = None,
) -> Training:
    """Return a training in `outdir`: new, or where the run in it was stopped.

    Parameters
    ----------
    packing : goes on during the first epoch, whose particles `loader` then reads from the source.

    Raises
    ------
    OutputExistsError : the run has all its epochs, or was made with other settings or data.
    InputError : --load names weights that do not fit, or "latest" where nothing is.
    """
    config = _config(settings, loader, command)
    if packing is not None:
        config["store"] = str(packing.target.resolve())
    if is_run(outdir) and not overwrite:
        training = _resume(Run.open(outdir), config, settings, loader)
        training.packing = packing
        return training
    if settings.training.load == "latest":
        raise InputError(f"{outdir}: holds no run to go on with; leave --load latest out")
    # Whatever can fail comes before the folder is touched: --load may name a file in it.
    training = Training.begin(Run(outdir, config), loader, settings, packing)
    if settings.training.load is not None:
        _load_weights(training, Path(settings.training.load))
    Run.create(outdir, config, overwrite).write_rows(loader.columns.rows.numpy())
    return training


def _resume(
    run: Run, config: dict[str, Any], settings: VaeSettings, loader: ParticleLoader
) -> Training:
    """Return the training of a run that is there, from its checkpoint if it has one."""
    differing = differing_names(settings, run.config.get("settings", {}))
    if run.config.get("data_digest") != config["data_digest"]:
        differing.append("the particles, poses, CTF or --ind")
    if run.config.get("init_digest") != config["init_digest"]:
        differing.append("the content of --init")
    _refuse(run, differing)
    training = Training.begin(run, loader, settings)
    if not run.checkpoint_path.is_file():
        if settings.training.load not in (None, "latest"):
            _load_weights(training, Path(str(settings.training.load)))
    else:
        training.restore()
    if training.epoch > settings.training.epochs:
        raise OutputExistsError(
            f"{run.path}: is complete ({training.epoch - 1} epochs); give a larger -n to go on, "
            "or --overwrite to begin anew"
        )
    run.config = config
    run.write_config()
    run.write_rows(loader.columns.rows.numpy())  # a kill may have come before they were written
    return training


def _refuse(run: Run, differing: list[str]) -> None:
    """Raise OutputExistsError when a run cannot be continued because of these differences."""
    if differing:
        raise OutputExistsError(
            f"{run.path}: holds a run with other settings: {', '.join(differing)}; "
            "choose another folder, or --overwrite"
        )


def _load_weights(training: Training, path: Path) -> None:
    """Put the weights of a file into the model.

    Raises
    ------
    InputError : they belong to a network of other sizes.
    """
    if path.suffix == ".pkl":
        raise InputError(f"{path}: cryoDRGN's weights cannot be read; a weights.N.safetensors is")
    tensors, _ = load_checkpoint(path)
    weights = without_prefix("model", tensors)
    own = training.model.state_dict()
    for name, tensor in own.items():
        if name not in weights or weights[name].shape != tensor.shape:
            found = tuple(weights[name].shape) if name in weights else "nothing"
            raise InputError(
                f"{path}: {name} has shape {found}, {tuple(tensor.shape)} wanted; give the zdim, "
                "layers, widths and box that these weights were trained with"
            )
    training.model.load_state_dict(weights)


def _config(settings: VaeSettings, loader: ParticleLoader, command: str) -> dict[str, Any]:
    """Return what config.json holds."""
    return {
        "program": "frazil train_vae",
        "version": __version__,
        "command": command,
        "settings": settings.to_json(),
        "model": msgspec.to_builtins(settings.model_config()),
        "store": str(loader.store.path.resolve()),
        "particles": loader.row_count,
        "rows": "rows.npy",
        "box_px": loader.box_px,
        "pixel_size_ang": loader.pixel_size_ang,
        "norm": [0.0, loader.norm_scale],
        "beta": settings.beta,
        "seed": settings.training.seed,
        "data_digest": data_digest(loader),
        "init_digest": init_digest(settings.training.init),
    }
