"""The two phases: what they may read, what they move, what they yield."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Problem

import smac_lab as lab
from smac_lab.data.lookup import CODE, LENGTH
from smac_lab.sampling import sample_offline, sample_self_supervised


def parameters(agent: lab.SMAC) -> dict[str, torch.Tensor]:
    return {f"{k}.{n}": p.clone() for k, part in agent.parts.items() for n, p in part.state_dict().items()}


def self_supervised(problem: Problem, family: lab.TaskFamily, encoder: str, oracle: bool) -> dict[str, torch.Tensor]:
    """Parameters after two iterations that start from the same offline phase."""
    agent = lab.SMAC(dataclasses.replace(problem.config, online_encoder=encoder), problem.family.spec, seed=0)
    buffer = problem.buffer.clone()
    list(lab.train_offline(agent, buffer, steps=5))
    list(lab.train_self_supervised(agent, buffer, family, problem.train, iterations=2, oracle=oracle))
    return parameters(agent)


def mark_self_collected(buffer: lab.TransitionBuffer) -> None:
    """Set the reward of every self-collected transition to 99."""
    new = np.repeat(buffer.segments[:, CODE] > 0, buffer.segments[:, LENGTH] + 1)
    buffer.rows[torch.from_numpy(new), buffer._columns["rewards"]] = 99.0
    assert buffer.rewards[buffer.source == 1].unique().tolist() == [99.0]


class Corrupted(lab.tasks.PointRobot):
    """The same robot, whose new interaction pays nonsense."""

    def reward(self, features: Any, actions: Any, tasks: Any) -> Any:
        return 1000.0 + 7.0 * super().reward(features, actions, tasks)


class Forbidden(lab.tasks.PointRobot):
    """The same robot, whose reward must not even be asked for."""

    def reward(self, features: Any, actions: Any, tasks: Any) -> Any:
        raise AssertionError("the true reward was computed")


@pytest.mark.parametrize("encoder", ["frozen", "offline", "self-labelled"])
def test_true_reward_is_unreachable(problem: Problem, encoder: str) -> None:
    clean = self_supervised(problem, problem.family, encoder, oracle=False)
    for family in (Corrupted(), Forbidden()):
        other = self_supervised(problem, family, encoder, oracle=False)
        assert all(torch.equal(clean[name], other[name]) for name in clean)


def test_the_same_corruption_changes_the_oracle(problem: Problem) -> None:
    clean = self_supervised(problem, problem.family, "frozen", oracle=True)
    other = self_supervised(problem, Corrupted(), "frozen", oracle=True)
    moved = {name.split(".")[0] for name in clean if not torch.equal(clean[name], other[name])}
    assert moved == {"actor", "critics", "target_critics", "encoder", "reward_decoder"}


def test_reward_free_interaction_pays_nan(problem: Problem) -> None:
    env = problem.family.batch_env(problem.train, rewards=False)
    episodes = lab.rollout(lambda o: np.zeros((len(o), 2)), env, seed=0)
    assert np.isnan(episodes.rewards).all()
    with pytest.raises(ValueError, match="rewards of task 0 holds numbers that are not finite"):
        problem.buffer.append(0, episodes.columns(0), "self-collected")


def test_labels_are_what_the_frozen_decoder_says(problem: Problem) -> None:
    agent = problem.agent()
    list(lab.train_offline(agent, problem.buffer, steps=20))
    # Decoder that ignores z: labels are then a function of state and action alone, whatever z_label was drawn.
    first = agent.reward_decoder.net[0]
    with torch.no_grad():
        first.weight[:, problem.family.spec.obs_dim + problem.family.spec.action_dim :] = 0.0
    list(lab.train_self_supervised(agent, problem.buffer, problem.family, problem.train, iterations=1))
    new = problem.buffer.source == 1
    z = torch.zeros(int(new.sum()), problem.config.z_dim, device=agent.device)
    labels = agent.reward_decoder(problem.buffer.observations[new], problem.buffer.actions[new], z)
    assert torch.allclose(labels, problem.buffer.rewards[new], atol=1e-6)


def test_generators_yield_at_log_every_and_at_the_end(problem: Problem) -> None:
    agent = problem.agent()
    yielded = list(lab.train_offline(agent, problem.buffer, steps=7, log_every=3))
    assert [step for step, _ in yielded] == [3, 6, 7]
    assert agent.updates == 7
    assert all(isinstance(v, float) and math.isfinite(v) for _, metrics in yielded for v in metrics.values())
    iterations = list(lab.train_self_supervised(agent, problem.buffer, problem.family, problem.train, iterations=2))
    assert [iteration for iteration, _ in iterations] == [1, 2]
    assert all(math.isfinite(v) for _, metrics in iterations for v in metrics.values())


def test_self_collected_transitions_are_appended_to_the_given_buffer_only(problem: Problem) -> None:
    original, clone = problem.buffer, problem.buffer.clone()
    agent = problem.agent()
    list(lab.train_self_supervised(agent, clone, problem.family, problem.train, iterations=1))
    episodes = problem.config.prior_episodes + problem.config.posterior_episodes
    assert len(clone) - len(original) == problem.config.online_tasks * episodes * problem.family.horizon
    assert torch.equal(clone.rows[: len(original.rows)], original.rows)
    assert torch.equal(clone.task[: len(original)], original.task)
    assert int(original.source.sum()) == 0


def test_offline_batches_hold_offline_data_only(problem: Problem) -> None:
    agent = problem.agent()
    list(lab.train_self_supervised(agent, problem.buffer, problem.family, problem.train, iterations=1))
    mark_self_collected(problem.buffer)
    for _ in range(20):
        batch = sample_offline(agent, problem.buffer)
        assert float(batch.rewards.max()) < 99.0
        assert float(batch.context[..., -1].max()) < 99.0


@pytest.mark.parametrize("kind", ["mixed", "separate", "episodes"])
def test_self_supervised_contexts_come_from_where_they_should(problem: Problem, kind: str) -> None:
    agent = lab.SMAC(dataclasses.replace(problem.config, online_context=kind), problem.family.spec, seed=0)
    everyone = dataclasses.replace(problem.config, online_tasks=problem.config.n_train_tasks)
    collector = lab.SMAC(everyone, problem.family.spec, seed=0)
    list(lab.train_self_supervised(collector, problem.buffer, problem.family, problem.train, iterations=1))
    mark_self_collected(problem.buffer)
    batch = sample_self_supervised(agent, problem.buffer)
    share = (batch.context[..., -1] == 99.0).float().mean(1)  # of self-collected transitions in each task's context
    if kind == "mixed":
        assert ((share > 0) & (share < 0.5)).any()
    else:
        half = problem.config.online_meta_batch // 2
        assert share.tolist() == [0.0] * half + [1.0] * half
    if kind == "episodes":  # whole episodes in order: each transition starts where the one before ended
        n, horizon = problem.config.exploration_episodes * problem.family.horizon, problem.family.horizon
        assert batch.context.shape[1] == n
        first = batch.context[half, :horizon]
        assert torch.allclose(first[1:, :2], first[:-1, :2] + 0.1 * first[:-1, 2:4], atol=1e-6)
        assert not first[0, :2].any()


def test_training_that_diverges_says_so(problem: Problem) -> None:
    agent = problem.agent()
    with torch.no_grad():
        next(agent.critics.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="critic_loss"):
        list(lab.train_offline(agent, problem.buffer, steps=1))
