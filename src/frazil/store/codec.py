"""Coefficients to codes and back: code x shell step x image gain.

Owns: the three precisions and their steps. Does not own: files (`writer`, `reader`) or the
measurement of shell statistics (`frazil.preprocess.statistics`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frazil.geometry.packing import HalfDisc
from frazil.store.manifest import Precision

# A real component of a Gaussian coefficient has standard deviation rms / sqrt(2). A step of a
# twelfth of it adds 1/12^3 = 0.06 % of the noise power by rounding, and clips beyond 10 sigma.
STEPS_PER_SIGMA = 12.0
INT8_LIMIT = 127

NUMPY_TYPES = {"int8": np.int8, "float16": np.float16, "float32": np.float32}
TORCH_TYPES = {"int8": torch.int8, "float16": torch.float16, "float32": torch.float32}


def shell_steps(shell_rms: np.ndarray, precision: Precision) -> np.ndarray:
    """Return the step of each shell from the RMS of |F| there (before the image gain).

    float32 is stored as it is (step 1); float16 is scaled to about 1, so that it cannot overflow.
    """
    if precision == "float32":
        return np.ones_like(shell_rms)
    safe = np.where(shell_rms > 0, shell_rms, 1.0)
    return safe if precision == "float16" else safe / (np.sqrt(2) * STEPS_PER_SIGMA)


@dataclass(frozen=True, eq=False)
class Codec:
    """Codes of one store. `step` is (2 P,) float32, the step of every real component in order."""

    precision: Precision
    step: Tensor

    @classmethod
    def from_shells(cls, precision: Precision, steps: np.ndarray, disc: HalfDisc) -> "Codec":
        """Return the codec of a shell table (D/2,) for records in the order of the disc."""
        per_coefficient = torch.as_tensor(steps, dtype=torch.float32)[disc.shell - 1]
        return cls(precision, per_coefficient.repeat_interleave(2))

    def encode(self, packed: Tensor, gain: Tensor) -> Tensor:
        """Return (n, 2 P) codes of (n, P) complex coefficients with image gains (n,) > 0."""
        values = torch.view_as_real(packed).flatten(1) / self.step
        values /= gain[:, None]
        if self.precision == "int8":
            values.round_().clamp_(-INT8_LIMIT, INT8_LIMIT)
        return values.to(TORCH_TYPES[self.precision])

    def decode_into(self, out: Tensor, codes: Tensor, start: int) -> None:
        """Fill columns start .. start + codes.shape[1] of (n, 2 P') out with code x step."""
        stop = start + codes.shape[1]
        block = out[:, start:stop]
        block.copy_(codes)
        block.mul_(self.step[start:stop])

    def decode(self, codes: Tensor, gain: Tensor) -> Tensor:
        """Return (n, P) complex64 coefficients of whole records (n, 2 P)."""
        out = torch.empty(codes.shape, dtype=torch.float32)
        self.decode_into(out, codes, 0)
        out.mul_(gain[:, None])
        return torch.view_as_complex(out.view(out.shape[0], -1, 2))
