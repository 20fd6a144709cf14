"""One image's way to its coefficients equals the slow sums, in both orders of the window."""

import numpy as np
import pytest
import torch

from frazil.geometry.packing import half_disc
from frazil.preprocess.settings import ImageSettings
from frazil.preprocess.steps import (
    downsample_images,
    hartley_images,
    packed_coefficients,
    plan_transform,
)
from tests.reference.fourier import dft2
from tests.reference.window import soft_window as window_twin
from tests.store.made import make_images

BOX, SMALL = 24, 14


def at_disc(image: np.ndarray, box_px: int) -> np.ndarray:
    """Return the coefficients of the disc of a box by direct sums, (P,)."""
    disc = half_disc(box_px)
    k = np.arange(-box_px // 2, box_px // 2 + 1)
    full = dft2(image, k)
    return full[disc.ky.numpy() + box_px // 2, disc.kx.numpy() + box_px // 2]


def crop_twin(image: np.ndarray, box_px: int) -> np.ndarray:
    """Return the image of box_px whose transform is the central part of that of `image`."""
    radius = box_px // 2
    full = dft2(image, np.arange(-radius, radius + 1))
    full[:, 0] = full[:, -1] = (full[:, 0] + full[:, -1]) / 2
    full[0] = full[-1] = (full[0] + full[-1]) / 2
    k, x = np.arange(-radius, radius), np.arange(box_px) - radius
    wave = np.exp(2j * np.pi * np.outer(x, k) / box_px)
    return (wave @ full[:-1, :-1] @ wave.T).real / box_px**2


def packed(images: np.ndarray, box_px: int | None = SMALL, **settings: object) -> np.ndarray:
    transform = plan_transform(ImageSettings(box_px=box_px, **settings), BOX, "real")
    return packed_coefficients(torch.from_numpy(images), transform).numpy()


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


IMAGES = make_images(6, BOX)  # more than one sub-batch, the last one short


@pytest.mark.parametrize("box_px", [None, BOX, SMALL, 4])
def test_window_first_is_window_then_sums_then_crop(box_px: int | None) -> None:
    wanted = [at_disc(-window_twin(BOX, 0.85, 0.99) * image, box_px or BOX) for image in IMAGES]
    assert relative(packed(IMAGES, box_px), np.array(wanted)) < 1e-6


def test_crop_first_is_crop_then_window_then_sums() -> None:
    window = window_twin(SMALL, 0.85, 0.99)
    wanted = [at_disc(-window * crop_twin(image, SMALL), SMALL) for image in IMAGES]
    assert relative(packed(IMAGES, window_order="crop-first"), np.array(wanted)) < 1e-6


def test_crop_first_is_downsample_then_preprocess() -> None:
    small = downsample_images(torch.from_numpy(IMAGES), SMALL)
    transform = plan_transform(ImageSettings(), SMALL, "real")
    wanted = packed_coefficients(small, transform).numpy()
    assert relative(packed(IMAGES, window_order="crop-first"), wanted) < 1e-6


def test_the_two_orders_differ_by_per_cents_and_agree_without_a_window() -> None:
    first, last = packed(IMAGES), packed(IMAGES, window_order="crop-first")
    assert 0.01 < relative(first, last) < 0.3
    first = packed(IMAGES, window=False)
    last = packed(IMAGES, window=False, window_order="crop-first")
    inside = half_disc(SMALL).shell.numpy() < SMALL // 2
    assert relative(first[:, inside], last[:, inside]) < 1e-6


@pytest.mark.parametrize("order", ["window-first", "crop-first"])
def test_the_sign_turns_unless_the_data_are_dark(order: str) -> None:
    light = packed(IMAGES, window_order=order)
    dark = packed(IMAGES, window_order=order, uninvert_data=True)
    assert np.array_equal(light, -dark)
    assert np.array_equal(packed(-IMAGES, window_order=order), dark)


def test_window_radius_is_that_of_the_flag() -> None:
    wanted = [at_disc(-window_twin(BOX, 0.5, 0.99) * image, SMALL) for image in IMAGES]
    assert relative(packed(IMAGES, window_r=0.5), np.array(wanted)) < 1e-6
    assert relative(packed(IMAGES), np.array(wanted)) > 0.01


def test_a_smaller_box_is_the_inner_part_of_a_larger_one() -> None:
    large, small = half_disc(BOX), half_disc(SMALL)
    place = {k: i for i, k in enumerate(zip(large.kx.tolist(), large.ky.tolist(), strict=True))}
    columns = [place[k] for k in zip(small.kx.tolist(), small.ky.tolist(), strict=True)]
    assert relative(packed(IMAGES, BOX)[:, columns], packed(IMAGES)) < 1e-6


@pytest.mark.parametrize("box_px", [BOX, SMALL])
def test_hartley_images_are_those_of_the_original_transform(box_px: int) -> None:
    radius = box_px // 2
    transform = plan_transform(ImageSettings(box_px=box_px), BOX, "real")
    found = hartley_images(torch.from_numpy(IMAGES), transform).numpy()
    assert found.shape == (6, box_px + 1, box_px + 1)
    for image, hartley in zip(IMAGES, found, strict=True):
        full = dft2(-window_twin(BOX, 0.85, 0.99) * image, np.arange(-radius, radius + 1))
        assert relative(hartley, full.real - full.imag) < 1e-6
    # The row at +D/2: new samples after a crop (the mistake was to copy -D/2), an alias without.
    copied = np.allclose(found[:, 0], found[:, -1], rtol=1e-3)
    assert copied == (box_px == BOX)


def test_hartley_images_of_crop_first_are_those_of_the_small_image() -> None:
    transform = plan_transform(ImageSettings(box_px=SMALL, window_order="crop-first"), BOX, "real")
    found = hartley_images(torch.from_numpy(IMAGES), transform).numpy()
    window = window_twin(SMALL, 0.85, 0.99)
    for image, hartley in zip(IMAGES, found, strict=True):
        k = np.arange(-SMALL // 2, SMALL // 2 + 1)
        full = dft2(-window * crop_twin(image, SMALL), k)
        assert relative(hartley, full.real - full.imag) < 1e-6


def test_packed_hartley_images_are_the_packed_images() -> None:
    transform = plan_transform(ImageSettings(box_px=SMALL), BOX, "real")
    hartley = hartley_images(torch.from_numpy(IMAGES), transform)
    again = packed_coefficients(hartley, plan_transform(ImageSettings(), SMALL, "hartley"))
    assert relative(again.numpy(), packed(IMAGES)) < 1e-6
