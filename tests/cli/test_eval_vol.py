"""frazil eval_vol."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.analysis.volumes import TrainedGrid, evaluate_volume
from frazil.cli.main import main
from frazil.io.mrc import read_volume
from tests.analysis.tiny_run import BOX_PX, SCALE, make_model, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("eval_vol"))


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a run, from an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return str(made)


def expected(*z: float) -> np.ndarray:
    return evaluate_volume(make_model(), torch.tensor(z), TrainedGrid(BOX_PX, 8.0, SCALE))


def test_one_point_gives_one_file_negative_and_tiny_values_included(run: str) -> None:
    assert main(["eval_vol", run, "-o", "x.mrc", "-z", "-0.5", "-1e-05", "2"]) == 0
    volume, pixel_size_ang = read_volume(Path("x.mrc"))
    np.testing.assert_array_equal(volume, expected(-0.5, -1e-5, 2.0))
    assert pixel_size_ang == pytest.approx(8.0)
    assert [path.name for path in Path().iterdir()] == ["x.mrc"]


def test_a_path_and_a_file_of_points_give_folders(run: str) -> None:
    line = "-o path --z-start 0 0 -1 --z-end 1 1 -3 -n 3 --prefix p --vol-start-index 5"
    assert main(["eval_vol", run, *line.split()]) == 0
    names = ["p005.mrc", "p006.mrc", "p007.mrc", "z_values.txt"]
    assert sorted(path.name for path in Path("path").iterdir()) == names
    np.testing.assert_array_equal(read_volume(Path("path/p006.mrc"))[0], expected(0.5, 0.5, -2))
    assert main(["eval_vol", run, "-o", "again", "--zfile", "path/z_values.txt"]) == 0
    again = read_volume(Path("again/vol_002.mrc"))[0]
    np.testing.assert_array_equal(again, expected(0.5, 0.5, -2))


def test_weights_alone_are_enough_and_so_are_weights_with_a_config(run: str) -> None:
    weights = str(Path(run) / "weights.2.safetensors")
    assert main(["eval_vol", weights, "-o", "x.mrc", "-z", "0", "0", "0"]) == 0
    config = ["-c", str(Path(run) / "config.json"), "--epoch", "1"]
    assert main(["eval_vol", run, *config, "-o", "y.mrc", "-z", "0", "0", "0"]) == 0
    assert Path("x.mrc").read_bytes() == Path("y.mrc").read_bytes()


def test_the_box_the_hand_and_the_contrast_follow_the_flags(run: str) -> None:
    line = "-o x.mrc -z 0 0 0 -d 12 --flip --invert --Apix 3 --low-pass 20 --crop 8"
    assert main(["eval_vol", run, *line.split()]) == 0
    volume, pixel_size_ang = read_volume(Path("x.mrc"))
    assert volume.shape == (8, 8, 8)
    assert pixel_size_ang == pytest.approx(3.0)


def test_what_is_there_is_kept_without_overwrite(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.mrc").write_bytes(b"precious")
    command = ["eval_vol", run, "-o", "x.mrc", "-z", "0", "0", "0"]
    assert main(command) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert Path("x.mrc").read_bytes() == b"precious"
    assert main([*command, "--overwrite"]) == 0
    np.testing.assert_array_equal(read_volume(Path("x.mrc"))[0], expected(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-o x.mrc -z 0 0", "2 values per point, the model has zdim 3"),
        ("-o x.mrc --zfile none.txt", "none.txt: no such file"),
        ("-o x.mrc --z-start 0 0 0 --z-end 1 1 1 -n 3", "give a folder"),
        ("-o x.mrc --z-start 0 0 0", "give --z-end"),
        ("-o x.mrc -z 0 0 0 --epoch 9", "no weights of epoch 9"),
        ("-o x.mrc -z 0 0 0 -d 15", "-d 15"),
        ("-o none/x.mrc -z 0 0 0", "does not exist"),
    ],
)
def test_bad_requests_are_one_line_and_leave_nothing(
    run: str, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    assert main(["eval_vol", run, *line.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert not list(Path().iterdir())


def test_an_output_of_the_other_kind_is_refused(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mrc").mkdir()
    for name, words in (("file", "is a file"), ("folder.mrc", "is a folder")):
        assert (
            main(["eval_vol", run, "-z", "0", "0", "0", "-o", str(tmp_path / name), "--overwrite"])
            == 2
        )
        assert words in capsys.readouterr().err
