"""What fits is read once, what does not is streamed, and the batches are the same."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.errors import BudgetError, CorruptDataError
from frazil.loader import prefetch
from frazil.loader.batches import ParticleBatch
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.reader import ParticleStore
from tests.store.made import make_particles, shrink

BOX, COUNT, WINDOW = 36, 203, 20
WINDOWS_ROWS = 2 * (WINDOW + 16)  # two windows of whole chunks


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ParticleStore:
    """Return 203 particles in shards of 48 rows, chunks of 16 rows, two bands."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, 48, 4, BOX)
        return pack(make_particles(folder, COUNT, BOX), folder / "X.frz", PackSettings())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool]]:
    """Return a list that grows by (shard, first block, keep_pages) of each read from disk."""
    found: list[tuple[int, int, bool]] = []
    real = ParticleStore.read_blocks

    def read_blocks(
        self: ParticleStore,
        shard: int,
        first: int,
        stop: int,
        out: list[torch.Tensor],
        keep_pages: bool = True,
    ) -> None:
        found.append((shard, first, keep_pages))
        real(self, shard, first, stop, out, keep_pages)

    monkeypatch.setattr(ParticleStore, "read_blocks", read_blocks)
    return found


def bytes_of(store: ParticleStore, rows: int) -> int:
    return rows * 2 * len(store.disc)


def loader_of(store: ParticleStore, rows_that_fit: int | None, **changes: object) -> ParticleLoader:
    """Return a loader whose budget is that of so many rows beside its two windows."""
    budget = None if rows_that_fit is None else bytes_of(store, WINDOWS_ROWS + rows_that_fit)
    settings = LoaderSettings(batch_size=16, window_rows=WINDOW, memory_bytes=budget)
    return ParticleLoader(store, settings, **changes)


def same(one: ParticleBatch, other: ParticleBatch) -> bool:
    names = ("rows", "coefficients", "rotations", "shifts_px", "ctf_parameters")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize(("box_px", "every"), [(BOX, 1), (BOX, 3), (34, 1), (20, 1)])
def test_cached_and_streamed_epochs_are_bitwise_equal(
    store: ParticleStore, box_px: int, every: int
) -> None:
    chosen = np.arange(0, COUNT, every)
    loaders = [
        loader_of(store, fits, box_px=box_px, rows=chosen) for fits in (None, COUNT, COUNT // 2, 0)
    ]
    assert [loader.mode for loader in loaders[:2]] == ["cached", "cached"]
    if box_px == BOX:
        assert [loader.mode for loader in loaders[2:]] == ["streamed", "streamed"]
    for epoch in (1, 2, 3):
        for first, *others in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
            assert all(same(first, other) for other in others)
    for first, *others in zip(*(loader.in_order() for loader in loaders), strict=True):
        assert all(same(first, other) for other in others)


def test_a_box_or_selection_that_needs_less_is_cached_in_less(store: ParticleStore) -> None:
    assert loader_of(store, COUNT - 1).mode == "streamed"
    assert loader_of(store, COUNT).mode == "cached"
    assert loader_of(store, COUNT - 1, box_px=32).mode == "cached"
    one_shard = np.flatnonzero(store.rows["shard"] == 1)
    assert loader_of(store, 48, rows=one_shard).mode == "cached"
    assert loader_of(store, 47, rows=one_shard).mode == "streamed"


def test_chunks_that_fit_are_left_to_the_page_cache_and_others_are_not(
    store: ParticleStore, reads: list[tuple[int, int, bool]]
) -> None:
    chunks = {(shard, first) for shard in range(4) for first in (0, 4, 8)} | {(4, 0)}
    for fits, keep_pages in ((COUNT, True), (0, False)):
        reads.clear()
        loader = loader_of(store, fits)
        for epoch in (1, 2):
            list(loader.epoch(epoch))
        list(loader.in_order())
        assert sorted(reads) == sorted([(*chunk, keep_pages) for chunk in chunks] * 3)


def test_a_restart_in_mid_epoch_gives_the_rest_of_it(store: ParticleStore) -> None:
    loader = loader_of(store, COUNT)
    loader.load_state_dict({"epoch": 1, "batch": 7})
    tail = list(loader.epoch(1))
    whole = list(loader_of(store, 0).epoch(1))
    assert all(same(one, other) for one, other in zip(tail, whole[7:], strict=True))


@pytest.mark.parametrize("fits", [0, 1, 50, COUNT - 1, COUNT, 5 * COUNT])
@pytest.mark.parametrize("box_px", [BOX, 20])
def test_windows_and_cache_stay_within_the_budget(
    store: ParticleStore, monkeypatch: pytest.MonkeyPatch, fits: int, box_px: int
) -> None:
    real = ParticleStore.band_tensors
    sizes: list[int] = []

    def band_tensors(self: ParticleStore, count: int, bands: int) -> list[torch.Tensor]:
        made = real(self, count, bands)
        sizes.append(sum(tensor.nbytes for tensor in made))
        return made

    monkeypatch.setattr(ParticleStore, "band_tensors", band_tensors)
    loader = loader_of(store, fits, box_px=box_px)
    pages = loader._blocks.needed_bytes if loader.mode == "cached" else 0
    for epoch in (1, 2):
        sizes.clear()
        list(loader.epoch(epoch))
        assert pages + sum(sizes) <= loader.settings.memory_bytes
        assert loader._blocks.held_bytes == 0  # codes in files are not held twice


def test_no_ceiling_is_the_default_budget_and_never_refused(
    store: ParticleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "default_budget_bytes", lambda: 1000)
    loader = loader_of(store, None)
    assert loader.mode == "streamed" and sum(len(b.rows) for b in loader.epoch(1)) == COUNT
    with pytest.raises(BudgetError):
        loader_of(store, -WINDOWS_ROWS)


@pytest.mark.parametrize("fits", [COUNT, 0])
def test_a_damaged_block_is_an_error_in_every_epoch_and_no_thread_stays(
    store: ParticleStore, tmp_path: Path, fits: int
) -> None:
    path = Path(shutil.copytree(store.path, tmp_path / "damaged.frz"))
    shard = path / "shards" / "00002.b1.npy"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    loader = loader_of(ParticleStore.open(path), fits)
    before = set(threading.enumerate())
    for epoch in (1, 2):
        with pytest.raises(CorruptDataError, match=r"00002\.b1\.npy: rows 44 to 47 of shard 2"):
            list(loader.epoch(epoch))
        assert set(threading.enumerate()) == before


def resident_bytes(store: ParticleStore) -> int:
    """Return how much of the shards lies in the page cache."""
    files = sorted((store.path / "shards").iterdir())
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", *map(str, files)]
    return sum(map(int, subprocess.run(command, capture_output=True, check=True).stdout.split()))


def forget_pages(store: ParticleStore) -> None:
    """Drop the shards from the page cache."""
    os.sync()
    for path in (store.path / "shards").iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(shutil.which("fincore") is None, reason="needs fincore (util-linux)")
def test_streaming_leaves_next_to_nothing_in_the_page_cache(store: ParticleStore) -> None:
    found = []
    for fits in (COUNT, 0):
        forget_pages(store)
        list(loader_of(store, fits).epoch(1))
        found.append(resident_bytes(store))
    cached, streamed = found
    if not cached:
        pytest.skip("this file system does not use the page cache")
    assert cached >= bytes_of(store, COUNT) and streamed < cached / 10
