"""What preprocessing says before and after: plain lines for the log.

Owns: their wording. Does not own: the figures.
"""

from collections.abc import Iterator

import numpy as np

from frazil.io.accounts import RowAccount
from frazil.io.particles import FLAGS, ParticleTable
from frazil.preprocess.plan import PackPlan
from frazil.preprocess.settings import PackSettings
from frazil.store.budget import size_text
from frazil.store.manifest import Manifest
from frazil.store.reader import ParticleStore


def describe_input(
    table: ParticleTable, settings: PackSettings, account: RowAccount
) -> Iterator[str]:
    """Yield what was found in the input, and what will be done to the sign of the images."""
    yield headline(table)
    yield account.line("to pack")
    yield from table.provenance
    yield from table.notes
    dark = settings.uninvert_data
    if table.blob_sign == (1 if dark else -1):
        found, flag = ("light", "without") if dark else ("dark", "with")
        yield (
            f"blob/sign says the particles are {found}; "
            f"if the map comes out inverted, run again {flag} --uninvert-data"
        )


def headline(table: ParticleTable) -> str:
    """Return how many particles there are, in how many stacks, and with what."""
    have = [
        name
        for name, there in (
            ("poses", table.has_pose),
            ("shifts", table.has_shift),
            ("CTF", table.has_ctf),
            ("pixel size", table.has_pixel_size),
        )
        if there
    ]
    used = len(np.unique(table.rows["source"]))
    return f"{table.origin}: {len(table)} particles in {used} stacks; with {', '.join(have) or '-'}"


def describe_plan(plan: PackPlan) -> Iterator[str]:
    """Yield what packing will read, write and hold in memory."""
    size = plan.size
    kept = "float32 Hartley" if plan.fourier else size.precision
    yield (
        f"plan: read {size_text(plan.source_bytes)} ({size.images} images of "
        f"{'up to ' if plan.resampled else ''}{plan.source_box_px} px), write "
        f"{size_text(plan.output_bytes)} ({size.box_px} px, {kept}); "
        f"{size_text(plan.free_bytes)} free at {plan.out.parent}"
    )
    yield from (f"plan: {line}" for line in plan.resampled)
    fewer = "" if plan.threads == plan.max_threads else f" of {plan.max_threads}, for the memory"
    if size.in_parts:
        each, what = plan.buffer_bytes(1), "each worker process takes"
    else:
        each, what = plan.buffer_bytes(plan.threads), f"{plan.threads} threads{fewer};"
    yield (
        f"plan: {what} at most {size_text(each)} of buffers, "
        f"{size_text(plan.memory_bytes)} allowed here ({plan.memory_why})"
    )


def describe_store(store: ParticleStore) -> Iterator[str]:
    """Yield what was packed, how exactly, and which images were flagged."""
    manifest = store.manifest
    size = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
    pixel = f", {manifest.pixel_size_ang:.4g} A/px" if manifest.pixel_size_ang else ""
    yield (
        f"{store.path}: {manifest.particles} particles, {manifest.images} images of "
        f"{manifest.box_px} px{pixel}, {manifest.precision}, {size / 1e6:.1f} MB "
        f"({size / manifest.images / 1e3:.2f} kB per image)"
    )
    yield f"precision: adds at most {worst_error(manifest):.3%} to the power of any shell"
    for name, count in manifest.flagged.items():
        if count:
            rows = np.flatnonzero(store.rows["flags"] & FLAGS[name])
            shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            yield f"{count} images flagged {name}: rows {shown} (0-based)"
    yield from store.notes


def worst_error(manifest: Manifest) -> float:
    """Return the largest ratio of error power to image power over shells."""
    power = np.square(manifest.shells.rms)
    error = np.square(manifest.shells.error_rms)
    return float(np.max(error[power > 0] / power[power > 0], initial=0.0))
