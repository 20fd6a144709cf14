"""The sections of a run's report.

Owns: which facts, plots and pictures of an analysis are shown, and in what words. Does not own:
how the page is built (`report`), how pictures are made (`plots`, `pictures`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frazil.analysis import pictures, report
from frazil.analysis.cluster import Clusters
from frazil.analysis.latents import Latents
from frazil.errors import CorruptDataError, MissingFileError
from frazil.io.mrc import read_volume
from frazil.runs.folder import Run
from frazil.store.reader import ParticleStore

_THUMBNAILS = 24


def run_facts(run: Run, latents: Latents, seconds: float) -> report.Section:
    """Return what was trained, on what, for how long."""
    config = run.config
    model = config["model"]
    pixel_ang = config.get("pixel_size_ang")
    pairs = [
        ("particles", f"{len(latents.z):,}"),
        ("box", f"{config['box_px']} px"),
        ("pixel size", f"{pixel_ang:.4g} Å" if pixel_ang else "unknown"),
        ("finest resolution", f"{2 * pixel_ang:.4g} Å" if pixel_ang else "unknown"),
        ("epoch", f"{latents.epoch} of {run.last_epoch} trained"),
        ("latent dimension", str(latents.z.shape[1])),
        *_networks(model),
        ("training time", _duration(seconds)),
        ("seed", str(config.get("seed", "?"))),
        ("particles from", str(config.get("store", "?"))),
        ("program", str(config.get("program", "frazil"))),
    ]
    body = report.facts(pairs)
    settings = config.get("settings") or {}
    rows = [(f"{name}", f"{value}") for name, value in _flat(settings)]
    if rows:
        body += (
            '<details class="card" style="margin-top:12px"><summary>all settings</summary>'
            f"{report.paths(rows)}</details>"
        )
    command = config.get("command", "")
    text = command if isinstance(command, str) else " ".join(map(str, command))
    return report.Section("run", "Run", text or "Settings of the run.", body)


def _networks(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the sizes of a model's networks; of a linear model there are none."""
    return [
        (name, f"{model[f'{short}_dim']} x {model[f'{short}_layers']}")
        for name, short in (("encoder", "enc"), ("decoder", "dec"))
        if f"{short}_dim" in model
    ]


def cluster_volumes(clusters: Clusters, paths: Sequence[Path], latents: Latents) -> report.Section:
    """Return slices and projections of the volume at each cluster's centre."""
    views = [pictures.volume_views(read_volume(path)[0]) for path in paths]
    cards = [
        report.strip_card(
            f"Cluster {number}",
            f"{count:,} particles ({100 * count / len(latents.z):.1f} %), {path.name}",
            png,
            pictures.VIEWS,
        )
        for number, (count, path, png) in enumerate(
            zip(clusters.counts, paths, pictures.strips(views), strict=True), start=1
        )
    ]
    where = {
        "kmeans": "the particle nearest to each k-means centre",
        "mixture": "the mean of each component of the mixture",
    }
    text = (
        f"Volumes decoded at {where[clusters.kind]}: three slices through the "
        "centre, and three projections. Dense is light; all volumes share one grey scale."
    )
    return report.Section("clusters", "Cluster volumes", text, report.grid("volumes", cards))


def traversal_films(
    traversals: Mapping[int, tuple[Sequence[Path], Sequence[float]]],
) -> report.Section:
    """Return films of the volumes along each principal component (number -> paths, positions)."""
    cards = []
    for number, (paths, positions) in traversals.items():
        views = [pictures.volume_views(read_volume(path)[0]) for path in paths]
        labels = [f"{position:+.2f}" for position in positions]
        for view in (3, 4, 5):
            name = pictures.VIEWS[view]
            title, note = f"PC{number}, projection {name}", f"pc{number}/"
            cards.append(report.strip_card(title, note, pictures.film(views, view), labels))
    text = (
        "Volumes at evenly spaced points of each principal component, from the 5th to the 95th "
        "percentile of the particles; the position on the component is under each."
    )
    return report.Section("components", "Principal components", text, report.grid("", cards))


def particles(
    run: Run, latents: Latents, clusters: Clusters, seed: int
) -> tuple[report.Section, str | None]:
    """Return thumbnails of random particles in real space, and why there are none, if so."""
    empty = report.Section("particles", "Particles", "", "")
    if run.is_lazy:
        return empty, "no particle pictures: trained with --lazy, so there is no store"
    try:
        store = ParticleStore.open(Path(run.config["store"]))
    except (MissingFileError, CorruptDataError) as error:
        return empty, f"no particle pictures: {error}"
    if store.count <= latents.rows.max():
        return empty, f"no particle pictures: {store.path} holds other particles by now"
    count = min(_THUMBNAILS, len(latents.rows))
    chosen = np.sort(np.random.default_rng(seed).choice(len(latents.rows), count, replace=False))
    rows = latents.rows[chosen]
    shown, low_pass_ang = pictures.particle_thumbnails(store, rows)
    cells = [
        report.thumbnail(png, _identity(store, int(row), int(clusters.labels[i]) + 1))
        for png, row, i in zip(pictures.thumbnail_pngs(shown), rows, chosen, strict=True)
    ]
    filtered = f"low-passed at {low_pass_ang:.0f} Å" if low_pass_ang else "low-passed"
    text = (
        f"{count} particles at random, in real space from the packed store, windowed and "
        f"{filtered} to be seen; each has its own grey scale. As stored, particles are dark. "
        "Rows count from 0; image numbers in a stack from 1, as in RELION."
    )
    return report.Section("particles", "Particles", text, report.grid("particles", cells)), None


def cluster_table(clusters: Clusters, latents: Latents) -> report.Section:
    """Return the clusters with their sizes and representatives."""
    rows = [
        [
            f"Cluster {number}",
            f"{count:,}",
            f"{100 * count / len(latents.z):.1f} %",
            f"{index}",
            f"{latents.rows[index]}",
            "  ".join(f"{value:.3f}" for value in centre[:8]) + (" …" if len(centre) > 8 else ""),
        ]
        for number, (count, index, centre) in enumerate(
            zip(clusters.counts, clusters.indices, clusters.centres, strict=True), start=1
        )
    ]
    header = ("", "particles", "share", "centre: index in z", "row of the input", "latent")
    text = {
        "kmeans": "k-means in the latent space; each centre is the particle nearest to the mean.",
        "mixture": "Components of the run's Gaussian mixture; a particle belongs to the likeliest. "
        "The latent is the component's mean, the index that of the nearest particle.",
    }[clusters.kind]
    return report.Section("table", "Clusters", text, report.table(header, rows))


def files(run: Run, out: Path, described: Sequence[tuple[str, str]]) -> report.Section:
    """Return where things are."""
    text = f"In {out} unless a path is given."
    pairs = [(str(run.path), "the run: config.json, metrics.jsonl, weights, latents"), *described]
    return report.Section("files", "Files", text, report.paths(pairs))


def _identity(store: ParticleStore, row: int, cluster: int) -> list[str]:
    """Return lines that tell which particle a row is."""
    place = store.rows[row]
    lines = [f"row {row}", f"cluster {cluster}"]
    if int(place["uid"]):
        lines.append(f"uid {int(place['uid'])}")
    source = int(place["source"])
    if 0 <= source < len(store.manifest.sources):
        name = Path(store.manifest.sources[source].path).name
        lines.append(f"{int(place['index']) + 1:06d}@{name}")
    return lines


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested settings as (dotted name, value)."""
    pairs: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
