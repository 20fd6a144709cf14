"""A trained model from its files.

Owns: finding weights and configuration that belong together. Does not own: what is done with the
model.
"""

from pathlib import Path
from typing import Any

import msgspec
import torch

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.geometry.packing import half_disc
from frazil.models.config import ModelConfig
from frazil.models.vae import VAE
from frazil.runs.checkpoint import load_checkpoint, without_prefix
from frazil.runs.folder import Run, read_config


def load_model(
    run_or_weights: Path, epoch: int | None = None, config: Path | None = None
) -> tuple[VAE, dict[str, Any]]:
    """Return a trained model on the CPU, and the configuration of its run.

    Parameters
    ----------
    run_or_weights : a run folder, or a weights.N.safetensors, which needs nothing beside it.
    epoch : of a run folder; default: the last whose weights are there.
    config : a config.json to be used in place of the one in the weights.

    Raises
    ------
    MissingFileError : no such run, epoch or file.
    InputError : a file and an epoch; cryoDRGN's weights; weights of another network.
    CorruptDataError : the file is damaged.
    """
    path = weights_path(run_or_weights, epoch)
    tensors, facts = load_checkpoint(path)
    found: dict[str, Any] | None = facts.get("config") if config is None else read_config(config)
    if found is None:
        raise InputError(f"{path}: is not a file of weights; weights.N.safetensors is wanted")
    try:
        sizes = msgspec.convert(found["model"], ModelConfig)
        model = VAE(sizes, half_disc(found["box_px"]), torch.Generator())
    except (KeyError, msgspec.ValidationError) as error:
        raise CorruptDataError(f"{config or path}: not the configuration of a model") from error
    try:
        model.load_state_dict(without_prefix("model", tensors))
    except RuntimeError as error:
        raise InputError(
            f"{path}: belongs to a network of other sizes than {config or 'its configuration'}"
        ) from error
    return model.eval(), found


def weights_path(run_or_weights: Path, epoch: int | None = None) -> Path:
    """Return the weights.N.safetensors of a run folder's epoch (default: the last), or the file.

    Raises
    ------
    MissingFileError : no such run or epoch.
    InputError : a file and an epoch; cryoDRGN's weights.
    """
    path = Path(run_or_weights)
    if path.is_dir():
        run = Run.open(path)
        chosen = run.last_epoch if epoch is None else epoch
        path = run.weights_path(chosen)
        if not path.is_file():
            there = ", ".join(map(str, run.epochs())) or "none"
            raise MissingFileError(f"{run.path}: no weights of epoch {chosen}; there are: {there}")
    elif epoch is not None:
        raise InputError(f"{path}: is a file of weights; an epoch belongs to a run folder")
    elif path.suffix == ".pkl":
        raise InputError(f"{path}: cryoDRGN's weights cannot be read; a weights.N.safetensors is")
    return path
