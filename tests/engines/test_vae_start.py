"""How a run begins: input, selection, refusals; and what is loaded back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.cli.main import main
from frazil.engines.vae.load import load_model
from frazil.engines.vae.loop import train
from frazil.engines.vae.settings import FormerSettings
from frazil.errors import FrazilError, InputError, MissingFileError, OutputExistsError
from frazil.io.pickles import write_pickle
from frazil.runs.folder import Run
from tests.engines.vae_case import BOX_PX, COUNT, begin, make_settings, write_stack, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a complete run of one epoch."""
    outdir = tmp_path_factory.mktemp("run")
    train(begin(outdir, make_settings(store, epochs=1)))
    return outdir


def test_config_says_what_is_needed_to_use_the_run(run: Path, store: Path) -> None:
    config = Run.open(run).config
    assert config["box_px"] == BOX_PX
    assert config["particles"] == COUNT
    assert config["store"] == str(store)
    assert config["pixel_size_ang"] == 4.0
    assert config["norm"][0] == 0
    assert config["norm"][1] > 0
    assert config["settings"]["training"]["lr"] == 1e-3


def test_a_complete_run_is_refused_and_replaced_only_with_overwrite(
    store: Path, tmp_path: Path
) -> None:
    settings = make_settings(store, epochs=1)
    train(begin(tmp_path, settings))
    with pytest.raises(OutputExistsError, match="complete"):
        begin(tmp_path, settings)
    training = begin(tmp_path, settings, overwrite=True)
    assert training.epoch == 1
    assert Run.open(tmp_path).epochs() == []


def test_other_settings_in_the_same_folder_are_refused_by_name(run: Path, store: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"zdim \(was 2, is 3\), lr \(was 0.001, is 0.01\)"):
        begin(run, make_settings(store, zdim=3, lr=0.01, epochs=9))
    for free in ({"log_interval": 5}, {"checkpoint": 2}, {"memory": "1G"}, {"z_pkl": True}):
        assert begin(run, make_settings(store, epochs=2, **free)).epoch == 2


def test_other_particles_in_the_same_folder_are_refused(
    store: Path, tmp_path: Path, run: Path
) -> None:
    write_pickle(tmp_path / "ind.pkl", np.arange(20))
    settings = make_settings(store, epochs=2, ind=str(tmp_path / "ind.pkl"))
    with pytest.raises(OutputExistsError, match="particles, poses, CTF or --ind"):
        begin(run, settings)


def test_weights_of_another_run_can_be_the_beginning(
    run: Path, store: Path, tmp_path: Path
) -> None:
    weights = Run.open(run).weights_path(1)
    settings = make_settings(store, load=str(weights), seed=9)
    model = begin(tmp_path / "a", settings).model
    trained, _ = load_model(weights)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    with pytest.raises(InputError, match=r"weights\.0 has shape"):
        begin(tmp_path / "b", make_settings(store, load=str(weights), enc_dim=13))
    with pytest.raises(InputError, match="--load latest"):
        begin(tmp_path / "c", make_settings(store, load="latest"))


def test_a_model_comes_back_from_a_run_or_from_its_weights_alone(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "w.safetensors"
    moved.write_bytes(Run.open(run).weights_path(1).read_bytes())
    points = torch.randn(5, 3)
    values = []
    for model, config in (load_model(run), load_model(run, 1), load_model(moved)):
        assert config["box_px"] == BOX_PX
        values.append(model.decode_points(points, torch.zeros(2)).detach())
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_what_is_no_model_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no weights of epoch 7; there are: 1"):
        load_model(run, 7)
    with pytest.raises(InputError, match="not a file of weights"):
        load_model(run / "checkpoint.safetensors")
    with pytest.raises(InputError, match="cryoDRGN's weights"):
        load_model(tmp_path / "weights.1.pkl")
    with pytest.raises(MissingFileError):
        load_model(tmp_path)


def test_raw_input_gives_the_training_of_its_store(store: Path, tmp_path: Path) -> None:
    losses = []
    for particles, outdir in ((store, "a"), (store.parent / "particles.mrcs", "b")):
        settings = make_settings(store, particles=str(particles), epochs=1, precision="float32")
        training = begin(tmp_path / outdir, settings)
        train(training)
        np.testing.assert_array_equal(training.run.rows(), np.arange(COUNT))
        losses.append((tmp_path / outdir / "metrics.jsonl").read_text().split('"loss": ')[1][:12])
    assert losses[0] == losses[1]


def test_a_packed_copy_is_used_again_while_the_input_is_unchanged(tmp_path: Path) -> None:
    stack = write_stack(tmp_path)
    settings = make_settings(stack, cache=str(tmp_path / "cache"))
    begin(tmp_path / "a", settings)
    packed = tmp_path / "cache" / "particles.frz" / "manifest.json"
    before = packed.stat().st_mtime_ns
    begin(tmp_path / "b", settings)
    assert packed.stat().st_mtime_ns == before


def test_a_run_with_a_cache_needs_the_store_only_once(tmp_path: Path) -> None:
    store = write_store(tmp_path / "far")
    settings = make_settings(store, cache=str(tmp_path / "near"), epochs=1)
    plain = begin(tmp_path / "plain", make_settings(store, epochs=1))
    train(plain)
    train(begin(tmp_path / "a", settings))
    (store / "shards").rename(store / "aside")
    with pytest.raises(MissingFileError, match="a shard is lost"):  # positive control
        train(begin(tmp_path / "control", make_settings(store, epochs=1)))
    said: list[str] = []
    second = begin(tmp_path / "b", settings, said=said)
    train(second)
    np.testing.assert_array_equal(second.run.latents(1), plain.run.latents(1))
    assert any("0 B from the store" in line for line in said)


def test_a_smaller_box_is_trained_from_the_same_store(store: Path, tmp_path: Path) -> None:
    training = begin(tmp_path, make_settings(store, box_px=12))
    assert training.model.disc.box_px == 12
    assert training.loader.pixel_size_ang == pytest.approx(4 * 16 / 12)
    with pytest.raises(InputError, match="larger than the box"):
        begin(tmp_path / "large", make_settings(store, box_px=32))


def test_images_with_bad_pixels_are_left_out_and_counted(tmp_path: Path) -> None:
    store = write_store(tmp_path, nan_row=7)
    said: list[str] = []
    training = begin(tmp_path / "run", make_settings(store, epochs=1), said=said)
    assert any(line.startswith("rows: ") and "1 dropped (non-finite" in line for line in said), said
    train(training)
    assert 7 not in training.run.rows()
    assert training.run.latents(1).shape == (COUNT - 1, 2)


def test_what_is_unknown_is_said_or_refused(store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    begin(tmp_path / "a", make_settings(store, ctf=None), said=said)
    assert any("training without one" in line for line in said)
    for particles in (store, store.parent / "particles.mrcs"):
        with pytest.raises(InputError, match="holds no poses; give --poses"):
            begin(tmp_path / "b", make_settings(store, particles=str(particles), poses=None))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "tpu"}, "--device tpu"),
        ({"device": "cuda:99"}, "--device cuda:99"),
        ({"norm": (0.0, 0.0)}, "--norm 0 0"),
        ({"pe_type": "none"}, "--pe-type none"),
        ({"particles": "absent.frz"}, "absent.frz"),
        ({"poses": "absent.pkl"}, "absent.pkl"),
        ({"memory": "lots"}, "--memory lots"),
    ],
)
def test_bad_flags_are_refused_in_one_line(
    change: dict[str, object], message: str, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(FrazilError, match=message) as refusal:
        begin(tmp_path, make_settings(store, **change))
    assert "\n" not in str(refusal.value)


def test_poses_of_another_set_are_refused(store: Path, tmp_path: Path) -> None:
    write_pickle(tmp_path / "poses.pkl", np.tile(np.eye(3, dtype=np.float32), (5, 1, 1)))
    with pytest.raises(InputError, match=r"poses\.pkl: 5 rows"):
        begin(tmp_path / "a", make_settings(store, poses=str(tmp_path / "poses.pkl")))


def test_flags_without_effect_say_so() -> None:
    assert FormerSettings().remarks() == []
    given = FormerSettings(preprocessed=True, num_workers=4, multigpu=True)
    remarks = given.remarks()
    assert len(remarks) == 3
    assert all("no effect" in line for line in remarks)


def test_the_command_takes_cryodrgns_flags(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outdir = tmp_path / "run"
    command = f"""train_vae {store.parent / "particles.mrcs"} --poses {store.parent / "poses.pkl"}
        --ctf {store.parent / "ctf.pkl"} --zdim 2 -n 1 -b 16 --lr 1e-3 --beta 0.1 --wd 0.01
        --enc-dim 8 --enc-layers 1 --dec-dim 8 --dec-layers 1 --pe-type gaussian --pe-dim 4
        --feat-sigma 0.5 --enc-mask 6 --checkpoint 1 --log-interval 10 --seed 3 --shuffle-seed 4
        --preprocessed --uninvert-data --window-r 0.8 --no-amp --multigpu --num-workers 2
        --max-threads 1 --shuffler-size 30 --no-analysis -v --device cpu -o {outdir} --norm 0 50"""
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    assert "--multigpu has no effect" in captured.out
    assert "# [Train Epoch: 1/1] [16/44 images] gen loss=" in captured.out
    assert Run.open(outdir).config["norm"] == [0.0, 50.0]
    assert main(command.split()) == 2
    refusal = capsys.readouterr().err.strip().splitlines()[-1]
    assert refusal.startswith("frazil train_vae: error: ")
    assert "is complete" in refusal


def test_load_reads_weights_of_the_folder_that_is_overwritten(store: Path, tmp_path: Path) -> None:
    train(begin(tmp_path, make_settings(store, epochs=1)))
    weights = tmp_path / "weights.1.safetensors"
    trained = load_model(weights)[0].state_dict()
    settings = make_settings(store, epochs=1, load=str(weights))
    training = begin(tmp_path, settings, overwrite=True)
    assert not weights.exists()
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, trained[name])


def test_weights_that_cannot_be_loaded_leave_the_folder_as_it_was(
    store: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingFileError, match="nope"):
        begin(tmp_path / "new", make_settings(store, load="nope.safetensors"))
    assert not (tmp_path / "new").exists()
    train(begin(tmp_path / "run", make_settings(store, epochs=1)))
    with pytest.raises(MissingFileError, match="nope"):
        begin(tmp_path / "run", make_settings(store, load="nope.safetensors"), overwrite=True)
    assert (tmp_path / "run" / "weights.1.safetensors").is_file()


def test_a_kill_before_rows_were_written_is_made_good(store: Path, tmp_path: Path) -> None:
    begin(tmp_path, make_settings(store))
    (tmp_path / "rows.npy").unlink()
    begin(tmp_path, make_settings(store))
    np.testing.assert_array_equal(Run.open(tmp_path).rows(), np.arange(COUNT))


def test_flags_of_packing_are_said_to_do_nothing_for_a_store(store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = make_settings(store, uninvert_data=True, window_r=0.7, precision="float16")
    begin(tmp_path / "flags", settings, said=said)
    (line,) = [line for line in said if "no effect" in line]
    assert line.startswith("--window-r --uninvert-data --precision: no effect")
    said.clear()
    begin(tmp_path / "plain", make_settings(store), said=said)
    assert not [line for line in said if "no effect" in line]


@pytest.mark.parametrize("cache", [None, "cache"])
def test_a_file_in_place_of_the_folder_is_refused(cache: str | None, tmp_path: Path) -> None:
    stack = write_stack(tmp_path / "raw")
    (tmp_path / "cache").touch()
    settings = make_settings(stack, cache=cache and str(tmp_path / cache))
    out = tmp_path / ("run" if cache else "cache")
    with pytest.raises(InputError, match="cache: is a file"):
        begin(out, settings)


def test_a_file_without_particles_is_refused_as_such(tmp_path: Path) -> None:
    star = tmp_path / "none.star"
    star.write_text("data_particles\n\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n")
    with pytest.raises(InputError, match=r"none\.star.*no particles|none\.star.*row"):
        begin(tmp_path / "run", make_settings(star, poses=None, ctf=None))
