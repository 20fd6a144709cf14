"""Low-dimensional views of the latents: principal components and UMAP.

Owns: both embeddings and how UMAP is kept affordable for large sets. Does not own: plots.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

FULL_UMAP_LIMIT = 200_000
"""Particles up to which UMAP sees all of them (about 80 s for 200,000)."""
UMAP_LANDMARKS = 100_000
"""Particles that UMAP sees of larger sets; the others are placed between them."""
_UMAP_NEIGHBOURS = 15
_PLACING_NEIGHBOURS = 5
_PLACING_CHUNK = 100_000


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """Principal components of latents.

    Attributes
    ----------
    mean : (Z,) mean latent.
    axes : (K, Z) unit vectors, largest variance first; the sign is such that the largest entry of
        each is positive, so that a repeated analysis does not mirror the plot.
    explained : (K,) share of the variance.
    """

    mean: Array
    axes: Array
    explained: Array

    def project(self, z: NDArray[np.float32]) -> Array:
        """Return (n, K) coordinates of latents (n, Z)."""
        return (z - self.mean) @ self.axes.T

    def at(self, coordinates: Array) -> NDArray[np.float32]:
        """Return the latents (n, Z) of coordinates (n, K)."""
        return (coordinates @ self.axes + self.mean).astype(np.float32)


def principal_axes(z: NDArray[np.float32]) -> PrincipalAxes:
    """Return all principal components of latents (n, Z); K is the smaller of n and Z.

    A single latent has no variance: its axes are those of the latent space.
    """
    from sklearn.decomposition import PCA

    if len(z) == 1:
        return PrincipalAxes(z[0].astype(np.float64), np.eye(1, z.shape[1]), np.zeros(1))
    fit = PCA(svd_solver="full").fit(z.astype(np.float64))
    axes = fit.components_
    largest = np.abs(axes).argmax(axis=1)
    signs = np.sign(axes[np.arange(len(axes)), largest])
    total = fit.explained_variance_.sum()
    share = fit.explained_variance_ / total if total > 0 else np.zeros(len(axes))
    return PrincipalAxes(fit.mean_, axes * signs[:, None], share)


def umap_embedding(
    z: NDArray[np.float32],
    seed: int = 0,
    full_limit: int = FULL_UMAP_LIMIT,
    landmarks: int = UMAP_LANDMARKS,
) -> NDArray[np.float32]:
    """Return the UMAP embedding (n, 2) of latents (n, Z); one value of `seed` gives one result.

    Sets larger than `full_limit` are embedded through a random sample of `landmarks`: the others
    are placed at the inverse-distance weighted mean of their nearest landmarks.

    References
    ----------
    McInnes, Healy & Melville 2018, arXiv:1802.03426.
    """
    if len(z) <= full_limit:
        return _umap(z, seed)
    chosen = np.sort(np.random.default_rng(seed).choice(len(z), landmarks, replace=False))
    return place_between(z, z[chosen], _umap(z[chosen], seed))


def place_between(
    z: NDArray[np.float32], landmarks: NDArray[np.float32], placed: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (n, 2): latents (n, Z) placed between landmarks (m, Z) whose places (m, 2) are known.

    A latent that is a landmark gets that landmark's place.
    """
    tree = cKDTree(landmarks)
    out = np.empty((len(z), placed.shape[1]), np.float32)
    near = min(_PLACING_NEIGHBOURS, len(landmarks))
    for start in range(0, len(z), _PLACING_CHUNK):
        part = slice(start, start + _PLACING_CHUNK)
        distance, index = tree.query(z[part], k=[*range(1, near + 1)])
        weight = 1 / np.maximum(distance, 1e-12)
        weight[distance[:, 0] == 0, 1:] = 0
        weight /= weight.sum(axis=1, keepdims=True)
        out[part] = np.einsum("nk,nkd->nd", weight, placed[index])
    return out


def _umap(z: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return the embedding (n, 2) of all given latents; too few for UMAP are shown by their PCA."""
    if len(z) <= _UMAP_NEIGHBOURS + 1:
        coordinates = principal_axes(z).project(z)[:, :2]
        missing = 2 - coordinates.shape[1]
        return np.pad(coordinates, ((0, 0), (0, missing))).astype(np.float32)
    with warnings.catch_warnings():
        # umap announces at its import that it is without TensorFlow, and later that a fixed seed
        # means one thread, and points that it could not connect: none of it is news to the user.
        warnings.filterwarnings("ignore", message="Tensorflow not installed")
        warnings.filterwarnings("ignore", module="umap")
        # The import compiles code and takes seconds, so it is made only where it is needed.
        import umap

        fit: Any = umap.UMAP(n_neighbors=_UMAP_NEIGHBOURS, random_state=seed, n_jobs=1)
        embedding: NDArray[np.float32] = fit.fit_transform(z)
    lost = ~np.isfinite(embedding).all(axis=1)
    embedding[lost] = 0
    return embedding.astype(np.float32)
