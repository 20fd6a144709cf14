"""A run folder with a store of simulated particles and an untrained model: all that analysis reads.

The latents are two well separated groups, so that clusters are known.
"""

import json
from pathlib import Path

import msgspec
import numpy as np
import torch

from frazil.engines.vae.outputs import write_weights
from frazil.geometry.packing import half_disc
from frazil.io.atomic import write_npy_atomic
from frazil.io.images import open_particles
from frazil.models.config import ModelConfig
from frazil.models.vae import VAE
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.runs.folder import Run
from frazil.simulate.dataset import simulate_dataset
from frazil.simulate.settings import SimulateSettings

BOX_PX, PARTICLES, ZDIM, SCALE = 16, 60, 3, 250.0
ROWS = np.arange(4, 54)


def make_model(zdim: int = ZDIM, box_px: int = BOX_PX, seed: int = 0) -> VAE:
    """Return an untrained model of a tiny network."""
    config = ModelConfig(zdim=zdim, enc_dim=8, enc_layers=1, dec_dim=24, dec_layers=1)
    return VAE(config, half_disc(box_px), torch.Generator().manual_seed(seed)).eval()


def make_store(folder: Path) -> Path:
    """Return a store of PARTICLES simulated images."""
    settings = SimulateSettings(num=PARTICLES, box_px=BOX_PX, motion="none", snr=1.0, seed=1)
    simulate_dataset(settings, folder / "simulated")
    table = open_particles(folder / "simulated" / "particles.star")
    pack(table, folder / "particles.frz", PackSettings(max_threads=1))
    return folder / "particles.frz"


def make_run(folder: Path, name: str = "run") -> Path:
    """Return a run folder of two epochs, beside its store."""
    store = make_store(folder)
    model = make_model()
    config = {
        "program": "frazil train_vae",
        "command": "frazil train_vae particles.frz",
        "settings": {"model": {"zdim": ZDIM}, "data": {"particles": "particles.frz"}},
        "store": str(store),
        "box_px": BOX_PX,
        "pixel_size_ang": 8.0,
        "norm": [0.0, SCALE],
        "model": msgspec.to_builtins(model.config),
        "seed": 0,
    }
    run = Run.create(folder / name, config)
    run.write_rows(ROWS)
    for epoch in (1, 2):
        write_weights(run, epoch, model)
        write_npy_atomic(run.latents_path(epoch), make_latents(epoch))
    lines = [
        {"epoch": 1, "batch": 2, "images": 25, "loss": 1.1, "gen_loss": 1.0, "kld": 0.5},
        {"event": "epoch", "epoch": 1, "loss": 1.0, "gen_loss": 0.9, "kld": 0.6, "seconds": 70},
        {"epoch": 2, "batch": 2, "images": 25, "loss": 0.9, "gen_loss": 0.8, "kld": 0.7},
        {"event": "epoch", "epoch": 2, "loss": 0.9, "gen_loss": 0.8, "kld": 0.8, "seconds": 80},
    ]
    run.journal_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run.path


def make_latents(seed: int) -> np.ndarray:
    """Return (n, ZDIM) latents of two groups: the first 20 about -5, the others about +5."""
    generator = np.random.default_rng(seed)
    z = generator.standard_normal((len(ROWS), ZDIM)).astype(np.float32)
    z[:20, 0] -= 5
    z[20:, 0] += 5
    return z
