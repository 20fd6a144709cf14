"""One block of images to its records, facts and statistics: a pure function.

Owns: gains, flags and the measured error of a block. Does not own: reading the images, or what
becomes of the block (`pipeline`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frazil.geometry.packing import HalfDisc
from frazil.io.particles import FLAG_CLIPPED, FLAG_CONSTANT, FLAG_NONFINITE
from frazil.preprocess.screening import band_power, pixel_facts
from frazil.preprocess.statistics import (
    ShellStatistics,
    constant_images,
    image_gains,
    shell_power,
)
from frazil.preprocess.steps import SUB_BATCH, ImageTransform, packed_coefficients
from frazil.store.codec import INT8_LIMIT, TORCH_TYPES, Codec
from frazil.store.manifest import shell_counts
from frazil.store.writer import FACTS_DTYPE

# A whole number of sub-batches.
ENCODED_TOGETHER = 2 * SUB_BATCH


@dataclass(frozen=True, eq=False)
class Block:
    """n images: `records` (n, 2 P) codes, `facts` (n,) of FACTS_DTYPE, and their statistics."""

    records: np.ndarray
    facts: np.ndarray
    statistics: ShellStatistics


def encode_block(
    images: np.ndarray,
    groups: tuple[np.ndarray, int],
    transform: ImageTransform,
    codec: Codec,
    reference: np.ndarray,
) -> Block:
    """Return what a store keeps of some images.

    Parameters
    ----------
    images : (n, S, S) float32, as they are in the source.
    groups : optics group of each image (n,), and the number of groups.
    reference : (D/2,) RMS of |F| per shell that most images have; gains are relative to it.

    Images with non-finite pixels become zero records of gain 1 and are flagged; constant and
    clipped images are flagged.
    """
    disc, counts = transform.disc, shell_counts(transform.box_px)
    count, exact = len(images), codec.precision == "float32"
    codes = torch.empty(count, 2 * len(disc), dtype=TORCH_TYPES[codec.precision])
    power = np.empty((count, len(counts)))
    facts = np.zeros(count, FACTS_DTYPE)
    statistics = ShellStatistics.zeros(groups[1], len(counts))
    # 1. Codes. The coefficients of a few images stay in the processor's cache from step to step.
    for start in range(0, count, ENCODED_TOGETHER):
        few = slice(start, start + ENCODED_TOGETHER)
        packed = packed_coefficients(torch.from_numpy(images[few]), transform)
        power[few] = shell_power(packed, disc)  # (n, D/2)
        whole = np.isfinite(power[few].sum(1))
        if not whole.all():
            packed[torch.from_numpy(~whole)] = 0
        # float32 is stored as it is.
        facts["gain"][few] = 1 if exact else image_gains(power[few], reference, counts)
        gain = torch.from_numpy(facts["gain"][few].copy())
        codes[few] = codec.encode(packed, gain)
        # The error of rounding and clipping is measured on the first images of every block.
        if start == 0:
            first = slice(0, SUB_BATCH)
            error = codec.decode(codes[first], gain[first]) - packed[first]
            statistics.error_power += shell_power(error, disc).sum(0)
            statistics.error_images += len(error)
    # 2. Flags.
    pixel_facts(images, facts)
    band_power(power, counts, facts)
    finite, clipped = np.isfinite(power.sum(1)), _clipped_images(codes, codec)
    constant = constant_images(images, facts["lowest"] == facts["highest"]) | (power.sum(1) == 0)
    for bit, found in (
        (FLAG_NONFINITE, ~finite),
        (FLAG_CONSTANT, constant),
        (FLAG_CLIPPED, clipped.numpy()),
    ):
        facts["flags"] |= np.where(found, bit, 0).astype(np.uint32)
    # 3. Sums.
    np.add.at(statistics.power, groups[0][finite], power[finite])
    statistics.images += np.bincount(groups[0][finite], minlength=groups[1])
    statistics.clipped += _clips_per_shell(codes[clipped], disc)
    return Block(codes.numpy(), facts, statistics)


def joined_blocks(parts: Sequence[tuple[np.ndarray, Block]]) -> Block:
    """Return one block of several; `parts` are (places of its images in the whole, block)."""
    if len(parts) == 1:
        return parts[0][1]
    count, first = sum(len(places) for places, _ in parts), parts[0][1]
    records = np.empty((count, first.records.shape[1]), first.records.dtype)
    facts = np.empty(count, FACTS_DTYPE)
    statistics = ShellStatistics.zeros(*first.statistics.power.shape)
    for places, block in parts:
        records[places], facts[places] = block.records, block.facts
        statistics.add(block.statistics)
    return Block(records, facts, statistics)


def _clipped_images(codes: Tensor, codec: Codec) -> Tensor:
    """Return (n,) whether any code is at the end of its range; only int8 has one."""
    if codec.precision != "int8":
        return torch.zeros(len(codes), dtype=torch.bool)
    return codes.abs().amax(1) == INT8_LIMIT


def _clips_per_shell(codes: Tensor, disc: HalfDisc) -> np.ndarray:
    """Return (D/2,) the number of codes at the end of the range."""
    ends = (codes.abs() == INT8_LIMIT).sum(0).view(-1, 2).sum(1)  # (P,)
    counted = torch.zeros(disc.radius_px, dtype=torch.int64)
    return counted.index_add_(0, disc.shell - 1, ends).numpy()
