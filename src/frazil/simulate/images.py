"""Exact images of a sum of Gaussians: projection, CTF, grey values on the pixel grid.

Owns: the Fourier transform of weighted points with one isotropic Gaussian width, in 2-D
(`project`) and 3-D (`render_volume`), the microscope (`transfer`), and the step from analytic
coefficients to real pixels (`to_pixels`). Does not own: noise and outliers (`noise`), what is
drawn for each particle (`sampling`).

A Gaussian's transform is separable in kx and ky,
    F(ky, kx) = g(ky) g(kx) sum_a w_a exp(-2 pi i ky y_a / L) exp(-2 pi i kx x_a / L),
with L the box in Angstrom: one matrix product over the atoms per image, no interpolation. The
images are band-limited at the edge of the Fourier square, so nothing is aliased; what is cut off
is of the order of g(Nyquist), 0.7 % at a width of one pixel. Coefficients are the unnormalised sums
over pixels of the project, F(0) = sum of the weights, so the sum of a volume along z is its image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.geometry.ctf import ctf


@dataclass(frozen=True)
class Grid:
    """The pixel grid, and the width of the Gaussian that stands for each point.

    Attributes
    ----------
    box_px : D, even.
    pixel_size_ang : Angstrom per pixel.
    sigma_ang : standard deviation of the Gaussians, Angstrom.
    """

    box_px: int
    pixel_size_ang: float
    sigma_ang: float

    @property
    def box_ang(self) -> float:
        """Side of the box, Angstrom."""
        return self.box_px * self.pixel_size_ang

    @property
    def half(self) -> int:
        """D/2, the Nyquist frequency in cycles per box."""
        return self.box_px // 2

    def frequencies(self) -> tuple[Tensor, Tensor]:
        """Return kx, ky (P,) of the half plane, rows ky = -D/2..D/2 of columns kx = 0..D/2."""
        ky, kx = torch.meshgrid(
            torch.arange(-self.half, self.half + 1), torch.arange(self.half + 1), indexing="ij"
        )
        return kx.reshape(-1), ky.reshape(-1)

    def envelope(self) -> Tensor:
        """Return g(k) = exp(-2 pi^2 sigma^2 k^2 / L^2) at 0 <= k <= D/2, (D/2+1,) float64."""
        k = torch.arange(self.half + 1, dtype=torch.float64)
        return torch.exp(-2 * (torch.pi * self.sigma_ang / self.box_ang * k) ** 2)


def project(points_ang: Tensor, weights: Tensor, grid: Grid) -> Tensor:
    """Return the transforms (B, D+1, D/2+1) complex64 of images of weighted points.

    Parameters
    ----------
    points_ang : (B, A, 2) float64, (x, y) of each point from the centre of its image, Angstrom.
    weights : (B, A) or (1, A), weights of the points.
    grid : box, pixel size and Gaussian width.

    Returns
    -------
    transform : rows ky = -D/2..D/2, columns kx = 0..D/2, centred on pixel D/2. Both Nyquist rows
        are there; `to_pixels` folds them.
    """
    count = grid.half + 1
    angle = points_ang * (2 * torch.pi / grid.box_ang)  # (B, A, 2)
    # 1. cos and sin of k x and of k y: (B, 2, K, A), the Gaussian folded in.
    x = _cosines_and_sines(angle[..., 0], grid)
    y = _cosines_and_sines(angle[..., 1], grid)
    x *= weights.to(x.dtype)[:, None, None, :]
    # 2. All four products, summed over the atoms.
    sums = torch.bmm(y.flatten(1, 2), x.flatten(1, 2).transpose(1, 2))  # (B, 2K, 2K)
    cos_cos, cos_sin = sums[:, :count, :count], sums[:, :count, count:]
    sin_cos, sin_sin = sums[:, count:, :count], sums[:, count:, count:]
    # 3. exp(-i ky y) exp(-i kx x) for ky >= 0, and its counterpart at -ky.
    upper = torch.complex(cos_cos - sin_sin, -sin_cos - cos_sin)
    lower = torch.complex(cos_cos + sin_sin, sin_cos - cos_sin)
    return torch.cat([lower[:, 1:].flip(1), upper], dim=1)  # (B, D+1, K)


def transfer(parameters: Tensor | None, gain: Tensor, grid: Grid) -> Tensor:
    """Return what multiplies a projection's transform, (B, D+1, D/2+1) or (B, 1, 1), float32.

    Parameters
    ----------
    parameters : (B, 8) CTF columns of `geometry.ctf`, or None for no CTF.
    gain : (B,) contrast of each image.
    grid : box and pixel size.

    Returns
    -------
    transfer : -CTF times gain: the CTF is negative at low frequency, so particles are light;
        without a CTF, the gain alone, which is light as well.
    """
    if parameters is None:
        return gain.float()[:, None, None]
    kx, ky = grid.frequencies()
    contrast = ctf(kx, ky, parameters.float(), grid.box_px) * -gain.float()[:, None]
    return contrast.reshape(len(gain), grid.box_px + 1, grid.half + 1)


def to_pixels(transform: Tensor, grid: Grid) -> Tensor:
    """Return the real images (B, D, D) float32 of transforms laid out as by `project`.

    Frequencies +D/2 and -D/2 are one on the pixel grid: their mean is used, which is what makes
    the images real and an integer shift exact.
    """
    half = grid.half
    column = transform[..., half]
    transform = torch.cat(
        [transform[..., :half], ((column + column.flip(1).conj()) / 2)[..., None]], dim=2
    )
    nyquist = (transform[:, :1] + transform[:, -1:]) / 2
    rows = torch.cat([transform[:, half:-1], nyquist, transform[:, 1:half]], dim=1)  # ky as in FFT
    return torch.fft.irfft2(rows * _checkerboard(grid), s=(grid.box_px, grid.box_px))


def render_volume(
    positions_ang: NDArray[np.float64], weights: NDArray[np.float64], grid: Grid
) -> NDArray[np.float32]:
    """Return the density (D, D, D), axes (z, y, x), whose sum along z is the image at R = 1.

    The same Gaussians, evaluated on the Fourier cube as `project` does on the square; Nyquist
    planes hold the mean of both signs. Values are weight per voxel.

    Parameters
    ----------
    positions_ang : (A, 3), (x, y, z) from the centre of the box, Angstrom.
    weights : (A,) weights of the points.
    grid : box, pixel size and Gaussian width.
    """
    half, box = grid.half, grid.box_px
    angle = torch.from_numpy(positions_ang) * (2 * torch.pi / grid.box_ang)  # (A, 3)
    x, y, z = (_waves(angle[:, axis], grid) for axis in range(3))
    columns = x[: half + 1].T.contiguous()  # (A, D/2+1)
    weighted = z * torch.from_numpy(weights)  # (D, A)
    planes = torch.stack([(y * row) @ columns for row in weighted.to(y.dtype)])
    k = torch.arange(box)
    sign = 1 - 2 * ((k[:, None, None] + k[:, None] + k[: half + 1]) % 2)  # origin to pixel D/2
    volume: NDArray[np.float32] = torch.fft.irfftn(planes * sign, s=(box, box, box)).numpy()
    return volume


def _waves(angle: Tensor, grid: Grid) -> Tensor:
    """Return g(k) exp(-i k angle), k in FFT order 0..D/2, -D/2+1..-1, (D, A) complex64.

    At Nyquist, the mean of both signs.
    """
    k = torch.fft.fftfreq(grid.box_px, 1 / grid.box_px, dtype=torch.float64)
    envelope = grid.envelope()[k.abs().long()]
    waves = torch.polar(envelope[:, None].expand(-1, len(angle)), -k[:, None] * angle)
    waves[grid.half] = waves[grid.half].real.to(waves.dtype)
    return waves.to(torch.complex64)


def _cosines_and_sines(angle: Tensor, grid: Grid) -> Tensor:
    """Return g(k) cos and g(k) sin of k times angle, k = 0..D/2, (B, 2, K, A) float32.

    By doubling: the block k = n..2n-1 is the block 0..n-1 turned by n times the angle; the turns
    are squared in float64, so the error stays at float32 rounding (about 1e-6 after 8 doublings).
    """
    count = grid.half + 1
    table = torch.empty((angle.shape[0], 2, count, angle.shape[1]), dtype=torch.float32)
    cosine, sine = table[:, 0], table[:, 1]
    cosine[:, 0], sine[:, 0] = 1.0, 0.0
    turn = torch.polar(torch.ones_like(angle), angle)  # (B, A) complex128
    done = 1
    while done < count:
        more = min(done, count - done)
        real, imag = turn.real.float()[:, None], turn.imag.float()[:, None]
        low_cosine, low_sine = cosine[:, :more], sine[:, :more]
        torch.mul(low_cosine, real, out=cosine[:, done : done + more])
        cosine[:, done : done + more].addcmul_(low_sine, imag, value=-1)
        torch.mul(low_cosine, imag, out=sine[:, done : done + more])
        sine[:, done : done + more].addcmul_(low_sine, real)
        done += more
        turn = turn * turn
    table *= grid.envelope().float()[:, None]
    return table


def _checkerboard(grid: Grid) -> Tensor:
    """Return (-1)^(kx + ky) in FFT order (D, D/2+1): moves the origin from pixel 0 to D/2."""
    ky, kx = torch.arange(grid.box_px)[:, None], torch.arange(grid.half + 1)
    return 1 - 2 * ((ky + kx) % 2)
