"""Streaming batches out of a store while the next window is being read.

Owns: the two window buffers, the reader threads, and the position inside an epoch. Does not own:
the order (`order`), what is kept in memory (`cache`) or what a batch is (`batches`).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from frazil.errors import BudgetError, InputError
from frazil.geometry.packing import half_disc
from frazil.io.particles import FLAGS_UNUSED, unused_reasons
from frazil.loader import order
from frazil.loader.batches import CodedBatch, Decoder, ParticleBatch, ParticleColumns
from frazil.loader.cache import CachedBlocks
from frazil.loader.tier import Tier
from frazil.preprocess.parallel import one_torch_thread
from frazil.settings import Settings, option
from frazil.store.budget import default_budget_bytes
from frazil.store.manifest import check_box
from frazil.store.reader import disc_columns
from frazil.store.records import ParticleRecords

READER_THREADS = 4


class LoaderSettings(Settings, frozen=True, kw_only=True):
    """How particles are streamed. The order depends on all fields but `memory_bytes`."""

    batch_size: Annotated[int, option("-b", help="particles per batch", ge=1)] = 16
    seed: Annotated[int, option("--shuffle-seed", help="seed of the order", ge=0)] = 0
    window_rows: Annotated[
        int, option("--shuffler-size", help="particles shuffled together", unit="rows", ge=1)
    ] = 8192
    memory_bytes: Annotated[
        int | None, option("--memory", help="ceiling of the loader's buffers", unit="bytes")
    ] = None


class ParticleLoader:
    """Batches of selected particles, every one exactly once per epoch.

    Attributes
    ----------
    disc, box_px, pixel_size_ang : of the box trained at, which may be smaller than the store's.
    row_count : particles used; `excluded` (reason -> rows) of the selection are not.
    norm_scale : what coefficients are divided by; default the exact RMS over the disc.
    decoder : makes coefficients of codes.
    """

    def __init__(
        self,
        store: ParticleRecords,
        settings: LoaderSettings,
        rows: np.ndarray | None = None,
        box_px: int | None = None,
        norm_scale: float | None = None,
        rank: int = 0,
        world_size: int = 1,
        tier: Tier | None = None,
    ) -> None:
        """Prepare to stream; reads metadata columns only, from a tier where one is given.

        Raises
        ------
        InputError : a box that the store does not hold, rows out of range, missing poses, or
            nothing left to train.
        BudgetError : two windows do not fit into `memory_bytes`.
        """
        self.store, self.settings = store, settings
        self.box_px = store.box_px if box_px is None else box_px
        check_box(self.box_px, store.box_px, "the store")
        self.disc = half_disc(self.box_px)
        pixel = store.pixel_size_ang
        self.pixel_size_ang = None if pixel is None else pixel * store.box_px / self.box_px
        self.norm_scale = store.rms(self.box_px) if norm_scale is None else norm_scale
        self.rank, self.world_size = rank, world_size
        selected = self._selection(rows)
        self.row_count = len(selected)
        self.columns = ParticleColumns.of(store, selected, self.box_px)
        manifest = store.manifest
        places = store.rows[selected]
        self.layout = order.Layout.of(
            places["shard"], places["slot"], manifest.shard_rows, manifest.block_rows
        )
        self._bands = manifest.band_count(self.box_px)
        width = manifest.bands[self._bands - 1].stop
        picked = None if width == len(self.disc) else disc_columns(store.disc, self.disc)
        self.decoder = Decoder(store.codec.step[: 2 * width], picked)
        row_bytes = 2 * width * np.dtype(manifest.precision).itemsize
        self._blocks = CachedBlocks(
            tier or store, self.layout, row_bytes, self._memory_left(row_bytes)
        )
        self._tier, self._epoch, self._batch = tier, 1, 0
        if tier is not None:
            tier.say_plan(self._bands)

    @property
    def mode(self) -> Literal["cached", "streamed"]:
        """Whether later epochs come from memory, or all of them from disk."""
        return self._blocks.mode

    @property
    def batches_per_epoch(self) -> int:
        """Number of global batches; the last may be short."""
        return -(-self.row_count // self.settings.batch_size)

    def epoch(self, number: int, device: torch.device | str = "cpu") -> Iterator[ParticleBatch]:
        """Yield this rank's part of every batch of an epoch (from 1), shuffled, on a device.

        Continues after the position of `load_state_dict` when it lies in this epoch. Codes are sent
        to the device, a quarter of the bytes of coefficients, and decoded there.
        """
        decoder = self.decoder.to(device)
        for batch in self.codes(number):
            # Threads that share such small tensors wait for each other longer than they work.
            with one_torch_thread():
                decoded = decoder(batch.to(device))
            yield decoded

    def codes(self, number: int) -> Iterator[CodedBatch]:
        """Yield the batches of `epoch` as they are stored, to be decoded where they are used.

        An int8 code is a quarter of the bytes to send to a device; `decoder.to(device)` decodes
        there, to the same bits.
        """
        first = self._batch if number == self._epoch else 0
        seed = self.settings.seed
        groups = order.epoch_windows(self.layout, self.settings.window_rows, seed, number)
        for batch, part in enumerate(self._stream(groups, (seed, number), first), start=first):
            self._epoch, self._batch = number, batch + 1
            yield part
        self._epoch, self._batch = number + 1, 0

    def in_order(self) -> Iterator[ParticleBatch]:
        """Yield all batches in storage order, for evaluation; does not move the position.

        Takes what earlier epochs kept in memory, and keeps nothing itself.
        """
        groups = order.windows_in_order(self.layout, self.settings.window_rows)
        for batch in self._stream(groups, None, 0):
            with one_torch_thread():
                decoded = self.decoder(batch)
            yield decoded

    def forget(self) -> None:
        """Free the memory of codes; they are read again when they are asked for."""
        self._blocks.forget()

    def state_dict(self) -> dict[str, int]:
        """Return the position: the epoch, and how many of its batches were taken."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position: `epoch(state["epoch"])` begins after that batch."""
        self._epoch, self._batch = state["epoch"], state["batch"]

    def _stream(
        self, groups: list[np.ndarray], key: tuple[int, int] | None, first_batch: int
    ) -> Iterator[CodedBatch]:
        """Cut the windows' rows into batches from `first_batch` on."""
        size = self.settings.batch_size
        skip = first_batch * size
        parts: list[tuple[_LoadedWindow, np.ndarray]] = []
        gathered = 0
        for loaded in self._windows(groups, key, skip):
            start = loaded.skip
            entries = loaded.window.entries
            while start < len(entries):
                stop = min(start + size - gathered, len(entries))
                parts.append((loaded, np.arange(start, stop)))
                gathered += stop - start
                start = stop
                if gathered == size:
                    yield self._assemble(parts, gathered)
                    parts, gathered = [], 0
            # The buffers are used again two windows on: decode what waits for the next one.
            parts = [(part.detach(index), np.arange(len(index))) for part, index in parts]
        if gathered:
            yield self._assemble(parts, gathered)
        if self._tier is not None:
            self._tier.say_pass()

    def _windows(
        self, groups: list[np.ndarray], key: tuple[int, int] | None, skip: int
    ) -> Iterator["_LoadedWindow"]:
        """Yield loaded windows, the next one being read meanwhile; leading rows are skipped."""
        plans = []
        for number, chunks in enumerate(groups):
            rows = int((self.layout.bounds[chunks + 1] - self.layout.bounds[chunks]).sum())
            if skip < rows:
                full_key = None if key is None else (*key, number)
                plans.append((chunks, full_key, skip))
            skip = max(0, skip - rows)
        capacity = max((int(self.layout.stored[chunks].sum()) for chunks, _, _ in plans), default=0)
        buffers = [self.store.band_tensors(capacity, self._bands) for _ in plans[:2]]
        with ThreadPoolExecutor(READER_THREADS) as pool:
            try:
                waiting = [self._begin(pool, plan, buffers[i]) for i, plan in enumerate(plans[:1])]
                for number in range(len(plans)):
                    current = waiting.pop()
                    if number + 1 < len(plans):
                        target = buffers[(number + 1) % 2]
                        waiting.append(self._begin(pool, plans[number + 1], target))
                    for future in current.reads:
                        future.result()
                    yield current
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _begin(
        self,
        pool: ThreadPoolExecutor,
        plan: tuple[np.ndarray, tuple[int, int, int] | None, int],
        buffers: list[Tensor],
    ) -> "_LoadedWindow":
        """Submit the reads of one window into a set of buffers."""
        chunks, key, skip = plan
        layout = self.layout
        reads, starts, row = [], np.zeros(layout.chunks, np.int64), 0
        for c in chunks:
            count = int(layout.stored[c])
            out = [buffer[row : row + count] for buffer in buffers]
            reads.append(pool.submit(self._blocks.read, int(c), out, key is not None))
            starts[c] = row
            row += count
        window = order.window(layout, chunks, key)
        chunk = np.searchsorted(layout.bounds, window.entries, side="right") - 1
        buffer_row = starts[chunk] + layout.offset[window.entries]
        return _LoadedWindow(window, buffers, buffer_row, reads, skip)

    def _assemble(
        self, parts: list[tuple["_LoadedWindow", np.ndarray]], gathered: int
    ) -> CodedBatch:
        """Return this rank's slice of one global batch."""
        mine = order.rank_slice(gathered, self.rank, self.world_size)
        codes = parts[0][0].empty(mine.stop - mine.start)
        entries, first, row = [], 0, 0
        for loaded, index in parts:
            cut = index[max(0, mine.start - first) : max(0, mine.stop - first)]
            entries.append(loaded.window.entries[cut])
            loaded.gather(cut, [band[row : row + len(cut)] for band in codes])
            first, row = first + len(index), row + len(cut)
        # Threads that share such small tensors wait for each other longer than they work.
        with one_torch_thread():
            selection = torch.from_numpy(self.layout.order[np.concatenate(entries)])
            # Known by now even where images are made into records only as they are read.
            scale = self.store.gains(self.columns.rows[selection]) / self.norm_scale
            return self.columns.coded(selection, codes, scale)

    def _selection(self, rows: np.ndarray | None) -> np.ndarray:
        """Return the rows to train: those asked for, without those that are never used."""
        count = self.store.count
        selected = np.arange(count) if rows is None else np.asarray(rows)
        if selected.dtype.kind not in "iu" and selected.size:
            raise InputError(
                f"{self.store.path}: a selection of row numbers is wanted, not {selected.dtype}"
            )
        selected = selected.astype(np.int64)
        bad = np.flatnonzero((selected < 0) | (selected >= count))
        if bad.size:
            raise InputError(
                f"{self.store.path}: entry {bad[0]} (0-based) of the selection asks for row "
                f"{selected[bad[0]]}, but there are {count} rows"
            )
        flags = self.store.rows["flags"][selected]
        usable = (flags & FLAGS_UNUSED) == 0
        self.excluded = unused_reasons(flags)
        if not usable.any():
            raise InputError(f"{self.store.path}: no usable particles in the selection")
        return selected[usable]

    def _memory_left(self, row_bytes: int) -> int:
        """Return what the budget leaves beside two windows of codes, bytes.

        Raises
        ------
        BudgetError : it has no room for the windows. Without a ceiling there is always room.
        """
        ceiling = self.settings.memory_bytes
        budget = default_budget_bytes() if ceiling is None else ceiling
        chunk = order.CHUNK_BLOCKS * self.store.manifest.block_rows
        rows = min(self.settings.window_rows + chunk, self.store.manifest.images)
        needed = 2 * rows * row_bytes
        if ceiling is not None and needed > budget:
            fits = budget // (2 * row_bytes) - chunk
            smaller = f"--shuffler-size {fits} or " if fits > 0 else ""
            raise BudgetError(
                f"{self.store.path}: two windows of {rows} particles take {needed / 1e6:.3g} MB, "
                f"--memory allows {budget / 1e6:.3g} MB; give {smaller}more memory"
            )
        return budget - needed


@dataclass(frozen=True, eq=False)
class _LoadedWindow:
    """A window, its codes per band, and the buffer row of each of its entries."""

    window: order.Window
    buffers: list[Tensor]
    buffer_row: np.ndarray
    reads: list["Future[None]"]
    skip: int

    def empty(self, count: int) -> tuple[Tensor, ...]:
        """Return room for the codes of some entries, (count, 2 P_b) per band."""
        return tuple(torch.empty(count, b.shape[1], dtype=b.dtype) for b in self.buffers)

    def gather(self, index: np.ndarray, out: Sequence[Tensor]) -> None:
        """Copy the codes of some entries, (n, 2 P_b) per band."""
        rows = self.buffer_row[index]
        for buffer, part in zip(self.buffers, out, strict=True):
            # numpy: torch would share out such small copies to threads that wait for each other.
            np.take(buffer.numpy(), rows, axis=0, out=part.numpy(), mode="clip")

    def detach(self, index: np.ndarray) -> "_LoadedWindow":
        """Return a copy of some entries that does not need the buffers any more."""
        picked = order.Window(self.window.chunks, self.window.entries[index])
        copies = self.empty(len(index))
        self.gather(index, copies)
        return _LoadedWindow(picked, list(copies), np.arange(len(index)), [], 0)
