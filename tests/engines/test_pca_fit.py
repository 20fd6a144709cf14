"""What a whole fit finds in simulated particles, and how a run behaves."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from frazil.engines.load import load_model
from frazil.engines.pca import loop, partial, sums
from frazil.engines.pca.loop import Fitting, fit_all
from frazil.engines.pca.mask import sizeable_parts, solvent_mask, sphere
from frazil.engines.pca.outputs import final_maps, reliability, write_outputs
from frazil.engines.pca.partial import Partial
from frazil.engines.pca.prior import measured_ridges, signal_to_noise
from frazil.engines.pca.schedule import Plan
from frazil.engines.pca.settings import PcaSettings
from frazil.engines.pca.start import begin_or_resume, check_request, chosen_rows, open_store
from frazil.errors import BudgetError, CorruptDataError, InputError, OutputExistsError
from frazil.geometry.rotations import random_rotations
from frazil.io.images import open_particles
from frazil.io.mrc import read_volume
from frazil.io.mrc_writer import StackWriter
from frazil.io.pickles import write_pickle
from frazil.metrics.latents import linear_spearman
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.runs.folder import Run
from frazil.simulate.dataset import simulate_dataset
from frazil.simulate.settings import SimulateSettings

BOX_PX, COUNT = 24, 600


def make_store(folder: Path, **changes: Any) -> Path:
    """Return a packed store of simulated particles; truth lies in folder/set/truth."""
    settings = {"num": COUNT, "box_px": BOX_PX, "snr": 1.0, "swing_deg": 70.0, **changes}
    simulate_dataset(SimulateSettings(**settings), folder / "set")
    pack(open_particles(folder / "set" / "particles.star"), folder / "p.frz", PackSettings())
    return folder / "p.frz"


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("moving"))


def make_settings(store: Path, **changes: Any) -> PcaSettings:
    data: dict[str, Any] = {"particles": str(store)}
    model: dict[str, Any] = {"zdim": 2, "low_radius": 8, "low_iterations": 8}
    for name, value in changes.items():
        (model if name in ("zdim", "fit", "mask", "seed", "padding") else data)[name] = value
    return msgspec.convert({"model": model, "data": data}, PcaSettings)


def begin(outdir: Path, store: Path, said: list[str] | None = None, **changes: Any) -> Fitting:
    said = [] if said is None else said
    settings = make_settings(store, **changes)
    check_request(outdir, settings, False)
    opened = open_store(settings, outdir, said.append)
    return begin_or_resume(outdir, settings, opened, "frazil train_pca", False, said.append)


def finish(fitting: Fitting) -> Any:
    found = fit_all(fitting)
    table = reliability(fitting, found)
    write_outputs(fitting, found, table)
    return found, table


@pytest.fixture(scope="module")
def finished(moving: Path, tmp_path_factory: pytest.TempPathFactory):
    fitting = begin(tmp_path_factory.mktemp("run") / "run", moving)
    return fitting, *finish(fitting)


def test_a_motion_is_found(moving, finished):
    _, found, table = finished
    truth = torch.from_numpy(np.load(moving.parent / "set" / "truth" / "conformations.npy"))
    assert linear_spearman(torch.from_numpy(found.mean), truth) > 0.9
    shuffled = truth[torch.randperm(len(truth), generator=torch.Generator().manual_seed(0))]
    assert linear_spearman(torch.from_numpy(found.mean), shuffled) < 0.2  # positive control
    assert table.real >= 1
    assert table.canonical[0] > 0.9


def test_two_half_sets_of_noise_have_no_component(tmp_path):
    rng = np.random.Generator(np.random.PCG64(0))
    images = rng.standard_normal((COUNT, BOX_PX, BOX_PX)).astype(np.float32)
    store = noise_store(tmp_path, images)
    poses = str(tmp_path / "poses.pkl")
    _, table = finish(begin(tmp_path / "run", store, poses=poses))
    assert table.real == 0
    assert max(table.canonical) < 0.4


def test_a_rigid_particle_has_no_component(tmp_path):
    store = make_store(tmp_path, motion="none")
    _, table = finish(begin(tmp_path / "run", store))
    assert table.real == 0


def noise_store(folder: Path, images: np.ndarray) -> Path:
    """Return a store of images without a CTF, and write random poses beside it."""
    side = images.shape[1]
    with StackWriter(folder / "n.mrcs", (side, side), len(images), 4.0) as writer:
        writer.write(images)
    rotations = random_rotations(len(images), torch.Generator().manual_seed(1)).float().numpy()
    poses = (rotations, np.zeros((len(images), 2), np.float32))
    write_pickle(folder / "poses.pkl", poses)
    pack(open_particles(folder / "n.mrcs", poses=False), folder / "n.frz", PackSettings())
    return folder / "n.frz"


def test_stop_and_restart_give_the_uninterrupted_fit(moving, finished, tmp_path, monkeypatch):
    whole, found, _ = finished
    passes = loop._pass
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    for stop_at in (2, 7, 14):

        def stopping(fitting, step, *rest, stop_at=stop_at):
            if fitting.state.step == stop_at:
                raise KeyboardInterrupt
            passes(fitting, step, *rest)

        monkeypatch.setattr(loop, "_pass", stopping)
        fitting = begin(tmp_path / "run", moving)
        with pytest.raises(KeyboardInterrupt):
            fit_all(fitting)
    monkeypatch.setattr(loop, "_pass", passes)
    said: list[str] = []
    fitting = begin(tmp_path / "run", moving, said)
    assert any("goes on after pass 14" in line for line in said)
    again = fit_all(fitting)
    assert torch.equal(final_maps(fitting), final_maps(whole))
    assert np.array_equal(again.mean, found.mean)
    assert np.array_equal(again.precision, found.precision)
    lines = [json.loads(line) for line in fitting.run.journal_path.read_text().splitlines()]
    # No pass is told twice, and none is lacking.
    numbers = [line["epoch"] for line in lines if line["event"] == "pass"]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_kill_inside_a_pass_loses_only_what_came_after_the_last_keeping(
    moving, finished, tmp_path, monkeypatch, threads
):
    """Stopped in a low pass with sums, then while embedding; nothing is read twice."""
    _, found, _ = finished
    batch_rows: list[int] = []
    monkeypatch.setattr(loop, "BATCH_IMAGES", 100)  # six batches in a pass
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(partial, "PARTIAL_SECONDS", 0.0)
    monkeypatch.setattr(sums, "FLUSH_IMAGES", 128)
    uninterrupted = fit_all(begin(tmp_path / "whole", moving, max_threads=threads))
    after_batch = Partial.after_batch
    for kind in ("low", "embedding"):

        def stopping(self, gathered, kind=kind):
            after_batch(self, gathered)
            if self._key["kind"] == kind and sum(one.images for one in gathered()) >= 300:
                raise KeyboardInterrupt

        monkeypatch.setattr(Partial, "after_batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit_all(begin(tmp_path / "run", moving, max_threads=threads))
        assert (tmp_path / "run" / "pass.safetensors").is_file()

    def counting(self, gathered):
        batch_rows.append(sum(one.images for one in gathered()))

    monkeypatch.setattr(Partial, "after_batch", counting)
    fitting = begin(tmp_path / "run", moving, max_threads=threads)
    again = fit_all(fitting)
    assert batch_rows == [400, 500, 600]
    assert np.array_equal(again.mean, uninterrupted.mean)
    assert np.array_equal(again.precision, uninterrupted.precision)
    assert again.evidence == uninterrupted.evidence
    assert np.allclose(again.mean, found.mean, atol=1e-2)
    assert not (tmp_path / "run" / "pass.safetensors").exists()


def test_damaged_sums_of_a_pass_are_named_with_the_remedy(moving, tmp_path):
    fitting = begin(tmp_path / "run", moving)
    (tmp_path / "run" / "pass.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CorruptDataError, match=r"pass\.safetensors: is damaged; remove it"):
        fit_all(fitting)


def test_sums_kept_of_another_state_are_not_taken_up(moving, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "BATCH_IMAGES", 100)
    monkeypatch.setattr(partial, "PARTIAL_SECONDS", 0.0)
    first = fit_all(begin(tmp_path / "a", moving, seed=1))
    passes, kept = loop._pass, []

    def keeping(fitting, *rest):
        passes(fitting, *rest)
        kept.append((fitting.run.path / "pass.safetensors").read_bytes())

    monkeypatch.setattr(loop, "_pass", keeping)
    fit_all(begin(tmp_path / "b", moving, seed=2))
    monkeypatch.setattr(loop, "_pass", passes)
    fitting = begin(tmp_path / "c", moving, seed=1)
    (tmp_path / "c" / "pass.safetensors").write_bytes(kept[5])
    assert np.array_equal(fit_all(fitting).mean, first.mean)


def test_a_subset_is_fitted_and_all_are_embedded(moving, tmp_path):
    fitting = begin(tmp_path / "run", moving, fit=300)
    assert len(fitting.fit_rows) == 300
    found, table = finish(fitting)
    assert found.mean.shape == (COUNT, 2) and np.isfinite(found.mean).all()
    truth = torch.from_numpy(np.load(moving.parent / "set" / "truth" / "conformations.npy"))
    left = np.setdiff1d(np.arange(COUNT), fitting.fit_rows)
    assert linear_spearman(torch.from_numpy(found.mean)[left], truth[left]) > 0.85
    assert table.real >= 1


def test_the_subset_is_random_and_repeatable():
    rows = np.arange(100)
    a, b = chosen_rows(rows, 10, 0), chosen_rows(rows, 10, 0)
    assert np.array_equal(a, b) and len(np.unique(a)) == 10
    assert not np.array_equal(a, chosen_rows(rows, 10, 1))
    assert np.array_equal(chosen_rows(rows, None, 0), rows)
    with pytest.raises(InputError, match="too few"):
        chosen_rows(rows[:1], None, 0)


def test_files_hold_what_was_fitted(finished):
    fitting, found, table = finished
    folder, scale = fitting.run.path, fitting.norm_scale
    maps = scale * final_maps(fitting).numpy()
    for name, volume in zip(("mean", "component_1", "component_2"), maps, strict=True):
        assert np.allclose(read_volume(folder / f"{name}.mrc")[0], volume, atol=1e-5 * scale)
    assert np.array_equal(np.load(folder / "z.npy", allow_pickle=False), found.mean)
    run = Run.open(folder)
    assert np.array_equal(run.latents(run.last_epoch), found.mean)
    assert len(run.rows()) == COUNT
    assert json.loads((folder / "reliability.json").read_text())["real"] == table.real
    assert f"{table.real} of 2 components are real" in (folder / "reliability.txt").read_text()


def test_the_weights_give_the_volume_of_any_latent(finished):
    from frazil.analysis.volumes import TrainedGrid, evaluate_volume

    fitting, _, _ = finished
    model, config = load_model(fitting.run.path)
    z = torch.tensor([0.7, -1.2])
    found = evaluate_volume(model, z, TrainedGrid.from_config(config))
    maps = fitting.norm_scale * final_maps(fitting)
    wanted = (maps[0] + 0.7 * maps[1] - 1.2 * maps[2]).numpy()
    # Volumes of `analysis.volumes` hold |k| <= D/2 only, and no Nyquist plane.
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999


def test_a_finished_run_and_other_settings_are_refused(moving, finished):
    folder = finished[0].run.path
    with pytest.raises(OutputExistsError, match="complete"):
        begin(folder, moving)
    with pytest.raises(OutputExistsError, match="zdim"):
        begin(folder, moving, zdim=3)


def test_too_little_memory_is_refused_with_the_remedy(moving, tmp_path):
    with pytest.raises(BudgetError, match="--memory"):
        begin(tmp_path / "run", moving, memory="20M")
    assert not (tmp_path / "run").exists()


def test_a_mask_of_another_box_is_refused(moving, tmp_path):
    from frazil.io.mrc_writer import write_volume

    write_volume(tmp_path / "m.mrc", np.ones((8, 8, 8)), 1.0)
    with pytest.raises(InputError, match="24 px wanted"):
        begin(tmp_path / "run", moving, mask=str(tmp_path / "m.mrc"))


def test_the_mask_keeps_a_domain_that_only_a_component_shows():
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(32) - 16

    def blob(x: float) -> torch.Tensor:
        square = ((axis - x) ** 2)[None, None, :] + (axis**2)[None, :, None]
        return torch.exp(-(square + (axis**2)[:, None, None]) / 8.0)

    clean = torch.stack([blob(0.0), 0.3 * blob(8.0)])
    halves = [clean + 0.01 * torch.randn(clean.shape, generator=generator) for _ in range(2)]
    mask = solvent_mask((halves[0], halves[1]))
    assert mask[16, 16, 16] == 1 and mask[16, 16, 24] == 1
    assert mask[16, 16, 4] == 0
    alone = solvent_mask((halves[0][:1], halves[1][:1]))
    assert alone[16, 16, 24] == 0
    noise = torch.randn(2, 2, 16, 16, 16, generator=generator)
    assert torch.equal(solvent_mask((noise[0], noise[1])), sphere(16))


def test_small_parts_are_dropped_and_sizeable_ones_kept():
    inside = np.zeros((20, 20, 20), bool)
    inside[2:10, 2:10, 2:10] = inside[12:16, 12:16, 12:16] = inside[18, 18, 18] = True
    kept = sizeable_parts(inside)
    assert kept[3, 3, 3] and kept[13, 13, 13] and not kept[18, 18, 18]


def test_signal_to_noise_ends_where_the_curve_first_falls_to_zero():
    curve = torch.tensor([1.0, 0.99, 0.9, 0.5, 0.1, -0.2, -0.1, 0.4, 0.4])
    ratio = signal_to_noise(curve)
    assert (np.diff(ratio) <= 0).all()
    assert ratio[2] > 1 > ratio[4]
    assert ratio[-1] < 0.01


def test_beyond_the_low_stage_the_prior_of_a_component_is_what_its_half_sets_agree_on():
    signal = np.array([[4.0, 4, 4, 2, 1, 0.5, 0.25], [9.0, 9, 9, 9, 9, 9, 9]])
    weight = np.full(7, 2.0)
    ratio = signal * weight  # of a half map: signal over noise variance
    curves = (ratio / (ratio + 1)).tolist()
    low_stage = np.full((3, 9), 7.0)
    found = measured_ridges(low_stage, weight, curves, 2)
    assert found.shape == (3, 7)
    assert np.all(found[0] == 7) and np.all(found[:, :3] == 7)
    assert np.allclose(found[2, 3:], 1 / 9, rtol=1e-4)
    assert np.allclose(found[1, 4:6], 1 / signal[0, 4:6], rtol=0.15)  # curves are smoothed
    unlike = measured_ridges(low_stage, weight, [[1.0, 1, 1, -0.1, 0, 0.1, 0.1]], 2)
    assert np.all(unlike[1, 4:] > 1000)


def test_the_schedule_grows_to_the_supported_radius():
    plan = Plan(64, 2, 1, 10, 3, 0)
    steps = plan.steps(25)
    radii = [step.radius for step in steps if step.kind == "march"]
    assert radii == sorted(set(radii)) and radii[-1] == 25 == steps[-1].radius
    assert steps[-1].kind == "joint"
    assert [step.radius for step in steps if step.kind == "consensus"] == [32] * 3
    assert max(step.radius for step in Plan(16, 2, 1, 10, 3, 0).steps(8)) == 8
