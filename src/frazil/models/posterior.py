"""An encoder that begins at the posterior of a linear model.

Owns: the map from what a run of train_pca says of a particle to mean and log variance of its
latent. Does not own: that run's files (`frazil.engines.vae.warm`).

An image's posterior mean and variances hold all that its projection onto the principal volumes
says, its pose and CTF taken into account, which a network that sees pixels would have to learn.
"""

import torch
from torch import Tensor, nn

from frazil.models.mlp import ResidualMLP


class PosteriorEncoder(nn.Module):
    """The posterior of the first Z of K components, plus a network's output, 0 at first.

    Parameters
    ----------
    components : K >= Z.
    mlp : hidden size, number of residual layers, activation; see `ResidualMLP`.
    zdim : Z.
    generator : source of the first weights.
    """

    table: Tensor
    place: Tensor

    def __init__(
        self, components: int, mlp: tuple[int, int, str], zdim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        hidden_dim, layers, activation = mlp
        self.components, self.zdim = components, zdim
        self.mlp = ResidualMLP(2 * components, hidden_dim, 2 * zdim, layers, activation, generator)
        self.mlp.silence()
        self.register_buffer("table", torch.empty(0, 2 * components), persistent=False)
        self.register_buffer("place", torch.empty(0, dtype=torch.int64), persistent=False)

    def give(self, rows: Tensor, mean: Tensor, logvar: Tensor) -> None:
        """Take posterior means and log variances (n, K) of rows (n,) of the particles."""
        place = torch.full((int(rows.max()) + 1,), -1)
        place[rows] = torch.arange(len(rows))
        self.place = place.to(self.table.device)
        self.table = torch.cat([mean, logvar], dim=1).float().to(self.table.device)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu (B, Z) and log variance (B, Z) of particles by row (B,)."""
        known = self.table[self.place[rows.to(self.place.device)]]  # (B, 2K)
        mean, logvar = known.chunk(2, dim=1)
        first = torch.cat([mean[:, : self.zdim], logvar[:, : self.zdim]], dim=1)
        mu, logvar = (first + self.mlp(known).to(first.dtype)).chunk(2, dim=1)
        return mu, logvar
