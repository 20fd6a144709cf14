"""Sampling of Fourier space by views."""

import math

import pytest
import torch

from frazil.geometry.rotations import random_rotations
from frazil.metrics.orientation import fibonacci_sphere, fourier_sampling, sampling_efficiency


def efficiency(views: torch.Tensor) -> float:
    return sampling_efficiency(fourier_sampling(views))


def test_even_views_are_fully_efficient() -> None:
    views = random_rotations(20_000, torch.Generator().manual_seed(0))[:, 2]
    assert efficiency(views) > 0.97


def test_side_views_have_the_efficiency_of_the_integral() -> None:
    # Sampling goes as 1 / sin(tilt), whose mean is pi/2; its inverse has the mean pi/4.
    angle = torch.rand(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    angle = 2 * math.pi * angle
    views = torch.stack([torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)], dim=1)
    assert efficiency(views) == pytest.approx(8 / math.pi**2, abs=0.03)


def test_one_view_leaves_nearly_all_directions_unseen() -> None:
    views = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(5000, 3)
    sampling = fourier_sampling(views)
    assert float((sampling < 0.2).double().mean()) > 0.9
    assert sampling_efficiency(sampling) < 0.05


def test_turning_all_views_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    views = random_rotations(4000, generator)[:, 2] * torch.tensor([1.0, 1.0, 3.0])
    views = views / views.norm(dim=1, keepdim=True)
    turn = random_rotations(1, generator)[0]
    assert efficiency(views @ turn) == pytest.approx(efficiency(views), abs=0.02)
    assert efficiency(views) < 0.9


def test_directions_are_even_and_of_length_one() -> None:
    grid = fibonacci_sphere(1000)
    torch.testing.assert_close(grid.norm(dim=1), torch.ones(1000, dtype=torch.float64))
    torch.testing.assert_close(grid.T @ grid, torch.eye(3).double() * 1000 / 3, atol=1.0, rtol=0)
