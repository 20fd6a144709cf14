"""One step of training: a batch in, updated weights and per-image losses out.

Owns: what the loss is made of and in what order. Does not own: where batches come from, and when
losses are read (nothing here waits for the device).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from frazil.geometry.ctf import ctf
from frazil.geometry.packing import hartley_values
from frazil.geometry.shifts import shift_phase
from frazil.loader.batches import ParticleBatch
from frazil.models.losses import kl_divergence, reconstruction_error, total_loss
from frazil.models.posterior import PosteriorEncoder
from frazil.models.vae import VAE


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step leaves behind, on the device.

    Attributes
    ----------
    error, divergence : (B,) reconstruction error and divergence from the prior, per image.
    mu, logvar : (B, Z) latent of each image, from the weights before the update.
    """

    error: Tensor
    divergence: Tensor
    mu: Tensor
    logvar: Tensor


def centred_images(model: VAE, batch: ParticleBatch) -> tuple[Tensor, Tensor | None]:
    """Return the coefficients of the centred images (B, P), and their CTF (B, P) or None."""
    decoder, box_px = model.decoder, model.disc.box_px
    phase = shift_phase(decoder.kx, decoder.ky, batch.shifts_px, box_px)
    transfer = None
    if batch.ctf_parameters is not None:
        transfer = ctf(decoder.kx, decoder.ky, batch.ctf_parameters, box_px)
    return batch.coefficients * phase, transfer


def latents(
    model: VAE, rows: Tensor, centred: Tensor, transfer: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return mu and log variance (B, Z) of the particles of rows (B,).

    The encoder sees images times the sign of their CTF, or what train_pca said of the particles.
    """
    if isinstance(model.encoder, PosteriorEncoder):
        mu, logvar = model.encoder(rows)
        return mu, logvar
    flipped = centred if transfer is None else centred * torch.sign(transfer)
    return model.encode(hartley_values(flipped))


def batch_losses(
    model: VAE, batch: ParticleBatch, noise: Tensor | None, bfloat16: bool = False
) -> StepResult:
    """Return the losses and latents of a batch.

    Parameters
    ----------
    noise : (B, Z) standard normal, z = mu + noise * sigma; None takes z = mu.
    bfloat16 : let the matrix products run in bfloat16; phases and losses stay float32.
    """
    # 1. Images as they would be, had the particle been picked at its centre.
    centred, transfer = centred_images(model, batch)
    with torch.autocast(centred.device.type, torch.bfloat16, enabled=bfloat16):
        # 2. Latent, and a draw from it.
        mu, logvar = latents(model, batch.rows, centred, transfer)
        z = mu if noise is None else mu + noise * torch.exp(0.5 * logvar)
        # 3. The slice of its volume in the image's direction.
        predicted = model.decode_slices(batch.rotations, z)
    error = reconstruction_error(predicted, transfer, centred)
    return StepResult(error, kl_divergence(mu, logvar), mu, logvar)


def training_step(
    model: VAE,
    optimiser: torch.optim.Optimizer,
    batch: ParticleBatch,
    beta: float,
    generator: torch.Generator,
    bfloat16: bool = False,
) -> StepResult:
    """Update the weights once, and return the batch's losses and latents before the update.

    Parameters
    ----------
    batch : on the model's device.
    beta : weight of the divergence, see `models.losses.total_loss`.
    generator : of the noise, on the model's device; moves on by B x Z draws.
    """
    shape = (len(batch.rows), model.config.zdim)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    result = batch_losses(model, batch, noise, bfloat16)
    optimiser.zero_grad(set_to_none=True)
    loss = total_loss(result.error, result.divergence, beta, len(model.disc))
    torch.autograd.backward(loss)
    optimiser.step()
    return StepResult(
        result.error.detach(),
        result.divergence.detach(),
        result.mu.detach(),
        result.logvar.detach(),
    )
