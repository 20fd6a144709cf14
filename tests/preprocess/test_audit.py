"""A store that does not hold its sources, row by row, is never committed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frazil.errors import CorruptDataError
from frazil.io.images import open_images, open_particles
from frazil.io.particles import FLAG_CLIPPED, FLAG_NONFINITE, ParticleTable
from frazil.preprocess import pipeline
from frazil.preprocess.audit import audited_rows, read_back
from frazil.preprocess.pipeline import pack
from frazil.preprocess.report import describe_store
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import plan_transform
from frazil.store.reader import ParticleStore
from frazil.store.writer import StoreWriter
from tests.store.made import make_images, make_particles, with_metadata, write_stack

BOX, FEW = 24, 8  # all of 8 rows are read back


def settings(precision: str = "int8") -> PackSettings:
    return PackSettings(max_threads=1, precision=precision)


def spoil_rows(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[np.ndarray], None]) -> None:
    """Let the rows of particles.npy be changed after the records were written."""
    real = pipeline._Packing.final_rows

    def final_rows(self: Any, *known: Any) -> np.ndarray:
        rows = real(self, *known)
        spoil(rows)
        return rows

    monkeypatch.setattr(pipeline._Packing, "final_rows", final_rows)


def swap_places(rows: np.ndarray) -> None:
    for column in ("shard", "slot", "image_gain"):
        rows[column][[2, 5]] = rows[column][[5, 2]]


def stretch_gain(rows: np.ndarray) -> None:
    rows["image_gain"][[2, 5]] *= 1.05


@pytest.mark.parametrize("precision", ["int8", "float16", "float32"])
@pytest.mark.parametrize("spoil", [swap_places, stretch_gain])
def test_rows_that_are_not_their_images_are_caught_before_the_store_appears(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    spoil: Callable[[np.ndarray], None],
) -> None:
    table = make_particles(tmp_path, FEW, BOX)
    out = tmp_path / "X.frz"
    with monkeypatch.context() as patch:
        spoil_rows(patch, spoil)
        wanted = r"row 2 \(0-based; image 3 of .*particles\.mrcs\) .* \(2 of 8 images .* differ\)"
        with pytest.raises(CorruptDataError, match=wanted) as caught:
            pack(table, out, settings(precision))
    assert "\n" not in str(caught.value) and not out.exists()
    # What was wrong is put right by finishing the partial store anew.
    assert "audit: 8 images read back" in "\n".join(
        describe_store(pack(table, out, settings(precision)))
    )


def test_a_stack_that_changes_while_it_is_packed_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_particles(tmp_path, FEW, BOX)
    images = make_images(FEW, BOX)
    images[6] = make_images(1, BOX, seed=9)[0]
    real = StoreWriter.finish

    def finish(self: StoreWriter, *arguments: Any) -> Path:
        write_stack(tmp_path / "particles.mrcs", images)
        return real(self, *arguments)

    monkeypatch.setattr(StoreWriter, "finish", finish)
    with pytest.raises(CorruptDataError, match=r"row 6 .*image 7 of .*the stack changed"):
        pack(table, tmp_path / "X.frz", settings())
    assert not (tmp_path / "X.frz").exists()


def reread(store: ParticleStore, table: ParticleTable) -> tuple[tuple[int, ...], float]:
    transform = plan_transform(settings(), BOX, "real")
    found = read_back(store, open_images(table), transform, np.arange(len(table)))
    assert found.images == len(table)
    return found.bad_rows, found.largest_error


@pytest.mark.parametrize("precision", ["int8", "float16", "float32"])
def test_sound_stores_pass_with_clipped_constant_and_nonfinite_images(
    tmp_path: Path, precision: str
) -> None:
    images = make_images(30, BOX)
    images[3], images[4, 5, 5], images[7] = 5.0, np.nan, 1e30
    images[11] += 2000 * np.cos(2 * np.pi * 5 * np.arange(BOX) / BOX)  # nearly in one coefficient
    images[12:] += 1e4  # an offset, as of raw counts
    path = write_stack(tmp_path / "particles.mrcs", images)
    table = with_metadata(open_particles(path))
    store = pack(table, tmp_path / "X.frz", settings(precision))
    flags = store.rows["flags"]
    assert np.flatnonzero(flags & FLAG_NONFINITE).tolist() == [4, 7]
    assert (flags[11] & FLAG_CLIPPED > 0) == (precision == "int8")
    bad, largest = reread(store, table)
    bounds = {"int8": (0.45, 0.501), "float16": (1e-4, 0.1), "float32": (0, 0)}
    assert not bad and bounds[precision][0] <= largest <= bounds[precision][1]
    # Positive control: one gain is off a little.
    rows = store.table().rows
    rows["image_gain"][20] *= 1.01 if precision == "int8" else 1.001
    off = ParticleStore(store.path, store.manifest, rows, store.checksums, store.first_block)
    assert reread(off, table)[0] == (20,)


def test_the_sample_is_a_hundredth_of_the_rows_but_8_to_64_and_repeatable() -> None:
    for count, wanted in ((1, 1), (8, 8), (500, 8), (2000, 20), (6400, 64), (10**6, 64)):
        rows = audited_rows(count, 3)
        assert len(np.unique(rows)) == wanted and 0 <= rows.min() <= rows.max() < count
        assert np.array_equal(rows, audited_rows(count, 3))
    assert not np.array_equal(audited_rows(500, 3), audited_rows(500, 4))


def test_what_the_audit_found_is_said_once_and_is_the_same_each_time(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 30, BOX)
    stores = [pack(table, tmp_path / f"{n}.frz", settings()) for n in range(2)]
    assert stores[0].notes == stores[1].notes
    assert list(describe_store(stores[0]))[-1] == stores[0].notes[0]
    assert stores[0].notes[0].startswith("audit: 8 images read back, largest error 0.")
    assert ParticleStore.open(stores[0].path).notes == ()  # nothing of it is in the store
