"""Fixtures that several test files share: a small point-robot problem."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import smac_lab as lab

os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start: small work, several at once


class Problem(NamedTuple):
    family: lab.TaskFamily
    train: lab.Tasks
    test: lab.Tasks
    config: lab.SMACConfig
    buffer: lab.TransitionBuffer

    def agent(self, **changes: object) -> lab.SMAC:
        return lab.SMAC(self.config, self.family.spec, seed=0, **changes)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def problem() -> Problem:
    """Six tasks of the point robot under the smoke preset; the buffer is the test's own."""
    family = lab.make_family("point-robot")
    config = lab.SMACConfig.preset("point-robot", "smoke")
    train, test = family.split(config.n_train_tasks, config.n_test_tasks, seed=0)
    return Problem(family, train, test, config, lab.collect_behaviour(family, train, config, seed=0))


class Reads(TorchDispatchMode):
    """Counts the operations that would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        name = str(function)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "unique", "is_nonzero")):
            self.found.append(name)
        return function(*arguments, **(options or {}))
