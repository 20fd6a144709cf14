"""A Gaussian mixture as the prior of the latents, fitted to a finished fit's sufficient statistics.

Owns: the mixture, its EM, starts, and the choice of the number of components. Does not own: the
files (`mixture_files`), the statistics' origin (`loop`).

With the prior N(0, 1) taken off its posterior N(m, P^-1), the likelihood of an image within the
subspace is exp(-z^T G z / 2 + b^T z) up to a constant, with G = P - 1 and b = P m. So any other
prior of the latents is trained and evaluated without the images. Log likelihoods here leave that
constant out.

Each Gaussian's covariance has a prior: as if some more images with scatter 1, the variance of all
latents, belonged to it. Without it, variances grow without bound along components of which images
say next to nothing. Besides, no eigenvalue lies below a floor; a clipped spectrum is the best
covariance under that constraint. So EM never lowers the penalised log likelihood.

References
----------
Bovy, Hogg & Roweis 2011: a mixture seen through noise that differs between points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frazil.engines.pca.kernels import mixture_kernel

Array = NDArray[np.float64]

# EM ends when an image gains less than this, in nats, by an iteration, or after so many.
TOLERANCE = 2e-4
MAX_ITERATIONS = 200
# Images that the prior of a covariance is worth, per dimension.
PRIOR_IMAGES = 4
# Each restart makes this many iterations on so many images; the best goes on with all.
SHORT_ITERATIONS = 20
SHORT_IMAGES = 20_000
# A number of components is chosen on so many images.
CHOICE_IMAGES = 50_000
CANDIDATES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48)
# More components must raise the held-out log likelihood by this much per image: a state of its own,
# told apart, raises it by about ten times as much when one image in a hundred is in it.
WORTHWHILE = 0.005
# So many larger candidates that are not worthwhile end the search.
PATIENCE = 2


@dataclass(frozen=True, eq=False)
class Statistics:
    """Likelihoods of n images: posterior precision (n, K, K) float32 under N(0, 1), product (n, K).

    The product is precision times posterior mean, float64.
    """

    precision: NDArray[np.float32]
    product: Array

    @classmethod
    def of(cls, mean: NDArray[np.float32], precision: NDArray[np.float32]) -> "Statistics":
        """Return those of a fit's z.npy (n, K) and precisions.npy (n, K, K)."""
        product = np.einsum("nij,nj->ni", precision, mean, dtype=np.float64)
        return cls(np.ascontiguousarray(precision, np.float32), product)

    def __len__(self) -> int:
        return len(self.product)

    def part(self, chosen: NDArray[np.int64]) -> "Statistics":
        """Return those of some images."""
        return Statistics(self.precision[chosen], self.product[chosen])

    @property
    def means(self) -> Array:
        """Posterior means (n, K) under N(0, 1)."""
        matrices = self.precision.astype(np.float64)
        return np.asarray(np.linalg.solve(matrices, self.product[:, :, None])[:, :, 0], np.float64)


@dataclass(frozen=True, eq=False)
class Mixture:
    """M Gaussians: weights (M,), means (M, K), covariances (M, K, K)."""

    weights: Array
    means: Array
    covariances: Array

    @property
    def free_numbers(self) -> int:
        """Numbers that a fit determines."""
        count, zdim = self.means.shape
        return count * (1 + zdim + zdim * (zdim + 1) // 2) - 1

    @property
    def penalty(self) -> float:
        """Log prior of the covariances, without its constant."""
        _, log_det = np.linalg.slogdet(self.covariances)
        traces = np.trace(np.linalg.inv(self.covariances), axis1=1, axis2=2)
        return float(-PRIOR_IMAGES * self.means.shape[1] * (log_det + traces).sum() / 2)

    def sorted(self) -> "Mixture":
        """Return the same mixture, the largest weight first."""
        order = np.argsort(-self.weights, kind="stable")
        return Mixture(self.weights[order], self.means[order], self.covariances[order])


@dataclass(frozen=True, eq=False)
class Assignment:
    """What a mixture says of n images.

    Attributes
    ----------
    responsibilities : (n, M) float32, posterior probability of each component.
    means : (n, K) posterior mean of the latent.
    evidence : (n,) log likelihood.
    moments : sums over the images of r, r E[z], r E[z z^T], per component.
    """

    responsibilities: NDArray[np.float32]
    means: Array
    evidence: Array
    moments: tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One number of components: held-out log likelihood (n,) of each image, and BIC per image."""

    components: int
    held_out: Array
    bic: float


def expect(mixture: Mixture, data: Statistics) -> Assignment:
    """Return responsibilities, posterior means and moments of images (E-step)."""
    count, zdim = mixture.means.shape
    inverse = np.linalg.inv(mixture.covariances)
    product = np.einsum("cij,cj->ci", inverse, mixture.means)
    _, log_det = np.linalg.slogdet(mixture.covariances)
    with np.errstate(divide="ignore"):
        constant = np.log(mixture.weights) - log_det / 2 - (product * mixture.means).sum(1) / 2
    found = Assignment(
        np.empty((len(data), count), np.float32),
        np.empty((len(data), zdim)),
        np.empty(len(data)),
        (np.zeros(count), np.zeros((count, zdim)), np.zeros((count, zdim, zdim))),
    )
    mixture_kernel(zdim)(
        data.precision,
        data.product,
        (inverse, product, constant),
        found.responsibilities,
        found.means,
        found.evidence,
        found.moments,
    )
    return found


def maximise(moments: tuple[Array, Array, Array], floor: float) -> Mixture:
    """Return the mixture of these moments, without components that no image belongs to (M-step)."""
    zeroth, first, second = (part[moments[0] > 1e-8] for part in moments)
    means = first / zeroth[:, None]
    scatter = second / zeroth[:, None, None] - means[:, :, None] * means[:, None, :]
    worth = PRIOR_IMAGES * first.shape[1]
    scatter = scatter * zeroth[:, None, None] + worth * np.eye(first.shape[1])
    scatter /= (zeroth + worth)[:, None, None]
    values, vectors = np.linalg.eigh((scatter + scatter.transpose(0, 2, 1)) / 2)
    clipped = np.maximum(values, floor)
    covariances = np.einsum("cij,cj,ckj->cik", vectors, clipped, vectors)
    return Mixture(zeroth / zeroth.sum(), means, covariances)


def improve(
    mixture: Mixture, data: Statistics, floor: float, iterations: int = MAX_ITERATIONS
) -> tuple[Mixture, list[float]]:
    """Return the mixture after EM, and the penalised log likelihood per image on the way."""
    curve: list[float] = []
    for _ in range(iterations):
        found = expect(mixture, data)
        curve.append(float(found.evidence.mean()) + mixture.penalty / len(data))
        if len(curve) > 1 and curve[-1] - curve[-2] < TOLERANCE:
            break
        mixture = maximise(found.moments, floor)
    return mixture, curve


def start(data: Statistics, components: int, floor: float, seed: int) -> Mixture:
    """Return a first mixture: k-means++ on the posterior means, then a few steps of k-means."""
    from sklearn.cluster import KMeans

    means = data.means
    count = min(components, len(np.unique(means, axis=0)))
    labels = KMeans(count, n_init=1, max_iter=10, random_state=seed).fit(means).labels_
    member = np.eye(count)[labels]
    # Posterior means scatter less than latents: the posterior's own covariance is added.
    second = means[:, :, None] * means[:, None, :] + np.linalg.inv(data.precision)
    moments = (member.sum(0), member.T @ means, np.einsum("nc,nij->cij", member, second))
    return maximise(moments, floor)


def fit(data: Statistics, components: int, floor: float, restarts: int, seed: int) -> Mixture:
    """Return the best of several fits of at most this many components, the heaviest first."""
    few = data.part(sample(len(data), SHORT_IMAGES, seed))
    begun = [
        improve(start(few, components, floor, seed + number), few, floor, SHORT_ITERATIONS)
        for number in range(restarts if components > 1 else 1)
    ]
    best, _ = max(begun, key=lambda one: one[1][-1])
    return improve(best, data, floor)[0].sorted()


def choose(data: Statistics, floor: float, restarts: int, seed: int) -> list[Candidate]:
    """Return growing numbers of components with their held-out log likelihood, until it stands.

    Each half of the images is scored by the mixture of the other half.
    """
    data = data.part(sample(len(data), CHOICE_IMAGES, seed))
    halves = [np.arange(first, len(data), 2) for first in (0, 1)]
    found: list[Candidate] = []
    for components in CANDIDATES:
        if components > len(data) // 4:
            break
        held_out, bic = np.empty(len(data)), 0.0
        for own, other in (halves, halves[::-1]):
            mixture = fit(data.part(own), components, floor, restarts, seed)
            held_out[other] = expect(mixture, data.part(other)).evidence
            own_evidence = expect(mixture, data.part(own)).evidence.mean()
            penalty = mixture.free_numbers * np.log(len(own)) / (2 * len(own))
            bic += (own_evidence - penalty) / 2
        found.append(Candidate(components, held_out, float(bic)))
        chosen = chosen_components(found)
        if sum(one.components > chosen for one in found) >= PATIENCE:
            break
    return found


def chosen_components(candidates: Sequence[Candidate]) -> int:
    """Return the smallest number of components than which no larger one is worthwhile.

    That is, the best held-out log likelihood is higher by less than `WORTHWHILE`, or than one
    standard error of the difference.
    """
    best = max(candidates, key=lambda one: float(one.held_out.mean()))
    for one in candidates:
        gain = best.held_out - one.held_out
        if gain.mean() <= max(WORTHWHILE, gain.std() / np.sqrt(len(gain))):
            return one.components
    return best.components


def sample(count: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return all of `count` indices, or a random `wanted` of them, sorted."""
    if count <= wanted:
        return np.arange(count)
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(count, wanted, replace=False))
