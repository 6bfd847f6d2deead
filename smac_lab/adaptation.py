"""The meta-test protocol: explore with z from the prior, infer the task, act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.encoder import Gaussian, make_context
from smac_lab.engine.method import Method
from smac_lab.engine.rollout import Episodes
from smac_lab.engine.side_by_side import SideBySide
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Array, Tasks


class Evaluation(NamedTuple):
    """Outcome of the meta-test; with several seeds, every array has a leading seed axis."""

    returns: Array  # (task, repeat, episode): the last one is adapted
    final_returns: Array  # (task,): of the last episode, averaged over repeats
    contexts: Tensor  # (task, repeat, n, context_dim): of the exploration
    posterior: Gaussian  # (task, repeat, z_dim): z_dim is 0 for methods without z
    episodes: Episodes  # the last episode, (task * repeat, time, ...)


@torch.inference_mode()
def evaluate(
    agent: Method,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    *,
    seed: int | Sequence[int] = 0,
    repeats: int | None = None,
    exploration_episodes: int | None = None,
    deterministic: bool = True,
    num_threads: int = 0,
) -> Evaluation:
    """Run the meta-test, with all tasks, repeats and seeds side by side.

    The agent explores for `exploration_episodes` episodes (SMAC: with z ~ p(z)), then acts for one episode adapted to
    all of them (z ~ q(.|h)). BOReL also adapts before each further exploration episode. All episodes have true rewards.
    The agent is unchanged, and its generator is not used.

    Args:
        agent: with several seeds every result has a leading seed axis.
        family, tasks: to act in; with several seeds, one set of tasks, or equally large sets, one per seed.
        seed: of simulations and draws, one for all seeds or one per seed.
        repeats, exploration_episodes: default from the config (4 and 2).
        deterministic: act with the mean action.
        num_threads: physics threads; 0: PyTorch's number.

    Raises:
        ValueError: the agent is of another family or variant; `tasks` or `seed` do not match its seeds; the seeds have
            unequal numbers of tasks.

    Example:
        >>> import smac_lab as lab
        >>> family = lab.make_family("point-robot")
        >>> agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), family.spec)
        >>> _, test = family.split(n_train=1, n_test=3, seed=0)
        >>> lab.evaluate(agent, family, test, repeats=4).returns.shape  # two episodes explore, the third counts
        (3, 4, 3)
    """
    agent.check_spec(family.spec, "act in")
    repeats = agent.config.repeats if repeats is None else repeats
    n_explore = agent.config.exploration_episodes if exploration_episodes is None else exploration_episodes
    side = SideBySide(agent, family, tasks, repeats, seed, num_threads)
    returns: list[Array] = []
    contexts: list[Tensor] = []

    # exploring
    known = agent.unadapted(side.n)
    for episode in range(n_explore):
        if contexts and agent.adapts_while_exploring:
            known = agent.adapt(torch.cat(contexts, dim=-2))
        explored = side.rollout(agent.policy(known, side.generator, deterministic), episode * 100_003)
        returns.append(explored.returns)
        contexts.append(context_of(agent, explored))

    # adapting
    context = torch.cat(contexts, dim=-2) if contexts else None
    adapted = known if context is None else agent.adapt(context)

    # acting
    final = side.rollout(agent.policy(adapted, side.generator, deterministic), n_explore * 100_003)
    returns.append(final.returns)

    if context is None:
        context = torch.zeros(*agent.seed_axis, side.n, 0, agent.spec.context_dim)
    stacked = np.stack(returns, axis=-1).reshape(*side.shape, -1)
    return Evaluation(
        returns=stacked,
        final_returns=stacked[..., -1].mean(-1),
        contexts=context.reshape(*side.shape, *context.shape[-2:]),
        posterior=side.posterior(adapted),
        episodes=final,
    )


def context_of(agent: Method, episodes: Episodes) -> Tensor:
    """Convert episodes to context, `(..., simulation, time, context_dim)`."""
    return make_context(
        agent.tensor(episodes.observations),
        agent.tensor(episodes.actions),
        agent.tensor(episodes.rewards),
        agent.tensor(episodes.next_observations) if agent.spec.includes_next else None,
    )
