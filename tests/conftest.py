"""Fixtures that several test files share: a small point-robot problem."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest
import torch

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
