"""The residual MLP that encoder and decoder share.

Owns: the layers and how their weights begin. Does not own: what goes in and comes out.
"""

import torch
from torch import Tensor, nn

ACTIVATIONS = ("relu", "leaky_relu")


class ResidualMLP(nn.Module):
    """Linear, activation, L times (x + Linear(x), activation), Linear.

    Weights and biases begin as in torch's `Linear`, uniform in +-1/sqrt(fan-in), drawn from the
    given generator only.

    Parameters
    ----------
    in_dim, hidden_dim, out_dim : sizes.
    layers : L, the number of residual layers; >= 0.
    activation : one of ACTIVATIONS.
    generator : source of the first weights, on the CPU.

    References
    ----------
    Zhong et al., Nat. Methods 18, 176 (2021), Methods, "CryoDRGN architecture".
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        layers: int,
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.activation = activation
        sizes = [(hidden_dim, in_dim), *[(hidden_dim, hidden_dim)] * layers, (out_dim, hidden_dim)]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for rows, columns in sizes:
            bound = columns**-0.5
            weight = torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
            bias = torch.empty(rows).uniform_(-bound, bound, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))

    def forward(self, x: Tensor) -> Tensor:
        """Return (M, out_dim) for (M, in_dim)."""
        first = nn.functional.linear(x, self.weights[0], self.biases[0])
        return self.after_first(first)

    def silence(self, rows: int | None = None) -> None:
        """Set the last layer to 0, or its first `rows` outputs."""
        with torch.no_grad():
            self.weights[-1][:rows] = 0
            self.biases[-1][:rows] = 0

    def after_first(self, first: Tensor) -> Tensor:
        """Return the output (M, out_dim), given what the first Linear returned (..., H).

        `first` is overwritten, and must not be a view. Each residual layer is one matrix product:
        x + W x + b = (W + 1) x + b.
        """
        hidden = self._activate(first).flatten(0, -2)  # (M, H): no views, so no copies for autograd
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            skip = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
            hidden = self._activate(nn.functional.linear(hidden, weight + skip, bias))
        return nn.functional.linear(hidden, self.weights[-1], self.biases[-1])

    def _activate(self, x: Tensor) -> Tensor:
        if self.activation == "relu":
            return nn.functional.relu(x, inplace=True)
        return nn.functional.leaky_relu(x, inplace=True)
