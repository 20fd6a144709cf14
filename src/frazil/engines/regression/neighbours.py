"""Which images are near a point of a latent space.

Owns: distances, the rings of neighbours that every bandwidth is made of, and how crowded a point
is. Does not own: what is done with the images (`streaming`). Everything is float64.

The kernel of a bandwidth is a ball: the n nearest images, each with weight 1. A ring holds the
images between two balls, so the sums of all balls come from one insertion of each image.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

OUTSIDE = 255
# Images of the smallest ball, and the largest ball as a fraction of all images.
SMALLEST = 100
LARGEST = 1 / 3
# Particles of a sample whose own neighbourhoods say what is crowded.
_SAMPLE = 200
_CHUNK = 1 << 16


def plain_precision(latents: NDArray[np.floating]) -> Array:
    """Return (Z, Z) the inverse covariance of latents (n, Z): what scales those without errors.

    A direction in which all latents are equal counts nothing.
    """
    centred = latents.astype(np.float64) - latents.astype(np.float64).mean(0)
    return np.linalg.pinv(centred.T @ centred / len(latents), rcond=1e-10, hermitian=True)


def squared_distances(
    latents: NDArray[np.floating], precision: NDArray[np.floating], point: NDArray[np.floating]
) -> Array:
    """Return (n,) squared Mahalanobis distances (z_i - t)^T P_i (z_i - t) of a point t (Z,).

    Parameters
    ----------
    latents : (n, Z).
    precision : (n, Z, Z) of each image, or (Z, Z) one for all.
    """
    out = np.empty(len(latents))
    target = np.asarray(point, np.float64)
    for start in range(0, len(latents), _CHUNK):
        part = slice(start, start + _CHUNK)
        away = latents[part].astype(np.float64) - target
        if precision.ndim == 2:
            turned = away @ precision.astype(np.float64)
        else:
            turned = np.einsum("ni,nij->nj", away, precision[part].astype(np.float64))
        out[part] = (turned * away).sum(1)
    return out


def ball_sizes(images: int, count: int = 6) -> NDArray[np.int64]:
    """Return the images in each ball, from small to large, in equal steps of their logarithm."""
    largest = max(1, round(images * LARGEST))
    smallest = min(SMALLEST, max(1, images // 20), largest)
    return np.unique(np.rint(np.geomspace(smallest, largest, count)).astype(np.int64))


def rings(distance: Array, sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return (n,) the smallest ball that holds each image, by number; OUTSIDE in none of them."""
    out = np.full(len(distance), OUTSIDE, np.uint8)
    order = np.argsort(distance, kind="stable")
    start = 0
    for number, size in enumerate(sizes):
        out[order[start:size]] = number
        start = size
    return out


def usual_distance(
    latents: NDArray[np.floating], precision: NDArray[np.floating], size: int, seed: int = 0
) -> float:
    """Return the squared distance within which 19 of 20 particles have `size` others."""
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = generator.choice(len(latents), min(_SAMPLE, len(latents)), replace=False)
    reach = [
        np.partition(squared_distances(latents, precision, latents[i]), size)[size] for i in chosen
    ]
    return float(np.quantile(reach, 0.95))
