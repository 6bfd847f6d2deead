"""Diagnosis of the gap between offline and self-collected context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.adaptation import context_of, evaluate
from smac_lab.agent import SMAC
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.encoder import Gaussian
from smac_lab.engine.rollout import Episodes, Policy, near_random_policy, rollout
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks


class Finding(NamedTuple):
    """One experiment on one link of meta-test."""

    link: str  # posterior, exploration, context sampling, labels or critic
    experiment: str
    value: float
    unit: str


@torch.inference_mode()
def diagnose(
    agent: SMAC, family: TaskFamily, tasks: Tasks, buffer: TransitionBuffer, *, seed: int = 0
) -> list[Finding]:
    """Replace one link of meta-test at a time and measure the return.

    The chain is: explore with z ~ p(z) -> take all transitions as context -> infer z -> act. The first two findings are
    the returns given offline and given self-collected context. Each further context differs from one of these two in
    one respect. The return is lost in the link whose replacement lowers it.

    Args:
        agent: trained; not changed.
        family, tasks: training tasks; `tasks[i]` is the buffer's task `i`.
        buffer: offline and self-collected transitions.
        seed: of simulations and draws.

    Returns:
        Findings in the order of the chain; returns are means over tasks and repeats.
    """
    repeats, horizon = agent.config.repeats, family.horizon
    n = agent.config.exploration_episodes * horizon
    generator = torch.Generator(agent.device).manual_seed(seed)
    ids = torch.arange(len(tasks)).repeat_interleave(repeats)
    env = family.batch_env(tasks.repeat(repeats))

    def act(posterior: Gaussian) -> Episodes:
        return rollout(agent.policy(posterior, generator), env, seed=seed + 31)

    def return_given(context: Tensor) -> float:
        return float(act(agent.infer_posterior(context)).returns.mean())

    def explore(policy_of_episode: list[Policy]) -> Tensor:
        runs = [rollout(policy, env, seed=seed + 1_009 * (i + 1)) for i, policy in enumerate(policy_of_episode)]
        return torch.cat([context_of(agent, run) for run in runs], dim=1)

    draws = lambda k, **kind: buffer.sample_context(ids, k, generator, buffer.offline_context, **kind)  # noqa: E731
    offline = agent.infer_posterior(draws(n))
    tested = evaluate(agent, family, tasks, seed=seed)
    seen = tested.contexts.flatten(0, 1)  # (task * repeat, n, context_dim)
    some = torch.randint(n, (len(seen), min(n, agent.config.context_size)), generator=generator, device=seen.device)
    rng = np.random.default_rng(seed)
    episodes = agent.config.exploration_episodes
    informed = explore([agent.policy(offline, generator) for _ in range(episodes)])
    random = explore([near_random_policy(family.action_dim, rng) for _ in range(episodes)])

    unit = "return"
    findings = [
        Finding("both ends", f"offline context, {n} transitions drawn at random", return_given(draws(n)), unit),
        Finding("both ends", "self-collected context (meta-test)", float(tested.final_returns.mean()), unit),
        Finding(
            "context sampling",
            f"offline context, {episodes} whole successive episodes",
            return_given(draws(n, consecutive=True)),
            unit,
        ),
        Finding(
            "context sampling",
            f"self-collected context, {some.shape[1]} of its transitions drawn at random",
            return_given(seen.gather(1, some.unsqueeze(-1).expand(-1, -1, seen.shape[-1]))),
            unit,
        ),
        Finding("exploration", "context from new near-random episodes instead of z ~ p(z)", return_given(random), unit),
        Finding("posterior", "context from episodes that already pursue the task", return_given(informed), unit),
    ]
    acted = act(offline)
    findings += _label_errors(agent, family, tasks, buffer, acted, generator)
    correlation = _q_correlation(agent, acted, offline)
    findings.append(Finding("critic", "correlation of Q with the discounted return from there", correlation, "r"))
    return findings


def _label_errors(
    agent: SMAC, family: TaskFamily, tasks: Tasks, buffer: TransitionBuffer, acted: Episodes, generator: torch.Generator
) -> list[Finding]:
    """Measure the rms error of decoded rewards; z_label is the mean of q(.|offline context)."""
    labeller = agent.labeller or agent.parts
    task = torch.arange(len(tasks))
    size = min(256, int(buffer.counts.min()))

    def labels(ids: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        context = buffer.sample_context(ids, agent.config.label_context_size, generator, buffer.offline_context)
        q = Gaussian(*labeller["encoder"](context))
        z = q.mean.unsqueeze(1).expand(-1, observations.shape[1], -1)
        return labeller["reward_decoder"](observations, actions, z)

    offline = buffer.sample(task, size, generator, "offline")
    on_offline = labels(task, offline.observations, offline.actions) - offline.rewards
    ids = torch.arange(len(tasks)).repeat_interleave(len(acted.rewards) // len(tasks))
    decoded = labels(ids, agent.tensor(acted.observations), agent.tensor(acted.actions))
    on_policy = decoded - agent.tensor(acted.rewards)
    rms = lambda error: float(error.square().mean().sqrt())  # noqa: E731
    spread = float(agent.tensor(acted.rewards).std())
    return [
        Finding("labels", "error of decoded rewards on offline transitions", rms(on_offline), "reward, rms"),
        Finding("labels", "error of decoded rewards where the policy goes", rms(on_policy), "reward, rms"),
        Finding("labels", "spread of true rewards there, to compare", spread, "reward, sd"),
    ]


def _q_correlation(agent: SMAC, acted: Episodes, posterior: Gaussian) -> float:
    """Correlate min_k Q_k(s_t, a_t, z) with sum_k gamma^k r_(t+k).

    Only first halves of episodes are used.
    """
    rewards = acted.rewards
    to_go = np.zeros_like(rewards)
    running = np.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] + agent.config.discount * running * ~acted.terminations[:, t]
        to_go[:, t] = running
    half = rewards.shape[1] // 2
    observations, actions = (agent.tensor(x[:, :half]) for x in (acted.observations, acted.actions))
    z = posterior.mean.unsqueeze(1).expand(-1, half, -1)
    values = agent.critics(observations, actions, z).amin(0).cpu().numpy()
    return float(np.corrcoef(values.ravel(), to_go[:, :half].ravel())[0, 1])
