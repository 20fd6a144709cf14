"""Embeddings, clusters and traversals of latents whose structure is known."""

import numpy as np
import pytest

from frazil.analysis.cluster import kmeans_on_data
from frazil.analysis.embed import place_between, principal_axes, umap_embedding
from frazil.analysis.traverse import traverse_axis


def _blobs(per_blob: int = 40, blobs: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return latents (n, 5) in groups far apart on a line, shuffled, and their group."""
    generator = np.random.default_rng(seed)
    group = generator.permutation(np.repeat(np.arange(blobs), per_blob))
    z = generator.standard_normal((len(group), 5))
    z[:, 1] += 20 * group
    return z.astype(np.float32), group


def test_projecting_and_returning_is_the_identity() -> None:
    z, _ = _blobs()
    axes = principal_axes(z)
    np.testing.assert_allclose(axes.at(axes.project(z)), z, atol=1e-4)
    np.testing.assert_allclose(axes.axes @ axes.axes.T, np.eye(5), atol=1e-10)
    assert axes.explained.sum() == pytest.approx(1.0)


def test_the_first_component_is_the_longest_direction_with_a_fixed_sign() -> None:
    z, _ = _blobs()
    first = principal_axes(z).axes[0]
    assert first[1] > 0.99
    np.testing.assert_allclose(principal_axes(-z).axes[0], first, atol=1e-6)


def test_clusters_are_the_groups_and_their_numbers_follow_the_line() -> None:
    z, group = _blobs()
    clusters = kmeans_on_data(z, 4)
    order = np.argsort(clusters.centres[:, 1])
    assert order.tolist() in ([0, 1, 2, 3], [3, 2, 1, 0])
    for number in range(4):
        assert len(np.unique(group[clusters.labels == number])) == 1
    assert clusters.counts.tolist() == [40] * 4


def test_centres_are_the_particles_nearest_to_the_means_of_their_clusters() -> None:
    z, _ = _blobs()
    clusters = kmeans_on_data(z, 7)
    np.testing.assert_array_equal(clusters.centres, z[clusters.indices])
    assert clusters.labels[clusters.indices].tolist() == list(range(7))
    for number, index in enumerate(clusters.indices):
        members = np.flatnonzero(clusters.labels == number)
        distance = np.linalg.norm(z[members] - z[members].mean(axis=0), axis=1)
        assert np.linalg.norm(z[index] - z[members].mean(axis=0)) < distance.min() + 1e-4


def test_clusters_repeat_with_the_seed() -> None:
    z, _ = _blobs()
    first, second = kmeans_on_data(z, 9, seed=3), kmeans_on_data(z, 9, seed=3)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_there_are_no_more_clusters_than_distinct_latents() -> None:
    z = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    clusters = kmeans_on_data(z, 20)
    assert len(clusters.indices) == 3
    assert sorted(clusters.counts.tolist()) == [4, 4, 4]
    with pytest.raises(ValueError, match="at least one"):
        kmeans_on_data(z, 0)


def test_a_traversal_stays_on_its_axis_between_the_percentiles() -> None:
    z, _ = _blobs()
    axes = principal_axes(z)
    points, positions = traverse_axis(z, axes, 2, 10)
    assert points.shape == (10, 5)
    along = axes.project(points)
    np.testing.assert_allclose(along[:, [0, 2, 3, 4]], 0, atol=1e-4)
    np.testing.assert_allclose(along[:, 1], positions, atol=1e-4)
    low, high = np.percentile(axes.project(z)[:, 1], (5, 95))
    assert (positions[0], positions[-1]) == (pytest.approx(low), pytest.approx(high))
    with pytest.raises(ValueError, match="component 6 of 5"):
        traverse_axis(z, axes, 6, 10)
    with pytest.raises(ValueError, match="at least 2"):
        traverse_axis(z, axes, 1, 1)


def test_placing_keeps_landmarks_and_puts_the_others_among_their_neighbours() -> None:
    z, group = _blobs()
    landmarks = z[::4]
    placed = landmarks[:, [1, 0]]
    out = place_between(z, landmarks, placed)
    np.testing.assert_array_equal(out[::4], placed)
    # The first coordinate of a place is the group's position on the line.
    np.testing.assert_allclose(out[:, 0], 20 * group, atol=5)


def test_umap_keeps_groups_apart_and_repeats_with_the_seed() -> None:
    # One call compiles umap, which takes most of the time of this test.
    z, group = _blobs(per_blob=20, blobs=3)
    embedding = umap_embedding(z, seed=1)
    assert embedding.shape == (60, 2)
    assert np.isfinite(embedding).all()
    np.testing.assert_array_equal(embedding, umap_embedding(z, seed=1))
    nearest = ((embedding[:, None] - embedding) ** 2).sum(-1)
    np.fill_diagonal(nearest, np.inf)
    assert (group[nearest.argmin(axis=1)] == group).mean() > 0.95
    through = umap_embedding(z, seed=1, full_limit=50, landmarks=40)
    assert through.shape == (60, 2)
    assert np.isfinite(through).all()


def test_a_handful_of_particles_is_shown_by_principal_components() -> None:
    z, _ = _blobs(per_blob=2, blobs=2)
    coordinates = principal_axes(z).project(z)[:, :2]
    np.testing.assert_allclose(umap_embedding(z), coordinates, atol=1e-4)


def test_one_latent_has_axes_and_no_variance() -> None:
    z = np.array([[1.0, 2.0, 3.0]], np.float32)
    axes = principal_axes(z)
    assert axes.axes.shape == (1, 3)
    np.testing.assert_array_equal(axes.explained, [0])
    np.testing.assert_array_equal(axes.project(z), [[0]])
