"""Fourier transforms as explicit sums, and the disc of kept frequencies as a loop."""

import numpy as np
from numpy.typing import NDArray


def frequencies(box_px: int) -> NDArray[np.int64]:
    """Return k = -D/2 ... D/2 - 1, the frequencies of a centred transform."""
    return np.arange(box_px) - box_px // 2


def kernel(box_px: int, k: NDArray[np.integer]) -> NDArray[np.complex128]:
    """Return exp(-2 pi i k (j - D/2) / D) for all k (rows) and all pixels j (columns)."""
    x = np.arange(box_px) - box_px // 2
    return np.exp(-2j * np.pi * np.outer(k, x) / box_px)


def dft2(
    image: NDArray[np.floating], k: NDArray[np.integer] | None = None
) -> NDArray[np.complex128]:
    """Return F(ky, kx) of an image [jy, jx] at the frequencies k x k (default: all of the box)."""
    box_px = image.shape[0]
    matrix = kernel(box_px, frequencies(box_px) if k is None else k)
    return np.einsum("kj,li,ji->kl", matrix, matrix, image.astype(np.float64))


def dft3(volume: NDArray[np.floating]) -> NDArray[np.complex128]:
    """Return F(kz, ky, kx) of a volume [jz, jy, jx]."""
    matrix = kernel(volume.shape[0], frequencies(volume.shape[0]))
    return np.einsum("az,by,cx,zyx->abc", matrix, matrix, matrix, volume, optimize=True)


def half_plane_disc(box_px: int) -> set[tuple[int, int]]:
    """Return {(kx, ky)} with 0 < |k| <= D/2 and (kx > 0, or kx = 0 and ky > 0)."""
    radius = box_px // 2
    kept = set()
    for kx in range(-radius, radius + 1):
        for ky in range(-radius, radius + 1):
            in_disc = 0 < kx**2 + ky**2 <= radius**2
            if in_disc and (kx > 0 or (kx == 0 and ky > 0)):
                kept.add((kx, ky))
    return kept
