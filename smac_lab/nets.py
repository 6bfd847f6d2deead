"""Networks without meaning of their own: MLPs, and the slow copy of a network that makes targets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

OUTPUT_SCALE = 3e-3  # the last layer of an actor starts this small, so that first actions are near zero


class MLP(nn.Sequential):
    """ReLU network `in_dim -> hidden... -> out_dim` on the last axis, `(..., in_dim) -> (..., out_dim)`.

    Args:
        in_dim: input size.
        hidden: sizes of the hidden layers.
        out_dim: output size.
        small_output: start the last layer uniform in +-0.003 instead of PyTorch's default.
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], out_dim: int, small_output: bool = False):
        sizes = [in_dim, *hidden, out_dim]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
        super().__init__(*layers[:-1])
        if small_output:
            last = layers[-2]
            assert isinstance(last, nn.Linear)
            nn.init.uniform_(last.weight, -OUTPUT_SCALE, OUTPUT_SCALE)
            nn.init.uniform_(last.bias, -OUTPUT_SCALE, OUTPUT_SCALE)

    def forward(self, input: Tensor) -> Tensor:
        """Outputs in the inputs' precision, whatever the products were computed in (see `SMACConfig.precision`)."""
        return super().forward(input).to(input.dtype)


class EnsembleMLP(nn.Module):
    """Independent MLPs, evaluated together in one batched product a layer."""

    def __init__(self, members: int, in_dim: int, hidden: Sequence[int], out_dim: int):
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for n_in, n_out in itertools.pairwise([in_dim, *hidden, out_dim]):
            bound = 1.0 / math.sqrt(n_in)  # PyTorch's default for nn.Linear
            self.weights.append(nn.Parameter(torch.empty(members, n_in, n_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, n_out).uniform_(-bound, bound)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Every member's output for the same inputs, `(..., in_dim)` to `(members, ..., out_dim)`."""
        members = self.biases[0].shape[0]
        hidden = inputs.reshape(1, -1, inputs.shape[-1]).expand(members, -1, -1)
        last = len(self.weights) - 1
        for layer in range(last + 1):  # torch 2.8 does not compile a zip of the two lists
            hidden = torch.baddbmm(self.biases[layer], hidden, self.weights[layer])
            if layer < last:
                hidden = hidden.relu_()
        return hidden.reshape(members, *inputs.shape[:-1], hidden.shape[-1]).to(inputs.dtype)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move the target network towards its source: target <- (1 - tau) target + tau source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
