"""What spoils train_pca? IgG-1D with one thing wrong at a time: one JSON line per case.

Every case is the same molecule, motion and seed as the clean one, simulated with one more flag, and
fitted with the same flags; poses, shifts and groups are taken from the files as a user has them.
Scores are those of `simulated_sets` (outliers are neither scored nor part of a conformation).
"gain" is ours less the consensus of the same case within the run's mask, "above_clean_consensus"
compares ours with the consensus of the clean case. Ends with exit code 1 if any output is not
finite.

    python benchmarks/pca_robustness.py --out /tmp/robust --structure 1hzh.pdb
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pca_suite import add_common_arguments, conformation_latents, consensus_map, linear_volumes
from simulated_sets import SETS, Truth, latent_figures, prepare, scores, trained, volume_of

CASES = {
    "clean": "",
    "outliers of 10 %": "--outliers 0.1",
    "contrast variation of 20 %": "--contrast-std 0.2",
    "pose errors of 2 degrees": "--pose-error-deg 2",
    "pose errors of 5 degrees": "--pose-error-deg 5",
    "shift errors of 2 px": "--shift-error-px 2",
    "preferred views": "--preferred 4",
    "coloured noise": "--noise coloured",
    "two optics groups": "--group-noise 1 2",
}
VOLUMES = 20


def finite(run: Path) -> bool:
    """Return whether every map and table of a run is finite."""
    arrays = [np.load(run / f"{name}.npy") for name in ("z", "precisions", "noise_deviation")]
    return all(np.isfinite(array).all() for array in arrays) and all(
        bool(torch.isfinite(volume_of(path)).all()) for path in run.glob("*.mrc")
    )


def measure(out: Path, flags: str, args: argparse.Namespace) -> dict[str, Any]:
    """Simulate, fit and score one case."""
    structure = f" --structure {args.structure.resolve()}" if args.structure else ""
    common = f"-n {args.images} -D {args.box} --snr {args.snr} --sigma {args.sigma}"
    prepare(out, f"{common} {SETS['igg-1d'].flags}{structure} {flags}".strip(), VOLUMES)
    zdim = args.zdim or SETS["igg-1d"].zdim
    cost = trained(out, f"--zdim {zdim} {args.train}".strip())
    run, truth = out / "run", Truth.of(out)
    table = json.loads((run / "reliability.json").read_text())
    latents = np.load(run / "z.npy")
    own = [truth.volume_at(row) for row in truth.scored_rows()]
    consensus = consensus_map(run) * volume_of(run / "mask.mrc")
    ours = linear_volumes(run, conformation_latents(latents, truth))
    image_volumes = linear_volumes(run, latents[truth.scored_rows()])
    found, _ = scores(ours, truth.volumes, truth.mask)
    same, _ = scores([consensus] * len(truth.volumes), truth.volumes, truth.mask)
    per_image, _ = scores(image_volumes, own, truth.mask)
    return {
        "finite": finite(run),
        "real": table["real"],
        "auc": found["auc"],
        "auc_per_image": per_image["auc"],
        "consensus_auc": same["auc"],
        "gain": round(found["auc"] - same["auc"], 4),
        "latents": latent_figures(latents, truth),
        "cost": cost,
    }


def main() -> None:
    """Run the chosen cases one after the other, the clean one first."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    clean: float | None = None
    diverged = False
    for name in dict.fromkeys(("clean", *args.cases)):
        line = measure(args.out / name.replace(" ", "-"), CASES[name], args)
        clean = line["consensus_auc"] if clean is None else clean
        line["above_clean_consensus"] = line["auc"] >= clean
        diverged |= not line["finite"]
        print(json.dumps({"case": name, "flags": CASES[name], **line}), flush=True)
    raise SystemExit(int(diverged))


if __name__ == "__main__":
    main()
