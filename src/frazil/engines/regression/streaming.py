"""One pass over the particles: sums of the rings around every target, and of all particles.

Owns: residuals around a base, and their insertion into the sums of rings and halves. Does not own:
which image is in which ring (`neighbours`), what the sums give (`shrinkage`), the stream
(`frazil.loader`).

Lanes of a sum at a voxel: w c^2/s^2, then w c/s^2 times each right-hand side, real parts, then
imaginary ones, with trilinear weights w. Right-hand sides are the residual to the base, and, where
there is a base, the image itself.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry, to_lanes
from frazil.engines.pca.images import whitened
from frazil.engines.pca.kernels import extract_kernel, insert_kernel
from frazil.engines.pca.streaming import chunk_images, view_order
from frazil.engines.pca.sums import VoxelSums
from frazil.engines.regression.neighbours import OUTSIDE
from frazil.loader.batches import ParticleBatch

# Coefficients of a batch: enough images to be sorted by view, few enough for small buffers.
BATCH_COEFFICIENTS = 1 << 20


@dataclass(frozen=True, eq=False)
class Base:
    """What is subtracted from each image: a linear model at its latent.

    Attributes
    ----------
    grids : (L, Z, Y, X) half grids, the mean first; None: nothing is subtracted.
    weights : (N, L) float32, (1, z) for every row of the store.
    """

    grids: Tensor | None
    weights: NDArray[np.float32] | None

    @property
    def sides(self) -> int:
        """Right-hand sides that are summed: the residual, and with a base the image."""
        return 1 if self.grids is None else 2


@dataclass(frozen=True, eq=False)
class Task:
    """What a pass sums.

    Attributes
    ----------
    ring : (T, N) uint8 for every target and row of the store; OUTSIDE where it does not count.
    rings : J, how many there are.
    half_of_row, group_of_row : (N,) half set (0, 1) and optics group.
    deviation : (groups, S) noise deviation.
    """

    base: Base
    ring: NDArray[np.uint8]
    rings: int
    half_of_row: NDArray[np.uint8]
    group_of_row: NDArray[np.int64]
    deviation: NDArray[np.float32]
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class RegressionSums:
    """Sums of a pass.

    Attributes
    ----------
    local : (T, 2, J, V * M) float32 by target, half set and ring.
    everything : of all images of each half set, one right-hand side, the image.
    """

    local: NDArray[np.float32]
    everything: tuple[VoxelSums, VoxelSums]


def lane_count(sides: int) -> int:
    """Return M, the numbers per voxel of the sums with this many right-hand sides."""
    return 1 + 2 * sides


def run_pass(batches: Iterable[ParticleBatch], task: Task, threads: int = 1) -> RegressionSums:
    """Return the sums over a stream of particles; each target is one thread's at a time."""
    voxels, sides = int(np.prod(task.geometry.shape)), task.base.sides
    local = np.zeros((len(task.ring), 2, task.rings, voxels * lane_count(sides)), np.float32)
    everything = (VoxelSums.zeros(1, task.geometry), VoxelSums.zeros(1, task.geometry))
    made = _Residuals(task)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for batch in batches:
            images = made.of(batch)
            jobs = [pool.submit(_add_all, everything[half], images, half) for half in (0, 1)]
            jobs += [
                pool.submit(_add_target, local[target], images, task.ring[target])
                for target in range(len(local))
            ]
            for job in jobs:
                job.result()
    return RegressionSums(local, everything)


@dataclass(frozen=True, eq=False)
class _Images:
    """A batch made ready; values (B, P, 2 (sides + 1)) as `insert_kernel` takes them."""

    rows: NDArray[np.int64]
    half: NDArray[np.uint8]
    rotations: NDArray[np.float32]
    factor: NDArray[np.float32]
    values: NDArray[np.float32]
    geometry: Geometry

    def insert(self, sums: NDArray[np.float32], chosen: NDArray[np.int64], first: int) -> None:
        """Add chosen images to sums, with the right-hand sides from number `first` on."""
        half = self.values.shape[-1] // 2
        sides = half - 1 - first
        values = self.values[chosen]
        if first:
            values = np.ascontiguousarray(
                np.concatenate([values[..., first:half], values[..., half + first :]], -1)
            )
        places = self.geometry.shape, self.rotations[chosen], self.geometry.kx, self.geometry.ky
        ones = np.ones((len(chosen), 1), np.float32)
        insert_kernel(sides, 1)(sums, *places, self.factor[chosen], ones, values)


class _Residuals:
    """Makes batches ready."""

    def __init__(self, task: Task) -> None:
        self.task = task
        grids = task.base.grids
        self.grids = task.geometry.empty(1) if grids is None else grids
        self.lanes = to_lanes(self.grids)
        self.extract = extract_kernel(len(self.grids))

    def of(self, batch: ParticleBatch) -> _Images:
        """Return a batch with its residuals, neighbours in view side by side."""
        task, geometry, sides = self.task, self.task.geometry, self.task.base.sides
        order = view_order(batch.rotations)
        rows = batch.rows[order].numpy()
        shape = (len(order), len(geometry.disc))
        factor = np.empty(shape, np.float32)
        rotations = np.empty((len(order), 3, 3), np.float32)
        values = torch.empty(len(order), 2 * shape[1], sides + 1)
        design = np.empty((chunk_images(geometry), shape[1], 2 * (len(self.grids) + 1)), np.float32)
        for start in range(0, len(order), len(design)):
            part = slice(start, start + len(design))
            chunk, own = order[part], rows[part]
            group = task.group_of_row[own]
            images = whitened(batch, chunk, task.deviation, group, geometry)
            factor[part], rotations[part] = images.factor, images.rotations
            out = design[: len(chunk)]
            places = geometry.shape, images.rotations, geometry.kx, geometry.ky, images.factor
            self.extract(self.lanes, *places, images.data, out)
            matrix = torch.from_numpy(out).view(len(chunk), 2 * shape[1], -1)
            torch.bmm(matrix, self._transform(own), out=values[part])
        half = task.half_of_row[rows]
        return _Images(rows, half, rotations, factor, values.view(*shape, -1).numpy(), geometry)

    def _transform(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (b, L + 1, sides + 1), which takes [design | data] to [residual, data, 0]."""
        base, volumes = self.task.base, len(self.grids)
        out = torch.zeros(len(rows), volumes + 1, base.sides + 1)
        out[:, volumes, : base.sides] = 1
        if base.weights is not None:
            out[:, :volumes, 0] = -torch.from_numpy(base.weights[rows])
        return out


def _add_all(sums: VoxelSums, images: _Images, half: int) -> None:
    chosen = np.flatnonzero(images.half == half)
    if len(chosen):
        images.insert(sums.recent, chosen, images.values.shape[-1] // 2 - 2)
        sums.count(len(chosen))


def _add_target(sums: NDArray[np.float32], images: _Images, ring_of_row: NDArray[np.uint8]) -> None:
    ring = ring_of_row[images.rows]
    for half in (0, 1):
        for number in np.unique(ring[(images.half == half) & (ring != OUTSIDE)]):
            images.insert(
                sums[half, number], np.flatnonzero((ring == number) & (images.half == half)), 0
            )
