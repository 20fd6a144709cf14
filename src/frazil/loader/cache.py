"""Blocks of a store, from memory where they fit and from disk where they do not.

Owns: the choice between keeping codes and dropping the page cache behind the reads. Does not own:
the order of reading (`prefetch`) or the files (`frazil.store.reader`).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from frazil.loader.order import Layout
from frazil.loader.tier import Tier
from frazil.store.records import ParticleRecords


class CachedBlocks:
    """The chunks of a layout: read once when all of them fit the budget, else at each request.

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
        self._kept: dict[int, list[Tensor]] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of the codes kept so far."""
        return sum(codes.nbytes for chunk in self._kept.values() for codes in chunk)

    def forget(self) -> None:
        """Free the codes kept so far."""
        self._kept.clear()

    def read(self, chunk: int, out: Sequence[Tensor], keep: bool) -> None:
        """Fill one buffer per band with the codes of a chunk; safe in several threads at once.

        Parameters
        ----------
        keep : the chunk will be asked for again, so keep it if the mode is "cached".

        Raises
        ------
        MissingFileError, CorruptDataError : see `ParticleStore.read_blocks`; a chunk is checked
            when it is read from disk, and kept only if it is sound.
        """
        kept = self._kept.get(chunk)
        if kept is None:
            layout = self.layout
            first, stop = int(layout.first_block[chunk]), int(layout.stop_block[chunk])
            keep_pages = self.mode == "cached"
            self.source.read_blocks(int(layout.shard[chunk]), first, stop, out, keep_pages)
            if keep and self.mode == "cached":
                fresh = self.source.band_tensors(len(out[0]), len(out))
                for target, codes in zip(fresh, out, strict=True):
                    np.copyto(target.numpy(), codes.numpy())
                self._kept[chunk] = fresh
            return
        for target, codes in zip(out, kept, strict=True):
            np.copyto(target.numpy(), codes.numpy())
