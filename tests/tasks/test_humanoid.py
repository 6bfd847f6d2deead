"""humanoid-dir: its observation and reward by hand and against gymnasium's layout, its controls and its end."""

from __future__ import annotations

import types

import mujoco
import numpy as np
import pytest
from compare_with_gymnasium import gymnasium_body

import smac_lab as lab

# Of the paper's 376: name, where it begins, shape; the world's rows and the root joint's entries come first.
LAYOUT = {
    "qpos": (0, (22,)),
    "qvel": (22, (23,)),
    "cinert": (45, (14, 10)),
    "cvel": (185, (14, 6)),
    "qfrc_actuator": (269, (23,)),
    "cfrc_ext": (292, (14, 6)),
}


def block(observations: np.ndarray, name: str) -> np.ndarray:
    start, shape = LAYOUT[name]
    return observations[..., start : start + int(np.prod(shape))].reshape(*observations.shape[:-1], *shape)


def fresh_data(family: lab.TaskFamily, env: lab.tasks.BatchEnv, i: int) -> mujoco.MjData:
    """Plain MuJoCo's data of simulation `i`, everything computed at its state."""
    data = env.simulation.engine.batch.get_data(i)
    mujoco.mj_forward(family.model, data)
    mujoco.mj_rnePostConstraint(family.model, data)
    return data


@pytest.fixture
def fallen() -> tuple[lab.tasks.HumanoidDir, lab.tasks.BatchEnv, np.ndarray]:
    """A humanoid of each of three tasks, some way through a fall."""
    family = lab.tasks.HumanoidDir()
    env = family.batch_env(lab.Tasks([0.0, 1.0, 4.0]), num_threads=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(15):
        observations, _, terminations, *_ = env.step(rng.uniform(-1, 1, (3, 17)))
        assert not terminations.any()
    return family, env, observations


def test_the_papers_376_numbers_by_hand(fallen) -> None:
    family, env, observations = fallen
    assert observations.shape == (3, 376)
    assert sum(int(np.prod(shape)) for _, shape in LAYOUT.values()) == 376
    for i in range(3):
        data = fresh_data(family, env, i)
        np.testing.assert_allclose(block(observations[i], "qpos"), data.qpos[2:], atol=1e-12)
        for name in ("qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"):
            np.testing.assert_allclose(block(observations[i], name), getattr(data, name), atol=1e-9, err_msg=name)
    for name in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext"):
        assert np.abs(block(observations, name)).max() > 0, f"{name} shows nothing"


def test_the_v5_observation_leaves_out_what_is_always_zero(fallen) -> None:
    """348 = 376 - the world's row of cinert, cvel and cfrc_ext (22) and the root's six actuator forces."""
    _, env, paper = fallen
    v5 = lab.make_family("humanoid-dir", obs="v5")
    observations = v5.observe(env.simulation.state)
    assert observations.shape == (3, v5.obs_dim) == (3, 348)
    left_out = [block(paper, name)[:, :rows] for name, rows in (("cinert", 1), ("cvel", 1), ("cfrc_ext", 1))]
    left_out.append(block(paper, "qfrc_actuator")[:, :6])
    assert sum(part[0].size for part in left_out) == 376 - 348
    for part in left_out:
        np.testing.assert_array_equal(part, 0.0)
    kept = [block(paper, "qpos"), block(paper, "qvel")]
    kept += [block(paper, name)[:, 1:].reshape(3, -1) for name in ("cinert", "cvel")]
    kept += [block(paper, "qfrc_actuator")[:, 6:], block(paper, "cfrc_ext")[:, 1:].reshape(3, -1)]
    np.testing.assert_array_equal(observations, np.concatenate(kept, axis=1))


def test_the_v5_observation_is_gymnasiums_brought_up_to_date() -> None:
    """Along a whole episode; gymnasium's own derived entries lag behind until mj_forward is called."""
    family = lab.make_family("humanoid-dir", obs="v5")
    body = gymnasium_body("Humanoid-v5")
    env = family.task_env(0.0)
    observation, _ = env.reset(seed=0)
    body.reset(seed=0)
    mujoco.mj_resetData(body.model, body.data)
    state = env.simulation.state
    body.set_state(state.qpos[0].copy(), state.qvel[0].copy())
    np.testing.assert_allclose(observation, body._get_obs(), atol=1e-10)
    rng, lag = np.random.default_rng(0), 0.0
    for _ in range(15):
        action = rng.uniform(-1, 1, 17)
        observation, *_ = env.step(action)
        stale, *_ = body.step(0.4 * action)
        mujoco.mj_forward(body.model, body.data)
        mujoco.mj_rnePostConstraint(body.model, body.data)
        np.testing.assert_allclose(observation, body._get_obs(), atol=1e-8)
        np.testing.assert_allclose(observation[:45], stale[:45], atol=1e-10)
        lag = max(lag, np.abs(observation - stale).max())
    assert lag > 1e-3
    body.close()


@pytest.mark.parametrize("contact_cost", [True, False])
def test_rewards_by_hand(contact_cost: bool) -> None:
    family = lab.make_family("humanoid-dir", contact_cost=contact_cost)
    tasks = lab.Tasks([0.0, 2.0, 4.0])
    env = family.batch_env(tasks, num_threads=1)
    env.reset(seed=0)
    mass = family.model.body_mass
    rng, most = np.random.default_rng(0), 0.0
    for _ in range(14):
        before = env.simulation.state.xipos.copy()
        actions = rng.uniform(-1, 1, (3, 17))
        _, rewards, terminations, _, info = env.step(actions)
        assert not terminations.any()
        for i, angle in enumerate(tasks.values[:, 0]):
            data = fresh_data(family, env, i)
            velocity = [(mass * (data.xipos - before[i])[:, axis]).sum() / mass.sum() / 0.015 for axis in (0, 1)]
            np.testing.assert_allclose(info["features"][i, :2], velocity, atol=1e-9)
            effort = 0.1 * np.square(0.4 * actions[i]).sum()
            contact = min(5e-7 * np.square(data.cfrc_ext).sum(), 10.0)
            most = max(most, contact)
            expected = 1.25 * (velocity[0] * np.cos(angle) + velocity[1] * np.sin(angle)) - effort + 5.0
            assert rewards[i] == pytest.approx(expected - contact_cost * contact, abs=1e-8)
    assert most > 0.1  # feet on the ground


def test_contacts_cost_ten_at_most() -> None:
    features = np.array([[0.0, 0.0, 2e6], [0.0, 0.0, 2e7], [0.0, 0.0, 1e12]])
    tasks, actions = np.zeros((3, 1)), np.zeros((3, 17))
    np.testing.assert_allclose(lab.make_family("humanoid-dir").reward(features, actions, tasks), [4.0, -5.0, -5.0])
    free = lab.make_family("humanoid-dir", contact_cost=False)
    np.testing.assert_allclose(free.reward(features, actions, tasks), 5.0)


def test_contact_cost_changes_the_reward_alone() -> None:
    """Contact forces are observed either way, and kept as a feature, so that data can be relabelled."""
    envs = []
    for contact_cost in (True, False):
        family = lab.make_family("humanoid-dir", contact_cost=contact_cost)
        env = family.batch_env(lab.Tasks([1.0, 2.0]), num_threads=1)
        env.reset(seed=0)
        envs.append(env)
    action = np.full((2, 17), 0.3)
    for _ in range(12):
        (paid, paid_rewards, *_, info), (free, free_rewards, *_, free_info) = (env.step(action) for env in envs)
        np.testing.assert_array_equal(paid, free)
        np.testing.assert_array_equal(info["features"], free_info["features"])
        np.testing.assert_allclose(free_rewards - paid_rewards, np.minimum(5e-7 * info["features"][:, 2], 10.0))
    assert (free_rewards > paid_rewards).all()


def test_an_action_of_one_is_a_control_of_0_4() -> None:
    family = lab.tasks.HumanoidDir()
    env = family.batch_env(lab.Tasks([0.0]), num_threads=1)
    env.reset(seed=0)
    actions = np.linspace(-1, 1, 17)[None]
    observations, *_ = env.step(actions)
    np.testing.assert_array_equal(env.simulation.engine.batch.bind("ctrl")[0], 0.4 * actions[0])
    model = family.model
    np.testing.assert_allclose(model.actuator_ctrlrange, [[-0.4, 0.4]] * 17)
    torque = np.zeros(23)  # each motor's gear times its control, at the joint that it turns
    torque[model.jnt_dofadr[model.actuator_trnid[:, 0]]] = model.actuator_gear[:, 0] * 0.4 * actions[0]
    np.testing.assert_allclose(block(observations[0], "qfrc_actuator"), torque, atol=1e-12)
    first, _ = env.reset(seed=0)  # no control is left over from the episode before
    np.testing.assert_array_equal(block(first[0], "qfrc_actuator"), 0.0)


def test_it_ends_outside_its_heights() -> None:
    """From 1 to 2 m, both included, as in the authors' code; gymnasium's v5 excludes the very bounds."""
    family = lab.tasks.HumanoidDir()
    heights = [1.0, 2.0, 1.4, np.nextafter(1.0, 0.0), np.nextafter(2.0, 3.0), np.nan, np.inf]
    state = types.SimpleNamespace(qpos=np.tile(np.array(heights)[:, None], (1, 24)))
    assert family.terminated(state).tolist() == [False] * 3 + [True] * 4
    env = family.batch_env(lab.Tasks(np.zeros(3)), num_threads=1)
    env.reset(seed=0)
    env.simulation.state.qpos[:, 2] = [1.4, 0.9, 2.5]
    _, rewards, terminations, *_ = env.step(np.zeros((3, 17)))
    assert terminations.tolist() == [False, True, True]
    # The bonus of 5 is paid on the last step, too; the one whose feet were put into the ground pays 10 for that.
    np.testing.assert_allclose(rewards, [5.0, -5.0, 5.0], atol=0.1)


def test_resets_and_tasks() -> None:
    family = lab.tasks.HumanoidDir()
    state = family.reset_state(np.random.default_rng(0), 1000)
    for values, centre in ((state["qpos"], family.model.qpos0), (state["qvel"], np.zeros(23))):
        assert np.abs(values - centre).max() <= 0.01
        np.testing.assert_allclose((values - centre).std(), 0.01 / np.sqrt(3), rtol=0.02)
    angles = family.sample_tasks(np.random.default_rng(0), 4000)
    assert angles.min() >= 0
    assert angles.max() <= 2 * np.pi
    np.testing.assert_allclose(np.quantile(angles, [0.25, 0.5, 0.75]) / np.pi, [0.5, 1.0, 1.5], atol=0.06)


def test_contact_free_observations_are_the_paper_s_without_the_last() -> None:
    family, free = lab.make_family("humanoid-dir"), lab.make_family("humanoid-dir:obs=contact-free")
    env = family.batch_env(lab.Tasks([1.0, 2.0]), num_threads=1)
    env.reset(seed=0)
    observations = env.step(np.full((2, 17), 0.3))[0]
    assert free.spec.obs_dim == 376 - 14 * 6
    np.testing.assert_array_equal(free.observe(env.simulation.state), observations[:, :-84])
