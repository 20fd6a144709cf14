"""cryoDRGN trained epoch by epoch on a simulated set, scored beside train_pca.

Prints JSON lines and writes a plot.

Give the folder of a set of `pca_suite` (or any with `set/` of `frazil simulate` in it). What is
missing of set.frz and run/ is made. cryoDRGN is trained in its own environment, its output in
OUT/drgn, one epoch per call from its last checkpoint, so the script can be stopped at any time and
called again, also with more epochs; OUT/drgn.cost.json keeps what each epoch took. Checkpoints
trained otherwise are scored as well; their time is the wall time in run.log (cpu_s is null).

Every --every'th checkpoint and the last are scored as ours: volumes at the mean latent of the
particles of a conformation, and at the latents of single images, for a part of the true volumes and
images (--conformations, --per-image), because a volume costs cryoDRGN seconds. Lines: "ours",
"consensus", then one per epoch with the time up to it and its ratio to ours. The plot is
OUT/against_cryodrgn.png, the curves are in OUT/against_cryodrgn.json.

    python benchmarks/pca_against_cryodrgn.py --out /tmp/suite/igg-1d --cryodrgn VENV/bin/cryodrgn \
        --epochs 30 --every 5
"""

import argparse
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pca_suite import LABEL_SHARES, consensus_map, linear_volumes
from simulated_sets import Truth, command, latent_figures, scores, trained, volume_of


class Comparison:
    """A part of the truth, and the scores of methods against it."""

    def __init__(self, truth: Truth, conformations: int, images: int) -> None:
        chosen = np.linspace(0, len(truth.volumes) - 1, conformations).round().astype(int)
        self.chosen, self.truth = np.unique(chosen), truth
        self.groups = [truth.near(LABEL_SHARES[0])[number] for number in self.chosen]
        self.rows = truth.scored_rows(images)
        self.true = [truth.volumes[number] for number in self.chosen]
        self.own = [truth.volume_at(row) for row in self.rows]
        self.curves: dict[str, dict[str, list[float]]] = {}

    def points(self, latents: np.ndarray) -> np.ndarray:
        """Return the latents (n, Z) whose volumes are scored: conformations, then images."""
        centres = np.stack([latents[rows].mean(0) for rows in self.groups])
        return np.concatenate([centres, latents[self.rows]])

    def score(self, name: str, volumes: list[Tensor]) -> dict[str, Any]:
        """Score the volumes at `points`."""
        count = len(self.true)
        found, curves = scores(volumes[:count], self.true, self.truth.mask)
        per_image, more = scores(volumes[count:], self.own, self.truth.mask)
        self.curves[name] = curves | {f"per_image_{key}": value for key, value in more.items()}
        return {"per_conformation": found, "per_image": per_image}


def score_ours(out: Path, comparison: Comparison, zdim: int) -> dict[str, Any]:
    """Fit if needed, score and print ours and the consensus; return the line of ours."""
    if not (out / "set.frz" / "manifest.json").exists():
        command(out, "preprocess set/particles.star -o set.frz --overwrite")
    cost = trained(out, f"--zdim {zdim}")
    latents = np.load(out / "run" / "z.npy")
    volumes = linear_volumes(out / "run", comparison.points(latents))
    line = {"what": "ours", **cost, "latents": latent_figures(latents, comparison.truth)}
    line |= comparison.score("ours", volumes)
    print(json.dumps(line), flush=True)
    consensus = consensus_map(out / "run") * volume_of(out / "run" / "mask.mrc")
    found = comparison.score("consensus", [consensus] * len(volumes))
    print(json.dumps({"what": "consensus", "masked": True, **found}), flush=True)
    return line


def epochs_done(folder: Path) -> list[int]:
    """Return the epochs whose checkpoint is complete (latents are written last), sorted."""
    numbers = [re.fullmatch(r"z\.(\d+)\.pkl", path.name) for path in folder.glob("z.*.pkl")]
    return sorted(int(found[1]) for found in numbers if found)


def train_one_more(out: Path, args: argparse.Namespace) -> None:
    """Train cryoDRGN by one epoch, and note what that took."""
    done = epochs_done(out / "drgn")
    epoch = done[-1] + 1 if done else 1
    resume = f"--load drgn/weights.{done[-1]}.pkl" if done else ""
    cost = command(
        out,
        f"train_vae set/particles.mrcs --poses set/poses.pkl --ctf set/ctf.pkl --zdim {args.zdim}"
        f" --enc-dim {args.dim} --dec-dim {args.dim} -n {epoch} --seed {epoch} --no-amp"
        f" --no-analysis --max-threads 1 -o drgn {resume}",
        (str(args.cryodrgn),),
    )
    ledger = read_ledger(out)
    ledger[str(epoch)] = cost
    part = out / "drgn.cost.json.part"
    part.write_text(json.dumps(ledger))
    part.replace(out / "drgn.cost.json")


def read_ledger(out: Path) -> dict[str, dict[str, float]]:
    """Return what each epoch that was trained here took."""
    path = out / "drgn.cost.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def time_until(out: Path, epoch: int) -> dict[str, float | None]:
    """Return CPU seconds (None when an epoch was trained elsewhere) and wall seconds of epochs."""
    ledger = read_ledger(out)
    costs = [ledger.get(str(number)) for number in range(1, epoch + 1)]
    if all(costs):
        return {key: round(sum(cost[key] for cost in costs if cost), 1) for key in _TIMES}
    wall = 0.0
    pattern = r"=> Epoch: (\d+) .*Finished in (\d+):(\d+):([\d.]+)"
    for number, hours, minutes, seconds in re.findall(pattern, (out / "drgn/run.log").read_text()):
        wall += (3600 * int(hours) + 60 * int(minutes) + float(seconds)) * (int(number) <= epoch)
    return {"cpu_s": None, "wall_s": round(wall, 1)}


_TIMES = ("cpu_s", "wall_s")


def score_epoch(out: Path, epoch: int, comparison: Comparison, cryodrgn: Path) -> dict[str, Any]:
    """Score one checkpoint, or read the scores made before."""
    with (out / "drgn" / f"z.{epoch}.pkl").open("rb") as file:
        latents = np.asarray(pickle.load(file))
    points = comparison.points(latents)
    folder = out / "drgn_volumes"
    np.savetxt(out / "drgn_z.txt", points)
    shutil.rmtree(folder, ignore_errors=True)
    command(
        out,
        f"eval_vol drgn/weights.{epoch}.pkl -c drgn/config.yaml --zfile drgn_z.txt -o drgn_volumes",
        (str(cryodrgn),),
    )
    paths = sorted(folder.glob("vol_*.mrc"))
    if len(paths) != len(points):
        raise SystemExit(f"{folder}: {len(paths)} volumes for {len(points)} latents")
    found = comparison.score(f"epoch {epoch}", [volume_of(path) for path in paths])
    shutil.rmtree(folder)
    return {"latents": latent_figures(latents, comparison.truth), **found}


def plot(path: Path, ours: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    """Draw the AUC of cryoDRGN against epoch and time, ours beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    key = "cpu_s" if all(line["cpu_s"] for line in lines) else "wall_s"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for kind, style in (("per_conformation", "o-"), ("per_image", "s--")):
        auc = [line[kind]["auc_masked"] for line in lines]
        label = kind.replace("_", " ")
        axes[0].plot([line["epoch"] for line in lines], auc, style, label=f"cryoDRGN {label}")
        axes[1].plot([line[key] for line in lines], auc, style)
        axes[0].axhline(ours[kind]["auc_masked"], color="k", ls=style[1:], label=f"ours {label}")
        axes[1].plot(ours[key], ours[kind]["auc_masked"], f"k{style[0]}")
    axes[0].set(xlabel="epoch", ylabel="FSC AUC within the mask of the truth")
    axes[1].set(xlabel=f"{'CPU' if key == 'cpu_s' else 'wall'} seconds", xscale="log")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def compare(args: argparse.Namespace) -> None:
    """Train as far as asked, score, print, plot."""
    out: Path = args.out
    comparison = Comparison(Truth.of(out), args.conformations, args.per_image)
    ours = score_ours(out, comparison, args.components)
    while not (done := epochs_done(out / "drgn")) or done[-1] < args.epochs:
        train_one_more(out, args)
    chosen = [e for e in done if e <= args.epochs and (e % args.every == 0 or e == args.epochs)]
    kept = out / "against_cryodrgn.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    request = [args.conformations, args.per_image]
    lines = known["lines"] if known.get("request") == request else []
    comparison.curves |= known.get("curves", {}) if lines else {}
    scored = {line["epoch"]: line for line in lines}
    for epoch in chosen:
        if epoch not in scored:
            scored[epoch] = score_epoch(out, epoch, comparison, args.cryodrgn)
        times = time_until(out, epoch)
        key = "cpu_s" if times["cpu_s"] else "wall_s"
        times["times_ours"] = round(times[key] / ours[key], 1)
        scored[epoch] = {"what": "cryodrgn", "epoch": epoch, **scored[epoch], **times}
        print(json.dumps(scored[epoch]), flush=True)
        record = {"request": request, "lines": list(scored.values()), "curves": comparison.curves}
        kept.write_text(json.dumps(record) + "\n")
    shown = [scored[epoch] for epoch in sorted(scored)]
    if shown:
        plot(out / "against_cryodrgn.png", ours, shown)


def main() -> None:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of one set")
    parser.add_argument("--cryodrgn", type=Path, required=True, help="its command")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="score every so many checkpoints")
    parser.add_argument("--zdim", type=int, default=8, help="of cryoDRGN")
    parser.add_argument("--dim", type=int, default=256, help="width of its networks")
    parser.add_argument("--components", type=int, default=7, help="of train_pca")
    parser.add_argument("--conformations", type=int, default=10)
    parser.add_argument("--per-image", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare(args)


if __name__ == "__main__":
    main()
