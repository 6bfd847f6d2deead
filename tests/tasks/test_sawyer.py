"""Sawyer: rewards by hand, solvable tasks, a grip that holds by friction, and a script that reaches every aim."""

from __future__ import annotations

import dataclasses
import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import smac_lab as lab
from smac_lab.data import rollout
from smac_lab.data.relabel import share_reached
from smac_lab.engine.rollout import scripted_policy
from smac_lab.runs import behaviour
from smac_lab.runs.measurement import _successes, success_by_description
from smac_lab.tasks import Sawyer
from smac_lab.tasks.sawyer import BLOCK, FINGERS, JOINTS, OBJECT, TARGET
from smac_lab.tasks.sawyer_scene import AIMS, GOAL, HOME, Aim, Item, Scene, draw_aims, solvable, success

# Places of the fixed scene, its side +1, everything there and shut; a goal of the moving aims.
PLACES = [[0.70, 0.22], [0.70, -0.22], [0.60, 0.40], [0.425, -0.28], [0.55, 0.05]]
SOME_GOAL = [0.5, 0.1, 0.2]
SCENES = ("fixed", "drawn")


def task(aim: Aim, present: tuple[int, ...] = (1, 1, 1, 1, 1), opened: tuple[int, int] = (0, 0)) -> np.ndarray:
    return np.array([aim, *SOME_GOAL, *present, *opened, *np.ravel(PLACES)], float)


def features(**changes: object) -> np.ndarray:
    values = {"hand": HOME, "object": [0.55, 0.05, 0.02], "block": [0.785, 0.22, 0.023], "joints": [0, 0, 0], **changes}
    return np.concatenate(list(values.values())).astype(float)[None]


def tasks_of_each_aim(n: int, seed: int, scene: str = "drawn") -> lab.Tasks:
    """`n` tasks of each aim, in the order of Aim."""
    drawn = Sawyer(scene=scene).sample_tasks(np.random.default_rng(seed), 16 * n + 100)
    return lab.Tasks(np.concatenate([drawn[drawn[:, 0] == aim][:n] for aim in Aim]))


# -- the definition ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aim", "reached", "missed"),
    [
        (Aim.MOVE_HAND, {"hand": [0.5, 0.1, 0.2799]}, {"hand": [0.5, 0.1, 0.2801]}),
        (Aim.MOVE_BLOCK, {"block": [0.5, 0.0201, 0.2]}, {"block": [0.5, 0.0199, 0.2]}),
        (Aim.OPEN_HANDLE_DRAWER, {"joints": [0, 0.0951, 0]}, {"joints": [0.16, 0.0949, 0]}),
        (Aim.CLOSE_HANDLE_DRAWER, {"joints": [0.16, 0.0649, 0]}, {"joints": [0, 0.0651, 0]}),
        (Aim.PRESS_BUTTON, {"joints": [0, 0, 0.0221]}, {"joints": [0.16, 0, 0.0219]}),
        (Aim.CLOSE_DRAWER, {"joints": [0.0649, 0.16, 0]}, {"joints": [0.0651, 0, 0]}),
        (Aim.MOVE_OBJECT, {"object": [0.5799, 0.1, 0.2]}, {"object": [0.5801, 0.1, 0.2]}),
        (Aim.OBJECT_IN_TRAY, {"object": [0.3451, -0.3599, 0.0499]}, {"object": [0.425, -0.3601, 0.03]}),
        (Aim.OBJECT_IN_TRAY, {"object": [0.425, -0.28, 0.02]}, {"object": [0.425, -0.28, 0.0501]}),
    ],
)
def test_rewards_by_hand(aim: Aim, reached: dict, missed: dict) -> None:
    family, own, action = Sawyer(), task(aim)[None], np.zeros((1, 4))
    assert family.reward(features(**reached), action, own).tolist() == [0.0]
    assert family.reward(features(**missed), action, own).tolist() == [-1.0]


def test_no_two_aims_test_the_same_goal() -> None:
    """Each pair of aims is told apart by a state that satisfies one of them alone."""
    states = np.concatenate(
        [
            features(hand=SOME_GOAL),
            features(block=SOME_GOAL),
            features(object=SOME_GOAL),
            features(object=[0.425, -0.28, 0.03]),
            features(joints=[0.16, 0.16, 0]),
            features(joints=[0.16, 0, 0]),
            features(joints=[0, 0.16, 0]),
            features(joints=[0, 0, 0.03]),
        ]
    )
    reached = np.stack([success(states, np.tile(task(aim), (len(states), 1))) for aim in Aim])
    assert len(np.unique(reached, axis=0)) == len(Aim) == 8
    assert not success(features(), np.stack([task(Aim.OPEN_HANDLE_DRAWER)]))[0]


@pytest.mark.parametrize("which", SCENES)
def test_every_task_drawn_is_solvable_and_not_yet_solved(which: str) -> None:
    family = Sawyer(scene=which)
    values = family.sample_tasks(np.random.default_rng(0), 4000)
    scene = Scene.of(values)
    present = {item: scene.present[:, item] for item in Item}
    for aim, needed in {
        Aim.MOVE_BLOCK: [Item.DRAWER],
        Aim.OPEN_HANDLE_DRAWER: [Item.HANDLE_DRAWER],
        Aim.CLOSE_HANDLE_DRAWER: [Item.HANDLE_DRAWER],
        Aim.PRESS_BUTTON: [Item.BUTTON],
        Aim.CLOSE_DRAWER: [Item.DRAWER],
        Aim.MOVE_OBJECT: [Item.OBJECT],
        Aim.OBJECT_IN_TRAY: [Item.OBJECT, Item.TRAY],
    }.items():
        for item in needed:
            assert present[item][scene.aim == aim].all()
    shut = ~scene.open[:, 0]
    assert present[Item.BUTTON][(scene.aim == Aim.MOVE_BLOCK) & shut].all()
    assert scene.open[scene.aim == Aim.CLOSE_DRAWER, 0].all()
    assert scene.open[scene.aim == Aim.CLOSE_HANDLE_DRAWER, 1].all()
    assert not scene.open[scene.aim == Aim.OPEN_HANDLE_DRAWER, 1].any()

    env = family.batch_env(lab.Tasks(values))
    start, _ = env.reset(seed=0)
    assert not family.success(np.delete(start[:, :13], 3, axis=1), values).any()
    # Where an aim asks for nothing, items have the stated distribution.
    free = scene.aim == Aim.MOVE_HAND
    np.testing.assert_allclose(scene.present[free].mean(0), 0.75, atol=0.08)
    drawers = scene.present[free, :2] if which == "fixed" else np.full((free.sum(), 2), True)
    np.testing.assert_allclose(scene.open[free].sum(0) / drawers.sum(0), 0.5, atol=0.09)
    assert not scene.open[free][~drawers].any()
    np.testing.assert_allclose((scene.places[free, :, 1] > 0).mean(0), 0.5, atol=0.09)
    np.testing.assert_allclose(np.bincount(scene.aim) / len(values), 1 / 8, atol=0.02)
    assert (np.sign(scene.places[:, 0, 1]) == -np.sign(scene.places[:, 1, 1])).all()  # drawers on opposite sides


def test_in_the_fixed_scene_everything_has_its_place_and_only_the_aim_is_hidden() -> None:
    values = Sawyer().sample_tasks(np.random.default_rng(0), 60_000)
    scene = Scene.of(values)
    sides = np.sign(scene.places[:, :1, 1])
    np.testing.assert_allclose(scene.places * np.stack([np.ones_like(sides), sides], axis=-1), [PLACES] * 60_000)
    moving = np.isin(scene.aim, [Aim.MOVE_HAND, Aim.MOVE_BLOCK, Aim.MOVE_OBJECT])
    np.testing.assert_array_equal(scene.goal, np.where(moving[:, None], GOAL, 0.0))
    different = np.unique(values, axis=0)
    assert len(different) == 540
    family, tasks = Sawyer(), lab.Tasks(different)
    start, _ = family.batch_env(tasks).reset(seed=0)
    scene = Scene.of(different)
    np.testing.assert_array_equal(start[:, 13:18], scene.present)
    np.testing.assert_array_equal(start[:, 18], np.sign(scene.places[:, 0, 1]))
    drawer, handle_drawer, _, _, thing = scene.present.T
    for columns, present in (
        (slice(4, 7), thing),
        (slice(7, 10), drawer),
        (slice(11, 12), handle_drawer & scene.open[:, 1]),
        (slice(10, 11), drawer & scene.open[:, 0]),
    ):
        np.testing.assert_array_equal((start[:, columns] != 0).any(1), present)
    # Two tasks whose first observations agree but for the centimetre by which things are put down differ in their aim.
    groups: dict[bytes, set[int]] = {}
    for seen, aim in zip(np.round(start[:, [10, 11, 13, 14, 15, 16, 17, 18]], 1) + 0.0, scene.aim, strict=True):
        aims = groups.setdefault(seen.tobytes(), set())
        assert aim not in aims
        aims.add(int(aim))
    assert len(groups) == 144


@pytest.mark.parametrize(("aims", "n"), [("all", 8), ("seven", 6), ("three", 3)])
def test_sets_of_aims(aims: str, n: int) -> None:
    family = Sawyer(aims=aims)
    values = family.sample_tasks(np.random.default_rng(0), 400)
    assert set(values[:, 0]) == set(AIMS[aims])
    assert len(AIMS[aims]) == n
    assert set(family.detours(np.random.default_rng(1), values)[:, 0]) == set(AIMS[aims])


def test_more_tasks_than_there_are() -> None:
    family = Sawyer()
    train, test = family.split(120, 60, seed=0)
    assert len(np.unique(np.concatenate([train.values, test.values]), axis=0)) == 180
    with pytest.raises(ValueError, match="sawyer:aims=three has no 600 different tasks"):
        Sawyer(aims="three").split(500, 100, seed=0)


def test_an_aim_that_the_scene_cannot_hold_is_refused() -> None:
    family = Sawyer()
    no_tray = task(Aim.OBJECT_IN_TRAY, present=(1, 1, 1, 0, 1))
    with pytest.raises(
        ValueError, match=r"task 1 asks to put the object into the tray.*there are drawer, handle_drawer"
    ):
        family.batch_env(lab.Tasks(np.stack([task(Aim.OBJECT_IN_TRAY), no_tray])))
    with pytest.raises(ValueError, match=r"task 0 asks to shut the drawer without a handle.*open are none"):
        family.task_env(task(Aim.CLOSE_DRAWER))
    with pytest.raises(ValueError, match=r"task 0 has aim 5; sawyer:aims=three has 0 \(move the hand to the goal\), 2"):
        Sawyer(aims="three").task_env(task(Aim.CLOSE_DRAWER, opened=(1, 0)))
    buffer = lab.collect_behaviour(family, *_one_episode_each(family))
    agent = lab.SMAC(lab.SMACConfig.preset("sawyer", "smoke"), Sawyer(scene="drawn").spec)
    with pytest.raises(ValueError, match=r"sawyer.*does not fit.*sawyer:scene=drawn|sawyer:scene=drawn.*sawyer"):
        next(lab.train_offline(agent, buffer))


def _one_episode_each(family: Sawyer) -> tuple[lab.Tasks, lab.SMACConfig]:
    recipe = dataclasses.replace(lab.SMACConfig.preset("sawyer", "smoke"), behaviour_transitions=75)
    return family.split(4, 1, seed=0)[0], recipe


def test_data_is_collected_in_parts_where_there_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Sawyer()
    tasks, recipe = _one_episode_each(family)
    recipe, said = dataclasses.replace(recipe, behaviour_transitions=150), []
    whole = lab.collect_behaviour(family, tasks, recipe, tick=lambda *at: said.append(at))
    assert said == [(8, 8)]
    monkeypatch.setattr(behaviour, "AT_ONCE", 4)
    said.clear()
    parts = lab.collect_behaviour(family, tasks, recipe, tick=lambda *at: said.append(at))
    assert said == [(4, 8), (8, 8)]
    assert parts.offline_counts.tolist() == whole.offline_counts.tolist() == [150] * 4
    for buffer in (whole, parts):
        paid = lab.relabelled(buffer, family, tasks).rewards
        assert torch.equal(paid, buffer.rewards)  # each row is of the task that it is stored under


def test_what_the_data_shows_of_each_aim() -> None:
    family = Sawyer()
    tasks = lab.Tasks(np.stack([task(Aim.CLOSE_DRAWER, opened=(1, 0)), task(Aim.PRESS_BUTTON), task(Aim.PRESS_BUTTON)]))
    buffer = lab.TransitionBuffer(family.spec, 3)
    zeros = {
        name: np.zeros((4, size)) for name, size in (("observations", 19), ("actions", 4), ("next_observations", 19))
    }
    for i, pressed in enumerate(([0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1])):
        seen = np.tile(features(joints=[0.16, 0, 0]), (4, 1))
        seen[:, 11] = 0.03 * np.array(pressed)
        columns = {**zeros, "features": seen, "rewards": -np.ones(4)}
        columns |= {"terminations": np.zeros(4, bool), "truncations": np.zeros(4, bool)}
        buffer.append(i, columns, "offline")
    assert share_reached(buffer, family, tasks) == {"shut the drawer without a handle": 0.0, "press the button": 3 / 8}


@pytest.mark.parametrize("drawn", [True, False])
def test_detours_stay_in_the_scene(drawn: bool) -> None:
    values = Sawyer(scene=SCENES[drawn]).sample_tasks(np.random.default_rng(0), 500)
    others = draw_aims(np.random.default_rng(1), values, tuple(Aim), drawn)
    np.testing.assert_array_equal(others[:, 4:], values[:, 4:])
    assert solvable(others).all()
    same = others[:, 0] == values[:, 0]
    assert 0.1 < same.mean() < 0.4
    np.testing.assert_array_equal(others[same], values[same])
    alone = task(Aim.PRESS_BUTTON, present=(0, 0, 0, 0, 0))[None].repeat(20, axis=0)
    assert (draw_aims(np.random.default_rng(0), alone, tuple(Aim), drawn)[:, 0] == Aim.MOVE_HAND).all()


def test_what_is_pursued_next_can_be_reached_and_is_not_reached() -> None:
    """An aim is left once it is reached, after some steps; never for one that is reached, or out of reach for good."""
    family, rng = Sawyer(), np.random.default_rng(0)
    own = np.tile(task(Aim.MOVE_HAND, (1, 1, 0, 0, 0), (1, 0)), (4000, 1))
    own[:, 1:4] = GOAL
    pursued = own.copy()
    pursued[:, 0], pursued[:, 1:4] = Aim.CLOSE_DRAWER, 0.0
    shut = np.tile(np.concatenate([HOME, [0.0], [0, 0, 0], [0.785, 0.22, 0.023], [0, 0, 0], np.zeros(6)]), (4000, 1))
    following = family.pursue_next(rng, shut, pursued, own)
    left = (following != pursued).any(1)
    assert left.mean() == pytest.approx(1 / 5, abs=0.02)
    # Shut are both drawers; the block is shut in, and there is no button: the hand and the handle drawer remain.
    assert set(following[left, 0]) == {Aim.MOVE_HAND, Aim.OPEN_HANDLE_DRAWER}
    np.testing.assert_array_equal(
        following[following[:, 0] == Aim.MOVE_HAND], own[0][None].repeat((following[:, 0] == Aim.MOVE_HAND).sum(), 0)
    )
    opened = shut.copy()
    opened[:, 10] = 0.16
    np.testing.assert_array_equal(family.pursue_next(rng, opened, pursued, own), pursued)  # not reached yet
    there = opened.copy()
    there[:, :3], there[:, 11] = GOAL, 0.16
    following = family.pursue_next(rng, there, own, own)
    assert set(following[:, 0]) == {Aim.MOVE_HAND, Aim.MOVE_BLOCK, Aim.CLOSE_DRAWER}


def test_observations_by_hand() -> None:
    import mujoco

    family = Sawyer(scene="drawn")
    values = np.stack(
        [task(Aim.MOVE_HAND), task(Aim.MOVE_HAND, opened=(1, 0)), task(Aim.MOVE_HAND, present=(0, 1, 1, 0, 0))]
    )
    values[:, 1:4] = GOAL
    env = family.batch_env(lab.Tasks(values))
    start, _ = env.reset(seed=0)
    np.testing.assert_allclose(start[:, :3], np.tile(HOME, (3, 1)), atol=1e-3)
    np.testing.assert_allclose(start[:, 3], 0.09)
    np.testing.assert_allclose(start[:2, 4:7], [[0.55, 0.05, 0.02]] * 2, atol=0.01)
    np.testing.assert_allclose(start[:2, 7:10], [[0.785, 0.22, 0.023], [0.625, 0.22, 0.023]], atol=0.01)
    np.testing.assert_allclose(start[2, [6, 9]], [-0.73, -0.727])  # beneath the table
    np.testing.assert_array_equal(start[:, 10:], [[0, 0, 0], [0.16, 0, 0], [0, 0, 0]])
    rng = np.random.default_rng(0)
    for _ in range(20):
        observations, _, _, _, info = env.step(rng.uniform(-1, 1, (3, 4)))
    np.testing.assert_array_equal(info["features"], np.delete(observations, 3, axis=1))
    fixed = Sawyer().observe(env.simulation.state)
    expected = np.column_stack([observations, np.array([[1, 1, 1, 1, 1]] * 2 + [[0, 1, 1, 0, 0]]), [1, 1, 1]])
    expected[2, [4, 5, 6, 7, 8, 9]] = 0
    np.testing.assert_array_equal(fixed, expected)
    for i in range(3):
        data = env.simulation.engine.batch.get_data(i)
        mujoco.mj_forward(family.model, data)
        opening = data.joint("left_finger").qpos + data.joint("right_finger").qpos
        joints = [data.joint(name).qpos[0] for name in ("drawer", "handle_drawer", "button")]
        expected = [data.site("grip").xpos, opening, data.body("object").xpos, data.body("block").xpos, joints]
        np.testing.assert_allclose(observations[i], np.concatenate(expected), atol=1e-12)


def test_the_models_numbers_are_those_the_code_reads() -> None:
    model = Sawyer().model
    address = {model.joint(i).name: int(model.joint(i).qposadr[0]) for i in range(model.njnt)}
    assert [address["left_finger"], address["right_finger"]] == list(range(*FINGERS.indices(26)))
    assert [address[name] for name in ("drawer", "handle_drawer", "button")] == list(range(*JOINTS.indices(26)))
    assert (address["object"], address["block"], model.nq) == (OBJECT.start, BLOCK.start, 26)
    mocap = ["target", "drawer_cabinet", "handle_cabinet", "button_base", "tray", "goal"]
    assert [int(model.body(name).mocapid[0]) for name in mocap] == list(range(6))
    assert TARGET == 0
    assert model.site("grip").id == 0
    assert sum(model.geom_type == 7) == 0  # no meshes


# -- physics -----------------------------------------------------------------------------------------------------


def lift_object(friction: float | None) -> tuple[float, float]:
    """Height of the object (m) after the gripper has lifted it, and some time after it has let go."""
    family = Sawyer()
    if friction is not None:
        for name in ("object", "left_pad", "right_pad"):
            family.model.geom(name).friction = friction
    goal = task(Aim.MOVE_OBJECT)
    env = family.batch_env(lab.Tasks(goal[None]))
    observation, _ = env.reset(seed=0)
    for _ in range(40):
        observation, *_ = env.step(family.controller(observation, goal[None]))
    lifted = observation[0, 6]
    for _ in range(15):
        observation, *_ = env.step([[0, 0, 0, -1]])
    return lifted, observation[0, 6]


def test_things_are_held_by_friction_alone() -> None:
    lifted, dropped = lift_object(None)
    assert lifted == pytest.approx(SOME_GOAL[2], abs=0.03)
    assert dropped == pytest.approx(0.02, abs=0.002)
    lifted, _ = lift_object(0.0)
    assert lifted < 0.05
    assert Sawyer().model.neq == 1  # the hand's weld to its target


def test_the_button_opens_its_drawer_while_it_is_down() -> None:
    family = Sawyer()
    press = np.stack([task(Aim.PRESS_BUTTON), task(Aim.PRESS_BUTTON, present=(0, 1, 1, 1, 1))])
    env = family.batch_env(lab.Tasks(press))
    observations, _ = env.reset(seed=0)
    drawer, button = [], []
    for step in range(60):
        observations, *_ = env.step(family.controller(observations, press) if step < 17 else [[0, 0, 1, 1]] * 2)
        drawer.append(observations[:, 10])
        button.append(observations[:, 12])
    drawer, button = np.array(drawer), np.array(button)
    down = button[:, 0] > 0.022
    assert down.any()
    assert np.abs(drawer[: np.argmax(down), 0]).max() < 1e-3  # shut until then
    assert 0.02 < drawer[-1, 0] < 0.15  # let go early: it stays half open
    assert np.abs(drawer[-10:, 0] - drawer[-1, 0]).max() < 1e-3
    assert np.abs(drawer[:, 1]).max() < 1e-3  # an absent drawer stays shut


def test_actions_move_the_hand_and_not_more_than_the_workspace() -> None:
    family = Sawyer()
    values = np.stack([task(Aim.MOVE_HAND, present=(0, 0, 0, 0, 0))] * 3)
    values[:, 1:4] = GOAL
    env = family.batch_env(lab.Tasks(values))
    observations, _ = env.reset(seed=0)
    for _ in range(4):
        before = observations
        observations, *_ = env.step([[0, 0, 0, 1], [0, 1, 0, -1], [-0.5, 0, 0.5, 0]])
    moved = observations[:, :3] - before[:, :3]
    np.testing.assert_allclose(moved, 0.043 * np.array([[0, 0, 0], [0, 1, 0], [-0.5, 0, 0.5]]), atol=0.002)
    np.testing.assert_allclose(observations[:, 3], [0, 0.09, 0.045], atol=0.003)
    for _ in range(30):
        observations, *_ = env.step([[0, 0, 0, 1], [1, 1, 1, 0], [-1, -1, -1, 0]])
    np.testing.assert_allclose(observations[:, :3], [HOME, [0.75, 0.45, 0.35], [0.35, -0.45, 0.012]], atol=0.004)


def test_random_episodes_are_calm_and_never_end_early() -> None:
    family = Sawyer()
    tasks = tasks_of_each_aim(4, seed=0)
    rng = np.random.default_rng(0)
    env = family.batch_env(tasks)
    for down in (0.0, 0.7):  # and pressing down on the table
        episodes = rollout(lambda o, down=down: rng.uniform(-1, 1, (len(o), 4)) - [0, 0, down, 0], env, seed=0)
        assert not episodes.terminations.any()
        assert episodes.truncations[:, -1].all()
        assert episodes.truncations.sum() == len(tasks)
        assert episodes.valid.all()
        assert env.simulation.engine.batch.warning[..., 1].sum() == 0
        assert set(np.unique(episodes.rewards)) <= {-1.0, 0.0}
        joints = episodes.next_observations[..., 10:13]
        assert joints.min() > -0.01
        assert (joints.max((0, 1)) < [0.17, 0.17, 0.04]).all()  # stops hold
    assert family.horizon == 75


def test_a_simulation_that_breaks_down_keeps_its_scene() -> None:
    family, tasks = Sawyer(), tasks_of_each_aim(1, seed=2)
    env = family.batch_env(tasks)
    env.reset(seed=0)
    state = env.simulation.state
    places = state.mocap_pos.copy()
    state.qvel[3] = np.nan
    with pytest.warns(RuntimeWarning, match="1 of 8 simulations diverged"):
        _, _, terminations, _, info = env.step(np.zeros((8, 4)))
    assert info["diverged"].tolist() == terminations.tolist() == [i == 3 for i in range(8)]
    observations, *_ = env.step(np.zeros((8, 4)))
    assert np.isfinite(observations).all()
    np.testing.assert_allclose(state.mocap_pos, places, atol=0.01)


def test_a_batch_equals_its_simulations_one_by_one() -> None:
    family = Sawyer()
    tasks = tasks_of_each_aim(1, seed=3)
    env = family.batch_env(tasks)
    singles = [family.task_env(value) for value in tasks.values]
    observations, _ = env.reset(seed=7)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=7 + i)[0], observations[i])
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = family.controller(observations, tasks.values) + 0.1 * rng.standard_normal((8, 4))
        observations, rewards, *_ = env.step(actions)
        for i, single in enumerate(singles):
            observation, reward, *_ = single.step(actions[i])
            np.testing.assert_array_equal(observation, observations[i])
            assert reward == rewards[i]


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*:UserWarning")
def test_gymnasium_finds_nothing_to_complain_about() -> None:
    check_env(gym.make("smac_lab/Sawyer-v0").unwrapped, skip_render_check=True)


# -- the script --------------------------------------------------------------------------------------------------


def success_rates(n: int, noise: float, seed: int, scene: str) -> np.ndarray:
    """Share of each aim's `n` tasks that are satisfied at the last step."""
    family, tasks = Sawyer(scene=scene), tasks_of_each_aim(n, seed, scene)
    episodes = rollout(scripted_policy(family, tasks, noise, np.random.default_rng(0)), family.batch_env(tasks), seed=0)
    return (episodes.rewards[:, -1] == 0).reshape(len(Aim), n).mean(1)


@pytest.mark.parametrize("scene", SCENES)
def test_the_script_reaches_every_aim(scene: str) -> None:
    rates = success_rates(12, 0.1, 0, scene)
    assert (rates >= 0.9).all(), dict(zip(Aim, rates, strict=True))


@pytest.mark.learning
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_script_reaches_every_aim_in_200_scenes(noise: float, scene: str) -> None:
    rates = success_rates(200, noise, 1, scene)
    assert (rates >= 0.9).all(), dict(zip(Aim, rates, strict=True))


@pytest.mark.parametrize("scene", SCENES)
def test_the_script_reaches_detours_in_the_scene_of_another_task(scene: str) -> None:
    family, tasks = Sawyer(scene=scene), tasks_of_each_aim(4, 5, scene)
    pursued = lab.Tasks(family.detours(np.random.default_rng(0), tasks.values))
    policy = scripted_policy(family, pursued, 0.1, np.random.default_rng(0))
    episodes = rollout(policy, family.batch_env(tasks), seed=0)
    assert success(episodes.features[:, -1], pursued.values).mean() > 0.9
    assert (episodes.rewards[:, -1] == 0).mean() < 0.6  # the tasks' own aims


def test_the_script_reaches_one_aim_after_another() -> None:
    family, tasks = Sawyer(), tasks_of_each_aim(6, 3, "fixed")
    rng = np.random.default_rng(0)

    def reached(**options: object) -> np.ndarray:
        """How many aims that are not reached at the start each episode reaches."""
        pursued = lab.Tasks(family.detours(rng, tasks.values))
        policy = scripted_policy(family, pursued, 0.1, rng, **options)
        features = rollout(policy, family.batch_env(tasks), seed=0).features
        count = np.zeros(len(tasks))
        for aim in Aim:
            asked = tasks.values.copy()
            asked[:, 0] = aim
            asked[:, 1:4] = GOAL if aim in (Aim.MOVE_HAND, Aim.MOVE_BLOCK, Aim.MOVE_OBJECT) else 0.0
            at = np.stack([success(features[:, t], asked) for t in range(family.horizon)], axis=1)
            count += solvable(asked) & at.any(1)
        return count

    one, chained = reached(), reached(own=tasks)
    assert one.mean() < 2.2
    assert chained.mean() > 2.5
    staying = reached(own=tasks, stays=np.full(len(tasks), True))
    assert staying.mean() < 2.2


def test_success_is_measured_at_the_last_step_and_at_any() -> None:
    """The script shuts a drawer and stays: success at the end; held down for a while, the button is let go."""
    family = Sawyer()
    values = np.stack([task(Aim.CLOSE_DRAWER, opened=(1, 0)), task(Aim.PRESS_BUTTON)])
    tasks = lab.Tasks(values)
    env, steps = family.batch_env(tasks), itertools.count()

    def policy(observations: np.ndarray) -> np.ndarray:
        return family.controller(observations, values) if next(steps) < 50 else np.tile([0.0, 0, 1, 1], (2, 1))

    found = _successes(family, tasks, rollout(policy, env, seed=0), "test")
    assert found["test_success"].tolist() == [1, 0]
    assert found["test_success_ever"].tolist() == [1, 1]
    assert lab.make_family("cheetah-vel").success(np.zeros((3, 1)), np.zeros((3, 1))) is None
    sparse = lab.make_family("sparse-point-robot")
    assert sparse.success(np.array([[0.0, 0.81], [0.0, 0.79]]), np.array([[0.0, 1.0]] * 2)).tolist() == [True, False]


def test_success_is_told_by_what_tasks_ask_for() -> None:
    family = Sawyer()
    own = np.stack([task(aim) for aim in (Aim.PRESS_BUTTON, Aim.MOVE_HAND, Aim.PRESS_BUTTON)])
    shares = {"offline_success": np.array([1.0, 0.5, 0.5]), "online_success": np.array([0.0, 1.0, 0.5])}
    found = {"tasks": own, "test_tasks": own[:1], "test_success": np.array([0.25]), **shares}
    assert success_by_description(family, found) == {
        "move the hand to the goal": {"offline_context": 0.5, "online_context": 1.0},
        "press the button": {"offline_context": 0.75, "online_context": 0.25, "test": 0.25},
    }
    assert success_by_description(family, {"tasks": own, "test_tasks": own}) == {}, "no success is known"
    goals = {"tasks": np.ones((1, 2)), "test_tasks": np.ones((1, 2)), "offline_success": np.ones(1)}
    assert success_by_description(lab.make_family("point-robot"), goals) == {}, "goals have no words"
