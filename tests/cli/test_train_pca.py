"""frazil train_pca, and the commands that take its run."""

from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.mrc import read_volume

FIT = ["--zdim", "2", "--low-iterations", "3", "--low-radius", "6"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a set and a run of it, fitted from the .star."""
    folder = tmp_path_factory.mktemp("train_pca")
    line = f"simulate -n 200 -D 16 --snr 1 --swing 90 -o {folder}/set"
    assert main(line.split()) == 0
    star = f"{folder}/set/particles.star"
    assert main(["train_pca", star, *FIT, "-o", f"{folder}/run"]) == 0
    return folder


def test_a_run_holds_maps_latents_plots_and_the_table(made):
    names = {path.name for path in (made / "run").iterdir()}
    wanted = "mean.mrc component_1.mrc component_2.mrc half_map_a.mrc half_map_b.mrc mask.mrc "
    wanted += "z.npy precisions.npy fsc.png eigenvalues.png reliability.txt reliability.json "
    wanted += "config.json metrics.jsonl rows.npy particles.frz"
    assert not set(wanted.split()) - names
    assert np.load(made / "run" / "z.npy", allow_pickle=False).shape == (200, 2)


def test_eval_vol_at_zero_is_the_mean(made, tmp_path):
    out = str(tmp_path / "v.mrc")
    assert main(["eval_vol", str(made / "run"), "-o", out, "-z", "0", "0"]) == 0
    volume, pixel_size_ang = read_volume(Path(out))
    mean, wanted_pixel = read_volume(made / "run" / "mean.mrc")
    assert pixel_size_ang == pytest.approx(wanted_pixel)
    assert np.corrcoef(volume.ravel(), mean.ravel())[0, 1] > 0.99
    assert main(["eval_vol", str(made / "run"), "-o", f"{tmp_path}/w.mrc", "-z", "0"]) == 2


def test_analyze_writes_its_report(made):
    line = "--ksample 3 --pc 1 --n-per-pc 3 --skip-umap -o"
    out = made / "analysis"
    assert main(["analyze", str(made / "run"), *line.split(), str(out)]) == 0
    text = (out / "report.html").read_text()
    assert "train_pca" in text and "encoder" not in text
    assert len(list((out / "kmeans3").glob("vol_*.mrc"))) == 3


def test_a_mixture_takes_the_place_of_k_means(made, tmp_path):
    store, run = str(made / "run" / "particles.frz"), tmp_path / "run"
    assert main(["train_pca", store, *FIT, "-o", str(run), "--mixture", "2"]) == 0
    line = f"analyze {run} --pc 0 --skip-umap --ksample 3 -o"
    assert main([*line.split(), f"{run}/a"]) == 0
    assert len(list((run / "a" / "mixture2").glob("vol_*.mrc"))) == 2
    assert "mean of each component" in (run / "a" / "report.html").read_text()
    assert main([*line.split(), f"{run}/b", "--no-mixture"]) == 0
    assert len(list((run / "b" / "kmeans3").glob("vol_*.mrc"))) == 3


def test_a_finished_run_is_refused_and_overwrite_begins_anew(made, tmp_path, capsys):
    store, run = str(made / "run" / "particles.frz"), str(tmp_path / "run")
    command = ["train_pca", store, *FIT, "-o", run]
    assert main(command) == 0
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_overwrite_leaves_nothing_of_the_former_run_that_the_new_one_does_not_write(made, tmp_path):
    store, run = str(made / "run" / "particles.frz"), tmp_path / "run"
    former = ["--zdim", "3", "--contrast", "--mixture", "2"]
    assert main(["train_pca", store, *FIT, *former, "-o", str(run)]) == 0
    only_former = [run / name for name in ("component_3.mrc", "contrast.npy", "mixture.npz")]
    assert all(path.is_file() for path in only_former)
    (run / "mine.txt").write_text("kept")
    assert main(["train_pca", store, *FIT, "-o", str(run), "--overwrite"]) == 0
    assert not any(path.exists() for path in only_former)
    assert (run / "mine.txt").read_text() == "kept"
    assert main(["analyze", str(run), "--ksample", "2", "--pc", "1"]) == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--memory", "10M"], "--memory"),
        (["--zdim", "0"], "--zdim"),
        (["--padding", "3"], "--padding"),
        (["--mask", "none.mrc"], "none.mrc"),
        (["--mixture", "some"], "--components some"),
        (["-D", "32"], "-D 32"),
    ],
)
def test_a_wrong_request_is_one_line_with_exit_code_2(made, tmp_path, capsys, flags, named):
    store = str(made / "run" / "particles.frz")
    assert main(["train_pca", store, *FIT, "-o", str(tmp_path / "run"), *flags]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert named in said[-1] and "Traceback" not in said[-1]
    assert not (tmp_path / "run" / "config.json").exists()
