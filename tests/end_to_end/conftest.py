"""A small simulated set, made once, and a way to run commands."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from frazil.cli.main import main

IMAGES = 96
BOX_PX = 32
NETWORK = ["--enc-dim", "16", "--dec-dim", "16", "--enc-layers", "1", "--dec-layers", "1"]


@pytest.fixture(scope="session")
def particle_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with particles.mrcs, .star, .cs and truth: 96 images of 32 px in two stacks."""
    folder = tmp_path_factory.mktemp("simulated") / "set"
    arguments = f"simulate -n {IMAGES} -D {BOX_PX} --snr 0.5 --stacks 2 -o {folder}"
    assert main(arguments.split()) == 0
    return folder


@pytest.fixture
def frazil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command line in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(line: str, *more: str) -> int:
        return main([*line.split(), *more])

    return run


def epoch_losses(run: Path) -> list[float]:
    """Return the mean loss of every epoch of a run."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line.get("event") == "epoch"]
