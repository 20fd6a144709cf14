"""Fixtures for the whole suite: run-time shape checks, and the optional third-party files."""

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook looks it up by name)

# Every annotated shape in the pure layers is checked in every test run.
install_import_hook(["frazil.geometry", "frazil.metrics"], "tests.typecheck.checked")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of third-party files (`real/`, `structures/`); its tests say plainly when absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("third-party golden files are absent: this golden is not proved in this run")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Keep torch on one thread: small tensors, and repeatable sums."""
    torch.set_num_threads(1)
