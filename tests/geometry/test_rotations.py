"""Theorems of rotations in all their forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from frazil.geometry.rotations import (
    from_cryosparc,
    from_quaternion,
    from_relion_euler,
    random_rotations,
    slice_coordinates,
    to_cryosparc,
    to_quaternion,
    to_relion_euler,
)
from tests.reference import rotations as twin

# There and back through each form; the matrix in between is R, model frame to image frame.
FORMS = {
    "euler": lambda R: from_relion_euler(*to_relion_euler(R)),
    "rotation vector": lambda R: from_cryosparc(to_cryosparc(R)),
    "quaternion": lambda R: from_quaternion(to_quaternion(R)),
    "minus quaternion": lambda R: from_quaternion(-to_quaternion(R)),
}
SPECIAL_EULER_DEG = [
    (0, 0, 0),
    (30, 0, 0),
    (30, 0, 20),
    (-170, 0, -100),
    (30, 180, 0),
    (30, 180, 20),
    (-40, 180, 75),
    (10, 90, -20),
    (180, 90, 180),
    (0, 180, 0),
    (50, 1e-7, 12),
    (50, 180 - 1e-7, 12),
]
angle_deg = st.floats(-360, 360, allow_nan=False)


def rotations(count: int = 50, seed: int = 0) -> torch.Tensor:
    return random_rotations(count, torch.Generator().manual_seed(seed))


def columns(rows: list[tuple[float, float, float]], dtype: torch.dtype = torch.float64):
    return torch.tensor(rows, dtype=dtype).unbind(1)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).abs().max())


def test_every_form_gives_orthogonal_matrices_of_determinant_one():
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    for R in (
        rotations(),
        from_quaternion(vectors),
        from_cryosparc(vectors[:, :3]),
        from_relion_euler(*(100 * vectors[:, :3]).unbind(1)),
    ):
        assert distance(R @ R.transpose(1, 2), torch.eye(3).expand_as(R)) < 1e-12
        assert distance(torch.linalg.det(R), torch.ones(len(R))) < 1e-12


@settings(deadline=None, max_examples=100)
@given(
    angles=st.tuples(angle_deg, angle_deg, angle_deg) | st.sampled_from(SPECIAL_EULER_DEG),
    path=st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=6),
)
def test_any_path_through_the_forms_comes_home(angles, path):
    start = from_relion_euler(*columns([angles]))
    R = start
    for form in path:
        R = FORMS[form](R)
    assert distance(R, start) < 1e-8


@settings(deadline=None, max_examples=50)
@given(
    angles=st.tuples(angle_deg, angle_deg, angle_deg) | st.sampled_from(SPECIAL_EULER_DEG),
    path=st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=3),
)
def test_any_path_comes_home_in_single_precision(angles, path):
    start = from_relion_euler(*columns([angles], torch.float32))
    R = start
    for form in path:
        R = FORMS[form](R)
    assert R.dtype == torch.float32
    assert distance(R, start) < 1e-5


@pytest.mark.parametrize("angles", [*SPECIAL_EULER_DEG, (12.5, 47.1, -133.0), (-200, -30, 400)])
def test_relion_euler_is_the_product_written_out_and_scipys(angles):
    found = from_relion_euler(*columns([angles]))[0].numpy()
    scipys = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().T
    assert np.abs(found - twin.relion(*angles)).max() < 1e-12
    assert np.abs(found - scipys).max() < 1e-12


def test_relion_tilt_and_psi_turn_the_image_the_way_the_convention_says():
    # tilt 90: the model's z axis appears along -x of the image; psi then turns the picture.
    tilted = from_relion_euler(*columns([(0, 90, 0)]))[0]
    assert distance(tilted @ torch.tensor([0.0, 0, 1]).double(), torch.tensor([-1.0, 0, 0])) < 1e-12
    turned = from_relion_euler(*columns([(0, 90, 90)]))[0]
    assert distance(turned @ torch.tensor([0.0, 0, 1]).double(), torch.tensor([0, 1.0, 0])) < 1e-12


def test_euler_angles_come_back_where_they_are_unique():
    angles = [(12.5, 47.1, -133.0), (-170.0, 3.0, 20.0), (90.0, 179.0, 0.0)]
    found = torch.stack(to_relion_euler(from_relion_euler(*columns(angles))), dim=1)
    assert distance(found, torch.tensor(angles)) < 1e-5


@pytest.mark.parametrize(("tilt", "rot"), [(0, 50), (180, 10)])
def test_at_the_gimbal_lock_psi_is_zero_and_rot_carries_the_turn(tilt, rot):
    # tilt 0: rot + psi counts; tilt 180: rot - psi.
    found = to_relion_euler(from_relion_euler(*columns([(30, tilt, 20)])))
    assert [float(angle) for angle in found] == pytest.approx([rot, tilt, 0], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_euler_of_matrices_rounded_near_the_gimbal_lock_come_home(dtype):
    # Rounding noise in the third row and column must turn rot and psi together.
    noise = 1e-7 * torch.randn(40, 3, 3, generator=torch.Generator().manual_seed(5))
    near = from_relion_euler(*columns([(30, 0, 20)] * 20 + [(30, 180, 20)] * 20))
    near = (near + noise).to(dtype)
    assert distance(from_relion_euler(*to_relion_euler(near)), near) < 1e-6


def test_cryosparc_vector_is_rodrigues_formula_transposed_and_scipys():
    vectors = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = from_cryosparc(vectors).numpy()
    scipys = Rotation.from_rotvec(vectors.numpy()).as_matrix().transpose(0, 2, 1)
    written_out = np.stack([twin.cryosparc(vector) for vector in vectors.numpy()])
    assert np.abs(found - written_out).max() < 1e-12
    assert np.abs(found - scipys).max() < 1e-12
    # Positive control: untransposed it is another rotation.
    assert np.abs(found.transpose(0, 2, 1) - scipys).max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_rotation_vector_is_the_identity(dtype):
    found = from_cryosparc(torch.zeros(2, 3, dtype=dtype))
    assert torch.equal(found, torch.eye(3, dtype=dtype).expand(2, 3, 3))
    assert torch.equal(to_cryosparc(found), torch.zeros(2, 3, dtype=dtype))


def test_quaternion_is_the_matrix_written_out():
    wxyz = torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wxyz /= wxyz.norm(dim=1, keepdim=True)
    wanted = np.stack([twin.quaternion(*q) for q in wxyz.tolist()])
    assert np.abs(from_quaternion(wxyz).numpy() - wanted).max() < 1e-12
    home = to_quaternion(from_quaternion(wxyz))
    assert distance(home, wxyz * torch.sign(wxyz[:, :1])) < 1e-12
    assert bool((home[:, 0] >= 0).all())


def test_random_rotations_follow_their_generator_and_cover_the_sphere():
    assert torch.equal(rotations(seed=7), rotations(seed=7))
    assert not torch.equal(rotations(seed=7), rotations(seed=8))
    many = rotations(20000)
    # Uniform on SO(3): every entry has mean 0 and variance 1/3; 5 standard errors.
    assert float(many.mean(0).abs().max()) < 5 / np.sqrt(3 * 20000)
    assert float((many.square().mean(0) - 1 / 3).abs().max()) < 5 * np.sqrt(4 / 45 / 20000)
    # Haar: the angle has density (1 - cos a) / pi, mean pi/2 + 2/pi.
    angle = torch.arccos(((torch.einsum("nii->n", many) - 1) / 2).clamp(-1, 1))
    assert float(angle.mean()) == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.025)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_slice_coordinates_are_turned_back_into_the_image_plane_by_r(dtype, tolerance):
    R = rotations(8).to(dtype)
    kx, ky = torch.tensor([1, 0, -3, 5], dtype=dtype), torch.tensor([0, 1, 7, -2], dtype=dtype)
    k3 = slice_coordinates(R, kx, ky)
    back = torch.einsum("bij,bpj->bpi", R, k3)
    wanted = torch.stack([kx, ky, torch.zeros_like(kx)], dim=1)
    assert distance(back, wanted.expand_as(back)) < tolerance
    # Positive control: the transpose does not lie in the image plane.
    assert distance(torch.einsum("bji,bpj->bpi", R, k3), wanted.expand_as(back)) > 0.1
