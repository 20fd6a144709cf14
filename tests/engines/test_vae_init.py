"""Training that begins at a run of train_pca: the start is that run, and steps go on from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frazil.analysis.volumes import TrainedGrid, evaluate_volume
from frazil.cli.main import main
from frazil.engines.load import load_model
from frazil.engines.plan import image_operations
from frazil.engines.vae import loop
from frazil.engines.vae.measure import training_rate
from frazil.engines.vae.settings import VaeSettings
from frazil.engines.vae.state import Training
from frazil.engines.vae.step import batch_losses, centred_images, training_step
from frazil.engines.vae.volumes import insertion_weights, joined_plane
from frazil.engines.vae.warm import with_components
from frazil.errors import InputError, OutputExistsError
from frazil.geometry.ctf import ctf
from frazil.geometry.packing import half_disc
from frazil.geometry.rotations import random_rotations, slice_coordinates
from frazil.geometry.slicing import extract, extract_many, half_grid_from_volume, insert
from frazil.models.basis import GridVolumes
from frazil.models.config import ModelConfig
from frazil.models.losses import reconstruction_error
from frazil.models.vae import VAE
from frazil.runs.checkpoint import load_checkpoint
from frazil.runs.folder import Run
from tests.engines.vae_case import begin, make_settings

BOX_PX, COUNT, COMPONENTS = 16, 160, 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store p.frz and a run of train_pca, pca."""
    folder = tmp_path_factory.mktemp("init")
    line = f"simulate -n {COUNT} -D {BOX_PX} --snr 0.5 --swing 120 -o {folder}/set"
    assert main(line.split()) == 0
    assert main(f"preprocess {folder}/set/particles.star -o {folder}/p.frz".split()) == 0
    fit = f"--zdim {COMPONENTS} --low-iterations 3 --low-radius 6"
    assert main(f"train_pca {folder}/p.frz {fit} -o {folder}/pca".split()) == 0
    return folder


def settings_of(made: Path, **changes: Any) -> VaeSettings:
    changes = {"init": str(made / "pca"), "batch_size": 16, "epochs": 2, **changes}
    return with_components(make_settings(made / "p.frz", **{"poses": None, "ctf": None, **changes}))


def start(made: Path, out: Path, **changes: Any) -> Training:
    torch.set_num_threads(1)
    return begin(out, settings_of(made, **changes))


def first_batch(training: Training) -> Any:
    return next(iter(training.loader.epoch(1)))


@pytest.mark.parametrize("lanes", [1, 3])
def test_slices_of_many_grids_are_those_of_each(lanes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(lanes, 12, 12, 12, generator=generator)
    grids = torch.stack([half_grid_from_volume(volume) for volume in volumes])
    disc, rotations = half_disc(12), random_rotations(5, generator).float()
    holder = GridVolumes(disc, lanes, trained=False)
    holder.set_grids(grids)
    assert torch.equal(holder.grids, grids)
    points = slice_coordinates(rotations, disc.kx.float(), disc.ky.float())
    found = extract_many(holder.lanes, holder.shape, points)
    for lane, grid in enumerate(grids):
        torch.testing.assert_close(found[..., lane], extract(grid, points))


def test_the_gradient_of_slices_is_the_adjoint_insertion() -> None:
    generator = torch.Generator().manual_seed(0)
    disc, rotations = half_disc(12), random_rotations(4, generator)
    holder = GridVolumes(disc, 2, trained=True).double()
    points = slice_coordinates(rotations, disc.kx.double(), disc.ky.double())
    outer = torch.randn(*points.shape[:2], 2, generator=generator, dtype=torch.complex128)
    found = extract_many(holder.lanes, holder.shape, points)
    torch.autograd.backward((found * outer.conj()).real.sum())
    assert holder.lanes.grad is not None
    parts = holder.lanes.grad.view(*holder.shape, 2, 2)
    for lane in range(2):
        wanted = torch.zeros(holder.shape, dtype=torch.complex128)
        insert(wanted, points, outer[..., lane].contiguous())
        torch.testing.assert_close(torch.complex(parts[..., 0, lane], parts[..., 1, lane]), wanted)


def test_the_gradient_of_the_loss_is_its_finite_difference(made: Path, tmp_path: Path) -> None:
    training = start(made, tmp_path, decoder="basis")
    model, batch = training.model, first_batch(training)
    centred, transfer = centred_images(model, batch)
    rotations = batch.rotations.double()
    basis = model.decoder.basis.double()
    assert transfer is not None
    coefficients = model.decoder.coefficients(torch.full((len(rotations), 2), 0.4)).double()

    def loss() -> torch.Tensor:
        predicted = basis.on_slices(rotations, coefficients.detach())
        return reconstruction_error(
            predicted, transfer.double(), centred.to(torch.complex128)
        ).mean()

    torch.autograd.backward(loss())
    gradient = basis.lanes.grad
    assert gradient is not None
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        basis.lanes += 1e-4 * direction
        above = loss()
        basis.lanes -= 2e-4 * direction
        slope = (above - loss()) / 2e-4
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder": "basis"},
        {"decoder": "basis", "basis_volumes": 5},
        {"decoder": "mlp"},
    ],
)
def test_the_start_is_the_linear_model(made: Path, tmp_path: Path, changes: Any) -> None:
    training = start(made, tmp_path / "run", zdim=COMPONENTS, **changes)
    batch, model = first_batch(training), training.model
    result = batch_losses(model, batch, None)
    pca = Run.open(made / "pca")
    place = {int(row): i for i, row in enumerate(pca.rows())}
    chosen = [place[int(row)] for row in batch.rows]
    wanted = np.load(made / "pca" / "z.npy", allow_pickle=False)[chosen]
    np.testing.assert_allclose(result.mu.detach().numpy(), wanted, atol=1e-4)
    precision = np.load(made / "pca" / "precisions.npy", allow_pickle=False)[chosen]
    variance = np.diagonal(np.linalg.inv(precision), axis1=1, axis2=2)
    np.testing.assert_allclose(result.logvar.detach().exp().numpy(), variance, rtol=1e-3)
    linear, config = load_model(made / "pca")
    grid, z = TrainedGrid.from_config(config), torch.tensor([0.5, -1.0, 0.3])
    found = evaluate_volume(model.eval(), z, grid)
    theirs = evaluate_volume(linear, z, grid)
    assert np.abs(found - theirs).max() < 0.02 * np.abs(theirs).max()


@pytest.mark.parametrize("changes", [{"decoder": "basis"}, {"decoder": "mlp"}])
def test_stop_and_restart_change_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any
) -> None:
    loop.train(start(made, tmp_path / "whole", **changes))
    step, count = loop.training_step, 0

    class Kill(BaseException):
        pass

    def disturbed(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 14:
            raise Kill
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", disturbed)
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(Kill):
            loop.train(start(made, tmp_path / "again", **changes))
    loop.train(start(made, tmp_path / "again", **changes))
    for name in ("weights.1", "weights.2", "checkpoint"):
        ours, _ = load_checkpoint(tmp_path / "again" / f"{name}.safetensors")
        theirs, _ = load_checkpoint(tmp_path / "whole" / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_eval_vol_and_analyze_take_the_run(made: Path, tmp_path: Path) -> None:
    for decoder in ("basis", "mlp"):
        run = tmp_path / decoder
        loop.train(start(made, run, decoder=decoder, epochs=1))
        out = str(tmp_path / f"{decoder}.mrc")
        assert main(["eval_vol", str(run), "-o", out, "-z", "0", "0"]) == 0
        line = f"analyze {run} --pc 1 --n-per-pc 2 --skip-umap --ksample 2"
        assert main(line.split()) == 0
        assert (run / "analyze.1" / "report.html").is_file()


def test_weights_are_the_insertion_of_squared_ctfs(made: Path, tmp_path: Path) -> None:
    training = start(made, tmp_path, decoder="basis")
    loader = training.loader
    columns, disc = loader.columns, loader.disc
    grid = torch.zeros(GridVolumes(disc, 1, trained=False).shape, dtype=torch.complex128)
    rotations = columns.rotations.double()
    points = slice_coordinates(rotations, disc.kx.double(), disc.ky.double())
    assert columns.ctf_parameters is not None
    squared = ctf(disc.kx, disc.ky, columns.ctf_parameters.double(), disc.box_px) ** 2
    insert(grid, points, squared.to(torch.complex128))
    parts = torch.view_as_real(grid)[..., None]
    wanted = joined_plane(parts)[..., 0, 0].reshape(-1) / COUNT
    found = insertion_weights(loader)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"init": None, "decoder": "basis"}, "--init"),
        ({"zdim": COMPONENTS + 1}, "--zdim"),
        ({"box_px": 12}, "-D 16"),
    ],
)
def test_what_cannot_begin_is_named(
    made: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    from frazil.engines.vae.start import check_request

    with pytest.raises(InputError, match=named):
        check_request(tmp_path, settings_of(made, **changes), False)
        start(made, tmp_path, **changes)


def test_another_run_of_train_pca_is_no_continuation(made: Path, tmp_path: Path) -> None:
    loop.train(start(made, tmp_path / "run", epochs=1))
    fit = f"--zdim {COMPONENTS} --low-iterations 2 --low-radius 6"
    assert main(f"train_pca {made}/p.frz {fit} -o {tmp_path}/other".split()) == 0
    with pytest.raises(OutputExistsError, match="--init"):
        start(made, tmp_path / "run", epochs=2, init=str(tmp_path / "other"))


def test_steps_of_the_volumes_lower_the_loss(made: Path, tmp_path: Path) -> None:
    training = start(made, tmp_path, decoder="basis", batch_size=COUNT, lr=1e-9)
    batch, model = first_batch(training), training.model
    with torch.no_grad():
        model.decoder.basis.lanes *= 0.3
    losses = [float(batch_losses(model, batch, None).error.detach().mean())]
    before = model.decoder.basis.lanes.detach().clone()
    for _ in range(6):
        training_step(model, training.optimiser, batch, 0.0, training.generator)
        losses.append(float(batch_losses(model, batch, None).error.detach().mean()))
    assert (np.diff(losses) < 0).all()
    assert not torch.equal(before, model.decoder.basis.lanes)


@pytest.mark.parametrize("decoder", ["basis", "mlp"])
def test_the_time_of_a_step_can_be_measured(made: Path, decoder: str) -> None:
    config = settings_of(made, decoder=decoder).model_config()
    rate, _ = training_rate(config, BOX_PX, 4, "cpu", 0.0)
    assert rate > 0
    model = VAE(config, half_disc(BOX_PX), torch.Generator())
    plain = VAE(ModelConfig(zdim=2, enc_dim=12, dec_dim=12), half_disc(BOX_PX), torch.Generator())
    assert image_operations(model) > 0
    if decoder == "basis":
        assert image_operations(model) < image_operations(plain)
