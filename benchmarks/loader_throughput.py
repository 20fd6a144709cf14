"""Images per second of ParticleLoader, beside a plain read and cryoDRGN's loaders, in one run.

1. A synthetic store of more than 2 GB: whole epochs as decoded batches and as codes, page cache
   warm (all kept in memory) and cold (page cache dropped, streamed), beside buffered sequential
   reads of the same shards by as many threads, page cache dropped. Each figure is the median of
   --repeats, taken in turns.
2. With --cryodrgn-python: a stack of noise, packed for us, and cryoDRGN's loaders of the same
   stack: eager, lazy, and lazy with its shuffler, whole epochs, page cache cold (eager: with the
   time of loading) and warm.

Every loader runs in a process of its own, whose largest memory is in its line. Prints JSON lines.

    python benchmarks/loader_throughput.py [--folder DIR] [--cryodrgn-python VENV/bin/python]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from disk import forget_pages, sequential_rate, shard_files
from frazil.io.images import open_particles
from frazil.loader.prefetch import READER_THREADS
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.sizes import record_bytes
from preprocess_vs_cryodrgn import make_stack
from synthetic_store import make_store

BOX_PX = 128

FRAZIL = """
import json, sys, time
from pathlib import Path
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.store.reader import ParticleStore
path, what, batch, epochs, memory = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
start = time.perf_counter()
chosen = LoaderSettings(batch_size=batch, memory_bytes=memory or None)
loader = ParticleLoader(ParticleStore.open(path), chosen)
opened = time.perf_counter() - start
rates = []
for epoch in range(1, epochs + 1):
    start, images = time.perf_counter(), 0
    for part in loader.codes(epoch) if what == "codes" else loader.epoch(epoch):
        images += len(part.rows)
    rates.append(images / (time.perf_counter() - start))
status = Path("/proc/self/status").read_text()  # getrusage counts what the parent held, too
rss_mb = int(status.split("VmHWM:")[1].split()[0]) / 1000
print(json.dumps({"mode": loader.mode, "open_s": opened, "rates": rates, "rss_mb": rss_mb}))
"""

CRYODRGN = """
import json, sys, time
from pathlib import Path
from cryodrgn.dataset import ImageDataset, make_dataloader
path, what, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = time.perf_counter()
data = ImageDataset(path, lazy=what != "eager", invert_data=True)
opened, rates = time.perf_counter() - start, []
size = len(data) // 2 // batch * batch if what == "shuffler" else 0
for epoch in range(2):
    start, images = time.perf_counter(), 0
    for part in make_dataloader(data, batch_size=batch, shuffler_size=size):
        images += len(part["y"])
    rates.append(images / (time.perf_counter() - start))
status = Path("/proc/self/status").read_text()  # getrusage counts what the parent held, too
rss_mb = int(status.split("VmHWM:")[1].split()[0]) / 1000
print(json.dumps({"open_s": opened, "rates": rates, "rss_mb": rss_mb, "images": images}))
"""


def measured(*command: object) -> dict:
    """Return what a program prints last, with the load of the machine before it."""
    load = os.getloadavg()[0]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "load_before": round(load, 2)}


def ours(store: Path, what: str, batch: int, epochs: int, memory_bytes: int = 0) -> dict:
    """Return the figures of a process that takes whole epochs of a store."""
    return measured(sys.executable, "-c", FRAZIL, store, what, batch, epochs, memory_bytes)


def line(what: str, runs: list[dict], rate: float, **more: object) -> None:
    """Print one line of what several processes found."""
    facts = {"what": what, "images_per_s": round(rate), **more}
    facts["rss_mb"] = round(max(run["rss_mb"] for run in runs))
    facts["load_before"] = [run["load_before"] for run in runs]
    print(json.dumps(facts), flush=True)


def large_store(folder: Path, args: argparse.Namespace) -> None:
    """Measure a store that is larger than what the machine's caches hide."""
    store = make_store(folder / "large.frz", args.large_images, BOX_PX).path
    files, record = shard_files(store), record_bytes(BOX_PX, "int8")
    size_mb = round(sum(path.stat().st_size for path in files) / 1e6)
    print(json.dumps({"what": "store", "images": args.large_images, "mb": size_mb}))
    for what in ("decoded", "codes"):
        for batch in (16, 256):
            # The first epoch fills the memory.
            runs = [ours(store, what, batch, 3, 4 * record * args.large_images)]
            rates = runs[0]["rates"][1:]
            line(f"{what}, batch {batch}, warm", runs, max(rates), mode=runs[0]["mode"])
    plain, decoded, codes = [], [], []
    for _ in range(args.repeats):
        forget_pages(files)
        plain.append(sequential_rate(files, READER_THREADS) / record)
        for what, runs in (("codes", codes), ("decoded", decoded)):
            forget_pages(files)
            runs.append(ours(store, what, 256, 1, 300_000_000))
    read = statistics.median(plain)
    text = f"sequential read, {READER_THREADS} threads, cold"
    all_read = [round(rate) for rate in plain]
    print(json.dumps({"what": text, "images_per_s": round(read), "all": all_read}))
    for what, runs in (("codes", codes), ("decoded", decoded)):
        rates = [run["rates"][0] for run in runs]
        of_read, rounded = statistics.median(rates) / read, [round(rate) for rate in rates]
        mode = runs[0]["mode"]
        more = {"mode": mode, "of_sequential_read": round(of_read, 3), "all": rounded}
        line(f"{what}, batch 256, cold", runs, statistics.median(rates), **more)


def beside_cryodrgn(folder: Path, args: argparse.Namespace) -> None:
    """Measure the loaders of both programs on the same stack."""
    stack = folder / "stack.mrcs"
    make_stack(stack, args.images, BOX_PX)
    table = open_particles(stack).with_poses(np.broadcast_to(np.eye(3), (args.images, 3, 3)))
    store = pack(table, folder / "X.frz", PackSettings()).path
    forget_pages(shard_files(store))
    us = ours(store, "decoded", args.batch_size, 10)
    cold, warm = us["rates"][0], max(us["rates"][1:])
    line("ours, same stack", [us], warm, cold_images_per_s=round(cold))
    for what in ("eager", "lazy", "shuffler"):
        forget_pages([stack])
        found = measured(args.cryodrgn_python, "-c", CRYODRGN, stack, what, args.batch_size)
        first = found["images"] / (found["open_s"] + found["images"] / found["rates"][0])
        theirs = max(found["rates"])
        more = {
            "cold_with_opening_images_per_s": round(first),
            "times_warm": round(warm / theirs, 1),
            "times_cold": round(cold / first, 1),
            "rss_times_ours": round(found["rss_mb"] / us["rss_mb"], 2),
        }
        line(f"cryoDRGN {what}", [found], theirs, **more)


def main() -> None:
    """Measure and print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the files are written; default: /tmp")
    parser.add_argument("--large-images", type=int, default=170_000)
    parser.add_argument("--images", type=int, default=4_000, help="of the stack for both programs")
    parser.add_argument("--batch-size", type=int, default=16, help="for both programs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cryodrgn-python", metavar="PROGRAM")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="frazil-benchmark-", dir=args.folder) as name:
        large_store(Path(name), args)
        if args.cryodrgn_python:
            beside_cryodrgn(Path(name), args)


if __name__ == "__main__":
    main()
