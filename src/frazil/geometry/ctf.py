"""The contrast transfer function.

Owns: the aberration phase and its sign. Does not own: where parameters come from (`frazil.io`).
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

# Columns of the parameter tensor.
CTF_COLUMNS = (
    "pixel_size_ang",
    "defocus_u_ang",
    "defocus_v_ang",
    "astigmatism_deg",
    "voltage_kv",
    "cs_mm",
    "amplitude_contrast",
    "phase_shift_deg",
)


def wavelength_ang(voltage_kv: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the relativistic electron wavelength in Angstrom."""
    volt = voltage_kv * 1000
    return 12.2639 / torch.sqrt(volt + 0.97845e-6 * volt**2)


def ctf(
    kx: Shaped[Tensor, " P"],
    ky: Shaped[Tensor, " P"],
    parameters: Float[Tensor, "B 8"],
    box_px: int,
) -> Float[Tensor, "B P"]:
    """Return the CTF of B images at P frequencies; underfocus is positive, CTF(0) = -w.

    Parameters
    ----------
    kx, ky : frequencies in cycles per box.
    parameters : columns as in CTF_COLUMNS: A per px of this box, defocus U and V (A), angle of
        astigmatism (deg), voltage (kV), Cs (mm), amplitude contrast w (0 to 1), phase shift (deg).
    box_px : side of the box that the pixel size belongs to.

    References
    ----------
    Rohou & Grigorieff 2015 (CTFFIND4), eqs. 2 to 4: gamma = 2 pi (-lambda s^2 df / 2
    + Cs lambda^3 s^4 / 4) - phase shift; ctf = sqrt(1 - w^2) sin gamma - w cos gamma.
    """
    pixel_ang, df_u, df_v, angle_deg, kv, cs_mm, w, phase_deg = (
        column[:, None] for column in parameters.unbind(1)
    )
    kx, ky = kx.to(parameters), ky.to(parameters)
    # 1. Defocus along the direction of each frequency.
    azimuth = torch.atan2(ky, kx)
    twice = 2 * (azimuth - torch.deg2rad(angle_deg))  # (B, P)
    defocus_ang = (df_u + df_v + (df_u - df_v) * torch.cos(twice)) / 2
    # 2. Aberration phase.
    wave_ang = wavelength_ang(kv)
    s_squared = (kx**2 + ky**2) / (box_px * pixel_ang) ** 2  # (B, P), A^-2
    spherical = (cs_mm * 1e7 / 4) * wave_ang**3 * s_squared**2
    gamma = 2 * torch.pi * (spherical - wave_ang * s_squared * defocus_ang / 2)
    gamma = gamma - torch.deg2rad(phase_deg)
    # 3. Phase and amplitude contrast.
    return torch.sqrt(1 - w**2) * torch.sin(gamma) - w * torch.cos(gamma)
