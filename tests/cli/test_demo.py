"""frazil demo: which steps it repeats after an interruption."""

from pathlib import Path

import pytest

from frazil.cli import demo
from frazil.cli import main as program


def test_an_interrupted_step_interrupts_and_a_finished_one_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    codes: dict[str, int] = {"simulate": demo.INTERRUPTED, "analyze": 2}
    run_program = program.main

    def step(words: list[str]) -> int:
        ran.append(words[0])
        return codes.get(words[0], 0)

    monkeypatch.setattr(program, "main", step)
    assert run_program(["demo", "-o", str(tmp_path)]) == demo.INTERRUPTED
    assert ran == ["simulate"]
    # A map without the file that is written last is not finished.
    for name in ("particles/simulation.json", "consensus/backproject.mrc"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    ran.clear()
    assert run_program(["demo", "-o", str(tmp_path)]) == 2
    assert ran == ["preprocess", "backproject_voxel", "train_vae", "analyze"]
    assert "the step above failed" in capsys.readouterr().err
