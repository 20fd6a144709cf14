"""The workflow of cryoDRGN's users, verbatim, and the short way through a store."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import BOX_PX, IMAGES, NETWORK, epoch_losses

Run = Callable[..., int]
SMALL = ["--zdim", "2", "-n", "2", "-b", "8", "--seed", "3", "--no-analysis", *NETWORK]


def test_the_five_commands_work_on_cryosparc_files(particle_set: Path, frazil: Run) -> None:
    cs = particle_set / "particles.cs"
    assert frazil(f"preprocess {cs} --datadir {particle_set} -D 24 -o data/24/particles.mrcs") == 0
    assert frazil(f"parse_pose_csparc {cs} -D {BOX_PX} -o pose.pkl") == 0
    assert frazil(f"parse_ctf_csparc {cs} -o ctf.pkl") == 0
    line = "train_vae data/24/particles.ft.txt --preprocessed --ctf ctf.pkl --poses pose.pkl"
    assert frazil(line, "-o", "00_vae", *SMALL) == 0
    assert frazil(f"select_random {IMAGES} -n 50 -o ind.pkl") == 0
    latents = np.load("00_vae/z.2.npy")
    assert latents.shape == (IMAGES, 2)
    assert np.isfinite(latents).all()


def test_the_five_commands_work_on_relion_files(particle_set: Path, frazil: Run) -> None:
    star = particle_set / "particles.star"
    assert frazil(f"preprocess {star} --datadir {particle_set} -D 24 -o p.mrcs") == 0
    assert frazil(f"parse_pose_star {star} -D {BOX_PX} -o pose.pkl") == 0
    assert frazil(f"parse_ctf_star {star} -D {BOX_PX} -o ctf.pkl") == 0
    assert frazil(f"select_random {IMAGES} -n 50 -o ind.pkl") == 0
    line = "train_vae p.ft.txt --preprocessed --ctf ctf.pkl --poses pose.pkl --ind ind.pkl"
    assert frazil(line, "-o", "run", *SMALL) == 0
    assert np.load("run/z.2.npy").shape == (50, 2)


def test_the_classic_way_and_the_store_train_alike(particle_set: Path, frazil: Run) -> None:
    """Same images, order and seed: the same losses, through files or through a store."""
    star = particle_set / "particles.star"
    assert frazil(f"preprocess {star} -D 24 -o p.mrcs") == 0
    assert frazil(f"parse_pose_star {star} -D {BOX_PX} -o pose.pkl") == 0
    assert frazil(f"parse_ctf_star {star} -D {BOX_PX} -o ctf.pkl") == 0
    classic = "train_vae p.ft.txt --preprocessed --ctf ctf.pkl --poses pose.pkl"
    assert frazil(classic, "--precision", "float32", "-o", "classic", *SMALL) == 0
    losses = {}
    for precision in ("float32", "int8"):
        assert frazil(f"preprocess {star} -D 24 --precision {precision} -o {precision}.frz") == 0
        assert frazil(f"train_vae {precision}.frz -o {precision}", *SMALL) == 0
        losses[precision] = epoch_losses(Path(precision))
    assert epoch_losses(Path("classic")) == pytest.approx(losses["float32"], rel=1e-4)
    assert losses["int8"] == pytest.approx(losses["float32"], rel=1e-2)
    assert losses["int8"] != losses["float32"]  # the precision is really another


def test_raw_particles_are_packed_once_and_reused(
    particle_set: Path, frazil: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    star = particle_set / "particles.star"
    assert frazil(f"train_vae {star} --cache cache -o first", *SMALL) == 0
    packed = {path: path.stat().st_mtime_ns for path in Path("cache").rglob("*.npy")}
    assert packed
    assert frazil(f"train_vae {star} --cache cache -o second", *SMALL) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("cache").rglob("*.npy")} == packed
    assert epoch_losses(Path("first")) == epoch_losses(Path("second"))


def test_volumes_and_a_report_come_out(particle_set: Path, frazil: Run) -> None:
    assert frazil(f"preprocess {particle_set / 'particles.star'} -o p.frz") == 0
    assert frazil("train_vae p.frz -o run", *SMALL) == 0
    assert frazil("analyze run 2 --ksample 3 --pc 1 --n-per-pc 2 --skip-umap") == 0
    assert frazil("eval_vol run -z 0 0 -o zero.mrc") == 0
    assert frazil("eval_vol run/weights.2.safetensors -z 0 0 -o again.mrc") == 0
    assert Path("run/analyze.2/report.html").stat().st_size > 10_000
    assert Path("zero.mrc").read_bytes() == Path("again.mrc").read_bytes()


def test_the_order_of_the_star_file_does_not_matter(
    particle_set: Path, frazil: Run, tmp_path: Path
) -> None:
    """Identity, not row order, joins images with metadata: a reordered star is the same set."""
    text = (particle_set / "particles.star").read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(text) if "@" in line)
    rows = [line for line in text[first:] if "@" in line]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    reordered = particle_set / "reordered.star"
    reordered.write_text("".join([*text[:first], *shuffled]))
    try:
        maps = {}
        for name in ("particles", "reordered"):
            assert frazil(f"preprocess {particle_set / name}.star -o {name}.frz") == 0
            assert frazil(f"backproject_voxel {name}.frz --no-half-maps -o {name}") == 0
            maps[name] = np.fromfile(tmp_path / name / "backproject.mrc", "<f4", offset=1024)
    finally:
        reordered.unlink()
    difference = np.linalg.norm(maps["particles"] - maps["reordered"])
    assert difference < 1e-4 * np.linalg.norm(maps["particles"])
