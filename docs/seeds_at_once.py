"""Three seeds of the paper's half-cheetah learn side by side on one GPU, with the encoder self-labelled and frozen.

    python docs/seeds_at_once.py [--iterations 3] [--preset paper]

prints rates, and what each seed returns after 0, 1, 3, ... iterations.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time

import numpy as np

import smac_lab as lab

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--iterations", type=int, default=3)
parser.add_argument("--preset", choices=("smoke", "cpu", "paper"), default="paper")
options = parser.parse_args()

seeds, began = range(3), time.monotonic()
family, config = lab.make_family("cheetah-vel"), lab.SMACConfig.preset("cheetah-vel", options.preset)
train, test = zip(*(family.split(config.n_train_tasks, config.n_test_tasks, seed) for seed in seeds), strict=True)


def tell(agents: lab.SMAC, buffers: lab.TransitionBuffer, name: str) -> None:
    """Returns of each seed."""
    shift = lab.measure_shift(agents, family, train, buffers)
    held_out = lab.evaluate(agents, family, test).final_returns.reshape(len(seeds), -1).mean(1)
    values = {
        "offline context": shift.offline_context_return,
        "self-collected": shift.online_context_return,
        "held-out": held_out,
    }
    words = "; ".join(f"{key} {np.round(value, 1).tolist()}" for key, value in values.items())
    print(f"[{time.monotonic() - began:5.0f} s] {name}: {words}", flush=True)


buffers = lab.TransitionBuffer.join(
    [lab.collect_behaviour(family, tasks, config, seed) for seed, tasks in zip(seeds, train, strict=True)]
)
agents = lab.SMAC(config, family.spec, seed=seeds)
start = time.monotonic()
for step, _ in lab.train_offline(agents, buffers, log_every=max(1, config.offline_steps // 5)):
    rate = step / (time.monotonic() - start)
    print(f"offline phase: {step} updates of {len(seeds)} seeds, {rate:.0f} a second", flush=True)
tell(agents, buffers, "before")

with tempfile.TemporaryDirectory() as folder:
    lab.save(folder, agents, buffer=buffers)
    for arm in ("self-labelled", "frozen"):
        run = lab.load(folder, family=family)
        assert run.buffer is not None
        run.agent.config = dataclasses.replace(config, online_encoder=arm)
        phase = lab.train_self_supervised(run.agent, run.buffer, family, train, iterations=options.iterations)
        for iteration, _ in phase:
            if iteration in (1, options.iterations) or iteration % 10 == 3:
                tell(run.agent, run.buffer, f"{arm}, iteration {iteration}")
