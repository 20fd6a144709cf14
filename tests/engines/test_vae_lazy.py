"""Training from the source: nothing packed, or packed meanwhile; interrupted at will."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frazil.cli.main import main
from frazil.engines.vae import loop
from frazil.engines.vae.settings import VaeSettings
from frazil.engines.vae.step import batch_losses, training_step
from frazil.errors import BudgetError, InputError, OutputExistsError
from frazil.io.pickles import write_pickle
from frazil.preprocess import pipeline, prepared
from frazil.preprocess.lazy import LazyStore
from frazil.runs.checkpoint import load_checkpoint
from frazil.runs.folder import Run
from frazil.store.reader import ParticleStore
from frazil.store.writer import StoreWriter
from tests.engines.test_vae_restart import Kill, _assert_same_run, _disturb
from tests.engines.vae_case import BATCH, COUNT, begin, make_settings, write_stack

STEPS = -(-COUNT // BATCH)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stack(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="module", params=["lazy", "while_packing"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings_of(way: str, stack: Path, **changes: Any) -> VaeSettings:
    return make_settings(stack, **{way: True, "max_threads": 1, **changes})


@pytest.fixture(scope="module")
def wholes(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of uninterrupted trainings, by way."""
    torch.set_num_threads(1)
    folders = {}
    for way in ("lazy", "while_packing"):
        folders[way] = tmp_path_factory.mktemp(f"whole-{way}") / "run"
        loop.train(begin(folders[way], settings_of(way, stack)))
    return folders


@pytest.fixture(scope="module")
def whole(way: str, wholes: dict[str, Path]) -> Path:
    """Return the folder of an uninterrupted training."""
    return wholes[way]


def slow_packing(monkeypatch: pytest.MonkeyPatch, until: Callable[[], bool]) -> threading.Event:
    """Let packing go four images at a time, and wait before the third block for `until`.

    Returns what is set when it waits.
    """
    monkeypatch.setattr(prepared, "TASK_BYTES", 1)
    real, calls, waits = StoreWriter.append, list[int](), threading.Event()

    def append(self: StoreWriter, *args: Any) -> None:
        calls.append(1)
        deadline = time.monotonic() + 30
        if len(calls) == 3:
            waits.set()
            while not until() and time.monotonic() < deadline:
                time.sleep(0.01)
        real(self, *args)

    monkeypatch.setattr(pipeline, "APPEND_BYTES", 1)
    monkeypatch.setattr(pipeline, "COMMIT_BYTES", 1)
    monkeypatch.setattr(StoreWriter, "append", append)
    return waits


def test_a_lazy_run_writes_the_run_alone_and_one_while_packing_a_store_too(
    way: str, whole: Path
) -> None:
    stores = [path.name for path in whole.iterdir() if path.is_dir()]
    assert stores == ([] if way == "lazy" else ["particles.frz"])
    config = Run.open(whole).config
    assert config["store"].endswith(".mrcs" if way == "lazy" else "run/particles.frz")


@pytest.mark.parametrize("kind", ["SIGTERM", "kill"])
@pytest.mark.parametrize("step", [2, STEPS, STEPS + 3])
def test_stop_and_restart_is_the_uninterrupted_run(
    kind: str,
    step: int,
    way: str,
    stack: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        _disturb(patch, step, kind)
        with pytest.raises(Kill if kind == "kill" else KeyboardInterrupt):
            loop.train(begin(tmp_path, settings_of(way, stack)))
    loop.train(begin(tmp_path, settings_of(way, stack)))
    _assert_same_run(tmp_path, whole)


def test_every_row_comes_once_per_epoch_and_codes_that_fit_are_read_once(
    way: str, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[list[int]] = [[]]
    read: list[int] = []
    real, real_read = training_step, LazyStore.read_blocks

    def step(model: Any, optimiser: Any, batch: Any, *rest: Any) -> Any:
        if len(trained[-1]) == COUNT:
            trained.append([])
        trained[-1].extend(batch.rows.tolist())
        return real(model, optimiser, batch, *rest)

    def read_blocks(self: LazyStore, *args: Any) -> None:
        read.append(len(args[3][0]))
        real_read(self, *args)

    monkeypatch.setattr(loop, "training_step", step)
    monkeypatch.setattr(LazyStore, "read_blocks", read_blocks)
    loop.train(begin(tmp_path, settings_of(way, stack)))
    assert [sorted(rows) for rows in trained] == [list(range(COUNT))] * 3
    assert sum(read) == COUNT


def test_the_first_step_comes_before_the_store_is_packed(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = threading.Event()
    slow_packing(monkeypatch, stepped.is_set)
    real = training_step

    def step(*args: Any) -> Any:
        assert stepped.is_set() or not (tmp_path / "particles.frz").exists()
        stepped.set()
        return real(*args)

    monkeypatch.setattr(loop, "training_step", step)
    loop.train(begin(tmp_path, settings_of("while_packing", stack)))
    assert stepped.is_set()
    assert ParticleStore.open(tmp_path / "particles.frz").count == COUNT


def test_later_epochs_and_the_latents_are_read_from_the_store(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(tmp_path, settings_of("while_packing", stack, epochs=1))
    source = training.loader
    loop.train(training)
    assert isinstance(source.store, LazyStore)
    assert training.loader.store.path == tmp_path / "particles.frz"
    assert training.loader.norm_scale == source.norm_scale


def test_a_stop_ends_packing_at_once_and_it_goes_on_later(
    stack: Path, wholes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training_step
    with monkeypatch.context() as patch:
        training = begin(tmp_path, settings_of("while_packing", stack))
        packing = training.packing
        assert packing is not None
        waits = slow_packing(patch, packing._stop.is_set)

        def step(*args: Any) -> Any:
            assert waits.wait(30)
            os.kill(os.getpid(), signal.SIGINT)
            return real(*args)

        patch.setattr(loop, "training_step", step)
        with pytest.raises(KeyboardInterrupt):
            loop.train(training)
    assert not [thread for thread in threading.enumerate() if thread.name == "packing"]
    partial = tmp_path / "particles.frz.partial"
    assert 12 <= json.loads((partial / "journal.json").read_text())["images_done"] < COUNT
    loop.train(begin(tmp_path, settings_of("while_packing", stack)))
    _assert_same_run(tmp_path, wholes["while_packing"])
    for name in ("particles.npy", "checksums.npy"):
        packed = (folder / "particles.frz" / name for folder in (tmp_path, wholes["while_packing"]))
        assert len({path.read_bytes() for path in packed}) == 1
    assert not partial.exists()


def test_waiting_for_the_store_can_be_stopped(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(tmp_path, settings_of("while_packing", stack))
    packing = training.packing
    assert packing is not None
    slow_packing(monkeypatch, packing._stop.is_set)
    wait = packing._wait

    def interrupted(stopped: Callable[[], bool]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        wait(stopped)

    monkeypatch.setattr(packing, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.train(training)
    _, facts = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert (facts["epoch"], facts["batch"]) == (2, 0)


@pytest.mark.parametrize("late", [False, True])
def test_an_error_of_packing_comes_after_a_checkpoint_and_the_run_goes_on(
    late: bool, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = threading.Event()

    def full(self: StoreWriter, *args: Any) -> None:
        if late:
            trained.wait(30)
        raise BudgetError(f"{self.folder}: the disk is full")

    steps: list[int] = []
    real = training_step

    def step(*args: Any) -> Any:
        steps.append(1)
        if len(steps) == STEPS:
            trained.set()
        if not late:
            assert training.packing is not None
            training.packing._ended.wait(30)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "append", full)
        patch.setattr(loop, "training_step", step)
        training = begin(tmp_path, settings_of("while_packing", stack))
        with pytest.raises(BudgetError, match="the disk is full"):
            loop.train(training)
    _, facts = load_checkpoint(tmp_path / "checkpoint.safetensors")
    found = (facts["epoch"] - 1) * STEPS + facts["batch"]
    assert found == len(steps) == (STEPS if late else 1)
    loop.train(begin(tmp_path, settings_of("while_packing", stack)))
    assert Run.open(tmp_path).last_epoch == 3


def test_source_and_store_train_the_same_rows_and_give_a_model_the_same_losses(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, list[int]] = {"lazy": [], "cache": []}
    real, trainings = training_step, {}
    for way, given in (("lazy", True), ("cache", str(tmp_path))):
        settings = make_settings(
            stack, epochs=1, shuffler_size=COUNT, max_threads=1, **{way: given}
        )
        trainings[way] = begin(tmp_path / way, settings)

        def step(*args: Any, rows: list[int] = trained[way]) -> Any:
            rows.extend(args[2].rows.tolist())
            return real(*args)

        monkeypatch.setattr(loop, "training_step", step)
        loop.train(trainings[way])
    assert isinstance(trainings["cache"].loader.store, ParticleStore)
    assert sorted(trained["lazy"]) == sorted(trained["cache"]) == list(range(COUNT))
    assert trained["lazy"] != trained["cache"]
    model, found = trainings["lazy"].model, []
    for training in trainings.values():
        losses = torch.full((COUNT,), torch.nan)
        with torch.no_grad():
            for batch in training.loader.in_order():
                losses[batch.rows] = batch_losses(model, batch, None).error
        found.append(losses)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=0)


def test_selected_rows_at_a_smaller_box_are_trained(way: str, stack: Path, tmp_path: Path) -> None:
    chosen = np.array([30, 2, 17, 41, 5])
    write_pickle(tmp_path / "ind.pkl", chosen)
    settings = settings_of(way, stack, ind=str(tmp_path / "ind.pkl"), box_px=12, epochs=2)
    training = begin(tmp_path / "run", settings)
    assert training.loader.box_px == 12
    loop.train(training)
    run = Run.open(tmp_path / "run")
    np.testing.assert_array_equal(run.rows(), chosen)
    assert np.isfinite(run.latents(2)).all()


def test_a_run_goes_on_in_the_way_it_began(way: str, stack: Path, tmp_path: Path) -> None:
    loop.train(begin(tmp_path, settings_of(way, stack, epochs=1)))
    with pytest.raises(OutputExistsError, match=rf"{way} \(was True, is False\)"):
        begin(tmp_path, make_settings(stack, epochs=2))


def test_a_packed_store_is_streamed_anyhow_and_both_at_once_are_refused(
    stack: Path, wholes: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="give one of them"):
        begin(tmp_path, settings_of("lazy", stack, while_packing=True))
    store, said = wholes["while_packing"] / "particles.frz", list[str]()
    poses = {name: str(stack.parent / f"{name}.pkl") for name in ("poses", "ctf")}
    training = begin(tmp_path, make_settings(store, lazy=True, epochs=1, **poses), said=said)
    assert "--lazy: no effect" in said[0] and "streamed anyhow" in said[0]
    assert isinstance(training.loader.store, ParticleStore)
    assert training.packing is None and not training.settings.data.lazy


def test_the_command_trains_and_analyzes_without_a_store(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {name: stack.parent / f"{name}.pkl" for name in ("poses", "ctf")}
    command = f"""train_vae {stack} --poses {names["poses"]} --ctf {names["ctf"]} --lazy --zdim 2
        -n 1 --enc-dim 8 --enc-layers 1 --dec-dim 8 --dec-layers 1 --device cpu --no-analysis
        -o {tmp_path / "run"}"""
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "is read as it is, nothing is packed" in said
    assert f"that of {COUNT} of {COUNT} images" in said
    analyze = f"analyze {tmp_path / 'run'} --ksample 2 --pc 1 --n-per-pc 2 --skip-umap"
    assert main(analyze.split()) == 0
    said = capsys.readouterr().out
    assert "no particle pictures: trained with --lazy, so there is no store" in said
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "particles.mrcs (not packed)" in capsys.readouterr().out
