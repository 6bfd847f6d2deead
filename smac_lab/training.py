"""The two phases of meta-training, as generators: step through them, plot, pause, change your mind, stop."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from smac_lab.actor_critic import Info
from smac_lab.agent import SMAC, Batch
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.collect import rollout
from smac_lab.data.store import Source
from smac_lab.encoder import Gaussian
from smac_lab.tasks.family import TaskFamily, Tasks

Metrics = dict[str, float]


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
        Number of updates made here so far, and finite metrics averaged since the last yield.
    """
    steps = agent.config.offline_steps if steps is None else steps
    meter = _Meter()
    for step in range(1, steps + 1):
        meter.add(agent.update(sample_offline(agent, buffer), loss=agent.offline_loss))
        if step % log_every == 0 or step == steps:
            yield step, meter.read()


def train_self_supervised(
    agent: SMAC,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks,
    iterations: int | None = None,
    oracle: bool = False,
    log_every: int = 1,
) -> Iterator[tuple[int, Metrics]]:
    """Collect without rewards, label with the frozen decoder, train on the mixture; again and again.

    Args:
        agent: updated in place. `config.online_encoder` says what happens to its encoder meanwhile.
        buffer: self-collected transitions are appended to it; pass a `clone()` to keep the original.
        family, tasks: what to interact with; `tasks[i]` is the buffer's task `i`.
        iterations: iterations from now on; default `config.online_iterations`.
        oracle: keep the true rewards of the new interaction instead of labelling it (with a self-labelled encoder,
            that one then learns from true rewards, too; the experiment's `oracle` arm freezes it, as the paper does).
        log_every: iterations between two yields.

    Yields:
        Number of iterations made here so far, and finite metrics averaged since the last yield.
    """
    config = agent.config
    iterations = config.online_iterations if iterations is None else iterations
    loss = agent.self_labelled_loss if config.online_encoder == "self-labelled" else agent.self_supervised_loss
    if agent.labeller is None:
        agent.freeze_labeller()
    meter = _Meter()
    for iteration in range(1, iterations + 1):
        collected = self_collect(agent, buffer, family, tasks, oracle)
        for _ in range(config.online_updates):
            meter.add(agent.update(sample_self_supervised(agent, buffer), loss=loss))
            if config.online_encoder == "offline":
                meter.add(agent.update(sample_offline(agent, buffer), loss=agent.inference_loss))
        if iteration % log_every == 0 or iteration == iterations:
            yield iteration, {**meter.read(), **collected}


def sample_offline(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """A meta-batch of truly labelled data: for each task, context h and, independently, transitions h'."""
    c, generator = agent.config, agent.generator
    tasks = _draw_tasks(buffer.n_tasks, c.meta_batch, generator)
    context = buffer.sample_context(tasks, c.context_size, generator, "offline")
    return _batch(context, buffer, tasks, c.batch_size, generator, "offline")


def sample_self_supervised(agent: SMAC, buffer: TransitionBuffer) -> Batch:
    """A meta-batch of the mixture: offline data truly labelled, self-collected data with decoded rewards.

    `config.online_context` says what the encoder reads. "mixed": transitions drawn from everything a task has
    (the authors' default). "separate": every other task of the meta-batch has context from offline data
    alone, the rest from self-collected data alone. "episodes": as separate, and self-collected context is
    what meta-test will show: successive whole episodes explored with z from the prior.
    """
    c, generator = agent.config, agent.generator
    if c.online_context == "mixed":
        tasks = _draw_tasks(buffer.n_tasks, c.online_meta_batch, generator)
        context = buffer.sample_context(tasks, c.context_size, generator, "all")
    else:
        whole = c.online_context == "episodes"
        size = c.exploration_episodes * buffer.spec.horizon if whole else c.context_size
        source: Source = "explored" if whole else "self-collected"
        half = c.online_meta_batch // 2
        offline_tasks = _draw_tasks(buffer.n_tasks, c.online_meta_batch - half, generator)
        seen = buffer.tasks_with(source)  # not every task may have collected yet
        self_tasks = seen[torch.randint(len(seen), (half,), generator=generator, device=generator.device)]
        tasks = torch.cat([offline_tasks, self_tasks])
        context = torch.cat(
            [
                buffer.sample_context(offline_tasks, size, generator, "offline"),
                buffer.sample_context(self_tasks, size, generator, source, consecutive=whole),
            ]
        )
    return _batch(context, buffer, tasks, c.online_batch_size, generator, "all")


@torch.inference_mode()
def self_collect(agent: SMAC, buffer: TransitionBuffer, family: TaskFamily, tasks: Tasks, oracle: bool) -> Metrics:
    """One round of reward-free interaction, labelled and appended to the buffer.

    `online_tasks` tasks act `prior_episodes` episodes with z ~ p(z) and `posterior_episodes` with
    z ~ q(.|own data). Unless `oracle`, the simulation never computes a reward.
    """
    c, generator = agent.config, agent.generator
    ids = _draw_tasks(buffer.n_tasks, c.online_tasks, generator)
    contexts = buffer.sample_context(ids, c.label_context_size, generator, "all")
    posterior, prior = agent.infer_posterior(contexts), agent.prior(len(ids))
    z = Gaussian(  # (task * episode, z_dim)
        torch.cat([prior.mean] * c.prior_episodes + [posterior.mean] * c.posterior_episodes),
        torch.cat([prior.std] * c.prior_episodes + [posterior.std] * c.posterior_episodes),
    )
    episodes_per_task = c.prior_episodes + c.posterior_episodes
    simulated = ids.repeat(episodes_per_task)
    env = family.batch_env(tasks[simulated.cpu().numpy()], rewards=oracle)
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=agent.device))
    episodes = rollout(agent.policy(z, generator, deterministic=False), env, seed)

    rewards = episodes.rewards
    if not oracle:
        label_context = buffer.sample_context(simulated, c.label_context_size, generator, "offline")
        observations, actions = agent.tensor(episodes.observations), agent.tensor(episodes.actions)
        labels = agent.label(label_context, observations, actions)
        rewards = labels.cpu().numpy()
        episodes = episodes._replace(rewards=rewards)
    explored = len(ids) * c.prior_episodes
    sources: list[Source] = ["explored" if row < explored else "self-collected" for row in range(len(simulated))]
    buffer.append_batch(simulated.tolist(), episodes._asdict(), sources, episodes.valid)
    return {"collected_reward_mean": float(rewards.mean()), "buffer_transitions": float(len(buffer))}


def _batch(
    context: Tensor, buffer: TransitionBuffer, tasks: Tensor, size: int, generator: torch.Generator, source: Source
) -> Batch:
    t = buffer.sample(tasks, size, generator, source)
    return Batch(t.observations, t.actions, t.rewards, t.next_observations, t.terminations, context)


def _draw_tasks(n_tasks: int, size: int, generator: torch.Generator) -> Tensor:
    """Indices of `size` different tasks (all of them where there are fewer)."""
    return torch.randperm(n_tasks, generator=generator, device=generator.device)[:size]


class _Meter:
    """Averages info tensors on the device; only reading waits for the device."""

    def __init__(self) -> None:
        self.sums: Info = {}
        self.counts: dict[str, int] = {}

    def add(self, info: Info) -> None:
        for name, value in info.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> Metrics:
        """Averages since the last reading.

        Raises:
            FloatingPointError: a metric is no longer finite; the message names it.
        """
        metrics = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        bad = {name: value for name, value in metrics.items() if not torch.isfinite(torch.tensor(value))}
        if bad:
            raise FloatingPointError(
                f"training diverged: {bad}. Lower learning_rate or raise awac_lambda, or look at the data."
            )
        return metrics
