"""The loss: equal to cryoDRGN's over the full disc, and the divergence to its definition."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from frazil.geometry.fourier import hartley_from_fourier
from frazil.geometry.packing import half_disc, unpack
from frazil.models import losses


def _case(batch: int = 3, box_px: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = len(half_disc(box_px))
    predicted, measured = torch.randn(
        2, batch, count, dtype=torch.complex128, generator=generator
    ).unbind(0)
    ctf = torch.rand(batch, count, dtype=torch.float64, generator=generator) * 2 - 1
    return predicted, ctf, measured


def test_half_plane_error_is_the_mean_over_the_hartley_disc_without_the_origin() -> None:
    disc = half_disc(16)
    predicted, ctf, measured = _case()
    full_ctf = unpack(ctf.to(torch.complex128), disc).real
    difference = full_ctf * hartley_from_fourier(unpack(predicted, disc))
    difference = difference - hartley_from_fourier(unpack(measured, disc))
    ky, kx = torch.meshgrid(torch.arange(-8, 9), torch.arange(-8, 9), indexing="ij")
    inside = (kx**2 + ky**2 <= 64) & ((kx != 0) | (ky != 0))
    assert int(inside.sum()) == 2 * len(disc)
    wanted = difference[:, inside].square().mean(dim=1)
    found = losses.reconstruction_error(predicted, ctf, measured)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_error_without_a_ctf_is_that_of_a_ctf_of_one() -> None:
    predicted, ctf, measured = _case()
    ones = torch.ones_like(ctf)
    with_ones = losses.reconstruction_error(predicted, ones, measured)
    torch.testing.assert_close(losses.reconstruction_error(predicted, None, measured), with_ones)
    assert (with_ones - losses.reconstruction_error(predicted, ctf, measured)).abs().min() > 1e-3


def test_divergence_is_that_of_torch_distributions() -> None:
    mu, logvar = torch.randn(2, 6, 4, dtype=torch.float64).unbind(0)
    given = Normal(mu, torch.exp(0.5 * logvar))
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    torch.testing.assert_close(losses.kl_divergence(mu, logvar), kl_divergence(given, prior).sum(1))


def test_total_weighs_the_divergence_per_value_of_the_disc() -> None:
    error, divergence = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 30.0])
    total = losses.total_loss(error, divergence, 0.5, 100)
    assert float(total) == pytest.approx(2.0 + 0.5 * 20.0 / 200)
