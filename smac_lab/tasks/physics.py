"""What moves the states of simulations: MuJoCo, or a formula."""

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
    """States of many simulations, and one control step of all of them."""

    state: SimpleNamespace  # the family's `state_fields`, each `(n, ...)`
    settable: tuple[str, ...]  # names of what a state is set by

    def set_tasks(self, tasks: Array) -> None:
        """Change the bodies to those of tasks `(n, task_dim)`."""

    def set_state(self, ids: NDArray[np.intp], values: Mapping[str, Array]) -> None:
        """Put some simulations into states, name to `(len(ids), ...)`."""

    def step(self, actions: Array) -> NDArray[np.bool_]:
        """Move all by one control step, and say which diverged, `(n,)`."""

    def data(self, index: int) -> Any:
        """One simulation as `mujoco.MjData`, to be drawn."""


def is_sound(values: Array) -> NDArray[np.bool_]:
    """Which simulations' numbers MuJoCo would accept: finite, and none as large as its mjMAXVAL."""
    size = np.abs(values)
    if size.max() < 1e10:  # nearly always; false for not-a-number
        return np.ones(len(values), dtype=bool)
    return np.all(size.reshape(len(values), -1) < 1e10, axis=1)


class DynamicsEngine:
    """Simulations whose next state is a formula.

    Args:
        start: a state of each simulation, name to `(n, ...)`.
        fields: names of the state.
        dynamics: the formula, `(state, actions)` to the next state.
    """

    def __init__(self, start: Mapping[str, Array], fields: tuple[str, ...], dynamics: Dynamics):
        self.dynamics, self.settable = dynamics, fields
        self.state = SimpleNamespace(**{name: np.array(start[name], float) for name in fields})

    def set_tasks(self, tasks: Array) -> None:
        """Nothing: a formula knows no bodies."""

    def set_state(self, ids: NDArray[np.intp], values: Mapping[str, Array]) -> None:
        """See `Engine`."""
        for name, value in values.items():
            getattr(self.state, name)[ids] = value

    def step(self, actions: Array) -> NDArray[np.bool_]:
        """See `Engine`."""
        diverged = np.zeros(len(actions), dtype=bool)
        for name, value in self.dynamics(self.state, actions).items():
            np.copyto(getattr(self.state, name), value)
            diverged |= ~is_sound(value)
        return diverged

    def data(self, index: int) -> Any:
        """There is none."""
        raise NotImplementedError


class Body(Protocol):
    """What MuJoCo needs to know of a family; see `MujocoFamily`."""

    frame_skip: ClassVar[int]
    settable_fields: ClassVar[tuple[str, ...]]
    state_fields: tuple[str, ...]
    set_const: bool

    @property
    def model(self) -> Any:
        """The compiled model."""

    def physics(self, tasks: Array) -> Mapping[str, Array]:
        """Fields of the model that tasks change."""

    def control(self, state: SimpleNamespace, actions: Array) -> Mapping[str, Array]:
        """Fields of the data that actions set."""


class MujocoEngine:
    """Simulations of MuJoCo, stepped side by side.

    Args:
        family: whose bodies they are.
        n: how many.
        num_threads: physics threads, 0 for as many as PyTorch uses.
    """

    def __init__(self, family: Body, n: int, num_threads: int):
        import mujoco
        from mujoco.batch import Batch

        self.family = family
        self.settable = family.settable_fields
        self.batch = Batch(family.model, nsim=n, nthread=num_threads or torch.get_num_threads())
        names = dict.fromkeys((*self.settable, *family.state_fields))
        self.state = SimpleNamespace(**{name: self.batch.bind(name) for name in names})
        # A derived field lags one substep behind after a bare step; where the family reads one, compute it
        # at the new state. Sensors that need accelerations (contact forces) come with the last stage.
        derived = set(names) - set(self.settable)
        self.stage = int(mujoco.mjtStage.mjSTAGE_ACC) if derived else int(mujoco.mjtStage.mjSTAGE_NONE)
        self._none = int(mujoco.mjtStage.mjSTAGE_NONE)
        bad = mujoco.mjtWarning
        self._breakdowns = [int(bad.mjWARN_BADQPOS), int(bad.mjWARN_BADQVEL), int(bad.mjWARN_BADQACC)]

    def set_tasks(self, tasks: Array) -> None:
        """Write what tasks change in the body, from the model's own values each time: draws never add up."""
        fields = self.family.physics(tasks)
        for name, value in fields.items():
            self.batch.expand(name)[:] = value
        if fields and self.family.set_const:
            self.batch.set_const()

    def set_state(self, ids: NDArray[np.intp], values: Mapping[str, Array]) -> None:
        """See `Engine`."""
        self.batch.reset(ids, stage=self._none)  # clears time, warm start, controls and warnings
        for name, value in values.items():
            getattr(self.state, name)[ids] = value
        if self.stage != self._none:
            self.batch.forward(ids)

    def step(self, actions: Array) -> NDArray[np.bool_]:
        """See `Engine`."""
        for name, value in self.family.control(self.state, actions).items():
            self.batch.bind(name)[:] = value
        self.batch.step(nstep=self.family.frame_skip, stage=self.stage)
        # MuJoCo resets a simulation that breaks down, and counts a warning; the last substep is still unchecked.
        broken = self.batch.warning[:, self._breakdowns, 1].any(1)
        return broken | ~is_sound(self.state.qpos) | ~is_sound(self.state.qvel)

    def data(self, index: int) -> Any:
        """See `Engine`."""
        return self.batch.get_data(index)
