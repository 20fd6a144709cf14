"""Does train_vae recover a simulated motion? Latents and volumes against the truth.

Runs the ordinary commands (simulate, preprocess, backproject_voxel, train_vae, eval_vol) in a
folder, then prints JSON lines: agreement of the latents with the true coordinate, and the mean FSC
of volumes with the true volumes, next to that of the consensus map from the same particles.

    python benchmarks/vae_motion.py --out /tmp/motion --images 10000 --snr 0.05 --epochs 10
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frazil.io.mrc import read_volume
from frazil.metrics.fsc import fsc, fsc_auc
from frazil.metrics.latents import latent_agreement
from frazil.runs.folder import Run


def command(out: Path, line: str) -> float:
    """Run one frazil command in a folder; return its wall time in seconds."""
    start = time.monotonic()
    words = [sys.executable, "-m", "frazil.cli.main", *line.split()]
    with (out / "log.txt").open("a") as log:
        subprocess.run(words, cwd=out, check=True, stdout=log, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def prepare(out: Path, args: argparse.Namespace) -> None:
    """Simulate, pack and back-project, unless that was done before."""
    if (out / "set" / "simulation.json").exists():
        return
    structure = f" --structure {args.structure}" if args.structure else ""
    command(
        out,
        f"simulate -n {args.images} -D {args.box} --snr {args.snr} --swing {args.swing}"
        f"{structure} -o set",
    )
    command(out, "preprocess set/particles.star -o set.frz")
    command(out, "backproject_voxel set.frz --correct-interpolation --reg-weight 0.05 -o consensus")


def volume_figures(out: Path, epoch: int, latents: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Return the mean FSC with the true volumes, of ours and of the consensus map.

    Ours are evaluated at the mean latent of the particles nearest to each true conformation.
    """
    wanted = np.load(out / "set" / "truth" / "volume_conformations.npy")
    distance = np.abs((truth[None] - wanted[:, None] + 180) % 360 - 180)
    near = np.argsort(distance, axis=1)[:, : max(20, len(truth) // 100)]
    np.savetxt(out / "z.txt", latents[near].mean(1))
    command(out, f"eval_vol train --epoch {epoch} --zfile z.txt -o volumes.{epoch}")
    consensus, _ = read_volume(out / "consensus" / "backproject.mrc")
    curves: dict[str, list[torch.Tensor]] = {"": [], "consensus_": []}
    for number in range(len(wanted)):
        true = torch.from_numpy(read_volume(out / "set" / "truth" / f"vol_{number:03d}.mrc")[0])
        ours, _ = read_volume(out / f"volumes.{epoch}" / f"vol_{number + 1:03d}.mrc")
        curves[""].append(fsc(torch.from_numpy(ours), true))
        curves["consensus_"].append(fsc(torch.from_numpy(consensus), true))
    figures: dict[str, Any] = {}
    for name, several in curves.items():
        figures[f"{name}fsc_auc"] = float(np.mean([fsc_auc(curve) for curve in several]))
        figures[f"{name}fsc"] = torch.stack(several).mean(0).numpy().round(3).tolist()
    return figures


def main() -> None:
    """Run the workflow and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--swing", type=float, default=360.0)
    parser.add_argument("--structure", default=None)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--network", default="256x3")
    parser.add_argument("--zdim", type=int, default=4)
    parser.add_argument("--train", default="", help="more flags of train_vae")
    args = parser.parse_args()
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    prepare(out, args)
    width, layers = args.network.split("x")
    seconds = command(
        out,
        f"train_vae set.frz --zdim {args.zdim} -n {args.epochs} --enc-dim {width} --dec-dim {width}"
        f" --enc-layers {layers} --dec-layers {layers} --no-analysis -o train {args.train}",
    )
    run = Run.open(out / "train")
    latents = run.latents(run.last_epoch)
    truth = np.load(out / "set" / "truth" / "conformations.npy")
    period = 360.0 if args.swing == 360 else None
    agreement = latent_agreement(torch.from_numpy(latents), torch.from_numpy(truth), period)
    facts = {"epoch": run.last_epoch, "train_s": seconds, "load": os.getloadavg()[0]}
    print(json.dumps({"what": "latents", **facts, **agreement}))
    figures = volume_figures(out, run.last_epoch, latents, truth)
    print(json.dumps({"what": "volumes", **facts, **figures}))


if __name__ == "__main__":
    main()
