"""Folders of cryoSPARC jobs: whichever file is given, every particle has its own pose and image."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from frazil.errors import FrazilError, InputError, MissingFileError
from frazil.io.cryosparc import particles_from_cs, write_cs
from frazil.io.cryosparc_groups import find_cs_files, read_csg
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from tests.io import cs_jobs

Array = np.ndarray[Any, Any]


def assert_same_particles(table: ParticleTable, truth: Array, poses: bool = True) -> None:
    """Check every particle of the table against the truth, by uid."""
    order = np.argsort(truth["uid"])
    where = order[np.searchsorted(truth["uid"], table.rows["uid"], sorter=order)]
    truth, rows = truth[where], table.rows
    assert np.array_equal(rows["uid"], truth["uid"]) and len(np.unique(where)) == len(truth)
    stacks = [Path(table.sources[number]).name.encode() for number in rows["source"]]
    assert stacks == [path.split(b"/")[-1] for path in truth["blob/path"]]
    assert np.array_equal(rows["index"], truth["blob/idx"])
    np.testing.assert_array_equal(rows["defocus_u_ang"], truth["ctf/df1_A"])
    np.testing.assert_allclose(
        rows["astigmatism_deg"], np.rad2deg(truth["ctf/df_angle_rad"]), rtol=1e-6
    )
    assert (rows["pixel_size_ang"] == 2).all() and table.blob_sign == -1 and table.box_px == 16
    groups = [int(table.optics_groups[number]) for number in rows["optics_group"]]
    assert groups == truth["ctf/exp_group_id"].tolist()
    assert table.has_pose == poses
    if poses:
        matrix = Rotation.from_rotvec(truth["alignments3D/pose"]).as_matrix().transpose(0, 2, 1)
        np.testing.assert_allclose(rows["rotation"], matrix, atol=1e-6)
        # Pixels of alignments3D/psize_A (3 A/px), not of the images (2 A/px).
        np.testing.assert_allclose(rows["shift_ang"], truth["alignments3D/shift"] * 3, rtol=1e-6)
        assert np.array_equal(rows["half_set"], truth["alignments3D/split"] + 1)


def csg_of(folder: Path, class_index: int | None) -> Path:
    """Return the .csg of a job's class, or its only one."""
    number = "" if class_index is None else f"class_{class_index}"
    return next(path for path in sorted(folder.glob("*.csg")) if number in path.name)


@pytest.mark.parametrize("job", cs_jobs.JOBS_3D)
@pytest.mark.parametrize("way", ["folder", "folder-without-csg", "csg", "cs"])
def test_a_job_gives_every_particle_its_own_fields(tmp_path: Path, job: str, way: str) -> None:
    write, class_index = cs_jobs.JOBS_3D[job]
    folder = tmp_path / "P1" / "J24"
    truth = write(folder)
    path = folder
    if way == "csg":
        path = csg_of(folder, class_index)
    elif way == "cs":
        path = find_cs_files(folder, class_index).main
    elif way == "folder-without-csg":
        for group in folder.glob("*.csg"):
            group.unlink()
    chosen = class_index if way != "cs" or job == "ab-initio" else None
    table = particles_from_cs(path, class_index=chosen)
    assert_same_particles(table, truth)
    assert table.origin == str(path)


@pytest.mark.parametrize("job", cs_jobs.JOBS_2D)
def test_2d_jobs_have_no_poses_and_say_why(tmp_path: Path, job: str) -> None:
    truth = cs_jobs.JOBS_2D[job](tmp_path / "J24")
    table = open_particles(tmp_path / "J24")
    assert_same_particles(table, truth, poses=False)
    assert any("2D alignments only (alignments2D)" in note for note in table.notes)


def test_the_last_iteration_is_taken(tmp_path: Path) -> None:
    cs_jobs.refinement(tmp_path / "J24")
    for path in (tmp_path / "J24").glob("*.csg"):
        path.unlink()
    found = find_cs_files(tmp_path / "J24")
    assert found.main.name == "J24_005_particles.cs" and "last of 6 iterations" in found.lines[0]
    early = particles_from_cs(tmp_path / "J24" / "J24_004_particles.cs")  # positive control
    assert (early.rows["shift_ang"] == -27).all()


@pytest.mark.parametrize("csg", [True, False])
@pytest.mark.parametrize("job", ["heterogeneous", "ab-initio"])
def test_several_classes_are_refused_with_their_names(tmp_path: Path, job: str, csg: bool) -> None:
    cs_jobs.JOBS_3D[job][0](tmp_path / "J24")
    for path in () if csg else (tmp_path / "J24").glob("*.csg"):
        path.unlink()
    with pytest.raises(InputError, match=r"sets of particles \(.*class_0?1.*--class N"):
        particles_from_cs(tmp_path / "J24")
    with pytest.raises(InputError, match=r"sets of particles \("):
        particles_from_cs(tmp_path / "J24", class_index=7)


def test_poses_of_all_classes_are_chosen_by_class(tmp_path: Path) -> None:
    cs_jobs.heterogeneous(tmp_path / "J24")
    path = tmp_path / "J24" / "J24_00062_particles.cs"
    with pytest.raises(
        InputError, match=r"poses by class \(0, 1, 2\), none common to all.*--class"
    ):
        particles_from_cs(path)
    truth = np.load(path)
    for number in range(3):
        rows = particles_from_cs(path, class_index=number).rows
        shift = truth["alignments3D_multi/shift"][:, number] * 3
        np.testing.assert_allclose(rows["shift_ang"], shift, rtol=1e-6)
    with pytest.raises(InputError, match="no poses of that class"):
        particles_from_cs(path, class_index=3)


def test_a_class_of_a_file_without_classes_is_refused(tmp_path: Path) -> None:
    cs_jobs.imported(tmp_path / "J24")
    with pytest.raises(InputError, match="leave --class out"):
        particles_from_cs(tmp_path / "J24", class_index=0)


def test_a_header_of_100_classes_is_beyond_numpys_limit_and_read(tmp_path: Path) -> None:
    cs_jobs.classification3d(tmp_path / "J24")
    path = tmp_path / "J24" / "J24_00012_particles.cs"
    with pytest.raises(ValueError, match="max_header_size"):  # positive control
        np.load(path)
    assert len(particles_from_cs(path)) == 12


def test_what_each_field_came_from_and_the_sum_of_a_shift_are_told(tmp_path: Path) -> None:
    truth = cs_jobs.local(tmp_path / "J24")
    lines = "\n".join(particles_from_cs(tmp_path / "J24").provenance)
    assert "images: blob/path, blob/idx" in lines
    assert "blob/sign of J24_passthrough_particles.cs" in lines
    assert "poses: alignments3D/pose, alignments3D/shift" in lines
    assert "12 rows, 12 particles joined on uid, which is in another order there" in lines
    x, y = truth["alignments3D/shift"][0].tolist()
    assert (
        f"row 0 (0-based): shift ({x:.6g}, {y:.6g}) px x 3 A/px (alignments3D/psize_A) = (" in lines
    )
    assert f"= ({3 * x:.6g}, " in lines


def test_rows_of_other_particles_in_a_passthrough_are_counted(tmp_path: Path) -> None:
    truth = cs_jobs.local(tmp_path / "J24")
    path = tmp_path / "J24" / "J24_005_particles.cs"
    write_cs(path, np.load(path)[3:])
    (tmp_path / "J24" / "J24_particles.csg").unlink()
    table = particles_from_cs(tmp_path / "J24")
    assert_same_particles(table, truth[3:])
    assert any("3 rows belong to other particles" in line for line in table.provenance)


def test_higher_order_ctf_terms_are_told_and_not_applied(tmp_path: Path) -> None:
    cs_jobs.imported(tmp_path / "J24")
    path = tmp_path / "J24" / "imported_particles.cs"
    assert particles_from_cs(path).notes == ()  # positive control
    array = np.load(path)
    array["ctf/tilt_A"][2:5] = 0.1
    array["ctf/anisomag"][1, 3] = 0.01
    write_cs(path, array)
    (note,) = particles_from_cs(path).notes
    assert "not zero, and not applied: ctf/tilt_A (3 rows), ctf/anisomag (1 rows)" in note


def test_a_csg_says_which_file_a_field_is_in(tmp_path: Path) -> None:
    """Both files have CTF parameters; those that the .csg names are the ones of the result."""
    truth = cs_jobs.imported(tmp_path)
    other = truth.copy()
    other["ctf/df1_A"] *= 2
    write_cs(tmp_path / "refined_ctf.cs", cs_jobs.shuffled(cs_jobs.fields_of(other, "ctf")))
    main = tmp_path / "imported_particles.cs"
    files = {"blob": main, "alignments3D": main, "ctf": tmp_path / "refined_ctf.cs"}
    path = cs_jobs.write_csg(tmp_path / "J9_particles.csg", files)
    assert_same_particles(particles_from_cs(path), other)
    assert_same_particles(particles_from_cs(main), truth)  # positive control


def test_an_exported_group_is_read_beside_its_csg(tmp_path: Path) -> None:
    truth = cs_jobs.imported(tmp_path / "J24")
    folder = tmp_path / "exports" / "groups" / "J24_particles"
    folder.mkdir(parents=True)
    (tmp_path / "J24" / "imported_particles.cs").rename(folder / "J24_particles_exported.cs")
    files = dict.fromkeys(("blob", "ctf", "alignments3D"), folder / "J24_particles_exported.cs")
    path = cs_jobs.write_csg(folder / "J24_particles_exported.csg", files)
    for source in (path, folder):
        assert_same_particles(particles_from_cs(source), truth)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("metafile: '>imported", "metafile: '>gone", "is not there; tried"),
        ("type: particle\n", "type: exposure\n", "items of type exposure, no particles"),
        ("results:", "results", r"line 8 is not 'key: value'"),
        ("metafile: '>imported", "metafile: >imported", "put it in quotes"),
        ("  ctf:\n", "  blob:\n", "repeats the key blob"),
        ("results:", "nothing:", "names no metafile"),
        ("num_items: 12", "num_items: 13", "has 12 rows, but the .csg .* says 13 items"),
        ("metafile: '>imported", "metafile: !!python/object '>imported", "put it in quotes"),
    ],
)
def test_a_csg_that_cannot_be_trusted_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    cs_jobs.imported(tmp_path)
    path = tmp_path / "J24_imported_particles.csg"
    assert len(particles_from_cs(path)) == 12  # positive control
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises((InputError, MissingFileError), match=said):
        particles_from_cs(path)


def test_a_csg_may_name_files_relative_to_the_project(tmp_path: Path) -> None:
    cs_jobs.imported(tmp_path / "J24")
    path = tmp_path / "J24" / "J24_imported_particles.csg"
    path.write_text(path.read_text().replace("'>", "'J24/"))
    assert len(particles_from_cs(path)) == 12
    group = read_csg(path)
    assert (group.name, group.kind) == ("imported_particles", "particle")


def test_groups_of_other_things_and_without_results_are_passed_over(tmp_path: Path) -> None:
    truth = cs_jobs.refinement(tmp_path / "J24")
    text = (tmp_path / "J24" / "J24_particles.csg").read_text()
    volume = text.replace("type: particle\n", "type: volume\n")
    (tmp_path / "J24" / "J24_volume.csg").write_text(volume)
    empty = text.partition("results:")[0] + "results: {}\nversion: v4.4.1\n"
    (tmp_path / "J24" / "J24_particles_again.csg").write_text(empty)
    assert_same_particles(particles_from_cs(tmp_path / "J24"), truth)
    with pytest.raises(InputError, match="names no metafile"):
        particles_from_cs(tmp_path / "J24" / "J24_particles_again.csg")


def test_a_folder_without_particles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="folder of a cryoSPARC job, are wanted"):
        open_particles(tmp_path)
    write_cs(tmp_path / "J3_volume.cs", np.zeros(1, [("uid", "<u8")]))
    with pytest.raises(InputError, match="no particles"):
        open_particles(tmp_path)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to eight changed, put in, taken out or cut off."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 9)):
        place = rng.randrange(min(len(out), 1200) if rng.random() < 0.8 else len(out))
        kind = rng.random()
        if kind < 0.6:
            out[place] = rng.choice([rng.randrange(256), *b"0123456789'()[]{}<>,:| \n"])
        elif kind < 0.8:
            out[place:place] = rng.randbytes(rng.randrange(1, 6))
        elif kind < 0.97:
            del out[place : place + rng.randrange(1, 9)]
        else:
            del out[max(1, place) :]
    return bytes(out)


@pytest.mark.parametrize("name", ["J24_particles.csg", "J24_005_particles.cs"])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    cs_jobs.local(tmp_path)
    path, rng = tmp_path / name, random.Random(name)
    whole, outcomes = path.read_bytes(), {"read": 0, "refused": 0}
    for _ in range(400):
        path.write_bytes(mutated(whole, rng))
        try:
            table = particles_from_cs(path)
        except FrazilError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error)
            outcomes["refused"] += 1
        else:
            assert len(table) <= 12
            outcomes["read"] += 1
    assert min(outcomes.values()) > 10


def test_a_header_of_python_2_is_read(tmp_path: Path) -> None:
    cs_jobs.imported(tmp_path)
    path = tmp_path / "imported_particles.cs"
    raw = path.read_bytes()
    assert raw.count(b"(12,), }") == 1
    path.write_bytes(raw.replace(b"(12,), } ", b"(12L,), }"))
    assert len(particles_from_cs(path)) == 12


def test_fields_of_another_type_are_refused(tmp_path: Path) -> None:
    truth = cs_jobs.imported(tmp_path)
    path = tmp_path / "imported_particles.cs"
    for field, kind in (("alignments3D/pose", "S4"), ("blob/path", "<u4"), ("uid", "<u8,<u8")):
        dtype = [(n, kind if n == field else truth.dtype[n]) for n in truth.dtype.names]
        write_cs(path, np.zeros(12, dtype))
        with pytest.raises(InputError, match=f"{field} holds"):
            particles_from_cs(path)
