"""Speed of `frazil simulate`, next to the projection formula written plainly, in the same run.

Prints one JSON line: images per second of the whole command (read the structure, project, add
noise, write all files and truth volumes) and of the yardstick, which computes only the clean
projections, one image at a time, as Ey^T diag(w) Ex with numpy's complex exponentials in float64
(the best of three passes).

    python benchmarks/simulate.py [--structure FILE] [-n 10000] [-D 64]
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from frazil.simulate.dataset import Simulation, build_simulation, simulate_dataset
from frazil.simulate.settings import SimulateSettings


def plain_images_per_s(simulation: Simulation, count: int) -> float:
    """Return images per second of the plain formula, and check that it gives the same images."""
    grid, draw = simulation.grid, simulation.draw
    k = np.arange(-grid.half, grid.half)
    envelope = np.exp(-2 * (np.pi * grid.sigma_ang * k / grid.box_ang) ** 2)
    images = []
    start = time.perf_counter()
    for row in range(count):
        positions, weights = simulation.motion.place(draw.coordinate[row : row + 1])
        points = positions[0] @ draw.rotation[row].T / grid.pixel_size_ang
        points[:, :2] -= draw.shift_px[row]
        wave_x = np.exp(-2j * np.pi / grid.box_px * np.outer(points[:, 0], k)) * envelope
        wave_y = np.exp(-2j * np.pi / grid.box_px * np.outer(points[:, 1], k)) * envelope
        transform = (wave_y.T * weights[0]) @ wave_x
        shifted = np.fft.ifft2(np.fft.ifftshift(transform))
        images.append(np.fft.fftshift(shifted).real)
    seconds = time.perf_counter() - start
    ours = simulation.clean_images(np.arange(count))
    difference = np.linalg.norm(ours - np.stack(images)) / np.linalg.norm(ours)
    if difference > 0.02:  # they differ at the Nyquist frequency only
        raise SystemExit(f"the two projectors disagree by {difference:.3f}")
    return count / seconds


def main() -> None:
    """Run both and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structure")
    parser.add_argument("-n", type=int, default=10000)
    parser.add_argument("-D", type=int, default=64)
    args = parser.parse_args()
    settings = SimulateSettings(num=args.n, box_px=args.D, structure=args.structure)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = simulate_dataset(settings, Path(folder) / "set")
        seconds = time.perf_counter() - start
    plain = SimulateSettings(num=60, box_px=args.D, structure=args.structure, ctf=False)
    simulation = build_simulation(plain)
    yardstick = max(plain_images_per_s(simulation, 60) for _ in range(3))
    line = {
        "benchmark": "simulate",
        "images": args.n,
        "box_px": args.D,
        "points": report["points"],
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 2),
        "images_per_s": round(args.n / seconds, 1),
        "plain_numpy_images_per_s": round(yardstick, 1),
        "ratio": round(args.n / seconds / yardstick, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
