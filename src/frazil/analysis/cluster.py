"""Clusters of latents, each represented by a particle.

Owns: k-means, its centres on the data, and their order; the components of a mixture as clusters.
Does not own: the mixture (`frazil.engines.pca`), selections (later), plots.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from frazil.engines.pca.mixture_files import Labelled


@dataclass(frozen=True, eq=False)
class Clusters:
    """K clusters of n latents.

    Attributes
    ----------
    labels : (n,) int32, cluster of each latent, from 0.
    centres : (K, Z) float32, the latent nearest to each cluster's mean: a point of the data, where
        the decoder was trained, which a mean need not be.
    indices : (K,) int64, which latents those are.
    kind : how they were found; with K the name of their folder.

    The centres of a mixture are its means, and `indices` the members nearest to them.
    """

    labels: NDArray[np.int32]
    centres: NDArray[np.float32]
    indices: NDArray[np.int64]
    kind: Literal["kmeans", "mixture"] = "kmeans"

    @property
    def counts(self) -> NDArray[np.int64]:
        """Latents per cluster (K,)."""
        return np.bincount(self.labels, minlength=len(self.indices)).astype(np.int64)


def kmeans_on_data(z: NDArray[np.float32], clusters: int, seed: int = 0) -> Clusters:
    """Return k-means clusters of latents (n, Z), numbered so that neighbours follow each other.

    Fewer clusters come back when there are fewer distinct latents. The order is that of the leaves
    of an average-linkage tree of the centres, so that their volumes play as a smooth series.

    Raises
    ------
    ValueError : clusters < 1.
    """
    from sklearn.cluster import KMeans

    if clusters < 1:
        raise ValueError(f"at least one cluster is wanted, not {clusters}")
    clusters = min(clusters, len(np.unique(z, axis=0)))
    fit = KMeans(clusters, n_init=3, random_state=seed).fit(z)
    means = fit.cluster_centers_
    order = _leaf_order(means)
    rank = np.empty(clusters, np.int32)
    rank[order] = np.arange(clusters, dtype=np.int32)
    indices = _nearest_members(z, means[order], rank[fit.labels_])
    return Clusters(rank[fit.labels_], z[indices].astype(np.float32), indices)


def mixture_clusters(found: Labelled) -> Clusters:
    """Return the components of a run's mixture as clusters, those that hold a particle."""
    used, places = np.unique(found.labels, return_inverse=True)
    means, labels = found.mixture.means[used], np.asarray(places, np.int32)
    indices = _nearest_members(found.z, means, labels)
    return Clusters(labels, means.astype(np.float32), indices, "mixture")


def _nearest_members(
    z: NDArray[np.float32], means: NDArray[np.float64], labels: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return (K,) the latent nearest to each mean, of those in its cluster."""
    indices = np.empty(len(means), np.int64)
    for number, mean in enumerate(means):
        members = np.flatnonzero(labels == number)
        indices[number] = members[np.linalg.norm(z[members] - mean, axis=1).argmin()]
    return indices


def _leaf_order(means: NDArray[np.float64]) -> NDArray[np.int64]:
    if len(means) < 3:
        return np.arange(len(means))
    tree = linkage(means, "average", optimal_ordering=True)
    return leaves_list(tree).astype(np.int64)
