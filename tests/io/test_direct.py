"""Reading past the page cache gives the same bytes and leaves nothing there."""

import errno
import mmap
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frazil.errors import CorruptDataError, MissingFileError
from frazil.io import direct
from frazil.io.direct import is_cached, read_past_cache, read_through_cache
from frazil.store.reader import ShardFile

SIZE = 3 * direct.PIECE_BYTES // 2 + 1234
CONTENT = np.random.default_rng(3).integers(0, 256, SIZE, np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("direct") / "bytes"
    path.write_bytes(CONTENT.tobytes())
    return path


def forget(path: Path) -> None:
    """Drop a file from the page cache; pages that were just written stay for a moment."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    for _ in range(100):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if not is_cached(path):
            break
        time.sleep(0.05)
    os.close(descriptor)


def without_direct_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file system of a kind that refuses them."""

    def refused(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(direct, "_read_aligned", refused)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, SIZE + 9000),
    length=st.integers(0, 10_000) | st.sampled_from([direct.PIECE_BYTES, SIZE]),
)
@pytest.mark.parametrize("refuse", [False, True])
def test_any_piece_of_a_file_is_that_piece(
    file: Path, start: int, length: int, refuse: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if refuse:
            without_direct_reads(patch)
        for read in (read_past_cache, read_through_cache):
            out = np.zeros(length, np.uint8)
            assert read(file, out, start) == len(CONTENT[start : start + length])
            assert np.array_equal(out[: max(0, SIZE - start)], CONTENT[start : start + length])


def test_direct_reads_are_made_here(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        assert not direct.is_direct(descriptor)
        direct.bypass_cache(descriptor)
        out = np.zeros(100, np.uint8)
        assert direct.read_at(descriptor, out, 5000) == 100 and direct.is_direct(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("refuse", [False, True])
def test_nothing_is_left_in_the_page_cache(
    file: Path, refuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refuse:
        without_direct_reads(monkeypatch)
    forget(file)
    assert not is_cached(file)
    read_past_cache(file, np.empty(SIZE, np.uint8), 0)
    assert not is_cached(file)
    read_through_cache(file, np.empty(SIZE, np.uint8), 0)
    assert is_cached(file)  # so the line before would have seen it


def test_what_was_just_written_is_cached_and_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.write_bytes(CONTENT.tobytes())
    assert is_cached(path)
    out = np.empty(SIZE, np.uint8)
    assert read_past_cache(path, out, 0) == SIZE and np.array_equal(out, CONTENT)


def test_threads_do_not_share_their_buffer(file: Path) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for start in np.random.default_rng(seed).integers(0, SIZE - 70_000, 50).tolist():
            out = np.empty(70_000, np.uint8)
            read_past_cache(file, out, start)
            if not np.array_equal(out, CONTENT[start : start + len(out)]):
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_dropping_takes_the_pages_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    advice: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: advice.append(arguments))
    page = max(4096, mmap.PAGESIZE)
    direct.drop_pages(7, page + 1, 3 * page + 1)
    assert advice == [(7, page, 3 * page, os.POSIX_FADV_DONTNEED)]


@pytest.mark.parametrize("keep_pages", [False, True])
def test_a_shard_is_read_through_the_page_cache_only_when_pages_may_stay(
    tmp_path: Path, keep_pages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = tmp_path / "00000.b0.npy", np.arange(600, dtype=np.int8).reshape(100, 6)
    np.save(path, rows)
    shard = ShardFile.open(path, rows.shape, rows.dtype)
    ways: list[bool] = []
    for number, name in enumerate(("read_past_cache", "read_through_cache")):
        real = getattr(direct, name)

        def watched(*arguments: object, real=real, number=number) -> int:
            ways.append(bool(number))
            return real(*arguments)

        monkeypatch.setattr(f"frazil.store.reader.{name}", watched)
    out = np.empty((20, 6), np.int8)
    shard.read_into(out, 30, keep_pages)
    assert np.array_equal(out, rows[30:50]) and ways == [keep_pages]


@pytest.mark.parametrize("keep_pages", [False, True])
def test_a_cut_or_lost_shard_is_named(tmp_path: Path, keep_pages: bool) -> None:
    path, rows = tmp_path / "00000.b0.npy", np.zeros((100, 6), np.int8)
    np.save(path, rows)
    shard = ShardFile.open(path, rows.shape, rows.dtype)
    os.truncate(path, 128 + 100)
    with pytest.raises(CorruptDataError, match=r"00000\.b0\.npy: ends at byte 228"):
        shard.read_into(np.empty((100, 6), np.int8), 0, keep_pages)
    path.unlink()
    with pytest.raises(MissingFileError, match="a shard is lost"):
        shard.read_into(np.empty((1, 6), np.int8), 0, keep_pages)
