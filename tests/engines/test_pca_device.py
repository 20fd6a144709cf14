"""The torch pass of train_pca finds what the compiled one finds, on the processor and on a GPU."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.engines.distributed import Ranks
from frazil.engines.pca import device_pass, loop, start
from frazil.engines.pca.device_pass import DeviceWorker, chunk_images, extract, insert, worker_on
from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.loop import fit_all
from frazil.engines.pca.memory import check_device, device_bytes
from frazil.engines.pca.outputs import final_maps
from frazil.engines.pca.schedule import Plan
from frazil.engines.pca.start import check_request, device_line, rank_device
from frazil.engines.pca.streaming import MakeWorker, PassSums, ProcessorWorker, run_pass
from frazil.errors import BudgetError, InputError
from frazil.geometry.slicing import neighbours
from tests.engines.pca_case import Case, make_case, smooth_grids
from tests.engines.test_pca_fit import begin, make_settings, make_store

CPU = torch.device("cpu")
DEVICES = [
    pytest.param(CPU, id="cpu"),
    pytest.param(
        torch.device("cuda"),
        id="cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    ),
]
Found = tuple[list[PassSums], dict[str, torch.Tensor]]


def in_torch(device: torch.device = CPU, chunk_bytes: int = 1 << 20) -> MakeWorker:
    return partial(DeviceWorker, device=device, chunk_bytes=chunk_bytes)


def passed(
    case: Case, make_worker: MakeWorker, size: int = 16, maximise: bool = True, **changes: bool
) -> Found:
    """Return the sums of two models, each with images of both optics groups, and the posteriors."""
    count, zdim = len(case.everything.rows), len(case.grids) - 1
    models = [0.8 * case.grids, smooth_grids(case.geometry, zdim + 1, 3)]
    fit = replace(case.fit(models, np.arange(count) // 2 % 2), **changes)
    shapes = {"mean": (zdim,), "precision": (zdim, zdim), "contrast": ()}
    kept = {name: torch.zeros(count, *s, dtype=torch.float64) for name, s in shapes.items()}

    def keep(rows, posterior):
        for name, values in kept.items():
            values[rows] = getattr(posterior, name).cpu()

    return run_pass(case.batches(size), fit, maximise, 1, keep, None, make_worker), kept


def assert_alike(case: Case, one: Found, other: Found) -> None:
    """Two passes over a case agree to float32."""
    for a, b in zip(one[0], other[0], strict=True):
        assert a.images == b.images == len(case.everything.rows) // 2
        assert b.evidence == pytest.approx(a.evidence, rel=1e-6)
        assert np.allclose(a.second, b.second, rtol=1e-5, atol=1e-4)
        assert np.allclose(a.power, b.power, rtol=1e-5)
        assert np.array_equal(a.counts, b.counts)
        assert (a.voxels is None) == (b.voxels is None)
        if a.voxels is None:
            continue
        assert a.voxels.images == b.voxels.images == a.images
        assert a.counts[:, 1:].all()
        wanted, found = (part.voxels.symmetric(case.geometry) for part in (a, b))
        scale = np.abs(wanted).max(0)
        assert scale.min() > 0
        assert (np.abs(found - wanted).max(0) < 2e-5 * scale).all()
    for name, wanted in one[1].items():
        assert torch.allclose(other[1][name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize("zdim", [0, 1, 2, 5])
def test_a_pass_in_torch_is_the_compiled_pass(zdim, padding, device):
    case = make_case(60, 12, zdim, padding=padding)
    for one in (case, replace(case, everything=replace(case.everything, ctf_parameters=None))):
        found = passed(one, in_torch(device))
        assert_alike(one, passed(one, ProcessorWorker), found)
        assert zdim == 0 or float(found[1]["mean"].abs().min()) > 0


@pytest.mark.parametrize("device", DEVICES)
def test_so_is_a_pass_with_contrasts_and_one_without_sums(device):
    case = make_case(60, 12, 2)
    found = passed(case, in_torch(device), contrast=True)
    assert_alike(case, passed(case, ProcessorWorker, contrast=True), found)
    assert float((found[1]["contrast"] - 1).abs().min()) > 0
    found = passed(case, in_torch(device), maximise=False)
    assert_alike(case, passed(case, ProcessorWorker, maximise=False), found)
    assert found[0][0].voxels is None


def test_the_comparison_sees_an_image_that_is_lacking():
    # Positive control of the tests above.
    case = make_case(60, 12, 2)
    turned = case.everything.coefficients.clone()
    turned[7] = -turned[7]
    other = replace(case, everything=replace(case.everything, coefficients=turned))
    with pytest.raises(AssertionError):
        assert_alike(case, passed(case, ProcessorWorker), passed(other, in_torch()))


def test_sums_in_torch_do_not_depend_on_chunks_and_batches(monkeypatch):
    case = make_case(60, 12, 2)
    one = passed(case, in_torch(), 60)
    assert chunk_images(3, case.geometry, 1 << 20) > 4
    for chunk_bytes, size in ((1, 60), (1 << 17, 7), (1 << 30, 32)):
        assert_alike(case, one, passed(case, in_torch(CPU, chunk_bytes), size))
    # Also when sums are handed over to float64 in the middle of a pass.
    monkeypatch.setattr(device_pass, "FLUSH_IMAGES", 10)
    monkeypatch.setattr("frazil.engines.pca.sums.FLUSH_IMAGES", 10)
    flushed = passed(case, in_torch(), 7)
    assert flushed[0][0].voxels.total is not None and one[0][0].voxels.total is None
    assert_alike(case, one, flushed)


def test_sums_may_be_looked_at_in_the_middle_of_a_pass():
    case = make_case(60, 12, 2)
    looks = []

    class Look:
        def begin(self, sums):
            assert [part.images for part in sums] == [0]

        def after_batch(self, gathered):
            (part,) = gathered()
            looks.append((part.images, part.voxels.images))

    fit = case.fit([case.grids])
    (one,) = run_pass(case.batches(20), fit, make_worker=in_torch())
    (looked,) = run_pass(case.batches(20), fit, keeper=Look(), make_worker=in_torch())
    assert looks == [(20, 20), (40, 40), (60, 60)]
    scale = np.abs(one.voxels.recent).max()
    assert np.abs(one.voxels.recent - looked.voxels.recent).max() < 1e-5 * scale


@pytest.mark.parametrize("device", DEVICES)
def test_insertion_in_torch_is_the_adjoint_of_extraction(device):
    generator = torch.Generator().manual_seed(0)
    shape = torch.Size((6, 6, 4))
    points = (torch.rand(50, 3, generator=generator) * 2 - 1) * 1.9
    points[:, 0] = points[:, 0].abs()
    lanes = torch.randn(6 * 6 * 4, 5, generator=generator).to(device)
    values = torch.randn(50, 5, generator=generator).to(device)
    index, weight = neighbours(points.to(device), shape)
    sums = torch.zeros_like(lanes)
    insert(sums, index, weight, values)
    there = (extract(lanes, index, weight) * values).double().sum(0)
    assert torch.allclose((lanes * sums).double().sum(0), there, rtol=1e-5)
    assert float(there.abs().min()) > 0.1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("device"), num=200)


@pytest.mark.parametrize("device", DEVICES)
def test_a_fit_in_torch_is_the_compiled_fit(store, tmp_path, monkeypatch, device):
    compiled = begin(tmp_path / "compiled", store)
    wanted = fit_all(compiled)
    makers = []

    def chosen(asked):
        makers.append(asked)
        return in_torch(asked)

    monkeypatch.setattr(loop, "worker_on", chosen)
    fitting = begin(tmp_path / "torch", store)
    fitting.device = device
    found = fit_all(fitting)
    assert set(makers) == {device} and len(makers) > 10
    assert np.abs(found.mean - wanted.mean).max() < 1e-3 * np.abs(wanted.mean).max()
    assert np.abs(found.precision - wanted.precision).max() < 1e-3 * np.abs(wanted.precision).max()
    maps, truth = final_maps(fitting), final_maps(compiled)
    assert float((maps - truth).abs().max()) < 1e-3 * float(truth.abs().max())
    assert fitting.state.step == compiled.state.step


def test_the_device_chooses_the_worker():
    assert worker_on(CPU) is ProcessorWorker
    made = worker_on(torch.device("cuda:1"))
    assert made.func is DeviceWorker and made.keywords == {"device": torch.device("cuda:1")}


def test_ranks_of_a_machine_share_out_its_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [str(rank_device("auto", Ranks(rank, 4, rank % 4))) for rank in range(4)]
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert str(rank_device("cuda:1", Ranks(0, 4, 0))) == "cuda:1"
    assert rank_device("cpu", Ranks(3, 4, 3)) == CPU


def test_a_device_that_is_not_there_is_refused_before_particles_are_read(tmp_path):
    settings = make_settings(tmp_path / "none.frz", device="cuda:99")
    with pytest.raises(InputError, match="--device cuda:99"):
        check_request(tmp_path / "run", settings, False)


def test_a_gpu_without_the_memory_is_refused_with_the_remedy(monkeypatch):
    geometry = Geometry.of(64)
    wanted = device_bytes(geometry, 8)
    voxels = 66 * 66 * 34
    # Of both half sets: 9 complex volumes; 45 weights, 9 right-hand sides, real and imaginary.
    assert wanted > 2 * 4 * voxels * (18 + 45 + 18) + device_pass.CHUNK_BYTES
    check_device(wanted, wanted, "cuda:0")
    with pytest.raises(BudgetError, match=r"--device cuda:0: .* smaller -D or --zdim"):
        check_device(wanted, wanted - 1, "cuda:0")
    monkeypatch.setattr(start.torch.cuda, "mem_get_info", lambda device: (1 << 20, 1 << 34))
    plan = Plan(64, 8, 1, 10, 14, 0)
    with pytest.raises(BudgetError, match="are free"):
        device_line(torch.device("cuda:0"), plan)
    monkeypatch.setattr(start.torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    assert "passes run on cuda:0" in device_line(torch.device("cuda:0"), plan)
