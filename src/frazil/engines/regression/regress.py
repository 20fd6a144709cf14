"""Maps at points of a latent space, in as few passes over the particles as the memory allows.

Owns: the refusal of empty regions, groups of points, the stream of a pass. Does not own: the sums
(`streaming`), the maps (`maps`), what is read (`source`), files (`frazil.analysis`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frazil.engines.backproject import assign_halves
from frazil.engines.particles import Say, counted
from frazil.engines.pca.loop import optics_groups
from frazil.engines.regression import neighbours
from frazil.engines.regression.maps import PointMap, maps_of, model_map
from frazil.engines.regression.memory import needs, plan_passes
from frazil.engines.regression.neighbours import OUTSIDE
from frazil.engines.regression.source import Source
from frazil.engines.regression.streaming import BATCH_COEFFICIENTS, Base, Task, run_pass
from frazil.errors import InputError
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.store.budget import Allowance

# A point with fewer particles near it than this part of what particles usually have is empty.
_EMPTY = 1 / 5
LEAST_PARTICLES = 40


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Where the points lie among the particles.

    Attributes
    ----------
    sizes : (J,) images in each ball.
    near : (T,) particles near each point, in the distance in which particles usually have
        `sizes[0]` others.
    """

    sizes: NDArray[np.int64]
    near: NDArray[np.int64]


def neighbourhood(
    source: Source, points: NDArray[np.float32], min_particles: int | None
) -> Neighbourhood:
    """Return how crowded points (T, Z) are.

    Raises
    ------
    InputError : a point with too few particles near it, or too few particles at all.
    """
    count = len(source.latents)
    if count < LEAST_PARTICLES:
        raise InputError(
            f"{count} particles are too few for maps by regression; at least {LEAST_PARTICLES} are "
            "wanted (--maps decoder needs none)"
        )
    sizes = neighbours.ball_sizes(count)
    usual = neighbours.usual_distance(source.latents, source.precision, int(sizes[0]))
    near = np.array(
        [
            np.count_nonzero(
                neighbours.squared_distances(source.latents, source.precision, point) <= usual
            )
            for point in points
        ]
    )
    least = max(1, round(_EMPTY * int(sizes[0]))) if min_particles is None else min_particles
    for number in np.flatnonzero(near < least):
        values = " ".join(f"{value:.3g}" for value in points[number])
        raise InputError(
            f"latent point {number + 1} ({values}): {near[number]} particles are near it, at least "
            f"{least} are wanted; give a point among the particles (`frazil analyze` writes "
            "centers.txt), or --min-particles, or --maps decoder"
        )
    return Neighbourhood(sizes, near)


def regress(
    source: Source,
    points: NDArray[np.float32],
    sizes: NDArray[np.int64],
    memory: Allowance,
    threads: int,
    say: Say,
) -> Iterator[PointMap]:
    """Yield the map at each point (T, Z), in their order; progress on stderr.

    Parameters
    ----------
    sizes : (J,) images in each ball, from `neighbourhood`.

    Raises
    ------
    BudgetError : not even one map fits into the memory.
    """
    geometry, box_px = source.geometry, source.box_px
    base = _base(source)
    held = source.latents.nbytes + source.precision.nbytes + 16 * source.store.count
    wanted = needs(geometry, len(sizes), base.sides, held, threads)
    plan = plan_passes(wanted, len(points), source.store.manifest, box_px, memory)
    say(plan.line(memory))
    loader = ParticleLoader(
        source.store,
        LoaderSettings(
            batch_size=max(1, BATCH_COEFFICIENTS // len(geometry.disc)),
            window_rows=plan.window_rows,
            memory_bytes=plan.loader_bytes,
        ),
        source.rows,
        box_px,
        source.norm_scale,
    )
    for start in range(0, len(points), plan.targets):
        group = points[start : start + plan.targets]
        task = Task(
            base,
            _rings(source, group, sizes),
            len(sizes),
            assign_halves(source.rows, source.store.count),
            optics_groups(source.store),
            source.deviation,
            geometry,
        )
        what = f"maps {start + 1} to {start + len(group)} of {len(points)}"
        sums = run_pass(counted(loader, what), task, threads)
        bases = None
        if source.grids is not None:
            bases = [model_map(source.grids, point, geometry) for point in group]
        yield from maps_of(sums, bases, source.mask, geometry)
        del sums


def _base(source: Source) -> Base:
    """Return the model at each image's latent, for every row of the store."""
    if source.grids is None:
        return Base(None, None)
    weights = np.zeros((source.store.count, len(source.grids)), np.float32)
    weights[source.rows, 0] = 1
    weights[source.rows, 1:] = source.latents
    return Base(source.grids, weights)


def _rings(
    source: Source, points: NDArray[np.float32], sizes: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return (T, N) the ring of every row of the store around each point."""
    out = np.full((len(points), source.store.count), OUTSIDE, np.uint8)
    for number, point in enumerate(points):
        distance = neighbours.squared_distances(source.latents, source.precision, point)
        out[number, source.rows] = neighbours.rings(distance, sizes)
    return out
