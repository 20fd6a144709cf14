"""What screening adds to packing: encoding of images with and without it, by turns in one process.

Times are those of the thread's processor, the same images in the same blocks, each way by turns;
the ratio of the lower quartiles is printed, one JSON line per box. Then the rule that judges all
images at the end, in seconds for a million of them.

    python benchmarks/screening.py [--turns 40]
"""

import argparse
import json
import time
from unittest import mock

import numpy as np
import torch

from frazil.preprocess import blocks
from frazil.preprocess.screening import screen
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import plan_transform
from frazil.store.codec import Codec, shell_steps
from frazil.store.writer import BAND_FACTS, FACTS_DTYPE, PIXEL_FACTS

BLOCK_BYTES = 16 << 20


def nothing(*_: object) -> None:
    """Stand for a measure that is not taken."""


def encoding(source_px: int, box_px: int, turns: int) -> dict[str, object]:
    """Return the seconds per image with and without screening, and their ratio."""
    count = BLOCK_BYTES // (4 * source_px**2)
    transform = plan_transform(PackSettings(box_px=box_px), source_px, "real")
    reference = np.full(box_px // 2, float(source_px))
    codec = Codec.from_shells("int8", shell_steps(reference, "int8"), transform.disc)
    images = np.random.default_rng(0).standard_normal((count, source_px, source_px), np.float32)
    groups = (np.zeros(count, np.int64), 1)

    def timed() -> float:
        start = time.thread_time()
        blocks.encode_block(images, groups, transform, codec, reference)
        return (time.thread_time() - start) / count

    without, screened = [], []
    for _ in range(turns):
        with (
            mock.patch.object(blocks, "pixel_facts", nothing),
            mock.patch.object(blocks, "band_power", nothing),
        ):
            without.append(timed())
        screened.append(timed())
    one, two = (float(np.quantile(times, 0.25)) for times in (screened, without))
    return {
        "what": "encoding of an image",
        "source_px": source_px,
        "box_px": box_px,
        "screened_us": round(one * 1e6, 1),
        "without_us": round(two * 1e6, 1),
        "ratio": round(one / two, 4),
    }


def judging(images: int, groups: int) -> dict[str, object]:
    """Return the seconds that the rule takes for so many images."""
    generator = np.random.default_rng(0)
    facts = np.zeros(images, FACTS_DTYPE)
    for name in PIXEL_FACTS + BAND_FACTS:
        facts[name] = generator.lognormal(0, 0.1, images)
    facts["mean"], facts["lowest"] = generator.normal(0, 0.1, images), -5 * facts["lowest"]
    facts["highest"] *= 5
    group = generator.integers(0, groups, images)
    start = time.thread_time()
    found = screen(facts, group, tuple(map(str, range(groups))))
    seconds = round(time.thread_time() - start, 2)
    outliers = len(found.outliers)
    facts = {"images": images, "groups": groups, "seconds": seconds, "outliers": outliers}
    return {"what": "judging", **facts}


def main() -> None:
    """Print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for source_px, box_px in ((128, 128), (256, 128), (256, 256), (512, 256)):
        print(json.dumps(encoding(source_px, box_px, args.turns)), flush=True)
    for groups in (1, 1000):
        print(json.dumps(judging(1_000_000, groups)), flush=True)


if __name__ == "__main__":
    main()
