"""Rotations in the forms that RELION, cryoSPARC and frazil use.

Owns: the conversions. Every matrix R here maps the model frame to the image frame,
x_img = R x_vol, with vectors ordered (x, y, z). Does not own: reading them from files.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation


def from_relion_euler(
    rot_deg: Float[Tensor, " N"], tilt_deg: Float[Tensor, " N"], psi_deg: Float[Tensor, " N"]
) -> Float[Tensor, "N 3 3"]:
    """Return R = transpose of the intrinsic ZYZ matrix of RELION's (rot, tilt, psi) in degrees."""
    angles = torch.stack([rot_deg, tilt_deg, psi_deg], dim=1).double().numpy()
    return _transposed(_scipy_rotation().from_euler("ZYZ", angles, degrees=True)).to(rot_deg.dtype)


def to_relion_euler(
    rotation: Float[Tensor, "N 3 3"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Return (rot, tilt, psi) in degrees with tilt in [0, 180]; inverse of `from_relion_euler`.

    At tilt 0 only rot + psi is defined and at tilt 180 only rot - psi; psi is then 0.
    """
    matrix = rotation.double().transpose(1, 2)  # rows of Rz(rot) Ry(tilt) Rz(psi)
    sine = torch.hypot(matrix[:, 0, 2], matrix[:, 1, 2])
    tilt = torch.atan2(sine, matrix[:, 2, 2])
    locked = sine < 1e-9
    rot = torch.atan2(matrix[:, 1, 2], matrix[:, 0, 2])
    rot = torch.where(locked, torch.atan2(-matrix[:, 0, 1], matrix[:, 1, 1]), rot)
    # Row y of Rz(-rot) M = Ry(tilt) Rz(psi) is (sin psi, cos psi, 0): good at any tilt, so that
    # rounding near tilt 0 or 180 moves rot and psi together.
    row = torch.cos(rot)[:, None] * matrix[:, 1] - torch.sin(rot)[:, None] * matrix[:, 0]  # (N, 3)
    psi = torch.atan2(row[:, 0], row[:, 1])
    psi = torch.where(locked, torch.zeros_like(psi), psi)
    rot, tilt, psi = (torch.rad2deg(angle).to(rotation.dtype) for angle in (rot, tilt, psi))
    return rot, tilt, psi


def from_cryosparc(rotation_vector: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3 3"]:
    """Return R = transpose of the matrix of cryoSPARC's rotation vector (axis times rad).

    A zero vector is the identity.
    """
    rotation = _scipy_rotation().from_rotvec(rotation_vector.double().numpy())
    return _transposed(rotation).to(rotation_vector.dtype)


def to_cryosparc(rotation: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 3"]:
    """Return cryoSPARC's rotation vector (axis times angle in rad, angle at most pi)."""
    matrix = np.swapaxes(rotation.double().numpy(), 1, 2)
    return torch.from_numpy(_scipy_rotation().from_matrix(matrix).as_rotvec()).to(rotation.dtype)


def from_quaternion(wxyz: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Return R of quaternions (w, x, y, z) that turn model vectors into image vectors."""
    rotation = _scipy_rotation().from_quat(wxyz.double().numpy()[:, [1, 2, 3, 0]])
    return torch.from_numpy(rotation.as_matrix()).to(wxyz.dtype)


def to_quaternion(rotation: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 4"]:
    """Return the unit quaternion (w, x, y, z), w >= 0, of R."""
    xyzw = _scipy_rotation().from_matrix(rotation.double().numpy()).as_quat(canonical=True)
    return torch.from_numpy(xyzw[:, [3, 0, 1, 2]]).to(rotation.dtype)


def random_rotations(count: int, generator: torch.Generator) -> Float[Tensor, "N 3 3"]:
    """Return rotations uniform on SO(3), float64: normalised Gaussian quaternions."""
    wxyz = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return from_quaternion(wxyz / wxyz.norm(dim=1, keepdim=True))


def slice_coordinates(
    rotation: Float[Tensor, "B 3 3"], kx: Float[Tensor, " P"], ky: Float[Tensor, " P"]
) -> Float[Tensor, "B P 3"]:
    """Return k3 = R^T (kx, ky, 0), the model frequencies of an image's Fourier slice."""
    return kx[:, None] * rotation[:, None, 0, :] + ky[:, None] * rotation[:, None, 1, :]


def _scipy_rotation() -> "type[Rotation]":
    """Return scipy's class; its import takes a quarter of a second that few commands need."""
    from scipy.spatial.transform import Rotation

    return Rotation


def _transposed(rotation: "Rotation") -> Tensor:
    matrix = np.ascontiguousarray(np.swapaxes(rotation.as_matrix(), -1, -2))
    return torch.from_numpy(matrix)
