"""Actor, critics and their losses in closed form, on stubs simple enough to work out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.nn import functional

from smac_lab import Batch, Noise
from smac_lab.actor_critic import (
    MAX_ACTION,
    Actor,
    Critics,
    awac_loss,
    awac_weights,
    critic_loss,
    log_prob,
    q_loss,
    sample_action,
)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


# -- actor -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (5,)], ids=str)
def test_actor_shapes(shape: tuple[int, ...]) -> None:
    mean, log_std = Actor(3, 2, 4, [8])(torch.randn(*shape, 3), torch.randn(*shape, 4))
    assert mean.shape == log_std.shape == (*shape, 2)


def test_actor_reads_observation_and_z_and_starts_near_zero() -> None:
    actor = Actor(3, 2, 4, [8])
    obs, z = torch.randn(5, 3, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    mean, log_std = actor(obs, z)
    assert max(mean.abs().max(), log_std.abs().max()) < 0.1
    (mean.sum() + log_std.sum()).backward()
    assert obs.grad is not None
    assert obs.grad.any()
    assert z.grad is not None
    assert z.grad.any()


def test_log_std_is_clipped() -> None:
    actor = Actor(1, 3, 1, [4])
    with torch.no_grad():
        list(actor.parameters())[-1].copy_(torch.tensor([0.0, 0.0, 100.0, -1000.0, 1000.0, 0.5]))
        list(actor.parameters())[-2].zero_()
    mean, log_std = actor(torch.zeros(1, 1), torch.zeros(1, 1))
    torch.testing.assert_close(mean, torch.tensor([[0.0, 0.0, 100.0]]))  # means are free
    torch.testing.assert_close(log_std, torch.tensor([[-20.0, 2.0, 0.5]]))


# -- tanh-Gaussian ---------------------------------------------------------------------------------------
def tanh_gaussian(mean: Tensor, log_std: Tensor) -> Any:
    return Independent(TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform()), 1)


def test_log_prob_against_torch_distributions() -> None:
    mean, log_std = (torch.randn(4, 50, 3, dtype=torch.float64) for _ in range(2))
    actions = 0.9999 * (2 * torch.rand_like(mean) - 1)
    torch.testing.assert_close(log_prob(mean, log_std, actions), tanh_gaussian(mean, log_std).log_prob(actions))


def test_density_integrates_to_one() -> None:
    mean, log_std = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([[-0.5]], dtype=torch.float64)
    edges = torch.linspace(-1, 1, 40_001, dtype=torch.float64)
    middles = (0.5 * (edges[1:] + edges[:-1])).unsqueeze(1)
    total = log_prob(mean.expand_as(middles), log_std.expand_as(middles), middles).exp().mean() * 2.0
    assert abs(total - 1.0) < 1e-5


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_log_prob_at_the_bounds(sign: float) -> None:
    """An action of exactly +-1 counts as one of +-0.999999, and gradients stay finite."""
    mean = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    log_std = torch.tensor([[-1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    at_bound = log_prob(mean, log_std, torch.full((1, 2), sign, dtype=torch.float64))
    inside = torch.full((1, 2), sign * MAX_ACTION, dtype=torch.float64)
    torch.testing.assert_close(at_bound, tanh_gaussian(mean, log_std).log_prob(inside), rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(at_bound.sum(), [mean, log_std])
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0].sign() == sign).all()  # the likelier action lies towards the bound


def test_log_prob_near_the_bounds_in_single_precision() -> None:
    actions = torch.tensor([[0.99999], [0.9999989], [1.0]])
    mean, log_std = torch.full((3, 1), 6.0), torch.zeros(3, 1)
    exact = log_prob(mean.double(), log_std.double(), actions.double())
    torch.testing.assert_close(log_prob(mean, log_std, actions).double(), exact, rtol=0, atol=0.05)


def test_sample_action() -> None:
    mean, log_std, noise = torch.randn(100, 2), 0.3 * torch.randn(100, 2), torch.randn(100, 2)
    torch.testing.assert_close(sample_action(mean, log_std, torch.zeros(100, 2)), mean.tanh())
    torch.testing.assert_close(sample_action(mean, log_std, noise), (mean + log_std.exp() * noise).tanh())


# -- critics ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tasks", [1, 3])
def test_critics_equal_separate_mlps(tasks: int) -> None:
    critics = Critics(3, 2, 4, [8, 6])
    obs, act, z = torch.randn(tasks, 5, 3), torch.randn(tasks, 5, 2), torch.randn(tasks, 5, 4)
    values = critics(obs, act, z)
    assert values.shape == (2, tasks, 5)
    for k in range(2):
        hidden = torch.cat([obs, act, z], dim=-1)
        for layer, (weight, bias) in enumerate(zip(critics.net.weights, critics.net.biases, strict=True)):
            hidden = functional.linear(hidden, weight[k].T, bias[k, 0])
            hidden = hidden.relu() if layer < 2 else hidden
        torch.testing.assert_close(values[k], hidden.squeeze(-1))


def test_number_of_critics() -> None:
    assert Critics(3, 2, 4, [8], num_critics=5)(torch.zeros(7, 3), torch.zeros(7, 2), torch.zeros(7, 4)).shape == (5, 7)


# -- AWAC weights ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("awac_lambda", [1.0, 100.0])
@pytest.mark.parametrize(("kind", "expected"), [("exp", [1.0, 2.0, 3.0]), ("softmax", [0.5, 1.0, 1.5])])
def test_awac_weights_by_hand(kind: str, expected: list[float], awac_lambda: float, shape: tuple[int, int]) -> None:
    """lambda divides; the softmax runs over the whole batch, tasks together, and averages one."""
    advantages = awac_lambda * torch.tensor([1.0, 2.0, 3.0]).log().reshape(shape)
    weights = awac_weights(advantages, awac_lambda, kind)
    torch.testing.assert_close(weights, torch.tensor(expected).reshape(shape))


def test_softmax_weights_ignore_a_common_shift_and_never_overflow() -> None:
    advantages = torch.randn(3, 4)
    weights = awac_weights(advantages, 0.5, "softmax")
    torch.testing.assert_close(awac_weights(advantages + 7.0, 0.5, "softmax"), weights)
    torch.testing.assert_close(
        awac_weights(advantages + 7.0, 0.5, "exp"), awac_weights(advantages, 0.5, "exp") * math.exp(14)
    )
    assert awac_weights(1e6 * advantages, 0.5, "softmax").isfinite().all()


# -- losses on stubs -------------------------------------------------------------------------------------
def column(*values: float) -> Tensor:
    """One task, a transition a value, `(1, batch, 1)`."""
    return torch.tensor(values).reshape(1, -1, 1)


def stub(**options: Any) -> Any:
    """An agent of one-dimensional parts: Q_1(s, a, z) = 2 a + s + z and Q_2 = Q_1 + 1; the actor is N(0, 1)."""

    def actor(observations: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(observations), torch.zeros_like(observations)

    def critics(observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        value = (2.0 * actions + observations + z).squeeze(-1)
        return torch.stack([value, value + 1.0])

    numbers = {"discount": 0.9, "reward_scale": 5.0, "awac_lambda": 1.0, "awac_weight": "exp", "max_action": 0.999999}
    numbers |= {name: options.pop(name) for name in set(numbers) & set(options)}
    parts = {"actor": actor, "critics": critics, "target_critics": critics}
    return SimpleNamespace(config=SimpleNamespace(**numbers), **{**parts, **options})


def make_batch(
    observations: Tensor, actions: Tensor, rewards: list[float], terminations: list[float], **noise: Tensor
) -> Batch:
    zeros = torch.zeros_like(actions)
    return Batch(
        observations,
        actions,
        torch.tensor([rewards]),
        observations + 10.0,
        torch.tensor([terminations]),
        torch.zeros(1, 1, 1),
        Noise(**{"z": torch.zeros(1, 1), "action": zeros, "next_action": zeros, **noise}),
    )


def test_critic_loss_by_hand() -> None:
    """Targets: 5 r + 0.9 (1 - terminated) min Q(s + 10, tanh(noise), z), with z = 1 throughout."""
    batch = make_batch(
        column(0.0, 1.0), column(0.5, -0.5), [1.0, 2.0], [0.0, 1.0], next_action=column(math.atanh(0.25), 0.7)
    )
    loss, info = critic_loss(stub(), batch, column(1.0, 1.0))
    targets = [5.0 + 0.9 * (2 * 0.25 + 10.0 + 1.0), 10.0]
    q1 = [2 * 0.5 + 0.0 + 1.0, 2 * -0.5 + 1.0 + 1.0]
    expected = sum(((q1[i] + k - targets[i]) ** 2) / 2 for i in range(2) for k in (0.0, 1.0))
    torch.testing.assert_close(loss, torch.tensor(expected))
    torch.testing.assert_close(info["critic_loss"], loss)
    torch.testing.assert_close(info["target_mean"], torch.tensor(sum(targets) / 2))


def test_second_z_goes_to_the_next_action() -> None:
    """The authors' code draws another z for the next action; the target critics keep the first."""
    seen: dict[str, Tensor] = {}

    def actor(observations: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        seen["actor"] = z
        return torch.zeros_like(observations), torch.zeros_like(observations)

    def target_critics(observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        seen["target_critics"] = z
        return torch.zeros(2, 1, 1)

    batch = make_batch(column(0.0), column(0.5), [1.0], [0.0], next_z=column(7.0))
    critic_loss(stub(actor=actor, target_critics=target_critics), batch, column(3.0))
    assert seen["actor"].item() == 7.0
    assert seen["target_critics"].item() == 3.0


@pytest.mark.parametrize("kind", ["exp", "softmax"])
def test_awac_loss_by_hand(kind: str) -> None:
    """V = min Q(s, 0, z), so A = 2 a; three data actions are chosen to weigh 1 : 2 : 3."""
    actions = column(0.0, math.log(2) / 2, math.log(3) / 2)
    batch = make_batch(column(0.3, -4.0, 2.0), actions, [0.0] * 3, [0.0] * 3)
    loss, info = awac_loss(stub(awac_weight=kind), batch, column(1.0, 2.0, 3.0))
    a = actions.flatten()
    log_probs = -0.5 * a.atanh().square() - 0.5 * math.log(2 * math.pi) - (1 - a.square()).log()
    weights = torch.tensor([1.0, 2.0, 3.0]) * (1.0 if kind == "exp" else 0.5)
    torch.testing.assert_close(loss, -(weights * log_probs).mean())
    torch.testing.assert_close(info["advantage_mean"], torch.tensor(math.log(6) / 3))
    torch.testing.assert_close(info["weight_max"], weights.max())


class Shift(nn.Module):
    """A stub's critics with a parameter, or its actor with a mean to learn."""

    def __init__(self, of: Callable[..., Any], by: float = 0.0):
        super().__init__()
        self.of, self.shift = of, nn.Parameter(torch.tensor(by))

    def forward(self, *inputs: Tensor) -> Any:
        outputs = self.of(*inputs)
        return outputs + self.shift if isinstance(outputs, Tensor) else (outputs[0] + self.shift, outputs[1])


def test_awac_noise_reaches_the_value_only() -> None:
    """With a_pi = 0.6 instead of 0, every exp weight shrinks by exp(2 * 0.6) and log pi stays."""
    batch = make_batch(column(0.0, 1.0), column(0.1, -0.4), [0.0] * 2, [0.0] * 2)
    assert batch.noise is not None
    shifted = batch._replace(noise=batch.noise._replace(action=torch.full((1, 2, 1), math.atanh(0.6))))
    losses = [awac_loss(stub(), b, column(0.0, 0.0))[0] for b in (batch, shifted)]
    torch.testing.assert_close(losses[1], losses[0] * math.exp(-1.2))


def test_q_loss_by_hand() -> None:
    """-E[min_k Q_k(s, tanh(noise), z)] = -E[2 a + s + z], whose slope in the actor's mean is -2 E[1 - a^2]."""
    own = torch.tensor([0.5, -0.25])
    batch = make_batch(column(3.0, 1.0), column(0.9, 0.9), [0.0] * 2, [0.0] * 2, action=own.atanh().reshape(1, 2, 1))
    agent = stub(critics=Shift(stub().critics), actor=Shift(stub().actor))
    loss, info = q_loss(agent, batch, column(1.0, 2.0))
    expected = -((2 * 0.5 + 3 + 1) + (2 * -0.25 + 1 + 2)) / 2
    torch.testing.assert_close(loss, torch.tensor(expected))
    torch.testing.assert_close(info["q_loss"], loss)
    loss.backward()
    assert agent.critics.shift.grad is None
    torch.testing.assert_close(agent.actor.shift.grad, -2 * (1 - own.square()).mean())
