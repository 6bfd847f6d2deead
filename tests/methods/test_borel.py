"""BOReL: losses and updates against a textbook that goes step by step, belief data, acting, resuming, bad input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import Problem
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution, kl_divergence

import smac_lab as lab
from smac_lab.data.episodes import EpisodeData
from smac_lab.data.relabel import shared_between_tasks
from smac_lab.methods.borel import (
    BeliefData,
    BOReL,
    BOReLNumbers,
    TrajectoryBatch,
    check_borel,
    conservatism,
    train_borel,
    trajectories_of,
)

SMALL = {
    "hidden": 8, "embeddings": (4, 3, 2), "decoder_hidden": (6,), "policy_hidden": (7, 7), "latent": 3,
    "decoded_beliefs": 5, "decoded_rewards": 7, "belief_tasks": 2, "trajectories": 2, "episodes": 2,
    "policy_tasks": 3, "batch_size": 4, "belief_updates": 4, "policy_updates": 6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agent_of(problem: Problem, **numbers: object) -> BOReL:
    return BOReL(problem.config, problem.family.spec, seed=0, numbers=BOReLNumbers(**{**SMALL, **numbers}))


def update_by_hand(agent: BOReL, parts: tuple[str, ...], loss: Tensor, rate: float) -> dict[str, list[Tensor]]:
    """Parameters after one step of PyTorch's Adam."""
    moved = {}
    for name in parts:
        own = list(agent.parts[name].parameters())
        copies = [p.detach().clone() for p in own]
        optimizer = torch.optim.Adam(copies, lr=rate)
        for copy, gradient in zip(copies, torch.autograd.grad(loss, own, retain_graph=True), strict=True):
            copy.grad = gradient
        optimizer.step()
        moved[name] = copies
    return moved


def test_the_belief_s_loss_and_update_are_the_textbook_s(problem: Problem) -> None:
    """Reward reconstruction from beliefs at drawn steps, and KL from each belief to the one before, step by step."""
    agent = agent_of(problem, belief_rate=1e-2)
    n, encoder = agent.numbers, agent.encoder
    t = trajectories_of(EpisodeData(problem.buffer), torch.tensor([1, 4]), 2, 2, agent.generator)
    count, steps = t.rewards.shape
    context = torch.cat([t.observations, t.actions, t.rewards.unsqueeze(-1)], -1)
    k, when = torch.randint(steps, (count, 7)), torch.randint(steps, (count, 5))
    every = torch.cat([t.observations, t.actions, t.next_observations], -1)
    inputs = torch.stack([every[i, k[i]] for i in range(count)])
    rewards = torch.stack([t.rewards[i, k[i]] for i in range(count)])
    noise = torch.randn(count, 5, n.latent)

    total = torch.zeros(())
    for i in range(count):
        hidden, before, beliefs, kl = torch.zeros(1, 1, n.hidden), Normal(torch.zeros(3), torch.ones(3)), [], 0.0
        for step in range(steps):
            pieces = (t.observations[i, step], t.actions[i, step], t.rewards[i, step : step + 1])
            embedded = torch.cat([layer(piece).relu() for layer, piece in zip(encoder.embed, pieces, strict=True)])
            output, hidden = encoder.gru(embedded.view(1, 1, -1), hidden)
            mean, log_variance = encoder.out(output.view(-1)).split(3)
            now = Normal(mean, log_variance.exp().sqrt())
            kl, before = kl + kl_divergence(now, before).sum(), now
            beliefs.append(now)
        error = torch.zeros(())
        for j, step in enumerate(when[i].tolist()):
            m = beliefs[step].mean + beliefs[step].stddev * noise[i, j]
            for place in range(7):
                error = error + (agent.decoder(torch.cat([m, inputs[i, place]])) - rewards[i, place]).square().sum()
        total = total + error / (5 * 7) * steps + n.kl_weight * kl
    expected = total / count

    batch = TrajectoryBatch(context, inputs, rewards, when, noise)
    loss, _ = agent.belief_loss(batch)
    torch.testing.assert_close(loss, expected)
    moved = update_by_hand(agent, ("encoder", "decoder"), expected, 1e-2)
    still = [p.detach().clone() for name in ("actor", "critics") for p in agent.parts[name].parameters()]
    agent.update(batch, agent.objectives["belief"])
    for name, parameters in moved.items():
        torch.testing.assert_close(list(agent.parts[name].parameters()), parameters, rtol=1e-5, atol=1e-9)
    unmoved = [p for name in ("actor", "critics") for p in agent.parts[name].parameters()]
    assert all(torch.equal(a, b) for a, b in zip(still, unmoved, strict=True))


@pytest.mark.parametrize("cql_weight", [0.0, 0.7])
def test_the_policy_s_loss_and_update_are_the_textbook_s(problem: Problem, cql_weight: float) -> None:
    """Soft actor-critic in torch's distributions, on states with beliefs; and conservative Q-learning's term."""
    agent = agent_of(problem, policy_rate=1e-2, cql_weight=cql_weight, cql_actions=2)
    n, discount = agent.numbers, agent.config.discount
    batch = BeliefData(agent, EpisodeData(problem.buffer)).sample(agent, torch.tensor([0, 5, 2]))
    noise = batch.noise

    def act(observations: Tensor, belief: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = agent.actor(observations, belief)
        actions = torch.tanh(mean + log_std.exp() * drawn)
        squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
        return actions, squashed.log_prob(actions).sum(-1)

    s, a, b = batch.observations, batch.actions, batch.belief
    following, log_following = act(batch.next_observations, batch.next_belief, noise[0])
    value = agent.target_critics(batch.next_observations, following, batch.next_belief).min(0).values
    y = batch.rewards + discount * (1 - batch.terminations) * (value - n.temperature * log_following)
    loss = sum(((q - y.detach()) ** 2).mean() for q in agent.critics(s, a, b))
    if cql_weight:
        drawn = [(2 * Normal(0.0, 1.0).cdf(x) - 1, torch.tensor(-2 * math.log(2.0))) for x in noise[4:]]
        drawn += [tuple(x.detach() for x in act(s, b, x)) for x in noise[2:4]]
        for k in range(2):
            terms = torch.stack([agent.critics(s, action, b)[k] - density for action, density in drawn])
            loss = loss + cql_weight * (torch.log(terms.exp().sum(0)) - agent.critics(s, a, b)[k]).mean()
    critic = update_by_hand(agent, ("critics",), loss, 1e-2)
    own, log_own = act(s, b, noise[1])
    actor_loss = (n.temperature * log_own - agent.critics(s, own, b).min(0).values).mean()
    actor = update_by_hand(agent, ("actor",), actor_loss, 1e-2)

    found, _ = agent.policy_loss(batch)
    torch.testing.assert_close(found, loss + actor_loss)
    agent.update(batch, agent.objectives["policy"])
    for name, parameters in {**critic, **actor}.items():
        torch.testing.assert_close(list(agent.parts[name].parameters()), parameters, rtol=1e-5, atol=1e-9)


def test_conservatism_by_hand() -> None:
    values = torch.tensor([[[0.0], [1.0]], [[math.log(3.0)], [1.0]]])  # (action, critic, transition)
    data = torch.tensor([[1.0], [1.0]])
    assert conservatism(values, data).item() == pytest.approx(math.log(4.0) - 1.0 + math.log(2.0))


def test_beliefs_stand_before_and_after_each_transition(problem: Problem) -> None:
    """The belief after a step is the one before the next, and the first of a trajectory is the prior's."""
    agent = agent_of(problem)
    data = BeliefData(agent, EpisodeData(problem.buffer))
    belief, following = data.columns[5], data.columns[6]
    steps = 2 * problem.family.horizon
    for start, end in itertools.pairwise(range(0, data.size + 1, steps)):
        torch.testing.assert_close(following[:, start : end - 1], belief[:, start + 1 : end])
        prior = agent.encoder.belief(agent.unadapted(1)).detach()
        torch.testing.assert_close(belief[:, start], prior.expand(len(belief), -1))
    again = BeliefData(agent, EpisodeData(problem.buffer))
    assert all(torch.equal(a, b) for a, b in zip(data.columns, again.columns, strict=True))


def test_what_acts_believes_what_it_has_seen(problem: Problem) -> None:
    """The belief of a policy after an episode is that of its context; a second episode goes on from there."""
    agent = agent_of(problem)
    env = problem.family.batch_env(problem.test)
    policy = agent.policy(agent.unadapted(len(problem.test)), torch.Generator())
    episodes = lab.rollout(policy, env, seed=1)
    context = torch.cat([agent.tensor(x) for x in (episodes.observations, episodes.actions)], -1)
    context = torch.cat([context, agent.tensor(episodes.rewards).unsqueeze(-1)], -1)
    torch.testing.assert_close(policy.hidden, agent.adapt(context))
    found = lab.evaluate(agent, problem.family, problem.test, seed=1, repeats=2)
    assert found.posterior.mean.shape == (len(problem.test), 2, 3)


def test_a_run_that_goes_on_after_a_stop_is_the_one_that_did_not_stop(problem: Problem, tmp_path: object) -> None:
    """In the middle of either stage."""
    whole = agent_of(problem)
    list(train_borel(whole, problem.buffer, problem.family, problem.train))
    assert whole.updates == 10
    stopped = agent_of(problem)
    for steps in (3, 4):
        list(train_borel(stopped, problem.buffer, problem.family, problem.train, steps=steps))
        torch.set_default_dtype(torch.float64)
        lab.save(tmp_path, stopped)
        stopped = lab.load(tmp_path).agent
    list(train_borel(stopped, problem.buffer, problem.family, problem.train))
    for name, part in whole.parts.items():
        for a, b in zip(part.parameters(), stopped.parts[name].parameters(), strict=True):
            assert torch.equal(a, b), name


def test_half_of_the_belief_s_data_are_other_tasks_with_true_rewards(problem: Problem) -> None:
    lent = int(problem.buffer.offline_counts.min()) // problem.family.horizon
    shared = EpisodeData(shared_between_tasks(problem.buffer, problem.family, problem.train, lent))
    assert (shared.count == 2 * EpisodeData(problem.buffer).count).all()
    for task, values in enumerate(problem.train.values):
        own = slice(int(shared.first[task]), int(shared.first[task] + shared.count[task]))
        reached = shared.all.next_observations[own].reshape(-1, 2).numpy()
        paid = problem.family.reward(reached, np.zeros_like(reached), np.tile(values, (len(reached), 1)))
        np.testing.assert_allclose(shared.all.rewards[own].reshape(-1).numpy(), paid, atol=1e-5)


def test_bad_input_is_told(problem: Problem) -> None:
    with pytest.raises(ValueError, match="one seed at a time"):
        BOReL(problem.config, problem.family.spec, seed=[0, 1])
    walker = lab.make_family("walker-params")
    with pytest.raises(ValueError, match="cannot be relabelled: its tasks change the dynamics"):
        check_borel(walker, BOReLNumbers())
    check_borel(walker, BOReLNumbers(relabel=False))
