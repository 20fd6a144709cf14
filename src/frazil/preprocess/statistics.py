"""Streaming statistics of packed images, per shell and per optics group.

Owns: sums that add up over blocks of images in any order of magnitude (float64), and the shell
table that a pre-sample suggests. Does not own: the codec.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frazil.geometry.packing import HalfDisc

_SUB_BATCH = 8


def shell_power(packed: Tensor, disc: HalfDisc) -> np.ndarray:
    """Return (n, S) float64: the sum of |F|^2 over the half-plane coefficients of each shell."""
    sums = torch.zeros(len(packed), disc.radius_px, dtype=torch.float64)
    shell = disc.shell - 1
    # A few images at a time, which stay in the processor's cache as float64.
    for part, out in zip(
        torch.split(packed, _SUB_BATCH), torch.split(sums, _SUB_BATCH), strict=True
    ):
        # numpy: torch is slow on every second number.
        with np.errstate(over="ignore"):
            squares = np.square(torch.view_as_real(part).flatten(1).numpy())
        power = torch.from_numpy(squares[:, ::2] + squares[:, 1::2])
        out.index_add_(1, shell, power.double())
    return sums.numpy()


def constant_images(images: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Return (n,) bool: all pixels of an image (n, side, side) are equal.

    Only those images are looked at of which some rows are known to be `alike` (n,).
    """
    constant = alike.copy()
    for i in np.flatnonzero(alike):
        constant[i] = (images[i] == images[i, 0, 0]).all()
    return constant


def middle(values: np.ndarray) -> np.ndarray:
    """Return the median over the first axis of values (n, ...) without NaN, n > 0."""
    ordered = np.sort(values, axis=0)  # np.median imports a tenth of a second of numpy.ma
    found: np.ndarray = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    return found


def reference_shell_rms(power: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return (S,) the RMS of |F| that most images have, from sums of power (n, S) of a sample.

    The median over images keeps gold, ice and carbon from widening the steps. Images without
    power or with non-finite pixels are left out; an empty shell gets the smallest RMS of all.
    """
    total = power.sum(1)
    usable = power[np.isfinite(total) & (total > 0)]
    if not len(usable):
        return np.ones(power.shape[1])
    rms = np.sqrt(middle(usable) / counts)
    smallest = rms[rms > 0].min() if (rms > 0).any() else 1.0
    return np.where(rms > 0, rms, smallest)


def image_gains(power: np.ndarray, reference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return (n,) float32: the RMS of each image relative to the reference, over all shells.

    1 for images without power or with non-finite pixels, whose records are zero.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        relative = (power / reference**2).sum(1) / counts.sum()
    ordinary = np.isfinite(relative) & (relative > 0)
    return np.sqrt(np.where(ordinary, relative, 1.0)).astype(np.float32)


@dataclass
class ShellStatistics:
    """Sums over images: power (G, S), images (G,), errors (S,) of `errors_of` images, clips (S,).

    Groups G are optics groups; images without one count in the last.
    """

    power: np.ndarray
    images: np.ndarray
    error_power: np.ndarray
    error_images: int
    clipped: np.ndarray

    @classmethod
    def zeros(cls, groups: int, shells: int) -> "ShellStatistics":
        """Return empty sums."""
        return cls(
            np.zeros((groups, shells)),
            np.zeros(groups, np.int64),
            np.zeros(shells),
            0,
            np.zeros(shells, np.int64),
        )

    def add(self, other: "ShellStatistics") -> None:
        """Add the sums of another block of images."""
        self.power += other.power
        self.images += other.images
        self.error_power += other.error_power
        self.error_images += other.error_images
        self.clipped += other.clipped

    def rms(self, counts: np.ndarray, group: int | None = None) -> list[float]:
        """Return (S,) the RMS of |F| over the images of one group, or of all."""
        power = self.power.sum(0) if group is None else self.power[group]
        images = int(self.images.sum() if group is None else self.images[group])
        return np.sqrt(power / (counts * max(images, 1))).tolist()

    def error_rms(self, counts: np.ndarray) -> list[float]:
        """Return (S,) the RMS of stored minus true coefficients."""
        return np.sqrt(self.error_power / (counts * max(self.error_images, 1))).tolist()

    def to_json(self) -> dict[str, object]:
        """Return plain lists, exact, for the journal."""
        return {
            "power": self.power.tolist(),
            "images": self.images.tolist(),
            "error_power": self.error_power.tolist(),
            "error_images": self.error_images,
            "clipped": self.clipped.tolist(),
        }

    @classmethod
    def from_json(cls, state: dict[str, object]) -> "ShellStatistics":
        """Return the sums of `to_json`."""
        return cls(
            np.array(state["power"], np.float64),
            np.array(state["images"], np.int64),
            np.array(state["error_power"], np.float64),
            int(str(state["error_images"])),
            np.array(state["clipped"], np.int64),
        )
