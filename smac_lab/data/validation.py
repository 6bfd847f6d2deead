"""Checks of a data set, common to all file formats."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smac_lab.data.chains import COLUMNS, Values, check_finite
from smac_lab.data.lookup import CODE, LENGTH, TASK, task_counts
from smac_lab.data.store import CODES, TransitionStore
from smac_lab.engine.method import Method
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Array, FamilySpec, Tasks

TOLERANCE = 1e-4  # absolute plus relative, of a reward from features in single precision


def check_dataset(
    buffer: TransitionStore, family: TaskFamily, tasks: Tasks | None, unknown_features: bool = False
) -> dict[str, Any]:
    """Check that a buffer is a sound data set of these tasks, and summarise it.

    Args:
        buffer: of one seed; `tasks[i]` is its task `i`.
        family: of the transitions.
        tasks: None: only their number is known, and rewards are not compared.
        unknown_features: allow transitions without features (all NaN), whose rewards are not compared.

    Returns:
        A record for JSON: per task `transitions`, `episodes` and mean `returns`; `min` and `max` of `observations` and
        `rewards`; numbers of `terminations` and `truncations`; `reward_error`, the greatest difference of a static
        reward from the family's (None: not compared); and `content_sha256`, of rows, segments and tasks.

    Raises:
        ValueError: another family or variant, a task without transitions or an unknown one, a source that only some
            tasks have, non-finite numbers, actions outside [-1, 1], an episode beyond the horizon, terminations or
            truncations other than 0 or 1, or static rewards other than the family's.
    """
    check_spec(buffer.spec, family.spec)
    if buffer.seeds is not None:
        raise ValueError(f"a data set is a single seed's, but this buffer joins {buffer.seeds}; split() it first")
    segments, expected = buffer.segments, (buffer.n_tasks, family.task_dim)
    if tasks is not None and tasks.values.shape != expected:
        raise ValueError(
            f"tasks of shape {expected} are needed, one for each of the buffer's, got {tasks.values.shape}"
        )
    if len(strange := np.setdiff1d(segments[:, TASK], np.arange(buffer.n_tasks))):
        raise ValueError(f"transitions of tasks {strange.tolist()} are not among those of tasks 0 to {expected[0] - 1}")
    if len(segments) and segments[:, LENGTH].min() < 1:
        raise ValueError(f"a segment has {segments[:, LENGTH].min()} transitions; each needs at least one")
    if len(strange := np.setdiff1d(segments[:, CODE], list(CODES.values()))):
        raise ValueError(f"{strange.tolist()} are no sources; known are {CODES}")
    columns: Values = {name: buffer.column(name).cpu().numpy() for name in COLUMNS}
    counts = np.bincount(segments[:, TASK], segments[:, LENGTH], buffer.n_tasks).astype(np.int64)
    if len(missing := np.flatnonzero(counts == 0)):
        raise ValueError(f"tasks {missing.tolist()} of {buffer.n_tasks} have no transitions; every task needs some")
    for source in ("offline", "exploration"):
        having = task_counts(segments, buffer.n_tasks, (CODES[source],)) > 0
        if having.any() and not having.all():
            lacking = np.flatnonzero(~having).tolist()
            raise ValueError(
                f"tasks {lacking} of {buffer.n_tasks} have no {source}, and others do; all need some or none"
            )

    known = np.ones(len(buffer), bool)
    if unknown_features and family.spec.feature_dim:
        known[np.isnan(columns["features"]).all(1)] = False
    finite = columns | {"features": np.where(known[:, None], columns["features"], 0.0)}
    check_finite(finite, segments[:, TASK].tolist(), segments[:, LENGTH])
    task = buffer.task.cpu().numpy()
    if len(beyond := np.flatnonzero(np.abs(columns["actions"]).max(1) > 1.0 + 1e-6)):
        first = beyond[0]
        raise ValueError(
            f"actions must lie within [-1, 1]; transition {first}, of task {task[first]}, has "
            f"{columns['actions'][first].tolist()}"
        )
    for name in ("terminations", "truncations"):
        if len(other := np.flatnonzero((columns[name] != 0.0) & (columns[name] != 1.0))):
            raise ValueError(f"{name} must be 0 or 1; transition {other[0]} has {columns[name][other[0]]}")
    ends = np.flatnonzero(episode_ends(buffer))
    lengths, of = np.diff(ends, prepend=-1), task[ends]
    if lengths.max() > family.horizon:
        longest = np.argmax(lengths)
        raise ValueError(
            f"no episode of {family.full_name} lasts longer than {family.horizon} steps, but one of task "
            f"{of[longest]} has {lengths[longest]}"
        )
    error = None
    if tasks is not None:
        compared = known & (buffer.source.cpu().numpy() == 0)
        error = _check_rewards(columns, compared, family, tasks, task)

    episodes = np.bincount(of, minlength=buffer.n_tasks)
    returns = np.bincount(task, columns["rewards"], buffer.n_tasks) / episodes
    observed = columns["observations"]
    return {
        "transitions": counts.tolist(),
        "episodes": episodes.tolist(),
        "returns": returns.tolist(),
        "observations": {"min": observed.min(0).tolist(), "max": observed.max(0).tolist()},
        "rewards": {"min": float(columns["rewards"].min()), "max": float(columns["rewards"].max())},
        "terminations": int(columns["terminations"].sum()),
        "truncations": int(columns["truncations"].sum()),
        "reward_error": error,
        "content_sha256": _content_hash(buffer, tasks),
    }


def check_spec(given: FamilySpec, allowed: FamilySpec) -> None:
    """Raise ValueError, naming every difference, unless the two specs are equal."""
    pairs = zip(FamilySpec._fields, given, allowed, strict=True)
    if differences := [f"{field} {ours!r} instead of {theirs!r}" for field, ours, theirs in pairs if ours != theirs]:
        raise ValueError(f"this is data of {given.name}, which does not fit {allowed.name}: {', '.join(differences)}")


def check_buffer(agent: Method, buffer: TransitionStore, own: bool = False) -> None:
    """Raise ValueError unless family, device and seeds of the buffer fit the agent.

    Args:
        agent, buffer: agent and data.
        own: whether each of several seeds appends to a separate buffer.
    """
    agent.check_spec(buffer.spec, "learn from a buffer of")
    if buffer.device.type != agent.device.type:
        raise ValueError(
            f"the buffer is on {buffer.device}, the agent on {agent.device}: buffer.to({agent.device.type!r})"
        )
    if buffer.seeds is not None and buffer.seeds != len(agent.seeds or ()):
        raise ValueError(f"a buffer of {buffer.seeds} seeds does not fit an agent with seed={agent.seed!r}")
    if own and agent.seeds is not None and not buffer.seeds:
        raise ValueError(
            f"{len(agent.seeds)} seeds collect separate data and need a buffer each: "
            f"TransitionBuffer.join([buffer] * {len(agent.seeds)})"
        )


def episode_ends(buffer: TransitionStore) -> NDArray[np.bool_]:
    """Mark the last transition of each episode, `(transition,)`: terminated, truncated, or last of its segment."""
    ends = ((buffer.terminations != 0) | (buffer.truncations != 0)).cpu().numpy()
    ends[np.cumsum(buffer.segments[:, LENGTH]) - 1] = True
    return ends


def _check_rewards(
    columns: Values, compared: NDArray[np.bool_], family: TaskFamily, tasks: Tasks, task: NDArray[np.int64]
) -> float | None:
    if not compared.any():
        return None
    features, actions = (columns[name][compared].astype(np.float64) for name in ("features", "actions"))
    given, own = columns["rewards"][compared].astype(np.float64), tasks.values[task[compared]]
    paid = np.asarray(family.reward(features, actions, own))
    slack = TOLERANCE * (1.0 + np.abs(paid))
    wrong = np.flatnonzero(np.abs(given - paid) > slack)
    if len(wrong):
        # Rounding alone may change a discontinuous reward: allow any reward within the rounding of the features.
        near = _rewards_beside(features[wrong], actions[wrong], own[wrong], family)
        far = (given[wrong] < near.min(0) - slack[wrong]) | (given[wrong] > near.max(0) + slack[wrong])
        paid[wrong[~far]] = given[wrong[~far]]
        wrong = wrong[far]
    if len(wrong):
        where = np.flatnonzero(compared)[wrong]
        first = task[where[0]]
        raise ValueError(
            f"{len(wrong)} of {len(given)} rewards are not those that {family.full_name} pays: transition {where[0]}, "
            f"of task {first} ({tasks.values[first].tolist()}), has {given[wrong[0]]:.6g} instead of "
            f"{paid[wrong[0]]:.6g}; the data may be of another variant, of other tasks, or of tasks in another order"
        )
    return float(np.abs(given - paid).max())


def _rewards_beside(features: Array, actions: Array, tasks: Array, family: TaskFamily) -> Array:
    """Compute rewards at features moved by their rounding per axis, `(1 + 2 * feature_dim, n)`."""
    step = features.shape[1] * np.spacing(np.abs(features).astype(np.float32)).astype(np.float64)
    moves = [sign * step * axis for axis in np.eye(features.shape[1]) for sign in (-1.0, 1.0)]
    return np.array([family.reward(features + move, actions, tasks) for move in [0.0 * step, *moves]])


def _content_hash(buffer: TransitionStore, tasks: Tasks | None) -> str:
    digest = hashlib.sha256(buffer.rows.cpu().contiguous().numpy().data)
    digest.update(np.ascontiguousarray(buffer.segments).data)
    if tasks is not None:
        digest.update(np.ascontiguousarray(tasks.values).data)
    return digest.hexdigest()
