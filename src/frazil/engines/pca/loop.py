"""A fit from its state to its end.

Owns: which particles are streamed in which box, when the state is written, the last pass that
embeds all particles. Does not own: what a pass changes (`schedule`), how a run begins (`start`).
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from frazil.engines.backproject import assign_halves
from frazil.engines.distributed import ONE_RANK, Ranks
from frazil.engines.pca import schedule
from frazil.engines.pca.device_pass import worker_on
from frazil.engines.pca.expectation import Posterior
from frazil.engines.pca.partial import PARTIAL_NAME, Partial
from frazil.engines.pca.schedule import Plan, Step
from frazil.engines.pca.state import State
from frazil.engines.pca.streaming import (
    BATCH_COEFFICIENTS,
    BATCH_IMAGES,
    Fit,
    PassSums,
    run_pass,
)
from frazil.geometry.packing import half_disc
from frazil.loader.batches import ParticleBatch
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.runs.checkpoint import save_checkpoint
from frazil.runs.folder import Run
from frazil.runs.journal import Journal
from frazil.store.reader import ParticleStore

WINDOW_ROWS = 8192
_PROCESSOR = torch.device("cpu")
# A kill costs at most this, and the pass under way; of a long one `partial` keeps the sums.
CHECKPOINT_SECONDS = 30.0


@dataclass(eq=False)
class Fitting:
    """A fit under way.

    Attributes
    ----------
    rows : (n,) all particles; `fit_rows` (m,) those of the fit.
    norm_scale : what coefficients are divided by, in every working box.
    loader_bytes : ceiling of the particles' buffers.
    journal_bytes : length of the journal at the state.
    ranks : those among which particles are divided; the first one writes.
    device : where passes run.
    """

    run: Run
    store: ParticleStore
    plan: Plan
    state: State
    rows: NDArray[np.int64]
    fit_rows: NDArray[np.int64]
    norm_scale: float
    loader_bytes: int
    threads: int
    journal_bytes: int = 0
    ranks: Ranks = ONE_RANK
    device: torch.device = _PROCESSOR

    def save(self, journal: Journal) -> None:
        """Write the state to the run's checkpoint."""
        facts = {"state": self.state.numbers(), "journal_bytes": journal.synced_position()}
        save_checkpoint(self.run.checkpoint_path, self.state.tensors(), facts)


@dataclass(frozen=True, eq=False)
class Embedding:
    """Of all particles, float32, in the order of rows.

    mean (n, K) and precision (n, K, K) of the latents; contrast (n,), 1 unless it was estimated.
    """

    mean: NDArray[np.float32]
    precision: NDArray[np.float32]
    contrast: NDArray[np.float32]
    evidence: float


def fit_all(fitting: Fitting) -> Embedding:
    """Run the passes that are left; return the latents of all particles."""
    state, plan = fitting.state, fitting.plan
    source: _Source | None = None
    saved = time.monotonic()
    first = fitting.ranks.first
    opened = Journal(fitting.run.journal_path, fitting.journal_bytes) if first else nullcontext()
    with opened as journal:
        while state.step < len(steps := plan.steps(state.support)):
            step = steps[state.step]
            if source is None or source.box_px != step.box_px:
                source = _Source(fitting, fitting.fit_rows, step.box_px)
            _pass(fitting, step, len(steps), source, journal)
            last = state.step == len(plan.steps(state.support))
            if journal and (last or time.monotonic() - saved >= CHECKPOINT_SECONDS):
                fitting.save(journal)
                saved = time.monotonic()
        start = time.monotonic()
        found = _embed(fitting)
        if journal:
            seconds = time.monotonic() - start
            journal.append({"event": "embed", "images": len(fitting.rows), "seconds": seconds})
            (fitting.run.path / PARTIAL_NAME).unlink(missing_ok=True)
    return found


def _pass(
    fitting: Fitting, step: Step, count: int, source: "_Source", journal: Journal | None
) -> None:
    """Run one pass and take it into the state."""
    state, plan = fitting.state, fitting.plan
    start, number = time.monotonic(), state.step + 1
    geometry = plan.geometry(step.box_px)
    schedule.prepare(state, plan, step, geometry)
    halves = assign_halves(fitting.fit_rows, fitting.store.count).astype(np.int64)
    fit = Fit(
        state.models,
        state.deviation,
        halves if len(state.models) == 2 else np.zeros_like(halves),
        optics_groups(fitting.store),
        geometry,
        plan.contrast,
    )
    what = f"pass {number}/{count} ({step.kind}, {step.box_px} px)"
    keeper = _keeper(fitting, fit, step.kind, source, {})
    worker = worker_on(fitting.device)
    found = run_pass(source.batches(what), fit, True, fitting.threads, None, keeper, worker)
    for part in found:
        part.join(fitting.ranks)
    schedule.advance(state, plan, step, geometry, found)
    for model in state.models:  # where processors differ, so would the last bits
        fitting.ranks.share(model)
    seconds = time.monotonic() - start
    line = _figures(step, found)
    if journal:
        journal.append({"event": "pass", "epoch": number, **line, "seconds": seconds})
        said = f"log likelihood per image {line['evidence']:.2f}, {seconds:.1f} s"
        print(f"# {what}: {said}", flush=True)


def _figures(step: Step, found: list[PassSums]) -> dict[str, float | int | str]:
    images = sum(part.images for part in found)
    evidence = sum(part.evidence for part in found) / images
    return {"kind": step.kind, "box_px": step.box_px, "images": images, "evidence": evidence}


def _embed(fitting: Fitting) -> Embedding:
    """Return the posterior of every particle under the finished model."""
    state = fitting.state
    zdim = fitting.plan.zdim
    position = np.full(fitting.store.count, -1)
    position[fitting.rows] = np.arange(len(fitting.rows))
    mean = np.zeros((len(fitting.rows), zdim), np.float32)
    precision = np.zeros((len(fitting.rows), zdim, zdim), np.float32)
    contrast = np.zeros(len(fitting.rows), np.float32)

    def keep(rows: Tensor, found: Posterior) -> None:
        places = position[rows.numpy()]
        mean[places] = found.mean.cpu().numpy()
        precision[places] = found.precision.cpu().numpy()
        contrast[places] = found.contrast.cpu().numpy()

    one = np.zeros(fitting.store.count, np.int64)
    geometry = fitting.plan.geometry(state.box_px)
    groups, plan = optics_groups(fitting.store), fitting.plan
    fit = Fit(state.models, state.deviation, one, groups, geometry, plan.contrast)
    source = _Source(fitting, fitting.rows, state.box_px)
    results = {"mean": mean, "precision": precision, "contrast": contrast}
    keeper = _keeper(fitting, fit, "embedding", source, results)
    batches, worker = source.batches("embedding"), worker_on(fitting.device)
    found = run_pass(batches, fit, False, fitting.threads, keep, keeper, worker)[0]
    found.join(fitting.ranks)
    for values in results.values():  # each particle was some rank's, and is zero elsewhere
        fitting.ranks.add(values)
    return Embedding(mean, precision, contrast, found.evidence / len(fitting.rows))


def _keeper(
    fitting: Fitting,
    fit: Fit,
    kind: str,
    source: "_Source",
    results: Mapping[str, NDArray[np.float32]],
) -> Partial | None:
    """Return what keeps a long pass; with several ranks nothing does, as they do not stop alike."""
    if fitting.ranks.size > 1:
        return None
    what = {"step": fitting.state.step, "kind": kind, "threads": fitting.threads}
    return Partial(fitting.run.path / PARTIAL_NAME, fit, what, source.loader, results)


def optics_groups(store: ParticleStore) -> NDArray[np.int64]:
    """Return (N,) the optics group of every row; unknown ones are the first."""
    return np.maximum(np.asarray(store.rows["optics_group"]), 0).astype(np.int64)


def first_deviation(store: ParticleStore, box_px: int, norm_scale: float) -> NDArray[np.float32]:
    """Return (groups, S) the RMS of the coefficients, as if all were noise."""
    groups = [group.rms for group in store.manifest.optics] or [store.manifest.shells.rms]
    count = max(len(groups), int(optics_groups(store).max()) + 1)
    groups = [*groups, *[store.manifest.shells.rms] * (count - len(groups))]
    deviation = np.ones((count, box_px // 2 + 1), np.float32)
    for number, rms in enumerate(groups):
        values = np.asarray(rms[: box_px // 2]) / norm_scale
        deviation[number, 1:] = np.maximum(values, 1e-6)
    return deviation


def begin_state(store: ParticleStore, plan: Plan, norm_scale: float) -> State:
    """Return the state before the first pass: empty maps."""
    geometry = plan.geometry(plan.box_px)
    deviation = first_deviation(store, plan.box_px, norm_scale)
    return State([geometry.empty(1), geometry.empty(1)], deviation, plan.box_px, plan.box_px // 2)


class _Source:
    """The particles of one working box, with a progress bar."""

    def __init__(self, fitting: Fitting, rows: NDArray[np.int64], box_px: int) -> None:
        self.box_px, self.ranks, self.device = box_px, fitting.ranks, fitting.device
        self.loader = ParticleLoader(
            fitting.store,
            LoaderSettings(
                batch_size=min(BATCH_IMAGES, BATCH_COEFFICIENTS // len(half_disc(box_px))),
                window_rows=WINDOW_ROWS,
                memory_bytes=fitting.loader_bytes,
            ),
            rows,
            box_px,
            fitting.norm_scale,
            fitting.ranks.rank,
            fitting.ranks.size,
        )

    def batches(self, what: str) -> Iterator[ParticleBatch]:
        """Yield this rank's part of all batches.

        The order is the same in every pass, and later ones take them from memory.
        """
        interval = 0.5 if sys.stderr.isatty() else 30.0
        with tqdm(
            total=self.loader.row_count // self.ranks.size,
            initial=self._taken(),
            desc=what,
            unit="img",
            leave=False,
            file=sys.stderr,
            mininterval=interval,
            disable=not self.ranks.first,
        ) as bar:
            for batch in self.loader.epoch(1, self.device):
                yield batch
                bar.update(len(batch.rows))

    def _taken(self) -> int:
        """Return the particles that a kept pass had before it was stopped."""
        position = self.loader.state_dict()
        return position["batch"] * self.loader.settings.batch_size if position["epoch"] == 1 else 0
