"""Every long command says what it will take before it begins, and refuses what cannot fit."""

import re
from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.engines import plan
from frazil.engines.vae.measure import training_rate
from frazil.io.mrc import read_volume
from frazil.loader import plan as loader_plan
from frazil.simulate.dataset import simulate_dataset
from frazil.simulate.settings import SimulateSettings
from frazil.store import budget
from frazil.store.budget import size_text
from tests.analysis.tiny_run import make_run

IMAGES, BOX_PX = 300, 32
NETWORK = "--zdim 2 --enc-dim 8 --dec-dim 8 --enc-layers 1 --dec-layers 1 --device cpu"


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a simulated set, particles.frz packed beside it."""
    folder = tmp_path_factory.mktemp("plans") / "set"
    simulate_dataset(SimulateSettings(num=IMAGES, box_px=BOX_PX, motion="none", snr=2.0), folder)
    store = str(folder / "particles.frz")
    assert main(["preprocess", str(folder / "particles.star"), "-o", store]) == 0
    return folder


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(what: Path, *flags: str) -> int:
    words = f"train_vae {what} -o run {NETWORK} --no-analysis".split()
    return main([*words, *flags])


def small_disk(monkeypatch: pytest.MonkeyPatch, free_bytes: int = 10_000) -> None:
    monkeypatch.setattr(budget, "free_disk_bytes", lambda path: free_bytes)


def test_training_says_what_it_reads_holds_and_writes_before_it_begins(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(particles / "particles.frz", "-n", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("plan: ")]
    assert lines[0] == f"rows: {IMAGES} in, 0 dropped, {IMAGES} used"
    assert lines[1 : len(said) + 1] == said and len(lines) > len(said) + 1
    shards = (particles / "particles.frz" / "shards").iterdir()
    codes = sum(path.stat().st_size - 128 for path in shards)
    assert f"read {size_text(codes)} per epoch ({IMAGES} images" in said[0]
    assert "and all images cached" in said[1] and re.search(r"allowed \(half of .+\)$", said[1])
    planned = float(re.search(r"\(([\d.]+) kB of weights and latents x 2 epochs", said[3])[1])
    written = sum(
        Path(f"run/{name}").stat().st_size for name in ("weights.2.safetensors", "z.2.npy")
    )
    assert planned * 1000 == pytest.approx(written, rel=0.15)
    assert " free at run" in said[3] and not any("measured" in line for line in said)


def test_only_a_long_run_is_timed(
    particles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LONG_RUN_OPERATIONS", 0)
    monkeypatch.setattr(training_rate, "__defaults__", (0.01,))
    assert train(particles / "particles.frz", "-n", "1") == 0
    assert re.search(
        r"plan: \d+ images/s on cpu \(measured\): .+ per epoch, .+ for 1 of them",
        capsys.readouterr().out,
    )


def test_the_disk_is_measured_only_where_particles_stream(
    particles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_plan, "SAMPLE_BYTES", 1000)
    assert train(particles / "particles.frz", "-n", "1") == 0
    assert "the disk gives" not in capsys.readouterr().out
    flags = ["-n", "1", "--memory", "500000", "--overwrite"]
    assert train(particles / "particles.frz", *flags) == 0
    said = capsys.readouterr().out
    assert "streamed in every epoch); 500 kB allowed (--memory 500000)" in said
    assert "plan: the disk gives" in said


def test_training_that_cannot_fit_the_disk_touches_nothing(
    particles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_disk(monkeypatch)
    assert train(particles / "particles.frz", "-n", "3") == 2
    error = capsys.readouterr().err.strip()
    assert "10 kB are free there" in error and error.endswith("or --checkpoint 3")
    assert "\n" not in error and not Path("run").exists()


def test_epochs_that_are_there_are_not_planned_again(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(particles / "particles.frz", "-n", "1") == 0
    capsys.readouterr()
    assert train(particles / "particles.frz", "-n", "3") == 0
    assert "latents x 2 epochs" in capsys.readouterr().out


def test_packing_on_the_way_to_training_is_planned_and_refused(
    particles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("frazil.preprocess.plan.free_disk_bytes", lambda path: 1000)
        assert train(particles / "particles.star", "-n", "1") == 2
    shown = capsys.readouterr()
    assert f"plan: read 1.23 MB ({IMAGES} images of {BOX_PX} px), write " in shown.out
    assert "1 kB are free there" in shown.err and not list(Path("run").glob("*.frz*"))
    assert train(particles / "particles.star", "-n", "1") == 0
    assert "px), write" in capsys.readouterr().out
    assert train(particles / "particles.star", "-n", "2") == 0
    assert "px), write" not in capsys.readouterr().out  # it is packed


def test_back_projection_keeps_to_its_memory_and_gives_the_same_map(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["backproject_voxel", str(particles / "particles.frz"), "-b", "50", "-o"]
    assert main([*words, "whole"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"rows: (\d+) in, 0 dropped, \1 used", said[0])
    assert said[1].startswith("plan: read") and "per pass" in said[1]
    assert "for the maps" in said[2] and said[3].startswith("plan: write 393 kB (maps); ")
    assert main([*words, "small", "--memory", "1M"]) == 2
    error = capsys.readouterr().err.strip()
    least = re.search(r"give (--memory \d+M)", error)[1]
    assert "or --no-half-maps" in error and not Path("small").exists()
    assert main([*words, "small", *least.split()]) == 0
    maps = [read_volume(Path(name, "backproject.mrc"))[0] for name in ("whole", "small")]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5 * np.abs(maps[0]).max())


def test_volumes_and_analysis_say_what_they_write_and_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(make_run(tmp_path))
    capsys.readouterr()
    path = ["eval_vol", run, "-o", "path", "--z-start", "0", "0", "0", "--z-end", "1", "1", "1"]
    assert main(path) == 0
    assert capsys.readouterr().out.startswith("plan: write 174 kB (10 volumes of 16 px); ")
    small_disk(monkeypatch)
    assert main([*path, "--overwrite"]) == 2
    assert "or a smaller -d" in capsys.readouterr().err
    assert main(["analyze", run, "--ksample", "3"]) == 2
    shown = capsys.readouterr()
    assert "plan: write 400 kB (23 volumes of 16 px); " in shown.out
    assert "10 kB are free there" in shown.err


def test_downsampling_that_cannot_fit_the_disk_is_refused(
    particles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["downsample", str(particles / "particles.mrcs"), "-D", "16", "-o", "small.mrcs"]
    with monkeypatch.context() as patched:
        small_disk(patched)
        assert main(words) == 2
    assert "or a smaller -D" in capsys.readouterr().err and not Path("small.mrcs").exists()
    assert main(words) == 0


def test_a_simulation_that_cannot_fit_the_disk_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *["-n", "4", "-D", "16", "-o", "fits"]]) == 0
    assert f"plan: write {size_text(4 * 4 * 16**2)} (4 images of 16 px)" in capsys.readouterr().out
    small_disk(monkeypatch)
    assert main(["simulate", *["-n", "400", "-D", "16", "-o", "set"]]) == 2
    assert "give a smaller -n or -D" in capsys.readouterr().err
    assert not Path("set").exists()
