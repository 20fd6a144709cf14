"""frazil demo: which steps it repeats after an interruption."""

from pathlib import Path

import pytest

from frazil.cli import demo
from frazil.cli import main as program


def test_an_interrupted_step_interrupts_and_a_finished_one_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, ran = [demo.INTERRUPTED], []
    run_program = program.main

    def step(words: list[str]) -> int:
        ran.append(words[0])
        return code[0]

    monkeypatch.setattr(program, "main", step)
    assert run_program(["demo", "-o", str(tmp_path)]) == demo.INTERRUPTED
    assert ran == ["simulate"]
    # A map without the file that is written last, and weights without latents, are not finished.
    for name in ("particles/simulation.json", "consensus/backproject.mrc"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "weights.6.safetensors").touch()
    ran.clear()
    code[0] = 0
    assert run_program(["demo", "-o", str(tmp_path)]) == 0
    assert ran == ["preprocess", "backproject_voxel", "train_vae", "analyze"]
    code[0] = 2
    assert run_program(["demo", "-o", str(tmp_path)]) == 2
    assert "the step above failed" in capsys.readouterr().err
