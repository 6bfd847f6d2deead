"""PEARL: its loss against the textbook's arithmetic, what it trains, and that it learns."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import Problem
from torch.distributions import Normal, TanhTransform, TransformedDistribution, kl_divergence

import smac_lab as lab
from smac_lab.actor_critic import log_prob, log_prob_before_tanh
from smac_lab.methods.pearl import pearl_loss, train_pearl
from smac_lab.runs.behaviour import copy_transitions, temperature_of
from smac_lab.sampling import sample_offline


def parameters(agent: lab.SMAC, part: str) -> list[torch.Tensor]:
    return [p.detach().clone() for p in agent.parts[part].parameters()]


def prepared(problem: Problem, agent: lab.SMAC) -> lab.Batch:
    batch = sample_offline(agent, problem.buffer)
    return batch._replace(noise=agent.draw_noise(batch))


def test_the_loss_is_the_textbook_s(problem: Problem) -> None:
    """Rakelly et al., algorithm 1, in distributions of torch, one transition at a time where that is possible."""
    torch.set_default_dtype(torch.float64)
    try:
        agent = problem.agent()
        batch = prepared(problem, agent)
        loss, info = pearl_loss(agent, batch)
        assert batch.noise is not None

        posterior = agent.encoder(batch.context)
        z = (posterior.mean + posterior.std * batch.noise.z).unsqueeze(1).expand(-1, batch.observations.shape[1], -1)

        def act(observations: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean, log_std = agent.actor(observations, z)
            actions = torch.tanh(mean + log_std.exp() * noise)
            squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
            return actions, squashed.log_prob(actions).sum(-1)

        next_actions, next_log_probs = act(batch.next_observations, batch.noise.next_action)
        value = agent.target_critics(batch.next_observations, next_actions, z).min(0).values - next_log_probs
        target = agent.config.reward_scale * batch.rewards + agent.config.discount * (1 - batch.terminations) * value
        critic = sum(((q - target) ** 2).mean() for q in agent.critics(batch.observations, batch.actions, z))
        kl = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum()  # over tasks, too
        actions, log_probs = act(batch.observations, batch.noise.action)
        mean, log_std = agent.actor(batch.observations, z)
        actor = (log_probs - agent.critics(batch.observations, actions, z).min(0).values).mean()
        actor = actor + 1e-3 * (mean**2).mean() + 1e-3 * (log_std**2).mean()
        decoder = ((agent.reward_decoder(batch.observations, batch.actions, z) - batch.rewards) ** 2).mean()
        assert agent.config.kl_reduction == "mean"  # as SMAC's losses do; PEARL's sums all the same
        torch.testing.assert_close(loss, critic + agent.config.kl_weight * kl + actor + decoder)
        torch.testing.assert_close(info["actor_loss"], actor)
        torch.testing.assert_close(info["entropy"], -log_probs.mean())
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_trains_what(problem: Problem) -> None:
    """The critics' error, the reward's and the KL reach the encoder; the actor's loss does not."""
    agent = problem.agent()
    batch = prepared(problem, agent)
    _, info = pearl_loss(agent, batch)

    def moved(value: torch.Tensor) -> set[str]:
        found = set()
        for name in ("actor", "critics", "encoder", "reward_decoder"):
            own = list(agent.parts[name].parameters())
            gradients = torch.autograd.grad(value, own, allow_unused=True, retain_graph=True)
            if any(g is not None and g.abs().sum() > 0 for g in gradients):
                found.add(name)
        return found

    assert moved(info["critic_loss"]) == {"critics", "encoder"}
    assert moved(info["kl"]) == {"encoder"}
    assert moved(info["actor_loss"]) == {"actor"}
    assert moved(info["reward_error"]) == {"reward_decoder", "encoder"}
    before = {name: parameters(agent, name) for name in agent.parts}
    agent.update(batch, loss=partial(pearl_loss, agent))
    for name, values in before.items():
        assert any(not torch.equal(a, b) for a, b in zip(values, parameters(agent, name), strict=True)), name


def test_log_probability_of_an_action_known_before_the_tanh() -> None:
    mean, log_std, noise = torch.randn(3, 4, 2), torch.randn(4, 2) * 0.3, torch.randn(4, 2)
    mean = mean[0]
    u = mean + log_std.exp() * noise
    torch.testing.assert_close(
        log_prob_before_tanh(mean, log_std, u), log_prob(mean, log_std, u.tanh()), rtol=1e-3, atol=1e-3
    )
    far = torch.full((1, 1), 30.0)  # tanh is 1 there to the last bit, and atanh would have no end
    value = log_prob_before_tanh(far, torch.zeros(1, 1), far)
    assert value.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 2 * 30.0)


def test_a_run_interacts_with_true_rewards_and_grows_its_buffer(problem: Problem) -> None:
    agent = problem.agent()
    buffer = lab.TransitionBuffer(problem.family.spec, len(problem.train), agent.device)
    seen = list(train_pearl(agent, buffer, problem.family, problem.train, iterations=2, updates=3, initial_episodes=2))
    assert [step for step, _ in seen] == [1, 2]
    assert all(np.isfinite(list(metrics.values())).all() for _, metrics in seen)
    config, horizon = problem.config, problem.family.horizon
    episodes = 2 * len(problem.train) + 2 * config.online_tasks * (config.prior_episodes + config.posterior_episodes)
    assert len(buffer) == episodes * horizon
    assert agent.updates == 6
    for task in range(len(problem.train)):
        rows = buffer.rows_of(task)
        features, actions = (column[rows].double().cpu().numpy() for column in (buffer.features, buffer.actions))
        true = problem.family.reward(features, actions, np.tile(problem.train.values[task], (len(rows), 1)))
        np.testing.assert_allclose(buffer.rewards[rows].cpu(), true, atol=1e-5)


def test_the_encoder_reads_the_last_visit_s_exploration_only(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training and in collecting, with what a visit added seen from the next draw on; the rest reads everything."""
    agent, horizon = problem.agent(), problem.family.horizon
    window = agent.config.exploration_episodes * horizon
    buffer = lab.TransitionBuffer(problem.family.spec, len(problem.train), agent.device)
    draw_context, draw, contexts, sampled = buffer.sample_context, buffer.sample, [], set()

    def sample_context(tasks: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        context = draw_context(tasks, *args, **options)
        for task, rewards in zip(tasks.tolist(), context[..., -1], strict=True):
            allowed = buffer.rewards[buffer.rows_of(task, "explored")][-window:]
            contexts.append(torch.isin(rewards, allowed).all().item())
        return context

    def sample(tasks: torch.Tensor, size: int, generator: torch.Generator, source: str) -> object:
        sampled.add(source)
        return draw(tasks, size, generator, source)

    monkeypatch.setattr(buffer, "sample_context", sample_context)
    monkeypatch.setattr(buffer, "sample", sample)
    for _ in train_pearl(agent, buffer, problem.family, problem.train, iterations=6, updates=3, initial_episodes=3):
        pass
    config = agent.config
    assert len(contexts) == 6 * (config.online_tasks + 3 * config.online_meta_batch)
    assert all(contexts)
    assert sampled == {"mixture"}
    assert int(buffer.counts_of("explored").max()) > window, "some task was explored more than a visit holds"


def test_tasks_with_other_data_alone_explore_first(problem: Problem) -> None:
    before = len(problem.buffer)
    next(train_pearl(problem.agent(), problem.buffer, problem.family, problem.train, 1, 1, initial_episodes=2))
    explored = problem.buffer.counts_of("explored")
    assert int(explored.min()) >= 2 * problem.family.horizon
    assert len(problem.buffer) > before + int(explored.sum())


def test_what_does_not_fit_is_refused(problem: Problem) -> None:
    buffer = lab.TransitionBuffer(problem.family.spec, len(problem.train), problem.buffer.device)
    other = lab.make_family("point-direction")
    with pytest.raises(ValueError, match="cannot learn from a buffer of"):
        next(train_pearl(problem.agent(), lab.TransitionBuffer(other.spec, 6), problem.family, problem.train, 1, 1))
    with pytest.raises(ValueError, match="cannot act in"):
        next(train_pearl(problem.agent(), buffer, other, problem.train, 1, 1))
    two = lab.SMAC(problem.config, problem.family.spec, seed=[0, 1])
    with pytest.raises(ValueError, match="2 seeds collect separate data and need a buffer each"):
        next(train_pearl(two, buffer, problem.family, problem.train, 1, 1))


def test_several_seeds_at_once_are_as_many_runs(problem: Problem) -> None:
    """Each seed explores and learns as it would alone, to rounding."""
    seeds = (0, 1)
    together = lab.SMAC(problem.config, problem.family.spec, seed=seeds)
    empty = [lab.TransitionBuffer(problem.family.spec, len(problem.train)) for _ in seeds]
    joined = lab.TransitionBuffer.join(empty)
    for _ in train_pearl(together, joined, problem.family, problem.train, 2, 3, initial_episodes=2):
        pass
    for seed, buffer, agent in zip(seeds, joined.split(), together.split(), strict=True):
        alone = lab.SMAC(problem.config, problem.family.spec, seed=seed)
        own = lab.TransitionBuffer(problem.family.spec, len(problem.train))
        for _ in train_pearl(alone, own, problem.family, problem.train, 2, 3, initial_episodes=2):
            pass
        assert torch.equal(buffer.codes, own.codes)
        torch.testing.assert_close(buffer.rewards, own.rewards, rtol=1e-3, atol=1e-3)
        for one, two in zip(agent.actor.parameters(), alone.actor.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_the_temperature_weighs_the_entropy(problem: Problem) -> None:
    """Closed form: at temperature alpha the actor's loss is alpha times its log probability, less Q."""
    agent = problem.agent()
    batch = prepared(problem, agent)
    losses = [pearl_loss(agent, batch, temperature=alpha)[1] for alpha in (0.0, 0.5, 1.0)]
    entropy = float(losses[0]["entropy"].detach())
    actor = [float(info["actor_loss"].detach()) for info in losses]
    assert actor[1] - actor[0] == pytest.approx(-0.5 * entropy, rel=1e-4)
    assert actor[2] - actor[0] == pytest.approx(-entropy, rel=1e-4)


def test_the_recipe_cools_geometrically(problem: Problem) -> None:
    config = dataclasses.replace(
        problem.config, behaviour_iterations=4, behaviour_temperature=1.6, behaviour_last_temperature=0.1
    )
    assert [temperature_of(config, k) for k in (1, 2, 4)] == pytest.approx([0.8, 0.4, 0.1])


def test_the_recipe_may_have_numbers_of_its_own(problem: Problem) -> None:
    config = dataclasses.replace(problem.config, behaviour_changes={"discount": 0.5, "kl_weight": 2.0})
    pearl = config.for_pearl()
    assert (pearl.discount, pearl.kl_weight, pearl.tau) == (0.5, 2.0, config.tau)
    with pytest.raises(ValueError, match=r"behaviour_changes names unknown fields \['discout'\]"):
        dataclasses.replace(problem.config, behaviour_changes={"discout": 0.5})
    with pytest.raises(ValueError, match=r"discount=2.0 is not allowed"):
        dataclasses.replace(problem.config, behaviour_changes={"discount": 2.0})


# -- as behaviour policy -----------------------------------------------------------------------------------------


def test_the_last_transitions_of_each_task_are_the_data(problem: Problem) -> None:
    last = lab.TransitionBuffer(problem.buffer.spec, problem.buffer.n_tasks)
    copy_transitions(problem.buffer, last, "all", "offline", 40, "last")
    assert last.offline_counts.tolist() == [40] * len(problem.train)
    for task in range(len(problem.train)):
        rows = problem.buffer.rows_of(task)[-40:]
        for name in ("observations", "next_observations", "rewards", "features", "truncations"):
            assert torch.equal(getattr(last, name)[last.rows_of(task)], getattr(problem.buffer, name)[rows]), name
    with pytest.raises(ValueError, match="only 400 transitions of PEARL's, and 500 are wanted"):
        copy_transitions(problem.buffer, last, "all", "offline", 500, "last")


def test_interrupted_collection_goes_on_where_it_was(problem: Problem, tmp_path) -> None:
    """Stopped after a checkpoint and begun again, a PEARL run gives the data of an uninterrupted one, to the bit."""
    config = dataclasses.replace(
        problem.config, behaviour_policy="pearl", behaviour_iterations=4, behaviour_updates=3, behaviour_transitions=40
    )
    whole = lab.collect_behaviour(problem.family, problem.train, config, seed=0)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        lab.collect_behaviour(problem.family, problem.train, config, 0, tmp_path, stop)
    steps: list[int] = []
    again = lab.collect_behaviour(
        problem.family, problem.train, config, 0, tmp_path, lambda done, total: steps.append(done)
    )
    assert steps == [2, 3, 4]
    assert torch.equal(whole.rows, again.rows)
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 5
