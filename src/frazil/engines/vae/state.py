"""The whole state of a training, and its way to a checkpoint and back.

Owns: what a state is made of, so that stop and restart gives what an uninterrupted training gives.
Does not own: the file (`frazil.runs.checkpoint`) and the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frazil.engines.vae.data import make_loader
from frazil.engines.vae.device import choose_device, has_native_bfloat16
from frazil.engines.vae.meanwhile import PackingMeanwhile
from frazil.engines.vae.record import EpochRecord
from frazil.engines.vae.settings import VaeSettings
from frazil.engines.vae.volumes import make_optimiser
from frazil.engines.vae.warm import PcaStart
from frazil.loader.prefetch import ParticleLoader
from frazil.models.vae import VAE
from frazil.runs.checkpoint import (
    generator_from,
    load_checkpoint,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from frazil.runs.folder import Run
from frazil.runs.journal import Journal


@dataclass
class Training:
    """A training under way: everything that a step changes, and what it needs.

    Attributes
    ----------
    epoch : the epoch under way, from 1; `batch` : batches of it that were trained.
    seconds : time spent in this epoch before the last restart.
    journal_bytes : length of the journal at the checkpoint that this goes on from.
    packing : what goes on during the first epoch, until `read_packed` takes its store.
    """

    run: Run
    loader: ParticleLoader
    settings: VaeSettings
    model: VAE
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    record: EpochRecord
    device: torch.device
    bfloat16: bool
    epoch: int = 1
    batch: int = 0
    seconds: float = 0.0
    journal_bytes: int = 0
    packing: PackingMeanwhile | None = None

    @classmethod
    def begin(
        cls,
        run: Run,
        loader: ParticleLoader,
        settings: VaeSettings,
        packing: PackingMeanwhile | None = None,
    ) -> "Training":
        """Return a training that has not made a step; weights and noise come from the seed."""
        training = settings.training
        device = choose_device(training.device)
        weights_seed = torch.Generator().manual_seed(training.seed)
        model = VAE(settings.model_config(), loader.disc, weights_seed).to(device)
        warm = None if training.init is None else PcaStart.read(Path(training.init), loader)
        if warm is not None:
            warm.give(model)
        optimiser = make_optimiser(model, training, loader, warm)
        return cls(
            run=run,
            loader=loader,
            settings=settings,
            model=model,
            optimiser=optimiser,
            generator=torch.Generator(device=device).manual_seed(training.seed),
            record=EpochRecord(loader.columns.rows.numpy(), settings.model.zdim),
            device=device,
            bfloat16=training.amp and has_native_bfloat16(device),
            packing=packing,
        )

    def describe(self, networks: bool = False) -> list[str]:
        """Return what is going to be trained, as lines of the log."""
        loader, config = self.loader, self.model.config
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        pixel = loader.pixel_size_ang
        precision = "bfloat16" if self.bfloat16 else "float32"
        lines = [
            f"{loader.row_count} particles of {loader.box_px} px"
            + (f", {pixel:.4g} A/px" if pixel else "")
            + f", {2 * len(loader.disc)} values each, in units of {loader.norm_scale:.6g}",
            f"encoder {config.enc_dim}x{config.enc_layers}, decoder {config.decoder} "
            f"{config.dec_dim}x{config.dec_layers}, zdim {config.zdim}: {weights} weights; beta "
            f"{self.settings.beta:g}",
            f"device {self.device}, matrix products in {precision}; particles are {loader.mode}",
        ]
        if config.enc_mask == -1:
            lines.append("--enc-mask -1: the whole disc, which is all that is kept of an image")
        if self.epoch > 1 or self.batch:
            lines.append(f"goes on at epoch {self.epoch}, after {self.batch} of its batches")
        return [*lines, str(self.model)] if networks else lines

    def save(self, journal: Journal, seconds: float) -> None:
        """Write the checkpoint; losses that wait are settled first, so none is ever not finite."""
        self.record.settle()
        tensors = {
            **with_prefix("model", self.model.state_dict()),
            **with_prefix("optimiser", _optimiser_tensors(self.optimiser)),
            "latents": self.record.latents,
            "noise": self.generator.get_state(),
        }
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "batch": self.batch,
            "seconds": seconds,
            "sums": {
                "epoch": self.record.epoch.to_json(),
                "interval": self.record.interval.to_json(),
            },
            "journal_bytes": journal.synced_position(),
        }
        save_checkpoint(self.run.checkpoint_path, tensors, facts)

    def restore(self) -> None:
        """Go on from the run's checkpoint.

        Raises
        ------
        MissingFileError, CorruptDataError : the checkpoint cannot be read.
        """
        tensors, facts = load_checkpoint(self.run.checkpoint_path)
        self.model.load_state_dict(without_prefix("model", tensors))
        _restore_optimiser(self.optimiser, without_prefix("optimiser", tensors))
        self.generator = generator_from(tensors["noise"], self.device)
        self.record.restore(tensors["latents"], facts["sums"])
        self.epoch, self.batch = facts["epoch"], facts["batch"]
        self.seconds, self.journal_bytes = facts["seconds"], facts["journal_bytes"]
        self.loader.load_state_dict({"epoch": self.epoch, "batch": self.batch})

    def read_packed(self, stopped: Callable[[], bool]) -> None:
        """Take batches from the store that was packed during the first epoch, from now on.

        Raises
        ------
        KeyboardInterrupt : `stopped` while packing had not ended.
        FrazilError, OSError : packing failed.
        """
        if self.packing is None or self.loader.store.path == self.packing.target:
            return
        store = self.packing.store(stopped)
        self.loader.forget()
        # What was said of the source is true of its store.
        self.loader = make_loader(store, self.settings, lambda line: None, self.loader.norm_scale)
        self.loader.load_state_dict({"epoch": self.epoch, "batch": self.batch})

    def begin_next_epoch(self) -> None:
        """Move to the first batch of the next epoch."""
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.record.begin_epoch()


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors as "INDEX.NAME"; the index is that of the parameter."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": tensor for i, part in state.items() for name, tensor in part.items()}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
