"""The order of an epoch, as a pure function of sizes, seed and epoch number.

Owns: which chunks of rows are read together, and in what order rows leave a window. Does not own:
reading (`prefetch`) or what a row holds.

A store's rows are a global random permutation already, so any contiguous chunk is a random sample.
An epoch shuffles the chunks, joins them to windows of at least `window_rows` stored rows (of which
a selection may use few, so that a window's size does not depend on it), and shuffles the selected
rows of each window. Every row leaves exactly once.
"""

from dataclasses import dataclass

import numpy as np

CHUNK_BLOCKS = 4


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the selected rows lie, chunk by chunk in storage order.

    `order` (n,) sorts the selection by place; chunk c holds entries bounds[c] .. bounds[c + 1] of
    that order, from blocks [first_block[c], stop_block[c]) of shard[c]; `offset` (n,) is an
    entry's row inside its chunk; `stored` (c,) is the number of rows in the chunk's blocks.
    """

    order: np.ndarray
    offset: np.ndarray
    bounds: np.ndarray
    shard: np.ndarray
    first_block: np.ndarray
    stop_block: np.ndarray
    stored: np.ndarray

    @classmethod
    def of(
        cls, shard: np.ndarray, slot: np.ndarray, shard_rows: list[int], block_rows: int
    ) -> "Layout":
        """Return the layout of rows at (shard, slot), both (n,), in a store's shards."""
        chunk_rows = CHUNK_BLOCKS * block_rows
        per_shard = -(-max(shard_rows, default=1) // chunk_rows)
        chunk = shard.astype(np.int64) * per_shard + slot // chunk_rows
        order = np.lexsort((slot, chunk))
        present, starts = np.unique(chunk[order], return_index=True)
        in_shard = present // per_shard
        first_block = (present % per_shard) * CHUNK_BLOCKS
        rows = np.asarray(shard_rows, np.int64)[in_shard]
        stop_block = np.minimum(first_block + CHUNK_BLOCKS, -(-rows // block_rows))
        stored = np.minimum(stop_block * block_rows, rows) - first_block * block_rows
        bounds = np.append(starts, len(order))
        offset = slot[order] % chunk_rows
        return cls(order, offset, bounds, in_shard, first_block, stop_block, stored)

    @property
    def chunks(self) -> int:
        """Number of chunks that hold at least one selected row."""
        return len(self.shard)


@dataclass(frozen=True, eq=False)
class Window:
    """Chunks read together, and the entries of `Layout.order` in the order they leave."""

    chunks: np.ndarray
    entries: np.ndarray


def windows_in_order(layout: Layout, window_rows: int) -> list[np.ndarray]:
    """Return the chunks of each window in storage order."""
    return _group(layout, np.arange(layout.chunks), window_rows)


def epoch_windows(layout: Layout, window_rows: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the chunks of each window of an epoch, shuffled."""
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    return _group(layout, generator.permutation(layout.chunks), window_rows)


def window(layout: Layout, chunks: np.ndarray, key: tuple[int, int, int] | None) -> Window:
    """Return the window of some chunks; `key` (seed, epoch, number) shuffles it, None does not."""
    ranges = [np.arange(layout.bounds[c], layout.bounds[c + 1]) for c in chunks]
    entries = np.concatenate(ranges)
    if key is not None:
        entries = np.random.Generator(np.random.PCG64(key)).permutation(entries)
    return Window(chunks, entries)


def epoch_order(layout: Layout, window_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return the whole order of an epoch, (n,) indices into the selection."""
    groups = epoch_windows(layout, window_rows, seed, epoch)
    entries = [
        window(layout, chunks, (seed, epoch, number)).entries
        for number, chunks in enumerate(groups)
    ]
    return layout.order[np.concatenate(entries)]


def rank_slice(batch: int, rank: int, world_size: int) -> slice:
    """Return the part of a global batch of `batch` rows that a rank takes; parts are disjoint."""
    return slice(batch * rank // world_size, batch * (rank + 1) // world_size)


def _group(layout: Layout, chunks: np.ndarray, window_rows: int) -> list[np.ndarray]:
    """Split chunks into windows of at least `window_rows` stored rows, but for the last."""
    sizes = layout.stored[chunks]
    groups, start, rows = [], 0, 0
    for stop, size in enumerate(sizes, start=1):
        rows += int(size)
        if rows >= window_rows:
            groups.append(chunks[start:stop])
            start, rows = stop, 0
    if start < len(chunks):
        groups.append(chunks[start:])
    return groups
