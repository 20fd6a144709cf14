"""What other tools of the field get wrong with files, through the command line.

The number in a test's name is that of the mistake:

1 an index of 32 bits wraps past 4 GiB (here and in `test_large_stacks`); 2 -D and the pixel size of
the shifts of a .cs are ignored; 3 files are joined by row; 4 shifts are scaled by D + 1; 5 one
pixel size serves all particles; 6 what is missing becomes NaN; 8 a seek for each image and stat
calls for each particle; 9 the normalisation is that of a few images, not windowed; 11 integer and
big-endian stacks lose contrast, a cut stack repeats an image; 13 downsampled sets keep the old
pixel size, and rows that --ind leaves out; 14 phases are flipped across images; 15 the resolution
is taken from the last crossing; 16 pickles run code; 17 viewers show Fourier images.

(7, 10 and 12 are of training: loader, checkpoints and volumes have their own tests.)
"""

import ast
import os
import pickle
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frazil.analysis.pictures import particle_thumbnails
from frazil.geometry.packing import to_real_space
from frazil.geometry.shifts import shift_phase
from frazil.io import images as io_images
from frazil.io import mrc
from frazil.io.cryosparc import read_cs, write_cs
from frazil.io.mrc_writer import StackWriter, write_volume
from frazil.io.particles import CTF_COLUMNS
from frazil.io.pickles import read_ctf, read_poses, write_pickle
from frazil.io.star import copy_rows, read_star
from frazil.store.reader import ParticleStore
from tests.end_to_end.conftest import BOX_PX, IMAGES, NETWORK
from tests.reference.ctf import ctf as ctf_in_full
from tests.store.made import write_stack

Run = Callable[..., int]
Array = np.ndarray[Any, Any]
PACK = ["--no-preflight", "--precision", "float32", "--max-threads", "2"]
TRAIN = ["--no-preflight", "--zdim", "2", "-n", "1", "-b", "8", "--no-analysis", *NETWORK]


def packed(frazil: Run, line: str, name: str = "p.frz") -> ParticleStore:
    """Pack exactly, and return the store."""
    assert frazil(f"preprocess {line} -o {name}", *PACK) == 0
    return ParticleStore.open(Path(name))


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line of stderr, which must be an error in one line."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    line = text.strip().splitlines()[-1]
    assert ": error: " in line
    return line


def shifts_of(path: str | Path) -> Array:
    """Return the shifts (N, 2) of a pose.pkl."""
    shift = read_poses(Path(path))[1]
    assert shift is not None
    return shift


def stack_images(folder: Path) -> Array:
    """Return the images of the simulated set in the order of its .cs and pickles, by numpy."""
    raw = [path.read_bytes()[1024:] for path in sorted(folder.glob("*.mrcs"))]
    return np.frombuffer(b"".join(raw), "<f4").reshape(-1, BOX_PX, BOX_PX)


def windowed(images: Array) -> Array:
    """Return images under cryoDRGN's window: 1 to 0.85 of half the box, 0 from 0.99 on."""
    x = np.linspace(-1, 1, images.shape[-1], endpoint=False)
    r = np.hypot(x[:, None], x[None, :])
    return images * np.clip((0.99 - r) / (0.99 - 0.85), 0, 1)


def coefficients(image: Array, store: ParticleStore) -> Array:
    """Return the disc (P,) of a real image by numpy, in the sign of the store (dark)."""
    half = image.shape[0] // 2
    full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))
    kx, ky = store.disc.kx.numpy(), store.disc.ky.numpy()
    values: Array = -full[(ky + half) % image.shape[0], (kx + half) % image.shape[0]]
    return values


def test_every_mistake_that_concerns_files_has_a_test() -> None:
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    found = {int(number) for number in re.findall(r"def test_mistake_(\d\d)_", sources)}
    assert found == {1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 15, 16, 17}


def test_mistake_02_shifts_of_a_cs_are_scaled_by_their_own_pixel_size_and_d_wins(
    frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = read_cs(particle_set / "particles.cs").copy()
    shift_px, blob_ang = array["alignments3D/shift"], float(array["blob/psize_A"][0])
    array["alignments3D/psize_A"] *= 2  # aligned at half the sampling, as refinements do
    write_cs(Path("half.cs"), array)
    assert frazil("parse_pose_csparc half.cs -o own.pkl") == 0
    out = capsys.readouterr().out
    own = shifts_of("own.pkl")
    np.testing.assert_allclose(own, shift_px * 2 / BOX_PX, atol=1e-6)
    assert "row 0: shift (" in out and "warning" not in out
    assert frazil(f"parse_pose_csparc half.cs -D {BOX_PX} -o flag.pkl") == 0
    flagged = shifts_of("flag.pkl")
    np.testing.assert_allclose(flagged, shift_px / BOX_PX, atol=1e-6)
    assert not np.allclose(flagged, own)
    warning = capsys.readouterr().out
    assert f"warning: -D {BOX_PX} is used, but" in warning
    assert f"gets ({flagged[0, 0]:.6g}" in warning and f"figures give ({own[0, 0]:.6g}" in warning
    assert frazil(f"parse_pose_csparc half.cs -D {BOX_PX // 2} -o right.pkl") == 0
    assert "warning" not in capsys.readouterr().out  # the flag and the file agree
    store = packed(frazil, f"half.cs --datadir {particle_set}")
    np.testing.assert_allclose(store.rows["shift_ang"], shift_px * 2 * blob_ang, rtol=1e-5)
    assert f"px x {2 * blob_ang:.6g} A/px (alignments3D/psize_A)" in capsys.readouterr().out


def test_mistake_03_a_reordered_star_gives_every_image_its_own_pose(
    frazil: Run, particle_set: Path
) -> None:
    order = np.random.default_rng(0).permutation(IMAGES)
    copy_rows(particle_set / "particles.star", Path("reordered.star"), order)
    first = packed(frazil, f"{particle_set / 'particles.star'}", "first.frz")
    again = packed(frazil, f"reordered.star --datadir {particle_set}", "again.frz")
    rotation = read_poses(particle_set / "poses.pkl")[0]
    for store, rows in ((first, np.arange(IMAGES)), (again, order)):
        np.testing.assert_allclose(store.rows["rotation"], rotation[rows], atol=1e-5)
    wanted = first.images(order)
    torch.testing.assert_close(again.images(np.arange(IMAGES)), wanted, rtol=0, atol=1e-3)
    assert not torch.allclose(first.images(np.arange(IMAGES)), wanted)  # the order did change


@pytest.mark.parametrize("kind", ["poses", "ctf"])
def test_mistake_03_pickles_of_another_order_are_refused(
    frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    order = np.random.default_rng(0).permutation(IMAGES)
    copy_rows(particle_set / "particles.star", Path("reordered.star"), order)
    line = f"--datadir {particle_set} --{kind} {particle_set / kind}.pkl"
    assert frazil(f"preprocess reordered.star {line} -o p.frz", *PACK) == 2
    error = error_of(capsys)
    assert f"{kind}.pkl: row " in error and "in another order" in error
    assert not Path("p.frz").exists()
    assert frazil(f"preprocess {particle_set / 'particles.star'} {line} -o p.frz", *PACK) == 0
    assert frazil(f"train_vae {Path('p.frz')} --{kind} {particle_set / kind}.pkl -o r", *TRAIN) == 0


def wrong_poses(rotation: Array, shift: Array) -> dict[str, tuple[Array, Array, str, int]]:
    """Return rotations, shifts, words of the answer and exit code of each mistake."""
    turn = rotation[7]
    return {
        "transposed": (rotation.transpose(0, 2, 1), shift, "transposed rotations", 2),
        "negated": (rotation, -shift, "with the other sign", 2),
        "scaled": (rotation, 2 * shift, "shifts are 2 times those of", 0),
        "others": (rotation[::-1] @ rotation[3], shift, "check that it belongs to these", 0),
        "turned": (rotation @ turn, shift, "by 0 deg in the median, after a common turn", 0),
    }


@pytest.mark.parametrize("mistake", ["transposed", "negated", "scaled", "others", "turned"])
@pytest.mark.parametrize("kind", ["star", "cs"])
def test_mistake_03_poses_that_are_not_those_of_the_file_are_named(
    frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str], mistake: str, kind: str
) -> None:
    given = read_poses(particle_set / "poses.pkl")[0], shifts_of(particle_set / "poses.pkl")
    rotation, shift, words, code = wrong_poses(*given)[mistake]
    write_pickle(Path("wrong.pkl"), (np.ascontiguousarray(rotation), shift))
    particles = particle_set / f"particles.{kind}"
    assert frazil(f"preprocess {particles} --poses wrong.pkl -o p.frz", *PACK) == code
    said = "".join(capsys.readouterr())
    assert words in said
    assert ("warning: wrong.pkl" in said) == (mistake in ("scaled", "others"))


def test_mistake_04_shifts_are_fractions_of_the_box_not_of_one_pixel_more(
    frazil: Run, particle_set: Path
) -> None:
    """Images moved by whole pixels come home exactly; by D + 1 they would not."""
    centred = stack_images(particle_set)[:4]
    shift_px = np.array([[9, -7], [0, 11], [-12, 3], [5, 5]])
    moved = [
        np.roll(image, (-y, -x), (0, 1)) for image, (x, y) in zip(centred, shift_px, strict=True)
    ]
    with StackWriter(Path("moved.mrcs"), (BOX_PX, BOX_PX), 4, 2.0) as writer:
        writer.write(np.stack(moved))
    write_pickle(Path("pose.pkl"), (np.tile(np.eye(3), (4, 1, 1)), shift_px / BOX_PX))
    flags = ["--no-window", *PACK]
    assert frazil("preprocess moved.mrcs --poses pose.pkl -o real.frz", *flags) == 0
    assert frazil("preprocess moved.mrcs -o ft/moved.mrcs --no-window") == 0
    # Fourier stacks have the side D + 1.
    write_pickle(Path("ctf.pkl"), np.tile([BOX_PX, 2.0, 1e4, 1e4, 0, 300, 2.7, 0.1, 0], (4, 1)))
    line = "preprocess ft/moved.ft.txt --poses pose.pkl --ctf ctf.pkl -o ft.frz"
    assert frazil(line, *PACK) == 0
    for name in ("real.frz", "ft.frz"):
        store = ParticleStore.open(Path(name))
        np.testing.assert_allclose(store.rows["shift_ang"], shift_px * 2.0, rtol=1e-6)
        found = store.images(np.arange(4))
        stored_px = torch.from_numpy(store.rows["shift_ang"] / store.pixel_size_ang)
        for scale, right in ((1, True), ((BOX_PX + 1) / BOX_PX, False)):
            ramp = shift_phase(store.disc.kx, store.disc.ky, stored_px * scale, BOX_PX)
            home = (found * ramp).numpy()
            inside = (store.disc.kx.abs() < BOX_PX // 2) & (store.disc.ky.abs() < BOX_PX // 2)
            wanted = np.stack([coefficients(image, store) for image in centred])
            error = np.abs(home - wanted)[:, inside.numpy()].max() / np.abs(wanted).max()
            assert (error < 1e-4) == right


def test_mistake_05_every_particle_has_the_pixel_size_of_its_own_group(frazil: Run) -> None:
    Path("two.star").write_text(
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n_rlnVoltage\n"
        "_rlnSphericalAberration\n_rlnAmplitudeContrast\n1 1.0 64 300 2.7 0.1\n"
        "2 1.5 64 200 2.0 0.07\n\ndata_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n"
        "_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginXAngst\n_rlnOriginYAngst\n"
        "_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n"
        "1@a.mrcs 1 0 0 0 6.4 -3.2 15000 14000 30\n1@b.mrcs 2 0 0 0 6.4 -3.2 15000 14000 30\n"
    )
    assert frazil("parse_pose_star two.star -o pose.pkl") == 0
    shift = shifts_of("pose.pkl")
    np.testing.assert_allclose(shift, [[0.1, -0.05], [6.4 / 96, -3.2 / 96]], rtol=1e-6)
    assert frazil("parse_ctf_star two.star -o ctf.pkl") == 0
    ctf = read_ctf(Path("ctf.pkl"))
    np.testing.assert_allclose(ctf[:, 1], [1.0, 1.5])
    np.testing.assert_allclose(ctf[:, 5:8], [[300, 2.7, 0.1], [200, 2.0, 0.07]], rtol=1e-6)


@pytest.mark.parametrize("label", ["_rlnDefocusU", "_rlnVoltage", "_rlnAmplitudeContrast"])
def test_mistake_06_a_missing_ctf_column_is_named_and_never_nan(
    frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str], label: str
) -> None:
    text = (particle_set / "particles.star").read_text()
    Path("poor.star").write_text(text.replace(label, "_rlnElse"))
    assert frazil("parse_ctf_star poor.star -o ctf.pkl") == 2
    error = error_of(capsys)
    assert label in error and "poor.star" in error and not Path("ctf.pkl").exists()
    packed(frazil, f"poor.star --datadir {particle_set}")
    assert f"CTF incomplete: {label} missing" in capsys.readouterr().out
    for line in ("train_vae p.frz -o run", "train_pca p.frz -o pca --zdim 1"):
        assert frazil(line, *(TRAIN if "vae" in line else ["--no-preflight"])) == 2
        error = error_of(capsys)
        assert "so no CTF; complete the particle file and pack again, or give --ctf" in error
    assert frazil(f"train_vae p.frz --ctf {particle_set / 'ctf.pkl'} -o run", *TRAIN) == 0


def test_mistake_06_a_missing_pose_column_is_named_and_never_nan(
    frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (particle_set / "particles.star").read_text()
    Path("poor.star").write_text(text.replace("_rlnAnglePsi", "_rlnElse"))
    assert frazil("parse_pose_star poor.star -o pose.pkl") == 2
    assert "_rlnAnglePsi" in error_of(capsys)
    assert not Path("pose.pkl").exists()
    packed(frazil, f"poor.star --datadir {particle_set}")
    assert "no poses: _rlnAnglePsi missing" in capsys.readouterr().out
    assert frazil("train_vae p.frz -o run", *TRAIN) == 2
    assert "give --poses" in error_of(capsys)


def test_mistake_08_stacks_are_asked_once_and_read_in_long_runs(
    frazil: Run, particle_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            of_stack = str(first).endswith(".mrcs") or name == "read"
            calls[name] += of_stack
            return real(first, *args, **kwargs)

        return call

    for name in ("stat", "open"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    read = counted("read", mrc.read_open_images)
    monkeypatch.setattr("frazil.io.images.read_open_images", read)
    star, most = particle_set / "particles.star", 12
    assert frazil(f"train_vae {star} --lazy -o run", *TRAIN) == 0
    assert 0 < calls["stat"] <= most and 0 < calls["open"] <= most
    assert 0 < calls["read"] <= most < IMAGES // 4  # two stacks, a few passes; not 96 images
    # Positive control: image by image, as others read, the count is that of the images.
    calls.clear()
    with io_images.open_images(io_images.open_particles(star)) as images:
        for row in range(IMAGES):
            images.read([row])
    assert calls["read"] == IMAGES


def test_mistake_09_the_scale_is_that_of_all_images_as_they_are_trained(
    frazil: Run, particle_set: Path
) -> None:
    """A merged set: the second half is ten times as strong, which a sample of the first hides."""
    images = stack_images(particle_set).copy()
    images[IMAGES // 2 :] *= 10
    write_stack(Path("merged.mrcs"), images)
    store = packed(frazil, "merged.mrcs")

    def rms(chosen: Array) -> float:
        values = np.stack([coefficients(image, store) for image in chosen])
        return float(np.sqrt(np.mean(np.abs(values) ** 2)))

    assert store.rms() == pytest.approx(rms(windowed(images)), rel=1e-5)
    assert store.rms() > 1.1 * rms(windowed(images[: IMAGES // 2]))
    assert store.rms() < 0.98 * rms(images)  # not windowed
    trained = (store.images(np.arange(IMAGES)) / store.rms()).abs().square().mean().sqrt()
    assert float(trained) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("kind", ["i1", "i2", "u2", "f2", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_mistake_11_every_pixel_type_and_byte_order_is_the_same_image(
    frazil: Run, kind: str, order: str
) -> None:
    lowest = 0 if kind == "u2" else -100
    values = np.random.default_rng(0).integers(lowest, 101, (6, 16, 16))
    write_stack(Path("typed.mrcs"), values, kind, order)
    store = packed(frazil, "typed.mrcs --no-window")
    found = store.images(np.arange(6)).numpy()
    wanted = np.stack([coefficients(image, store) for image in values.astype(np.float64)])
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_mistake_11_a_cut_stack_is_refused_and_repeats_no_image(
    frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = stack_images(particle_set)[:6]
    whole = write_stack(Path("cut.mrcs"), images).read_bytes()
    Path("cut.mrcs").write_bytes(whole[:-100])
    assert frazil("preprocess cut.mrcs -o p.frz", *PACK) == 2
    error = error_of(capsys)
    assert "row 5 (0-based) wants image 5" in error and "5 of 6 images are whole" in error
    assert not Path("p.frz").exists()
    write_pickle(Path("ind.pkl"), np.arange(5))
    store = packed(frazil, "cut.mrcs --no-window --ind ind.pkl")
    wanted = np.stack([coefficients(image, store) for image in images[:5]])
    found = store.images(np.arange(5)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_mistake_13_a_downsampled_star_has_the_new_pixel_size_and_the_chosen_rows(
    frazil: Run, particle_set: Path
) -> None:
    chosen = np.array([90, 3, 41, 7])
    write_pickle(Path("ind.pkl"), chosen)
    star = particle_set / "particles.star"
    assert frazil(f"downsample {star} -D 24 --ind ind.pkl -o small/p.star") == 0
    before, after = read_star(star), read_star(Path("small/p.star"))
    assert before.optics is not None and after.optics is not None
    old_ang, new_ang = (
        table.numbers(["_rlnImagePixelSize"])[0, 0] for table in (before.optics, after.optics)
    )
    assert new_ang == pytest.approx(old_ang * BOX_PX / 24, rel=1e-6)
    assert after.optics.numbers(["_rlnImageSize"])[0, 0] == 24
    angles = ["_rlnAngleRot", "_rlnDefocusU"]
    np.testing.assert_array_equal(
        after.particles.numbers(angles), before.particles.numbers(angles)[chosen]
    )
    store = packed(frazil, "small/p.star --no-window")
    wanted = np.stack([coefficients(image, store) for image in stack_images(particle_set)[chosen]])
    inside = (store.disc.kx.abs() < 12) & (store.disc.ky.abs() < 12)
    error = np.abs(store.images(np.arange(4)).numpy() - wanted)[:, inside.numpy()]
    assert error.max() < 1e-4 * np.abs(wanted).max()


def test_mistake_14_phases_are_flipped_within_each_image(frazil: Run, particle_set: Path) -> None:
    images = stack_images(particle_set)[:5]
    write_stack(Path("p.mrcs"), images)
    ctf = read_ctf(particle_set / "ctf.pkl")[:5]
    write_pickle(Path("ctf.pkl"), ctf)
    assert frazil("phase_flip p.mrcs ctf.pkl -o flipped.mrcs") == 0
    found = np.frombuffer(Path("flipped.mrcs").read_bytes()[1024:], "<f4").reshape(images.shape)
    k = np.fft.fftfreq(BOX_PX) / ctf[0, 1]  # 1/A
    kx, ky = np.meshgrid(k, k)
    signs = []
    for image, row, flipped in zip(images, ctf, found, strict=True):
        named = dict(zip(CTF_COLUMNS, row[2:].tolist(), strict=True))
        sign = np.sign(
            [
                [ctf_in_full(x, y, **named) for x, y in zip(*line, strict=True)]
                for line in zip(kx, ky, strict=True)
            ]
        )
        signs.append(sign)
        wanted = np.fft.fft2(image) * sign
        # At Nyquist a real image has no room for the two signs of an astigmatic CTF.
        error = np.abs(np.fft.fft2(flipped) - wanted)[(kx > k.min()) & (ky > k.min())]
        assert error.max() < 1e-4 * np.abs(wanted).max()
    # Positive control: a transform across the images, as others make, gives others.
    across = np.fft.ifftn(np.fft.fftn(images) * np.stack(signs)).real
    assert np.corrcoef(across[0].ravel(), found[0].ravel())[0, 1] < 0.99


def test_mistake_15_resolution_is_the_first_crossing(
    frazil: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map that loses shells 6 to 9 and agrees again beyond."""
    box, ang = 32, 2.0
    one = np.random.default_rng(0).standard_normal((box, box, box))
    k = np.fft.fftfreq(box) * box
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(k, k, k, indexing="ij")))
    gap = (np.round(radius) >= 6) & (np.round(radius) <= 9)
    noise = np.random.default_rng(1).standard_normal(one.shape)
    two = np.fft.ifftn(np.where(gap, np.fft.fftn(noise), np.fft.fftn(one))).real
    for name, volume in (("a.mrc", one), ("b.mrc", two)):
        write_volume(Path(name), volume.astype(np.float32), ang)
    assert frazil("fsc a.mrc b.mrc") == 0
    out = capsys.readouterr().out
    shells = np.array([line.split()[2] for line in out.splitlines() if line[:1].isdigit()], float)
    assert shells[12:15].min() > 0.9 > 0.5 > shells[7]  # it does cross again
    found = float(re.findall(r"resolution at FSC=0\.5: ([\d.]+) A", out)[0])
    assert box * ang / 6 <= found <= box * ang / 5


class Bomb:
    """Makes a file when a reader runs what its pickle asks for."""

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize(
    "line",
    [
        "preprocess SET/particles.star --poses bomb.pkl -o p.frz",
        "preprocess SET/particles.star --ctf bomb.pkl -o p.frz",
        "preprocess SET/particles.star --ind bomb.pkl -o p.frz",
        "train_vae SET/particles.star --poses bomb.pkl -o run --zdim 2",
        "train_pca SET/particles.star --ind bomb.pkl -o run --zdim 2",
        "backproject_voxel SET/particles.star --ctf bomb.pkl -o map",
        "downsample SET/particles.star -D 24 --ind bomb.pkl -o s.mrcs",
        "phase_flip SET/particles_000.mrcs bomb.pkl -o s.mrcs",
        "filter_pkl bomb.pkl --ind bomb.pkl -o f.pkl",
        "concat_pkls bomb.pkl bomb.pkl -o f.pkl",
        "write_star SET/particles_000.mrcs --ctf bomb.pkl -o p.star",
        "filter_star SET/particles.star --ind bomb.pkl -o p.star",
        "info bomb.pkl",
    ],
)
def test_mistake_16_no_command_runs_what_a_pickle_asks_for(
    frazil: Run, particle_set: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    Path("bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    assert frazil(line.replace("SET", str(particle_set))) == 2
    error = error_of(capsys)
    assert "bomb.pkl: refused, because unpickling it would run" in error
    assert sorted(path.name for path in Path().iterdir() if path.suffix != "") == ["bomb.pkl"]
    pickle.loads(Path("bomb.pkl").read_bytes())  # positive control: it would have run
    assert Path("exploded").exists()


def test_mistake_16_there_is_one_place_that_unpickles() -> None:
    package = Path(io_images.__file__).parents[1]
    users = []
    for path in package.rglob("*.py"):
        names = [node for node in ast.walk(ast.parse(path.read_text())) if is_pickle(node)]
        users += [path.name] * bool(names)
    assert users == ["pickles.py"]


def is_pickle(node: ast.AST) -> bool:
    """Return whether a node imports pickle."""
    if isinstance(node, ast.Import):
        return any(name.name.split(".")[0] == "pickle" for name in node.names)
    return isinstance(node, ast.ImportFrom) and node.module == "pickle"


def test_mistake_17_particles_are_shown_in_real_space_also_from_fourier_stacks(
    frazil: Run, particle_set: Path
) -> None:
    star = particle_set / "particles.star"
    assert frazil(f"preprocess {star} -o ft/p.mrcs") == 0
    real, fourier = packed(frazil, f"{star}"), packed(frazil, "ft/p.ft.txt", "ft.frz")
    rows = np.arange(8)
    # The store is in the dark sense; what is shown has no mean, and only the disc.
    wanted = -windowed(stack_images(particle_set)[rows])
    for store in (real, fourier):
        whole = to_real_space(store.images(rows), store.disc).numpy()
        shown, _ = particle_thumbnails(store, rows)
        for picture, small, image in zip(whole, shown, wanted, strict=True):
            assert np.corrcoef(picture.ravel(), image.ravel())[0, 1] > 0.85
            hartley = np.fft.fft2(image)
            hartley = np.fft.fftshift(hartley.real - hartley.imag)
            assert abs(np.corrcoef(small.ravel(), hartley.ravel())[0, 1]) < 0.2
            assert np.corrcoef(small.ravel(), smooth(image).ravel())[0, 1] > 0.7


def smooth(image: Array) -> Array:
    """Return an image with its high frequencies damped."""
    k = np.fft.fftfreq(len(image))
    fall = np.exp2(-((np.hypot(k[:, None], k[None, :]) / 0.25) ** 2))
    fall[0, 0] = 0
    values: Array = np.fft.ifft2(np.fft.fft2(image) * fall).real
    return values
