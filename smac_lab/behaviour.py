"""Behaviour data: the recipes for the static, reward-labelled data set that meta-training starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from smac_lab import checkpoint
from smac_lab.agent import SMAC
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.chains import COLUMNS
from smac_lab.data.collect import near_random_policy, rollout, scripted_policy
from smac_lab.metric_log import MetricLog
from smac_lab.pearl import train_pearl
from smac_lab.tasks.family import TaskFamily, Tasks

Tick = Callable[[int, int], None]  # (done, total), in iterations of PEARL
SAVES = 10  # checkpoints of a PEARL run


def check_recipe(family: TaskFamily, config: SMACConfig) -> None:
    """Raise ValueError unless the config's recipe can make data of the family, in whole episodes."""
    if config.behaviour_transitions % family.horizon:
        raise ValueError(
            f"behaviour_transitions={config.behaviour_transitions} is not allowed: it must be a multiple of the "
            f"horizon of {family.name}, {family.horizon}"
        )
    if config.behaviour_policy == "scripted" and not has_script(family):
        raise ValueError(f"{family.name} has no scripted behaviour; behaviour_policy can be 'random' or 'pearl' there")


def has_script(family: TaskFamily) -> bool:
    """Whether the family has scripted behaviour, `family.behave`."""
    one = family.sample_tasks(np.random.default_rng(0), 1)
    return family.behave(0, np.zeros((1, family.obs_dim)), one) is not None


def collect_behaviour(
    family: TaskFamily,
    tasks: Tasks,
    config: SMACConfig,
    seed: int = 0,
    folder: Path | None = None,
    tick: Tick = lambda *_: None,
) -> TransitionBuffer:
    """Make the offline data set: `config.behaviour_transitions` truly labelled transitions of each task.

    `config.behaviour_policy` says by whom. "random": near-random actions, as the paper's cheetah data, which come from
    before PEARL's first update. "scripted": the family's script, `family.behave`; an episode pursues its own task with
    probability `behaviour_on_task`, and otherwise takes a detour (`family.detours`). "pearl": PEARL is trained on the
    tasks, and its last transitions of each are the data, as in the paper.

    Args:
        family: task family.
        tasks: training tasks.
        config: recipe.
        seed: of everything drawn.
        folder: where a PEARL run keeps its checkpoints and `metrics.csv`; one that was interrupted there is continued.
        tick: told how far a PEARL run is.

    Returns:
        A buffer of offline transitions on the config's device.

    Raises:
        ValueError: `behaviour_transitions` is not a multiple of the horizon, or the family has no script.
        StorageError: `folder` holds a PEARL run of another family.
    """
    check_recipe(family, config)
    if config.behaviour_policy == "pearl":
        return last_transitions(_pearl(family, tasks, config, seed, folder, tick), config.behaviour_transitions)
    rng = np.random.default_rng(seed)
    repeats = config.behaviour_transitions // family.horizon
    own = tasks.repeat(repeats)
    if config.behaviour_policy == "random":
        policy = near_random_policy(family.action_dim, rng)
    else:
        on_task = rng.random(len(own)) < config.behaviour_on_task
        other = family.detours(rng, own.values)
        pursued = Tasks(np.where(on_task[:, None], own.values, other))
        policy = scripted_policy(family, pursued, config.behaviour_noise, rng)
    episodes = rollout(policy, family.batch_env(own), seed=int(rng.integers(2**31)))
    buffer = TransitionBuffer(family.spec, len(tasks), config.torch_device())
    ids = np.repeat(np.arange(len(tasks)), repeats).tolist()
    buffer.append_batch(ids, episodes._asdict(), ["offline"] * len(ids), episodes.valid)
    return buffer


def _pearl(
    family: TaskFamily, tasks: Tasks, config: SMACConfig, seed: int, folder: Path | None, tick: Tick
) -> TransitionBuffer:
    """Everything that PEARL collected."""
    total = config.behaviour_iterations
    agent, buffer, done = SMAC(config, family.spec, seed=seed), None, 0
    if folder is not None and checkpoint.exists(folder / "checkpoint"):
        agent, buffer, progress = checkpoint.load(folder / "checkpoint", family=family)
        done = progress["done"]
    if buffer is None:
        buffer = TransitionBuffer(family.spec, len(tasks), config.torch_device())
    tick(done, total)
    log = None if folder is None else MetricLog(folder, done)
    iterations = train_pearl(
        agent, buffer, family, tasks, total - done, config.behaviour_updates, config.behaviour_initial_episodes
    )
    for iteration, metrics in iterations:
        now = done + iteration
        if log is not None and folder is not None:
            log.write(now, metrics)
            if now % max(1, total // SAVES) == 0 or now == total:
                checkpoint.save(folder / "checkpoint", agent, buffer=buffer, progress={"done": now})
        tick(now, total)
    return buffer


def last_transitions(buffer: TransitionBuffer, n: int) -> TransitionBuffer:
    """A new buffer, offline data all of it, of the last `n` transitions that each task has.

    Raises:
        ValueError: a task has fewer.
    """
    if (fewest := int(buffer.counts.min())) < n:
        raise ValueError(f"some task has only {fewest} transitions, and {n} are wanted of each")
    columns = {name: getattr(buffer, name) for name in COLUMNS}
    last = TransitionBuffer(buffer.spec, buffer.n_tasks, buffer.device)
    for task in range(buffer.n_tasks):
        rows = buffer.rows_of(task)[-n:]
        last.append(task, {name: column[rows].cpu() for name, column in columns.items()}, "offline")
    return last
