"""frazil preflight, and its place in other commands."""

import shutil
from pathlib import Path

import pytest

from frazil.cli.main import main
from frazil.io.pickles import read_poses, write_pickle
from frazil.store.reader import ParticleStore
from tests.engines.preflight_case import simulated_store


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a simulated set with particles.frz."""
    folder = tmp_path_factory.mktemp("preflight") / "set"
    simulated_store(folder, num=300, box_px=32, snr=1.0, motion="none", sigma_ang=5.0)
    return folder


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "set"))


def test_correct_data_look_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", str(folder / "particles.frz"), "--strict"]) == 0
    assert "preflight: looks right (300 particles at 32 px" in capsys.readouterr().out


def test_a_mistake_in_pickles_is_named_with_its_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rotation, shift = read_poses(folder / "poses.pkl", 300)
    write_pickle(folder / "wrong.pkl", (rotation.transpose(0, 2, 1).copy(), shift))
    store = str(folder / "bare.frz")  # without poses that would show the mistake at once
    assert main(["preprocess", str(folder / "particles.mrcs"), "-o", store]) == 0
    pickles = ["--poses", str(folder / "wrong.pkl"), "--ctf", str(folder / "ctf.pkl")]
    command = ["preflight", store, *pickles]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "preflight: likely mistake" in said
    assert "mistake: rotations fit when transposed (held-out" in said
    assert "--poses" in said
    assert main([*command, "--strict"]) == 2
    error = capsys.readouterr().err
    assert "rotations transposed; mend it" in error
    assert len(error.strip().splitlines()) == 1


def test_no_poses_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack, store = folder / "particles.mrcs", folder / "bare.frz"
    assert main(["preprocess", str(stack), "-o", str(store)]) == 0
    assert "preflight:" not in capsys.readouterr().out
    assert not (store / "preflight.json").exists()
    assert main(["preflight", str(store)]) == 2
    assert "give --poses" in capsys.readouterr().err
    with_poses = ["--poses", str(folder / "poses.pkl"), "--ctf", str(folder / "ctf.pkl")]
    assert main(["preflight", str(store), *with_poses]) == 0
    assert "looks right" in capsys.readouterr().out


def test_packing_checks_and_the_next_command_shows_what_was_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = folder / "again.frz"
    assert main(["preprocess", str(folder / "particles.star"), "-o", str(store)]) == 0
    assert "preflight: looks right" in capsys.readouterr().out
    assert (store / "preflight.png").is_file()
    assert main(["verify", str(store)]) == 0
    time_ns = (store / "preflight.json").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["backproject_voxel", str(store), "-o", str(folder / "map")]) == 0
    assert "preflight: looks right" in capsys.readouterr().out
    assert (store / "preflight.json").stat().st_mtime_ns == time_ns


def test_no_preflight_leaves_it_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = folder / "again.frz"
    command = ["preprocess", str(folder / "particles.star"), "-o", str(store), "--no-preflight"]
    assert main(command) == 0
    assert main(["backproject_voxel", str(store), "-o", str(folder / "m"), "--no-preflight"]) == 0
    assert "preflight:" not in capsys.readouterr().out
    assert not (store / "preflight.json").exists()
    assert ParticleStore.open(store).count == 300


@pytest.mark.parametrize("command", ["train_vae", "train_pca"])
def test_training_begins_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    small = ["-n", "1", "--enc-dim", "8", "--dec-dim", "8", "--no-analysis"]
    fit = ["--low-iterations", "1", "--low-radius", "4"]
    extra = small if command == "train_vae" else fit
    store = str(folder / "particles.frz")
    assert main([command, store, "--zdim", "1", "-o", str(folder / "run"), *extra]) == 0
    assert "preflight: looks right" in capsys.readouterr().out
