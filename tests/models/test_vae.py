"""The VAE: shapes, symmetry, slices against points, gradients, the encoder's mask."""

import pytest
import torch

from frazil.errors import InputError
from frazil.geometry.packing import half_disc
from frazil.geometry.rotations import random_rotations
from frazil.models.config import ModelConfig
from frazil.models.losses import kl_divergence, reconstruction_error, total_loss
from frazil.models.vae import VAE

BOX_PX = 16
DISC = half_disc(BOX_PX)


def _vae(seed: int = 0, enc_mask: int | None = None, width: int = 24) -> VAE:
    config = ModelConfig(
        zdim=3, enc_dim=width, dec_dim=width, enc_layers=2, dec_layers=2, enc_mask=enc_mask
    )
    return VAE(config, DISC, torch.Generator().manual_seed(seed))


def _slice_points(rotations: torch.Tensor) -> torch.Tensor:
    flat = torch.stack([DISC.kx, DISC.ky, torch.zeros_like(DISC.kx)], dim=1).to(rotations)
    return flat @ rotations  # k3 = R^T (kx, ky, 0), (B, P, 3)


def test_shapes_and_types() -> None:
    vae, count = _vae(), len(DISC)
    mu, logvar = vae.encode(torch.randn(5, 2 * count))
    assert mu.shape == logvar.shape == (5, 3)
    rotations = random_rotations(5, torch.Generator().manual_seed(0)).float()
    slices = vae.decode_slices(rotations, mu)
    assert slices.shape == (5, count)
    assert slices.dtype == torch.complex64
    assert vae.decode_points(torch.randn(7, 3), mu[0]).shape == (7,)


def test_a_slice_is_the_volume_at_the_points_of_its_plane() -> None:
    vae = _vae()
    rotations = random_rotations(4, torch.Generator().manual_seed(1)).float()
    z = torch.randn(4, 3)
    slices = vae.decode_slices(rotations, z)
    points = _slice_points(rotations)
    for i in range(4):
        torch.testing.assert_close(
            slices[i], vae.decode_points(points[i], z[i]), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("in_plane", [False, True])
def test_the_volume_is_hermitian(in_plane: bool) -> None:
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(2)) * 4
    if in_plane:
        points = torch.round(points)
        points[:, 2] = 0
        points[:10, 1] = 0
        points = points[points.abs().sum(1) > 0]
    vae, z = _vae(), torch.randn(3)
    there, back = vae.decode_points(points, z), vae.decode_points(-points, z)
    assert torch.equal(there, back.conj())
    assert there.imag.abs().min() > 0


def test_only_one_half_space_is_learned_and_it_has_negative_kz() -> None:
    vae, z = _vae().double(), torch.randn(3, dtype=torch.float64)
    points = torch.randn(20, 3, dtype=torch.float64)
    points[:, 2] = -points[:, 2].abs() - 0.1
    network_in = torch.cat([vae.decoder.features.at_points(points), z.expand(20, 3)], dim=1)
    found = vae.decoder.mlp(network_in)
    torch.testing.assert_close(
        vae.decode_points(points, z),
        torch.complex(found[:, 0], found[:, 1]),
        rtol=1e-12,
        atol=1e-12,
    )


def test_the_latent_changes_the_volume() -> None:
    vae, points = _vae(), torch.randn(9, 3)
    one, other = vae.decode_points(points, torch.zeros(3)), vae.decode_points(points, torch.ones(3))
    assert (one - other).abs().min() > 0


def test_gradients_reach_every_parameter() -> None:
    vae, count = _vae(), len(DISC)
    images = torch.randn(6, count, dtype=torch.complex64)
    rotations = random_rotations(6, torch.Generator().manual_seed(0)).float()
    mu, logvar = vae.encode(torch.cat([images.real, images.imag], dim=1))
    z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
    error = reconstruction_error(vae.decode_slices(rotations, z), None, images)
    torch.autograd.backward(total_loss(error, kl_divergence(mu, logvar), 0.5, count))
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_same_seed_gives_the_same_model() -> None:
    for (name, a), b in zip(
        _vae(5).state_dict().items(), _vae(5).state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(("mask_px", "radius"), [(None, 8), (-1, 8), (3, 3)])
def test_the_encoder_sees_the_disc_of_its_mask_and_nothing_else(
    mask_px: int | None, radius: int
) -> None:
    vae, count = _vae(enc_mask=mask_px), len(DISC)
    values = torch.randn(1, 2 * count)
    inside = DISC.kx**2 + DISC.ky**2 <= radius**2
    mu, _ = vae.encode(values)
    for i in (0, count):
        for place in (torch.nonzero(inside).flatten(), torch.nonzero(~inside).flatten()):
            if not len(place):
                continue
            moved = values.clone()
            moved[0, place + i] += 5
            changed = bool((vae.encode(moved)[0] != mu).any())
            assert changed == bool(inside[place[0]])


def test_a_mask_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="--enc-mask 0"):
        _vae(enc_mask=0)


def test_it_overfits_a_tiny_batch() -> None:
    vae, count = _vae(width=64), len(DISC)
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, count, dtype=torch.complex64, generator=generator)
    images = images * torch.exp(-DISC.shell / 4)
    rotations = random_rotations(2, generator).float()
    optimiser = torch.optim.Adam(vae.parameters(), lr=3e-3)
    errors = []
    for _ in range(220):
        mu, _ = vae.encode(torch.cat([images.real - images.imag, images.real + images.imag], 1))
        error = reconstruction_error(vae.decode_slices(rotations, mu), None, images).mean()
        optimiser.zero_grad()
        torch.autograd.backward(error)
        optimiser.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.1 * errors[0]
