"""Run the whole workflow on a simulated molecule with a moving arm, and say where to look.

Every step is an ordinary command, printed before it runs.
"""

import argparse
import shlex
from pathlib import Path

from frazil.errors import FrazilError

INTERRUPTED = 130
# (what a step writes at its end, the step)
STEPS = (
    (
        "particles/simulation.json",
        "simulate -n {images} -D 48 --swing 120 --snr 0.2 -o {out}/particles",
    ),
    ("particles.frz", "preprocess {out}/particles/particles.star -o {out}/particles.frz"),
    ("consensus/backproject.json", "backproject_voxel {out}/particles.frz -o {out}/consensus"),
    (
        "train/z.{epochs}.npy",
        "train_vae {out}/particles.frz --zdim 2 -n {epochs} -b 8 --lr 2e-3 --no-analysis"
        " --enc-dim 96 --enc-layers 2 --dec-dim 96 --dec-layers 2 -o {out}/train",
    ),
    (
        "train/analyze.{epochs}/report.html",
        "analyze {out}/train {epochs} --ksample 6 --pc 1 --n-per-pc 6",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of demo."""
    parser.add_argument("-o", default="demo", metavar="DIR", help="folder (default: demo)")
    parser.add_argument("--images", type=int, default=3000, help="images (default: 3000)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs (default: 12)")


def run(args: argparse.Namespace) -> None:
    """Run the steps one after another."""
    from frazil.analysis.truth import agreement_with_truth
    from frazil.cli.main import main
    from frazil.runs.folder import Run

    out = Path(args.o)
    out.mkdir(parents=True, exist_ok=True)
    values = {"out": shlex.quote(str(out)), "images": args.images, "epochs": args.epochs}
    for leaves, step in STEPS:
        words = step.format(**values)
        print(f"\n$ frazil {words}", flush=True)
        if (out / leaves.format(**values)).exists():
            print("(done already)")
            continue
        code = main(shlex.split(words))
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            raise FrazilError("the step above failed; the demo stops here")
    truth = out / "particles" / "truth"
    agreement = agreement_with_truth(
        Run.open(out / "train"), args.epochs, truth / "conformations.npy"
    )
    print("\nagreement of the latents with the true angle of the arm:")
    print(", ".join(f"{name} {value:.2f}" for name, value in agreement.items()))
    report = out / STEPS[-1][0].format(**values)
    print(f"\nLook at {report.resolve()} in a browser.")
    print(f"Consensus map: {out}/consensus; volumes: {report.parent}; truth: {truth}")
