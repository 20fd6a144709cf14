"""Preflight names each mistake, passes correct data, and does not judge what it cannot see."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from frazil.engines.backproject import MapSums, add_batch
from frazil.engines.backproject_settings import BackprojectSettings
from frazil.engines.pca.grids import Geometry
from frazil.engines.preflight.hypotheses import ALTERNATIVES, Hypothesis
from frazil.engines.preflight.report import Finding, Report
from frazil.engines.preflight.run import preflight
from frazil.engines.preflight.sample import Sample, read_sample, sample_rows
from frazil.engines.preflight.score import Prepared, damped_maps, half_sums, score
from frazil.engines.preflight.settings import PreflightSettings
from frazil.engines.preflight.shape import edge_ring, power_ring, skewness, spike
from frazil.geometry.rotations import random_rotations, slice_coordinates
from frazil.geometry.slicing import extract, symmetrise
from frazil.io.images import open_particles
from frazil.loader.batches import ParticleBatch
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.reader import ParticleStore
from tests.engines.preflight_case import EXPECTED, simulated_store, with_mistake

BOX_PX, IMAGES = 40, 500
PARAMETERS = torch.tensor([6.0, 15000.0, 14000.0, 30.0, 300.0, 2.7, 0.1, 0.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preflight") / "set"


@pytest.fixture(scope="module")
def store(folder: Path) -> ParticleStore:
    return simulated_store(
        folder, num=IMAGES, box_px=BOX_PX, snr=0.3, shift_px=2.0, motion="none", sigma_ang=4.0
    )


def report_of(store: ParticleStore) -> Report:
    return preflight(store, PreflightSettings()).report


def named(report: Report) -> set[str]:
    return {finding.name for finding in report.findings if finding.kind != "unknown"}


@pytest.mark.parametrize("mistake", EXPECTED)
def test_each_mistake_is_named_and_nothing_else(
    folder: Path, store: ParticleStore, mistake: str
) -> None:
    report = report_of(with_mistake(folder, store, mistake))
    assert named(report) == EXPECTED[mistake]
    for finding in report.findings:
        if finding.kind != "unknown":
            assert finding.evidence and finding.remedy
    if mistake == "none":
        assert report.verdict == "looks right"


def test_noise_is_not_judged(folder: Path, store: ParticleStore) -> None:
    sample = read_sample(store, sample_rows(store, IMAGES))
    right = score(sample, Prepared.of(sample, Hypothesis()))
    noise = replace(sample, data=noise_like(sample))
    found = score(noise, Prepared.of(noise, Hypothesis()))
    assert right.total > 100 * IMAGES**0.5
    assert abs(found.total) < 30  # of one scale per shell, half of which are 0
    assert np.abs(found.curve[1:]).max() < 0.5


def test_a_signal_that_is_too_weak_raises_no_alarm(tmp_path: Path, store: ParticleStore) -> None:
    weak = simulated_store(
        tmp_path / "weak", num=300, box_px=32, snr=1e-4, shift_px=2.0, motion="none"
    )
    report = report_of(weak)
    assert report.verdict == "cannot tell"
    assert named(report) == set()
    assert "too weak" in report.findings[0].says
    assert report_of(store).verdict == "looks right"  # positive control


def test_what_could_not_be_told_shows_in_the_verdict(store: ParticleStore) -> None:
    report = report_of(store)
    assert next(report.lines()).startswith("preflight: looks right (")
    doubt = Finding(name="doubt", kind="unknown", says="not told", evidence="none")
    told = next(msgspec.structs.replace(report, findings=[doubt]).lines())
    assert told.startswith("preflight: looks right, as far as these data tell (")


def test_preferred_views_are_named(tmp_path: Path) -> None:
    uneven = simulated_store(
        tmp_path / "uneven", num=400, box_px=32, snr=0.5, preferred=12.0, motion="none"
    )
    report = report_of(uneven)
    assert named(report) == {"preferred orientation"}
    assert report.efficiency < 0.4
    assert report.verdict == "looks right"


def test_light_particles_without_a_ctf_are_sent_to_uninvert_data(tmp_path: Path) -> None:
    bare = simulated_store(
        tmp_path / "bare", num=300, box_px=32, snr=1.0, ctf=False, motion="none", sigma_ang=5.0
    )
    report = report_of(bare)
    assert named(report) == {"contrast inverted"}
    assert report.findings[0].remedy == "pack again with --uninvert-data"
    table = open_particles(tmp_path / "bare" / "particles.star")
    right = pack(table, tmp_path / "right.frz", PackSettings(uninvert_data=True))
    assert named(report_of(right)) == set()


def test_the_mirrored_hand_is_neither_right_nor_wrong(store: ParticleStore) -> None:
    # Turning every image by 180 degrees about its normal and mirroring the map changes no image.
    sample = read_sample(store, sample_rows(store, IMAGES))
    flip = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    mirrored = replace(sample, rotations=flip @ sample.rotations @ flip)
    right, other = (score(s, Prepared.of(s, Hypothesis())) for s in (sample, mirrored))
    # A projection along -z of the mirrored map is the same image.
    assert other.total == pytest.approx(right.total, rel=0.01)


def noise_like(sample: Sample) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(sample.data.shape, dtype=torch.complex64, generator=generator)


def random_sample(count: int, box_px: int) -> Sample:
    """Return a sample of noise with random poses, shifts and CTFs."""
    generator = torch.Generator().manual_seed(1)
    geometry = Geometry.of(box_px)
    rotations = random_rotations(count, generator).float()
    data = torch.randn(count, len(geometry.disc), dtype=torch.complex64, generator=generator)
    shifts = torch.randn(count, 2, generator=generator)
    return Sample(
        geometry,
        np.arange(count),
        (np.arange(count) % 2).astype(np.uint8),
        data,
        rotations,
        shifts,
        (rotations.roll(1, 0), shifts.roll(1, 0)),
        (rotations.roll(-1, 0), shifts.roll(-1, 0)),
        PARAMETERS.expand(count, 8) * (1 + 0.1 * torch.rand(count, 1, generator=generator)),
        np.zeros(count, np.int64),
        np.ones((1, box_px // 2 + 1)),
        6.0,
    )


def test_the_sums_are_those_of_back_projection() -> None:
    sample = random_sample(30, 24)
    numerator, weight = half_sums(Prepared.of(sample, Hypothesis()), np.arange(30), sample.geometry)
    batch = ParticleBatch(
        torch.arange(30), sample.data, sample.rotations, sample.shifts_px, sample.ctf
    )
    sums = MapSums.zeros(sample.geometry.disc, 1)
    add_batch(sums, batch, torch.zeros(30, dtype=torch.int64), BackprojectSettings())
    torch.testing.assert_close(numerator, symmetrise(sums.numerator[0]), atol=2e-3, rtol=1e-3)
    expected = symmetrise(sums.weight[0].to(torch.complex64)).real
    torch.testing.assert_close(weight, expected, atol=2e-3, rtol=1e-3)


def test_gains_are_held_out_log_likelihoods() -> None:
    sample = random_sample(40, 24)
    prepared = Prepared.of(sample, Hypothesis())
    found = score(sample, prepared)
    grids, _ = damped_maps(found.numerator, found.weight, sample.geometry)
    disc = sample.geometry.disc
    k3 = slice_coordinates(sample.rotations, disc.kx.float(), disc.ky.float())
    other = [1 - int(half) for half in sample.half]
    seen = torch.stack([extract(grids[o], k) for o, k in zip(other, k3, strict=True)])
    seen = seen * prepared.factor
    cross = (seen.conj() * prepared.data).real.double()
    power = (seen.abs() ** 2).double()
    shells = int(disc.shell.max())
    scale = torch.zeros(shells + 1, dtype=torch.float64)
    for s in range(1, shells + 1):
        here = disc.shell == s
        scale[s] = (cross[:, here].sum() / power[:, here].sum()).clamp(min=0)
    a = scale[disc.shell]
    expected = (2 * a * cross - a**2 * power).sum(1)
    np.testing.assert_allclose(found.gain, expected.numpy(), atol=1e-3, rtol=1e-3)


def test_a_hypothesis_that_nothing_changes_scores_the_same() -> None:
    sample = random_sample(40, 24)
    prepared = Prepared.of(sample, Hypothesis())
    twice = Hypothesis().with_shift(((-1.0, 0.0), (0.0, -1.0))).with_shift(((-1, 0), (0, -1)))
    np.testing.assert_allclose(
        score(sample, Prepared.of(sample, twice, prepared)).gain, score(sample, prepared).gain
    )


def test_parts_in_common_with_a_former_hypothesis_are_the_same_as_made_anew() -> None:
    sample = random_sample(10, 24)
    former = Prepared.of(sample, Hypothesis())
    for alternative in ALTERNATIVES:
        hypothesis = alternative.change(Hypothesis())
        one = Prepared.of(sample, hypothesis, former)
        other = Prepared.of(sample, hypothesis)
        assert torch.equal(one.factor, other.factor)
        assert torch.equal(one.data, other.data)
        assert torch.equal(one.rotations, other.rotations)
        same = [
            torch.equal(getattr(one, n), getattr(former, n))
            for n in ("factor", "data", "rotations")
        ]
        assert not all(same)


def test_the_sample_keeps_images_of_a_half_together(store: ParticleStore) -> None:
    rows = np.concatenate([np.arange(IMAGES), np.arange(IMAGES)])
    sample = read_sample(store, sample_rows(store, 2 * IMAGES, rows))
    by_image: dict[tuple[int, int], set[int]] = {}
    for row, half in zip(sample.rows, sample.half, strict=True):
        place = store.rows[row]
        by_image.setdefault((int(place["shard"]), int(place["slot"])), set()).add(int(half))
    assert all(len(halves) == 1 for halves in by_image.values())
    assert len(set(sample.half.tolist())) == 2


def test_whitened_data_have_unit_power_in_every_shell(store: ParticleStore) -> None:
    sample = read_sample(store, sample_rows(store, IMAGES))
    squared = sample.data.abs().numpy() ** 2
    shell = sample.geometry.shell
    means = [squared[:, shell == s].mean() for s in range(1, BOX_PX // 2 + 1)]
    np.testing.assert_allclose(means, 1.0, rtol=1e-3)


def test_skewness_has_the_sign_of_the_density_and_noise_adds_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    ball = torch.zeros(24, 24, 24)
    ball[9:15, 9:15, 9:15] = 1.0
    ball -= ball.mean()
    a, b = (ball + 0.3 * torch.randn(ball.shape, generator=generator) for _ in range(2))
    assert skewness(a, b) == pytest.approx(skewness(ball, ball), rel=0.1)
    assert skewness(-a, -b) == pytest.approx(-skewness(a, b))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_spike_stands_out_at_the_centre_only(dims: int) -> None:
    values = torch.randn((32,) * dims, generator=torch.Generator().manual_seed(5))
    assert spike(values) < 1.2
    values[(16,) * dims] = 30.0
    assert spike(values) > 3
    values[(16,) * dims] = 0.0
    values[(20,) * dims] = 30.0
    assert spike(values) < 1


def test_rings_are_seen_at_the_edge_and_in_the_spectrum() -> None:
    axis = torch.arange(32) - 16
    radius = torch.sqrt((axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).float())
    ball = (radius < 6).float()
    assert edge_ring(ball) < 0.01
    assert edge_ring(ball + 0.5 * (radius.round() == 14)) > 0.1
    rms = np.linspace(3, 1, 40)
    assert power_ring(rms)[1] < 1.3
    rms[20] *= 2
    assert power_ring(rms)[0] == 21
    assert power_ring(rms)[1] > 3
