"""Predicted sizes are those of real stores and of the loader's real buffers."""

from pathlib import Path

import numpy as np
import pytest

from frazil.io.atomic import write_npy_atomic
from frazil.loader.order import CHUNK_BLOCKS
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store import writer
from frazil.store.manifest import Precision
from frazil.store.reader import ParticleStore
from frazil.store.sizes import LoaderSize, StoreSize
from frazil.store.writer import partial_path
from tests.store.made import make_particles, make_store


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("precision", "box_px"), [("int8", 32), ("int8", 20), ("float16", 32), ("float32", 24)]
)
def test_predicted_bytes_on_disk_are_those_of_the_store(
    tmp_path: Path, precision: Precision, box_px: int
) -> None:
    settings = PackSettings(precision=precision, box_px=box_px, max_threads=1)
    store = pack(make_particles(tmp_path, 700, 32), tmp_path / "X.frz", settings)
    size = StoreSize(store.count, store.manifest.images, box_px, store.manifest.precision)
    assert size.disk_bytes == pytest.approx(bytes_below(store.path), rel=0.01)


def test_the_disk_never_holds_more_than_predicted_while_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = make_particles(tmp_path, 700, 32), tmp_path / "X.frz"
    found = []

    def watched(path: Path, array: np.ndarray) -> None:
        write_npy_atomic(path, array)
        found.append(bytes_below(partial_path(out)))

    monkeypatch.setattr(writer, "write_npy_atomic", watched)
    pack(table, out, PackSettings(max_threads=1))
    size = StoreSize(700, 700, 32, "int8")
    assert 0.8 * size.packing_disk_bytes < max(found) <= 1.01 * size.packing_disk_bytes


@pytest.mark.parametrize(("box_px", "window_rows"), [(80, 300), (64, 300), (32, 64), (80, 5000)])
def test_predicted_loader_memory_is_that_of_its_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box_px: int, window_rows: int
) -> None:
    store = make_store(tmp_path, 1100, 80)
    made = []
    real = ParticleStore.band_tensors

    def watched(self: ParticleStore, count: int, bands: int) -> object:
        tensors = real(self, count, bands)
        made.append(sum(tensor.nbytes for tensor in tensors))
        return tensors

    monkeypatch.setattr(ParticleStore, "band_tensors", watched)
    manifest = store.manifest
    row_bytes = 2 * manifest.bands[manifest.band_count(box_px) - 1].stop
    size = LoaderSize(manifest.images, row_bytes, CHUNK_BLOCKS * manifest.block_rows)
    budget = size.window_bytes(window_rows)
    settings = LoaderSettings(window_rows=window_rows, memory_bytes=budget)
    loader = ParticleLoader(store, settings, box_px=box_px)
    made.clear()
    seen = sum(len(batch.rows) for batch in loader.epoch(1))
    windows = sorted(made)[-2:]
    assert seen == 1100 and windows
    # A window ends with a whole chunk, so a buffer may be smaller by less than one.
    chunk_bytes = size.chunk_rows * row_bytes
    assert budget / 2 - chunk_bytes <= max(windows) <= budget / 2
    assert sum(windows) <= budget


def test_the_suggested_window_is_the_largest_that_fits() -> None:
    size = LoaderSize(10_000, 1000, 256)
    rows = size.window_rows_within(2_000_000)
    assert size.window_bytes(rows) <= 2_000_000 < size.window_bytes(rows + 1)
