"""`frazil preprocess` of a large stack against the limits of the machine, in the same run.

Makes a float32 stack of noise and runs the whole command on it, with the stack in the page cache
and dropped from it. The yardsticks: a sequential read of the file, warm and cold; the transforms
alone (window, FFT, crop, gather) and the transforms with the encoding, on as many threads as the
command uses, over images that lie in memory. Prints one JSON line each, and which of the
yardsticks binds: the one whose time is longest.

    python benchmarks/preprocess_limits.py [--images 50000] [--box 256] [-D 128]
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from frazil.preprocess.blocks import encode_block
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import packed_coefficients, plan_transform
from frazil.store.codec import Codec, shell_steps
from preprocess_vs_cryodrgn import drop_pages, make_stack, read_once, run

MEASURED_S = 5.0
TASK_IMAGES = 64


def rate_of(work: Callable[[np.ndarray], object], box_px: int, threads: int) -> float:
    """Return images per second of threads that each do `work` on images of their own."""
    generator = np.random.default_rng(0)
    sets = [
        generator.standard_normal((TASK_IMAGES, box_px, box_px), np.float32) for _ in range(threads)
    ]

    def repeat(images: np.ndarray) -> int:
        torch.set_num_threads(1)
        work(images)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < MEASURED_S:
            work(images)
            done += len(images)
        return done

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(repeat, sets)) / MEASURED_S


def main() -> None:
    """Make the stack, run everything, print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--box", type=int, default=256)
    parser.add_argument("-D", type=int, default=128)
    args = parser.parse_args()
    threads = min(16, os.cpu_count() or 1)
    transform = plan_transform(PackSettings(box_px=args.D), args.box, "real")
    reference = np.full(args.D // 2, float(args.box))
    codec = Codec.from_shells("int8", shell_steps(reference, "int8"), transform.disc)
    groups = (np.zeros(TASK_IMAGES, np.int64), 1)
    with tempfile.TemporaryDirectory(prefix="frazil-benchmark-") as name:
        stack, out = Path(name) / "stack.mrcs", Path(name) / "X.frz"
        make_stack(stack, args.images, args.box)
        command = [sys.executable, "-m", "frazil.cli.main", "preprocess", str(stack)]
        command += ["-D", str(args.D), "-o", str(out)]
        rates = {
            "transforms": rate_of(
                lambda images: packed_coefficients(torch.from_numpy(images), transform),
                args.box,
                threads,
            ),
            "transforms and encoding": rate_of(
                lambda images: encode_block(images, groups, transform, codec, reference),
                args.box,
                threads,
            ),
        }
        for cache in ("warm", "cold"):
            if cache == "cold":
                drop_pages(stack)
            rates["reading"] = args.images / read_once(stack)
            if cache == "cold":
                drop_pages(stack)
            line = run("frazil preprocess (.frz)", command)
            shutil.rmtree(out)
            rate = args.images / float(line["seconds"])
            binds = min(rates, key=lambda key: rates[key])
            facts = {"cache": cache, "images": args.images, "images_per_s": round(rate), **line}
            facts["limits_images_per_s"] = {key: round(value) for key, value in rates.items()}
            facts["binds"], facts["of_that_limit"] = binds, round(rate / rates[binds], 3)
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
