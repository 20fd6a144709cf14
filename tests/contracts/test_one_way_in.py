"""Engines see the same batches whatever the particles were read from.

One contract, inherited by every way into a loader: a real-space stack packed at the box, packed at
a larger box, not packed at all, through cryoDRGN's Fourier stacks, and from other pixel types.
"""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.io.images import open_particles
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.fourier_stacks import write_fourier_stacks
from frazil.preprocess.lazy import LazyStore
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import packed_coefficients, plan_transform
from frazil.store.records import ParticleRecords
from tests.store.made import make_images, make_particles, with_metadata, write_stack

SOURCE, BOX, COUNT = 36, 20, 30


class BatchContract:
    """What every loader owes an engine. A way in says how its store is made, and how exactly."""

    tolerance = 2e-6

    def store(self, folder: Path) -> ParticleRecords:
        """Return a store of the particles made by `make_particles`."""
        raise NotImplementedError

    @pytest.fixture
    def loader(self, tmp_path: Path) -> ParticleLoader:
        settings = LoaderSettings(batch_size=7, window_rows=10)
        return ParticleLoader(self.store(tmp_path), settings, box_px=BOX)

    def test_coefficients_are_those_of_the_steps_in_units_of_their_rms(
        self, loader: ParticleLoader
    ) -> None:
        transform = plan_transform(PackSettings(box_px=BOX), SOURCE, "real")
        true = packed_coefficients(torch.from_numpy(make_images(COUNT, SOURCE)), transform)
        true /= true.abs().double().square().mean().sqrt().float()
        for batch in loader.epoch(1):
            assert batch.coefficients.dtype == torch.complex64
            assert (batch.coefficients - true[batch.rows]).abs().max() < self.tolerance

    def test_metadata_are_in_the_units_of_the_box(
        self, loader: ParticleLoader, tmp_path: Path
    ) -> None:
        (tmp_path / "again").mkdir()
        rows = make_particles(tmp_path / "again", COUNT, SOURCE).rows
        pixel = 1.5 * SOURCE / BOX
        assert loader.pixel_size_ang == pytest.approx(pixel)
        for batch in loader.epoch(1):
            mine = rows[batch.rows.numpy()]
            assert np.allclose(batch.rotations, mine["rotation"], atol=1e-6)
            assert np.allclose(batch.shifts_px, mine["shift_ang"] / pixel, rtol=1e-5)
            assert np.allclose(batch.ctf_parameters[:, 0], pixel)
            assert np.allclose(batch.ctf_parameters[:, 2], mine["defocus_v_ang"])

    def test_an_epoch_is_complete_and_its_tail_comes_back(self, loader: ParticleLoader) -> None:
        whole = [batch.rows.tolist() for batch in loader.epoch(1)]
        assert sorted(chain.from_iterable(whole)) == list(range(COUNT))
        loader.load_state_dict({"epoch": 1, "batch": 2})
        assert [batch.rows.tolist() for batch in loader.epoch(1)] == whole[2:]


def settings(**changes: object) -> PackSettings:
    return PackSettings(**{"max_threads": 1, "precision": "float32", **changes})


class TestPackedAtTheBox(BatchContract):
    def store(self, folder: Path) -> ParticleRecords:
        return pack(make_particles(folder, COUNT, SOURCE), folder / "X.frz", settings(box_px=BOX))


class TestPackedAtALargerBox(BatchContract):
    def store(self, folder: Path) -> ParticleRecords:
        return pack(make_particles(folder, COUNT, SOURCE), folder / "X.frz", settings())


class TestPackedInEightBits(BatchContract):
    tolerance = 0.5  # of the strongest shells: their step, not the RMS of all, is what counts

    def store(self, folder: Path) -> ParticleRecords:
        return pack(
            make_particles(folder, COUNT, SOURCE), folder / "X.frz", settings(precision="int8")
        )


class TestFromTheSourceAsItIsRead(BatchContract):
    def store(self, folder: Path) -> ParticleRecords:
        return LazyStore.of(make_particles(folder, COUNT, SOURCE), settings(box_px=BOX))


class TestThroughFourierStacks(BatchContract):
    def store(self, folder: Path) -> ParticleRecords:
        table = make_particles(folder, COUNT, SOURCE)
        listing = write_fourier_stacks(table, folder / "ft" / "X.txt", settings(box_px=BOX), 11)
        imported = open_particles(listing)
        fraction = table.rows["shift_ang"] / (1.5 * SOURCE)
        imported = imported.with_ctf(
            np.concatenate([np.full((COUNT, 1), SOURCE), table.ctf_array()], axis=1)
        ).with_poses(table.rows["rotation"], fraction)
        return pack(imported, folder / "X.frz", settings())


class TestFromBigEndianStacksWithAnExtendedHeader(BatchContract):
    def store(self, folder: Path) -> ParticleRecords:
        path = write_stack(folder / "b.mrcs", make_images(COUNT, SOURCE), "f4", ">", 320)
        return pack(with_metadata(open_particles(path)), folder / "X.frz", settings(box_px=BOX))
