"""A lazy source gives what a store of the same settings gives, without one."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.errors import CorruptDataError, InputError
from frazil.io.images import ImageSource, open_particles
from frazil.io.particles import ParticleTable
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess import prepared
from frazil.preprocess.fourier_stacks import write_fourier_stacks
from frazil.preprocess.lazy import LazyStore
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.manifest import Precision
from frazil.store.reader import ParticleStore
from frazil.store.records import ParticleRecords
from tests.store.made import make_images, make_particles, with_metadata, write_stack

SOURCE, BOX, COUNT = 36, 20, 203


def settings(**changes: object) -> PackSettings:
    return PackSettings(**{"max_threads": 1, **changes})


def codes_and_gains(store: ParticleRecords) -> tuple[np.ndarray, np.ndarray]:
    """Return the records (N, 2 P) and gains (N,) of all rows, read block by block."""
    layout, bands = store.manifest, len(store.manifest.bands)
    codes = []
    for shard, count in enumerate(layout.shard_rows):
        buffers = store.band_tensors(count, bands)
        store.read_blocks(shard, 0, -(-count // layout.block_rows), buffers)
        codes.append(torch.cat(buffers, dim=1).numpy())
    place = store.rows["shard"].astype(np.int64) * max(layout.shard_rows) + store.rows["slot"]
    return np.concatenate(codes)[place], store.gains(torch.arange(store.count)).numpy()


def expanded(table: ParticleTable) -> ParticleTable:
    """Return the particles twice, as symmetry expansion does, in an order unlike the source's."""
    generator = np.random.default_rng(5)
    return table.take(generator.permutation(np.repeat(np.arange(len(table)), 2)))


def as_fourier(folder: Path) -> ParticleTable:
    """Return the particles as cryoDRGN's Fourier stacks at BOX."""
    table = make_particles(folder, COUNT, SOURCE)
    listing = write_fourier_stacks(table, folder / "ft" / "X.txt", settings(box_px=BOX), 90)
    return with_metadata(open_particles(listing))


@pytest.mark.parametrize("precision", ["int8", "float16", "float32"])
@pytest.mark.parametrize("box_px", [None, BOX])
def test_codes_and_gains_are_bitwise_those_of_a_packed_store(
    precision: Precision, box_px: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "FEWEST_SAMPLED", 60)
    table = make_particles(tmp_path, COUNT, SOURCE)
    chosen = settings(precision=precision, box_px=box_px)
    lazy, packed = LazyStore.of(table, chosen), pack(table, tmp_path / "X.frz", chosen)
    assert lazy.sampled == 60
    for found, wanted in zip(codes_and_gains(lazy), codes_and_gains(packed), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    assert torch.equal(lazy.codec.step, packed.codec.step)
    # Positive control: other settings are other codes.
    other = LazyStore.of(table, settings(precision=precision, box_px=box_px, window_r=0.5))
    assert not np.array_equal(codes_and_gains(other)[0], codes_and_gains(packed)[0])


@pytest.mark.parametrize(
    "make", [as_fourier, lambda folder: expanded(make_particles(folder, COUNT, SOURCE))]
)
def test_other_inputs_are_bitwise_those_of_a_packed_store(make, tmp_path: Path) -> None:
    table = make(tmp_path)
    lazy, packed = LazyStore.of(table, settings()), pack(table, tmp_path / "X.frz", settings())
    assert lazy.manifest.images == packed.manifest.images == COUNT
    for found, wanted in zip(codes_and_gains(lazy), codes_and_gains(packed), strict=True):
        np.testing.assert_array_equal(found, wanted)


def loader(store: ParticleRecords, window_rows: int = 40, **changes: object) -> ParticleLoader:
    return ParticleLoader(
        store, LoaderSettings(batch_size=16, window_rows=window_rows), norm_scale=100.0, **changes
    )


@pytest.mark.parametrize("box_px", [SOURCE, BOX])
@pytest.mark.parametrize("twice", [False, True])
def test_every_row_comes_once_with_the_batch_contents_of_the_store(
    box_px: int, twice: bool, tmp_path: Path
) -> None:
    table = make_particles(tmp_path, COUNT, SOURCE)
    table = expanded(table) if twice else table
    chosen = np.random.default_rng(1).permutation(len(table))[: len(table) // 2]
    lazy = loader(LazyStore.of(table, settings(), chosen), rows=chosen, box_px=box_px)
    packed = loader(pack(table, tmp_path / "X.frz", settings()), rows=chosen, box_px=box_px)
    wanted = {}
    for batch in packed.in_order():
        wanted.update(zip(batch.rows.tolist(), batch.coefficients, strict=True))
    orders = []
    for epoch in (1, 2):
        batches = list(lazy.epoch(epoch))
        orders.append(list(chain.from_iterable(batch.rows.tolist() for batch in batches)))
        assert sorted(orders[-1]) == sorted(chosen.tolist())
        for batch in batches:
            rows = batch.rows.tolist()
            assert torch.equal(batch.coefficients, torch.stack([wanted[row] for row in rows]))
            assert torch.equal(batch.rotations, torch.from_numpy(table.rows["rotation"][rows]))
    assert orders[0] != orders[1]


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of images of each read from the source."""
    found: list[int] = []
    real = ImageSource.read

    def read(self: ImageSource, rows: np.ndarray, *rest: object) -> np.ndarray:
        found.append(len(rows))
        return real(self, rows, *rest)

    monkeypatch.setattr(ImageSource, "read", read)
    return found


def test_what_fits_is_read_once_and_what_does_not_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_particles(tmp_path, COUNT, SOURCE)
    store = LazyStore.of(table, settings())
    windows = 2 * (40 + 64) * 2 * len(store.disc)
    reads = counted_reads(monkeypatch)
    for memory, mode, read in ((None, "cached", [COUNT, 0, 0]), (windows, "streamed", [COUNT] * 3)):
        some = ParticleLoader(
            store, LoaderSettings(batch_size=16, window_rows=40, memory_bytes=memory)
        )
        assert some.mode == mode
        for wanted, batches in zip(
            read, (some.epoch(1), some.epoch(2), some.in_order()), strict=True
        ):
            reads.clear()
            assert sum(len(batch.rows) for batch in batches) == COUNT
            assert sum(reads) == wanted


def test_cached_streamed_and_continued_epochs_are_bitwise_equal(tmp_path: Path) -> None:
    table = make_particles(tmp_path, COUNT, SOURCE)
    store = LazyStore.of(table, settings())
    windows = 2 * (40 + 64) * 2 * len(store.disc)
    streamed = ParticleLoader(
        store, LoaderSettings(batch_size=16, window_rows=40, memory_bytes=windows), norm_scale=100.0
    )
    cached = loader(store)
    assert (streamed.mode, cached.mode) == ("streamed", "cached")
    for epoch in (1, 2):
        whole = list(cached.epoch(epoch))
        # A new loader over a new source, as after a restart: no gain is known yet.
        continued = loader(LazyStore.of(table, settings()))
        continued.load_state_dict({"epoch": epoch, "batch": 5})
        for others, first in ((streamed.epoch(epoch), 0), (continued.epoch(epoch), 5)):
            for one, other in zip(whole[first:], others, strict=True):
                assert torch.equal(one.rows, other.rows)
                assert torch.equal(one.coefficients, other.coefficients)


def test_only_the_images_of_the_selection_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_particles(tmp_path, COUNT, SOURCE)
    chosen = np.arange(0, COUNT, 7)
    some = loader(LazyStore.of(table, settings(), chosen), rows=chosen)
    reads = counted_reads(monkeypatch)
    assert sum(len(batch.rows) for batch in some.epoch(1)) == len(chosen) == sum(reads)


def test_a_window_mixes_many_places_of_the_source(tmp_path: Path) -> None:
    store = LazyStore.of(make_particles(tmp_path, 1024, 8), settings())
    some = loader(store, window_rows=512)
    rows = np.concatenate([batch.rows.numpy() for batch in some.epoch(1)])[:512]
    places = np.unique(rows // 64)
    assert len(places) == 8 and (np.diff(places) > 1).any()
    assert abs(np.corrcoef(np.arange(512), rows)[0, 1]) < 0.2


def test_a_window_over_all_rows_gives_the_same_set_of_images_as_the_store(tmp_path: Path) -> None:
    table = make_particles(tmp_path, COUNT, SOURCE)
    packed = pack(table, tmp_path / "X.frz", settings())
    both = [loader(store, window_rows=COUNT) for store in (LazyStore.of(table, settings()), packed)]
    sets = [
        {int(r): c for b in some.epoch(1) for r, c in zip(b.rows, b.coefficients, strict=True)}
        for some in both
    ]
    assert sets[0].keys() == sets[1].keys()
    assert all(torch.equal(sets[0][row], sets[1][row]) for row in sets[0])


def test_the_norm_is_the_rms_of_the_sample(tmp_path: Path) -> None:
    table = make_particles(tmp_path, COUNT, SOURCE)
    packed: ParticleStore = pack(table, tmp_path / "X.frz", settings())
    lazy = LazyStore.of(table, settings())
    assert lazy.sampled == COUNT
    for box_px in (SOURCE, BOX):
        assert lazy.rms(box_px) == pytest.approx(packed.rms(box_px), rel=1e-12)
    with pytest.raises(InputError, match="-D 38: larger than the box"):
        lazy.rms(38)


def test_images_that_are_not_finite_are_refused_with_the_row_unless_left_out(
    tmp_path: Path,
) -> None:
    images = make_images(COUNT, SOURCE)
    images[150, 3, 3] = np.nan
    table = with_metadata(open_particles(write_stack(tmp_path / "p.mrcs", images)))
    wanted = r"row 150 \(0-based; image 151 of .*p\.mrcs\) has non-finite pixels; leave it out"
    with pytest.raises(InputError, match=wanted):
        list(loader(LazyStore.of(table, settings())).epoch(1))
    others = np.delete(np.arange(COUNT), 150)
    some = loader(LazyStore.of(table, settings(), others), rows=others)
    assert all(torch.isfinite(batch.coefficients).all() for batch in some.epoch(1))


def test_a_source_that_is_cut_in_mid_run_is_named(tmp_path: Path) -> None:
    table = make_particles(tmp_path, COUNT, SOURCE)
    some = loader(LazyStore.of(table, settings()))
    stack = tmp_path / "particles.mrcs"
    with stack.open("rb+") as file:
        file.truncate(stack.stat().st_size // 2)
    with pytest.raises(CorruptDataError, match=r"particles\.mrcs"):
        list(some.epoch(1))
