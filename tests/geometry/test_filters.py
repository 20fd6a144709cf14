"""Phase flip and translation of images, against numpy twins that take one image at a time."""

import numpy as np
import pytest
import torch

from frazil.geometry.filters import phase_flip, translate
from tests.reference.ctf import ctf

BOX_PX = 12
PARAMETERS = np.array(
    [[1.5, 15000, 13000, 30, 300, 2.7, 0.1, 0], [1.5, 9000, 8800, 70, 200, 1.4, 0.07, 20]]
)


def images(count: int = 2, box_px: int = BOX_PX) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).standard_normal((count, box_px, box_px))


def flipped_twin(image: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Return one image times the sign of its CTF, frequency by frequency."""
    names = ("defocus_u_ang", "defocus_v_ang", "astigmatism_deg", "voltage_kv", "cs_mm")
    names = (*names, "amplitude_contrast", "phase_shift_deg")
    known = dict(zip(names, parameters[1:].tolist(), strict=True))
    transform, out = np.fft.fft2(image), np.zeros_like(np.fft.fft2(image))
    box_px = len(image)
    step = 1 / (box_px * parameters[0])
    for i in range(box_px):
        for j in range(box_px):
            ky, kx = ((n + box_px // 2) % box_px - box_px // 2 for n in (i, j))
            out[i, j] = np.sign(ctf(kx * step, ky * step, **known)) * transform[i, j]
    return np.fft.ifft2(out).real


def without_nyquist(batch: np.ndarray) -> np.ndarray:
    transform = np.fft.fft2(batch)
    transform[:, BOX_PX // 2] = transform[:, :, BOX_PX // 2] = 0
    return np.fft.ifft2(transform).real


def test_phase_flip_takes_each_image_by_itself_as_the_twin_does():
    batch = without_nyquist(images())
    got = phase_flip(torch.from_numpy(batch), torch.from_numpy(PARAMETERS)).numpy()
    twin = np.stack([flipped_twin(i, p) for i, p in zip(batch, PARAMETERS, strict=True)])
    np.testing.assert_allclose(got, twin, atol=1e-12)
    # Positive control: over the image axis as well, the transform mixes the images.
    mixed = np.fft.ifftn(np.fft.fftn(twin)).real
    assert np.abs(twin - batch).max() > 0.1
    np.testing.assert_allclose(mixed, twin, atol=1e-12)
    alone = phase_flip(torch.from_numpy(batch[1:]), torch.from_numpy(PARAMETERS[1:])).numpy()
    np.testing.assert_allclose(got[1:], alone, atol=1e-12)


@pytest.mark.parametrize("box_px", [11, 12])
def test_two_phase_flips_are_the_identity_nyquist_and_astigmatism_included(box_px: int):
    batch, parameters = torch.from_numpy(images(2, box_px)), torch.from_numpy(PARAMETERS)
    once = phase_flip(batch, parameters)
    torch.testing.assert_close(phase_flip(once, parameters), batch, atol=1e-12, rtol=0)
    assert not torch.allclose(once, batch, atol=0.1)


def test_the_mean_changes_sign_even_without_amplitude_contrast():
    parameters = torch.from_numpy(PARAMETERS[:1].copy())
    parameters[0, 6] = 0.0
    batch = torch.ones(1, BOX_PX, BOX_PX, dtype=torch.float64)
    torch.testing.assert_close(phase_flip(batch, parameters), -batch)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_whole_shift_rolls_x_along_columns_and_y_along_rows(kind: torch.dtype):
    batch = torch.from_numpy(images()).to(kind)
    got = translate(batch, torch.tensor([[3.0, -2.0], [0.0, 5.0]]))
    want = torch.stack([batch[0].roll((-2, 3), (0, 1)), batch[1].roll(5, 0)])
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert got.dtype == kind


@pytest.mark.parametrize("box_px", [11, 12])
def test_a_fraction_of_a_pixel_is_the_phase_ramp_below_nyquist(box_px: int):
    batch, (x, y) = images(1, box_px), (0.3, -1.7)
    k = np.fft.fftfreq(box_px) * box_px
    ramp = np.exp(-2j * np.pi * (k[None] * x + k[:, None] * y) / box_px)
    got = np.fft.fft2(translate(torch.from_numpy(batch), torch.tensor([[x, y]])).numpy()[0])
    below = (2 * np.abs(k) < box_px)[:, None] & (2 * np.abs(k) < box_px)[None]
    np.testing.assert_allclose(got[below], (np.fft.fft2(batch[0]) * ramp)[below], atol=1e-5)


def test_there_and_back_is_the_identity_below_nyquist():
    batch = torch.from_numpy(without_nyquist(images()))
    shift = torch.tensor([[0.4, 2.2], [-3.1, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(translate(translate(batch, shift), -shift), batch)
