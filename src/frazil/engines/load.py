"""A finished model of any engine from its files.

Owns: the choice of the engine by the run's configuration. Does not own: how each reads its weights.
"""

from pathlib import Path
from typing import Any

from frazil.engines.pca.outputs import PROGRAM, load_linear
from frazil.engines.vae.load import load_model as load_vae
from frazil.models.linear import LinearModel
from frazil.models.vae import VAE
from frazil.runs.checkpoint import load_checkpoint
from frazil.runs.folder import Run, read_config


def load_model(
    run_or_weights: Path, epoch: int | None = None, config: Path | None = None
) -> tuple[VAE | LinearModel, dict[str, Any]]:
    """Return a model on the CPU, and the configuration of its run.

    Parameters and errors are those of `engines.vae.load.load_model`.
    """
    path = Path(run_or_weights)
    if _program(path, config) == PROGRAM:
        return load_linear(path, epoch)
    return load_vae(path, epoch, config)


def _program(path: Path, config: Path | None) -> str | None:
    """Return which program made a run or weights; None when that cannot be told."""
    if path.is_dir():
        return Run.open(path).config.get("program")
    if path.is_file() and path.suffix == ".safetensors":
        found = load_checkpoint(path)[1].get("config") or {}
        return found.get("program")
    return None if config is None else read_config(config).get("program")
