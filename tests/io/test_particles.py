"""The particle table: unknowns, selection, and joining cryoDRGN's arrays."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from frazil.errors import InputError
from frazil.io.particles import CTF_COLUMNS, PARTICLE_DTYPE, ParticleTable, empty_rows

CTF_ROW = [64.0, 3.0, 1.0e4, 1.1e4, 30.0, 300.0, 2.7, 0.1, 0.0]


def table(n: int = 4, **changes: Any) -> ParticleTable:
    return ParticleTable(empty_rows(n), ("/a.mrcs",), origin="set.star", **changes)


def test_empty_rows_know_nothing_and_carry_no_flag() -> None:
    rows = empty_rows(3)
    assert rows.dtype == PARTICLE_DTYPE
    for name in PARTICLE_DTYPE.names:
        kind = PARTICLE_DTYPE[name].base.kind
        expected = {"f": np.isnan(rows[name]), "i": rows[name] == -1, "u": rows[name] == 0}[kind]
        assert expected.all(), name


def test_what_is_known_is_told_column_by_column() -> None:
    unknown = table()
    assert not (unknown.has_pose or unknown.has_shift or unknown.has_ctf)
    assert not unknown.has_pixel_size
    assert unknown.missing_ctf_columns == CTF_COLUMNS
    known = table(box_px=128).with_ctf(np.tile(CTF_ROW, (4, 1)))
    known = known.with_poses(np.tile(np.eye(3), (4, 1, 1)), np.zeros((4, 2)))
    assert known.has_pose and known.has_shift and known.has_ctf and known.has_pixel_size
    assert known.missing_ctf_columns == ()
    empty = table(0)
    assert empty.has_pose and len(empty) == 0


def test_a_mixture_of_known_and_unknown_names_the_row() -> None:
    mixed = table()
    mixed.rows["rotation"][[0, 1, 3]] = np.eye(3)
    with pytest.raises(InputError, match=r"set\.star: row 2 \(0-based\) has no rotation.*3 of 4"):
        _ = mixed.has_pose
    mixed.rows["shift_ang"][1] = [0, 0]
    with pytest.raises(InputError, match=r"row 0 \(0-based\) has no shift, while row 1"):
        _ = mixed.has_shift


def test_a_voltage_of_zero_is_named_by_row() -> None:
    rows = empty_rows(3)
    for name in CTF_COLUMNS:
        rows[name] = 1.0
    assert ParticleTable(rows, ("s",), 8, origin="set.star").has_ctf
    rows["voltage_kv"][1] = 0
    with pytest.raises(InputError, match=r"set\.star: row 1 \(0-based\) has a voltage of 0 kV"):
        _ = ParticleTable(rows, ("s",), 8, origin="set.star").has_ctf


@settings(max_examples=30, deadline=None)
@given(indices=st.lists(st.integers(0, 9), max_size=20))
def test_take_keeps_order_and_repeats(indices: list[int]) -> None:
    whole = table(10)
    whole.rows["index"] = np.arange(10) * 3
    taken = whole.take(indices)
    assert taken.rows["index"].tolist() == [3 * i for i in indices]
    assert taken.sources == whole.sources


@pytest.mark.parametrize("bad", [4, -1])
def test_take_names_the_entry_that_is_out_of_range(bad: int) -> None:
    with pytest.raises(InputError, match=rf"entry 2 \(0-based\) .* row {bad}, .*4 rows"):
        table().take([0, 1, bad])
    with pytest.raises(InputError, match="integers, not float64"):
        table().take([0.5])


def test_shifts_are_fractions_of_the_box_in_angstrom() -> None:
    rotation = Rotation.random(4, random_state=0).as_matrix()
    fraction = np.random.default_rng(0).uniform(-0.1, 0.1, (4, 2))
    posed = table(box_px=100).with_pixel_size(1.5).with_poses(rotation, fraction)
    np.testing.assert_allclose(posed.rows["shift_ang"], fraction * 150, rtol=1e-6)
    np.testing.assert_allclose(posed.rows["rotation"], rotation, atol=1e-7)


def test_the_pixel_size_of_a_ctf_file_belongs_to_its_own_box() -> None:
    # ctf.pkl made for images downsampled to 64 px at 3 A; the source has 128 px.
    joined = table(box_px=128).with_ctf(np.tile(CTF_ROW, (4, 1)))
    assert (joined.rows["pixel_size_ang"] == 1.5).all()
    np.testing.assert_allclose(joined.ctf_array()[0], [1.5, *CTF_ROW[2:]], rtol=1e-6)
    posed = joined.with_poses(np.tile(np.eye(3), (4, 1, 1)), np.full((4, 2), 0.5))
    np.testing.assert_allclose(posed.rows["shift_ang"], 0.5 * 128 * 1.5)


def test_what_is_missing_to_scale_shifts_is_said() -> None:
    rotation, fraction = np.tile(np.eye(3), (4, 1, 1)), np.full((4, 2), 0.1)
    with pytest.raises(InputError, match=r"pixel size is not known; give --ctf"):
        table(box_px=64).with_poses(rotation, fraction)
    with pytest.raises(InputError, match="box of the images is not known"):
        table().with_pixel_size(1.0).with_poses(rotation, fraction)
    with pytest.raises(InputError, match="box of the images is not known"):
        table().with_ctf(np.tile(CTF_ROW, (4, 1)))
    assert table().with_poses(rotation, np.zeros((4, 2))).has_shift  # nothing to scale
    assert not table().with_poses(rotation).has_shift


def test_poses_and_ctf_of_another_number_of_particles_are_refused() -> None:
    with pytest.raises(InputError, match=r"poses of shape \(4, 3, 3\) wanted.*found \(5, 3, 3\)"):
        table().with_poses(np.zeros((5, 3, 3)))
    with pytest.raises(InputError, match=r"shifts of shape \(4, 2\) wanted"):
        table().with_poses(np.zeros((4, 3, 3)), np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"CTF of shape \(4, 9\) wanted"):
        table(box_px=64).with_ctf(np.zeros((4, 8)))


def test_joining_leaves_the_first_table_as_it_was() -> None:
    first = table(box_px=64)
    first.with_ctf(np.tile(CTF_ROW, (4, 1)))
    first.with_pixel_size(2.0)
    assert not first.has_ctf and not first.has_pixel_size


def test_a_pixel_size_must_be_positive() -> None:
    with pytest.raises(InputError, match="positive"):
        table().with_pixel_size(0.0)
    with pytest.raises(TypeError):
        ParticleTable(np.zeros(3), ())
