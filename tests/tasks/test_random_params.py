"""walker-params and hopper-params: bodies whose physics the task draws, against plain MuJoCo and by hand."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import pytest

import smac_lab as lab
from smac_lab.tasks import CheetahVel, HopperParams, RandomParams, WalkerParams
from smac_lab.tasks.simulation import Simulation

# Exponents of a task, in their order: what they scale, the base of the power, how many there are.
BLOCKS = {
    "walker-params": [
        ("body_mass", 1.5, 7),
        ("body_inertia", 1.5, 21),
        ("geom_friction", 1.5, 24),
        ("dof_damping", 1.3, 9),
    ],
    "hopper-params": [
        ("body_mass", 1.5, 4),
        ("body_inertia", 1.5, 12),
        ("geom_friction", 1.5, 15),
        ("dof_damping", 1.3, 6),
    ],
}
NAMES = list(BLOCKS)


def slices(name: str) -> dict[str, slice]:
    """Where each block of exponents lies in a task."""
    found, start = {}, 0
    for field, _, size in BLOCKS[name]:
        found[field] = slice(start, start + size)
        start += size
    return found


def run(simulation: Simulation, actions: np.ndarray) -> np.ndarray:
    """States that `actions`, `(time, n, action_dim)`, lead to from the simulations' first ones, `(time, n, ...)`."""
    n = actions.shape[1]
    simulation.reset(np.arange(n), [np.random.default_rng(7) for _ in range(n)])
    states = []
    for action in actions:
        simulation.step(action)
        states.append(np.concatenate([simulation.state.qpos, simulation.state.qvel], axis=1))
    return np.array(states)


def same_actions(family: RandomParams, steps: int, n: int, seed: int = 0) -> np.ndarray:
    one = np.random.default_rng(seed).uniform(-1, 1, (steps, 1, family.action_dim))
    return one.repeat(n, axis=1)


def plain_model(family: RandomParams, task: np.ndarray) -> Any:
    """A copy of the model with a task's physics, made without the batch."""
    model, start = copy.deepcopy(family.model), 0
    for field, base, size in BLOCKS[family.name]:
        values = getattr(model, field)  # the world has no mass, and no exponents
        values = values[1:] if field.startswith("body") else values
        values *= base ** task[start : start + size].reshape(values.shape)
        start += size
    assert start == len(task)
    if family.set_const:
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def arrays(model: Any) -> dict[str, np.ndarray]:
    names = [name for name in dir(model) if not name.startswith("_")]
    return {name: value.copy() for name in names if isinstance(value := getattr(model, name), np.ndarray)}


# -- what a task is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_exponents_are_uniform_and_independent(name: str) -> None:
    family = lab.make_family(name)
    tasks = family.sample_tasks(np.random.default_rng(0), 4000)
    assert tasks.shape == (4000, family.task_dim)
    assert tasks.shape[1] == sum(size for _, _, size in BLOCKS[name])
    assert np.abs(tasks).max() <= 3
    quantiles = np.quantile(tasks, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)
    np.testing.assert_allclose(quantiles, np.tile([[-2.4], [-1.5], [0], [1.5], [2.4]], tasks.shape[1]), atol=0.25)
    correlation = np.corrcoef(tasks.T) - np.eye(tasks.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("name", NAMES)
def test_the_physics_of_the_extremes_by_hand(name: str) -> None:
    """Every number of the model times 1.5^u or 1.3^u, from 1.5^-3 = 0.296 to 1.5^3 = 3.375."""
    family = lab.make_family(name)
    model = family.model
    fields = family.physics(np.stack([np.full(family.task_dim, u) for u in (-3.0, 0.0, 1.0, 3.0)]))
    assert list(fields) == [field for field, _, _ in BLOCKS[name]]
    for field, base, _ in BLOCKS[name]:
        own = getattr(model, field)
        assert fields[field].shape == (4, *own.shape)
        for row, factor in enumerate((1 / base**3, 1.0, base, base**3)):
            np.testing.assert_allclose(fields[field][row], own * factor, rtol=1e-12, err_msg=field)
        np.testing.assert_array_equal(fields[field][1], own)  # exponents of 0 leave it as it is, to the bit
    assert (model.body_mass[1:] > 0).all()
    assert (model.body_inertia[1:] > 0).all()
    assert (model.geom_friction > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_drawn_physics_is_uniform_in_its_logarithm(name: str) -> None:
    family = lab.make_family(name)
    fields = family.physics(family.sample_tasks(np.random.default_rng(1), 3000))
    for field, base, _ in BLOCKS[name]:
        own = getattr(family.model, field)
        ratios = fields[field][:, own > 0] / own[own > 0]
        assert base**-3 <= ratios.min() < 1.01 * base**-3
        assert base**3 / 1.01 < ratios.max() <= base**3
        np.testing.assert_allclose(np.median(ratios, axis=0), 1.0, rtol=0.12)
        np.testing.assert_array_equal(fields[field][:, own == 0], 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_exponent_scales_one_number(name: str) -> None:
    family = lab.make_family(name)
    n = family.task_dim
    fields = family.physics(np.eye(n))
    touched = {field: values != getattr(family.model, field) for field, values in fields.items()}
    numbers = np.concatenate([one.reshape(n, -1) for one in touched.values()], axis=1)
    assert numbers.sum(0).max() == 1  # no number belongs to two exponents
    undamped = slices(name)["dof_damping"].start + np.flatnonzero(family.model.dof_damping == 0)
    assert len(undamped) == 3  # the root's slides and hinge
    expected = np.ones(n)
    expected[undamped] = 0
    np.testing.assert_array_equal(numbers.sum(1), expected)
    for field, where in slices(name).items():
        assert touched[field].reshape(n, -1).any(1).nonzero()[0].tolist() == [
            i for i in range(where.start, where.stop) if expected[i]
        ]


# -- what it does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_kind_of_physics_changes_the_motion(name: str) -> None:
    family = lab.make_family(name)
    where = slices(name)
    tasks = np.zeros((6, family.task_dim))
    drawn = family.sample_tasks(np.random.default_rng(3), 1)[0]
    for row, field in enumerate(where, start=1):
        tasks[row, where[field]] = drawn[where[field]]
    states = run(Simulation(family, tasks, num_threads=1), same_actions(family, 60, 6))
    np.testing.assert_array_equal(states[:, 5], states[:, 0])  # none: row 5 is row 0 once more
    plain = run(Simulation(lab.make_family(name), np.zeros((1, family.task_dim)), 1), same_actions(family, 60, 1))
    np.testing.assert_array_equal(plain[:, 0], states[:, 0])
    for row, field in enumerate(where, start=1):
        assert np.abs(states[-1, row] - states[-1, 0]).max() > 1e-2, field
        assert np.isfinite(states[:, row]).all()


def test_friction_is_felt_through_the_ground_alone() -> None:
    """In the air nothing of it shows: the same block, the same actions, a metre up."""
    family = WalkerParams()
    tasks = np.zeros((2, 61))
    tasks[1, slices("walker-params")["geom_friction"]] = 3.0
    simulation = Simulation(family, tasks, num_threads=1)
    high = {"qpos": family.model.qpos0[None].repeat(2, 0), "qvel": np.zeros((2, 9))}
    high["qpos"][:, 1] += 3.0
    simulation.engine.set_state(np.arange(2), high)
    for action in same_actions(family, 20, 2):
        simulation.step(action)
    np.testing.assert_array_equal(simulation.state.qpos[0], simulation.state.qpos[1])


def test_a_heavier_body_accelerates_less() -> None:
    """One substep of the hopper in the air, by hand: the centre of mass falls with g whatever it weighs."""
    family = HopperParams()
    tasks = np.zeros((3, 37))
    tasks[1, :4], tasks[2, :4] = 3.0, -3.0
    simulation = Simulation(family, tasks, num_threads=1)
    high = {"qpos": family.model.qpos0[None].repeat(3, 0), "qvel": np.zeros((3, 6))}
    high["qpos"][:, 1] += 3.0
    simulation.engine.set_state(np.arange(3), high)
    simulation.step(np.ones((3, 3)))
    for i, task in enumerate(tasks):
        model, data = plain_model(family, task), mujoco.MjData(family.model)
        data.qpos[:], data.qvel[:] = simulation.state.qpos[i], simulation.state.qvel[i]
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        np.testing.assert_allclose(data.subtree_linvel[0, 2], -9.81 * 4 * 0.002, rtol=1e-3)
    turn = np.abs(simulation.state.qvel[:, 3])  # of the thigh: the same torque on more or less inertia
    assert turn[1] < turn[0] < turn[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_reward_is_the_same_in_every_task_and_by_hand(name: str) -> None:
    family = lab.make_family(name)
    tasks, _ = family.split(4, 1, seed=0)
    env = family.batch_env(tasks, num_threads=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(6):
        before = env.simulation.state.qpos[:, 0].copy()
        actions = rng.uniform(-1, 1, (4, family.action_dim))
        observations, rewards, terminations, *_ = env.step(actions)
        assert not terminations.any()
        qpos, qvel = env.simulation.state.qpos, env.simulation.state.qvel
        expected = (qpos[:, 0] - before) / 0.008 + 1.0 - 1e-3 * np.square(actions).sum(1)
        np.testing.assert_allclose(rewards, expected, rtol=1e-12)
        np.testing.assert_array_equal(observations, np.concatenate([qpos[:, 1:], np.clip(qvel, -10, 10)], axis=1))
    fast = types.SimpleNamespace(qpos=qpos, qvel=np.full_like(qvel, 12.5) * [[1], [-1], [0.5], [0]])
    np.testing.assert_array_equal(
        family.observe(fast)[:, family.model.nq - 1 :].T, [[10, -10, 6.25, 0]] * family.model.nv
    )
    assert family.spec.context_dim == 2 * family.obs_dim + family.action_dim + 1


# -- against plain MuJoCo, to the bit ----------------------------------------------------------------------------


@pytest.mark.parametrize("set_const", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_single_simulations_and_plain_mujoco(name: str, set_const: bool) -> None:
    family = lab.make_family(name, set_const=set_const)
    tasks, _ = family.split(3, 1, seed=0)
    env = family.batch_env(tasks, num_threads=2)
    singles = [family.task_env(task) for task in tasks.values]
    env.reset(seed=5)
    models = [plain_model(family, task) for task in tasks.values]
    datas = [mujoco.MjData(model) for model in models]
    fresh = np.ones(3, bool)
    for i, single in enumerate(singles):
        single.reset(seed=5 + i)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        actions = rng.uniform(-1, 1, (3, family.action_dim))
        for i in np.flatnonzero(fresh):
            mujoco.mj_resetData(models[i], datas[i])
            datas[i].qpos[:], datas[i].qvel[:] = env.simulation.state.qpos[i], env.simulation.state.qvel[i]
        observations, rewards, terminations, _, info = env.step(actions)
        last = info.get("final_obs", observations)
        for i, (model, data, single) in enumerate(zip(models, datas, singles, strict=True)):
            start = data.qpos[0]
            data.ctrl[:] = actions[i]
            mujoco.mj_step(model, data, nstep=4)
            expected = np.concatenate([data.qpos[1:], np.clip(data.qvel, -10, 10)])
            np.testing.assert_array_equal(last[i], expected)
            assert info["features"][i, 0] == (data.qpos[0] - start) / 0.008
            observation, reward, terminated, *_ = single.step(actions[i])
            np.testing.assert_array_equal(last[i], observation)
            assert (rewards[i], terminations[i]) == (reward, terminated)
            if terminated:
                single.reset()
        fresh = terminations
        ends += int(terminations.sum())
    assert ends > 2


@pytest.mark.parametrize("name", NAMES)
def test_a_batchs_constants_are_those_of_plain_set_const(name: str) -> None:
    """All of the model's arrays, derived ones included. `stat` (meaninertia, meanmass, extent) is the compiler's.

    Neither sets it anew: solvers go on measuring their tolerance in the mean inertia of the body as it is in its file.
    """
    family = lab.make_family(name)
    base = arrays(family.model)
    tasks, _ = family.split(3, 1, seed=0)
    batch = family.batch_env(tasks).simulation.engine.batch
    for i, task in enumerate(tasks.values):
        expected, got = plain_model(family, task), batch.get_model(i)
        for field, value in arrays(expected).items():
            np.testing.assert_array_equal(getattr(got, field), value, err_msg=field)
        changed = {field for field, value in arrays(got).items() if not np.array_equal(value, base[field])}
        assert changed > {"body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "actuator_acc0"}
        for field in ("meaninertia", "meanmass", "meansize", "extent"):
            assert getattr(got.stat, field) == getattr(expected.stat, field) == getattr(family.model.stat, field)
        assert got.dof_M0.mean() != pytest.approx(got.stat.meaninertia, rel=0.01)
        np.testing.assert_allclose(got.body_subtreemass[0], got.body_mass.sum())
    np.testing.assert_array_equal(family.model.body_mass, base["body_mass"])  # the family's own model is left alone


@pytest.mark.parametrize("name", NAMES)
def test_without_set_const_the_derived_constants_stay_the_models(name: str) -> None:
    family = lab.make_family(name, set_const=False)
    base = arrays(family.model)
    tasks, _ = family.split(2, 1, seed=0)
    batch = family.batch_env(tasks).simulation.engine.batch
    for i in range(2):
        changed = {
            field for field, value in arrays(batch.get_model(i)).items() if not np.array_equal(value, base[field])
        }
        assert changed == {field for field, _, _ in BLOCKS[name]}
    other = lab.make_family(name)
    actions = same_actions(family, 60, 2)
    with_const, without = (run(Simulation(one, tasks.values, num_threads=1), actions) for one in (other, family))
    assert np.abs(with_const - without).max() > 1e-6  # contact softness follows from inverse weights


# -- draws never add up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("set_const", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_physics_drawn_again_does_not_compound(name: str, set_const: bool) -> None:
    family = lab.make_family(name, set_const=set_const)
    tasks, others = (split.values for split in family.split(3, 3, seed=0))
    actions = same_actions(family, 30, 3)
    simulation = Simulation(family, tasks, num_threads=1)
    first = run(simulation, actions)
    for other in (others, np.full_like(others, 3.0), np.full_like(others, -3.0)):
        simulation.set_tasks(other)
    changed = run(simulation, actions)
    assert np.abs(changed - first).max() > 1e-2
    simulation.set_tasks(tasks)
    np.testing.assert_array_equal(run(simulation, actions), first)
    fresh = Simulation(lab.make_family(name, set_const=set_const), tasks, num_threads=1)
    for i in range(3):
        for field, value in arrays(fresh.engine.batch.get_model(i)).items():
            np.testing.assert_array_equal(getattr(simulation.engine.batch.get_model(i), field), value, err_msg=field)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_env_has_each_resets_physics(name: str) -> None:
    family = lab.make_family(name)
    tasks = family.sample_tasks(np.random.default_rng(0), 3)
    env = family.task_env()
    actions = np.random.default_rng(1).uniform(-1, 1, (10, family.action_dim))

    def episode(env: Any, task: np.ndarray | None, seed: int = 3) -> np.ndarray:
        start, info = env.reset(seed=seed, options=None if task is None else {"task": task})
        model = env.simulation.engine.batch.get_model(0)
        np.testing.assert_array_equal(model.body_mass, plain_model(family, info["task"]).body_mass)
        return np.array([start, *[env.step(action)[0] for action in actions]])

    drawn = [episode(env, None, seed) for seed in (1, 2, 1)]  # a task of its own at each reset
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert np.abs(drawn[0][-1] - drawn[1][-1]).max() > 1e-3
    first = [episode(env, task) for task in tasks]
    for task, expected in zip(tasks[::-1], first[::-1], strict=True):
        np.testing.assert_array_equal(episode(env, task), expected)
        np.testing.assert_array_equal(episode(family.task_env(task), None), expected)
    assert np.abs(first[0][-1] - first[1][-1]).max() > 1e-3


def test_parts_of_a_batch_have_their_own_tasks_physics() -> None:
    family = HopperParams()
    tasks, _ = family.split(64, 1, seed=0)
    whole = family.batch_env(tasks, num_threads=2)
    parts = family.batch_env(tasks, num_threads=2).for_threads
    assert len(parts) == 2
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 64, 3))
    whole.reset(seed=0)
    for part, seed in zip(parts, (0, 32), strict=True):
        part.reset(seed=seed)
    for action in actions:
        together = whole.step(action)[0]
        apart = [part.step(half)[0] for part, half in zip(parts, np.split(action, 2), strict=True)]
        np.testing.assert_array_equal(together, np.concatenate(apart))


# -- where episodes end ------------------------------------------------------------------------------------------


def states_of(family: RandomParams, **columns: list[float]) -> types.SimpleNamespace:
    """States at rest, but for columns such as `qpos1=[...]`."""
    n = len(next(iter(columns.values())))
    state = {"qpos": family.model.qpos0[None].repeat(n, 0), "qvel": np.zeros((n, family.model.nv))}
    for column, values in columns.items():
        state[column[:4]][:, int(column[4:])] = values
    return types.SimpleNamespace(**state)


def test_the_walker_ends_outside_its_bounds() -> None:
    family = WalkerParams()
    up, down = np.nextafter, -np.inf
    heights = [0.8, up(0.8, 1), 1.25, up(2.0, down), 2.0, np.nan]
    assert family.terminated(states_of(family, qpos1=heights)).tolist() == [True, False, False, False, True, True]
    angles = [-1.0, up(-1.0, 0), 0.0, up(1.0, 0), 1.0, np.nan]
    assert family.terminated(states_of(family, qpos2=angles)).tolist() == [True, False, False, False, True, True]
    assert not family.terminated(states_of(family, qvel3=[-1e3, 0.0, 1e3])).any()


def test_the_hopper_ends_outside_its_bounds() -> None:
    family = HopperParams()
    up = np.nextafter
    heights = [0.7, up(0.7, 1), 1.25, 50.0, np.nan]
    assert family.terminated(states_of(family, qpos1=heights)).tolist() == [True, False, False, False, True]
    angles = [-0.2, up(-0.2, 0), 0.0, up(0.2, 0), 0.2, np.nan]
    assert family.terminated(states_of(family, qpos2=angles)).tolist() == [True, False, False, False, True, True]
    for column in ("qpos3", "qpos5", "qvel0", "qvel5"):  # neither where it is nor how high
        numbers = [-100.0, up(-100.0, 0), 0.0, up(100.0, 0), 100.0, np.nan]
        ends = family.terminated(states_of(family, **{column: numbers})).tolist()
        assert ends == [True, False, False, False, True, True], column
    assert not family.terminated(states_of(family, qpos0=[-1e3, 1e3])).any()


def test_the_walkers_feet() -> None:
    paper, v5 = WalkerParams(), WalkerParams(feet="v5")
    feet = [mujoco.mj_name2id(paper.model, mujoco.mjtObj.mjOBJ_GEOM, name) for name in ("foot_geom", "foot_left_geom")]
    np.testing.assert_array_equal(paper.model.geom_friction[feet, 0], [0.9, 1.9])
    np.testing.assert_array_equal(v5.model.geom_friction[feet, 0], [1.9, 1.9])
    same = arrays(v5.model)
    different = {k for k, value in arrays(paper.model).items() if not np.array_equal(value, same[k])}
    assert different <= {"geom_friction", "names", "paths", "text_data"}
    assert paper.xml_hash != v5.xml_hash  # so data tells the two apart
    exponents = np.zeros((2, 61))
    exponents[1, slices("walker-params")["geom_friction"]] = 1.0
    np.testing.assert_allclose(v5.physics(exponents)["geom_friction"][1, feet, 0], 1.5 * 1.9)


@pytest.mark.parametrize("name", NAMES)
def test_resets_are_gymnasiums(name: str) -> None:
    family = lab.make_family(name)
    state = family.reset_state(np.random.default_rng(0), 2000)
    for values, centre in ((state["qpos"], family.model.qpos0), (state["qvel"], np.zeros(family.model.nv))):
        assert np.abs(values - centre).max() <= 0.005
        np.testing.assert_allclose((values - centre).std(), 0.005 / np.sqrt(3), rtol=0.02)


# -- the hooks, in a family of one's own -------------------------------------------------------------------------


class WeakCheetah(CheetahVel):
    """A cheetah that starts at a place, pulls with a strength and falls with a gravity of its task."""

    name = "weak-cheetah"
    task_dim = 3

    def sample_tasks(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.uniform([-5, 0.1, 1], [5, 1, 20], (n, 3))

    def place(self, tasks: np.ndarray, state: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        qpos = state["qpos"].copy()
        qpos[:, 0] += tasks[:, 0]
        return {**state, "qpos": qpos}

    def control(self, state: types.SimpleNamespace, actions: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"ctrl": 0.5 * actions, "qfrc_applied": 0.1 * state.qvel}

    def physics(self, tasks: np.ndarray) -> Mapping[str, np.ndarray]:
        gear = np.tile(self.model.actuator_gear, (len(tasks), 1, 1)) * tasks[:, 1, None, None]
        return {"actuator_gear": gear, "opt.gravity": tasks[:, 2:] * [[0.0, 0.0, -1.0]]}


def test_hooks_of_a_family_of_ones_own() -> None:
    family = WeakCheetah()
    family.horizon = 12
    tasks, _ = family.split(3, 1, seed=0)
    env, singles = family.batch_env(tasks), [family.task_env(task) for task in tasks.values]
    observations, _ = env.reset(seed=2)
    models, datas = [], []
    for i, (task, single) in enumerate(zip(tasks.values, singles, strict=True)):
        np.testing.assert_array_equal(single.reset(seed=2 + i)[0], observations[i])
        assert abs(observations[i, 17] - task[0]) <= 0.1  # x: where its task puts it
        model = copy.deepcopy(family.model)
        model.actuator_gear *= task[1]
        model.opt.gravity[:] = [0, 0, -task[2]]
        mujoco.mj_setConst(model, mujoco.MjData(model))
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = env.simulation.state.qpos[i], env.simulation.state.qvel[i]
        models.append(model)
        datas.append(data)
    rng = np.random.default_rng(0)
    for step in range(1, 15):
        actions = rng.uniform(-1, 1, (3, 6))
        observations, _, _, truncations, _ = env.step(actions)
        for i, single in enumerate(singles):
            observation, *_ = single.step(actions[i])
            if step == 12:  # the next episode begins where the task says, too
                assert truncations.all()
                observation, _ = single.reset()
                assert abs(observations[i, 17] - tasks.values[i, 0]) <= 0.1
            np.testing.assert_array_equal(observation, observations[i])
            if step < 12:
                datas[i].ctrl[:], datas[i].qfrc_applied[:] = 0.5 * actions[i], 0.1 * datas[i].qvel
                mujoco.mj_step(models[i], datas[i], nstep=5)
                np.testing.assert_array_equal(observations[i, :8], datas[i].qpos[1:])
    started, _ = env.reset(seed=9, options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(started[[0, 2]], observations[[0, 2]])
    np.testing.assert_array_equal(started[1], singles[1].reset(seed=10)[0])


def test_a_broken_simulation_starts_again_where_its_task_puts_it() -> None:
    family = WeakCheetah()
    env = family.batch_env(lab.Tasks([[4.0, 1.0, 9.81], [-4.0, 1.0, 9.81]]))
    env.reset(seed=0)
    env.simulation.state.qvel[1] = np.nan
    with pytest.warns(RuntimeWarning, match="1 of 2 simulations diverged"):
        _, _, terminations, _, info = env.step(np.zeros((2, 6)))
    assert terminations.tolist() == [False, True]
    assert abs(info["final_obs"][1, 17] + 4.0) <= 0.1
