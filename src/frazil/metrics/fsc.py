"""Fourier shell correlation of two volumes, and the numbers read off it.

Owns: the curve, the resolution at a threshold, the area under the curve. Does not own: masks
(they come as volumes), half maps (`frazil.engines.backproject`), plots (`frazil.analysis`).
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def fsc(
    volume_a: Float[Tensor, "D D D"],
    volume_b: Float[Tensor, "D D D"],
    mask: Float[Tensor, "D D D"] | None = None,
) -> Float[Tensor, " S"]:
    """Return the Fourier shell correlation at shells 0 to D/2, float64, S = D/2 + 1.

    Shell s holds the frequencies with |k| rounded to s cycles per box. A shell in which either
    volume is empty gives 0. Shell 0 holds the mean grey value, which is not structure: it is 1 by
    definition.

    Parameters
    ----------
    volume_a, volume_b : the volumes, in any units.
    mask : multiplied into both before the transform; 0 to 1.

    References
    ----------
    Harauz & van Heel 1986: sum Re(A B*) / sqrt(sum |A|^2 sum |B|^2) over a shell.
    """
    if mask is not None:
        volume_a, volume_b = volume_a * mask, volume_b * mask
    box_px = volume_a.shape[-1]
    shells, weights = _half_space_shells(box_px)
    count = box_px // 2 + 1  # shells further out are cut off by the cube's corners
    ft_a = torch.fft.rfftn(volume_a).reshape(-1)
    ft_b = torch.fft.rfftn(volume_b).reshape(-1)
    cross = _shell_sums((ft_a * ft_b.conj()).real, shells, weights, count)
    power_a = _shell_sums(ft_a.abs() ** 2, shells, weights, count)
    power_b = _shell_sums(ft_b.abs() ** 2, shells, weights, count)
    scale = torch.sqrt(power_a * power_b)
    curve = torch.where(scale > 0, cross / scale.clamp(min=1e-300), torch.zeros_like(cross))
    curve[0] = 1.0
    return curve


def first_crossing(curve: Float[Tensor, " S"], threshold: float) -> float | None:
    """Return the shell, linearly interpolated, where the curve FIRST falls below the threshold.

    A curve that recovers afterwards (a mask, a CTF zero, over-fitting) is not followed. None when
    it never falls below.
    """
    below = torch.nonzero(~(curve[1:] >= threshold)).reshape(-1)
    if not len(below):
        return None
    after = int(below[0]) + 1
    low, high = float(curve[after]), float(curve[after - 1])
    if high <= threshold or low != low:
        return float(after - 1)
    return after - 1 + (high - threshold) / (high - low)


def resolution_at(
    curve: Float[Tensor, " S"], threshold: float, box_px: int, pixel_size_ang: float
) -> float:
    """Return the resolution in Angstrom at the first crossing of the threshold.

    A curve that never crosses gives that of its last shell (Nyquist for a whole curve).

    Parameters
    ----------
    curve : FSC at shells 0, 1, 2, ...
    threshold : 0.5 (against a known structure) or 0.143 (between half maps).
    box_px, pixel_size_ang : side of the box and pixel size of the volumes.

    References
    ----------
    Rosenthal & Henderson 2003 for the thresholds.
    """
    shell = first_crossing(curve, threshold)
    if shell is None:
        shell = float(len(curve) - 1)
    return box_px * pixel_size_ang / shell if shell > 0 else float("inf")


def fsc_auc(curve: Float[Tensor, " S"]) -> float:
    """Return the area under the curve from shell 0 to the last, 1 for equal volumes.

    Trapezoids, divided by the number of intervals, so it does not depend on the box.
    """
    return float(torch.trapezoid(curve) / (len(curve) - 1))


def shell_resolution_ang(shell: float, box_px: int, pixel_size_ang: float) -> float:
    """Return the resolution of a shell in Angstrom; infinite for shell 0."""
    return box_px * pixel_size_ang / shell if shell > 0 else float("inf")


def _half_space_shells(box_px: int) -> tuple[Int64[Tensor, " M"], Float[Tensor, " M"]]:
    """Return shell number and multiplicity (1 or 2) of every coefficient of an rfftn."""
    axis = torch.fft.fftfreq(box_px, d=1 / box_px, dtype=torch.float64)
    last = torch.arange(box_px // 2 + 1, dtype=torch.float64)
    radius = torch.sqrt(
        axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + last[None, None, :] ** 2
    )
    weights = torch.full_like(last, 2.0)  # k stands for -k as well
    weights[0] = 1.0
    if box_px % 2 == 0:
        weights[-1] = 1.0
    return torch.round(radius).long().reshape(-1), weights.expand_as(radius).reshape(-1)


def _shell_sums(
    values: Float[Tensor, " M"],
    shells: Int64[Tensor, " M"],
    weights: Float[Tensor, " M"],
    count: int,
) -> Float[Tensor, " S"]:
    """Return the weighted sums of values over the first `count` shells, float64."""
    return torch.bincount(shells, weights=values.double() * weights)[:count]
