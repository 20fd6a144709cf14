"""A whole preflight of a store: sample, search, shape, views, report.

Owns: the order of these, and what a report is the report of. Does not own: the files
(`frazil.analysis.preflight`).
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from frazil import __version__
from frazil.engines.preflight.findings import Facts, findings, verdict
from frazil.engines.preflight.report import REPORT_VERSION, Report, Trial
from frazil.engines.preflight.sample import COEFFICIENT_BYTES, Sample, read_sample, sample_rows
from frazil.engines.preflight.score import Prepared
from frazil.engines.preflight.search import Outcome, search
from frazil.engines.preflight.settings import PreflightSettings
from frazil.engines.preflight.shape import power_ring, shape_of
from frazil.geometry.packing import half_disc
from frazil.metrics.fsc import first_crossing
from frazil.metrics.orientation import fourier_sampling, sampling_efficiency
from frazil.preprocess.parallel import one_torch_thread
from frazil.store.reader import ParticleStore

# Of the prepared sample; fewer particles are taken where a larger box would need more.
_LARGEST_SAMPLE_BYTES = 600 << 20
_HARDLY_SEEN = 0.2
# Fewer particles, or a smaller box, are not worth a try.
FEWEST_PARTICLES, SMALLEST_BOX_PX = 200, 16


@dataclass(frozen=True, eq=False)
class Preflight:
    """A report with what is drawn: the sample, the map (d, d, d), mean |F| of optics groups."""

    report: Report
    sample: Sample
    volume: NDArray[np.float32]
    group_rms: dict[str, list[float]]


def preflight(
    store: ParticleStore,
    settings: PreflightSettings,
    selected: NDArray[np.int64] | None = None,
    memory_bytes: int | None = None,
) -> Preflight:
    """Return the preflight of a store's particles with its poses and CTF.

    Parameters
    ----------
    selected : (m,) rows to take the sample of; None: all.
    memory_bytes : ceiling of memory; a smaller one makes the sample smaller.

    Raises
    ------
    InputError : a row has no pose.
    CorruptDataError : a shard is damaged.
    """
    box_px = min(settings.box_px, store.box_px)
    largest = min(_LARGEST_SAMPLE_BYTES, memory_bytes or _LARGEST_SAMPLE_BYTES)
    room = max(FEWEST_PARTICLES, largest // (COEFFICIENT_BYTES * len(half_disc(box_px))))
    rows = sample_rows(store, min(settings.particles_tried, room), selected)
    with one_torch_thread():
        sample = read_sample(store, rows, box_px)
        outcome = search(sample)
        centred = Prepared.of(sample, outcome.hypothesis).data
        shape, volume = shape_of(sample, outcome.score, centred)
        views = sample.rotations[:, :, 2] if outcome.hypothesis.transposed else None
        sampling = fourier_sampling((sample.rotations[:, 2] if views is None else views).double())
    facts = _facts(store, sample, outcome, sampling.numpy(), sampling_efficiency(sampling))
    found = findings(outcome, shape, facts)
    rms = {group.name: group.rms for group in store.manifest.optics if group.images}
    whole = np.asarray(store.manifest.shells.rms)
    report = Report(
        program=f"frazil {__version__}",
        key=report_key(store, settings, selected),
        verdict=verdict(found, outcome),
        findings=found,
        particles=len(sample),
        box_px=sample.geometry.box_px,
        pixel_size_ang=sample.pixel_size_ang,
        resolution_ang=_resolution(outcome, sample),
        fsc=[round(float(value), 5) for value in outcome.score.curve],
        signal=outcome.signal,
        poses=outcome.poses.sigmas,
        ctf=None if outcome.ctf is None else outcome.ctf.sigmas,
        trials=[Trial(t.name, t.difference, t.sigmas) for t in outcome.tried],
        **{name: getattr(shape, name) for name in shape.__dataclass_fields__},
        efficiency=facts.efficiency,
        unseen=facts.unseen,
        group_noise={name: float(np.mean(np.asarray(v) / whole)) for name, v in rms.items()},
    )
    return Preflight(report, sample, volume, rms)


def report_key(
    store: ParticleStore, settings: PreflightSettings, selected: NDArray[np.int64] | None = None
) -> str:
    """Return a digest of all that decides a report."""
    rows = store.rows
    digest = xxhash.xxh3_64()
    manifest = store.manifest
    digest.update(msgspec.json.encode([REPORT_VERSION, settings, manifest.fingerprint]))
    digest.update(np.ascontiguousarray(store.checksums).tobytes())
    for name in ("rotation", "shift_ang", "pixel_size_ang", "defocus_u_ang", "astigmatism_deg"):
        digest.update(np.ascontiguousarray(rows[name]).tobytes())
    if selected is not None:
        digest.update(np.ascontiguousarray(selected, np.int64).tobytes())
    return digest.hexdigest()


def _facts(
    store: ParticleStore,
    sample: Sample,
    outcome: Outcome,
    sampling: NDArray[np.float64],
    efficiency: float,
) -> Facts:
    """Return what the findings need to know besides."""
    shell, factor = power_ring(np.asarray(store.manifest.shells.rms))
    pixel_ang = store.pixel_size_ang
    box = store.box_px * (pixel_ang or 1.0)
    unit = "px" if pixel_ang is None else "A"
    return Facts(
        sign=store.manifest.processing.sign,
        has_ctf=sample.ctf is not None,
        has_shifts=bool(sample.shifts_px.any()),
        resolution=f"{_resolution(outcome, sample):.3g} {unit}",
        efficiency=efficiency,
        unseen=float((sampling < _HARDLY_SEEN).mean()),
        ring=(f"{box / max(shell, 1):.3g} {unit}", factor),
    )


def _resolution(outcome: Outcome, sample: Sample) -> float:
    """Return the resolution (A, or px without a pixel size) at FSC 0.143."""
    shell = first_crossing(torch.from_numpy(outcome.score.curve), 0.143)
    box = sample.geometry.box_px * (sample.pixel_size_ang or 1.0)
    return box / max(sample.geometry.box_px // 2 if shell is None else shell, 1.0)
