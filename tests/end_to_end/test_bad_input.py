"""Wrong input: one line that names the file and the remedy, exit code 2, nothing left behind."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import IMAGES, NETWORK

Run = Callable[..., int]
TRAIN = ["--zdim", "2", "-n", "1", "-b", "8", "--no-analysis", *NETWORK]


class Bomb:
    """Writes a file when it is unpickled by a reader that runs code."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (Path.touch, (Path("exploded"),))  # type: ignore[return-value]


def write(path: str, value: object) -> str:
    """Pickle a value as users' tools do; return its path."""
    Path(path).write_bytes(pickle.dumps(value))
    return path


@pytest.fixture
def refused(frazil: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; return its one line; no output may be left."""

    def run(line: str, *more: str, leaves: set[str] | None = None) -> str:
        before = {path.name for path in tmp_path.iterdir()}
        capsys.readouterr()
        assert frazil(line, *more) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert ": error: " in error
        assert "Traceback" not in error
        new = {path.name for path in tmp_path.iterdir()} - before
        assert new == (leaves or set())
        return error

    return run


def test_a_missing_input(refused: Callable[..., str]) -> None:
    assert "nowhere.star" in refused("preprocess nowhere.star -o p.frz")


def test_a_missing_stack(refused: Callable[..., str], particle_set: Path) -> None:
    Path("lonely.star").write_bytes((particle_set / "particles.star").read_bytes())
    error = refused("preprocess lonely.star -o p.frz")
    assert "lonely.star" in error
    assert "--datadir" in error


@pytest.mark.parametrize("box_px", [25, 64])
def test_a_box_that_is_odd_or_too_large(
    refused: Callable[..., str], particle_set: Path, box_px: int
) -> None:
    star = particle_set / "particles.star"
    assert f"-D {box_px}" in refused(f"preprocess {star} -D {box_px} -o p.frz")
    assert f"-D {box_px}" in refused(f"preprocess {star} -D {box_px} -o p.mrcs")


def test_a_truncated_stack(refused: Callable[..., str], particle_set: Path) -> None:
    stack = next(particle_set.glob("*.mrcs")).read_bytes()
    Path("cut.mrcs").write_bytes(stack[: len(stack) - 100])
    assert "cut.mrcs" in refused("preprocess cut.mrcs -o p.frz")


def test_a_pickle_that_would_run_code(
    refused: Callable[..., str], particle_set: Path, tmp_path: Path
) -> None:
    star = particle_set / "particles.star"
    bomb = write("pose.pkl", Bomb())
    assert "pose.pkl" in refused(f"preprocess {star} --poses {bomb} -o p.frz")
    assert not (tmp_path / "exploded").exists()
    pickle.loads(Path(bomb).read_bytes())  # positive control: it would have run
    assert (tmp_path / "exploded").exists()


def test_poses_of_another_number_of_particles(
    refused: Callable[..., str], particle_set: Path
) -> None:
    poses = write("pose.pkl", (np.tile(np.eye(3), (7, 1, 1)), np.zeros((7, 2))))
    error = refused(f"preprocess {particle_set / 'particles.star'} --poses {poses} -o p.frz")
    assert "pose.pkl" in error
    assert str(IMAGES) in error
    assert "7" in error


def test_a_selection_outside_the_set(refused: Callable[..., str], particle_set: Path) -> None:
    indices = write("ind.pkl", np.array([0, IMAGES]))
    error = refused(f"preprocess {particle_set / 'particles.star'} --ind {indices} -o p.frz")
    assert "ind.pkl" in error


def test_a_subset_larger_than_the_set(refused: Callable[..., str]) -> None:
    assert "11" in refused("select_random 10 -n 11 -o ind.pkl")


def test_a_missing_column_is_named(refused: Callable[..., str], particle_set: Path) -> None:
    text = (particle_set / "particles.star").read_text()
    Path("poor.star").write_text(text.replace("_rlnDefocusU", "_rlnSomethingElse"))
    error = refused("parse_ctf_star poor.star -o ctf.pkl")
    assert "_rlnDefocusU" in error
    assert "poor.star" in error


def test_complete_outputs_are_not_replaced(
    refused: Callable[..., str], particle_set: Path, frazil: Run
) -> None:
    star = particle_set / "particles.star"
    assert frazil(f"preprocess {star} -o p.frz") == 0
    assert frazil("train_vae p.frz -o run", *TRAIN) == 0
    assert "--overwrite" in refused(f"preprocess {star} -o p.frz")
    assert "--overwrite" in refused("train_vae p.frz -o run", *TRAIN)
    assert frazil(f"preprocess {star} --overwrite -o p.frz") == 0


def test_training_without_poses(
    refused: Callable[..., str], particle_set: Path, frazil: Run
) -> None:
    stack = next(particle_set.glob("*.mrcs"))
    assert frazil(f"preprocess {stack} -o p.frz") == 0
    assert "--poses" in refused("train_vae p.frz -o run", *TRAIN)


def test_an_unknown_flag(frazil: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        frazil("preprocess a.star -o p.frz --no-such-flag")
    assert stop.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_images_that_are_not_finite_are_flagged_and_never_trained(
    refused: Callable[..., str], frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = sorted(particle_set.glob("*.mrcs"))[0].read_bytes()
    header, images = stack[:1024], np.frombuffer(stack[1024:], "<f4").copy()
    images[5] = np.nan  # in image 0
    Path("bad.mrcs").write_bytes(header + images.tobytes())
    count = int.from_bytes(header[8:12], "little")
    poses = write("pose.pkl", (np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 2))))
    assert frazil(f"preprocess bad.mrcs --poses {poses} -o p.frz") == 0
    assert "1 images flagged nonfinite: rows 0" in capsys.readouterr().out
    assert frazil("train_vae p.frz -o run", *TRAIN) == 0
    latents = np.load("run/z.1.npy")
    trained = np.load("run/rows.npy")
    assert 0 not in trained or not np.isfinite(latents[list(trained).index(0)]).any()
    assert np.isfinite(latents[np.isin(trained, np.arange(1, count))]).all()
    error = refused(
        f"preprocess bad.mrcs --poses {poses} --strict -o q.frz", leaves={"q.frz.partial"}
    )
    assert "row 0" in error


@pytest.mark.parametrize(
    "flags", ["--pe-type geom_ft", "--device cuda:99", "--load no.safetensors", "--lr -1"]
)
def test_bad_settings_are_refused_before_anything_is_packed(
    refused: Callable[..., str], particle_set: Path, flags: str
) -> None:
    error = refused(f"train_vae {particle_set / 'particles.star'} -o run {flags}", *TRAIN)
    assert flags.split()[0] in error
