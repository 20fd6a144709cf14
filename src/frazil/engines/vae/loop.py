"""The training loop.

Owns: epochs, when to log, when to write a checkpoint, and stopping on a signal. Does not own: a
step (`step`), the state (`state`), how a run begins (`start`).
"""

import signal
import sys
import threading
import time
from contextlib import nullcontext
from types import FrameType, TracebackType
from typing import Self

import torch
from tqdm import tqdm

from frazil.engines.vae.outputs import write_latents, write_weights
from frazil.engines.vae.state import Training
from frazil.engines.vae.step import centred_images, latents, training_step
from frazil.runs.journal import Journal

CHECKPOINT_SECONDS = 600.0


def train(training: Training) -> None:
    """Train until the run has all its epochs.

    Raises
    ------
    KeyboardInterrupt : SIGINT or SIGTERM came; a checkpoint was written first.
    InputError : a loss is not finite.
    FrazilError, OSError : packing meanwhile failed; a checkpoint was written first.
    """
    settings = training.settings.training
    with (
        Journal(training.run.journal_path, training.journal_bytes) as journal,
        _Stop() as stop,
        training.packing or nullcontext(),
    ):
        while training.epoch <= settings.epochs:
            if training.epoch > 1:
                training.read_packed(lambda: stop.requested)
            seconds = _train_epoch(training, journal, stop)
            _close_epoch(training, journal, seconds, stop)
        if stop.requested:
            raise KeyboardInterrupt


def _train_epoch(training: Training, journal: Journal, stop: "_Stop") -> float:
    """Train what is left of the epoch; return the seconds that the epoch took in all."""
    settings, record, beta = training.settings.training, training.record, training.settings.beta
    clock, packing = _Clock(training.seconds, record.images), training.packing
    with _bar(training) as bar:
        for batch in training.loader.epoch(training.epoch):
            result = training_step(
                training.model,
                training.optimiser,
                batch.to(training.device),
                beta,
                training.generator,
                training.bfloat16,
            )
            before = record.images
            record.add(batch.rows, result)
            training.batch += 1
            bar.update(len(batch.rows))
            if record.images // settings.log_interval > before // settings.log_interval:
                _log(training, journal, clock)
            failed = packing is not None and packing.failed
            if stop.requested or failed or clock.checkpoint_due():
                training.save(journal, clock.seconds)
            if stop.requested:
                raise KeyboardInterrupt
            if packing is not None and failed:
                packing.check()
    return clock.seconds


def _log(training: Training, journal: Journal, clock: "_Clock") -> None:
    """Write the mean losses since the last line to the journal and to stdout."""
    record = training.record
    record.settle()
    means = record.take_interval().means(training.settings.beta, len(training.model.disc))
    facts = {"epoch": training.epoch, "batch": training.batch, "images": record.images}
    journal.append({**facts, **means, "images_per_s": clock.images_per_s(record.images)})
    tqdm.write(
        f"# [Train Epoch: {training.epoch}/{training.settings.training.epochs}] "
        f"[{record.images}/{training.loader.row_count} images] gen loss={means['gen_loss']:.6f}, "
        f"kld={means['kld']:.6f}, beta={means['beta']:.6f}, loss={means['loss']:.6f}",
        file=sys.stdout,
    )
    sys.stdout.flush()


def _close_epoch(training: Training, journal: Journal, seconds: float, stop: "_Stop") -> None:
    """Write what the epoch gave; the checkpoint comes last, so a kill repeats the epoch's end."""
    settings, record, epoch = training.settings.training, training.record, training.epoch
    record.settle()
    means = record.epoch.means(training.settings.beta, len(training.model.disc))
    last = epoch == settings.epochs
    if last:
        training.save(journal, seconds)  # the steps are safe while all images are read once more
        training.read_packed(lambda: stop.requested)
        _evaluate_latents(training, stop)
    if last or epoch % settings.checkpoint == 0:
        write_weights(training.run, epoch, training.model)
        write_latents(training.run, epoch, record.latents.numpy(), settings.z_pkl)
    journal.append(
        {"event": "epoch", "epoch": epoch, "images": record.images, **means, "seconds": seconds}
    )
    print(
        f"# =====> Epoch: {epoch} Average gen loss = {means['gen_loss']:.6f}, "
        f"KLD = {means['kld']:.6f}, total loss = {means['loss']:.6f}; Finished in {seconds:.1f} s",
        flush=True,
    )
    training.begin_next_epoch()
    training.save(journal, 0.0)


@torch.no_grad()
def _evaluate_latents(training: Training, stop: "_Stop") -> None:
    """Replace the latents by those of the weights as they are now.

    Raises
    ------
    KeyboardInterrupt : SIGINT or SIGTERM came.
    """
    total = training.loader.row_count
    found = torch.empty_like(training.record.latents)
    with tqdm(
        total=total, desc="latents", unit="img", file=sys.stderr, mininterval=_bar_interval_s()
    ) as bar:
        for batch in training.loader.in_order():
            centred, transfer = centred_images(training.model, batch.to(training.device))
            with torch.autocast(training.device.type, torch.bfloat16, enabled=training.bfloat16):
                mu, logvar = latents(training.model, batch.rows, centred, transfer)
            positions = training.record.positions(batch.rows)
            found[positions] = torch.cat([mu, logvar], dim=1).cpu()
            bar.update(len(batch.rows))
            if stop.requested:
                raise KeyboardInterrupt
    training.record.latents = found


def _bar(training: Training) -> "tqdm[None]":
    return tqdm(
        total=training.loader.row_count,
        initial=training.record.images,
        desc=f"epoch {training.epoch}/{training.settings.training.epochs}",
        unit="img",
        file=sys.stderr,
        leave=False,
        mininterval=_bar_interval_s(),
    )


def _bar_interval_s() -> float:
    """Return how often a bar is drawn: seldom where it fills a file."""
    return 0.5 if sys.stderr.isatty() else 30.0


class _Clock:
    """Time in an epoch, over restarts, and when the next checkpoint is due."""

    def __init__(self, seconds_before: float, images_before: int) -> None:
        self._start = self._checkpoint = time.monotonic()
        self._seconds_before, self._images_before = seconds_before, images_before

    @property
    def seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._start

    def images_per_s(self, images: int) -> float:
        return (images - self._images_before) / max(time.monotonic() - self._start, 1e-9)

    def checkpoint_due(self) -> bool:
        now = time.monotonic()
        if now - self._checkpoint < CHECKPOINT_SECONDS:
            return False
        self._checkpoint = now
        return True


class _Stop:
    """Notes SIGINT and SIGTERM, so that the step under way ends; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._former:
            number, handler = self._former.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]
