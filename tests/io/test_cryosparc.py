"""cryoSPARC .cs: what the fields mean, wide headers, and passthrough joined by uid."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from frazil.errors import InputError, MissingFileError
from frazil.io.cryosparc import CsColumns, particles_from_cs, read_alignment, read_cs, write_cs
from frazil.io.paths import Places

BLOB = [
    ("blob/path", "S32"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"),
]
CTF = [
    ("ctf/exp_group_id", "<u4"),
    ("ctf/accel_kv", "<f4"),
    ("ctf/cs_mm", "<f4"),
    ("ctf/amp_contrast", "<f4"),
    ("ctf/df1_A", "<f4"),
    ("ctf/df2_A", "<f4"),
    ("ctf/df_angle_rad", "<f4"),
    ("ctf/phase_shift_rad", "<f4"),
]


def alignment(prefix: str) -> list[Any]:
    return [
        (f"{prefix}/split", "<u4"),
        (f"{prefix}/shift", "<f4", (2,)),
        (f"{prefix}/pose", "<f4", (3,)),
        (f"{prefix}/psize_A", "<f4"),
    ]


def particles(n: int = 6, fields: list[Any] | None = None) -> np.ndarray[Any, Any]:
    """Return n particles with known values; `fields` without uid."""
    rng = np.random.default_rng(0)
    array = np.zeros(n, [("uid", "<u8"), *(fields or BLOB + CTF + alignment("alignments3D"))])
    array["uid"] = rng.permutation(np.arange(1, n + 1, dtype=np.uint64) << 40)
    for name in array.dtype.names[1:]:
        if array[name].dtype.kind == "f":
            array[name] = rng.uniform(1, 2, array[name].shape)
    names = array.dtype.names
    if "blob/path" in names:
        array["blob/path"] = [b">J1/a.mrcs", b"J1/b.mrcs"] * (n // 2)
        array["blob/idx"] = np.arange(n) // 2
        array["blob/shape"] = 64
        array["blob/psize_A"] = 2.0
        array["blob/sign"] = -1
    if "ctf/exp_group_id" in names:
        array["ctf/exp_group_id"] = [23, 5] * (n // 2)
    if "alignments3D/psize_A" in names:
        array["alignments3D/psize_A"] = 3.0
        array["alignments3D/split"] = np.arange(n) % 2
    return array


def cs(tmp_path: Path, array: np.ndarray[Any, Any], name: str = "p.cs") -> Path:
    write_cs(tmp_path / name, array)
    return tmp_path / name


def drop(array: np.ndarray[Any, Any], *prefixes: str) -> np.ndarray[Any, Any]:
    """Return the array without the fields that begin with one of `prefixes`."""
    kept = [name for name in array.dtype.names if not name.startswith(prefixes)]
    out = np.zeros(len(array), [(name, array.dtype[name]) for name in kept])
    for name in kept:
        out[name] = array[name]
    return out


def test_every_field_arrives_in_our_units(tmp_path: Path) -> None:
    array = particles()
    table = particles_from_cs(cs(tmp_path, array), Places(tmp_path / "project"))
    rows = table.rows
    assert rows["uid"].tolist() == array["uid"].tolist()
    assert table.box_px == 64 and table.blob_sign == -1 and table.notes == ()
    assert table.sources == tuple(str(tmp_path / "project/J1" / n) for n in ("a.mrcs", "b.mrcs"))
    assert rows["source"].tolist() == [0, 1] * 3
    assert rows["index"].dtype == np.int64 and rows["index"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table.optics_groups == ("5", "23") and rows["optics_group"].tolist() == [1, 0] * 3
    assert rows["half_set"].tolist() == [1, 2] * 3
    assert (rows["pixel_size_ang"] == 2.0).all()
    # Shifts are pixels of alignments3D/psize_A, not of blob/psize_A.
    np.testing.assert_allclose(rows["shift_ang"], array["alignments3D/shift"] * 3.0, rtol=1e-6)
    np.testing.assert_allclose(
        rows["astigmatism_deg"], np.rad2deg(array["ctf/df_angle_rad"]), rtol=1e-6
    )
    np.testing.assert_allclose(
        rows["phase_shift_deg"], np.rad2deg(array["ctf/phase_shift_rad"]), rtol=1e-6
    )
    assert rows["voltage_kv"].tolist() == array["ctf/accel_kv"].tolist()
    matrix = Rotation.from_rotvec(array["alignments3D/pose"]).as_matrix()
    np.testing.assert_allclose(rows["rotation"], matrix.transpose(0, 2, 1), atol=1e-6)


def test_a_zero_rotation_vector_is_the_identity(tmp_path: Path) -> None:
    array = particles()
    array["alignments3D/pose"][2] = 0
    rows = particles_from_cs(cs(tmp_path, array)).rows
    assert np.array_equal(rows["rotation"][2], np.eye(3))
    assert np.isfinite(rows["rotation"]).all()


def test_a_header_beyond_numpys_limit_is_read(tmp_path: Path) -> None:
    array = np.zeros(3, [(f"alignments_class_{i}/class_posterior", "<f4") for i in range(401)])
    path = cs(tmp_path, array)
    with pytest.raises(ValueError, match="max_header_size"):  # positive control
        np.load(path)
    assert len(read_cs(path).dtype.names) == 401


def test_a_wide_file_is_not_loaded_but_mapped(tmp_path: Path) -> None:
    path = cs(tmp_path, particles())
    before = read_cs(path)["blob/psize_A"]
    raw = np.load(path)
    raw["blob/psize_A"] = 7
    with path.open("r+b") as file:  # the same file, changed in its place
        np.lib.format.write_array(file, raw)
    assert (before == 7).all() and not before.flags.writeable


def test_other_formats_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "c.cs").write_bytes(b"\x95CSDAT" + bytes(100))
    with pytest.raises(InputError, match=r"CSDAT.*format=1"):
        read_cs(tmp_path / "c.cs")
    (tmp_path / "t.cs").write_text("hello hello")
    with pytest.raises(InputError, match=r"not a \.cs file"):
        read_cs(tmp_path / "t.cs")
    raw = cs(tmp_path, particles()).read_bytes()
    (tmp_path / "short.cs").write_bytes(raw[:-10])
    with pytest.raises(InputError, match="damaged"):
        read_cs(tmp_path / "short.cs")
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(InputError, match="named columns"):
        read_cs(tmp_path / "plain.npy")
    np.save(tmp_path / "o.npy", np.zeros(3, [("a", "O")]), allow_pickle=True)
    with pytest.raises(InputError, match="damaged"):
        read_cs(tmp_path / "o.npy")
    with pytest.raises(MissingFileError, match=r"none\.cs"):
        read_cs(tmp_path / "none.cs")


def test_passthrough_fields_are_joined_by_uid_whatever_the_order(tmp_path: Path) -> None:
    whole = particles(20)
    expected = particles_from_cs(cs(tmp_path, whole, "whole.cs")).rows
    more = particles(30)
    more[:20] = whole
    more["uid"][20:] = np.arange(10) + 7
    shuffled = more[np.random.default_rng(1).permutation(30)]
    folder = tmp_path / "job"
    folder.mkdir()
    path = cs(folder, drop(whole, "blob", "ctf"), "cryosparc_P1_J24_001_particles.cs")
    cs(folder, drop(shuffled, "alignments3D"), "P1_J24_passthrough_particles.cs")
    cs(folder, drop(particles(4), "alignments3D"), "P1_J25_passthrough_particles.cs")  # another job
    table = particles_from_cs(path)
    for name in expected.dtype.names:
        if name != "source":  # stacks are numbered as they are met
            np.testing.assert_array_equal(table.rows[name], expected[name], name)
    # Positive control: by row number it would have been wrong.
    assert not np.array_equal(shuffled["ctf/df1_A"][:20], whole["ctf/df1_A"])


@pytest.mark.parametrize("fault", ["missing", "twice"])
def test_a_passthrough_that_does_not_match_is_refused_with_counts(
    tmp_path: Path, fault: str
) -> None:
    whole = particles(6)
    other = drop(whole, "alignments3D")
    other = other[2:] if fault == "missing" else np.concatenate([other, other[:1]])
    path = cs(tmp_path, drop(whole, "blob", "ctf"), "J1_particles.cs")
    cs(tmp_path, other, "J1_passthrough_particles.cs")
    expected = (
        "2 of 6 particles are not in it, the first in row 0 .* 0 uids"
        if fault == "missing"
        else "0 of 6 .* 1 uids"
    )
    with pytest.raises(InputError, match=expected):
        particles_from_cs(path)


def test_a_field_that_is_nowhere_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no field blob/path \(it has uid, ctf/.*passthrough"):
        particles_from_cs(cs(tmp_path, drop(particles(), "blob", "alignments3D")))


def test_ab_initio_files_are_refused_unless_asked_for(tmp_path: Path) -> None:
    fields = BLOB + CTF + alignment("alignments_class_0") + alignment("alignments_class_1")
    path = cs(tmp_path, particles(6, fields))
    with pytest.raises(InputError, match=r"poses by class \(0, 1\).*--class N"):
        particles_from_cs(path)
    assert not particles_from_cs(path, poses=False).has_pose
    first, second = (particles_from_cs(path, class_index=i) for i in (0, 1))
    assert first.has_pose and second.has_pose
    assert not np.array_equal(first.rows["rotation"], second.rows["rotation"])
    with pytest.raises(InputError, match="choose a class it has"):
        particles_from_cs(path, class_index=2)


def test_files_without_poses_or_phase_shift_say_so(tmp_path: Path) -> None:
    array = drop(particles(), "alignments3D", "ctf/phase")
    table = particles_from_cs(cs(tmp_path, array))
    assert not table.has_pose and table.has_ctf and (table.rows["phase_shift_deg"] == 0).all()
    assert [("no poses" in n, "phase_shift" in n) for n in table.notes] == [(0, 1), (1, 0)]
    table = particles_from_cs(cs(tmp_path, drop(particles(), "ctf")))
    assert not table.has_ctf and any("no CTF" in note for note in table.notes)


def test_shifts_without_their_pixel_size_use_that_of_the_images_and_say_so(tmp_path: Path) -> None:
    array = drop(particles(), "alignments3D/psize")
    table = particles_from_cs(cs(tmp_path, array))
    np.testing.assert_allclose(table.rows["shift_ang"], array["alignments3D/shift"] * 2, rtol=1e-6)
    assert any("alignments3D/psize_A is missing" in note for note in table.notes)


def test_bad_values_are_named_by_row(tmp_path: Path) -> None:
    for field, value, message in (
        ("alignments3D/pose", np.nan, r"row 3 \(0-based\) has a pose that is not a number"),
        ("alignments3D/psize_A", 0, "row 3 .*alignments3D/psize_A 0"),
        ("blob/psize_A", -1, "row 3 .*blob/psize_A -1"),
        ("blob/shape", 32, r"row 3 .*blob/shape \[32, 32\], row 0 has \[64, 64\]"),
    ):
        array = particles()
        array[field][3] = value
        with pytest.raises(InputError, match=message):
            particles_from_cs(cs(tmp_path, array))


def test_mixed_signs_are_told(tmp_path: Path) -> None:
    array = particles()
    array["blob/sign"][0] = 1
    table = particles_from_cs(cs(tmp_path, array))
    assert table.blob_sign is None and any("blob/sign is mixed" in note for note in table.notes)


def test_an_alignment_keeps_pixels_for_those_who_scale_themselves(tmp_path: Path) -> None:
    array = particles()
    found = read_alignment(CsColumns(cs(tmp_path, array)))
    assert found is not None and found.psize_ang is not None
    assert np.array_equal(found.shift_px, array["alignments3D/shift"])
    assert (found.psize_ang == 3.0).all()
