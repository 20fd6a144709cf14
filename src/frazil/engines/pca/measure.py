"""How long a fit takes here, measured on random images.

Owns: the measurement, and the time of all passes that follows from it. Does not own: a pass
(`streaming`) or which passes there are (`schedule`).
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.schedule import Plan, Step
from frazil.engines.pca.streaming import Fit, run_pass
from frazil.engines.vae.measure import random_batch
from frazil.geometry.packing import half_disc

_LEAST_S = 0.3
# What the images of a measurement hold: enough for some chunks, little for the caches.
_COEFFICIENTS = 400_000


@dataclass(frozen=True)
class FitTime:
    """Seconds per image on one thread: all passes of the fit, and the pass that embeds."""

    passes: int
    fit_s: float
    embedding_s: float


def fit_time(plan: Plan) -> FitTime:
    """Return the time of a fit whose half maps support the whole box.

    Passes are measured at the full box and at the low one; those between go by coefficients.
    """
    steps = plan.steps(plan.box_px // 2)
    volumes, low_px = plan.zdim + 1, min(2 * plan.low_radius, plan.box_px)
    consensus = image_seconds(plan, 1, plan.box_px)
    full = image_seconds(plan, volumes, plan.box_px)
    low = image_seconds(plan, volumes, low_px)

    def seconds(step: Step) -> float:
        if step.kind == "consensus":
            return consensus
        if step.box_px == low_px:
            return low
        return full * len(half_disc(step.box_px)) / len(half_disc(plan.box_px))

    embedding = image_seconds(plan, volumes, plan.box_px, maximise=False)
    return FitTime(len(steps), sum(map(seconds, steps)), embedding)


def image_seconds(plan: Plan, volumes: int, box_px: int, maximise: bool = True) -> float:
    """Return the seconds that one thread takes for an image of a pass over L volumes."""
    geometry = plan.geometry(box_px)
    count = max(4, _COEFFICIENTS // len(geometry.disc))
    batch, rows = random_batch(box_px, count), np.zeros(count, np.int64)
    deviation = np.ones((1, box_px // 2 + 1), np.float32)
    fit = Fit([_random_grids(volumes, geometry)], deviation, rows, rows, geometry)
    run_pass([batch], fit, maximise)  # compiles
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < _LEAST_S:
        run_pass([batch], fit, maximise)
        images += count
    return (time.perf_counter() - start) / images


def _random_grids(volumes: int, geometry: Geometry) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (volumes, *geometry.shape.tolist())
    return 0.01 * torch.randn(shape, dtype=torch.complex64, generator=generator)
