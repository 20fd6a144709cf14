"""How fast the VAE trains here, measured on random data.

Owns: the measurement. Does not own: the step (`step`), nor what follows from its rate.
"""

import time

import torch

from frazil.engines.vae.device import choose_device, has_native_bfloat16
from frazil.engines.vae.step import training_step
from frazil.geometry.packing import half_disc
from frazil.geometry.rotations import random_rotations
from frazil.loader.batches import ParticleBatch
from frazil.models.config import ModelConfig
from frazil.models.posterior import PosteriorEncoder
from frazil.models.vae import VAE

MIN_STEPS = 3
CTF_ROW = (1.0, 15e3, 15e3, 0.0, 300.0, 2.7, 0.1, 0.0)


def training_rate(
    config: ModelConfig, box_px: int, batch_size: int, device_name: str, seconds: float = 2.0
) -> tuple[float, torch.device]:
    """Return the images per second of training steps, and the device that they ran on.

    Parameters
    ----------
    device_name : as `choose_device` takes it.
    seconds : how long steps are timed, after one that is not; at least `MIN_STEPS` are.

    Raises
    ------
    InputError : no such device, or sizes that no network has.
    """
    device = choose_device(device_name)
    model = VAE(config, half_disc(box_px), torch.Generator().manual_seed(0)).to(device)
    if isinstance(model.encoder, PosteriorEncoder):
        unknown = torch.zeros(batch_size, config.init_components)
        model.encoder.give(torch.arange(batch_size), unknown, unknown)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator(device=device).manual_seed(0)
    batch = random_batch(box_px, batch_size).to(device)
    bfloat16 = has_native_bfloat16(device)
    start, steps = 0.0, -1
    while steps < MIN_STEPS or time.perf_counter() - start < seconds:
        training_step(model, optimiser, batch, 1.0, generator, bfloat16)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        steps += 1
        if steps == 0:
            start = time.perf_counter()
    return steps * batch_size / (time.perf_counter() - start), device


def random_batch(box_px: int, count: int) -> ParticleBatch:
    """Return images of noise with random views, shifts of a pixel and the same CTF."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, len(half_disc(box_px)))
    return ParticleBatch(
        torch.arange(count),
        torch.randn(shape, generator=generator, dtype=torch.complex64),
        random_rotations(count, generator).float(),
        torch.randn(count, 2, generator=generator),
        torch.tensor(CTF_ROW).repeat(count, 1),
    )
