"""Theorems of shifts as phase ramps, their sign among them."""

import pytest
import torch

from frazil.geometry.fourier import fft2_centred
from frazil.geometry.packing import half_disc, pack, pack_images, to_real_space
from frazil.geometry.shifts import shift_phase

both_precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


def blob(box_px: int, x0: float, y0: float, dtype: torch.dtype) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.arange(box_px, dtype=dtype) - box_px // 2] * 2, indexing="ij")
    return torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * 2.0**2))[None]


@both_precisions
@pytest.mark.parametrize("box_px", [16, 18])
def test_integer_shift_is_a_roll_in_the_positive_direction(box_px, dtype, tolerance):
    images, disc = noise(2, box_px, box_px, dtype=dtype), half_disc(box_px)
    shift_px = torch.tensor([[3, -2], [-5, 1]], dtype=dtype)  # (x, y)
    moved = pack(fft2_centred(images), disc) * shift_phase(disc.kx, disc.ky, shift_px, box_px)

    def rolled(sign: int) -> torch.Tensor:
        pair = [
            image.roll((sign * int(t[1]), sign * int(t[0])), (0, 1))
            for image, t in zip(images, shift_px, strict=True)
        ]
        return pack(fft2_centred(torch.stack(pair)), disc)

    assert float((moved - rolled(1)).abs().max()) < tolerance * box_px**2
    # Positive control: the other direction is far off.
    assert float((moved - rolled(-1)).abs().max()) > 1


@both_precisions
def test_the_shift_that_centres_the_particle(dtype, tolerance):
    disc = half_disc(32)
    off_centre = blob(32, 2.25, -3.5, dtype)
    shift_px = torch.tensor([[-2.25, 3.5]], dtype=dtype)
    centred = pack_images(off_centre, disc) * shift_phase(disc.kx, disc.ky, shift_px, 32)
    wanted = pack_images(blob(32, 0, 0, dtype), disc)
    assert float((centred - wanted).abs().max()) < 10 * max(tolerance, 1e-7)
    image = to_real_space(centred, disc)[0]
    assert int(image.argmax()) == 16 * 32 + 16


@both_precisions
def test_shifts_compose_and_undo(dtype, tolerance):
    disc = half_disc(20)
    one, two = noise(2, 4, 2, dtype=dtype).mul(3)
    phases = [shift_phase(disc.kx, disc.ky, shift, 20) for shift in (one, two, one + two, -one)]
    assert float((phases[0] * phases[1] - phases[2]).abs().max()) < 5 * tolerance
    assert float((phases[0] * phases[3] - 1).abs().max()) < tolerance
    assert float((phases[0].abs() - 1).abs().max()) < tolerance


def test_no_shift_and_a_shift_by_the_whole_box_change_nothing():
    disc = half_disc(20)
    shift_px = torch.tensor([[0, 0], [20, 0], [0, -20]], dtype=torch.float64)
    phase = shift_phase(disc.kx, disc.ky, shift_px, 20)
    assert float((phase - 1).abs().max()) < 1e-12


def test_each_row_has_its_own_shift():
    disc = half_disc(20)
    shifts_px = noise(3, 2)
    together = shift_phase(disc.kx, disc.ky, shifts_px, 20)
    for row in range(3):
        assert torch.equal(
            together[row : row + 1], shift_phase(disc.kx, disc.ky, shifts_px[row : row + 1], 20)
        )
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_a_shift_in_angstrom_is_the_same_at_every_box():
    # 3.9 A is 3 px of 1.3 A, or 1.5 px of 2.6 A: the same phase at the same frequency.
    disc = half_disc(20)
    shift_ang = torch.tensor([[3.9, -5.2]], dtype=torch.float64)
    fine = shift_phase(disc.kx, disc.ky, shift_ang / 1.3, 40)
    coarse = shift_phase(disc.kx, disc.ky, shift_ang / 2.6, 20)
    assert float((fine - coarse).abs().max()) < 1e-12
    # Positive control (a slip of today's tools): D + 1 in place of D is not.
    assert float((fine - shift_phase(disc.kx, disc.ky, shift_ang / 2.6, 21)).abs().max()) > 1e-2
