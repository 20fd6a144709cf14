"""The residual MLP: its formula, its first weights."""

import pytest
import torch
from torch import nn

from frazil.models.mlp import ResidualMLP


def _mlp(seed: int = 0, activation: str = "relu", layers: int = 2) -> ResidualMLP:
    return ResidualMLP(5, 7, 3, layers, activation, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_output_is_the_published_formula(activation: str, layers: int) -> None:
    mlp = _mlp(activation=activation, layers=layers).double()
    act = nn.ReLU() if activation == "relu" else nn.LeakyReLU()
    x = torch.randn(4, 5, dtype=torch.float64)
    weights, biases = list(mlp.weights), list(mlp.biases)
    h = act(x @ weights[0].T + biases[0])
    for weight, bias in zip(weights[1:-1], biases[1:-1], strict=True):
        h = act(h + (h @ weight.T + bias))
    torch.testing.assert_close(mlp(x), h @ weights[-1].T + biases[-1], rtol=1e-12, atol=1e-12)


def test_same_seed_gives_the_same_weights_and_another_seed_does_not() -> None:
    first, again, other = _mlp(1), _mlp(1), _mlp(2)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    _mlp()
    assert torch.equal(before, torch.get_rng_state())


def test_first_weights_are_uniform_as_those_of_torch_linear() -> None:
    mlp = ResidualMLP(100, 400, 400, 1, "relu", torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for ours, fan_in in zip(mlp.weights, (100, 400, 400), strict=True):
        theirs = nn.Linear(fan_in, 400).weight
        assert ours.abs().max() <= fan_in**-0.5
        torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.02, atol=0)
        assert abs(float(ours.detach().mean())) < 0.02 * fan_in**-0.5
