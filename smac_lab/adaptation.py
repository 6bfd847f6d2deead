"""The meta-test protocol: explore with z from the prior, infer the task, act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.data.collect import Episodes, rollout
from smac_lab.encoder import Gaussian, make_context
from smac_lab.seeds import stack_results
from smac_lab.tasks.family import Array, TaskFamily, Tasks, only_set


class Evaluation(NamedTuple):
    """Outcome of the meta-test protocol."""

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
    seed: int = 0,
    repeats: int | None = None,
    exploration_episodes: int | None = None,
    deterministic: bool = True,
    num_threads: int = 0,
) -> Evaluation:
    """Meta-test on `tasks`: every task and repeat side by side in one batch of simulations.

    `exploration_episodes` episodes with z ~ p(z), then one with z ~ q(.|everything seen), all with true
    rewards, which meta-test has. The agent is not changed, and its own generator is not used.

    Args:
        agent: trained agent. With several seeds every result has a leading seed axis.
        family, tasks: what to act in; with several seeds, tasks of all of them or a list with the tasks of each.
        seed: of simulations and draws.
        repeats, exploration_episodes: defaults from the agent's config (4 and 2).
        deterministic: act with the mean action.
        num_threads: physics threads, 0 for as many as PyTorch uses.

    Raises:
        ValueError: a family that the agent is not for, be it another variant of its own.
    """
    agent.check_spec(family.spec, "act in")
    if agent.seeds is not None:
        sets = [tasks] * len(agent.seeds) if isinstance(tasks, Tasks) else tasks
        options: Any = {"repeats": repeats, "exploration_episodes": exploration_episodes, "num_threads": num_threads}
        options |= {"seed": seed, "deterministic": deterministic}
        parts = zip(agent.split(), sets, strict=True)
        return stack_results([evaluate(one, family, own, **options) for one, own in parts])
    tasks = only_set(tasks)
    repeats = agent.config.repeats if repeats is None else repeats
    n_explore = agent.config.exploration_episodes if exploration_episodes is None else exploration_episodes
    env = family.batch_env(tasks.repeat(repeats), num_threads)
    generator = torch.Generator(agent.device).manual_seed(seed)

    returns, contexts = [], []
    for episode in range(n_explore):
        policy = agent.policy(agent.prior(env.num_envs), generator, deterministic)
        explored = rollout(policy, env, seed=_episode_seed(seed, episode))
        returns.append(explored.returns)
        contexts.append(context_of(agent, explored))
    context = torch.cat(contexts, dim=1) if contexts else None
    posterior = agent.prior(env.num_envs) if context is None else agent.infer_posterior(context)
    final = rollout(agent.policy(posterior, generator, deterministic), env, seed=_episode_seed(seed, n_explore))
    returns.append(final.returns)

    shape = (len(tasks), repeats)
    if context is None:
        context = torch.zeros(env.num_envs, 0, agent.spec.context_dim)
    stacked = np.stack(returns, axis=-1).reshape(*shape, -1)
    return Evaluation(
        returns=stacked,
        final_returns=stacked[..., -1].mean(1),
        contexts=context.reshape(*shape, *context.shape[1:]),
        posterior=Gaussian(posterior.mean.reshape(*shape, -1), posterior.std.reshape(*shape, -1)),
        episodes=final,
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


def _episode_seed(seed: int, episode: int) -> int:
    """Simulation seeds of different episodes lie far apart, as a batch uses one for each simulation."""
    return seed * 1_000_003 + episode * 100_003
