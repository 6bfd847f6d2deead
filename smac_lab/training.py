"""The two phases of meta-training, as generators: step through them, plot, pause, change your mind, stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.arms import ARMS, OF_ENCODER, Arm, find_arm
from smac_lab.batch import Batch, Info
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.store import Source
from smac_lab.encoder import Gaussian
from smac_lab.engine.acceleration import captured
from smac_lab.engine.rollout import rollout
from smac_lab.engine.seeds import draw
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks

Metrics = dict[str, Any]  # name to float, or, with several seeds at once, to an array (seed,)


class ContextFrom(NamedTuple):
    """Which of a task's transitions its context is drawn from; see `TransitionBuffer.sample_context`."""

    source: Source
    last: int | None = None  # only from that many latest ones


def train_offline(
    agent: SMAC, buffer: TransitionBuffer, steps: int | None = None, log_every: int = 200
) -> Iterator[tuple[int, Metrics]]:
    """Meta-train on static, truly labelled data.

    Args:
        agent: updated in place.
        buffer: its offline transitions are sampled.
        steps: updates from now on; default `config.offline_steps`.
        log_every: updates between two yields.

    Yields:
        Number of updates made here so far, and finite metrics averaged since the last yield: floats, or with
        several seeds arrays `(seed,)`.

    Raises:
        ValueError: a buffer of another family, on another device, or joined from another number of seeds; fewer than 0
            steps, or a `log_every` below 1.
        FloatingPointError: a metric is no longer finite.
    """
    steps = agent.config.offline_steps if steps is None else steps
    check_counts(steps=steps, log_every=log_every)
    check_buffer(agent, buffer)
    agent.fit_observation_scaling(buffer)
    offline = agent.objectives["offline"]
    learn = captured(agent, buffer, lambda: agent.update(sample_offline(agent, buffer), offline))
    meter = Meter()
    for step in range(1, steps + 1):
        meter.add(learn())
        if step % log_every == 0 or step == steps:
            yield step, meter.read()


def train_self_supervised(
    agent: SMAC,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    iterations: int | None = None,
    arm: str | Arm | None = None,
    oracle: bool = False,
    log_every: int = 1,
) -> Iterator[tuple[int, Metrics]]:
    """Collect without rewards, label with the frozen decoder, train on the mixture; again and again.

    Args:
        agent: updated in place. What the arm changes in its config stays changed.
        buffer: self-collected transitions are appended to it; pass a `clone()` to keep the original.
        family, tasks: what to interact with; `tasks[i]` is the buffer's task `i`. With several seeds, the tasks of
            all of them or a list with the tasks of each; `buffer` is then made by `TransitionBuffer.join`.
        iterations: iterations from now on; default `config.online_iterations`.
        arm: which way to go on, a name from `ARMS` or an `Arm` of your own; default `config.online_encoder`.
        oracle: keep the true rewards of new interaction. Without an arm, as `arm="oracle"`; with one, that arm on true
            rewards.
        log_every: iterations between two yields.

    Yields:
        Number of iterations made here so far, and finite metrics averaged since the last yield.

    Raises:
        ValueError: an unknown arm; another family than the agent's, or a buffer of one; a buffer on another device,
            or not of as many seeds; fewer than 0 iterations, or a `log_every` below 1.
        FloatingPointError: a metric is no longer finite.
    """
    check_counts(iterations=agent.config.online_iterations if iterations is None else iterations, log_every=log_every)
    chosen = choose_arm(agent.config, arm, oracle)
    agent.check_spec(family.spec, "act in")
    check_buffer(agent, buffer, own=chosen.interacts)
    if chosen.changes:
        agent.config = dataclasses.replace(agent.config, **chosen.changes)
    config = agent.config
    iterations = config.online_iterations if iterations is None else iterations
    if chosen.interacts:
        begin_self_supervision(agent)
        episodes = iterations * config.online_tasks * (config.prior_episodes + config.posterior_episodes)
        buffer.reserve(episodes * family.horizon * (buffer.seeds or 1))
    learn, meter = captured(agent, buffer, _step_of(chosen, agent, buffer)), Meter()
    for iteration in range(1, iterations + 1):
        collected = self_collect(agent, buffer, family, tasks, chosen.true_rewards) if chosen.interacts else {}
        for _ in range(config.online_updates):
            meter.add(learn())
        if iteration % log_every == 0 or iteration == iterations:
            yield iteration, {**meter.read(), **collected}


def choose_arm(config: SMACConfig, arm: str | Arm | None, oracle: bool = False) -> Arm:
    """The arm that the arguments of `train_self_supervised` ask for.

    Raises:
        ValueError: there is no such arm.
    """
    if arm is None:
        return ARMS["oracle" if oracle else OF_ENCODER[config.online_encoder]]
    chosen = find_arm(arm) if isinstance(arm, str) else arm
    return chosen._replace(true_rewards=True) if oracle else chosen


def begin_self_supervision(agent: SMAC) -> None:
    """What happens once, where the phases change: the labeller is frozen, and Adam starts anew if it is to."""
    if agent.labeller is None:
        agent.freeze_labeller()
        if agent.config.optimizer_moments == "fresh":
            agent.forget_moments()


def _step_of(arm: Arm, agent: SMAC, buffer: TransitionBuffer) -> Callable[[], Info]:
    """One update of the arm."""
    objective = agent.objectives[arm.objective]
    sample = sample_self_supervised if arm.interacts else sample_offline

    def step() -> Info:
        info = agent.update(sample(agent, buffer), objective)
        if arm.and_then is not None:
            info |= agent.update(sample_offline(agent, buffer), agent.objectives[arm.and_then])
        return info

    return step


def sample_offline(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """A meta-batch of truly labelled data: for each task, context h and, independently, transitions h'.

    The context is exploration where the buffer has any, else offline transitions.
    """
    c = agent.config
    tasks = _draw_tasks(agent, buffer, c.meta_batch)
    context = buffer.sample_context(tasks, c.context_size, agent.generator, buffer.offline_context)
    return _batch(agent, context, buffer, tasks, c.batch_size, "offline")


def sample_self_supervised(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """A meta-batch of the mixture: offline data truly labelled, self-collected data with decoded rewards.

    `config.online_context` says what the encoder reads. "mixed": transitions drawn from everything that it may read of
    a task (the authors' way): exploration and prior-z episodes where there is exploration, else offline and
    self-collected transitions alike. "separate": half of the meta-batch's tasks have context from static data alone,
    the rest from self-collected data alone. "episodes": as separate, and self-collected context is what meta-test will
    show: successive whole episodes explored with z from the prior.
    """
    c, generator = agent.config, agent.generator
    if c.online_context == "mixed":
        return sample_mixed(agent, buffer)
    whole = c.online_context == "episodes"
    size = c.exploration_episodes * buffer.spec.horizon if whole else c.context_size
    source: Source = "explored" if whole else "self-collected"
    half = c.online_meta_batch // 2
    offline_tasks = _draw_tasks(agent, buffer, c.online_meta_batch - half)
    self_tasks = _draw_tasks_with(agent, buffer, source, half)  # not every task may have collected yet
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
    """A meta-batch of static and self-collected data: context h and, independently, transitions h'.

    Args:
        agent, buffer: as in `train_self_supervised`.
        context_from: where h comes from; default `buffer.mixed_context`.
    """
    c = agent.config
    source, last = context_from or ContextFrom(buffer.mixed_context)
    tasks = _draw_tasks(agent, buffer, c.online_meta_batch)
    context = buffer.sample_context(tasks, c.context_size, agent.generator, source, last=last)
    return _batch(agent, context, buffer, tasks, c.online_batch_size, "mixture")


@torch.inference_mode()
def self_collect(
    agent: SMAC,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    oracle: bool,
    context_from: ContextFrom | None = None,
) -> Metrics:
    """One round of reward-free interaction, labelled and appended to the buffer.

    `online_tasks` tasks act `prior_episodes` episodes with z ~ p(z) and `posterior_episodes` with
    z ~ q(.|own data). Unless `oracle`, the simulation never computes a reward.

    Args:
        agent, buffer, family, tasks: as in `train_self_supervised`.
        oracle: whether true rewards are stored in place of decoded ones.
        context_from: what q(.|own data) is inferred from; default `buffer.mixed_context`.

    Returns:
        The mean of the rewards stored, and the number of transitions that a seed now has.
    """
    c = agent.config
    ids = _draw_tasks(agent, buffer, c.online_tasks)  # (..., task), as everything from here on: ... is () or (seed,)
    source, last = context_from or ContextFrom(buffer.mixed_context)
    priors = [agent.prior(ids.shape[-1])] * c.prior_episodes

    def posterior() -> Gaussian:
        context = buffer.sample_context(ids, c.label_context_size, agent.generator, source, last=last)
        return agent.infer_posterior(context)

    # Side by side where the posterior is inferred once, and one after the other where each has seen those before.
    if c.collecting_posterior == "iteration":
        posteriors = [posterior()] * c.posterior_episodes if c.posterior_episodes else []
        rewards = [collect_episodes(agent, buffer, family, tasks, ids, [*priors, *posteriors], len(priors), oracle)]
    else:
        rewards = [collect_episodes(agent, buffer, family, tasks, ids, priors, len(priors), oracle)] if priors else []
        for _ in range(c.posterior_episodes):
            rewards.append(collect_episodes(agent, buffer, family, tasks, ids, [posterior()], 0, oracle))

    collected = torch.cat(rewards, dim=-1).mean(-1)  # (...)
    stored = torch.zeros_like(collected) + len(buffer) / (buffer.seeds or 1)
    return {"collected_reward_mean": _number(collected), "buffer_transitions": _number(stored)}


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
    """An episode of each task `ids` for each of `beliefs` about z, of which the first `n_prior` are the prior.

    Returns:
        The rewards stored, `(..., time)`.
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


def check_counts(log_every: int, **counts: int) -> None:
    """Raise ValueError if there are to be fewer than 0 of something, or something every 0 of them."""
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name}={count} is not allowed: at least 0")
    if log_every < 1:
        raise ValueError(f"log_every={log_every} is not allowed: at least 1")


def check_buffer(agent: SMAC, buffer: TransitionBuffer, own: bool = False) -> None:
    """Raise ValueError unless the agent can learn from the buffer: family, device and seeds fit.

    Args:
        agent, buffer: what is to learn, and from what.
        own: several seeds need a buffer each, as they will append to it.
    """
    agent.check_spec(buffer.spec, "learn from a buffer of")
    if buffer.device.type != agent.device.type:
        raise ValueError(
            f"the buffer is on {buffer.device}, the agent on {agent.device}: buffer.to({agent.device.type!r})"
        )
    if buffer.seeds is not None and buffer.seeds != len(agent.seeds or ()):
        raise ValueError(f"a buffer of {buffer.seeds} seeds does not fit an agent with seed={agent.seed!r}")
    if own and agent.seeds is not None and not buffer.seeds:
        raise ValueError(
            f"{len(agent.seeds)} seeds collect data of their own and need a buffer each: "
            f"TransitionBuffer.join([buffer] * {len(agent.seeds)})"
        )


def _batch(agent: SMAC, context: Tensor, buffer: TransitionBuffer, tasks: Tensor, size: int, source: Source) -> Batch:
    t = buffer.sample(tasks, size, agent.generator, source)
    return Batch(t.observations, t.actions, t.rewards, t.next_observations, t.terminations, context)


def all_tasks(agent: SMAC, buffer: TransitionBuffer) -> Tensor:
    """Every task of the buffer, `(task,)`; with several seeds `(seed, task)`."""
    each = torch.arange(buffer.n_tasks // (buffer.seeds or 1), device=buffer.device)
    return each.expand(*agent.seed_axis, -1) + _first_task(buffer)


def _draw_tasks(agent: SMAC, buffer: TransitionBuffer, size: int) -> Tensor:
    """`size` different tasks (all of them where there are fewer), `(task,)`; with several seeds `(seed, task)`."""
    each = buffer.n_tasks // (buffer.seeds or 1)
    order = draw(torch.rand, (*agent.seed_axis, each), agent.generator).argsort(-1)
    return order[..., :size] + _first_task(buffer)


def _draw_tasks_with(agent: SMAC, buffer: TransitionBuffer, source: Source, size: int) -> Tensor:
    """`size` tasks, with replacement, among those that have transitions of this source; shapes as `_draw_tasks`.

    Without a look at the numbers, so that the device is not waited for.
    """
    each = buffer.n_tasks // (buffer.seeds or 1)
    has = (buffer.counts_of(source) > 0).reshape(*([buffer.seeds] if buffer.seeds else []), each)
    place = has.cumsum(-1).to(torch.float32)  # how many tasks up to this one have some
    place = place.expand(*agent.seed_axis, -1)
    chosen = (draw(torch.rand, (*agent.seed_axis, size), agent.generator) * place[..., -1:]).floor()
    found = torch.searchsorted(place.contiguous(), chosen, right=True)
    return found.clamp(max=each - 1) + _first_task(buffer)


def _first_task(buffer: TransitionBuffer) -> Tensor | int:
    """Index of each seed's first task in the buffer, `(seed, 1)`; 0 where seeds share the buffer."""
    if not buffer.seeds:
        return 0
    return torch.arange(0, buffer.n_tasks, buffer.n_tasks // buffer.seeds, device=buffer.device).unsqueeze(1)


def _tasks_of(buffer: TransitionBuffer, tasks: Tasks | Sequence[Tasks], ids: Tensor) -> Tasks:
    """Parameters of the buffer's tasks `ids`, in a row."""
    index = ids.flatten().cpu().numpy()
    if isinstance(tasks, Tasks):  # every seed has the same
        return tasks[index % (buffer.n_tasks // (buffer.seeds or 1))]
    return Tasks(np.concatenate([one.values for one in tasks]))[index]


def metrics_of_each(agent: SMAC, metrics: Metrics) -> list[Metrics]:
    """Metrics of each seed of the agent, as floats."""
    if agent.seeds is None:
        return [metrics]
    return [{name: float(value[index]) for name, value in metrics.items()} for index in range(len(agent.seeds))]


def _number(value: Tensor) -> Any:
    return value.cpu().numpy() if value.ndim else float(value)


class Meter:
    """Averages info tensors on the device; only reading waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], Tensor] = {}  # of what came together, (name, ...)
        self.counts: dict[tuple[str, ...], int] = {}

    def add(self, info: Info) -> None:
        """Take in what one update said."""
        names, values = tuple(info), torch.stack(list(info.values()))
        self.sums[names] = self.sums[names] + values if names in self.sums else values
        self.counts[names] = self.counts.get(names, 0) + 1

    def read(self) -> Metrics:
        """Averages since the last reading: a float, or with several seeds an array `(seed,)`.

        Raises:
            FloatingPointError: a metric is no longer finite; the message names it.
        """
        metrics: Metrics = {}
        for names, sums in self.sums.items():
            means = (sums / self.counts[names]).cpu()
            metrics.update({name: _number(mean) for name, mean in zip(names, means, strict=True)})
        self.sums, self.counts = {}, {}
        if bad := {name: value for name, value in metrics.items() if not np.isfinite(value).all()}:
            raise FloatingPointError(
                f"training diverged: {bad}. Lower learning_rate or raise awac_lambda, or look at the data."
            )
        return metrics
