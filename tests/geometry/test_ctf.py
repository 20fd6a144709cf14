"""Theorems of the contrast transfer function."""

import numpy as np
import pytest
import torch

from frazil.geometry.ctf import CTF_COLUMNS, ctf, wavelength_ang
from frazil.geometry.packing import half_disc
from tests.reference import ctf as twin

# A per px, defocus U, V (A), angle (deg), kV, Cs (mm), w, phase shift (deg)
ROWS = [
    [4.0, 15301.1, 14916.4, 5.28, 300.0, 2.7, 0.07, 0.0],
    [2.6, 23000.0, 21000.0, -63.0, 200.0, 1.4, 0.1, 0.0],
    [5.1, 8000.0, 9500.0, 121.0, 120.0, 6.3, 0.15, 90.0],
    [3.3, -5000.0, -4000.0, 40.0, 300.0, 0.01, 0.0, 35.0],
]
DISC = half_disc(48)
ORIGIN = torch.zeros(1, dtype=torch.int64)


def table(rows: list[list[float]] = ROWS, **changed: float) -> torch.Tensor:
    parameters = torch.tensor(rows, dtype=torch.float64)
    for name, value in changed.items():
        parameters[:, CTF_COLUMNS.index(name)] = value
    return parameters


def at_disc(parameters: torch.Tensor, box_px: int = 48) -> torch.Tensor:
    return ctf(DISC.kx, DISC.ky, parameters, box_px)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_ctf_is_the_formula_written_out(dtype, tolerance):
    found = at_disc(table().to(dtype))
    assert found.dtype == dtype
    for row, values in zip(ROWS, found, strict=True):
        named = dict(zip(CTF_COLUMNS, row, strict=True))
        side_ang = 48 * named.pop("pixel_size_ang")
        wanted = [
            twin.ctf(kx / side_ang, ky / side_ang, **named)
            for kx, ky in zip(DISC.kx.tolist(), DISC.ky.tolist(), strict=True)
        ]
        # float32 rounds the phase itself: 4 units in the last place of the largest one.
        assert np.abs(values.numpy() - np.array(wanted)).max() < tolerance * 4


def test_at_frequency_zero_the_ctf_is_minus_the_amplitude_contrast():
    parameters = table(phase_shift_deg=0)
    found = ctf(ORIGIN, ORIGIN, parameters, 48)[:, 0]
    assert torch.allclose(found, -parameters[:, CTF_COLUMNS.index("amplitude_contrast")])


def test_phase_shift_of_90_degrees_turns_sine_into_minus_cosine():
    plain = at_disc(table(amplitude_contrast=0, phase_shift_deg=0))
    shifted = at_disc(table(amplitude_contrast=0, phase_shift_deg=90))
    assert torch.allclose(plain**2 + shifted**2, torch.ones_like(plain), atol=1e-12)
    assert torch.allclose(
        ctf(ORIGIN, ORIGIN, table(amplitude_contrast=0, phase_shift_deg=90), 48),
        torch.tensor(-1.0).double(),
    )
    # At phase shift p the origin is at -sqrt(1 - w^2) sin p - w cos p.
    w, p = 0.1, np.deg2rad(30)
    found = ctf(ORIGIN, ORIGIN, table(amplitude_contrast=w, phase_shift_deg=30), 48)
    assert torch.allclose(found, torch.tensor(-np.sqrt(1 - w**2) * np.sin(p) - w * np.cos(p)))


def test_phase_shift_of_180_degrees_flips_the_sign():
    assert torch.allclose(at_disc(table(phase_shift_deg=180)), -at_disc(table(phase_shift_deg=0)))


def test_underfocus_is_positive():
    # Just off the origin sin(gamma) has the sign of -defocus.
    low, rest = (
        (torch.tensor([1]), torch.tensor([0])),
        {"amplitude_contrast": 0, "phase_shift_deg": 0},
    )
    under = ctf(*low, table(defocus_u_ang=15000, defocus_v_ang=15000, **rest), 48)
    over = ctf(*low, table(defocus_u_ang=-15000, defocus_v_ang=-15000, **rest), 48)
    assert bool((under < 0).all())
    assert bool((over > 0).all())


def test_ctf_is_even_in_k():
    assert torch.allclose(at_disc(table()), ctf(-DISC.kx, -DISC.ky, table(), 48), atol=1e-12)


def test_ctf_is_never_above_one():
    assert float(at_disc(table()).abs().max()) <= 1 + 1e-12


@pytest.mark.parametrize("turn_deg", [90.0, 37.0, -120.0])
def test_astigmatism_turns_with_its_angle(turn_deg):
    kx, ky = DISC.kx.double(), DISC.ky.double()
    turn = np.deg2rad(turn_deg)
    turned_kx = np.cos(turn) * kx - np.sin(turn) * ky  # from x towards y
    turned_ky = np.sin(turn) * kx + np.cos(turn) * ky
    turned = table()
    turned[:, CTF_COLUMNS.index("astigmatism_deg")] += turn_deg
    wanted = at_disc(table())
    assert torch.allclose(ctf(turned_kx, turned_ky, turned, 48), wanted, atol=1e-9)
    # Positive control: turned the other way it differs.
    turned[:, CTF_COLUMNS.index("astigmatism_deg")] -= 2 * turn_deg - 7
    assert not torch.allclose(ctf(turned_kx, turned_ky, turned, 48), wanted, atol=1e-2)


def test_defocus_u_lies_along_the_angle_of_astigmatism():
    along = {"defocus_u_ang": 20000.0, "defocus_v_ang": 10000.0, "astigmatism_deg": 90.0}
    ky_axis = ctf(torch.tensor([0]), torch.tensor([5]), table(**along), 48)
    kx_axis = ctf(torch.tensor([5]), torch.tensor([0]), table(**along), 48)
    round_u = table(defocus_u_ang=20000, defocus_v_ang=20000)
    round_v = table(defocus_u_ang=10000, defocus_v_ang=10000)
    five = torch.tensor([5]), torch.tensor([0])
    assert torch.allclose(ky_axis, ctf(*five, round_u, 48), atol=1e-12)
    assert torch.allclose(kx_axis, ctf(*five, round_v, 48), atol=1e-12)


def test_swapping_the_axes_is_a_quarter_turn():
    swapped = table()[:, [0, 2, 1, 3, 4, 5, 6, 7]]
    swapped[:, CTF_COLUMNS.index("astigmatism_deg")] += 90
    assert torch.allclose(at_disc(swapped), at_disc(table()), atol=1e-9)


def test_every_row_uses_its_own_pixel_size():
    rows = [[pixel, *ROWS[0][1:]] for pixel in (1.0, 2.0, 4.0)]
    together = at_disc(table(rows))
    for row, values in zip(rows, together, strict=True):
        assert torch.equal(values, at_disc(table([row]))[0])
    # Positive control (a slip of today's tools): row 0's pixel size for all is something else.
    first_for_all = at_disc(table(rows, pixel_size_ang=1.0))
    assert float((first_for_all[1:] - together[1:]).abs().max()) > 0.1


def test_a_crop_keeps_the_ctf_of_every_frequency():
    # The side in A is what counts: 96 px of p, or 48 px of 2 p.
    fine = table()
    fine[:, 0] /= 2
    assert torch.allclose(at_disc(fine, 96), at_disc(table(), 48), atol=1e-12)


def test_wavelengths_are_those_of_the_textbook():
    # Reimer & Kohl, Transmission Electron Microscopy, table 2.2, in A.
    found = wavelength_ang(torch.tensor([100.0, 200.0, 300.0], dtype=torch.float64))
    assert torch.allclose(found, torch.tensor([0.0370, 0.0251, 0.0197]).double(), atol=5e-5)


def test_first_zero_is_where_defocus_puts_it():
    # Without Cs and amplitude contrast: sin(pi lambda df s^2) = 0 at s = 1 / sqrt(lambda df).
    named = {
        "defocus_u_ang": 15000.0,
        "defocus_v_ang": 15000.0,
        "cs_mm": 0.0,
        "phase_shift_deg": 0.0,
    }
    parameters = table([ROWS[0]], amplitude_contrast=0, **named)
    s_inv_ang = (wavelength_ang(torch.tensor([300.0]).double()) * 15000) ** -0.5
    k = s_inv_ang * 48 * 4.0
    zero = torch.zeros(1).double()
    assert abs(float(ctf(k, zero, parameters, 48))) < 1e-9
    assert float(ctf(k * 0.9, zero, parameters, 48)) < -0.1
    assert float(ctf(k * 1.1, zero, parameters, 48)) > 0.1
