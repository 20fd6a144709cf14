"""Images of several boxes and pixel sizes come to one; those that need nothing stay as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.engines.backproject import backproject
from frazil.engines.backproject_settings import BackprojectSettings
from frazil.errors import InputError
from frazil.geometry.packing import half_disc, pack_images
from frazil.io.images import open_images, open_particles
from frazil.io.parse_poses import poses_from_star
from frazil.io.parse_settings import PoseStarSettings
from frazil.io.particles import ParticleTable
from frazil.io.star import particles_from_star, read_star, write_star
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.metrics.fsc import fsc
from frazil.preprocess.fourier_stacks import write_fourier_stacks
from frazil.preprocess.inputs import check_scale, image_fingerprint, join_pickles
from frazil.preprocess.lazy import LazyStore
from frazil.preprocess.part_job import JobAddress, PartJob, _opened, write_job
from frazil.preprocess.pipeline import open_or_pack, pack
from frazil.preprocess.plan import plan_packing
from frazil.preprocess.prepared import PreparedImages
from frazil.preprocess.report import describe_plan
from frazil.preprocess.samplings import plan_samplings
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import Waves, _at_frequencies
from frazil.simulate.dataset import simulate_dataset
from frazil.simulate.settings import SimulateSettings
from frazil.store.reader import ParticleStore
from frazil.store.writer import StorePlan

COARSE, FINE = (32, 6.0), (44, 5.0)  # px, A/px: 192 A and 220 A


def settings(**changes: object) -> PackSettings:
    return PackSettings(**{"max_threads": 1, "precision": "float32", **changes})


def simulate(
    folder: Path, box_px: int, pixel_ang: float, num: int, seed: int, shift_px: float
) -> None:
    simulate_dataset(
        SimulateSettings(
            num=num,
            box_px=box_px,
            apix_ang=pixel_ang,
            sigma_ang=7.0,
            motion="none",
            snr=float("inf"),
            seed=seed,
            shift_px=shift_px,
        ),
        folder,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of one molecule, and both in one STAR file as two optics groups, coarse one last."""
    folder = tmp_path_factory.mktemp("mixed")
    optics: dict[str, list[object]] = {}
    rows: dict[str, list[object]] = {}
    for number, (name, (box_px, pixel_ang)) in enumerate(
        (("fine", FINE), ("coarse", COARSE)), start=1
    ):
        simulate(folder / name, box_px, pixel_ang, 700, number, 0.5)
        file = read_star(folder / name / "particles.star")
        assert file.optics is not None
        for table, columns in ((file.optics, optics), (file.particles, rows)):
            for label in table.names:
                columns.setdefault(label, []).extend(table.strings(label))
        for columns, count in ((optics, 1), (rows, 700)):
            columns["_rlnOpticsGroup"][-count:] = [str(number)] * count
        optics["_rlnOpticsGroupName"][-1] = name
        names = [
            f"{text.split('@')[0]}@{name}/particles.mrcs" for text in rows["_rlnImageName"][-700:]
        ]
        rows["_rlnImageName"][-700:] = names
    write_star(folder / "both.star", {"optics": optics, "particles": rows})
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> ParticleTable:
    return open_particles(folder / "both.star")


@pytest.fixture(scope="module")
def mixed(folder: Path, both: ParticleTable) -> ParticleStore:
    return pack(both, folder / "both.frz", settings())


def everything(store: ParticleStore) -> np.ndarray:
    return store.images(np.arange(store.count)).numpy()


def reconstruct(store: ParticleStore, rows: np.ndarray | None = None) -> torch.Tensor:
    loader = ParticleLoader(store, LoaderSettings(batch_size=100), rows)
    halves = np.zeros(store.count, np.uint8)
    asked = BackprojectSettings(half_maps=False)
    return backproject(loader.in_order(), loader.disc, halves, asked).volume


@pytest.mark.parametrize("box_px", [16, 24])
def test_waves_of_a_box_are_its_fourier_transform(box_px: int) -> None:
    images, disc = torch.randn(3, 24, 24), half_disc(box_px)
    found = _at_frequencies(images, Waves.of(24, box_px // 2, 1 / 24), disc)
    torch.testing.assert_close(found, pack_images(images, disc), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("box_px", "pixel_ang"), [(64, 1.3), (90, 0.9), (48, 1.7)])
def test_a_function_has_the_same_coefficients_at_every_pixel_size(
    box_px: int, pixel_ang: float
) -> None:
    # exp(-|x - c|^2 / (2 s^2)) has the transform 2 pi s^2 exp(-2 pi^2 s^2 f^2 - 2 pi i f c).
    size, centre, disc, extent_ang = 4.0, torch.tensor([3.0, -7.5]), half_disc(40), 80.0
    x = (torch.arange(box_px) - box_px // 2) * pixel_ang
    axes = [torch.exp(-((x - c) ** 2) / (2 * size**2)) for c in centre]
    image = (axes[1][:, None] * axes[0])[None]
    waves = Waves.of(box_px, disc.radius_px, pixel_ang / extent_ang)
    found = _at_frequencies(image, waves, disc)[0] * pixel_ang**2
    fx, fy = disc.kx / extent_ang, disc.ky / extent_ang
    phase = -2 * torch.pi * (fx * centre[0] + fy * centre[1])
    decay = 2 * torch.pi * size**2 * torch.exp(-2 * torch.pi**2 * size**2 * (fx**2 + fy**2))
    torch.testing.assert_close(found, torch.polar(decay, phase), atol=1e-3, rtol=0)


def test_the_coarsest_images_set_box_and_pixel_size_and_are_packed_as_alone(
    folder: Path, both: ParticleTable, mixed: ParticleStore
) -> None:
    alone = pack(open_particles(folder / "coarse/particles.star"), folder / "c.frz", settings())
    assert (mixed.box_px, mixed.pixel_size_ang) == (alone.box_px, alone.pixel_size_ang) == COARSE
    assert np.array_equal(everything(mixed)[700:], everything(alone))
    assert (mixed.rows["pixel_size_ang"] == COARSE[1]).all()
    assert np.array_equal(mixed.rows["shift_ang"], both.rows["shift_ang"])
    process = mixed.manifest.processing
    found = [(s.box_px, s.pixel_size_ang, s.particles) for s in process.resampled]
    assert found == [(*COARSE, 700), (*FINE, 700)]
    text = (folder / "c.frz/manifest.json").read_text()
    assert (
        "resampled" not in text and "resampled" in (folder / "both.frz/manifest.json").read_text()
    )


def test_both_groups_show_the_same_molecule_and_their_map_is_that_of_one(
    folder: Path, mixed: ParticleStore
) -> None:
    coarse = open_particles(folder / "coarse/particles.star")
    alone = reconstruct(pack(coarse, folder / "d.frz", settings()))
    fine_rows = np.arange(700)
    for rows in (None, fine_rows):
        assert float(fsc(reconstruct(mixed, rows), alone)[1:14].min()) > 0.97
    # Positive control: with the pixel size of the one for both, the map of the other is another.
    table = open_particles(folder / "both.star")
    table.rows["pixel_size_ang"] = COARSE[1]
    wrong = pack(table, folder / "wrong.frz", settings(box_px=32, pixel_size_ang=6.0))
    assert float(fsc(reconstruct(wrong, fine_rows), alone)[1:14].min()) < 0.5


def test_a_fine_group_matches_the_coarse_one_image_by_image(tmp_path: Path) -> None:
    for name, (box_px, pixel_ang) in {"a": (32, 6.0), "b": (48, 4.0)}.items():
        simulate(tmp_path / name, box_px, pixel_ang, 5, 7, 0.0)
    tables = [open_particles(tmp_path / name / "particles.star") for name in "ab"]
    assert np.array_equal(tables[1].rows["rotation"], tables[0].rows["rotation"])
    coarse = everything(pack(tables[0], tmp_path / "a.frz", settings(window=False)))
    asked = settings(window=False, pixel_size_ang=6.0, box_px=32)
    fine = everything(pack(tables[1], tmp_path / "b.frz", asked))
    # Simulated grey values are integrals over the pixel, so sums over pixels are alike.
    inside = (half_disc(32).shell <= 14).numpy()  # aliases begin beyond
    worst = np.abs(fine - coarse)[:, inside].max() / np.abs(coarse)[:, inside].std()
    assert worst < 1e-3


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"box_px": 24}, (24, 8.0)),
        ({"pixel_size_ang": 7.0}, (28, 7.0)),
        ({"pixel_size_ang": 8.0, "box_px": 20}, (20, 8.0)),
    ],
)
def test_box_and_pixel_size_are_those_asked_for(
    both: ParticleTable, tmp_path: Path, asked: dict[str, float], wanted: tuple[int, float]
) -> None:
    few = both.take(np.r_[0:4, 700:704])
    store = pack(few, tmp_path / "X.frz", settings(**asked))
    assert (store.box_px, store.pixel_size_ang) == wanted
    plan = plan_packing(few, tmp_path / "Y.frz", settings(**asked))
    line = next(line for line in describe_plan(plan) if "resampled" in line)
    assert f"resampled to {wanted[0]} px at {wanted[1]:g} A/px" in line
    assert "4 particles of 44 px at 5 A/px" in line


def test_what_lies_beyond_nyquist_is_refused_with_the_group(
    both: ParticleTable, folder: Path, tmp_path: Path
) -> None:
    for asked in ({"pixel_size_ang": 5.0}, {"box_px": 40}):
        with pytest.raises(InputError, match=r"700 particles have 6 A/px .* give --Apix 6 or more"):
            pack(both, tmp_path / "X.frz", settings(**asked))
    fine = open_particles(folder / "fine/particles.star").take(np.arange(4))
    with pytest.raises(InputError, match="hold nothing beyond their Nyquist, 10 A"):
        pack(fine, tmp_path / "X.frz", settings(pixel_size_ang=4.9))
    assert pack(fine, tmp_path / "X.frz", settings(pixel_size_ang=5.0)).pixel_size_ang == 5.0
    with pytest.raises(InputError, match="crop-first needs images of one box"):
        pack(both, tmp_path / "Y.frz", settings(window_order="crop-first"))


def test_boxes_without_a_pixel_size_are_refused(both: ParticleTable, tmp_path: Path) -> None:
    table = replace(both, rows=both.rows.copy())
    table.rows["pixel_size_ang"] = np.nan
    with pytest.raises(InputError, match=r"images of 44 and 32 px cannot be .* not known"):
        pack(table, tmp_path / "X.frz", settings())


def test_a_box_that_the_file_states_must_be_that_of_the_stack(
    folder: Path, both: ParticleTable
) -> None:
    text = (folder / "both.star").read_text()
    (folder / "bad.star").write_text(text.replace(" 44 2\n", " 48 2\n"))
    assert open_particles(folder / "bad.star").boxes_px == (48, 32)
    with pytest.raises(InputError, match=r"its box is 48 px, but the images in .*fine.* are 44 px"):
        open_images(open_particles(folder / "bad.star"), mixed=True)
    with pytest.raises(InputError, match=r"44 px.*pack them into a store"):
        open_images(both)
    with open_images(both, mixed=True) as images:
        assert images.read([0]).shape == (1, 44, 44) and images.read([700]).shape == (1, 32, 32)
        assert images.box_px == 44


def test_what_is_of_one_box_refuses_several(
    folder: Path, both: ParticleTable, tmp_path: Path, mixed: ParticleStore
) -> None:
    with pytest.raises(InputError, match=r"44 px.*pack them into a store"):
        write_fourier_stacks(both, tmp_path / "X.mrcs", settings(), 10)
    with pytest.raises(InputError, match="images of 32 and 44 px; a pickle is of one box"):
        poses_from_star(PoseStarSettings(input=str(folder / "both.star"), out="x.pkl"))
    with pytest.raises(InputError, match=r"poses\.pkl: is of images of one box"):
        join_pickles(both, "poses.pkl", None)
    check_scale(mixed, mixed.table(), "ctf.pkl")
    with pytest.raises(InputError, match=r"row 0 .* 5\.0000 A/px .* resampled to 6\.0000"):
        check_scale(mixed, both, "ctf.pkl")


def test_pixel_sizes_decide_whether_a_packed_store_is_used_again(
    folder: Path, both: ParticleTable, mixed: ParticleStore
) -> None:
    again = open_or_pack(both, folder / "both.frz", settings())
    assert again.manifest.fingerprint == mixed.manifest.fingerprint
    assert (again.rows["pixel_size_ang"] == COARSE[1]).all()
    other = replace(both, rows=both.rows.copy())
    other.rows["pixel_size_ang"][:700] = 4.0
    assert image_fingerprint(other, settings()) != image_fingerprint(both, settings())


def test_lazy_and_distributed_records_are_those_of_the_store(
    both: ParticleTable, tmp_path: Path
) -> None:
    few, int8 = both.take(np.r_[0:9, 700:711]), settings(precision="int8")
    store = pack(few, tmp_path / "X.frz", int8)
    lazy = LazyStore.of(few, int8)
    out = lazy.band_tensors(20, len(lazy.manifest.bands))
    lazy.read_blocks(0, 0, 2, out)
    codes = torch.cat(out, dim=1).numpy()[lazy.rows["slot"]]
    assert (lazy.pixel_size_ang, lazy.source_box_px) == (6.0, store.source_box_px)
    gain = lazy.gains(torch.arange(20))[:, None].numpy()
    values = codes * np.repeat(store.codec.step.numpy()[None], 20, 0) * gain
    found = torch.view_as_real(store.images(np.arange(20))).flatten(1).numpy()
    np.testing.assert_array_equal(found, values.astype(np.float32))

    prepared = PreparedImages.of(few, int8)
    scale = prepared.scale(prepared.reference())
    plan = StorePlan(
        images=20,
        record_values=2 * len(store.disc),
        value_type="int8",
        bands=store.manifest.bands,
        rows_per_shard=20,
        block_rows=20,
        seed=0,
        fingerprint="F" * 16,
    )
    write_job(tmp_path, prepared, scale, plan)
    job: PartJob = _opened(JobAddress.of(tmp_path, plan))
    block, wanted = (p.encode(slice(0, 20), scale) for p in (job.prepared, prepared))
    assert np.array_equal(block.records, wanted.records)
    assert set(prepared.transform_of.tolist()) == {0, 1}


def test_the_plan_counts_pixel_sizes_within_a_thousandth_as_one(both: ParticleTable) -> None:
    table = replace(both, rows=both.rows.copy())
    table.rows["pixel_size_ang"][:700:2] *= 1.0009
    with open_images(table, mixed=True) as images:
        assert len(plan_samplings(table, images, settings()).samplings) == 2
        table.rows["pixel_size_ang"][:700:2] *= 1.0009
        assert len(plan_samplings(table, images, settings()).samplings) == 3


def test_metadata_of_each_stack_must_agree(folder: Path) -> None:
    text = (folder / "both.star").read_text().replace("@coarse/particles", "@fine/particles")
    (folder / "one.star").write_text(text)
    with pytest.raises(InputError, match=r"_rlnImageSize (44|32), other images of its stack have"):
        particles_from_star(folder / "one.star")
