"""Does train_vae recover a simulated motion? Latents and volumes against the truth.

Runs the ordinary commands (simulate, preprocess, backproject_voxel, train_vae, eval_vol) in a
folder, then prints JSON lines: agreement of the latents with the true coordinate, and the mean FSC
of volumes with the true volumes, next to that of the consensus map from the same particles.

    python benchmarks/vae_motion.py --out /tmp/motion --images 10000 --snr 0.05 --epochs 10
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frazil.metrics.fsc import fsc, fsc_auc
from frazil.runs.folder import Run
from simulated_sets import Truth, command, latent_figures, prepare, volume_of


def simulated(args: argparse.Namespace) -> None:
    """Simulate, pack and back-project, unless that was done before."""
    out: Path = args.out
    structure = f" --structure {args.structure}" if args.structure else ""
    shape = f"-n {args.images} -D {args.box} --snr {args.snr} --swing {args.swing}"
    prepare(out, shape + structure, volumes=10)
    if not (out / "consensus" / "backproject.mrc").exists():
        command(
            out, "backproject_voxel set.frz --correct-interpolation --reg-weight 0.05 -o consensus"
        )


def volume_figures(out: Path, epoch: int, latents: np.ndarray, truth: Truth) -> dict[str, Any]:
    """Return the mean FSC with the true volumes, of ours and of the consensus map.

    Ours are evaluated at the mean latent of the particles nearest to each true conformation.
    """
    np.savetxt(out / "z.txt", [latents[rows].mean(0) for rows in truth.near(0.01)])
    command(out, f"eval_vol train --epoch {epoch} --zfile z.txt -o volumes.{epoch}")
    consensus = volume_of(out / "consensus" / "backproject.mrc")
    curves: dict[str, list[torch.Tensor]] = {"": [], "consensus_": []}
    for number, true in enumerate(truth.volumes):
        ours = volume_of(out / f"volumes.{epoch}" / f"vol_{number + 1:03d}.mrc")
        curves[""].append(fsc(ours, true))
        curves["consensus_"].append(fsc(consensus, true))
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
    simulated(args)
    width, layers = args.network.split("x")
    cost = command(
        out,
        f"train_vae set.frz --zdim {args.zdim} -n {args.epochs} --enc-dim {width} --dec-dim {width}"
        f" --enc-layers {layers} --dec-layers {layers} --no-analysis -o train {args.train}",
    )
    run = Run.open(out / "train")
    latents = run.latents(run.last_epoch)
    truth = Truth.of(out)
    agreement = latent_figures(latents, truth)
    facts = {"epoch": run.last_epoch, **cost, "load": os.getloadavg()[0]}
    print(json.dumps({"what": "latents", **facts, **agreement}))
    figures = volume_figures(out, run.last_epoch, latents, truth)
    print(json.dumps({"what": "volumes", **facts, **figures}))


if __name__ == "__main__":
    main()
