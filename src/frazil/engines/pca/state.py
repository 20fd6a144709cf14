"""The whole state of a fit between two passes, and its way to a checkpoint and back.

Owns: what a state is made of, so that stop and restart gives what an uninterrupted fit gives. Does
not own: the file (`frazil.runs.checkpoint`) and what a pass changes (`schedule`).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(eq=False)
class State:
    """A fit before pass number `step` (from 0).

    Attributes
    ----------
    models : half grids (L, Z, Y, X) of the two half sets, later of all particles.
    deviation : (groups, S) float32 noise deviation by optics group and shell 0 to D/2.
    box_px : side of the working box of the models.
    support : largest radius in cycles per box that the half maps of the mean support.
    consensus : half grids (1, Z, Y, X) of the mean of each half set, at the full box.
    consensus_weight : (S,) mean weight of a voxel in one half set.
    mean_ridge : (S,) prior precision of the mean.
    power_ratio : (K,) power of each component relative to the mean.
    mask : (D, D, D) float32 of the full box; None before there is one.
    canonical : (K,) correlations of the components of both half sets at low resolution.
    facts : figures that the report shows.
    """

    models: list[Tensor]
    deviation: NDArray[np.float32]
    box_px: int
    support: int
    step: int = 0
    consensus: list[Tensor] = field(default_factory=list)
    consensus_weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    mean_ridge: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    power_ratio: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    mask: Tensor | None = None
    canonical: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    facts: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is an array, by name."""
        out = {f"models.{i}": torch.view_as_real(grid) for i, grid in enumerate(self.models)}
        out |= {f"consensus.{i}": torch.view_as_real(g) for i, g in enumerate(self.consensus)}
        for name in _ARRAYS:
            out[name] = torch.from_numpy(getattr(self, name))
        if self.mask is not None:
            out["mask"] = self.mask
        return out

    def numbers(self) -> dict[str, Any]:
        """Return everything that is not an array, as JSON holds it."""
        return {name: getattr(self, name) for name in ("box_px", "support", "step", "facts")}

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> "State":
        """Return the state of a checkpoint."""
        lists: dict[str, list[Tensor]] = {"models": [], "consensus": []}
        for name, found in lists.items():
            while f"{name}.{len(found)}" in tensors:
                found.append(torch.view_as_complex(tensors[f"{name}.{len(found)}"]))
        state = cls(
            lists["models"],
            tensors["deviation"].numpy(),
            numbers["box_px"],
            numbers["support"],
            numbers["step"],
            lists["consensus"],
            facts=numbers["facts"],
            mask=tensors.get("mask"),
        )
        for name in _ARRAYS:
            setattr(state, name, tensors[name].numpy())
        return state


_ARRAYS = ("deviation", "consensus_weight", "mean_ridge", "power_ratio", "canonical")
