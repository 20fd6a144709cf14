"""Stop and restart is the uninterrupted training, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frazil.engines.vae import loop
from frazil.engines.vae.step import training_step
from frazil.errors import InputError
from frazil.runs.checkpoint import load_checkpoint
from frazil.runs.folder import Run
from frazil.runs.journal import read_journal
from tests.engines.vae_case import BATCH, COUNT, begin, make_settings, write_store

STEPS_PER_EPOCH = -(-COUNT // BATCH)


class Kill(BaseException):
    """Stands for a kill that nothing catches."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted training."""
    torch.set_num_threads(1)
    outdir = tmp_path_factory.mktemp("whole") / "run"
    loop.train(begin(outdir, make_settings(store)))
    return outdir


def _disturb(monkeypatch: pytest.MonkeyPatch, step: int, kind: str) -> None:
    """Let a signal come, or the process die, in a step (from 1)."""
    count = 0

    def disturbed(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == step and kind == "kill":
            raise Kill
        result = training_step(*args)
        if count == step:
            os.kill(os.getpid(), getattr(signal, kind))
        return result

    monkeypatch.setattr(loop, "training_step", disturbed)


def _facts(outdir: Path) -> list[dict[str, Any]]:
    """Return the journal without what the clock decides."""
    lines = read_journal(Run.open(outdir).journal_path)
    return [{k: v for k, v in x.items() if k not in ("seconds", "images_per_s")} for x in lines]


def _assert_same_run(found: Path, wanted: Path) -> None:
    assert _facts(found) == _facts(wanted)
    for epoch in (1, 2, 3):
        np.testing.assert_array_equal(Run(found, {}).latents(epoch), Run(wanted, {}).latents(epoch))
    for name in ("weights.1", "weights.2", "weights.3", "checkpoint"):
        ours, _ = load_checkpoint(found / f"{name}.safetensors")
        theirs, _ = load_checkpoint(wanted / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), (name, key)


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("step", [1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 3])
def test_a_signal_in_any_step_changes_nothing(
    kind: str,
    step: int,
    store: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        _disturb(patch, step, kind)
        with pytest.raises(KeyboardInterrupt):
            loop.train(begin(tmp_path, make_settings(store)))
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    _, facts = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert (facts["epoch"] - 1) * STEPS_PER_EPOCH + facts["batch"] == step
    loop.train(begin(tmp_path, make_settings(store)))
    _assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("seconds", [0.0, 600.0])
def test_a_kill_goes_back_to_the_last_checkpoint_and_changes_nothing(
    seconds: float, store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", seconds)
        _disturb(patch, STEPS_PER_EPOCH + 4, "kill")
        with pytest.raises(Kill):
            loop.train(begin(tmp_path, make_settings(store)))
    _, facts = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert (facts["epoch"], facts["batch"]) == (2, 3 if seconds == 0 else 0)
    loop.train(begin(tmp_path, make_settings(store)))
    _assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("writer", ["write_weights", "write_latents"])
def test_a_kill_at_the_end_of_an_epoch_changes_nothing(
    writer: str, store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*args: Any) -> None:
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(loop, writer, kill)
        with pytest.raises(Kill):
            loop.train(begin(tmp_path, make_settings(store)))
    loop.train(begin(tmp_path, make_settings(store)))
    _assert_same_run(tmp_path, whole)


def _stop_in_evaluation(patch: pytest.MonkeyPatch) -> None:
    """Let SIGINT come while the latents are evaluated after the last epoch."""
    evaluate = loop.centred_images

    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*args)

    patch.setattr(loop, "centred_images", interrupted)


def test_a_signal_while_latents_are_evaluated_stops_and_loses_no_step(
    store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _stop_in_evaluation(patch)
        with pytest.raises(KeyboardInterrupt):
            loop.train(begin(tmp_path, make_settings(store)))
    assert not (tmp_path / "z.3.npy").exists()
    _, facts = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert (facts["epoch"], facts["batch"]) == (3, STEPS_PER_EPOCH)
    loop.train(begin(tmp_path, make_settings(store)))
    _assert_same_run(tmp_path, whole)


def test_a_signal_while_the_last_files_are_written_stops_after_them(
    store: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = loop.write_latents

    def interrupted(run: Run, epoch: int, *args: Any) -> None:
        if epoch == 3:
            os.kill(os.getpid(), signal.SIGINT)
        write(run, epoch, *args)

    monkeypatch.setattr(loop, "write_latents", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.train(begin(tmp_path, make_settings(store)))
    _assert_same_run(tmp_path, whole)


def test_more_epochs_go_on_where_the_run_ended(store: Path, whole: Path, tmp_path: Path) -> None:
    loop.train(begin(tmp_path, make_settings(store, epochs=1)))
    loop.train(begin(tmp_path, make_settings(store, epochs=3)))
    assert _facts(tmp_path) == _facts(whole)
    np.testing.assert_array_equal(Run(tmp_path, {}).latents(3), Run(whole, {}).latents(3))


def test_latents_are_those_of_the_last_weights_in_the_order_of_the_rows(
    store: Path, tmp_path: Path
) -> None:
    from frazil.engines.vae.load import load_model
    from frazil.engines.vae.step import centred_images, latents
    from frazil.io.pickles import read_all_pickles, write_pickle

    chosen = np.array([30, 2, 17, 41, 5])
    write_pickle(tmp_path / "ind.pkl", chosen)
    # float32 everywhere, as the model is evaluated here: some processors have bfloat16.
    settings = make_settings(store, ind=str(tmp_path / "ind.pkl"), epochs=2, z_pkl=True, amp=False)
    training = begin(tmp_path / "run", settings)
    loop.train(training)
    run = Run.open(tmp_path / "run")
    np.testing.assert_array_equal(run.rows(), chosen)
    model, _ = load_model(run.path)
    found = run.latents(2)
    assert found.shape == (5, 2)
    for batch in training.loader.in_order():
        mu, _ = latents(model, batch.rows, *centred_images(model, batch))
        for row, value in zip(batch.rows.tolist(), mu.detach().numpy(), strict=True):
            np.testing.assert_allclose(found[chosen.tolist().index(row)], value, rtol=1e-5)
    mu, logvar = read_all_pickles(run.latents_path(2, "pkl"))
    np.testing.assert_array_equal(mu, found)
    assert logvar.shape == mu.shape


def test_a_loss_that_is_not_finite_stops_training_and_the_last_checkpoint_is_good(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(tmp_path, make_settings(store))
    epoch = training.loader.epoch

    def poisoned(number: int) -> Any:
        for batch in epoch(number):
            if number == 2 and 17 in batch.rows:
                batch.coefficients[batch.rows == 17] = torch.nan
            yield batch

    monkeypatch.setattr(training.loader, "epoch", poisoned)
    with pytest.raises(InputError, match=r"not finite, first for rows 17 \(0-based"):
        loop.train(training)
    tensors, facts = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert (facts["epoch"], facts["batch"]) == (2, 0)
    assert all(torch.isfinite(t).all() for n, t in tensors.items() if n.startswith("model"))
    assert all(np.isfinite(line["loss"]) for line in read_journal(tmp_path / "metrics.jsonl"))


_TRAIN = """
import sys, torch
from pathlib import Path
from frazil.engines.vae.loop import train
from tests.engines.vae_case import begin, make_settings
torch.set_num_threads(1)
train(begin(Path(sys.argv[2]), make_settings(Path(sys.argv[1]), epochs=5000)))
"""


def test_a_process_that_is_killed_goes_on_as_if_it_had_not_been(
    store: Path, tmp_path: Path
) -> None:
    folders = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "cwd": Path(__file__).parents[2]}
    command = [sys.executable, "-c", _TRAIN, str(store), str(tmp_path / "killed")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **folders
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Epoch: 3/5000" in line:
            process.kill()
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    _, facts = load_checkpoint(tmp_path / "killed" / "checkpoint.safetensors")
    last = facts["epoch"] + 1
    for name in ("killed", "whole"):
        loop.train(begin(tmp_path / name, make_settings(store, epochs=last)))
    killed, whole = (Run.open(tmp_path / name) for name in ("killed", "whole"))
    assert _facts(killed.path) == _facts(whole.path)
    np.testing.assert_array_equal(killed.latents(last), whole.latents(last))
