"""Theorems of maps by regression."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from frazil.engines.backproject import MapSums, add_batch, normalised_map
from frazil.engines.backproject_settings import BackprojectSettings
from frazil.engines.pca.grids import Geometry, finished_maps, unfinished_grids
from frazil.engines.pca.mask import sphere
from frazil.engines.regression import neighbours, shrinkage
from frazil.engines.regression.maps import maps_of, model_map
from frazil.engines.regression.neighbours import OUTSIDE
from frazil.engines.regression.streaming import Base, Task, run_pass
from frazil.geometry.ctf import ctf
from frazil.geometry.rotations import slice_coordinates
from frazil.geometry.shifts import shift_phase
from frazil.geometry.slicing import extract, insert, insert_real, symmetrise
from frazil.metrics.fsc import fsc
from tests.engines.pca_case import Case, make_case

RNG = np.random.default_rng(3)


def make_task(case: Case, ring: np.ndarray, rings: int, base: Base | None = None) -> Task:
    rows = np.arange(len(case.everything.rows))
    return Task(
        base or Base(None, None),
        ring,
        rings,
        (rows % 2).astype(np.uint8),
        rows % 2,
        case.deviation,
        case.geometry,
    )


def model_of(case: Case, rows: slice | None = None) -> Base:
    one = np.ones((len(case.latents), 1), np.float32)
    return Base(case.grids, np.concatenate([one, case.latents.numpy()], 1).astype(np.float32))


def random_rings(count: int, targets: int = 2, rings: int = 3) -> np.ndarray:
    ring = np.random.default_rng(5).integers(0, rings + 1, (targets, count)).astype(np.uint8)
    ring[ring == rings] = OUTSIDE
    return ring


def slow_sums(case: Case, chosen: np.ndarray, residual: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (weight, right) half grids of some images in float64, plane kx = 0 joined."""
    disc, whole = case.geometry.disc, case.everything
    shape = tuple(case.geometry.shape)
    weight = torch.zeros(shape, dtype=torch.float64)
    right = torch.zeros(shape, dtype=torch.complex128)
    for i in chosen:
        rotation = whole.rotations[i : i + 1].double()
        points = slice_coordinates(rotation, disc.kx.double(), disc.ky.double())
        transfer = ctf(disc.kx, disc.ky, whole.ctf_parameters[i : i + 1].double(), disc.box_px)
        phase = shift_phase(disc.kx, disc.ky, whole.shifts_px[i : i + 1].double(), disc.box_px)
        data = whole.coefficients[i : i + 1].to(torch.complex128) * phase
        if residual:
            latent = torch.cat([torch.ones(1), case.latents[i]]).to(torch.complex128)
            volume = torch.einsum("l...,l->...", case.grids.to(torch.complex128), latent)
            data = data - transfer * extract(volume, points)
        variance = torch.from_numpy(case.deviation[i % 2][case.geometry.shell]).double() ** 2
        insert(right, points, transfer / variance * data)
        insert_real(weight, points, transfer**2 / variance)
    joined = symmetrise(weight.to(torch.complex128)).real
    return joined, symmetrise(right)


@pytest.mark.parametrize("residual", [False, True])
def test_sums_of_rings_and_halves_equal_a_float64_twin(residual):
    case = make_case(40, 12, 2)
    ring = random_rings(40)
    base = model_of(case)
    sums = run_pass(case.batches(17), make_task(case, ring, 3, base))
    geometry = case.geometry
    inside = (slice(0, -1), slice(0, -1))
    for target in range(2):
        balls = shrinkage.Balls.of(sums.local[target], 0 if residual else 1, geometry)
        for half in (0, 1):
            for ball in range(3):
                chosen = np.flatnonzero((ring[target] <= ball) & (np.arange(40) % 2 == half))
                weight, right = slow_sums(case, chosen, residual)
                shape = tuple(geometry.shape)
                found = balls.weight[half, ball].reshape(shape), balls.right[half, ball]
                scale = float(weight.max())
                assert np.abs(found[0][inside] - weight[inside].numpy()).max() < 1e-5 * scale
                scale = float(right.abs().max())
                away = np.abs(found[1].reshape(shape)[inside] - right[inside].numpy())
                assert away.max() < 3e-5 * scale


def test_distances_equal_a_float64_twin():
    latents = RNG.standard_normal((50, 3)).astype(np.float32)
    root = RNG.standard_normal((50, 3, 3))
    precision = (root @ root.transpose(0, 2, 1)).astype(np.float32)
    point = RNG.standard_normal(3).astype(np.float32)
    away = latents.astype(np.float64) - point.astype(np.float64)
    wanted = [a @ p @ a for a, p in zip(away, precision.astype(np.float64), strict=True)]
    found = neighbours.squared_distances(latents, precision, point)
    assert found.dtype == np.float64
    assert np.allclose(found, wanted, rtol=1e-12)


def test_plain_distances_do_not_depend_on_the_scale_of_the_latents():
    latents = RNG.standard_normal((300, 3))
    mixing = np.array([[1, 0, 0], [3, 20, 0], [0, 0.1, 0.01]])
    other = latents @ mixing
    point = latents[0] * 0.5
    found = [
        neighbours.squared_distances(z, neighbours.plain_precision(z), p)
        for z, p in ((latents, point), (other, point @ mixing))
    ]
    assert np.allclose(*found, rtol=1e-6)


def test_a_constant_latent_counts_nothing():
    latents = RNG.standard_normal((100, 2))
    latents[:, 1] = 4.0
    found = neighbours.squared_distances(latents, neighbours.plain_precision(latents), latents[0])
    assert np.isfinite(found).all() and found.max() > 0


def test_every_ball_holds_the_nearest_images():
    distance = RNG.random(1000)
    sizes = neighbours.ball_sizes(1000)
    ring = neighbours.rings(distance, sizes)
    for number, size in enumerate(sizes):
        inside = ring <= number
        assert inside.sum() == size
        assert distance[inside].max() < distance[~inside].min()
    assert (ring == OUTSIDE).sum() == 1000 - sizes[-1]


def test_one_ball_of_all_images_without_a_residual_is_the_ordinary_back_projection():
    case = make_case(60, 12, 2)
    case = replace(case, deviation=np.ones_like(case.deviation))
    sums = run_pass(case.batches(60), make_task(case, np.zeros((1, 60), np.uint8), 1))
    balls = shrinkage.Balls.of(sums.local[0], 0, case.geometry)
    weight, right = balls.weight[:, 0].sum(0), balls.right[:, 0].sum(0)
    # The ordinary ridge is that of the mean weight in the sphere, not in the shell.
    inside = case.geometry.voxel_shell >= 0
    copies = case.geometry.voxel_copies
    level = (weight * copies)[inside].sum() / copies[inside].sum()
    grid = np.where(inside, right / (weight + level), 0).astype(np.complex64)
    found = shrinkage.to_volume(grid, case.geometry)
    ordinary = MapSums.zeros(case.geometry.disc, 1)
    add_batch(ordinary, case.everything, torch.zeros(60).long(), BackprojectSettings())
    wanted = normalised_map(ordinary.numerator[0], ordinary.weight[0], BackprojectSettings())
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_sums_do_not_depend_on_batches_and_threads():
    case = make_case(60, 12, 2)
    ring = random_rings(60)
    task = make_task(case, ring, 3, model_of(case))
    one = run_pass(case.batches(60), task)
    scale = np.abs(one.local).max()
    for size, threads in ((7, 1), (32, 3)):
        other = run_pass(case.batches(size), task, threads)
        assert np.abs(other.local - one.local).max() < 1e-5 * scale
    lacking = run_pass(list(case.batches(50))[:1], task)  # positive control
    assert np.abs(lacking.local - one.local).max() > 1e-3 * scale


def two_states(noise: float = 0.0) -> tuple[Case, np.ndarray]:
    """Return images of a linear model at two latents only, and which image is of which."""
    case = make_case(600, 16, 1, noise=1e-3)
    state = np.arange(600) // 2 % 2
    latents = torch.from_numpy(2.0 * state[:, None] - 1).float()
    disc, whole = case.geometry.disc, case.everything
    points = slice_coordinates(whole.rotations.double(), disc.kx.double(), disc.ky.double())
    slices = [extract(grid.to(torch.complex128), points) for grid in case.grids]
    clean = slices[0] + latents.double() * slices[1]
    clean = clean * ctf(disc.kx, disc.ky, whole.ctf_parameters.double(), disc.box_px)
    clean = clean * shift_phase(disc.kx, disc.ky, -whole.shifts_px.double(), disc.box_px)
    scale = noise * float(clean.abs().square().mean().sqrt()) / 2**0.5
    draw = torch.randn(*clean.shape, 2, generator=torch.Generator().manual_seed(1))
    clean = clean + torch.view_as_complex(scale * draw.double())
    batch = replace(whole, coefficients=clean.to(torch.complex64))
    deviation = np.full_like(case.deviation, max(noise, 1e-2) * float(clean.abs().mean()))
    return replace(case, everything=batch, latents=latents, deviation=deviation), state


def states_of(case: Case) -> list[torch.Tensor]:
    return [
        finished_maps((case.grids[0] + z * case.grids[1])[None], case.geometry)[0] for z in (-1, 1)
    ]


def rings_of(state: np.ndarray) -> np.ndarray:
    """Return rings around each state: 60 images of it, all of it, all images."""
    ring = np.full((2, len(state)), 2, np.uint8)
    for target in (0, 1):
        own = np.flatnonzero(state == target)
        ring[target, own] = 1
        ring[target, own[:60]] = 0
    return ring


def test_a_map_of_data_without_noise_is_the_state_of_its_point():
    case, state = two_states()
    geometry = case.geometry
    sums = run_pass(case.batches(100), make_task(case, rings_of(state), 3))
    mask = sphere(geometry.box_px)
    found = list(maps_of(sums, None, mask, geometry))
    true = states_of(case)
    for target in (0, 1):
        own = fsc(found[target].volume, true[target], mask)[1:7]
        other = fsc(found[target].volume, true[1 - target], mask)[1:7]
        assert own.min() > 0.97
        assert other.mean() < own.mean() - 0.02
        assert not (found[target].ball == 2).all()


def test_the_residual_to_the_right_model_adds_nothing_and_to_the_mean_alone_finds_the_state():
    case, state = two_states(noise=0.7)
    geometry, mask, true = case.geometry, sphere(case.geometry.box_px), states_of(case)
    right = Base(case.grids, np.stack([np.ones(600), 2.0 * state - 1], 1).astype(np.float32))
    mean_only = Base(case.grids[:1], np.ones((600, 1), np.float32))
    points = [np.array([-1.0]), np.array([1.0])]
    bases = [model_map(case.grids, point, geometry) for point in points]
    sums = run_pass(case.batches(100), make_task(case, rings_of(state), 3, right))
    for one, base in zip(maps_of(sums, bases, mask, geometry), bases, strict=True):
        assert (one.volume - base).norm() < 0.1 * base.norm()
    means = [model_map(case.grids[:1], np.zeros(0), geometry)] * 2
    sums = run_pass(case.batches(100), make_task(case, rings_of(state), 3, mean_only))
    for target, one in enumerate(maps_of(sums, means, mask, geometry)):
        before = (means[0] - true[target]).norm()
        assert (one.volume - true[target]).norm() < 0.5 * before


def test_half_maps_are_of_disjoint_halves():
    case, state = two_states(noise=0.5)
    task = make_task(case, rings_of(state), 3)
    mask = sphere(case.geometry.box_px)

    def halves(scaled: int | None):
        coefficients = case.everything.coefficients.clone()
        if scaled is not None:
            coefficients[scaled::2] *= 3.0
        changed = replace(case, everything=replace(case.everything, coefficients=coefficients))
        sums = run_pass(changed.batches(100), task)
        mean = [one.recent for one in sums.everything]
        return sums.local, mean, next(maps_of(sums, None, mask, case.geometry)).halves

    local, mean, pair = halves(None)
    for scaled in (0, 1):
        other_local, other_mean, other = halves(scaled)
        assert np.array_equal(other_local[:, 1 - scaled], local[:, 1 - scaled])
        assert np.array_equal(other_mean[1 - scaled], mean[1 - scaled])
        assert not np.allclose(other_local[:, scaled], local[:, scaled])
        assert (other[scaled] - pair[scaled]).norm() > pair[scaled].norm()


def test_pure_noise_is_shrunk_away():
    case, state = two_states(noise=0.5)
    noise = torch.randn(
        *case.everything.coefficients.shape, 2, generator=torch.Generator().manual_seed(4)
    )
    scale = float(case.deviation.mean()) / 2**0.5
    noise = torch.view_as_complex(scale * noise)
    case = replace(case, everything=replace(case.everything, coefficients=noise))
    sums = run_pass(case.batches(100), make_task(case, rings_of(state), 3))
    balls = shrinkage.Balls.of(sums.local[0], 0, case.geometry)
    mask = sphere(case.geometry.box_px)
    choice = shrinkage.choose(balls, mask, case.geometry)
    left = shrinkage.of_both(balls, choice, case.geometry)
    raw = shrinkage.estimate(
        balls.weight[:, 0].sum(0), balls.right[:, 0].sum(0), 1.0, case.geometry
    )
    assert np.abs(left).max() > 0 or (choice.share == 0).all()
    assert (np.abs(left) ** 2).sum() < 0.1 * (np.abs(raw) ** 2).sum()


def test_a_shell_without_any_data_gives_zeros():
    geometry = Geometry.of(8)
    voxels = len(geometry.voxel_shell)
    empty = shrinkage.Balls(
        np.zeros((2, 2, voxels), np.float32), np.zeros((2, 2, voxels), np.complex64)
    )
    choice = shrinkage.choose(empty, sphere(8), geometry)
    assert not choice.share.any()
    assert not shrinkage.of_both(empty, choice, geometry).any()


def test_grids_of_finished_maps_have_their_slices():
    case = make_case(3, 12, 1)
    maps = finished_maps(case.grids, case.geometry)
    again = finished_maps(unfinished_grids(maps, case.geometry), case.geometry)
    inside = sphere(12)[None] > 0
    assert ((again - maps) * inside).abs().max() < 2e-2 * maps.abs().max()
