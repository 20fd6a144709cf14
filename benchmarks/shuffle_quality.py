"""How well the loader's order mixes: by the source positions in its batches, and by training.

(a) Correlation of the batch number with source position, and spread of the batches' means and of
positions inside batches, relative to a random permutation, for the order of a store of --images at
several windows; the same for an artificial store whose records lie in the order of the source, and
for no shuffling, which must come out badly. (b) `train_vae` on a small simulated set, windows of
256 rows against one window of all rows, which is a full random permutation: the loss of the last
epoch over seeds, mean difference relative to the spread over seeds. Prints JSON lines.

    python benchmarks/shuffle_quality.py [--images 1375854] [--seeds 4]
"""

import argparse
import json
import os
import statistics
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from frazil.cli.main import main as frazil
from frazil.loader.order import Layout, epoch_order
from frazil.metrics.shuffling import shuffle_quality
from frazil.store.sizes import record_bytes
from frazil.store.writer import BLOCK_ROWS, image_places, rows_per_shard

WINDOW_ROWS = 256


def orders(images: int, batch_size: int) -> None:
    """Print the quality of the loader's order and of both controls."""
    shard_rows = rows_per_shard(record_bytes(128, "int8"))
    full, rest = divmod(images, shard_rows)
    counts = [shard_rows] * full + ([rest] if rest else [])
    places = {
        "ours": image_places(images, shard_rows, 0),
        "control: records in the order of the source": np.divmod(np.arange(images), shard_rows),
    }
    for name, (shard, slot) in places.items():
        layout = Layout.of(shard, slot, counts, BLOCK_ROWS)
        for window in (1, 2048, 8192, 65_536):
            found = shuffle_quality(epoch_order(layout, window, 0, 1), batch_size)
            print(json.dumps({"order": name, "window": window, **_rounded(asdict(found))}))
    others = {
        "a random permutation": np.random.default_rng(0).permutation(images),
        "control: no shuffling": np.arange(images),
    }
    for name, positions in others.items():
        found = shuffle_quality(positions, batch_size)
        print(json.dumps({"order": name, **_rounded(asdict(found))}), flush=True)


def training(images: int, epochs: int, seeds: int) -> None:
    """Print the losses of training in our order and in that of a full random permutation."""
    torch.set_num_threads(1)  # of so small a network, threads wait for each other
    with tempfile.TemporaryDirectory(prefix="frazil-shuffle-") as name:
        folder = Path(name)
        star, store = str(folder / "set" / "particles.star"), str(folder / "X.frz")
        quiet(["simulate", "-o", str(folder / "set"), "-n", str(images), "-D", "32"])
        quiet(["preprocess", star, "-o", store])
        losses: dict[str, list[list[float]]] = {"ours": [], "full permutation": []}
        for seed in range(seeds):
            for order, window in (("ours", WINDOW_ROWS), ("full permutation", images)):
                out = folder / f"{order[:4]}{seed}"
                sizes = ["--zdim", "4", "--enc-dim", "64", "--dec-dim", "64", "-b", "16"]
                sizes += ["--enc-layers", "1", "--dec-layers", "1"]
                flags = ["--shuffler-size", str(window), "--seed", str(seed), "-n", str(epochs)]
                quiet(["train_vae", store, "-o", str(out), *sizes, *flags, "--no-analysis"])
                losses[order].append(epoch_losses(out / "metrics.jsonl"))
    for order, curves in losses.items():
        means = [statistics.mean(values) for values in zip(*curves, strict=True)]
        rounded = [round(value, 5) for value in means]
        print(json.dumps({"training": order, "seeds": seeds, "mean_loss_by_epoch": rounded}))
    last = {order: [curve[-1] for curve in curves] for order, curves in losses.items()}
    difference = statistics.mean(last["ours"]) - statistics.mean(last["full permutation"])
    spread = statistics.stdev(last["full permutation"])
    line = {"what": "last loss, ours minus full permutation", "difference": difference}
    line |= {"spread_over_seeds": spread, "difference_in_spreads": difference / spread}
    print(json.dumps({**_rounded(line), "load": round(os.getloadavg()[0], 2)}))


def quiet(command: list[str]) -> None:
    """Run a command of frazil in this process, its log thrown away."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        if code := frazil(command):
            raise SystemExit(f"frazil {' '.join(command)}: exit code {code}")


def epoch_losses(journal: Path) -> list[float]:
    """Return the mean loss of each epoch."""
    lines = map(json.loads, journal.read_text().splitlines())
    return [line["loss"] for line in lines if line.get("event") == "epoch"]


def _rounded(facts: dict) -> dict:
    return {k: round(v, 7) if isinstance(v, float) else v for k, v in facts.items()}


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_375_854)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--train-images", type=int, default=1_280)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    orders(args.images, args.batch_size)
    if args.seeds > 1:
        training(args.train_images, args.epochs, args.seeds)


if __name__ == "__main__":
    main()
