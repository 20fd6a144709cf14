"""Rates of this machine, measured in about a second each.

Owns: the disk's rate of reading, the transform's and the decoder's rate on one thread. Does not
own: what follows from them.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from frazil.io.mrc import open_file
from frazil.preprocess.blocks import encode_block
from frazil.preprocess.parallel import one_torch_thread
from frazil.preprocess.settings import ImageSettings
from frazil.preprocess.steps import SUB_BATCH, plan_transform, resampled_transform
from frazil.store.codec import TORCH_TYPES, Codec, shell_steps
from frazil.store.manifest import Precision

SAMPLE_BYTES = 256 << 20
SAMPLE_S = 1.0
_READ_BYTES = 16 << 20


@dataclass(frozen=True)
class ReadRate:
    """Bytes per second of sequential reading, and the bytes that were read to find it."""

    bytes_per_s: float
    sample_bytes: int


def read_rate(
    paths: Iterable[Path], most_bytes: int = SAMPLE_BYTES, most_s: float = 3 * SAMPLE_S
) -> ReadRate:
    """Return the rate at which the disk gives these files, read in order by one thread.

    What the page cache holds of the sample is dropped first where the system allows it, and
    reading ends after `most_bytes` or `most_s`.

    Raises
    ------
    MissingFileError, InputError : a file cannot be opened.
    """
    buffer = memoryview(bytearray(min(_READ_BYTES, most_bytes)))
    total, spent_s = 0, 0.0
    for path in paths:
        if total >= most_bytes or spent_s >= most_s:
            break
        descriptor = open_file(path)
        try:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, most_bytes - total, os.POSIX_FADV_DONTNEED)
            start, position = time.perf_counter(), 0
            while total < most_bytes and spent_s + time.perf_counter() - start < most_s:
                part = buffer[: min(len(buffer), most_bytes - total)]
                got = os.preadv(descriptor, [part], position)
                if not got:
                    break
                position += got
                total += got
            spent_s += time.perf_counter() - start
        finally:
            os.close(descriptor)
    return ReadRate(total / max(spent_s, 1e-9), total)


def transform_rate(
    settings: ImageSettings,
    precision: Precision,
    source_box_px: int,
    domain: str,
    seconds: float = SAMPLE_S,
    resampled: bool = False,
) -> float:
    """Return the images per second that one thread transforms and encodes, on noise.

    `resampled` images are brought to another pixel size.
    """
    transform = plan_transform(settings, source_box_px, domain)
    if resampled:
        transform = resampled_transform(transform, 0.99 / source_box_px, 1.0)
    side = source_box_px + (domain == "hartley")
    generator = np.random.default_rng(0)
    images = generator.standard_normal((8 * SUB_BATCH, side, side), np.float32)
    reference = np.full(transform.box_px // 2, float(source_box_px))
    steps = shell_steps(reference, precision)
    codec = Codec.from_shells(precision, steps, transform.disc)
    groups = (np.zeros(len(images), np.int64), 1)

    def work() -> int:
        encode_block(images, groups, transform, codec, reference)
        return len(images)

    return _rate(work, seconds)


def decoding_rate(codec: Codec, row_values: int, seconds: float = SAMPLE_S / 2) -> float:
    """Return the images per second whose codes one thread turns into coefficients.

    Parameters
    ----------
    row_values : codes of an image that are decoded, the leading ones of its record.
    """
    codes = torch.zeros(1024, row_values, dtype=TORCH_TYPES[codec.precision])
    out = torch.empty(32, row_values)
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))

    def work() -> int:
        for rows in torch.split(order, len(out)):
            codec.decode_into(out, codes.index_select(0, rows), 0)
            out.mul_(1.5)
        return len(codes)

    return _rate(work, seconds)


def _rate(work: Callable[[], int], seconds: float) -> float:
    """Return the images per second of `work`, which says how many it did; the first is warm-up."""
    with one_torch_thread():
        work()
        done, start = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - start) < seconds or not done:
            done += work()
    return done / spent_s
