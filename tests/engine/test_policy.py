"""The actor in the loop, alone or divided among threads."""

import dataclasses

import numpy as np
import pytest
import torch

import smac_lab as lab
from smac_lab.data import rollout
from smac_lab.engine.policy import EpisodePolicy


@pytest.fixture(scope="module")
def cheetah():
    family = lab.make_family("cheetah-vel")
    config = dataclasses.replace(lab.SMACConfig.preset("cheetah-vel", "smoke"), device="cpu")
    return family, config, lab.SMAC(config, family.spec)


def make_policy(agent, n, deterministic=False):
    prior = agent.prior(n)
    return EpisodePolicy(agent, prior, torch.Generator().manual_seed(3), deterministic)


@pytest.mark.parametrize("resampling", ["episode", "step", 2])
@pytest.mark.parametrize("deterministic", [True, False])
def test_parts_of_a_policy_act_as_the_whole(cheetah, resampling, deterministic):
    family, config, _ = cheetah
    agent = lab.SMAC(dataclasses.replace(config, z_resampling=resampling), family.spec)
    observations = np.random.default_rng(0).standard_normal((5, 7, family.obs_dim))
    whole, parts = make_policy(agent, 7, deterministic), make_policy(agent, 7, deterministic).for_simulations([3, 4])
    previous = None
    for step in observations:
        actions = whole(step)
        together = np.concatenate([parts[0](step[:3]), parts[1](step[3:])])
        np.testing.assert_allclose(together, actions, atol=1e-6)
        assert previous is None or not np.allclose(actions, previous)
        previous = actions


def test_noise_and_z_are_those_of_the_definition(cheetah):
    """a = tanh(mean + std noise) with z = mean_z + std_z noise_z, all N(0, 1), new at every step where asked for."""
    family, config, _ = cheetah
    agent = lab.SMAC(dataclasses.replace(config, z_resampling="step"), family.spec)
    prior = lab.Gaussian(torch.full((400, config.z_dim), 2.0), torch.full((400, config.z_dim), 0.5))
    policy = EpisodePolicy(agent, prior, torch.Generator().manual_seed(0), deterministic=False)
    seen = []
    agent.actions = lambda observations, z, noise: seen.append((z, noise)) or np.zeros((400, family.action_dim))
    for _ in range(3):
        policy(np.zeros((400, family.obs_dim)))
    z, noise = (torch.stack(values) for values in zip(*seen, strict=True))
    assert abs(float(z.mean()) - 2.0) < 0.05
    assert abs(float(z.std()) - 0.5) < 0.02
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1.0) < 0.03
    assert not torch.equal(z[0], z[1])


@pytest.mark.parametrize(
    ("resampling", "drawn_at"), [("step", range(6)), ("episode", [0]), (2, [0, 2, 4]), (4, [0, 4])]
)
def test_z_is_drawn_anew_after_so_many_steps(cheetah, resampling, drawn_at):
    family, config, _ = cheetah
    agent = lab.SMAC(dataclasses.replace(config, z_resampling=resampling), family.spec)
    seen = []
    agent.actions = lambda observations, z, noise: seen.append(z) or np.zeros((5, family.action_dim))
    policy = make_policy(agent, 5)
    for _ in range(6):
        policy(np.zeros((5, family.obs_dim)))
    assert [t for t in range(6) if t == 0 or not torch.equal(seen[t], seen[t - 1])] == list(drawn_at)


def test_threads_roll_out_what_one_thread_does(cheetah):
    """Each simulation with its own start, z and noise; the same until rounding has grown."""
    family, _, agent = cheetah
    tasks, _ = family.split(70, 1, 0)
    alone, shared = (rollout(make_policy(agent, 70), family.batch_env(tasks, n), seed=5) for n in (1, 2))
    assert len(family.batch_env(tasks, 2).for_threads) == 2
    for name in ("observations", "actions", "rewards", "next_observations", "features"):
        np.testing.assert_allclose(getattr(shared, name)[:, :10], getattr(alone, name)[:, :10], atol=1e-3, err_msg=name)
    assert np.array_equal(shared.truncations, alone.truncations)
    assert shared.valid.all()
    # the same again, to the bit
    again = rollout(make_policy(agent, 70), family.batch_env(tasks, 2), seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(shared, again, strict=True))


def test_how_simulations_are_divided(cheetah):
    family, *_ = cheetah
    tasks, _ = family.split(150, 1, 0)
    parts = family.batch_env(tasks, 6, rewards=False).for_threads
    assert [part.num_envs for part in parts] == [38, 38, 37, 37]
    assert [part.num_threads for part in parts] == [2, 2, 1, 1]
    assert not any(part.rewards for part in parts), "reward-free interaction stays that"
    np.testing.assert_array_equal(np.concatenate([part.tasks.values for part in parts]), tasks.values)
    small = family.batch_env(tasks[:40], 6)
    assert small.for_threads == [small]
    points = lab.make_family("point-robot")
    one = points.batch_env(points.split(100, 1, 0)[0], 4)
    assert one.for_threads == [one]


def test_torch_threads_are_as_before(cheetah):
    family, _, agent = cheetah
    tasks, _ = family.split(64, 1, 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rollout(make_policy(agent, 64), family.batch_env(tasks, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_is_the_callers(cheetah):
    family, config, _ = cheetah
    agent = lab.SMAC(config, family.spec)
    tasks, _ = family.split(64, 1, 0)
    with torch.no_grad():
        agent.actor.net[-1].bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="actions that are not finite"):
        rollout(make_policy(agent, 64), family.batch_env(tasks, 2))
