"""Rotation matrices written out entry by entry."""

import numpy as np
from numpy.typing import NDArray


def about_y(angle_deg: float) -> NDArray[np.float64]:
    """Return the matrix that turns vectors by angle_deg about y, from z towards x."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def about_z(angle_deg: float) -> NDArray[np.float64]:
    """Return the matrix that turns vectors by angle_deg about z, from x towards y."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def relion(rot_deg: float, tilt_deg: float, psi_deg: float) -> NDArray[np.float64]:
    """Return R = (Rz(rot) Ry(tilt) Rz(psi))^T, the transpose of scipy's intrinsic "ZYZ"."""
    return (about_z(rot_deg) @ about_y(tilt_deg) @ about_z(psi_deg)).T


def cryosparc(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R = transpose of Rodrigues' formula for axis times angle (rad); zero is identity."""
    angle = np.linalg.norm(vector)
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross).T


def quaternion(w: float, x: float, y: float, z: float) -> NDArray[np.float64]:
    """Return the matrix of a unit quaternion."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
