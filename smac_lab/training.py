"""The two phases of meta-training, as generators: step through them, plot, pause, change your mind, stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.acceleration import captured
from smac_lab.actor_critic import Info
from smac_lab.agent import SMAC, Batch
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.collect import rollout
from smac_lab.data.store import Source
from smac_lab.encoder import Gaussian
from smac_lab.seeds import draw
from smac_lab.tasks.family import TaskFamily, Tasks

Metrics = dict[str, Any]  # name to float, or, with several seeds at once, to an array (seed,)


class ContextFrom(NamedTuple):
    """Which of a task's transitions its context is drawn from; see `TransitionBuffer.sample_context`."""

    source: Source = "all"
    last: int | None = None  # only from that many latest ones


EVERYTHING = ContextFrom()


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
        ValueError: a buffer of another family, on another device, or joined from another number of seeds.
        FloatingPointError: a metric is no longer finite.
    """
    steps = agent.config.offline_steps if steps is None else steps
    check_buffer(agent, buffer)
    learn = captured(agent, buffer, lambda: agent.update(sample_offline(agent, buffer), loss=agent.offline_loss))
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
    oracle: bool = False,
    log_every: int = 1,
) -> Iterator[tuple[int, Metrics]]:
    """Collect without rewards, label with the frozen decoder, train on the mixture; again and again.

    Args:
        agent: updated in place. `config.online_encoder` says what happens to its encoder meanwhile.
        buffer: self-collected transitions are appended to it; pass a `clone()` to keep the original.
        family, tasks: what to interact with; `tasks[i]` is the buffer's task `i`. With several seeds, the tasks of
            all of them or a list with the tasks of each; `buffer` is then made by `TransitionBuffer.join`.
        iterations: iterations from now on; default `config.online_iterations`.
        oracle: keep the true rewards of the new interaction instead of labelling it (with a self-labelled encoder,
            that one then learns from true rewards, too; the experiment's `oracle` arm freezes it, as the paper does).
        log_every: iterations between two yields.

    Yields:
        Number of iterations made here so far, and finite metrics averaged since the last yield.

    Raises:
        ValueError: another family than the agent's, or a buffer of one; a buffer on another device, or not of as many
            seeds.
        FloatingPointError: a metric is no longer finite.
    """
    config = agent.config
    iterations = config.online_iterations if iterations is None else iterations
    loss = agent.self_labelled_loss if config.online_encoder == "self-labelled" else agent.self_supervised_loss
    agent.check_spec(family.spec, "act in")
    check_buffer(agent, buffer)
    if agent.labeller is None:
        agent.freeze_labeller()
    if agent.seeds is not None and not buffer.seeds:
        raise ValueError(
            f"{len(agent.seeds)} seeds collect data of their own and need a buffer each: "
            f"TransitionBuffer.join([buffer] * {len(agent.seeds)})"
        )

    def update() -> Info:
        info = agent.update(sample_self_supervised(agent, buffer), loss=loss)
        if config.online_encoder == "offline":
            info |= agent.update(sample_offline(agent, buffer), loss=agent.inference_loss)
        return info

    episodes = iterations * config.online_tasks * (config.prior_episodes + config.posterior_episodes)
    buffer.reserve(episodes * family.horizon * (buffer.seeds or 1))
    learn, meter = captured(agent, buffer, update), Meter()
    for iteration in range(1, iterations + 1):
        collected = self_collect(agent, buffer, family, tasks, oracle)
        for _ in range(config.online_updates):
            meter.add(learn())
        if iteration % log_every == 0 or iteration == iterations:
            yield iteration, {**meter.read(), **collected}


def sample_offline(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """A meta-batch of truly labelled data: for each task, context h and, independently, transitions h'."""
    c = agent.config
    tasks = _draw_tasks(agent, buffer, c.meta_batch)
    context = buffer.sample_context(tasks, c.context_size, agent.generator, "offline")
    return _batch(agent, context, buffer, tasks, c.batch_size, "offline")


def sample_self_supervised(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """A meta-batch of the mixture: offline data truly labelled, self-collected data with decoded rewards.

    `config.online_context` says what the encoder reads. "mixed": transitions drawn from everything a task has
    (the authors' default). "separate": every other task of the meta-batch has context from offline data
    alone, the rest from self-collected data alone. "episodes": as separate, and self-collected context is
    what meta-test will show: successive whole episodes explored with z from the prior.
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
            buffer.sample_context(offline_tasks, size, generator, "offline"),
            buffer.sample_context(self_tasks, size, generator, source, consecutive=whole),
        ],
        dim=-3,
    )
    return _batch(agent, context, buffer, tasks, c.online_batch_size, "all")


def sample_mixed(agent: SMAC, buffer: TransitionBuffer, context_from: ContextFrom = EVERYTHING) -> Batch:
    """A meta-batch of what tasks have: context h from `context_from` and, independently, transitions h' from all."""
    c = agent.config
    tasks = _draw_tasks(agent, buffer, c.online_meta_batch)
    context = buffer.sample_context(tasks, c.context_size, agent.generator, context_from.source, last=context_from.last)
    return _batch(agent, context, buffer, tasks, c.online_batch_size, "all")


@torch.inference_mode()
def self_collect(
    agent: SMAC,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    oracle: bool,
    context_from: ContextFrom = EVERYTHING,
) -> Metrics:
    """One round of reward-free interaction, labelled and appended to the buffer.

    `online_tasks` tasks act `prior_episodes` episodes with z ~ p(z) and `posterior_episodes` with
    z ~ q(.|own data), from `context_from`. Unless `oracle`, the simulation never computes a reward.

    Returns:
        The mean of the rewards stored, and the number of transitions that a seed now has.
    """
    c, generator = agent.config, agent.generator
    ids = _draw_tasks(agent, buffer, c.online_tasks)  # (..., task), as everything from here on: ... is () or (seed,)
    contexts = buffer.sample_context(ids, c.label_context_size, generator, context_from.source, last=context_from.last)
    posterior, prior = agent.infer_posterior(contexts), agent.prior(ids.shape[-1])
    z = Gaussian(  # (..., episode * task, z_dim)
        torch.cat([prior.mean] * c.prior_episodes + [posterior.mean] * c.posterior_episodes, dim=-2),
        torch.cat([prior.std] * c.prior_episodes + [posterior.std] * c.posterior_episodes, dim=-2),
    )
    simulated = torch.cat([ids] * (c.prior_episodes + c.posterior_episodes), dim=-1)  # (..., episode * task)
    env = family.batch_env(_tasks_of(buffer, tasks, simulated), rewards=oracle)
    first = (draw(torch.rand, (*agent.seed_axis, 1), generator) * (2**31 - 1)).long()
    seeds = first + torch.arange(simulated.shape[-1], device=first.device)  # of each simulation
    episodes = rollout(agent.policy(z, generator, deterministic=False), env, seeds.flatten().tolist())

    rewards = episodes.rewards
    if not oracle:
        label_context = buffer.sample_context(simulated, c.label_context_size, generator, "offline")
        shape = (*simulated.shape, family.horizon, -1)
        observations = agent.tensor(episodes.observations).reshape(shape)
        actions = agent.tensor(episodes.actions).reshape(shape)
        rewards = agent.label(label_context, observations, actions).reshape(rewards.shape).cpu().numpy()
        episodes = episodes._replace(rewards=rewards)
    explored = ids.shape[-1] * c.prior_episodes
    each: list[Source] = ["explored" if row < explored else "self-collected" for row in range(simulated.shape[-1])]
    buffer.append_batch(simulated.flatten().tolist(), episodes._asdict(), each * (buffer.seeds or 1), episodes.valid)
    collected = agent.tensor(rewards).reshape(*agent.seed_axis, -1).mean(-1)
    stored = torch.zeros_like(collected) + len(buffer) / (buffer.seeds or 1)
    return {"collected_reward_mean": _number(collected), "buffer_transitions": _number(stored)}


def check_buffer(agent: SMAC, buffer: TransitionBuffer) -> None:
    """Raise ValueError unless the agent can learn from the buffer: family, device and seeds fit."""
    agent.check_spec(buffer.spec, "learn from a buffer of")
    if buffer.device.type != agent.device.type:
        raise ValueError(
            f"the buffer is on {buffer.device}, the agent on {agent.device}: buffer.to({agent.device.type!r})"
        )
    if buffer.seeds is not None and buffer.seeds != len(agent.seeds or ()):
        raise ValueError(f"a buffer of {buffer.seeds} seeds does not fit an agent with seed={agent.seed!r}")


def _batch(agent: SMAC, context: Tensor, buffer: TransitionBuffer, tasks: Tensor, size: int, source: Source) -> Batch:
    t = buffer.sample(tasks, size, agent.generator, source)
    return Batch(t.observations, t.actions, t.rewards, t.next_observations, t.terminations, context)


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
