"""Files that an epoch writes into its run folder.

Owns: weights with all that is needed to use them, and latents. Does not own: names and formats
(`frazil.runs`), checkpoints (`state`).
"""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frazil.io.atomic import write_bytes_atomic, write_npy_atomic
from frazil.io.pickles import write_pickle
from frazil.models.vae import VAE
from frazil.runs.checkpoint import save_checkpoint, with_prefix
from frazil.runs.folder import Run


def write_weights(run: Run, epoch: int, model: VAE) -> None:
    """Write weights.N.safetensors, which holds the run's configuration too."""
    facts = {"epoch": epoch, "config": run.config}
    tensors = with_prefix("model", model.state_dict())
    save_checkpoint(run.weights_path(epoch), tensors, facts)


def write_latents(run: Run, epoch: int, latents: NDArray[np.float32], as_pickle: bool) -> None:
    """Write z.N.npy, the means, and on request z.N.pkl, cryoDRGN's means and log variances.

    Parameters
    ----------
    latents : (n, 2Z), mean then log variance.
    """
    mu, logvar = (np.ascontiguousarray(part) for part in np.split(latents, 2, axis=1))
    write_npy_atomic(run.latents_path(epoch), mu)
    if not as_pickle:
        return
    # Two pickles one after the other in one file, as cryoDRGN reads them.
    parts = []
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        for name, value in (("mu", mu), ("logvar", logvar)):
            path = Path(folder) / name
            write_pickle(path, value)
            parts.append(path.read_bytes())
    write_bytes_atomic(run.latents_path(epoch, "pkl"), b"".join(parts))
