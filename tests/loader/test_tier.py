"""The copy of a store on local disk: same batches, nothing lost by a kill, nothing else deleted."""

import json
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.errors import CorruptDataError, InputError
from frazil.loader import tier as tier_module
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.loader.tier import Tier
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.reader import ParticleStore
from tests.store.made import all_files, make_particles, shrink

BOX, COUNT, WINDOW = 36, 203, 20
STREAMED, CACHED = 0, COUNT


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> ParticleStore:
    """Return 203 particles in shards of 48 rows, chunks of 16 rows, two bands."""
    folder = tmp_path_factory.mktemp("tier")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, 48, 4, BOX)
        return pack(make_particles(folder, COUNT, BOX), folder / "X.frz", PackSettings())


@pytest.fixture
def store(packed: ParticleStore, tmp_path: Path) -> ParticleStore:
    """Return a copy that a test may damage."""
    return ParticleStore.open(shutil.copytree(packed.path, tmp_path / "X.frz"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "fast" / "disk"


def tier_of(store: ParticleStore, cache: Path, said: list[str] | None = None) -> Tier:
    return Tier(store, cache, (said if said is not None else []).append)


def loader_of(
    store: ParticleStore, tier: Tier | None, fits: int = STREAMED, **changes: object
) -> ParticleLoader:
    budget = 2 * len(store.disc) * (2 * (WINDOW + 16) + fits)
    settings = LoaderSettings(batch_size=16, window_rows=WINDOW, memory_bytes=budget)
    return ParticleLoader(store, settings, tier=tier, **changes)


def epoch(loader: ParticleLoader, number: int = 1) -> torch.Tensor:
    """Return all coefficients of an epoch, in its order."""
    return torch.cat([batch.coefficients for batch in loader.epoch(number)])


class Hidden:
    """While inside, the shards of a store are not there."""

    def __init__(self, store: ParticleStore) -> None:
        self.shards = store.path / "shards"
        self.aside = store.path / "aside"

    def __enter__(self) -> None:
        self.shards.rename(self.aside)

    def __exit__(self, *error: object) -> None:
        self.aside.rename(self.shards)


@pytest.mark.parametrize("fits", [STREAMED, CACHED])
def test_batches_are_the_same_and_the_second_run_needs_no_shards(
    store: ParticleStore, cache: Path, fits: int
) -> None:
    wanted = epoch(loader_of(store, None))
    said: list[str] = []
    assert torch.equal(epoch(loader_of(store, tier_of(store, cache, said), fits)), wanted)
    assert "holds 0 B of" in said[0] and "all fits" in said[0]
    assert said[1].endswith(f"0 B read here, {size(store)} from the store, {size(store)} copied")
    with Hidden(store):
        with pytest.raises(FileNotFoundError):  # positive control: the store alone cannot
            epoch(loader_of(store, None))
        said.clear()
        assert torch.equal(epoch(loader_of(store, tier_of(store, cache, said), fits)), wanted)
    assert said[1].endswith(f"{size(store)} read here, 0 B from the store, 0 B copied")
    for path, content in all_files(store.path / "shards").items():
        assert (tier_of(store, cache).folder / "shards" / path).read_bytes() == content


def size(store: ParticleStore) -> str:
    from frazil.store.budget import size_text

    return size_text(COUNT * 2 * len(store.disc))


def test_only_the_bands_and_chunks_that_are_read_are_copied(
    store: ParticleStore, cache: Path
) -> None:
    tier = tier_of(store, cache)
    one_shard = np.flatnonzero(store.rows["shard"] == 1)
    epoch(loader_of(store, tier, rows=one_shard, box_px=32))
    assert [path.name for path in (tier.folder / "shards").iterdir()] == ["00001.b0.npy"]
    # More of it later: what is there is used, the rest is added.
    assert torch.equal(epoch(loader_of(store, tier)), epoch(loader_of(store, None)))
    assert len(list((tier.folder / "shards").iterdir())) == 10


def test_a_kill_at_any_write_does_no_harm(
    store: ParticleStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, real = epoch(loader_of(store, None)), os.pwrite
    for lived in range(0, 60, 7):
        left = [lived]  # one write arrives in half then, and no later one

        def pwrite(fd: int, data: memoryview, at: int, left: list[int] = left) -> int:
            left[0] -= 1
            if left[0] == -1:
                real(fd, data[: len(data) // 2], at)
            return len(data) if left[0] < 0 else real(fd, data, at)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            epoch(loader_of(store, tier_of(store, cache)))
        assert torch.equal(epoch(loader_of(store, tier_of(store, cache))), wanted)
        with Hidden(store):
            assert torch.equal(epoch(loader_of(store, tier_of(store, cache))), wanted)
        shutil.rmtree(cache)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "header", "empty"])
def test_a_damaged_copy_is_mended_from_the_store(
    store: ParticleStore, cache: Path, harm: str
) -> None:
    wanted = epoch(loader_of(store, tier_of(store, cache)))
    path = tier_of(store, cache).folder / "shards" / "00002.b1.npy"
    sound = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        place = 3 if harm == "header" else len(sound) - 1
        flipped = sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :]
        texts = {"flip": flipped, "header": flipped, "truncate": sound[:-100], "empty": b""}
        path.write_bytes(texts[harm])
    assert torch.equal(epoch(loader_of(store, tier_of(store, cache))), wanted)
    with Hidden(store):
        assert torch.equal(epoch(loader_of(store, tier_of(store, cache))), wanted)
    assert path.read_bytes() == sound


def test_damage_of_the_store_is_an_error_that_names_the_store(
    store: ParticleStore, cache: Path
) -> None:
    path = store.path / "shards" / "00002.b1.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    before = set(threading.enumerate())
    with pytest.raises(CorruptDataError, match=rf"{path}: rows 44 to 47 of shard 2, band 1"):
        epoch(loader_of(store, tier_of(store, cache)))
    assert set(threading.enumerate()) == before


Usage = namedtuple("Usage", "total used free")


def test_short_space_is_filled_to_the_floor_and_the_run_goes_on(
    store: ParticleStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = 60 * 2 * len(store.disc)

    def disk_usage(folder: Path) -> Usage:
        return Usage(1 << 40, 0, tier_module.FREE_BYTES + allowed - written(folder))

    def written(folder: Path) -> int:
        return sum(np.count_nonzero(np.fromfile(p, np.int8)) for p in folder.rglob("*.npy"))

    monkeypatch.setattr(tier_module, "FREE_SHARE", 0.0)
    monkeypatch.setattr(tier_module.shutil, "disk_usage", disk_usage)
    wanted, said = epoch(loader_of(store, None)), list[str]()
    tier = tier_of(store, cache, said)
    assert torch.equal(epoch(loader_of(store, tier)), wanted)
    assert not tier.copying
    assert [line for line in said if "the disk has no more room" in line] == said[1:2]
    # Each of the four readers may take the last room for its chunk at the same time.
    assert 0 < written(tier.folder) < allowed + 4 * 16 * 2 * len(store.disc)
    assert written(tier.folder) < written(store.path / "shards")
    # What was copied is used by the next run.
    said.clear()
    assert torch.equal(epoch(loader_of(store, tier_of(store, cache, said))), wanted)
    assert not any(" 0 B read here" in line for line in said)


def test_a_full_disk_stops_the_copy_and_not_the_run(
    store: ParticleStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(*given: object) -> int:
        raise OSError(28, "No space left on device")

    said: list[str] = []
    wanted, tier = epoch(loader_of(store, None)), tier_of(store, cache, said)
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert torch.equal(epoch(loader_of(store, tier)), wanted)
    full = f"{tier.folder}: No space left on device; what is missing here is read from the store"
    assert said.count(full) == 1


def repacked(store: ParticleStore, folder: Path) -> ParticleStore:
    """Replace a store by one of other images under the same path."""
    shutil.rmtree(store.path)
    (folder / "other").mkdir()
    return pack(make_particles(folder / "other", 60, BOX, seed=5), store.path, PackSettings())


def test_a_repacked_store_deletes_its_old_copy_and_nothing_else(
    store: ParticleStore, cache: Path, tmp_path: Path
) -> None:
    old = tier_of(store, cache)
    epoch(loader_of(store, old))
    other = ParticleStore.open(shutil.copytree(store.path, tmp_path / "Y.frz"))
    neighbour = tier_of(other, cache)
    epoch(loader_of(other, neighbour))
    (cache / "notes.txt").write_text("mine")
    (cache / "strange.tier").mkdir()
    (old.folder / "shards" / "thesis.npy").write_text("mine")
    before = all_files(neighbour.folder)
    said: list[str] = []
    new = repacked(store, tmp_path)
    tier = tier_of(new, cache, said)
    assert said[0].startswith(f"{old.folder}: was the copy of an older {new.path}")
    assert "kept, as they are not of frazil: shards, shards/thesis.npy" in said[0]
    assert all_files(old.folder) == {"shards/thesis.npy": b"mine"}
    assert all_files(neighbour.folder) == before and (cache / "strange.tier").is_dir()
    assert (cache / "notes.txt").read_text() == "mine"
    assert torch.equal(epoch(loader_of(new, tier, COUNT)), epoch(loader_of(new, None, COUNT)))


def test_a_list_that_was_tampered_with_deletes_nothing_outside(
    store: ParticleStore, cache: Path, tmp_path: Path
) -> None:
    old = tier_of(store, cache)
    victim = tmp_path / "victim.npy"
    victim.write_text("mine")
    record = json.loads((old.folder / "tier.json").read_text())
    record["files"] += ["../../../victim.npy", str(victim), "shards/../../../../victim.npy"]
    (old.folder / "tier.json").write_text(json.dumps(record))
    tier_of(repacked(store, tmp_path), cache)
    assert victim.read_text() == "mine" and not old.folder.exists()


def test_a_folder_that_is_not_ours_is_refused(store: ParticleStore, cache: Path) -> None:
    folder = tier_of(store, cache).folder
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "mine.txt").touch()
    with pytest.raises(InputError, match=r"does not say what it holds; move it away"):
        tier_of(store, cache)
    cache.with_name("file").touch()
    with pytest.raises(InputError, match=r"file: cannot be used .*; give another --cache"):
        tier_of(store, cache.with_name("file"))


def test_several_loaders_share_one_copy(store: ParticleStore, cache: Path) -> None:
    wanted = [batch.coefficients for batch in loader_of(store, None).epoch(1)]
    streams: list[Iterator[object]] = [
        loader_of(store, tier_of(store, cache)).epoch(1) for _ in range(3)
    ]
    for batches in zip(wanted, *streams, strict=True):
        first, *others = batches
        assert all(torch.equal(first, other.coefficients) for other in others)


def test_streaming_drops_the_pages_of_the_copy(
    store: ParticleStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[Path] = []
    monkeypatch.setattr(tier_module, "_DROP_LAG", 0)
    real = tier_module.drop_pages

    def drop_pages(descriptor: int, start: int, stop: int) -> None:
        dropped.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor, start, stop)

    monkeypatch.setattr(tier_module, "drop_pages", drop_pages)
    epoch(loader_of(store, tier_of(store, cache), CACHED))
    assert not dropped  # positive control: what is cached in memory leaves its pages
    shutil.rmtree(cache)
    tier = tier_of(store, cache)
    epoch(loader_of(store, tier))
    written = sorted((tier.folder / "shards").iterdir())
    assert sorted(dropped) == sorted([*written[:8] * 6, *written[8:] * 2])
