"""Arms by name: what each trains, which rewards it keeps, and what it changes."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import Problem

import smac_lab as lab
from smac_lab.arms import ARMS, OF_ENCODER, Arm, ArmName, choose_arm, find_arm, folder_of
from smac_lab.runs.plan import Experiment

EVERYTHING = {"actor", "critics", "target_critics", "encoder", "reward_decoder"}
POLICY = {"actor", "critics", "target_critics"}
MOVES = {
    "frozen": POLICY,
    "self-labelled": POLICY | {"encoder"},
    "oracle": EVERYTHING,
    "frozen-true-rewards": POLICY,
    "offline-encoder": EVERYTHING,
    "no-awac": POLICY,
    "no-q": POLICY,
    "offline": EVERYTHING,
}


def run(
    problem: Problem, arm: str | Arm | None, oracle: bool = False
) -> tuple[set[str], lab.TransitionBuffer, lab.SMAC]:
    """Parts that an arm moves within two iterations, and what it leaves behind."""
    agent, buffer = problem.agent(), problem.buffer.clone()
    for _ in lab.train_offline(agent, buffer, steps=5):
        pass
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in agent.parts.items()}
    for _, metrics in lab.train_self_supervised(agent, buffer, problem.family, problem.train, arm=arm, oracle=oracle):
        assert all(np.isfinite(value) for value in metrics.values())
    after = {name: list(part.parameters()) for name, part in agent.parts.items()}
    moved = {
        name for name in before if any(not torch.equal(*pair) for pair in zip(before[name], after[name], strict=True))
    }
    return moved, buffer, agent


def is_true(problem: Problem, buffer: lab.TransitionBuffer) -> bool:
    """Whether self-collected transitions carry the family's own rewards."""
    paid = lab.relabelled(buffer, problem.family, problem.train).rewards
    own = buffer.source == 1
    return bool(torch.isclose(paid[own], buffer.rewards[own], atol=1e-4).all())


@pytest.mark.parametrize("name", ARMS)
def test_each_arm_moves_its_parts_and_keeps_its_rewards(problem: Problem, name: str) -> None:
    moved, buffer, _ = run(problem, name)
    assert moved == MOVES[name]
    if ARMS[name].interacts:
        assert is_true(problem, buffer) == ARMS[name].true_rewards == (name in ("oracle", "frozen-true-rewards"))
    else:
        assert len(buffer) == len(problem.buffer)


def test_the_command_line_offers_every_arm() -> None:
    assert get_args(ArmName) == tuple(ARMS)
    assert set(OF_ENCODER.values()) <= set(ARMS)
    assert len({folder_of(arm) for arm in ARMS} | {"offline"}) == len(ARMS) + 1  # nothing overwrites the offline phase


def test_ablations_switch_off_one_term_of_the_actor(problem: Problem) -> None:
    _, _, agent = run(problem, "no-awac")
    assert (agent.config.online_awac_weight, agent.config.online_q_weight) == (0.0, 1.0)
    _, _, agent = run(problem, "no-q")
    assert (agent.config.online_awac_weight, agent.config.online_q_weight) == (1.0, 0.0)
    _, _, agent = run(problem, "frozen")
    assert agent.config == problem.config


def test_no_q_equals_frozen_at_a_weight_of_zero(problem: Problem) -> None:
    named = run(problem, "no-q")[2]
    by_hand = Problem(*problem[:3], dataclasses.replace(problem.config, online_q_weight=0.0), problem.buffer)
    for one, two in zip(named.actor.parameters(), run(by_hand, "frozen")[2].actor.parameters(), strict=True):
        assert torch.equal(one, two)


def test_oracle_asks_for_true_rewards(problem: Problem) -> None:
    config = problem.config
    assert choose_arm(config, None, oracle=True) == ARMS["oracle"]
    assert choose_arm(config, "frozen", oracle=True).true_rewards
    assert choose_arm(config, None) == ARMS["frozen"]
    labelled = dataclasses.replace(config, online_encoder="self-labelled")
    assert choose_arm(labelled, None) == ARMS["self-labelled"]


def test_an_arm_of_ones_own(problem: Problem) -> None:
    moved, buffer, _ = run(problem, Arm("the encoder on true rewards", "self-labelled", true_rewards=True))
    assert moved == POLICY | {"encoder"}
    assert is_true(problem, buffer)


def test_an_unknown_arm_lists_the_known_ones(problem: Problem) -> None:
    with pytest.raises(ValueError, match="unknown arm 'forzen'; known arms: frozen, self-labelled, oracle"):
        find_arm("forzen")
    with pytest.raises(ValueError, match="unknown arm 'forzen'"):
        run(problem, "forzen")
    with pytest.raises(ValueError, match="unknown arm 'forzen'"):
        Experiment("point-robot", "smoke", problem.config, arms=("forzen",))
    with pytest.raises(ValueError, match="each arm once"):
        Experiment("point-robot", "smoke", problem.config, arms=("frozen", "frozen"))


def test_offline_is_as_many_updates_of_the_offline_phase(problem: Problem) -> None:
    config = problem.config
    agent, longer = problem.agent(), problem.agent()
    more = config.online_iterations * config.online_updates
    for _ in lab.train_offline(agent, problem.buffer, steps=5):
        pass
    for _ in lab.train_self_supervised(agent, problem.buffer, problem.family, problem.train, arm="offline"):
        pass
    for _ in lab.train_offline(longer, problem.buffer, steps=5 + more):
        pass
    for one, two in zip(agent.actor.parameters(), longer.actor.parameters(), strict=True):
        assert torch.equal(one, two)
    assert agent.updates == longer.updates
