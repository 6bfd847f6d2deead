"""Rollouts, and the recipes for behaviour data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import smac_lab as lab
from smac_lab.data import Episodes, rollout
from smac_lab.engine.rollout import near_random_policy
from smac_lab.tasks import AntDir


def config(name: str = "point-direction", **changes: object) -> lab.SMACConfig:
    return dataclasses.replace(lab.SMACConfig.preset(name, "smoke"), **changes)


def task_returns(buffer: lab.TransitionBuffer, horizon: int) -> np.ndarray:
    """Return of each stored episode, `(episode,)`."""
    return buffer.rewards.numpy().reshape(-1, horizon).sum(1)


# -- rollouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["point-robot", "cheetah-vel", "ant-dir"])
def test_a_rollout_is_what_single_environments_see(name: str) -> None:
    family = lab.make_family(name)
    family.horizon = 40
    tasks, _ = family.split(3, 1, seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 3, family.action_dim))
    step = iter(actions)
    episodes = rollout(lambda observations: next(step), family.batch_env(tasks), seed=2)
    assert episodes.observations.shape == episodes.next_observations.shape == (3, 40, family.obs_dim)
    assert episodes.rewards.shape == episodes.terminations.shape == (3, 40)
    assert episodes.features.shape == (3, 40, family.spec.feature_dim)
    for i in range(3):
        env = family.task_env(tasks.values[i])
        observation, _ = env.reset(seed=2 + i)
        for t in range(40):
            np.testing.assert_array_equal(episodes.observations[i, t], observation)
            np.testing.assert_array_equal(episodes.actions[i, t], actions[t, i])
            observation, reward, terminated, _, _ = env.step(actions[t, i])
            np.testing.assert_array_equal(episodes.next_observations[i, t], observation)
            assert episodes.rewards[i, t] == reward
            assert episodes.terminations[i, t] == terminated
            if terminated:  # another episode follows in the same row
                observation, _ = env.reset()
    assert episodes.truncations[~episodes.terminations.any(1), -1].all()
    assert episodes.valid.all()


def test_returns_count_the_first_episode_only() -> None:
    rewards = np.arange(1.0, 11).reshape(2, 5)
    terminations = np.zeros((2, 5), bool)
    terminations[0, 2] = terminations[0, 3] = True
    truncations = np.zeros((2, 5), bool)
    truncations[:, -1] = True
    empty = np.zeros((2, 5, 1))
    valid = np.ones((2, 5), bool)
    valid[1, 3] = False
    episodes = Episodes(empty, empty, rewards, empty, terminations, truncations, empty, valid)
    assert episodes.returns.tolist() == [1 + 2 + 3, 6 + 7 + 8 + 9 + 10]
    assert episodes.first.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert episodes.columns(0)["rewards"].tolist() == [1, 2, 3, 4, 5]
    assert episodes.columns(1)["rewards"].tolist() == [6, 7, 8, 10]
    assert "valid" not in episodes.columns(0)


# -- behaviour data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_shares_of_the_scripted_mixture(share: float) -> None:
    """Without noise an episode along its own direction returns 80 / pi on average, along any other 0."""
    family = lab.make_family("point-direction")
    tasks, _ = family.split(100, 1, seed=0)
    recipe = config(behaviour_on_task=share, behaviour_noise=0.0, behaviour_transitions=400)
    buffer = lab.collect_behaviour(family, tasks, recipe, seed=0)
    returns = task_returns(buffer, 20)
    assert returns.mean() == pytest.approx(share * 80 / np.pi, abs=1.5)
    best = np.repeat(20 * (np.abs(np.cos(tasks.values)) + np.abs(np.sin(tasks.values))), 20)
    on_task = np.isclose(returns, best, atol=1e-4)  # and a quarter of the others share its corner
    assert on_task.mean() == pytest.approx(share + 0.25 * (1 - share), abs=0.05)


def test_noise_on_scripted_actions() -> None:
    family = lab.make_family("point-robot")
    tasks, _ = family.split(50, 1, seed=0)
    means = [
        task_returns(
            lab.collect_behaviour(
                family, tasks, config("point-robot", behaviour_on_task=1.0, behaviour_noise=noise), seed=0
            ),
            20,
        ).mean()
        for noise in (0.0, 0.5, 1.0)
    ]
    assert means[0] == pytest.approx(-3.84, abs=0.15)
    assert means[0] > means[1] + 0.5 > means[2] + 1.0


def test_detours_of_the_point_robot_go_everywhere() -> None:
    family = lab.make_family("point-robot")
    tasks, _ = family.split(100, 1, seed=0)
    buffer = lab.collect_behaviour(family, tasks, config("point-robot", behaviour_on_task=0.0), seed=0)
    last = buffer.next_observations.reshape(-1, 20, 2)[:, -1]
    assert torch.abs(last).mean(0).min() > 0.8
    assert torch.abs(last.mean(0)).max() < 0.15


@pytest.mark.parametrize("name", ["point-robot", "cheetah-vel", "ant-dir"])
def test_behaviour_data_is_offline_complete_and_reproducible(name: str) -> None:
    family = lab.make_family(name)
    tasks, _ = family.split(3, 1, seed=0)
    recipe = config(name, behaviour_transitions=400)
    buffer, again, other = (lab.collect_behaviour(family, tasks, recipe, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(buffer.rows, again.rows)
    assert torch.equal(buffer.task, again.task)
    assert not torch.equal(buffer.rows, other.rows)
    assert buffer.offline_counts.tolist() == [400] * 3
    assert buffer.counts.tolist() == (buffer.offline_counts + buffer.counts_of("exploration")).tolist()
    assert (buffer.source == 0).all()
    for task in range(3):  # truly labelled for its own task
        rows = buffer.rows_of(task)
        rewards = family.reward(
            buffer.features[rows].double().numpy(),
            buffer.actions[rows].double().numpy(),
            np.tile(tasks.values[task], (len(rows), 1)),
        )
        np.testing.assert_allclose(buffer.rewards[rows], rewards, atol=1e-4)


def test_without_a_script_data_is_near_random() -> None:
    family = lab.make_family("cheetah-vel")
    tasks, _ = family.split(4, 1, seed=0)
    buffer = lab.collect_behaviour(family, tasks, config("cheetah-vel", behaviour_transitions=200), seed=0)
    assert buffer.actions.mean().item() == pytest.approx(0, abs=0.03)
    assert buffer.actions.std().item() == pytest.approx(0.628, abs=0.02)  # of tanh of a standard normal
    assert buffer.features.abs().mean() < 1.0  # m/s
    policy = near_random_policy(6, np.random.default_rng(0))
    assert policy(np.zeros((5, 20))).shape == (5, 6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ants_stand_in_walks_and_pursues_its_own_task_only_when_told(share: float) -> None:
    family = AntDir()
    tasks = lab.Tasks(np.arange(12) * np.pi / 6)
    recipe = config(
        "ant-dir",
        behaviour_policy="scripted",
        behaviour_on_task=share,
        behaviour_noise=0.2,
        behaviour_transitions=200,
    )
    buffer = lab.collect_behaviour(family, tasks, recipe, seed=0)
    velocity = buffer.features[:, :2].reshape(12, 200, 2).mean(1).numpy()
    assert np.linalg.norm(velocity, axis=1).mean() > 0.9  # m/s
    own = np.concatenate([np.cos(tasks.values), np.sin(tasks.values)], axis=1)
    along = (velocity * own).sum(1).mean()
    assert along > 0.9 if share else abs(along) < 0.6


def test_a_recipe_that_cuts_episodes_is_refused() -> None:
    family = lab.make_family("point-direction")
    tasks, _ = family.split(2, 1, seed=0)
    with pytest.raises(ValueError, match=r"behaviour_transitions=30 is not allowed.* horizon of point-direction, 20"):
        lab.collect_behaviour(family, tasks, config(behaviour_transitions=30), seed=0)
