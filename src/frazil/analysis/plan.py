"""`frazil plan`: bytes, memory and time that particles will take, before anything is begun.

Owns: which figures are shown, and the times that follow from measured rates. Does not own: sizes
(`frazil.store.sizes`, `frazil.preprocess.plan`, `frazil.loader.plan`) and measurements
(`frazil.preprocess.measure`, `frazil.engines.vae.measure`).

Of particles only headers are read, of a store its manifest, but for a sample of at most 256 MB
that is timed and thrown away.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from frazil.analysis.facts import Facts, counts_text
from frazil.analysis.plan_settings import PlanSettings
from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.measure import fit_time
from frazil.engines.pca.memory import Needs, check_budget, needs
from frazil.engines.pca.schedule import Plan as FitPlan
from frazil.engines.pca.settings import ModelSettings
from frazil.engines.pca.work import expectation_work, maximisation_work, sent_bytes, work_line
from frazil.engines.vae.device import choose_device
from frazil.engines.vae.measure import training_rate
from frazil.errors import BudgetError, InputError
from frazil.geometry.packing import half_disc
from frazil.io.particles import ParticleTable
from frazil.loader.order import CHUNK_BLOCKS
from frazil.loader.plan import LoadingPlan, duration_text, loader_size
from frazil.preprocess.inputs import read_input, used_sources
from frazil.preprocess.measure import decoding_rate, read_rate, transform_rate
from frazil.preprocess.plan import PRECISIONS, PackPlan, check_plan, plan_packing
from frazil.preprocess.settings import InputSettings, PackSettings
from frazil.store.budget import Allowance, allowance, size_text
from frazil.store.codec import Codec
from frazil.store.manifest import MANIFEST_NAME, Precision, check_box, read_manifest
from frazil.store.reader import shard_files
from frazil.store.sizes import LoaderSize
from frazil.store.writer import BLOCK_ROWS


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
    table, account = read_input(inputs)
    facts = Facts(path, "plan of packing and training")
    plan = plan_packing(table, _store_path(path, asked.out), packing)
    size = LoaderSize(plan.size.images, plan.size.record_bytes, CHUNK_BLOCKS * BLOCK_ROWS)
    memory = Allowance(plan.memory_bytes, plan.memory_why)
    reading = LoadingPlan(size, asked.shuffler_size, memory, path)
    loading = _Loading(reading, plan.size.particles, plan.size.box_px, packing.precision)
    facts.add("particles", str(len(table)), len(table))
    if account.dropped:
        facts.add("dropped", counts_text(account.dropped), account.rows_in - account.rows_out)
    _add_packing(facts, plan)
    loading.add_memory(facts)
    try:
        check_plan(plan)
        loading.check(asked)
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
    size, memory = loader_size(manifest, box_px), allowance(packing.memory)
    reading = LoadingPlan(size, asked.shuffler_size, memory, path)
    loading = _Loading(reading, manifest.particles, box_px, manifest.precision)
    loading.add_memory(facts)
    try:
        loading.check(asked)
    except BudgetError as refusal:
        return Plan(facts, refusal)
    disk_rate = _add_disk_rate(facts, shard_files(path, manifest, box_px))
    loading.add_times(facts, asked, disk_rate)
    return Plan(facts, None)


@dataclass(frozen=True)
class _Loading:
    """What the loader streams to training."""

    plan: LoadingPlan
    particles: int
    box_px: int
    precision: Precision

    def add_memory(self, facts: Facts) -> None:
        """Add the loader's memory, in both of its ways."""
        plan, memory = self.plan, self.plan.memory
        windows, both = plan.window_bytes, plan.cached_bytes
        facts.add(
            "memory allowed", f"{size_text(memory.bytes)}, {memory.why}", memory.bytes, "bytes"
        )
        facts.values["memory_allowed_by"] = memory.why
        facts.add("epoch reads", size_text(plan.size.whole_bytes), plan.size.whole_bytes, "bytes")
        facts.add("loader memory", f"{size_text(windows)} (two windows)", windows, "bytes")
        what = "fits: read once" if plan.cached else "does not fit: streamed in every epoch"
        facts.add("loader memory with all cached", f"{size_text(both)} ({what})", both, "bytes")
        facts.values["cached"] = plan.cached

    def add_times(self, facts: Facts, asked: PlanSettings, disk_rate: float) -> None:
        """Add the time of an epoch for the loader, and for the VAE when it is asked for."""
        disc = half_disc(self.box_px)
        codec = Codec.from_shells(self.precision, np.ones(self.box_px // 2), disc)
        decoding = decoding_rate(codec, 2 * len(disc))
        facts.add("decoding", f"{decoding:.0f} images/s (measured)", decoding, "images_per_s")
        limits = {"decoding": self.particles / decoding}
        reading_s = self.plan.size.whole_bytes / disk_rate
        if self.plan.cached:
            text = f"{duration_text(reading_s)} in the first epoch, none later"
            facts.add("reading time", text, reading_s, "s")
        else:
            limits["the disk"] = reading_s
        loading_s = _add_time(facts, "loader epoch", limits)
        if asked.zdim is None:
            facts.notes.append("training was not measured; give --zdim")
            return
        if asked.engine == "pca":
            self._add_fit(facts, asked.zdim, loading_s)
            self._add_work(facts, asked)
            return
        rate, device = training_rate(
            asked.model_config(asked.zdim), self.box_px, asked.batch_size, asked.device
        )
        facts.add("training", f"{rate:.0f} images/s on {device} (measured)", rate, "images_per_s")
        limits = {f"the network on {device}": self.particles / rate, "the loader": loading_s}
        _add_time(facts, "training epoch", limits)

    def check(self, asked: PlanSettings) -> None:
        """Refuse buffers of the loader, or sums of a fit, that do not fit.

        Raises
        ------
        BudgetError : names a change that would make them fit.
        """
        self.plan.check()
        if asked.engine == "pca" and asked.zdim is not None:
            check_budget(self._fit_needs(asked.zdim), self.plan.memory.bytes)

    def _fit_needs(self, zdim: int) -> Needs:
        geometry = Geometry.of(self.box_px)
        return needs(geometry, zdim, self.particles, self.particles, threads=1)

    def _add_fit(self, facts: Facts, zdim: int, loading_s: float) -> None:
        """Add memory and time of train_pca, on one thread with its other defaults."""
        held = self._fit_needs(zdim).total
        facts.add("fit memory", f"{size_text(held)} beside the loader's", held, "bytes")
        found = fit_time(FitPlan.of(self.box_px, ModelSettings(zdim=zdim)))
        facts.add("fit passes", str(found.passes), found.passes)
        for label, passes, seconds in (
            ("fit", found.passes, found.fit_s),
            ("embedding", 1, found.embedding_s),
        ):
            limits = {"one thread": self.particles * seconds, "the loader": passes * loading_s}
            _add_time(facts, label, limits)

    def _add_work(self, facts: Facts, asked: PlanSettings) -> None:
        """Add what an image of train_pca costs a GPU at the full box."""
        volumes, coefficients = (asked.zdim or 0) + 1, len(half_disc(self.box_px))
        code_bytes = np.dtype(self.precision).itemsize
        work = {
            "sent_bytes": sent_bytes(coefficients, code_bytes),
            "expectation": asdict(expectation_work(volumes, coefficients)),
            "maximisation": asdict(maximisation_work(volumes, coefficients)),
        }
        facts.add("image on a GPU", work_line(volumes, coefficients, code_bytes), work)
        if choose_device(asked.device).type == "cuda":
            facts.notes.append("the times of a fit are those of the processor: no GPU was measured")


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


def _store_path(particles: Path, out: str | None) -> Path:
    """Return the store that -o asks for; in a folder, or without -o, it is named by its input."""
    given = Path(out) if out else Path()
    name = particles.name.removesuffix(particles.suffix).removesuffix(".ft")
    return given if given.suffix == ".frz" else given / f"{name}.frz"


def _stacks(table: ParticleTable) -> list[Path]:
    return [Path(source) for source in used_sources(table).sources]
