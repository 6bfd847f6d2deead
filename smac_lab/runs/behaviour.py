"""Recipes for behaviour data, the static, truly rewarded data of meta-training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smac_lab.agent import SMAC
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.chains import COLUMNS
from smac_lab.data.store import Source
from smac_lab.engine.meter import metrics_of_each
from smac_lab.engine.rollout import Policy, near_random_policy, rollout, scripted_policy
from smac_lab.methods.pearl import train_pearl
from smac_lab.runs import checkpoint
from smac_lab.runs.log import MetricLog
from smac_lab.tasks.family import MujocoFamily, TaskFamily
from smac_lab.tasks.spec import Tasks

Tick = Callable[[int, int], None]  # (done, total), in PEARL's iterations or the script's episodes
SAVES = 10  # checkpoints of a PEARL run
AT_ONCE = 2_000  # scripted episodes of a body side by side, at most; bounds memory


def check_recipe(family: TaskFamily, config: SMACConfig) -> None:
    """Raise ValueError unless the recipe can make data of the family, in whole episodes."""
    if config.behaviour_transitions % family.horizon:
        raise ValueError(
            f"behaviour_transitions={config.behaviour_transitions} is not allowed: it must be a multiple of the "
            f"horizon of {family.name}, {family.horizon}"
        )
    if config.exploration_transitions % family.horizon:
        raise ValueError(
            f"exploration_transitions={config.exploration_transitions} is not allowed: it must be a multiple of the "
            f"horizon of {family.name}, {family.horizon}"
        )
    scripted = {
        "behaviour_policy": config.behaviour_policy == "scripted",
        "exploration_policy": config.exploration_transitions and config.exploration_policy == "scripted",
    }
    if any(scripted.values()) and not has_script(family):
        field = next(name for name, wanted in scripted.items() if wanted)
        raise ValueError(f"{family.name} has no script, so that {field}='scripted' is not allowed there")


def uses_pearl(config: SMACConfig) -> bool:
    """Return whether PEARL makes any data."""
    explores = config.exploration_transitions > 0 and config.exploration_policy == "pearl"
    return config.behaviour_policy == "pearl" or explores


def has_script(family: TaskFamily) -> bool:
    """Return whether the family has a script."""
    one = family.sample_tasks(np.random.default_rng(0), 1)
    return family.behave(0, np.zeros((1, family.obs_dim)), one) is not None


def collect_behaviour(
    family: TaskFamily,
    tasks: Tasks,
    config: SMACConfig,
    seed: int = 0,
    folder: Path | None = None,
    tick: Tick = lambda *_: None,
    pearl: TransitionBuffer | None = None,
) -> TransitionBuffer:
    """Make the static data set: transitions for actor and critics and, if configured, exploration.

    `behaviour_policy` collects the `behaviour_transitions` of actor and critics. "random": near-random actions, as
    before PEARL's first update. "scripted": `family.behave`; an episode pursues its own task with probability
    `behaviour_on_task`, and otherwise takes a detour (`family.detours`). "pearl": PEARL is trained on the tasks, and
    `behaviour_part` selects each task's last transitions, as in the paper, or its first, as in the paper's cheetah
    experiment.

    `exploration_policy` collects `exploration_transitions` truly rewarded transitions per task for the encoder alone.
    "pearl": the last transitions in which PEARL explored with z ~ p(z), as in the authors' cheetah script. "scripted":
    a substitute, in which the script takes only detours. If the number is 0, the encoder reads the transitions of actor
    and critics.

    Args:
        family: task family.
        tasks: training tasks.
        config: recipe.
        seed: of everything drawn.
        folder: for checkpoints and `metrics.csv` of a PEARL run, which is continued if interrupted.
        tick: called with the progress of PEARL or, without PEARL, of the script.
        pearl: transitions of an earlier PEARL run on these tasks; default: run PEARL if needed.

    Returns:
        A buffer of "offline" and "exploration" transitions, on the config's device.

    Raises:
        ValueError: a number of transitions is no multiple of the horizon, or a script is missing.
        StorageError: `folder` holds a PEARL run of another family.
    """
    check_recipe(family, config)
    buffer = TransitionBuffer(family.spec, len(tasks), config.torch_device())
    if pearl is None and uses_pearl(config):
        (pearl,) = run_pearl(family, [tasks], config, [seed], [] if folder is None else [folder], tick)
    rng = np.random.default_rng(seed)
    if config.behaviour_policy == "pearl":
        assert pearl is not None
        copy_transitions(pearl, buffer, "all", "offline", config.behaviour_transitions, config.behaviour_part)
    elif config.behaviour_policy == "random":
        repeats = config.behaviour_transitions // family.horizon
        act(near_random_policy(family.action_dim, rng), family, tasks, repeats, buffer, "offline", rng)
    else:
        repeats = config.behaviour_transitions // family.horizon
        some = max(1, AT_ONCE // repeats) if isinstance(family, MujocoFamily) else len(tasks)
        for start in range(0, len(tasks), some):
            ids = np.arange(start, min(start + some, len(tasks)))
            own = tasks[ids].repeat(repeats)
            on_task = rng.random(len(own)) < config.behaviour_on_task
            pursued = Tasks(np.where(on_task[:, None], own.values, family.detours(rng, own.values)))
            policy = scripted_policy(family, pursued, config.behaviour_noise, rng, own, on_task)
            act(policy, family, tasks, repeats, buffer, "offline", rng, ids)
            if not uses_pearl(config):
                tick(int(ids[-1] + 1) * repeats, len(tasks) * repeats)
    if config.exploration_transitions == 0:
        return buffer
    if config.exploration_policy == "pearl":
        assert pearl is not None
        copy_transitions(pearl, buffer, "explored", "exploration", config.exploration_transitions, "last")
    else:
        repeats = config.exploration_transitions // family.horizon
        pursued = Tasks(family.detours(rng, tasks.repeat(repeats).values))
        policy = scripted_policy(family, pursued, config.behaviour_noise, rng)
        act(policy, family, tasks, repeats, buffer, "exploration", rng)
    return buffer


def act(
    policy: Policy,
    family: TaskFamily,
    tasks: Tasks,
    repeats: int,
    buffer: TransitionBuffer,
    source: Source,
    rng: np.random.Generator,
    ids: NDArray[np.intp] | None = None,
) -> None:
    """Append `repeats` truly rewarded episodes per task, or per task in `ids`, to the buffer."""
    ids = np.arange(len(tasks)) if ids is None else ids
    episodes = rollout(policy, family.batch_env(tasks[ids].repeat(repeats)), seed=int(rng.integers(2**31)))
    each = np.repeat(ids, repeats).tolist()
    buffer.append_batch(each, episodes._asdict(), [source] * len(each), episodes.valid)


def run_pearl(
    family: TaskFamily,
    tasks: Sequence[Tasks],
    config: SMACConfig,
    seeds: Sequence[int],
    folders: Sequence[Path] = (),
    tick: Tick = lambda *_: None,
) -> list[TransitionBuffer]:
    """Train PEARL on each seed's tasks and return all that it collects; several seeds learn at once.

    Args:
        family, config, tick: as in `collect_behaviour`.
        tasks, seeds: each seed's training tasks, and its number.
        folders: one per seed, as in `collect_behaviour`, or none.

    Raises:
        StorageError: a folder holds a PEARL run of another family.
        ValueError: the seeds' checkpoints are not equally far.
    """
    total, paths, alone = config.behaviour_iterations, [one / "checkpoint" for one in folders], len(seeds) == 1
    if any(map(checkpoint.exists, paths)):
        agent, stored, progress = checkpoint.load_seeds(paths, family=family)
        assert stored is not None
        buffer, done = stored, progress["done"]
    else:
        agent, done = SMAC(config.for_pearl(), family.spec, seed=seeds[0] if alone else seeds), 0
        empty = [TransitionBuffer(family.spec, len(own), config.torch_device()) for own in tasks]
        buffer = empty[0] if alone else TransitionBuffer.join(empty)
    tick(done, total)
    logs = [MetricLog(folder, done) for folder in folders]
    iterations = train_pearl(
        agent,
        buffer,
        family,
        tasks[0] if alone else tasks,
        total - done,
        config.behaviour_updates,
        config.behaviour_initial_episodes,
        temperature=lambda iteration: temperature_of(config, done + iteration),
    )
    for iteration, metrics in iterations:
        now = done + iteration
        for log, own_metrics in zip(logs, metrics_of_each(metrics, agent.seed_axis), strict=False):
            log.write(now, own_metrics)
        if paths and (now % max(1, total // SAVES) == 0 or now == total):
            checkpoint.save_seeds(paths, agent, buffer, {"done": now})
        tick(now, total)
    return [buffer] if alone else list(buffer.split())


def temperature_of(config: SMACConfig, iteration: int) -> float:
    """Interpolate PEARL's alpha geometrically between its first and last value."""
    first, last = config.behaviour_temperature, config.behaviour_last_temperature
    return first * (last / first) ** (iteration / config.behaviour_iterations)


def copy_transitions(
    pearl: TransitionBuffer, buffer: TransitionBuffer, source: Source, to: Source, n: int, part: str
) -> None:
    """Append to `buffer`, as `to`, each task's first or last `n` transitions of a source in `pearl`.

    Raises:
        ValueError: a task has fewer than `n`.
    """
    if (fewest := int(pearl.counts_of(source).min())) < n:
        raise ValueError(f"some task has only {fewest} transitions of PEARL's, and {n} are wanted of each")
    columns = {name: pearl.column(name) for name in COLUMNS}
    for task in range(pearl.n_tasks):
        rows = pearl.rows_of(task, source)
        rows = rows[:n] if part == "first" else rows[len(rows) - n :]
        buffer.append(task, {name: column[rows].cpu() for name, column in columns.items()}, to)
