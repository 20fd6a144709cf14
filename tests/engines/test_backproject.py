"""Theorems of back-projection, on exact projections of known structures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from frazil.engines.backproject import (
    MapSums,
    Reconstruction,
    add_batch,
    assign_halves,
    backproject,
)
from frazil.engines.backproject_settings import BackprojectSettings
from frazil.errors import InputError
from frazil.geometry.ctf import ctf
from frazil.geometry.packing import half_disc, pack_images
from frazil.geometry.rotations import random_rotations, slice_coordinates
from frazil.geometry.shifts import shift_phase
from frazil.geometry.slicing import extract, half_grid_shape
from frazil.loader.batches import ParticleBatch
from frazil.metrics.fsc import fsc
from frazil.simulate.dataset import Simulation, build_simulation
from frazil.simulate.settings import SimulateSettings

BOX_PX = 32
DISC = half_disc(BOX_PX)


def simulation(num: int, with_ctf: bool, shift_px: float = 0.0) -> Simulation:
    """Return noise-free particles of the built-in molecule, all alike."""
    return build_simulation(
        SimulateSettings(
            num=num,
            box_px=BOX_PX,
            motion="none",
            snr=float("inf"),
            ctf=with_ctf,
            shift_px=shift_px,
            contrast_std=0.0,
            outliers=0.0,
        )
    )


def batch_of(simulated: Simulation, dark: bool = False) -> ParticleBatch:
    """Return all particles as one batch; `dark` as a store keeps them."""
    draw = simulated.draw
    rows = np.arange(len(draw))
    images = torch.from_numpy(simulated.clean_images(rows))
    return ParticleBatch(
        torch.from_numpy(rows),
        pack_images(images, DISC) * (-1 if dark else 1),
        torch.from_numpy(draw.rotation).float(),
        torch.from_numpy(draw.shift_px).float(),
        torch.from_numpy(draw.ctf).float() if simulated.settings.ctf else None,
    )


def map_of(batch: ParticleBatch, **settings: object) -> Reconstruction:
    """Return the reconstruction of one batch with rows 0, 1, 2, ..."""
    halves = assign_halves(np.arange(len(batch.rows)), len(batch.rows))
    return backproject([batch], DISC, halves, BackprojectSettings(**settings))


def noise_batch(count: int, seed: int) -> ParticleBatch:
    """Return random coefficients, poses, shifts and CTFs."""
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.tensor([3.0, 15000.0, 14000.0, 30.0, 300.0, 2.7, 0.1, 0.0])
    return ParticleBatch(
        torch.arange(count),
        torch.randn(count, len(DISC), dtype=torch.complex64, generator=generator),
        random_rotations(count, generator).float(),
        torch.randn(count, 2, generator=generator),
        parameters.expand(count, 8) * (1 + 0.2 * torch.rand(count, 1, generator=generator)),
    )


@pytest.mark.parametrize("with_ctf", [False, True])
def test_noise_free_projections_give_their_structure_back(with_ctf: bool) -> None:
    simulated = simulation(500, with_ctf, shift_px=1.5)
    truth = torch.from_numpy(simulated.volume(0.0))
    result = map_of(batch_of(simulated, dark=with_ctf), reg_weight=0.1)
    curve = fsc(result.volume, truth)
    assert curve[1:15].min() > 0.95
    # The right sign: dark particles, a CTF negative at low frequency, light density.
    assert float((result.volume * (truth - truth.mean())).sum()) > 0


def test_corrected_maps_have_the_grey_values_of_the_truth() -> None:
    simulated = simulation(500, with_ctf=False)
    truth = torch.from_numpy(simulated.volume(0.0))
    truth = truth - truth.mean()
    batch = batch_of(simulated)

    def slope(**settings: object) -> float:
        volume = map_of(batch, reg_weight=0.0, **settings).volume
        return float((volume * truth).sum() / (truth * truth).sum())

    # What is left comes from averaging where slices lie denser towards the origin.
    assert slope(correct_interpolation=True) == pytest.approx(1.0, abs=0.04)
    assert slope(correct_interpolation=False) < 0.94


def test_insertion_is_the_adjoint_of_imaging() -> None:
    batch = noise_batch(3, 1)
    generator = torch.Generator().manual_seed(2)
    volume = torch.randn(half_grid_shape(BOX_PX), dtype=torch.complex64, generator=generator)
    # Imaging: slice, CTF, then the shift away from the centre.
    k3 = slice_coordinates(batch.rotations, DISC.kx.float(), DISC.ky.float())
    transfer = ctf(DISC.kx, DISC.ky, batch.ctf_parameters, BOX_PX)
    away = shift_phase(DISC.kx, DISC.ky, batch.shifts_px, BOX_PX).conj()
    imaged = extract(volume, k3) * transfer * away
    sums = MapSums.zeros(DISC, 1)
    add_batch(sums, batch, torch.zeros(3, dtype=torch.int64), BackprojectSettings())
    left = (imaged * batch.coefficients.conj()).sum().real
    right = (volume * sums.numerator[0].conj()).sum().real
    assert float(left) == pytest.approx(float(right), rel=1e-4)


def test_turning_all_poses_turns_the_map() -> None:
    batch = noise_batch(40, 3)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x to y
    turned = map_of(replace(batch, rotations=batch.rotations @ quarter.T)).volume
    expected = torch.zeros_like(turned)
    plain = map_of(batch).volume
    # The density at (x, y) goes to (-y, x): both counted from pixel D/2.
    index = torch.arange(1, BOX_PX)
    mirrored = BOX_PX - index
    expected[:, 1:, 1:] = plain[:, mirrored][:, :, index].transpose(1, 2)
    scale = float(plain.abs().max())
    assert float((turned - expected)[:, 1:, 1:].abs().max()) < 1e-4 * scale
    assert float((turned - plain).abs().max()) > 0.1 * scale


def test_a_shift_in_the_images_is_undone_by_the_shift_of_the_pose() -> None:
    batch = replace(noise_batch(20, 4), shifts_px=torch.zeros(20, 2))
    shift = torch.randn(20, 2, generator=torch.Generator().manual_seed(5))
    moved = batch.coefficients * shift_phase(DISC.kx, DISC.ky, -shift, BOX_PX)
    restored = map_of(replace(batch, coefficients=moved, shifts_px=shift)).volume
    torch.testing.assert_close(restored, map_of(batch).volume, atol=1e-5, rtol=1e-4)


def test_the_order_and_size_of_batches_do_not_matter() -> None:
    batch = noise_batch(30, 6)

    def part(index: torch.Tensor) -> ParticleBatch:
        return ParticleBatch(
            batch.rows[index],
            batch.coefficients[index],
            batch.rotations[index],
            batch.shifts_px[index],
            batch.ctf_parameters[index],
        )

    order = torch.randperm(30, generator=torch.Generator().manual_seed(7))
    halves = assign_halves(np.arange(30), 30)
    pieces = [part(index) for index in order.split(7)]
    result = backproject(pieces, DISC, halves, BackprojectSettings())
    whole = map_of(batch)
    assert result.counts == whole.counts == (15, 15)
    for found, expected in zip(result.halves, whole.halves, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_half_map_is_the_map_of_its_half() -> None:
    batch = noise_batch(20, 8)
    even = ParticleBatch(
        torch.arange(10), *(value[::2] for value in list(vars(batch).values())[1:])
    )
    alone = map_of(even, half_maps=False)
    assert alone.halves == ()
    torch.testing.assert_close(map_of(batch).halves[0], alone.volume, atol=1e-5, rtol=1e-4)


def test_phase_flipping_keeps_the_right_sign_and_the_structure() -> None:
    simulated = simulation(300, with_ctf=True)
    truth = torch.from_numpy(simulated.volume(0.0))
    flipped = map_of(batch_of(simulated, dark=True), ctf_alg="flip").volume
    weighted = map_of(batch_of(simulated, dark=True), ctf_alg="mul").volume
    curve = fsc(flipped, truth)
    assert curve[2:12].min() > 0.8
    assert float((flipped - weighted).abs().max()) > 0.01 * float(weighted.abs().max())


def test_more_regularisation_damps_the_map() -> None:
    batch = noise_batch(20, 9)
    strengths = [map_of(batch, reg_weight=w).volume.std() for w in (0.0, 1.0, 10.0)]
    assert strengths[0] > strengths[1] > strengths[2] > 0


def test_the_scale_of_the_loader_is_multiplied_back() -> None:
    batch = noise_batch(10, 10)
    halves = assign_halves(np.arange(10), 10)
    scaled = backproject([batch], DISC, halves, BackprojectSettings(), norm_scale=250.0)
    torch.testing.assert_close(scaled.volume, 250.0 * map_of(batch).volume)


def test_halves_alternate_in_the_order_of_the_selection_or_are_those_stored() -> None:
    rows = np.array([9, 2, 5, 7])
    halves = assign_halves(rows, 10)
    assert halves[rows].tolist() == [0, 1, 0, 1]
    stored = np.full(10, -1, np.int8)
    stored[rows] = [2, 2, 1, 2]
    assert assign_halves(rows, 10, stored)[rows].tolist() == [1, 1, 0, 1]
    stored[5] = -1
    with pytest.raises(InputError, match=r"row 5 \(0-based\) has no half set"):
        assign_halves(rows, 10, stored)


def test_no_particles_is_said_plainly() -> None:
    with pytest.raises(InputError, match="no particles"):
        backproject([], DISC, np.zeros(0, np.uint8), BackprojectSettings())
