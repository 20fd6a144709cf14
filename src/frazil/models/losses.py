"""The loss of the VAE, per image.

Owns: the reconstruction error over the half plane and the divergence from the prior. Does not
own: batching, and what is done with the numbers.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def reconstruction_error(
    predicted: Complex[Tensor, "B P"],
    ctf: Float[Tensor, "B P"] | None,
    measured: Complex[Tensor, "B P"],
) -> Float[Tensor, " B"]:
    """Return the mean over the half plane of |CTF * predicted - measured|^2 of each image.

    For real images H(k)^2 + H(-k)^2 = 2 |F(k)|^2, so this is the mean of the squared difference
    of Hartley values over the whole disc without k = 0, which is cryoDRGN's loss.

    Parameters
    ----------
    predicted : slice of the volume.
    ctf : None for images without one.
    measured : coefficients of the CENTRED image, in units of the data's RMS.
    """
    modelled = predicted if ctf is None else predicted * ctf
    difference = torch.view_as_real(modelled - measured)
    return difference.square().sum(dim=(1, 2)) / measured.shape[1]


def kl_divergence(mu: Float[Tensor, "B Z"], logvar: Float[Tensor, "B Z"]) -> Float[Tensor, " B"]:
    """Return the divergence of N(mu, exp(logvar)) from N(0, 1) of each image, in nats.

    References
    ----------
    Kingma & Welling, ICLR 2014, appendix B.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1)


def total_loss(
    error: Float[Tensor, " B"], divergence: Float[Tensor, " B"], beta: float, half_plane: int
) -> Float[Tensor, ""]:
    """Return mean error + beta * mean divergence / (2P): a divergence per value of the disc.

    Parameters
    ----------
    beta : weight of the divergence.
    half_plane : P.
    """
    return error.mean() + beta * divergence.mean() / (2 * half_plane)
