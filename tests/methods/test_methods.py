"""Every method through the same doors: runs, checkpoints, evaluation, the report, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import Problem

import smac_lab as lab
from smac_lab.actor_critic import log_prob
from smac_lab.config import MethodName
from smac_lab.methods import METHODS, find_method, name_of
from smac_lab.methods.cloning import Cloning
from smac_lab.methods.offline_pearl import OfflinePEARL
from smac_lab.methods.pearl import pearl_loss
from smac_lab.runs import checkpoint
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import Experiment
from smac_lab.sampling import sample_offline


def prepared(problem: Problem, agent: lab.SMAC) -> lab.Batch:
    batch = sample_offline(agent, problem.buffer)
    return batch._replace(noise=agent.draw_noise(batch))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "smac"])
def test_a_run_of_any_method(name: str, tmp_path: Path) -> None:
    """It ends with a summary, a checkpoint that acts as the agent did, and a report that names the method."""
    from smac_lab.figures import report

    config = lab.SMACConfig.preset("point-robot", "smoke")
    experiment = Experiment("point-robot", "smoke", config, arms=(), method=name)
    summary = run_experiment(tmp_path, experiment, quiet=True)
    assert summary["method"] == name
    assert np.isfinite([summary["before"][kind][0] for kind in ("offline_context", "online_context", "test")]).all()
    run = checkpoint.load(tmp_path / "seed_0" / "offline" / "checkpoint")
    assert type(run.agent) is find_method(name).make
    assert find_method(name_of(run.agent)).make is type(run.agent)
    assert run.agent.updates == find_method(name).updates(config, experiment.numbers)
    family = lab.make_family("point-robot")
    _, test = family.split(config.n_train_tasks, config.n_test_tasks, 0)
    again = lab.evaluate(run.agent, family, test, seed=500_009)
    assert again.final_returns.mean() == pytest.approx(summary["before"]["test"][0])
    page = report.write_report(tmp_path).read_text()
    assert f"--method {name}" in page
    assert f"{name} on point-robot" in page
    assert json.loads((tmp_path / "config.json").read_text())["method"] == name
    assert run_experiment(tmp_path, experiment, quiet=True)["before"] == summary["before"]  # nothing is left to do


def test_cloning_is_the_uniformly_weighted_likelihood(problem: Problem) -> None:
    """And critics learn nothing; `awac_lambda` of a million is the same up to a part in ten thousand."""
    agent = Cloning(problem.config, problem.family.spec, seed=0)
    batch = prepared(problem, agent)
    posterior, z = agent.infer(batch)
    reward, _ = agent.reward_loss(agent, batch, z, posterior)
    likelihood = log_prob(*agent.actor(batch.observations, z), batch.actions, agent.config.max_action)
    loss, info = agent.cloning_loss(batch)
    torch.testing.assert_close(loss, reward - likelihood.mean())
    limit = lab.SMAC(agent.config.__class__(**{**vars(agent.config), "awac_lambda": 1e6}), agent.spec, seed=0)
    _, told = limit.offline_loss(batch)
    torch.testing.assert_close(told["awac_loss"], info["cloning_loss"], rtol=1e-4, atol=1e-4)
    before = [p.detach().clone() for p in agent.critics.parameters()]
    list(lab.train_offline(agent, problem.buffer, steps=3))
    assert all(torch.equal(a, b) for a, b in zip(before, agent.critics.parameters(), strict=True))


def test_offline_pearl_is_pearl_s_loss_on_static_data(problem: Problem) -> None:
    agent = OfflinePEARL(problem.config, problem.family.spec, seed=0)
    batch = prepared(problem, agent)
    torch.testing.assert_close(agent.offline_pearl_loss(batch)[0], pearl_loss(agent, batch)[0])
    before = len(problem.buffer)
    assert [step for step, _ in lab.train_offline(agent, problem.buffer, steps=3)] == [3]
    assert len(problem.buffer) == before


def test_subclasses_of_smac_learn_several_seeds_at_once(problem: Problem) -> None:
    for kind in (Cloning, OfflinePEARL):
        agent = kind(problem.config, problem.family.spec, seed=[0, 1])
        list(lab.train_offline(agent, problem.buffer, steps=2))
        assert [type(one) for one in agent.split()] == [kind, kind]


def test_what_a_method_cannot_do_is_told_before_any_work() -> None:
    config = lab.SMACConfig.preset("walker-params", "smoke")
    with pytest.raises(ValueError, match="cannot be relabelled: its tasks change the dynamics"):
        Experiment("walker-params", "smoke", config, arms=(), method="borel")
    Experiment("walker-params", "smoke", config, arms=(), method="borel-in-smac")
    with pytest.raises(ValueError, match="macaw learns from static data alone"):
        Experiment("walker-params", "smoke", config, arms=("frozen",), method="macaw")
    with pytest.raises(ValueError, match="unknown method 'maccaw'; known methods: smac, cloning"):
        Experiment("walker-params", "smoke", config, arms=(), method="maccaw")


def test_the_command_line_offers_every_method() -> None:
    assert get_args(MethodName) == tuple(METHODS)


def test_borel_learns_one_seed_at_a_time(tmp_path: Path) -> None:
    config = lab.SMACConfig.preset("point-robot", "smoke")
    experiment = Experiment("point-robot", "smoke", config, seeds=(0, 1), arms=(), method="borel")
    with pytest.raises(ValueError, match="at_once=2 is not allowed: borel learns one seed at a time"):
        run_experiment(tmp_path, experiment, at_once=2)
