"""The steps of a basis of volumes: preconditioned by how often voxels are seen.

Owns: the insertion weights, the step and its size. Does not own: the gradient (autograd), the
volumes' prior (`warm`).

The error of all images is nearly quadratic in a voxel, with the curvature sum of w c^2 a^2 (w the
trilinear weight, c the CTF, a the coefficient, whose mean square is about 1). A gradient divided by
that, and by the prior's precision, is a step to the best voxel for the images of the batch. Step t
goes 1/(t + t0) of the way, which averages over all batches; the start counts as one epoch, t0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frazil.engines.pca.grids import Geometry, masked
from frazil.engines.vae.settings import TrainingSettings
from frazil.engines.vae.warm import PcaStart
from frazil.geometry.ctf import ctf
from frazil.geometry.rotations import slice_coordinates
from frazil.geometry.slicing import insert_real
from frazil.loader.prefetch import ParticleLoader
from frazil.models.basis import BasisDecoder, GridVolumes
from frazil.models.vae import VAE

# Images whose views and CTFs stand for all, and how many are inserted at a time.
WEIGHED_IMAGES = 20_000
_CHUNK_IMAGES = 64
# The volumes are masked so often in an epoch: the transform of all takes longer than a step.
MASKED_PER_EPOCH = 10


class VolumeAdam(torch.optim.Adam):
    """Adam for networks; for the grids of a basis the preconditioned step.

    Parameters
    ----------
    networks : parameters that Adam moves.
    basis : of L volumes.
    weight : (V,) mean over images of w c^2.
    start : prior and mask of the volumes; those beyond its own have the prior of its last one.
    images : N.
    training : images per step; rate and decay of Adam.
    """

    def __init__(
        self,
        networks: list[torch.nn.Parameter],
        basis: GridVolumes,
        weight: Tensor,
        start: PcaStart,
        images: int,
        training: TrainingSettings,
    ) -> None:
        lanes = basis.lanes
        groups: list[dict[str, Any]] = [{"params": networks}, {"params": [lanes]}]
        super().__init__(groups, lr=training.lr, weight_decay=training.wd, fused=True)
        self.state[lanes] = {"step": torch.zeros((), device=lanes.device)}
        self._basis, self._mask = basis, start.mask
        self._geometry = Geometry.of(basis.disc.box_px)
        self._epoch_steps = -(-images // training.batch_size)
        volumes = lanes.shape[1] // 2
        last = np.repeat(start.ridge[-1:], max(0, volumes - len(start.ridge)), 0)
        ridge = np.concatenate([start.ridge[:volumes], last]) / images  # (L, S)
        shell = self._geometry.voxel_shell
        inside = torch.from_numpy(shell >= 0)[:, None]
        by_voxel = torch.from_numpy(ridge[:, shell].T.astype(np.float32))  # (V, L)
        self._ridge = by_voxel.repeat(1, 2).to(lanes.device)
        whole = weight.view(-1, 1).to(lanes.device) + self._ridge
        self._inverse = torch.where(inside.to(lanes.device), 1 / whole, 0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make a step; the gradient is that of the mean error of a batch."""
        lanes = self._basis.lanes
        gradient, lanes.grad = lanes.grad, None  # Adam passes over what has none
        loss = super().step(closure)
        if gradient is None:
            return loss
        count = self.state[lanes]["step"]
        count += 1
        joined = joined_plane(gradient.view(*self._basis.shape, 2, -1)).view_as(lanes)
        # The error is a mean over P coefficients of |.|^2, whose derivative has a factor of 2.
        towards = joined * (len(self._basis.disc) / 2) + self._ridge * lanes
        lanes -= towards * self._inverse / (count + self._epoch_steps)
        if self._mask is not None and int(count) % self._mask_interval == 0:
            grids = masked(self._basis.grids.cpu(), self._mask, self._geometry)
            self._basis.set_grids(grids)
        return loss

    @property
    def _mask_interval(self) -> int:
        return max(1, self._epoch_steps // MASKED_PER_EPOCH)


def make_optimiser(
    model: VAE, training: TrainingSettings, loader: ParticleLoader, start: PcaStart | None
) -> torch.optim.Optimizer:
    """Return the optimiser of a model; `start` is there where its decoder is a basis."""
    if start is None or not isinstance(model.decoder, BasisDecoder):
        return torch.optim.Adam(
            model.parameters(), lr=training.lr, weight_decay=training.wd, fused=True
        )
    basis = model.decoder.basis
    networks = [parameter for parameter in model.parameters() if parameter is not basis.lanes]
    weight = insertion_weights(loader)
    return VolumeAdam(networks, basis, weight, start, loader.row_count, training)


def insertion_weights(loader: ParticleLoader) -> Tensor:
    """Return (V,) the mean over images of trilinear weight times CTF^2, from poses and CTFs alone.

    The plane kx = 0 is joined as in `joined_plane`. Of many images a regular sample is taken.
    """
    columns, disc = loader.columns, loader.disc
    chosen = torch.arange(0, len(columns.rows), max(1, len(columns.rows) // WEIGHED_IMAGES))
    weight = torch.zeros(*Geometry.of(loader.box_px).shape.tolist())
    for part in torch.split(chosen, _CHUNK_IMAGES):
        rotations = columns.rotations[part].float()
        points = slice_coordinates(rotations, disc.kx.to(rotations), disc.ky.to(rotations))
        squared = torch.ones(points.shape[:2])
        if columns.ctf_parameters is not None:
            squared = ctf(disc.kx, disc.ky, columns.ctf_parameters[part].float(), disc.box_px) ** 2
        insert_real(weight, points, squared)
    joined = joined_plane(weight[..., None, None].expand(*weight.shape, 2, 1))
    return joined[..., 0, 0].reshape(-1) / len(chosen)


def joined_plane(lanes: Tensor) -> Tensor:
    """Return (Z, Y, X, 2, L) with k and -k of the plane kx = 0 added, as `slicing.symmetrise`.

    The second last axis is that of real and imaginary parts.
    """
    joined = lanes.clone()
    plane = lanes[:-1, :-1, 0]
    sign = torch.tensor([1.0, -1.0], device=lanes.device)[:, None]
    joined[:-1, :-1, 0] = plane + torch.flip(plane, dims=(0, 1)) * sign
    return joined
