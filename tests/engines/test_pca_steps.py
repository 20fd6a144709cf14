"""Theorems of the pca engine's kernels, E-step and M-step."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from frazil.engines.pca import axes, expectation
from frazil.engines.pca.grids import (
    Geometry,
    finished_maps,
    from_lanes,
    inner_products,
    resampled,
    resized,
    to_half_grids,
    to_lanes,
    to_real_space,
)
from frazil.engines.pca.images import transfer, whitened
from frazil.engines.pca.kernels import (
    extract_kernel,
    insert_kernel,
    residual_kernel,
    solve_kernel,
)
from frazil.engines.pca.streaming import Fit, run_pass, view_order
from frazil.engines.pca.sums import FLUSH_IMAGES, VoxelSums, lane_count, maximise, penalty
from frazil.geometry.ctf import ctf
from frazil.geometry.packing import half_disc
from frazil.geometry.rotations import random_rotations, slice_coordinates
from frazil.geometry.slicing import extract, insert, insert_real, symmetrise
from tests.engines.pca_case import Case, make_case, smooth_grids

ALL = slice(None)


def kernel_inputs(case: Case):
    count = len(case.everything.rows)
    images = whitened(
        case.everything, torch.arange(count), case.deviation, np.arange(count) % 2, case.geometry
    )
    geometry = case.geometry
    places = (geometry.shape, images.rotations, geometry.kx, geometry.ky, images.factor)
    return images, places


def designs(case: Case, grids: torch.Tensor) -> np.ndarray:
    images, places = kernel_inputs(case)
    out = np.empty((*images.factor.shape, 2 * (len(grids) + 1)), np.float32)
    extract_kernel(len(grids))(to_lanes(grids), *places, images.data, out)
    return out


def as_complex(design: np.ndarray) -> np.ndarray:
    """Return (B, P, L + 1) complex of a design's real and imaginary halves."""
    half = design.shape[-1] // 2
    return design[..., :half] + 1j * design[..., half:]


def slow_points(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Return slice points (B, P, 3) in voxels, and which of them have kx < 0."""
    disc, rotations = case.geometry.disc, case.everything.rotations
    k3 = slice_coordinates(rotations, disc.kx.float(), disc.ky.float()) * case.geometry.padding
    return k3.double(), k3[..., 0] < 0


@pytest.mark.parametrize(("box_px", "zdim", "padding"), [(12, 2, 1), (8, 0, 1), (12, 4, 2)])
def test_extract_equals_the_slow_twin_in_float64(box_px, zdim, padding):
    case = make_case(9, box_px, zdim, padding=padding)
    found = as_complex(designs(case, case.grids))
    images, _ = kernel_inputs(case)
    points, flipped = slow_points(case)
    assert flipped.any()
    for lane, grid in enumerate(case.grids):
        wanted = extract(grid.to(torch.complex128), points)
        wanted = torch.where(flipped, wanted.conj(), wanted).numpy() * images.factor
        scale = np.abs(wanted).max()
        assert np.abs(found[..., lane] - wanted).max() < 2e-5 * scale
    data = images.data[..., 0] + 1j * images.data[..., 1]
    data = np.where(flipped.numpy(), data.conj(), data)
    assert np.array_equal(found[..., -1], data.astype(np.complex64))


def test_insert_is_the_adjoint_of_extract():
    case = make_case(9, 12, 2)
    grids = smooth_grids(case.geometry, 3, 11)
    design = designs(case, grids)
    values = np.random.default_rng(0).standard_normal(design.shape).astype(np.float32)
    _, places = kernel_inputs(case)
    sums = VoxelSums.zeros(3, case.geometry)
    insert_kernel(3)(sums.recent, *places, np.zeros((9, 6), np.float32), values)
    right = sums.recent.reshape(-1, lane_count(3))[:, 6:].astype(np.float64)
    lanes = to_lanes(grids).reshape(-1, 6)
    columns = [0, 1, 2, 4, 5, 6]
    there = (design[..., columns].astype(np.float64) * values[..., columns]).sum((0, 1))
    assert np.allclose((lanes * right).sum(0), there, rtol=1e-4, atol=1e-4 * np.abs(there).max())
    assert np.abs(there).min() > 1e-3 * np.abs(there).max()


def test_insert_sums_what_the_slow_twin_sums():
    case = make_case(9, 12, 1)
    images, places = kernel_inputs(case)
    moments = np.random.default_rng(1).standard_normal((9, 3)).astype(np.float32)
    values = np.random.default_rng(2).standard_normal((*images.factor.shape, 6))
    sums = VoxelSums.zeros(2, case.geometry)
    insert_kernel(2)(sums.recent, *places, moments, values.astype(np.float32))
    found = sums.recent.reshape(*case.geometry.shape, -1)
    points, flipped = slow_points(case)
    shape = tuple(case.geometry.shape)
    for lane in range(3):
        wanted = torch.zeros(shape, dtype=torch.float64)
        weight = torch.from_numpy(images.factor.astype(np.float64) ** 2 * moments[:, lane, None])
        insert_real(wanted, points, weight)
        assert np.abs(found[..., lane] - wanted.numpy()).max() < 2e-5 * float(wanted.abs().max())
    grid = torch.zeros(shape, dtype=torch.complex128)
    value = torch.from_numpy(images.factor * (values[..., 1] + 1j * values[..., 4]))
    insert(grid, points, torch.where(flipped, value.conj(), value))
    assert np.abs(found[..., 4] - grid.real.numpy()).max() < 2e-5 * float(grid.abs().max())
    joined = symmetrise(grid)
    symmetric = sums.symmetric(case.geometry).reshape(*shape, -1)
    inner = (slice(0, -1), slice(0, -1), ALL)
    assert np.abs(symmetric[..., 6][inner] - joined.imag.numpy()[inner]).max() < 1e-4


@pytest.mark.parametrize("with_contrast", [False, True])
def test_the_residual_power_is_that_of_the_posterior(with_contrast):
    case = make_case(6, 12, 2)
    design = designs(case, 0.8 * case.grids)
    matrix = torch.from_numpy(design).view(6, -1, 4).double()
    found = expectation.posterior(matrix.transpose(1, 2) @ matrix, with_contrast)
    assert bool((found.contrast != 1).all()) == with_contrast
    second = expectation.moments(found)
    values = matrix @ expectation.residual_weights(second, found.contrast)
    power = np.zeros((6, 7))
    white = values.view(design.shape).float().numpy()
    residual_kernel(3)(design, white, case.geometry.shell, power)
    volumes, data = found.contrast[:, None, None] * matrix[..., :3], matrix[..., 3]
    full = torch.cat([torch.ones(6, 1), found.mean], 1)
    left = (data - torch.einsum("bpl,bl->bp", volumes, full)) ** 2
    left += torch.einsum("bpl,blm,bpm->bp", volumes[..., 1:], found.covariance, volumes[..., 1:])
    assert np.allclose(power.sum(1), left.sum(1), rtol=1e-4)


def test_the_contrast_is_the_most_likely_of_the_dense_gaussian():
    case = make_case(5, 8, 2, noise=1.0)
    design = designs(case, 0.7 * case.grids)
    matrix = torch.from_numpy(design).view(5, -1, 4).double()
    found = expectation.posterior(matrix.transpose(1, 2) @ matrix, True)
    fine = np.linspace(0.3, 1.7, 561)
    for b in range(5):
        mean, volumes, data = matrix[b, :, 0], matrix[b, :, 1:3], matrix[b, :, 3]

        def score(a, mean=mean, volumes=volumes, data=data):
            covariance = a**2 * volumes @ volumes.T + torch.eye(len(data)).double() / 2
            dense = torch.distributions.MultivariateNormal(a * mean, covariance).log_prob(data)
            constants = len(data) / 2 * np.log(np.pi)
            prior = (a - 1) ** 2 / (2 * expectation.CONTRAST_DEVIATION**2)
            return float(dense) + constants - prior

        scores = [score(a) for a in fine]
        assert float(found.contrast[b]) == pytest.approx(fine[np.argmax(scores)], abs=0.005)
        assert float(found.evidence[b]) == pytest.approx(score(float(found.contrast[b])), abs=1e-6)
        assert scores[0] < max(scores) > scores[-1]


def test_images_of_varied_contrast_show_theirs():
    case = make_case(200, 12, 2, noise=1.0)
    generator = torch.Generator().manual_seed(2)
    true = 1 + 0.2 * torch.randn(200, generator=generator)
    images = case.everything.coefficients * true[:, None]
    varied = replace(case, everything=replace(case.everything, coefficients=images))
    found = {}
    for name, one in (("varied", varied), ("alike", case)):
        kept = torch.empty(200, dtype=torch.float64)
        run_pass(
            one.batches(50),
            replace(one.fit([case.grids]), contrast=True),
            False,
            listener=lambda rows, posterior, kept=kept: kept.__setitem__(rows, posterior.contrast),
        )
        found[name] = kept
    assert float((found["varied"] - true).square().mean().sqrt()) < 0.1
    assert float((found["alike"] - 1).square().mean().sqrt()) < 0.1
    assert float((found["alike"] - true).square().mean().sqrt()) > 0.15  # positive control


def test_the_e_step_is_the_dense_gaussian_posterior():
    case = make_case(5, 8, 2)
    design = designs(case, case.grids)
    matrix = torch.from_numpy(design).view(5, -1, 4).double()
    found = expectation.posterior(matrix.transpose(1, 2) @ matrix)
    for b in range(5):
        mean, volumes, data = matrix[b, :, 0], matrix[b, :, 1:3], matrix[b, :, 3]
        covariance = volumes @ volumes.T + torch.eye(len(data), dtype=torch.float64) / 2
        gain = volumes.T @ torch.linalg.inv(covariance)
        assert torch.allclose(found.mean[b], gain @ (data - mean), atol=1e-9)
        left = torch.eye(2, dtype=torch.float64) - gain @ volumes
        assert torch.allclose(found.covariance[b], left, atol=1e-9)
        dense = torch.distributions.MultivariateNormal(mean, covariance).log_prob(data)
        constants = len(data) / 2 * np.log(np.pi)
        assert float(found.evidence[b]) == pytest.approx(float(dense) + constants, abs=1e-6)


def test_the_m_step_solves_every_voxel():
    rng = np.random.default_rng(3)
    voxels, size = 7, 3
    root = rng.standard_normal((voxels, size, size))
    matrix = root @ root.transpose(0, 2, 1)
    right = rng.standard_normal((voxels, 2, size))
    rows, columns = np.triu_indices(size)
    sums = np.concatenate([matrix[:, rows, columns], right.reshape(voxels, -1)], 1)
    ridge = rng.random((size, 2)) + 0.5
    shell = np.array([0, 1, -1, 0, 1, 1, 0])
    former = rng.standard_normal((voxels, 2, size)).astype(np.float32)
    out = np.full(former.size, np.nan, np.float32)
    solve_kernel(size)(sums.reshape(-1), ridge, shell, former.reshape(-1), out)
    out = out.reshape(former.shape)
    for v in range(voxels):
        if shell[v] < 0:
            assert not out[v].any()
            continue
        prior = np.diag(ridge[:, shell[v]])
        for part in range(2):
            step = np.linalg.solve(matrix[v] + prior, right[v, part] - prior @ former[v, part])
            assert np.allclose(out[v, part], former[v, part] + step, atol=1e-5)


def objective(case: Case, grids: torch.Tensor, ridge: np.ndarray, contrast: bool = False):
    (found,) = run_pass(case.batches(16), replace(case.fit([grids]), contrast=contrast))
    return found.evidence - penalty(grids, ridge, case.geometry), found


@pytest.mark.parametrize(("padding", "contrast"), [(1, False), (2, False), (1, True)])
def test_the_penalised_likelihood_never_falls(padding, contrast):
    case = make_case(60, 12, 2, padding=padding)
    ridge = np.full((3, 7), 1e-3)
    grids = smooth_grids(case.geometry, 3, 99) * 0.5
    history = []
    for _ in range(8):
        value, found = objective(case, grids, ridge, contrast)
        history.append(value)
        grids = maximise(found.voxels.symmetric(case.geometry), ridge, grids, case.geometry)
    steps = np.diff(history)
    assert steps.min() > -1e-6 * abs(history[0])
    assert history[-1] - history[0] > 10 * abs(steps[-1])


def test_a_step_that_is_too_long_lowers_the_penalised_likelihood():
    # Positive control of the test above.
    case = make_case(60, 12, 2)
    ridge = np.full((3, 7), 1e-3)
    grids = smooth_grids(case.geometry, 3, 99) * 0.5
    for _ in range(3):
        before, found = objective(case, grids, ridge)
        new = maximise(found.voxels.symmetric(case.geometry), ridge, grids, case.geometry)
        step, grids = new - grids, new
    assert objective(case, grids + 20 * step, ridge)[0] < before


def test_sums_do_not_depend_on_batches_and_threads():
    case = make_case(60, 12, 2)
    owner = np.arange(60) % 2
    models = [case.grids, 0.9 * case.grids]
    one = run_pass(case.batches(60), case.fit(models, owner))
    for size, threads in ((7, 1), (32, 4)):
        other = run_pass(case.batches(size), case.fit(models, owner), True, threads)
        for a, b in zip(one, other, strict=True):
            assert a.images == b.images == 30
            assert a.evidence == pytest.approx(b.evidence, rel=1e-6)
            assert np.allclose(a.second, b.second, rtol=1e-5, atol=1e-4)
            assert np.allclose(a.power, b.power, rtol=1e-5)
            assert np.array_equal(a.counts, b.counts)
            scale = np.abs(a.voxels.recent).max()
            assert np.abs(a.voxels.recent - b.voxels.recent).max() < 1e-5 * scale
    fewer = run_pass(case.batches(59), case.fit(models, owner))  # two batches: positive control
    assert fewer[0].images == 30
    lacking = run_pass(list(case.batches(59))[:1], case.fit(models, owner))
    scale = np.abs(one[1].voxels.recent).max()
    assert np.abs(one[1].voxels.recent - lacking[1].voxels.recent).max() > 1e-3 * scale


def test_long_sums_are_kept_in_float64():
    geometry = Geometry.of(8)
    sums = VoxelSums.zeros(1, geometry)
    for _ in range(3):
        sums.recent += 1.0
        sums.count(FLUSH_IMAGES)
    sums.recent += 1e-5
    sums.count(1)
    assert sums.total is not None and sums.total.dtype == np.float64
    assert np.allclose(sums.symmetric(geometry)[-1], 3 + 1e-5, rtol=0, atol=1e-10)
    assert sums.images == 3 * FLUSH_IMAGES + 1


def test_the_noise_is_found_per_shell_and_optics_group():
    case = make_case(400, 12, 1, noise=6.0)
    wrong = Fit(
        [case.grids],
        np.full_like(case.deviation, 9.0),
        np.zeros(400, np.int64),
        np.arange(400) % 2,
        case.geometry,
    )
    (found,) = run_pass(case.batches(64), wrong)
    measured = 9.0 * np.sqrt(found.power[:, 1:] / found.counts[:, 1:])
    assert np.allclose(measured, case.deviation[:, 1:], rtol=0.06)


def test_the_quick_ctf_is_that_of_the_geometry():
    disc = half_disc(64)
    parameters = torch.tensor(
        [[3.0, 15_000, 14_000, 30, 300, 2.7, 0.1, 0], [2.0, 9_000, 9_500, 110, 200, 1.2, 0.07, 45]]
    )
    found = transfer(parameters, disc.kx, disc.ky, 64)
    wanted = ctf(disc.kx, disc.ky, parameters.double(), 64)
    assert float((found - wanted).abs().max()) < 1e-4


def test_absorbing_the_latents_changes_no_volume():
    geometry = Geometry.of(8)
    grids = smooth_grids(geometry, 3, 2)
    rng = np.random.default_rng(4)
    z = rng.standard_normal((500, 2)) @ np.array([[2.0, 0.3], [0.0, 0.5]]) + [0.4, -1.0]
    full = np.concatenate([np.ones((500, 1)), z], 1)
    new = axes.principal(axes.absorbed(grids, full.T @ full, 500), geometry)
    gram = inner_products(new[1:], new[1:], geometry)
    assert abs(gram[0, 1]) < 1e-4 * gram[0, 0] and gram[0, 0] > gram[1, 1]
    # The mean and covariance of all volumes are what they were.
    before, after = (to_real_space(g).double().reshape(3, -1) for g in (grids, new))
    weights = torch.from_numpy(full)
    assert torch.allclose(weights.mean(0) @ before, after[0], atol=1e-4)
    scatter = torch.from_numpy(np.cov(z.T, bias=True))
    assert torch.allclose(before[1:].T @ scatter @ before[1:], after[1:].T @ after[1:], atol=1e-2)


def test_alignment_finds_a_rotation_of_the_components():
    geometry = Geometry.of(8)
    grids = smooth_grids(geometry, 4, 2)
    turn = np.eye(4)
    turn[1:, 1:] = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    turned = axes.combined(grids, turn)
    assert float((turned - grids).abs().max()) > 0.1
    assert torch.allclose(axes.aligned(grids, turned, geometry), grids, atol=1e-4)
    assert axes.canonical_correlations(grids, turned, geometry).min() > 0.9999
    other = smooth_grids(geometry, 4, 3)
    assert axes.canonical_correlations(grids, other, geometry).max() < 0.6


def test_layouts_and_boxes_come_home_again():
    geometry, larger = Geometry.of(8), Geometry.of(12)
    grids = smooth_grids(geometry, 2, 1)
    assert torch.equal(from_lanes(to_lanes(grids), geometry), grids)
    assert torch.equal(resized(resized(grids, larger), geometry), grids)
    volume = to_real_space(grids)
    # The Nyquist points on the axes cannot be held by a box of even side.
    assert torch.allclose(to_real_space(to_half_grids(volume, geometry)), volume, atol=1e-5)
    assert torch.allclose(resampled(resampled(volume[0], 12), 8), volume[0], atol=1e-5)


def test_finished_maps_are_those_whose_slices_were_fitted():
    # Many slices of a map that is not band-limited to the voxels, without noise.
    geometry = Geometry.of(16, padding=2)
    axis = torch.arange(16) - 8
    square = (
        ((axis - 3.0) ** 2)[None, None, :] + (axis**2)[None, :, None] + (axis**2)[:, None, None]
    )
    truth = torch.exp(-square / 8.0)
    wide = torch.nn.functional.pad(truth, (8,) * 6)
    side = torch.arange(32) - 16
    response = torch.sinc(side / 32) ** 2
    response = response[:, None, None] * response[None, :, None] * response[None, None, :]
    grids = to_half_grids((wide / response)[None], geometry)
    assert torch.allclose(finished_maps(grids, geometry)[0], truth, atol=0.02)


def test_neighbours_in_view_order_look_from_the_same_side():
    rotations = random_rotations(400, torch.Generator().manual_seed(0)).float()
    order = view_order(rotations)
    assert torch.equal(order.sort().values, torch.arange(400))
    normal = rotations[:, 2]
    near = (normal[order[1:]] * normal[order[:-1]]).sum(1).abs()
    assert float(near.median()) > 0.98
    assert float((normal[1:] * normal[:-1]).sum(1).abs().median()) < 0.6  # without the order
