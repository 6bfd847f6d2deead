"""General networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

OUTPUT_SCALE = 3e-3  # bound of an actor's initial last layer: first actions are near zero


class MLP(nn.Sequential):
    """ReLU network `in_dim -> hidden... -> out_dim` on the last axis, `(..., in_dim) -> (..., out_dim)`.

    Args:
        in_dim, hidden, out_dim: sizes of the layers.
        small_output: start the last layer uniform in +-0.003.
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
        """Return outputs in the inputs' precision, whatever the products'."""
        rows = input.reshape(-1, input.shape[-1])  # ReLU in place on a view would copy gradients layer by layer
        return super().forward(rows).to(input.dtype).reshape(*input.shape[:-1], -1)


class EnsembleMLP(nn.Module):
    """Independent MLPs, in one batched product per layer."""

    def __init__(self, members: int, in_dim: int, hidden: Sequence[int], out_dim: int):
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for n_in, n_out in itertools.pairwise([in_dim, *hidden, out_dim]):
            bound = 1.0 / math.sqrt(n_in)  # as nn.Linear
            self.weights.append(nn.Parameter(torch.empty(members, n_in, n_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, n_out).uniform_(-bound, bound)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return every member's outputs, `(..., in_dim)` to `(members, ..., out_dim)`."""
        members = self.biases[0].shape[0]
        hidden = inputs.reshape(1, -1, inputs.shape[-1]).expand(members, -1, -1)
        last = len(self.weights) - 1
        for layer in range(last):  # torch 2.8 does not compile a zip of the two lists
            hidden = torch.baddbmm(self.biases[layer], hidden, self.weights[layer]).relu_()
        if hidden.dtype == inputs.dtype:
            outputs = torch.baddbmm(self.biases[last], hidden, self.weights[last])
        else:  # bf16 rounds -100 to the nearest 0.5, and two actions differ by less: the last layer is exact
            weights = self.weights[last].mT.unsqueeze(-3)  # (members, 1, out_dim, n_in); faster than a thin product
            outputs = (hidden.to(inputs.dtype).unsqueeze(-2) * weights).sum(-1) + self.biases[last]
        return outputs.reshape(members, *inputs.shape[:-1], outputs.shape[-1])


class Standardise(nn.Module):
    """(x - mean) / std in the columns of observations; the identity until `fit`.

    The offline phase begins by fitting every `Standardise` in the parts, custom parts included. A part's `state_dict`
    contains mean and std.

    Args:
        width: size of the inputs.
        starts: first columns of the observations in the inputs.
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, width: int, starts: Sequence[int] = (0,)):
        super().__init__()
        self.starts = tuple(starts)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("fitted", torch.zeros(()))

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation, `(obs_dim,)` or `(seed, obs_dim)`."""
        for start in self.starts:
            self.mean[..., start : start + mean.shape[-1]] = mean
            self.std[..., start : start + std.shape[-1]] = std
        self.fitted.fill_(1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardise `(..., width)`."""
        return (inputs - self.mean) / self.std


@torch.no_grad()
def start_as_authors(net: MLP | EnsembleMLP, output_scale: float) -> None:
    """Redraw initial weights as the authors' code (rlkit's `fanin_init`), from PyTorch's global stream.

    Hidden layers are uniform in +-1/sqrt(n_out) (PyTorch uses n_in), with biases of 0. The last layer and its bias are
    uniform in +-`output_scale`.
    """
    if isinstance(net, EnsembleMLP):
        layers = [(weight, bias, weight.shape[-1]) for weight, bias in zip(net.weights, net.biases, strict=True)]
    else:
        layers = [(layer.weight, layer.bias, len(layer.weight)) for layer in net if isinstance(layer, nn.Linear)]
    for weight, bias, n_out in layers[:-1]:
        weight.uniform_(-1.0 / math.sqrt(n_out), 1.0 / math.sqrt(n_out))
        bias.zero_()
    for last in layers[-1][:2]:
        last.uniform_(-output_scale, output_scale)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Update target <- (1 - tau) target + tau source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
