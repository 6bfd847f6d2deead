"""Bodies with unknown physics: run forward (walker-params, hopper-params)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from smac_lab.tasks.family import MujocoFamily, check_option
from smac_lab.tasks.spec import Array

SCALE = 1.5  # base for masses, inertias and frictions: each times 1.5^u
DAMPING_SCALE = 1.3  # for the damping of joints
LIMIT = 3.0  # bound of the exponents u


class RandomParams(MujocoFamily):
    """Run forward in a body with random physics.

    Task: exponents u ~ U(-3, 3), all independent, of each body's mass and each of its three axes of inertia, of each
    geom's three coefficients of friction (times 1.5^u), and of each degree of freedom's damping (times 1.3^u), in this
    order. Reward, in every task: v_x + 1 - 1e-3 |a|^2; the 1 is also paid on the last step of a fall, unlike in
    gymnasium's v5. Context contains the next observation.

    Args:
        set_const: recompute the constants derived from masses and inertias, as `mj_setConst` does; the mean inertia,
            which scales the solvers' tolerance, keeps the model's value. The authors' code never recomputes them, and
            its draws compound; here each draw starts from the model.
    """

    task_label: ClassVar[str] = "exponents of the physics"
    feature_label: ClassVar[str] = "forward velocity (m/s)"
    context_includes_next: ClassVar[bool] = True
    frame_skip: ClassVar[int] = 4
    horizon = 200
    control_dt = 0.008

    def __init__(self, set_const: bool = True):
        check_option("set_const", set_const, (True, False))
        self.set_const = set_const

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(-LIMIT, LIMIT, (n, self.task_dim))

    def physics(self, tasks: Array) -> Mapping[str, Array]:
        model, n = self.model, len(tasks)
        bodies, geoms = model.nbody - 1, model.ngeom  # the world has no mass
        sizes = np.cumsum([bodies, 3 * bodies, 3 * geoms])
        mass, inertia, friction, damping = np.split(tasks, sizes, axis=1)
        world = np.zeros((n, 1))  # exponents that change nothing
        return {
            "body_mass": model.body_mass * SCALE ** np.concatenate([world, mass], axis=1),
            "body_inertia": model.body_inertia
            * SCALE ** np.concatenate([world.repeat(3, 1), inertia], axis=1).reshape(n, -1, 3),
            "geom_friction": model.geom_friction * SCALE ** friction.reshape(n, geoms, 3),
            "dof_damping": model.dof_damping * DAMPING_SCALE**damping,
        }

    def rewards_alone_differ(self, task: Array, others: Array) -> NDArray[np.bool_]:
        return (others == task).all(1)

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        model = self.model
        return {
            "qpos": model.qpos0 + rng.uniform(-0.005, 0.005, (n, model.nq)),
            "qvel": rng.uniform(-0.005, 0.005, (n, model.nv)),
        }

    def observe(self, state: SimpleNamespace) -> Array:
        return np.concatenate([state.qpos[:, 1:], np.clip(state.qvel, -10.0, 10.0)], axis=1)

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        """Compute the forward velocity over the control step (m/s)."""
        return (after.qpos[:, :1] - before.qpos[:, :1]) / self.control_dt

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return features[:, 0] + 1.0 - 1e-3 * np.square(actions).sum(1)


class WalkerParams(RandomParams):
    """A walker with 61 unknown physics parameters; terminates at a height outside (0.8, 2) m or a lean of 1 rad.

    Args:
        set_const: see `RandomParams`.
        feet: "paper": frictions of 0.9 and 1.9 before scaling. "v5": 1.9 for both, as in gymnasium's Walker2d-v5.
    """

    name: ClassVar[str] = "walker-params"
    task_dim: ClassVar[int] = 61
    obs_dim = 17
    action_dim = 6

    def __init__(self, set_const: bool = True, feet: Literal["paper", "v5"] = "paper"):
        super().__init__(set_const)
        check_option("feet", feet, ("paper", "v5"))
        self.feet = feet
        self.xml = "walker2d.xml" if feet == "paper" else "walker2d_v5.xml"

    def terminated(self, state: SimpleNamespace) -> NDArray[np.bool_]:
        height, angle = state.qpos[:, 1], state.qpos[:, 2]
        return ~((height > 0.8) & (height < 2.0) & (np.abs(angle) < 1.0))


class HopperParams(RandomParams):
    """A hopper with 37 unknown physics parameters.

    Terminates at a height of 0.7 m or less, at a lean of 0.2 rad, or when a number of its state reaches 100.

    Args:
        set_const: see `RandomParams`.
    """

    name: ClassVar[str] = "hopper-params"
    task_dim: ClassVar[int] = 37
    xml = "hopper.xml"
    obs_dim = 11
    action_dim = 3

    def terminated(self, state: SimpleNamespace) -> NDArray[np.bool_]:
        height, angle = state.qpos[:, 1], state.qpos[:, 2]
        numbers = np.concatenate([state.qpos[:, 2:], state.qvel], axis=1)
        return ~((height > 0.7) & (np.abs(angle) < 0.2) & (np.abs(numbers) < 100.0).all(1))
