"""Task families."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
from numpy.typing import ArrayLike

from smac_lab.tasks.ant import AntDir
from smac_lab.tasks.family import DynamicsFamily, MujocoFamily, TaskFamily
from smac_lab.tasks.half_cheetah import CheetahVel, HalfCheetah
from smac_lab.tasks.humanoid import HumanoidDir
from smac_lab.tasks.point_robot import PointDirection, PointFamily, PointRobot, SparsePointRobot
from smac_lab.tasks.random_params import HopperParams, RandomParams, WalkerParams
from smac_lab.tasks.sawyer import Sawyer
from smac_lab.tasks.simulation import BatchEnv, TaskEnv
from smac_lab.tasks.spec import FamilySpec, Tasks

FAMILIES: dict[str, type[TaskFamily]] = {
    family.name: family
    for family in (
        PointRobot,
        PointDirection,
        SparsePointRobot,
        CheetahVel,
        AntDir,
        HumanoidDir,
        WalkerParams,
        HopperParams,
        Sawyer,
    )
}


def make_family(name: str, **options: Any) -> TaskFamily:
    """Make the task family called `name`.

    Args:
        name: one of `FAMILIES`, optionally with options, as in "ant-dir:contact_cost=False" (see
            `TaskFamily.full_name`).
        **options: options of the family, such as `obs="v5"` for cheetah-vel.

    Raises:
        ValueError: the name, an option or a value is unknown.

    Example:
        >>> import smac_lab as lab
        >>> lab.make_family("ant-dir:contact_cost=False").spec.horizon
        200
        >>> lab.make_family("cheetah-vel", obs="v5").full_name
        'cheetah-vel:obs=v5'
    """
    name, _, variant = name.partition(":")
    if name not in FAMILIES:
        raise ValueError(f"unknown task family {name!r}; known families: {', '.join(FAMILIES)}")
    for part in filter(None, variant.split(",")):
        option, equals, text = part.partition("=")
        if not equals:
            raise ValueError(f"{name}:{variant} is not FAMILY:OPTION=VALUE,OPTION=VALUE")
        options[option] = {"True": True, "False": False}.get(text, text)
    known = inspect.signature(FAMILIES[name]).parameters
    if unknown := [option for option in options if option not in known]:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}")
    return FAMILIES[name](**options)


def make_task_env(
    family: str,
    task: ArrayLike | None = None,
    render_mode: str | None = None,
    width: int = 320,
    height: int = 240,
    **options: Any,
) -> TaskEnv:
    """Make a `TaskEnv` for `gym.make`; `options` go to `make_family`."""
    return TaskEnv(make_family(family, **options), task, render_mode, width, height)


def register_envs() -> None:
    """Register every family with gymnasium as `smac_lab/<Name>-v0`."""
    for name, family in FAMILIES.items():
        gym.register(
            id=f"smac_lab/{family.__name__}-v0",
            entry_point="smac_lab.tasks:make_task_env",
            max_episode_steps=family.horizon,
            kwargs={"family": name},
        )


__all__ = [
    "FAMILIES",
    "AntDir",
    "BatchEnv",
    "CheetahVel",
    "DynamicsFamily",
    "FamilySpec",
    "HalfCheetah",
    "HopperParams",
    "HumanoidDir",
    "MujocoFamily",
    "PointDirection",
    "PointFamily",
    "PointRobot",
    "RandomParams",
    "Sawyer",
    "SparsePointRobot",
    "TaskEnv",
    "TaskFamily",
    "Tasks",
    "WalkerParams",
    "make_family",
    "register_envs",
]
