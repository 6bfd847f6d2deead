"""How fast it is: every figure a ratio of two things measured side by side in the same run, interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from smac_lab.agent import SMAC
from smac_lab.config import SMACConfig
from smac_lab.data.collect import collect_behaviour, rollout
from smac_lab.tasks import make_family
from smac_lab.tasks.family import MujocoFamily, TaskFamily, Tasks
from smac_lab.training import sample_offline


class Ratio(NamedTuple):
    """`ours` against `limit`, in units a second; ratios of each round, as the machine's speed drifts."""

    name: str
    unit: str
    ours: float  # median over rounds
    limit: float
    ratio: float  # median of the rounds' ratios
    low: float  # least and greatest of them
    high: float


def compare(
    name: str, unit: str, amount: float, ours: Callable[[], object], limit: Callable[[], object], rounds: int = 9
) -> Ratio:
    """Time two callables in turn, `rounds` times each after a warm-up; `amount` units are done in one call."""
    ours(), limit()
    rates = np.empty((rounds, 2))
    for i in range(rounds):
        for j, call in enumerate((ours, limit)):
            began = time.perf_counter()
            call()
            rates[i, j] = amount / (time.perf_counter() - began)
    ratios = rates[:, 0] / rates[:, 1]
    mid = np.median(rates, axis=0)
    return Ratio(
        name, unit, float(mid[0]), float(mid[1]), float(np.median(ratios)), float(ratios.min()), float(ratios.max())
    )


def simulation(family_name: str, simulations: int = 128, steps: int = 50) -> Ratio:
    """`BatchEnv.step` against the same `mujoco.batch.Batch` stepped bare, random actions."""
    from mujoco.batch import Batch

    family = make_family(family_name)
    assert isinstance(family, MujocoFamily)
    rng = np.random.default_rng(0)
    env = family.batch_env(Tasks(family.sample_tasks(rng, simulations)))
    env.reset(seed=0)
    bare = Batch(family.model, nsim=simulations, nthread=torch.get_num_threads())
    control = bare.bind("ctrl")
    if "cfrc_ext" in family.state_fields:
        bare.bind("cfrc_ext")
    actions = rng.uniform(-1, 1, (steps, simulations, family.action_dim))
    stage = env.simulation.engine.stage

    def limit() -> None:
        for action in actions:
            control[:] = action
            bare.step(nstep=family.frame_skip, stage=stage)

    def ours() -> None:
        for action in actions:
            env.step(action)

    return compare(f"BatchEnv.step, {family_name}", "control steps", simulations * steps, ours, limit)


def collection(family_name: str, simulations: int = 128) -> Ratio:
    """`rollout` with the actor in the loop against the bare simulation of as many steps."""
    from mujoco.batch import Batch

    family = make_family(family_name)
    assert isinstance(family, MujocoFamily)
    agent = SMAC(SMACConfig(device="cpu"), family.spec)
    env = family.batch_env(Tasks(family.sample_tasks(np.random.default_rng(0), simulations)))
    bare = Batch(family.model, nsim=simulations, nthread=torch.get_num_threads())
    policy = agent.policy(agent.prior(simulations), torch.Generator().manual_seed(0), deterministic=False)

    def limit() -> None:
        for _ in range(family.horizon):
            bare.step(nstep=family.frame_skip)

    amount = simulations * family.horizon
    return compare(
        f"rollout with actor, {family_name}", "control steps", amount, lambda: rollout(policy, env, 0), limit
    )


def update(meta_batch: int = 4, batch_size: int = 128, updates: int = 10) -> Ratio:
    """One offline update at the paper's size against dense products of as many floating-point operations."""
    family: TaskFamily = make_family("cheetah-vel")
    config = SMACConfig(n_train_tasks=8, meta_batch=meta_batch, batch_size=batch_size, device="cpu")
    tasks, _ = family.split(8, 1, 0)
    buffer = collect_behaviour(family, tasks, config, 0)
    agent = SMAC(config, family.spec)
    batch = sample_offline(agent, buffer)
    with FlopCounterMode(display=False) as counter:
        agent.update(batch)
    operations = counter.get_total_flops()
    left, right = torch.randn(meta_batch * batch_size, 300), torch.randn(300, 300)
    products = max(1, round(updates * operations / (2 * left.shape[0] * 300 * 300)))

    def ours() -> None:
        for _ in range(updates):
            agent.update(sample_offline(agent, buffer))

    def limit() -> None:
        for _ in range(products):
            torch.mm(left, right)

    return compare(f"update, {meta_batch} x {batch_size}", "updates", updates, ours, limit)
