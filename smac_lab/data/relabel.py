"""True rewards for data of other tasks, computed from stored features."""

from __future__ import annotations

import numpy as np
import torch

from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.chains import COLUMNS
from smac_lab.data.lookup import CODE, LENGTH, TASK
from smac_lab.data.store import CODES, MEMBERS
from smac_lab.data.validation import check_spec
from smac_lab.tasks.family import MujocoFamily, TaskFamily
from smac_lab.tasks.spec import Array, Tasks


def relabelled(buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks) -> TransitionBuffer:
    """Return a copy with true rewards for `tasks`: r = family.reward(features, a, tasks[i]) in the buffer's task i.

    The rewards equal the simulation's to the precision of a stored number. The buffer's own tasks replace decoded
    rewards by true ones. If tasks have scenes (Sawyer), each new task must have the scene of the task that it replaces.

    Args:
        buffer: of one seed, with features.
        family: of the transitions.
        tasks: `tasks[i]` replaces the buffer's task `i`, `(buffer.n_tasks, task_dim)`.

    Raises:
        ValueError: tasks change the dynamics; the buffer has no features or is of another family or variant; or the
            tasks have another shape.
    """
    _check(buffer, family, tasks)
    copy = buffer.clone()
    is_holder = np.zeros(len(copy.rows), bool)
    is_holder[np.cumsum(copy.segments[:, LENGTH] + 1) - 1] = True
    places = torch.from_numpy(np.flatnonzero(~is_holder)).to(copy.device)
    own = tasks.values[copy.task.cpu().numpy()]
    rewards = family.reward(_double(copy.features), _double(copy.actions), own)
    copy.rows[places, copy._columns["rewards"]] = torch.as_tensor(rewards).to(copy.rows)[:, None]
    return copy


def shared_between_tasks(
    buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks, episodes: int, seed: int = 0
) -> TransitionBuffer:
    """Return a copy with offline episodes of other tasks in each task, with its own true rewards.

    Args:
        buffer, family, tasks: as in `relabelled`; the buffer's own tasks.
        episodes: added to each task: whole horizons, drawn uniformly without replacement from other tasks, or
            from those with the same scene if tasks have scenes.
        seed: of the draw.

    Raises:
        ValueError: as `relabelled`, or other tasks have too few episodes.
    """
    _check(buffer, family, tasks)
    rng, horizon, copy = np.random.default_rng(seed), family.horizon, buffer.clone()
    offline = [buffer.rows_of(task, "offline").cpu().numpy() for task in range(buffer.n_tasks)]
    windows = [rows[: len(rows) // horizon * horizon].reshape(-1, horizon) for rows in offline]
    lender, whole = np.repeat(np.arange(buffer.n_tasks), [len(rows) for rows in windows]), np.concatenate(windows)
    columns = {name: buffer.column(name).cpu().numpy() for name in COLUMNS}
    for task, values in enumerate(tasks.values):
        alike = family.rewards_alone_differ(values, tasks.values)
        others = np.flatnonzero((lender != task) & alike[lender])
        if not 0 <= episodes <= len(others):
            raise ValueError(
                f"task {task} can take 0 to {len(others)} episodes of {horizon} steps from other tasks, not {episodes}"
            )
        rows = whole[np.sort(rng.choice(others, episodes, replace=False))]
        lent = {name: column[rows] for name, column in columns.items()}
        features, actions = (columns[name][rows.ravel()].astype(np.float64) for name in ("features", "actions"))
        rewards = family.reward(features, actions, np.tile(values, (rows.size, 1)))
        lent["rewards"] = rewards.reshape(rows.shape)
        copy.append_batch([task] * episodes, lent, ["offline"] * episodes, np.ones(rows.shape, bool))
    return copy


def label_errors(buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks, last: int) -> dict[str, float]:
    """Measure the error of decoded rewards on the newest self-collected transitions, for diagnosis only.

    Args:
        buffer: of one seed, with features.
        family: of the transitions.
        tasks: `tasks[i]` is the buffer's task `i`.
        last: transitions, rounded up to whole segments.

    Returns:
        `label_error`, the root mean squared difference; `label_bias`, the mean of decoded minus true rewards;
        `label_true` and `label_true_sd`, mean and standard deviation of the true rewards. Empty without such
        transitions.
    """
    segments = buffer.segments
    own = np.isin(segments[:, CODE], MEMBERS["self-collected"])
    newer = np.cumsum((segments[:, LENGTH] * own)[::-1])[::-1] - segments[:, LENGTH] * own
    chosen = own & (newer < last)
    if not chosen.any():
        return {}
    places = torch.from_numpy(np.flatnonzero(np.repeat(chosen, segments[:, LENGTH] + 1))).to(buffer.device)
    ends = torch.from_numpy(np.cumsum(segments[chosen, LENGTH] + 1) - 1)
    keep = torch.ones(len(places), dtype=torch.bool)
    keep[ends] = False  # holder rows
    rows = buffer.rows[places].cpu()[keep].double().numpy()
    columns = {name: rows[:, where] for name, where in buffer._columns.items()}
    task = np.repeat(segments[chosen, TASK], segments[chosen, LENGTH])
    paid = np.asarray(family.reward(columns["features"], columns["actions"], tasks.values[task]))
    error = columns["rewards"][:, 0] - paid
    return {
        "label_error": float(np.sqrt(np.mean(error**2))),
        "label_bias": float(error.mean()),
        "label_true": float(paid.mean()),
        "label_true_sd": float(paid.std()),
    }


def share_reached(buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks) -> dict[str, float]:
    """Compute the share of offline transitions that reach their task, by description of the task.

    Args:
        buffer: of one seed, with features.
        family, tasks: `tasks[i]` is the buffer's task `i`.

    Returns:
        Shares in [0, 1] by `family.describe(task)`; empty if the family does not define success or descriptions.
    """
    offline = (buffer.codes == CODES["offline"]).cpu().numpy()
    task = buffer.task.cpu().numpy()[offline]
    reached = family.success(_double(buffer.features)[offline], tasks.values[task])
    names = [family.describe(values) for values in tasks.values]
    if reached is None or None in names:
        return {}
    each = np.bincount(task, reached, buffer.n_tasks), np.bincount(task, minlength=buffer.n_tasks)
    return {
        str(name): float(np.divide(*(column[np.array(names) == name].sum() for column in each)))
        for name in dict.fromkeys(names)
    }


def check_relabelling(family: TaskFamily) -> None:
    """Raise ValueError if tasks change the dynamics, not only the rewards."""
    example = family.sample_tasks(np.random.default_rng(0), 1)
    if isinstance(family, MujocoFamily) and (fields := family.physics(example)):
        raise ValueError(
            f"data of {family.full_name} cannot be relabelled: its tasks change the dynamics ({', '.join(fields)}), so "
            "that another task would have led to other states, not just to other rewards"
        )


def _check(buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks) -> None:
    if tasks.values.shape != (shape := (buffer.n_tasks, family.task_dim)):
        raise ValueError(f"tasks of shape {shape} are needed, one for each of the buffer's, got {tasks.values.shape}")
    check_relabelling(family)
    check_spec(buffer.spec, family.spec)
    if bool(buffer.features.isnan().any()):
        raise ValueError("this buffer was read from data without features, which true rewards are computed from")


def _double(column: torch.Tensor) -> Array:
    return column.cpu().numpy().astype(np.float64)
