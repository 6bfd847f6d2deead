"""Point robots: a dot on a plane that moves by 0.1 m times its action."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from smac_lab.tasks.family import DynamicsFamily
from smac_lab.tasks.spec import Array

STEP = 0.1  # metres moved by an action of 1 along an axis


class PointFamily(DynamicsFamily):
    """Base of all point families: observes position (m), commands displacement / 0.1 m."""

    obs_dim = 2
    action_dim = 2
    horizon = 20
    control_dt = 0.1  # s: at full speed along an axis, 1 m/s
    state_fields = ("position",)

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        return {"position": np.zeros((n, 2))}

    def dynamics(self, state: SimpleNamespace, action: Array) -> Mapping[str, Array]:
        return {"position": state.position + STEP * action}

    def observe(self, state: SimpleNamespace) -> Array:
        return state.position.copy()

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        return after.position.copy()

    def render(self, state: SimpleNamespace, task: Array, width: int, height: int) -> NDArray[np.uint8]:
        """Draw the plane up to 2.2 m above and below the origin: robot blue, goal or direction orange."""
        y = np.linspace(2.2, -2.2, height)[:, None]
        x = np.linspace(-2.2, 2.2, width)[None, :] * width / height
        image = np.full((height, width, 3), 255, np.uint8)
        for (cx, cy), radius, colour in (
            (self.landmark(task), 0.16, (230, 159, 0)),
            (state.position[0], 0.1, (0, 114, 178)),
        ):
            image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = colour
        return image

    def landmark(self, task: Array) -> Array:
        """Return the point that represents a task in pictures, `(2,)`."""
        return task


class PointRobot(PointFamily):
    """Reach a goal: reward -|s - g| (m) after the move, goals on the upper unit half circle.

    Args:
        layout: "half-circle" starts at the origin. "square", as in the authors' code, has start and goal uniform in
            [-1, 1]^2.
    """

    name: ClassVar[str] = "point-robot"
    task_dim: ClassVar[int] = 2
    task_label: ClassVar[str] = "goal angle (rad)"

    def __init__(self, layout: Literal["half-circle", "square"] = "half-circle"):
        if layout not in ("half-circle", "square"):
            raise ValueError(f"layout must be 'half-circle' or 'square', got {layout!r}")
        self.layout = layout

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        if self.layout == "square":
            return rng.uniform(-1.0, 1.0, (n, 2))
        angle = rng.uniform(0.0, np.pi, n)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def reset_state(self, rng: np.random.Generator, n: int) -> Mapping[str, Array]:
        return {"position": rng.uniform(-1.0, 1.0, (n, 2)) if self.layout == "square" else np.zeros((n, 2))}

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return -np.linalg.norm(features - tasks, axis=1)

    def controller(self, observations: Array, tasks: Array) -> Array:
        """Move along each axis at full speed up to the goal's coordinate, which is optimal."""
        return np.clip((tasks - observations) / STEP, -1.0, 1.0)

    def detours(self, rng: np.random.Generator, tasks: Array) -> Array:
        """Draw points within reach, so that data cover all of them."""
        return rng.uniform(-2.0, 2.0, tasks.shape)


class SparsePointRobot(PointRobot):
    """Point-robot with reward 1 - |s - g| within 0.2 m of the goal, 0 elsewhere."""

    name: ClassVar[str] = "sparse-point-robot"
    radius: ClassVar[float] = 0.2  # m

    def __init__(self) -> None:
        super().__init__("half-circle")

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        distance = np.linalg.norm(features - tasks, axis=1)
        return np.where(distance <= self.radius, 1.0 - distance, 0.0)

    def success(self, features: Array, tasks: Array) -> NDArray[np.bool_]:
        return np.linalg.norm(features - tasks, axis=1) <= self.radius


class PointDirection(PointFamily):
    """Move along a direction: reward is the displacement along it, in units of 0.1 m; angle ~ U(0, 2 pi)."""

    name: ClassVar[str] = "point-direction"
    task_dim: ClassVar[int] = 1
    task_label: ClassVar[str] = "direction (rad)"

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(0.0, 2 * np.pi, (n, 1))

    def measure(self, before: SimpleNamespace, action: Array, after: SimpleNamespace) -> Array:
        return (after.position - before.position) / STEP

    def reward(self, features: Array, actions: Array, tasks: Array) -> Array:
        return features[:, 0] * np.cos(tasks[:, 0]) + features[:, 1] * np.sin(tasks[:, 0])

    def controller(self, observations: Array, tasks: Array) -> Array:
        """Return the corner of the action square that is furthest along the direction."""
        return np.sign(np.concatenate([np.cos(tasks), np.sin(tasks)], axis=1))

    def landmark(self, task: Array) -> Array:
        return 1.3 * np.array([np.cos(task[0]), np.sin(task[0])])
