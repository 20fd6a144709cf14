"""What each measure of latent agreement sees, and what it must not see."""

import math

import pytest
import torch
from scipy import stats

from frazil.metrics.latents import (
    circular_correlation,
    circular_r2,
    knn_r2,
    latent_agreement,
    linear_r2,
    linear_spearman,
)


def _coordinate(count: int = 500) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _noise(count: int, dims: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dims, generator=generator, dtype=torch.float64)


def test_any_invertible_linear_map_of_the_coordinate_is_perfect() -> None:
    coordinate = _coordinate()
    extra = _noise(500, 3, 4)
    latent = torch.cat([coordinate[:, None], extra], dim=1) @ _noise(4, 4, 5) + 7
    assert linear_r2(latent, coordinate) == pytest.approx(1.0, abs=1e-9)
    assert linear_spearman(latent, coordinate) == pytest.approx(1.0, abs=1e-9)


def test_an_unrelated_latent_scores_near_zero_everywhere() -> None:
    coordinate, latent = _coordinate(2000), _noise(2000, 4, 6)
    for period in (None, 1.0):
        for name, value in latent_agreement(latent, coordinate, period).items():
            assert abs(value) < 0.12, name


def test_rank_correlation_is_that_of_scipy_with_ties() -> None:
    coordinate = (_coordinate() * 20).round()
    latent = (_noise(500, 1, 7) + coordinate[:, None]).round()
    expected = abs(stats.spearmanr(latent[:, 0].numpy(), coordinate.numpy()).statistic)
    assert linear_spearman(latent, coordinate) == pytest.approx(expected, abs=1e-9)


def test_a_circle_is_found_where_a_line_fails() -> None:
    turn = 2 * math.pi * _coordinate()
    latent = torch.stack([torch.cos(turn), torch.sin(turn)], dim=1) @ _noise(2, 2, 8)
    assert circular_r2(latent, turn) == pytest.approx(1.0, abs=1e-9)
    assert circular_correlation(latent, turn) == pytest.approx(1.0, abs=1e-9)
    assert linear_r2(latent, turn) < 0.8


def test_circular_correlation_is_the_pairwise_sum() -> None:
    turn = 2 * math.pi * _coordinate(60)
    latent = torch.stack([torch.cos(turn), torch.sin(turn)], dim=1) + 0.5 * _noise(60, 2, 9)
    from frazil.metrics.latents import linear_fit

    fit = linear_fit(latent, torch.stack([torch.cos(turn), torch.sin(turn)], dim=1))
    a = torch.atan2(fit[:, 1], fit[:, 0])
    sin_a, sin_b = torch.sin(a[:, None] - a), torch.sin(turn[:, None] - turn)
    expected = (sin_a * sin_b).sum() / torch.sqrt((sin_a**2).sum() * (sin_b**2).sum())
    assert circular_correlation(latent, turn) == pytest.approx(float(expected), abs=1e-9)


def test_neighbours_see_a_curved_relation_that_a_line_cannot() -> None:
    coordinate = _coordinate(1000)
    latent = torch.stack([torch.cos(9 * coordinate), 9 * torch.sin(9 * coordinate)], dim=1)
    latent = torch.cat([latent, coordinate[:, None] ** 2], dim=1)
    assert knn_r2(latent, coordinate[:, None], 5) > 0.99


def test_neighbours_leave_the_particle_itself_out() -> None:
    # With itself among its neighbours, a particle would predict its own random value.
    target = _noise(300, 1, 10)
    duplicated = torch.zeros(300, 2, dtype=torch.float64)
    assert knn_r2(_noise(300, 2, 11), target, 1) < 0.0
    assert knn_r2(duplicated, target, 1) < 0.0


def test_too_few_particles_for_the_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="need more than 5"):
        knn_r2(_noise(5, 2, 1), _noise(5, 1, 2), 5)


def test_a_dead_latent_dimension_does_no_harm() -> None:
    coordinate = _coordinate()
    latent = torch.stack([coordinate, torch.zeros_like(coordinate)], dim=1)
    assert linear_r2(latent, coordinate) == pytest.approx(1.0, abs=1e-9)
