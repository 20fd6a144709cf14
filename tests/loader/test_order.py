"""The order of an epoch is a pure function that lets every selected row leave exactly once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frazil.loader.order import (
    CHUNK_BLOCKS,
    Layout,
    epoch_order,
    epoch_windows,
    rank_slice,
    window,
    windows_in_order,
)
from frazil.store.writer import image_places


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, int]:
    """Return a layout of a random selection (repeats allowed) of a random store, and its size."""
    block_rows = draw(st.integers(1, 5))
    rows_per_shard = block_rows * draw(st.integers(1, 12))
    images = draw(st.integers(1, 150))
    full, rest = divmod(images, rows_per_shard)
    shard_rows = [rows_per_shard] * full + ([rest] if rest else [])
    shard, slot = image_places(images, rows_per_shard, draw(st.integers(0, 99)))
    chosen = np.array(draw(st.lists(st.integers(0, images - 1), min_size=1, max_size=60)))
    return Layout.of(shard[chosen], slot[chosen], shard_rows, block_rows), len(chosen)


@given(layouts(), st.integers(1, 200), st.integers(0, 2**40), st.integers(1, 10**6))
@settings(max_examples=150, deadline=None)
def test_every_entry_leaves_exactly_once(
    made: tuple[Layout, int], window_rows: int, seed: int, epoch: int
) -> None:
    layout, count = made
    found = epoch_order(layout, window_rows, seed, epoch)
    assert np.array_equal(np.sort(found), np.arange(count))
    assert np.array_equal(found, epoch_order(layout, window_rows, seed, epoch))
    windows = windows_in_order(layout, window_rows)
    entries = np.concatenate([window(layout, chunks, None).entries for chunks in windows])
    assert np.array_equal(entries, np.arange(count))


@given(layouts(), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_windows_are_full_but_for_the_last_and_never_hold_more_than_a_chunk_too_much(
    made: tuple[Layout, int], window_rows: int
) -> None:
    layout, _ = made
    sizes = [int(layout.stored[c].sum()) for c in epoch_windows(layout, window_rows, 1, 1)]
    assert all(size >= window_rows for size in sizes[:-1])
    assert all(size < window_rows + int(layout.stored.max()) for size in sizes)


@given(layouts())
@settings(max_examples=100, deadline=None)
def test_entries_lie_where_their_chunk_says(made: tuple[Layout, int]) -> None:
    layout, _ = made
    for c in range(layout.chunks):
        inside = slice(layout.bounds[c], layout.bounds[c + 1])
        offset = layout.offset[inside]
        assert (offset >= 0).all() and (offset < layout.stored[c]).all()
        assert 0 < layout.stop_block[c] - layout.first_block[c] <= CHUNK_BLOCKS


def layout_of(count: int) -> Layout:
    shard, slot = image_places(count, 512, 7)
    rows = [512] * (count // 512) + ([count % 512] if count % 512 else [])
    return Layout.of(shard, slot, rows, 8)


def test_epochs_and_seeds_differ() -> None:
    layout = layout_of(2000)
    first = epoch_order(layout, 300, 0, 1)
    for seed, epoch in ((0, 2), (1, 1), (1, 2)):
        assert (epoch_order(layout, 300, seed, epoch) == first).mean() < 0.01


def correlation(order: np.ndarray) -> tuple[float, float]:
    """Return the correlation of position with source row, and of neighbours in the order."""
    along = np.corrcoef(order, np.arange(len(order)))[0, 1]
    return abs(along), abs(np.corrcoef(order[1:], order[:-1])[0, 1])


@pytest.mark.parametrize("window_rows", [1, 64, 1024])
def test_the_order_has_nothing_to_do_with_the_source(window_rows: int) -> None:
    layout = layout_of(8000)
    along, neighbours = correlation(epoch_order(layout, window_rows, 3, 1))
    assert along < 0.05 and neighbours < 0.05  # 4.5 standard deviations of chance
    # Positive control: places that follow the source.
    place = np.arange(8000)
    sorted_layout = Layout.of(place // 512, place % 512, [512] * 15 + [320], 8)
    assert correlation(epoch_order(sorted_layout, 1, 3, 1))[1] > 0.5


def test_two_epochs_bring_other_rows_together() -> None:
    layout = layout_of(4096)
    batches = [epoch_order(layout, 512, 0, epoch).reshape(-1, 64) for epoch in (1, 2)]
    together = [len(np.intersect1d(a, b)) for a in batches[0] for b in batches[1]]
    # Chance puts one row of a batch into each of the 64 others; the same chunk, up to 32.
    assert np.mean(together) == 1 and max(together) < 24


@given(st.integers(0, 100), st.integers(1, 9))
def test_ranks_share_a_batch_without_rest(batch: int, world_size: int) -> None:
    parts = [np.arange(batch)[rank_slice(batch, rank, world_size)] for rank in range(world_size)]
    assert np.array_equal(np.concatenate(parts), np.arange(batch))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
