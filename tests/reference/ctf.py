"""The CTF of one frequency, written out from its definition."""

from math import atan2, cos, pi, radians, sin, sqrt


def ctf(
    sx_inv_ang: float,
    sy_inv_ang: float,
    *,
    defocus_u_ang: float,
    defocus_v_ang: float,
    astigmatism_deg: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: float,
) -> float:
    """Return sqrt(1 - w^2) sin(gamma) - w cos(gamma) at the frequency (sx, sy) in 1/A.

    gamma = 2 pi (-df lambda s^2 / 2 + Cs lambda^3 s^4 / 4) - phase shift, underfocus positive.
    """
    volt = voltage_kv * 1e3
    wave_ang = 12.2639 / sqrt(volt + 0.97845e-6 * volt * volt)
    s_squared = sx_inv_ang**2 + sy_inv_ang**2
    angle = atan2(sy_inv_ang, sx_inv_ang) - radians(astigmatism_deg)
    mean, half_difference = (
        (defocus_u_ang + defocus_v_ang) / 2,
        (defocus_u_ang - defocus_v_ang) / 2,
    )
    defocus_ang = mean + half_difference * cos(2 * angle)
    cs_ang = cs_mm * 1e7
    gamma = (
        2 * pi * (-defocus_ang * wave_ang * s_squared / 2 + cs_ang * wave_ang**3 * s_squared**2 / 4)
    )
    gamma -= radians(phase_shift_deg)
    w = amplitude_contrast
    return sqrt(1 - w**2) * sin(gamma) - w * cos(gamma)
