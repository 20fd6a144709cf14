"""Statistics are exact sums, whatever the blocks; the reference ignores what is not ordinary."""

import numpy as np
import torch

from frazil.geometry.packing import half_disc
from frazil.preprocess.statistics import (
    ShellStatistics,
    constant_images,
    image_gains,
    reference_shell_rms,
    shell_power,
)
from frazil.store.manifest import shell_counts

BOX = 12
DISC = half_disc(BOX)
COUNTS = shell_counts(BOX)


def packed(count: int) -> torch.Tensor:
    values = torch.randn(count, len(DISC), 2, generator=torch.Generator().manual_seed(1))
    return torch.view_as_complex(values)


def test_shell_power_sums_over_each_ring() -> None:
    coefficients = packed(3)
    radius = torch.sqrt((DISC.kx**2 + DISC.ky**2).double())
    for r in range(1, BOX // 2 + 1):
        ring = (radius > r - 1) & (radius <= r)
        wanted = coefficients[:, ring].abs().double().square().sum(1).numpy()
        assert np.allclose(shell_power(coefficients, DISC)[:, r - 1], wanted, rtol=1e-6)
        assert COUNTS[r - 1] == int(ring.sum())


def test_reference_is_that_of_most_images_not_of_gold_or_broken_ones() -> None:
    power = shell_power(packed(40), DISC)
    reference = reference_shell_rms(power, COUNTS)
    assert np.allclose(reference, np.sqrt(2), rtol=0.25)
    spoilt = power.copy()
    spoilt[0], spoilt[1], spoilt[2], spoilt[3] = 1e8, np.nan, np.inf, 0.0
    assert np.allclose(reference_shell_rms(spoilt, COUNTS), reference, rtol=0.1)


def test_reference_of_nothing_is_one_and_empty_shells_get_the_smallest() -> None:
    assert (reference_shell_rms(np.zeros((4, 6)), COUNTS) == 1).all()
    power = shell_power(packed(4), DISC)
    power[:, 2] = 0
    reference = reference_shell_rms(power, COUNTS)
    assert reference[2] == np.delete(reference, 2).min() > 0


def test_gain_is_the_strength_of_an_image() -> None:
    coefficients = packed(5)
    scale = torch.tensor([0.5, 1.0, 2.0, 7.0, 0.1])
    power = shell_power(coefficients, DISC)
    gains = image_gains(power, np.full(BOX // 2, np.sqrt(2)), COUNTS)
    scaled = shell_power(coefficients * scale[:, None], DISC)
    assert np.allclose(image_gains(scaled, np.full(BOX // 2, np.sqrt(2)), COUNTS) / gains, scale)
    strange = np.array([[np.nan] * 6, [np.inf] * 6, [0.0] * 6])
    assert (image_gains(strange, np.ones(6), COUNTS) == 1).all()


def test_sums_of_blocks_are_the_sum_and_survive_json() -> None:
    import msgspec

    generator = np.random.default_rng(0)
    whole = ShellStatistics.zeros(2, 6)
    for _ in range(5):
        part = ShellStatistics(
            generator.random((2, 6)), np.array([3, 1]), generator.random(6), 4, np.arange(6)
        )
        before = whole.rms(COUNTS)
        whole.add(part)
        assert whole.rms(COUNTS) != before
    assert whole.images.tolist() == [15, 5] and whole.error_images == 20
    again = ShellStatistics.from_json(msgspec.json.decode(msgspec.json.encode(whole.to_json())))
    for name in ("power", "images", "error_power", "clipped"):
        assert np.array_equal(getattr(again, name), getattr(whole, name)), name
    assert again.error_images == whole.error_images


def test_constant_images_are_found_and_only_those() -> None:
    images = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)
    images[1] = 3.5
    images[2, 4] = 7  # only some rows, which were looked at first
    images[3] = 0
    images[3, 7, 7] = 1e-3
    images[4] = np.nan
    alike = np.array([False, True, True, True, False])
    assert constant_images(images, alike).tolist() == [False, True, False, False, False]
