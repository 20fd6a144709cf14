"""What is in a particle store or a run folder.

Owns: their facts. Does not own: their formats (`frazil.store`, `frazil.runs`).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from frazil.analysis.facts import Facts, counts_text
from frazil.analysis.particle_facts import add_table
from frazil.runs.folder import Run
from frazil.runs.journal import read_journal
from frazil.store.budget import size_text
from frazil.store.manifest import Manifest
from frazil.store.reader import ParticleStore


def describe_store(path: Path) -> Facts:
    """Return what a store's manifest and rows say."""
    store = ParticleStore.open(path)
    manifest = store.manifest
    facts = Facts(path, f"particle store, format {manifest.format}")
    facts.add("particles", f"{manifest.particles} ({manifest.images} images)", manifest.particles)
    _add_boxes(facts, manifest)
    _add_disk(facts, path, manifest)
    _add_quality(facts, manifest)
    # The source's box is said above.
    label = "pixel size" if manifest.processing.resampled else "source pixel size"
    add_table(facts, replace(store.table(), box_px=None), label)
    _add_accounting(facts, manifest)
    return facts


def _add_boxes(facts: Facts, manifest: Manifest) -> None:
    """Add the packed box, its bands, and what was done to the images."""
    size, process = manifest.pixel_size_ang, manifest.processing
    kinds = [(s.box_px, s.pixel_size_ang, s.particles) for s in process.resampled]
    from_what = [f"{box} px at {ang:.5g} A/px ({count})" for box, ang, count in kinds]
    source = ", ".join(from_what) or f"{process.source_box_px} px"
    text = f"{manifest.box_px} px, from {source}"
    text += f"; {size:.6g} A/px, Nyquist {2 * size:.4g} A" if size else ""
    facts.add("packed box", text, manifest.box_px, "px")
    facts.values["source_box_px"] = process.source_box_px
    facts.values["packed_pixel_size_ang"] = size
    radii = [band.radius_px for band in manifest.bands]
    facts.add("bands", f"|k| up to {', '.join(map(str, radii))} cycles per box", list(radii))
    window = f"window {process.window[0]:g} to {process.window[1]:g}" if process.window else None
    sign = "inverted" if process.sign < 0 else "not inverted"
    steps = ", ".join(part for part in (process.order, window or "no window", sign) if part)
    facts.add("processing", steps, {"order": process.order, "sign": process.sign})


def _add_disk(facts: Facts, path: Path, manifest: Manifest) -> None:
    """Add the size on disk, all and per image."""
    sizes = {file: file.stat().st_size for file in path.rglob("*") if file.is_file()}
    shards = sum(size for file, size in sizes.items() if file.parent.name == "shards")
    total = sum(sizes.values())
    each = shards / max(manifest.images, 1)
    facts.add(
        "on disk",
        f"{size_text(total)}: {len(manifest.shard_rows)} shards {size_text(shards)} "
        f"({size_text(each)} per image), metadata {size_text(total - shards)}",
        total,
        "bytes",
    )


def _add_quality(facts: Facts, manifest: Manifest) -> None:
    """Add precision, the error it makes, and the unit of intensity."""
    power, error = np.square(manifest.shells.rms), np.square(manifest.shells.error_rms)
    relative = np.divide(error, power, out=np.zeros_like(power), where=power > 0)
    worst = int(np.argmax(relative)) if len(relative) else 0
    most = float(relative.max(initial=0.0))
    clipped = sum(manifest.shells.clipped)
    facts.add(
        "precision",
        f"{manifest.precision}; adds at most {most:.3%} to the power of a shell (shell "
        f"{worst + 1} of {len(relative)}), {clipped} coefficients clipped",
        {"kind": manifest.precision, "worst_error": most, "clipped": clipped},
    )
    rms = manifest.rms(manifest.box_px)
    first, last = manifest.shells.rms[0], manifest.shells.rms[-1]
    text = f"RMS of |F| {rms:.5g}: {first:.4g} in shell 1 to {last:.4g} in the last"
    facts.add("intensity", text, rms)


def _add_accounting(facts: Facts, manifest: Manifest) -> None:
    """Add rows in and out, flags, and where the images came from."""
    dropped = counts_text(manifest.dropped) or "none"
    facts.add("rows", f"{manifest.rows_in} in the input; dropped: {dropped}", manifest.rows_in)
    flagged = {name: count for name, count in manifest.flagged.items() if count}
    facts.add("flagged", counts_text(flagged) or "none", dict(manifest.flagged))
    size = sum(source.size_bytes for source in manifest.sources)
    facts.add(
        "sources",
        f"{len(manifest.sources)} stacks, {size_text(size)}; {_source_state(manifest)}",
        len(manifest.sources),
    )
    facts.add("origin", manifest.origin, manifest.origin)
    facts.add("made by", f"{manifest.program}, seed {manifest.seed}", manifest.program)
    facts.add("command", manifest.command or "-", manifest.command)


def _source_state(manifest: Manifest) -> str:
    """Return whether the source stacks are still there and as they were."""
    gone = changed = 0
    for source in manifest.sources:
        try:
            status = Path(source.path).stat()
        except OSError:
            gone += 1
            continue
        changed += (status.st_size, status.st_mtime_ns) != (source.size_bytes, source.mtime_ns)
    if not gone + changed:
        return "all there, unchanged"
    return f"{gone} gone, {changed} changed since"


def describe_run(path: Path) -> Facts:
    """Return what a run folder holds: model, data, epochs and the last figures."""
    run = Run.open(path)
    config = run.config
    facts = Facts(path, f"run of {config.get('program', 'frazil')} {config.get('version', '')}")
    facts.add("command", str(config.get("command", "-")), config.get("command"))
    facts.add("particles", f"{config.get('particles', '-')}", config.get("particles"))
    text = str(config.get("store", "-")) + (" (not packed)" if run.is_lazy else "")
    facts.add("store", text, config.get("store"))
    box_px, size = config.get("box_px"), config.get("pixel_size_ang")
    text = f"{box_px} px" + (f", {size:.6g} A/px, Nyquist {2 * size:.4g} A" if size else "")
    facts.add("box", text, box_px, "px")
    model = config.get("model")
    if isinstance(model, dict):
        shown = ", ".join(f"{name} {value}" for name, value in model.items())
        facts.add("model", shown, model)
    epochs = run.epochs()
    text = f"{epochs[0]} to {epochs[-1]} ({len(epochs)} saved)" if epochs else "none yet"
    facts.add("epochs", text, epochs)
    if run.journal_path.is_file():
        _add_last_epoch(facts, run)
    unfinished = run.checkpoint_path.is_file()
    facts.add("checkpoint", "there: training can go on" if unfinished else "none", unfinished)
    size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    facts.add("on disk", size_text(size_bytes), size_bytes, "bytes")
    return facts


def _add_last_epoch(facts: Facts, run: Run) -> None:
    """Add the means of the last finished epoch."""
    finished = [line for line in read_journal(run.journal_path) if line.get("event") == "epoch"]
    if finished:
        last = {k: v for k, v in finished[-1].items() if isinstance(v, int | float)}
        facts.add("last epoch", ", ".join(f"{k} {v:.5g}" for k, v in last.items()), last)
