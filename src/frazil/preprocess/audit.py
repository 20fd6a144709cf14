"""The read-back audit: does a store hold what its sources hold, row by row?

Owns: which rows are read back, and how far a stored coefficient may be from the true one. Does not
own: the steps (`steps`) and the codec, which it applies a second time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frazil.io.images import ImageSource
from frazil.preprocess.statistics import shell_power
from frazil.preprocess.steps import SUB_BATCH, ImageTransform, packed_coefficients
from frazil.store.codec import INT8_LIMIT, Codec
from frazil.store.reader import ParticleStore

AUDIT_IMAGES = 64
_FEWEST_IMAGES = 8
# A transform of the same image in other company may differ in its last bits: at most eps log2(D^2)
# of the image's norm.
_TRANSFORM_ROUNDING = 4e-6
# Half a step, or half a unit in the last place of float16 and its smallest number; a little more
# for the float32 products on the way.
_INT8_STEPS = 0.501
_FLOAT16_RELATIVE, _FLOAT16_STEPS = 2.0**-11 * 1.001, 2.0**-24


@dataclass(frozen=True)
class Audit:
    """What reading back found: images compared, the first bad row if any, errors.

    `largest_error` is in steps of the codec, beyond the rounding of the transform itself.
    """

    images: int
    bad_rows: tuple[int, ...]
    largest_error: float

    def describe(self) -> str:
        """Return the line for the log."""
        return (
            f"audit: {self.images} images read back, largest error {self.largest_error:.3g} steps"
        )


def joined_audits(parts: Iterable[Audit]) -> Audit:
    """Return what several audits found together."""
    found = list(parts)
    return Audit(
        sum(part.images for part in found),
        tuple(sorted(row for part in found for row in part.bad_rows)),
        max((part.largest_error for part in found), default=0.0),
    )


def audited_rows(count: int, seed: int) -> np.ndarray:
    """Return the rows to read back, ascending: 1 % of `count`, but 8 to 64 (all of fewer)."""
    wanted = min(count, AUDIT_IMAGES, max(_FEWEST_IMAGES, count // 100))
    generator = np.random.Generator(np.random.PCG64([seed, count]))
    return np.sort(generator.choice(count, wanted, replace=False))


def read_back(
    store: ParticleStore, images: ImageSource, transform: ImageTransform, rows: np.ndarray
) -> Audit:
    """Compare rows of a store with their images in the source, transformed anew.

    Raises
    ------
    MissingFileError, CorruptDataError : a stack or a shard cannot be read.
    """
    bad: list[int] = []
    largest = 0.0
    codec = store.codec
    for start in range(0, len(rows), SUB_BATCH):
        part = rows[start : start + SUB_BATCH]
        gain = torch.from_numpy(store.rows["image_gain"][part])
        wanted, rounding = _wanted(images.read(part), transform)
        error, allowed = _errors(store.images(part), wanted, codec, gain)
        # Not "error > allowed": a NaN is an error too.
        good = (error <= allowed + rounding[:, None]).all(1)
        bad += part[~good.numpy()].tolist()
        beyond = (error - rounding[:, None]).clamp_(min=0) / (codec.step * gain[:, None])
        largest = max(largest, float(beyond.max()))
    return Audit(len(rows), tuple(bad), largest)


def _wanted(images: np.ndarray, transform: ImageTransform) -> tuple[Tensor, Tensor]:
    """Return true coefficients (n, P), 0 for non-finite images, and their rounding error (n,)."""
    packed = packed_coefficients(torch.from_numpy(images), transform)
    finite = torch.from_numpy(np.isfinite(shell_power(packed, transform.disc).sum(1)))
    packed[~finite] = 0
    norm = torch.from_numpy(np.sqrt(np.square(images, dtype=np.float64).sum(axis=(1, 2))))
    norm[~finite] = 0
    return packed, norm.float() * _TRANSFORM_ROUNDING


def _errors(stored: Tensor, wanted: Tensor, codec: Codec, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n, 2 P) errors of the real components, and what the codec may add to each."""
    found, true = (torch.view_as_real(values).flatten(1) for values in (stored, wanted))
    step = codec.step * gain[:, None]
    if codec.precision == "int8":
        true = true.clamp(-INT8_LIMIT * step, INT8_LIMIT * step)  # clipped, and flagged for it
        allowed = _INT8_STEPS * step
    elif codec.precision == "float16":
        allowed = _FLOAT16_RELATIVE * true.abs() + _FLOAT16_STEPS * step
    else:
        allowed = torch.zeros_like(true)
    return (found - true).abs(), allowed
