"""A store gives back what was packed, to numpy too, and names every byte that changed."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.geometry.packing import half_disc
from frazil.io.images import open_images
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import packed_coefficients, plan_transform
from frazil.store import reader
from frazil.store.reader import ParticleStore, disc_columns
from tests.store.made import make_store, numpy_coefficients, shrink

COUNT, BOX = 50, 36


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> ParticleStore:
    """Return a store of three shards of 24, 24 and 2 rows, two bands, blocks of 8."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, 24, 8, BOX)
        store = make_store(tmp_path_factory.mktemp("store"), COUNT, BOX)
    assert store.manifest.shard_rows == [24, 24, 2] and len(store.manifest.bands) == 2
    return store


@pytest.fixture
def copy(packed: ParticleStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.path, tmp_path / "copy.frz"))


def true_coefficients(store: ParticleStore, **settings: object) -> torch.Tensor:
    with open_images(store.table()) as images:
        real = torch.from_numpy(images.read(np.arange(store.count)))
    return packed_coefficients(real, plan_transform(PackSettings(**settings), BOX, "real"))


def read_everything(folder: Path) -> np.ndarray:
    store = ParticleStore.open(folder)
    assert list(store.verify())[-1] == (3, 3)
    return store.images(np.arange(store.count)).numpy()


def flip(path: Path, position: int, mask: int = 0xFF) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def test_images_are_the_packed_ones_within_half_a_step(packed: ParticleStore) -> None:
    error = torch.view_as_real(packed.images(np.arange(COUNT)) - true_coefficients(packed))
    gain = torch.from_numpy(packed.rows["image_gain"].copy())[:, None]
    in_steps = error.flatten(1).abs() / packed.codec.step / gain
    assert not packed.rows["flags"].any()
    assert 0.4 < in_steps.max() <= 0.5 + 1e-3


def test_float32_store_is_exact(tmp_path: Path) -> None:
    store = make_store(tmp_path, 10, BOX, precision="float32")
    assert torch.equal(store.images(np.arange(10)), true_coefficients(store))


@pytest.mark.parametrize("precision", ["int8", "float16", "float32"])
def test_numpy_alone_reads_the_same_coefficients(tmp_path: Path, precision: str) -> None:
    store = make_store(tmp_path, 9, BOX, precision=precision)
    for row in range(9):
        wanted = store.images(np.array([row]))[0].numpy()
        assert np.allclose(numpy_coefficients(store.path, row), wanted, rtol=1e-6, atol=0)


def test_frequencies_are_those_of_the_disc(packed: ParticleStore) -> None:
    frequencies = np.load(packed.path / "frequencies.npy")
    assert np.array_equal(frequencies, torch.stack([packed.disc.kx, packed.disc.ky], 1).numpy())


def test_images_of_a_smaller_box_are_the_coefficients_of_its_disc(packed: ParticleStore) -> None:
    whole, small = packed.images(np.arange(5)), packed.images(np.arange(5), 20)
    disc = half_disc(20)
    for i in range(len(disc)):
        place = (packed.disc.kx == disc.kx[i]) & (packed.disc.ky == disc.ky[i])
        assert torch.equal(small[:, i], whole[:, place][:, 0])
    assert torch.equal(disc_columns(packed.disc, packed.disc), torch.arange(len(packed.disc)))


def test_rows_come_in_the_order_asked(packed: ParticleStore) -> None:
    rows = np.array([7, 3, 49, 7])
    assert torch.equal(packed.images(rows), packed.images(np.arange(COUNT))[rows])


# Each file, and whether its flipped byte is met when opening or when reading.
FILES = [
    "particles.npy",
    "frequencies.npy",
    "checksums.npy",
    "shards/00000.b0.npy",
    "shards/00001.b1.npy",
    "shards/00002.b0.npy",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.77, 1.0])
def test_a_flipped_byte_is_named(copy: Path, name: str, where: float) -> None:
    size = (copy / name).stat().st_size
    flip(copy / name, 128 + int(where * (size - 129)), 1)
    with pytest.raises(CorruptDataError, match=name.replace(".", r"\.")):
        read_everything(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_header_is_named_or_means_the_same(
    packed: ParticleStore, copy: Path, name: str
) -> None:
    whole = (copy / name).read_bytes()
    wanted = read_everything(packed.path)
    named = 0
    for position in range(0, 128, 5):
        for mask in (0x01, 0x20):
            (copy / name).write_bytes(whole)
            flip(copy / name, position, mask)
            try:
                assert np.array_equal(read_everything(copy), wanted)
                assert np.array_equal(np.load(copy / name), np.load(packed.path / name))
            except CorruptDataError as error:
                assert name in str(error)
                named += 1
    assert named > 30


def test_an_open_store_names_shard_rows_and_band(copy: Path) -> None:
    store = ParticleStore.open(copy)
    path = copy / "shards" / "00001.b1.npy"
    width = 2 * (store.manifest.bands[1].stop - store.manifest.bands[1].start)
    flip(path, 128 + 17 * width + 5)
    wanted = r"00001\.b1\.npy: rows 16 to 23 of shard 1, band 1 .*checksum"
    with pytest.raises(CorruptDataError, match=wanted):
        list(store.verify())
    bad = store.rows["shard"] == 1
    bad &= store.rows["slot"] // 8 == 2
    with pytest.raises(CorruptDataError, match=wanted):
        store.images(np.flatnonzero(bad)[:1])
    # The other rows stay readable, and a box that needs only the first band knows no trouble.
    assert torch.isfinite(store.images(np.flatnonzero(~bad)).abs()).all()


def test_the_last_block_is_named_with_the_rows_that_it_has(copy: Path) -> None:
    flip(copy / "shards" / "00002.b0.npy", 128 + 3)
    with pytest.raises(CorruptDataError, match="rows 0 to 1 of shard 2, band 0"):
        read_everything(copy)


def test_a_cut_shard_is_named(copy: Path) -> None:
    path = copy / "shards" / "00000.b1.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptDataError, match=r"00000\.b1\.npy: ends at byte"):
        read_everything(copy)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_lost_or_empty_file_is_named(copy: Path, name: str, empty: bool) -> None:
    (copy / name).write_bytes(b"") if empty else (copy / name).unlink()
    kind = CorruptDataError if empty else MissingFileError
    with pytest.raises(kind, match=name.replace(".", r"\.")):
        read_everything(copy)


def test_a_shard_lost_while_open_is_named(copy: Path) -> None:
    store = ParticleStore.open(copy)
    assert list(store.verify())
    (copy / "shards" / "00001.b0.npy").unlink()
    with pytest.raises(MissingFileError, match="00001"):
        list(store.verify())


def rewrite_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_newer_format_is_refused(copy: Path) -> None:
    rewrite_manifest(copy, format=2, bands="another kind of thing")
    with pytest.raises(InputError, match="format 2 is newer"):
        ParticleStore.open(copy)


def test_fields_of_a_later_minor_version_are_ignored(copy: Path) -> None:
    rewrite_manifest(copy, something_new=[1, 2])
    assert ParticleStore.open(copy).count == COUNT


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "one"},
        {"images": COUNT + 1},
        {"particles": COUNT - 1},
        {"shard_rows": [24, 26]},
        {"bands": []},
        {"bands": [{"start": 0, "stop": 5, "radius_px": 3}]},
        {"box_px": 38},
        {"precision": "int4"},
        {"block_rows": 0},
        {"block_rows": 16},
        {"precision": "float16"},
    ],
)
def test_a_manifest_of_other_files_is_refused(copy: Path, changes: dict[str, object]) -> None:
    rewrite_manifest(copy, **changes)
    with pytest.raises(CorruptDataError, match=r"copy\.frz"):
        read_everything(copy)


def test_another_order_of_coefficients_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disc = half_disc(BOX)
    swapped = type(disc)(BOX, disc.ky.flip(0), disc.kx, disc.shell, disc.bands)
    monkeypatch.setattr(reader, "half_disc", lambda box_px: swapped)
    with pytest.raises(CorruptDataError, match=r"frequencies\.npy: another order"):
        ParticleStore.open(copy)


def test_what_is_no_store_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="not a particle store"):
        ParticleStore.open(tmp_path)
    (tmp_path / "Y.frz.partial").mkdir()
    with pytest.raises(MissingFileError, match="packing was not finished"):
        ParticleStore.open(tmp_path / "Y.frz")


def test_other_metadata_keep_the_place_of_the_images(packed: ParticleStore) -> None:
    rows = packed.table().rows
    rows["rotation"] = np.eye(3)
    for column in ("shard", "slot"):
        rows[column] = -1
    rows["image_gain"] = np.nan
    other = packed.with_rows(rows)
    assert torch.equal(other.images(np.arange(COUNT)), packed.images(np.arange(COUNT)))
    assert (other.rows["rotation"] == np.eye(3)).all()
    assert not (packed.rows["rotation"] == np.eye(3)).all()


def test_metadata_of_other_particles_are_refused(packed: ParticleStore) -> None:
    rows = packed.table().rows
    with pytest.raises(InputError, match="has 50 particles, not 49"):
        packed.with_rows(rows[1:])
    rows[[4, 9]] = rows[[9, 4]]
    with pytest.raises(InputError, match=r"row 4 \(0-based\).*\(2 rows do\)"):
        packed.with_rows(rows)


def test_table_of_a_store_is_the_table_that_was_packed(packed: ParticleStore) -> None:
    table = packed.table()
    assert table.box_px == BOX and len(table) == COUNT
    assert Path(table.sources[0]).name == "particles.mrcs"
    assert np.array_equal(table.rows["index"], np.arange(COUNT))
    assert table.has_pose and table.has_shift and table.has_ctf


@pytest.mark.parametrize("box_px", [BOX, 30, 16, 4])
def test_rms_is_that_of_the_disc(packed: ParticleStore, box_px: int) -> None:
    columns = disc_columns(packed.disc, half_disc(box_px))
    power = true_coefficients(packed)[:, columns].abs().double().square().mean()
    assert np.isclose(packed.rms(box_px), float(power.sqrt()), rtol=1e-6)


@pytest.mark.parametrize("box_px", [BOX + 2, 7, 2])
def test_a_box_that_the_store_does_not_hold_is_refused(packed: ParticleStore, box_px: int) -> None:
    with pytest.raises(InputError, match=f"-D {box_px}"):
        packed.rms(box_px)


def test_threads_parse_one_header_at_a_time(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, inside, most = np.lib.format.read_array_header_1_0, [0], [0]

    def watched(file: object) -> object:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)  # others get in, if they may
        inside[0] -= 1
        return parse(file)

    store = ParticleStore.open(copy)
    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", watched)
    places = [(shard, band) for shard in range(3) for band in range(2)]
    with ThreadPoolExecutor(len(places)) as pool:
        files = list(pool.map(lambda place: store.shard_file(*place), places))
    assert len(files) == 6 and most == [1]
