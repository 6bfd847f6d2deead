"""BatchEnv and TaskEnv: the two faces of a simulation agree with each other and with gymnasium's contracts."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import smac_lab as lab
from smac_lab.data import rollout
from smac_lab.tasks import FAMILIES, AntDir, CheetahVel, MujocoFamily

BODIES = [name for name, family in FAMILIES.items() if issubclass(family, MujocoFamily)]


def short(name: str, horizon: int) -> lab.TaskFamily:
    """A family of the list with another horizon."""
    family = type("Short", (FAMILIES[name],), {"horizon": horizon})()
    assert isinstance(family, lab.TaskFamily)
    return family


def random_actions(family: lab.TaskFamily, n: int, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, n, family.action_dim)).astype(np.float32)


# -- gymnasium's own checks --------------------------------------------------------------------------------------


def has_renderer() -> bool:
    from smac_lab.tasks.rendering import _context_class

    try:
        _context_class()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("name", FAMILIES)
def test_env_checker_has_no_complaint(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = gym.make(f"smac_lab/{FAMILIES[name].__name__}-v0").unwrapped
        assert env.family.full_name == name
        check_env(env, skip_render_check=name in BODIES and not has_renderer())
    complaints = [str(warning.message) for warning in caught]
    # Positions and velocities have no bounds, as in gymnasium's own bodies.
    assert [text for text in complaints if "infinity. This is probably too" not in text] == []


def test_gym_make_takes_a_task_and_adds_the_time_limit() -> None:
    with gym.make("smac_lab/CheetahVel-v0", task=1.5, render_mode="rgb_array") as env:
        assert env.spec is not None
        assert env.spec.max_episode_steps == 200
        assert env.render_mode == "rgb_array"
        _, info = env.reset(seed=0)
        np.testing.assert_array_equal(info["task"], [1.5])
        for step in range(200):
            _, _, terminated, truncated, _ = env.step(np.zeros(6))
            assert not terminated
            assert truncated == (step == 199)


def test_a_task_env_draws_a_new_task_at_each_reset_unless_told_one() -> None:
    env = gym.make("smac_lab/PointRobot-v0")
    drawn = [env.reset(seed=seed)[1]["task"] for seed in (1, 2, 1)]
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    _, info = env.reset(options={"task": [0.0, 1.0]})
    np.testing.assert_array_equal(info["task"], [0.0, 1.0])
    with pytest.raises(ValueError, match="needs a task of 2 finite numbers"):
        env.reset(options={"task": 1.0})


# -- BatchEnv is many TaskEnvs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_batch_env_equals_task_env_to_the_bit(name: str) -> None:
    family = short(name, 8)
    tasks, _ = family.split(3, 1, seed=0)
    env = family.batch_env(tasks, num_threads=2)
    singles = [family.task_env(task) for task in tasks.values]
    observations, _ = env.reset(seed=5)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(observations[i], single.reset(seed=5 + i)[0])
    for step, actions in enumerate(random_actions(family, 3, 20), start=1):
        observations, rewards, terminations, truncations, info = env.step(actions)
        assert truncations.all() == (step % 8 == 0)
        for i, single in enumerate(singles):
            observation, reward, terminated, _, single_info = single.step(actions[i])
            assert (rewards[i], terminations[i]) == (reward, terminated)
            np.testing.assert_array_equal(info["features"][i], single_info["features"])
            if terminated or truncations[i]:
                np.testing.assert_array_equal(info["final_obs"][i], observation)
                observation, _ = single.reset()
            np.testing.assert_array_equal(observations[i], observation)


@pytest.mark.parametrize(
    ("name", "horizon", "steps"), [("point-robot", 6, 15), ("cheetah-vel", 9, 20), ("ant-dir", 60, 80)]
)
def test_batch_env_equals_gymnasiums_vector_env(name: str, horizon: int, steps: int) -> None:
    family = short(name, horizon)
    tasks, _ = family.split(4, 1, seed=0)
    env = family.batch_env(tasks)
    sync = SyncVectorEnv(
        [lambda task=task: TimeLimit(family.task_env(task), horizon) for task in tasks.values],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert env.metadata["autoreset_mode"] == sync.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    for space in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(env, space) == getattr(sync, space)

    observations, info = env.reset(seed=[7, 3, 11, 12])
    expected, expected_info = sync.reset(seed=[7, 3, 11, 12])
    np.testing.assert_array_equal(observations, expected)
    for key in ("task", "_task"):
        np.testing.assert_array_equal(info[key], expected_info[key])
    ended = 0
    for actions in random_actions(family, 4, steps):
        got, want = env.step(np.sign(actions)), sync.step(np.sign(actions))
        for ours, theirs in zip(got[:4], want[:4], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        ended += int(got[2].sum())
        info, expected_info = got[4], want[4]
        assert ("final_obs" in info) == ("final_obs" in expected_info)
        if "final_obs" in info:
            done = info["_final_obs"]
            np.testing.assert_array_equal(done, expected_info["_final_obs"])
            np.testing.assert_array_equal(done, info["_final_info"])
            np.testing.assert_array_equal(info["final_obs"][done], np.stack(expected_info["final_obs"][done]))
            features, masks = info["final_info"]["features"], info["final_info"]["_features"]
            np.testing.assert_array_equal(features[done], expected_info["final_info"]["features"][done])
            np.testing.assert_array_equal(masks, expected_info["final_info"]["_features"])
    assert (ended > 0) == (name == "ant-dir")  # falls, before the time limit


def test_spaces_and_dtypes() -> None:
    family = lab.make_family("cheetah-vel")
    env = family.batch_env(family.split(3, 1, seed=0)[0])
    observations, _ = env.reset(seed=0)
    assert env.num_envs == 3
    assert env.observation_space.shape == (3, 20)
    assert env.single_action_space == gym.spaces.Box(-1, 1, (6,), np.float32)
    assert env.observation_space.contains(observations)
    env.action_space.seed(0)
    observations, rewards, terminations, truncations, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observations)
    assert (rewards.dtype, rewards.shape) == (np.float64, (3,))
    assert terminations.dtype == truncations.dtype == info["diverged"].dtype == bool
    assert info["features"].shape == (3, family.spec.feature_dim)
    env.close()


def test_a_vector_wrapper_of_gymnasium_works() -> None:
    family = lab.make_family("point-robot")
    tasks, _ = family.split(5, 1, seed=0)
    env = gym.wrappers.vector.RecordEpisodeStatistics(family.batch_env(tasks))
    env.reset(seed=0)
    total = np.zeros(5)
    for actions in random_actions(family, 5, 20):
        _, rewards, _, truncations, info = env.step(actions)
        total += rewards
    assert truncations.all()
    np.testing.assert_allclose(info["episode"]["r"], total)


def test_reset_mask_restarts_only_the_simulations_it_names() -> None:
    family = short("cheetah-vel", 6)
    tasks, _ = family.split(3, 1, seed=0)
    env, twin = family.batch_env(tasks), family.batch_env(tasks)
    for each in (env, twin):
        each.reset(seed=0)
    actions = random_actions(family, 3, 8)
    for step in range(4):
        last, *_ = env.step(actions[step])
        twin.step(actions[step])
    mask = np.array([False, True, False])
    observations, info = env.reset(seed=9, options={"reset_mask": mask})
    np.testing.assert_array_equal(observations[[0, 2]], last[[0, 2]])
    np.testing.assert_array_equal(observations[1], family.task_env(tasks.values[1]).reset(seed=10)[0])
    np.testing.assert_array_equal(info["_task"], mask)
    for step in range(4, 8):  # the others go on as if nothing had happened, generators included
        got, want = env.step(actions[step]), twin.step(actions[step])
        for ours, theirs in zip(got[:4], want[:4], strict=True):
            np.testing.assert_array_equal(ours[[0, 2]], theirs[[0, 2]])
        assert got[3].tolist() == [step == 5, False, step == 5]


def test_seeds() -> None:
    family = lab.make_family("cheetah-vel")
    env = family.batch_env(family.split(3, 1, seed=0)[0])
    first, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, env.reset(seed=[4, 5, 6])[0])
    second, _ = env.reset()  # goes on with the same generators
    assert not np.array_equal(first, second)
    env.reset(seed=4)
    np.testing.assert_array_equal(second, env.reset()[0])
    env.reset(seed=4)
    third, _ = env.reset(seed=[None, 5, None])
    np.testing.assert_array_equal(third, np.stack([second[0], first[1], second[2]]))
    assert not np.array_equal(family.batch_env(env.tasks).reset()[0], family.batch_env(env.tasks).reset()[0])


@pytest.mark.parametrize("name", BODIES)
def test_results_do_not_depend_on_threads(name: str) -> None:
    family = short(name, 15)
    tasks, _ = family.split(7, 1, seed=0)
    actions = random_actions(family, 7, 25)
    results = []
    for num_threads in (1, 2, 0):
        env = family.batch_env(tasks, num_threads=num_threads)
        env.reset(seed=0)
        results.append([env.step(a)[:2] for a in actions])
    for other in results[1:]:
        for (observations, rewards), (expected, expected_rewards) in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(observations, expected)
            np.testing.assert_array_equal(rewards, expected_rewards)


class ViewsOfState(CheetahVel):
    """A family that hands out views of the live state, as a quickly written one may."""

    name, obs_dim = "views", 9

    def __init__(self) -> None:
        super().__init__()
        self.obs_dim = 9

    def observe(self, state):
        return state.qpos

    def measure(self, before, action, after):
        return after.qvel[:, :1]


@pytest.mark.parametrize(
    "family", [short("point-direction", 4), short("cheetah-vel", 4), short("ant-dir", 4), ViewsOfState()]
)
def test_what_was_handed_out_is_never_overwritten(family: lab.TaskFamily) -> None:
    family.horizon = 4
    env = family.batch_env(family.split(2, 1, seed=0)[0])
    handed_out = [env.reset(seed=0)[0]]
    kept = [handed_out[0].copy()]
    for actions in random_actions(family, 2, 10):
        observations, rewards, terminations, truncations, info = env.step(actions)
        new = [observations, rewards, terminations, truncations, info["features"], info["diverged"]]
        if "final_obs" in info:
            new += [info["final_obs"], info["final_info"]["features"]]
            assert not np.array_equal(info["final_obs"], observations)
        handed_out += new
        kept += [array.copy() for array in new]
    for array, copy in zip(handed_out, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_features_of_an_episodes_last_step_are_from_before_the_restart() -> None:
    family = ViewsOfState()
    family.horizon = 3
    env = family.batch_env(lab.Tasks([1.0]))
    env.reset(seed=0)
    for actions in random_actions(family, 1, 3):
        _, _, _, truncations, info = env.step(actions)
        after = env.simulation.state.qvel[0, 0]
    assert truncations[0]
    assert info["features"][0, 0] != after


# -- rewards withheld --------------------------------------------------------------------------------------------


def test_without_rewards_the_family_is_never_asked_for_one() -> None:
    class Secret(CheetahVel):
        secret = False

        def reward(self, features, actions, tasks):
            assert not self.secret
            return super().reward(features, actions, tasks)

    family = Secret()
    tasks, _ = family.split(2, 1, seed=0)
    assert family.spec.feature_dim == 1  # measured once, with rewards
    family.secret = True
    env = family.batch_env(tasks, rewards=False)
    env.reset(seed=0)
    _, rewards, *_ = env.step(np.zeros((2, 6)))
    assert np.isnan(rewards).all()


# -- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["point-robot", "cheetah-vel"])
def test_bad_actions_are_refused(name: str) -> None:
    family = lab.make_family(name)
    tasks, _ = family.split(3, 1, seed=0)
    env, single = family.batch_env(tasks), family.task_env(tasks.values[0])
    good = np.zeros((3, family.action_dim))
    for unready, action in ((env, good), (single, good[0])):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            unready.step(action)
    env.reset(seed=0)
    single.reset(seed=0)
    bad = good.copy()
    bad[1, 0] = np.nan
    with pytest.raises(ValueError, match=f"{name} got actions that are not finite"):
        env.step(bad)
    with pytest.raises(ValueError, match=r"expects actions of shape \(3, "):
        env.step(good[:2])
    with pytest.raises(ValueError, match="expects actions of shape"):
        single.step(good)
    with pytest.raises(ValueError, match="not finite"):
        single.step(bad[1])


def test_actions_outside_their_box_are_clipped() -> None:
    family = lab.make_family("cheetah-vel")
    env, twin = (family.batch_env(lab.Tasks([1.0])) for _ in range(2))
    for each in (env, twin):
        each.reset(seed=0)
    for got, want in zip(env.step(np.full((1, 6), 7.0))[:2], twin.step(np.ones((1, 6)))[:2], strict=True):
        np.testing.assert_array_equal(got, want)


def test_bad_resets_are_refused() -> None:
    family = lab.make_family("point-robot")
    env = family.batch_env(family.split(3, 1, seed=0)[0])
    with pytest.raises(ValueError, match="one for each of 3 simulations, got 2"):
        env.reset(seed=[1, 2])
    for mask in (np.ones(2, bool), np.ones(3)):
        with pytest.raises(ValueError, match="reset_mask must hold 3 booleans"):
            env.reset(options={"reset_mask": mask})
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="render_mode"):
        family.task_env(render_mode="human")


# -- physics that breaks down ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e12, np.nan, np.inf])
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("step", [0, 4])
def test_a_diverging_simulation_ends_its_own_episode_only(name: str, value: float, step: int) -> None:
    family = lab.make_family(name)
    tasks, _ = family.split(4, 1, seed=0)
    env, twin = family.batch_env(tasks), family.batch_env(tasks)
    for each in (env, twin):
        each.reset(seed=0)
    actions = random_actions(family, 4, 10)
    others = [0, 2, 3]
    bound = 1e7 if name == "humanoid-dir" else 1e3  # a feature of it is the square of contact forces
    for t in range(10):
        if t == step:
            env.simulation.state.qvel[1] = value
            with pytest.warns(RuntimeWarning, match="1 of 4 simulations diverged") as caught:
                got = env.step(actions[t])
            assert len(caught) == 1
        else:
            got = env.step(actions[t])
        want = twin.step(actions[t])
        observations, rewards, terminations, truncations, info = got
        assert info["diverged"].tolist() == [False, t == step, False, False]
        assert terminations[1] == (t == step)
        assert not truncations.any()
        for array in (observations, rewards, info["features"], info.get("final_obs", observations)):
            assert np.isfinite(array).all()
            assert np.abs(array).max() < bound
        for ours, theirs in zip(got[:4], want[:4], strict=True):
            np.testing.assert_array_equal(ours[others], theirs[others])
        np.testing.assert_array_equal(info["features"][others], want[4]["features"][others])


def test_a_sound_state_is_where_a_diverged_episode_ends() -> None:
    """Physics that breaks down within a step leaves the state that the step found."""
    family = lab.make_family("cheetah-vel")
    env = family.batch_env(lab.Tasks([1.0]))
    before, _ = env.reset(seed=0)
    env.simulation.state.qvel[0, 3] = 1e9  # accepted as it is, too much for the integrator
    before[0, 11] = 1e9
    with pytest.warns(RuntimeWarning, match="diverged"):
        _, _, terminations, _, info = env.step(np.zeros((1, 6)))
    assert terminations[0]
    np.testing.assert_array_equal(info["final_obs"], before)
    np.testing.assert_array_equal(info["features"], 0.0)


def test_a_formula_that_diverges_is_noticed_too() -> None:
    family = lab.make_family("point-robot")
    env = family.batch_env(family.split(3, 1, seed=0)[0])
    env.reset(seed=0)
    env.simulation.state.position[2] = np.nan
    with pytest.warns(RuntimeWarning, match="1 of 3 simulations diverged"):
        observations, rewards, terminations, _, info = env.step(np.full((3, 2), 0.5))
    assert terminations.tolist() == info["diverged"].tolist() == [False, False, True]
    assert np.isfinite(observations).all()
    assert np.isfinite(rewards).all()


def test_a_task_env_that_diverges_ends() -> None:
    env = AntDir().task_env(1.0)
    env.reset(seed=0)
    env.simulation.state.qvel[:] = np.nan
    with pytest.warns(RuntimeWarning, match="diverged"):
        observation, reward, terminated, truncated, info = env.step(np.zeros(8))
    assert terminated
    assert not truncated
    assert info["diverged"]
    assert np.isfinite(observation).all()
    assert np.isfinite(reward)


def test_nothing_that_diverged_reaches_a_buffer() -> None:
    family = short("cheetah-vel", 10)
    tasks, _ = family.split(3, 1, seed=0)
    env = family.batch_env(tasks)
    rng, calls = np.random.default_rng(0), iter(range(10))

    def policy(observations: np.ndarray) -> np.ndarray:
        if next(calls) == 4:
            env.simulation.state.qvel[2] = np.nan
        return rng.uniform(-1, 1, (3, 6))

    with pytest.warns(RuntimeWarning, match="diverged"):
        episodes = rollout(policy, env, seed=0)
    expected = np.ones((3, 10), bool)
    expected[2, 4] = False
    np.testing.assert_array_equal(episodes.valid, expected)
    for column in episodes:
        assert np.isfinite(column).all()
    buffer = lab.TransitionBuffer(family.spec, 3)
    for i in range(3):
        buffer.append(i, episodes.columns(i), "self-collected")
    assert buffer.counts.tolist() == [10, 10, 9]
    assert buffer.rows.isfinite().all()
    assert buffer.rewards.abs().max() < 10
