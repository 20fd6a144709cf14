"""Several processes on one fit: the ranks that `torchrun` starts.

Owns: joining them, and what they add up, share and wait for. Does not own: which particles a rank
reads (`frazil.loader`) or what is added up (the engines). Started in any other way there is one
rank, and nothing here does anything.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from frazil.errors import InputError

T = TypeVar("T")
# How long a rank waits for the others, e.g. while the first one packs.
_PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Ranks:
    """This process among all: number `rank` of `size`, number `local` of those on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def add(self, values: np.ndarray) -> None:
        """Replace an array, alike in shape on all ranks, by its sum over them, in place."""
        if self.size > 1:
            dist.all_reduce(torch.from_numpy(values))

    def any(self, here: bool) -> bool:
        """Return whether it is so on any rank."""
        found = np.array([int(here)])
        self.add(found)
        return bool(found[0])

    def share(self, values: Tensor) -> None:
        """Replace a tensor by that of the first rank, in place."""
        if self.size > 1:
            dist.broadcast(torch.view_as_real(values) if values.is_complex() else values, 0)

    def first_alone(self, work: Callable[[], T]) -> T:
        """Return work(), done by the first rank before the others begin."""
        if self.first:
            found = work()
            self.wait()
            return found
        self.wait()
        return work()

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if self.size > 1:
            dist.barrier()


ONE_RANK = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the ranks of `torchrun`, if it started this process; yields which one this is.

    Raises
    ------
    InputError : the variables of torchrun are there, but not whole.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ONE_RANK
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {size}, but {' and '.join(missing)} not set; start with torchrun, or "
            "unset WORLD_SIZE"
        )
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        rank = dist.get_rank()
        yield Ranks(rank, size, int(os.environ.get("LOCAL_RANK", rank)))
    finally:
        dist.destroy_process_group()
