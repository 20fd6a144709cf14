"""Real files of others, read as cryoDRGN 4.3.1 reads them (its own test goldens)."""

import json
from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.images import open_images, open_particles
from frazil.io.pickles import read_ctf, read_indices, read_poses
from frazil.io.star import copy_rows, particles_from_star


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Path:
    return shared_data / "real"


def test_cryosparc_poses_and_ctf(real: Path) -> None:
    table = open_particles(real / "cryosparc_P12_J24_001_particles.cs")
    rotation, shift = read_poses(real / "pose.cs.pkl", 2019)
    ctf = read_ctf(real / "ctf2.pkl", 2019)
    assert table.box_px == 180 and table.blob_sign == -1
    np.testing.assert_allclose(table.rows["rotation"], rotation, atol=1e-6)
    box_ang = table.rows["pixel_size_ang"][:, None] * 180
    assert shift is not None
    np.testing.assert_allclose(table.rows["shift_ang"] / box_ang, shift, atol=1e-7)
    np.testing.assert_allclose(table.ctf_array(), ctf[:, 1:], rtol=1e-6)
    assert (ctf[:, 0] == 180).all()
    joined = table.with_poses(rotation, shift).with_ctf(ctf)
    np.testing.assert_allclose(joined.rows["shift_ang"], table.rows["shift_ang"], rtol=1e-5)


def test_relion_30_poses_and_ctf(real: Path) -> None:
    table = particles_from_star(real / "FinalRefinement-OriginalParticles-PfCRT.star")
    rotation, shift = read_poses(real / "pose.star.pkl", 5)
    ctf = read_ctf(real / "ctf1.pkl", 5)  # made with -D 300 --Apix 1.035 -w 0.1
    np.testing.assert_allclose(table.rows["pixel_size_ang"], 1.035, rtol=1e-9)
    np.testing.assert_allclose(table.rows["rotation"], rotation, atol=1e-6)
    assert shift is not None
    np.testing.assert_allclose(table.rows["shift_ang"] / (300 * 1.035), shift, atol=1e-7)
    assert table.missing_ctf_columns == ("amplitude_contrast",)
    table.rows["amplitude_contrast"] = 0.1
    np.testing.assert_allclose(table.ctf_array(), ctf[:, 1:], rtol=1e-6)
    assert table.rows["half_set"].tolist()[:2] == [2, 1]


def test_the_ribosome_images_have_the_same_metadata_from_star_and_cs(real: Path) -> None:
    star, cs = (open_particles(real / f"empiar_10076_7.{kind}") for kind in ("star", "cs"))
    assert star.box_px == cs.box_px == 320
    np.testing.assert_allclose(star.rows["pixel_size_ang"], 1.31, atol=1e-4)
    np.testing.assert_allclose(star.ctf_array(), cs.ctf_array(), rtol=1e-5)
    images = open_images(star).read([6, 0, 3])
    assert images.shape == (3, 320, 320) and np.isfinite(images).all()
    assert np.array_equal(open_images(cs).read([6, 0, 3]), images)


def test_relion_31_and_5(real: Path) -> None:
    table = open_particles(real / "relion31.star")
    assert (len(table), table.box_px, table.optics_groups) == (5, 256, ("opticsGroup1",))
    assert table.has_pose and table.has_shift and table.has_ctf
    np.testing.assert_allclose(table.rows["pixel_size_ang"], 2.806)
    np.testing.assert_allclose(table.rows["shift_ang"][0], [0.019324, -0.64686], rtol=1e-6)
    assert open_images(table).read([4]).shape == (1, 256, 256)
    table = open_particles(real / "relion5.star")
    assert (len(table), table.box_px) == (17, 448) and table.has_ctf and table.has_pose
    assert (table.rows["voltage_kv"] == 100).all()


def test_subtomograms_keep_their_grouping(real: Path) -> None:
    table = open_particles(real / "sta_testing_bin8.star")
    rotation, _ = read_poses(real / "sta_pose.pkl", 219)
    np.testing.assert_allclose(table.rows["rotation"], rotation, atol=1e-6)
    # cryoDRGN wrote uninitialised memory as shifts here; there are none in the file.
    assert len(table) == 219 and not table.has_shift
    ctf = read_ctf(real / "sta_ctf.pkl", 219)
    np.testing.assert_allclose(table.ctf_array()[:, 1:], ctf[:, 2:], rtol=1e-6)
    assert len(table.groups) == len(set(table.rows["group"].tolist())) == 6
    assert (np.diff(table.rows["group"]) >= 0).all()
    assert open_images(table).read(np.arange(219)).shape == (219, 64, 64)


def test_toy_projections_agree_from_star_list_and_stack(real: Path) -> None:
    stack = open_images(open_particles(real / "toy_projections.mrcs"))
    star = open_images(open_particles(real / "toy_projections.star"))
    twice = open_images(open_particles(real / "toy_projections_2.txt"))
    rows = np.array([999, 0, 500, 500])
    assert (stack.count, star.count, twice.count) == (1000, 1000, 2000)
    assert np.array_equal(stack.read(rows), star.read(rows))
    assert np.array_equal(stack.read(rows), twice.read(rows + 1000))
    subset = open_particles(real / "toy_projections_13.star")  # says 300 px, the images have 30
    indices = [92, 31, 3, 4, 522, 555, 229, 874, 684, 320, 597, 154, 320]
    assert subset.rows["index"].tolist() == indices
    found = open_images(subset, any_box=True).read(np.arange(13))
    assert np.array_equal(found, stack.read(indices))
    assert (subset.rows["cs_mm"] == np.float32(0.001)).all()  # the particle's, not its group's


def test_other_pickles(real: Path) -> None:
    assert read_poses(real / "hand_rot.pkl", 100)[1] is None
    assert read_poses(real / "toy_rot_trans.pkl", 1000)[1] is not None
    assert read_ctf(real / "test_ctf.pkl").shape == (1000, 9)
    assert len(read_indices(real / "ind100.pkl")) == 100


@pytest.mark.parametrize("name", ["relion31.star", "relion5.star", "sta_testing_bin8.star"])
def test_copying_all_rows_of_a_real_file_changes_no_byte(
    real: Path, tmp_path: Path, name: str
) -> None:
    count = len(open_particles(real / name))
    copy_rows(real / name, tmp_path / name, np.arange(count))
    assert (tmp_path / name).read_bytes().strip() == (real / name).read_bytes().strip()


PARTICLES = {
    "FinalRefinement-OriginalParticles-PfCRT.star": 5,
    "ay19102021_L3_position6_ribo_it09_bin8_1.82A.mrcs": 220,
    "cryosparc_P12_J24_001_particles.cs": 2019,
    "empiar_10076_7.cs": 7,
    "empiar_10076_7.mrc": 7,
    "empiar_10076_7.star": 7,
    "hand.mrcs": 100,
    "relion31.mrcs": 5,
    "relion31.star": 5,
    "relion5.star": 17,
    "sta_testing_bin8.star": 219,
    "toy_projections.mrcs": 1000,
    "toy_projections.star": 1000,
    "toy_projections_13.star": 13,
    "toy_projections_2.txt": 2000,
}


def test_every_real_file_is_described(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = sorted(path for path in real.iterdir() if path.is_file())
    assert set(PARTICLES) < {path.name for path in paths}
    assert main(["info", "--json", *map(str, paths)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [Path(fact["path"]).name for fact in facts] == [path.name for path in paths]
    assert all(len(fact) > 3 for fact in facts)


@pytest.mark.parametrize("name", PARTICLES)
def test_every_real_particle_file_is_imported(real: Path, name: str) -> None:
    table = open_particles(real / name)
    assert len(table) == PARTICLES[name]
    assert (table.rows["index"] >= 0).all() and (table.rows["source"] >= 0).all()
    if all(Path(stack).is_file() for stack in table.sources):
        images = open_images(table, any_box=True).read([0, len(table) - 1])
        assert np.isfinite(images).all() and images.std() > 0
