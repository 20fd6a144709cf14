"""A store appears whole or not at all, and what stopped its writer, a second call finishes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from frazil.errors import BudgetError, CorruptDataError, InputError, OutputExistsError
from frazil.geometry.packing import half_disc
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from frazil.preprocess import pipeline
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store import writer
from frazil.store.reader import ParticleStore
from frazil.store.writer import StorePlan, StoreWriter, image_places, rows_per_shard
from tests.store.made import all_files, make_images, shrink, with_metadata, write_stack

BOX, COUNT = 16, 60
SETTINGS = PackSettings(max_threads=1)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ParticleTable:
    """Return 60 particles, for shards of 32 and 28 rows, committed 20 by 20; nothing is synced.

    One is constant and one an outlier, so that there is a list of them and a sheet.
    """
    shrink(monkeypatch, 32, 8, BOX)
    monkeypatch.setattr(pipeline, "APPEND_BYTES", 20 * 2 * len(half_disc(BOX)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    images = make_images(COUNT, BOX)
    images[7], images[40] = 1, 1000 * images[40]
    return with_metadata(open_particles(write_stack(tmp_path / "particles.mrcs", images)))


@pytest.fixture
def expected(table: ParticleTable, tmp_path: Path) -> dict[str, bytes]:
    """Return the files of the store that an uninterrupted run writes at X.frz."""
    files = all_files(pack(table, tmp_path / "X.frz", SETTINGS).path)
    (tmp_path / "X.frz").rename(tmp_path / "whole.frz")
    # manifest, particles, frequencies, checksums; two shards; screen.tsv and screen.png
    assert len(files) == 4 + 2 + 2 and b"outlier" in files["screen.tsv"]
    return files


def in_a_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; return its exit status (negative: the signal)."""
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


def on_change(act: Callable[[int], None]) -> None:
    """Call act(n) before the n-th change of a file or folder (opening to write counts)."""
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and args[1] in ("wb", "ab", "w", "r+b")
        if writes or event in CHANGES:
            seen += 1
            act(seen)

    sys.addaudithook(hook)


def kill_at(number: int) -> None:
    """Kill this process before its change number + 1."""
    on_change(lambda seen: os.kill(os.getpid(), signal.SIGKILL) if seen > number else None)


def count_changes(work: Callable[[], object], note: Path) -> int:
    """Return how many changes `work` makes."""

    def count() -> None:
        descriptor = os.open(note, os.O_WRONLY | os.O_CREAT)
        on_change(lambda seen: os.pwrite(descriptor, f"{seen}".encode(), 0) and None)
        work()

    assert in_a_child(count) == 0
    return int(note.read_text())


def test_killed_at_any_change_of_a_file_the_second_call_writes_the_same_store(
    table: ParticleTable, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out, number, kills, already_there = tmp_path / "X.frz", 0, 0, 0
    while True:
        status = in_a_child(lambda n=number: (kill_at(n), pack(table, out, SETTINGS)))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
        if out.exists():  # committed: nothing but what packing needed may be left over
            already_there += 1
            assert list(ParticleStore.open(out).verify())
            with pytest.raises(OutputExistsError):
                pack(table, out, SETTINGS)  # and removes what is left over
            assert all_files(out) == expected, f"killed before change {number}"
        else:
            pack(table, out, SETTINGS)
            assert all_files(out) == expected, f"killed before change {number}"
        assert not writer.partial_path(out).exists()
        assert list(ParticleStore.open(out).verify())
        shutil.rmtree(out)
        number += 1
    assert all_files(out) == expected
    assert kills > 40 and 0 < already_there < 10


def test_killed_while_replacing_a_store_one_of_the_two_is_left(
    table: ParticleTable, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out, other = tmp_path / "X.frz", PackSettings(max_threads=1, seed=5, overwrite=True)
    pack(table, tmp_path / "new.frz", other)
    new = all_files(tmp_path / "new.frz")
    outcomes = set()
    shutil.copytree(tmp_path / "whole.frz", out)
    total = count_changes(lambda: pack(table, out, other), tmp_path / "note")
    for number in [*range(total - 24, total - 12), total]:
        shutil.copytree(tmp_path / "whole.frz", out, dirs_exist_ok=True)
        status = in_a_child(lambda n=number: (kill_at(n), pack(table, out, other)))
        assert (status == 0) == (number == total)
        if out.exists():
            found = all_files(out)
            outcomes.add("old" if found == expected else "new")
            assert found == expected or {name: found[name] for name in new} == new
        else:
            outcomes.add("partial")
        pack(table, out, other)
        assert all_files(out) == new
        assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*.old"))
        shutil.rmtree(out)
    assert outcomes == {"old", "partial", "new"}


def plan_of(images: int, fingerprint: str = "a", seed: int = 0) -> StorePlan:
    return StorePlan(
        images=images,
        record_values=4,
        value_type="int8",
        bands=[],
        rows_per_shard=8,
        block_rows=4,
        seed=seed,
        fingerprint=fingerprint,
    )


def test_places_are_a_permutation_that_the_seed_fixes() -> None:
    shard, slot = image_places(1000, 64, 3)
    assert np.array_equal(np.sort(shard * 64 + slot), np.arange(1000))
    assert not np.array_equal(shard * 64 + slot, np.arange(1000))
    assert np.array_equal(shard, image_places(1000, 64, 3)[0])
    assert not np.array_equal(shard, image_places(1000, 64, 4)[0])


@pytest.mark.parametrize("record_bytes", [1, 12_852, 51_408, 10**6, 10**9])
def test_a_shard_is_about_64_mb_and_whole_blocks(record_bytes: int) -> None:
    rows = rows_per_shard(record_bytes)
    assert rows % writer.BLOCK_ROWS == 0 and rows > 0
    assert rows * record_bytes <= max(64 << 20, writer.BLOCK_ROWS * record_bytes)


def test_shards_of_a_plan_hold_every_image() -> None:
    assert [plan_of(n).shard_rows for n in (1, 8, 17)] == [[1], [8], [8, 8, 1]]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys, msgspec; from pathlib import Path; from frazil.store.writer import *\n"
        "plan = msgspec.json.decode(sys.argv[2], type=StorePlan)\n"
        "try: StoreWriter(Path(sys.argv[1]), plan)\n"
        "except OutputExistsError as error: sys.exit(str(error))\n"
    )
    plan = msgspec.json.encode(plan_of(20)).decode()
    command = [sys.executable, "-c", program, str(tmp_path / "X.frz"), plan]
    with StoreWriter(tmp_path / "X.frz", plan_of(20)):
        second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 1
    assert f"{tmp_path / 'X.frz'}: another process is writing it" in second.stderr
    third = subprocess.run(command, capture_output=True, text=True)  # the lock ends with its owner
    assert third.returncode == 0, third.stderr


def test_an_existing_store_is_not_replaced_unasked(table: ParticleTable, tmp_path: Path) -> None:
    out = tmp_path / "X.frz"
    before = all_files(pack(table, out, SETTINGS).path)
    with pytest.raises(OutputExistsError, match=r"X\.frz: exists already; give --overwrite"):
        pack(table, out, PackSettings(max_threads=1, seed=1))
    assert all_files(out) == before
    replaced = pack(table, out, PackSettings(max_threads=1, seed=1, overwrite=True))
    assert replaced.manifest.seed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.frz", "particles.mrcs"]


def test_what_is_no_store_is_never_removed(table: ParticleTable, tmp_path: Path) -> None:
    overwrite = PackSettings(max_threads=1, overwrite=True)
    folder, file, link = tmp_path / "F.frz", tmp_path / "T.frz", tmp_path / "L.frz"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    file.write_text("a file")
    link.symlink_to(folder)
    for out in (folder, file, link):
        with pytest.raises(OutputExistsError, match="is not a particle store"):
            pack(table, out, overwrite)
        with pytest.raises(OutputExistsError, match="exists already"):
            pack(table, out, SETTINGS)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert file.read_text() == "a file" and link.is_symlink()


def test_a_link_is_replaced_and_the_store_behind_it_left_alone(
    table: ParticleTable, tmp_path: Path
) -> None:
    overwrite = PackSettings(max_threads=1, overwrite=True)
    behind = pack(table, tmp_path / "behind.frz", SETTINGS).path
    for target in (behind, tmp_path / "nowhere"):
        link = tmp_path / f"to_{target.name}"
        link.symlink_to(target)
        pack(table, link, overwrite)
        assert not link.is_symlink() and all_files(link)
    assert all_files(behind) == all_files(tmp_path / "to_behind.frz")


def stop_after(appends: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the disk full at some append, half of whose bytes are written."""
    real, seen = writer._append, 0

    def append(path: Path, array: np.ndarray) -> None:
        nonlocal seen
        seen += 1
        if seen <= appends:
            return real(path, array)
        real(path, array[: len(array) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(writer, "_append", append)


@pytest.mark.parametrize("appends", [0, 1, 4, 8])
def test_a_full_disk_is_said_and_the_same_call_goes_on(
    table: ParticleTable, expected: dict[str, bytes], tmp_path: Path, appends: int
) -> None:
    out = tmp_path / "X.frz"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(appends, patch)
        with pytest.raises(BudgetError, match=r"the disk is full after \d+ of 60 images"):
            pack(table, out, SETTINGS)
    assert not out.exists()
    pack(table, out, SETTINGS)
    assert all_files(out) == expected


def interrupted(table: ParticleTable, out: Path, settings: PackSettings = SETTINGS) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(BudgetError):
            pack(table, out, settings)
    return writer.partial_path(out)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"box_px": 12}, {"precision": "float16"}, {"window": False}]
)
def test_unfinished_packing_of_other_settings_is_refused_or_begun_anew(
    table: ParticleTable, tmp_path: Path, change: dict[str, object]
) -> None:
    out = tmp_path / "X.frz"
    partial = interrupted(table, out, PackSettings(max_threads=1, **change))
    before = all_files(partial)
    with pytest.raises(OutputExistsError, match="unfinished packing of other settings"):
        pack(table, out, SETTINGS)
    assert all_files(partial) == before
    pack(table, out, PackSettings(max_threads=1, overwrite=True))
    wanted = pack(table, tmp_path / "Y.frz", SETTINGS)
    for name in ("particles.npy", "shards/00001.b0.npy"):
        assert (out / name).read_bytes() == (wanted.path / name).read_bytes()


def test_unfinished_packing_of_a_changed_stack_is_refused(
    table: ParticleTable, tmp_path: Path
) -> None:
    interrupted(table, tmp_path / "X.frz")
    os.utime(table.sources[0], ns=(1, 1))
    with pytest.raises(OutputExistsError, match="other settings or sources"):
        pack(table, tmp_path / "X.frz", SETTINGS)


def test_other_threads_and_strictness_continue_the_same_store(
    table: ParticleTable, expected: dict[str, bytes], tmp_path: Path
) -> None:
    interrupted(table, tmp_path / "X.frz")
    with pytest.raises(InputError, match="2 images are bad"):
        pack(table, tmp_path / "X.frz", PackSettings(max_threads=3, strict=True, drop_bad=True))
    pack(table, tmp_path / "X.frz", PackSettings(max_threads=3))
    assert all_files(tmp_path / "X.frz") == expected


def test_packing_of_a_version_that_knew_less_of_an_image_is_not_gone_on_with(
    table: ParticleTable, tmp_path: Path
) -> None:
    partial = interrupted(table, tmp_path / "X.frz")
    journal = json.loads((partial / "journal.json").read_text())
    del journal["facts_bytes"]
    (partial / "journal.json").write_text(json.dumps(journal))
    with pytest.raises(OutputExistsError, match="unfinished packing"):
        pack(table, tmp_path / "X.frz", SETTINGS)
    pack(table, tmp_path / "X.frz", PackSettings(max_threads=1, overwrite=True))


def test_a_journal_of_another_kind_is_as_good_as_other_settings(
    table: ParticleTable, tmp_path: Path
) -> None:
    partial = interrupted(table, tmp_path / "X.frz")
    (partial / "journal.json").write_text('{"kind": "of tomorrow"}')
    with pytest.raises(OutputExistsError, match="unfinished packing"):
        pack(table, tmp_path / "X.frz", SETTINGS)


@pytest.mark.parametrize("name", ["facts.bin", "00001.bin"])
@pytest.mark.parametrize("lost", [True, False])
def test_unfinished_packing_that_lost_bytes_is_refused(
    table: ParticleTable, tmp_path: Path, name: str, lost: bool
) -> None:
    bucket = interrupted(table, tmp_path / "X.frz") / "buckets" / name
    bucket.unlink() if lost else os.truncate(bucket, 7)
    with pytest.raises(CorruptDataError, match=f"{name}: holds"):
        pack(table, tmp_path / "X.frz", SETTINGS)
