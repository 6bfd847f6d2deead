"""Reward-free interaction: act, label with the frozen decoder, store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.store import Source
from smac_lab.encoder import Gaussian
from smac_lab.engine.meter import Metrics, number
from smac_lab.engine.rollout import rollout
from smac_lab.engine.seeds import draw
from smac_lab.sampling import ContextFrom
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks


@torch.inference_mode()
def self_collect(
    agent: SMAC,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    oracle: bool,
    context_from: ContextFrom | None = None,
) -> Metrics:
    """Interact, label the transitions and append them to the buffer.

    In each of `online_tasks` tasks, the agent acts for `prior_episodes` episodes with z ~ p(z) and `posterior_episodes`
    with z ~ q(.|own data). The simulation computes rewards only if `oracle`.

    Args:
        agent, buffer, family, tasks: as in `train_self_supervised`.
        oracle: whether true rewards are stored, not decoded ones.
        context_from: source of context for q(.|own data); default `buffer.mixed_context`.

    Returns:
        Mean of the stored rewards, and the buffer's transitions per seed.
    """
    c = agent.config
    ids = buffer.draw_tasks(c.online_tasks, agent.generator)  # (..., task); ... is () or (seed,) from here on
    source, last = context_from or ContextFrom(buffer.mixed_context)
    priors = [agent.prior(ids.shape[-1])] * c.prior_episodes

    def posterior() -> Gaussian:
        context = buffer.sample_context(ids, c.label_context_size, agent.generator, source, last=last)
        return agent.infer_posterior(context)

    # Posterior episodes run side by side if the posterior is inferred once per iteration. Otherwise they run one after
    # another, so that each posterior may use the episodes before.
    if c.collecting_posterior == "iteration":
        posteriors = [posterior()] * c.posterior_episodes if c.posterior_episodes else []
        rewards = [collect_episodes(agent, buffer, family, tasks, ids, [*priors, *posteriors], len(priors), oracle)]
    else:
        rewards = [collect_episodes(agent, buffer, family, tasks, ids, priors, len(priors), oracle)] if priors else []
        for _ in range(c.posterior_episodes):
            rewards.append(collect_episodes(agent, buffer, family, tasks, ids, [posterior()], 0, oracle))

    collected = torch.cat(rewards, dim=-1).mean(-1)  # (...)
    stored = torch.zeros_like(collected) + len(buffer) / (buffer.seeds or 1)
    return {"collected_reward_mean": number(collected), "buffer_transitions": number(stored)}


@torch.inference_mode()
def collect_episodes(
    agent: SMAC,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    ids: Tensor,
    beliefs: Sequence[Gaussian],
    n_prior: int,
    oracle: bool,
) -> Tensor:
    """Collect one episode per task in `ids` and belief; the first `n_prior` beliefs are the prior.

    Returns:
        The stored rewards, `(..., episode * task * time)`.
    """
    generator = agent.generator
    # acting without rewards
    z = Gaussian(*(torch.cat(parts, dim=-2) for parts in zip(*beliefs, strict=True)))  # (..., episode * task, z_dim)
    simulated = torch.cat([ids] * len(beliefs), dim=-1)  # (..., episode * task)
    env = family.batch_env(_tasks_of(buffer, tasks, simulated), rewards=oracle)
    first = (draw(torch.rand, (*agent.seed_axis, 1), generator) * (2**31 - 1)).long()
    seeds = first + torch.arange(simulated.shape[-1], device=first.device)  # of each simulation
    episodes = rollout(agent.policy(z, generator, deterministic=False), env, seeds.flatten().tolist())

    # labelling
    rewards = episodes.rewards
    if not oracle:
        size = agent.config.label_context_size
        label_context = buffer.sample_context(simulated, size, generator, buffer.offline_context)
        shape = (*simulated.shape, family.horizon, -1)
        observations = agent.tensor(episodes.observations).reshape(shape)
        actions = agent.tensor(episodes.actions).reshape(shape)
        rewards = agent.label(label_context, observations, actions).reshape(rewards.shape).cpu().numpy()
        episodes = episodes._replace(rewards=rewards)

    # storing
    explored = ids.shape[-1] * n_prior
    each: list[Source] = ["explored" if row < explored else "self-collected" for row in range(simulated.shape[-1])]
    buffer.append_batch(simulated.flatten().tolist(), episodes._asdict(), each * (buffer.seeds or 1), episodes.valid)
    return agent.tensor(rewards).reshape(*agent.seed_axis, -1)


def _tasks_of(buffer: TransitionBuffer, tasks: Tasks | Sequence[Tasks], ids: Tensor) -> Tasks:
    index = ids.flatten().cpu().numpy()
    if isinstance(tasks, Tasks):  # every seed has the same tasks
        return tasks[index % buffer.tasks_each]
    return Tasks(np.concatenate([one.values for one in tasks]))[index]
