"""Plans come from headers alone, and what cannot fit is refused with a change that makes it fit."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from frazil.errors import BudgetError, CorruptDataError, InputError
from frazil.io.images import ImageSource, open_particles
from frazil.preprocess import parallel
from frazil.preprocess import plan as plan_module
from frazil.preprocess.inputs import image_fingerprint
from frazil.preprocess.measure import decoding_rate, read_rate, transform_rate
from frazil.preprocess.parallel import image_bar
from frazil.preprocess.plan import PackPlan, check_plan, plan_packing, settings_within
from frazil.preprocess.settings import PackSettings
from frazil.store.codec import Codec
from frazil.store.sizes import StoreSize
from tests.store.made import make_images, make_particles, make_store, write_stack

PLAN = PackPlan(
    size=StoreSize(1_000_000, 1_000_000, 128, "float32"),
    source_box_px=256,
    source_side_px=256,
    domain="real",
    source_bytes=262_144_000_000,
    out=Path("X.frz"),
    free_bytes=1 << 40,
    memory_bytes=4 << 30,
    max_threads=16,
)


def test_a_plan_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_particles(tmp_path, 30, 24)
    monkeypatch.delattr(ImageSource, "read")
    plan = plan_packing(table, tmp_path / "new" / "X.frz", PackSettings(box_px=16))
    assert (plan.size.images, plan.size.box_px, plan.source_bytes) == (30, 16, 30 * 24 * 24 * 4)
    assert plan.free_bytes > 0


def test_images_that_particles_share_are_read_once(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 30, 24).take([3, 3, 5])
    settings = PackSettings()
    plan = plan_packing(table, tmp_path / "X.frz", settings)
    assert (plan.size.particles, plan.size.images, plan.source_bytes) == (3, 2, 2 * 24 * 24 * 4)
    assert plan_packing(table, tmp_path / "X.mrcs", settings, fourier=True).size.images == 3


def test_a_truncated_stack_is_refused_from_its_header(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "p.mrcs", make_images(4, 24))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptDataError, match="which is cut short: 3 of 4"):
        plan_packing(open_particles(path), tmp_path / "X.frz", PackSettings())


def test_what_fits_is_not_refused() -> None:
    check_plan(PLAN)
    assert PLAN.threads == 16


@pytest.mark.parametrize("free_bytes", [50_000_000_000, 30_000_000_000, 14_000_000_000])
def test_each_way_out_of_a_small_disk_is_enough(free_bytes: int) -> None:
    plan = replace(PLAN, free_bytes=free_bytes)
    with pytest.raises(BudgetError, match=r"X\.frz: needs .* are free there; free ") as refused:
        check_plan(plan)
    message = str(refused.value)
    precision = re.search(r"--precision (\w+)", message)
    box = re.search(r"-D (\d+)", message)
    assert box and "another disk (-o)" in message
    assert plan.at("float32", int(box[1])).packing_disk_bytes <= free_bytes
    assert plan.at("float32", int(box[1]) + 2).packing_disk_bytes > free_bytes
    assert precision
    check_plan(replace(plan, size=plan.at(precision[1])))


def test_a_disk_that_holds_nothing_suggests_neither_box_nor_precision() -> None:
    with pytest.raises(BudgetError) as refused:
        check_plan(replace(PLAN, free_bytes=1000))
    assert "-D" not in str(refused.value) and "--precision" not in str(refused.value)


def test_what_an_unfinished_store_holds_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "free_disk_bytes", lambda path: 1000)
    table, out = make_particles(tmp_path, 10, 24), tmp_path / "X.frz"
    assert plan_packing(table, out, PackSettings()).free_bytes == 1000
    buckets = tmp_path / "X.frz.partial" / "buckets"
    buckets.mkdir(parents=True)
    (buckets / "00000.bin").write_bytes(bytes(77))
    assert plan_packing(table, out, PackSettings()).free_bytes == 1077


def test_the_memory_decides_how_many_threads_work() -> None:
    needed = [PLAN.buffer_bytes(threads) for threads in (1, 4, 16)]
    assert needed == sorted(needed)
    assert replace(PLAN, memory_bytes=needed[1]).threads == 4
    assert replace(PLAN, memory_bytes=needed[1] - 1).threads == 3
    assert settings_within(replace(PLAN, memory_bytes=needed[1]), PackSettings()).max_threads == 4


def test_too_little_memory_for_one_thread_is_refused_with_what_is_enough() -> None:
    plan = replace(PLAN, memory_bytes=10 << 20)
    with pytest.raises(BudgetError, match="packing with one thread takes") as refused:
        check_plan(plan)
    enough = int(str(refused.value).rpartition("--memory ")[2].removesuffix("M")) << 20
    check_plan(replace(plan, memory_bytes=enough))


def test_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 4, 16)
    with pytest.raises(BudgetError, match="--memory 900T: host, cgroup or SLURM allow"):
        plan_packing(table, tmp_path / "X.frz", PackSettings(memory="900T"))


@pytest.mark.parametrize("memory", ["much", "-1G"])
def test_a_memory_that_is_no_size_is_refused(tmp_path: Path, memory: str) -> None:
    table = make_particles(tmp_path, 4, 16)
    with pytest.raises(InputError, match=f"--memory {memory}: not a size"):
        plan_packing(table, tmp_path / "X.frz", PackSettings(memory=memory))


def test_the_memory_is_no_part_of_a_stores_identity(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 4, 16)
    one, other = PackSettings(), PackSettings(memory="2G")
    assert image_fingerprint(table, one) == image_fingerprint(table, other)
    assert image_fingerprint(table, one) != image_fingerprint(table, PackSettings(seed=1))


def test_reading_is_measured_on_no_more_than_the_sample(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(bytes(1000))
    found = read_rate(paths, most_bytes=2500)
    assert found.sample_bytes == 2500 and found.bytes_per_s > 0
    assert read_rate(paths).sample_bytes == 3000
    assert read_rate(paths, most_s=0).sample_bytes == 0


def test_rates_are_measured(tmp_path: Path) -> None:
    store = make_store(tmp_path, 8, 16)
    assert transform_rate(PackSettings(box_px=16), "int8", 32, "real", seconds=0.01) > 0
    assert transform_rate(PackSettings(), "float32", 16, "hartley", seconds=0.01) > 0
    assert isinstance(store.codec, Codec)
    assert decoding_rate(store.codec, 2 * len(store.disc), seconds=0.01) > 0


def test_the_bar_shows_rate_bytes_and_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "resident_bytes", lambda: 123_000_000)
    with image_bar(30, "packing", 1_000_000, initial=10) as advance:
        advance(20)
    shown = capsys.readouterr().err
    assert "packing: 100%" in shown and "30/30" in shown and "img/s" in shown
    assert "20 MB read, RSS 123 MB" in shown
