"""Theorems of slices of a volume's transform, and of their adjoint."""

import numpy as np
import pytest
import torch

from frazil.geometry.fourier import fft2_centred, fft3_centred, ifft3_centred
from frazil.geometry.packing import half_disc, pack
from frazil.geometry.rotations import from_relion_euler, random_rotations, slice_coordinates
from frazil.geometry.slicing import (
    extract,
    half_grid_from_volume,
    half_grid_shape,
    insert,
    insert_real,
    symmetrise,
    volume_from_half_grid,
)
from tests.reference import fourier as dft
from tests.reference import slicing as twin

both_precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def complex_noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.complex(
        noise(*shape, dtype=dtype, seed=seed), noise(*shape, dtype=dtype, seed=seed + 99)
    )


def frequencies_in_ball(
    count: int, box_px: int, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Points (kx, ky, kz) spread over the ball |k| <= D/2, some of them on its rim."""
    direction = noise(count, 3, dtype=dtype, seed=4)
    direction /= direction.norm(dim=1, keepdim=True)
    radius = torch.linspace(0, 1, count, dtype=dtype).sqrt() * (box_px / 2)
    return direction * radius[:, None]


def real_inner(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one.conj() * two).real.double().sum())


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def band_limited(box_px: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A random real volume whose Nyquist planes are zero."""
    transform = fft3_centred(noise(box_px, box_px, box_px))
    transform[0], transform[:, 0], transform[:, :, 0] = 0, 0, 0
    return ifft3_centred(transform).real.to(dtype)


def full_grid(box_px: int) -> np.ndarray:
    """A random Hermitian full grid, frequencies -D/2 - 1 ... D/2 + 1 on each axis."""
    full = complex_noise(*[box_px + 3] * 3).numpy()
    return full + np.conj(full[::-1, ::-1, ::-1])


def half_of(full: np.ndarray, box_px: int) -> torch.Tensor:
    """The half grid's part of such a full grid."""
    return torch.from_numpy(full[1:, 1:, box_px // 2 + 1 :].copy())


@both_precisions
def test_half_grid_holds_the_explicit_sum_with_its_aliases(dtype, tolerance):
    box_px = 8
    volume = noise(box_px, box_px, box_px, dtype=dtype)
    table = dft.dft3(volume.double().numpy())
    grid = half_grid_from_volume(volume)
    assert grid.shape == half_grid_shape(box_px) == (10, 10, 6)
    wanted = np.zeros(grid.shape, complex)
    for (z, y, x), _ in np.ndenumerate(wanted):
        kz, ky, kx = z - 4, y - 4, x
        wanted[z, y, x] = table[(kz + 4) % 8, (ky + 4) % 8, (kx + 4) % 8]
    assert relative_error(grid, torch.from_numpy(wanted)) < tolerance


@both_precisions
@pytest.mark.parametrize("box_px", [8, 14])
def test_volume_comes_home_through_the_half_grid(box_px, dtype, tolerance):
    volume = band_limited(box_px, dtype)
    home = volume_from_half_grid(half_grid_from_volume(volume))
    assert home.dtype == dtype
    assert relative_error(home, volume) < tolerance
    # Positive control: the Nyquist planes are dropped.
    checkered = volume + (-1.0) ** torch.arange(box_px)
    assert relative_error(volume_from_half_grid(half_grid_from_volume(checkered)), checkered) > 0.1


@both_precisions
def test_extract_at_grid_points_is_exact(dtype, tolerance):
    box_px = 8
    volume = band_limited(box_px, dtype)
    transform = fft3_centred(volume)
    k = torch.cartesian_prod(*[torch.arange(-3, 4)] * 3)  # (kx, ky, kz), kx < 0 included
    wanted = transform[k[:, 2] + 4, k[:, 1] + 4, k[:, 0] + 4]
    found = extract(half_grid_from_volume(volume), k.to(dtype))
    assert relative_error(found, wanted) < tolerance


def test_extract_is_trilinear_interpolation_of_the_full_grid():
    box_px = 8
    full, points = full_grid(box_px), frequencies_in_ball(200, box_px)
    wanted = torch.from_numpy(twin.extract(full, points.numpy()))
    found = extract(half_of(full, box_px), points.reshape(4, 50, 3))
    assert found.shape == (4, 50)
    assert relative_error(found.reshape(-1), wanted) < 1e-12


@both_precisions
def test_linear_fields_are_interpolated_exactly(dtype, tolerance):
    box_px = 12
    slope = torch.tensor([0.7, -1.3, 0.4], dtype=dtype)  # along kx, ky, kz

    def field(k: torch.Tensor) -> torch.Tensor:
        """The linear Hermitian fields: an even real constant, an odd imaginary slope."""
        odd = k @ slope
        return torch.complex(torch.full_like(odd, 2.5), odd)

    axis = torch.arange(-6, 8, dtype=dtype)
    kz, ky, kx = torch.meshgrid(axis, axis, torch.arange(0, 8, dtype=dtype), indexing="ij")
    grid = field(torch.stack([kx, ky, kz], dim=-1))
    points = frequencies_in_ball(500, box_px, dtype)
    assert relative_error(extract(grid, points), field(points)) < tolerance


@both_precisions
def test_extract_and_insert_are_adjoint(dtype, tolerance):
    box_px = 16
    points = frequencies_in_ball(3000, box_px, dtype)
    x = complex_noise(*half_grid_shape(box_px), dtype=dtype)
    y = complex_noise(3000, dtype=dtype, seed=1)
    spread = torch.zeros_like(x)
    insert(spread, points, y)
    scale = float(extract(x, points).norm() * y.norm())
    assert abs(real_inner(extract(x, points), y) - real_inner(x, spread)) < tolerance * scale
    # Positive control: points that are a little elsewhere are no adjoint.
    elsewhere = torch.zeros_like(x)
    insert(elsewhere, 0.9 * points, y)
    assert abs(real_inner(extract(x, points), y) - real_inner(x, elsewhere)) > 1e-3 * scale


@both_precisions
def test_insert_real_is_the_adjoint_of_reading_a_real_grid(dtype, tolerance):
    box_px = 16
    points = frequencies_in_ball(3000, box_px, dtype)
    x, y = noise(*half_grid_shape(box_px), dtype=dtype), noise(3000, dtype=dtype, seed=1)
    spread = torch.zeros_like(x)
    insert_real(spread, points, y)
    read = extract(torch.complex(x, torch.zeros_like(x)), points).real
    scale = float(read.norm() * y.norm())
    assert abs(float(read @ y) - float((x * spread).sum())) < tolerance * scale


def test_inserted_values_and_weights_are_conserved_and_add_up():
    box_px = 10
    points = frequencies_in_ball(100, box_px)
    grid = torch.zeros(half_grid_shape(box_px), dtype=torch.float64)
    insert_real(grid, points, torch.ones(100, dtype=torch.float64))
    assert float(grid.sum()) == pytest.approx(100)
    once = grid.clone()
    insert_real(grid, points, torch.ones(100, dtype=torch.float64))
    assert torch.allclose(grid, 2 * once)


def test_symmetrised_insert_is_inserting_both_k_and_minus_k():
    box_px = 8
    points, values = frequencies_in_ball(60, box_px), complex_noise(60)
    # Points in the plane kx = 0 itself, which both halves share, too.
    points[:10, 0] = 0
    full = twin.insert(box_px + 3, points.numpy(), values.numpy())
    full += twin.insert(box_px + 3, -points.numpy(), values.conj().resolve_conj().numpy())
    grid = torch.zeros(half_grid_shape(box_px), dtype=torch.complex128)
    insert(grid, points, values)
    assert relative_error(symmetrise(grid), half_of(full, box_px)) < 1e-12
    # Positive control: without it the plane kx = 0 is short of one half.
    assert relative_error(grid, half_of(full, box_px)) > 0.1


def test_symmetrised_plane_is_hermitian_and_the_rest_is_untouched():
    grid = complex_noise(*half_grid_shape(8))
    joined = symmetrise(grid)
    plane = joined[:-1, :-1, 0]
    assert torch.equal(plane, torch.flip(plane, (0, 1)).conj())
    assert torch.equal(joined[:, :, 1:], grid[:, :, 1:])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_points_that_rounding_put_just_outside_the_ball_are_read_and_written(axis, sign):
    box_px = 8
    rim = torch.zeros(1, 3)
    rim[0, axis] = sign * 4.0
    outside = rim * (1 + 2**-22)
    assert float(outside.abs().max()) > 4
    grid = complex_noise(*half_grid_shape(box_px), dtype=torch.float32)
    assert torch.allclose(extract(grid, outside), extract(grid, rim), atol=1e-4)
    spread, wanted = torch.zeros_like(grid), torch.zeros_like(grid)
    value = torch.tensor([1 + 2j], dtype=torch.complex64)
    insert(spread, outside, value)
    insert(wanted, rim, value)
    assert torch.allclose(spread, wanted, atol=1e-4)


@both_precisions
def test_slice_at_the_identity_is_the_projection_along_z(dtype, tolerance):
    box_px = 12
    volume, disc = noise(box_px, box_px, box_px, dtype=dtype), half_disc(box_px)
    wanted = pack(fft2_centred(volume.sum(0)), disc)
    points = slice_coordinates(
        torch.eye(3, dtype=dtype)[None], disc.kx.to(dtype), disc.ky.to(dtype)
    )
    assert relative_error(extract(half_grid_from_volume(volume), points)[0], wanted) < tolerance
    # Positive control: the projection along x is another image.
    other = pack(fft2_centred(volume.sum(2)), disc)
    assert relative_error(extract(half_grid_from_volume(volume), points)[0], other) > 0.1


def test_slice_at_tilt_90_is_the_projection_along_x_of_the_model():
    # x_img = R x_vol with R = relion(0, 90, 0): x_img = -z_vol, y_img = y_vol, seen along x_vol.
    box_px = 12
    volume, disc = band_limited(box_px), half_disc(box_px)
    image = volume.sum(2).T  # [y, z]
    image = torch.roll(torch.flip(image, (1,)), 1, 1)  # pixel of -z
    R = from_relion_euler(*torch.tensor([[0.0, 90, 0]]).double().unbind(1))
    found = extract(
        half_grid_from_volume(volume), slice_coordinates(R, disc.kx.double(), disc.ky.double())
    )
    inside = disc.shell < box_px // 2
    wanted = pack(fft2_centred(image), disc)
    assert relative_error(found[0, inside], wanted[inside]) < 1e-12


class TestBlob:
    """A Gaussian blob off the origin: its slices are known, its position turns with R."""

    BOX_PX = 64
    SIGMA_PX = 1.5
    PLACE_PX = torch.tensor([3.0, -1.5, 2.0], dtype=torch.float64)  # (x, y, z)

    def grid(self) -> torch.Tensor:
        axis = torch.arange(self.BOX_PX, dtype=torch.float64) - self.BOX_PX / 2
        x0, y0, z0 = self.PLACE_PX.tolist()
        gx, gy, gz = (torch.exp(-((axis - a) ** 2) / (2 * self.SIGMA_PX**2)) for a in (x0, y0, z0))
        return half_grid_from_volume(gz[:, None, None] * gy[:, None] * gx)

    def analytic(self, R: torch.Tensor) -> torch.Tensor:
        """Return the transform of the images of a blob at R x_vol, relative to its peak."""
        disc = half_disc(self.BOX_PX)
        place = R @ self.PLACE_PX  # (B, 3), x_img = R x_vol
        squared = (disc.kx**2 + disc.ky**2) / self.BOX_PX**2
        decay = torch.exp(-2 * torch.pi**2 * self.SIGMA_PX**2 * squared)
        angle = (place[:, :1] * disc.kx + place[:, 1:2] * disc.ky) * (2 * torch.pi / self.BOX_PX)
        return decay * torch.exp(-1j * angle)

    def slices(self, R: torch.Tensor) -> torch.Tensor:
        disc = half_disc(self.BOX_PX)
        peak = (2 * torch.pi) ** 1.5 * self.SIGMA_PX**3
        return extract(self.grid(), slice_coordinates(R, disc.kx.double(), disc.ky.double())) / peak

    def test_slices_on_grid_points_are_exact(self):
        quarters = [(a, b, c) for a in (0, 90, 180) for b in (0, 90, 180) for c in (0, 270)]
        R = from_relion_euler(*torch.tensor(quarters, dtype=torch.float64).unbind(1))
        # 1e-4: what of the blob lies beyond the Nyquist frequency.
        assert float((self.slices(R) - self.analytic(R)).abs().max()) < 1e-4

    def test_slices_at_any_rotation_are_within_the_error_of_interpolation(self):
        R = random_rotations(12, torch.Generator().manual_seed(6))
        # Linear interpolation errs by at most the sum over the axes of |d2F/dk2| / 8, which is
        # (2 pi/D)^2 (|x|^2 + 3 sigma^2) / 8 of the peak.
        bound = (2 * torch.pi / self.BOX_PX) ** 2 * (15.25 + 3 * self.SIGMA_PX**2) / 8
        assert bound < 0.03
        assert float((self.slices(R) - self.analytic(R)).abs().max()) < bound
        # Positive control: R in place of its transpose puts the blob elsewhere.
        assert float((self.slices(R.transpose(1, 2)) - self.analytic(R)).abs().max()) > 0.3
