"""Theorems of the centred transform, the Hartley form and the Fourier crop."""

import numpy as np
import pytest
import torch

from frazil.geometry.fourier import (
    fft2_centred,
    fft3_centred,
    fourier_crop2,
    fourier_crop3,
    fourier_from_hartley,
    hartley_from_fourier,
    ifft2_centred,
    ifft3_centred,
)
from tests.reference import fourier as twin

DTYPES = [(torch.float32, 1e-5), (torch.float64, 1e-12)]
both_precisions = pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def mirrored(transform: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """F(-k) of a centred transform of even side, by index arithmetic modulo the side."""
    return torch.roll(torch.flip(transform, axes), [1] * len(axes), axes)


@both_precisions
@pytest.mark.parametrize("side", [8, 14, 15])
def test_transform_of_images_is_the_explicit_sum(side, dtype, tolerance):
    images = noise(2, side, side, dtype=dtype)
    wanted = torch.from_numpy(np.stack([twin.dft2(image.numpy()) for image in images]))
    assert relative_error(fft2_centred(images), wanted) < tolerance


@both_precisions
def test_transform_of_volumes_is_the_explicit_sum(dtype, tolerance):
    volume = noise(8, 8, 8, dtype=dtype)
    wanted = torch.from_numpy(twin.dft3(volume.double().numpy()))
    assert relative_error(fft3_centred(volume), wanted) < tolerance


@both_precisions
@pytest.mark.parametrize("side", [16, 30, 31])
def test_inverse_of_forward_is_the_identity(side, dtype, tolerance):
    images, volume = noise(3, side, side, dtype=dtype), noise(side, side, side, dtype=dtype)
    for there, back, data in (
        (fft2_centred, ifft2_centred, images),
        (fft3_centred, ifft3_centred, volume),
    ):
        home = back(there(data))
        assert relative_error(home.real, data) < tolerance
        assert float(home.imag.abs().max()) < tolerance


@both_precisions
def test_parseval(dtype, tolerance):
    image, volume = noise(18, 18, dtype=dtype), noise(12, 12, 12, dtype=dtype)
    for transform, data in ((fft2_centred(image), image), (fft3_centred(volume), volume)):
        energy = transform.abs().square().sum() / data.numel()
        assert float(energy) == pytest.approx(float(data.square().sum()), rel=tolerance)


def test_transform_of_real_data_is_hermitian():
    image, volume = fft2_centred(noise(12, 12)), fft3_centred(noise(8, 8, 8))
    assert torch.allclose(image, mirrored(image, (0, 1)).conj(), atol=1e-12)
    assert torch.allclose(volume, mirrored(volume, (0, 1, 2)).conj(), atol=1e-12)
    # Positive control: the transform of an imaginary image is not.
    assert not torch.allclose(1j * image, mirrored(1j * image, (0, 1)).conj(), atol=1e-2)


def test_a_point_at_pixel_half_the_box_has_phase_zero():
    image = torch.zeros(10, 10)
    image[5, 5] = 1
    assert torch.allclose(fft2_centred(image), torch.ones(10, 10, dtype=torch.complex64))
    # Positive control: one pixel away it has not.
    assert not torch.allclose(fft2_centred(image.roll(1, 0)).imag, torch.zeros(10, 10), atol=0.1)


@pytest.mark.parametrize(("side", "box_px"), [(16, 8), (16, 9), (17, 9), (17, 8), (30, 20), (8, 8)])
def test_crop_keeps_the_coefficient_of_every_frequency(side, box_px):
    full = fft2_centred(noise(2, side, side))
    cropped = fourier_crop2(full, box_px)
    for k in range(-(box_px // 2), box_px - box_px // 2):
        row, source = cropped[:, k + box_px // 2], full[:, k + side // 2]
        for kx in range(-(box_px // 2), box_px - box_px // 2):
            assert torch.equal(row[:, kx + box_px // 2], source[:, kx + side // 2])


def test_crop_to_an_odd_box_is_hermitian():
    # D + 1 samples of a larger transform hold both k and -k, +D/2 and -D/2 included.
    cropped = fourier_crop2(fft2_centred(noise(16, 16)), 9)
    assert torch.allclose(cropped, torch.flip(cropped, (0, 1)).conj(), atol=1e-12)
    # Positive control: copying the -D/2 row of the even crop to +D/2 is not (FIELD: "pad to D+1").
    copied = torch.nn.functional.pad(fourier_crop2(fft2_centred(noise(16, 16)), 8), (0, 1, 0, 1))
    copied[-1], copied[:, -1] = copied[0].clone(), copied[:, 0].clone()
    assert not torch.allclose(copied, torch.flip(copied, (0, 1)).conj(), atol=1e-2)


@pytest.mark.parametrize("path", [(12, 8), (13, 8), (12, 7), (15, 13, 9)])
def test_crop_of_a_crop_is_the_crop(path):
    image, volume = fft2_centred(noise(16, 16)), fft3_centred(noise(16, 16, 16))
    stepwise2, stepwise3 = image, volume
    for box_px in path:
        stepwise2, stepwise3 = fourier_crop2(stepwise2, box_px), fourier_crop3(stepwise3, box_px)
    assert torch.equal(stepwise2, fourier_crop2(image, path[-1]))
    assert torch.equal(stepwise3, fourier_crop3(volume, path[-1]))


def test_crop_of_a_volume_is_the_crop_of_its_planes():
    volume = fft3_centred(noise(12, 12, 12))
    cropped = fourier_crop3(volume, 8)
    assert torch.equal(cropped, fourier_crop2(volume, 8)[2:10])


def test_cropped_image_samples_the_wave_with_grey_values_times_the_square_of_the_ratio():
    def wave(box_px: int) -> torch.Tensor:
        x = (torch.arange(box_px, dtype=torch.float64) - box_px / 2) / box_px
        return torch.cos(2 * torch.pi * (3 * x[None, :] - 2 * x[:, None]) + 0.4)

    small = ifft2_centred(fourier_crop2(fft2_centred(wave(24)), 16)).real
    assert torch.allclose(small, wave(16) * (24 / 16) ** 2, atol=1e-12)


@pytest.mark.parametrize("box_px", [0, 10])
def test_crop_to_nothing_or_to_more_than_there_is_raises(box_px):
    with pytest.raises(ValueError, match="cannot be cropped"):
        fourier_crop2(fft2_centred(noise(8, 8)), box_px)
    with pytest.raises(ValueError, match="cannot be cropped"):
        fourier_crop3(fft3_centred(noise(8, 8, 8)), box_px)


@both_precisions
def test_hartley_and_back(dtype, tolerance):
    transform = fourier_crop2(fft2_centred(noise(2, 20, 20, dtype=dtype)), 17)
    home = fourier_from_hartley(hartley_from_fourier(transform))
    assert relative_error(home, transform) < tolerance
    # Positive control: what is no transform of a real image does not come home.
    assert relative_error(fourier_from_hartley(hartley_from_fourier(1j * transform)), transform) > 1


@both_precisions
def test_hartley_power_is_twice_the_fourier_power(dtype, tolerance):
    transform = fourier_crop2(fft2_centred(noise(2, 20, 20, dtype=dtype)), 17)
    hartley = hartley_from_fourier(transform)
    power = hartley.square() + torch.flip(hartley, (-2, -1)).square()
    assert relative_error(power, 2 * transform.abs().square()) < tolerance
