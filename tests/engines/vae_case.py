"""A small packed set and settings for the tests of the vae engine."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from frazil.engines.vae.data import make_loader, open_store, packing_meanwhile, settle
from frazil.engines.vae.settings import DataSettings, ModelSettings, TrainingSettings, VaeSettings
from frazil.engines.vae.start import begin_or_resume
from frazil.engines.vae.state import Training
from frazil.geometry.rotations import random_rotations
from frazil.io.images import open_particles
from frazil.io.mrc_writer import StackWriter
from frazil.io.pickles import write_pickle
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings

COUNT, BOX_PX, BATCH = 44, 16, 8


def write_stack(folder: Path, nan_row: int | None = None) -> Path:
    """Write COUNT noisy images, their poses.pkl and ctf.pkl; return the stack."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.Generator(np.random.PCG64(0))
    images = generator.standard_normal((COUNT, BOX_PX, BOX_PX)).astype(np.float32)
    images[:, 6:10, 6:10] += 3
    if nan_row is not None:
        images[nan_row, 3, 3] = np.nan
    with StackWriter(folder / "particles.mrcs", (BOX_PX, BOX_PX), COUNT, 4.0) as writer:
        writer.write(images)
    rotations = random_rotations(COUNT, torch.Generator().manual_seed(1)).numpy()
    shifts = generator.uniform(-0.1, 0.1, (COUNT, 2))
    write_pickle(folder / "poses.pkl", (rotations.astype(np.float32), shifts.astype(np.float32)))
    ctf = np.tile([BOX_PX, 4.0, 0, 0, 30, 300, 2.7, 0.1, 0], (COUNT, 1)).astype(np.float32)
    ctf[:, 2] = ctf[:, 3] = generator.uniform(10_000, 20_000, COUNT)
    write_pickle(folder / "ctf.pkl", ctf)
    return folder / "particles.mrcs"


def write_store(folder: Path, nan_row: int | None = None) -> Path:
    """Return a store of `write_stack`'s images, without poses and CTF."""
    stack = write_stack(folder, nan_row)
    pack(open_particles(stack), folder / "p.frz", PackSettings(precision="float32", max_threads=1))
    return folder / "p.frz"


def make_settings(store: Path, **changes: Any) -> VaeSettings:
    """Return settings of a tiny network; changes go to the part that has the field."""
    data = {
        "particles": str(store),
        "poses": str(store.parent / "poses.pkl"),
        "ctf": str(store.parent / "ctf.pkl"),
        "shuffler_size": 20,
    }
    model = {"zdim": 2, "enc_dim": 12, "dec_dim": 12, "enc_layers": 1, "dec_layers": 1}
    training = {"epochs": 3, "batch_size": BATCH, "lr": 1e-3, "log_interval": 16, "device": "cpu"}
    for name, value in changes.items():
        owner = next(
            part
            for part, struct in (
                (model, ModelSettings),
                (training, TrainingSettings),
                (data, DataSettings),
            )
            if name in struct.__struct_fields__
        )
        owner[name] = value
    return msgspec.convert({"model": model, "training": training, "data": data}, VaeSettings)


def begin(
    outdir: Path, settings: VaeSettings, overwrite: bool = False, said: list[str] | None = None
) -> Training:
    """Return a training as the command would make it; lines of the log go to `said`."""
    said = [] if said is None else said
    settings, command = settle(settings, said.append), "frazil train_vae"
    store = open_store(settings, outdir, said.append)
    loader = make_loader(store, settings, said.append)
    packing = packing_meanwhile(store, settings, outdir, command)
    return begin_or_resume(outdir, settings, loader, command, overwrite, packing)
