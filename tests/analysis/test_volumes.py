"""The evaluation of volumes, against the plain evaluation of every point of the cube."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from frazil.analysis.settings import VolumeSettings
from frazil.analysis.volumes import (
    TrainedGrid,
    check_latent_points,
    evaluate_volume,
    latent_path,
    read_latent_points,
    volume_names,
    write_volumes,
    write_z_values,
    written_pixel_size_ang,
)
from frazil.errors import InputError
from frazil.geometry.fourier import fft3_centred, ifft3_centred
from frazil.geometry.packing import half_disc, to_real_space
from frazil.io.mrc import read_volume
from tests.analysis.tiny_run import BOX_PX, SCALE, ZDIM, make_model

GRID = TrainedGrid(BOX_PX, 2.0, SCALE)
Z = torch.tensor([0.5, -1.0, 2.0])


class Counted(torch.nn.Module):
    """A decoder of real volumes that notes every point it is asked for."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.transform = transform
        self.asked: list[Tensor] = []

    def decode_points(self, points: Tensor, z: Tensor) -> Tensor:
        self.asked.append(points)
        return self.transform(points)


def evaluate(settings: VolumeSettings | None = None, grid: TrainedGrid = GRID) -> np.ndarray:
    return evaluate_volume(make_model(), Z, grid, settings)


def every_point(box_px: int) -> Tensor:
    """Return (M, 3) all frequencies (kx, ky, kz) with 0 < |k| <= D/2."""
    axis = torch.arange(-box_px // 2, box_px // 2 + 1)
    points = torch.cartesian_prod(axis, axis, axis).flip(1)  # (kz, ky, kx) -> (kx, ky, kz)
    inside = (points**2).sum(1) <= (box_px // 2) ** 2
    return points[inside & (points != 0).any(1)]


def brute_force(box_px: int) -> np.ndarray:
    """Return the volume from all points of the sphere of a box, k and -k alike."""
    points = every_point(box_px)
    with torch.no_grad():
        values = make_model().decode_points(points.float(), Z)
    full = torch.zeros((box_px, box_px, box_px), dtype=torch.complex64)
    x, y, z = ((points + box_px // 2) % box_px).unbind(1)
    share = torch.where((points.abs() == box_px // 2).any(1), 0.5, 1.0)  # +-D/2 are one frequency
    full.index_put_((z, y, x), values * share, accumulate=True)
    volume = SCALE * ifft3_centred(full)
    assert volume.imag.abs().max() < 1e-5 * volume.real.abs().max()
    return volume.real.numpy()


@pytest.mark.parametrize("box_px", [BOX_PX, 12])
def test_half_the_space_gives_what_all_of_it_gives(box_px: int) -> None:
    volume = evaluate(VolumeSettings(box_px=box_px))
    expected = brute_force(box_px)
    assert volume.shape == (box_px, box_px, box_px)
    assert volume.dtype == np.float32
    np.testing.assert_allclose(volume, expected, atol=1e-5 * np.abs(expected).max())


def test_only_the_half_space_inside_the_sphere_is_decoded_each_pair_once() -> None:
    decoder = Counted(lambda points: torch.ones(len(points), dtype=torch.complex64))
    evaluate_volume(decoder, Z, GRID)
    asked = torch.cat(decoder.asked)
    assert 2 * len(asked) == len(every_point(BOX_PX))
    assert (asked[:, 2] <= 0).all()
    both = torch.cat([asked, -asked])
    assert len(torch.unique(both, dim=0)) == len(both)


def test_the_projection_along_z_is_the_untilted_slice() -> None:
    model = make_model()
    with torch.no_grad():
        packed = model.decode_slices(torch.eye(3)[None], Z[None])
    image = SCALE * to_real_space(packed, half_disc(BOX_PX))[0].numpy()
    projection = evaluate().sum(axis=0)
    np.testing.assert_allclose(projection, image, atol=1e-4 * np.abs(image).max())


def test_the_mean_is_zero_because_no_mean_is_trained() -> None:
    volume = evaluate()
    assert abs(volume.mean()) < 1e-6 * np.abs(volume).max()


def test_a_point_of_density_is_where_the_conventions_say() -> None:
    x, y, z = 3, -2, 1  # from the origin, pixel D/2

    def transform(points: Tensor) -> Tensor:
        turns = points @ torch.tensor([x, y, z]).float() / BOX_PX
        return torch.polar(torch.ones(len(points)), -2 * torch.pi * turns)

    volume = evaluate_volume(Counted(transform), Z, GRID)
    middle = BOX_PX // 2
    peak = np.unravel_index(volume.argmax(), volume.shape)
    assert peak == (middle + z, middle + y, middle + x)


def test_flipping_mirrors_z_about_the_origin_and_twice_is_nothing() -> None:
    plain, flipped = evaluate(), evaluate(VolumeSettings(flip=True))
    np.testing.assert_array_equal(flipped[1:], plain[1:][::-1])
    np.testing.assert_array_equal(flipped[BOX_PX // 2], plain[BOX_PX // 2])
    assert np.abs(flipped - plain).max() > 0.1 * np.abs(plain).max()


def test_inverting_changes_the_sign() -> None:
    np.testing.assert_array_equal(evaluate(VolumeSettings(invert=True)), -evaluate())


def test_cropping_cuts_out_the_middle() -> None:
    plain = evaluate()
    np.testing.assert_array_equal(evaluate(VolumeSettings(crop_px=6)), plain[5:11, 5:11, 5:11])


def test_the_low_pass_leaves_the_inside_halves_its_edge_and_empties_the_rest() -> None:
    box_ang = BOX_PX * 2.0
    settings = VolumeSettings(low_pass_ang=box_ang / 4)  # shell 4, edge from 2 to 6
    before = fft3_centred(torch.from_numpy(evaluate()))
    after = fft3_centred(torch.from_numpy(evaluate(settings)))
    scale = float(before.abs().max())
    middle = BOX_PX // 2

    def along_x(transform: Tensor, k: int) -> complex:
        return complex(transform[middle, middle, middle + k])

    for k, factor in ((1, 1.0), (2, 1.0), (4, 0.5), (6, 0.0), (7, 0.0)):
        assert abs(along_x(after, k) - factor * along_x(before, k)) < 1e-5 * scale


def test_the_low_pass_spares_the_decoder_the_points_outside() -> None:
    decoder = Counted(lambda points: torch.ones(len(points), dtype=torch.complex64))
    evaluate_volume(decoder, Z, GRID, VolumeSettings(low_pass_ang=8.0))
    assert torch.cat(decoder.asked).norm(dim=1).max() <= 4 + 2


def test_the_pixel_size_follows_the_box_unless_it_is_given() -> None:
    assert written_pixel_size_ang(GRID, VolumeSettings()) == 2.0
    assert written_pixel_size_ang(GRID, VolumeSettings(box_px=8)) == 4.0
    assert written_pixel_size_ang(GRID, VolumeSettings(box_px=8, pixel_size_ang=1.5)) == 1.5
    assert written_pixel_size_ang(TrainedGrid(16, None, 1.0), VolumeSettings()) == 1.0


@pytest.mark.parametrize(
    ("settings", "grid", "message"),
    [
        (VolumeSettings(box_px=18), GRID, "-d 18"),
        (VolumeSettings(box_px=9), GRID, "-d 9"),
        (VolumeSettings(crop_px=17), GRID, "--crop 17"),
        (VolumeSettings(low_pass_ang=9.0), TrainedGrid(16, None, 1.0), "give --Apix"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: VolumeSettings, grid: TrainedGrid, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(settings, grid)


def test_a_series_has_names_points_and_headers(tmp_path: Path) -> None:
    points = latent_path([0, 0, 0], [1, 2, 3], 3)
    paths = write_volumes(make_model(), points, GRID, VolumeSettings(first_index=0), tmp_path)
    assert [path.name for path in paths] == ["vol_000.mrc", "vol_001.mrc", "vol_002.mrc"]
    np.testing.assert_allclose(read_latent_points(tmp_path / "z_values.txt"), points)
    volume, pixel_size_ang = read_volume(paths[1])
    assert pixel_size_ang == pytest.approx(2.0)
    expected = evaluate_volume(make_model(), torch.tensor([0.5, 1.0, 1.5]), GRID)
    np.testing.assert_array_equal(volume, expected)


def test_names_sort_as_they_count() -> None:
    assert volume_names(2) == ["vol_001.mrc", "vol_002.mrc"]
    names = volume_names(1200, prefix="v")
    assert names == sorted(names)
    assert names[-1] == "v1200.mrc"


def test_latent_points_are_read_back_whatever_their_size(tmp_path: Path) -> None:
    points = np.array([[1e-6, -3.25e5], [0.0, 1 / 3]], np.float32)
    write_z_values(tmp_path / "z.txt", points)
    np.testing.assert_allclose(read_latent_points(tmp_path / "z.txt"), points, rtol=1e-6)


def test_points_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "z.txt").write_text("1 two 3\n")
    with pytest.raises(InputError, match="not a table of numbers"):
        read_latent_points(tmp_path / "z.txt")
    (tmp_path / "z.txt").write_text("# nothing\n\n")
    with pytest.raises(InputError, match="holds no latent points"):
        read_latent_points(tmp_path / "z.txt")
    with pytest.raises(InputError, match="2 values per point, the model has zdim 3"):
        check_latent_points(np.zeros((1, 2), np.float32), ZDIM, "-z")
    with pytest.raises(InputError, match=r"row 1 \(0-based\) is not finite"):
        check_latent_points(np.array([[0.0], [np.nan]], np.float32), 1, "-z")
    with pytest.raises(InputError, match="at least 2"):
        latent_path([0.0], [1.0], 1)
    with pytest.raises(InputError, match="the same number"):
        latent_path([0.0], [1.0, 2.0], 5)
