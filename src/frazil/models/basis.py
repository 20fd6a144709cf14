"""Volumes as a sum of Fourier grids whose coefficients depend on the latent.

Owns: the grids, their slices, and the map from a latent to coefficients: linear, which is a run of
train_pca, plus a network. Does not own: where the grids come from and how they are moved
(`frazil.engines.vae`).

Half grids of L volumes (the mean first) are kept as lanes (V, 2L), see `geometry.slicing`. Slices
are trilinear, so a grid is that of its map divided by the response of the interpolation.
"""

import torch
from torch import Tensor, nn

from frazil.geometry.packing import HalfDisc
from frazil.geometry.rotations import slice_coordinates
from frazil.geometry.slicing import (
    extract_many,
    half_grid_from_volume,
    half_grid_shape,
    slice_response,
    volume_from_half_grid,
)
from frazil.models.linear import values_at
from frazil.models.mlp import ResidualMLP


class GridVolumes(nn.Module):
    """L volumes on half grids of a box; the first is the mean.

    Parameters
    ----------
    disc : the P frequencies of a slice.
    volumes : L.
    trained : whether they are parameters (or buffers).
    """

    lanes: Tensor

    def __init__(self, disc: HalfDisc, volumes: int, trained: bool) -> None:
        super().__init__()
        self.disc = disc
        self.shape = torch.Size(half_grid_shape(disc.box_px))
        lanes = torch.zeros(self.shape.numel(), 2 * volumes)
        if trained:
            self.lanes = nn.Parameter(lanes)
        else:
            self.register_buffer("lanes", lanes)
        self._finished: tuple[int, Tensor, Tensor] | None = None

    @property
    def grids(self) -> Tensor:
        """Half grids (L, Z, Y, X), complex."""
        parts = self.lanes.detach().view(*self.shape, 2, -1)
        joined = torch.complex(parts[..., 0, :].contiguous(), parts[..., 1, :].contiguous())
        return joined.permute(3, 0, 1, 2).contiguous()

    @torch.no_grad()
    def set_grids(self, grids: Tensor) -> None:
        """Take half grids (l, Z, Y, X) as the first l volumes; the others become 0."""
        count, volumes = len(grids), self.lanes.shape[1] // 2
        flat = grids.reshape(count, -1).to(self.lanes.device)
        self.lanes.zero_()
        self.lanes[:, :count] = flat.real.T
        self.lanes[:, volumes : volumes + count] = flat.imag.T

    def on_slices(self, rotations: Tensor, coefficients: Tensor) -> Tensor:
        """Return (B, P) slices at rotations (B, 3, 3) of the sums with coefficients (B, L)."""
        kx, ky = self.disc.kx.to(rotations), self.disc.ky.to(rotations)
        points = slice_coordinates(rotations, kx, ky)  # (B, P, 3)
        slices = extract_many(self.lanes, self.shape, points)  # (B, P, L)
        parts = torch.view_as_real(slices) * coefficients[:, None, :, None].to(rotations.dtype)
        return torch.view_as_complex(parts.sum(2))

    @torch.no_grad()
    def at_points(self, points: Tensor, coefficients: Tensor) -> Tensor:
        """Return (M,) coefficients at whole points (M, 3) of the map of one sum (L,)."""
        version, known = self.lanes._version, self._finished
        if known is None or known[0] != version or not torch.equal(known[1], coefficients):
            grid = torch.einsum("lzyx,l->zyx", self.grids, coefficients.to(torch.complex64))
            response = slice_response(self.disc.box_px).to(grid.device)
            finished = half_grid_from_volume(volume_from_half_grid(grid) * response)
            known = (version, coefficients.clone(), finished)
            self._finished = known
        return values_at(known[2][None], points)[0]


class BasisDecoder(nn.Module):
    """Volumes whose coefficients are (1, z) plus a network's output.

    With `components` K volumes beside the mean that begin at the principal volumes of a linear
    model, and the network silent for them, the start is that model. Volumes beyond K begin at 0,
    with coefficients that do not: only so can they be moved.

    Parameters
    ----------
    volumes : M, number of volumes beside the mean.
    components : K.
    mlp : hidden size, number of residual layers, activation; see `ResidualMLP`.
    zdim : Z.
    generator : source of the first weights.
    """

    def __init__(
        self,
        disc: HalfDisc,
        volumes: int,
        components: int,
        mlp: tuple[int, int, str],
        zdim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        hidden_dim, layers, activation = mlp
        self.disc, self.volumes = disc, volumes
        self.register_buffer("kx", disc.kx.clone(), persistent=False)
        self.register_buffer("ky", disc.ky.clone(), persistent=False)
        self.basis = GridVolumes(disc, volumes + 1, trained=True)
        self.mlp = ResidualMLP(zdim, hidden_dim, volumes, layers, activation, generator)
        self.mlp.silence(min(volumes, components))

    kx: Tensor
    ky: Tensor

    def coefficients(self, z: Tensor) -> Tensor:
        """Return (B, M + 1) coefficients of latents (B, Z), that of the mean first."""
        linear = linear_coefficients(z, self.volumes)
        moved = linear[:, 1:] + self.mlp(z).to(z.dtype)
        return torch.cat([linear[:, :1], moved], dim=1)

    def on_slices(self, rotations: Tensor, z: Tensor) -> Tensor:
        """Return (B, P) complex coefficients of the slices of rotations (B, 3, 3) at z (B, Z)."""
        return self.basis.on_slices(rotations, self.coefficients(z))

    def at_points(self, points: Tensor, z: Tensor) -> Tensor:
        """Return (M,) complex coefficients at points (M, 3) in cycles per box, for one z (Z,)."""
        return self.basis.at_points(points, self.coefficients(z[None])[0])


def linear_coefficients(z: Tensor, volumes: int) -> Tensor:
    """Return (B, M + 1): 1, then as many of z (B, Z) as there are volumes, filled up with 0."""
    count = min(volumes, z.shape[1])
    one = torch.ones_like(z[:, :1])
    return torch.cat([one, z[:, :count], z.new_zeros(len(z), volumes - count)], dim=1)
