"""The basis of the components: scale, rotation, and agreement between two fits.

Owns: the latent covariance absorbed into the volumes, principal axes, alignment of the components
of two fits and their canonical correlations. Does not own: the fits.

A model is known up to an invertible map of its latent; a latent N(0, 1) and orthogonal volumes in
order of power leave only signs open.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry, inner_products


def absorbed(grids: Tensor, second: NDArray[np.float64], images: int) -> Tensor:
    """Return the half grids (L, ...) after the latents' mean and covariance went into them.

    mu + V z with z ~ (m, S) is (mu + V m) + (V C) u with S = C C^T and u ~ (0, 1).

    Parameters
    ----------
    second : (L, L) sum of E[(1, z)(1, z)^T] over the images.

    References
    ----------
    Liu, Rubin & Wu 1998: EM with expanded parameters converges faster.
    """
    if len(grids) == 1:
        return grids
    mean = second[1:, 0] / images
    covariance = second[1:, 1:] / images - np.outer(mean, mean)
    transform = np.eye(len(grids))
    transform[1:, 0] = mean
    transform[1:, 1:] = np.linalg.cholesky(covariance)
    return combined(grids, transform)


def principal(grids: Tensor, geometry: Geometry) -> Tensor:
    """Return the half grids with components rotated to orthogonal volumes, largest first."""
    return combined(grids, principal_transform(grids, geometry))


def principal_transform(grids: Tensor, geometry: Geometry) -> NDArray[np.float64]:
    """Return the (L, L) rotation of `principal`, for `combined`; the mean stays."""
    transform = np.eye(len(grids))
    if len(grids) > 1:
        _, vectors = np.linalg.eigh(inner_products(grids[1:], grids[1:], geometry))
        transform[1:, 1:] = vectors[:, ::-1]
    return transform


def combined(grids: Tensor, transform: NDArray[np.float64]) -> Tensor:
    """Return new volumes: number j is the sum over i of volume i times transform[i, j]."""
    weights = torch.from_numpy(transform).to(grids.dtype)
    return torch.einsum("l...,lm->m...", grids, weights).contiguous()


def aligned(a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """Return the half grids b with its components rotated to be nearest to those of a."""
    left, _, right = np.linalg.svd(inner_products(b[1:], a[1:], geometry))
    transform = np.eye(len(b))
    transform[1:, 1:] = left @ right
    return combined(b, transform)


def canonical_correlations(a: Tensor, b: Tensor, geometry: Geometry) -> NDArray[np.float64]:
    """Return (K,) the cosines of the principal angles between two sets of component volumes."""
    bases = []
    for grids in (a[1:], b[1:]):
        values, vectors = np.linalg.eigh(inner_products(grids, grids, geometry))
        scale = 1 / np.sqrt(np.maximum(values, values.max() * 1e-12))
        bases.append(vectors * scale)
    cross = bases[0].T @ inner_products(a[1:], b[1:], geometry) @ bases[1]
    return np.clip(np.linalg.svd(cross, compute_uv=False), 0.0, 1.0)
