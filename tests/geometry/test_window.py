"""The soft window against its loop, and its values at known radii."""

import numpy as np
import pytest
import torch

from frazil.geometry.window import soft_window
from tests.reference import window as twin


@pytest.mark.parametrize(
    ("box_px", "inner", "outer"),
    [(16, 0.85, 0.99), (30, 0.85, 0.99), (64, 0.5, 1.0), (20, 0.0, 1.4)],
)
def test_window_is_its_loop(box_px, inner, outer):
    found = soft_window(box_px, inner, outer)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - twin.soft_window(box_px, inner, outer)).max() < 1e-7


def test_values_at_known_radii():
    row = soft_window(200)[100]  # along x through the origin: radius = |column - 100| / 100
    assert row[100] == 1
    assert row[100 + 85] == row[100 - 85] == 1
    assert row[100 + 92] == pytest.approx(0.5, abs=1e-6)
    assert row[100 - 92] == pytest.approx(0.5, abs=1e-6)
    assert row[100 + 99] == row[100 - 99] == row[0] == 0
    assert row[100 + 86] < 1  # just outside the plateau it falls


def test_defaults_are_those_of_cryodrgn():
    assert torch.equal(soft_window(32), soft_window(32, 0.85, 0.99))


def test_window_is_centred_on_pixel_half_the_box():
    window = soft_window(20)
    inner = window[1:, 1:]  # pixels with a mirror image about the origin
    assert torch.equal(inner, torch.flip(inner, (0, 1)))
    assert torch.equal(window, window.T)
    # Positive control: about the middle of the pixel array it is not symmetric.
    assert not torch.equal(window, torch.flip(window, (0, 1)))


@pytest.mark.parametrize(
    ("inner", "outer"), [(0.9, 0.8), (0.8, 0.8), (-0.1, 0.9), (float("nan"), 1.0)]
)
def test_bounds_out_of_order_raise(inner, outer):
    with pytest.raises(ValueError, match="inner < outer"):
        soft_window(16, inner, outer)
