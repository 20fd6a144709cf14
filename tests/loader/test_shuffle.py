"""The order of an epoch mixes the source as well as a random permutation does."""

import numpy as np
import pytest

from frazil.loader.order import Layout, epoch_order
from frazil.metrics.shuffling import ShuffleQuality, shuffle_quality
from frazil.store.writer import image_places

IMAGES, SHARD_ROWS, BLOCK_ROWS, BATCH = 100_000, 5184, 64, 16
# By chance a figure differs by 0.013, 0.018 or 0.005; four times as much is allowed.
LIMITS = (0.05, 0.07, 0.02)


def quality(places: tuple[np.ndarray, np.ndarray], window_rows: int, epoch: int) -> ShuffleQuality:
    full, rest = divmod(IMAGES, SHARD_ROWS)
    layout = Layout.of(*places, [SHARD_ROWS] * full + [rest], BLOCK_ROWS)
    return shuffle_quality(epoch_order(layout, window_rows, 0, epoch), BATCH)


def deviations(found: ShuffleQuality) -> np.ndarray:
    return np.abs([found.correlation, found.mean_spread - 1, found.within_spread - 1])


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("window_rows", [1, 2048, 8192, IMAGES])
def test_an_epoch_is_as_mixed_as_a_random_permutation(window_rows: int, epoch: int) -> None:
    places = image_places(IMAGES, SHARD_ROWS, seed=0)
    assert (deviations(quality(places, window_rows, epoch)) < LIMITS).all()


def test_the_limits_are_those_of_a_random_permutation() -> None:
    found = shuffle_quality(np.random.default_rng(0).permutation(IMAGES), BATCH)
    assert (deviations(found) < LIMITS).all()


@pytest.mark.parametrize(("window_rows", "least"), [(1, 10.0), (2048, 2.0), (8192, 1.3)])
def test_a_store_in_the_order_of_its_source_is_found_out(window_rows: int, least: float) -> None:
    # Positive control: the same order of an epoch over records that were not permuted.
    shard, slot = np.divmod(np.arange(IMAGES), SHARD_ROWS)
    assert quality((shard, slot), window_rows, 1).mean_spread > least


def test_no_shuffling_at_all_is_found_out() -> None:
    found = shuffle_quality(np.arange(IMAGES), BATCH)
    assert found.correlation > 0.999 and found.mean_spread > 15 and found.within_spread < 1e-6
