"""Task families: rewards by hand, bodies against gymnasium's, returns of the known best and of chance."""

from __future__ import annotations

import dataclasses
import sys
import types
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import smac_lab as lab
from smac_lab.data import rollout
from smac_lab.engine.rollout import scripted_policy
from smac_lab.tasks import FAMILIES, MujocoFamily


def best_returns(family: lab.TaskFamily, tasks: lab.Tasks) -> np.ndarray:
    policy = scripted_policy(family, tasks, 0.0, np.random.default_rng(0))
    return rollout(policy, family.batch_env(tasks), seed=0).returns


def random_returns(family: lab.TaskFamily, tasks: lab.Tasks) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rollout(
        lambda observations: rng.uniform(-1, 1, (len(observations), family.action_dim)), family.batch_env(tasks), seed=0
    ).returns


@pytest.fixture
def gymnasium_body(monkeypatch: pytest.MonkeyPatch):
    """Makes gymnasium's own MuJoCo environments, whose module wants imageio for saving pictures."""
    try:
        import imageio  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))
    return lambda name, **options: gym.make(name, **options).unwrapped


# -- names, tasks, splits ----------------------------------------------------------------------------------------


def test_an_unknown_family_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'cheetah-vell'.*point-robot, .*cheetah-vel, ant-dir"):
        lab.make_family("cheetah-vell")


@pytest.mark.parametrize(("name", "option"), [("cheetah-vel", {"obs": "v4"}), ("point-robot", {"layout": "circle"})])
def test_an_unknown_option_says_what_is_allowed(name: str, option: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be '"):
        lab.make_family(name, **option)


@pytest.mark.parametrize(
    ("name", "obs_dim", "action_dim", "task_dim", "feature_dim", "horizon"),
    [
        ("point-robot", 2, 2, 2, 2, 20),
        ("point-direction", 2, 2, 1, 2, 20),
        ("sparse-point-robot", 2, 2, 2, 2, 20),
        ("cheetah-vel", 20, 6, 1, 1, 200),
        ("ant-dir", 27, 8, 1, 3, 200),
        ("humanoid-dir", 376, 17, 1, 3, 200),
        ("walker-params", 17, 6, 61, 1, 200),
        ("hopper-params", 11, 3, 37, 1, 200),
        ("sawyer", 19, 4, 21, 12, 75),
    ],
)
def test_spec(name: str, obs_dim: int, action_dim: int, task_dim: int, feature_dim: int, horizon: int) -> None:
    spec = lab.make_family(name).spec
    context_dim = obs_dim + action_dim + 1 + (obs_dim if name.endswith("params") else 0)
    assert spec == (name, obs_dim, action_dim, task_dim, feature_dim, context_dim, horizon)
    assert f"smac_lab/{FAMILIES[name].__name__}-v0" in gym.registry


def test_tasks_are_an_immutable_set_of_rows() -> None:
    tasks = lab.Tasks(np.arange(4.0))
    assert tasks.values.shape == (4, 1)
    assert len(tasks) == 4
    assert tasks[[2, 0, 0]].values.ravel().tolist() == [2, 0, 0]
    assert tasks[np.array([True, False, False, True])].values.ravel().tolist() == [0, 3]
    assert tasks[3].values.tolist() == [[3]]
    assert tasks[1:3].values.ravel().tolist() == [1, 2]
    assert tasks.repeat(2).values.ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert lab.Tasks(1.5).values.shape == (1, 1)
    with pytest.raises(ValueError, match="read-only"):
        tasks.values[0] = 1
    for bad in (np.nan, [[np.inf]], np.zeros((1, 1, 1))):
        with pytest.raises(ValueError, match="finite and of shape"):
            lab.Tasks(bad)


@pytest.mark.parametrize("name", FAMILIES)
def test_split_is_reproducible_and_disjoint(name: str) -> None:
    family = lab.make_family(name)
    train, test = family.split(20, 10, seed=3)
    again, _ = family.split(20, 10, seed=3)
    other, _ = family.split(20, 10, seed=4)
    assert (train.values.shape, test.values.shape) == ((20, family.task_dim), (10, family.task_dim))
    np.testing.assert_array_equal(train.values, again.values)
    assert not np.array_equal(train.values, other.values)
    assert len(np.unique(np.concatenate([train.values, test.values]), axis=0)) == 30
    with pytest.raises(ValueError, match="at least one task"):
        family.split(5, 0, seed=0)


def test_task_distributions() -> None:
    rng = np.random.default_rng(0)
    goals = lab.make_family("point-robot").sample_tasks(rng, 2000)
    np.testing.assert_allclose(np.linalg.norm(goals, axis=1), 1.0)
    angle = np.arctan2(goals[:, 1], goals[:, 0])
    for values, low, high in (
        (angle, 0, np.pi),
        (lab.make_family("point-direction").sample_tasks(rng, 2000), 0, 2 * np.pi),
        (lab.make_family("cheetah-vel").sample_tasks(rng, 2000), 0, 3),
        (lab.make_family("ant-dir").sample_tasks(rng, 2000), 0, 2 * np.pi),
        (lab.make_family("point-robot", layout="square").sample_tasks(rng, 1000), -1, 1),
    ):
        assert low <= values.min() < values.max() <= high
        np.testing.assert_allclose(
            np.quantile(values, [0.25, 0.5, 0.75]),
            low + (high - low) * np.array([1, 2, 3]) / 4,
            atol=0.1 * (high - low) / 2,
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_tasks_of_the_wrong_width_are_refused(name: str) -> None:
    family = lab.make_family(name)
    wrong = lab.Tasks(np.zeros((3, family.task_dim + 1)))
    with pytest.raises(ValueError, match=rf"{name} needs tasks of shape \(n, {family.task_dim}\)"):
        family.batch_env(wrong)
    with pytest.raises(ValueError, match=f"needs a task of {family.task_dim} finite numbers"):
        family.task_env(np.full(family.task_dim, np.nan))


# -- point robots ------------------------------------------------------------------------------------------------


def test_point_rewards_by_hand() -> None:
    goal = [0.6, 0.8]
    for name, path in (
        ("point-robot", [-np.hypot(0.5, 0.85), -np.hypot(0.4, 0.75)]),
        ("sparse-point-robot", [0.0, 0.0]),
    ):
        env = lab.make_family(name).task_env(goal)
        observation, _ = env.reset(seed=0)
        np.testing.assert_array_equal(observation, [0, 0])
        for k, action in enumerate(([1.0, -0.5], [1.0, 1.0])):
            observation, reward, terminated, _, _ = env.step(action)
            assert reward == pytest.approx(path[k])
            assert not terminated
        np.testing.assert_allclose(observation, [0.2, 0.05])

    sparse = lab.make_family("sparse-point-robot")
    features, tasks = np.array([[0.6, 0.9], [0.6, 0.61], [0.6, 0.59]]), np.tile(goal, (3, 1))
    np.testing.assert_allclose(sparse.reward(features, np.zeros((3, 2)), tasks), [0.9, 0.81, 0.0])

    env = lab.make_family("point-direction").task_env(np.pi / 3)
    env.reset(seed=0)
    assert env.step([1.0, 1.0])[1] == pytest.approx(0.5 + np.sqrt(3) / 2)
    assert env.step([-1.0, 0.5])[1] == pytest.approx(-0.5 + 0.5 * np.sqrt(3) / 2)


def test_the_square_layout_starts_anywhere() -> None:
    family = lab.make_family("point-robot", layout="square")
    starts, _ = family.batch_env(family.split(500, 1, seed=0)[0]).reset(seed=0)
    assert np.abs(starts).max() <= 1
    np.testing.assert_allclose(starts.std(0), 1 / np.sqrt(3), atol=0.05)


def test_best_and_random_returns_of_point_robots() -> None:
    family = lab.make_family("point-robot")
    tasks, _ = family.split(1000, 1, seed=0)
    assert best_returns(family, tasks).mean() == pytest.approx(-3.84, abs=0.06)
    assert random_returns(family, tasks).mean() == pytest.approx(-20.4, abs=0.3)
    sparse = lab.make_family("sparse-point-robot")
    assert best_returns(sparse, tasks).min() > 10
    assert random_returns(sparse, tasks).mean() < 1

    family = lab.make_family("point-direction")
    tasks, _ = family.split(1000, 1, seed=0)
    assert best_returns(family, tasks).mean() == pytest.approx(
        80 / np.pi, abs=0.15
    )  # 20 (|cos t| + |sin t|), on average
    assert random_returns(family, tasks).mean() == pytest.approx(0, abs=0.3)


# -- bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "body"), [("cheetah-vel", "HalfCheetah-v5"), ("ant-dir", "Ant-v5")])
def test_transitions_are_those_of_gymnasiums_bodies(name: str, body: str, gymnasium_body) -> None:
    family = lab.make_family(name)
    size = family.spec.obs_dim - 3 * (name == "cheetah-vel")  # all but the torso's position
    options = {"include_cfrc_ext_in_observation": False} if name == "ant-dir" else {}
    ours, theirs = family.task_env(0.0), gymnasium_body(body, **options)
    assert theirs.observation_space.shape == (size,)
    assert theirs.dt == pytest.approx(family.control_dt)
    observation, _ = ours.reset(seed=3)
    theirs.reset(seed=0)
    state = ours.simulation.state
    theirs.set_state(state.qpos[0].copy(), state.qvel[0].copy())
    np.testing.assert_allclose(observation[:size], theirs._get_obs(), atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.uniform(-1, 1, family.action_dim)
        observation, _, terminated, _, info = ours.step(action)
        expected, _, expected_terminated, _, expected_info = theirs.step(action)
        np.testing.assert_allclose(observation[:size], expected, atol=1e-10)
        if name == "cheetah-vel":  # gymnasium's ant takes a position one substep old
            assert info["features"][0] == pytest.approx(expected_info["x_velocity"], abs=1e-10)
        assert terminated == expected_terminated
    theirs.close()


@pytest.mark.parametrize("name", ["cheetah-vel", "ant-dir"])
def test_the_model_is_the_plain_one(name: str) -> None:
    import mujoco

    family = lab.make_family(name)
    assert isinstance(family, MujocoFamily)
    ours = family.model
    spec = mujoco.MjSpec.from_file(str(family.xml_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its way of scaling the mass is deprecated
        plain = spec.compile()
    physics = ("actuator", "body", "dof", "geom", "jnt", "qpos", "opt")
    fields = [field for field in dir(plain) if field.startswith(physics)]
    assert len(fields) > 80
    for field in fields:
        if isinstance(value := getattr(plain, field), np.ndarray):
            np.testing.assert_array_equal(getattr(ours, field), value, err_msg=field)
    for field in ("meanmass", "meaninertia", "meansize", "extent"):
        assert getattr(ours.stat, field) == getattr(plain.stat, field), field
    assert len(family.xml_hash) == 64


def test_loading_bodies_is_silent_and_leaves_no_log(capfd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cheetah-vel", "ant-dir"):
        family = lab.make_family(name)
        env = family.batch_env(family.split(2, 1, seed=0)[0])
        env.reset(seed=0)
        env.step(np.zeros((2, family.action_dim)))
    assert capfd.readouterr().err == ""
    env.simulation.state.qvel[0] = np.nan
    with pytest.warns(RuntimeWarning, match="diverged"):
        env.step(np.zeros((2, family.action_dim)))
    assert "unstable" in capfd.readouterr().err  # MuJoCo's own word on it
    assert list(tmp_path.iterdir()) == []


def test_cheetah_rewards_and_observations_by_hand() -> None:
    import mujoco

    family = lab.make_family("cheetah-vel")
    tasks = lab.Tasks([0.5, 2.5])
    env = family.batch_env(tasks)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    state = env.simulation.state
    for _ in range(30):
        before = state.qpos.copy()
        actions = rng.uniform(-1, 1, (2, 6))
        observations, rewards, *_ = env.step(actions)
        velocity = (state.qpos[:, 0] - before[:, 0]) / 0.05
        expected = -np.abs(velocity - [0.5, 2.5]) - 0.05 * (actions**2).sum(1)
        np.testing.assert_allclose(rewards, expected, rtol=1e-12)
    for i in range(2):
        data = env.simulation.engine.batch.get_data(i)
        mujoco.mj_forward(family.model, data)
        expected = np.concatenate([data.qpos[1:], data.qvel, data.body("torso").xpos])
        np.testing.assert_allclose(observations[i], expected, atol=1e-12)
    assert lab.make_family("cheetah-vel", obs="v5").spec.obs_dim == 17


def test_ant_rewards_and_contact_forces_by_hand() -> None:
    import mujoco

    family = lab.make_family("ant-dir")
    tasks = lab.Tasks([0.0, 2.0, 4.0])
    env = family.batch_env(tasks)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    state, touched = env.simulation.state, np.zeros(3, dtype=bool)
    for _ in range(40):
        before = state.qpos.copy()
        actions = rng.uniform(-0.5, 0.5, (3, 8))
        observations, rewards, terminations, _, info = env.step(actions)
        assert not terminations.any()
        velocity = (state.qpos - before)[:, :2] / 0.05
        for i, angle in enumerate(tasks.values[:, 0]):
            data = env.simulation.engine.batch.get_data(i)
            mujoco.mj_forward(family.model, data)
            mujoco.mj_rnePostConstraint(family.model, data)
            np.testing.assert_allclose(state.cfrc_ext[i], data.cfrc_ext, atol=1e-9)
            contact = np.square(np.clip(data.cfrc_ext, -1, 1)).sum()
            assert info["features"][i, 2] == pytest.approx(contact)
            along = velocity[i] @ [np.cos(angle), np.sin(angle)]
            expected = along - 0.5 * (actions[i] ** 2).sum() - 5e-4 * contact + 1
            assert rewards[i] == pytest.approx(expected, rel=1e-9)
            np.testing.assert_array_equal(observations[i], np.concatenate([data.qpos[2:], data.qvel]))
        touched |= np.abs(state.cfrc_ext).max((1, 2)) > 1
    assert touched.all()


def test_the_ant_ends_outside_its_heights() -> None:
    family = lab.make_family("ant-dir")
    env = family.batch_env(lab.Tasks(np.zeros(4)))
    env.reset(seed=0)
    env.simulation.state.qpos[:, 2] = [0.75, 2.0, 1.5, 0.75]
    _, rewards, terminations, _, info = env.step(np.zeros((4, 8)))
    assert terminations.tolist() == [False, True, True, False]
    assert not info["diverged"].any()
    assert np.isfinite(rewards).all()
    state = types.SimpleNamespace(qpos=np.full((4, 15), [[0.2], [1.0], [np.nan], [1.0 + 1e-9]]))
    assert family.terminated(state).tolist() == [False, False, True, True]


def test_resets_are_gymnasiums() -> None:
    for name, positions in (("cheetah-vel", 9), ("ant-dir", 15)):
        family = lab.make_family(name)
        assert isinstance(family, MujocoFamily)
        state = family.reset_state(np.random.default_rng(0), 2000)
        offset = state["qpos"] - family.model.qpos0
        assert offset.shape == (2000, positions)
        assert np.abs(offset).max() <= 0.1
        np.testing.assert_allclose(offset.std(), 0.1 / np.sqrt(3), rtol=0.02)
        np.testing.assert_allclose(state["qvel"].std(), 0.1, rtol=0.02)


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.endswith("params")])  # there motion differs
def test_features_are_enough_to_relabel_for_another_task(name: str) -> None:
    family = lab.make_family(name)
    tasks, _ = family.split(3, 1, seed=0)
    rng = np.random.default_rng(0)
    others = lab.Tasks(family.detours(rng, tasks.values))  # in the same scene, where tasks have scenes
    actions = rng.uniform(-1, 1, (15, 3, family.action_dim))
    env, twin = family.batch_env(tasks), family.batch_env(others)
    env.reset(seed=0)
    twin.reset(seed=0)
    for action in actions:
        *_, info = env.step(action)
        _, rewards, *_ = twin.step(action)
        np.testing.assert_array_equal(family.reward(info["features"], action, others.values), rewards)


# -- the ant's scripted gait -------------------------------------------------------------------------------------


def test_the_ants_gait_walks_where_it_is_told() -> None:
    family = lab.make_family("ant-dir")
    tasks = lab.Tasks(np.arange(8) * np.pi / 4 + 0.2)
    policy = scripted_policy(family, tasks, 0.0, np.random.default_rng(0))
    episodes = rollout(policy, family.batch_env(tasks), seed=0)
    direction = np.concatenate([np.cos(tasks.values), np.sin(tasks.values)], axis=1)
    speed = (episodes.features[..., :2].mean(1) * direction).sum(1)
    assert not episodes.terminations.any()
    assert speed.min() > 1.6  # m/s
    assert episodes.returns.min() > 430
    assert random_returns(family, tasks).mean() < 0


def test_the_ants_gait_is_the_same_after_a_quarter_turn() -> None:
    """Turning ant and direction by 90 degrees hands each leg's action to the next leg."""
    from smac_lab.tasks.ant import ANKLE_SIGNS, gait

    rng = np.random.default_rng(0)
    observations = rng.normal(size=(1, 27))
    half = rng.uniform(-1, 1) / 2
    observations[:, 1:5] = [np.cos(half), 0, 0, np.sin(half)]
    turned = observations.copy()  # body at the same heading: legs swap places instead
    for joints in (slice(5, 13), slice(19, 27)):
        legs = observations[:, joints].reshape(4, 2) * np.stack([np.ones(4), ANKLE_SIGNS], 1)
        turned[:, joints] = (np.roll(legs, 1, axis=0) * np.stack([np.ones(4), ANKLE_SIGNS], 1)).reshape(1, 8)
    signs = np.roll(np.stack([np.ones(4), ANKLE_SIGNS], 1), 1, axis=0)  # actions begin with leg 4
    actions = gait(7, observations, np.array([0.3])).reshape(4, 2) * signs
    after = gait(7, turned, np.array([0.3 + np.pi / 2])).reshape(4, 2) * signs
    np.testing.assert_allclose(after, np.roll(actions, 1, axis=0), atol=1e-12)


# -- a family of one's own ---------------------------------------------------------------------------------------


# fmt: off
class CheetahHeight(lab.tasks.HalfCheetah):                    # a family of one's own: override what differs
    name, task_dim = "cheetah-height", 1
    def sample_tasks(self, rng, n): return rng.uniform(-0.2, 0.4, (n, 1))
    def measure(self, before, action, after): return after.qpos[:, 1:2]                  # torso height, m
    def reward(self, features, actions, tasks): return -abs(features[:, 0] - tasks[:, 0])
# fmt: on


def test_a_family_of_ones_own_works_everywhere() -> None:
    family = CheetahHeight()
    assert family.spec == ("cheetah-height", 20, 6, 1, 1, 27, 200)
    config = dataclasses.replace(lab.SMACConfig.preset("cheetah-vel", "smoke"), behaviour_transitions=200, repeats=1)
    train, test = family.split(3, 2, seed=0)

    env, single = family.batch_env(train), family.task_env(train.values[0])
    env.reset(seed=0)
    single.reset(seed=0)
    _, rewards, *_ = env.step(np.ones((3, 6)))
    height = env.simulation.state.qpos[:, 1]
    np.testing.assert_allclose(rewards, -np.abs(height - train.values[:, 0]))
    assert single.step(np.ones(6))[1] == rewards[0]

    buffer = lab.collect_behaviour(family, train, config, seed=0)
    assert buffer.offline_counts.tolist() == [200] * 3
    torsos = buffer.next_observations[:, 0]  # qpos without x begins with the height
    np.testing.assert_allclose(buffer.features[:, 0], torsos, atol=1e-6)
    np.testing.assert_allclose(
        buffer.rewards, -np.abs(torsos.numpy() - train.values[buffer.task.numpy(), 0]), atol=1e-6
    )

    agent = lab.SMAC(config, family.spec, seed=0)
    for phase in (
        lab.train_offline(agent, buffer, steps=3),
        lab.train_self_supervised(agent, buffer, family, train, iterations=1),
    ):
        *_, (_, metrics) = phase
        assert metrics
        assert np.isfinite(list(metrics.values())).all()
    result = lab.evaluate(agent, family, test, seed=0)
    assert result.final_returns.shape == (2,)
    assert np.isfinite(result.returns).all()
    assert (result.returns < 0).all()


def test_a_family_whose_functions_disagree_with_its_sizes_is_told_so() -> None:
    class WrongObservation(CheetahHeight):
        def observe(self, state):
            return state.qpos

    class WrongReward(CheetahHeight):
        def reward(self, features, actions, tasks):
            return -np.abs(features - tasks)  # (n, 1)

    with pytest.raises(ValueError, match=r"observe.* gives 9 numbers, but obs_dim is 20"):
        _ = WrongObservation().spec

    class WrongFeatures(CheetahHeight):
        def measure(self, before, action, after):
            return after.qpos[:, 1]

    with pytest.raises(ValueError, match=r"measure\(\) must give \(n, feature_dim\), got \(1,\)"):
        _ = WrongFeatures().spec
    env = WrongReward().batch_env(lab.Tasks([0.1, 0.2]))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"reward\(\) must give \(2,\), one number a simulation, got \(2, 1\)"):
        env.step(np.zeros((2, 6)))
