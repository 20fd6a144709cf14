"""The E-step: the Gaussian posterior of each image's latent.

Owns: posterior mean, precision and likelihood from whitened designs, the contrast of an image, and
the moments that the M-step takes. Does not own: the designs (`kernels`) and the sums (`sums`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Contrasts are near 1: N(1, CONTRAST_DEVIATION), within a range.
CONTRAST_DEVIATION = 0.3
CONTRAST_RANGE = (0.2, 1.81)
CONTRAST_STEP = 0.05


@dataclass(frozen=True, eq=False)
class Posterior:
    """Of B images: mean (B, K), precision and covariance (B, K, K), evidence (B,), all float64.

    `evidence` is the log marginal likelihood of the whitened data without the noise's constants;
    `contrast` (B,) multiplies mean and components, and is 1 unless it was estimated.
    """

    mean: Tensor
    precision: Tensor
    covariance: Tensor
    evidence: Tensor
    contrast: Tensor


def posterior(gram: Tensor, estimate_contrast: bool = False) -> Posterior:
    """Return the posterior of z ~ N(0, 1) from Gram matrices of [mean, components, data].

    Parameters
    ----------
    gram : (B, K + 2, K + 2), A^T A of the whitened designs with the data as last column, real and
        imaginary parts as rows. A complex coefficient of the half plane counts twice.
    estimate_contrast : choose the most likely contrast of each image, see `likely_contrast`.

    References
    ----------
    Tipping & Bishop 1999, eqs. 6 to 8, with a design per image.
    """
    gram = 2 * gram.double()
    last = gram.shape[-1] - 1
    contrast = likely_contrast(gram) if estimate_contrast else gram.new_ones(len(gram))
    scale = gram.new_ones(len(gram), last + 1)
    scale[:, :last] = contrast[:, None]
    gram = gram * scale[:, :, None] * scale[:, None, :]
    # 1. The residual to the mean volume: its products with the components, and its power.
    products = gram[:, 1:last, last] - gram[:, 1:last, 0]  # (B, K)
    power = gram[:, last, last] - 2 * gram[:, 0, last] + gram[:, 0, 0]
    # 2. Gaussian posterior.
    identity = torch.eye(last - 1, dtype=torch.float64, device=gram.device)
    precision = gram[:, 1:last, 1:last] + identity
    factor = torch.linalg.cholesky(precision)
    # torch.cholesky_inverse takes the matrices of a batch one after the other on a GPU.
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    covariance = inverse.mT @ inverse
    mean = (covariance @ products[:, :, None])[:, :, 0]
    # 3. Marginal likelihood.
    half_log_det = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
    evidence = ((products * mean).sum(1) - power) / 2 - half_log_det
    if estimate_contrast:
        evidence = evidence - (contrast - 1) ** 2 / (2 * CONTRAST_DEVIATION**2)
    return Posterior(mean, precision, covariance, evidence, contrast)


def likely_contrast(gram: Tensor) -> Tensor:
    """Return (B,) the a that maximises p(y | a) p(a), with y = a (mu + V z) + n and z ~ N(0, 1).

    With V^T V = Q diag(l) Q^T the marginal likelihood of every a follows from the same few numbers;
    it is taken at a row of values, and at the top of a parabola through the best three.

    Parameters
    ----------
    gram : (B, K + 2, K + 2) as in `posterior`, doubled.
    """
    last = gram.shape[-1] - 1
    values, vectors = torch.linalg.eigh(gram[:, 1:last, 1:last])
    data = torch.einsum("bik,bi->bk", vectors, gram[:, 1:last, last])[:, None]  # (B, 1, K)
    mean = torch.einsum("bik,bi->bk", vectors, gram[:, 1:last, 0])[:, None]
    a = torch.arange(*CONTRAST_RANGE, CONTRAST_STEP, dtype=gram.dtype, device=gram.device)
    across = a[None, :, None]
    spread = across**2 * values[:, None].clamp(min=0) + 1  # (B, A, K)
    explained = ((across * data - across**2 * mean) ** 2 / spread - spread.log()).sum(2)
    residual = a**2 * gram[:, 0, 0, None] - 2 * a * gram[:, 0, last, None]
    score = (explained - residual) / 2 - (a - 1) ** 2 / (2 * CONTRAST_DEVIATION**2)  # (B, A)
    best = score.argmax(1).clamp(1, len(a) - 2)
    below, top, above = (score.gather(1, (best + i)[:, None])[:, 0] for i in (-1, 0, 1))
    bend = (below - 2 * top + above).clamp(max=-1e-9)
    return a[best] + CONTRAST_STEP * ((below - above) / (2 * bend)).clamp(-1, 1)


def moments(found: Posterior) -> Tensor:
    """Return E[(1, z)(1, z)^T], (B, K + 1, K + 1) float64."""
    one = found.mean.new_ones(len(found.mean), 1)
    full = torch.cat([one, found.mean], dim=1)
    second = full[:, :, None] * full[:, None, :]
    second[:, 1:, 1:] += found.covariance
    return second


def residual_weights(second: Tensor, contrast: Tensor) -> Tensor:
    """Return (B, L + 1, L + 1) that takes [A | y] to [y E[u]^T - A E[u u^T] | y - A E[u]].

    Parameters
    ----------
    second : (B, L, L) of `moments`, whose first column is E[(1, z)].
    contrast : (B,) a, with u = a (1, z).
    """
    count, size, _ = second.shape
    first = contrast[:, None] * second[:, 0]
    out = second.new_empty(count, size + 1, size + 1)
    out[:, :size, :size] = -(contrast[:, None, None] ** 2) * second
    out[:, size, :size] = first
    out[:, :size, size] = -first
    out[:, size, size] = 1.0
    return out
