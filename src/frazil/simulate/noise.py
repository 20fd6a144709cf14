"""What is in an image besides the particle: white or coloured noise, ice and junk.

Owns: the noise spectrum, its strength from optics group to optics group, the outliers, and their
randomness, which is a function of (seed, row) alone. Does not own: how strong the noise is
(`dataset` sets it from the asked SNR).
"""

import numpy as np
from numpy.typing import NDArray

from frazil.simulate.images import Grid
from frazil.simulate.settings import NoiseKind

Image = NDArray[np.float32]

PARTICLE, EMPTY, ICE, JUNK = 0, 1, 2, 3
"""Kinds of image in truth: a particle, noise alone, bright round ice, a uniform bright disc."""

CORNER_ANG = 40.0
FLOOR = 0.25
_NOISE_STREAM, _OUTLIER_STREAM = 101, 102


def noise_amplitude(grid: Grid, kind: NoiseKind) -> Image | None:
    """Return the noise amplitude (D, D/2+1) in FFT order with mean power 1; None for white noise.

    Coloured noise falls as 1/sqrt(1 + (f/f0)^2) onto a floor, f0 = 1/(40 A), floor 0.25: strong at
    low frequency, as solvent and carbon are.
    """
    if kind == "white":
        return None
    ky = np.fft.fftfreq(grid.box_px, grid.pixel_size_ang)[:, None]
    kx = np.fft.rfftfreq(grid.box_px, grid.pixel_size_ang)
    frequency = np.hypot(kx, ky)
    amplitude = 1 / np.sqrt(1 + (frequency * CORNER_ANG) ** 2) + FLOOR
    twice = np.full(len(kx), 2.0)  # columns that stand for kx and -kx
    twice[[0, -1]] = 1.0
    power = (amplitude**2 * twice).sum() / grid.box_px**2
    return (amplitude / np.sqrt(power)).astype(np.float32)


def group_noise_scale(relative: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the deviation of each optics group's noise, mean square 1; one group of 1 for ()."""
    values = np.array(relative or (1.0,))
    return np.asarray(values / np.sqrt((values**2).mean()))


def noise_images(seed: int, rows: NDArray[np.int64], box_px: int, amplitude: Image | None) -> Image:
    """Return unit-variance noise (B, D, D) of the given rows, the same whatever rows come along."""
    images = np.empty((len(rows), box_px, box_px), dtype=np.float32)
    for image, row in zip(images, rows, strict=True):
        rng = np.random.default_rng((seed, _NOISE_STREAM, int(row)))
        rng.standard_normal(out=image, dtype=np.float32)
    if amplitude is None:
        return images
    spectrum = np.fft.rfft2(images) * amplitude
    return np.fft.irfft2(spectrum, s=(box_px, box_px)).astype(np.float32)


def outlier_image(seed: int, row: int, kind: int, box_px: int) -> Image:
    """Return what stands in place of the particle (D, D), in units of the noise's deviation.

    EMPTY is zero, ICE is 2 to 5 bright Gaussian spots, JUNK is a uniform bright disc anywhere.
    """
    image = np.zeros((box_px, box_px), dtype=np.float32)
    rng = np.random.default_rng((seed, _OUTLIER_STREAM, row))
    y, x = np.mgrid[:box_px, :box_px] / box_px - 0.5
    if kind == ICE:
        for _ in range(rng.integers(2, 6)):
            centre, width = rng.uniform(-0.45, 0.45, 2), rng.uniform(0.04, 0.1)
            squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
            image += (6.0 * np.exp(-squared / (2 * width**2))).astype(np.float32)
    elif kind == JUNK:
        centre, radius = rng.uniform(-0.3, 0.3, 2), rng.uniform(0.15, 0.35)
        image += 3.0 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)
    return image
