"""The decoder: the Fourier transform of a volume at any frequency, given a latent.

Owns: the coordinate network and the Hermitian symmetry of what it represents. Does not own: CTF,
shifts and the scale of the data.
"""

import torch
from torch import Tensor, nn

from frazil.geometry.packing import HalfDisc
from frazil.models.encodings import GaussianFeatures
from frazil.models.mlp import ResidualMLP


class Decoder(nn.Module):
    """Residual MLP from [features of k, z] to (Re F, Im F), learned for k_z <= 0.

    A point with k_z > 0 is evaluated at -k and conjugated, so that the volume is real. (Where
    k_z = 0, the point with k_y < 0, or k_y = 0 and k_x < 0, is the one evaluated.)
    The first layer is split, W [f, z] + b = W_f f + (W_z z + b), so z is added once per image.

    Parameters
    ----------
    features : positional features of the training box.
    disc : the P frequencies of a slice.
    mlp : hidden size, number of residual layers, activation; see `ResidualMLP`.
    zdim : Z.
    generator : source of the first weights.

    References
    ----------
    Zhong et al., ICLR 2020, section 4; Nat. Methods 18, 176 (2021), Methods.
    """

    kx: Tensor
    ky: Tensor

    def __init__(
        self,
        features: GaussianFeatures,
        disc: HalfDisc,
        mlp: tuple[int, int, str],
        zdim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.features = features
        self.disc = disc
        self.register_buffer("kx", disc.kx.clone(), persistent=False)
        self.register_buffer("ky", disc.ky.clone(), persistent=False)
        hidden_dim, layers, activation = mlp
        in_dim = features.out_dim + zdim
        self.mlp = ResidualMLP(in_dim, hidden_dim, 2, layers, activation, generator)

    def on_slices(self, rotations: Tensor, z: Tensor) -> Tensor:
        """Return (B, P) complex coefficients of the slices of rotations (B, 3, 3) at z (B, Z)."""
        disc = HalfDisc(self.disc.box_px, self.kx, self.ky, self.disc.shell, self.disc.bands)
        # 1. Which points lie in the half space that is not learned. k3 = R^T (kx, ky, 0).
        x, y, depth = (
            rotations[:, 0, i, None] * disc.kx + rotations[:, 1, i, None] * disc.ky
            for i in range(3)
        )
        mirror = 1 - 2 * _is_mirrored(x, y, depth).long()  # (B, P)
        # 2. Features, then the first layer in two parts.
        features = self.features.on_slices(rotations, disc, mirror)  # (B, P, 2F)
        of_features, of_z = self._split_first_layer(z)
        weight = self.features.interleave(of_features).T.expand(len(z), -1, -1)
        first = torch.baddbmm(of_z[:, None], features, weight)  # (B, P, H)
        # 3. The rest of the network, and the conjugate where the point was mirrored.
        values = self.mlp.after_first(first).view(*mirror.shape, 2).to(rotations.dtype)
        return torch.complex(values[..., 0], values[..., 1] * mirror)

    def at_points(self, points: Tensor, z: Tensor) -> Tensor:
        """Return (M,) complex coefficients at points (M, 3) in cycles per box, for one z (Z,)."""
        mirrored = _is_mirrored(*points.unbind(1))
        mirror = 1 - 2 * mirrored.to(points.dtype)  # (M,)
        features = self.features.at_points(points * mirror[:, None])
        of_features, of_z = self._split_first_layer(z[None])
        first = nn.functional.linear(features, of_features) + of_z
        values = self.mlp.after_first(first).to(points.dtype)  # (M, 2)
        return torch.complex(values[:, 0], values[:, 1] * mirror)

    def _split_first_layer(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return W_f (H, 2F) and W_z z + b (B, H)."""
        weight, bias = self.mlp.weights[0], self.mlp.biases[0]
        count = self.features.out_dim
        return weight[:, :count], nn.functional.linear(z, weight[:, count:], bias)


def _is_mirrored(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Return which points are represented by their mirror image -k."""
    return (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
