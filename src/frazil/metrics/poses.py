"""Errors of poses.

Owns: the angle between rotations. Does not own: conventions (`frazil.geometry.rotations`).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def rotation_angle_deg(
    rotation_a: Float[Tensor, "N 3 3"], rotation_b: Float[Tensor, "N 3 3"]
) -> Float[Tensor, " N"]:
    """Return the angle in degrees, 0 to 180, of the rotation that takes each A to its B.

    From ||A - B|| = 2 sqrt(2) sin(angle / 2) (Frobenius) and tr(A B^T) + 1 = 4 cos^2(angle / 2):
    precise at small angles, where the arc cosine of the trace alone is not.
    """
    difference = (rotation_a - rotation_b).double()
    sine = torch.linalg.matrix_norm(difference) / (2 * 2**0.5)  # sin(angle / 2)
    trace = torch.einsum("nij,nij->n", rotation_a.double(), rotation_b.double())
    cosine = torch.sqrt(((trace + 1) / 4).clamp(min=0))  # cos(angle / 2)
    return torch.rad2deg(2 * torch.atan2(sine, cosine)).to(rotation_a.dtype)
