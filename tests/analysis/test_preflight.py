"""Where a preflight is kept, and that a store stays what it was."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from frazil.analysis.preflight import FIGURE_NAME, REPORT_NAME, checked, show_preflight
from frazil.engines.preflight.settings import PreflightSettings
from frazil.errors import InputError
from frazil.store.reader import ParticleStore
from tests.engines.preflight_case import simulated_store

SETTINGS = PreflightSettings()


@pytest.fixture
def store(tmp_path: Path) -> ParticleStore:
    return simulated_store(tmp_path / "set", num=220, box_px=32, snr=2.0, motion="none")


def test_a_report_is_kept_until_what_it_is_of_changes(store: ParticleStore) -> None:
    said: list[str] = []
    first = checked(store, SETTINGS, say=said.append)
    assert len(said) == 1
    written = (store.path / REPORT_NAME).read_bytes()
    assert json.loads(written)["verdict"] == first.verdict
    assert (store.path / FIGURE_NAME).read_bytes()[:4] == b"\x89PNG"
    assert checked(store, SETTINGS, say=said.append) == first
    assert len(said) == 1  # nothing was done anew
    rows = np.array(store.rows)
    rows["shift_ang"] *= -1
    other = checked(store.with_rows(rows), SETTINGS, say=said.append)
    assert len(said) == 2
    assert other.key != first.key
    assert checked(store, SETTINGS, np.arange(210)).key != first.key


def test_a_damaged_or_older_report_is_made_anew(store: ParticleStore) -> None:
    found = checked(store, SETTINGS)
    path = store.path / REPORT_NAME
    for text in (b"{", msgspec.json.encode({**msgspec.to_builtins(found), "version": 0})):
        path.write_bytes(text)
        assert checked(store, SETTINGS) == found
        assert json.loads(path.read_bytes())["key"] == found.key


def test_the_store_is_the_same_with_it(store: ParticleStore) -> None:
    def content() -> dict[str, bytes]:
        files = (path for path in store.path.rglob("*") if path.is_file())
        return {path.name: path.read_bytes() for path in files}

    before = content()
    checked(store, SETTINGS)
    after = content()
    assert set(after) - set(before) == {REPORT_NAME, FIGURE_NAME}
    assert {name: after[name] for name in before} == before
    list(ParticleStore.open(store.path).verify())


def test_a_folder_that_cannot_be_written_costs_the_file_only(
    store: ParticleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("frazil.analysis.preflight.save_figure", refused)
    said: list[str] = []
    assert checked(store, SETTINGS, say=said.append).particles == 220
    assert "not kept" in said[-1]
    assert not (store.path / REPORT_NAME).exists()


def test_too_few_particles_are_said_not_judged(store: ParticleStore) -> None:
    said: list[str] = []
    show_preflight(store, said.append, np.arange(20))
    assert len(said) == 1
    assert "left out" in said[0] and "at least 200" in said[0]
    with pytest.raises(InputError, match="20 particles"):
        checked(store, SETTINGS, np.arange(20))
