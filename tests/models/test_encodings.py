"""Positional features: the separable form is the direct form."""

import math

import pytest
import torch

from frazil.errors import InputError
from frazil.geometry.packing import half_disc
from frazil.geometry.rotations import random_rotations
from frazil.models.encodings import GaussianFeatures, make_features

BOX_PX = 32


def _features(seed: int = 0, pe_dim: int = 16) -> GaussianFeatures:
    return GaussianFeatures(BOX_PX, pe_dim, 0.5, torch.Generator().manual_seed(seed))


def test_features_of_points_are_sines_then_cosines_of_the_phase() -> None:
    features = _features(pe_dim=2).double()
    point = torch.tensor([[3.0, -4.0, 5.0]], dtype=torch.float64)
    phases = [
        sum(k * f for k, f in zip([3, -4, 5], row, strict=True)) / BOX_PX
        for row in features.frequencies.tolist()
    ]
    wanted = [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
    torch.testing.assert_close(features.at_points(point)[0].tolist(), wanted)


def test_separable_features_equal_the_direct_formula() -> None:
    disc = half_disc(BOX_PX)
    features = _features()
    generator = torch.Generator().manual_seed(1)
    rotations = random_rotations(3, generator).float()
    mirror = torch.randint(0, 2, (3, len(disc)), generator=generator) * 2 - 1
    interleaved = features.on_slices(rotations, disc, mirror)
    cosine, sine = interleaved.unflatten(2, (-1, 2)).unbind(3)

    flat = torch.stack([disc.kx, disc.ky, torch.zeros_like(disc.kx)], dim=1).double()
    points = (flat @ rotations.double()) * mirror[..., None]  # k3 = R^T (kx, ky, 0)
    direct = features.double().at_points(points)
    found = torch.cat([sine, cosine], dim=2).double()
    assert (found - direct).abs().max() < 1e-5


def test_interleaved_weights_give_the_same_product() -> None:
    features = _features()
    weight = torch.randn(5, features.out_dim)
    sine, cosine = torch.randn(2, 9, features.out_dim // 2).unbind(0)
    interleaved = torch.stack([cosine, sine], dim=2).flatten(1)
    wanted = torch.cat([sine, cosine], dim=1) @ weight.T
    torch.testing.assert_close(interleaved @ features.interleave(weight).T, wanted)


def test_frequencies_have_the_asked_width_and_come_from_the_seed() -> None:
    wide = GaussianFeatures(BOX_PX, 2000, 0.5, torch.Generator().manual_seed(4))
    assert float(wide.frequencies.std()) == pytest.approx(0.5 * BOX_PX / 2, rel=0.02)
    assert torch.equal(_features(1).frequencies, _features(1).frequencies)
    assert not torch.equal(_features(1).frequencies, _features(2).frequencies)


def test_other_types_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="--pe-type geom_lowf: only gaussian"):
        make_features("geom_lowf", BOX_PX, 16, 0.5, torch.Generator())
