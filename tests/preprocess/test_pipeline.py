"""What is packed is what the steps and direct sums over all images say, from any kind of stack."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.errors import InputError, MissingFileError
from frazil.geometry.packing import half_disc
from frazil.io.accounts import RowAccount
from frazil.io.images import open_particles
from frazil.io.particles import FLAG_CLIPPED, FLAG_CONSTANT, FLAG_NONFINITE, ParticleTable
from frazil.preprocess.inputs import read_input
from frazil.preprocess.pipeline import open_or_pack, pack
from frazil.preprocess.report import describe_input, describe_store, worst_error
from frazil.preprocess.settings import InputSettings, PackSettings
from frazil.preprocess.steps import downsample_images, packed_coefficients, plan_transform
from frazil.store.reader import ParticleStore, disc_columns
from tests.store.made import (
    all_files,
    make_images,
    make_particles,
    shrink,
    with_metadata,
    write_stack,
)

BOX, SMALL = 24, 16


def settings(**changes: object) -> PackSettings:
    return PackSettings(**{"max_threads": 1, "precision": "float32", **changes})


def everything(store: ParticleStore, box_px: int | None = None) -> np.ndarray:
    return store.images(np.arange(store.count), box_px).numpy()


def steps_of(images: np.ndarray, **changes: object) -> np.ndarray:
    transform = plan_transform(settings(**changes), images.shape[-1], "real")
    return packed_coefficients(torch.from_numpy(images), transform).numpy()


def ring_rms(coefficients: np.ndarray, box_px: int) -> np.ndarray:
    """Return the RMS of |F| of each shell by direct sums in float64."""
    shell = half_disc(box_px).shell.numpy()
    power = np.abs(coefficients.astype(np.complex128)) ** 2
    return np.array([np.sqrt(power[:, shell == r].mean()) for r in range(1, box_px // 2 + 1)])


@pytest.mark.parametrize("order", ["window-first", "crop-first"])
@pytest.mark.parametrize("box_px", [None, SMALL])
def test_a_store_holds_the_coefficients_of_the_steps(
    tmp_path: Path, order: str, box_px: int | None
) -> None:
    table = make_particles(tmp_path, 9, BOX)
    store = pack(table, tmp_path / "X.frz", settings(box_px=box_px, window_order=order))
    wanted = steps_of(make_images(9, BOX), box_px=box_px, window_order=order)
    assert np.array_equal(everything(store), wanted)
    processing = store.manifest.processing
    assert (processing.order, processing.window) == (order, (0.85, 0.99))
    assert (processing.source_box_px, processing.sign) == (BOX, -1)
    assert store.box_px == (box_px or BOX)
    assert np.isclose(store.pixel_size_ang, 1.5 * BOX / store.box_px)


def test_crop_first_is_a_downsampled_stack_preprocessed(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 9, BOX)
    small = downsample_images(torch.from_numpy(make_images(9, BOX)), SMALL).numpy()
    small_table = open_particles(write_stack(tmp_path / "small.mrcs", small))
    one = pack(table, tmp_path / "1.frz", settings(box_px=SMALL, window_order="crop-first"))
    two = pack(small_table, tmp_path / "2.frz", settings())
    assert np.allclose(everything(one), everything(two), rtol=0, atol=1e-6 * one.rms())
    other = pack(table, tmp_path / "3.frz", settings(box_px=SMALL))
    assert not np.allclose(everything(one), everything(other), rtol=0, atol=1e-2 * one.rms())


def test_dark_data_keep_their_sign(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 3, BOX)
    light = pack(table, tmp_path / "light.frz", settings())
    dark = pack(table, tmp_path / "dark.frz", settings(uninvert_data=True))
    assert np.array_equal(everything(light), -everything(dark))
    assert (light.manifest.processing.sign, dark.manifest.processing.sign) == (-1, 1)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_statistics_are_exact_over_all_images_and_per_optics_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    shrink(monkeypatch, 16, 4, BOX)
    monkeypatch.setattr("frazil.preprocess.prepared.SAMPLE_IMAGES", 5)  # the sample must not matter
    table = make_particles(tmp_path, 30, BOX)
    rows = table.rows.copy()
    rows["optics_group"] = np.arange(30) % 3 - 1  # -1: in none
    table = replace(table, rows=rows, optics_groups=("first", "second"))
    store = pack(table, tmp_path / "X.frz", settings(precision=precision))
    truth = steps_of(make_images(30, BOX))
    assert np.allclose(store.manifest.shells.rms, ring_rms(truth, BOX), rtol=1e-6)
    groups = {group.name: group for group in store.manifest.optics}
    assert list(groups) == ["first", "second", "(none)"]
    for number, name in enumerate(("(none)", "first", "second")):
        assert groups[name].images == 10
        assert np.allclose(groups[name].rms, ring_rms(truth[number::3], BOX), rtol=1e-6)
    for box_px in (BOX, SMALL, 6):
        inside = truth[:, disc_columns(half_disc(BOX), half_disc(box_px))]
        wanted = np.sqrt((np.abs(inside.astype(np.complex128)) ** 2).mean())
        assert np.isclose(store.rms(box_px), wanted, rtol=1e-6)


def test_measured_error_is_the_true_one(tmp_path: Path) -> None:
    store = pack(make_particles(tmp_path, 40, BOX), tmp_path / "X.frz", settings(precision="int8"))
    error = everything(store) - steps_of(make_images(40, BOX))
    first = error[:4]  # one block: its first four images are measured
    assert np.allclose(store.manifest.shells.error_rms, ring_rms(first, BOX), rtol=1e-5)
    ratio = (ring_rms(error, BOX) / store.manifest.shells.rms) ** 2
    assert ratio.max() < 1e-3 and worst_error(store.manifest) < 1e-3


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_store_of_twice_the_box_holds_that_of_the_box(tmp_path: Path, precision: str) -> None:
    table = make_particles(tmp_path, 6, 2 * SMALL)
    large = pack(table, tmp_path / "2D.frz", settings(precision=precision))
    small = pack(table, tmp_path / "D.frz", settings(box_px=SMALL, precision=precision))
    difference = np.abs(everything(large, SMALL) - everything(small))
    if precision == "float32":
        assert (difference <= 1e-6 * large.rms()).all()
    else:
        columns = disc_columns(large.disc, small.disc)
        steps = [large.codec.step[::2][columns], small.codec.step[::2]]
        gains = [torch.from_numpy(store.rows["image_gain"].copy()) for store in (large, small)]
        # Half a step of each, in Re and in Im.
        bound = sum(g[:, None] * s for g, s in zip(gains, steps, strict=True)) / 2 * 2**0.5
        assert (difference <= bound.numpy() * 1.001).all()
        assert difference.max() > 0
    assert np.isclose(large.rms(SMALL), small.rms(), rtol=1e-6)


def test_rows_that_share_an_image_share_its_record(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 10, BOX)
    expanded = table.take(np.array([3, 0, 3, 9, 3, 1]))
    store = pack(expanded, tmp_path / "X.frz", settings())
    assert (store.manifest.images, store.manifest.particles) == (4, 6)
    place = store.rows[["shard", "slot"]]
    assert place[0] == place[2] == place[4] and len(np.unique(place)) == 4
    assert np.array_equal(everything(store), steps_of(make_images(10, BOX))[[3, 0, 3, 9, 3, 1]])
    # An image counts once in the statistics.
    wanted = ring_rms(steps_of(make_images(10, BOX))[[0, 1, 3, 9]], BOX)
    assert np.allclose(store.manifest.shells.rms, wanted, rtol=1e-6)
    record_bytes = sum(path.stat().st_size for path in (store.path / "shards").iterdir())
    assert record_bytes == 4 * 8 * len(store.disc) + 128 * len(store.manifest.bands)


def test_threads_do_not_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, 16, 4, BOX)
    table = make_particles(tmp_path, 50, BOX)
    stores = []
    for threads in (1, 3):
        out = tmp_path / "X.frz"
        stores.append(all_files(pack(table, out, PackSettings(max_threads=threads)).path))
        out.rename(tmp_path / f"{threads}.frz")
    assert stores[0] == stores[1] and len(stores[0]) == 8
    other = all_files(pack(table, tmp_path / "X.frz", PackSettings(seed=1)).path)
    assert other["particles.npy"] != stores[0]["particles.npy"]


def spoil(folder: Path, images: np.ndarray) -> ParticleTable:
    return with_metadata(open_particles(write_stack(folder / "particles.mrcs", images)))


def test_nonfinite_images_are_zero_flagged_and_left_out_of_the_statistics(tmp_path: Path) -> None:
    images = make_images(12, BOX)
    images[2, 5, 5], images[7, 0, 12], images[8] = np.nan, np.inf, 1e30
    for precision in ("int8", "float32"):
        table = spoil(tmp_path, images)
        store = pack(table, tmp_path / f"{precision}.frz", settings(precision=precision))
        bad = [2, 7, 8]  # 1e30 squared does not fit into float32
        flagged = store.rows["flags"] & FLAG_NONFINITE > 0
        assert np.flatnonzero(flagged).tolist() == bad
        assert not everything(store)[bad].any() and (store.rows["image_gain"][bad] == 1).all()
        good = np.setdiff1d(np.arange(12), bad)
        assert np.allclose(
            store.manifest.shells.rms, ring_rms(steps_of(images)[good], BOX), rtol=1e-6
        )
        assert store.manifest.flagged["nonfinite"] == 3
        assert any("3 images flagged nonfinite: rows 2, 7, 8" in s for s in describe_store(store))


def test_strict_refuses_nonfinite_images_and_goes_on_without(tmp_path: Path) -> None:
    images = make_images(12, BOX)
    images[4, 5, 5] = np.nan
    table, out = spoil(tmp_path, images), tmp_path / "X.frz"
    wanted = r"row 4 \(0-based; image 5 of .*particles\.mrcs\) has non-finite pixels \(1 images"
    with pytest.raises(InputError, match=wanted):
        pack(table, out, settings(strict=True))
    assert not out.exists()
    assert pack(table, out, settings()).manifest.flagged["nonfinite"] == 1


@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_images_are_flagged_and_harm_nobody(
    tmp_path: Path, window: bool, value: float
) -> None:
    images = make_images(12, BOX)
    images[3] = value
    store = pack(
        spoil(tmp_path, images), tmp_path / "X.frz", settings(precision="int8", window=window)
    )
    assert np.flatnonzero(store.rows["flags"] & FLAG_CONSTANT).tolist() == [3]
    found = everything(store)
    assert np.isfinite(found).all() and (found[3].any() == (window and value != 0))
    error = torch.from_numpy(found - steps_of(images, window=window))
    gain = torch.from_numpy(store.rows["image_gain"].copy())[:, None]
    in_steps = torch.view_as_real(error).flatten(1).abs() / store.codec.step / gain
    assert np.delete(in_steps.numpy(), 3, axis=0).max() < 0.501


def test_all_images_constant_pack_too(tmp_path: Path) -> None:
    table = spoil(tmp_path, np.zeros((5, BOX, BOX), np.float32))
    store = pack(table, tmp_path / "X.frz", settings(precision="int8"))
    assert not everything(store).any() and (store.rows["flags"] == FLAG_CONSTANT).all()


def test_clipped_images_are_listed(tmp_path: Path) -> None:
    images = make_images(30, BOX)
    x = np.arange(BOX)
    images[11] += 200 * np.cos(2 * np.pi * 5 * x / BOX)  # all of its power in one coefficient
    store = pack(
        spoil(tmp_path, images), tmp_path / "X.frz", settings(precision="int8", window=False)
    )
    assert np.flatnonzero(store.rows["flags"] & FLAG_CLIPPED).tolist() == [11]
    clipped = np.array(store.manifest.shells.clipped)
    assert clipped[4] >= 1 and clipped.sum() == clipped[4]
    assert any("1 images flagged clipped: rows 11" in line for line in describe_store(store))
    exact = pack(
        spoil(tmp_path, images), tmp_path / "Y.frz", settings(precision="float16", window=False)
    )
    assert not exact.rows["flags"].any()


@pytest.mark.parametrize(("kind", "order"), [("i1", "<"), ("i2", "<"), ("u2", ">"), ("f2", "<")])
@pytest.mark.parametrize("extended_bytes", [0, 640])
def test_stacks_of_other_pixel_types_pack_the_same(
    tmp_path: Path, kind: str, order: str, extended_bytes: int
) -> None:
    images = np.round(np.abs(make_images(5, BOX)) * 10).clip(0, 127)
    plain = open_particles(write_stack(tmp_path / "plain.mrcs", images))
    other = write_stack(tmp_path / "other.mrcs", images, kind, order, extended_bytes)
    stores = [
        pack(table, tmp_path / f"{number}.frz", settings(precision="int8"))
        for number, table in enumerate((plain, open_particles(other)))
    ]
    assert np.array_equal(everything(stores[0]), everything(stores[1]))
    assert everything(stores[0]).any()


def test_big_endian_floats_pack_the_same(tmp_path: Path) -> None:
    little = open_particles(write_stack(tmp_path / "little.mrcs", make_images(5, BOX)))
    big = open_particles(write_stack(tmp_path / "big.mrcs", make_images(5, BOX), order=">"))
    stores = [
        pack(table, tmp_path / f"{i}.frz", settings()) for i, table in enumerate((little, big))
    ]
    assert np.array_equal(everything(stores[0]), everything(stores[1]))


def several_stacks(folder: Path) -> tuple[ParticleTable, np.ndarray]:
    """Return 17 particles in shuffled order of three stacks, two of one name; and their images."""
    images, lines = make_images(17, BOX), []
    for name, start, stop in (("a/s.mrcs", 0, 6), ("b/s.mrcs", 6, 9), ("c.mrcs", 9, 17)):
        (folder / name).parent.mkdir(exist_ok=True)
        write_stack(folder / name, images[start:stop])
        lines.append(name)
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    order = np.random.default_rng(1).permutation(17)
    table = with_metadata(open_particles(folder / "list.txt"))
    return table.take(order), images[order]


def test_rows_stay_in_the_order_of_the_input_whatever_stacks_they_lie_in(tmp_path: Path) -> None:
    table, images = several_stacks(tmp_path)
    store = pack(table, tmp_path / "X.frz", settings())
    assert np.array_equal(everything(store), steps_of(images))
    for column in ("source", "index", "rotation", "shift_ang", "defocus_u_ang", "uid"):
        assert np.array_equal(store.rows[column], table.rows[column], equal_nan=True), column
    for source, path in zip(store.manifest.sources, table.sources, strict=True):
        status = Path(path).stat()
        assert (source.path, source.size_bytes) == (path, status.st_size)
        assert source.mtime_ns == status.st_mtime_ns


def test_stacks_that_no_row_uses_are_neither_needed_nor_recorded(tmp_path: Path) -> None:
    table, images = several_stacks(tmp_path)
    keep = np.flatnonzero(table.rows["source"] != 0)
    (tmp_path / "a" / "s.mrcs").unlink()
    store = pack(table.take(keep), tmp_path / "X.frz", settings())
    assert np.array_equal(everything(store), steps_of(images[keep]))
    names = [Path(source.path).relative_to(tmp_path) for source in store.manifest.sources]
    assert names == [Path("b/s.mrcs"), Path("c.mrcs")]
    assert np.array_equal(
        [store.table().sources[i] for i in store.rows["source"]],
        [table.sources[i] for i in table.rows["source"][keep]],
    )
    with pytest.raises(MissingFileError, match=r"s\.mrcs"):
        pack(table, tmp_path / "Y.frz", settings())


def test_pixel_sizes_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 5, BOX)
    table.rows["pixel_size_ang"][3] = 1.5005  # rounding of a file
    store = pack(table, tmp_path / "X.frz", settings())
    assert store.pixel_size_ang == 1.5 and not store.manifest.processing.resampled
    table.rows["pixel_size_ang"][3] *= 1.002
    store = pack(table, tmp_path / "Y.frz", settings())
    assert store.pixel_size_ang == pytest.approx(1.503501) and store.manifest.processing.resampled


@pytest.mark.parametrize(
    ("column", "what"), [("rotation", "rotation"), ("shift_ang", "shift"), ("defocus_u_ang", "CTF")]
)
def test_metadata_in_some_rows_only_are_refused_before_anything_is_read(
    tmp_path: Path, column: str, what: str
) -> None:
    table = make_particles(tmp_path, 5, BOX)
    table.rows[column][2] = np.nan
    with pytest.raises(InputError, match=rf"row 2 \(0-based\) has no {what}"):
        pack(table, tmp_path / "X.frz", settings())
    assert not list(tmp_path.glob("X.frz*"))


@pytest.mark.parametrize("box_px", [BOX + 2, 15])
def test_an_odd_or_larger_box_is_refused(tmp_path: Path, box_px: int) -> None:
    with pytest.raises(InputError, match=f"-D {box_px}"):
        pack(make_particles(tmp_path, 2, BOX), tmp_path / "X.frz", settings(box_px=box_px))


def test_no_particles_are_refused(tmp_path: Path) -> None:
    table = make_particles(tmp_path, 2, BOX).take(np.array([], np.int64))
    with pytest.raises(InputError, match="no particles to pack"):
        pack(table, tmp_path / "X.frz", settings())


def test_rows_left_out_are_accounted_for(tmp_path: Path) -> None:
    import pickle

    make_particles(tmp_path, 9, BOX)
    (tmp_path / "ind.pkl").write_bytes(pickle.dumps(np.array([7, 2, 3])))
    table, account = read_input(
        InputSettings(particles=str(tmp_path / "particles.mrcs"), ind=str(tmp_path / "ind.pkl"))
    )
    store = pack(table, tmp_path / "X.frz", settings(), account)
    assert (store.manifest.rows_in, store.manifest.dropped, store.count) == (9, {"--ind": 6}, 3)
    assert store.rows["index"].tolist() == [7, 2, 3]
    wanted = "rows: 9 in, 6 dropped (--ind 6), 3 to pack"
    assert wanted in describe_input(table, settings(), account)


def test_particles_without_metadata_pack_and_say_so(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "particles.mrcs", make_images(3, BOX))
    store = pack(open_particles(path), tmp_path / "X.frz", settings())
    manifest = store.manifest
    assert (manifest.has_pose, manifest.has_shift, manifest.has_ctf) == (False, False, False)
    assert np.isnan(store.rows["rotation"]).all()


@pytest.mark.parametrize(("sign", "dark", "wanted"), [(-1, False, "with"), (1, True, "without")])
def test_a_sign_that_contradicts_the_flag_is_said(
    tmp_path: Path, sign: int, dark: bool, wanted: str
) -> None:
    table = replace(make_particles(tmp_path, 2, BOX), blob_sign=sign)
    lines = list(describe_input(table, settings(uninvert_data=dark), RowAccount.all_of(2)))
    assert any(f"again {wanted} --uninvert-data" in line for line in lines)
    lines = list(describe_input(table, settings(uninvert_data=not dark), RowAccount.all_of(2)))
    assert not any("--uninvert-data" in line for line in lines)


def test_a_packed_input_is_packed_once_and_takes_new_metadata(tmp_path: Path) -> None:
    table, images = several_stacks(tmp_path)
    out = tmp_path / "cache.frz"
    keep = np.flatnonzero(table.rows["source"] != 0)
    first = open_or_pack(table.take(keep), out, settings())
    before = out.stat().st_ino
    table.rows["rotation"][:] = np.eye(3)
    second = open_or_pack(table.take(keep), out, settings())
    assert out.stat().st_ino == before and (second.rows["rotation"] == np.eye(3)).all()
    assert np.array_equal(everything(second), everything(first))
    assert np.array_equal(
        [second.table().sources[i] for i in second.rows["source"]],
        [table.sources[i] for i in table.rows["source"][keep]],
    )
    third = open_or_pack(table, out, settings())
    assert out.stat().st_ino != before and np.array_equal(everything(third), steps_of(images))
    open_or_pack(table, out, settings(window=False))
    assert ParticleStore.open(out).manifest.processing.window is None
