"""phase_flip and translate_mrcs: every image by itself, in bounded blocks, whole or not at all."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.mrc import StackWriter, read_header, read_images
from frazil.io.pickles import write_pickle
from frazil.io.star import write_star

COUNT, BOX_PX, APIX = 11, 16, 1.5


def noise() -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(5))
    return generator.standard_normal((COUNT, BOX_PX, BOX_PX)).astype(np.float32)


def write_stack(name: str, images: np.ndarray, pixel_size_ang: float = APIX) -> None:
    with StackWriter(Path(name), images.shape[1:], len(images), pixel_size_ang) as writer:
        writer.write(images)


def ctf_rows(box_px: int = BOX_PX, apix: float = APIX) -> np.ndarray:
    rows = np.tile(np.array([box_px, apix, 9000, 8500, 20, 300, 2.7, 0.1, 0]), (COUNT, 1))
    rows[:, 2] += 700 * np.arange(COUNT)
    return rows


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_stack("p.mrcs", noise())
    write_pickle(Path("ctf.pkl"), ctf_rows())


def images(name: str, count: int = COUNT) -> np.ndarray:
    return read_images(Path(name), np.arange(count))


def test_a_flipped_stack_is_that_of_its_images_one_by_one():
    assert main(["phase_flip", "p.mrcs", "ctf.pkl", "-o", "out.mrcs"]) == 0
    for row in (0, 7):
        write_stack("one.mrcs", noise()[row : row + 1])
        write_pickle(Path("one.pkl"), ctf_rows()[row : row + 1])
        assert main(["phase_flip", "one.mrcs", "one.pkl", "-o", "one.out.mrcs"]) == 0
        np.testing.assert_allclose(images("one.out.mrcs", 1)[0], images("out.mrcs")[row], atol=1e-5)
    assert read_header(Path("out.mrcs")).pixel_size_ang == pytest.approx(APIX)


def test_a_second_flip_gives_the_images_back():
    assert main(["phase_flip", "p.mrcs", "ctf.pkl", "-o", "once.mrcs"]) == 0
    assert main(["phase_flip", "once.mrcs", "ctf.pkl", "-o", "twice.mrcs"]) == 0
    np.testing.assert_allclose(images("twice.mrcs"), noise(), atol=1e-5)
    assert np.abs(images("once.mrcs") - noise()).max() > 0.5


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch):
    assert main(["phase_flip", "p.mrcs", "ctf.pkl", "-o", "whole.mrcs"]) == 0
    monkeypatch.setattr("frazil.preprocess.stack_tools.BLOCK_BYTES", 3 * 4 * BOX_PX**2)
    assert main(["phase_flip", "p.mrcs", "ctf.pkl", "-o", "blocks.mrcs"]) == 0
    np.testing.assert_allclose(images("blocks.mrcs"), images("whole.mrcs"), atol=1e-5)


def test_the_ctf_of_another_box_is_scaled_to_that_of_the_images(
    capsys: pytest.CaptureFixture[str],
):
    assert main(["phase_flip", "p.mrcs", "ctf.pkl", "-o", "a.mrcs"]) == 0
    assert "warning" not in capsys.readouterr().out
    write_pickle(Path("small.pkl"), ctf_rows(BOX_PX // 2, 2 * APIX))
    assert main(["phase_flip", "p.mrcs", "small.pkl", "-o", "b.mrcs"]) == 0
    np.testing.assert_array_equal(images("a.mrcs"), images("b.mrcs"))


def test_a_pixel_size_that_is_not_the_headers_is_told(capsys: pytest.CaptureFixture[str]):
    write_pickle(Path("other.pkl"), ctf_rows(apix=3.0))
    assert main(["phase_flip", "p.mrcs", "other.pkl", "-o", "a.mrcs"]) == 0
    said = capsys.readouterr().out
    assert "warning: other.pkl: 3 A/px" in said and "says 1.5 (11 rows)" in said


def test_a_star_is_read_in_its_own_order_from_its_datadir():
    Path("data").mkdir()
    Path("p.mrcs").rename("data/p.mrcs")
    order = np.random.Generator(np.random.PCG64(1)).permutation(COUNT)
    write_star(Path("p.star"), {"particles": {"_rlnImageName": [f"{n + 1}@p.mrcs" for n in order]}})
    shift = np.stack([np.arange(COUNT), -np.arange(COUNT)], axis=1)  # whole pixels
    write_pickle(Path("t.pkl"), (shift / BOX_PX).astype(np.float32))
    assert main(["translate_mrcs", "p.star", "t.pkl", "--datadir", "data", "-o", "out.mrcs"]) == 0
    want = [np.roll(noise()[n], (-i, i), (0, 1)) for i, n in enumerate(order)]
    np.testing.assert_allclose(images("out.mrcs"), want, atol=1e-5)


def test_translate_takes_a_pose_pickle_a_factor_and_draws(capsys: pytest.CaptureFixture[str]):
    rotation = np.tile(np.eye(3, dtype=np.float32), (COUNT, 1, 1))
    pixels = np.tile(np.array([[2.0, -3.0]]), (COUNT, 1))
    write_pickle(Path("pose.pkl"), (rotation, pixels))
    line = f"translate_mrcs p.mrcs pose.pkl --tscale {1 / BOX_PX} -o out.mrcs --out-png out.png"
    assert main(line.split()) == 0
    np.testing.assert_allclose(images("out.mrcs"), np.roll(noise(), (-3, 2), (1, 2)), atol=1e-5)
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    assert read_header(Path("out.mrcs")).pixel_size_ang == pytest.approx(APIX)
    # In pixels, without the factor, they are refused.
    assert main(["translate_mrcs", "p.mrcs", "pose.pkl", "-o", "bad.mrcs"]) == 2
    assert "--tscale 1/D" in capsys.readouterr().err


def test_a_list_of_stacks_is_one_set():
    write_stack("q.mrcs", noise()[:4] * 2)
    Path("l.txt").write_text("q.mrcs\np.mrcs\n")
    write_pickle(Path("t.pkl"), np.zeros((COUNT + 4, 2)))
    assert main(["translate_mrcs", "l.txt", "t.pkl", "-o", "out.mrcs"]) == 0
    want = np.concatenate([noise()[:4] * 2, noise()])
    np.testing.assert_allclose(images("out.mrcs", COUNT + 4), want, atol=1e-6)


def test_images_that_are_no_numbers_are_named(capsys: pytest.CaptureFixture[str]):
    bad = noise()
    bad[4, 2, 2] = np.nan
    write_stack("n.mrcs", bad)
    assert main(["phase_flip", "n.mrcs", "ctf.pkl", "-o", "out.mrcs"]) == 0
    assert "1 images have non-finite pixels: rows 4 (0-based)" in capsys.readouterr().out
    np.testing.assert_array_equal(np.isfinite(images("out.mrcs")).all((1, 2)), np.arange(11) != 4)


def prepare(how: str) -> str:
    """Write the bad input; return the command line."""
    if how == "ctf of others":
        write_pickle(Path("ctf.pkl"), ctf_rows()[:5])
    elif how == "ctf that is no number":
        rows = ctf_rows()
        rows[3, 2] = np.nan
        write_pickle(Path("ctf.pkl"), rows)
    elif how == "shifts of others":
        write_pickle(Path("t.pkl"), np.zeros((COUNT + 1, 2)))
    elif how == "shift that is no number":
        write_pickle(Path("t.pkl"), np.full((COUNT, 2), np.nan))
    elif how == "rotations alone":
        write_pickle(Path("t.pkl"), np.zeros((COUNT, 3, 3)))
    elif how == "cut stack":
        Path("p.mrcs").write_bytes(Path("p.mrcs").read_bytes()[:-1])
    out = "p.mrcs" if how == "the input itself" else "out.mrcs"
    if how == "another suffix":
        out = "out.txt"
    command = (
        "translate_mrcs p.mrcs t.pkl" if Path("t.pkl").exists() else "phase_flip p.mrcs ctf.pkl"
    )
    return f"{command} -o {out}"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("ctf of others", "5 rows, but there are 11"),
        ("ctf that is no number", "row 3 (0-based)"),
        ("shifts of others", "there are 11 particles"),
        ("shift that is no number", "row 0 (0-based)"),
        ("rotations alone", "shifts (N, 2)"),
        ("cut stack", "cut short"),
        ("the input itself", "would replace a file that is read"),
        ("another suffix", "must end in .mrcs"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    how: str, words: str, capsys: pytest.CaptureFixture[str]
):
    line = prepare(how)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert main(line.split()) == 2
    error = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert len(error) == 1 and words in error[0]
    assert before == {path.name: path.read_bytes() for path in Path().iterdir()}


def test_a_disk_that_fills_up_leaves_the_old_stack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    Path("out.mrcs").write_bytes(b"old")

    def full(self: StackWriter, changed: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(StackWriter, "write", full)
    assert main(["phase_flip", "p.mrcs", "ctf.pkl", "-o", "out.mrcs"]) == 2
    assert "out.mrcs: the disk (or quota) is full" in capsys.readouterr().err
    assert Path("out.mrcs").read_bytes() == b"old"
    assert not list(Path().glob(".out*"))


def test_a_disk_that_is_too_small_is_refused_before_the_first_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("frazil.store.budget.free_disk_bytes", lambda path: 1000)
    assert main(["phase_flip", "p.mrcs", "ctf.pkl", "-o", "out.mrcs"]) == 2
    assert "needs 11.3 kB of disk" in capsys.readouterr().err
    assert not Path("out.mrcs").exists()
