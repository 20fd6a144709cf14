"""Theorems of the half-plane disc: which frequencies, in what order, and the way there and back."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from frazil.geometry.fourier import fft2_centred, fourier_crop2, hartley_from_fourier
from frazil.geometry.packing import (
    TILE_PX,
    HalfDisc,
    half_disc,
    hartley_values,
    pack,
    pack_images,
    to_real_space,
    unpack,
)
from tests.reference import fourier as twin

both_precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)
# (source box D0, box D): equal, double, and ratios that no power of two gives.
BOXES = [(16, 16), (20, 20), (32, 16), (30, 20), (42, 14), (26, 20)]


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def packed_noise(disc: HalfDisc, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.complex(noise(3, len(disc), dtype=dtype), noise(3, len(disc), dtype=dtype, seed=1))


def points(disc: HalfDisc) -> list[tuple[int, int]]:
    return list(zip(disc.kx.tolist(), disc.ky.tolist(), strict=True))


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def with_real_nyquist(packed: torch.Tensor, disc: HalfDisc, box_px: int) -> torch.Tensor:
    """Drop the imaginary part at |k| = box_px/2 on the axes: such a box cannot hold it."""
    on_edge = (disc.kx == box_px // 2) | (disc.ky == box_px // 2)
    return torch.where(on_edge, packed.real.to(packed.dtype), packed)


@pytest.mark.parametrize("box_px", [4, 6, 16, 20, 32, 34, 50, 64, 80])
def test_the_disc_holds_every_frequency_of_the_half_plane_once(box_px):
    found = points(half_disc(box_px))
    assert len(found) == len(set(found))
    assert set(found) == twin.half_plane_disc(box_px)


def test_the_disc_of_128_px_holds_6426_frequencies():
    assert len(half_disc(128)) == 6426


@pytest.mark.parametrize("box_px", [8, 30, 64])
def test_half_disc_and_its_mirror_cover_the_disc_exactly_once(box_px):
    radius, count = box_px // 2, np.zeros((box_px + 1, box_px + 1), int)
    for kx, ky in points(half_disc(box_px)):
        count[radius + ky, radius + kx] += 1
        count[radius - ky, radius - kx] += 1
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = (x**2 + y**2 <= radius**2) & ((x != 0) | (y != 0))
    assert np.array_equal(count, inside.astype(int))


@pytest.mark.parametrize(
    ("box_px", "radii"),
    [(16, [8]), (32, [16]), (40, [16, 20]), (64, [16, 32]), (200, [16, 32, 64, 100])],
)
def test_bands_follow_each_other_and_hold_their_radii(box_px, radii):
    disc = half_disc(box_px)
    squared = disc.kx**2 + disc.ky**2
    assert [radius for _, _, radius in disc.bands] == radii
    stop_before, radius_before = 0, 0
    for start, stop, radius in disc.bands:
        assert start == stop_before < stop
        assert int(squared[start:stop].min()) > radius_before**2
        assert int(squared[start:stop].max()) <= radius**2
        stop_before, radius_before = stop, radius
    assert stop_before == len(disc)


@pytest.mark.parametrize(("small", "large"), [(32, 64), (64, 128), (32, 256), (64, 80), (32, 34)])
def test_disc_of_a_power_of_two_is_a_prefix_of_larger_discs(small, large):
    prefix = points(half_disc(small))
    assert points(half_disc(large))[: len(prefix)] == prefix


def test_disc_between_the_powers_of_two_is_no_prefix():
    # Positive control of the test above.
    middle = points(half_disc(48))
    assert points(half_disc(64))[: len(middle)] != middle


def test_inside_a_band_every_tile_is_one_run():
    disc = half_disc(128)
    for start, stop, _ in disc.bands:
        tiles = [(ky // TILE_PX, kx // TILE_PX) for kx, ky in points(disc)[start:stop]]
        changes = sum(a != b for a, b in pairwise(tiles))
        assert changes + 1 == len(set(tiles))


def test_shell_r_is_the_ring_from_r_minus_1_to_r():
    disc = half_disc(34)
    for (kx, ky), shell in zip(points(disc), disc.shell.tolist(), strict=True):
        assert (shell - 1) ** 2 < kx**2 + ky**2 <= shell**2
    assert int(disc.shell.max()) == disc.radius_px == 17


@pytest.mark.parametrize(("small", "large"), [(20, 34), (32, 64), (50, 64)])
def test_the_disc_of_a_smaller_box_is_the_shells_up_to_its_radius(small, large):
    disc = half_disc(large)
    inner = [
        point for point, shell in zip(points(disc), disc.shell, strict=True) if shell <= small // 2
    ]
    assert set(inner) == set(points(half_disc(small)))


@pytest.mark.parametrize("box_px", [15, 129, 2, 0, -4])
def test_odd_and_tiny_boxes_raise(box_px):
    with pytest.raises(ValueError, match=f"not {box_px}"):
        half_disc(box_px)


def test_the_same_box_gives_the_same_object():
    assert half_disc(64) is half_disc(64)


@pytest.mark.parametrize(("source", "box_px"), BOXES)
def test_pack_reads_the_explicit_sum_at_every_frequency(source, box_px):
    image, disc = noise(source, source), half_disc(box_px)
    k = np.arange(-(box_px // 2), box_px // 2 + 1)
    table = twin.dft2(image.numpy(), k)
    wanted = table[(disc.ky + box_px // 2).numpy(), (disc.kx + box_px // 2).numpy()]
    for found in (pack(fft2_centred(image), disc), pack_images(image[None], disc)[0]):
        assert relative_error(found, torch.from_numpy(wanted)) < 1e-12


@both_precisions
@pytest.mark.parametrize(("source", "box_px"), BOXES)
def test_pack_images_is_pack_of_the_transform(source, box_px, dtype, tolerance):
    images, disc = noise(5, source, source, dtype=dtype), half_disc(box_px)
    wanted = pack(fft2_centred(images), disc)
    found = pack_images(images, disc)
    assert found.dtype == wanted.dtype
    assert relative_error(found, wanted) < tolerance


def test_pack_of_an_odd_crop_is_pack_of_the_whole():
    transform, disc = fft2_centred(noise(2, 30, 30)), half_disc(20)
    assert torch.equal(pack(fourier_crop2(transform, 21), disc), pack(transform, disc))


def test_a_box_smaller_than_the_disc_raises():
    images, disc = noise(1, 16, 16), half_disc(18)
    with pytest.raises(ValueError, match="18 px"):
        pack(fft2_centred(images), disc)
    with pytest.raises(ValueError, match="18 px"):
        pack_images(images, disc)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("box_px", [16, 30])
def test_pack_of_unpack_is_the_identity(box_px, dtype):
    disc = half_disc(box_px)
    packed = packed_noise(disc, dtype)
    assert torch.equal(pack(unpack(packed, disc), disc), packed)


def test_unpack_is_hermitian_and_zero_outside_the_disc():
    disc = half_disc(20)
    full = unpack(packed_noise(disc), disc)
    y, x = torch.meshgrid(torch.arange(-10, 11), torch.arange(-10, 11), indexing="ij")
    kept = (x**2 + y**2 <= 100) & ((x != 0) | (y != 0))
    assert full.shape == (3, 21, 21)
    assert torch.equal(full, torch.flip(full, (-2, -1)).conj())
    assert torch.equal(full != 0, kept.expand_as(full))


def test_unpack_of_pack_keeps_the_disc():
    disc = half_disc(20)
    transform = fourier_crop2(fft2_centred(noise(30, 30)), 21)
    home = unpack(pack(transform, disc), disc)
    assert relative_error(home[home != 0], transform[home != 0]) < 1e-12


@both_precisions
@pytest.mark.parametrize("box_px", [8, 20])
def test_real_space_is_the_explicit_inverse_sum(box_px, dtype, tolerance):
    disc = half_disc(box_px)
    packed = with_real_nyquist(packed_noise(disc, dtype), disc, box_px)
    x = np.arange(box_px) - box_px // 2
    wanted = np.zeros((3, box_px, box_px))
    for p, (kx, ky) in enumerate(points(disc)):
        wave = np.exp(2j * np.pi * (kx * x[None, :] + ky * x[:, None]) / box_px)
        # k and -k; at +-D/2 they are one and the same coefficient of the box.
        twice = 1 if box_px // 2 in (kx, ky) else 2
        wanted += twice * (packed[:, p, None, None].numpy() * wave).real / box_px**2
    assert relative_error(to_real_space(packed, disc), torch.from_numpy(wanted)) < tolerance


@both_precisions
@pytest.mark.parametrize(("box_px", "shown_px"), [(16, 16), (16, 32), (20, 30), (20, 22), (34, 40)])
def test_pack_of_real_space_is_the_identity(box_px, shown_px, dtype, tolerance):
    disc = half_disc(box_px)
    packed = with_real_nyquist(packed_noise(disc, dtype), disc, shown_px)
    images = to_real_space(packed, disc, shown_px)
    assert images.shape == (3, shown_px, shown_px)
    assert float(images.mean().abs()) < tolerance
    assert relative_error(pack_images(images, disc), packed) < tolerance


@both_precisions
@pytest.mark.parametrize(("box_px", "shown_px"), [(32, 16), (30, 20), (64, 34)])
def test_real_space_in_a_smaller_box_holds_the_smaller_disc(box_px, shown_px, dtype, tolerance):
    disc, small = half_disc(box_px), half_disc(shown_px)
    packed = packed_noise(disc, dtype)
    place = {point: p for p, point in enumerate(points(disc))}
    wanted = packed[:, [place[point] for point in points(small)]]
    images = to_real_space(packed, disc, shown_px)
    assert images.shape == (3, shown_px, shown_px)
    found = pack_images(images, small)
    assert relative_error(found, with_real_nyquist(wanted, small, shown_px)) < tolerance


@both_precisions
def test_band_limited_image_comes_home_through_the_disc(dtype, tolerance):
    y, x = torch.meshgrid(*[torch.arange(24, dtype=dtype) - 12] * 2, indexing="ij")
    image = torch.exp(-((x - 2) ** 2 + (y + 1) ** 2) / (2 * 1.9**2))
    image = (image - image.mean())[None]
    disc = half_disc(24)
    # Corners of the square outside the disc hold less than 1e-6 of this image.
    assert relative_error(to_real_space(pack_images(image, disc), disc), image) < max(
        tolerance, 1e-6
    )


@both_precisions
def test_hartley_values_are_those_of_the_unpacked_disc(dtype, tolerance):
    disc = half_disc(20)
    packed = packed_noise(disc, dtype)
    hartley = hartley_from_fourier(unpack(packed, disc))
    here = hartley[:, disc.ky + 10, disc.kx + 10]
    opposite = hartley[:, 10 - disc.ky, 10 - disc.kx]
    found = hartley_values(packed)
    assert torch.equal(found, torch.cat([here, opposite], dim=-1))
    energy = 2 * packed.abs().square().sum()
    assert float(found.square().sum()) == pytest.approx(float(energy), rel=tolerance)
