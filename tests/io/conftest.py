"""Fixtures of the io tests."""

import pytest


@pytest.fixture(autouse=True)
def quick_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk on every small file; test_atomic.py proves that syncs are asked."""
    monkeypatch.setattr("frazil.io.atomic.os.fsync", lambda _: None)
