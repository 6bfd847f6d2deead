"""Half-cheetah: run at a given speed (cheetah-vel)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import ClassVar, Literal

import numpy as np

from smac_lab.tasks.family import MujocoFamily, check_option
from smac_lab.tasks.spec import Array


class HalfCheetah(MujocoFamily):
    """Gymnasium's `half_cheetah.xml`, five substeps of 0.01 s per control step, never terminates.

    Args:
        obs: "paper" observes 20 numbers: qpos without x (8), qvel (9), torso position x, y, z (3). "v5"
            observes the 17 of gymnasium's HalfCheetah-v5, without the torso position.
    """

    xml = "half_cheetah.xml"
    action_dim = 6
    horizon = 200
    control_dt = 0.05

    def __init__(self, obs: Literal["paper", "v5"] = "paper"):
        check_option("obs", obs, ("paper", "v5"))
        self.obs = obs
        self.obs_dim = 20 if obs == "paper" else 17

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        return {"qpos": rng.uniform(-0.1, 0.1, (n, 9)), "qvel": 0.1 * rng.standard_normal((n, 9))}

    def observe(self, state: SimpleNamespace) -> Array:
        qpos, qvel = state.qpos, state.qvel
        observation = np.empty((len(qpos), self.obs_dim))
        observation[:, :8] = qpos[:, 1:]
        observation[:, 8:17] = qvel
        if self.obs == "paper":  # two slide joints move the torso from height 0.7 m
            observation[:, 17] = qpos[:, 0]
            observation[:, 18] = 0.0
            observation[:, 19] = qpos[:, 1] + 0.7
        return observation

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        """Compute the forward velocity over the control step (m/s)."""
        return (after.qpos[:, :1] - before.qpos[:, :1]) / self.control_dt


class CheetahVel(HalfCheetah):
    """Run at v* ~ U(0, 3) m/s: reward -|v_x - v*| - 0.05 |a|^2."""

    name: ClassVar[str] = "cheetah-vel"
    task_dim: ClassVar[int] = 1
    task_label: ClassVar[str] = "target velocity (m/s)"

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(0.0, 3.0, (n, 1))

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return -np.abs(features[:, 0] - tasks[:, 0]) - 0.05 * np.square(actions).sum(1)

    def velocity_error(self, features: Array, tasks: Array) -> Array:
        return np.abs(features[:, 0] - tasks[:, 0])
