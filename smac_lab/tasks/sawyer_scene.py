"""Scenes and aims of the Sawyer family: task parameters, their distribution, and success."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smac_lab.tasks.spec import Array


class Item(IntEnum):
    """An item; `DRAWER` contains the block, and `BUTTON` opens it."""

    DRAWER = 0
    HANDLE_DRAWER = 1
    BUTTON = 2
    TRAY = 3
    OBJECT = 4


class Aim(IntEnum):
    """The aim of a task.

    Opening the drawer is not a separate aim, because the button opens it.
    """

    MOVE_HAND = 0
    MOVE_BLOCK = 1
    OPEN_HANDLE_DRAWER = 2
    CLOSE_HANDLE_DRAWER = 3
    PRESS_BUTTON = 4
    CLOSE_DRAWER = 5
    MOVE_OBJECT = 6
    OBJECT_IN_TRAY = 7


# Sets of aims. The authors' environment had nine; seven without those that close something (11 May 2021, commit
# 1dcb723); and three at the time of NeurIPS 2021. Here, opening the drawer is pressing the button.
AIMS: dict[str, tuple[Aim, ...]] = {
    "all": tuple(Aim),
    "seven": tuple(aim for aim in Aim if aim not in (Aim.CLOSE_HANDLE_DRAWER, Aim.CLOSE_DRAWER)),
    "three": (Aim.MOVE_HAND, Aim.OPEN_HANDLE_DRAWER, Aim.PRESS_BUTTON),
}
AIM_IN_WORDS = {
    Aim.MOVE_HAND: "move the hand to the goal",
    Aim.MOVE_BLOCK: "bring the block to the goal",
    Aim.OPEN_HANDLE_DRAWER: "open the drawer with the handle",
    Aim.CLOSE_HANDLE_DRAWER: "shut the drawer with the handle",
    Aim.PRESS_BUTTON: "press the button",
    Aim.CLOSE_DRAWER: "shut the drawer without a handle",
    Aim.MOVE_OBJECT: "bring the object to the goal",
    Aim.OBJECT_IN_TRAY: "put the object into the tray",
}

HOME = np.array([0.55, 0.0, 0.2])  # m, start of the hand
DRAWER_TRAVEL, BUTTON_TRAVEL = 0.16, 0.03  # m, from shut to open and from up to down
NEAR = 0.08  # m, from a goal
DRAWER_NEAR, BUTTON_NEAR = 0.065, 0.008  # m, from fully open, shut or pressed
IN_TRAY_HEIGHT = 0.05  # m: an object over the tray and below this height is in it
BLOCK_IN_DRAWER = np.array([0.085, 0.0, 0.023])  # m, from its front to the middle of its floor
OBJECT_HEIGHT = 0.02  # m, of its middle on the table
CLEARANCE = 0.12  # m, from a thing's start to its goal, at least
PRESENCE = 0.75  # probability that an item is present

# Bounds of places: x and |y| (m), of a drawer's front or another item's middle.
_LOW = np.array([[0.69, 0.21], [0.69, 0.21], [0.58, 0.39], [0.415, 0.26], [0.48, 0.03]])
_HIGH = np.array([[0.71, 0.24], [0.71, 0.24], [0.64, 0.42], [0.435, 0.30], [0.62, 0.07]])
# On side 1; y changes sign on side -1.
_PLACES = np.array([[0.70, 0.22], [0.70, -0.22], [0.60, 0.40], [0.425, -0.28], [0.55, 0.05]])
GOAL = np.array([0.45, 0.0, 0.12])  # m, of hand, block and object in fixed scenes
# Bounds of drawn goals, all above the table: x, y, z (m).
_HAND_GOAL = np.array([[0.40, -0.35, 0.10], [0.70, 0.35, 0.30]])
_THING_GOAL = np.array([[0.45, -0.20, 0.12], [0.65, 0.20, 0.25]])


class Scene(NamedTuple):
    """The columns of task parameters, `(n, 21)`, by name."""

    aim: NDArray[np.intp]  # (n,), an `Aim`
    goal: Array  # (n, 3), m; zero if the aim needs no goal
    present: NDArray[np.bool_]  # (n, 5), by `Item`
    open: NDArray[np.bool_]  # (n, 2), whether DRAWER and HANDLE_DRAWER start open
    places: Array  # (n, 5, 2), m: x and y by `Item`

    @classmethod
    def of(cls, tasks: Array) -> Scene:
        """Read task parameters `(n, 21)`."""
        return cls(
            tasks[:, 0].astype(np.intp),
            tasks[:, 1:4],
            tasks[:, 4:9] > 0.5,
            tasks[:, 9:11] > 0.5,
            tasks[:, 11:21].reshape(-1, len(Item), 2),
        )

    def block(self) -> Array:
        """Return the block's start in its drawer, `(n, 3)`."""
        position = BLOCK_IN_DRAWER + np.pad(self.places[:, Item.DRAWER], ((0, 0), (0, 1)))
        position[:, 0] -= DRAWER_TRAVEL * self.open[:, 0]
        return position

    def object(self) -> Array:
        """Return the object's start, `(n, 3)`."""
        return np.pad(self.places[:, Item.OBJECT], ((0, 0), (0, 1)), constant_values=OBJECT_HEIGHT)


TASK_DIM = 21


def success(features: Array, tasks: Array) -> NDArray[np.bool_]:
    """Return whether each state reaches its task, `(n,)`.

    Args:
        features: hand, object, block (3 each), travel of drawer, handle drawer and button, m, `(n, 12)`.
        tasks: `(n, 21)`.
    """
    scene = Scene.of(tasks)
    hand, thing, block = features[:, :3], features[:, 3:6], features[:, 6:9]
    drawer, handle_drawer, button = features[:, 9:].T
    tray = thing[:, :2] - scene.places[:, Item.TRAY]
    reached = np.stack(  # in the order of Aim
        [
            _distance(hand, scene.goal) < NEAR,
            _distance(block, scene.goal) < NEAR,
            DRAWER_TRAVEL - handle_drawer < DRAWER_NEAR,
            handle_drawer < DRAWER_NEAR,
            BUTTON_TRAVEL - button < BUTTON_NEAR,
            drawer < DRAWER_NEAR,
            _distance(thing, scene.goal) < NEAR,
            (np.abs(tray).max(1) < NEAR) & (np.abs(thing[:, 2]) < IN_TRAY_HEIGHT),
        ]
    )
    return reached[scene.aim, np.arange(len(tasks))]


def solvable(tasks: Array) -> NDArray[np.bool_]:
    """Return whether each scene has the items that its aim needs and does not satisfy it yet, `(n,)`."""
    scene = Scene.of(tasks)
    drawer, handle_drawer, button, tray, thing = scene.present.T
    drawer_open, handle_drawer_open = scene.open.T
    possible = np.stack(  # in the order of Aim
        [
            _distance(scene.goal, HOME) > CLEARANCE,
            drawer & (drawer_open | button) & (_distance(scene.goal, scene.block()) > CLEARANCE),
            handle_drawer & ~handle_drawer_open,
            handle_drawer & handle_drawer_open,
            button,
            drawer & drawer_open,
            thing & (_distance(scene.goal, scene.object()) > CLEARANCE),
            thing & tray,
        ]
    )
    return possible[scene.aim, np.arange(len(tasks))]


def draw_tasks(rng: np.random.Generator, n: int, aims: tuple[Aim, ...], drawn: bool) -> Array:
    """Draw `n` tasks, `(n, 21)`: an aim, uniformly, and a scene in which it is solvable.

    A scene (items present with probability 0.75, drawers open with 0.5, either side) is drawn again until the aim is
    solvable.

    Args:
        aims: to draw from.
        drawn: whether places and goals are drawn too.
    """
    aim = rng.choice(aims, size=n)
    tasks = _with_aims(rng, _draw_scenes(rng, n, drawn), aim, drawn)
    while len(wrong := np.flatnonzero(~solvable(tasks))):
        tasks[wrong] = _with_aims(rng, _draw_scenes(rng, len(wrong), drawn), aim[wrong], drawn)
    return tasks


def draw_aims(rng: np.random.Generator, tasks: Array, aims: tuple[Aim, ...], drawn: bool) -> Array:
    """Draw tasks in the scenes of `tasks`, uniformly from the solvable aims, `(n, 21)`.

    If the task's own aim is drawn, its goal is kept.

    Args:
        aims, drawn: as in `draw_tasks`.
    """
    candidates = _candidates(rng, tasks, aims, drawn)
    chosen, found = _choose(rng, candidates, solvable(_flat(candidates)))
    if not found.all():  # all drawn goals were too near
        chosen[~found] = draw_aims(rng, tasks[~found], aims, drawn)
    return chosen


def next_aims(
    rng: np.random.Generator, tasks: Array, aims: tuple[Aim, ...], drawn: bool, features: Array, pursued: Array
) -> Array:
    """Draw tasks as `draw_aims`, among aims that a state has not reached but can reach.

    Args:
        features: the state, `(n, 12)`.
        pursued: tasks to keep where no such aim exists, `(n, 21)`.
    """
    candidates = _candidates(rng, tasks, aims, drawn)
    flat, now = _flat(candidates), np.tile(features, (len(aims), 1))
    fits = solvable(flat) & ~success(now, flat) & ~_block_shut_in(now, flat)
    chosen, found = _choose(rng, candidates, fits)
    return np.where(found[:, None], chosen, pursued)


def _candidates(rng: np.random.Generator, tasks: Array, aims: tuple[Aim, ...], drawn: bool) -> Array:
    """Combine each task's scene with each aim, `(aim, n, 21)`; its own aim keeps its goal."""
    others = np.stack([_with_aims(rng, tasks, np.full(len(tasks), aim), drawn) for aim in aims])
    return np.where(others[..., :1] == tasks[:, :1], tasks, others)


def _flat(candidates: Array) -> Array:
    return candidates.reshape(-1, TASK_DIM)


def _choose(rng: np.random.Generator, candidates: Array, fits: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Draw one fitting candidate per task, `(n, 21)`, and return whether one exists, `(n,)`."""
    n_aims, n, _ = candidates.shape
    score = np.where(fits.reshape(n_aims, n), rng.random((n_aims, n)), -1.0)
    return candidates[score.argmax(0), np.arange(n)], score.max(0) >= 0


def _block_shut_in(features: Array, tasks: Array) -> NDArray[np.bool_]:
    """Return whether the block is to move, but no button opens its shut drawer, `(n,)`."""
    scene = Scene.of(tasks)
    shut = features[:, 9] < DRAWER_TRAVEL - DRAWER_NEAR
    return (scene.aim == Aim.MOVE_BLOCK) & shut & ~scene.present[:, Item.BUTTON]


def _draw_scenes(rng: np.random.Generator, n: int, drawn: bool) -> Array:
    tasks = np.zeros((n, TASK_DIM))
    tasks[:, 4:9] = rng.random((n, len(Item))) < PRESENCE
    tasks[:, 9:11] = rng.random((n, 2)) < 0.5
    if drawn:
        places = rng.uniform(_LOW, _HIGH, (n, len(Item), 2))
        sides = rng.choice([-1.0, 1.0], (n, len(Item)))
        sides[:, Item.HANDLE_DRAWER] = -sides[:, Item.DRAWER]  # each side has room for one drawer
    else:
        tasks[:, 9:11] *= tasks[:, 4:6]  # so that no two scenes differ in absent drawers alone
        places, sides = np.tile(_PLACES, (n, 1, 1)), rng.choice([-1.0, 1.0], (n, 1))
    places[..., 1] *= sides
    tasks[:, 11:] = places.reshape(n, -1)
    return tasks


def _with_aims(rng: np.random.Generator, tasks: Array, aim: NDArray[np.intp], drawn: bool) -> Array:
    tasks, n = tasks.copy(), len(tasks)
    if drawn:
        hand, thing = (rng.uniform(box[0], box[1], (n, 3)) for box in (_HAND_GOAL, _THING_GOAL))
    else:
        hand = thing = np.tile(GOAL, (n, 1))
    tasks[:, 0] = aim
    tasks[:, 1:4] = np.select(
        [(aim == Aim.MOVE_HAND)[:, None], np.isin(aim, [Aim.MOVE_BLOCK, Aim.MOVE_OBJECT])[:, None]], [hand, thing]
    )
    return tasks


def _distance(a: Array, b: Array) -> Array:
    return np.linalg.norm(a - b, axis=1)
