"""What training and back-projection will take, said before they begin.

Owns: the lines of their plans, and the refusal of what cannot fit. Does not own: what reading takes
(`frazil.loader.plan`), limits of memory and disk (`frazil.store.budget`), packing
(`frazil.preprocess.plan`).
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from frazil.engines.vae.measure import training_rate
from frazil.engines.vae.settings import VaeSettings
from frazil.errors import BudgetError
from frazil.geometry.packing import half_disc
from frazil.geometry.slicing import half_grid_shape
from frazil.loader.plan import LoadingPlan, duration_text, loader_size
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.models.basis import BasisDecoder
from frazil.models.vae import VAE
from frazil.runs.folder import Run, is_run
from frazil.store.budget import Allowance, DiskNeed, allowance, memory_flag, size_text
from frazil.store.reader import ParticleStore

# Runs of less than this are not timed beforehand: a quarter of an hour at 1 TFLOP/s.
LONG_RUN_OPERATIONS = 1e15
# Measured at 256 and 384 px: 136 and 172 bytes at the peak per point of the half grid for 1 and 2
# half sets, of which the sums are 12 per half set.
_MAP_BYTES, _HALF_SET_BYTES = 100, 36
# Voxels that a coefficient is interpolated from.
_NEIGHBOURS = 8
# Coefficients of a part of a batch with their eight neighbours, and what torch loads on first use.
_INSERTION_BYTES = 96 << 20


def training_plan(loader: ParticleLoader, settings: VaeSettings, out: Path) -> Iterator[str]:
    """Yield what training will read, hold and write.

    Parameters
    ----------
    out : folder of the run, which may hold some of its epochs already.

    Raises
    ------
    BudgetError : memory or disk is too small; names a change that would make it fit.
    """
    data, training = settings.data, settings.training
    plan = LoadingPlan.of(loader, allowance(data.memory))
    model = VAE(settings.model_config(), loader.disc, torch.Generator().manual_seed(0))
    weights = sum(parameter.numel() for parameter in model.parameters())
    operations = image_operations(model)
    del model
    yield plan.reading_line()
    yield plan.memory_line()
    disk = plan.disk_line(loader.store.files(loader.box_px))
    if disk:
        yield disk
    # Weights, their gradients, and the two moments of Adam.
    yield f"plan: {size_text(16 * weights)} for {weights} weights, their gradients and Adam"
    written = _run_files(loader.row_count, weights, settings, out)
    yield written.line()
    plan.check()
    written.check()
    if operations * loader.row_count * training.epochs > LONG_RUN_OPERATIONS:
        yield _training_time(loader, settings)


def image_operations(model: VAE) -> int:
    """Return the operations of a training step per image: forward, and twice as many backward."""
    grids = 0 if model.grids is None else model.grids.lanes.shape[1]
    trained = sum(parameter.numel() for parameter in model.parameters())
    if isinstance(model.decoder, BasisDecoder):
        networks = trained - model.decoder.basis.lanes.numel()
    else:
        decoder = sum(parameter.numel() for parameter in model.decoder.parameters())
        networks = trained - decoder + decoder * len(model.disc)
    return 6 * (networks + _NEIGHBOURS * grids * len(model.disc))


def backprojection_plan(loader: ParticleLoader, halves: int, memory: Allowance) -> Iterator[str]:
    """Yield what back-projection will read and hold; `halves` is 2 with half maps, 1 without."""
    plan = LoadingPlan.of(loader, memory)
    maps = map_bytes(loader.box_px, halves)
    batch = batch_bytes(loader.box_px, loader.settings.batch_size)
    yield plan.reading_line("pass")
    yield (
        f"plan: {size_text(plan.window_bytes)} of memory for two windows of the loader, "
        f"{size_text(batch)} for a batch, {size_text(maps)} for the maps; {memory}"
    )


def backprojection_window(
    store: ParticleStore, box_px: int, batch_size: int, halves: int, memory: Allowance
) -> int:
    """Return the rows of a window of the loader that fits beside the maps.

    Raises
    ------
    BudgetError : none does; names the changes that would make it fit.
    """
    maps, batch = map_bytes(box_px, halves), batch_bytes(box_px, batch_size)
    size = loader_size(store.manifest, box_px)
    rows = min(LoaderSettings().window_rows, size.window_rows_within(memory.bytes - maps - batch))
    if rows > 0:
        return rows
    needed = maps + batch + 2 * (size.chunk_rows + 1) * size.row_bytes
    without = " or --no-half-maps" if halves == 2 else ""
    raise BudgetError(
        f"{store.path}: maps of {box_px} px take {size_text(maps)}, a batch {size_text(batch)}, "
        f"with the loader {size_text(needed)}; {memory}; give {memory_flag(needed)}, a smaller -D, "
        f"a smaller -b{without}"
    )


def map_bytes(box_px: int, halves: int) -> int:
    """Return the memory that the sums and their normalisation to maps take at most."""
    points = math.prod(half_grid_shape(box_px))
    return points * (_MAP_BYTES + _HALF_SET_BYTES * halves) + _INSERTION_BYTES


def batch_bytes(box_px: int, images: int) -> int:
    """Return the memory of a batch of coefficients, as decoded and as picked for the box."""
    return 2 * images * 8 * len(half_disc(box_px))


def _training_time(loader: ParticleLoader, settings: VaeSettings) -> str:
    """Time a few steps on random data; return what an epoch and the run will take."""
    training = settings.training
    rate, device = training_rate(
        settings.model_config(), loader.box_px, training.batch_size, training.device
    )
    epoch_s = loader.row_count / rate
    return (
        f"plan: {rate:.0f} images/s on {device} (measured): {duration_text(epoch_s)} per epoch, "
        f"{duration_text(epoch_s * training.epochs)} for {training.epochs} of them"
    )


def _run_files(particles: int, weights: int, settings: VaeSettings, out: Path) -> DiskNeed:
    """Return what a run writes: weights and latents of some epochs, and the checkpoint."""
    training, zdim = settings.training, settings.model.zdim
    # The new checkpoint is whole before the old one goes: weights, two moments, latents, twice.
    checkpoint = 2 * (12 * weights + 8 * zdim * particles)
    latents = 4 * zdim * particles * (3 if training.z_pkl else 1)
    saved = -(-training.epochs // training.checkpoint)
    saved = max(0, saved - len(Run.open(out).epochs())) if is_run(out) else saved
    epoch = 4 * weights + latents
    what = (
        f"{size_text(epoch)} of weights and latents x {saved} epochs, and "
        f"{size_text(checkpoint)} for the checkpoint"
    )
    fewer = f"--checkpoint {training.epochs}" if saved > 1 else ""
    return DiskNeed(saved * epoch + checkpoint, what, out, fewer)
