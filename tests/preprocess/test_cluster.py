"""Packing by the processes of a cluster: the same store, whoever is lost on the way."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.errors import (
    CorruptDataError,
    InputError,
    MissingFileError,
    OutputExistsError,
    StoppedError,
)
from frazil.io.particles import ParticleTable
from frazil.preprocess import cluster, part_job, pipeline, prepared
from frazil.preprocess.cluster import DaskWorkers, connected
from frazil.preprocess.monitor import BarMonitor
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store import parts, writer
from frazil.store.reader import ParticleStore
from tests.store.made import all_files, make_particles

BOX = 64
# Three encoding tasks, so that a sum over blocks in another order would show in the last bits.
COUNT = 2500
SETTINGS = PackSettings(box_px=32, max_threads=2)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ParticleTable:
    return make_particles(tmp_path_factory.mktemp("particles"), COUNT, BOX)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make about nine shards; only the plan knows, which travels to the workers."""
    for module in (writer, pipeline):
        monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    monkeypatch.setattr(writer, "SHARD_BYTES", 300 * 2 * 410)


@pytest.fixture
def expected(table: ParticleTable, tmp_path: Path) -> dict[str, bytes]:
    """Return the files of the store that one process packs."""
    store = pack(table, tmp_path / "alone.frz", SETTINGS)
    assert len(store.manifest.shard_rows) > 5
    assert 2 * prepared.PreparedImages.of(table, SETTINGS).task_images < COUNT
    return all_files(store.path)


@pytest.fixture(scope="module")
def workers() -> Iterator[DaskWorkers]:
    with connected("local", 2) as found:
        assert found is not None
        yield found


class AtPart(BarMonitor):
    """Calls `act` when so many parts are done."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.number, self.act, self.parts = number, act, 0

    @contextmanager
    def images(
        self, total: int, what: str, image_bytes: int, initial: int
    ) -> Iterator[Callable[[int], None]]:
        def advance(images: int) -> None:
            self.parts += 1
            if self.parts == self.number:
                self.act()

        yield advance


def stop() -> None:
    raise StoppedError("stopped by the test")


def test_a_cluster_writes_the_store_of_one_process_to_the_bit(
    table: ParticleTable, expected: dict[str, bytes], workers: DaskWorkers, tmp_path: Path
) -> None:
    store = pack(table, tmp_path / "X.frz", SETTINGS, workers=workers)
    assert all_files(store.path) == expected
    assert list(store.verify())


def test_the_part_of_a_killed_worker_is_done_by_another(
    table: ParticleTable, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with connected("local", 2) as found:
        assert found is not None
        before = found.client.run(os.getpid)

        def kill() -> None:
            os.kill(next(iter(before.values())), signal.SIGKILL)

        monitor = AtPart(1, kill)
        store = pack(table, tmp_path / "X.frz", SETTINGS, monitor=monitor, workers=found)
        assert set(found.client.run(os.getpid).values()) != set(before.values())
    assert all_files(store.path) == expected


def test_a_stopped_cluster_goes_on_with_the_parts_that_are_missing(
    table: ParticleTable, expected: dict[str, bytes], workers: DaskWorkers, tmp_path: Path
) -> None:
    out = tmp_path / "X.frz"
    with pytest.raises(StoppedError):
        pack(table, out, SETTINGS, monitor=AtPart(1, stop), workers=workers)
    folder = writer.partial_path(out)
    done = sorted((folder / parts.PARTS_FOLDER).rglob("[0-9]*.bin"))
    assert done
    with pytest.raises(OutputExistsError, match="was begun with --dask"):
        pack(table, out, SETTINGS)
    # A part that was cut is not taken for one that is done.
    os.truncate(done[0], done[0].stat().st_size - 1)
    pack(table, out, SETTINGS, workers=workers)
    assert all_files(out) == expected
    assert not folder.exists()


def test_parts_that_are_there_are_not_made_again(
    table: ParticleTable, workers: DaskWorkers, tmp_path: Path
) -> None:
    out = tmp_path / "X.frz"
    with pytest.raises(StoppedError):
        pack(table, out, SETTINGS, monitor=AtPart(3, stop), workers=workers)
    counted = AtPart(0, stop)
    pack(table, out, SETTINGS, monitor=counted, workers=workers)
    assert counted.parts == 0


def test_a_shard_that_a_worker_of_an_earlier_plan_left_is_not_taken_for_one_of_this(
    table: ParticleTable, expected: dict[str, bytes], workers: DaskWorkers, tmp_path: Path
) -> None:
    out = tmp_path / "X.frz"
    plan = pipeline._Packing(prepared.PreparedImages.of(table, SETTINGS)).plan

    def leave_a_shard() -> None:
        zeros = np.zeros((plan.shard_rows[2], plan.record_values), np.int8)
        writer.write_shard(writer.partial_path(out), plan, 2, zeros)
        assert writer.is_sealed(writer.partial_path(out), plan, 2)

    pack(table, out, SETTINGS, monitor=AtPart(1, leave_a_shard), workers=workers)
    assert all_files(out) == expected


def test_a_late_worker_of_an_earlier_plan_cannot_write_into_this_one(tmp_path: Path) -> None:
    earlier, now = (plan_of(100, seed=seed, fingerprint=str(seed)) for seed in (1, 2))
    late, mine = (parts.Parts.of(tmp_path, plan, 50) for plan in (earlier, now))
    facts = np.zeros(50, writer.FACTS_DTYPE)
    mine.folder.mkdir(parents=True)  # --overwrite removed the folder of the other
    with pytest.raises(MissingFileError, match="does not exist"):
        late.write(0, np.zeros((50, 6), np.int8), facts, b"[]")
    assert not mine.is_done(0)
    late.folder.mkdir()
    late.write(0, np.zeros((50, 6), np.int8), facts, b"[]")
    assert late.is_done(0) and not mine.is_done(0)


def test_a_flipped_byte_of_a_part_is_found_and_its_shard_named(tmp_path: Path) -> None:
    made = parts.Parts.of(tmp_path, plan_of(100), 50)
    made.folder.mkdir(parents=True)
    records = np.random.default_rng(0).integers(-128, 128, (100, 6)).astype(np.int8)
    for number in range(2):
        facts = np.zeros(50, writer.FACTS_DTYPE)
        made.write(number, records[made.images(number)], facts, b"[]")
    assert len(made.shard_records(0)) == 64
    path = made.folder / "00001.bin"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"00001\.bin: its records of shard 0 are not what"):
        made.shard_records(0)
    assert len(made.shard_records(1)) == 36


def test_packing_of_one_process_is_not_gone_on_with_by_a_cluster(
    table: ParticleTable, workers: DaskWorkers, tmp_path: Path
) -> None:
    out = tmp_path / "X.frz"
    with pytest.raises(StoppedError):
        pack(table, out, SETTINGS, monitor=AtPart(1, stop))
    with pytest.raises(OutputExistsError, match="was begun without --dask"):
        pack(table, out, SETTINGS, workers=workers)
    pack(
        table,
        out,
        PackSettings(box_px=32, max_threads=2, seed=1, overwrite=True),
        workers=workers,
    )
    assert list(ParticleStore.open(out).verify())


def test_what_a_worker_runs_into_is_the_error_of_the_command(
    workers: DaskWorkers, tmp_path: Path
) -> None:
    table = make_particles(tmp_path, COUNT, BOX)

    class Cutting(BarMonitor):
        @contextmanager
        def images(self, *_: Any) -> Iterator[Callable[[int], None]]:
            os.truncate(table.sources[0], 4000)  # after the headers were checked
            yield lambda images: None

    with pytest.raises((InputError, OSError), match=r"particles\.mrcs"):
        pack(table, tmp_path / "X.frz", SETTINGS, monitor=Cutting(), workers=workers)
    assert not (tmp_path / "X.frz").exists()


def test_the_command_packs_by_local_workers(
    table: ParticleTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, source = str(tmp_path / "X.frz"), table.sources[0]
    assert main(["preprocess", source, "-D", "32", "-o", out, "--dask", "local"]) == 0
    assert "each worker process takes" in capsys.readouterr().out
    assert main(["preprocess", source, "-D", "32", "-o", str(tmp_path / "Y.frz")]) == 0
    assert all_files(tmp_path / "X.frz") == all_files(tmp_path / "Y.frz")


def test_without_dask_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install distributed"), connected("local", 1):
        pass


def test_an_address_where_nobody_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(InputError, match="no scheduler answers"), connected("tcp://127.0.0.1:9", 1):
        pass


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="file system that all workers share"):
        part_job.encode_part(
            part_job.JobAddress(str(tmp_path / "X.frz.partial"), "any", part_job.__version__), 0
        )


def test_a_worker_of_another_version_says_so(
    table: ParticleTable, workers: DaskWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedError):  # the workers know the job
        pack(table, tmp_path / "X.frz", SETTINGS, monitor=AtPart(1, stop), workers=workers)
    monkeypatch.setattr(part_job, "__version__", "0.0.1")  # here, not in the workers
    with pytest.raises(InputError, match=r"0\.0\.1 is wanted"):
        pack(table, tmp_path / "X.frz", SETTINGS, workers=workers)


def plan_of(images: int, seed: int = 3, fingerprint: str = "f") -> writer.StorePlan:
    return writer.StorePlan(
        images=images,
        record_values=6,
        value_type="int8",
        bands=[],
        rows_per_shard=64,
        block_rows=16,
        seed=seed,
        fingerprint=fingerprint,
    )


def test_records_of_a_shard_come_back_from_the_parts(tmp_path: Path) -> None:
    images, values = 1000, 6
    plan = plan_of(images)
    made = parts.Parts.of(tmp_path, plan, 130)
    made.folder.mkdir(parents=True)
    records = np.random.default_rng(0).integers(-128, 128, (images, values)).astype(np.int8)
    for number in range(made.count):
        here = made.images(number)
        facts = np.zeros(here.stop - here.start, writer.FACTS_DTYPE)
        assert not made.is_done(number)
        made.write(number, records[here], facts, b"[]")
        assert made.is_done(number)
    shard, slot = writer.image_places(images, 64, 3)
    for number, rows in enumerate(plan.shard_rows):
        wanted = np.empty((rows, values), np.int8)
        wanted[slot[shard == number]] = records[shard == number]
        assert np.array_equal(made.shard_records(number), wanted)
