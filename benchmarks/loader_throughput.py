"""Images per second of ParticleLoader, next to a plain read of the same shards, in the same run.

Packs a stack of noise, then times whole epochs (page cache warm) at several batch sizes: every
batch is taken, nothing is done with it. Yardsticks: reading the same shard files from start to end
into one buffer, and, with --cryodrgn-python, cryoDRGN's ImageDataset of the same stack loaded
eagerly (a quarter of the images), images taken in batches. Prints one JSON line each.

    python benchmarks/loader_throughput.py [--images 10000] [--cryodrgn-python VENV/bin/python]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from frazil.io.images import open_particles
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from preprocess_vs_cryodrgn import make_stack, read_once

CRYODRGN = """
import json, resource, sys, time, numpy as np
from cryodrgn.dataset import ImageDataset
path, count, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start = time.perf_counter()
data = ImageDataset(path, lazy=False, invert_data=True, ind=np.arange(count))
loaded = time.perf_counter()
order = np.random.permutation(count)
for first in range(0, count, batch):
    data[order[first : first + batch]]
done = time.perf_counter()
rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
print(json.dumps({"images_per_s": count / (done - loaded), "rss_mb": rss_mb}))
"""


FRAZIL = """
import json, resource, sys, time
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.store.reader import ParticleStore
batch, epochs = int(sys.argv[2]), int(sys.argv[3])
loader = ParticleLoader(ParticleStore.open(sys.argv[1]), LoaderSettings(batch_size=batch))
rates = []
for epoch in range(1, epochs + 1):
    start = time.perf_counter()
    images = sum(len(part.rows) for part in loader.epoch(epoch))
    rates.append(images / (time.perf_counter() - start))
rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
print(json.dumps({"images_per_s": max(rates), "rss_mb": rss_mb}))
"""


def measured(*command: str) -> dict[str, float]:
    """Return what a program of its own prints last: rate, and the largest memory it held."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Pack, time, and print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("-D", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--cryodrgn-python", metavar="PROGRAM")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="frazil-benchmark-") as name:
        stack = Path(name) / "stack.mrcs"
        make_stack(stack, args.images, args.D)
        table = open_particles(stack)
        table = table.with_poses(np.broadcast_to(np.eye(3), (args.images, 3, 3)))
        store = pack(table, Path(name) / "X.frz", PackSettings())
        shards = sorted((store.path / "shards").iterdir())
        read_s = min(sum(map(read_once, shards)) for _ in range(3))
        raw = args.images / read_s
        print(json.dumps({"what": "plain read of the shards", "images_per_s": round(raw)}))
        for batch_size in (16, 256):
            load = os.getloadavg()[0]
            epochs = str(args.epochs)
            ours = measured(sys.executable, "-c", FRAZIL, str(store.path), str(batch_size), epochs)
            rate = ours["images_per_s"]
            line = {"what": "ParticleLoader", "batch": batch_size, "images_per_s": round(rate)}
            line |= {"of_plain_read": round(rate / raw, 3), "load_before": round(load, 2)}
            line["rss_mb"] = round(ours["rss_mb"])
            if args.cryodrgn_python:
                sizes = (str(args.images), str(batch_size))
                theirs = measured(args.cryodrgn_python, "-c", CRYODRGN, str(stack), *sizes)
                line["cryodrgn_eager_images_per_s"] = round(theirs["images_per_s"])
                line["cryodrgn_eager_rss_mb"] = round(theirs["rss_mb"])
                line["times_cryodrgn"] = round(rate / theirs["images_per_s"], 1)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
