"""frazil backproject_voxel."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.cli.main import main
from frazil.io.mrc import read_volume
from frazil.io.pickles import write_pickle
from frazil.metrics.fsc import fsc
from frazil.simulate.dataset import simulate_dataset
from frazil.simulate.settings import SimulateSettings

IMAGES, BOX_PX = 300, 32


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a simulated set, particles.frz packed from its .star beside it."""
    folder = tmp_path_factory.mktemp("backproject") / "set"
    settings = SimulateSettings(num=IMAGES, box_px=BOX_PX, motion="none", snr=2.0, outliers=0.0)
    simulate_dataset(settings, folder)
    star, store = str(folder / "particles.star"), str(folder / "particles.frz")
    assert main(["preprocess", star, "-o", store]) == 0
    return folder


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def backproject(*arguments: str | Path) -> int:
    return main(["backproject_voxel", *map(str, arguments), "-o", "out"])


def volume(name: str = "backproject.mrc", folder: str = "out") -> torch.Tensor:
    return torch.from_numpy(read_volume(Path(folder) / name)[0])


def test_a_store_gives_the_map_of_its_structure(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backproject(particles / "particles.frz") == 0
    truth = torch.from_numpy(read_volume(particles / "truth" / "vol_000.mrc")[0])
    curve = fsc(volume(), truth)
    assert curve[1:10].min() > 0.9
    names = {path.name for path in Path("out").iterdir()}
    maps = {"backproject.mrc", "half_map_a.mrc", "half_map_b.mrc"}
    assert names == maps | {"backproject.json", "fsc-plot.png", "fsc-vals.txt", "poses.png"}
    written = np.loadtxt("out/fsc-vals.txt")
    again = fsc(volume("half_map_a.mrc"), volume("half_map_b.mrc"))
    np.testing.assert_allclose(written[:, 2], again, atol=1e-5)
    facts = json.loads(Path("out/backproject.json").read_text())
    assert facts["particles"] == [IMAGES // 2, IMAGES // 2]
    assert f"resolution at FSC=0.143: {facts['resolution_ang']['0.143']:.3f} A" in (
        capsys.readouterr().out
    )
    assert read_volume(Path("out/backproject.mrc"))[1] == pytest.approx(facts["pixel_size_ang"])


def test_raw_images_with_pickles_give_what_the_store_gives(particles: Path) -> None:
    pickles = ["--poses", particles / "poses.pkl", "--ctf", particles / "ctf.pkl"]
    assert backproject(particles / "particles.mrcs", *pickles) == 0
    from_pickles = volume()
    assert Path("out/particles.frz").is_dir()
    assert backproject(particles / "particles.frz", "--overwrite") == 0
    scale = float(volume().abs().max())
    torch.testing.assert_close(from_pickles, volume(), atol=2e-3 * scale, rtol=0)


def test_a_selection_and_a_smaller_box_are_taken(particles: Path) -> None:
    write_pickle(Path("ind.pkl"), np.arange(40, 240))
    store = particles / "particles.frz"
    assert backproject(store, "--ind", "ind.pkl", "--first", "101", "-D", "24", "-b", "7") == 0
    assert json.loads(Path("out/backproject.json").read_text())["particles"] == [51, 50]
    assert volume().shape == (24, 24, 24)


def test_half_maps_and_their_fsc_can_be_left_out(particles: Path) -> None:
    store = particles / "particles.frz"
    assert backproject(store, "--no-half-maps", "--first", "50") == 0
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"backproject.mrc", "backproject.json", "poses.png"}
    assert backproject(store, "--no-fsc-vals", "--first", "50", "--overwrite") == 0
    assert Path("out/half_map_a.mrc").is_file()
    assert not Path("out/fsc-vals.txt").exists()


def test_the_stored_half_sets_are_those_of_the_input(particles: Path) -> None:
    assert backproject(particles / "particles.frz", "--half-set", "stored") == 0
    truth = np.load(particles / "truth" / "truth.npz", allow_pickle=False)["half_set"]
    facts = json.loads(Path("out/backproject.json").read_text())
    assert facts["particles"] == [(truth == 1).sum(), (truth == 2).sum()]


def test_lazy_is_accepted_and_said_to_change_nothing(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backproject(particles / "particles.frz", "--lazy", "--first", "20") == 0
    assert "--lazy no longer changes anything" in capsys.readouterr().out


def test_a_complete_map_is_kept_without_overwrite(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = particles / "particles.frz"
    assert backproject(store, "--first", "20") == 0
    before = Path("out/backproject.mrc").read_bytes()
    assert backproject(store) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert Path("out/backproject.mrc").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mrcs"], "none.mrcs: no such file"),
        (["SET/particles.mrcs"], "holds no poses; give --poses"),
        (["SET/particles.frz", "--poses", "short.pkl"], "short.pkl"),
        (["SET/particles.frz", "--ind", "far.pkl"], "far.pkl"),
        (["SET/particles.frz", "-D", "31"], "-D 31"),
        (["SET/particles.frz", "--reg-weight", "-1"], "--reg-weight"),
        (["SET/particles.frz", "--first", "0"], "--first"),
    ],
)
def test_bad_requests_are_one_line_and_give_no_map(
    particles: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    write_pickle(Path("short.pkl"), np.tile(np.eye(3), (5, 1, 1)))
    write_pickle(Path("far.pkl"), np.array([0, IMAGES]))
    assert backproject(*(word.replace("SET", str(particles)) for word in arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not list(Path().rglob("*.mrc"))


def test_the_hand_agrees_between_its_halves_as_well_as_with_cryodrgn(shared_data: Path) -> None:
    # cryoDRGN 4.3.1, backproject_voxel hand.mrcs --poses hand_rot.pkl --uninvert-data, column
    # NoMask of its fsc-vals.txt: 0.95, 0.82 and 0.62 at shells 9, 18 and 30.
    real = shared_data / "real"
    given = ["--poses", real / "hand_rot.pkl", "--uninvert-data"]
    assert backproject(real / "hand.mrcs", *given) == 0
    curve = np.loadtxt("out/fsc-vals.txt")[:, 2]
    for shell, theirs in ((9, 0.95), (18, 0.82), (30, 0.62)):
        assert curve[shell] > theirs - 0.005


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").touch()
    assert backproject(particles / "particles.frz") == 2
    captured = capsys.readouterr()
    assert "out: is a file" in captured.err
    assert "back-projecting" not in captured.out


def test_cache_copies_a_store_and_the_next_run_reads_nothing_from_it(
    particles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path("particles.frz")
    shutil.copytree(particles / store, store)
    assert backproject(store, "--cache", "fast") == 0
    whole, said = volume(), capsys.readouterr().out
    assert ".tier: holds 0 B of" in said and "0 B read here" in said
    (store / "shards").rename(store / "aside")
    assert backproject(store, "--overwrite") == 2  # positive control: the store alone cannot
    assert "a shard is lost" in capsys.readouterr().err
    assert backproject(store, "--overwrite", "--cache", "fast") == 0
    assert "0 B from the store, 0 B copied" in capsys.readouterr().out
    assert torch.equal(volume(), whole)
    # Raw particles are packed into the same folder, as ever.
    assert backproject(particles / "particles.star", "--overwrite", "--cache", "fast") == 0
    assert Path("fast/particles.frz/manifest.json").is_file()
