"""AdaptationExplorer: several methods in one task, context given episode by episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Problem

import smac_lab as lab
from smac_lab.methods import find_method
from smac_lab.widgets import AdaptationExplorer
from smac_lab.widgets.adaptation import EPISODES


def explorer_of(problem: Problem, **state: object) -> AdaptationExplorer:
    methods = {}
    for name in ("smac", "macaw", "borel"):
        entry = find_method(name)
        methods[name] = entry.agent(problem.config, problem.family.spec, 0, entry.numbers("smoke"))
    return AdaptationExplorer(methods, problem.family, problem.train, problem.buffer, **state)


def test_what_is_drawn_is_what_the_adapted_methods_do(problem: Problem) -> None:
    explorer = explorer_of(problem, task=2, episodes=3)
    horizon, ids = problem.family.horizon, torch.arange(len(problem.train))
    context = problem.buffer.sample_context(
        ids, EPISODES[-1] * horizon, torch.Generator().manual_seed(0), "offline", consecutive=True
    )
    for name, agent in explorer.methods.items():
        policy = agent.policy(agent.adapt(context[:, : 3 * horizon]), torch.Generator().manual_seed(0))
        acted = lab.rollout(policy, problem.family.batch_env(problem.train), seed=[0] * len(ids))
        path = explorer.figure.data[explorer._traces[f"{name} after"]]
        np.testing.assert_allclose(path.x[1:], acted.next_observations[2, :, 0], atol=1e-6)
        assert explorer.returns(name, "offline")[3] == pytest.approx(acted.returns.mean())
    assert "3 episodes of offline context" in explorer.text


def test_each_method_collects_context_of_its_own(problem: Problem) -> None:
    explorer = explorer_of(problem, episodes=1, context="self-collected")
    collected = {name: explorer.contexts(name, "self-collected") for name in explorer.methods}
    assert not torch.equal(collected["smac"], collected["macaw"])
    given = [explorer.contexts(name, "offline") for name in explorer.methods]
    assert all(torch.equal(given[0], other) for other in given)
    before = explorer.text
    explorer.update(episodes=0)
    assert explorer.text != before
    for name in explorer.methods:
        assert explorer.returns(name, "offline")[0] == explorer.returns(name, "self-collected")[0]


def test_bad_input_is_told(problem: Problem) -> None:
    with pytest.raises(ValueError, match="0 methods are not allowed: one to three"):
        AdaptationExplorer({}, problem.family, problem.train, problem.buffer)
    joined = lab.SMAC(problem.config, problem.family.spec, seed=[0, 1])
    with pytest.raises(ValueError, match="methods of one seed each"):
        AdaptationExplorer({"smac": joined}, problem.family, problem.train, problem.buffer)
    with pytest.raises(ValueError, match="cannot act in"):
        AdaptationExplorer({"smac": problem.agent()}, lab.make_family("cheetah-vel"), problem.train, problem.buffer)
