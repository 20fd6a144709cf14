"""frazil fsc."""

from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.mrc_writer import write_volume


def _write(path: Path, seed: int, box_px: int = 16, pixel_size_ang: float = 2.0) -> np.ndarray:
    volume = np.random.default_rng(seed).standard_normal((box_px,) * 3).astype(np.float32)
    write_volume(path, volume, pixel_size_ang)
    return volume


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a.mrc and b.mrc that share their low frequencies, and an unrelated c.mrc."""
    monkeypatch.chdir(tmp_path)
    a, noise = _write(tmp_path / "a.mrc", 1), _write(tmp_path / "c.mrc", 2)
    write_volume(tmp_path / "b.mrc", a + noise, 2.0)
    return tmp_path


def test_a_volume_and_itself_agree_to_nyquist(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fsc", "a.mrc", "a.mrc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# shell resolution_ang fsc"
    assert lines[9] == "8 4.0000 1.000000"
    assert lines[-2] == "resolution at FSC=0.5: 4.000 A (Nyquist: the curve stays above)"


def test_the_curve_printed_is_the_curve_written(
    pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fsc", "a.mrc", "b.mrc", "-o", "x.txt", "-p"]) == 0
    assert (pair / "x.txt").read_text() in capsys.readouterr().out
    curve = np.loadtxt(pair / "x.txt")
    assert curve.shape == (9, 3)
    # Equal signal and noise: sqrt(1/2).
    assert curve[4:, 2].mean() == pytest.approx(0.5**0.5, abs=0.05)
    assert (pair / "fsc.png").stat().st_size > 1000


def test_apix_and_mask_are_used(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((16, 16, 16), np.float32)
    write_volume(pair / "mask.mrc", mask, 2.0)
    assert main(["fsc", "a.mrc", "a.mrc", "--mask", "mask.mrc", "--Apix", "5"]) == 0
    assert "8 10.0000 0.000000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mrc", "none.mrc"], "none.mrc: no such file"),
        (["a.mrc", "small.mrc"], "small.mrc: box 8 px, a.mrc has 16"),
        (["a.mrc", "fine.mrc"], "fine.mrc: 1.0000 A/px, a.mrc has 2.0000"),
        (["a.mrc", "b.mrc", "--Apix", "-1"], "--Apix -1.0: must be positive"),
    ],
)
def test_volumes_that_cannot_be_compared_are_one_line_and_exit_code_2(
    pair: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    _write(pair / "small.mrc", 1, box_px=8)
    _write(pair / "fine.mrc", 1, pixel_size_ang=1.0)
    assert main(["fsc", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_wrong_header_is_overruled_by_apix(pair: Path) -> None:
    _write(pair / "fine.mrc", 1, pixel_size_ang=1.0)
    assert main(["fsc", "a.mrc", "fine.mrc", "--Apix", "2"]) == 0
