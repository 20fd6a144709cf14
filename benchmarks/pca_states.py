"""Does the mixture tell discrete states apart? Against the truth, and beside k-means.

Runs the ordinary commands (simulate --motion composition, preprocess, train_pca, mixture) in a
folder, then prints JSON lines:

- states: the share of particles whose label is that of their state, labels matched to states one
  to one, by k-means on the latents, by sklearn's Gaussian mixture of them, by ours given the number
  of states, and by ours begun at the truth, which is about the best that any prior can do;
- choice: the number of components that `frazil mixture` chooses, and what it took;
- speed: CPU seconds of the fit at the given number, and images per second of one E-step.

    python benchmarks/pca_states.py --out /tmp/states --states 4
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from pca_recovery import command
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from frazil.engines.pca import mixture
from frazil.engines.pca.mixture import Mixture, Statistics
from frazil.engines.pca.mixture_files import read_statistics
from frazil.engines.pca.mixture_settings import MixtureSettings
from frazil.runs.folder import Run

SETTINGS = MixtureSettings()


def told_apart(labels: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of particles whose label is that of their state, in per cent."""
    table = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(table, (labels, truth), 1)
    rows, columns = linear_sum_assignment(-table)
    return round(100 * float(table[rows, columns].sum()) / len(truth), 2)


def labellings(data: Statistics, truth: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return labels (n,) by each method; prints what our fit took."""
    mixture.expect(mixture.start(data, 2, SETTINGS.floor, 0), data)  # compiles
    start = time.process_time()
    ours = mixture.fit(data, count, SETTINGS.floor, SETTINGS.restarts, 0)
    fit_s = round(time.process_time() - start, 1)
    start = time.process_time()
    found = mixture.expect(ours, data)
    rate = round(len(data) / (time.process_time() - start))
    print(json.dumps({"what": "speed", "fit_cpu_s": fit_s, "images_per_s": rate}))
    z = data.means
    centres = np.stack([found.means[truth == state].mean(0) for state in range(count)])
    shares = np.bincount(truth) / len(truth)
    known = Mixture(shares, centres, np.tile(np.eye(z.shape[1]) / 100, (count, 1, 1)))
    known, _ = mixture.improve(known, data, SETTINGS.floor)
    return {
        "kmeans": KMeans(count, n_init=5, random_state=0).fit(z).labels_,
        "sklearn_mixture_of_means": GaussianMixture(count, n_init=5, random_state=0).fit_predict(z),
        "mixture": found.responsibilities.argmax(1),
        "mixture_from_truth": mixture.expect(known, data).responsibilities.argmax(1),
    }


def main() -> None:
    """Run the workflow and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--states", type=int, default=4)
    parser.add_argument("--zdim", type=int, default=7)
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "run" / "reliability.json").exists():
        command(
            out,
            f"simulate -n {args.images} -D {args.box} --snr {args.snr} --motion composition "
            f"--states {args.states} -o set --overwrite",
        )
        command(out, "preprocess set/particles.star -o set.frz --overwrite")
        command(out, f"train_pca set.frz --zdim {args.zdim} -o run --overwrite")
    run = Run.open(out / "run")
    data = read_statistics(run)
    truth = np.load(out / "set" / "truth" / "conformations.npy", allow_pickle=False)
    truth = truth[run.rows()].astype(np.int64)
    labels = labellings(data, truth, args.states)
    facts = {"images": args.images, "box_px": args.box, "snr": args.snr, "states": args.states}
    percent = {name: told_apart(one, truth) for name, one in labels.items()}
    print(json.dumps({"what": "states", **facts, **percent}))
    command(out, "mixture run")
    figures = json.loads((out / "run" / "mixture.json").read_text())
    took = round(figures["cpu_seconds"], 1)
    print(json.dumps({"what": "choice", "components": figures["components"], "cpu_s": took}))


if __name__ == "__main__":
    main()
