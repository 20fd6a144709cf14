"""Codes hold coefficients within the bound of their precision."""

import numpy as np
import pytest
import torch

from frazil.geometry.packing import half_disc
from frazil.store.codec import INT8_LIMIT, STEPS_PER_SIGMA, Codec, shell_steps

BOX = 20
DISC = half_disc(BOX)


def packed(count: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(count, len(DISC), 2, generator=torch.Generator().manual_seed(seed))
    return torch.view_as_complex(values * (30.0 / DISC.shell)[:, None])


def rms_of(coefficients: torch.Tensor) -> np.ndarray:
    power = torch.zeros(DISC.radius_px).index_add_(
        0, DISC.shell - 1, coefficients.abs().square().mean(0)
    )
    return np.sqrt((power / torch.bincount(DISC.shell)[1:]).numpy())


def codec_of(precision: str) -> Codec:
    return Codec.from_shells(precision, shell_steps(rms_of(packed(50)), precision), DISC)


def error_in_steps(codec: Codec, coefficients: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    stored = codec.decode(codec.encode(coefficients, gain), gain)
    error = torch.view_as_real(stored - coefficients).flatten(1)
    return error.abs() / codec.step / gain[:, None]


def test_int8_is_off_by_half_a_step_at_most() -> None:
    gain = torch.tensor([0.25, 1.0, 3.0, 1.7])
    errors = error_in_steps(codec_of("int8"), packed(4) * gain[:, None], gain)
    assert errors.max() <= 0.5 + 1e-4
    assert errors.max() > 0.4  # and it does round


def test_int8_ends_its_range_and_clips_beyond() -> None:
    codec = codec_of("int8")
    codes = codec.encode(packed(2) * 1e3, torch.ones(2))
    assert codes.abs().max() == INT8_LIMIT == -int(codes.min())


def test_rounding_adds_less_than_a_thousandth_of_the_power_of_every_shell() -> None:
    codec, coefficients = codec_of("int8"), packed(200, seed=1)
    stored = codec.decode(codec.encode(coefficients, torch.ones(200)), torch.ones(200))
    ratio = (rms_of(stored - coefficients) / rms_of(coefficients)) ** 2
    assert ratio.max() < 1e-3
    assert np.allclose(ratio.mean(), 1 / (12 * STEPS_PER_SIGMA**2), rtol=0.2)


def test_float16_keeps_eleven_bits_whatever_the_scale() -> None:
    for scale in (1e-6, 1.0, 1e12):
        coefficients = packed(50) * scale
        codec = Codec.from_shells("float16", shell_steps(rms_of(coefficients), "float16"), DISC)
        stored = codec.decode(codec.encode(coefficients, torch.ones(50)), torch.ones(50))
        error = torch.view_as_real(stored - coefficients).abs()
        value = torch.view_as_real(coefficients).abs()
        floor = codec.step.view(-1, 2) * 2.0**-24  # numbers below 6e-5 steps are subnormal
        assert (error <= value * 2.0**-11 * 1.001 + floor).all()
        assert error.max() > 0


def test_float32_is_exact() -> None:
    coefficients = packed(3)
    codec = codec_of("float32")
    assert torch.equal(
        codec.decode(codec.encode(coefficients, torch.ones(3)), torch.ones(3)), coefficients
    )


def test_an_empty_shell_does_not_divide_by_zero() -> None:
    rms = np.array([1.0, 0.0, 2.0])
    assert (shell_steps(rms, "int8") > 0).all() and (shell_steps(rms, "float16") > 0).all()


@pytest.mark.parametrize("precision", ["int8", "float16", "float32"])
def test_bands_decoded_one_by_one_equal_the_whole(precision: str) -> None:
    codec = codec_of(precision)
    codes = codec.encode(packed(2), torch.ones(2))
    out = torch.empty(codes.shape, dtype=torch.float32)
    for start, stop, _ in DISC.bands:
        codec.decode_into(out, codes[:, 2 * start : 2 * stop], 2 * start)
    assert torch.equal(
        torch.view_as_complex(out.view(2, -1, 2)), codec.decode(codes, torch.ones(2))
    )
