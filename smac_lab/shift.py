"""The distribution shift between q(z) from self-collected and from offline context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from smac_lab.adaptation import evaluate
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.store import Source
from smac_lab.encoder import Gaussian, kl_divergence, kl_to_prior
from smac_lab.engine.method import Method
from smac_lab.engine.rollout import Episodes
from smac_lab.engine.side_by_side import SideBySide
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Array, Tasks


class Shift(NamedTuple):
    """Result of `measure_shift`; with several seeds, with a leading seed axis.

    Posteriors are `(task, repeat, z_dim)`.
    """

    normalised: float  # mean over tasks; 0: no shift, 1: as far as between tasks
    normalised_median: float  # with the median over tasks
    kl_online_offline: Array  # (task,): KL(q_online || q_offline), nats
    kl_online_prior: float  # mean over tasks, nats
    kl_offline_prior: float
    offline_context_return: float
    online_context_return: float
    offline_returns: Array  # (task,)
    online_returns: Array  # (task,)
    offline: Gaussian
    online: Gaussian
    offline_contexts: torch.Tensor  # of the posteriors, (task, repeat, n, context_dim)
    online_contexts: torch.Tensor
    offline_episodes: Episodes  # with z from offline context, (task * repeat, time, ...)
    online_episodes: Episodes  # with z from self-collected context


@torch.inference_mode()
def measure_shift(
    agent: Method,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    buffer: TransitionBuffer,
    *,
    seed: int | Sequence[int] = 0,
    repeats: int | None = None,
    source: Source | None = None,
    num_threads: int = 0,
) -> Shift:
    """Compare the posteriors from offline and from self-collected context, and the returns given each.

    Both contexts have the transitions of `config.exploration_episodes` episodes, z is drawn by the same rule, and the
    actor is deterministic. Offline context is drawn from the task's static data. Self-collected context comes from
    exploration with z ~ p(z), as at meta-test.

    normalised = (within(on, off) - within(off, off')) / (between(off, off') - within(off, off')), where within
    averages KL(a_i || b_i) over tasks and between averages KL(a_i || b_j) over i != j (authors' code).

    Args:
        agent: not changed; with several seeds every result has a leading seed axis.
        family, tasks: training tasks; `tasks[i]` is the buffer's task `i`. With several seeds, one set of tasks, or
            equally large sets, one per seed.
        buffer: its static transitions are used.
        seed: of simulations and draws, one for all seeds or one per seed.
        repeats: independent contexts per task; default `config.repeats`.
        source: static transitions of the offline context: "exploration", or "offline" for those of actor and critics.
            Default `buffer.offline_context`, which the encoder reads.
        num_threads: physics threads; 0: PyTorch's number.

    Raises:
        ValueError: `family` or `buffer` is not of the agent's family and variant; the source is unknown, or a task has
            no transitions of it.

    Example:
        >>> import smac_lab as lab
        >>> family = lab.make_family("point-robot")
        >>> buffer, tasks = lab.starter_data(family)
        >>> agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), family.spec)
        >>> shift = lab.measure_shift(agent, family, tasks, buffer)
        >>> shift.offline_returns.shape == shift.online_returns.shape == (len(tasks),)
        True
    """
    agent.check_spec(family.spec, "act in")
    agent.check_spec(buffer.spec, "infer tasks from a buffer of")
    repeats = agent.config.repeats if repeats is None else repeats
    n = agent.config.exploration_episodes * family.horizon
    side = SideBySide(agent, family, tasks, repeats, seed, num_threads)
    ids = buffer.all_tasks(side.generator)[..., : side.n // repeats].repeat_interleave(repeats, dim=-1)

    # inferring from static data, twice: the second posterior shows the distance between contexts of one source
    source = buffer.offline_context if source is None else source
    contexts = [buffer.sample_context(ids, n, side.generator, source, agent.reads_episodes) for _ in range(2)]
    adapted, adapted_again = (agent.adapt(context) for context in contexts)

    # acting, given either kind of context
    acted = side.rollout(agent.policy(adapted, side.generator), 50_021)
    tested = evaluate(agent, family, tasks, seed=seed, repeats=repeats, num_threads=num_threads)

    # comparing
    shape = side.shape
    offline_returns = acted.returns.reshape(shape).mean(-1)
    off, off2 = side.posterior(adapted), side.posterior(adapted_again)
    on = tested.posterior
    within_on, within_off = kl_divergence(on, off).mean(-1), kl_divergence(off, off2).mean(-1)  # (..., task)
    between = _between(off, off2)  # (..., task)
    return Shift(
        normalised=_ratio(*(kl.mean(-1) for kl in (within_on, within_off, between))),
        normalised_median=_ratio(*(kl.median(-1).values for kl in (within_on, within_off, between))),
        kl_online_offline=within_on.cpu().numpy(),
        kl_online_prior=_number(kl_to_prior(on).mean((-2, -1))),
        kl_offline_prior=_number(kl_to_prior(off).mean((-2, -1))),
        offline_context_return=_number(offline_returns.mean(-1)),
        online_context_return=_number(tested.final_returns.mean(-1)),
        offline_returns=offline_returns,
        online_returns=tested.final_returns,
        offline=off,
        online=on,
        offline_contexts=contexts[0].reshape(*shape, *contexts[0].shape[-2:]),
        online_contexts=tested.contexts,
        offline_episodes=acted,
        online_episodes=tested.episodes,
    )


def _between(a: Gaussian, b: Gaussian) -> torch.Tensor:
    """Average KL(a_i || b_j) over j != i and over repeats, `(..., task)`; NaN for a single task."""
    tasks = a.mean.shape[-3]
    rows = Gaussian(a.mean.unsqueeze(-3), a.std.unsqueeze(-3))
    columns = Gaussian(b.mean.unsqueeze(-4), b.std.unsqueeze(-4))
    kl = kl_divergence(rows, columns).mean(-1)  # (..., task, task)
    others = kl.sum(-1) - kl.diagonal(dim1=-2, dim2=-1)
    return others / (tasks - 1) if tasks > 1 else torch.full_like(others, torch.nan)


def _ratio(online: torch.Tensor, floor: torch.Tensor, between: torch.Tensor) -> Any:
    return _number((online - floor) / (between - floor))


def _number(value: torch.Tensor | Array) -> Any:
    found = np.asarray(value.cpu()) if isinstance(value, torch.Tensor) else value
    return found if found.ndim else float(found)
