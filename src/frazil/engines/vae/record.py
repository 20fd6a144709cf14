"""What an epoch leaves behind: mean losses, and the latent of every particle.

Owns: the sums, the latents collected as particles are trained, and the refusal of losses that are
not finite. Does not own: the steps (`step`) and the files (`frazil.runs`).

Results stay on the device until they are settled, so that no step waits for it.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.vae.step import StepResult
from frazil.errors import InputError

_NAMED_ROWS = 5


class Sums:
    """Sums over images of reconstruction error and divergence, added batch by batch."""

    def __init__(self, images: int = 0, error: float = 0.0, divergence: float = 0.0) -> None:
        self.images, self.error, self.divergence = images, error, divergence

    def add(self, images: int, error: float, divergence: float) -> None:
        """Add the sums of one batch."""
        self.images += images
        self.error += error
        self.divergence += divergence

    def means(self, beta: float, half_plane: int) -> dict[str, float]:
        """Return the mean losses by the names of the journal."""
        error, divergence = self.error / self.images, self.divergence / self.images
        loss = error + beta * divergence / (2 * half_plane)
        return {"loss": loss, "gen_loss": error, "kld": divergence, "beta": beta}

    def to_json(self) -> dict[str, float]:
        """Return the three numbers by name."""
        return dict(vars(self))


class EpochRecord:
    """Sums and latents of the epoch under way.

    Parameters
    ----------
    rows : (n,) distinct rows of the input that are trained; latents are in this order.
    zdim : Z.

    Attributes
    ----------
    epoch : sums since the epoch began; `interval` : since the last log line.
    latents : (n, 2Z), mu then log variance of each particle when it was last trained; NaN before.
    """

    def __init__(self, rows: NDArray[np.int64], zdim: int) -> None:
        self._position = torch.full((int(rows.max()) + 1,), -1)
        self._position[torch.from_numpy(rows)] = torch.arange(len(rows))
        self.latents = torch.full((len(rows), 2 * zdim), torch.nan)
        self.epoch, self.interval = Sums(), Sums()
        self._waiting: list[tuple[Tensor, StepResult]] = []
        self._waiting_images = 0

    @property
    def images(self) -> int:
        """Images trained in this epoch."""
        return self.epoch.images + self._waiting_images

    def add(self, rows: Tensor, result: StepResult) -> None:
        """Take the result of a step on these rows, without reading it."""
        self._waiting.append((rows, result))
        self._waiting_images += len(rows)

    def settle(self) -> None:
        """Read what waits: add it to the sums and write its latents.

        Raises
        ------
        InputError : a loss is not finite; names the first batch's rows that are.
        """
        if not self._waiting:
            return
        results = [result for _, result in self._waiting]
        losses = torch.stack(
            [
                torch.cat([result.error for result in results]),
                torch.cat([result.divergence for result in results]),
            ]
        ).cpu()
        found = torch.cat([torch.cat([r.mu, r.logvar], dim=1) for r in results]).cpu()
        start = 0
        for rows, _ in self._waiting:
            stop = start + len(rows)
            part = losses[:, start:stop].double()
            _require_finite(rows, part)
            error, divergence = part.sum(dim=1).tolist()
            self.epoch.add(len(rows), error, divergence)
            self.interval.add(len(rows), error, divergence)
            self.latents[self.positions(rows)] = found[start:stop]
            start = stop
        self._waiting, self._waiting_images = [], 0

    def positions(self, rows: Tensor) -> Tensor:
        """Return the places (B,) of rows in the order of the latents."""
        return self._position[rows]

    def begin_epoch(self) -> None:
        """Set the sums to zero; latents stay until they are overwritten."""
        self.epoch, self.interval = Sums(), Sums()

    def take_interval(self) -> Sums:
        """Return the sums since the last log line, and begin the next interval."""
        taken, self.interval = self.interval, Sums()
        return taken

    def restore(self, latents: Tensor, sums: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from a checkpoint."""
        self.latents = latents
        self.epoch, self.interval = (_sums(sums[name]) for name in ("epoch", "interval"))


def _sums(saved: Mapping[str, float]) -> Sums:
    return Sums(int(saved["images"]), saved["error"], saved["divergence"])


def _require_finite(rows: Tensor, losses: Tensor) -> None:
    """Raise InputError when a loss (2, B) is NaN or infinite."""
    bad = rows[~torch.isfinite(losses).all(dim=0)].tolist()
    if not bad:
        return
    named = ", ".join(map(str, bad[:_NAMED_ROWS]))
    more = f" and {len(bad) - _NAMED_ROWS} more" if len(bad) > _NAMED_ROWS else ""
    raise InputError(
        f"the loss is not finite, first for rows {named}{more} (0-based, of one batch of "
        f"{len(rows)}); the last checkpoint is good: leave these rows out with --ind, or lower --lr"
    )
