"""The worker of a pass on a GPU, in plain torch; it runs on the processor, too.

Owns: slices of many volumes and their insertion as torch operations, and how many images they take
at once. Does not own: the steps' formulas (`images`, `expectation`), the trilinear weights
(`frazil.geometry.slicing`), the pass (`streaming`).

All numbers are float32 but for the small matrices of the E-step, which are float64: there
differences of large numbers are taken, and they cost next to nothing. Matrix products are those of
float32, not of TF32. On a GPU `index_add_` adds in no fixed order, so the last bits of the sums
differ from run to run.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from frazil.engines.pca.expectation import residual_weights
from frazil.engines.pca.grids import Geometry, to_lanes
from frazil.engines.pca.images import white_tensors
from frazil.engines.pca.streaming import MakeWorker, PassSums, ProcessorWorker, Share
from frazil.engines.pca.sums import FLUSH_IMAGES, lane_count, upper_triangle
from frazil.geometry.rotations import slice_coordinates
from frazil.geometry.slicing import neighbours, to_half_space
from frazil.loader.batches import ParticleBatch

# What the images that are worked on together may take, all intermediates included.
CHUNK_BYTES = 1 << 30
# Bytes per coefficient of CTF, shift, coordinates, and of indices and weights of neighbours (while
# these are gathered). At K = 0 to 20 the peak on the processor, by torch's profiler, is 50 to 84 %
# of a chunk's bytes; the rest is for the copies that embedding_bag makes on a GPU.
_PLACE_BYTES = 480


def worker_on(device: torch.device) -> MakeWorker:
    """Return what makes the worker of a device."""
    if device.type == "cpu":
        return ProcessorWorker
    return partial(DeviceWorker, device=device)


def chunk_images(volumes: int, geometry: Geometry, chunk_bytes: int) -> int:
    """Return how many images of L volumes are worked on together in so many bytes; at least 1."""
    each = _PLACE_BYTES + 4 * (2 * volumes + 6 * (volumes + 1) + 2 * lane_count(volumes))
    return max(1, chunk_bytes // (each * len(geometry.disc)))


def extract(lanes: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sums (n, C) of eight rows each of lanes (V, C).

    Parameters
    ----------
    index, weight : (8, n) of `slicing.neighbours`.
    """
    return torch.nn.functional.embedding_bag(
        index.T, lanes, mode="sum", per_sample_weights=weight.T
    )


def insert(sums: Tensor, index: Tensor, weight: Tensor, values: Tensor) -> None:
    """Add values (n, M) to eight rows each of sums (V, M), in place: the adjoint of `extract`."""
    for rows, amount in zip(index, weight, strict=True):
        sums.index_add_(0, rows, amount[:, None] * values)


class DeviceWorker:
    """One model's images, by torch on a device."""

    def __init__(self, share: Share, device: torch.device, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.share, self.device = share, device
        volumes, geometry = len(share.grids), share.fit.geometry
        self.chunk = chunk_images(volumes, geometry, chunk_bytes)
        disc = geometry.disc
        disc = replace(
            disc, kx=disc.kx.to(device), ky=disc.ky.to(device), shell=disc.shell.to(device)
        )
        self.geometry = replace(geometry, disc=disc)
        self.lanes = torch.from_numpy(to_lanes(share.grids)).view(-1, 2 * volumes).to(device)
        voxels, lanes = len(geometry.voxel_shell), lane_count(volumes)
        self.recent = torch.zeros(voxels, lanes, device=device) if share.maximise else None
        self.recent_images = 0

    def finished(self) -> PassSums:
        """Return the sums, in memory."""
        self._hand_over()
        return self.share.sums

    def work(self, batch: ParticleBatch, part: Tensor) -> None:
        """Add some images of a batch."""
        there = batch.to(self.device)
        for chunk in torch.split(part, self.chunk):
            if len(chunk):
                self._work(there, chunk)

    def _work(self, batch: ParticleBatch, chunk: Tensor) -> None:
        rows, fit = batch.rows[chunk], self.share.fit
        rotations, factor, data = white_tensors(
            batch, chunk.to(self.device), fit.deviation, self.share.group(rows), self.geometry
        )
        index, weight, flipped = self._places(rotations)
        design = self._design(index, weight * factor.view(-1), flipped, data)  # (b, 2 P, L + 1)
        moments = self.share.expect(rows, design.mT @ design)
        if self.recent is None:
            return
        values, power = self._residuals(design, *moments)
        self.share.add_noise(rows, power.cpu().numpy())
        insert(self.recent, index, weight, _additions(values, factor, *moments))
        self.recent_images += len(rows)
        if self.recent_images >= FLUSH_IMAGES:
            self._hand_over()

    def _places(self, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return index and weight (8, b P) of the slices' neighbours, and where kx < 0, (b P,)."""
        disc, shape = self.geometry.disc, torch.Size(self.geometry.shape.tolist())
        kx, ky = (self.geometry.padding * k.to(rotations) for k in (disc.kx, disc.ky))
        points, flipped = to_half_space(slice_coordinates(rotations, kx, ky).view(-1, 3))
        return *neighbours(points, shape), flipped

    def _design(self, index: Tensor, weight: Tensor, flipped: Tensor, data: Tensor) -> Tensor:
        """Return (b, 2 P, L + 1), the whitened volumes and data; conjugates where kx < 0.

        The real and imaginary part of a coefficient are neighbours.
        """
        volumes = self.lanes.shape[1] // 2
        design = data.new_empty(*data.shape, volumes + 1)  # (b, P, 2, L + 1)
        design[..., :volumes] = extract(self.lanes, index, weight).view(*data.shape, volumes)
        design[..., 0, volumes] = data[..., 0]
        sign = 1 - 2 * flipped.view(data.shape[:2]).to(data)
        design[..., 1, volumes] = sign * data[..., 1]
        return design.view(len(data), -1, volumes + 1)

    def _residuals(self, design: Tensor, second: Tensor, contrast: Tensor) -> tuple[Tensor, Tensor]:
        """Return the right-hand sides (b, 2 P, L + 1), and E|whitened residual|^2 (b, S) float64.

        See `kernels.residual_kernel`.
        """
        values = design @ residual_weights(second, contrast).float()
        sign = design.new_full((design.shape[2],), -1.0)
        sign[-1] = 1.0
        found = ((design * values) @ sign).view(len(design), -1, 2).sum(2)  # (b, P)
        shells = self.share.fit.deviation.shape[1]
        power = found.new_zeros(len(found), shells, dtype=torch.float64)
        return values, power.index_add_(1, self.geometry.disc.shell, found.double())

    def _hand_over(self) -> None:
        """Add what the device has summed to the sums in memory, which go to float64 in time."""
        voxels = self.share.sums.voxels
        if self.recent is None or voxels is None or not self.recent_images:
            return
        voxels.recent += self.recent.cpu().numpy().reshape(-1)
        voxels.count(self.recent_images)
        self.recent.zero_()
        self.recent_images = 0


def _additions(values: Tensor, factor: Tensor, second: Tensor, contrast: Tensor) -> Tensor:
    """Return (b P, M), what every coefficient adds to the normal equations of its neighbours."""
    volumes = second.shape[1]
    weights = upper_triangle(contrast[:, None, None] ** 2 * second)
    right = values.view(*factor.shape, 2, volumes + 1)[..., :volumes].flatten(2)  # (b, P, 2 L)
    scaled = factor[:, :, None]
    return torch.cat([scaled**2 * weights[:, None], scaled * right], 2).flatten(0, 1)
