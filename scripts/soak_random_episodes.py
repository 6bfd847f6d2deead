"""Warnings of Python and MuJoCo, and steps in which the physics diverges, over many random episodes.

`python scripts/soak_random_episodes.py [FAMILY ...] [--episodes 1000]` prints a Markdown table, by default of all
families. A name may have options, as in "walker-params:set_const=False".
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from typing import NamedTuple

import mujoco
import numpy as np

import smac_lab as lab
from smac_lab.tasks import FAMILIES, BatchEnv, MujocoFamily

SIMULATIONS = 200  # side by side, a task each


class Soak(NamedTuple):
    episodes: int
    steps: int  # control steps
    python_warnings: Counter[str]  # by category and message
    mujoco_warnings: Counter[str]  # by counter
    diverged: int
    seconds: float


def soak(name: str, episodes: int, simulations: int = SIMULATIONS, seed: int = 0, num_threads: int = 1) -> Soak:
    """Run episodes of uniform actions until `episodes` of them have ended."""
    family = lab.make_family(name)
    rng = np.random.default_rng(seed)
    simulations = min(simulations, episodes)
    ended = steps = diverged = 0
    counted: Counter[str] = Counter()
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = family.batch_env(lab.Tasks(family.sample_tasks(rng, simulations)), num_threads)
        env.reset(seed=seed)
        count_warnings(env, counted)
        while ended < episodes:
            _, _, terminations, truncations, info = env.step(rng.uniform(-1, 1, (simulations, family.action_dim)))
            ended += int((terminations | truncations).sum())
            steps += simulations
            diverged += int(info["diverged"].sum())
    python = Counter(f"{warning.category.__name__}: {str(warning.message)[:60]}" for warning in caught)
    return Soak(ended, steps, python, counted, diverged, time.perf_counter() - start)


def count_warnings(env: BatchEnv, counted: Counter[str]) -> None:
    """Make physics steps of `env` add new MuJoCo warnings to `counted`."""
    if not isinstance(env.family, MujocoFamily):
        return
    engine, counters = env.simulation.engine, env.simulation.engine.batch.warning
    plain_step = engine.step

    def step(actions: np.ndarray) -> np.ndarray:
        before = counters[:, :, 1].copy()
        diverged = plain_step(actions)  # the counters are cleared later
        for kind, member in mujoco.mjtWarning.__members__.items():
            if kind != "mjNWARNING" and (rise := int((counters[:, member, 1] - before[:, member]).clip(0).sum())):
                counted[kind] += rise
        return diverged

    engine.step = step


def row(name: str, found: Soak) -> str:
    kinds = found.python_warnings + found.mujoco_warnings
    text = f"{kinds.total()}" + (f" ({', '.join(f'{kind}: {n}' for kind, n in kinds.items())})" if kinds else "")
    cells = [name, f"{found.episodes:,}", f"{found.steps:,}", text, str(found.diverged), f"{found.seconds:.0f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Episodes of random actions, and what is warned of in them.")
    parser.add_argument("families", nargs="*", help="names of task families; default: all")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print("| family | episodes | steps | warnings (kinds) | diverged | seconds |\n|---|---|---|---|---|---|")
    for name in arguments.families or FAMILIES:
        found = soak(name, arguments.episodes, seed=arguments.seed, num_threads=arguments.threads)
        print(row(name, found), flush=True)


if __name__ == "__main__":
    main()
