"""Soft masks: growth by a ball, the edge, and the default threshold."""

import numpy as np
import pytest

from frazil.geometry.masks import cosine_edge, default_threshold, soft_mask


def distance_twin(inside: np.ndarray) -> np.ndarray:
    """Return each voxel's distance to the nearest one inside, by trying all."""
    points = np.argwhere(inside)
    grid = np.stack(np.meshgrid(*map(np.arange, inside.shape), indexing="ij"), axis=-1)
    return np.sqrt(((grid[..., None, :] - points) ** 2).sum(-1)).min(-1)


@pytest.mark.parametrize(("grow", "edge"), [(2.5, 3.0), (0.0, 2.0), (3.0, 0.0)])
def test_a_mask_follows_the_distance_from_the_region(grow: float, edge: float):
    inside = np.zeros((14, 12, 16), bool)
    inside[4, 5, 6] = inside[5, 5, 6] = inside[11, 1, 15] = True
    distance = distance_twin(inside) - grow
    fall = np.clip(distance / edge, 0, 1) if edge else (distance > 0)
    want = 0.5 + 0.5 * np.cos(np.pi * fall)
    np.testing.assert_allclose(soft_mask(inside, grow, edge), want, atol=1e-6)


def test_a_region_grows_as_far_along_the_diagonal_as_along_the_axes():
    inside = np.zeros((31, 31, 31), bool)
    inside[15, 15, 15] = True
    mask = soft_mask(inside, 8.0, 1.0)
    assert mask[15, 15, 23] == 1 and mask[15, 15, 25] == 0
    assert mask[19, 19, 19] == 1  # 6.9 px away; a region grown step by step along axes ends at 4.6
    assert mask[21, 21, 21] == 0


def test_the_edge_falls_from_one_to_zero_and_is_a_half_in_the_middle():
    edge = cosine_edge(np.array([-1.0, 0.0, 2.0, 4.0, 9.0]), 4.0)
    np.testing.assert_allclose(edge, [1, 1, 0.5, 0, 0], atol=1e-7)


def test_one_hot_voxel_does_not_move_the_default_threshold():
    volume = np.random.Generator(np.random.PCG64(0)).random((40, 40, 40)).astype(np.float32)
    before = default_threshold(volume)
    volume[3, 3, 3] = 1e6
    assert default_threshold(volume) == pytest.approx(before, rel=1e-2)
    assert before == pytest.approx(0.5, abs=0.01)
