"""Blocks of a store, from memory where they fit and from disk where they do not.

Owns: the choice between keeping what was read and leaving nothing of it in memory. Does not own:
the order of reading (`prefetch`) or the files (`frazil.store.reader`).

Codes that lie in files are kept as pages of the system's page cache: processes on one machine, and
the next run, share them, and the system can take them back. Codes that are made as they are read
are kept here.
"""

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from frazil.loader.order import Layout
from frazil.loader.tier import Tier
from frazil.store.records import ParticleRecords


class CachedBlocks:
    """The chunks of a layout: from disk once when all of them fit the budget, else at each request.

    Attributes
    ----------
    needed_bytes : codes of all chunks, leading bands only.
    mode : "cached" when `needed_bytes` fit, else "streamed": then nothing is kept, neither here
        nor in the page cache.
    """

    def __init__(
        self,
        source: ParticleRecords | Tier,
        layout: Layout,
        row_bytes: int,
        budget_bytes: int,
    ) -> None:
        self.source, self.layout = source, layout
        self.needed_bytes = int(layout.stored.sum()) * row_bytes
        self.mode: Literal["cached", "streamed"] = (
            "cached" if self.needed_bytes <= budget_bytes else "streamed"
        )
        # Where each chunk's rows lie among the kept ones, which is memory only once it is filled.
        self._start = np.concatenate([[0], np.cumsum(layout.stored)])
        self._kept: list[Tensor] = []
        self._there: set[int] = set()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of the codes kept here so far."""
        row_bytes = sum(codes.element_size() * codes.shape[1] for codes in self._kept)
        return int(self.layout.stored[list(self._there)].sum()) * row_bytes

    def forget(self) -> None:
        """Free the codes kept here so far."""
        self._there.clear()
        self._kept = []

    def read(self, chunk: int, out: Sequence[Tensor], keep: bool) -> None:
        """Fill one buffer per band with the codes of a chunk; safe in several threads at once.

        Parameters
        ----------
        keep : the chunk will be asked for again, so keep it if the mode is "cached".

        Raises
        ------
        MissingFileError, CorruptDataError : see `ParticleStore.read_blocks`.
        """
        kept = slice(int(self._start[chunk]), int(self._start[chunk + 1]))
        if chunk in self._there:
            _copy([codes[kept] for codes in self._kept], out)
            return
        layout, cached = self.layout, self.mode == "cached"
        first, stop = int(layout.first_block[chunk]), int(layout.stop_block[chunk])
        self.source.read_blocks(int(layout.shard[chunk]), first, stop, out, cached)
        if keep and cached and self.source.made_as_read:
            with self._lock:
                if not self._kept:
                    self._kept = self.source.band_tensors(int(self._start[-1]), len(out))
            _copy(out, [codes[kept] for codes in self._kept])
            self._there.add(chunk)


def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    """Copy codes band by band; numpy lets other threads run meanwhile."""
    for codes, room in zip(source, target, strict=True):
        np.copyto(room.numpy(), codes.numpy())
