"""Simulated sets of the benchmarks, and how volumes and latents are scored against their truth.

Owns: the named sets, running frazil's commands with their cost, the truth of a set, the scores.
Does not own: what is scored (the scripts that import this).

Volumes are scored by their FSC with true volumes, without a mask, and within the soft union of all
true conformations (the same mask for every method):

- "auc": mean of the FSC over shells 1 to D/2 - 1;
- "trapezoid": area under |FSC| over shells 0 to D/2 - 1 against cycles per pixel, as CryoBench's
  (at most 0.484 at 64 px; its shells are cut at whole radii, ours are rounded to them).

A volume per conformation is compared with the true volume of that conformation, a volume per image
with the true volume at that image's own conformation.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from frazil.engines.backproject import backproject
from frazil.engines.backproject_settings import BackprojectSettings
from frazil.io.mrc import read_volume
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.metrics.fsc import fsc
from frazil.metrics.latents import knn_r2, latent_agreement, linear_r2
from frazil.simulate.dataset import Simulation, build_simulation
from frazil.simulate.settings import SimulateSettings
from frazil.store.reader import ParticleStore

VOLUMES = 60
SCORED_IMAGES = 100
NEIGHBOURS = 20
# Of the mask of the truth: threshold relative to the peak, growth and edge relative to the box.
MASK_LEVEL, MASK_GROW, MASK_EDGE = 0.05, 0.04, 0.06


@dataclass(frozen=True)
class SimulatedSet:
    """One set: flags of `frazil simulate`, and the components to fit.

    Attributes
    ----------
    structure : whether the molecule is the one of --structure, when that is given.
    """

    flags: str
    zdim: int
    structure: bool = False


SETS = {
    "igg-1d": SimulatedSet("--motion hinge --swing 360", 7, True),
    "igg-rl": SimulatedSet("--motion linker --swing 120", 7, True),
    "assembly-16": SimulatedSet("--molecule assembly --motion composition --states 16", 7),
    "domain-swing": SimulatedSet("--motion hinge --swing 60", 7),
    "mixture-12": SimulatedSet(
        "--motion mixture --states 12 --state-weights 24 18 14 11 9 7 5 4 3 2 2 1", 15
    ),
    "homogeneous": SimulatedSet("--motion none", 7, True),
}


def command(out: Path, line: str, program: Sequence[str] = ()) -> dict[str, float]:
    """Run one command of frazil (or of another program) in a folder; return what it took."""
    start = time.monotonic()
    words = [*(program or (sys.executable, "-m", "frazil.cli.main")), *shlex.split(line)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with (out / "log.txt").open("a") as log:
        process = subprocess.Popen(words, cwd=out, stdout=log, stderr=log, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{line}: exit code {process.returncode}; see {out / 'log.txt'}")
    return {
        "wall_s": round(time.monotonic() - start, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_mb": round(used.ru_maxrss / 1024),
    }


def prepare(out: Path, simulate: str, volumes: int = VOLUMES) -> None:
    """Simulate into out/set and pack into out/set.frz, unless that was done with the same flags."""
    line = f"simulate {simulate} --volumes {volumes} -o set --overwrite"
    done = out / "simulated.txt"
    if done.is_file() and done.read_text() == line:
        return
    out.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    command(out, line)
    command(out, "preprocess set/particles.star -o set.frz --overwrite")
    done.write_text(line)


def trained(out: Path, line: str, folder: str = "run") -> dict[str, float]:
    """Run train_pca in out/folder, unless that was done with the same line; return its cost."""
    done = out / f"{folder}.cost.json"
    if done.is_file() and (known := json.loads(done.read_text()))["line"] == line:
        return known["cost"]
    cost = command(out, f"train_pca set.frz {line} -o {folder} --overwrite")
    done.write_text(json.dumps({"line": line, "cost": cost}))
    return cost


@dataclass(frozen=True)
class Truth:
    """What is known of a simulated set.

    Attributes
    ----------
    kind : of the coordinate: "circle" or "line" (angles in degrees), "states", "none".
    coordinates : (N,) or (N, C) conformation of each particle.
    particles : rows that are particles, no outliers.
    wanted : (V,) or (V, C) conformations of the true volumes; volumes (V, D, D, D).
    """

    kind: str
    simulation: Simulation
    wanted: np.ndarray
    volumes: Tensor

    @classmethod
    def of(cls, out: Path) -> "Truth":
        """Return that of the set in out/set."""
        report = json.loads((out / "set" / "simulation.json").read_text())
        settings = msgspec.convert(report["settings"], SimulateSettings, strict=False)
        wanted = np.load(out / "set" / "truth" / "volume_conformations.npy")
        volumes = torch.stack(
            [volume_of(out / "set" / "truth" / f"vol_{i:03d}.mrc") for i in range(len(wanted))]
        )
        angles = "circle" if settings.swing_deg == 360 else "line"
        kinds = {"hinge": angles, "linker": "line", "none": "none"}
        kind = kinds.get(settings.motion, "states")
        return cls(kind, build_simulation(settings), wanted, volumes)

    @property
    def coordinates(self) -> np.ndarray:
        """Conformations of all rows."""
        return self.simulation.draw.coordinate

    @cached_property
    def particles(self) -> np.ndarray:
        """Rows that are not outliers."""
        return np.flatnonzero(self.simulation.draw.outlier == 0)

    @cached_property
    def mask(self) -> Tensor:
        """The soft union of the true conformations."""
        score = self.volumes.amax(0).numpy()
        box = score.shape[-1]
        distance = ndimage.distance_transform_edt(score < MASK_LEVEL * score.max())
        fall = np.clip((distance - MASK_GROW * box) / (MASK_EDGE * box), 0, 1)
        return torch.from_numpy((0.5 + 0.5 * np.cos(np.pi * fall)).astype(np.float32))

    def distances(self) -> np.ndarray:
        """Return (V, particles) how far each particle is from each true volume's conformation."""
        there = self.coordinates[self.particles]
        if self.kind == "circle":
            return np.abs((there[None] - self.wanted[:, None] + 180) % 360 - 180)
        if there.ndim == 1:
            return np.abs(there[None] - self.wanted[:, None])
        return np.linalg.norm(there[None] - self.wanted[:, None], axis=-1)

    def near(self, share: float) -> list[np.ndarray]:
        """Return the rows that stand for each true volume: its state, or a share of the nearest."""
        distances = self.distances()
        if self.kind in ("states", "none"):
            return [self.particles[row < 0.5] for row in distances]
        count = max(NEIGHBOURS, round(share * len(self.particles)))
        return [self.particles[np.argsort(row, kind="stable")[:count]] for row in distances]

    def scored_rows(self, count: int = SCORED_IMAGES) -> np.ndarray:
        """Return the rows whose own volumes are scored, the same for every method."""
        generator = np.random.default_rng(12345)
        return np.sort(generator.choice(self.particles, min(count, len(self.particles)), False))

    def volume_at(self, row: int) -> Tensor:
        """Return the true volume of one particle."""
        if self.kind in ("states", "none"):
            return self.volumes[int(self.coordinates[row])]
        return torch.from_numpy(self.simulation.volume(self.coordinates[row]))


def volume_of(path: Path) -> Tensor:
    """Return the volume of a file."""
    return torch.from_numpy(np.array(read_volume(path)[0], np.float32))


def scores(
    volumes: Iterable[Tensor], truths: Iterable[Tensor], mask: Tensor
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return the scores of volumes with their true volumes, and the mean curves."""
    curves: dict[str, list[Tensor]] = {"": [], "_masked": []}
    for ours, true in zip(volumes, truths, strict=True):
        curves[""].append(fsc(ours, true))
        curves["_masked"].append(fsc(ours, true, mask))
    found: dict[str, float] = {}
    for name, several in curves.items():
        stacked = torch.stack(several)[:, :-1]  # shells 0 to D/2 - 1
        box_px = 2 * stacked.shape[1]
        each = stacked[:, 1:].mean(1)
        found[f"auc{name}"] = round(float(each.mean()), 4)
        found[f"worst{name}"] = round(float(each.min()), 4)
        area = torch.trapezoid(stacked.abs(), dx=1 / box_px, dim=1)
        found[f"trapezoid{name}"] = round(float(area.mean()), 4)
    means = {f"fsc{name}": torch.stack(c).mean(0).numpy() for name, c in curves.items()}
    return found, {name: curve.round(4).tolist() for name, curve in means.items()}


def labelled_maps(out: Path, groups: Sequence[np.ndarray]) -> list[Tensor]:
    """Return the back-projection of each group of rows of out/set.frz."""
    store = ParticleStore.open(out / "set.frz")
    settings = BackprojectSettings(half_maps=False, reg_weight=0.05, correct_interpolation=True)
    halves = np.zeros(store.count, np.uint8)
    maps = []
    for rows in groups:
        loader = ParticleLoader(store, LoaderSettings(batch_size=1000), np.sort(rows))
        found = backproject(loader.epoch(1), loader.disc, halves, settings, loader.norm_scale)
        maps.append(found.volume)
    return maps


def linear_ceiling(volumes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return mean (1, V) and an orthonormal basis (<= count, V) of true volumes, flattened."""
    flat = volumes.reshape(len(volumes), -1).double()
    mean = flat.mean(0, keepdim=True)
    _, values, right = torch.linalg.svd(flat - mean, full_matrices=False)
    kept = values[:count] > 1e-6 * max(float(values[0]), 1e-30)
    return mean, right[:count][kept]


def latent_figures(latents: np.ndarray, truth: Truth) -> dict[str, float]:
    """Return how well the true conformation can be read off the latents of the particles."""
    known = truth.coordinates[truth.particles]
    found = latents[truth.particles]
    if truth.kind == "none":
        return {}
    if truth.kind == "states":
        return _state_figures(found, known.astype(int))
    z, coordinate = torch.from_numpy(found), torch.from_numpy(known)
    if coordinate.ndim == 2:
        columns = [linear_r2(z, column) for column in coordinate.T]
        figures = {f"linear_r2_{i}": value for i, value in enumerate(columns)}
        figures |= {
            f"knn_r2_{i}": knn_r2(z, column[:, None]) for i, column in enumerate(coordinate.T)
        }
    else:
        figures = latent_agreement(z, coordinate, 360.0 if truth.kind == "circle" else None)
    if truth.kind == "circle":
        figures["median_angle_error_deg"] = angle_error_deg(found, known)
    return {name: round(value, 4) for name, value in figures.items()}


def _state_figures(latents: np.ndarray, states: np.ndarray) -> dict[str, float]:
    """Return how many particles have the state of most of their nearest others, and of clusters."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    _, near = cKDTree(latents).query(latents, NEIGHBOURS + 1)
    count = int(states.max()) + 1
    votes = np.stack([(states[near[:, 1:]] == state).sum(1) for state in range(count)], axis=1)
    clusters = KMeans(count, n_init=10, random_state=0).fit_predict(latents)
    return {
        "states_told_apart": round(float((votes.argmax(1) == states).mean()), 4),
        "largest_state": round(float(np.bincount(states).max() / len(states)), 4),
        "kmeans_ari": round(float(adjusted_rand_score(states, clusters)), 4),
    }


def angle_error_deg(latents: np.ndarray, truth: np.ndarray) -> float:
    """Return the median error of the angle read off the nearest other particles."""
    _, near = cKDTree(latents).query(latents, NEIGHBOURS + 1)
    angle = np.radians(truth)[near[:, 1:]]
    found = np.degrees(np.arctan2(np.sin(angle).mean(1), np.cos(angle).mean(1)))
    return float(np.median(np.abs((found - truth + 180) % 360 - 180)))
