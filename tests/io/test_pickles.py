"""Pickles: what cryoDRGN writes is read, nothing in them runs, and wrong content is named."""

import collections
import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from frazil.errors import InputError, MissingFileError
from frazil.io.pickles import (
    check_indices,
    read_all_pickles,
    read_ctf,
    read_indices,
    read_pickle,
    read_poses,
    read_selection,
    write_pickle,
)


def rotations(n: int) -> np.ndarray[Any, Any]:
    return Rotation.random(n, random_state=0).as_matrix()


class Runs:
    """Its pickle makes a folder when plain pickle loads it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    target, path = tmp_path / "harm", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps((rotations(2), Runs(target)), protocol))
    with pytest.raises(InputError, match=r"evil\.pkl: refused.*(posix|nt|os)\.mkdir") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # positive control: plain pickle runs it
    assert target.is_dir()


@pytest.mark.parametrize(
    "value",
    [eval, getattr, np.load, np.ma.masked_array([1]), np.random.default_rng(0), random.Random(0)],
)
def test_everything_that_is_not_a_plain_array_or_container_is_refused(
    tmp_path: Path, value: object
) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match="refused"):
        read_pickle(tmp_path / "a.pkl")


def same(a: Any, b: Any) -> bool:
    if isinstance(b, list | tuple):
        return type(a) is type(b) and all(map(same, a, b))
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    return bool(np.array_equal(a, b)) and getattr(a, "dtype", None) == getattr(b, "dtype", None)


VALUES = [
    np.arange(6, dtype=">i2").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
    np.float32(2.5),
    np.array(["a", "bb"]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array([1, "x", None], dtype=object),
    np.empty((0, 3)),
    np.array([True, False]),
    ({"k": [1, 2.5, None, True, b"bytes", "text"]}, [np.ones(2), (1, 2)]),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_arrays_and_containers_of_every_protocol_come_home(
    tmp_path: Path, value: object, protocol: int
) -> None:
    raw = pickle.dumps(value, protocol)
    (tmp_path / "a.pkl").write_bytes(raw)
    assert same(read_pickle(tmp_path / "a.pkl"), pickle.loads(raw))
    assert same(pickle.loads(raw), value) or protocol < 5  # numpy makes big-endian arrays native


def test_pickles_of_numpy_1_name_another_module_and_are_read(tmp_path: Path) -> None:
    raw = pickle.dumps(np.arange(3.0), 2)
    old = raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != raw or b"numpy.core.multiarray" in raw
    (tmp_path / "a.pkl").write_bytes(old)
    assert np.array_equal(read_pickle(tmp_path / "a.pkl"), np.arange(3.0))


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400), noise=st.binary(max_size=12))
def test_damaged_pickles_give_one_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    raw = pickle.dumps((rotations(2), np.zeros((2, 2))), 4)
    path = tmp_path_factory.mktemp("p") / "a.pkl"
    path.write_bytes(raw[: min(cut, len(raw) - 2)] + noise)
    try:
        read_pickle(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_an_array_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    class Huge:
        def __reduce__(self) -> tuple[Any, ...]:
            maker = np.zeros(1).__reduce__()[0]
            return maker, (np.ndarray, (1 << 40,), b"b")

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Huge()))
    with pytest.raises(InputError, match="not in the file"):
        read_pickle(tmp_path / "a.pkl")
    raw = bytearray(pickle.dumps(np.zeros(3, np.uint8), 2))
    place = raw.index(b"K\x03\x85")  # the shape (3,)
    raw[place : place + 2] = b"J" + struct.pack("<i", 1 << 30)
    (tmp_path / "b.pkl").write_bytes(raw)
    with pytest.raises(InputError, match="not a readable pickle"):
        read_pickle(tmp_path / "b.pkl")


def test_calling_the_array_class_itself_is_refused(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return np.ndarray, ((1 << 20,),)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Call()))
    with pytest.raises(InputError):
        read_pickle(tmp_path / "a.pkl")


def test_ordered_dicts_and_other_classes_are_named_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(collections.Counter([1])))
    with pytest.raises(InputError, match=r"collections\.Counter"):
        read_pickle(tmp_path / "a.pkl")


def test_what_we_write_plain_pickle_reads(tmp_path: Path) -> None:
    value = (rotations(3).astype(np.float32), np.zeros((3, 2)))
    write_pickle(tmp_path / "pose.pkl", value)
    raw = (tmp_path / "pose.pkl").read_bytes()
    assert raw[:2] == b"\x80\x04"
    assert same(pickle.loads(raw), value)
    assert same(read_pickle(tmp_path / "pose.pkl"), value)


def test_consecutive_pickles_are_all_read(tmp_path: Path) -> None:
    (tmp_path / "z.pkl").write_bytes(pickle.dumps(np.zeros(2)) + pickle.dumps(np.ones(2)))
    mu, logvar = read_all_pickles(tmp_path / "z.pkl")
    assert np.array_equal(mu, np.zeros(2)) and np.array_equal(logvar, np.ones(2))


def poses_file(tmp_path: Path, value: object) -> Path:
    write_pickle(tmp_path / "pose.pkl", value)
    return tmp_path / "pose.pkl"


@pytest.mark.parametrize("form", ["pair", "alone", "single", "none"])
def test_poses_come_with_or_without_shifts(tmp_path: Path, form: str) -> None:
    rotation, shift = rotations(4), np.full((4, 2), 0.25)
    value = {
        "pair": (rotation, shift),
        "alone": rotation,
        "single": (rotation,),
        "none": (rotation, None),
    }[form]
    found, found_shift = read_poses(poses_file(tmp_path, value), 4)
    assert np.array_equal(found, rotation)
    assert (found_shift is None) if form != "pair" else np.array_equal(found_shift, shift)


def test_wrong_poses_are_named_by_row(tmp_path: Path) -> None:
    rotation, shift = rotations(4), np.zeros((4, 2))
    with pytest.raises(InputError, match="4 rows, but there are 5 particles"):
        read_poses(poses_file(tmp_path, (rotation, shift)), 5)
    bad = rotation.copy()
    bad[2, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"row 2 \(0-based\) has a rotation that is not a number"):
        read_poses(poses_file(tmp_path, (bad, shift)))
    bad = rotation.copy()
    bad[1] *= 1.01
    with pytest.raises(InputError, match=r"row 1 \(0-based\) is no rotation matrix"):
        read_poses(poses_file(tmp_path, bad))
    bad = rotation.copy()
    bad[3] *= -1
    with pytest.raises(InputError, match=r"row 3 .*mirrors"):
        read_poses(poses_file(tmp_path, bad))
    with pytest.raises(InputError, match=r"row 0 .*fractions of the box, not pixels"):
        read_poses(poses_file(tmp_path, (rotation, shift + 3)))
    with pytest.raises(InputError, match=r"shifts \(4, 2\) wanted, found \(3, 2\)"):
        read_poses(poses_file(tmp_path, (rotation, shift[:3])))
    with pytest.raises(InputError, match=r"rotations \(N, 3, 3\) wanted, found \(4, 2\)"):
        read_poses(poses_file(tmp_path, shift))
    with pytest.raises(InputError, match="found str"):
        read_poses(poses_file(tmp_path, "poses"))


def test_rotations_to_a_thousandth_pass(tmp_path: Path) -> None:
    read_poses(poses_file(tmp_path, rotations(4) * 1.0004))


def test_ctf_is_checked_by_row(tmp_path: Path) -> None:
    ctf = np.tile([64, 2.0, 1e4, 1.1e4, 30, 300, 2.7, 0.1, 0], (3, 1)).astype(np.float32)
    write_pickle(tmp_path / "ctf.pkl", ctf)
    assert np.array_equal(read_ctf(tmp_path / "ctf.pkl", 3), ctf.astype(np.float64))
    with pytest.raises(InputError, match="3 rows, but there are 2"):
        read_ctf(tmp_path / "ctf.pkl", 2)
    for row, column, value, message in (
        (1, 6, np.nan, "row 1 .*CTF that is not a number"),
        (2, 1, 0, "row 2 .*pixel size of 0"),
        (0, 5, -1, "row 0 .*voltage of -1"),
    ):
        bad = ctf.copy()
        bad[row, column] = value
        write_pickle(tmp_path / "bad.pkl", bad)
        with pytest.raises(InputError, match=message):
            read_ctf(tmp_path / "bad.pkl")
    write_pickle(tmp_path / "bad.pkl", ctf[:, :8])
    with pytest.raises(InputError, match=r"\(N, 9\) wanted, found \(3, 8\)"):
        read_ctf(tmp_path / "bad.pkl")


def test_selections_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = np.array([7, 0, 3])
    write_pickle(tmp_path / "i.pkl", rows.astype(np.int32))
    write_pickle(tmp_path / "l.pkl", [7, 0, 3])
    np.save(tmp_path / "i.npy", rows)
    (tmp_path / "i.txt").write_text("7\n0\n\n3\n")
    for name in ("i.pkl", "l.pkl", "i.npy", "i.txt"):
        found = read_indices(tmp_path / name)
        assert found.dtype == np.int64 and np.array_equal(found, rows), name
    np.save(tmp_path / "mask.npy", np.array([False, True, True]))
    assert read_indices(tmp_path / "mask.npy").tolist() == [1, 2]


@pytest.mark.parametrize("value", [np.array([0.5]), np.zeros((2, 2), int), "a", {"a": 1}, []])
def test_what_is_no_selection_is_refused(tmp_path: Path, value: object) -> None:
    write_pickle(tmp_path / "i.pkl", value)
    with pytest.raises(InputError, match=r"i\.pkl: (a list of integers|the selection is empty)"):
        read_indices(tmp_path / "i.pkl")


def test_text_and_objects_are_no_selection(tmp_path: Path) -> None:
    (tmp_path / "i.txt").write_text("1\ntwo\n")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("i.txt", "o.npy"):
        with pytest.raises(InputError, match="row numbers wanted"):
            read_indices(tmp_path / name)
    with pytest.raises(MissingFileError, match=r"none\.pkl"):
        read_indices(tmp_path / "none.pkl")


def test_a_mask_must_be_over_all_particles(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([False, True, True]))
    assert read_selection(tmp_path / "mask.npy", 3).tolist() == [1, 2]
    with pytest.raises(InputError, match=r"mask\.npy: a mask over 3 particles, but there are 4"):
        read_selection(tmp_path / "mask.npy", 4)


def test_a_number_beyond_64_bits_does_not_wrap_to_a_row(tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.array([0, 2**63 + 5], np.uint64))
    with pytest.raises(InputError, match=r"entry 1 \(0-based\) is 9223372036854775813, no row"):
        read_indices(tmp_path / "i.npy")


def test_a_folder_is_no_selection(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_indices(tmp_path)


def test_selections_are_checked_against_the_set() -> None:
    path = Path("ind.pkl")
    check_indices(np.array([4, 0, 2]), 5, path)
    with pytest.raises(InputError, match=r"ind\.pkl: entry 1 \(0-based\) is row 5, .* 5 particles"):
        check_indices(np.array([0, 5, 9]), 5, path)
    with pytest.raises(InputError, match=r"entry 2 \(0-based\) is row -1"):
        check_indices(np.array([0, 1, -1]), 5, path)
    with pytest.raises(InputError, match=r"entry 3 \(0-based\) selects row 4 again"):
        check_indices(np.array([4, 0, 2, 4, 2]), 5, path)
