"""Files of a finished fit.

Owns: maps, latents, weights and the reliability table, and reading the weights back. Does not own:
names of a run's common files (`frazil.runs`), plots (`frazil.analysis.components`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frazil.engines.pca.grids import finished_maps, inner_products, resampled
from frazil.engines.pca.loop import Embedding, Fitting
from frazil.engines.pca.start import FINISHED
from frazil.engines.vae.load import weights_path
from frazil.io.atomic import write_npy_atomic, write_text_atomic
from frazil.io.mrc_writer import write_volume
from frazil.metrics.fsc import first_crossing, shell_resolution_ang
from frazil.models.linear import LinearModel
from frazil.runs.checkpoint import load_checkpoint, save_checkpoint

PROGRAM = "frazil train_pca"
# Two half sets agree on a direction of the component space when its canonical correlation is
# above this. Components fitted to noise reach about 2 sqrt(K / voxels), 0.1 to 0.2.
REAL_CORRELATION = 0.5


@dataclass(frozen=True, eq=False)
class Reliability:
    """How far a fit can be trusted.

    Attributes
    ----------
    real : number of directions on which the half sets agree.
    canonical : (K,) their correlations at low resolution, in descending order.
    power_ratio : (K,) power of each component relative to the mean's.
    latent_deviation : (K,) deviation of the particles' latents.
    information : (K,) share of the latent's variance that an image determines, 0 to 1.
    fsc_mean, fsc_components : curves of the half sets; the components aligned.
    fsc_consensus : curve of the half maps within the mask.
    """

    real: int
    canonical: list[float]
    power_ratio: list[float]
    latent_deviation: list[float]
    information: list[float]
    fsc_mean: list[float]
    fsc_components: list[list[float]]
    fsc_consensus: list[float]


def reliability(fitting: Fitting, found: Embedding) -> Reliability:
    """Return the reliability of a finished fit."""
    state = fitting.state
    geometry = fitting.plan.geometry(state.box_px)
    power = np.diag(inner_products(state.models[0], state.models[0], geometry))
    covariance = np.linalg.inv(found.precision.astype(np.float64))
    left = np.diagonal(covariance, axis1=1, axis2=2).mean(0)
    spread = found.mean.astype(np.float64).std(0)
    return Reliability(
        real=int((state.canonical > REAL_CORRELATION).sum()),
        canonical=state.canonical.tolist(),
        power_ratio=(power[1:] / power[0]).tolist(),
        latent_deviation=spread.tolist(),
        information=(spread**2 / (spread**2 + left)).tolist(),
        fsc_mean=state.facts["fsc_mean"],
        fsc_components=state.facts["fsc_components"],
        fsc_consensus=state.facts["fsc_consensus"],
    )


def final_maps(fitting: Fitting) -> Tensor:
    """Return (K + 1, D, D, D) mean and components at the full box, in units of the norm scale."""
    return _full_maps(fitting, fitting.state.models[0], fitting.state.box_px)


def write_outputs(fitting: Fitting, found: Embedding, table: Reliability) -> list[str]:
    """Write everything but plots into the run folder, the reliability table last; say what."""
    run, plan, scale = fitting.run, fitting.plan, fitting.norm_scale
    pixel_ang = run.config["pixel_size_ang"] or 1.0
    maps = final_maps(fitting)
    epoch = fitting.state.step
    facts = {"epoch": epoch, "config": run.config}
    save_checkpoint(run.weights_path(epoch), {"model.maps": maps}, facts)
    named = {"mean.mrc": maps[0]}
    named |= {f"component_{k}.mrc": maps[k] for k in range(1, len(maps))}
    for name, grids in zip(
        ("half_map_a.mrc", "half_map_b.mrc"), fitting.state.consensus, strict=True
    ):
        named[name] = _full_maps(fitting, grids, plan.box_px)[0]
    for name, volume in named.items():
        write_volume(run.path / name, (scale * volume).numpy(), pixel_ang)
    if fitting.state.mask is not None:
        write_volume(run.path / "mask.mrc", fitting.state.mask.numpy(), pixel_ang)
    write_npy_atomic(run.latents_path(epoch), found.mean)
    write_npy_atomic(run.path / "z.npy", found.mean)
    write_npy_atomic(run.path / "precisions.npy", found.precision)
    if plan.contrast:
        write_npy_atomic(run.path / "contrast.npy", found.contrast)
    write_npy_atomic(run.path / "noise_deviation.npy", fitting.state.deviation * scale)
    lines = table_lines(table, plan.box_px, pixel_ang)
    write_text_atomic(run.path / "reliability.txt", "\n".join(lines) + "\n")
    write_text_atomic(run.path / FINISHED, json.dumps(vars(table), indent=1) + "\n")
    return lines


def table_lines(table: Reliability, box_px: int, pixel_ang: float) -> list[str]:
    """Return the reliability as lines of text."""
    lines = [
        f"{table.real} of {len(table.canonical)} components are real: independent fits of the two "
        f"half sets agree on them (canonical correlation above {REAL_CORRELATION:g})",
        "canonical correlations: " + " ".join(f"{value:.2f}" for value in table.canonical),
        "component  power/mean  latent deviation  determined by an image  FSC 0.5 (A)",
    ]
    for k, curve in enumerate(table.fsc_components):
        where = first_crossing(torch.tensor(curve), 0.5)
        reached = shell_resolution_ang(
            len(curve) - 1 if where is None else where, box_px, pixel_ang
        )
        lines.append(
            f"{k + 1:9d}  {table.power_ratio[k]:10.4f}  {table.latent_deviation[k]:16.3f}  "
            f"{table.information[k]:22.2f}  {reached:11.1f}"
        )
    return lines


def load_linear(
    run_or_weights: Path, epoch: int | None = None
) -> tuple[LinearModel, dict[str, Any]]:
    """Return the model of a run folder or weights file, and the run's configuration.

    Raises
    ------
    MissingFileError, CorruptDataError : no such run or epoch, or a damaged file.
    """
    tensors, facts = load_checkpoint(weights_path(run_or_weights, epoch))
    return LinearModel(tensors["model.maps"]), facts["config"]


def _full_maps(fitting: Fitting, grids: Tensor, box_px: int) -> Tensor:
    """Return finished maps of a working box, at the full box."""
    maps = finished_maps(grids, fitting.plan.geometry(box_px))
    return torch.stack([resampled(volume, fitting.plan.box_px) for volume in maps])
