"""What it costs to bring images to another pixel size while they are packed.

Prints one JSON line per pair of boxes: CPU milliseconds per image of the ordinary way (window, FFT,
crop), of the transform at other frequencies, their ratio, and the largest difference of the two at
the same frequencies, relative to the RMS of the coefficients.

    python benchmarks/resampling.py [--boxes 128:64 256:128 360:256]
"""

import argparse
import json
import time
from collections.abc import Callable

import torch

from frazil.preprocess.settings import ImageSettings
from frazil.preprocess.steps import (
    ImageTransform,
    Waves,
    packed_coefficients,
    plan_transform,
)

IMAGES, ROUNDS = 32, 5


def _cpu_ms(work: Callable[[], object]) -> float:
    """Return the least CPU time of some rounds, per image."""
    work()
    spent = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent) / IMAGES * 1e3


def compare(source_px: int, box_px: int) -> dict[str, float]:
    """Return the figures of one pair of boxes."""
    images = torch.randn(IMAGES, source_px, source_px)
    plain = plan_transform(ImageSettings(box_px=box_px), source_px, "real")
    waves = Waves.of(source_px, plain.disc.radius_px, 1 / source_px)
    other = ImageTransform("real", source_px, plain.disc, plain.crop_first, plain.weight, waves)
    wanted = packed_coefficients(images, plain)
    difference = (packed_coefficients(images, other) - wanted).abs().max()
    fft_ms = _cpu_ms(lambda: packed_coefficients(images, plain))
    waves_ms = _cpu_ms(lambda: packed_coefficients(images, other))
    return {
        "source_px": source_px,
        "box_px": box_px,
        "fft_ms": round(fft_ms, 3),
        "other_frequencies_ms": round(waves_ms, 3),
        "ratio": round(waves_ms / fft_ms, 2),
        "largest_difference": float(difference / wanted.abs().square().mean().sqrt()),
    }


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", nargs="+", default=["128:64", "256:128", "360:256"])
    torch.set_num_threads(1)
    for pair in parser.parse_args().boxes:
        source_px, box_px = map(int, pair.split(":"))
        print(json.dumps(compare(source_px, box_px)), flush=True)


if __name__ == "__main__":
    main()
