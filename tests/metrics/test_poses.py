"""The angle between rotations."""

import torch

from frazil.geometry.rotations import from_cryosparc, random_rotations
from frazil.metrics.poses import rotation_angle_deg


def test_the_angle_of_a_known_turn_is_returned_from_tiny_to_half_a_turn() -> None:
    angle_deg = torch.tensor([0.0, 1e-6, 0.01, 1.0, 89.0, 91.0, 179.9999, 180.0]).double()
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5]).double(), dim=0)
    turn = from_cryosparc(torch.deg2rad(angle_deg)[:, None] * axis)
    start = random_rotations(len(angle_deg), torch.Generator().manual_seed(1))
    found = rotation_angle_deg(turn @ start, start)
    torch.testing.assert_close(found, angle_deg, atol=1e-5, rtol=1e-9)


def test_a_common_rotation_does_not_change_the_angle() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b, common = (random_rotations(20, generator) for _ in range(3))
    before = rotation_angle_deg(a, b)
    torch.testing.assert_close(rotation_angle_deg(a @ common, b @ common), before)
    torch.testing.assert_close(rotation_angle_deg(common @ a, common @ b), before)
