"""The order of the passes, and what each one changes.

Owns: consensus, low resolution, frequency marching, and the joining of the half sets. Does not
own: a pass (`streaming`), the steps' formulas (`sums`, `axes`, `prior`, `mask`).

1. consensus: half maps of the mean at the full box. Noise, spectral signal-to-noise, support.
2. low: both half sets fit mean and components on their own, from different random components, at
   a low resolution, inside a sphere. How the two agree says which components are real; their
   common power, relative to the mean's, sets the components' prior. The mask is made here.
3. march: still apart, once at each of a row of growing resolutions, inside the mask.
4. joint: the half sets' volumes are averaged after alignment, and one pass over all particles
   with them is the last M-step. Beyond the low resolution, where a component has seen few steps,
   its prior is what its FSC between the half sets supports.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca import axes, prior
from frazil.engines.pca.grids import (
    Geometry,
    finished_maps,
    masked,
    resampled,
    resized,
    to_half_grids,
)
from frazil.engines.pca.mask import solvent_mask, sphere
from frazil.engines.pca.settings import ModelSettings
from frazil.engines.pca.state import State
from frazil.engines.pca.streaming import PassSums
from frazil.engines.pca.sums import maximise, mean_weight
from frazil.metrics.fsc import first_crossing, fsc

CONSENSUS_PASSES = 3
MASKED_PASSES = 2
GROWTH = 1.4
# Prior power of a component relative to the mean before it is measured.
FIRST_POWER_RATIO = 0.1
# Part of the mean weight that regularises the first maps, before their FSC is known.
FIRST_RIDGE = 0.02
# Coefficients by which the noise of an optics group is drawn to that of all.
_POOLED_COEFFICIENTS = 2000.0

Kind = Literal["consensus", "low", "masked", "march", "joint"]


@dataclass(frozen=True)
class Step:
    """One pass: what it is for, and the radius of its working box in cycles per box."""

    kind: Kind
    radius: int

    @property
    def box_px(self) -> int:
        """Side of the working box."""
        return 2 * self.radius


@dataclass(frozen=True)
class Plan:
    """What the schedule depends on besides the state."""

    box_px: int
    zdim: int
    padding: int
    low_radius: int
    low_iterations: int
    seed: int
    given_mask: Tensor | None = None
    contrast: bool = False

    @classmethod
    def of(cls, box_px: int, model: ModelSettings, mask: Tensor | None = None) -> "Plan":
        """Return the plan of a fit with these settings."""
        return cls(
            box_px,
            model.zdim,
            model.padding,
            model.low_radius,
            model.low_iterations,
            model.seed,
            mask,
            model.contrast,
        )

    def steps(self, support: int) -> list[Step]:
        """Return all passes, given the radius that the half maps support."""
        low = min(self.low_radius, self.box_px // 2)
        top = max(low, min(support, self.box_px // 2))
        radii = [low]
        while radii[-1] < top:
            radii.append(min(top, max(radii[-1] + 1, round(GROWTH * radii[-1]))))
        return [
            *[Step("consensus", self.box_px // 2)] * CONSENSUS_PASSES,
            *[Step("low", low)] * self.low_iterations,
            *[Step("masked", low)] * MASKED_PASSES,
            *[Step("march", radius) for radius in radii[1:]],
            Step("joint", top),
        ]

    def geometry(self, box_px: int) -> Geometry:
        """Return the geometry of a working box."""
        return Geometry.of(box_px, self.padding)


def prepare(state: State, plan: Plan, step: Step, geometry: Geometry) -> None:
    """Bring the models to the working box of the next pass, in place."""
    first = state.step == CONSENSUS_PASSES
    if first:
        state.models = [
            torch.cat([resized(mean, geometry), _random_components(mean, plan, geometry, number)])
            for number, mean in enumerate(state.consensus)
        ]
    elif step.box_px != state.box_px:
        state.models = [resized(model, geometry) for model in state.models]
    if step.kind == "joint":
        a, b = state.models
        a, b = common_axes(a, axes.aligned(a, b, geometry), geometry)
        state.facts |= half_set_facts(a, b, geometry)
        state.models = [(a + b) / 2]
    state.box_px = step.box_px


def advance(
    state: State, plan: Plan, step: Step, geometry: Geometry, found: list[PassSums]
) -> None:
    """Take the sums of a pass into the state: M-step, noise, basis, mask; in place."""
    sums = [part.voxels.symmetric(geometry) for part in found if part.voxels is not None]
    _update_noise(state, found)
    if step.kind == "consensus":
        weight = np.mean([mean_weight(part, geometry) for part in sums], axis=0)
        ridge = FIRST_RIDGE * weight[None]
        state.models = [
            maximise(part, ridge, model, geometry)
            for part, model in zip(sums, state.models, strict=True)
        ]
        if state.step == CONSENSUS_PASSES - 1:
            _close_consensus(state, plan, geometry, weight)
    else:
        ridge = _ridge(state, plan, step)
        mask = working_mask(state, plan, step)
        models = []
        for part, model, one in zip(sums, state.models, found, strict=True):
            new = masked(maximise(part, ridge, model, geometry), mask, geometry)
            new = axes.absorbed(new, one.second, one.images)
            models.append(axes.principal(new, geometry))
        state.models = models
    state.step += 1
    if step.kind == "low" and state.step == CONSENSUS_PASSES + plan.low_iterations:
        _close_low(state, plan, geometry)


def _ridge(state: State, plan: Plan, step: Step) -> NDArray[np.float64]:
    """Return (L, S) the prior precision of a pass."""
    ridge = prior.ridges(state.mean_ridge, state.power_ratio)
    if step.kind != "joint":
        return ridge
    curves = state.facts["fsc_components"]
    return prior.measured_ridges(ridge, state.consensus_weight, curves, plan.low_radius)


def working_mask(state: State, plan: Plan, step: Step) -> Tensor:
    """Return the mask (d, d, d) of a pass: a sphere until there is a better one."""
    if state.mask is None:
        return sphere(step.box_px)
    return resampled(state.mask, step.box_px).clamp(0, 1)


def common_axes(a: Tensor, b: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Return two aligned fits with components along the principal axes of their mean."""
    transform = axes.principal_transform((a + b) / 2, geometry)
    return axes.combined(a, transform), axes.combined(b, transform)


def half_set_facts(a: Tensor, b: Tensor, geometry: Geometry) -> dict[str, object]:
    """Return the FSC of mean and components between the half sets, aligned; lists by name."""
    maps = [finished_maps(grids, geometry) for grids in (a, b)]
    curves = [fsc(one, two).tolist() for one, two in zip(*maps, strict=True)]
    return {"fsc_mean": curves[0], "fsc_components": curves[1:]}


def _random_components(mean: Tensor, plan: Plan, geometry: Geometry, half: int) -> Tensor:
    """Return K random components with the spectrum of the mean, inside a sphere."""
    generator = torch.Generator().manual_seed(1000 * plan.seed + half)
    side, shape = geometry.side_px, geometry.shape.tolist()
    noise = torch.randn(plan.zdim, side, side, side, generator=generator)
    grids = to_half_grids(noise, geometry)
    power = geometry.shell_means(resized(mean, geometry)[0].abs().double().numpy().reshape(-1) ** 2)
    flat = geometry.shell_means(grids[0].abs().double().numpy().reshape(-1) ** 2)
    scale = np.sqrt(FIRST_POWER_RATIO * power / np.maximum(flat, 1e-30))
    factor = np.where(geometry.voxel_shell >= 0, scale[geometry.voxel_shell], 0).astype(np.float32)
    return masked(grids * torch.from_numpy(factor).view(shape), sphere(geometry.box_px), geometry)


def _update_noise(state: State, found: list[PassSums]) -> None:
    """Move the noise deviation to the measured residual, by group and shell."""
    power = np.sum([part.power for part in found], axis=0)
    counts = np.sum([part.counts for part in found], axis=0)
    for shell in range(1, power.shape[1]):
        total = counts[:, shell].sum()
        if total:
            pooled = power[:, shell].sum() / total
            ratio = (power[:, shell] + _POOLED_COEFFICIENTS * pooled) / (
                counts[:, shell] + _POOLED_COEFFICIENTS
            )
            state.deviation[:, shell] *= np.sqrt(np.maximum(ratio, 1e-12)).astype(np.float32)


def _close_consensus(state: State, plan: Plan, geometry: Geometry, weight: np.ndarray) -> None:
    """Measure signal-to-noise and support of the mean."""
    state.consensus = [model.clone() for model in state.models]
    state.consensus_weight = weight
    halves = [finished_maps(model, geometry) for model in state.models]
    mask = plan.given_mask if plan.given_mask is not None else solvent_mask((halves[0], halves[1]))
    curve = fsc(halves[0][0], halves[1][0], mask)
    crossing = first_crossing(curve, 0.143)
    radius = plan.box_px // 2
    state.support = radius if crossing is None else min(radius, int(np.ceil(1.15 * crossing)) + 1)
    state.facts["fsc_consensus"] = curve.tolist()
    state.mean_ridge = prior.mean_ridge((halves[0][0], halves[1][0]), weight, mask)
    state.power_ratio = np.full(plan.zdim, FIRST_POWER_RATIO)


def _close_low(state: State, plan: Plan, geometry: Geometry) -> None:
    """Compare the half sets; make the mask, and the prior of the components."""
    a, b = state.models
    b = axes.aligned(a, b, geometry)
    state.canonical = axes.canonical_correlations(a, b, geometry)
    a, b = common_axes(a, b, geometry)
    state.models = [a, b]
    state.power_ratio = prior.power_ratios(a, b, geometry)
    if plan.given_mask is not None:
        state.mask = plan.given_mask
    else:
        halves = finished_maps(a, geometry), finished_maps(b, geometry)
        fine = [torch.stack([resampled(v, plan.box_px) for v in half]) for half in halves]
        state.mask = solvent_mask((fine[0], fine[1]))
    full = plan.geometry(plan.box_px)
    means = [finished_maps(model, full)[0] for model in state.consensus]
    state.mean_ridge = prior.mean_ridge((means[0], means[1]), state.consensus_weight, state.mask)
