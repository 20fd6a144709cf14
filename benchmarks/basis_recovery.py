"""Does training from a run of train_pca beat that run? Latents, volumes and cost on a known motion.

Runs the ordinary commands (simulate, preprocess, train_pca into run, train_vae --init run) in a
folder, then prints JSON lines of train_pca and of each epoch of train_vae: CPU seconds, agreement
of the latents, and scores of the volumes at the mean latent of the hundredth of the particles
nearest to each true conformation (see simulated_sets).

    python benchmarks/basis_recovery.py --out /tmp/recovery --train="--decoder basis -b 64 -n 3"
"""

import argparse
import json
from pathlib import Path

import torch

from frazil.analysis.volumes import TrainedGrid, evaluate_volume
from frazil.engines.load import load_model
from frazil.runs.folder import Run
from simulated_sets import Truth, command, latent_figures, prepare, scores, trained

NETWORKS = "--enc-dim 64 --enc-layers 1 --dec-dim 64 --dec-layers 1"


def show(out: Path, name: str, epoch: int, truth: Truth) -> None:
    """Print the figures of one epoch of a run."""
    latents = Run.open(out / name).latents(epoch)
    model, config = load_model(out / name, epoch)
    grid = TrainedGrid.from_config(config)
    points = [torch.from_numpy(latents[rows].mean(0)) for rows in truth.near(0.01)]
    ours = (torch.from_numpy(evaluate_volume(model, z, grid)) for z in points)
    found, _ = scores(ours, truth.volumes, truth.mask)
    figures = {"run": name, "epoch": epoch, **latent_figures(latents, truth), **found}
    print(json.dumps({"what": "epoch", **figures}), flush=True)


def main() -> None:
    """Fit, train, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--components", type=int, default=7)
    parser.add_argument("--zdim", type=int, default=7)
    parser.add_argument("--name", default="basis", help="folder of the run of train_vae")
    parser.add_argument("--train", default="--decoder basis -b 64 -n 3", help="flags of train_vae")
    args = parser.parse_args()
    out: Path = args.out
    prepare(out, f"-n {args.images} -D 64 --snr 0.05 --motion hinge --swing 360")
    cost = trained(out, f"--zdim {args.components}")
    truth = Truth.of(out)
    print(json.dumps({"what": "cost", "run": "run", **cost}))
    show(out, "run", Run.open(out / "run").last_epoch, truth)
    line = f"train_vae set.frz --init run --zdim {args.zdim} {NETWORKS} {args.train}"
    cost = command(out, f"{line} -o {args.name} --no-analysis --overwrite")
    print(json.dumps({"what": "cost", "run": args.name, "flags": args.train, **cost}), flush=True)
    for epoch in Run.open(out / args.name).epochs():
        show(out, args.name, epoch, truth)


if __name__ == "__main__":
    main()
