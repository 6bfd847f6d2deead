"""MACAW: losses and an update against a textbook that goes task by task, returns, adaptation, and bad input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import Problem
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn import functional

import smac_lab as lab
from smac_lab.data.episodes import EpisodeData, last_of_episode, returns_to_go
from smac_lab.methods.macaw import MACAW, MACAWNumbers, Meta, OutcomeData, Outcomes, train_macaw

SMALL = {"hidden": (7, 5), "latent": 3, "inner_batch_size": 6, "batch_size": 6, "tasks": 3}


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agent_of(problem: Problem, seed: object = 0, **numbers: object) -> MACAW:
    return MACAW(problem.config, problem.family.spec, seed=seed, numbers=MACAWNumbers(**{**SMALL, **numbers}))


def batch_of(agent: MACAW, problem: Problem) -> Meta:
    data, chosen = OutcomeData(problem.buffer, agent.config.discount), torch.tensor([4, 0, 2])
    return Meta(*(data.sample(chosen, 6, agent.generator, contiguous) for contiguous in (True, False)))


# -- the textbook ----------------------------------------------------------------------------------------
class Network:
    """Weights and biases of every layer, by hand, from a list of parameters in the order of the part's own."""

    def __init__(self, part: object, parameters: list[Tensor]):
        layers = len(part.sizes) - 1
        plain, latents, maps = (parameters[i * layers : (i + 1) * layers] for i in range(3))
        self.layers = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(part.sizes)):
            flat = plain[i]
            weight, bias = flat[: n_in * n_out].view(n_in, n_out), flat[n_in * n_out :]
            if part.kind == "weights":
                shift = torch.einsum("l,lp->p", latents[i], maps[i])
                weight, bias = weight + shift[: n_in * n_out].view(n_in, n_out), bias + shift[n_in * n_out :]
            elif part.kind == "biases":
                bias = bias + torch.einsum("l,lp->p", latents[i], maps[i])
            self.layers.append((weight, bias))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for weight, bias in self.layers[:-1]:
            x = functional.relu(functional.linear(x, weight.T, bias))
        return functional.linear(x, self.layers[-1][0].T, self.layers[-1][1]), x


def weights_of(advantages: Tensor, numbers: MACAWNumbers) -> Tensor:
    normal = (advantages - advantages.mean()) / (numbers.temperature * advantages.var(unbiased=False).sqrt())
    return torch.exp(torch.minimum(normal, torch.tensor(math.log(numbers.clip)))).detach()


def textbook(agent: MACAW, batch: Meta, target: list[Tensor]) -> Tensor:
    """Mitchell et al., algorithm 1, task by task, with gradients through the inner steps."""
    n, total = agent.numbers, torch.zeros(())
    own = len(list(agent.actor.policy.parameters()))

    def value(parameters: list[Tensor], s: Tensor) -> Tensor:
        return Network(agent.value, parameters)(s)[0][:, 0]

    def policy(parameters: list[Tensor], s: Tensor) -> tuple[Independent, Tensor]:
        mean, features = Network(agent.actor.policy, parameters[:own])(s)
        return Independent(Normal(torch.tanh(mean), n.std), 1), features

    for task in range(3):
        inner = Outcomes(*(column[task] for column in batch.inner))
        outer = Outcomes(*(column[task] for column in batch.outer))
        phi, theta = list(agent.value.parameters()), list(agent.actor.parameters())
        error = ((value(phi, inner.observations) - inner.returns) ** 2).mean()
        steps = torch.log1p(agent.steps.value.exp())
        gradients = torch.autograd.grad(error, phi, create_graph=True)
        phi_i = [p - eta * g for p, eta, g in zip(phi, steps, gradients, strict=True)]

        advantages = inner.returns - value(phi_i, inner.observations)
        pi, features = policy(theta, inner.observations)
        loss = -(weights_of(advantages, n) * pi.log_prob(inner.actions)).mean()
        if n.advantage_head:
            head = Network(agent.actor.head, theta[own:])(torch.cat([features, inner.actions], 1))[0][:, 0]
            loss = loss + torch.log1p(agent.steps.head.exp()) * ((head - advantages.detach()) ** 2).mean()
        steps = torch.log1p(agent.steps.actor.exp())
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        theta_i = [p - eta * g for p, eta, g in zip(theta, steps, gradients, strict=True)]

        y = outer.returns
        if n.bootstrap:
            y = y + outer.bootstrap * value(target, outer.last_observations).detach()
        total = total + ((value(phi_i, outer.observations) - y) ** 2).mean()
        w = weights_of(y - value(phi_i, outer.observations), n)
        total = total - (w * policy(theta_i, outer.observations)[0].log_prob(outer.actions)).mean()
    return total / 3


@pytest.mark.parametrize(
    "numbers", [{}, {"layers": "biases"}, {"advantage_head": 0.0}, {"bootstrap": False}, {"value_step": 0.3}], ids=str
)
def test_losses_and_an_update_are_the_textbook_s(problem: Problem, numbers: dict[str, object]) -> None:
    agent = agent_of(problem, value_rate=1e-2, actor_rate=1e-3, **numbers)
    batch = batch_of(agent, problem)
    target = [p.detach().clone() for p in agent.target_value.parameters()]
    expected = textbook(agent, batch, target)
    trained = {part: list(agent.parts[part].parameters()) for part in agent.trainable}
    gradients = {
        part: torch.autograd.grad(expected, own, retain_graph=True, allow_unused=True) for part, own in trained.items()
    }
    loss, _ = agent.loss(batch)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-9)

    copies, optimizers = {}, []
    for part, rate in {"value": 1e-2, "actor": 1e-3, "steps": agent.numbers.step_rate}.items():
        copies[part] = [p.detach().clone() for p in trained[part]]
        optimizers.append(torch.optim.Adam(copies[part], lr=rate))
        for copy, gradient in zip(copies[part], gradients[part], strict=True):
            copy.grad = gradient
    agent.update(batch)
    for optimizer in optimizers:
        optimizer.step()
    for part, own in trained.items():
        torch.testing.assert_close(own, copies[part], rtol=1e-5, atol=1e-9)
    moved = [t + 0.1 * (p - t) for t, p in zip(target, copies["value"], strict=True)]
    torch.testing.assert_close(list(agent.target_value.parameters()), moved)


def test_returns_end_with_their_episode() -> None:
    rewards, ends = torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    assert returns_to_go(rewards, ends, 0.5).tolist() == [[2.0, 2.0, 8.0, 8.0]]
    assert last_of_episode(ends).tolist() == [[1, 1, 3, 3]]


def test_returns_and_bootstrap_belong_to_their_step(problem: Problem) -> None:
    """The first transition of an episode has the episode's whole return, and the last has its reward."""
    discount, horizon = 0.9, problem.family.horizon
    data, whole = OutcomeData(problem.buffer, discount), EpisodeData(problem.buffer).all
    powers = discount ** torch.arange(horizon)
    torch.testing.assert_close(data.flat.returns[0], (whole.rewards[0] * powers).sum())
    torch.testing.assert_close(data.flat.returns[horizon - 1], whole.rewards[0, -1])
    assert data.flat.bootstrap[0].item() == pytest.approx(discount**horizon)
    assert data.flat.bootstrap[horizon - 1].item() == pytest.approx(discount)
    torch.testing.assert_close(data.flat.last_observations[0], whole.next_observations[0, -1])


def test_adapting_is_one_inner_step_on_whole_episodes(problem: Problem) -> None:
    agent, horizon = agent_of(problem, value_step=0.05, actor_step=0.05), problem.family.horizon
    ids = torch.tensor([1, 3])
    context = problem.buffer.sample_context(ids, 2 * horizon, torch.Generator(), "offline", consecutive=True)
    adapted = agent.adapt(context)
    observations, actions, rewards = context[1, :, :2], context[1, :, 2:4], context[1, :, 4]
    returns = torch.cat([returns_to_go(r, torch.zeros(horizon), agent.config.discount) for r in rewards.split(horizon)])
    _, theta = agent.inner_step(Outcomes(observations, actions, returns, observations, returns))
    layers = agent.actor.policy.layers({k.removeprefix("policy."): v for k, v in theta.items() if "policy" in k})
    for (weight, bias), (own_weight, own_bias) in zip(layers, adapted.layers, strict=True):
        torch.testing.assert_close(own_weight[1], weight.detach())
        torch.testing.assert_close(own_bias[1], bias.detach())
    before = agent.unadapted(2).layers
    assert all(not torch.equal(own[1], weight) for (weight, _), (own, _) in zip(before, adapted.layers, strict=True))


def test_several_seeds_learn_adapt_and_act_as_each_alone(problem: Problem) -> None:
    alone = [agent_of(problem, seed) for seed in (3, 8)]
    joined = agent_of(problem, [3, 8])
    buffers = lab.TransitionBuffer.join([problem.buffer] * 2)
    tasks = problem.train
    for agent in alone:
        assert [step for step, _ in train_macaw(agent, problem.buffer, problem.family, tasks, steps=3)] == [3]
    list(train_macaw(joined, buffers, problem.family, tasks, steps=3))
    together = lab.evaluate(joined, problem.family, problem.test, seed=5, repeats=2)
    shift = lab.measure_shift(joined, problem.family, tasks, buffers, seed=5, repeats=2)
    for index, (agent, own) in enumerate(zip(alone, joined.split(), strict=True)):
        for name, part in agent.parts.items():
            torch.testing.assert_close(list(own.parts[name].parameters()), list(part.parameters()))
        found = lab.evaluate(agent, problem.family, problem.test, seed=5, repeats=2)
        np.testing.assert_allclose(together.returns[index], found.returns, rtol=1e-6)
        again = lab.measure_shift(agent, problem.family, tasks, problem.buffer, seed=5, repeats=2)
        np.testing.assert_allclose(shift.offline_returns[index], again.offline_returns, rtol=1e-6)
    assert shift.online.mean.shape == (2, len(tasks), 2, 0)


def test_exploring_is_noisy_and_adapted_acting_is_not(problem: Problem) -> None:
    agent, generator = agent_of(problem), torch.Generator().manual_seed(0)
    observations = np.zeros((5, 2))
    explores = agent.policy(agent.unadapted(5), generator)
    assert len(np.unique(explores(observations)[:, 0])) == 5
    context = problem.buffer.sample_context(torch.zeros(5, dtype=torch.long), 40, generator, "offline", True)
    acts = agent.policy(agent.adapt(context[:1].expand(5, -1, -1)), generator)
    assert np.ptp(acts(observations), axis=0).max() == 0


def test_bad_input_is_told(problem: Problem) -> None:
    agent = agent_of(problem)
    empty = lab.TransitionBuffer(problem.family.spec, 2)
    with pytest.raises(ValueError, match="task 0 has no offline or exploration episode of 20 steps"):
        list(train_macaw(agent, empty, problem.family, problem.train, steps=1))
    with pytest.raises(ValueError, match="steps=-1 is not allowed"):
        list(train_macaw(agent, problem.buffer, problem.family, problem.train, steps=-1))
    with pytest.raises(ValueError, match=r"context of point-robot must be \(..., n, 5\)"):
        agent.adapt(torch.zeros(1, 20, 4))
