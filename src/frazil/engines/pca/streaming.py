"""One pass over the particles: E-step, and the sums of the M-step.

Owns: how images are dealt to models and workers, what a pass returns, and the worker of the
processor. Does not own: the steps' formulas (`expectation`, `sums`), the stream (`frazil.loader`),
the worker of a GPU (`device_pass`).

Every image belongs to one model (a half set, or the only one). A thread adds into sums that no
other thread touches, so there is no waiting; with more threads than models each model has several
private sums, added at the end.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.distributed import Ranks
from frazil.engines.pca import expectation
from frazil.engines.pca.expectation import Posterior
from frazil.engines.pca.grids import Geometry, to_lanes
from frazil.engines.pca.images import WhiteImages, whitened
from frazil.engines.pca.kernels import extract_kernel, insert_kernel, residual_kernel
from frazil.engines.pca.sums import VoxelSums, upper_triangle
from frazil.loader.batches import ParticleBatch

# Coefficients worked on together: their designs stay near the processor (2 MB at K = 7).
CHUNK_COEFFICIENTS = 26_000
# Images in a batch, sorted by view together: more are faster, up to this many coefficients.
BATCH_IMAGES = 2048
BATCH_COEFFICIENTS = 1 << 23

Listener = Callable[[Tensor, Posterior], None]
# E[(1, z)(1, z)^T] (b, L, L) and the contrast (b,) of some images.
Moments = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Fit:
    """What is fitted, as it is now.

    Attributes
    ----------
    models : half grids (L, Z, Y, X) of each model, all of one shape.
    deviation : (groups, S) noise deviation per optics group and shell.
    model_of_row, group_of_row : (N,) int64, for every row of the store.
    contrast : estimate that of each image.
    """

    models: list[Tensor]
    deviation: NDArray[np.float32]
    model_of_row: NDArray[np.int64]
    group_of_row: NDArray[np.int64]
    geometry: Geometry
    contrast: bool = False


@dataclass(eq=False)
class PassSums:
    """Sums over the images of one model.

    Attributes
    ----------
    voxels : of the M-step; None when it was not asked for.
    second : (L, L) sum of E[(1, z)(1, z)^T].
    evidence : log likelihood, with the noise's constants.
    power, counts : (groups, S) sums of E|whitened residual|^2 and of coefficients, with `voxels`.
    """

    voxels: VoxelSums | None
    second: NDArray[np.float64]
    evidence: float
    power: NDArray[np.float64]
    counts: NDArray[np.int64]
    images: int = 0

    def add(self, other: "PassSums") -> None:
        """Add those of other images of the same model."""
        if self.voxels is not None and other.voxels is not None:
            self.voxels.add(other.voxels)
        self.second += other.second
        self.evidence += other.evidence
        self.power += other.power
        self.counts += other.counts
        self.images += other.images

    def join(self, ranks: Ranks) -> None:
        """Add the sums of all ranks, in place."""
        if self.voxels is not None:
            self.voxels.join(ranks)
        numbers = np.array([self.evidence, self.images])
        for values in (self.second, self.power, self.counts, numbers):
            ranks.add(values)
        self.evidence, self.images = float(numbers[0]), int(numbers[1])


class Worker(Protocol):
    """Adds images up; no other thread touches its sums."""

    def work(self, batch: ParticleBatch, part: Tensor) -> None:
        """Add the images `part` (b,) of a batch."""

    def finished(self) -> PassSums:
        """Return the sums of all images so far, in memory; more may come."""


class Share:
    """The sums of one worker's share of a model, and what every worker does alike."""

    def __init__(self, fit: Fit, model: int, maximise: bool, listener: Listener | None) -> None:
        self.fit, self.maximise, self.listener = fit, maximise, listener
        self.grids = fit.models[model]
        volumes, noise = len(self.grids), fit.deviation.shape
        self.sums = PassSums(
            VoxelSums.zeros(volumes, fit.geometry) if maximise else None,
            np.zeros((volumes, volumes)),
            0.0,
            np.zeros(noise),
            np.zeros(noise, np.int64),
        )
        counts = np.bincount(fit.geometry.shell, minlength=noise[1])
        self.shell_counts = counts
        with np.errstate(divide="ignore"):
            logs = np.where(counts > 0, np.log(np.pi * fit.deviation.astype(np.float64) ** 2), 0)
        self.constant = -(counts * logs).sum(1)  # (groups,)

    def group(self, rows: Tensor) -> NDArray[np.int64]:
        """Return (b,) the optics groups of some images."""
        return self.fit.group_of_row[rows.numpy()]

    def expect(self, rows: Tensor, gram: Tensor) -> Moments:
        """Add what the E-step gives; return what the M-step takes of it, on the same device."""
        sums = self.sums
        found = expectation.posterior(gram, self.fit.contrast)
        second = expectation.moments(found)
        if self.listener is not None:
            self.listener(rows, found)
        sums.second += second.sum(0).cpu().numpy()
        sums.evidence += float(found.evidence.sum()) + float(self.constant[self.group(rows)].sum())
        sums.images += len(rows)
        return second, found.contrast

    def add_noise(self, rows: Tensor, power: NDArray[np.float64]) -> None:
        """Add the residual power (b, S) of some images."""
        group = self.group(rows)
        np.add.at(self.sums.power, group, power)
        np.add.at(self.sums.counts, group, self.shell_counts)


MakeWorker = Callable[[Share], Worker]


class Keeper(Protocol):
    """What may keep a pass while it runs; see `partial.Partial`."""

    def begin(self, sums: list[PassSums]) -> None:
        """Fill the empty sums of all workers with those of batches that need not come again."""

    def after_batch(self, gathered: Callable[[], list[PassSums]]) -> None:
        """Do what is due after a batch; `gathered` gives the sums of all workers."""


def run_pass(
    batches: Iterable[ParticleBatch],
    fit: Fit,
    maximise: bool = True,
    threads: int = 1,
    listener: Listener | None = None,
    keeper: Keeper | None = None,
    make_worker: MakeWorker | None = None,
) -> list[PassSums]:
    """Return the sums of each model over a stream of particles.

    Parameters
    ----------
    maximise : gather the sums of the M-step, too.
    listener : called with rows (b,) and their posterior on the worker's device; by one thread at
        a time per model.
    keeper : may put sums of earlier batches into the empty ones, and keeps them now and then.
    make_worker : who does it; default: the compiled loops.
    """
    copies = max(1, threads // len(fit.models))
    workers = [
        (make_worker or ProcessorWorker)(Share(fit, model, maximise, listener))
        for model in range(len(fit.models))
        for _ in range(copies)
    ]

    def gathered() -> list[PassSums]:
        return [worker.finished() for worker in workers]

    if keeper is not None:
        keeper.begin(gathered())
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for batch in batches:
            owner = torch.from_numpy(fit.model_of_row[batch.rows.numpy()])
            jobs = []
            for number, worker in enumerate(workers):
                mine = torch.nonzero(owner == number // copies).reshape(-1)
                jobs.append((worker, mine[number % copies :: copies]))
            for future in [pool.submit(worker.work, batch, part) for worker, part in jobs]:
                future.result()
            if keeper is not None:
                keeper.after_batch(gathered)
    sums, results = gathered(), []
    for start in range(0, len(workers), copies):
        first, *others = sums[start : start + copies]
        for other in others:
            first.add(other)
        results.append(first)
    return results


def view_order(rotations: Tensor) -> Tensor:
    """Return an order (B,) in which neighbours look from nearly the same side.

    Slices of neighbours share voxels, which then are still in the processor's cache: a third of
    the time less at 64 px. The order goes in bands of equal area around the pole, to and fro; a
    view and its opposite have the same slice.
    """
    normal = rotations[:, 2]
    normal = torch.where(normal[:, 2:] < 0, -normal, normal)
    bands = max(1, int((len(normal) / 3) ** 0.5))
    band = ((1 - normal[:, 2]) * bands).long().clamp(0, bands - 1)
    angle = torch.atan2(normal[:, 1], normal[:, 0])
    return torch.argsort(10.0 * band + torch.where(band % 2 == 0, angle, -angle), stable=True)


def chunk_images(geometry: Geometry) -> int:
    """Return how many images are worked on together."""
    return max(4, CHUNK_COEFFICIENTS // len(geometry.disc))


def working_bytes(volumes: int, geometry: Geometry) -> int:
    """Return the bytes of the chunk buffers of one thread."""
    return 4 * chunk_images(geometry) * len(geometry.disc) * 2 * (2 * (volumes + 1) + 4)


class ProcessorWorker:
    """One thread's share of one model, by compiled loops over small chunks."""

    def __init__(self, share: Share) -> None:
        self.share, self.fit = share, share.fit
        fit, volumes = share.fit, len(share.grids)
        self.grid = to_lanes(share.grids)
        self.chunk = chunk_images(fit.geometry)
        shape = (self.chunk, len(fit.geometry.disc), 2 * (volumes + 1))
        self.design = np.empty(shape, np.float32)
        self.values = torch.empty(self.chunk, 2 * shape[1], volumes + 1) if share.maximise else None
        self.extract, self.insert = extract_kernel(volumes), insert_kernel(volumes)
        self.residual = residual_kernel(volumes)

    def finished(self) -> PassSums:
        """Return the sums."""
        return self.share.sums

    def work(self, batch: ParticleBatch, part: Tensor) -> None:
        """Add some images of a batch."""
        if not len(part):
            return
        part = part[view_order(batch.rotations[part])]
        chunks = torch.split(part, self.chunk)
        if self.values is None:
            # Small matrices: all together cost far less than chunk by chunk.
            grams = np.concatenate([self._gram(batch, chunk)[0] for chunk in chunks])
            self.share.expect(batch.rows[part], torch.from_numpy(grams))
            return
        for chunk in chunks:
            gram, images = self._gram(batch, chunk)
            rows = batch.rows[chunk]
            self._insert(rows, images, self.share.expect(rows, torch.from_numpy(gram)))

    def _gram(self, batch: ParticleBatch, chunk: Tensor) -> tuple[NDArray[np.float32], WhiteImages]:
        """Fill the designs of a chunk; return their Gram matrices (b, L + 1, L + 1)."""
        geometry, count = self.fit.geometry, len(chunk)
        group = self.share.group(batch.rows[chunk])
        images = whitened(batch, chunk, self.fit.deviation, group, geometry)
        design = self.design[:count]
        self.extract(self.grid, *_places(geometry, images), images.data, design)
        columns = design.shape[2] // 2
        gram = np.empty((count, columns, columns), np.float32)
        for matrix, out in zip(design.reshape(count, -1, columns), gram, strict=True):
            np.dot(matrix.T, matrix, out=out)  # BLAS takes half of a symmetric product
        return gram, images

    def _insert(self, rows: Tensor, images: WhiteImages, moments: Moments) -> None:
        """Add to the sums of the M-step."""
        geometry, sums, count = self.fit.geometry, self.share.sums, len(rows)
        if self.values is None or sums.voxels is None:
            raise ValueError("this pass gathers no sums")
        design = self.design[:count]
        matrix = torch.from_numpy(design).view(count, 2 * design.shape[1], -1)
        values = self.values[:count]
        second, contrast = moments
        torch.bmm(matrix, expectation.residual_weights(second, contrast).float(), out=values)
        power = np.zeros((count, self.fit.deviation.shape[1]))
        white = values.view(design.shape).numpy()
        places = _places(geometry, images)
        weights = upper_triangle(contrast[:, None, None] ** 2 * second).numpy()
        self.insert(sums.voxels.recent, *places, weights, white)
        self.residual(design, white, geometry.shell, power)
        sums.voxels.count(count)
        self.share.add_noise(rows, power)


def _places(geometry: Geometry, images: WhiteImages) -> tuple[NDArray[Any], ...]:
    """Return what the kernels take to find an image's voxels."""
    return geometry.shape, images.rotations, geometry.kx, geometry.ky, images.factor
