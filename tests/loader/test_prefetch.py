"""Batches hold the store's particles, each once per epoch, in an order that survives a restart."""

import threading
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.errors import BudgetError, CorruptDataError, InputError
from frazil.geometry.packing import half_disc
from frazil.io.particles import FLAG_NONFINITE
from frazil.loader import order
from frazil.loader.batches import ParticleBatch
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.reader import ParticleStore, disc_columns
from tests.store.made import make_particles, shrink

BOX, COUNT = 36, 203


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ParticleStore:
    """Return 203 particles in shards of 48 rows, blocks of 4 rows, two bands."""
    folder = tmp_path_factory.mktemp("loader")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, 48, 4, BOX)
        store = pack(make_particles(folder, COUNT, BOX), folder / "X.frz", PackSettings())
    assert store.manifest.shard_rows == [48, 48, 48, 48, 11]
    return store


def loader_of(store: ParticleStore, batch_size: int = 16, **changes: object) -> ParticleLoader:
    names = {"seed", "window_rows", "memory_bytes"}
    settings = {name: changes.pop(name) for name in names & changes.keys()}
    settings.setdefault("window_rows", 40)
    return ParticleLoader(store, LoaderSettings(batch_size=batch_size, **settings), **changes)


def rows_of(batches: Iterator[ParticleBatch]) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches]


def flat(batches: Iterator[ParticleBatch]) -> list[int]:
    return [row for rows in rows_of(batches) for row in rows]


@pytest.mark.parametrize("batch_size", [1, 7, 16, 64, 203, 500])
@pytest.mark.parametrize("window_rows", [1, 40, 10_000])
def test_every_row_leaves_once_in_full_batches(
    store: ParticleStore, batch_size: int, window_rows: int
) -> None:
    loader = loader_of(store, batch_size, window_rows=window_rows)
    batches = rows_of(loader.epoch(1))
    assert sorted(chain.from_iterable(batches)) == list(range(COUNT))
    assert [len(rows) for rows in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == loader.batches_per_epoch == -(-COUNT // batch_size)


@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_selection_leaves_once_and_nothing_else(store: ParticleStore, size: int) -> None:
    chosen = np.random.default_rng(size).permutation(COUNT)[:size]
    loader = loader_of(store, 8, rows=chosen)
    assert loader.row_count == size
    assert sorted(flat(loader.epoch(3))) == sorted(chosen.tolist())
    assert sorted(flat(loader.in_order())) == sorted(chosen.tolist())


def test_the_order_is_fixed_by_seed_and_epoch_alone(store: ParticleStore) -> None:
    first = flat(loader_of(store, 16, seed=2).epoch(4))
    assert flat(loader_of(store, 16, seed=2).epoch(4)) == first
    assert flat(loader_of(store, 5, seed=2).epoch(4)) == first
    assert flat(loader_of(store, 16, seed=2, memory_bytes=1 << 30).epoch(4)) == first
    assert flat(loader_of(store, 16, seed=2).epoch(5)) != first
    assert flat(loader_of(store, 16, seed=3).epoch(4)) != first
    expected = order.epoch_order(loader_of(store).layout, 40, 2, 4)
    assert first == expected.tolist()


def test_batches_hold_what_the_store_holds(store: ParticleStore) -> None:
    loader = loader_of(store)
    assert loader.norm_scale == store.rms(BOX)
    power = []
    for batch in loader.epoch(1):
        rows = batch.rows.numpy()
        wanted = store.images(rows) / store.rms(BOX)
        assert torch.allclose(batch.coefficients, wanted, rtol=1e-6, atol=0)
        power.append(batch.coefficients.abs().square().sum())
        assert np.array_equal(batch.rotations, store.rows["rotation"][rows])
        assert np.allclose(batch.shifts_px, store.rows["shift_ang"][rows] / 1.5, rtol=1e-6)
        assert np.array_equal(batch.ctf_parameters[:, 0], np.full(len(rows), 1.5, np.float32))
        assert np.array_equal(batch.ctf_parameters[:, 1], store.rows["defocus_u_ang"][rows])
    assert np.isclose(float(sum(power)) / (COUNT * len(store.disc)), 1, rtol=1e-3)


@pytest.mark.parametrize("box_px", [BOX - 2, 32, 18, 8])
def test_a_smaller_box_is_the_inner_part_with_its_own_pixel(
    store: ParticleStore, box_px: int
) -> None:
    loader = loader_of(store, box_px=box_px, norm_scale=2.0)
    scale = BOX / box_px
    assert loader.box_px == box_px and len(loader.disc) == len(half_disc(box_px))
    assert np.isclose(loader.pixel_size_ang, 1.5 * scale)
    batch = next(loader.epoch(1))
    rows = batch.rows.numpy()
    columns = disc_columns(store.disc, half_disc(box_px))
    assert torch.allclose(batch.coefficients, store.images(rows)[:, columns] / 2, rtol=1e-6, atol=0)
    assert np.allclose(batch.shifts_px, store.rows["shift_ang"][rows] / (1.5 * scale), rtol=1e-6)
    assert np.allclose(batch.ctf_parameters[:, 0], 1.5 * scale)
    assert np.allclose(batch.ctf_parameters[:, 5], store.rows["voltage_kv"][rows][0] * 0 + 2.7)
    whole = loader_of(store, box_px=box_px)
    assert whole.norm_scale == store.rms(box_px)


def test_a_small_box_reads_only_the_bands_that_it_needs(
    store: ParticleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = []
    monkeypatch.setattr(
        ParticleStore,
        "read_blocks",
        lambda self, shard, first, stop, out, keep: bands.append(len(out)),
    )
    list(loader_of(store, box_px=32).epoch(1))
    assert set(bands) == {1}
    list(loader_of(store, box_px=34).epoch(1))
    assert set(bands) == {1, 2}


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_take_disjoint_parts_of_the_same_batches(
    store: ParticleStore, world_size: int
) -> None:
    whole = rows_of(loader_of(store).epoch(2))
    ranks = [
        rows_of(loader_of(store, rank=rank, world_size=world_size).epoch(2))
        for rank in range(world_size)
    ]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == whole


@pytest.mark.parametrize("rank", [0, 1])
def test_a_restart_at_any_batch_gives_the_same_tail(store: ParticleStore, rank: int) -> None:
    changes = {"rank": rank, "world_size": 2, "window_rows": 30}
    whole = rows_of(loader_of(store, 20, **changes).epoch(1))
    for taken in range(len(whole) + 1):
        first = loader_of(store, 20, **changes)
        assert rows_of(islice(first.epoch(1), taken)) == whole[:taken]
        state = first.state_dict()
        assert state == {"epoch": 1, "batch": taken}
        second = loader_of(store, 20, **changes)
        second.load_state_dict(state)
        assert rows_of(second.epoch(1)) == whole[taken:]
        assert second.state_dict() == {"epoch": 2, "batch": 0}
        assert rows_of(second.epoch(2)) == rows_of(loader_of(store, 20, **changes).epoch(2))


def test_the_tail_after_a_restart_holds_the_same_numbers(store: ParticleStore) -> None:
    whole = list(loader_of(store).epoch(1))
    again = loader_of(store)
    again.load_state_dict({"epoch": 1, "batch": 5})
    for wanted, found in zip(whole[5:], again.epoch(1), strict=True):
        for name in ("rows", "coefficients", "rotations", "shifts_px", "ctf_parameters"):
            assert torch.equal(getattr(wanted, name), getattr(found, name))


def test_evaluation_covers_all_and_leaves_the_position(store: ParticleStore) -> None:
    loader = loader_of(store)
    training = loader.epoch(1)
    next(training)
    batches = list(loader.in_order())
    rows = torch.cat([batch.rows for batch in batches]).numpy()
    assert sorted(rows.tolist()) == list(range(COUNT))
    place = store.rows["shard"][rows].astype(np.int64) * 1000 + store.rows["slot"][rows]
    assert (np.diff(place) > 0).all()  # as it lies on disk
    wanted = store.images(rows) / store.rms()
    assert torch.allclose(torch.cat([b.coefficients for b in batches]), wanted, rtol=1e-6, atol=0)
    assert loader.state_dict() == {"epoch": 1, "batch": 1}
    training.close()


def test_a_batch_stays_as_it_was_while_others_are_read(store: ParticleStore) -> None:
    batches = list(loader_of(store, 8, window_rows=1).epoch(1))  # buffers used many times over
    for batch in batches:
        wanted = store.images(batch.rows.numpy()) / store.rms()
        assert torch.allclose(batch.coefficients, wanted, rtol=1e-6, atol=0)


def damaged_copy(store: ParticleStore, folder: Path) -> ParticleStore:
    import shutil

    path = Path(shutil.copytree(store.path, folder / "damaged.frz"))
    shard = path / "shards" / "00002.b1.npy"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    return ParticleStore.open(path)


@pytest.mark.parametrize("window_rows", [1, 40, 1000])
def test_an_error_of_a_reader_thread_arrives_and_no_thread_stays(
    store: ParticleStore, tmp_path: Path, window_rows: int
) -> None:
    damaged = damaged_copy(store, tmp_path)
    before = set(threading.enumerate())
    taken: list[int] = []
    with pytest.raises(CorruptDataError, match=r"00002\.b1\.npy: rows 44 to 47 of shard 2, band 1"):
        for batch in loader_of(damaged, window_rows=window_rows).epoch(1):
            taken += batch.rows.tolist()
    assert set(threading.enumerate()) == before
    bad = (damaged.rows["shard"] == 2) & (damaged.rows["slot"] >= 44)
    assert not bad[taken].any()
    # A box that does not need the damaged band is not hindered by it.
    assert len(flat(loader_of(damaged, box_px=32).epoch(1))) == COUNT


def test_closing_early_leaves_no_thread(store: ParticleStore) -> None:
    before = set(threading.enumerate())
    stream = loader_of(store, 4).epoch(1)
    next(stream)
    assert set(threading.enumerate()) != before  # positive control: there were readers
    stream.close()
    assert set(threading.enumerate()) == before


def buffered_bytes(loader: ParticleLoader, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the bytes of all buffers that an epoch allocates."""
    sizes = []
    real = ParticleStore.band_tensors

    def band_tensors(self: ParticleStore, count: int, bands: int) -> list[torch.Tensor]:
        made = real(self, count, bands)
        sizes.append(sum(tensor.nbytes for tensor in made))
        return made

    with monkeypatch.context() as patch:
        patch.setattr(ParticleStore, "band_tensors", band_tensors)
        list(loader.epoch(1))
    return sum(sizes)


@pytest.mark.parametrize("every", [1, 3, 20])
def test_buffers_are_two_windows_however_thin_the_selection(
    store: ParticleStore, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    window_rows, record_bytes = 40, 2 * len(store.disc)
    largest = 2 * (window_rows + order.CHUNK_BLOCKS * 4) * record_bytes
    loader = loader_of(
        store, window_rows=window_rows, rows=np.arange(0, COUNT, every), memory_bytes=largest
    )
    assert buffered_bytes(loader, monkeypatch) <= largest


def test_too_small_a_budget_is_refused_and_the_advice_works(store: ParticleStore) -> None:
    record_bytes = 2 * len(store.disc)
    budget = 2 * 30 * record_bytes
    with pytest.raises(BudgetError, match=r"give --shuffler-size 14 or more memory") as caught:
        loader_of(store, window_rows=100, memory_bytes=budget)
    assert "\n" not in str(caught.value)
    assert len(flat(loader_of(store, window_rows=14, memory_bytes=budget).epoch(1))) == COUNT
    with pytest.raises(BudgetError):
        loader_of(store, window_rows=15, memory_bytes=budget)
    with pytest.raises(BudgetError, match=r"give more memory"):
        loader_of(store, window_rows=1, memory_bytes=100)
    # A small box needs less.
    assert loader_of(store, window_rows=100, memory_bytes=budget * 9, box_px=16).row_count == COUNT


def changed(store: ParticleStore, column: str, row: int, value: object) -> ParticleStore:
    rows = store.table().rows
    rows[column][row] = value
    return store.with_rows(rows)


@pytest.mark.parametrize(
    ("column", "what", "flag"),
    [
        ("rotation", "pose", "--poses"),
        ("shift_ang", "shift", "--poses"),
        ("defocus_u_ang", "CTF", "--ctf"),
        ("amplitude_contrast", "CTF", "--ctf"),
        ("pixel_size_ang", "pixel size", "--ctf"),
    ],
)
def test_poisoned_metadata_are_refused_with_the_row_of_the_store(
    store: ParticleStore, column: str, what: str, flag: str
) -> None:
    poisoned = changed(store, column, 150, np.nan)
    chosen = np.arange(140, 160)
    with pytest.raises(InputError, match=rf"row 150 \(0-based\) has no {what} .*; give {flag}"):
        loader_of(poisoned, rows=chosen)
    assert loader_of(poisoned, rows=np.delete(chosen, 10)).row_count == 19


def test_absent_shifts_are_zero_and_absent_ctf_is_none(store: ParticleStore) -> None:
    rows = store.table().rows
    rows["shift_ang"], rows["defocus_u_ang"], rows["pixel_size_ang"] = np.nan, np.nan, np.nan
    batch = next(loader_of(store.with_rows(rows)).epoch(1))
    assert batch.ctf_parameters is None and not batch.shifts_px.any()
    moved = batch.to("cpu")
    assert moved.ctf_parameters is None and torch.equal(moved.rows, batch.rows)


def test_nonfinite_images_never_appear(store: ParticleStore) -> None:
    flags = np.array(store.rows)
    flags["flags"][[3, 77]] = FLAG_NONFINITE
    flagged = ParticleStore(store.path, store.manifest, flags, store.checksums, store.first_block)
    loader = loader_of(flagged)
    assert loader.excluded == {"non-finite": 2, "--drop-bad": 0}
    assert loader.row_count == COUNT - 2
    assert {3, 77}.isdisjoint(flat(loader.epoch(1))) and {3, 77}.isdisjoint(flat(loader.in_order()))
    with pytest.raises(InputError, match="no usable particles"):
        loader_of(flagged, rows=np.array([77, 3]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, COUNT], r"entry 1 \(0-based\) of the selection asks for row 203, but there are 203"),
        ([-1], "asks for row -1"),
        ([], "no usable particles"),
        ([True, False], "a selection of row numbers is wanted, not bool"),
        ([1.0], "row numbers is wanted, not float64"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused(
    store: ParticleStore, rows: list[object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        loader_of(store, rows=np.array(rows))


def test_a_box_that_the_store_does_not_hold_is_refused(store: ParticleStore) -> None:
    with pytest.raises(InputError, match="-D 38: larger than the box of the store"):
        loader_of(store, box_px=38)


def test_expanded_particles_share_a_record_and_keep_their_poses(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 5, BOX).take(np.repeat(np.arange(5), 4))
    table.rows["rotation"] *= np.arange(1, 21, dtype=np.float32)[:, None, None]
    expanded = pack(table, tmp_path / "X.frz", PackSettings(max_threads=1))
    rows = []
    for batch in loader_of(expanded, 3, window_rows=2).epoch(1):
        rows += batch.rows.tolist()
        assert np.array_equal(batch.rotations, table.rows["rotation"][batch.rows])
        wanted = expanded.images(batch.rows.numpy()) / expanded.rms()
        assert torch.allclose(batch.coefficients, wanted, rtol=1e-6, atol=0)
    assert sorted(rows) == list(range(20))
