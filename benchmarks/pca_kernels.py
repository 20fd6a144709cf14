"""Time of the E-step and the M-step of train_pca per image, on one thread, as a fit runs them.

Random images with random rotations, CTF and shifts in batches of the size that train_pca takes.
Prints one JSON line per box: microseconds per image of a pass without and with the sums of the
M-step, and of the parts. "floor" is what the bytes alone would take: every voxel that the slices
touch read once (E) or read and written once (M) per image, at the speed of a large copy measured
here.

    python benchmarks/pca_kernels.py --zdim 8
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.streaming import BATCH_COEFFICIENTS, BATCH_IMAGES, Fit, run_pass
from frazil.engines.pca.sums import lane_count
from frazil.engines.vae.measure import random_batch


def best_us(work: Callable[[], object], images: int, repeats: int) -> float:
    """Return the least microseconds per image of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(1e6 * min(times) / images, 1)


def copy_bytes_per_us() -> float:
    """Return the speed of a large copy, bytes read and written per microsecond."""
    source = np.zeros(1 << 27, np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    return 2 * len(source) / best_us(lambda: np.copyto(target, source), 1, 5)


def main() -> None:
    """Measure both boxes and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zdim", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    speed = copy_bytes_per_us()
    for box_px in (64, 128):
        geometry = Geometry.of(box_px)
        count = min(BATCH_IMAGES, BATCH_COEFFICIENTS // len(geometry.disc))
        volumes = args.zdim + 1
        grids = 0.01 * torch.randn(volumes, *geometry.shape.tolist(), dtype=torch.complex64)
        deviation = np.ones((1, box_px // 2 + 1), np.float32)
        zeros = np.zeros(count, np.int64)
        fit = Fit([grids], deviation, zeros, zeros, geometry)
        batch = random_batch(box_px, count)
        run_pass([batch], fit)
        e_step = best_us(lambda b=batch, f=fit: run_pass([b], f, False), count, args.repeats)
        both = best_us(lambda b=batch, f=fit: run_pass([b], f), count, args.repeats)
        # The half slice of P points passes through a layer about four voxels per point thick.
        touched = 4 * len(geometry.disc) * 4  # bytes of one lane
        line = {
            "box_px": box_px,
            "zdim": args.zdim,
            "images": count,
            "e_step_us": e_step,
            "both_us": both,
            "m_step_us": round(both - e_step, 1),
            "floor_e_us": round(touched * 2 * volumes / speed, 1),
            "floor_m_us": round(2 * touched * lane_count(volumes) / speed, 1),
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
