"""Motions keep rigid parts rigid, span what they say, and find the hinge of a real antibody."""

from pathlib import Path

import numpy as np
import pytest

from frazil.errors import InputError
from frazil.simulate.motions import (
    LinkerMotion,
    composition_motion,
    hinge_motion,
    homogeneous,
    mixture_motion,
    weakest_cut,
)
from frazil.simulate.structures import (
    Molecule,
    built_in_assembly,
    built_in_molecule,
    built_in_species,
    read_structure,
)


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_hinge_keeps_distances_inside_each_part_and_changes_those_between() -> None:
    molecule = built_in_molecule()
    motion = hinge_motion(molecule)
    placed, weights = motion.place(np.array([-120.0, 0.0, 35.0]))
    for points in placed:
        for part in (motion.moving, ~motion.moving):
            assert np.allclose(distances(points[part]), distances(molecule.positions[part]))
    assert np.allclose(placed[1], molecule.positions)
    assert np.abs(distances(placed[0]) - distances(placed[1])).max() > 20
    assert weights.shape == (1, len(molecule.positions))


def test_hinge_angle_is_right_handed_and_periodic_about_an_axis_across_the_arm() -> None:
    motion = hinge_motion(built_in_molecule())
    placed, _ = motion.place(np.array([0.0, 90.0, 360.0]))
    arm = placed[:, motion.moving].mean(axis=1) - motion.hinge_ang
    assert np.allclose(placed[0], placed[2])
    assert abs(arm[0] @ motion.axis) < 1e-9 * np.linalg.norm(arm[0])
    assert np.allclose(np.cross(motion.axis, arm[0]), arm[1])


def test_hinge_draws_fill_the_swing_and_the_grid_spans_it() -> None:
    molecule = built_in_molecule()
    drawn = hinge_motion(molecule, swing_deg=90).draw(4000, np.random.default_rng(0))
    assert -45 <= drawn.min() < -44.5 and 44.5 < drawn.max() <= 45
    assert hinge_motion(molecule, swing_deg=90).grid(3).tolist() == [-45, 0, 45]
    assert hinge_motion(molecule).grid(4).tolist() == [-180, -90, 0, 90]
    stepped = hinge_motion(molecule, swing_deg=90, states=3).draw(100, np.random.default_rng(0))
    assert set(stepped.tolist()) == {-45.0, 0.0, 45.0}


def test_linker_turns_the_arm_as_the_hinge_does_in_its_first_angle() -> None:
    hinge = hinge_motion(built_in_molecule())
    angles = np.array([-120.0, 0.0, 35.0])
    placed, weights = LinkerMotion(hinge).place(np.stack([angles, 0 * angles, 0 * angles], axis=1))
    assert np.allclose(placed, hinge.place(angles)[0])
    assert np.array_equal(weights, hinge.place(angles)[1])


def test_linker_keeps_parts_rigid_and_its_angles_move_them_in_different_ways() -> None:
    molecule = built_in_molecule()
    hinge = hinge_motion(molecule)
    placed, _ = LinkerMotion(hinge).place(np.array([[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40]]))
    moving = hinge.moving
    for points in placed:
        for part in (moving, ~moving):
            assert np.allclose(distances(points[part]), distances(molecule.positions[part]))
    moved = (placed[1:] - placed[0])[:, moving].reshape(3, -1)
    unit = moved / np.linalg.norm(moved, axis=1)[:, None]
    assert np.linalg.svd(unit, compute_uv=False).min() > 0.5
    tips = placed[:, moving].mean(axis=1) - hinge.hinge_ang
    assert np.allclose(tips[3], tips[0])  # the third angle is a twist about the arm
    assert abs(tips[0] @ tips[2] / (tips[0] @ tips[0]) - np.cos(np.radians(40))) < 1e-9
    assert np.linalg.norm(placed[3] - placed[0], axis=1).max() > 5


def test_linker_draws_and_grid_fill_the_cube_of_angles() -> None:
    motion = LinkerMotion(hinge_motion(built_in_molecule(), swing_deg=90))
    for angles in (motion.draw(4000, np.random.default_rng(0)), motion.grid(500)):
        assert angles.shape[1] == 3 and np.abs(angles).max() <= 45
        octant = (angles > 0) @ np.array([1, 2, 4])
        assert np.bincount(octant, minlength=8).min() > 0.1 * len(angles)
    stepped = LinkerMotion(hinge_motion(built_in_molecule(), swing_deg=90, states=3))
    drawn = stepped.draw(100, np.random.default_rng(0))
    assert {tuple(row) for row in drawn} == {tuple(row) for row in stepped.grid(99)}


def test_mixture_shows_one_species_at_a_time_at_its_occupancy() -> None:
    species = built_in_species(4)
    motion = mixture_motion(species, (4, 2, 1, 1))
    positions, weights = motion.place(np.arange(4.0))
    assert np.array_equal(positions[0], species.positions)
    for state in range(4):
        assert np.array_equal(weights[state] > 0, species.domain == state)
    share = np.bincount(motion.draw(8000, np.random.default_rng(0)).astype(int)) / 8000
    assert np.allclose(share, [0.5, 0.25, 0.125, 0.125], atol=0.02)
    with pytest.raises(InputError, match="--state-weights: 4 states"):
        mixture_motion(species, (1.0, 1.0))


def test_assembly_has_sixteen_states_of_five_parts() -> None:
    present = composition_motion(built_in_assembly(), states=16).present
    assert len({tuple(row) for row in present}) == 16
    assert present[:, 0].all() and present[:, 1:].sum(1).min() == 3


def test_built_in_arm_stays_clear_of_the_body_over_the_full_circle() -> None:
    motion = hinge_motion(built_in_molecule())
    placed, _ = motion.place(motion.grid(12))
    outer = motion.moving & (np.linalg.norm(placed[0] - motion.hinge_ang, axis=1) > 20)
    for points in placed:
        between = np.linalg.norm(points[outer][:, None] - points[~motion.moving], axis=2)
        assert between.min() > 4.0


def test_composition_states_drop_optional_domains_and_nothing_else() -> None:
    molecule = built_in_molecule()
    motion = composition_motion(molecule, states=4, probabilities=(4, 2, 1, 1))
    positions, weights = motion.place(np.arange(4.0))
    assert np.array_equal(positions[0], molecule.positions)
    assert np.array_equal(weights[0], molecule.weights)
    for state, dropped in ((1, 2), (2, 3), (3, 4)):
        gone = weights[state] == 0
        assert np.array_equal(gone, molecule.domain == dropped)
    drawn = motion.draw(8000, np.random.default_rng(0))
    share = np.bincount(drawn.astype(int), minlength=4) / 8000
    assert np.allclose(share, [0.5, 0.25, 0.125, 0.125], atol=0.02)
    assert motion.grid(99).tolist() == [0, 1, 2, 3]


def test_composition_refuses_states_and_occupancies_that_do_not_fit() -> None:
    molecule = built_in_molecule()
    assert len(composition_motion(molecule, states=8).present) == 8
    with pytest.raises(InputError, match=r"--states 9: 3 optional domains give at most 8"):
        composition_motion(molecule, states=9)
    for weights in ((1.0, 1.0), (1.0, 1.0, -1.0), (0.0, 0.0, 0.0)):
        with pytest.raises(InputError, match="--state-weights: 3 states"):
            composition_motion(molecule, 3, weights)


def test_homogeneous_has_one_state_with_everything() -> None:
    molecule = built_in_molecule()
    motion = homogeneous(molecule)
    assert motion.draw(5, np.random.default_rng(0)).tolist() == [0.0] * 5
    assert np.array_equal(motion.place(np.zeros(1))[1][0], molecule.weights)


@pytest.mark.parametrize("gap_ang", [4.0, 60.0])
def test_weakest_cut_separates_two_blobs_linked_or_apart(gap_ang: float) -> None:
    rng = np.random.default_rng(0)
    blob = rng.uniform(-12, 12, (90, 3))
    other = rng.uniform(-12, 12, (60, 3)) + np.array([24 + gap_ang, 0, 0])
    shuffle = rng.permutation(150)
    side = weakest_cut(np.concatenate([blob, other])[shuffle])
    assert np.array_equal(side, (np.arange(150) >= 90)[shuffle])


def test_molecule_too_small_for_a_hinge_is_refused() -> None:
    few = np.random.default_rng(0).normal(0, 5, (6, 3))
    nothing = np.zeros(6, dtype=bool)
    molecule = Molecule(few, np.ones(6), np.zeros(6, dtype=np.int64), ("A",), nothing)
    with pytest.raises(InputError, match="--moving"):
        hinge_motion(molecule)


def test_automatic_hinge_of_the_antibody_moves_one_whole_fab(shared_data: Path) -> None:
    molecule = read_structure(shared_data / "structures" / "1hzh.pdb")
    motion = hinge_motion(molecule)
    names = np.array(molecule.domain_names)[molecule.domain]
    assert motion.moving[names == "L"].all()
    assert set(names[motion.moving]) == {"H", "L"}
    assert 220 < (motion.moving & (names == "H")).sum() < 250
    reach = np.linalg.norm(molecule.positions[motion.moving] - motion.hinge_ang, axis=1)
    assert reach.min() < 8
