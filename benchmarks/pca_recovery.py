"""Does train_pca recover a simulated motion? Latents and volumes against the truth, and the cost.

Runs the ordinary commands (simulate, preprocess, train_pca) in a folder, then prints JSON lines:

- cost: CPU seconds and largest memory of train_pca as a process of its own;
- reliability: how many components the half sets agree on;
- latents: agreement with the true angle, and the median error of the angle read off the 20
  nearest other particles;
- volumes: the mean over true conformations of the FSC with the true volume, averaged over shells
  1 to D/2 - 1 ("auc"), without a mask. Ours is the volume at the mean latent of the hundredth of
  the particles whose angle is nearest. Beside it the consensus map (mean of the half maps,
  unregularised) without and with the run's mask, the mean of the fit, the mean of the true volumes
  without noise, and the linear ceiling: the true volumes projected onto the best K components of
  all of them.

SNR is the variance of clean images with CTF over that of the noise, both in the whole box.

    python benchmarks/pca_recovery.py --out /tmp/recovery --sigma 2
    python benchmarks/pca_recovery.py --out /tmp/control --motion none
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frazil.analysis.volumes import TrainedGrid, evaluate_volume
from frazil.engines.load import load_model
from frazil.io.mrc import read_volume
from frazil.metrics.fsc import fsc
from frazil.metrics.latents import latent_agreement
from frazil.runs.folder import Run

VOLUMES = 60


def command(out: Path, line: str) -> dict[str, float]:
    """Run one frazil command in a folder; return what it took."""
    start = time.monotonic()
    words = [sys.executable, "-m", "frazil.cli.main", *shlex.split(line)]
    with (out / "log.txt").open("a") as log:
        process = subprocess.Popen(words, cwd=out, stdout=log, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{line}: exit code {process.returncode}; see {out / 'log.txt'}")
    return {
        "wall_s": round(time.monotonic() - start, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_mb": round(used.ru_maxrss / 1024),
    }


def prepare(out: Path, args: argparse.Namespace) -> None:
    """Simulate and pack, unless that was done before."""
    if (out / "set.frz" / "manifest.json").exists():
        return
    structure = f" --structure {args.structure}" if args.structure else ""
    sigma = f" --sigma {args.sigma}" if args.sigma else ""
    motion = f"--motion {args.motion} --swing {args.swing}"
    command(
        out,
        f"simulate -n {args.images} -D {args.box} --snr {args.snr} {motion}{structure}{sigma}"
        f" --volumes {VOLUMES} -o set --overwrite",
    )
    command(out, "preprocess set/particles.star -o set.frz --overwrite")


def angle_error_deg(latents: np.ndarray, truth: np.ndarray, neighbours: int = 20) -> float:
    """Return the median error of the angle read off the nearest other particles."""
    from scipy.spatial import cKDTree

    _, near = cKDTree(latents).query(latents, neighbours + 1)
    angle = np.radians(truth)[near[:, 1:]]
    found = np.degrees(np.arctan2(np.sin(angle).mean(1), np.cos(angle).mean(1)))
    return float(np.median(np.abs((found - truth + 180) % 360 - 180)))


def auc(volumes: torch.Tensor, true: torch.Tensor) -> float:
    """Return the mean FSC over shells 1 to D/2 - 1 and over pairs of volumes."""
    curves = [fsc(a, b)[1 : a.shape[-1] // 2] for a, b in zip(volumes, true, strict=True)]
    return round(float(torch.stack(curves).mean()), 4)


def volume_figures(out: Path, latents: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the AUC of ours, of the consensus and of what cannot be beaten."""
    wanted = np.load(out / "set" / "truth" / "volume_conformations.npy")
    true = torch.stack(
        [
            torch.from_numpy(read_volume(out / "set" / "truth" / f"vol_{i:03d}.mrc")[0])
            for i in range(len(wanted))
        ]
    )
    model, config = load_model(out / "run")
    grid = TrainedGrid.from_config(config)
    distance = np.abs((truth[None] - wanted[:, None] + 180) % 360 - 180)
    near = np.argsort(distance, axis=1)[:, : max(20, len(truth) // 100)]
    points = torch.from_numpy(latents[near].mean(1))
    ours = torch.stack([torch.from_numpy(evaluate_volume(model, z, grid)) for z in points])
    maps = {
        name: torch.from_numpy(read_volume(out / "run" / f"{name}.mrc")[0])
        for name in ("half_map_a", "half_map_b", "mask", "mean")
    }
    consensus = (maps["half_map_a"] + maps["half_map_b"]) / 2
    flat = true.reshape(len(true), -1).double()
    centred = flat - flat.mean(0)
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    rank = latents.shape[1]
    linear = flat.mean(0) + (left[:, :rank] * values[:rank]) @ right[:rank]

    def same(volume: torch.Tensor) -> torch.Tensor:
        return volume.expand_as(true)

    return {
        "auc": auc(ours, true),
        "consensus_auc": auc(same(consensus), true),
        "masked_consensus_auc": auc(same(consensus * maps["mask"]), true),
        "fitted_mean_auc": auc(same(maps["mean"]), true),
        "noise_free_mean_auc": auc(same(true.mean(0)), true),
        "linear_ceiling_auc": auc(linear.float().view_as(true), true),
    }


def main() -> None:
    """Run the workflow and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--swing", type=float, default=360.0)
    parser.add_argument("--motion", choices=("hinge", "none"), default="hinge")
    parser.add_argument("--structure", default=None)
    parser.add_argument("--sigma", type=float, default=None, help="width of the Gaussians, A")
    parser.add_argument("--zdim", type=int, default=7)
    parser.add_argument("--train", default="", help="more flags of train_pca")
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    prepare(out, args)
    cost = command(out, f"train_pca set.frz --zdim {args.zdim} -o run --overwrite {args.train}")
    facts: dict[str, Any] = {"images": args.images, "box_px": args.box, "snr": args.snr}
    facts |= {"zdim": args.zdim}
    print(json.dumps({"what": "cost", **facts, **cost, "load": round(os.getloadavg()[0], 1)}))
    table = json.loads((out / "run" / "reliability.json").read_text())
    canonical = [round(value, 3) for value in table["canonical"]]
    print(json.dumps({"what": "reliability", "real": table["real"], "canonical": canonical}))
    if args.motion == "none":
        return
    run = Run.open(out / "run")
    latents = run.latents(run.last_epoch)
    truth = np.load(out / "set" / "truth" / "conformations.npy")
    period = 360.0 if args.swing == 360 else None
    found = latent_agreement(torch.from_numpy(latents), torch.from_numpy(truth), period)
    rounded = {name: round(value, 4) for name, value in found.items()}
    error = round(angle_error_deg(latents, truth), 2)
    print(json.dumps({"what": "latents", **rounded, "median_angle_error_deg": error}))
    print(json.dumps({"what": "volumes", **volume_figures(out, latents, truth)}))


if __name__ == "__main__":
    main()
