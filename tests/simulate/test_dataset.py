"""The written set agrees with its truth, is repeatable, and has the noise asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.cli.main import main
from frazil.errors import InputError, OutputExistsError
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import read_volume
from frazil.io.pickles import read_ctf, read_poses
from frazil.metrics.poses import rotation_angle_deg
from frazil.simulate.dataset import Simulation, build_simulation, simulate_dataset
from frazil.simulate.noise import EMPTY, ICE, JUNK
from frazil.simulate.settings import SimulateSettings
from tests.reference import projection as twin
from tests.reference.ctf import ctf as ctf_twin

CLEAN = float("inf")


def read_all(path: Path) -> np.ndarray:
    table = open_particles(path)
    with open_images(table) as images:
        return images.read(np.arange(len(table)))


def ctf_of(row: np.void, kx: np.ndarray, ky: np.ndarray, box_px: int) -> np.ndarray:
    names = ["defocus_u_ang", "defocus_v_ang", "astigmatism_deg", "voltage_kv", "cs_mm"]
    names += ["amplitude_contrast", "phase_shift_deg"]
    parameters = {name: float(row[name]) for name in names}
    box_ang = box_px * row["pixel_size_ang"]
    pairs = zip(kx / box_ang, ky / box_ang, strict=True)
    return np.array([ctf_twin(sx, sy, **parameters) for sx, sy in pairs])


def observed(simulation: Simulation) -> np.ndarray:
    return np.concatenate(list(simulation.observed_blocks(simulation.clean_variance())))


def clean(simulation: Simulation) -> np.ndarray:
    return simulation.clean_images(np.arange(len(simulation.draw)))


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set of 45 images of 24 px in two stacks, rows of the .star shuffled."""
    out = tmp_path_factory.mktemp("simulated") / "set"
    settings = SimulateSettings(num=45, box_px=24, stacks=2, shuffle_star=True, seed=3)
    simulate_dataset(settings, out)
    return out


@pytest.fixture(scope="module")
def truth(small_set: Path) -> dict[str, np.ndarray]:
    with np.load(small_set / "truth" / "truth.npz") as file:
        return dict(file)


def check_rows(rows: np.ndarray, truth: dict[str, np.ndarray], order: np.ndarray) -> None:
    apix_ang = truth["ctf"][0, 0]
    assert np.allclose(rows["rotation"], truth["rotation"][order], atol=2e-6)
    assert np.allclose(rows["shift_ang"], truth["shift_px"][order] * apix_ang, atol=1e-5)
    names = ["pixel_size_ang", "defocus_u_ang", "defocus_v_ang", "astigmatism_deg", "voltage_kv"]
    names += ["cs_mm", "amplitude_contrast", "phase_shift_deg"]
    for column, name in enumerate(names):
        assert np.allclose(rows[name], truth["ctf"][order, column], rtol=1e-6, atol=1e-5), name
    assert np.array_equal(rows["half_set"], truth["half_set"][order])


def test_cryosparc_file_says_what_the_truth_says(small_set: Path, truth: dict) -> None:
    table = open_particles(small_set / "particles.cs")
    check_rows(table.rows, truth, np.arange(45))
    assert np.array_equal(table.rows["uid"], truth["uid"])
    assert len(set(truth["uid"].tolist())) == 45 and truth["uid"].min() > 0
    assert (table.blob_sign, table.box_px) == (1, 24)


def test_relion_file_says_what_the_truth_says_though_its_rows_are_shuffled(
    small_set: Path, truth: dict
) -> None:
    table = open_particles(small_set / "particles.star")
    order = truth["star_order"]
    assert sorted(order) == list(range(45)) and list(order) != list(range(45))
    check_rows(table.rows, truth, order)
    by_star = read_all(small_set / "particles.star")
    by_cs = read_all(small_set / "particles.cs")
    assert np.array_equal(by_star, by_cs[order])
    assert not np.array_equal(by_star, by_cs)


def test_cryodrgn_pickles_say_what_the_truth_says(small_set: Path, truth: dict) -> None:
    rotation, translation = read_poses(small_set / "poses.pkl", 45)
    ctf = read_ctf(small_set / "ctf.pkl", 45)
    assert np.allclose(rotation, truth["rotation"], atol=1e-6)
    assert np.allclose(translation, truth["shift_px"] / 24, atol=1e-6)
    assert np.all(ctf[:, 0] == 24)
    assert np.allclose(ctf[:, 1:], truth["ctf"], rtol=1e-6)


def test_true_volume_projected_with_the_written_pose_and_ctf_is_the_image(tmp_path: Path) -> None:
    settings = SimulateSettings(
        num=4, box_px=32, snr=CLEAN, motion="composition", states=2, sigma_ang=12.0, shift_px=1.5
    )
    simulate_dataset(settings, tmp_path / "set")
    rows = open_particles(tmp_path / "set" / "particles.star").rows
    images = read_all(tmp_path / "set" / "particles.star").astype(np.float64)
    states = np.load(tmp_path / "set" / "truth" / "conformations.npy").astype(int)
    assert set(states) == {0, 1}
    kx, ky = twin.disc(32, 16)
    for row, image, state in zip(rows, images, states, strict=True):
        volume, apix_ang = read_volume(tmp_path / "set" / "truth" / f"vol_{state:03d}.mrc")
        assert apix_ang == pytest.approx(row["pixel_size_ang"])
        central = twin.volume_slice(
            volume.astype(np.float64), row["rotation"].astype(np.float64), kx, ky
        )
        t_px = row["shift_ang"] / apix_ang
        centred = twin.image_transform(image, kx, ky) * np.exp(
            -2j * np.pi * (kx * t_px[0] + ky * t_px[1]) / 32
        )
        expected = -central * ctf_of(row, kx, ky, 32)
        assert np.abs(centred - expected).max() < 2e-4 * np.abs(central).max()


def test_continuous_motion_volumes_are_the_grid_of_angles(tmp_path: Path) -> None:
    settings = SimulateSettings(num=3, box_px=16, snr=CLEAN, swing_deg=60, volumes=4)
    simulate_dataset(settings, tmp_path)
    angles = np.load(tmp_path / "truth" / "volume_conformations.npy")
    assert angles.tolist() == [-30, -10, 10, 30]
    simulation = build_simulation(settings)
    for i, angle in enumerate(angles):
        volume, _ = read_volume(tmp_path / "truth" / f"vol_{i:03d}.mrc")
        assert np.array_equal(volume, simulation.volume(angle))
    assert len(list((tmp_path / "truth").glob("vol_*.mrc"))) == 4


@pytest.mark.parametrize("noise", ["white", "coloured"])
def test_noise_has_the_variance_that_the_snr_asks_for(noise: str) -> None:
    settings = SimulateSettings(num=300, box_px=32, snr=0.2, noise=noise, contrast_std=0.2)
    simulation = build_simulation(settings)
    signal = clean(simulation)
    difference = observed(simulation) - signal
    ratio = signal.var(axis=(1, 2)).mean() / difference.var()
    assert ratio == pytest.approx(0.2, rel=0.03)
    assert abs(difference.mean()) < 0.02 * difference.std()


def test_optics_groups_have_their_own_noise_and_one_snr_together(tmp_path: Path) -> None:
    settings = SimulateSettings(num=400, box_px=24, snr=0.2, group_noise=(1.0, 3.0))
    simulation = build_simulation(settings)
    signal, group = clean(simulation), simulation.draw.optics_group
    noise = (observed(simulation) - signal).var(axis=(1, 2))
    assert 150 < np.count_nonzero(group) < 250
    assert noise[group == 1].mean() / noise[group == 0].mean() == pytest.approx(9, rel=0.05)
    balanced = (noise[group == 0].mean() + noise[group == 1].mean()) / 2
    assert signal.var(axis=(1, 2)).mean() / balanced == pytest.approx(0.2, rel=0.05)
    simulate_dataset(settings, tmp_path / "set")
    for name in ("particles.star", "particles.cs"):
        rows = open_particles(tmp_path / "set" / name).rows
        assert np.array_equal(rows["optics_group"], group), name


def test_errors_of_poses_and_shifts_are_in_the_files_and_not_in_the_images(tmp_path: Path) -> None:
    right = SimulateSettings(num=600, box_px=16)
    wrong = SimulateSettings(num=600, box_px=16, pose_error_deg=5.0, shift_error_px=2.0)
    simulate_dataset(right, tmp_path / "right")
    simulate_dataset(wrong, tmp_path / "wrong")
    stack = "particles.mrcs"
    assert (tmp_path / "right" / stack).read_bytes() == (tmp_path / "wrong" / stack).read_bytes()
    with np.load(tmp_path / "wrong" / "truth" / "truth.npz") as file:
        truth = dict(file)
    true = torch.from_numpy(truth["rotation"])
    for name in ("particles.star", "particles.cs"):
        rows = open_particles(tmp_path / "wrong" / name).rows
        told = torch.from_numpy(rows["rotation"].astype(np.float64))
        angle = rotation_angle_deg(true, told)
        assert float((angle**2).mean().sqrt()) == pytest.approx(5.0, rel=0.1)
        error_px = rows["shift_ang"] / truth["ctf"][0, 0] - truth["shift_px"]
        assert np.allclose(error_px.std(0), 2.0, rtol=0.1)
    rotation, translation = read_poses(tmp_path / "wrong" / "poses.pkl", 600)
    rows = open_particles(tmp_path / "wrong" / "particles.cs").rows
    assert np.allclose(rotation, rows["rotation"], atol=1e-5)
    assert np.allclose(translation * 16, rows["shift_ang"] / truth["ctf"][0, 0], atol=1e-4)
    none = build_simulation(right).draw
    assert np.allclose(none.told_rotation, none.rotation, atol=1e-12)
    assert np.array_equal(none.told_shift_px, none.shift_px)


@pytest.mark.parametrize("concentration", [0.0, 4.0])
def test_preferred_views_have_the_density_asked_for(concentration: float) -> None:
    draw = build_simulation(SimulateSettings(num=20000, preferred=concentration)).draw
    views = draw.rotation[:, 2]  # the direction of view in the model's frame
    t = np.linspace(0, 1, 100_001)
    density = np.exp(concentration * t**2)
    for power in (2, 4):
        expected = (density * t**power).sum() / density.sum()
        assert (views[:, 2] ** power).mean() == pytest.approx(expected, abs=0.01)
    assert np.abs(views.mean(0)).max() < 0.03
    assert abs((views[:, 0] ** 2 - views[:, 1] ** 2).mean()) < 0.01
    assert np.abs(draw.rotation[:, :2, :].mean(0)).max() < 0.03  # in-plane angles uniform
    assert np.allclose(draw.rotation @ draw.rotation.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.linalg.det(draw.rotation).min() > 0.99


def test_motions_of_several_angles_and_mixtures_are_written_with_their_truth(
    tmp_path: Path,
) -> None:
    cases = {
        "linker": (SimulateSettings(num=5, box_px=16, motion="linker", volumes=4), (5, 3), 4),
        "mixture": (SimulateSettings(num=5, box_px=16, motion="mixture", states=3), (5,), 3),
    }
    for name, (settings, shape, count) in cases.items():
        simulate_dataset(settings, tmp_path / name)
        truth = tmp_path / name / "truth"
        assert np.load(truth / "conformations.npy").shape == shape
        wanted = np.load(truth / "volume_conformations.npy")
        volumes = [read_volume(truth / f"vol_{i:03d}.mrc")[0] for i in range(count)]
        assert len(wanted) == count and len(list(truth.glob("vol_*.mrc"))) == count
        simulation = build_simulation(settings)
        assert np.array_equal(volumes[1], simulation.volume(wanted[1]))
        flat = np.stack([volume.reshape(-1) for volume in volumes])
        assert np.corrcoef(flat)[np.triu_indices(count, 1)].max() < 0.99


def test_coloured_noise_falls_with_frequency_and_white_noise_does_not() -> None:
    falls = {}
    for noise in ("white", "coloured"):
        settings = SimulateSettings(num=100, box_px=32, snr=0.2, noise=noise)
        simulation = build_simulation(settings)
        power = np.abs(np.fft.fft2(observed(simulation) - clean(simulation))) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
        low = power[:, (frequency > 0) & (frequency < 0.1)].mean()
        falls[noise] = low / power[:, frequency > 0.4].mean()
    assert falls["white"] == pytest.approx(1, rel=0.1)
    assert falls["coloured"] > 2


def test_same_settings_give_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    settings = SimulateSettings(num=70, box_px=16, outliers=0.2, contrast_std=0.1)
    for name, threads in (("one", 1), ("again", 1), ("two", 2)):
        torch.set_num_threads(threads)
        simulate_dataset(settings, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) > 8
    for file in files:
        if file.suffix != ".npz":  # a zip archive holds the time
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    again = (tmp_path / "again" / "particles.mrcs").read_bytes()
    assert again == (tmp_path / "one" / "particles.mrcs").read_bytes()
    other = build_simulation(SimulateSettings(num=70, box_px=16, seed=1))
    assert not np.allclose(observed(other), read_all(tmp_path / "one" / "particles.cs"), atol=1.0)


def test_image_of_a_row_does_not_depend_on_which_rows_come_along() -> None:
    settings = SimulateSettings(num=40, box_px=16, snr=CLEAN, outliers=0.3, noise="coloured")
    simulation = build_simulation(settings)
    together = clean(simulation)
    alone = np.concatenate([simulation.clean_images(np.array([row])) for row in range(40)])
    assert np.abs(together - alone).max() < 1e-5 * np.abs(together).max()
    larger = build_simulation(SimulateSettings(num=60, box_px=16, snr=CLEAN))
    assert np.abs(clean(larger)[:40] - together).max() < 1e-5 * np.abs(together).max()


def test_particles_are_light_with_and_without_a_ctf() -> None:
    plain = build_simulation(SimulateSettings(num=20, box_px=32, snr=CLEAN, ctf=False))
    images = clean(plain)
    assert (images[:, 12:20, 12:20].mean(axis=(1, 2)) > images[:, 0].mean(axis=1)).all()
    with_ctf = clean(build_simulation(SimulateSettings(num=20, box_px=32, snr=CLEAN)))
    correlation = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, with_ctf, strict=True)
    ]
    assert min(correlation) > 0
    assert (with_ctf.mean(axis=(1, 2)) > 0).all()


def test_images_without_a_ctf_come_without_ctf_metadata(tmp_path: Path) -> None:
    simulate_dataset(SimulateSettings(num=3, box_px=16, ctf=False), tmp_path)
    assert not (tmp_path / "ctf.pkl").exists()
    for name in ("particles.star", "particles.cs"):
        table = open_particles(tmp_path / name)
        assert "defocus_u_ang" in table.missing_ctf_columns
        assert table.has_pose


def test_outliers_are_flagged_and_look_like_what_they_are() -> None:
    settings = SimulateSettings(num=300, box_px=24, snr=0.1, outliers=0.4)
    simulation = build_simulation(settings)
    images, kinds = observed(simulation), simulation.draw.outlier
    noise_std = simulation.noise_std(simulation.clean_variance())
    assert 0.3 < (kinds != 0).mean() < 0.5
    assert {0, EMPTY, ICE, JUNK} == set(kinds.tolist())
    spread = images.std(axis=(1, 2)) / noise_std
    assert abs(spread[kinds == EMPTY].mean() - 1) < 0.02
    assert images[kinds == EMPTY].mean() < 0.02 * noise_std
    for kind in (ICE, JUNK):
        assert images[kinds == kind].mean() > 0.1 * noise_std
    residue = (images - clean(simulation))[kinds == 0]
    assert residue.std() == pytest.approx(noise_std, rel=0.02)


def test_contrast_scales_each_image_by_its_recorded_gain() -> None:
    even = build_simulation(SimulateSettings(num=300, box_px=16, snr=CLEAN))
    varied = build_simulation(SimulateSettings(num=300, box_px=16, snr=CLEAN, contrast_std=0.3))
    gain = varied.draw.gain
    assert np.allclose(clean(varied), clean(even) * gain[:, None, None], rtol=1e-4, atol=1e-3)
    assert np.log(gain).std() == pytest.approx(0.3, rel=0.1)
    assert gain.mean() == pytest.approx(1, abs=0.05)


def test_complete_set_is_refused_and_overwritten_only_when_asked(tmp_path: Path) -> None:
    simulate_dataset(SimulateSettings(num=6, box_px=16, stacks=3), tmp_path)
    before = (tmp_path / "particles_000.mrcs").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        simulate_dataset(SimulateSettings(num=6, box_px=16, seed=1), tmp_path)
    assert (tmp_path / "particles_000.mrcs").read_bytes() == before
    (tmp_path / "mine.txt").write_text("kept")
    simulate_dataset(SimulateSettings(num=6, box_px=16, seed=1, overwrite=True), tmp_path)
    assert not list(tmp_path.glob("particles_*.mrcs"))
    assert (tmp_path / "particles.mrcs").exists()
    assert (tmp_path / "mine.txt").exists()


def test_settings_that_cannot_be_leave_a_complete_set_as_it_was(tmp_path: Path) -> None:
    simulate_dataset(SimulateSettings(num=3, box_px=16), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="-D 17"):
        simulate_dataset(SimulateSettings(num=3, box_px=17, overwrite=True), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["particles.mrcs", "particles.star", "poses.pkl"])
def test_particles_of_others_are_replaced_only_when_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=f"{name}: exists already, and is of no simulated"):
        simulate_dataset(SimulateSettings(num=3, box_px=16), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    simulate_dataset(SimulateSettings(num=3, box_px=16, overwrite=True), tmp_path)
    assert (tmp_path / "simulation.json").exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out: is a file"):
        simulate_dataset(SimulateSettings(num=3, box_px=16), tmp_path / "out")


def test_interrupted_set_is_not_taken_for_a_complete_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Simulation, coordinate: float) -> np.ndarray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Simulation, "volume", stop)
        with pytest.raises(KeyboardInterrupt):
            simulate_dataset(SimulateSettings(num=4, box_px=16), tmp_path)
    assert not (tmp_path / "simulation.json").exists()
    simulate_dataset(SimulateSettings(num=4, box_px=16), tmp_path)
    assert json.loads((tmp_path / "simulation.json").read_text())["settings"]["num"] == 4


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"box_px": 17}, "-D 17"),
        ({"num": 3, "stacks": 4}, "--stacks 4"),
        ({"apix_ang": -1.0}, "--apix"),
        ({"sigma_ang": 0.0}, "--sigma"),
        ({"moving": "A"}, "--moving"),
        ({"motion": "mixture", "structure": "a.pdb"}, "--motion mixture"),
        ({"molecule": "assembly", "structure": "a.pdb"}, "--molecule assembly"),
        ({"motion": "mixture", "state_weights": (1.0, 2.0)}, "--state-weights: 12 states"),
        ({"group_noise": (1.0, 0.0)}, "--group-noise"),
        ({"preferred": -1.0}, "--preferred"),
        ({"states": 0}, "--states"),
        ({"defocus_um": (2.0, 1.0)}, "--defocus-um"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_flag(
    tmp_path: Path, settings: dict, flag: str
) -> None:
    with pytest.raises(InputError, match=flag):
        simulate_dataset(SimulateSettings(**settings), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_molecule_past_the_window_is_noted(tmp_path: Path) -> None:
    tight = simulate_dataset(SimulateSettings(num=1, box_px=32, apix_ang=3.0), tmp_path / "tight")
    roomy = simulate_dataset(SimulateSettings(num=1, box_px=32), tmp_path / "roomy")
    assert "past 0.85 of the half box" in tight["notes"][0]
    assert not roomy["notes"]


def test_command_writes_a_set_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "-n", "5", "-D", "16", "--snr", "inf", "--motion", "composition"]
    arguments += ["--states", "2", "--state-weights", "3", "1", "--defocus-um", "1", "2"]
    assert main([*arguments, "-o", str(tmp_path / "set")]) == 0
    assert "5 images of 16 px" in capsys.readouterr().out
    assert len(read_all(tmp_path / "set" / "particles.star")) == 5
    assert main([*arguments, "-o", str(tmp_path / "set")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["simulate", "-D", "15", "-o", str(tmp_path / "odd")]) == 2


def test_antibody_is_imaged_per_residue_and_per_atom_alike(shared_data: Path) -> None:
    structure = str(shared_data / "structures" / "1hzh.pdb")
    images = {}
    for coarse in ("residue", "atom"):
        settings = SimulateSettings(
            num=4,
            structure=structure,
            coarse=coarse,
            moving="H,L/1-228",
            apix_ang=5.0,
            sigma_ang=6.0,
            snr=CLEAN,
        )
        images[coarse] = clean(build_simulation(settings))
    difference = np.linalg.norm(images["residue"] - images["atom"])
    assert difference < 0.1 * np.linalg.norm(images["atom"])
