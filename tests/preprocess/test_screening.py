"""Far outliers are found, listed and shown; noise of any kind is not; nothing else changes."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from frazil.errors import InputError
from frazil.io.images import open_particles
from frazil.io.particles import (
    FLAG_CONSTANT,
    FLAG_LEFT_OUT,
    FLAG_NONFINITE,
    FLAG_OUTLIER,
    ParticleTable,
)
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess import screening
from frazil.preprocess.pipeline import pack
from frazil.preprocess.screen_files import COLUMNS, SHEET_IMAGES
from frazil.preprocess.screening import MEASURES, band_power, pixel_facts, screen
from frazil.preprocess.settings import PackSettings
from frazil.store.manifest import shell_counts
from frazil.store.reader import ParticleStore
from frazil.store.writer import FACTS_DTYPE
from tests.store.made import all_files, make_images, with_metadata, write_stack

BOX, COUNT = 32, 120
BAD = {
    3: "nonfinite",
    7: "constant",
    20: "bright peak",
    31: "std",
    44: "mean",
    55: "mid power",
    60: "high power",
    70: "low power",
}


def ordinary_images(count: int, box_px: int, seed: int = 0) -> np.ndarray:
    """Return coloured noise (count, D, D) of mean about 0 and standard deviation about 1."""
    images = make_images(count, box_px, seed)
    images -= images.mean(axis=(1, 2), keepdims=True)
    strength = np.random.default_rng(seed).normal(1, 0.05, size=(count, 1, 1))
    scaled = images / images.std(axis=(1, 2), keepdims=True) * strength
    return scaled.astype(np.float32)


def bad_images() -> np.ndarray:
    """Return noise with one image of each fault, at the rows of BAD."""
    images = ordinary_images(COUNT, BOX)
    x, generator = np.arange(BOX), np.random.default_rng(5)
    images[3, 4, 5] = np.nan
    images[7] = 4.0
    images[20, 16, 16] += 25
    images[31] *= 5
    images[44] += 3
    images[55] += 2 * np.cos(2 * np.pi * 6 * x / BOX)
    images[60] += generator.normal(size=(BOX, BOX)) * 2
    images[70, 6:16, 8:18] -= 8
    return images.astype(np.float32)


def table_of(folder: Path, images: np.ndarray) -> ParticleTable:
    return with_metadata(open_particles(write_stack(folder / "p.mrcs", images)))


def packed(folder: Path, images: np.ndarray, **changes: object) -> ParticleStore:
    settings = PackSettings(**{"max_threads": 1, **changes})
    return pack(table_of(folder, images), folder / "X.frz", settings)


def listed(store: ParticleStore) -> list[dict[str, str]]:
    lines = (store.path / "screen.tsv").read_text().splitlines()
    assert tuple(lines[0].split("\t")) == COLUMNS
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines[1:]]


def facts_of(images: np.ndarray) -> np.ndarray:
    """Return the facts of images as packing finds them, band power by a direct transform."""
    facts = np.zeros(len(images), FACTS_DTYPE)
    pixel_facts(images, facts)
    k = np.fft.fftfreq(images.shape[-1]) * images.shape[-1]
    shell = np.ceil(np.hypot(k[:, None], k[None, :])).astype(int)
    power = np.abs(np.fft.fft2(images)) ** 2
    sums = [power[:, shell == r].sum(1) / 2 for r in range(1, images.shape[-1] // 2 + 1)]
    band_power(np.stack(sums, 1), shell_counts(images.shape[-1]), facts)
    return facts


def screened(images: np.ndarray, group: np.ndarray | None = None) -> screening.Screening:
    group = np.zeros(len(images), int) if group is None else group
    return screen(facts_of(images), group, tuple(f"g{i}" for i in range(group.max() + 1)))


def test_every_fault_is_flagged_with_its_identity_and_reason(tmp_path: Path) -> None:
    store = packed(tmp_path, bad_images())
    lines = listed(store)
    assert [int(line["row"]) for line in lines] == sorted(BAD)
    for line in lines:
        row = int(line["row"])
        assert line["stack"] == str(tmp_path / "p.mrcs") and int(line["index"]) == row
        assert line["uid"] == str(store.rows["uid"][row])
        assert BAD[row] in (line["why"] or line["flags"]), line
    flags = store.rows["flags"]
    outliers = sorted(set(BAD) - {3, 7})
    assert np.flatnonzero(flags & FLAG_OUTLIER).tolist() == outliers
    assert np.flatnonzero(flags & FLAG_NONFINITE).tolist() == [3]
    assert np.flatnonzero(flags & FLAG_CONSTANT).tolist() == [7]
    assert not (flags & FLAG_LEFT_OUT).any()
    assert store.manifest.flagged["outlier"] == len(outliers)


@pytest.mark.parametrize("make", [ordinary_images, make_images])  # the latter 0.5 to 2 as strong
@pytest.mark.parametrize("seed", range(2))
def test_good_images_are_not_flagged_and_leave_no_list(
    tmp_path: Path, seed: int, make: Callable[..., np.ndarray]
) -> None:
    store = packed(tmp_path, make(2000, 16, seed))
    assert not store.rows["flags"].any()
    assert not list(store.path.glob("screen.*"))


def test_pixel_facts_are_those_of_direct_sums() -> None:
    images = ordinary_images(9, 192) + 300  # as counts of a camera are
    facts = facts_of(images)
    rows = images[:, ::6].astype(np.float64)
    assert np.allclose(facts["mean"], rows.mean((1, 2)), rtol=1e-6)
    assert np.allclose(facts["std"], rows.std((1, 2)), rtol=2e-2)
    assert np.array_equal(facts["lowest"], rows.min((1, 2)))
    assert np.array_equal(facts["highest"], rows.max((1, 2)))


def test_images_are_judged_by_their_own_optics_group() -> None:
    images, group = ordinary_images(120, BOX), np.arange(120) % 2
    images[group == 1] *= 30
    assert not len(screened(images, group).outliers)
    images[5] /= 30  # positive control: ordinary in the other group
    assert screened(images, group).outliers.tolist() == [5]


def test_images_of_small_groups_are_judged_together() -> None:
    images, group = ordinary_images(200, BOX), np.arange(200) // 4
    assert not len(screened(images, group).outliers)
    images[77] *= 40
    assert screened(images, group).outliers.tolist() == [77]


def test_too_few_images_to_tell_are_not_judged() -> None:
    images = ordinary_images(screening.FEWEST_IMAGES, BOX)
    images[0] *= 40
    assert screened(images).outliers.tolist() == [0]
    assert not len(screened(images[:-1]).outliers)


def test_another_population_is_no_set_of_outliers_and_is_said() -> None:
    images = ordinary_images(200, BOX)
    images[:40] *= 30
    found = screened(images)
    assert not len(found.outliers)
    assert any("40 of 200 images differ from the rest in std" in note for note in found.notes)


def test_drop_bad_marks_rows_keeps_their_numbers_and_closes_the_account(tmp_path: Path) -> None:
    store = packed(tmp_path, bad_images(), drop_bad=True)
    assert store.count == COUNT
    left_out = np.flatnonzero(store.rows["flags"] & FLAG_LEFT_OUT)
    assert left_out.tolist() == sorted(set(BAD) - {3})  # non-finite rows are never used anyhow
    loader = ParticleLoader(store, LoaderSettings())
    seen = np.concatenate([batch.rows.numpy() for batch in loader.epoch(1)])
    assert sorted(seen.tolist()) == sorted(set(range(COUNT)) - set(BAD))
    assert loader.excluded == {"non-finite": 1, "--drop-bad": 7}


def test_outliers_are_trained_without_drop_bad_but_never_what_is_not_finite(
    tmp_path: Path,
) -> None:
    loader = ParticleLoader(packed(tmp_path, bad_images()), LoaderSettings())
    batches = list(loader.epoch(1))
    seen = np.concatenate([batch.rows.numpy() for batch in batches])
    assert sorted(seen.tolist()) == sorted(set(range(COUNT)) - {3})
    assert all(np.isfinite(batch.coefficients.numpy()).all() for batch in batches)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [(3, "non-finite pixels"), (7, "pixels that are all equal"), (20, "far from the others")],
)
def test_strict_names_the_first_bad_image(tmp_path: Path, row: int, wanted: str) -> None:
    images = ordinary_images(COUNT, BOX)
    images[row] = bad_images()[row]
    with pytest.raises(InputError, match=rf"row {row} \(0-based.*{wanted}"):
        packed(tmp_path, images, strict=True)
    assert packed(tmp_path, ordinary_images(COUNT, BOX), strict=True, overwrite=True).count == COUNT


def test_rows_that_share_an_image_are_listed_once(tmp_path: Path) -> None:
    table = table_of(tmp_path, bad_images()).take(np.repeat(np.arange(COUNT), 3))
    store = pack(table, tmp_path / "X.frz", PackSettings(max_threads=1))
    lines = listed(store)
    assert [(int(line["row"]), line["rows"]) for line in lines] == [(3 * r, "3") for r in BAD]
    assert store.manifest.flagged["constant"] == 3


@pytest.mark.parametrize("drop_bad", [False, True])
def test_flags_list_and_sheet_do_not_depend_on_threads(tmp_path: Path, drop_bad: bool) -> None:
    table, found = table_of(tmp_path, bad_images()), []
    for threads in (1, 3):
        settings = PackSettings(max_threads=threads, drop_bad=drop_bad, overwrite=True)
        found.append(all_files(pack(table, tmp_path / "X.frz", settings).path))
    assert found[0] == found[1] and {"screen.tsv", "screen.png"} < set(found[0])


def test_the_sheet_shows_at_most_so_many_images(tmp_path: Path) -> None:
    images = ordinary_images(400, 16)
    images[:150] = 7
    store = packed(tmp_path, images)
    assert len(listed(store)) == 150
    width, height = struct.unpack(">II", (store.path / "screen.png").read_bytes()[16:24])
    assert abs(width / height - 10 * 1.4 / (SHEET_IMAGES / 10 * 1.85)) < 0.01


def test_a_name_with_a_tab_does_not_break_the_list(tmp_path: Path) -> None:
    folder = tmp_path / "a\tb"
    folder.mkdir()
    assert len(listed(packed(folder, bad_images()))) == len(BAD)


def test_measures_that_cannot_be_taken_are_passed_over() -> None:
    facts = facts_of(ordinary_images(100, BOX))
    facts["std"], facts["high"] = 0, np.nan
    found = screen(facts, np.zeros(100, int), ("g",))
    assert not len(found.outliers) and found.score.shape == (0, len(MEASURES))
