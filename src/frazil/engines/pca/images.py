"""Images made ready: centred, and divided by the noise.

Owns: the factor (CTF over noise deviation) and the data (coefficient over noise deviation) that
the kernels take. Does not own: the noise (`noise` of the state) or the slices (`kernels`).

The noise of a coefficient is complex with variance s^2 = E|n|^2, one number per optics group and
shell; its real and imaginary part have s^2/2 each. So -log p = sum |y - c a|^2 / s^2 over the
half plane, and whatever is quadratic in whitened coefficients counts twice in a real Gaussian.
(On the axes at |k| = d/2 the coefficient of a box that was not cropped is real; these few are
treated like all others.)
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry
from frazil.geometry.ctf import wavelength_ang
from frazil.geometry.shifts import shift_phase
from frazil.loader.batches import ParticleBatch


@dataclass(frozen=True, eq=False)
class WhiteImages:
    """B images: rotations (B, 3, 3), factor (B, P), data (B, P, 2), all float32."""

    rotations: NDArray[np.float32]
    factor: NDArray[np.float32]
    data: NDArray[np.float32]


def whitened(
    batch: ParticleBatch,
    part: Tensor,
    deviation: NDArray[np.float32],
    group: NDArray[np.int64],
    geometry: Geometry,
) -> WhiteImages:
    """Return `white_tensors` as the compiled loops take them."""
    found = white_tensors(batch, part, deviation, group, geometry)
    return WhiteImages(*(values.numpy() for values in found))


def white_tensors(
    batch: ParticleBatch,
    part: Tensor,
    deviation: NDArray[np.float32],
    group: NDArray[np.int64],
    geometry: Geometry,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return some images of a batch, centred and divided by the deviation of their noise.

    Rotations, factor and data as in `WhiteImages`, on the device of the batch.

    Parameters
    ----------
    part : (b,) which of the batch.
    deviation : (groups, S) noise deviation by optics group and shell; shell 0 is not used.
    group : (b,) optics group of each.
    """
    disc = geometry.disc
    shifts = batch.shifts_px[part]
    coefficients = batch.coefficients[part]
    if bool(shifts.any()):
        coefficients = coefficients * shift_phase(disc.kx, disc.ky, shifts, disc.box_px)
    inverse = torch.from_numpy((1 / deviation[group]).astype(np.float32))
    inverse = inverse.to(coefficients.device)[:, disc.shell]  # (b, P)
    if batch.ctf_parameters is None:
        factor = inverse
    else:
        factor = inverse * transfer(batch.ctf_parameters[part], disc.kx, disc.ky, disc.box_px)
    data = torch.view_as_real(coefficients) * inverse[:, :, None]
    return batch.rotations[part], factor, data


def transfer(parameters: Tensor, kx: Tensor, ky: Tensor, box_px: int) -> Tensor:
    """Return the CTF (B, P) of `geometry.ctf.ctf`, with one sine per coefficient.

    sqrt(1 - w^2) sin g - w cos g = sin(g - asin w), and the angle of a frequency enters as the
    cosine and sine of its double only, which are the same for all images.
    """
    pixel_ang, df_u, df_v, angle_deg, kv, cs_mm, w, phase_deg = (
        column[:, None] for column in parameters.unbind(1)
    )
    x, y = kx.to(parameters), ky.to(parameters)
    squared = x**2 + y**2
    even, odd = x**2 - y**2, 2 * x * y  # k^2 times cosine and sine of the double angle
    wave_ang = wavelength_ang(kv)
    scale = 1 / (box_px * pixel_ang) ** 2
    twice = torch.deg2rad(2 * angle_deg)
    defocus = -torch.pi * wave_ang * scale / 2
    amount = defocus * (df_u + df_v)
    astigmatism = defocus * (df_u - df_v)
    spherical = 2 * torch.pi * (cs_mm * 1e7 / 4) * wave_ang**3 * scale**2
    offset = torch.deg2rad(phase_deg) + torch.asin(w)
    gamma = (
        amount * squared
        + (astigmatism * torch.cos(twice)) * even
        + (astigmatism * torch.sin(twice)) * odd
        + spherical * squared**2
    )
    return torch.sin(gamma - offset)
