"""A whole epoch of a store ten times larger than the memory that the process may have.

Writes a synthetic store, then streams whole epochs of it in a process inside a memory cgroup (made
and removed here; where none can be made, says so and streams without one), and of the same kind of
process without a limit, whose loader keeps the store in memory. The first epoch of each warms up
and is not counted. Once nobody uses the batches, so that the two processors of a small machine
are what limits; once a device takes 25 microseconds for an image (40,000 images/s), and they are
free to read meanwhile. Beside it the rate of plain sequential reads of the same shards by as many
threads, page cache dropped. Prints JSON lines.

    python benchmarks/streaming_hard_limit.py --folder /scratch [--limit 600M] [--images N]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disk import forget_pages, sequential_rate, shard_files
from frazil.loader.prefetch import READER_THREADS
from frazil.store.budget import parse_bytes
from frazil.store.sizes import record_bytes
from synthetic_store import make_store

CGROUPS = Path("/sys/fs/cgroup")

CHILD = """
import json, sys, time
from pathlib import Path
group, path = sys.argv[1:3]
memory, batch, epochs, window, consumer_us = map(int, sys.argv[3:8])
import os
if group:
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.store.budget import resident_bytes
from frazil.store.reader import ParticleStore
def disk_bytes():
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))
chosen = LoaderSettings(batch_size=batch, memory_bytes=memory, window_rows=window)
loader = ParticleLoader(ParticleStore.open(path), chosen)
before = peak = resident_bytes()
rates, read = [], []
for epoch in range(1, epochs + 2):
    start, images, bytes_before = time.perf_counter(), 0, disk_bytes()
    for number, part in enumerate(loader.epoch(epoch)):
        images += len(part.rows)
        time.sleep(len(part.rows) * consumer_us * 1e-6)
        if number % 64 == 0:
            peak = max(peak, resident_bytes())
    seconds = time.perf_counter() - start
    rates.append(images / seconds)
    read.append(disk_bytes() - bytes_before)
print(json.dumps({"mode": loader.mode, "images": images, "images_per_s": max(rates[1:]),
    "all_images_per_s": [round(rate) for rate in rates], "disk_bytes": read,
    "rss_growth_mb": round((peak - before) / 1e6), "rss_mb": round(peak / 1e6)}))
"""


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path | None]:
    """Yield a new cgroup (v1 or v2) with a limit, removed afterwards; None: none can be made."""
    for root, name in ((CGROUPS / "memory", "memory.limit_in_bytes"), (CGROUPS, "memory.max")):
        group = root / f"frazil-benchmark-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(limit_bytes))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    yield None


def facts_of(group: Path | None) -> dict[str, int | str]:
    """Return the largest use of a cgroup and how often the kernel killed in it."""
    if group is None:
        return {"limited_by": "nothing: no memory cgroup could be made here"}
    found: dict[str, int | str] = {"limited_by": "cgroup"}
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if (group / name).is_file():
            found["peak_mb"] = round(int((group / name).read_text()) / 1e6)
    for name in ("memory.oom_control", "memory.events"):
        if (group / name).is_file():
            words = dict(line.split() for line in (group / name).read_text().splitlines())
            found["kills"] = int(words["oom_kill"])
    return found


def stream(
    group: Path | None, store: Path, memory_bytes: int, consumer_us: int, args: argparse.Namespace
) -> dict:
    """Return what a process of its own prints after streaming; it ends with an error if killed."""
    forget_pages(shard_files(store))
    numbers = (memory_bytes, args.batch_size, args.epochs, args.window, consumer_us)
    command = [sys.executable, "-c", CHILD, str(group or ""), str(store), *map(str, numbers)]
    load = os.getloadavg()[0]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"the process ended with {done.returncode}; killed is -9")
    return {**json.loads(done.stdout.splitlines()[-1]), "load_before": round(load, 2)}


def main() -> None:
    """Write the store, stream it both ways, and print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the store is written")
    parser.add_argument("--limit", default="600M", help="memory of the process, torch included")
    parser.add_argument("--images", type=int, help="default: a store ten times the limit")
    parser.add_argument("--memory", help="the loader's budget; default: half of the limit")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--window", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--consumer-us", type=int, default=25, help="what a device takes for an image, microseconds"
    )
    args = parser.parse_args()
    limit = parse_bytes(args.limit)
    memory = parse_bytes(args.memory) if args.memory else limit // 2
    record = record_bytes(128, "int8")
    images = args.images or -(-10 * limit // record)
    with tempfile.TemporaryDirectory(prefix="frazil-limit-", dir=args.folder) as name:
        store = make_store(Path(name) / "X.frz", images).path
        files = shard_files(store)
        size = sum(path.stat().st_size for path in files)
        print(json.dumps({"limit_mb": round(limit / 1e6), "store_mb": round(size / 1e6)}))
        forget_pages(files)
        disk = sequential_rate(files, READER_THREADS)
        print(
            json.dumps(
                {"what": "sequential read, page cache dropped", "mb_per_s": round(disk / 1e6)}
            )
        )
        for consumer_us in (0, args.consumer_us):
            with memory_cgroup(limit) as group:
                streamed = stream(group, store, memory, consumer_us, args)
                limited = {**streamed, **facts_of(group)}
            print(json.dumps({"what": "under the limit", **limited}), flush=True)
            cached = stream(None, store, 2 * size, consumer_us, args)
            print(json.dumps({"what": "without a limit", **cached}), flush=True)
            line = {"consumer_us": consumer_us, "store_over_limit": round(size / limit, 1)}
            print(json.dumps(line | verdict(streamed, cached, record, disk)), flush=True)


def verdict(streamed: dict, cached: dict, record_bytes: int, disk: float) -> dict:
    """Return the ratio of the rates, and whether the disk (bytes/s) is what limits."""
    ratio = streamed["images_per_s"] / cached["images_per_s"]
    taken, wanted = (record_bytes * run["images_per_s"] for run in (streamed, cached))
    facts = {"streamed_of_cached": round(ratio, 3), "streamed_mb_per_s": round(taken / 1e6)}
    if wanted > disk:
        said = f"disk-bound: {taken / 1e6:.0f} of {disk / 1e6:.0f} MB/s"
    else:
        said = "holds" if ratio >= 0.95 else "falls short"
    return {**facts, "verdict": said}


if __name__ == "__main__":
    main()
