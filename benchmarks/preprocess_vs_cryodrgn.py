"""Speed and memory of `frazil preprocess`, next to `cryodrgn downsample`, in the same run.

Makes a float32 stack of noise, then runs whole commands one after the
other: wall time from start to exit, and the largest resident memory of the process (wait4). Prints
one JSON line per command and one with the ratios of the medians, for a stack that lies in the page
cache and, with --cold, for one that was dropped from it before every command. The load of the
machine at the start is in every line.

    python benchmarks/preprocess_vs_cryodrgn.py --cryodrgn VENV/bin/cryodrgn [--cold]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from frazil.io.mrc import StackWriter


def make_stack(path: Path, images: int, box_px: int) -> None:
    """Write a stack of noise: 500 different images, over and over."""
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((min(500, images), box_px, box_px), np.float32)
    with StackWriter(path, (box_px, box_px), images, 1.0) as writer:
        for start in range(0, images, len(noise)):
            writer.write(noise[: images - start])


def read_once(path: Path) -> float:
    """Return the seconds of one sequential read of a file, which warms the page cache."""
    start, buffer = time.perf_counter(), bytearray(16 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def drop_pages(*paths: Path) -> None:
    """Drop files from the page cache; what is not on disk yet is written first."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def run(name: str, command: list[str]) -> dict[str, float | str]:
    """Run a whole command; return its wall time and peak memory."""
    load, start = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}: {command}")
    return {
        "command": name,
        "seconds": round(seconds, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "rss_mb": round(usage.ru_maxrss / 1024),
        "load_before": round(load, 2),
    }


def main() -> None:
    """Run all commands `--repeats` times, interleaved, and print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cryodrgn", required=True, metavar="PROGRAM")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--box", type=int, default=256)
    parser.add_argument("-D", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="then once more from disk")
    args = parser.parse_args()
    frazil = [sys.executable, "-m", "frazil.cli.main", "preprocess"]
    with tempfile.TemporaryDirectory(prefix="frazil-benchmark-") as name:
        folder = Path(name)
        stack = folder / "stack.mrcs"
        make_stack(stack, args.images, args.box)
        read_s = min(read_once(stack) for _ in range(2))
        common = [str(stack), "-D", str(args.D), "-o"]
        commands = {
            "frazil preprocess (.frz)": [*frazil, *common, str(folder / "X.frz")],
            "frazil preprocess (.ft.mrcs)": [*frazil, *common, str(folder / "ft" / "X.mrcs")],
            "cryodrgn downsample": [args.cryodrgn, "downsample", *common, str(folder / "c.mrcs")],
        }
        for cache in ("warm", "cold")[: 1 + args.cold]:
            lines: dict[str, list[dict[str, float | str]]] = {key: [] for key in commands}
            for _ in range(args.repeats):
                for key, command in commands.items():
                    if cache == "cold":
                        drop_pages(stack)
                    line = run(key, command) | {"cache": cache}
                    lines[key].append(line)
                    print(json.dumps(line), flush=True)
                    for path in (folder / "X.frz", folder / "ft"):
                        shutil.rmtree(path, ignore_errors=True)
                    (folder / "c.mrcs").unlink(missing_ok=True)
            facts = {"images": args.images, "box_px": [args.box, args.D], "cache": cache}
            print(json.dumps(facts | {"read_s": round(read_s, 2)} | ratios(lines, args.images)))


def ratios(lines: dict[str, list[dict[str, float | str]]], images: int) -> dict[str, object]:
    """Return how the commands compare with the last of them, by medians."""
    seconds = {k: statistics.median(float(v["seconds"]) for v in x) for k, x in lines.items()}
    rss = {k: max(float(v["rss_mb"]) for v in x) for k, x in lines.items()}
    *ours, yardstick = lines
    return {
        "times_faster": {k: round(seconds[yardstick] / seconds[k], 2) for k in ours},
        "rss_fraction": {k: round(rss[k] / rss[yardstick], 3) for k in ours},
        "images_per_s": {k: round(images / seconds[k]) for k in lines},
    }


if __name__ == "__main__":
    main()
