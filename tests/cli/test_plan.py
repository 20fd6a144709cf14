"""`frazil plan`: its figures are those of real stores, and what cannot fit exits with code 2."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from frazil.cli.main import main
from frazil.engines.pca import measure as pca_measure
from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.memory import needs
from frazil.engines.pca.schedule import Plan as FitPlan
from frazil.engines.pca.settings import ModelSettings
from frazil.engines.pca.work import expectation_work, maximisation_work, sent_bytes
from frazil.engines.vae.measure import training_rate
from frazil.geometry.packing import half_disc
from frazil.io.images import ImageSource
from frazil.preprocess import measure, plan
from frazil.store.reader import ParticleStore
from tests.store.made import make_images, make_store, write_stack


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.transform_rate, "__defaults__", (0.01, False))
    monkeypatch.setattr(measure.decoding_rate, "__defaults__", (0.01,))
    monkeypatch.setattr(training_rate, "__defaults__", (0.01,))


@pytest.fixture
def particles(tmp_path: Path) -> Path:
    return write_stack(tmp_path / "p.mrcs", make_images(600, 32))


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_planned_bytes_are_those_that_preprocess_writes(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(capsys, particles, "-D", 24)
    for precision in ("int8", "float32"):
        out = tmp_path / f"{precision}.frz"
        flags = ["-D", "24", "--precision", precision, "--max-threads", "1"]
        assert main(["preprocess", str(particles), "-o", str(out), *flags]) == 0
        written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        assert found[f"disk_{precision}_bytes"] == pytest.approx(written, rel=0.01)
    assert found["source_bytes"] == 600 * 32 * 32 * 4
    assert (found["particles"], found["images"], found["box_px"]) == (600, 600, 24)
    for name in ("packing_time_s", "loader_epoch_time_s", "disk_rate_bytes_per_s"):
        assert found[name] > 0
    assert found["refused"] is None and "training_epoch_time_s" not in found


def test_nothing_is_written_and_no_image_is_read_but_the_sample(
    particles: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ImageSource, "read")
    before = sorted(tmp_path.rglob("*"))
    planned(capsys, particles, "-o", tmp_path / "new" / "X.frz")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_plan_of_a_store_reads_no_block_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, 600, 64)
    monkeypatch.delattr(ParticleStore, "read_blocks")
    whole = planned(capsys, store.path)
    small = planned(capsys, store.path, "-D", 32)
    stored = sum(path.stat().st_size for path in (store.path / "shards").iterdir())
    both = "loader_memory_with_all_cached_bytes"
    assert whole[both] - whole["loader_memory_bytes"] == pytest.approx(stored, rel=0.01)
    inner = sum(path.stat().st_size for path in (store.path / "shards").glob("*.b0.npy"))
    assert small[both] - small["loader_memory_bytes"] == pytest.approx(inner, rel=0.01)
    assert whole["cached"] and small["box_px"] == 32


def test_training_is_measured_when_a_network_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, 600, 16)
    network = ["--zdim", 2, "--enc-dim", 8, "--dec-dim", 8, "--device", "cpu"]
    found = planned(capsys, store.path, *network)
    expected = max(600 / found["training_images_per_s"], found["loader_epoch_time_s"])
    assert found["training_epoch_time_s"] == pytest.approx(expected)
    assert found["training_epoch_limit"] in ("the network on cpu", "the loader")


def test_a_fit_of_components_is_measured_and_refused_where_its_sums_do_not_fit(
    particles: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pca_measure, "_LEAST_S", 0.01)
    found = planned(capsys, particles, "--engine", "pca", "--zdim", 2)
    geometry = Geometry.of(32)
    assert found["fit_memory_bytes"] == needs(geometry, 2, 600, 600, threads=1).total
    assert found["fit_passes"] == len(FitPlan.of(32, ModelSettings(zdim=2)).steps(16))
    assert found["fit_time_s"] > found["embedding_time_s"] > 0
    assert "training_epoch_time_s" not in found
    work = found["image_on_a_GPU"]
    coefficients = len(half_disc(32))
    assert work["expectation"] == asdict(expectation_work(3, coefficients))
    assert work["maximisation"] == asdict(maximisation_work(3, coefficients))
    assert work["sent_bytes"] == sent_bytes(coefficients)
    store = str(make_store(tmp_path, 100, 32).path)
    small = ["plan", store, "--engine", "pca", "--zdim", "8", "--memory", "40M"]
    assert main(small) == 2
    assert "the sums and volumes of this fit take" in capsys.readouterr().err
    assert main(small[:-2]) == 0
    assert "image on a GPU" in capsys.readouterr().out


def test_people_get_lines_that_say_what_was_measured(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(particles)]) == 0
    printed = capsys.readouterr().out
    assert f"{particles}: plan of packing and training" in printed
    assert "/s (measured on 2.46 MB)" in printed and "limited by" in printed
    assert "note: training was not measured; give --zdim" in printed


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["plan", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert "measured" not in shown.out.replace("was not measured", "")
    lines = shown.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("frazil plan: error: ")
    return lines[0]


def test_a_small_disk_and_a_small_memory_are_refused(
    particles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "give --memory" in refusal(capsys, particles, "--memory", "1M")
    monkeypatch.setattr(plan, "free_disk_bytes", lambda path: 1_500_000)
    message = refusal(capsys, particles, "--precision", "float32")
    assert "1.5 MB are free there" in message and "-D 1" in message


def test_windows_that_do_not_fit_the_memory_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, 600, 64)
    message = refusal(capsys, store.path, "--memory", "2M")
    rows = int(message.partition("--shuffler-size ")[2].split()[0])
    planned(capsys, store.path, "--memory", "2M", "--shuffler-size", rows)
    assert "or --memory" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-D", 15], "-D 15"),
        (["-D", 40], "-D 40: larger than the box of the images (32 px)"),
        (["--memory", "lots"], "--memory lots: not a size"),
        (["--device", "abacus"], "--device abacus"),
        (["--ind", "none.pkl"], "none.pkl"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    particles: Path, capsys: pytest.CaptureFixture[str], arguments: list[object], message: str
) -> None:
    assert message in refusal(capsys, particles, *arguments)


def test_a_cut_stack_is_found_by_its_header(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    particles.write_bytes(particles.read_bytes()[:-1])
    assert "is cut short: 599 of 600 images are whole" in refusal(capsys, particles)
