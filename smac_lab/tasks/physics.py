"""Engines of simulations: MuJoCo, or a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from smac_lab.tasks.spec import Array

Dynamics = Callable[[SimpleNamespace, Array], Mapping[str, Array]]


class Engine(Protocol):
    """States of many simulations."""

    state: SimpleNamespace  # the family's `state_fields`, each `(n, ...)`
    settable: tuple[str, ...]  # names of the fields that set a state

    def set_tasks(self, tasks: Array) -> None:
        """Set the bodies of the tasks, `(n, task_dim)`."""

    def set_state(self, ids: NDArray[np.intp], values: Mapping[str, Array]) -> None:
        """Set the states of simulations `ids`, name to `(len(ids), ...)`."""

    def step(self, actions: Array) -> NDArray[np.bool_]:
        """Move all simulations by one step, and return which diverged, `(n,)`."""

    def data(self, index: int) -> Any:
        """Return one simulation as `mujoco.MjData`, for drawing."""


def is_sound(values: Array) -> NDArray[np.bool_]:
    """Mark simulations whose numbers are finite and below MuJoCo's mjMAXVAL, `(n,)`."""
    size = np.abs(values)
    if size.max() < 1e10:  # nearly always; false for not-a-number
        return np.ones(len(values), dtype=bool)
    return np.all(size.reshape(len(values), -1) < 1e10, axis=1)


class DynamicsEngine:
    """Simulations whose next state is a formula.

    Args:
        start: a state of each simulation, name to `(n, ...)`.
        fields: names of the state's fields.
        dynamics: the formula, `(state, actions)` to the next state.
    """

    def __init__(self, start: Mapping[str, Array], fields: tuple[str, ...], dynamics: Dynamics):
        self.dynamics, self.settable = dynamics, fields
        self.state = SimpleNamespace(**{name: np.array(start[name], float) for name in fields})

    def set_tasks(self, tasks: Array) -> None:
        """Do nothing."""

    def set_state(self, ids: NDArray[np.intp], values: Mapping[str, Array]) -> None:
        for name, value in values.items():
            getattr(self.state, name)[ids] = value

    def step(self, actions: Array) -> NDArray[np.bool_]:
        diverged = np.zeros(len(actions), dtype=bool)
        for name, value in self.dynamics(self.state, actions).items():
            np.copyto(getattr(self.state, name), value)
            diverged |= ~is_sound(value)
        return diverged

    def data(self, index: int) -> Any:
        raise NotImplementedError


class Body(Protocol):
    """A family as MuJoCo needs it; see `MujocoFamily`."""

    frame_skip: ClassVar[int]
    settable_fields: ClassVar[tuple[str, ...]]
    state_fields: tuple[str, ...]
    set_const: bool

    @property
    def model(self) -> Any:
        """The compiled model."""

    def physics(self, tasks: Array) -> Mapping[str, Array]:
        """Return the model fields that tasks change."""

    def control(self, state: SimpleNamespace, actions: Array) -> Mapping[str, Array]:
        """Return the data fields that actions set."""


class MujocoEngine:
    """Simulations in MuJoCo, stepped in parallel.

    Args:
        family: of the bodies.
        n: number of simulations.
        num_threads: physics threads; 0: PyTorch's number.
    """

    def __init__(self, family: Body, n: int, num_threads: int):
        import mujoco
        from mujoco.batch import Batch

        self.family = family
        self.settable = family.settable_fields
        self.batch = Batch(family.model, nsim=n, nthread=num_threads or torch.get_num_threads())
        names = dict.fromkeys((*self.settable, *family.state_fields))
        self.state = SimpleNamespace(**{name: self.batch.bind(name) for name in names})
        # Derived fields are one substep late after a bare step, so they are computed anew. Sensors of contact forces
        # need the last stage.
        derived = set(names) - set(self.settable)
        self.stage = int(mujoco.mjtStage.mjSTAGE_ACC) if derived else int(mujoco.mjtStage.mjSTAGE_NONE)
        self._none = int(mujoco.mjtStage.mjSTAGE_NONE)
        bad = mujoco.mjtWarning
        self._breakdowns = [int(bad.mjWARN_BADQPOS), int(bad.mjWARN_BADQVEL), int(bad.mjWARN_BADQACC)]

    def set_tasks(self, tasks: Array) -> None:
        """Set the model fields that tasks change, starting each time from the model's values."""
        fields = self.family.physics(tasks)
        for name, value in fields.items():
            self.batch.expand(name)[:] = value
        if fields and self.family.set_const:
            self.batch.set_const()

    def set_state(self, ids: NDArray[np.intp], values: Mapping[str, Array]) -> None:
        self.batch.reset(ids, stage=self._none)  # clears time, warm start, controls and warnings
        for name, value in values.items():
            getattr(self.state, name)[ids] = value
        if self.stage != self._none:
            self.batch.forward(ids)

    def step(self, actions: Array) -> NDArray[np.bool_]:
        for name, value in self.family.control(self.state, actions).items():
            self.batch.bind(name)[:] = value
        self.batch.step(nstep=self.family.frame_skip, stage=self.stage)
        # MuJoCo resets a simulation that breaks down and counts a warning, but does not check the last substep.
        broken = self.batch.warning[:, self._breakdowns, 1].any(1)
        return broken | ~is_sound(self.state.qpos) | ~is_sound(self.state.qvel)

    def data(self, index: int) -> Any:
        return self.batch.get_data(index)
