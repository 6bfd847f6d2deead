"""Ant: run in a given direction (ant-dir)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smac_lab.tasks.family import MujocoFamily, add_accelerometer, check_option
from smac_lab.tasks.spec import Array


class AntDir(MujocoFamily):
    """Run along direction t ~ U(0, 2 pi).

    Reward: v_xy . (cos t, sin t) - 0.5 |a|^2 - 5e-4 |clip(cfrc_ext, -1, 1)|^2 + 1. An episode ends when the state is
    not finite or the torso's height leaves [0.2, 1.0] m. Velocity is the displacement of qpos, and contact forces are
    those of the new state (`mj_forward`); gymnasium's Ant reads both one substep late.

    Args:
        contact_cost: whether contact forces cost; many published returns exclude them, as MuJoCo 2.0 left them at zero.
        velocity_only: reward v_xy . (cos t, sin t), and no termination (CORRO, UNICORN).
    """

    name: ClassVar[str] = "ant-dir"
    task_dim: ClassVar[int] = 1
    task_label: ClassVar[str] = "direction (rad)"
    xml = "ant.xml"
    obs_dim = 27
    action_dim = 8
    horizon = 200
    control_dt = 0.05

    def __init__(self, contact_cost: bool = True, velocity_only: bool = False):
        check_option("contact_cost", contact_cost, (True, False))
        check_option("velocity_only", velocity_only, (False, True))
        self.contact_cost, self.velocity_only = contact_cost, velocity_only
        if self.pays_contacts:
            self.state_fields = ("qpos", "qvel", "cfrc_ext")

    @property
    def pays_contacts(self) -> bool:
        """Whether the reward reads contact forces, at one more forward pass per control step."""
        return self.contact_cost and not self.velocity_only

    def edit_model(self, spec: Any) -> None:
        if self.pays_contacts:
            add_accelerometer(spec, "torso")

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(0.0, 2 * np.pi, (n, 1))

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        qpos = self.model.qpos0 + rng.uniform(-0.1, 0.1, (n, 15))
        return {"qpos": qpos, "qvel": 0.1 * rng.standard_normal((n, 14))}

    def observe(self, state: SimpleNamespace) -> Array:
        return np.concatenate([state.qpos[:, 2:], state.qvel], axis=1)

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        features = np.zeros((len(action), 3))
        features[:, :2] = (after.qpos[:, :2] - before.qpos[:, :2]) / self.control_dt
        if self.pays_contacts:
            features[:, 2] = np.square(np.clip(after.cfrc_ext, -1.0, 1.0)).sum((1, 2))
        return features

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        forward = features[:, 0] * np.cos(tasks[:, 0]) + features[:, 1] * np.sin(tasks[:, 0])
        if self.velocity_only:
            return forward
        return forward - 0.5 * np.square(actions).sum(1) - 5e-4 * features[:, 2] + 1.0

    def terminated(self, state: SimpleNamespace) -> NDArray[np.bool_]:
        if self.velocity_only:
            return super().terminated(state)
        height = state.qpos[:, 2]
        return ~((height >= 0.2) & (height <= 1.0))

    def behave(self, step: int, observations: Array, tasks: Array) -> Array:
        """Walk by the scripted `gait`, a stand-in for the paper's trained behaviour policy.

        Without noise the gait walks at about 2 m/s, for a return of about 530 in 200 steps; with action noise of 0.2,
        as in behaviour data, at about 1.2 m/s for 310; with noise of 0.5 most episodes end in a fall.
        """
        return gait(step, observations, tasks[:, 0])


# A walk in any direction, found by scripts/find_ant_gait.py (cross-entropy method, without noise). Axes: joint (hip,
# ankle); [1, cos, sin] of the phase; [1, cos, sin] of the direction relative to the leg.
GAIT: Array = np.array(
    [
        [[-0.11, -0.38, 0.14], [-0.03, 0.49, 1.56], [0.33, 0.57, -0.67]],
        [[-1.0, 0.76, -0.5], [-1.1, -0.04, -0.03], [-0.5, -0.65, -0.88]],
    ]
)
GAIT_HZ = 2.14  # strides per second
STIFFNESS, DAMPING = 1.0, 0.1  # position control of the joints: share of full torque per rad, per rad/s
LEG_ANGLES = np.pi / 4 + np.pi / 2 * np.arange(4)  # rad, direction of each leg from the torso
ANKLE_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])  # the model's ankle axes do not rotate with the legs


def gait(
    step: int, observations: Array, directions: Array, coefficients: Array = GAIT, hertz: ArrayLike = GAIT_HZ
) -> Array:
    """Compute actions of a walk along `directions`: joints follow sines that depend on the leg's direction.

    By symmetry, one formula in the angle between leg and direction fits all legs.

    Args:
        step: control steps so far.
        observations: `(n, 27)`.
        directions: rad, `(n,)`.
        coefficients: `(2, 3, 3)`, or one set per simulation, `(n, 2, 3, 3)`.
        hertz: strides per second, one or `(n,)`.

    Returns:
        Actions, `(n, 8)`.
    """
    n = len(observations)
    w, x, y, z = observations[:, 1:5].T
    heading = np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
    angle = (directions - heading)[:, None] - LEG_ANGLES  # (n, leg)
    phase = np.broadcast_to(2 * np.pi * 0.05 * step * np.asarray(hertz), n)
    swing = np.einsum(
        "nlb,njpb,np->nlj", _harmonics(angle), np.broadcast_to(coefficients, (n, 2, 3, 3)), _harmonics(phase)
    )
    target = np.empty((n, 4, 2))  # rad, within the joints' ranges
    target[..., 0] = np.deg2rad(30) * np.tanh(swing[..., 0])
    target[..., 1] = np.deg2rad(50 + 20 * np.tanh(swing[..., 1])) * ANKLE_SIGNS
    position, velocity = observations[:, 5:13].reshape(n, 4, 2), observations[:, 19:27].reshape(n, 4, 2)
    torque = STIFFNESS * (target - position) - DAMPING * velocity
    return np.clip(np.roll(torque, 1, axis=1).reshape(n, 8), -1.0, 1.0)  # the model's actuators begin with leg 4


def _harmonics(angle: Array) -> Array:
    return np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=-1)
