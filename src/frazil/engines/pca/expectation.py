"""The E-step: the Gaussian posterior of each image's latent.

Owns: posterior mean, precision and likelihood from whitened designs, and the moments that the
M-step takes. Does not own: the designs (`kernels`) and the sums (`sums`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Posterior:
    """Of B images: mean (B, K), precision and covariance (B, K, K), evidence (B,), all float64.

    `evidence` is the log marginal likelihood of the whitened data without the noise's constants.
    """

    mean: Tensor
    precision: Tensor
    covariance: Tensor
    evidence: Tensor


def posterior(gram: Tensor) -> Posterior:
    """Return the posterior of z ~ N(0, 1) from Gram matrices of [mean, components, data].

    Parameters
    ----------
    gram : (B, K + 2, K + 2), A^T A of the whitened designs with the data as last column, real and
        imaginary parts as rows. A complex coefficient of the half plane counts twice.

    References
    ----------
    Tipping & Bishop 1999, eqs. 6 to 8, with a design per image.
    """
    gram = 2 * gram.double()
    last = gram.shape[-1] - 1
    # 1. The residual to the mean volume: its products with the components, and its power.
    products = gram[:, 1:last, last] - gram[:, 1:last, 0]  # (B, K)
    power = gram[:, last, last] - 2 * gram[:, 0, last] + gram[:, 0, 0]
    # 2. Gaussian posterior.
    identity = torch.eye(last - 1, dtype=torch.float64, device=gram.device)
    precision = gram[:, 1:last, 1:last] + identity
    factor = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve(products[:, :, None], factor)[:, :, 0]
    covariance = torch.cholesky_inverse(factor)
    # 3. Marginal likelihood.
    half_log_det = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
    evidence = ((products * mean).sum(1) - power) / 2 - half_log_det
    return Posterior(mean, precision, covariance, evidence)


def moments(found: Posterior) -> Tensor:
    """Return E[(1, z)(1, z)^T], (B, K + 1, K + 1) float64."""
    one = found.mean.new_ones(len(found.mean), 1)
    full = torch.cat([one, found.mean], dim=1)
    second = full[:, :, None] * full[:, None, :]
    second[:, 1:, 1:] += found.covariance
    return second


def residual_weights(second: Tensor) -> Tensor:
    """Return (B, L + 1, L + 1) that takes [A | y] to [y E[z]^T - A E[z z^T] | y - A E[z]].

    Parameters
    ----------
    second : (B, L, L) of `moments`, whose first column is E[(1, z)].
    """
    count, size, _ = second.shape
    out = second.new_empty(count, size + 1, size + 1)
    out[:, :size, :size] = -second
    out[:, size, :size] = second[:, 0]
    out[:, :size, size] = -second[:, 0]
    out[:, size, size] = 1.0
    return out
