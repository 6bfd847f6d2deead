"""Meta-test and shift: protocol, definitions, and that measuring changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import Problem
from torch import nn
from torch.distributions import Normal, kl_divergence

import smac_lab as lab


class RewardMeanEncoder(nn.Module):
    """Posterior mean: the mean reward of the context, in every latent dimension; std 1."""

    def __init__(self, z_dim: int):
        super().__init__()
        self.z_dim = z_dim
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, context: torch.Tensor) -> lab.Gaussian:
        mean = self.scale * context[..., -1].mean(1, keepdim=True).expand(-1, self.z_dim)
        return lab.Gaussian(mean, torch.ones_like(mean))


def test_evaluate_follows_the_protocol(problem: Problem) -> None:
    agent = problem.agent()
    result = lab.evaluate(agent, problem.family, problem.test, seed=0, repeats=3)
    n, horizon = len(problem.test), problem.family.horizon
    assert result.returns.shape == (n, 3, 3)  # two exploration episodes, then the one that counts
    assert result.contexts.shape == (n, 3, 2 * horizon, problem.family.spec.context_dim)
    assert np.allclose(result.final_returns, result.returns[..., -1].mean(1))
    rewards = result.contexts[..., -1].reshape(n, 3, 2, horizon).sum(-1)
    assert np.allclose(rewards.cpu().numpy(), result.returns[..., :2], atol=1e-4), "the context is what was explored"
    posterior = agent.infer_posterior(result.contexts.flatten(0, 1))
    assert torch.allclose(posterior.mean.reshape(n, 3, -1), result.posterior.mean, atol=1e-6)


@pytest.mark.parametrize("resampling", ["episode", "step"])
def test_z_is_drawn_by_the_rule(problem: Problem, resampling: str) -> None:
    agent = lab.SMAC(dataclasses.replace(problem.config, z_resampling=resampling), problem.family.spec)
    drawn: list[torch.Tensor] = []
    act = agent.actions
    agent.actions = lambda o, z, *rest: drawn.append(z) or act(o, z, *rest)  # type: ignore[method-assign]
    lab.evaluate(agent, problem.family, problem.test, repeats=1)
    horizon = problem.family.horizon
    assert len(drawn) == 3 * horizon
    same = [torch.equal(drawn[t], drawn[t + 1]) for t in range(horizon - 1)]
    assert all(same) if resampling == "episode" else not any(same)


def test_measuring_is_reproducible_and_leaves_the_agent_alone(problem: Problem) -> None:
    agent = problem.agent()
    state = agent.generator.get_state()
    before = [p.clone() for p in agent.actor.parameters()]
    one = lab.measure_shift(agent, problem.family, problem.train, problem.buffer, seed=4)
    two = lab.measure_shift(agent, problem.family, problem.train, problem.buffer, seed=4)
    assert one.normalised == two.normalised
    assert one.online_context_return == two.online_context_return
    assert torch.equal(state, agent.generator.get_state())
    assert all(torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True))
    other = lab.measure_shift(agent, problem.family, problem.train, problem.buffer, seed=5)
    assert other.offline_context_return != one.offline_context_return


def test_shift_matches_its_definition(problem: Problem) -> None:
    """With unit variances KL is half a squared distance, so every term can be written down."""
    agent = problem.agent(encoder=RewardMeanEncoder(problem.config.z_dim))
    shift = lab.measure_shift(agent, problem.family, problem.train, problem.buffer, seed=0)
    on, off = (Normal(q.mean, q.std) for q in (shift.online, shift.offline))
    expected = kl_divergence(on, off).sum(-1).mean(1)
    assert np.allclose(shift.kl_online_offline, expected.cpu().numpy(), rtol=1e-5)
    unit = Normal(torch.zeros_like(off.mean), torch.ones_like(off.mean))
    assert shift.kl_online_prior == pytest.approx(float(kl_divergence(on, unit).sum(-1).mean()), rel=1e-5)
    assert shift.kl_offline_prior == pytest.approx(float(kl_divergence(off, unit).sum(-1).mean()), rel=1e-5)


def test_no_shift_is_about_zero_and_another_task_about_one(problem: Problem) -> None:
    """Context that the same policy collected has no shift; context of the next task is shifted by one."""
    from smac_lab.shift import _between, _ratio

    rng = torch.Generator().manual_seed(0)
    tasks, repeats = 40, 8
    centre = torch.randn(tasks, 1, 2, generator=rng)

    def posterior(roll: int = 0) -> lab.Gaussian:
        jitter = 0.05 * torch.randn(tasks, repeats, 2, generator=rng)
        return lab.Gaussian(centre.roll(roll, 0) + jitter, torch.full((tasks, repeats, 2), 0.1))

    from smac_lab.encoder import kl_divergence as kl

    off, off2 = posterior(), posterior()
    floor, between = kl(off, off2).mean(), _between(off, off2).mean()
    same, other = kl(posterior(), off).mean(), kl(posterior(roll=1), off).mean()
    assert abs(_ratio(same, floor, between)) < 0.01
    assert 0.7 < _ratio(other, floor, between) < 1.4


def test_offline_context_is_what_the_encoder_reads_or_what_is_asked_for(problem: Problem) -> None:
    family, train, buffer = problem.family, problem.train, problem.buffer
    config = dataclasses.replace(problem.config, exploration_transitions=40, exploration_policy="scripted")
    both, agent = lab.collect_behaviour(family, train, config, seed=0), problem.agent()

    def measured(data: lab.TransitionBuffer, **options: object) -> lab.Shift:
        return lab.measure_shift(agent, family, train, data, seed=1, **options)  # type: ignore[arg-type]

    found = {"default": measured(both)} | {s: measured(both, source=s) for s in ("exploration", "offline")}
    assert torch.equal(found["default"].offline_contexts, found["exploration"].offline_contexts)
    rows = torch.cat([both.observations, both.actions, both.rewards.unsqueeze(1)], 1)
    for source in ("exploration", "offline"):
        for task, contexts in enumerate(found[source].offline_contexts):
            own = rows[both.rows_of(task, source)]
            assert (contexts.flatten(0, 1)[:, None] == own).all(-1).any(1).all()
    # The very transitions that another buffer holds alone, and nothing else changes.
    alone = measured(buffer)
    assert torch.equal(alone.offline_contexts, found["offline"].offline_contexts)
    assert np.array_equal(alone.online_returns, found["exploration"].online_returns)
    with pytest.raises(ValueError, match="the buffer has no exploration transitions"):
        measured(buffer, source="exploration")
    with pytest.raises(
        ValueError, match="source='recorded' is not allowed: it must be one of 'offline', 'exploration'"
    ):
        measured(both, source="recorded")


def test_offline_context_has_as_many_transitions_as_self_collected(problem: Problem) -> None:
    sizes: list[int] = []
    agent = problem.agent()
    infer = agent.infer_posterior
    agent.infer_posterior = lambda context: sizes.append(context.shape[1]) or infer(context)  # type: ignore[method-assign]
    lab.measure_shift(agent, problem.family, problem.train, problem.buffer)
    assert set(sizes) == {2 * problem.family.horizon}
