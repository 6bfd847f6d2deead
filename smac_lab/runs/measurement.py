"""Measurements of an agent: shift, returns, and episodes for pictures."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smac_lab.adaptation import Evaluation, evaluate
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.relabel import label_errors
from smac_lab.data.storage import StorageError, replacing
from smac_lab.data.store import CODES
from smac_lab.data.validation import episode_ends
from smac_lab.encoder import kl_to_prior
from smac_lab.engine.meter import Metrics
from smac_lab.engine.method import Method
from smac_lab.engine.rollout import Episodes, rollout, scripted_policy
from smac_lab.engine.seeds import of_seed
from smac_lab.shift import Shift, measure_shift
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Array, Tasks

SUCCESSES = {"offline": "offline_context", "online": "online_context", "test": "test"}  # prefixes: arrays to metrics
SHOWN_TASKS = 24  # tasks whose episodes are kept for pictures


def measure(
    agent: Method,
    family: TaskFamily,
    train: Sequence[Tasks],
    test: Sequence[Tasks],
    buffer: TransitionBuffer,
    seeds: Sequence[int],
) -> list[dict[str, Array]]:
    """Measure everything that a report shows of an agent; shared names are those of `Shift`.

    Args:
        agent: of one or several seeds.
        family: the family to act in.
        train, test: training and held-out tasks of each seed.
        buffer: of all seeds, as in `train_self_supervised`.
        seeds: of simulations and draws, one per seed of the agent.

    Returns:
        The arrays of each seed.
    """
    alone = agent.seeds is None
    seed: Any = seeds[0] if alone else seeds
    held_out_seed: Any = seeds[0] + 500_009 if alone else [one + 500_009 for one in seeds]
    shift = measure_shift(agent, family, train[0] if alone else train, buffer, seed=seed)
    held_out = evaluate(agent, family, test[0] if alone else test, seed=held_out_seed)
    if alone:
        return [_arrays(agent.config, family, train[0], test[0], buffer, shift, held_out)]
    each = enumerate(zip(train, test, buffer.split(), strict=True))
    return [
        _arrays(agent.config, family, *of_one, of_seed(shift, index), of_seed(held_out, index))
        for index, of_one in each
    ]


def _arrays(
    config: SMACConfig,
    family: TaskFamily,
    train: Tasks,
    test: Tasks,
    buffer: TransitionBuffer,
    shift: Shift,
    held_out: Evaluation,
) -> dict[str, Array]:
    shown, repeats = np.arange(min(SHOWN_TASKS, len(train))), config.repeats
    return {
        "tasks": train.values,
        "test_tasks": test.values,
        **_posteriors(shift),
        "behaviour_returns": behaviour_returns(buffer),
        "offline_returns": shift.offline_returns,
        "online_returns": shift.online_returns,
        "test_returns": held_out.final_returns,
        "shown_tasks": train.values[shown],
        "observations": shift.online_episodes.observations[shown * repeats],
        "features": shift.online_episodes.features[shown * repeats],
        "offline_observations": shift.offline_episodes.observations[shown * repeats],
        "offline_features": shift.offline_episodes.features[shown * repeats],
        **_task_errors(family, train.repeat(repeats), shift),
        **_successes(family, train, shift.offline_episodes, "offline"),
        **_successes(family, train, shift.online_episodes, "online"),
        **_successes(family, test, held_out.episodes, "test"),
        **{name: np.asarray(value) for name, value in _newest_labels(config, family, train, buffer).items()},
    }


def _newest_labels(c: SMACConfig, family: TaskFamily, train: Tasks, buffer: TransitionBuffer) -> dict[str, float]:
    last = c.online_tasks * (c.prior_episodes + c.posterior_episodes) * family.horizon
    return label_errors(buffer, family, train, last)


def behaviour_returns(buffer: TransitionBuffer) -> Array:
    """Compute the mean return of the offline episodes per task, `(task,)`."""
    task, rewards = buffer.task.cpu().numpy(), buffer.rewards.cpu().numpy()
    offline = (buffer.codes == CODES["offline"]).cpu().numpy()
    ends = episode_ends(buffer) & offline
    totals = np.bincount(task[offline], rewards[offline], buffer.n_tasks)
    return totals / np.maximum(np.bincount(task[ends], minlength=buffer.n_tasks), 1)


def summarise(found: dict[str, Array]) -> Metrics:
    """Reduce the arrays of `measure` to logged scalars."""
    metrics = {
        "offline_context_return": float(found["offline_returns"].mean()),
        "online_context_return": float(found["online_returns"].mean()),
        "test_return": float(found["test_returns"].mean()),
    }
    if "shift" in found:
        metrics |= {"shift": float(found["shift"]), "kl_online_offline": float(found["kl_online_offline"].mean())}
    for kind, name in SUCCESSES.items():
        for measure in ("success", "success_ever"):
            if f"{kind}_{measure}" in found:
                metrics[f"{name}_{measure}"] = float(found[f"{kind}_{measure}"].mean())
    return metrics | {k: float(found[k]) for k in found if k.startswith(("velocity_error", "label_"))}


def _posteriors(shift: Shift) -> dict[str, Array]:
    """Collect posteriors and their distances; nothing without z."""
    if shift.online.mean.shape[-1] == 0:
        return {}
    named = {"offline": shift.offline, "online": shift.online}
    posteriors = {
        f"{k}_{field}": getattr(q, field).cpu().numpy() for k, q in named.items() for field in ("mean", "std")
    }
    return {
        **posteriors,
        "kl_online_offline": shift.kl_online_offline,
        "kl_online_prior": kl_to_prior(shift.online).mean(1).cpu().numpy(),
        "kl_offline_prior": kl_to_prior(shift.offline).mean(1).cpu().numpy(),
        "shift": np.asarray(shift.normalised),
        "shift_median": np.asarray(shift.normalised_median),
    }


def _task_errors(family: TaskFamily, tasks: Tasks, shift: Shift) -> dict[str, Array]:
    errors = {}
    for kind, episodes in (("offline", shift.offline_episodes), ("online", shift.online_episodes)):
        steps = [family.velocity_error(episodes.features[:, t], tasks.values) for t in range(family.horizon)]
        known = [step for step in steps if step is not None]
        if known:
            errors[f"velocity_error_{kind}"] = np.asarray(np.mean(known))
    return errors


def _successes(family: TaskFamily, tasks: Tasks, episodes: Episodes, kind: str) -> dict[str, Array]:
    """Compute each task's share of episodes with success at the last step, and at any step."""
    n, horizon = episodes.rewards.shape
    each = tasks.repeat(n // len(tasks)).values.repeat(horizon, axis=0)
    reached = family.success(episodes.features.reshape(n * horizon, -1), each)
    if reached is None:
        return {}
    reached = reached.reshape(len(tasks), -1, horizon) & episodes.first.reshape(len(tasks), -1, horizon)
    last = np.take_along_axis(reached, episodes.first.reshape(reached.shape).sum(-1, keepdims=True) - 1, axis=-1)
    return {f"{kind}_success": last.mean((1, 2)), f"{kind}_success_ever": reached.any(-1).mean(1)}


def success_by_description(family: TaskFamily, found: dict[str, Array]) -> dict[str, dict[str, float]]:
    """Average the success at the last step over the tasks of each description.

    Returns:
        `family.describe(task)` to "offline_context", "online_context" and, if held-out tasks have that description,
        "test", each in [0, 1]; empty without success or descriptions.
    """
    shares: dict[str, dict[str, float]] = {}
    for kind, name in SUCCESSES.items():
        tasks = found["test_tasks" if kind == "test" else "tasks"]
        described = np.array([family.describe(task) or "" for task in tasks])
        if f"{kind}_success" not in found or not described.all():
            return {}
        for description in dict.fromkeys(described.tolist()):
            share = float(found[f"{kind}_success"][described == description].mean())
            shares.setdefault(description, {})[name] = share
    return dict(sorted(shares.items()))


def save_measurement(file: Path, found: dict[str, Array]) -> None:
    """Write arrays atomically as npz."""
    with replacing(file) as partial:
        np.savez(partial, **found)  # type: ignore[arg-type]


def load_measurement(file: Path) -> dict[str, Array]:
    """Read the arrays that `save_measurement` wrote.

    Raises:
        StorageError: the file is missing or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else "it is no sound npz of arrays"
        raise StorageError(f"{file} cannot be read: {reason}") from error


def references(
    family: TaskFamily, tasks: Tasks, buffer: TransitionBuffer | None, seed: int = 0
) -> dict[str, float | None]:
    """Measure mean returns of a uniformly random policy, the controller and the behaviour data."""
    env = family.batch_env(tasks.repeat(4))
    rng = np.random.default_rng(seed)
    random = rollout(lambda o: rng.uniform(-1.0, 1.0, (len(o), family.action_dim)), env, seed=seed)
    best = None
    if family.controller(np.zeros((1, family.obs_dim)), tasks.values[:1]) is not None:
        # a family's script is its controller if it has one
        best = float(rollout(scripted_policy(family, env.tasks, 0.0, rng), env, seed=seed).returns.mean())
    behaviour = None if buffer is None else float(behaviour_returns(buffer).mean())
    return {"random": float(random.returns.mean()), "best": best, "behaviour": behaviour}
