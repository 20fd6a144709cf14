"""The run folder: what is in it, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.runs.folder import Run, held, is_run


def test_config_comes_back_and_names_are_those_users_know(tmp_path: Path) -> None:
    config = {"settings": {"lr": 1e-4}, "store": "päckchen.frz"}
    Run.create(tmp_path / "run", config)
    run = Run.open(tmp_path / "run")
    assert run.config == config
    assert run.weights_path(3).name == "weights.3.safetensors"
    assert run.latents_path(3).name == "z.3.npy"
    assert is_run(run.path)
    assert not is_run(tmp_path)


def test_epochs_are_counted_as_numbers(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {})
    with pytest.raises(MissingFileError, match="no weights"):
        _ = run.last_epoch
    for epoch in (2, 10, 9):
        run.weights_path(epoch).touch()
    (tmp_path / "weights.x.safetensors").touch()
    assert run.epochs() == [2, 9, 10]
    assert run.last_epoch == 10


def test_latents_and_rows_come_back(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {})
    run.write_rows(np.array([5, 2, 9]))
    z = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(run.latents_path(1), z)
    np.testing.assert_array_equal(run.rows(), [5, 2, 9])
    np.testing.assert_array_equal(run.latents(1), z)
    with pytest.raises(MissingFileError, match=r"z\.2\.npy"):
        run.latents(2)


def test_cut_short_latents_are_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {})
    np.save(run.latents_path(1), np.zeros((50, 2)))
    whole = run.latents_path(1).read_bytes()
    run.latents_path(1).write_bytes(whole[:-8])
    with pytest.raises(CorruptDataError, match=r"z\.1\.npy"):
        run.latents(1)


def test_a_run_is_replaced_only_when_asked_and_other_files_stay(tmp_path: Path) -> None:
    run = Run.create(tmp_path, {"a": 1})
    run.weights_path(1).touch()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        Run.create(tmp_path, {"a": 2})
    replaced = Run.create(tmp_path, {"a": 2}, overwrite=True)
    assert replaced.epochs() == []
    assert Run.open(tmp_path).config == {"a": 2}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="not a run folder"):
        Run.open(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CorruptDataError, match="not JSON"):
        Run.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        Run.create(tmp_path / "file", {})


def test_weights_without_a_config_are_not_removed_unasked(tmp_path: Path) -> None:
    weights = tmp_path / "weights.7.safetensors"
    weights.write_bytes(b"mine")
    with pytest.raises(InputError, match="would be removed"):
        Run.create(tmp_path, {})
    assert weights.read_bytes() == b"mine"
    Run.create(tmp_path, {}, overwrite=True)
    assert not weights.exists()


def test_a_folder_is_held_by_one_at_a_time_and_holds_no_lock_file(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held(folder):
        with pytest.raises(InputError, match="another process is training"), held(folder):
            pass
        assert list(folder.iterdir()) == []
    with held(folder):
        pass
