"""How much of a map is signal, shell by shell: the prior of the mean and of the components.

Owns: spectral signal-to-noise from half maps, the ridge of the M-step. Does not own: the FSC
(`frazil.metrics.fsc`), the half maps.

The prior of a Fourier coefficient of the mean is N(0, tau^2) with tau^2 = SSNR / w, where SSNR is
that of a half map inside the mask and 1/w is the noise variance of that map. Component k has
tau^2 times its power relative to that of the mean at low resolution. Once there are components at
all resolutions from both half sets, their own FSC takes the place of that.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry, inner_products
from frazil.metrics.fsc import fsc

# No shell is given less, so that a later stage could still find signal there.
SMALLEST_SSNR = 1e-3
LARGEST_FSC = 0.9999


def signal_to_noise(curve: Tensor) -> NDArray[np.float64]:
    """Return the spectral signal-to-noise (S,) of a half map from the FSC of both.

    The curve is smoothed over neighbouring shells, and after its first fall below zero taken as
    zero.
    """
    values = curve.double().numpy().copy()
    values[0] = values[1]
    padded = np.concatenate([values[:1], values, values[-1:]])
    smooth = padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4
    below = np.flatnonzero(smooth <= 0)
    if below.size:
        smooth[below[0] :] = 0
    smooth = np.clip(smooth, 0, LARGEST_FSC)
    return np.maximum(smooth / (1 - smooth), SMALLEST_SSNR)


def mean_ridge(
    halves: tuple[Tensor, Tensor], weight: NDArray[np.float64], mask: Tensor | None
) -> NDArray[np.float64]:
    """Return the prior precision (S,) of the mean.

    Parameters
    ----------
    halves : real-space half maps (d, d, d), hardly regularised.
    weight : (S,) mean weight of the voxels of one half set.
    mask : applied before they are compared.
    """
    ratio = signal_to_noise(fsc(halves[0], halves[1], mask))
    return np.maximum(weight, 1e-30) / ratio


def ridges(mean: NDArray[np.float64], power_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (L, S) the prior precision of mean and components.

    Parameters
    ----------
    mean : (S,) that of the mean.
    power_ratio : (K,) power of each component relative to the mean's.
    """
    return np.concatenate([mean[None], mean / power_ratio[:, None]])


def measured_ridges(
    ridge: NDArray[np.float64], weight: NDArray[np.float64], curves: list[list[float]], low: int
) -> NDArray[np.float64]:
    """Return (L, S) prior precisions; beyond a shell, of components from the half sets' FSC.

    Parameters
    ----------
    ridge : (L, S) of `ridges`, which is kept up to shell `low`.
    weight : (S,) mean weight of the voxels of one half set; latents are N(0, 1), so components
        have that of the mean.
    curves : FSC of each component between the half sets, aligned, at shells 0 to the present box's.
    """
    ratios = np.stack([signal_to_noise(torch.tensor(curve)) for curve in curves])
    found = ridge[:, : ratios.shape[1]].copy()
    beyond = slice(low + 1, ratios.shape[1])
    found[1:, beyond] = np.maximum(weight[beyond], 1e-30) / ratios[:, beyond]
    return found


def power_ratios(a: Tensor, b: Tensor, geometry: Geometry) -> NDArray[np.float64]:
    """Return (K,) the power of components relative to the mean's, free of noise.

    From the products of two independent fits whose components are aligned.
    """
    cross = np.diag(inner_products(a, b, geometry))
    return np.maximum(cross[1:] / max(cross[0], 1e-30), 1e-6)
