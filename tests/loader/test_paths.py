"""Every way through the loader gives each row once, resumes anywhere, and leaves nothing behind.

The ways: cached in memory or streamed, with or without a copy on local disk, decoded or as codes.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frazil.errors import MissingFileError
from frazil.loader import batches
from frazil.loader.batches import CodedBatch, ParticleBatch
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.loader.tier import Tier
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.manifest import Precision
from frazil.store.reader import ParticleStore
from tests.store.made import make_particles, shrink

BOX, COUNT = 36, 203
ENOUGH = 1 << 30


def packed(folder: Path, precision: Precision = "int8") -> ParticleStore:
    """Return 203 particles in shards of 48 rows (of int8), chunks of 16 rows, two bands."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, 48, 4, BOX)
        table = make_particles(folder, COUNT, BOX)
        return pack(table, folder / "X.frz", PackSettings(precision=precision))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ParticleStore:
    return packed(tmp_path_factory.mktemp("paths"))


class Way:
    """One way through the loader: `rows` and `batches` do not depend on which."""

    store: ParticleStore

    def __init__(self, cached: bool, tier: Path | None, coded: bool) -> None:
        self.cached, self.tier, self.coded = cached, tier, coded

    def loader(
        self, store: ParticleStore, batch_size: int = 16, window: int = 40, **changes: object
    ) -> ParticleLoader:
        tier = None if self.tier is None else Tier(store, self.tier, lambda line: None)
        windows = 2 * min(window + 16, COUNT) * 2 * len(store.disc)
        chosen = LoaderSettings(
            batch_size=batch_size,
            window_rows=window,
            memory_bytes=ENOUGH if self.cached else windows,
        )
        return ParticleLoader(store, chosen, tier=tier, **changes)

    def batches(self, loader: ParticleLoader, number: int = 1) -> Iterator[ParticleBatch]:
        if not self.coded:
            return loader.epoch(number)
        return map(loader.decoder, loader.codes(number))

    def rows(self, loader: ParticleLoader, number: int = 1) -> list[list[int]]:
        return [batch.rows.tolist() for batch in self.batches(loader, number)]


@pytest.fixture(
    params=[(c, t, k) for c in (True, False) for t in (False, True) for k in (False, True)],
    ids=lambda p: "-".join(n for n, on in zip(("cached", "tier", "codes"), p, strict=True) if on),
)
def way(request: pytest.FixtureRequest, tmp_path: Path, store: ParticleStore) -> Way:
    cached, tier, coded = request.param
    made = Way(cached, tmp_path / "fast" if tier else None, coded)
    made.store = store
    return made


def same(one: ParticleBatch, other: ParticleBatch) -> bool:
    names = ("rows", "coefficients", "rotations", "shifts_px", "ctf_parameters")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_all_ways_give_the_same_bits(store: ParticleStore, way: Way) -> None:
    plain = Way(cached=False, tier=None, coded=False)
    loader, other = plain.loader(store), way.loader(store)
    assert (other.mode == "cached") == way.cached
    for epoch in (1, 2):
        pairs = zip(plain.batches(loader, epoch), way.batches(other, epoch), strict=True)
        assert all(same(one, two) for one, two in pairs)
    pairs = zip(loader.in_order(), other.in_order(), strict=True)
    assert all(same(one, two) for one, two in pairs)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batch_size=st.integers(1, 250),
    world=st.integers(1, 4),
    window=st.integers(1, 300),
    subset=st.sets(st.integers(0, COUNT - 1), min_size=1),
    stop=st.floats(0, 1),
)
def test_every_row_leaves_once_for_any_batch_ranks_subset_and_window(
    way: Way,
    batch_size: int,
    world: int,
    window: int,
    subset: set[int],
    stop: float,
) -> None:
    chosen = np.array(sorted(subset))
    taken = round(stop * -(-len(chosen) // batch_size))
    parts = []
    for rank in range(world):
        ranked = {"rows": chosen, "rank": rank, "world_size": world}
        loader = way.loader(way.store, batch_size, window, **ranked)
        stream = way.batches(loader)
        head = [batch.rows.tolist() for batch in islice(stream, taken)]
        state = loader.state_dict()
        again = way.loader(way.store, batch_size, window, **ranked)
        again.load_state_dict(state)
        parts.append(head + (way.rows(again) if state["epoch"] == 1 else []))
    rows = [list(chain(*ranks)) for ranks in zip(*parts, strict=True)]
    assert sorted(chain(*rows)) == sorted(chosen.tolist())
    assert all(len(batch) == batch_size for batch in rows[:-1])


def test_a_restart_at_any_batch_gives_the_same_tail(store: ParticleStore, way: Way) -> None:
    whole = list(way.batches(way.loader(store, 20, 30)))
    for taken in range(len(whole) + 1):
        first, second = way.loader(store, 20, 30), way.loader(store, 20, 30)
        list(islice(way.batches(first), taken))
        assert first.state_dict() == {"epoch": 1, "batch": taken}
        second.load_state_dict(first.state_dict())
        tail = list(way.batches(second))
        assert len(tail) == len(whole) - taken
        assert all(same(one, two) for one, two in zip(tail, whole[taken:], strict=True))
        assert second.state_dict() == {"epoch": 2, "batch": 0}


@pytest.mark.parametrize("precision", ["int8", "float16", "float32"])
@pytest.mark.parametrize("box_px", [BOX, 34, 20])
def test_codes_are_what_is_stored_and_decode_as_their_formula(
    tmp_path: Path, precision: Precision, box_px: int
) -> None:
    store = packed(tmp_path, precision)
    loader = ParticleLoader(store, LoaderSettings(batch_size=50), box_px=box_px)
    batch = next(loader.codes(1))
    assert {codes.dtype for codes in batch.codes} == {getattr(torch, precision)}
    codes = np.concatenate([codes.numpy() for codes in batch.codes], axis=1).astype(np.float32)
    step = loader.decoder.step.numpy()
    gain = store.rows["image_gain"][batch.rows.numpy()] / np.float32(loader.norm_scale)
    values = (codes * step) * gain[:, None]
    wanted = values[:, 0::2] + 1j * values[:, 1::2]
    if loader.decoder.picked is not None:
        wanted = wanted[:, loader.decoder.picked]
    batches.compiled_loop().result()
    found = loader.decoder(batch)
    assert np.array_equal(found.coefficients, wanted.astype(np.complex64))
    out = torch.empty_like(torch.from_numpy(values))
    batches.decode_anywhere(batch.codes, loader.decoder.step, batch.scale, out)
    assert np.array_equal(out, values)  # the way of other devices
    assert same(loader.decoder.to("cpu")(batch.to("cpu")), found)


def test_until_the_loop_is_compiled_torch_decodes_to_the_same_bits(
    store: ParticleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = ParticleLoader(store, LoaderSettings(batch_size=50))
    batch = next(loader.codes(1))
    batches.compiled_loop().result()
    found = loader.decoder(batch)
    monkeypatch.setattr(batches, "compiled_loop", Future)
    monkeypatch.setattr(batches, "decode_in_one_pass", None)
    assert same(loader.decoder(batch), found)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_codes_decode_to_the_same_bits_on_a_device(store: ParticleStore) -> None:
    loader = ParticleLoader(store, LoaderSettings(batch_size=50))
    decoder = loader.decoder.to("cuda")
    for batch in loader.codes(1):
        assert torch.equal(
            decoder(batch.to("cuda")).coefficients.cpu(), loader.decoder(batch).coefficients
        )


def test_a_shard_that_vanishes_in_mid_epoch_is_named_and_no_thread_stays(
    store: ParticleStore, tmp_path: Path, way: Way
) -> None:
    copy = ParticleStore.open(shutil.copytree(store.path, tmp_path / "X.frz"))
    loader, before = way.loader(copy, 8, 16), set(threading.enumerate())
    stream, taken = way.batches(loader), []
    taken.append(next(stream).rows)
    shutil.rmtree(copy.path / "shards")
    with pytest.raises(MissingFileError, match=r"shards/0000\d\.b\d\.npy: a shard is lost"):
        taken += [batch.rows for batch in stream]
    assert set(threading.enumerate()) == before
    assert 0 < sum(map(len, taken)) < COUNT


def test_stopping_early_leaves_no_thread(store: ParticleStore, way: Way) -> None:
    before = set(threading.enumerate())
    loader = way.loader(store, 4)
    stream = loader.codes(1) if way.coded else loader.epoch(1)
    next(stream)
    assert set(threading.enumerate()) != before  # positive control: there were readers
    stream.close()
    assert set(threading.enumerate()) == before
    for batch in loader.codes(1) if way.coded else loader.epoch(1):  # abandoned, not closed
        assert isinstance(batch, CodedBatch if way.coded else ParticleBatch)
        break
    del batch
    assert set(threading.enumerate()) == before


def children() -> set[str]:
    """Return the process numbers of this process's children."""
    tasks = Path("/proc/self/task").iterdir()
    return set(chain(*((task / "children").read_text().split() for task in tasks)))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_an_epoch_starts_no_process_and_leaves_no_shared_memory(
    store: ParticleStore, way: Way
) -> None:
    def seen() -> tuple[set[str], set[str]]:
        return children(), set(os.listdir("/dev/shm"))  # noqa: PTH208 - names are wanted

    before = seen()
    loader = way.loader(store, 8)
    assert {str(seen()) for _ in way.batches(loader)} == {str(before)}
    assert seen() == before


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_the_probe_sees_worker_processes() -> None:
    # Positive control of the test above: what PyTorch's own loader does.
    import subprocess

    with subprocess.Popen(["sleep", "5"]) as process:
        assert str(process.pid) in children()
        process.kill()
