"""Stores of format 1 open for ever: a small one, written by frazil 0.1.0, is kept here.

data/v1.frz was made by `make_fixture` below: 20 particles of 16 px, int8, blocks of 4 rows in
shards of 8; data/v1.json holds what numpy computed from the images before packing.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from frazil.store.reader import ParticleStore
from tests.store.made import make_images, make_store, numpy_coefficients, shrink

DATA = Path(__file__).with_name("data")


def known_values() -> dict[str, list[float]]:
    """Return the coefficients (kx, ky) = (1, 0), (3, -2) of images 0 and 19, by direct sums."""
    x = np.arange(16) - 8
    values = {}
    radius = np.hypot(x[:, None], x[None, :]) / 8
    window = np.clip((0.99 - radius) / (0.99 - 0.85), 0, 1)
    for row in (0, 19):
        image = -make_images(20, 16)[row].astype(np.float64) * window
        for kx, ky in ((1, 0), (3, -2)):
            wave = np.exp(-2j * np.pi * (kx * x[None, :] + ky * x[:, None]) / 16)
            value = (image * wave).sum()
            values[f"{row},{kx},{ky}"] = [value.real, value.imag]
    return values


def make_fixture(folder: Path) -> None:
    """Write data/v1.frz and data/v1.json; was run once, see the module's docstring."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, 8, 4, 16)
        store = make_store(folder, 20, 16)
    shutil.copytree(store.path, DATA / "v1.frz")
    (DATA / "v1.json").write_text(json.dumps(known_values(), indent=1) + "\n")


def test_a_store_of_version_1_opens_and_holds_what_it_held() -> None:
    store = ParticleStore.open(DATA / "v1.frz")
    assert (store.count, store.box_px, store.pixel_size_ang) == (20, 16, 1.5)
    assert store.manifest.shard_rows == [8, 8, 4] and store.manifest.precision == "int8"
    assert list(store.verify())[-1] == (3, 3)
    step = np.array(store.manifest.shells.step)
    for name, (real, imaginary) in json.loads((DATA / "v1.json").read_text()).items():
        row, kx, ky = map(int, name.split(","))
        place = int(((store.disc.kx == kx) & (store.disc.ky == ky)).nonzero()[0, 0])
        bound = step[int(store.disc.shell[place]) - 1] * store.rows["image_gain"][row] / 2
        found = complex(store.images(np.array([row]))[0, place])
        assert abs(found.real - real) <= bound * 1.001
        assert abs(found.imag - imaginary) <= bound * 1.001
        assert np.isclose(numpy_coefficients(store.path, row)[place], found, rtol=1e-6)
    rotation = store.rows["rotation"].astype(np.float64)
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert np.array_equal(store.rows["index"], np.arange(20))


def test_what_is_packed_today_is_what_was_packed_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, 8, 4, 16)
    new, old = make_store(tmp_path, 20, 16), ParticleStore.open(DATA / "v1.frz")
    assert new.manifest.bands == old.manifest.bands
    bound = np.repeat(old.codec.step[None, ::2].numpy(), 20, 0) * old.rows["image_gain"][:, None]
    difference = new.images(np.arange(20)) - old.images(np.arange(20))
    assert (np.abs(difference.numpy()) <= 2 * bound).all()  # another FFT may round otherwise
    assert np.array_equal(new.rows["slot"], old.rows["slot"])


def test_known_values_are_those_of_the_images() -> None:
    kept = json.loads((DATA / "v1.json").read_text())
    for name, value in known_values().items():
        assert np.allclose(kept[name], value, rtol=1e-6)
