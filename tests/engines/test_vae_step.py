"""One training step: what the loss compares, determinism, bad numbers."""

import dataclasses

import numpy as np
import pytest
import torch

from frazil.engines.vae.record import EpochRecord, Sums
from frazil.engines.vae.step import StepResult, batch_losses, centred_images, training_step
from frazil.errors import InputError
from frazil.geometry.ctf import ctf
from frazil.geometry.packing import half_disc, hartley_values, pack_images
from frazil.geometry.rotations import random_rotations
from frazil.loader.batches import ParticleBatch
from frazil.models.config import ModelConfig
from frazil.models.vae import VAE

BOX_PX, BATCH = 16, 4
DISC = half_disc(BOX_PX)


def _model() -> VAE:
    config = ModelConfig(zdim=2, enc_dim=12, dec_dim=12, enc_layers=1, dec_layers=1)
    return VAE(config, DISC, torch.Generator().manual_seed(0))


def _batch(with_ctf: bool = True) -> ParticleBatch:
    generator = torch.Generator().manual_seed(1)
    parameters = torch.tensor([[4.0, 15000, 14000, 30, 300, 2.7, 0.1, 0]]).repeat(BATCH, 1)
    return ParticleBatch(
        rows=torch.arange(BATCH),
        coefficients=torch.randn(BATCH, len(DISC), dtype=torch.complex64, generator=generator),
        rotations=random_rotations(BATCH, generator).float(),
        shifts_px=torch.randn(BATCH, 2, generator=generator),
        ctf_parameters=parameters if with_ctf else None,
    )


def test_images_are_centred_by_their_shift() -> None:
    image = torch.randn(1, BOX_PX, BOX_PX, generator=torch.Generator().manual_seed(2))
    moved = torch.roll(image, shifts=(-2, 3), dims=(1, 2))  # by 3 px in x, -2 px in y
    batch = dataclasses.replace(
        _batch(with_ctf=False),
        coefficients=pack_images(moved, DISC),
        shifts_px=torch.tensor([[-3.0, 2.0]]),
    )
    centred, transfer = centred_images(_model(), batch)
    torch.testing.assert_close(centred, pack_images(image, DISC), rtol=1e-4, atol=1e-4)
    assert transfer is None


def test_the_encoder_sees_images_times_the_sign_of_their_ctf() -> None:
    model, batch = _model(), _batch()
    assert batch.ctf_parameters is not None
    centred, _ = centred_images(model, batch)
    sign = torch.sign(ctf(DISC.kx, DISC.ky, batch.ctf_parameters, BOX_PX))
    assert (sign < 0).any()
    assert (sign > 0).any()
    mu, logvar = model.encode(hartley_values(centred * sign))
    result = batch_losses(model, batch, None)
    assert torch.equal(result.mu, mu)
    assert torch.equal(result.logvar, logvar)


def test_the_loss_compares_ctf_times_slice_with_the_centred_image() -> None:
    model, batch = _model(), _batch()
    centred, transfer = centred_images(model, batch)
    assert transfer is not None
    noise = torch.randn(BATCH, 2)
    result = batch_losses(model, batch, noise)
    z = result.mu + noise * torch.exp(result.logvar / 2)
    wanted = (transfer * model.decode_slices(batch.rotations, z) - centred).abs().square().mean(1)
    torch.testing.assert_close(result.error, wanted)


def test_a_step_is_a_function_of_weights_batch_and_generator() -> None:
    after = []
    for seed in (5, 5, 6):
        model = _model()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        training_step(model, optimiser, _batch(), 0.5, torch.Generator().manual_seed(seed))
        after.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(after[0], after[1])
    assert not torch.equal(after[0], after[2])


def test_bfloat16_gives_nearly_the_same_loss_and_finite_gradients() -> None:
    model, batch = _model(), _batch()
    exact, coarse = (batch_losses(model, batch, None, bfloat16) for bfloat16 in (False, True))
    assert coarse.error.dtype == torch.float32
    torch.testing.assert_close(exact.error, coarse.error, rtol=0.03, atol=0)
    assert not torch.equal(exact.error, coarse.error)
    torch.autograd.backward(coarse.error.mean())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def _result(error: torch.Tensor) -> StepResult:
    size = len(error)
    latent = torch.arange(size * 2.0).view(size, 2)
    return StepResult(error, torch.ones(size), latent, -latent)


def test_latents_land_at_the_place_of_their_row() -> None:
    record = EpochRecord(np.array([7, 3, 5]), 2)
    record.add(torch.tensor([5, 7]), _result(torch.ones(2)))
    record.settle()
    assert record.latents[2].tolist() == [0, 1, 0, -1]
    assert record.latents[0].tolist() == [2, 3, -2, -3]
    assert torch.isnan(record.latents[1]).all()


def test_means_do_not_depend_on_when_losses_were_read() -> None:
    batches = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    sums = []
    for every in (1, 3, 7):
        record = EpochRecord(np.arange(5), 2)
        for number, errors in enumerate(batches):
            record.add(torch.arange(5), _result(errors))
            if number % every == 0:
                record.settle()
        record.settle()
        sums.append(record.epoch.error)
    assert sums[0] == sums[1] == sums[2]


def test_mean_losses_are_per_image() -> None:
    means = Sums(4, 8.0, 12.0).means(beta=0.5, half_plane=10)
    assert means == {"loss": 2 + 0.5 * 3 / 20, "gen_loss": 2.0, "kld": 3.0, "beta": 0.5}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_first_rows(bad: float) -> None:
    record = EpochRecord(np.arange(20), 2)
    record.add(torch.arange(4), _result(torch.ones(4)))
    record.add(torch.tensor([9, 11, 13]), _result(torch.tensor([1.0, bad, 1.0])))
    record.add(torch.tensor([1, 2]), _result(torch.tensor([bad, bad])))
    with pytest.raises(InputError, match=r"first for rows 11 \(0-based"):
        record.settle()
