"""MLP, the ensemble that evaluates several in one product, and the Polyak average."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from smac_lab.nets import MLP, OUTPUT_SCALE, EnsembleMLP, polyak_update


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def test_mlp_by_hand() -> None:
    net = MLP(2, [2], 1)
    first, last = net[0], net[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
        first.bias.copy_(torch.tensor([0.5, -5.0]))
        last.weight.copy_(torch.tensor([[-2.0, 3.0]]))
        last.bias.fill_(1.0)
    # (3, 1): relu(2.5, 1) -> -5 + 3 + 1;  (0, 1): relu(-0.5, -5) -> 1, so the output itself has no relu
    torch.testing.assert_close(net(torch.tensor([[3.0, 1.0], [0.0, 1.0]])), torch.tensor([[-1.0], [1.0]]))


def test_mlp_acts_on_the_last_axis() -> None:
    net = MLP(3, [5, 4], 2)
    assert [type(layer) for layer in net] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    inputs = torch.randn(4, 6, 3)
    outputs = net(inputs)
    assert outputs.shape == (4, 6, 2)
    torch.testing.assert_close(outputs[1, 2], net(inputs[1, 2]))


def test_small_output_starts_near_zero() -> None:
    last = [MLP(3, [50], 40, small_output=small)[-1] for small in (True, False)]
    for parameter in last[0].parameters():
        assert 0.5 * OUTPUT_SCALE < parameter.abs().max() <= OUTPUT_SCALE
    assert next(last[1].parameters()).abs().max() > 10 * OUTPUT_SCALE


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)], ids=str)
def test_ensemble_equals_separate_mlps(members: int, shape: tuple[int, ...]) -> None:
    net = EnsembleMLP(members, 6, [8, 7], 3)
    inputs = torch.randn(*shape, 6)
    outputs = net(inputs)
    assert outputs.shape == (members, *shape, 3)
    for k in range(members):
        hidden = inputs
        for layer in range(3):
            hidden = functional.linear(hidden, net.weights[layer][k].T, net.biases[layer][k, 0])
            hidden = hidden.relu() if layer < 2 else hidden
        torch.testing.assert_close(outputs[k], hidden)


def test_ensemble_members_are_independent() -> None:
    net = EnsembleMLP(2, 3, [4], 1)
    net(torch.randn(5, 3))[0].sum().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[1].any()
    assert all(weight.grad[0].any() for weight in net.weights)
    assert not torch.equal(net.weights[0][0], net.weights[0][1])


def test_ensemble_starts_like_linear_layers() -> None:
    net = EnsembleMLP(2, 16, [400], 400)
    for layer, fan_in in enumerate((16, 400)):
        for parameter in (net.weights[layer], net.biases[layer]):
            bound = 1 / math.sqrt(fan_in)
            assert 0.9 * bound < parameter.abs().max() <= bound


@pytest.mark.parametrize("make", [lambda: MLP(3, [4], 2), lambda: EnsembleMLP(2, 3, [4], 2)], ids=["mlp", "ensemble"])
def test_polyak_is_an_exponential_average(make: type[nn.Module]) -> None:
    target, source, tau, times = make(), make(), 0.1, 7
    start, fixed = copy.deepcopy(target), copy.deepcopy(source)
    for _ in range(times):
        polyak_update(target, source, tau)
    left = (1 - tau) ** times
    for new, old, goal, untouched in zip(
        target.parameters(), start.parameters(), source.parameters(), fixed.parameters(), strict=True
    ):
        torch.testing.assert_close(new, left * old + (1 - left) * goal)
        assert torch.equal(goal, untouched)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_polyak_limits(tau: float) -> None:
    target, source = MLP(3, [4], 2), MLP(3, [4], 2)
    expected = copy.deepcopy(source if tau else target).state_dict()
    polyak_update(target, source, tau)
    assert all(torch.equal(value, expected[name]) for name, value in target.state_dict().items())


def test_critics_tell_actions_apart_whose_values_bf16_would_round_to_the_same():
    """Values near -100 that differ by less than 0.5, which is as far as bf16 tells them apart."""
    torch.manual_seed(0)
    net = EnsembleMLP(2, 3, (64, 64), 1)
    with torch.no_grad():
        net.biases[-1].fill_(-100.0)
        inputs = torch.randn(200, 3)
        exact = net(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = net(inputs)
    assert rounded.dtype == exact.dtype == torch.float32
    assert (exact.bfloat16() - exact).abs().max() > 0.1, "bf16 alone would lose these differences"
    assert (rounded - exact).abs().max() < 0.01
