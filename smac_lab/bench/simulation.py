"""Speed of simulations relative to the bare engine and to gymnasium."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from smac_lab.adaptation import evaluate
from smac_lab.agent import SMAC
from smac_lab.bench.race import Call, Effort, Ratio, against, at_least, at_most, race, repeat
from smac_lab.config import SMACConfig
from smac_lab.engine.rollout import rollout
from smac_lab.tasks import make_family
from smac_lab.tasks.family import MujocoFamily, _load_mujoco
from smac_lab.tasks.simulation import BatchEnv
from smac_lab.tasks.spec import Array, Tasks

Vector = gym.vector.VectorEnv[Any, Any, Any]
BARE = "bare mujoco.batch.Batch"
# gymnasium's environment, and target share of the bare engine's speed
BODIES = {"cheetah-vel": ("HalfCheetah-v5", 0.92), "ant-dir": ("Ant-v5", 0.85)}


class Bare:
    """The bare simulations of a `BatchEnv`: same body, states, actions, stage and threads."""

    def __init__(self, env: BatchEnv):
        from mujoco.batch import Batch

        family, self.env = env.family, env
        assert isinstance(family, MujocoFamily)
        self.batch = Batch(family.model, nsim=env.num_envs, nthread=torch.get_num_threads())
        names = dict.fromkeys(("qpos", "qvel", *family.state_fields))
        self.state = {name: self.batch.bind(name) for name in names}
        self.control = self.batch.bind("ctrl")
        self.frame_skip, self.stage = family.frame_skip, env.simulation.engine.stage

    def restart(self) -> None:
        """Reset `env`, and copy its initial states."""
        self.env.reset(seed=0)
        self.batch.reset()
        for name in ("qpos", "qvel"):
            self.state[name][:] = getattr(self.env.simulation.state, name)

    def step(self, actions: Array) -> None:
        """Make the control steps of `actions`, `(step, simulation, action_dim)`."""
        for action in actions:
            self.control[:] = action
            self.batch.step(nstep=self.frame_skip, stage=self.stage)


def make_body(name: str) -> gym.Env[Any, Any]:
    """Make one of gymnasium's MuJoCo environments, also without imageio."""
    try:
        import imageio  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:  # gymnasium's module imports imageio
        sys.modules["imageio"] = types.ModuleType("imageio")
        try:
            importlib.import_module("gymnasium.envs.mujoco.mujoco_rendering")
        finally:
            del sys.modules["imageio"]
    if multiprocessing.parent_process() is not None:  # workers ignore Ctrl-C: the parent ends them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = _load_mujoco().MjLogConfig.get()
    log.logto_console = False  # each HalfCheetah-v5 logs a deprecation warning
    log.set()
    try:
        return gym.make(name)
    finally:
        log.logto_console = True
        log.set()


def make_env(family_name: str, simulations: int) -> BatchEnv:
    """Make an environment of random tasks."""
    family = make_family(family_name)
    return family.batch_env(Tasks(family.sample_tasks(np.random.default_rng(0), simulations)))


def paper_agent(env: BatchEnv) -> SMAC:
    """Make an untrained agent with the paper's networks."""
    return SMAC(SMACConfig(device="cpu"), env.family.spec)


def simulation(family_name: str, effort: Effort, processes: tuple[int, ...] = ()) -> Iterator[Ratio]:
    """Race `BatchEnv.step` against its `mujoco.batch.Batch` and gymnasium's vector environments.

    All take random actions from initial states. `AsyncVectorEnv` has one process per environment, with each number in
    `processes`, by default four per core; they are idle during other timings.
    """
    body, share = BODIES[family_name]
    n, steps = effort.simulations, effort.steps
    with ExitStack() as stack:
        vectors: list[tuple[str, float, Vector]] = []
        for count in processes or (4 * (os.cpu_count() or 1),):
            many = AsyncVectorEnv([functools.partial(make_body, body)] * count)
            stack.callback(many.close, terminate=True)
            vectors.append((f"AsyncVectorEnv, {body}, {count} processes", 8.0, many))
        one = SyncVectorEnv([functools.partial(make_body, body)] * n)
        stack.callback(one.close)
        vectors.append((f"SyncVectorEnv, {body}, {n} environments", 2.0, one))

        env = make_env(family_name, n)
        bare = Bare(env)
        actions = random_actions(env, steps)
        calls = [
            vector_call(env, actions),
            Call(lambda: bare.step(actions), n * steps, bare.restart),
        ]
        for _, _, vector in vectors:
            calls.append(vector_call(vector, random_actions(vector, steps)))
        rates = race(f"BatchEnv.step, {family_name}", calls, effort.rounds)
    name = f"BatchEnv.step, {family_name}, {n} simulations"
    yield against(name, BARE, "steps/s", rates[0], rates[1], lambda ratio: at_least(ratio, share))
    for (limit_name, times, _), limit in zip(vectors, rates[2:], strict=True):
        yield against(name, limit_name, "steps/s", rates[0], limit, functools.partial(at_least, wanted=times))


def random_actions(vector: Vector, steps: int) -> Array:
    """Draw actions in [-1, 1], `(step, environment, action_dim)`."""
    return np.random.default_rng(0).uniform(-1, 1, (steps, *(vector.action_space.shape or ())))


def vector_call(vector: Vector, actions: Array) -> Call:
    """Return a call that takes `actions`; the unit is a step of one environment."""

    def run() -> None:
        for action in actions:
            vector.step(action)

    return Call(run, vector.num_envs * len(actions), lambda: vector.reset(seed=0))


def collection(family_name: str, effort: Effort) -> Iterator[Ratio]:
    """Race `rollout` with the paper's actor against the bare simulation of its actions."""
    env = make_env(family_name, effort.simulations)
    agent, bare = paper_agent(env), Bare(env)
    policy = agent.policy(agent.prior(env.num_envs), torch.Generator().manual_seed(0), deterministic=False)
    actions = rollout(policy, env, 0).actions.swapaxes(0, 1)
    amount = env.num_envs * env.family.horizon
    name = f"rollout with actor, {family_name}, {env.num_envs} simulations"
    calls = [Call(lambda: rollout(policy, env, 0), amount), Call(lambda: bare.step(actions), amount, bare.restart)]
    rates = race(name, calls, effort.rounds)
    yield against(name, BARE, "steps/s", rates[0], rates[1], lambda ratio: at_least(ratio, 0.70))


def evaluation(family_name: str, effort: Effort) -> Iterator[Ratio]:
    """Race `evaluate` at the paper's size against the bare simulation of its steps."""
    tasks = Tasks(make_family(family_name).sample_tasks(np.random.default_rng(0), effort.tasks))
    repeats = SMACConfig().repeats
    env = make_env(family_name, len(tasks) * repeats)
    agent, bare = paper_agent(env), Bare(env)
    episodes = agent.config.exploration_episodes + 1
    actions = evaluate(agent, env.family, tasks).episodes.actions.swapaxes(0, 1)

    name = f"evaluate, {family_name}, {len(tasks)} tasks x {repeats} x {episodes} episodes"
    calls = [
        Call(lambda: evaluate(agent, env.family, tasks)),
        Call(repeat(episodes, lambda: bare.step(actions)), 1, bare.restart),
    ]
    seconds = 1 / race(name, calls, min(5, effort.rounds))
    yield against(name, BARE, "s", seconds[0], seconds[1], lambda ratio: at_most(ratio, 1.5))
