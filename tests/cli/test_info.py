"""frazil info: what it says of each kind of file is what was put into it."""

import json
from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.atomic import write_npy_atomic
from frazil.io.cryosparc import write_cs
from frazil.io.mrc import StackWriter, write_volume
from frazil.io.pickles import write_pickle
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from tests.analysis.tiny_run import make_run
from tests.store.made import make_particles

STAR = """data_optics

loop_
_rlnOpticsGroup
_rlnOpticsGroupName
_rlnImagePixelSize
_rlnImageSize
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
1 first 1.5 16 300 2.7 0.1
2 second 1.6 16 300 2.7 0.1

data_particles

loop_
_rlnImageName
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginXAngst
_rlnOriginYAngst
_rlnOpticsGroup
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnRandomSubset
_rlnGroupName
1@here.mrcs 10 20 30 3 4 1 15000 14000 0 1 g1
2@here.mrcs 10 20 30 0 0 2 25000 24900 0 2 g1
2@here.mrcs 10 20 30 0 0 1 25000 24900 0 2 g1
1@gone.mrcs 10 20 30 0 0 1 15000 14000 0 1 g2
"""


def write_stack(path: Path, count: int = 3, side: int = 16) -> Path:
    images = np.random.default_rng(0).standard_normal((count, side, side)).astype(np.float32)
    with StackWriter(path, (side, side), count, 1.5) as writer:
        writer.write(images)
    return path


def shown(capsys: pytest.CaptureFixture[str], *paths: Path) -> str:
    assert main(["info", *map(str, paths)]) == 0
    return capsys.readouterr().out


def facts(capsys: pytest.CaptureFixture[str], path: Path) -> dict:
    assert main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def star(tmp_path: Path) -> Path:
    write_stack(tmp_path / "here.mrcs")
    path = tmp_path / "p.star"
    path.write_text(STAR)
    return path


def test_a_star_file_tells_its_particles_stacks_optics_and_repeats(star, capsys):
    found = facts(capsys, star)
    assert found["kind"] == "particles (RELION 3.1 or later)"
    assert found["particles"] == 4
    assert found["stacks"] == {"used": 2, "missing": 1}
    assert found["stored_images"]["images"] == 3
    assert found["box_px"] == 16
    assert found["pixel_size_ang"] == [1.5, 1.6]
    assert found["poses"] == 4
    assert found["shifts_ang"] == [2.5, 5.0]
    assert found["defocus_um"] == pytest.approx([1.45, 2.495])
    assert found["astigmatism_ang"] == [100, 1000]
    assert found["optics_groups"] == {"first": 3, "second": 1}
    assert found["half-sets"] == {"1": 2, "2": 2}
    assert found["groups"] == {"count": 2, "smallest": 1, "largest": 3}
    assert found["duplicates"] == {"images": 1, "uids": 0}
    assert any("gone.mrcs" in note for note in found["notes"])


def test_lines_are_aligned_have_units_and_fit_a_screen(star, capsys):
    lines = shown(capsys, star).splitlines()
    assert lines[0] == f"{star}: particles (RELION 3.1 or later)"
    values = {line[2:20].strip(): line[22:] for line in lines[1:]}
    assert values["stacks"] == "2, 1 missing"
    assert values["shifts"] == "RMS 2.5 A, largest 5 A"
    assert values["voltage"] == "300 kV"
    assert len(lines) < 30


def test_stacks_of_another_box_and_cut_stacks_are_noted(star, capsys):
    write_stack(star.parent / "gone.mrcs", side=12)
    here = star.parent / "here.mrcs"
    here.write_bytes(here.read_bytes()[:-10])
    out = shown(capsys, star)
    assert "16 px" in out
    assert "or 16 px, float32" in out
    assert f"cut short: {here}: 2 of 3 images are whole" in out


def test_a_cs_file_tells_its_sign_and_that_ab_initio_poses_were_not_read(tmp_path, capsys):
    fields = [("uid", "u8"), ("blob/path", "S9"), ("blob/idx", "u4"), ("blob/shape", "u4", 2)]
    fields += [("blob/psize_A", "f4"), ("blob/sign", "f4"), ("alignments_class_0/pose", "f4", 3)]
    fields += [("alignments_class_1/pose", "f4", 3)]
    array = np.zeros(2, np.dtype(fields))
    array["uid"], array["blob/path"], array["blob/shape"] = 5, b"here.mrcs", 16
    array["blob/psize_A"], array["blob/sign"] = 1.25, -1
    write_cs(tmp_path / "p.cs", array)
    found = facts(capsys, tmp_path / "p.cs")
    assert found["blob_sign"] == -1
    assert found["pixel_size_ang"] == [1.25]
    assert found["poses"] == 0
    assert found["duplicates"] == {"images": 1, "uids": 1}
    assert any("--class N" in note for note in found["notes"])


def test_a_list_counts_the_images_of_all_its_stacks(tmp_path, capsys):
    write_stack(tmp_path / "a.mrcs")
    write_stack(tmp_path / "b.mrcs", 4)
    (tmp_path / "s.txt").write_text("a.mrcs\nb.mrcs\n")
    found = facts(capsys, tmp_path / "s.txt")
    assert (found["kind"], found["particles"], found["CTF"]) == ("list of stacks", 7, 0)


def test_a_volume_and_a_stack_tell_size_scale_and_grey_values(tmp_path, capsys):
    volume = np.linspace(-1, 3, 8**3, dtype=np.float32).reshape(8, 8, 8)
    write_volume(tmp_path / "map.mrc", volume, 2.5)
    found = facts(capsys, tmp_path / "map.mrc")
    assert found["kind"] == "volume (MRC)"
    assert (found["size"], found["pixel_size_ang"], found["values"]) == ([8, 8, 8], 2.5, 2)
    assert found["grey_values"][:3] == pytest.approx([-1, 3, 1], abs=1e-6)
    stack = write_stack(tmp_path / "s.mrcs")
    assert "images       3 of 16 x 16 px" in shown(capsys, stack)
    assert facts(capsys, stack)["on_disk_bytes"] == stack.stat().st_size


def test_values_that_are_not_finite_are_counted(tmp_path, capsys):
    images = np.ones((2, 8, 8), np.float32)
    images[1, 0, :3] = np.nan
    with StackWriter(tmp_path / "s.mrcs", (8, 8), 2, 1.0) as writer:
        writer.write(images)
    assert "3 values of 2 sections are not finite numbers" in shown(capsys, tmp_path / "s.mrcs")


def test_pickles_tell_shapes_ranges_and_whether_matrices_are_rotations(tmp_path, capsys):
    rotation = np.stack([np.eye(3), np.diag([1.0, 1.0, -1.01])])
    write_pickle(tmp_path / "pose.pkl", (rotation, np.array([[0.1, -0.2], [0, 0.05]])))
    found = facts(capsys, tmp_path / "pose.pkl")
    assert found["particles"] == 2
    assert found["orthogonality"]["error"] == pytest.approx(1.01**2 - 1)
    assert found["orthogonality"]["mirrored"] == 1
    assert found["shift_range_fraction"] == [-0.2, 0.1]
    ctf = np.array([[64, 1.5, 1e4, 9e3, 0, 300, 2.7, 0.1, 0]] * 2, np.float32)
    ctf[1, 2] = np.nan
    write_pickle(tmp_path / "ctf.pkl", ctf)
    out = shown(capsys, tmp_path / "ctf.pkl")
    assert "voltage             300 kV" in out
    assert "1 rows are not finite numbers, the first is row 1 (0-based)" in out
    write_pickle(tmp_path / "ind.pkl", np.array([7, 2, 2]))
    found = facts(capsys, tmp_path / "ind.pkl")
    assert (found["rows"], found["range"]) == (3, [2, 7])
    assert (found["ascending"], found["repeats"]) == (False, 1)


def test_an_npy_of_latents_tells_its_shape(tmp_path, capsys):
    write_npy_atomic(tmp_path / "z.npy", np.ones((5, 3), np.float32))
    assert facts(capsys, tmp_path / "z.npy")["array_0"] == [5, 3]


@pytest.mark.parametrize("shape", [(), (0, 3), (0, 3, 3), (0, 9), (0,)])
@pytest.mark.parametrize("kind", ["f4", "i8", "U1", "c8", "?"])
def test_arrays_without_rows_and_of_other_types_are_described(tmp_path, capsys, shape, kind):
    write_npy_atomic(tmp_path / "z.npy", np.zeros(shape, kind))
    assert facts(capsys, tmp_path / "z.npy")


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 9)])
def test_text_of_the_shape_of_poses_or_ctf_is_described_as_an_array(tmp_path, capsys, shape):
    write_npy_atomic(tmp_path / "z.npy", np.full(shape, "x"))
    assert facts(capsys, tmp_path / "z.npy")["array_0"] == list(shape)


def test_rows_past_the_end_of_their_stack_are_noted(star, capsys):
    assert "wants image" not in shown(capsys, star)
    star.write_text(star.read_text().replace("1@", "99@", 1))
    assert "row 0 (0-based) wants image 98 (0-based) of a stack of" in shown(capsys, star)


def test_a_store_tells_its_manifest(tmp_path, capsys):
    settings = PackSettings(box_px=8, max_threads=1)
    store = pack(make_particles(tmp_path, 12, 16), tmp_path / "X.frz", settings)
    found = facts(capsys, store.path)
    assert found["particles"] == 12
    assert (found["packed_box_px"], found["source_box_px"]) == (8, 16)
    assert found["packed_pixel_size_ang"] == pytest.approx(3.0)
    assert found["precision"]["kind"] == "int8"
    assert 0 < found["precision"]["worst_error"] < 0.01
    assert found["intensity"] == pytest.approx(store.rms())
    assert found["on_disk_bytes"] == sum(
        f.stat().st_size for f in store.path.rglob("*") if f.is_file()
    )
    assert (found["poses"], found["CTF"], found["rows"]) == (12, 12, 12)
    assert "all there, unchanged" in shown(capsys, store.path)
    Path(store.manifest.sources[0].path).write_bytes(b"other")
    assert "0 gone, 1 changed since" in shown(capsys, store.path)


def test_a_run_tells_its_model_and_epochs(tmp_path, capsys):
    run = make_run(tmp_path)
    found = facts(capsys, run)
    assert found["kind"].startswith("run of frazil train_vae")
    assert found["model"]["zdim"] == 3
    assert found["epochs"] == [1, 2]
    assert found["box_px"] == 16


def test_several_paths_are_described_in_order(star, tmp_path, capsys):
    here = tmp_path / "here.mrcs"
    out = shown(capsys, here, star)
    assert 0 == out.index(str(here)) < out.index(f"\n\n{star}: ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.star", "nothing.star: no such file or folder"),
        ("empty", "empty: this folder is no particle store, no run, no cryoSPARC job"),
        ("readme.md", "readme.md: info knows .star"),
        ("bad.npy", "bad.npy: not a plain .npy file"),
        ("bad.mrc", "bad.mrc: 1 bytes, shorter than an MRC header"),
        ("X.frz", "X.frz: packing was not finished"),
        (".", ".: this folder is no particle store, no run, no cryoSPARC job"),
    ],
)
def test_what_cannot_be_described_is_one_line(tmp_path, monkeypatch, capsys, name, said):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "X.frz.partial"):
        (tmp_path / folder).mkdir()
    for file in ("readme.md", "bad.npy", "bad.mrc"):
        (tmp_path / file).write_bytes(b"x")
    assert main(["info", name]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
