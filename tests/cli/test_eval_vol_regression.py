"""frazil eval_vol --maps regression."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.cli.main import main
from frazil.io.mrc import read_volume
from frazil.metrics.fsc import fsc

FIT = "--zdim 2 --low-iterations 6 --low-radius 6"
PARTICLES = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a set, a store, and a run of train_pca."""
    folder = tmp_path_factory.mktemp("regression")
    line = f"simulate -n {PARTICLES} -D 16 --snr 1 --swing 90 -o {folder}/set"
    assert main(line.split()) == 0
    assert main(["preprocess", f"{folder}/set/particles.star", "-o", f"{folder}/set.frz"]) == 0
    line = f"train_pca {folder}/set.frz {FIT} -o {folder}/run"
    assert main(line.split()) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the same, from an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return made


def regression(model: Path, line: str) -> int:
    return main(["eval_vol", str(model), "--maps", "regression", *line.split()])


def points_file(folder: Path, count: int) -> str:
    z = np.load(folder / "run" / "z.npy", allow_pickle=False)
    order = np.argsort(z[:, 0])
    chosen = z[order[np.linspace(60, len(z) - 60, count).astype(int)]]
    np.savetxt("points.txt", chosen)
    return "points.txt"


def volume(path: str) -> torch.Tensor:
    return torch.from_numpy(np.array(read_volume(Path(path))[0]))


def test_a_point_gives_a_map_half_maps_their_fsc_and_facts(folder):
    assert regression(folder / "run", "-o m.mrc -z 0.1 -0.1") == 0
    names = sorted(path.name for path in Path().iterdir())
    assert names == ["m.json", "m.mrc", "m_fsc.txt", "m_half_a.mrc", "m_half_b.mrc"]
    facts = json.loads(Path("m.json").read_text())
    assert facts["point"] == pytest.approx([0.1, -0.1])
    assert facts["particles_near"] > 100
    assert set(facts["images_by_shell"]) <= set(facts["balls"])
    mask = volume(str(folder / "run" / "mask.mrc"))
    curve = fsc(volume("m_half_a.mrc"), volume("m_half_b.mrc"), mask)
    assert np.allclose(np.loadtxt("m_fsc.txt")[:-1, 2], curve[:-1], atol=2e-3)
    assert not torch.allclose(volume("m_half_a.mrc"), volume("m_half_b.mrc"))
    assert fsc(volume("m.mrc"), volume("m_half_a.mrc"), mask)[1:5].min() > 0.9
    assert read_volume(Path("m.mrc"))[1] == pytest.approx(
        read_volume(folder / "run" / "mean.mrc")[1]
    )


def test_several_points_in_groups_give_the_same_maps(folder, capsys):
    points = points_file(folder, 4)
    assert regression(folder / "run", f"-o one --zfile {points}") == 0
    assert "1 pass over the particles, 4 maps in each" in capsys.readouterr().out
    # The least memory that one map takes is named when there is less.
    assert regression(folder / "run", f"-o none --zfile {points} --memory 8M") == 2
    error = capsys.readouterr().err
    least = int(re.search(r"--memory (\d+)M", error.split("give")[1])[1])
    assert error.strip().count("\n") == 0 and not Path("none").exists()
    assert regression(folder / "run", f"-o two --zfile {points} --memory {least}M") == 0
    assert re.search(
        r"[234] passes over the particles, [12] maps? in each", capsys.readouterr().out
    )
    for name in [f"vol_00{i}{part}.mrc" for i in range(1, 5) for part in ("", "_half_b")]:
        a, b = volume(f"one/{name}"), volume(f"two/{name}")
        assert (a - b).abs().max() < 1e-4 * a.abs().max()
    different = (volume("one/vol_001.mrc") - volume("one/vol_004.mrc")).abs().max()
    assert different > 1e-2 * volume("one/vol_001.mrc").abs().max()
    assert np.loadtxt("one/z_values.txt").shape == (4, 2)


def test_a_point_without_particles_is_refused_with_their_number(folder, capsys):
    assert regression(folder / "run", "-o m.mrc -z 40 0") == 2
    error = capsys.readouterr().err
    assert "latent point 1 (40 0): 0 particles are near it, at least 6 are wanted" in error
    assert "centers.txt" in error and "--min-particles" in error
    assert error.strip().count("\n") == 0
    assert not list(Path().iterdir())
    assert regression(folder / "run", "-o m.mrc -z 0 0 --min-particles 601") == 2
    assert "at least 601" in capsys.readouterr().err


def test_latents_of_a_file_take_the_place_of_a_run(folder):
    truth = np.load(folder / "set" / "truth" / "conformations.npy", allow_pickle=False)
    np.save("angle.npy", truth.astype(np.float32)[:, None])
    low, high = np.quantile(truth, [0.1, 0.9])
    Path("angles.txt").write_text(f"{low}\n{high}\n")
    line = "--zfile angles.txt --latents angle.npy"
    assert regression(folder / "set.frz", f"-o store {line}") == 0
    assert regression(folder / "run", f"-o run {line}") == 0
    true = [volume(str(path)) for path in sorted((folder / "set" / "truth").glob("vol_*.mrc"))]
    known = np.load(folder / "set" / "truth" / "volume_conformations.npy", allow_pickle=False)
    for out in ("store", "run"):
        for number, angle in ((1, low), (2, high)):
            ours = volume(f"{out}/vol_00{number}.mrc")
            curves = torch.stack([fsc(ours, other)[1:7].mean() for other in true])
            assert abs(known[int(curves.argmax())] - angle) < 0.3 * (known.max() - known.min())


@pytest.mark.parametrize(
    ("model", "line", "message"),
    [
        ("run", "-o m.mrc -z 0", "1 values per point, the model has zdim 2"),
        ("set.frz", "-o m.mrc -z 0", "is a store; give --latents"),
        ("set", "-o m.mrc -z 0", "a run folder, or a store and --latents, is wanted"),
        ("run", "-o m.mrc -z 0 0 --latents none.npy", "none.npy: no such file"),
        ("run", "-o m.mrc -z 0 0 --latents short.npy", "(3, 2) values, (600, Z) wanted"),
        ("run", "-o m.mrc -z 0 0 --latents text.npy", "is not a table of numbers"),
        ("run", "-o m.mrc -z 0 0 --latents holes.npy", "row 7 (0-based) is not finite"),
        ("run", "-o m.mrc -z 0 0 --mask small.mrc", "--mask small.mrc"),
        ("run", "-o m.mrc -z 0 0 -d 15", "-d 15"),
        ("run", "-o m.mrc -z 0 0 -c config.json", "--maps decoder only"),
        ("run", "-o m.mrc --z-start 0 0 --z-end 1 1", "give a folder"),
    ],
)
def test_bad_requests_are_one_line_and_leave_nothing(folder, capsys, model, line, message):
    from frazil.io.mrc_writer import write_volume

    np.save("short.npy", np.zeros((3, 2)))
    Path("text.npy").write_text("no numbers")
    holes = np.zeros((PARTICLES, 2))
    holes[7] = np.nan
    np.save("holes.npy", holes)
    write_volume(Path("small.mrc"), np.ones((8, 8, 8)), 1.0)
    before = sorted(Path().iterdir())
    assert regression(folder / model, line) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert sorted(Path().iterdir()) == before


def test_half_maps_that_are_there_are_kept_without_overwrite(folder, capsys):
    Path("m_half_b.mrc").write_bytes(b"precious")
    assert regression(folder / "run", "-o m.mrc -z 0 0") == 2
    assert "m_half_b.mrc: is there already" in capsys.readouterr().err
    assert Path("m_half_b.mrc").read_bytes() == b"precious"
    assert regression(folder / "run", "-o m.mrc -z 0 0 --overwrite") == 0
    assert volume("m_half_b.mrc").shape == (16, 16, 16)


def test_flags_of_regression_are_refused_for_the_decoder(folder, capsys):
    line = "-o m.mrc -z 0 0 --min-particles 5"
    assert main(["eval_vol", str(folder / "run"), *line.split()]) == 2
    assert "--min-particles: of use with --maps regression only" in capsys.readouterr().err


def test_a_store_that_is_gone_is_named(folder, tmp_path, capsys):
    import shutil

    shutil.copytree(folder / "run", "moved")
    config = json.loads(Path("moved/config.json").read_text())
    Path("moved/config.json").write_text(json.dumps(config | {"store": "gone.frz"}))
    assert regression(Path("moved"), "-o m.mrc -z 0 0") == 2
    assert "gone.frz: no such store" in capsys.readouterr().err


def test_a_run_of_the_neural_engine_is_served_too(folder):
    line = f"train_vae {folder}/set.frz --zdim 2 -n 1 --enc-dim 8 --dec-dim 8 -o vae"
    assert main(line.split()) == 0
    z = np.load("vae/z.1.npy", allow_pickle=False)
    point = " ".join(f"{value:.6g}" for value in np.median(z, 0))
    assert regression(Path("vae"), f"-o m.mrc -z {point}") == 0
    mean = volume(str(folder / "run" / "mean.mrc"))
    assert fsc(volume("m.mrc"), mean)[1:5].min() > 0.8
