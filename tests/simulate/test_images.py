"""Projections and volumes of Gaussians agree with sums written from the definitions."""

import numpy as np
import pytest
import torch

from frazil.geometry.ctf import ctf
from frazil.geometry.rotations import random_rotations
from frazil.geometry.shifts import shift_phase
from frazil.simulate.images import Grid, project, render_volume, to_pixels, transfer
from tests.reference import projection as twin

PIXEL_ANG = 3.0


def make_points(seed: int, count: int = 40, radius_ang: float = 14.0) -> tuple:
    rng = np.random.default_rng(seed)
    return rng.uniform(-radius_ang, radius_ang, (count, 3)), rng.uniform(0.5, 2.0, count)


def image_of(points: np.ndarray, weights: np.ndarray, grid: Grid, rotation=None) -> np.ndarray:
    rotation = np.eye(3) if rotation is None else rotation
    turned = torch.from_numpy((points @ rotation.T)[None, :, :2].copy())
    return to_pixels(project(turned, torch.from_numpy(weights)[None], grid), grid)[0].numpy()


@pytest.mark.parametrize("box_px", [24, 30, 32])
def test_image_is_the_sum_of_gaussians_on_the_pixel_grid(box_px: int) -> None:
    # 1.7 px: both what the FFT would alias and what the band limit cuts off are below 1e-5.
    grid = Grid(box_px, PIXEL_ANG, 1.7 * PIXEL_ANG)
    points, weights = make_points(0)
    expected = twin.gaussian_image(points[:, :2] / PIXEL_ANG, weights, 1.7, box_px)
    assert np.abs(image_of(points, weights, grid) - expected).max() < 1e-4 * expected.max()


@pytest.mark.parametrize("sigma_px", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("box_px", [8, 22, 64])
def test_transform_is_the_analytic_sum_at_every_frequency(box_px: int, sigma_px: float) -> None:
    grid = Grid(box_px, PIXEL_ANG, sigma_px * PIXEL_ANG)
    points, weights = make_points(1)
    got = project(torch.from_numpy(points[None, :, :2]), torch.from_numpy(weights)[None], grid)
    kx, ky = (k.numpy().astype(np.float64) for k in grid.frequencies())
    expected = twin.fourier_sum(points[:, :2] / PIXEL_ANG, weights, sigma_px, box_px, kx, ky)
    assert np.abs(got[0].flatten().numpy() - expected).max() < 1e-5 * weights.sum()


def test_volume_is_the_sum_of_gaussians_on_the_voxel_grid() -> None:
    grid = Grid(28, PIXEL_ANG, 1.7 * PIXEL_ANG)
    points, weights = make_points(2)
    expected = twin.gaussian_volume(points / PIXEL_ANG, weights, 1.7, 28)
    assert np.abs(render_volume(points, weights, grid) - expected).max() < 1e-4 * expected.max()


@pytest.mark.parametrize("sigma_px", [0.5, 1.5])
def test_volume_summed_along_an_axis_is_the_image_seen_along_it(sigma_px: float) -> None:
    grid = Grid(18, PIXEL_ANG, sigma_px * PIXEL_ANG)
    points, weights = make_points(3)
    volume = render_volume(points, weights, grid)
    along_x = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])  # x_img = y, y_img = z
    along_y = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # x_img = z, y_img = x
    pairs = (
        (volume.sum(0), image_of(points, weights, grid)),
        (volume.sum(2), image_of(points, weights, grid, along_x)),
        (volume.sum(1).T, image_of(points, weights, grid, along_y)),
    )
    for summed, image in pairs:
        assert np.abs(summed - image).max() < 1e-5 * np.abs(image).max()


def test_image_transform_is_the_central_slice_of_the_volume() -> None:
    box_px = 24
    grid = Grid(box_px, PIXEL_ANG, 1.7 * PIXEL_ANG)
    points, weights = make_points(4)
    volume = render_volume(points, weights, grid).astype(np.float64)
    kx, ky = twin.disc(box_px, box_px / 2)
    for rotation in random_rotations(3, torch.Generator().manual_seed(0)).numpy():
        image = image_of(points, weights, grid, rotation).astype(np.float64)
        got = twin.image_transform(image, kx, ky)
        assert (
            np.abs(got - twin.volume_slice(volume, rotation, kx, ky)).max() < 1e-4 * weights.sum()
        )
        transposed = twin.volume_slice(volume, rotation.T, kx, ky)
        assert np.abs(got - transposed).max() > 1e-2 * weights.sum()


def test_quarter_turn_in_the_plane_turns_the_pixels() -> None:
    grid = Grid(20, PIXEL_ANG, PIXEL_ANG)
    points, weights = make_points(5)
    image = image_of(points, weights, grid)
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x_img = -y, y_img = x
    turned = image_of(points, weights, grid, quarter)
    expected = np.roll(np.flip(image, 0), 1, 0).T
    assert np.abs(turned - expected).max() < 1e-5 * image.max()


@pytest.mark.parametrize("move_px", [(3, 0), (-2, 5)])
def test_whole_pixel_move_of_the_atoms_rolls_the_image(move_px: tuple[int, int]) -> None:
    grid = Grid(20, PIXEL_ANG, 0.7 * PIXEL_ANG)
    points, weights = make_points(6)
    moved = points + np.array([*move_px, 0]) * PIXEL_ANG
    expected = np.roll(image_of(points, weights, grid), move_px[::-1], (0, 1))
    got = image_of(moved, weights, grid)
    assert np.abs(got - expected).max() < 1e-5 * expected.max()


def test_move_of_the_atoms_is_the_phase_ramp_of_geometry() -> None:
    grid = Grid(20, PIXEL_ANG, PIXEL_ANG)
    points, weights = make_points(7)
    t_px = torch.tensor([[1.3, -2.6]], dtype=torch.float64)
    weight = torch.from_numpy(weights)[None]
    centred = torch.from_numpy(points[None, :, :2])
    kx, ky = grid.frequencies()
    expected = project(centred, weight, grid).flatten(1) * shift_phase(kx, ky, t_px, grid.box_px)
    got = project(centred + t_px * PIXEL_ANG, weight, grid).flatten(1)
    assert (got - expected).abs().max() < 1e-5 * weights.sum()


def test_batch_gives_what_single_images_give() -> None:
    grid = Grid(32, PIXEL_ANG, PIXEL_ANG)
    points = torch.from_numpy(np.stack([make_points(seed)[0][:, :2] for seed in range(5)]))
    weights = torch.from_numpy(np.stack([make_points(seed)[1] for seed in range(5)]))
    together = project(points, weights, grid)
    for i in range(5):
        alone = project(points[i : i + 1], weights[i : i + 1], grid)[0]
        assert (together[i] - alone).abs().max() < 1e-5 * weights[i].sum()


def test_transfer_is_minus_the_ctf_so_that_particles_are_light() -> None:
    grid = Grid(16, PIXEL_ANG, PIXEL_ANG)
    parameters = torch.tensor([[PIXEL_ANG, 15000.0, 14000, 30, 300, 2.7, 0.1, 0]])
    gain = torch.tensor([1.7])
    kx, ky = grid.frequencies()
    got = transfer(parameters, gain, grid).flatten()
    assert torch.allclose(got, -1.7 * ctf(kx, ky, parameters, 16)[0], atol=1e-6)
    at_zero = transfer(parameters, gain, grid)[0, 8, 0]
    assert torch.isclose(at_zero, torch.tensor(1.7 * 0.1))
    assert transfer(None, gain, grid).item() == pytest.approx(1.7)
