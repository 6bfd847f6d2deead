"""Ant: run in a given direction (ant-dir)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from smac_lab.tasks.family import Array, MujocoFamily


class AntDir(MujocoFamily):
    """Run along direction t ~ U(0, 2 pi).

    Reward: v_xy . (cos t, sin t) - 0.5 |a|^2 - 5e-4 |clip(cfrc_ext, -1, 1)|^2 + 1. An episode ends when the
    state is not finite or the torso's height leaves [0.2, 1.0] m. Contact forces are those of the new state
    (`mj_forward`); gymnasium's Ant reads those of the last Runge-Kutta stage instead.
    """

    name: ClassVar[str] = "ant-dir"
    task_dim: ClassVar[int] = 1
    task_label: ClassVar[str] = "direction (rad)"
    xml: ClassVar[str] = "ant.xml"
    state_fields: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "cfrc_ext")
    obs_dim = 27
    action_dim = 8
    horizon = 200
    control_dt = 0.05

    def edit_model(self, spec: Any) -> None:
        """Add an accelerometer: MuJoCo leaves `cfrc_ext` at zero unless a sensor asks for it."""
        import mujoco

        spec.body("torso").add_site(name="accelerometer")
        spec.add_sensor(
            name="accelerometer",
            type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
            objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname="accelerometer",
        )

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(0.0, 2 * np.pi, (n, 1))

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        qpos = self.model.qpos0 + rng.uniform(-0.1, 0.1, (n, 15))
        return {"qpos": qpos, "qvel": 0.1 * rng.standard_normal((n, 14))}

    def observe(self, state: SimpleNamespace) -> Array:
        return np.concatenate([state.qpos[:, 2:], state.qvel], axis=1)

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        """Velocity in the plane (m/s, 2) and squared norm of the clipped contact forces (1)."""
        features = np.empty((len(action), 3))
        features[:, :2] = (after.qpos[:, :2] - before.qpos[:, :2]) / self.control_dt
        features[:, 2] = np.square(np.clip(after.cfrc_ext, -1.0, 1.0)).sum((1, 2))
        return features

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        forward = features[:, 0] * np.cos(tasks[:, 0]) + features[:, 1] * np.sin(tasks[:, 0])
        return forward - 0.5 * np.square(actions).sum(1) - 5e-4 * features[:, 2] + 1.0

    def terminated(self, state: SimpleNamespace) -> NDArray[np.bool_]:
        height = state.qpos[:, 2]
        return ~((height >= 0.2) & (height <= 1.0))
