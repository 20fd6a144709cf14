"""The soft solvent mask: where the mean or any component has density.

Owns: the threshold, what is kept, the soft edge, and masks of files. Does not own: when masks are
made (`schedule`).

The mean alone would cut off a domain that moves, because its density is smeared out.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from frazil.errors import InputError
from frazil.geometry.masks import cosine_edge, soft_mask
from frazil.io.mrc import read_volume

# Fractions of the box.
GROW = 0.04
EDGE = 0.06
# Connected parts that are smaller than this fraction of the largest are dropped.
SIZEABLE = 0.03
_NOISE_DEVIATIONS = 4.0
_OF_PEAK = 0.12


def read_mask(path: str, box_px: int) -> Tensor:
    """Return the mask (D, D, D) of a file that --mask names, 0 to 1.

    Raises
    ------
    InputError : another box than that of the particles, or other values.
    """
    mask = torch.from_numpy(np.array(read_volume(Path(path))[0], np.float32))
    if mask.shape != (box_px,) * 3:
        raise InputError(f"--mask {path}: has {tuple(mask.shape)} px, {box_px} px wanted")
    if float(mask.min()) < -1e-3 or float(mask.max()) > 1.001 or float(mask.max()) <= 0:
        raise InputError(f"--mask {path}: values must lie between 0 and 1")
    return mask.clamp(0, 1)


def sphere(box_px: int, radius: float = 0.94) -> Tensor:
    """Return the soft sphere (D, D, D) of a radius given as a fraction of D/2."""
    axis = torch.arange(box_px) - box_px // 2
    square = axis**2
    distance = torch.sqrt(
        (square[:, None, None] + square[None, :, None] + square[None, None, :]).float()
    )
    return torch.from_numpy(cosine_edge(distance.numpy() - radius * box_px / 2, EDGE * box_px))


def solvent_mask(halves: tuple[Tensor, Tensor]) -> Tensor:
    """Return a soft mask (d, d, d) of the density of two fits' volumes.

    Parameters
    ----------
    halves : (L, d, d, d) volumes of two half sets, components aligned, not masked tightly.

    Where sqrt(mean^2 + sum of squared components) (positive density of the mean only) exceeds four
    times its noise and 12 % of its peak; all sizeable connected parts are kept, the mask
    is grown and given a soft edge. When nothing stands out, a sphere.
    """
    joint = (halves[0] + halves[1]) / 2
    noise = (halves[0] - halves[1]) / 2
    mean = joint[0].clamp(min=0)
    score = torch.sqrt(mean**2 + (joint[1:] ** 2).sum(0))
    box_px = score.shape[-1]
    ball = sphere(box_px).numpy() > 0.5
    level = float(np.sqrt((noise.numpy()[:, ball] ** 2).sum(0).mean()))
    peak = float(np.quantile(score.numpy()[ball], 0.999))
    inside = (score.numpy() > max(_NOISE_DEVIATIONS * level, _OF_PEAK * peak)) & ball
    kept = sizeable_parts(inside)
    if not kept.any():
        return sphere(box_px)
    soft = torch.from_numpy(soft_mask(kept, GROW * box_px, EDGE * box_px))
    return torch.minimum(soft, sphere(box_px))


def sizeable_parts(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of the connected parts that are not small beside the largest."""
    labels, count = ndimage.label(inside)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    keep = sizes >= max(SIZEABLE * sizes.max(), 2)
    keep[0] = False
    return keep[labels]
