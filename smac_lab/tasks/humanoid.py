"""Humanoid: run in a given direction (humanoid-dir)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from smac_lab.tasks.family import MujocoFamily, add_accelerometer, check_option
from smac_lab.tasks.spec import Array

MAX_TORQUE = 0.4  # control of the model's actuators for an action of 1


class HumanoidDir(MujocoFamily):
    """Run along direction t ~ U(0, 2 pi).

    Reward: 1.25 v_xy . (cos t, sin t) - 0.1 |ctrl|^2 - min(5e-7 |cfrc_ext|^2, 10) + 5, with ctrl = 0.4 a and v_xy the
    velocity of the centre of mass. An episode ends when the torso's height leaves [1, 2] m. All fields are those of the
    new state (`mj_forward`); gymnasium's Humanoid reads derived ones one substep late.

    Args:
        obs: "paper" observes 376 numbers: qpos without x, y (22), qvel (23), cinert (14 x 10), cvel (14 x 6),
            qfrc_actuator (23), cfrc_ext (14 x 6). "v5" observes the 348 of gymnasium's Humanoid-v5, without rows that
            are always zero. "contact-free" observes the first 292 of "paper", without cfrc_ext: the authors' MuJoCo 2.0
            left it at zero, and it now reaches thousands.
        contact_cost: whether contact forces cost; many published returns exclude them.
    """

    name: ClassVar[str] = "humanoid-dir"
    task_dim: ClassVar[int] = 1
    task_label: ClassVar[str] = "direction (rad)"
    xml = "humanoid.xml"
    state_fields = ("qpos", "qvel", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    action_dim = 17
    horizon = 200
    control_dt = 0.015

    def __init__(self, obs: Literal["paper", "v5", "contact-free"] = "paper", contact_cost: bool = True):
        check_option("obs", obs, ("paper", "v5", "contact-free"))
        check_option("contact_cost", contact_cost, (True, False))
        self.obs, self.contact_cost = obs, contact_cost
        self.obs_dim = {"paper": 376, "v5": 348, "contact-free": 292}[obs]

    def edit_model(self, spec: Any) -> None:
        add_accelerometer(spec, "torso")

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(0.0, 2 * np.pi, (n, 1))

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        qpos = self.model.qpos0 + rng.uniform(-0.01, 0.01, (n, 24))
        return {"qpos": qpos, "qvel": rng.uniform(-0.01, 0.01, (n, 23))}

    def control(self, state: SimpleNamespace, actions: Array) -> Mapping[str, Array]:
        return {"ctrl": MAX_TORQUE * actions}

    def observe(self, state: SimpleNamespace) -> Array:
        bodies, joints = (slice(None), slice(None)) if self.obs != "v5" else (slice(1, None), slice(6, None))
        parts = (
            state.qpos[:, 2:],
            state.qvel,
            state.cinert[:, bodies],
            state.cvel[:, bodies],
            state.qfrc_actuator[:, joints],
            state.cfrc_ext[:, bodies],
        )[: 5 if self.obs == "contact-free" else None]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        """Compute the planar velocity of the centre of mass (m/s, 2) and the squared norm of contact forces (1)."""
        share = self.model.body_mass / self.model.body_mass.sum()
        features = np.empty((len(action), 3))
        features[:, :2] = share @ (after.xipos - before.xipos)[..., :2] / self.control_dt
        features[:, 2] = np.square(after.cfrc_ext).sum((1, 2))
        return features

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        forward = features[:, 0] * np.cos(tasks[:, 0]) + features[:, 1] * np.sin(tasks[:, 0])
        effort = 0.1 * np.square(MAX_TORQUE * actions).sum(1)
        contact = np.minimum(5e-7 * features[:, 2], 10.0) if self.contact_cost else 0.0
        return 1.25 * forward - effort - contact + 5.0

    def terminated(self, state: SimpleNamespace) -> NDArray[np.bool_]:
        height = state.qpos[:, 2]
        return ~((height >= 1.0) & (height <= 2.0))
