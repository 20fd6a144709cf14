"""A store of 1,375,854 particles of 128 px: start, memory, and rates of whole epochs.

Writes 18 GB of noise (`synthetic_store.py`) and measures, each in a process of its own:

* from the command to the first batch, seconds and resident memory, at each memory budget;
* whole epochs at each budget, with the page cache dropped before and with what the budget keeps;
* the yardstick, before each of them: a buffered sequential read of the same shards with as many
  threads as the loader has, page cache dropped;
* how fast one thread can touch fresh memory, which a budget that keeps everything needs.

--settle S waits so long after the page cache is dropped, before the yardstick and the loader:
a virtual machine gives freed memory back to its host meanwhile, and it is dear to touch again.

`cryodrgn_s` and so on are what cryoDRGN's users reported for as many particles: 18.5 min and
607 GB to load, 3.2 min and 200 GB when preprocessed. Prints one JSON line each; the store is
removed at the end unless --keep.

    python benchmarks/large_store.py --folder DIR [--particles 1375854]
"""

import argparse
import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from disk import forget_pages, sequential_rate, shard_files
from frazil.loader.prefetch import READER_THREADS, LoaderSettings, ParticleLoader
from frazil.store.budget import parse_bytes
from frazil.store.reader import ParticleStore
from frazil.store.sizes import record_bytes
from synthetic_store import make_store

BOX_PX = 128
REPORTED = {
    "cryodrgn_s": 1110,
    "cryodrgn_gb": 607,
    "cryodrgn_preprocessed_s": 192,
    "cryodrgn_preprocessed_gb": 200,
}


def peak_rss_mb() -> int:
    """Return the largest memory that this process held, MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def child(args: argparse.Namespace) -> None:
    """Run epochs in this process and print one JSON line."""
    settings = LoaderSettings(batch_size=args.batch, memory_bytes=parse_bytes(args.memory))
    store = ParticleStore.open(args.store)
    loader = ParticleLoader(store, settings)
    first: dict[str, float] = {}
    rates = []
    for number in range(1, args.epochs + 1):
        start, images = time.perf_counter(), 0
        stream = loader.codes(number) if args.codes else loader.epoch(number)
        for batch in stream:
            if not first:
                first = {"first_batch_s": round(time.time() - args.asked_at, 2)}
                first["first_batch_rss_mb"] = peak_rss_mb()
                if not args.epochs_wanted:
                    break
            images += len(batch.rows)
        rates.append(round(images / (time.perf_counter() - start)))
    facts = {"memory": args.memory, "mode": loader.mode, "batch": args.batch, **first}
    facts |= {"what": "codes" if args.codes else "coefficients", "peak_rss_mb": peak_rss_mb()}
    if args.epochs_wanted:
        facts["images_per_s"] = rates
        facts["fresh_memory_mb_per_s"] = round(fresh_memory_rate() / 1e6)
    print(json.dumps(facts))


def in_a_process(store: Path, *options: str) -> dict[str, object]:
    """Return the line of a child process; the load of the machine before it is added."""
    load = os.getloadavg()[0]
    command = [sys.executable, __file__, "--child", "--store", str(store), *options]
    done = subprocess.run(
        [*command, "--asked-at", str(time.time())], capture_output=True, text=True, check=True
    )
    facts: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return facts | {"load_before": round(load, 2)}


def fresh_memory_rate(size: int = 4 << 30) -> float:
    """Return bytes/s at which one thread touches memory that the process did not have."""
    start = time.perf_counter()
    with mmap.mmap(-1, size) as memory:
        np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE] = 1
    return size / (time.perf_counter() - start)


def measure(store: Path, budgets: list[str], epochs: int, settle_s: float) -> None:
    """Print all lines of one store."""
    files, record = shard_files(store), record_bytes(BOX_PX, "int8")
    for memory in budgets:
        forget_pages(files)
        start = in_a_process(store, "--memory", memory, "--epochs", "0")
        print(json.dumps({"from command to first batch": start} | REPORTED), flush=True)
    for memory, *options in [(m, *o) for m in budgets for o in (["--codes"], [])]:
        forget_pages(files)
        time.sleep(settle_s)
        plain = sequential_rate(files, READER_THREADS)
        forget_pages(files)
        time.sleep(settle_s)
        facts = in_a_process(store, "--memory", memory, "--epochs", str(epochs), *options)
        cold = facts["images_per_s"][0] * record
        facts["cold_mb_per_s"], facts["disk_mb_per_s"] = round(cold / 1e6), round(plain / 1e6)
        facts["cold_of_sequential_read"] = round(cold / plain, 3)
        print(json.dumps({"whole epochs, the first cold": facts}), flush=True)


def main() -> None:
    """Write the store, measure, remove it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--particles", type=int, default=1_375_854)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--budgets", nargs="+", default=["2G", "20G"])
    parser.add_argument("--settle", type=float, default=0, help="seconds; see above")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--child", action="store_true", help="used by the script itself")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--memory")
    parser.add_argument("--codes", action="store_true")
    parser.add_argument("--asked-at", type=float)
    args = parser.parse_args()
    if args.child:
        args.epochs_wanted = args.epochs
        args.epochs = max(1, args.epochs)
        child(args)
        return
    path = args.folder / "large.frz"
    if not path.exists():
        start = time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        make_store(path, args.particles, BOX_PX)
        print(json.dumps({"written_s": round(time.perf_counter() - start, 1)}), flush=True)
    try:
        measure(path, args.budgets, args.epochs, args.settle)
    finally:
        if not args.keep:
            shutil.rmtree(path)


if __name__ == "__main__":
    main()
