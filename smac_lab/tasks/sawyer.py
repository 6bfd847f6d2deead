"""Sawyer: a robot arm at a table with drawers, a button, a tray and an object (sawyer)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from smac_lab.tasks.family import MujocoFamily, check_option
from smac_lab.tasks.sawyer_scene import (
    AIM_IN_WORDS,
    AIMS,
    BUTTON_NEAR,
    BUTTON_TRAVEL,
    CLEARANCE,
    DRAWER_TRAVEL,
    HOME,
    TASK_DIM,
    Aim,
    Item,
    Scene,
    draw_aims,
    draw_tasks,
    next_aims,
    solvable,
    success,
)
from smac_lab.tasks.sawyer_script import script
from smac_lab.tasks.spec import Array

# qpos of assets/sawyer.xml: the arm, fingers, joints, object and block.
ARM = np.array([-0.2957, -1.2191, 0.0, 1.9137, 0.0, 0.8762, -0.2957])  # rad: gripper at HOME, pointing down
FINGERS, JOINTS = slice(7, 9), slice(9, 12)  # JOINTS: drawer, handle drawer, button
OBJECT, BLOCK = slice(12, 15), slice(19, 22)  # positions of free bodies, before their quaternions
TARGET, FURNITURE, MARK = 0, slice(1, 5), 5  # mocap bodies: the hand's target, items in the order of `Item`, goal
GRIP = 0  # the site between the fingertips
FEATURES = [0, 1, 2, *range(4, 13)]  # of an observation: the first 13 without the gripper's opening

STRIDE = 0.05  # m from the hand to its target, for an action of 1
WORKSPACE = np.array([[0.35, -0.45, 0.012], [0.75, 0.45, 0.35]])  # m, bounds of the hand's target
FINGER_TRAVEL = 0.045  # m per finger
PUSH = 6.0  # N, of the motor that opens the drawer while the button is down
STORE = -0.75  # m: the floor inside the table's base, for absent items
HOLD = 5  # control steps for which the script holds a reached aim, on average


class Sawyer(MujocoFamily):
    """Reach one of eight aims in a scene of items; reward success - 1; 75 steps of 0.05 s, never terminates.

    A task is `(aim, goal 3, present 5, open 2, places 5 x 2)`: see `sawyer_scene.Scene` and `sawyer_scene.Aim`. The
    scene is that of `anair13/bullet-manipulation-affordances` (PyBullet), which SMAC's paper used, rebuilt for MuJoCo
    from primitive shapes, with other positions and sizes. As in the original, the items present, the scene's side and
    the open drawers are drawn; each item has one place per side, and hand, block and object share one goal. Unlike in
    the original, every task is solvable and none is solved at the start, no two aims test the same goal, a reset keeps
    goals, the drawers are side by side, a motor opens the drawer while the button is down, and friction alone holds
    things.

    An action (4) moves the hand's target to the hand's position + 0.05 m a[:3], within the workspace, and sets the
    gripper from open (-1) to shut (1). A soft weld pulls the hand to its target (4.3 of the 5 cm) and keeps it pointing
    down. Only hand, fingers and items collide.

    Observation (19): hand position, opening of the gripper, object position, block position, how far drawer and handle
    drawer are open and the button is pressed, all in m, in a frame with its origin on the arm's axis at the height of
    the table; which of the five items are present (0 or 1, in the order of `Item`); the scene's side (1 or -1). Absent
    items, and items that fell to the floor, read 0. Only the aim is hidden.

    Args:
        scene: "fixed", as above. "drawn": places are drawn per item, and goals per task; observations are the first 13
            numbers, where absent items are beneath the table.
        aims: "all" eight; "seven", the authors' of May 2021, six here; "three", the authors' later: move the hand, open
            the handle drawer, press the button.
    """

    name: ClassVar[str] = "sawyer"
    task_dim: ClassVar[int] = TASK_DIM
    task_label: ClassVar[str] = "aim"
    feature_label: ClassVar[str] = "hand, forward (m)"
    xml = "sawyer.xml"
    settable_fields = ("qpos", "qvel", "mocap_pos")
    state_fields = ("qpos", "qvel", "mocap_pos", "site_xpos")
    frame_skip: ClassVar[int] = 10
    camera: ClassVar[dict[str, Any]] = {
        "distance": 1.65,
        "azimuth": 148.0,
        "elevation": -34.0,
        "lookat": (0.47, 0.0, 0.16),
    }
    action_dim = 4
    horizon = 75
    control_dt = 0.05

    def __init__(self, scene: str = "fixed", aims: str = "all"):
        check_option("scene", scene, ("fixed", "drawn"))
        check_option("aims", aims, tuple(AIMS))
        self.scene, self.aims = scene, aims
        self.obs_dim = 13 if scene == "drawn" else 19

    @property
    def xml_path(self) -> Any:
        return Path(__file__).parent / "assets" / self.xml

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return draw_tasks(rng, n, AIMS[self.aims], self.scene == "drawn")

    def check_tasks(self, tasks: Array) -> None:
        if len(wrong := np.flatnonzero(~np.isin(tasks[:, 0], list(AIMS[self.aims])))):
            allowed = ", ".join(f"{aim} ({AIM_IN_WORDS[aim]})" for aim in AIMS[self.aims])
            raise ValueError(f"task {wrong[0]} has aim {tasks[wrong[0], 0]:g}; {self.full_name} has {allowed}")
        if len(wrong := np.flatnonzero(~solvable(tasks))):
            row = tasks[wrong[0]]
            there = [item.name.lower() for item in Item if row[4 + item] > 0.5]
            opened = [item.name.lower() for item in (Item.DRAWER, Item.HANDLE_DRAWER) if row[9 + item] > 0.5]
            goal = f"; the goal is at {row[1:4].tolist()}, and must be {CLEARANCE} m away" if row[1:4].any() else ""
            raise ValueError(
                f"task {wrong[0]} asks to {self.describe(row)}, which its scene does not allow, or has already: there "
                f"are {', '.join(there) or 'no items'}; open are {', '.join(opened) or 'none'}{goal}"
            )

    def rewards_alone_differ(self, task: Array, others: Array) -> NDArray[np.bool_]:
        return (others[:, 4:] == task[4:]).all(1)  # the same scene

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        qpos = np.tile(self.model.qpos0, (n, 1))
        qpos[:, :7] = ARM
        qpos[:, FINGERS] = FINGER_TRAVEL
        for thing in (OBJECT, BLOCK):
            qpos[:, thing] = 0.0
            qpos[:, thing.start : thing.start + 2] = rng.uniform(-0.01, 0.01, (n, 2))
        mocap_pos = np.zeros((n, 6, 3))
        mocap_pos[:, TARGET] = HOME
        return {"qpos": qpos, "qvel": np.zeros((n, self.model.nv)), "mocap_pos": mocap_pos}

    def place(self, tasks: Array, state: Mapping[str, Array]) -> Mapping[str, Array]:
        scene = Scene.of(tasks)
        qpos, mocap_pos = state["qpos"].copy(), state["mocap_pos"].copy()
        height = np.where(scene.present, 0.0, STORE)
        mocap_pos[:, FURNITURE, :2] = scene.places[:, : Item.OBJECT]
        mocap_pos[:, FURNITURE, 2] = height[:, : Item.OBJECT]
        mocap_pos[:, MARK] = np.where(scene.goal.any(1, keepdims=True), scene.goal, [0.55, 0.0, STORE])
        qpos[:, JOINTS.start : JOINTS.start + 2] = DRAWER_TRAVEL * scene.open
        for thing, start, item in ((OBJECT, scene.object(), Item.OBJECT), (BLOCK, scene.block(), Item.DRAWER)):
            qpos[:, thing] += start
            qpos[:, thing.stop - 1] += height[:, item]
        return {**state, "qpos": qpos, "mocap_pos": mocap_pos}

    def control(self, state: SimpleNamespace, actions: Array) -> Mapping[str, Array]:
        mocap_pos = state.mocap_pos.copy()
        mocap_pos[:, TARGET] = np.clip(state.site_xpos[:, GRIP] + STRIDE * actions[:, :3], *WORKSPACE)
        pressed = BUTTON_TRAVEL - state.qpos[:, JOINTS.stop - 1] < BUTTON_NEAR
        connected = mocap_pos[:, FURNITURE.start + Item.DRAWER, 2] > STORE / 2
        ctrl = np.empty((len(actions), 3))
        ctrl[:, :2] = FINGER_TRAVEL * (1 - actions[:, 3:]) / 2
        ctrl[:, 2] = PUSH * (pressed & connected)
        return {"ctrl": ctrl, "mocap_pos": mocap_pos}

    def observe(self, state: SimpleNamespace) -> Array:
        qpos = state.qpos
        hand, opening = state.site_xpos[:, GRIP], qpos[:, FINGERS].sum(1, keepdims=True)
        if self.scene == "drawn":
            return np.concatenate([hand, opening, qpos[:, OBJECT], qpos[:, BLOCK], qpos[:, JOINTS]], axis=1)
        furniture = state.mocap_pos[:, FURNITURE]
        heights = np.column_stack([furniture[..., 2], qpos[:, OBJECT.stop - 1]])  # in the order of Item
        present = heights > STORE / 2
        block = qpos[:, BLOCK] * (present[:, [Item.DRAWER]] & (qpos[:, [BLOCK.stop - 1]] > STORE / 2))
        things = [qpos[:, OBJECT] * present[:, [Item.OBJECT]], block, qpos[:, JOINTS] * present[:, : Item.TRAY]]
        side = np.sign(furniture[:, Item.DRAWER, 1:2])
        return np.concatenate([hand, opening, *things, present, side], axis=1)

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        """Return the new observation's first 13 numbers, without the gripper's opening (12)."""
        return self.observe(after)[:, FEATURES]

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return np.where(success(features, tasks), 0.0, -1.0)

    def success(self, features: Array, tasks: Array) -> NDArray[np.bool_]:
        return success(features, tasks)

    def describe(self, task: Array) -> str:
        return AIM_IN_WORDS[Aim(int(task[0]))]

    def controller(self, observations: Array, tasks: Array) -> Array:
        """Follow the `script`, a stand-in for the paper's scripted policy.

        With action noise of 0.1, as in behaviour data, the script reached each aim in all of 100 fixed scenes and in
        99 of 100 drawn ones, at the last step (`pytest -m learning tests/tasks/test_sawyer.py` requires 90 % of 200).
        """
        return script(observations, tasks)

    def detours(self, rng: np.random.Generator, tasks: Array) -> Array:
        """Draw an aim for each task, among those solvable in its scene."""
        return draw_aims(rng, tasks, AIMS[self.aims], self.scene == "drawn")

    def pursue_next(self, rng: np.random.Generator, observations: Array, pursued: Array, tasks: Array) -> Array:
        """Hold a reached aim for `HOLD` steps on average, then draw another."""
        features = observations[:, FEATURES]
        done = np.flatnonzero(success(features, pursued) & (rng.random(len(pursued)) < 1 / HOLD))
        following = pursued.copy()
        if len(done):
            drawn = self.scene == "drawn"
            following[done] = next_aims(rng, tasks[done], AIMS[self.aims], drawn, features[done], pursued[done])
        return following
