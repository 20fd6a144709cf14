"""Figures: that they show what they are given, and leave matplotlib as it was."""

import io
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from frazil.analysis import plots
from frazil.analysis.report import strip_card


def _points(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 2))


@pytest.mark.parametrize("count", [12, 25_000])
def test_embeddings_are_drawn_as_dots_or_as_density(count: int) -> None:
    labels, centres = np.arange(count) % 4, np.array([3, 1, 2])
    figure = plots.embedding_figure(_points(count), ("a", "b"), "t", labels, centres)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    assert len(figure.axes) == (2 if count > 20_000 else 1)  # density has a colour bar


def test_a_single_dimension_is_a_histogram_of_all_particles() -> None:
    figure = plots.embedding_figure(_points(50)[:, :1], ("PC1", "PC1"), "t")
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 50


def test_the_learning_curve_holds_every_point() -> None:
    intervals = [{"at": x / 2, "gen_loss": 9 - x, "kld": x} for x in range(8)]
    epochs = [{"at": x + 0.5, "gen_loss": 9 - 2 * x, "kld": 2 * x} for x in range(4)]
    loss, kld = plots.learning_figure(intervals, epochs).axes
    assert loss.lines[0].get_ydata().tolist() == [9, 8, 7, 6, 5, 4, 3, 2]
    assert kld.lines[1].get_ydata().tolist() == [0, 2, 4, 6]


def test_a_single_epoch_is_drawn_on_a_whole_axis() -> None:
    figure = plots.learning_figure([], [{"at": 0.5, "gen_loss": 1.0, "kld": 0.3}])
    for axes in figure.axes:
        assert axes.get_xlim() == (0, 1)


def test_few_tiles_are_not_blown_up() -> None:
    assert "max-width:600px" in strip_card("t", "n", b"", ["a", "b", "c"])


def test_an_fsc_plot_has_resolution_on_its_ticks() -> None:
    figure = plots.fsc_figure({"a": np.linspace(1, 0, 17)}, 32, 2.0, "t")
    assert figure.axes[0].get_xlim()[1] == pytest.approx(0.25)
    assert figure.axes[0].xaxis.get_major_formatter()(0.125) == "8"
    assert figure.axes[0].xaxis.get_major_formatter()(0.0) == "∞"


def test_poses_are_counted_once_each() -> None:
    rotations = np.tile(np.eye(3, dtype=np.float32), (30, 1, 1))
    mesh = plots.pose_figure(rotations).axes[0].collections[0]
    counts = mesh.get_array()
    assert counts.sum() == 30
    assert (counts > 0).sum() == 1  # all look along z


def test_a_saved_figure_is_a_white_png_and_settings_are_left_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figure = plots.embedding_figure(_points(5), ("a", "b"), "t")
    plots.save_figure(figure, tmp_path / "x.png")
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    pixels = matplotlib.image.imread(tmp_path / "x.png")
    assert pixels[0, 0, :3].tolist() == [1, 1, 1]
    again = matplotlib.image.imread(io.BytesIO(plots.png_bytes(figure)), format="png")
    np.testing.assert_array_equal(pixels, again)
