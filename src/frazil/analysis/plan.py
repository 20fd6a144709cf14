"""`frazil plan`: bytes, memory and time that particles will take, before anything is begun.

Owns: which figures are shown, and the times that follow from measured rates. Does not own: sizes
(`frazil.store.sizes`, `frazil.preprocess.plan`) and measurements (`frazil.preprocess.measure`,
`frazil.engines.vae.measure`).

Of particles only headers are read, of a store its manifest, but for a sample of at most 256 MB
that is timed and thrown away.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from frazil.analysis.facts import Facts
from frazil.analysis.plan_settings import PlanSettings
from frazil.engines.vae.device import choose_device
from frazil.engines.vae.measure import training_rate
from frazil.errors import BudgetError, InputError
from frazil.geometry.packing import half_disc
from frazil.io.particles import ParticleTable
from frazil.loader.order import CHUNK_BLOCKS
from frazil.preprocess.inputs import read_input, used_sources
from frazil.preprocess.measure import decoding_rate, read_rate, transform_rate
from frazil.preprocess.plan import PRECISIONS, PackPlan, check_plan, plan_packing
from frazil.preprocess.settings import InputSettings, PackSettings
from frazil.store.budget import allowed_bytes, memory_flag, size_text
from frazil.store.codec import NUMPY_TYPES, Codec
from frazil.store.manifest import MANIFEST_NAME, Manifest, Precision, check_box, read_manifest
from frazil.store.sizes import LoaderSize
from frazil.store.writer import BLOCK_ROWS, shard_path


@dataclass(frozen=True, eq=False)
class Plan:
    """What is known before the start; `refusal` says why it cannot be done, and what would help.

    What is refused is not measured.
    """

    facts: Facts
    refusal: BudgetError | None


def make_plan(inputs: InputSettings, packing: PackSettings, asked: PlanSettings) -> Plan:
    """Return the plan of packing particles, or of training on a store.

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : the particles or the store cannot be used.
    """
    choose_device(asked.device)
    path = Path(inputs.particles)
    if path.suffix == ".frz" or (path / MANIFEST_NAME).is_file():
        return _plan_of_store(path, inputs, packing, asked)
    return _plan_of_particles(path, inputs, packing, asked)


def _plan_of_particles(
    path: Path, inputs: InputSettings, packing: PackSettings, asked: PlanSettings
) -> Plan:
    table, dropped = read_input(inputs)
    facts = Facts(path, "plan of packing and training")
    plan = plan_packing(table, _store_path(path, asked.out), packing)
    loading = _Loading(
        LoaderSize(plan.size.images, plan.size.record_bytes, CHUNK_BLOCKS * BLOCK_ROWS),
        plan.size.particles,
        plan.size.box_px,
        packing.precision,
        plan.memory_bytes,
    )
    facts.add("particles", str(len(table)), len(table))
    if dropped:
        facts.add("dropped", str(sum(dropped.values())), sum(dropped.values()))
    _add_packing(facts, plan)
    loading.add_memory(facts, asked)
    try:
        check_plan(plan)
        loading.check(path, asked)
    except BudgetError as refusal:
        return Plan(facts, refusal)
    disk_rate = _add_disk_rate(facts, _stacks(table))
    _add_packing_time(facts, plan, packing, disk_rate)
    loading.add_times(facts, asked, disk_rate)
    return Plan(facts, None)


def _plan_of_store(
    path: Path, inputs: InputSettings, packing: PackSettings, asked: PlanSettings
) -> Plan:
    if inputs.ind:
        raise InputError(f"--ind {inputs.ind}: the plan of a store is that of all its particles")
    manifest = read_manifest(path)
    box_px = packing.box_px or manifest.box_px
    check_box(box_px, manifest.box_px, "the store")
    facts = Facts(path, "plan of training")
    facts.add("particles", str(manifest.particles), manifest.particles)
    facts.add("images", f"{manifest.images} of {manifest.box_px} px", manifest.images)
    facts.add("box", f"{box_px} px", box_px, "px")
    bands = manifest.bands[: manifest.band_count(box_px)]
    row_bytes = 2 * bands[-1].stop * np.dtype(NUMPY_TYPES[manifest.precision]).itemsize
    loading = _Loading(
        LoaderSize(manifest.images, row_bytes, CHUNK_BLOCKS * manifest.block_rows),
        manifest.particles,
        box_px,
        manifest.precision,
        allowed_bytes(packing.memory),
    )
    loading.add_memory(facts, asked)
    try:
        loading.check(path, asked)
    except BudgetError as refusal:
        return Plan(facts, refusal)
    disk_rate = _add_disk_rate(facts, _shards(path, manifest, len(bands)))
    loading.add_times(facts, asked, disk_rate)
    return Plan(facts, None)


@dataclass(frozen=True)
class _Loading:
    """What the loader streams to training."""

    size: LoaderSize
    particles: int
    box_px: int
    precision: Precision
    memory_bytes: int

    def add_memory(self, facts: Facts, asked: PlanSettings) -> None:
        """Add the loader's memory, in both of its ways."""
        windows, whole = self.size.window_bytes(asked.shuffler_size), self.size.whole_bytes
        facts.add("memory allowed", size_text(self.memory_bytes), self.memory_bytes, "bytes")
        facts.add("loader memory", f"{size_text(windows)} (two windows)", windows, "bytes")
        cached = windows + whole <= self.memory_bytes
        what = "fits: read once" if cached else "does not fit: streamed in every epoch"
        text = f"{size_text(windows + whole)} ({what})"
        facts.add("loader memory with all cached", text, windows + whole, "bytes")
        facts.values["cached"] = cached

    def check(self, path: Path, asked: PlanSettings) -> None:
        """Raise BudgetError when two windows do not fit."""
        needed = self.size.window_bytes(asked.shuffler_size)
        if needed <= self.memory_bytes:
            return
        rows = self.size.window_rows_within(self.memory_bytes)
        smaller = f"--shuffler-size {rows} or " if rows > 0 else ""
        raise BudgetError(
            f"{path}: two windows of the loader take {size_text(needed)}, "
            f"{size_text(self.memory_bytes)} are allowed; give {smaller}{memory_flag(needed)}"
        )

    def add_times(self, facts: Facts, asked: PlanSettings, disk_rate: float) -> None:
        """Add the time of an epoch for the loader, and for the VAE when it is asked for."""
        disc = half_disc(self.box_px)
        codec = Codec.from_shells(self.precision, np.ones(self.box_px // 2), disc)
        decoding = decoding_rate(codec, 2 * len(disc))
        facts.add("decoding", f"{decoding:.0f} images/s (measured)", decoding, "images_per_s")
        reading_s, decoding_s = self.size.whole_bytes / disk_rate, self.particles / decoding
        loading_s = _add_time(
            facts, "loader epoch", {"the disk": reading_s, "decoding": decoding_s}
        )
        if asked.zdim is None:
            facts.notes.append("training was not measured; give --zdim")
            return
        rate, device = training_rate(
            asked.model_config(asked.zdim), self.box_px, asked.batch_size, asked.device
        )
        facts.add("training", f"{rate:.0f} images/s on {device} (measured)", rate, "images_per_s")
        limits = {f"the network on {device}": self.particles / rate, "the loader": loading_s}
        _add_time(facts, "training epoch", limits)


def _add_packing(facts: Facts, plan: PackPlan) -> None:
    """Add what is read, written and held while packing."""
    size = plan.size
    facts.add("images", f"{size.images} of {plan.source_box_px} px", size.images)
    facts.add("box", f"{size.box_px} px", size.box_px, "px")
    facts.add("source", size_text(plan.source_bytes), plan.source_bytes, "bytes")
    for name in PRECISIONS:
        there = plan.at(name).disk_bytes
        chosen = " (asked for)" if name == size.precision else ""
        facts.add(f"disk {name}", f"{size_text(there)}{chosen}", there, "bytes")
    facts.add("disk while packing", size_text(plan.disk_bytes), plan.disk_bytes, "bytes")
    free = plan.free_bytes
    facts.add("disk free", f"{size_text(free)} at {plan.out.parent}", free, "bytes")
    facts.add("threads", str(plan.threads), plan.threads)
    buffers = plan.buffer_bytes(plan.threads)
    facts.add("packing memory", f"{size_text(buffers)} of buffers", buffers, "bytes")


def _add_packing_time(
    facts: Facts, plan: PackPlan, packing: PackSettings, disk_rate: float
) -> None:
    """Measure the transform, and add the time of packing."""
    rate = transform_rate(packing, packing.precision, plan.source_box_px, plan.domain)
    text = f"{rate:.0f} images/s per thread (measured)"
    facts.add("transform", text, rate, "images_per_s")
    threads = min(plan.threads, os.cpu_count() or 1)
    limits = {
        "the disk": plan.source_bytes / disk_rate,
        f"the transform on {threads} threads": plan.size.images / (rate * threads),
    }
    _add_time(facts, "packing", limits)


def _add_disk_rate(facts: Facts, paths: Iterable[Path]) -> float:
    """Measure the disk, add its rate and return it, bytes per second."""
    found = read_rate(paths)
    text = f"{size_text(found.bytes_per_s)}/s (measured on {size_text(found.sample_bytes)})"
    facts.add("disk rate", text, found.bytes_per_s, "bytes_per_s")
    return found.bytes_per_s


def _add_time(facts: Facts, label: str, limits: dict[str, float]) -> float:
    """Add the longest of the times that run beside one another, and whose it is; return it."""
    what = max(limits, key=lambda name: limits[name])
    seconds = limits[what]
    facts.add(f"{label} time", f"{duration_text(seconds)}, limited by {what}", seconds, "s")
    facts.values[f"{label} limit".replace(" ", "_")] = what
    return seconds


def duration_text(seconds: float) -> str:
    """Return a time with two units at most, e.g. "1 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _store_path(particles: Path, out: str | None) -> Path:
    """Return the store that -o asks for; in a folder, or without -o, it is named by its input."""
    given = Path(out) if out else Path()
    name = particles.name.removesuffix(particles.suffix).removesuffix(".ft")
    return given if given.suffix == ".frz" else given / f"{name}.frz"


def _stacks(table: ParticleTable) -> list[Path]:
    return [Path(source) for source in used_sources(table).sources]


def _shards(folder: Path, manifest: Manifest, bands: int) -> Iterable[Path]:
    places = ((shard, band) for shard in range(len(manifest.shard_rows)) for band in range(bands))
    return (shard_path(folder, shard, band) for shard, band in islice(places, 1000))
