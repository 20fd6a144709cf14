"""The encoder: from an image to the mean and log variance of its latent.

Owns: which frequencies it sees. Does not own: centring and phase correction of its input.
"""

import torch
from torch import Tensor, nn

from frazil.geometry.packing import HalfDisc
from frazil.models.mlp import ResidualMLP


class Encoder(nn.Module):
    """Residual MLP from the Hartley values of a disc to (mu, log variance).

    Parameters
    ----------
    disc : the frequencies of the images.
    radius_px : largest |k| that is seen; -1 or D/2 sees the whole disc, which is all that a
        store keeps.
    mlp : hidden size, number of residual layers, activation; see `ResidualMLP`.
    zdim : Z.
    generator : source of the first weights.
    """

    seen: Tensor

    def __init__(
        self,
        disc: HalfDisc,
        radius_px: int,
        mlp: tuple[int, int, str],
        zdim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        inside = torch.ones(len(disc), dtype=torch.bool)
        if radius_px >= 0:
            inside = disc.kx**2 + disc.ky**2 <= radius_px**2
        seen = torch.nonzero(torch.cat([inside, inside])).flatten()  # H(k), then H(-k)
        self.sees_all = bool(inside.all())
        self.register_buffer("seen", seen, persistent=False)
        hidden_dim, layers, activation = mlp
        self.mlp = ResidualMLP(len(seen), hidden_dim, 2 * zdim, layers, activation, generator)

    def forward(self, hartley: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu (B, Z) and log variance (B, Z) of Hartley values (B, 2P)."""
        visible = hartley if self.sees_all else hartley.index_select(1, self.seen)
        mu, logvar = self.mlp(visible).to(hartley.dtype).chunk(2, dim=1)
        return mu, logvar
