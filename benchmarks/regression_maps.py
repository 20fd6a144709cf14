"""Are maps by regression nearer to the truth than the model's, and than other maps of the images?

Simulates images of a full circle of a hinge, runs train_pca, and asks for maps at the mean latents
of the hundredth of the particles whose true angle is nearest to each of 60 true conformations.
Prints JSON lines:

- cost: CPU seconds and largest memory of `eval_vol --maps regression` as a process of its own;
- volumes: the mean over conformations of the FSC with the true volume, averaged over shells 1 to
  D/2 - 1 ("auc"); those named "masked" times the mask of the run, as are the model's volumes. The
  regression around the model ("residual"), the regression around the consensus as a run without a
  linear model gets it ("plain_form"), the mean of the half maps, the model's volume ("decoder"),
  the consensus, and plain kernel regression (back-projection of the nearest images, and nothing
  else) for every number of images;
- shells: curves of the first three of these, and the half maps' own FSC, means over conformations.

    python benchmarks/regression_maps.py --out /tmp/recovery --sigma 2
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frazil.engines.backproject import assign_halves
from frazil.engines.particles import counted
from frazil.engines.pca.loop import optics_groups
from frazil.engines.regression import neighbours, shrinkage
from frazil.engines.regression.maps import corrected, model_map
from frazil.engines.regression.settings import RegressionSettings
from frazil.engines.regression.source import Source, open_source
from frazil.engines.regression.streaming import Base, Task, run_pass
from frazil.io.mrc import read_volume
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.metrics.fsc import fsc
from simulated_sets import SETS, command, prepare, trained

GROUP = 20


def auc(volumes: Tensor, true: Tensor) -> float:
    """Return the mean FSC over shells 1 to D/2 - 1 and over pairs of volumes."""
    curves = [fsc(a, b)[1 : a.shape[-1] // 2] for a, b in zip(volumes, true, strict=True)]
    return round(float(torch.stack(curves).mean()), 4)


def true_volumes(out: Path) -> tuple[np.ndarray, Tensor]:
    """Return the true conformations (60,) and their volumes."""
    folder = out / "set" / "truth"
    wanted = np.load(folder / "volume_conformations.npy")
    paths = [folder / f"vol_{i:03d}.mrc" for i in range(len(wanted))]
    return wanted, torch.stack([torch.from_numpy(read_volume(path)[0]) for path in paths])


def mean_latents(source: Source, truth: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return (60, Z) the mean latent of the particles nearest to each conformation."""
    distance = np.abs((truth[None] - wanted[:, None] + 180) % 360 - 180)
    near = np.argsort(distance, axis=1)[:, : max(20, len(truth) // 100)]
    return source.latents[near].mean(1)


def plain_kernel_maps(source: Source, points: np.ndarray, sizes: np.ndarray) -> dict[str, Tensor]:
    """Return the back-projections of the nearest images, (60, D, D, D) by their number."""
    geometry, count = source.geometry, source.store.count
    reading = LoaderSettings(batch_size=500)
    loader = ParticleLoader(source.store, reading, source.rows, source.box_px, source.norm_scale)
    found: dict[str, list[Tensor]] = {f"kernel_{size}": [] for size in sizes}
    for start in range(0, len(points), GROUP):
        group = points[start : start + GROUP]
        ring = np.full((len(group), count), neighbours.OUTSIDE, np.uint8)
        for number, point in enumerate(group):
            distance = neighbours.squared_distances(source.latents, source.precision, point)
            ring[number, source.rows] = neighbours.rings(distance, sizes)
        halves, groups = assign_halves(source.rows, count), optics_groups(source.store)
        base = Base(None, None)
        task = Task(base, ring, len(sizes), halves, groups, source.deviation, geometry)
        for local in run_pass(counted(loader, "kernel"), task).local:
            balls = shrinkage.Balls.of(local, 0, geometry)
            for number, size in enumerate(sizes):
                sums = balls.weight[:, number].sum(0), balls.right[:, number].sum(0)
                grid = shrinkage.estimate(*sums, 1.0, geometry)
                found[f"kernel_{size}"].append(corrected(grid, geometry))
    return {name: torch.stack(maps) for name, maps in found.items()}


def read_maps(folder: Path, ending: str, count: int) -> Tensor:
    """Return the written maps (n, D, D, D)."""
    paths = [folder / f"vol_{i + 1:03d}{ending}.mrc" for i in range(count)]
    return torch.stack([torch.from_numpy(read_volume(path)[0]) for path in paths])


def main() -> None:
    """Make the maps and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--structure", default=None)
    parser.add_argument("--sigma", type=float, default=None, help="width of the Gaussians, A")
    parser.add_argument("--zdim", type=int, default=7)
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    structure = f" --structure {args.structure}" if args.structure else ""
    sigma = f" --sigma {args.sigma}" if args.sigma else ""
    motion = SETS["igg-1d"].flags
    prepare(out, f"-n {args.images} -D {args.box} --snr {args.snr} {motion}{structure}{sigma}")
    trained(out, f"--zdim {args.zdim}")
    source = open_source(out / "run", None, RegressionSettings())
    wanted, true = true_volumes(out)
    truth = np.load(out / "set" / "truth" / "conformations.npy")
    points = mean_latents(source, truth, wanted)
    np.savetxt(out / "points.txt", points)
    np.save(out / "latents.npy", source.latents)
    facts = {"images": len(truth), "box_px": source.box_px, "points": len(points)}
    shared = "eval_vol run --maps regression --zfile points.txt --overwrite"
    cost = command(out, f"{shared} -o residual")
    print(json.dumps({"what": "cost", **facts, "form": "residual", **cost}), flush=True)
    cost = command(out, f"{shared} --latents latents.npy -o plain")
    print(json.dumps({"what": "cost", **facts, "form": "plain", **cost}), flush=True)
    figures(out, source, points, true)


def figures(out: Path, source: Source, points: np.ndarray, true: Tensor) -> None:
    """Print the AUC of all kinds of maps, and curves."""
    count, mask, geometry = len(points), source.mask, source.geometry
    grids = source.grids
    if grids is None:
        raise SystemExit(f"{out}/run is no run of train_pca")
    pair = [torch.from_numpy(read_volume(out / "run" / f"half_map_{x}.mrc")[0]) for x in "ab"]
    consensus = ((pair[0] + pair[1]) / 2).expand_as(true)
    decoder = torch.stack([model_map(grids, point, geometry) for point in points])
    halves = [read_maps(out / "residual", f"_half_{x}", count) for x in "ab"]
    found = {
        "residual": read_maps(out / "residual", "", count),
        "plain_form": read_maps(out / "plain", "", count),
        "decoder": decoder,
        "consensus": consensus,
        "consensus_masked": consensus * mask,
        "half_maps_mean_masked": (halves[0] + halves[1]) / 2 * mask,
    }
    for name, maps in plain_kernel_maps(
        source, points, neighbours.ball_sizes(len(source.latents))
    ).items():
        found[name] = maps
        found[f"{name}_masked"] = maps * mask
    print(json.dumps({"what": "volumes", **{name: auc(m, true) for name, m in found.items()}}))
    curves = {name: (found[name], true) for name in ("residual", "plain_form", "decoder")}
    curves["half_maps"] = (halves[0] * mask, halves[1] * mask)
    for name, (a, b) in curves.items():
        curve = torch.stack([fsc(x, y) for x, y in zip(a, b, strict=True)]).mean(0)
        values = [round(value, 3) for value in curve.tolist()]
        print(json.dumps({"what": "shells", "of": name, "fsc": values}))


if __name__ == "__main__":
    main()
