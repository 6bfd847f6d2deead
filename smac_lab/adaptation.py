"""The meta-test protocol: explore with z from the prior, infer the task, act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.encoder import Gaussian, make_context
from smac_lab.engine.rollout import Episodes, rollout
from smac_lab.engine.seeds import Generators
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.simulation import BatchEnv
from smac_lab.tasks.spec import Array, Tasks, only_set


class Evaluation(NamedTuple):
    """Outcome of the meta-test protocol; with several seeds, every array has a leading seed axis."""

    returns: Array  # (task, repeat, episode): the last episode is the one after adaptation
    final_returns: Array  # (task,): mean over repeats of the last episode's return
    contexts: Tensor  # (task, repeat, n, context_dim): everything seen during exploration
    posterior: Gaussian  # (task, repeat, z_dim): q(z | context)
    episodes: Episodes  # the last episode, (task * repeat, time, ...)


@torch.inference_mode()
def evaluate(
    agent: SMAC,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    *,
    seed: int | Sequence[int] = 0,
    repeats: int | None = None,
    exploration_episodes: int | None = None,
    deterministic: bool = True,
    num_threads: int = 0,
) -> Evaluation:
    """Meta-test on `tasks`: every task and repeat, of every seed, side by side in one batch of simulations.

    `exploration_episodes` episodes with z ~ p(z), then one with z ~ q(.|everything seen), all with true
    rewards, which meta-test has. The agent is not changed, and its own generator is not used.

    Args:
        agent: trained agent. With several seeds every result has a leading seed axis.
        family, tasks: what to act in; with several seeds, tasks of all of them or a list with as many tasks for each.
        seed: of simulations and draws; with several seeds, one for all of them or one for each.
        repeats, exploration_episodes: defaults from the agent's config (4 and 2).
        deterministic: act with the mean action.
        num_threads: physics threads, 0 for as many as PyTorch uses.

    Raises:
        ValueError: a family that the agent is not for, be it another variant of its own; tasks or a `seed` that are
            not of as many seeds as the agent, or more tasks for one seed than for another.
    """
    agent.check_spec(family.spec, "act in")
    repeats = agent.config.repeats if repeats is None else repeats
    n_explore = agent.config.exploration_episodes if exploration_episodes is None else exploration_episodes
    sets = tasks_of_each(agent, tasks)
    env = batch_env_of(family, sets, repeats, num_threads)
    shape = (*agent.seed_axis, len(sets[0]), repeats)  # of what follows, where it is not (..., task * repeat)
    n = len(sets[0]) * repeats
    generator = generators_of(agent, seed)

    returns, contexts = [], []
    for episode in range(n_explore):
        policy = agent.policy(agent.prior(n), generator, deterministic)
        explored = rollout(policy, env, seeds_of_episode(agent, seed, episode * 100_003, n))
        returns.append(explored.returns)
        contexts.append(context_of(agent, explored).unflatten(0, (*agent.seed_axis, n)))
    context = torch.cat(contexts, dim=-2) if contexts else None
    posterior = agent.prior(n) if context is None else agent.infer_posterior(context)
    policy = agent.policy(posterior, generator, deterministic)
    final = rollout(policy, env, seeds_of_episode(agent, seed, n_explore * 100_003, n))
    returns.append(final.returns)

    if context is None:
        context = torch.zeros(*agent.seed_axis, n, 0, agent.spec.context_dim)
    stacked = np.stack(returns, axis=-1).reshape(*shape, -1)
    return Evaluation(
        returns=stacked,
        final_returns=stacked[..., -1].mean(-1),
        contexts=context.reshape(*shape, *context.shape[-2:]),
        posterior=Gaussian(posterior.mean.reshape(*shape, -1), posterior.std.reshape(*shape, -1)),
        episodes=episodes_of_each(agent, final),
    )


def context_of(agent: SMAC, episodes: Episodes) -> Tensor:
    """Episodes as context of the agent's encoder, `(simulation, time, context_dim)`."""
    includes_next = agent.spec.context_dim > agent.spec.obs_dim + agent.spec.action_dim + 1
    return make_context(
        agent.tensor(episodes.observations),
        agent.tensor(episodes.actions),
        agent.tensor(episodes.rewards),
        agent.tensor(episodes.next_observations) if includes_next else None,
    )


# -- several seeds at once -------------------------------------------------------------------------------
def tasks_of_each(agent: SMAC, tasks: Tasks | Sequence[Tasks]) -> list[Tasks]:
    """The tasks of each seed of the agent; of an agent of one seed, a list of one set.

    Raises:
        ValueError: not one set for all and not one for each, or sets of different sizes.
    """
    if agent.seeds is None:
        return [only_set(tasks)]
    sets = [tasks] * len(agent.seeds) if isinstance(tasks, Tasks) else list(tasks)
    if len(sets) != len(agent.seeds) or len({len(one) for one in sets}) != 1:
        sizes = ", ".join(str(len(one)) for one in sets)
        raise ValueError(f"{len(agent.seeds)} seeds need as many sets of tasks, all of one size; got sizes {sizes}")
    return sets


def batch_env_of(family: TaskFamily, sets: Sequence[Tasks], repeats: int, num_threads: int) -> BatchEnv:
    """Simulations of every task of every seed, each task `repeats` times in a row, one seed after the other."""
    return family.batch_env(Tasks(np.concatenate([one.repeat(repeats).values for one in sets])), num_threads)


def generators_of(agent: SMAC, seed: int | Sequence[int]) -> Generators:
    """A stream of random numbers from `seed`; with several seeds a list with one for each."""
    streams = [torch.Generator(agent.device).manual_seed(one) for one in _each(agent, seed)]
    return streams[0] if agent.seeds is None else streams


def seeds_of_episode(agent: SMAC, seed: int | Sequence[int], shift: int, n: int) -> list[int]:
    """Seeds of an episode's `n` simulations of each of the agent's seeds, in a row.

    Those of different episodes, told apart by their `shift`, lie far apart.
    """
    return [one * 1_000_003 + shift + i for one in _each(agent, seed) for i in range(n)]


def episodes_of_each(agent: SMAC, episodes: Episodes) -> Episodes:
    """Episodes of several seeds in a row, with a leading seed axis."""
    if agent.seeds is None:
        return episodes
    columns: Any = [column.reshape(len(agent.seeds), -1, *column.shape[1:]) for column in episodes]
    return Episodes(*columns)


def _each(agent: SMAC, seed: int | Sequence[int]) -> list[int]:
    seeds = len(agent.seeds or (0,))
    each = [int(seed)] * seeds if isinstance(seed, (int, np.integer)) else [int(one) for one in seed]
    if len(each) != seeds:
        raise ValueError(f"seed={seed!r} is not allowed: it must be one number, or one for each of {seeds} seeds")
    return each
