"""Sampling of meta-batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.batch import Batch
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.store import Source


class ContextFrom(NamedTuple):
    """Source of a task's context; see `TransitionBuffer.sample_context`."""

    source: Source
    last: int | None = None  # only from this many latest transitions


def sample_offline(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """Draw a meta-batch of static data: for each task, context h and, independently, transitions h'.

    The context is exploration if the buffer has any, else offline transitions.
    """
    c = agent.config
    tasks = buffer.draw_tasks(c.meta_batch, agent.generator)
    context = buffer.sample_context(tasks, c.context_size, agent.generator, buffer.offline_context)
    return _batch(agent, context, buffer, tasks, c.batch_size, "offline")


def sample_self_supervised(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """Draw a meta-batch of offline data with true rewards and self-collected data with decoded rewards.

    `config.online_context` selects the context. "mixed" (the authors' way): exploration and prior-z episodes if the
    buffer has exploration, else offline and self-collected transitions alike. "separate": half of the tasks have
    context from static data alone, the rest from self-collected data alone. "episodes": as "separate", but
    self-collected context is successive whole episodes with z from the prior, as at meta-test.
    """
    c, generator = agent.config, agent.generator
    if c.online_context == "mixed":
        return sample_mixed(agent, buffer)
    whole = c.online_context == "episodes"
    size = c.exploration_episodes * buffer.spec.horizon if whole else c.context_size
    source: Source = "explored" if whole else "self-collected"
    half = c.online_meta_batch // 2
    offline_tasks = buffer.draw_tasks(c.online_meta_batch - half, generator)
    self_tasks = buffer.draw_tasks_with(source, half, generator)  # not every task may have collected yet
    tasks = torch.cat([offline_tasks, self_tasks], dim=-1)
    context = torch.cat(
        [
            buffer.sample_context(offline_tasks, size, generator, buffer.offline_context),
            buffer.sample_context(self_tasks, size, generator, source, consecutive=whole),
        ],
        dim=-3,
    )
    return _batch(agent, context, buffer, tasks, c.online_batch_size, "mixture")


def sample_mixed(agent: SMAC, buffer: TransitionBuffer, context_from: ContextFrom | None = None) -> Batch:
    """Draw a meta-batch of static and self-collected data, as `sample_offline`.

    Args:
        agent, buffer: as in `train_self_supervised`.
        context_from: source of h; default `buffer.mixed_context`.
    """
    c = agent.config
    source, last = context_from or ContextFrom(buffer.mixed_context)
    tasks = buffer.draw_tasks(c.online_meta_batch, agent.generator)
    context = buffer.sample_context(tasks, c.context_size, agent.generator, source, last=last)
    return _batch(agent, context, buffer, tasks, c.online_batch_size, "mixture")


def _batch(agent: SMAC, context: Tensor, buffer: TransitionBuffer, tasks: Tensor, size: int, source: Source) -> Batch:
    t = buffer.sample(tasks, size, agent.generator, source)
    return Batch(t.observations, t.actions, t.rewards, t.next_observations, t.terminations, context)
