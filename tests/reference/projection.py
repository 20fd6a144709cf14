"""Slow, readable twins of the simulator's projections: numpy, float64, one sum per line.

Written from the definitions (sums of Gaussians in real space, discrete Fourier sums), without the
separable products that the package uses.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def gaussian_image(points_px: Array, weights: Array, sigma_px: float, box_px: int) -> Array:
    """Return the image (D, D) of 2-D Gaussians of unit integral at (x, y) from pixel D/2."""
    j = np.arange(box_px) - box_px // 2
    image = np.zeros((box_px, box_px))
    for (x, y), weight in zip(points_px, weights, strict=True):
        squared = (j[None, :] - x) ** 2 + (j[:, None] - y) ** 2
        image += weight * np.exp(-squared / (2 * sigma_px**2)) / (2 * np.pi * sigma_px**2)
    return image


def gaussian_volume(points_px: Array, weights: Array, sigma_px: float, box_px: int) -> Array:
    """Return the volume (D, D, D), axes (z, y, x), of 3-D Gaussians of unit integral."""
    j = np.arange(box_px) - box_px // 2
    volume = np.zeros((box_px,) * 3)
    for (x, y, z), weight in zip(points_px, weights, strict=True):
        squared = (
            (j[None, None, :] - x) ** 2 + (j[None, :, None] - y) ** 2 + (j[:, None, None] - z) ** 2
        )
        volume += weight * np.exp(-squared / (2 * sigma_px**2))
    return volume / (2 * np.pi * sigma_px**2) ** 1.5


def fourier_sum(
    points_px: Array, weights: Array, sigma_px: float, box_px: int, kx: Array, ky: Array
) -> NDArray[np.complex128]:
    """Return the analytic transform of `gaussian_image` at frequencies kx, ky (cycles per box)."""
    phase = np.exp(
        -2j * np.pi * (np.outer(kx, points_px[:, 0]) + np.outer(ky, points_px[:, 1])) / box_px
    )
    envelope = np.exp(-2 * (np.pi * sigma_px / box_px) ** 2 * (kx**2 + ky**2))
    return envelope * (phase @ weights)


def image_transform(image: Array, kx: Array, ky: Array) -> NDArray[np.complex128]:
    """Return sum_j x_j exp(-2 pi i ((jx - D/2) kx + (jy - D/2) ky) / D) at frequencies kx, ky."""
    box_px = image.shape[0]
    j = np.arange(box_px) - box_px // 2
    row = np.exp(-2j * np.pi * np.outer(ky, j) / box_px)
    column = np.exp(-2j * np.pi * np.outer(kx, j) / box_px)
    return np.einsum("py,yx,px->p", row, image, column)


def volume_slice(volume: Array, rotation: Array, kx: Array, ky: Array) -> NDArray[np.complex128]:
    """Return the 3-D transform of a volume at k3 = R^T (kx, ky, 0), summed over all voxels."""
    box_px = volume.shape[0]
    k3 = np.stack([kx, ky, np.zeros_like(kx)], axis=1) @ rotation  # rows are R^T k
    j = np.arange(box_px) - box_px // 2
    x, y, z = (np.exp(-2j * np.pi * np.outer(k3[:, i], j) / box_px) for i in range(3))
    return np.einsum("pz,py,px,zyx->p", z, y, x, volume, optimize=True)


def disc(box_px: int, radius_px: float) -> tuple[Array, Array]:
    """Return the integer frequencies kx, ky with |k| < radius_px."""
    j = np.arange(-box_px // 2, box_px // 2 + 1, dtype=np.float64)
    ky, kx = np.meshgrid(j, j, indexing="ij")
    inside = np.hypot(kx, ky) < radius_px
    return kx[inside], ky[inside]
