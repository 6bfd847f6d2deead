"""Probe families: worlds so small that every value is known, and what training makes of them.

A probe fails for one reason. If the bandit's values are wrong, rewards or the task are misread; if the delayed
reward's are, discounting is; if the endless one's are, an episode's end by time is taken for a termination.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import smac_lab as lab
from smac_lab import SMAC, SMACConfig, Tasks, TransitionBuffer
from smac_lab.tasks import DynamicsFamily
from smac_lab.tasks.spec import Array

N_TASKS = 8
CONFIG = SMACConfig(
    initial_weights="pytorch",  # quicker in so few updates
    z_dim=2,
    encoder_hidden=(32, 32),
    decoder_hidden=(32, 32),
    actor_hidden=(32, 32),
    critic_hidden=(64, 64),
    behaviour_transitions=200,
    reward_scale=5.0,
    discount=0.5,
    kl_weight=1e-3,
    awac_lambda=1.0,
    learning_rate=2e-3,
    tau=0.05,
    meta_batch=N_TASKS,
    batch_size=32,
    context_size=16,
    online_meta_batch=N_TASKS,
    online_batch_size=32,
    online_updates=100,
    online_tasks=N_TASKS,
    prior_episodes=4,
    posterior_episodes=4,
    label_context_size=32,
    device="cpu",
)


class Probe(DynamicsFamily):
    """Time passes; the task is a number in [-0.8, 0.8]."""

    obs_dim = 1
    action_dim = 1
    state_fields: ClassVar[tuple[str, ...]] = ("time",)

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return rng.permutation(np.linspace(-0.8, 0.8, n))[:, None]

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        return {"time": np.zeros((n, 1))}

    def dynamics(self, state: SimpleNamespace, action: Array) -> Mapping[str, Array]:
        return {"time": state.time + 1.0}

    def observe(self, state: SimpleNamespace) -> Array:
        return np.array(state.time)

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        return np.array(before.time)


class Bandit(Probe):
    """One step, reward 1 - (a - task)^2: Q(a) = 5 reward, and the best action is the task."""

    name = "bandit"
    horizon = 1

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return 1.0 - (actions[:, 0] - tasks[:, 0]) ** 2

    def terminated(self, state: SimpleNamespace) -> Any:
        return state.time[:, 0] >= 1


class Delayed(Probe):
    """Two steps, the second of which pays the task: Q(0) = gamma 5 task, Q(1) = 5 task."""

    name = "delayed"
    horizon = 2

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return features[:, 0] * tasks[:, 0]

    def terminated(self, state: SimpleNamespace) -> Any:
        return state.time[:, 0] >= 2


class Endless(Probe):
    """Nothing to see, every step pays the task, only time ends an episode: Q = 5 task / (1 - gamma)."""

    name = "endless"
    horizon = 4

    def observe(self, state: SimpleNamespace) -> Array:
        return np.zeros_like(state.time)

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return tasks[:, 0].copy()


class Indifferent(Endless):
    """Every task pays 1, so that there is nothing to infer."""

    name = "indifferent"

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return np.ones(len(tasks))


class Trained(NamedTuple):
    agent: SMAC
    family: Probe
    tasks: Tasks
    buffer: TransitionBuffer
    metrics: dict[str, float]

    @torch.no_grad()
    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Values under the posterior means from offline context, `(critic, task, n)`."""
        values: Tensor = self.agent.critics(observations, actions, self.z(observations.shape[1]))
        return values

    @torch.no_grad()
    def decoded(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Decoded rewards, `(task, n)`."""
        rewards: Tensor = self.agent.reward_decoder(observations, actions, self.z(observations.shape[1]))
        return rewards

    def task_values(self) -> Tensor:
        """Task parameters, `(task, 1)`."""
        return torch.tensor(self.tasks.values, dtype=torch.float32)

    def z(self, n: int) -> Tensor:
        """Posterior means from offline context, `(task, n, z_dim)`."""
        context = self.buffer.sample_context(torch.arange(N_TASKS), 64, torch.Generator().manual_seed(1), "offline")
        return self.agent.infer_posterior(context).mean.unsqueeze(1).expand(-1, n, -1)


def train(family: Probe, steps: int, **options: Any) -> Trained:
    config = SMACConfig(**{**CONFIG.to_dict(), **options})
    tasks, _ = family.split(N_TASKS, 1, seed=0)
    buffer = lab.collect_behaviour(family, tasks, config, seed=0)
    agent = SMAC(config, family.spec, seed=0)
    for _ in lab.train_offline(agent, buffer, steps=steps):
        pass
    # smaller steps at the end: what is left is not the last step's noise
    agent.config = dataclasses.replace(config, learning_rate=0.1 * config.learning_rate)
    *_, (_, last) = lab.train_offline(agent, buffer, steps=200)
    return Trained(agent, family, tasks, buffer, last)


def rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


GRID = torch.linspace(-0.9, 0.9, 13).reshape(1, -1, 1).expand(N_TASKS, -1, -1)  # actions, (task, 13, 1)


@pytest.fixture(scope="module")
def bandit() -> Trained:
    return train(Bandit(), steps=700)


def bandit_reward(trained: Trained) -> Tensor:
    return 1.0 - (GRID.squeeze(-1) - trained.task_values()).square()


def test_bandit_values(bandit: Trained) -> None:
    expected = 5.0 * bandit_reward(bandit)
    assert expected.std() > 3  # so an error of 0.4 is small
    assert rms(bandit.q(torch.zeros_like(GRID), GRID) - expected) < 0.4


def test_bandit_rewards_are_decoded_unscaled(bandit: Trained) -> None:
    assert rms(bandit.decoded(torch.zeros_like(GRID), GRID) - bandit_reward(bandit)) < 0.1
    assert bandit.metrics["reward_error"] < 0.02


def test_bandit_imitation_prefers_good_actions(bandit: Trained) -> None:
    """The data are the same for every task; only the weights can tell the actor where to go."""
    actions = bandit.agent.act(np.zeros((N_TASKS, 1)), bandit.z(1)[:, 0])[:, 0]
    assert np.abs(actions - bandit.tasks.values[:, 0]).mean() < 0.25
    assert np.corrcoef(actions, bandit.tasks.values[:, 0])[0, 1] > 0.95


def test_bandit_self_supervision(bandit: Trained) -> None:
    """Labels match the rewards that were thrown away, and climbing the critics finds each task's best action."""
    config = SMACConfig(**{**bandit.agent.config.to_dict(), "online_awac_weight": 0.0})
    agent, buffer = SMAC(config, bandit.family.spec, seed=1), bandit.buffer.clone()
    agent.load_state_dict(bandit.agent.state_dict())
    for _ in lab.train_self_supervised(agent, buffer, bandit.family, bandit.tasks, iterations=5):
        pass
    own = buffer.source == 1
    assert own.sum() == 5 * N_TASKS * 8
    true = bandit.family.reward(
        buffer.features[own].numpy(), buffer.actions[own].numpy(), bandit.tasks.values[buffer.task[own].numpy()]
    )
    assert rms(buffer.rewards[own] - torch.tensor(true)) < 0.15

    actions = agent.act(np.zeros((N_TASKS, 1)), bandit.z(1)[:, 0])[:, 0]
    assert np.abs(actions - bandit.tasks.values[:, 0]).mean() < 0.1


def test_delayed_reward_is_discounted_once() -> None:
    trained = train(Delayed(), steps=500)
    time = torch.tensor([0.0, 1.0]).reshape(1, 2, 1).expand(N_TASKS, 2, 1)
    expected = 5.0 * trained.task_values() * torch.tensor([0.5, 1.0])
    assert rms(trained.q(time, torch.zeros_like(time)) - expected) < 0.25


def test_episode_cut_by_time_is_worth_what_would_follow() -> None:
    """The reward is the task, so the decoder's error vanishes and z orders the tasks."""
    trained = train(Endless(), steps=500)
    zeros = torch.zeros(N_TASKS, 1, 1)
    expected = 5.0 * trained.task_values() / (1.0 - 0.5)
    assert rms(trained.q(zeros, zeros) - expected) < 0.4
    assert trained.metrics["reward_error"] < 2e-3
    assert rms(trained.decoded(zeros, zeros) - trained.task_values()) < 0.03


def test_nothing_to_infer_leaves_the_prior() -> None:
    told = train(Endless(), steps=200, kl_weight=0.1).metrics
    untold = train(Indifferent(), steps=200, kl_weight=0.1).metrics
    assert untold["kl"] < 0.1 < 0.4 < told["kl"]
    assert untold["reward_error"] < 5e-3
