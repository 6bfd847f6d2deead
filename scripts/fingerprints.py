"""Hashes of short runs, to compare before and after code is moved.

python scripts/fingerprints.py > before.txt
python scripts/fingerprints.py | diff before.txt -

The runs cover every family, phase and arm in the `smoke` presets, with one seed and, for two families, two seeds at
once. Equal hashes mean results equal to the bit. They depend on the machine, the threads (here one) and PyTorch's
version.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

import smac_lab as lab
from smac_lab.arms import ARMS


def fingerprint(values: Iterable[Any]) -> str:
    made = hashlib.sha256()
    for value in (value for value in values if value is not None):
        made.update(np.ascontiguousarray(torch.as_tensor(value).detach().cpu().numpy()).tobytes())
    return made.hexdigest()[:12]


def of_agent(agent: lab.SMAC) -> str:
    return fingerprint(tree_leaves(agent.state_dict()))


def of_buffer(buffer: lab.TransitionBuffer) -> str:
    return fingerprint([buffer.rows, buffer.segments])


def runs(name: str, seeds: Any, precision: str) -> Iterable[tuple[str, str]]:
    """Make a run, and yield each part's name and hash."""
    family = lab.make_family(name)
    config = dataclasses.replace(lab.SMACConfig.preset(name, "smoke"), device="cpu", precision=precision)
    each = (0,) if seeds == 0 else seeds
    splits = [family.split(config.n_train_tasks, config.n_test_tasks, seed) for seed in each]
    data = [lab.collect_behaviour(family, train, config, seed) for (train, _), seed in zip(splits, each, strict=True)]
    buffer = data[0] if seeds == 0 else lab.TransitionBuffer.join(data)
    train: Any = splits[0][0] if seeds == 0 else [train for train, _ in splits]
    test: Any = splits[0][1] if seeds == 0 else [test for _, test in splits]
    yield "data", of_buffer(buffer)
    agent = lab.SMAC(config, family.spec, seed=seeds)
    metrics = [list(found.values()) for _, found in lab.train_offline(agent, buffer)]
    yield "offline", f"{of_agent(agent)} {fingerprint(tree_leaves(metrics))}"
    state = agent.state_dict()
    for arm in ARMS:
        agent, own = lab.SMAC(config, family.spec, seed=seeds), buffer.clone()
        agent.load_state_dict(state)
        for _ in lab.train_self_supervised(agent, own, family, train, arm=arm):
            pass
        shift = lab.measure_shift(agent, family, train, own)
        found = lab.evaluate(agent, family, test)
        measured = fingerprint([*tree_leaves(shift), *tree_leaves(found)])
        yield arm, f"{of_agent(agent)} {of_buffer(own)} {measured}"


def main() -> None:
    torch.set_num_threads(1)
    cases = [(name, 0, "fp32") for name in lab.tasks.FAMILIES]
    cases += [("point-robot", (0, 1), "fp32"), ("cheetah-vel", (0, 1), "fp32"), ("point-robot", 0, "bf16")]
    for name, seeds, precision in cases:
        for what, found in runs(name, seeds, precision):
            print(f"{name:20s} seeds {seeds!s:8s} {precision} {what:14s} {found}", flush=True)
        print(name, file=sys.stderr)


if __name__ == "__main__":
    main()
