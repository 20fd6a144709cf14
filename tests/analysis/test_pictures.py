"""Pictures of volumes and particles."""

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from frazil.analysis import pictures
from frazil.store.reader import ParticleStore
from tests.analysis.tiny_run import BOX_PX, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ParticleStore:
    return ParticleStore.open(make_store(tmp_path_factory.mktemp("pictures")))


def decoded(png: bytes) -> np.ndarray:
    """Return the pixels of a PNG as another program reads them, 0 to 1."""
    return matplotlib.image.imread(io.BytesIO(png), format="png")


@pytest.mark.parametrize("shape", [(5, 9), (1, 1), (64, 130)])
def test_the_png_written_is_the_picture_that_others_read(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal((decoded(pictures.grey_png(picture)) * 255).round(), picture)


def test_the_views_are_central_slices_and_projections() -> None:
    volume = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    views = pictures.volume_views(volume)
    assert len(views) == len(pictures.VIEWS)
    np.testing.assert_array_equal(views[0], volume[4])
    np.testing.assert_array_equal(views[2], volume[:, :, 4])
    np.testing.assert_allclose(views[4], volume.sum(axis=1))


def test_large_volumes_are_shown_by_means_of_blocks() -> None:
    volume = np.ones((260, 4, 4), np.float32)
    cube = np.broadcast_to(volume[:, :1, :1], (260, 260, 260))
    views = pictures.volume_views(cube)
    assert views.shape[-1] <= pictures.LARGEST_TILE_PX
    np.testing.assert_allclose(views[0], 1)
    np.testing.assert_allclose(views[3], 260)


def test_volumes_share_one_grey_scale() -> None:
    faint = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    strips = pictures.strips([pictures.volume_views(v) for v in (faint, 10 * faint)])
    spread = [decoded(png)[:, :8].std() for png in strips]
    assert spread[1] > 5 * spread[0]


def test_a_film_shows_one_view_of_each_volume_in_order() -> None:
    volumes = [np.full((8, 8, 8), value, np.float32) for value in (0.0, 1.0, 2.0)]
    row = decoded(pictures.film([pictures.volume_views(v) for v in volumes], 3))[0]
    assert len(row) == 3 * 8 + 2 * 2
    assert row[0] < row[10] < row[20]


def test_an_empty_volume_is_no_error() -> None:
    views = pictures.volume_views(np.zeros((8, 8, 8), np.float32))
    assert np.isfinite(decoded(pictures.strips([views])[0])).all()


def test_thumbnails_are_real_space_images_of_the_particles(store: ParticleStore) -> None:
    rows = np.array([3, 17])
    shown, low_pass_ang = pictures.particle_thumbnails(store, rows)
    assert shown.shape == (2, BOX_PX, BOX_PX)
    assert low_pass_ang >= pictures.THUMBNAIL_LOW_PASS_ANG
    source = Path(store.manifest.sources[0].path)
    from frazil.io.mrc import read_images

    images = read_images(source, rows)
    for thumbnail, image in zip(shown, images, strict=True):
        # Dark particles in the store, light ones in the source; the low-pass lets most through.
        assert np.corrcoef(thumbnail.ravel(), -image.ravel())[0, 1] > 0.4
    crossed = np.corrcoef(shown[0].ravel(), -images[1].ravel())[0, 1]
    assert crossed < 0.4


def test_each_thumbnail_has_its_own_contrast() -> None:
    base = np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32)
    pngs = pictures.thumbnail_pngs(np.concatenate([base, 100 * base + 7, 0 * base]))
    assert pngs[0] == pngs[1]
    assert decoded(pngs[2]).std() == 0
