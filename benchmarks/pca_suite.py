"""What train_pca recovers on a suite of simulated sets, and what it costs: one JSON line per set.

For each set: simulate, preprocess and train_pca as ordinary commands in a folder of its own, then
the scores of `simulated_sets` for

- "ours": per conformation the volume at the mean latent of its particles (the state's, or the
  nearest hundredth), per image the volume at that image's latent;
- "mixture" (discrete states): the same at the latents under the prior that `frazil mixture` finds;
- "consensus": the mean of the half maps, unregularised; "masked_consensus": times the run's mask;
- "labels": back-projection of the particles that truly belong to a conformation (the state's, or
  the nearest 1, 4 or 10 hundredths, whichever is best within the mask), per conformation only;
- "mean_of_truth": the mean of the true volumes, without noise: no single map is better;
- "ceiling": the true volumes projected onto the best K components of all, without noise.

Beside them the latents' agreement with the truth, how many components the half sets agree on, CPU
and wall seconds, and the largest memory of train_pca. The curves go to OUT/SET/curves.json. What
was done before with the same flags is not done again.

    python benchmarks/pca_suite.py --out /tmp/suite --structure 1hzh.pdb
    python benchmarks/pca_suite.py --out /tmp/suite --sets homogeneous --images 2000
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulated_sets import (
    SETS,
    SimulatedSet,
    Truth,
    command,
    labelled_maps,
    latent_figures,
    linear_ceiling,
    prepare,
    scores,
    trained,
    volume_of,
)

LABEL_SHARES = (0.01, 0.04, 0.1)


class Scored:
    """Scores and curves of methods, gathered one by one."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.rows = truth.scored_rows()
        self.own = [truth.volume_at(row) for row in self.rows]
        self.figures: dict[str, dict[str, Any]] = {"per_conformation": {}, "per_image": {}}
        self.curves: dict[str, dict[str, Any]] = {"per_conformation": {}, "per_image": {}}

    def add(self, what: str, name: str, volumes: list[Tensor]) -> float:
        """Score volumes per conformation or per image; return their AUC within the mask."""
        true = self.truth.volumes if what == "per_conformation" else self.own
        found, curves = scores(volumes, true, self.truth.mask)
        self.figures[what][name], self.curves[what][name] = found, curves
        return found["auc_masked"]

    def add_one_map(self, name: str, volume: Tensor) -> None:
        """Score one map against everything."""
        self.add("per_conformation", name, [volume] * len(self.truth.volumes))
        self.add("per_image", name, [volume] * len(self.own))


def linear_volumes(run: Path, points: np.ndarray) -> list[Tensor]:
    """Return the volumes of a run of train_pca at latents (n, K), from its written maps."""
    mean = volume_of(run / "mean.mrc")
    components = [volume_of(run / f"component_{k + 1}.mrc") for k in range(points.shape[1])]
    stacked = torch.stack(components)
    return [
        mean + torch.einsum("k,kzyx->zyx", torch.from_numpy(z).to(mean.dtype), stacked)
        for z in points
    ]


def conformation_latents(latents: np.ndarray, truth: Truth) -> np.ndarray:
    """Return (V, K) the mean latent of the particles of each true volume's conformation."""
    return np.stack([latents[rows].mean(0) for rows in truth.near(LABEL_SHARES[0])])


def consensus_map(run: Path) -> Tensor:
    """Return the mean of a run's half maps."""
    return (volume_of(run / "half_map_a.mrc") + volume_of(run / "half_map_b.mrc")) / 2


def score_run(out: Path, truth: Truth, folder: str = "run", labels: bool = True) -> Scored:
    """Return the scores of a finished run, and of what it is compared with."""
    run, scored = out / folder, Scored(truth)
    latents = np.load(run / "z.npy")
    centres = conformation_latents(latents, truth)
    scored.add("per_conformation", "ours", linear_volumes(run, centres))
    scored.add("per_image", "ours", linear_volumes(run, latents[scored.rows]))
    if truth.kind == "states":
        command(out, f"mixture {folder}")
        z = np.load(run / "mixture.npz")["z"]
        scored.add(
            "per_conformation", "mixture", linear_volumes(run, conformation_latents(z, truth))
        )
        scored.add("per_image", "mixture", linear_volumes(run, z[scored.rows]))
    consensus = consensus_map(run)
    scored.add_one_map("consensus", consensus)
    scored.add_one_map("masked_consensus", consensus * volume_of(run / "mask.mrc"))
    scored.add_one_map("mean_of_truth", truth.volumes.mean(0))
    add_ceiling(scored, latents.shape[1])
    if labels:
        add_labels(out, scored)
    return scored


def add_ceiling(scored: Scored, count: int) -> None:
    """Score the true volumes projected onto their best components."""
    mean, basis = linear_ceiling(scored.truth.volumes, count)
    for what, true in (("per_conformation", scored.truth.volumes), ("per_image", scored.own)):
        projected = []
        for volume in true:
            flat = volume.reshape(1, -1).double() - mean
            projected.append((mean + flat @ basis.T @ basis).view_as(volume).float())
        scored.add(what, "ceiling", projected)


def add_labels(out: Path, scored: Scored) -> None:
    """Score the back-projection by true labels: of a continuous motion, the best of the widths."""
    truth, best = scored.truth, -1.0
    for share in LABEL_SHARES if truth.kind in ("circle", "line") else LABEL_SHARES[:1]:
        before = scored.figures["per_conformation"].get("labels")
        curves = scored.curves["per_conformation"].get("labels")
        found = scored.add("per_conformation", "labels", labelled_maps(out, truth.near(share)))
        if found < best and before is not None:
            scored.figures["per_conformation"]["labels"] = before
            scored.curves["per_conformation"]["labels"] = curves
        best = max(best, found)


def mixture_figures(run: Path, truth: Truth) -> dict[str, float]:
    """Return how many components `frazil mixture` chose, and how they agree with the states."""
    from sklearn.metrics import adjusted_rand_score

    labels = np.load(run / "mixture.npz")["labels"][truth.particles]
    states = truth.coordinates[truth.particles].astype(int)
    return {
        "mixture_components": int(labels.max() + 1),
        "mixture_ari": round(float(adjusted_rand_score(states, labels)), 4),
    }


def measure(out: Path, chosen: SimulatedSet, args: argparse.Namespace) -> dict[str, Any]:
    """Simulate, fit and score one set; return the line that is printed."""
    structure = f" --structure {args.structure.resolve()}" if args.structure else ""
    common = f"-n {args.images} -D {args.box} --snr {args.snr} --sigma {args.sigma}"
    prepare(out, f"{common} {chosen.flags}{structure if chosen.structure else ''}")
    zdim = args.zdim or chosen.zdim
    cost = trained(out, f"--zdim {zdim} {args.train}".strip())
    table = json.loads((out / "run" / "reliability.json").read_text())
    truth = Truth.of(out)
    scored = score_run(out, truth)
    latents = latent_figures(np.load(out / "run" / "z.npy"), truth)
    if truth.kind == "states":
        latents |= mixture_figures(out / "run", truth)
    (out / "curves.json").write_text(json.dumps(scored.curves) + "\n")
    return {
        "images": args.images,
        "box_px": args.box,
        "snr": args.snr,
        "zdim": zdim,
        "real": table["real"],
        "canonical": [round(value, 3) for value in table["canonical"]],
        "cost": cost,
        "latents": latents,
        **scored.figures,
        "load": round(os.getloadavg()[0], 1),
    }


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all scripts on these sets share."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.15)
    parser.add_argument("--sigma", type=float, default=2.0, help="width of the Gaussians, A")
    parser.add_argument("--structure", type=Path, default=None, help="of the IgG sets")
    parser.add_argument("--zdim", type=int, default=None)
    parser.add_argument("--train", default="", help="more flags of train_pca")


def main() -> None:
    """Run the chosen sets one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=tuple(SETS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.sets:
        line = measure(args.out / name, SETS[name], args)
        print(json.dumps({"set": name, **line}), flush=True)


if __name__ == "__main__":
    main()
