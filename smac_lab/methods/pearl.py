"""PEARL: the paper's behaviour policy and online baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from smac_lab.actor_critic import act, detached_values
from smac_lab.agent import SMAC
from smac_lab.batch import Batch, Info
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.validation import check_buffer
from smac_lab.encoder import kl_to_prior
from smac_lab.engine.acceleration import captured
from smac_lab.engine.meter import Meter, Metrics, check_counts
from smac_lab.interaction import collect_episodes, self_collect
from smac_lab.sampling import ContextFrom, sample_mixed
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks

REGULARISER = 1e-3  # of the actor's squared mean and log standard deviation, as in PEARL's code


def pearl_loss(agent: SMAC, batch: Batch, temperature: float | Tensor = 1.0) -> tuple[Tensor, Info]:
    """Compute PEARL's loss (Rakelly et al., ICML 2019, algorithm 1) as SMAC's authors ran it, with SMAC's parts.

    Critics and encoder: mean (r_scale r + gamma (1 - terminated) V(s', z) - Q_k(s, a, z))^2, summed over k, where
    V(s', z) = min_k Q_target_k(s', a', z) - alpha log pi(a'|s', z), a' ~ pi.
    Decoder and encoder: mean (r - r_hat(s, a, z))^2.
    Encoder: kl_weight sum_i KL(q(z|h_i) || p(z)), for any `kl_reduction`.
    Actor (soft actor-critic, with z detached): mean (alpha log pi(a|s, z) - min_k Q_k(s, a, z)) + 1e-3 mean mu^2 +
    1e-3 mean (log sigma)^2, a ~ pi, with the Gaussian N(mu, sigma^2) before the tanh.

    The authors' temperature alpha is 1; `reward_scale` weighs rewards against it. Means are over all transitions; those
    of mu and log sigma also over action dimensions.

    Two target critics replace the state-value network of PEARL's code (Haarnoja et al., 2018, arXiv 1812.05905).

    Args:
        agent: parts, and the config's `reward_scale`, `discount` and `kl_weight`, are read.
        batch: true, unscaled rewards.
        temperature: alpha.
    """
    assert batch.noise is not None
    c = agent.config
    posterior, z = agent.infer(batch)
    still = z.detach()

    with torch.no_grad():
        next_mean, next_log_std = agent.actor(batch.next_observations, still)
        next_actions, next_log_probs = act(next_mean, next_log_std, batch.noise.next_action)
        next_values = agent.target_critics(batch.next_observations, next_actions, still).amin(0)
        next_values = next_values - temperature * next_log_probs
        following = c.discount * (1.0 - batch.terminations) * next_values
        targets = c.reward_scale * batch.rewards + following
    values = agent.critics(batch.observations, batch.actions, z)  # (critic, task, batch)
    critic = (values - targets).square().mean((-2, -1)).sum()
    decoder = (agent.reward_decoder(batch.observations, batch.actions, z) - batch.rewards).square().mean()
    kl = kl_to_prior(posterior)  # (task,)

    mean, log_std = agent.actor(batch.observations, still)
    actions, log_probs = act(mean, log_std, batch.noise.action)
    actor = (
        temperature * log_probs - detached_values(agent.critics, batch.observations, actions, still).amin(0)
    ).mean()
    actor = actor + REGULARISER * (mean.square().mean() + log_std.square().mean())
    return critic + decoder + c.kl_weight * kl.sum() + actor, {
        "critic_loss": critic,
        "kl": kl.mean(),
        "actor_loss": actor,
        "reward_error": decoder,
        "q_mean": values.mean(),
        "entropy": -log_probs.mean(),
    }


def last_visit(config: SMACConfig, horizon: int) -> ContextFrom:
    """Return the source of PEARL's context: a task's latest exploration with z ~ p(z).

    At each visit to a task, SMAC's authors refill the encoder's buffer with 400 steps of such exploration: two
    episodes, here `exploration_episodes`. These are of one policy if `prior_episodes` is at least
    `exploration_episodes`. The transitions h' are drawn from all data.
    """
    return ContextFrom("explored", config.exploration_episodes * horizon)


def train_pearl(
    agent: SMAC,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    iterations: int,
    updates: int,
    initial_episodes: int = 10,
    log_every: int = 1,
    temperature: Callable[[int], float] = lambda iteration: 1.0,
) -> Iterator[tuple[int, Metrics]]:
    """Collect with true rewards and train on all data, iteration by iteration.

    An iteration collects as in `self_collect`. The encoder reads exploration alone (`last_visit`).

    Args:
        agent: updated in place.
        buffer: collected transitions are appended; with several seeds, made by `TransitionBuffer.join`. If a task has
            no exploration yet, all begin with `initial_episodes`.
        family, tasks: to interact with; `tasks[i]` is the buffer's task `i`. With several seeds, one set of tasks, or
            one per seed.
        iterations: from now on.
        updates: per iteration.
        initial_episodes: per task before the first iteration, with z ~ p(z).
        log_every: iterations between two yields.
        temperature: alpha of each iteration, counted from 1 on.

    Yields:
        Iterations made by this call so far, and metrics averaged since the last yield.

    Raises:
        ValueError: a buffer of another family, device or number of seeds.
        FloatingPointError: a metric is not finite.
    """
    check_counts(log_every, iterations=iterations, updates=updates, initial_episodes=initial_episodes)
    agent.check_spec(family.spec, "act in")
    check_buffer(agent, buffer, own=True)
    config = agent.config
    if int(buffer.counts_of("explored").min()) == 0:
        everyone = buffer.all_tasks(agent.generator)
        priors = [agent.prior(everyone.shape[-1])] * initial_episodes
        collect_episodes(agent, buffer, family, tasks, everyone, priors, initial_episodes, oracle=True)
    episodes = iterations * config.online_tasks * (config.prior_episodes + config.posterior_episodes)
    buffer.reserve(episodes * family.horizon)

    alpha = torch.ones((), device=agent.device)  # stays at one address, for a captured graph
    loss, context_from = partial(pearl_loss, agent, temperature=alpha), last_visit(config, family.horizon)
    learn = captured(agent, buffer, lambda: agent.update(sample_mixed(agent, buffer, context_from), loss=loss))
    meter = Meter()
    for iteration in range(1, iterations + 1):
        alpha.fill_(temperature(iteration))
        collected = self_collect(agent, buffer, family, tasks, oracle=True, context_from=context_from)
        for _ in range(updates):
            meter.add(learn())
        if iteration % log_every == 0 or iteration == iterations:
            yield iteration, {**meter.read(), **collected}
