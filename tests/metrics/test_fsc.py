"""Theorems of the Fourier shell correlation."""

import pytest
import torch

from frazil.geometry.fourier import fft3_centred, ifft3_centred
from frazil.metrics.fsc import first_crossing, fsc, fsc_auc, resolution_at


def _noise(box_px: int, seed: int) -> torch.Tensor:
    return torch.randn(box_px, box_px, box_px, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("box_px", [16, 32])
def test_a_volume_agrees_with_itself_in_every_shell_whatever_its_scale(box_px: int) -> None:
    volume = _noise(box_px, 1)
    curve = fsc(volume, 3.5 * volume + 10)
    assert curve.shape == (box_px // 2 + 1,)
    torch.testing.assert_close(curve, torch.ones_like(curve), atol=1e-5, rtol=0)


def test_inverted_contrast_gives_minus_one() -> None:
    volume = _noise(16, 1)
    curve = fsc(volume, -volume)[1:]
    torch.testing.assert_close(curve, -torch.ones_like(curve), atol=1e-5, rtol=0)


def test_independent_noise_is_within_the_statistical_error_of_zero() -> None:
    curve = fsc(_noise(32, 1), _noise(32, 2))
    shells = torch.arange(3, 17)
    # A shell has about 2 pi s^2 independent coefficients (half of its 4 pi s^2).
    sigma = 1 / torch.sqrt(2 * torch.pi * shells.double() ** 2)
    assert (curve[3:].abs() < 5 * sigma).all()


def test_shells_are_those_of_the_full_transform() -> None:
    a, b = _noise(12, 1).double(), _noise(12, 2).double()
    axis = torch.arange(-6, 6).double()
    radius = torch.sqrt(
        axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    )
    ft_a, ft_b = fft3_centred(a), fft3_centred(b)
    curve = fsc(a, b)
    for shell in range(1, 7):
        inside = radius.round() == shell
        cross = (ft_a[inside] * ft_b[inside].conj()).sum().real
        power = (ft_a[inside].abs() ** 2).sum() * (ft_b[inside].abs() ** 2).sum()
        assert float(curve[shell]) == pytest.approx(float(cross / power.sqrt()), abs=1e-9)


def test_a_shell_without_signal_gives_zero() -> None:
    transform = fft3_centred(_noise(16, 1))
    axis = torch.arange(-8, 8)
    outside = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) > 4**2
    transform[outside] = 0
    low = ifft3_centred(transform).real
    # Shell 4 keeps a part; the rest is rounding error of the transform, not exactly 0.
    empty = torch.zeros(16, 16, 16)
    assert (fsc(low, empty)[1:] == 0).all()


def test_only_the_masked_region_counts() -> None:
    same, other = _noise(16, 1), _noise(16, 2)
    mask = torch.zeros(16, 16, 16)
    mask[:8] = 1
    mixed = torch.where(mask > 0, same, other)
    assert fsc(same, mixed)[4:].max() < 0.9
    curve = fsc(same, mixed, mask)
    torch.testing.assert_close(curve, torch.ones_like(curve), atol=1e-5, rtol=0)


def test_the_first_crossing_counts_when_a_curve_crosses_twice() -> None:
    curve = torch.tensor([1.0, 1.0, 0.8, 0.2, 0.1, 0.7, 0.9, 0.3, 0.0])
    assert first_crossing(curve, 0.5) == pytest.approx(2.5)  # the last one would be 6.67
    assert resolution_at(curve, 0.5, 16, 2.0) == pytest.approx(16 * 2.0 / 2.5)


def test_a_curve_that_never_crosses_has_nyquist_resolution() -> None:
    assert first_crossing(torch.ones(9), 0.143) is None
    assert resolution_at(torch.ones(9), 0.143, 16, 1.5) == pytest.approx(3.0)


def test_a_nan_counts_as_a_crossing() -> None:
    curve = torch.tensor([1.0, 0.9, float("nan"), 0.9])
    assert first_crossing(curve, 0.5) == 1.0


def test_area_is_one_for_equal_volumes_and_half_for_a_falling_line() -> None:
    assert fsc_auc(torch.ones(33)) == pytest.approx(1.0)
    assert fsc_auc(torch.linspace(1, 0, 33)) == pytest.approx(0.5)
