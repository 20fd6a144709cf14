"""Positional features: sines and cosines of random Gaussian frequencies.

Owns: the frequencies and the two ways to the features of a point, directly and, for slices, by
separable phases. Does not own: the network that reads them.
"""

import torch
from torch import Tensor, nn

from frazil.errors import InputError
from frazil.geometry.packing import HalfDisc


class GaussianFeatures(nn.Module):
    """[sin(k.f/D), cos(k.f/D)] for F = 3 * pe_dim frequencies f.

    Each component of f is drawn from N(0, (feat_sigma * D/2)^2); k is in cycles per box of side D.

    Parameters
    ----------
    box_px : D.
    pe_dim : a third of the number of frequencies.
    feat_sigma : width of the distribution of frequencies, in half boxes.
    generator : source of the frequencies, on the CPU.

    References
    ----------
    Tancik et al., NeurIPS 2020 (random Fourier features); used by cryoDRGN for coordinates.
    """

    frequencies: Tensor

    def __init__(
        self, box_px: int, pe_dim: int, feat_sigma: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.box_px = box_px
        drawn = torch.randn(3 * pe_dim, 3, generator=generator)
        self.register_buffer("frequencies", drawn * (feat_sigma * box_px / 2))  # (F, 3)

    @property
    def out_dim(self) -> int:
        """2 F."""
        return 2 * int(self.frequencies.shape[0])

    def at_points(self, points: Tensor) -> Tensor:
        """Return (M, 2F) features, [sin, cos], of points (M, 3), (kx, ky, kz) in cycles per box."""
        phase = (points / self.box_px) @ self.frequencies.T  # (M, F)
        return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)

    def on_slices(self, rotations: Tensor, disc: HalfDisc, mirror: Tensor) -> Tensor:
        """Return (B, P, 2F) features of slices as interleaved pairs (cos, sin) per frequency.

        A point of a slice is k = kx r1 + ky r2, r1 and r2 the first two rows of R, so
        exp(i k.f/D) = exp(i kx r1.f/D) exp(i ky r2.f/D): per image and frequency 2 (D + 1)
        complex exponentials and P complex products, in place of P sines, P cosines and P
        three-term phases. At D = 128, 258 pairs of transcendental functions replace 6,426.

        Parameters
        ----------
        rotations : (B, 3, 3).
        disc : the P frequencies.
        mirror : (B, P) of +1 or -1; -1 asks for the features at -k.
        """
        radius = disc.radius_px
        side = 2 * radius + 1
        grid = torch.arange(-radius, radius + 1, device=rotations.device, dtype=rotations.dtype)
        # 1. Phases per unit of kx and of ky, for each image and frequency.
        unit = rotations[:, :2] @ (self.frequencies.T / self.box_px)  # (B, 2, F)
        # 2. The two tables of exponentials.
        angle = unit[:, :, None, :] * grid[:, None]  # (B, 2, D + 1, F)
        table = torch.polar(torch.ones_like(angle), angle)
        along_x, along_y = (table[:, i].flatten(0, 1) for i in (0, 1))  # (B (D + 1), F)
        # 3. Look both up at +-k and multiply.
        start = torch.arange(len(rotations), device=rotations.device)[:, None] * side + radius
        index_x = (start + mirror * disc.kx).flatten()  # (B P)
        index_y = (start + mirror * disc.ky).flatten()
        phases = along_x.index_select(0, index_x) * along_y.index_select(0, index_y)
        return torch.view_as_real(phases).view(len(rotations), len(disc), self.out_dim)

    def interleave(self, weight: Tensor) -> Tensor:
        """Return the columns of (H, 2F) weights for [sin, cos] in the order of `on_slices`."""
        sine, cosine = weight.chunk(2, dim=1)  # (H, F) each
        return torch.stack([cosine, sine], dim=-1).flatten(1)


def check_pe_type(pe_type: str) -> None:
    """Raise InputError unless positional features of this type are built."""
    if pe_type != "gaussian":
        raise InputError(f"--pe-type {pe_type}: only gaussian is available; leave the flag out")


def make_features(
    pe_type: str, box_px: int, pe_dim: int, feat_sigma: float, generator: torch.Generator
) -> GaussianFeatures:
    """Return the positional features of the given type.

    Raises
    ------
    InputError : a type that is not built.
    """
    check_pe_type(pe_type)
    return GaussianFeatures(box_px, pe_dim, feat_sigma, generator)
