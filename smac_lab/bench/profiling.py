"""Profiles of stages, whose parts add up to the wall time; the last part is the remainder."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.profiler import profile, record_function

from smac_lab.adaptation import evaluate
from smac_lab.bench.race import Effort, aligned
from smac_lab.bench.simulation import make_env, paper_agent
from smac_lab.bench.update import Case, make_agent, make_buffer
from smac_lab.engine.rollout import rollout
from smac_lab.tasks.spec import Tasks

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkldnn::_linear_pointwise"}
OPTIMIZER = ("Optimizer.step", "aten::_fused_adam", "aten::_foreach_lerp")  # prefixes of names


class Profile(NamedTuple):
    """Seconds of the parts of a stage."""

    stage: str
    wall: float
    parts: dict[str, float]


def update(case: Case, count: int) -> Profile:
    """Profile one update in the setting `PLAIN`, with PyTorch's profiler.

    The profiler's own time counts as Python overhead.
    """
    config = case.config()
    agent, buffer = make_agent(config), make_buffer(config)
    loss = getattr(agent, f"{case.loss}_loss")
    agent.update(case.sample(agent, buffer), loss=loss)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it writes to stderr
    with profile(use_kineto=False) as profiler:
        began = time.perf_counter()
        for _ in range(count):
            with record_function("sampling"):
                batch = case.sample(agent, buffer)
            agent.update(batch, loss=loss)
        wall = time.perf_counter() - began
    parts = dict.fromkeys(("products", "elementwise and other operations", "optimizer", "sampling"), 0.0)
    for event in profiler.function_events or []:
        names, above = [event.name], event.cpu_parent
        while above is not None:
            names.append(above.name)
            above = above.cpu_parent
        if "sampling" in names:
            kind = "sampling"
        elif any(name.startswith(OPTIMIZER) for name in names):
            kind = "optimizer"
        elif event.name.startswith("aten::") or "fused" in event.name:
            kind = "products" if event.name in PRODUCTS else "elementwise and other operations"
        else:
            continue
        parts[kind] += event.self_cpu_time_total / 1e6
    parts["Python overhead"] = wall - sum(parts.values())
    return Profile(case.name, wall / count, {name: seconds / count for name, seconds in parts.items()})


class Stopwatch:
    """Seconds of functions by part; timed functions must not call each other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, whose calls add their seconds to `part`."""

        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] += time.perf_counter() - began

        return call

    def watch(self, thing: Any, name: str, part: str) -> None:
        """Time an object's method in place."""
        setattr(thing, name, self.timed(part, getattr(thing, name)))

    def watch_env(self, env: Any) -> Any:
        """Time a `BatchEnv`'s engine, and return the environment."""
        self.watch(env.simulation.engine, "step", "physics")
        self.watch(env.simulation.engine, "set_state", "physics")
        return env

    def watch_family(self, family: Any) -> None:
        """Time a family's observations, features, rewards and terminations."""
        for name in ("observe", "measure", "reward", "terminated"):
            self.watch(family, name, "observation and reward")

    def profile(self, stage: str, call: Callable[[], object]) -> Profile:
        """Profile `call`; time outside all parts counts as copying and bookkeeping."""
        call()  # warm-up
        self.seconds.clear()
        began = time.perf_counter()
        call()
        wall = time.perf_counter() - began
        parts = dict(self.seconds)
        return Profile(stage, wall, {**parts, "copying and bookkeeping": wall - sum(parts.values())})


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread, so that timings do not overlap."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def collecting(family_name: str, effort: Effort) -> Profile:
    """Profile one `rollout` of half the simulations with the paper's actor, on one thread."""
    with one_thread():
        env, watch = make_env(family_name, max(1, effort.simulations // 2)), Stopwatch()
        agent = paper_agent(env)
        policy = agent.policy(agent.prior(env.num_envs), torch.Generator().manual_seed(0), deterministic=False)
        watch.watch_env(env)
        watch.watch_family(env.family)
        timed = watch.timed("actor", policy)
        name = f"rollout, {family_name}, {env.num_envs} simulations on one thread"
        return watch.profile(name, lambda: rollout(timed, env, 0))


def evaluating(family_name: str, effort: Effort) -> Profile:
    """Profile one `evaluate` with the paper's actor, on one thread."""
    with one_thread():
        watch, tiny = Stopwatch(), make_env(family_name, 1)
        family, agent = tiny.family, paper_agent(tiny)
        tasks = Tasks(family.sample_tasks(np.random.default_rng(0), max(1, effort.tasks // 4)))
        batch_env, policy = family.batch_env, agent.policy
        vars(family)["batch_env"] = lambda *a, **k: watch.watch_env(batch_env(*a, **k))
        vars(agent)["policy"] = lambda *a, **k: watch.timed("actor", policy(*a, **k))
        watch.watch_family(family)
        watch.watch(agent, "infer_posterior", "encoder")
        name = f"evaluate, {family_name}, {len(tasks)} tasks on one thread"
        return watch.profile(name, lambda: evaluate(agent, family, tasks))


def profiles(effort: Effort, family_name: str = "cheetah-vel") -> Iterator[Profile]:
    """Profile each stage."""
    for case in (Case("offline", 4, 128), Case("self_supervised", 4, 256)):
        yield update(case, 2 * effort.updates)
    yield collecting(family_name, effort)
    yield evaluating(family_name, effort)


def profile_table(found: list[Profile]) -> Iterator[str]:
    """Format each stage's parts as text, the longest first."""
    cells = [("where the time goes", "ms", "share")]
    for stage in found:
        cells.append((stage.stage, f"{1e3 * stage.wall:,.2f}", "100.0%"))
        for name, seconds in sorted(stage.parts.items(), key=lambda item: -item[1]):
            cells.append((f"  {name}", f"{1e3 * seconds:,.2f}", f"{seconds / stage.wall:.1%}"))
    yield from aligned(cells, right={1, 2})
