"""What is known of the stacks that are packed; poses and CTF that are not of these particles."""

from pathlib import Path

import numpy as np
import pytest

from frazil.errors import InputError, MissingFileError
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from frazil.io.pickles import write_pickle
from frazil.preprocess.inputs import join_pickles, source_file
from tests.store.made import make_images, make_store, with_metadata, write_stack


def test_a_stack_that_vanished_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    path.write_bytes(bytes(7))
    assert (source_file(str(path)).path, source_file(str(path)).size_bytes) == (str(path), 7)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"a\.mrcs: is not there any more; put it back"):
        source_file(str(path))


def particles(folder: Path, own_ctf: bool) -> ParticleTable:
    """Return ten particles of a stack of 16 px of 1.5 A, with or without a CTF of their own."""
    table = open_particles(write_stack(folder / "p.mrcs", make_images(10, 16)))
    return with_metadata(table) if own_ctf else table


def ctf_file(folder: Path, box_px: float, pixel_size_ang: float) -> str:
    rows = np.tile([box_px, pixel_size_ang, 1e4, 1e4, 0, 300, 2.7, 0.1, 0], (10, 1))
    write_pickle(folder / "ctf.pkl", rows.astype(np.float32))
    return str(folder / "ctf.pkl")


def poses_file(folder: Path, shift: np.ndarray) -> str:
    write_pickle(folder / "pose.pkl", (np.tile(np.eye(3), (len(shift), 1, 1)), shift))
    return str(folder / "pose.pkl")


def test_wrong_pixel_size_of_a_ctf_pickle_is_refused_with_both_figures(tmp_path: Path) -> None:
    table = particles(tmp_path, own_ctf=True)
    wanted = (
        r"ctf\.pkl: row 0 \(0-based\) has 16 px x 1\.6 A/px = 25\.6 A, .*p\.mrcs has 16 px x 1\.5 "
        r"A/px = 24 A \(10 rows differ\); leave --ctf out, .* -D 16 --Apix 1\.5"
    )
    with pytest.raises(InputError, match=wanted):
        join_pickles(table, None, ctf_file(tmp_path, 16, 1.6))
    # Positive control: the same field of view, in pixels of a smaller box, and 0.05 % off.
    joined = join_pickles(table, None, ctf_file(tmp_path, 8, 3 * 1.0005))
    assert np.allclose(joined.rows["pixel_size_ang"], 1.5 * 1.0005) and not joined.notes


def test_wrong_d_of_a_ctf_pickle_is_refused(tmp_path: Path) -> None:
    table = particles(tmp_path, own_ctf=True)
    with pytest.raises(InputError, match=r"has 8 px x 1\.5 A/px = 12 A, .* = 24 A"):
        join_pickles(table, None, ctf_file(tmp_path, 8, 1.5))


def test_the_header_of_a_stack_gives_way_to_the_ctf_pickle_and_it_is_said(tmp_path: Path) -> None:
    joined = join_pickles(particles(tmp_path, own_ctf=False), None, ctf_file(tmp_path, 16, 1.6))
    assert np.allclose(joined.rows["pixel_size_ang"], 1.6)
    assert any("= 24 A (10 rows differ); that of" in note for note in joined.notes)


def test_shifts_in_pixels_are_refused_and_a_few_far_ones_are_said(tmp_path: Path) -> None:
    table = particles(tmp_path, own_ctf=True)
    for shift in (3.0, 0.6):
        poses = poses_file(tmp_path, np.full((10, 2), shift))
        with pytest.raises(InputError, match=r"row 0 .*10 of 10 .*fractions of the box"):
            join_pickles(table, poses, None)
    many = table.take(np.zeros(200, int))
    shift = np.zeros((200, 2))
    assert not join_pickles(many, poses_file(tmp_path, shift), None).notes
    shift[7, 1] = -0.6
    (note,) = join_pickles(many, poses_file(tmp_path, shift), None).notes
    assert "1 rows have shifts of more than half the box, first row 7 (0-based)" in note


def test_the_same_checks_hold_for_a_store(tmp_path: Path) -> None:
    store = make_store(tmp_path, 10, 16)
    with pytest.raises(InputError, match=r"1\.6 A/px = 25\.6 A, .*X\.frz has 16 px x 1\.5 A/px"):
        join_pickles(store.table(), None, ctf_file(tmp_path, 16, 1.6))
