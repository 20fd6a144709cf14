"""frazil downsample: what the smaller images and volumes are, and how a run goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.cli.main import main
from frazil.io.cryosparc import write_cs
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import StackWriter, read_header, read_images, read_volume, write_volume
from frazil.io.paths import Places
from frazil.io.pickles import write_pickle
from frazil.io.star import particles_from_star, read_star
from frazil.preprocess import downsample as module
from frazil.preprocess.steps import downsample_images, downsample_volume

BOX, SMALL = 16, 8

OPTICS = """# made by a test

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
_rlnImageSize #4
_rlnVoltage #5
1 "first group" 1.5 16 300.00

# between the tables
data_particles

loop_
_rlnImageName #1
_rlnOriginXAngst #2
_rlnOriginYAngst #3
_rlnOpticsGroup #4
_rlnMicrographName #5
"""
OLD = """data_

loop_
_rlnImageName #1
_rlnOriginX #2
_rlnOriginY #3
_rlnMagnification #4
_rlnDetectorPixelSize #5
_rlnMicrographName #6
"""
# Rows of both files: image of stack, in no order, one image twice.
ROWS = ((2, "a/x"), (1, "a/x"), (3, "b/x"), (2, "a/x"), (1, "b/x"))


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, BOX, BOX)).astype(np.float32) + 2


def write_stack(path: Path, images: np.ndarray, pixel_size_ang: float = 1.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with StackWriter(path, images.shape[1:], len(images), pixel_size_ang) as writer:
        writer.write(images)
    return path


def images_of(path: Path) -> np.ndarray:
    return read_images(path, np.arange(read_header(path).nz))


def small(images: np.ndarray, box_px: int = SMALL) -> np.ndarray:
    return downsample_images(torch.from_numpy(images), box_px).numpy()


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write_stack(tmp_path / "in.mrcs", noise(7))


@pytest.fixture
def stars(tmp_path: Path) -> dict[str, Path]:
    """A RELION 3.1 and a 3.0 file of the same particles, shifts 3 A (2 px) and more."""
    write_stack(tmp_path / "in" / "a" / "x.mrcs", noise(3, 1))
    write_stack(tmp_path / "in" / "b" / "x.mrcs", noise(4, 2))
    new, old = tmp_path / "new.star", tmp_path / "old.star"
    lines = [f"{i:06d}@{s}.mrcs {3 + row} 0.25 1 m{row}" for row, (i, s) in enumerate(ROWS)]
    new.write_text(OPTICS + "\n".join(lines) + "\n# the end\n")
    lines = [
        f"{i:06d}@{s}.mrcs {(3 + row) / 1.5} -1 10000 1.5 m{row}" for row, (i, s) in enumerate(ROWS)
    ]
    old.write_text(OLD + "\n".join(lines) + "\n")
    return {"new": new, "old": old}


def test_a_wave_below_the_new_nyquist_stays_that_wave_about_the_new_origin(tmp_path):
    kx, ky, factor = 3, -2, (BOX / SMALL) ** 2

    def wave(side):
        j = np.arange(side) - side // 2
        phase = 2 * np.pi * (kx * j[None, :] + ky * j[:, None]) / side
        return np.cos(phase + 0.3).astype(np.float32)

    source, out = write_stack(tmp_path / "in.mrcs", wave(BOX)[None]), tmp_path / "out.mrcs"
    assert main(["downsample", str(source), "-D", str(SMALL), "-o", str(out)]) == 0
    assert np.allclose(images_of(out)[0], factor * wave(SMALL), atol=1e-5)


def test_sums_over_pixels_stay_and_the_pixel_size_grows(stack, tmp_path):
    out = tmp_path / "deep" / "er" / "out.mrcs"
    assert main(["downsample", str(stack), "-D", "12", "-o", str(out)]) == 0
    before, after = images_of(stack), images_of(out)
    assert np.allclose(after.sum((1, 2)), before.sum((1, 2)), rtol=1e-5)
    assert read_header(out).pixel_size_ang == pytest.approx(1.5 * 16 / 12)
    assert read_header(out).nx == 12


def test_the_same_box_copies_the_images(stack, tmp_path):
    out = tmp_path / "out.mrcs"
    assert main(["downsample", str(stack), "-D", str(BOX), "-o", str(out)]) == 0
    assert np.array_equal(images_of(out), images_of(stack))


def test_downsampling_and_projecting_may_change_places():
    volume = torch.from_numpy(np.random.default_rng(3).standard_normal((BOX,) * 3)).float()
    there = downsample_volume(volume, SMALL).sum(0)
    assert torch.allclose(there, downsample_images(volume.sum(0)[None], SMALL)[0], atol=1e-3)
    assert not torch.allclose(there, downsample_images(volume.sum(1)[None], SMALL)[0], atol=1e-1)


def test_a_volume_keeps_its_sum_and_its_extent(tmp_path, capsys):
    volume = np.random.default_rng(4).random((BOX,) * 3).astype(np.float32)
    source, out = tmp_path / "in.mrc", tmp_path / "out.mrc"
    write_volume(source, volume, 1.5)
    assert main(["downsample", str(source), "--is-vol", "-D", str(SMALL), "-o", str(out)]) == 0
    after, pixel_size_ang = read_volume(out)
    assert after.shape == (SMALL,) * 3
    assert after.sum() == pytest.approx(volume.sum(), rel=1e-5)
    assert pixel_size_ang == pytest.approx(3.0)
    assert "3 A/px" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["-b", "2"], ["--max-threads", "3", "-b", "1"]])
def test_batches_and_threads_change_nothing(stack, tmp_path, flags):
    one, other = tmp_path / "one.mrcs", tmp_path / "other.mrcs"
    assert main(["downsample", str(stack), "-D", "8", "-o", str(one), "--max-threads", "1"]) == 0
    assert main(["downsample", str(stack), "-D", "8", "-o", str(other), *flags]) == 0
    assert np.array_equal(images_of(one), images_of(other))


def test_chunks_together_are_the_stack(stack, tmp_path):
    out = tmp_path / "set.8.mrcs"
    arguments = ["downsample", str(stack), "-D", "8", "-o", str(out), "--chunk", "3"]
    assert main(arguments) == 0
    listing = tmp_path / "set.8.txt"
    assert listing.read_text().split() == [f"set.8.{n}.mrcs" for n in range(3)]
    with open_images(open_particles(listing)) as images:
        assert np.array_equal(images.read(np.arange(7)), small(images_of(stack)))
    assert not list(tmp_path.glob(".*"))


def test_ind_keeps_its_order(stack, tmp_path):
    write_pickle(tmp_path / "ind.pkl", np.array([5, 0, 2]))
    out = tmp_path / "out.mrcs"
    ind = str(tmp_path / "ind.pkl")
    assert main(["downsample", str(stack), "-D", "8", "-o", str(out), "--ind", ind]) == 0
    assert np.array_equal(images_of(out), small(images_of(stack)[[5, 0, 2]]))


@pytest.mark.parametrize("kind", ["new", "old"])
@pytest.mark.parametrize("rows", [None, [4, 0, 3]])
@pytest.mark.parametrize("outdir", [None, "stacks"])
def test_a_star_output_holds_the_same_particles_at_the_new_scale(
    stars, tmp_path, kind, rows, outdir
):
    out, datadir = tmp_path / "out" / "s.star", tmp_path / "in"
    arguments = ["downsample", str(stars[kind]), "-D", "8", "-o", str(out)]
    arguments += ["--datadir", str(datadir)]
    if rows:
        write_pickle(tmp_path / "ind.pkl", np.array(rows))
        arguments += ["--ind", str(tmp_path / "ind.pkl")]
    if outdir:
        arguments += ["--outdir", str(tmp_path / outdir)]
    assert main(arguments) == 0
    kept = rows or list(range(len(ROWS)))
    before, after = particles_from_star(stars[kind], Places(datadir)), particles_from_star(out)
    assert len(after) == len(kept)
    assert after.rows["pixel_size_ang"] == pytest.approx(3.0)
    assert np.allclose(after.rows["shift_ang"], before.rows["shift_ang"][kept])
    assert np.any(after.rows["shift_ang"] > 1)
    if kind == "new":
        assert after.box_px == SMALL
    with open_images(before) as old_images, open_images(after) as new_images:
        wanted = small(old_images.read(np.array(kept)))
        assert np.array_equal(new_images.read(np.arange(len(kept))), wanted)
    names = read_star(out).particles.strings("_rlnMicrographName")
    assert names == [f"m{row}" for row in kept]
    # Two stacks of one name in two folders stay apart, and each used image is there once.
    assert len(set(after.sources)) == 2
    assert sum(read_header(Path(s)).nz for s in after.sources) == len({ROWS[row] for row in kept})
    assert all(read_header(Path(s)).pixel_size_ang == pytest.approx(3.0) for s in after.sources)


def test_what_a_star_output_does_not_change_is_copied_byte_for_byte(stars, tmp_path):
    out = tmp_path / "out" / "s.star"
    arguments = ["downsample", str(stars["new"]), "-D", "8", "-o", str(out)]
    assert main([*arguments, "--datadir", str(tmp_path / "in")]) == 0
    text = out.read_text()
    for kept in ("# made by a test", '1 "first group" 3.0 8 300.00', "# between", "# the end"):
        assert kept in text


class _Interruption:
    """Stands for downsample_images; interrupts the run at the given call (0: never)."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def __call__(self, images, box_px):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return downsample_images(images, box_px)


@pytest.mark.parametrize("kind", ["chunks", "star"])
def test_an_interrupted_run_goes_on_after_its_whole_stacks(
    stars, stack, tmp_path, monkeypatch, kind
):
    folder = tmp_path / "out"
    command = ["downsample", "-D", "8", "--max-threads", "1"]
    if kind == "chunks":  # three chunks, one block each; the third block is interrupted
        command += [str(stack), "-o", str(folder / "s.mrcs"), "--chunk", "3"]
        first, second, final, at = folder / "s.0.mrcs", folder / "s.1.mrcs", folder / "s.txt", 3
    else:  # two stacks of two images, one block each; the fourth block is interrupted
        command += [str(stars["new"]), "-o", str(folder / "s.star"), "-b", "1"]
        command += ["--datadir", str(tmp_path / "in")]
        first, second = folder / "a" / "x.mrcs", folder / "b" / "x.mrcs"
        final, at = folder / "s.star", 4
    with monkeypatch.context() as patch:
        patch.setattr(module, "downsample_images", _Interruption(at))
        assert main(command) == 130
    assert not final.exists()
    assert not second.exists()
    assert [path for path in folder.rglob("*.mrcs") if path.is_file()] == [first]
    written = first.stat().st_ino
    whole = _Interruption(0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "downsample_images", whole)
        assert main(command) == 0
    assert whole.calls == 2  # chunks 1 and 2, or the two images of b/x
    assert first.stat().st_ino == written
    assert final.exists()
    assert not list(folder.glob(".*"))
    with open_images(open_particles(final)) as images:
        assert len(images) == (7 if kind == "chunks" else len(ROWS))


def test_chunks_of_other_settings_are_not_mixed_in(stack, tmp_path, monkeypatch, capsys):
    out = tmp_path / "s.mrcs"
    command = ["downsample", str(stack), "-o", str(out), "--chunk", "3", "--max-threads", "1"]
    command += ["-b", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "downsample_images", _Interruption(3))
        assert main([*command, "-D", "8"]) == 130
    assert (tmp_path / "s.0.mrcs").exists()
    capsys.readouterr()
    assert main([*command, "-D", "12"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "-D", "12", "--overwrite"]) == 0
    assert {read_header(tmp_path / f"s.{n}.mrcs").nx for n in range(3)} == {12}


def test_what_a_killed_run_left_is_removed_and_never_read(stack, tmp_path):
    out = tmp_path / "out.mrcs"
    left = tmp_path / ".out.mrcs.0123abcd.mrcs"
    other = tmp_path / ".other.mrcs.0123abcd.mrcs"
    left.write_bytes(b"half")
    other.write_bytes(b"of another run")
    assert main(["downsample", str(stack), "-D", "8", "-o", str(out)]) == 0
    assert not left.exists()
    assert other.exists()


def test_images_with_non_finite_pixels_are_named(tmp_path, capsys):
    images = noise(6)
    images[4, 2, 3] = np.nan
    source = write_stack(tmp_path / "in.mrcs", images)
    assert main(["downsample", str(source), "-D", "8", "-o", str(tmp_path / "out.mrcs")]) == 0
    assert "1 images have non-finite pixels: rows 4 (0-based)" in capsys.readouterr().out


def test_every_kind_of_input_gives_the_same_images(stack, tmp_path):
    fields = [("blob/path", "S8"), ("blob/idx", "u4"), ("blob/shape", "u4", 2)]
    array = np.zeros(7, np.dtype([*fields, ("blob/psize_A", "f4")]))
    array["blob/path"], array["blob/idx"], array["blob/shape"] = b"in.mrcs", np.arange(7), BOX
    array["blob/psize_A"] = 1.5
    write_cs(tmp_path / "in.cs", array)
    (tmp_path / "in.txt").write_text("in.mrcs\n")
    star = "data_\n\nloop_\n_rlnImageName\n" + "".join(f"{i}@in.mrcs\n" for i in range(1, 8))
    (tmp_path / "in.star").write_text(star)
    for kind in ("mrcs", "cs", "txt", "star"):
        out = tmp_path / f"from_{kind}.mrcs"
        assert main(["downsample", str(tmp_path / f"in.{kind}"), "-D", "8", "-o", str(out)]) == 0
        assert np.array_equal(images_of(out), small(images_of(stack)))
        assert read_header(out).pixel_size_ang == pytest.approx(3.0)
