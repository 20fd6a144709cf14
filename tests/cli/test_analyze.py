"""frazil analyze."""

from pathlib import Path

import pytest

from frazil.cli.main import main
from tests.analysis.tiny_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("analyze")))


def test_the_last_epoch_is_analysed_and_the_log_goes_to_stdout(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "--skip-umap --ksample 2 --pc 1 --n-per-pc 2 -d 8 --vol-start-index 0"
    assert main(["analyze", run, *line.split()]) == 0
    out = Path(run) / "analyze.2"
    said = capsys.readouterr()
    assert f"report: {out / 'report.html'}" in said.out.splitlines()
    assert "vol" not in said.out.splitlines()[-1]
    names = sorted(path.name for path in (out / "pc1").iterdir())
    assert names == ["vol_000.mrc", "vol_001.mrc", "z_values.txt"]


def test_another_epoch_and_folder_can_be_named(run: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["analyze", run, "1", "--skip-umap", "--skip-vol", "-o", str(out)]) == 0
    assert (out / "report.html").is_file()
    assert (out / "kmeans20" / "labels.npy").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["RUN", "7"], "z.7.npy"),
        (["RUN", "0"], "epochs count from 1"),
        (["RUN", "2", "--ksample", "0"], "--ksample"),
        (["RUN", "2", "--skip-umap", "-d", "99"], "-d 99"),
    ],
)
def test_bad_requests_are_one_line_and_exit_code_2(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = tmp_path / "out"
    given = [run if word == "RUN" else word for word in arguments]
    assert main(["analyze", *given, "-o", str(out)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not out.exists()
