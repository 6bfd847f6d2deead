"""The two phases of meta-training, as generators."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from smac_lab.agent import SMAC
from smac_lab.arms import Arm, choose_arm
from smac_lab.batch import Info
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.validation import check_buffer
from smac_lab.engine.acceleration import captured
from smac_lab.engine.meter import Meter, Metrics, check_counts, metered
from smac_lab.interaction import self_collect
from smac_lab.sampling import sample_offline, sample_self_supervised
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks


def train_offline(
    agent: SMAC, buffer: TransitionBuffer, steps: int | None = None, log_every: int = 200
) -> Iterator[tuple[int, Metrics]]:
    """Meta-train on static, truly rewarded data.

    Args:
        agent: updated in place.
        buffer: its offline transitions are sampled.
        steps: updates from now on; default `config.offline_steps`.
        log_every: updates between two yields.

    Yields:
        Updates made by this call so far, and metrics averaged since the last yield: floats, or with several seeds
        arrays `(seed,)`.

    Raises:
        ValueError: a buffer of another family, device or number of seeds; fewer than 0 steps, or a `log_every` below 1.
        FloatingPointError: a metric is not finite.

    Example:
        >>> import smac_lab as lab
        >>> family = lab.make_family("point-robot")
        >>> buffer, tasks = lab.starter_data(family)
        >>> agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), family.spec)
        >>> for step, metrics in lab.train_offline(agent, buffer, steps=3, log_every=2):
        ...     print(step, metrics["critic_loss"] > 0)
        2 True
        3 True
    """
    steps = agent.config.offline_steps if steps is None else steps
    check_counts(steps=steps, log_every=log_every)
    check_buffer(agent, buffer)
    agent.fit_observation_scaling(buffer)
    offline = agent.objectives["offline"]
    learn = captured(agent, buffer, lambda: agent.update(sample_offline(agent, buffer), offline))
    yield from metered(learn, steps, log_every)


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
    """Collect without rewards, label with the frozen decoder and train on the mixture.

    Args:
        agent: updated in place, with the arm's changes of its config.
        buffer: self-collected transitions are appended; pass a `clone()` to keep the original.
        family, tasks: to interact with; `tasks[i]` is the buffer's task `i`. With several seeds, one set of tasks, or
            one per seed, and a buffer from `TransitionBuffer.join`.
        iterations: from now on; default `config.online_iterations`.
        arm: a name from `ARMS`, or a custom `Arm`; default: by `config.online_encoder`.
        oracle: keep the true rewards of new interaction: in `arm`, or without it as `arm="oracle"`.
        log_every: iterations between two yields.

    Yields:
        Iterations made by this call so far, and metrics averaged since the last yield.

    Raises:
        ValueError: an unknown arm; a family or buffer that does not fit the agent, as in `train_offline`; fewer than 0
            iterations, or a `log_every` below 1.
        FloatingPointError: a metric is not finite.

    Example:
        >>> import dataclasses, smac_lab as lab
        >>> family = lab.make_family("point-robot")
        >>> buffer, tasks = lab.starter_data(family)
        >>> config = dataclasses.replace(lab.SMACConfig.preset("point-robot", "smoke"), online_updates=2)
        >>> agent, before = lab.SMAC(config, family.spec), len(buffer)
        >>> for iteration, metrics in lab.train_self_supervised(agent, buffer, family, tasks, iterations=1):
        ...     print(iteration, len(buffer) > before)
        1 True
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
        buffer.reserve(episodes * family.horizon)
    learn, meter = captured(agent, buffer, _step_of(chosen, agent, buffer)), Meter()
    for iteration in range(1, iterations + 1):
        collected = self_collect(agent, buffer, family, tasks, chosen.true_rewards) if chosen.interacts else {}
        for _ in range(config.online_updates):
            meter.add(learn())
        if iteration % log_every == 0 or iteration == iterations:
            yield iteration, {**meter.read(), **collected}


def begin_self_supervision(agent: SMAC) -> None:
    """Freeze the labeller and, if `optimizer_moments` is "fresh", restart Adam; once only."""
    if agent.labeller is None:
        agent.freeze_labeller()
        if agent.config.optimizer_moments == "fresh":
            agent.forget_moments()


def _step_of(arm: Arm, agent: SMAC, buffer: TransitionBuffer) -> Callable[[], Info]:
    objective = agent.objectives[arm.objective]
    sample = sample_self_supervised if arm.interacts else sample_offline

    def step() -> Info:
        info = agent.update(sample(agent, buffer), objective)
        if arm.and_then is not None:
            info |= agent.update(sample_offline(agent, buffer), agent.objectives[arm.and_then])
        return info

    return step
