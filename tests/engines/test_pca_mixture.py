"""The mixture of a run's latents: theorems of its EM, and what it finds."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal

from frazil.cli.main import main
from frazil.engines.pca import mixture as engine
from frazil.engines.pca.mixture import Mixture, Statistics
from frazil.engines.pca.mixture_files import fit_mixture, read_mixture
from frazil.engines.pca.mixture_settings import MixtureSettings
from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.runs.folder import Run

FLOOR = 1e-3


def seen(latents: np.ndarray, seed: int, information: float = 8.0) -> Statistics:
    """Return what images say of latents (n, K), whose precisions differ in size and direction."""
    rng = np.random.Generator(np.random.PCG64(seed))
    count, zdim = latents.shape
    root = rng.standard_normal((count, zdim, zdim)) * np.sqrt(information / zdim)
    precision = np.einsum("nij,nkj->nik", root, root) + 0.05 * np.eye(zdim)
    noise = np.einsum(
        "nij,nj->ni", np.linalg.cholesky(precision), rng.standard_normal((count, zdim))
    )
    product = np.einsum("nij,nj->ni", precision, latents) + noise
    whole = precision + np.eye(zdim)
    mean = np.linalg.solve(whole, product[:, :, None])[:, :, 0]
    return Statistics.of(mean.astype(np.float32), whole.astype(np.float32))


def states(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return latents (count, 3) of three states, and the state of each."""
    rng = np.random.Generator(np.random.PCG64(seed))
    centres = np.array([[1.5, 0, 0], [-1.0, 1.0, 0], [-0.5, -1.5, 0.3]])
    labels = rng.choice(3, count, p=[0.5, 0.3, 0.2])
    return centres[labels] + 0.15 * rng.standard_normal((count, 3)), labels


def agreement(found: np.ndarray, truth: np.ndarray) -> float:
    table = np.zeros((found.max() + 1, truth.max() + 1))
    np.add.at(table, (found, truth), 1)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(truth)


def some_mixture() -> Mixture:
    rng = np.random.Generator(np.random.PCG64(3))
    root = rng.standard_normal((3, 3, 3))
    covariances = np.einsum("cij,ckj->cik", root, root) + 0.1 * np.eye(3)
    return Mixture(np.array([0.2, 0.5, 0.3]), rng.standard_normal((3, 3)), covariances)


def test_responsibilities_and_evidence_are_those_of_noisy_points():
    # exp(-z'Gz/2 + b'z) is N(z; a, G^-1) up to a constant, a = G^-1 b: points a with known noise.
    data, mixture = seen(states(40, 0)[0], 1), some_mixture()
    found = engine.expect(mixture, data)
    for n in range(len(data)):
        precision = data.precision[n].astype(np.float64) - np.eye(3)
        covariance = np.linalg.inv(precision)
        point = covariance @ data.product[n]
        constant = point @ data.product[n] / 2 + np.linalg.slogdet(2 * np.pi * covariance)[1] / 2
        terms = mixture.weights * np.array(
            [
                multivariate_normal(mean, own + covariance).pdf(point)
                for mean, own in zip(mixture.means, mixture.covariances, strict=True)
            ]
        )
        assert found.evidence[n] == pytest.approx(np.log(terms.sum()) + constant, abs=1e-6)
        np.testing.assert_allclose(found.responsibilities[n], terms / terms.sum(), atol=1e-5)
        best = [
            np.linalg.solve(
                np.linalg.inv(own) + precision, np.linalg.solve(own, mean) + data.product[n]
            )
            for mean, own in zip(mixture.means, mixture.covariances, strict=True)
        ]
        np.testing.assert_allclose(found.means[n], terms / terms.sum() @ best, atol=1e-5)


def test_moments_are_those_of_a_slow_twin():
    data, mixture = seen(states(30, 0)[0], 1), some_mixture()
    found = engine.expect(mixture, data)
    wanted = [np.zeros(3), np.zeros((3, 3)), np.zeros((3, 3, 3))]
    for n in range(len(data)):
        for c in range(3):
            inverse = np.linalg.inv(mixture.covariances[c])
            own = np.linalg.inv(data.precision[n].astype(np.float64) - np.eye(3) + inverse)
            mean = own @ (data.product[n] + inverse @ mixture.means[c])
            share = found.responsibilities[n, c]
            for total, part in zip(wanted, (1, mean, own + np.outer(mean, mean)), strict=True):
                total[c] += share * part
    for ours, theirs in zip(found.moments, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("floor", [FLOOR, 0.5])
def test_the_penalised_log_likelihood_never_falls(floor, monkeypatch):
    monkeypatch.setattr(engine, "TOLERANCE", -np.inf)
    data = seen(states(300, 0)[0], 1, 3.0)
    mixture, curve = engine.improve(engine.start(data, 5, floor, 0), data, floor, 60)
    assert len(curve) == 60
    assert (np.diff(curve) > -1e-10).all()
    assert curve[-1] > curve[0] + 0.01
    assert np.linalg.eigvalsh(mixture.covariances).min() > floor * (1 - 1e-9)


def test_three_states_are_found_and_their_number_too():
    latents, truth = states(1500, 0)
    data = seen(latents, 1, 20.0)
    assert engine.chosen_components(engine.choose(data, FLOOR, 2, 0)) == 3
    mixture = engine.fit(data, 3, FLOOR, 3, 0)
    np.testing.assert_allclose(mixture.weights, [0.5, 0.3, 0.2], atol=0.04)
    np.testing.assert_allclose(mixture.means[0], [1.5, 0, 0], atol=0.1)
    found = engine.expect(mixture, data)
    ours = agreement(found.responsibilities.argmax(1), truth)
    assert ours > 0.9
    assert agreement(np.random.Generator(np.random.PCG64(0)).permutation(truth), truth) < 0.5
    plain = ((data.means - latents) ** 2).sum()
    assert ((found.means - latents) ** 2).sum() < 0.6 * plain


def test_gaussian_latents_need_one_gaussian():
    latents = np.random.Generator(np.random.PCG64(0)).standard_normal((2000, 2))
    data = seen(latents, 1)
    assert engine.chosen_components(engine.choose(data, FLOOR, 2, 0)) == 1
    mixture = engine.fit(data, 1, FLOOR, 1, 0)
    np.testing.assert_allclose(mixture.means[0], 0, atol=0.1)
    np.testing.assert_allclose(mixture.covariances[0], np.eye(2), atol=0.15)


def test_images_that_say_nothing_keep_the_variance_of_the_prior():
    zdim = 3
    data = Statistics.of(
        np.zeros((50, zdim), np.float32), np.tile(np.eye(zdim, dtype=np.float32), (50, 1, 1))
    )
    mixture = engine.fit(data, 1, FLOOR, 1, 0)
    np.testing.assert_allclose(mixture.covariances[0], np.eye(zdim), atol=1e-6)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a folder with the files of a finished run that a mixture needs."""
    data = seen(states(400, 0)[0], 1, 20.0)
    np.save(tmp_path / "z.npy", data.means.astype(np.float32))
    np.save(tmp_path / "precisions.npy", data.precision)
    found = Run(tmp_path, {"program": "frazil train_pca"})
    found.write_config()
    return found


def test_a_mixture_is_read_back_and_does_not_depend_on_chance(run, capsys):
    settings = MixtureSettings(components="3", restarts=2)
    said: list[str] = []
    made = fit_mixture(run, settings, said.append)
    assert any("mixture of 3" in line for line in said)
    assert main(["mixture", str(run.path), "--components", "3", "--restarts", "2"]) == 0
    found = read_mixture(run)
    assert found is not None
    assert np.array_equal(found.labels, made.labels) and np.array_equal(found.z, made.z)
    assert np.array_equal(found.mixture.covariances, made.mixture.covariances)
    figures = json.loads((run.path / "mixture.json").read_text())
    assert figures["components"] == 3 and sum(figures["weights"]) == pytest.approx(1)
    with np.load(run.path / "mixture.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["responsibilities"].sum(1), 1, atol=1e-5)


def test_what_cannot_be_fitted_is_named(run, tmp_path):
    with pytest.raises(InputError, match="--components 0"):
        MixtureSettings(components="0")
    with pytest.raises(InputError, match="too few"):
        fit_mixture(run, MixtureSettings(components="200"), print)
    np.save(run.path / "z.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(CorruptDataError, match=r"precisions\.npy"):
        fit_mixture(run, MixtureSettings(), print)
    (run.path / "z.npy").unlink()
    with pytest.raises(MissingFileError, match=r"z\.npy"):
        fit_mixture(run, MixtureSettings(), print)
    (run.path / "mixture.npz").write_bytes(b"PK")
    with pytest.raises(CorruptDataError, match=r"mixture\.npz"):
        read_mixture(run)
