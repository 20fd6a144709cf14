"""The analysis of one epoch of a run, from latents to the report.

Owns: the order of the steps, the names of the output files (those of cryoDRGN where it has them).
Does not own: each step (the other modules of this package).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frazil.analysis import plots, report, run_report
from frazil.analysis.cluster import Clusters, kmeans_on_data, mixture_clusters
from frazil.analysis.embed import PrincipalAxes, principal_axes, umap_embedding
from frazil.analysis.latents import Latents, load_latents
from frazil.analysis.settings import AnalyzeSettings, VolumeSettings
from frazil.analysis.traverse import traverse_axis
from frazil.analysis.volumes import TrainedGrid, check_volume_settings, volumes_need, write_volumes
from frazil.engines.load import load_model
from frazil.engines.pca.mixture_files import read_mixture
from frazil.io.atomic import atomic_path, write_npy_atomic, write_text_atomic
from frazil.runs.folder import Run, make_folder
from frazil.runs.journal import read_journal

_VOLUME_NAME = re.compile(r"vol_\d+\.mrc")


@dataclass(frozen=True, eq=False)
class _Analysis:
    """What every step needs; `axes` are the principal components of the latents."""

    run: Run
    out: Path
    latents: Latents
    axes: PrincipalAxes
    clusters: Clusters
    settings: AnalyzeSettings
    log: Callable[[str], None]

    @property
    def cluster_folder(self) -> Path:
        """Where labels, centres and their volumes go."""
        kmeans = self.clusters.kind == "kmeans"
        count = self.settings.clusters if kmeans else len(self.clusters.indices)
        return self.out / f"{self.clusters.kind}{count}"


def analyze_run(
    run_path: Path,
    epoch: int | None = None,
    settings: AnalyzeSettings | None = None,
    volume_settings: VolumeSettings | None = None,
    out: Path | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Analyse an epoch of a run; return the path of its report.html.

    Written into `out` (RUN/analyze.N): z_pca.png, umap.png, umap.npy, learning_curve.png,
    kmeansK/ (labels.npy, centers.txt, centers_ind.txt, vol_001.mrc ...; of a run with a mixture
    mixtureM/), pc1/, pc2/ ... (z_values.txt, vol_001.mrc ...) and at last report.html. Each file is
    whole or not there; an earlier analysis in the folder is replaced.

    Parameters
    ----------
    epoch : default the last one with weights.
    log : takes one line of text at a time.

    Raises
    ------
    MissingFileError : no such run or epoch.
    InputError : a volume setting that does not fit the run.
    BudgetError : the volumes do not fit the disk.
    """
    settings = settings or AnalyzeSettings()
    volume_settings = volume_settings or VolumeSettings()
    run = Run.open(run_path)
    check_volume_settings(TrainedGrid.from_config(run.config), volume_settings)
    latents = load_latents(run, epoch)
    out = run.path / f"analyze.{latents.epoch}" if out is None else out
    make_folder(out)
    (out / "report.html").unlink(missing_ok=True)  # it would speak of what is being replaced
    count, zdim = latents.z.shape
    log(f"analysing epoch {latents.epoch} of {run.path}: {count} latents of dimension {zdim}")
    clusters = _clusters(run, latents, settings)
    if settings.volumes:
        components = min(settings.components, zdim)
        volumes = len(clusters.indices) + components * settings.per_component
        grid = TrainedGrid.from_config(run.config)
        written = volumes_need(volumes, grid, volume_settings, out)
        log(written.line())
        written.check()
    axes = principal_axes(latents.z)
    analysis = _Analysis(run, out, latents, axes, clusters, settings, log)
    write_clusters(analysis)
    sections = plot_sections(analysis)
    if settings.volumes:
        sections += volume_sections(analysis, volume_settings)
    shown, problem = run_report.particles(run, latents, clusters, settings.seed)
    if problem:
        log(problem)
    sections += [shown, run_report.cluster_table(clusters, latents)]
    sections.append(run_report.files(run, out, _described(analysis)))
    title = f"{run.path.resolve().name}, epoch {latents.epoch}"
    text = report.page(title, f"Analysis of {run.path.resolve()} by frazil", sections)
    write_text_atomic(out / "report.html", text)
    log(f"report: {out / 'report.html'}")
    return out / "report.html"


def _clusters(run: Run, latents: Latents, settings: AnalyzeSettings) -> Clusters:
    """Return the components of the run's mixture, or k-means clusters where it has none."""
    found = read_mixture(run) if settings.mixture else None
    if found is not None and len(found.labels) == len(latents.z):
        return mixture_clusters(found)
    return kmeans_on_data(latents.z, settings.clusters, settings.seed)


def write_clusters(analysis: _Analysis) -> None:
    """Write labels (n,), centres (K, Z) and the index of each centre in z."""
    clusters = analysis.clusters
    folder = analysis.cluster_folder
    folder.mkdir(parents=True, exist_ok=True)
    write_npy_atomic(folder / "labels.npy", clusters.labels)
    for name, values, form in (
        ("centers.txt", clusters.centres, "%.7g"),
        ("centers_ind.txt", clusters.indices, "%d"),
    ):
        with atomic_path(folder / name) as temporary:
            np.savetxt(temporary, values, fmt=form)


def plot_sections(analysis: _Analysis) -> list[report.Section]:
    """Write the plots; return the sections of facts, training and latent space."""
    intervals, epochs = _learning_curves(analysis.run, analysis.latents.epoch)
    seconds = _seconds(analysis.run, analysis.latents.epoch)
    learning = []
    if epochs or intervals:
        figure = plots.learning_figure(intervals, epochs)
        plots.save_figure(figure, analysis.out / "learning_curve.png")
        learning.append(("learning curve", plots.png_bytes(figure)))
    embeddings = [_pca_plot(analysis)]
    if analysis.settings.umap:
        embeddings += _umap_plot(analysis)
    return [
        run_report.run_facts(analysis.run, analysis.latents, seconds),
        report.Section(
            "training",
            "Training",
            "Means over the log intervals and epochs.",
            report.plots(learning, broad=True),
        ),
        report.Section(
            "latents",
            "Latent space",
            "One point per particle; the numbers are those of the clusters below.",
            report.plots(embeddings),
        ),
    ]


def volume_sections(analysis: _Analysis, settings: VolumeSettings) -> list[report.Section]:
    """Write volumes at cluster centres and along components; return their sections."""
    run, latents = analysis.run, analysis.latents
    model, config = load_model(run.path, latents.epoch)
    grid = TrainedGrid.from_config(config)
    _remove_volumes(analysis.cluster_folder)
    paths = write_volumes(model, analysis.clusters.centres, grid, settings, analysis.cluster_folder)
    traversals = {}
    wanted = analysis.settings.components
    components = min(wanted, len(analysis.axes.axes))
    if components < wanted:
        analysis.log(f"only {components} principal component(s) there, {wanted} asked for")
    for number in range(1, components + 1):
        points, positions = traverse_axis(
            latents.z, analysis.axes, number, analysis.settings.per_component
        )
        folder = analysis.out / f"pc{number}"
        _remove_volumes(folder)
        along = write_volumes(model, points, grid, settings, folder)
        traversals[number] = (along, positions.tolist())
    return [
        run_report.cluster_volumes(analysis.clusters, paths, latents),
        run_report.traversal_films(traversals),
    ]


def _remove_volumes(folder: Path) -> None:
    """Remove the volumes of an earlier analysis, which may have been more."""
    for path in folder.glob("vol_*.mrc"):
        if _VOLUME_NAME.fullmatch(path.name):
            path.unlink()


def _pca_plot(analysis: _Analysis) -> tuple[str, bytes]:
    """Write z_pca.png; return it with its name."""
    axes, clusters = analysis.axes, analysis.clusters
    names = [f"PC{i} ({share:.0%} of variance)" for i, share in enumerate(axes.explained, start=1)]
    figure = plots.embedding_figure(
        axes.project(analysis.latents.z)[:, :2],
        (names[0], names[min(1, len(names) - 1)]),
        "principal components",
        clusters.labels,
        clusters.indices,
    )
    plots.save_figure(figure, analysis.out / "z_pca.png")
    return "principal components of the latents", plots.png_bytes(figure)


def _umap_plot(analysis: _Analysis) -> list[tuple[str, bytes]]:
    """Write umap.npy and umap.png; return the plot, or nothing where it would tell nothing new."""
    latents, clusters = analysis.latents, analysis.clusters
    if latents.z.shape[1] <= 2:
        analysis.log("no UMAP: the latent space has two dimensions at most")
        return []
    analysis.log("embedding with UMAP")
    embedding = umap_embedding(latents.z, analysis.settings.seed)
    write_npy_atomic(analysis.out / "umap.npy", embedding)
    figure = plots.embedding_figure(
        embedding, ("UMAP1", "UMAP2"), "UMAP", clusters.labels, clusters.indices
    )
    plots.save_figure(figure, analysis.out / "umap.png")
    return [("UMAP of the latents", plots.png_bytes(figure))]


def _learning_curves(run: Run, epoch: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Return points of the log intervals and of whole epochs, up to an epoch; see plots."""
    if not run.journal_path.is_file():
        return [], []
    lines = [line for line in read_journal(run.journal_path) if line.get("epoch", 0) <= epoch]
    intervals, epochs = [], []
    particles = len(run.rows())
    for line in lines:
        if "gen_loss" not in line:
            continue
        point = {"gen_loss": line["gen_loss"], "kld": line["kld"]}
        if line.get("event") == "epoch":
            epochs.append({**point, "at": line["epoch"] - 0.5, "seconds": line.get("seconds", 0.0)})
        elif "event" not in line:
            intervals.append({**point, "at": line["epoch"] - 1 + line["images"] / particles})
    return intervals, epochs


def _seconds(run: Run, epoch: int) -> float:
    """Return the time that the epochs of the VAE, or the passes of the PCA, took."""
    if not run.journal_path.is_file():
        return 0.0
    lines = [line for line in read_journal(run.journal_path) if line.get("epoch", 0) <= epoch]
    timed = [line for line in lines if line.get("event") in ("epoch", "pass", "embed")]
    return float(sum(line.get("seconds", 0.0) for line in timed))


def _described(analysis: _Analysis) -> list[tuple[str, str]]:
    """Return the files of the analysis and what they hold, those that are there."""
    folder = analysis.cluster_folder.name
    described = [
        ("z_pca.png, umap.png, learning_curve.png", "the plots"),
        ("umap.npy", "UMAP coordinates (n, 2), in the order of z.N.npy"),
        (f"{folder}/labels.npy", "cluster of each latent, from 0 (cluster 1 above is label 0)"),
        (f"{folder}/centers.txt", "latent of each centre; frazil eval_vol --zfile reads it"),
        (f"{folder}/centers_ind.txt", "index of each centre in z.N.npy"),
        (f"{folder}/vol_*.mrc", "volumes at the centres"),
        ("pc*/vol_*.mrc", "volumes along principal components; z_values.txt holds their latents"),
    ]
    first = [(name.split(",")[0].rpartition("/"), name, what) for name, what in described]
    return [
        (name, what)
        for (folder_name, _, pattern), name, what in first
        if any(analysis.out.glob(f"{folder_name}/{pattern}" if folder_name else pattern))
    ]
