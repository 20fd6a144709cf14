"""Soft masks of volumes.

Owns: growing a region by a ball, its cosine edge, and cryoDRGN's default threshold. Does not own:
what a region is (a command's flag, or `frazil.engines.pca.mask`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOP_PERCENTILE = 99.99


def default_threshold(volume: NDArray[np.float32]) -> float:
    """Return half of the 99.99th percentile of the voxels, which one hot voxel does not move."""
    return float(np.percentile(volume, TOP_PERCENTILE)) / 2


def soft_mask(inside: NDArray[np.bool_], grow_px: float, edge_px: float) -> NDArray[np.float32]:
    """Return 1 within `grow_px` of a region, 0 beyond `grow_px` + `edge_px`, a cosine between.

    Distances are Euclidean, so the region grows by a ball, as far along diagonals as along axes.

    Parameters
    ----------
    inside : (nz, ny, nx), the region; not empty.
    grow_px, edge_px : lengths in voxels, 0 or more.
    """
    mask = np.zeros(inside.shape, np.float32)
    # Nothing lies further out than this box, in which distances take 20 bytes per voxel.
    reach = int(np.ceil(grow_px + edge_px)) + 1
    box = tuple(_extent(inside, axis, reach) for axis in range(inside.ndim))
    distance = ndimage.distance_transform_edt(~inside[box])
    mask[box] = cosine_edge(distance - grow_px, edge_px)
    return mask


def cosine_edge(distance: NDArray[np.floating], width: float) -> NDArray[np.float32]:
    """Return 1 where distance <= 0, 0 from `width` on, half a cosine period between."""
    if width <= 0:
        return (distance <= 0).astype(np.float32)
    fall = np.clip(distance / width, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * fall)).astype(np.float32)


def _extent(inside: NDArray[np.bool_], axis: int, reach: int) -> slice:
    """Return where along an axis the region is, and `reach` more on both sides."""
    others = tuple(other for other in range(inside.ndim) if other != axis)
    found = np.flatnonzero(inside.any(axis=others))
    return slice(max(0, int(found[0]) - reach), int(found[-1]) + reach + 1)
