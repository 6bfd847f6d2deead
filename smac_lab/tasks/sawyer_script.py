"""Scripted behaviour of the Sawyer family: one skill per aim."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smac_lab.tasks.sawyer_scene import BLOCK_IN_DRAWER, DRAWER_TRAVEL, IN_TRAY_HEIGHT, Item, Scene
from smac_lab.tasks.spec import Array

TRAVEL = 0.19  # m: the hand passes over everything
PUSH_HEIGHT = 0.05  # m, of the handle, and of the middle of a drawer's front
BAR, HOOK = 0.050, 0.022  # m: from a drawer's front to its handle's bar, and to the gap's middle
OBJECT_SIZE, BLOCK_SIZE = 0.04, 0.026  # m, edges
BUTTON_DOWN = 0.045  # m: target on the button, 1 cm too low
TRAY_HEIGHT = 0.055  # m: where the object is released, above the tray's rim
OPEN_TO = 0.02  # m: opening of the gripper beyond a thing's size
ALIGNED, ASTRAY = 0.012, 0.035  # m, horizontally from a target: go down below the first, up above the second


class Skill(NamedTuple):
    """Target of a skill: position of the hand (m, `(n, 3)`) and opening of the gripper (m, `(n,)`)."""

    target: Array
    opening: Array


def script(observations: Array, tasks: Array) -> Array:
    """Compute actions, `(n, 4)`, that pursue each task's aim.

    The script reads only the present observation, so it recovers from noise: a thing that slipped is grasped again.

    Args:
        observations: `(n, 13)` or more; the first 13 are read.
        tasks: `(n, 21)`.
    """
    scene = Scene.of(tasks)
    hand, opening, thing, block = np.split(observations[:, :10], [3, 4, 7], axis=1)
    opening = opening[:, 0]
    drawer, handle_drawer, _ = observations[:, 10:13].T
    places = scene.places
    n = len(observations)

    press = reach_down(hand, _at(places[:, Item.BUTTON], BUTTON_DOWN))
    fetch_block = carry(hand, opening, block, BLOCK_SIZE, scene.goal)
    inside = np.abs(block[:, :2] - places[:, Item.DRAWER] - BLOCK_IN_DRAWER[:2] + drawer[:, None] * [1.0, 0.0]) < 0.09
    shut_in = (drawer < DRAWER_TRAVEL - 0.02) & inside.all(1) & (block[:, 2] < PUSH_HEIGHT)
    skills = [  # in the order of Aim
        Skill(scene.goal, np.zeros(n)),
        _where(shut_in, press, fetch_block),
        pull(hand, places[:, Item.HANDLE_DRAWER], handle_drawer),
        push(hand, places[:, Item.HANDLE_DRAWER], handle_drawer, BAR),
        press,
        push(hand, places[:, Item.DRAWER], drawer, 0.0),
        carry(hand, opening, thing, OBJECT_SIZE, scene.goal),
        drop(hand, opening, thing, _at(places[:, Item.TRAY], TRAY_HEIGHT)),
    ]
    rows = np.arange(n)
    target = np.stack([skill.target for skill in skills])[scene.aim, rows]
    width = np.stack([skill.opening for skill in skills])[scene.aim, rows]
    return np.clip(np.concatenate([(target - hand) / 0.05, 1 - width[:, None] / 0.045], axis=1), -1.0, 1.0)


def reach_down(hand: Array, target: Array) -> Skill:
    """Go to a place from above with the gripper shut."""
    offset = np.hypot(*(target - hand)[:, :2].T)
    low = hand[:, 2] < TRAVEL - 0.04
    height = np.select([offset < ALIGNED, (offset < ASTRAY) & low], [target[:, 2], hand[:, 2]], TRAVEL)
    across = np.where((low & (offset >= ASTRAY))[:, None], hand[:, :2], target[:, :2])
    return Skill(_at(across, height), np.zeros(len(hand)))


def carry(hand: Array, opening: Array, thing: Array, size: float, goal: Array) -> Skill:
    """Grasp a thing of `size` (m) and bring it to `goal`."""
    offset, lift = np.hypot(*(thing - hand)[:, :2].T), np.abs(thing - hand)[:, 2]
    held = (offset < 0.03) & (lift < 0.025) & (opening < 1.2 * size)
    around = (offset < 0.015) & (lift < 0.010)
    to_thing = reach_down(hand, thing)
    fetch = Skill(to_thing.target, np.where(around, 0.0, size + OPEN_TO))
    return _where(held, reach_down(hand, goal), fetch)


def drop(hand: Array, opening: Array, thing: Array, tray: Array) -> Skill:
    """Carry the object over the tray, and let go."""
    over = (np.abs(thing - tray)[:, :2].max(1) < 0.03) & (thing[:, 2] < IN_TRAY_HEIGHT + 0.01)
    free = opening > OBJECT_SIZE + OPEN_TO / 2
    up = _at(hand[:, :2], np.where(free, TRAVEL, hand[:, 2]))
    return _where(
        over, Skill(up, np.full(len(hand), OBJECT_SIZE + OPEN_TO)), carry(hand, opening, thing, OBJECT_SIZE, tray)
    )


def pull(hand: Array, place: Array, distance: Array) -> Skill:
    """Open a drawer, whose shut front is at `place`, by hooking the shut gripper into its handle."""
    hook = _in_front(place, distance + HOOK)
    dx, dy, _ = np.abs(hook - hand).T
    hooked = (dx < 0.016) & (dy < 0.03) & (hand[:, 2] < PUSH_HEIGHT + 0.015)
    skill = _where(hooked, Skill(hook - [0.05, 0.0, 0.0], np.zeros(len(hand))), reach_down(hand, hook))
    return _where(distance > DRAWER_TRAVEL - 0.02, _rest(hand), skill)


def push(hand: Array, place: Array, distance: Array, reach: float) -> Skill:
    """Shut a drawer by pushing its front, or a handle `reach` (m) before it."""
    face = _in_front(place, distance + reach)
    behind = (hand[:, 0] < face[:, 0] - 0.006) & (np.abs(hand - face)[:, 1] < 0.04) & (hand[:, 2] < PUSH_HEIGHT + 0.015)
    forward = np.concatenate([hand[:, :1] + 0.05, face[:, 1:]], axis=1)
    skill = _where(behind, Skill(forward, np.zeros(len(hand))), reach_down(hand, face - [0.035, 0.0, 0.0]))
    return _where(distance < 0.01, _rest(hand), skill)


def _in_front(place: Array, distance: Array) -> Array:
    """Return the point `distance` (m) before a shut drawer's front, at its middle."""
    return _at(place - distance[:, None] * [1.0, 0.0], PUSH_HEIGHT)


def _at(place: Array, height: Array | float) -> Array:
    return np.concatenate([place, np.broadcast_to(height, len(place))[:, None]], axis=1)


def _rest(hand: Array) -> Skill:
    return Skill(_at(hand[:, :2], TRAVEL), np.zeros(len(hand)))


def _where(condition: NDArray[np.bool_], yes: Skill, no: Skill) -> Skill:
    return Skill(np.where(condition[:, None], yes.target, no.target), np.where(condition, yes.opening, no.opening))
