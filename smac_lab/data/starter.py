"""Starter data: an excerpt of each family's behaviour data, with states to replay."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.chains import COLUMNS
from smac_lab.data.storage import StorageError, load_dataset, save_dataset
from smac_lab.data.store import Source
from smac_lab.tasks.family import MujocoFamily, TaskFamily
from smac_lab.tasks.simulation import Simulation
from smac_lab.tasks.spec import Array, Tasks

STARTER = Path(__file__).parents[1] / "starter"
TRANSITIONS = 600  # per task and source, at most
MAX_BYTES = 5_000_000  # per family's excerpt
REPLAYED = 40  # control steps recorded for each of the first tasks
WARM_START = "qacc_warmstart"  # first guess of the contact solver, on which its result depends
Replay = dict[str, Array]  # states before and after, actions, features, rewards, tasks: (step, ...) each


def starter_data(family: TaskFamily) -> tuple[TransitionBuffer, Tasks]:
    """Load the starter data of a family: a buffer and its tasks.

    Raises:
        StorageError: the family or variant has none, or the data are damaged.
    """
    folder = STARTER / family.name
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in STARTER.iterdir() if path.is_dir()))
        raise StorageError(f"there is no starter data for {family.full_name}; there is some for {known}")
    buffer, tasks, _ = load_dataset(folder, family)
    return buffer, tasks


def write_starter(
    folder: Path, buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks, about: dict[str, Any], n_tasks: int = 20
) -> None:
    """Write the last transitions of the first tasks as a data set, and states to replay.

    Args:
        folder: for `dataset.json`, its shard and, for MuJoCo bodies, `replay.safetensors`.
        buffer, family, tasks: a whole data set.
        about: record of the data set.
        n_tasks: fewer, but at least 2, if they would take more than 5 MB.
    """
    sources: tuple[Source, ...] = ("offline", "exploration") if buffer.has_exploration else ("offline",)
    width = 4 * buffer.rows.shape[1] * TRANSITIONS * len(sources)
    chosen = np.arange(max(2, min(n_tasks, len(tasks), MAX_BYTES // width)))
    small = TransitionBuffer(buffer.spec, len(chosen))
    columns = {name: buffer.column(name).cpu() for name in COLUMNS}
    for task, source in itertools.product(chosen.tolist(), sources):
        rows = buffer.rows_of(task, source).cpu()[-TRANSITIONS:]
        small.append(task, {name: column[rows] for name, column in columns.items()}, source)
    save_dataset(folder, small, family, tasks[chosen], {**about, "excerpt_of": int(buffer.counts.sum())})
    if isinstance(family, MujocoFamily):
        save_file(record_replay(small, family, tasks[chosen]), folder / "replay.safetensors")


def record_replay(buffer: TransitionBuffer, family: MujocoFamily, tasks: Tasks, n_tasks: int = 5) -> Replay:
    """Replay stored actions, and record states in double precision before and after each step."""
    few = tasks[: min(n_tasks, len(tasks))].values
    simulation = Simulation(family, few, num_threads=1)
    simulation.reset(np.arange(len(few)), [np.random.default_rng(i) for i in range(len(few))])
    actions = buffer.actions.cpu().double().numpy()
    steps: list[Replay] = []
    for t in range(REPLAYED):
        action = np.stack([actions[buffer.rows_of(i).cpu()[t]] for i in range(len(few))])
        before = _state(simulation, family)
        result = simulation.step(action)
        after = _state(simulation, family)
        steps.append(
            {
                **{f"before_{name}": value for name, value in before.items()},
                **{f"after_{name}": value for name, value in after.items()},
                "tasks": few,
                "actions": action,
                "features": result.features,
                "rewards": result.rewards,
            }
        )
    # safetensors ignores strides
    return {name: np.ascontiguousarray(np.concatenate([step[name] for step in steps])) for name in steps[0]}


def replay_error(family: MujocoFamily, replay: Replay) -> dict[str, float]:
    """Repeat each recorded control step from its recorded state.

    Returns:
        Greatest difference to the recording in each state field, features and rewards.
    """
    n = len(replay["actions"])
    simulation = Simulation(family, replay["tasks"], num_threads=1)
    fields = family.settable_fields
    simulation.engine.set_state(np.arange(n), {name: replay[f"before_{name}"] for name in fields})
    simulation.engine.batch.bind(WARM_START)[:] = replay[f"before_{WARM_START}"]
    result = simulation.step(replay["actions"])
    found = {f"after_{name}": value for name, value in _state(simulation, family).items() if name != WARM_START}
    found |= {"features": result.features, "rewards": result.rewards}
    return {name: float(np.abs(value - replay[name]).max()) for name, value in found.items()}


def load_replay(family: MujocoFamily) -> Replay:
    """Load the steps recorded with a family's starter data."""
    return load_file(STARTER / family.name / "replay.safetensors")


def _state(simulation: Simulation, family: MujocoFamily) -> dict[str, Array]:
    fields = (*family.settable_fields, WARM_START)
    return {name: simulation.engine.batch.bind(name).copy() for name in fields}
