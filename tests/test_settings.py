"""Settings of an agent: scales, initial weights, Adam's moments, and numbers that change on the way."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Problem
from torch import nn

import smac_lab as lab
from smac_lab.actor_critic import log_prob
from smac_lab.engine.learner import Objective
from smac_lab.nets import Standardise
from smac_lab.parts import ALL_PARTS
from smac_lab.presets import GPU, PRESETS
from smac_lab.runs.snapshots import Snapshots, read_snapshots, write_excerpt
from smac_lab.sampling import sample_offline
from smac_lab.training import begin_self_supervision


def changed(problem: Problem, **changes: Any) -> lab.SMACConfig:
    return dataclasses.replace(problem.config, **changes)


# -- observation scaling ---------------------------------------------------------------------------------
def test_scaling_standardises_observations_and_nothing_else() -> None:
    scaling = Standardise(5, (0, 3))
    inputs = torch.arange(10.0).reshape(2, 5)
    assert torch.equal(scaling(inputs), inputs)
    scaling.fit(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    expected = (inputs - torch.tensor([1.0, 2.0, 0.0, 1.0, 2.0])) / torch.tensor([2.0, 4.0, 1.0, 2.0, 4.0])
    assert torch.equal(scaling(inputs), expected)


def stretched(problem: Problem) -> lab.TransitionBuffer:
    """The same data, observed in other units: 100 + 1000 x in the first coordinate."""
    buffer = problem.buffer.clone()
    first = buffer._columns["observations"].start
    buffer.rows[:, first] = 100.0 + 1000.0 * buffer.rows[:, first]
    return buffer


def test_a_scaled_agent_does_not_see_units(problem: Problem) -> None:
    """Trained on data in other units, it acts the same, to rounding."""
    config = changed(problem, observation_scaling=True)
    metric, other = (lab.SMAC(config, problem.family.spec, seed=0) for _ in range(2))
    for agent, buffer in ((metric, problem.buffer), (other, stretched(problem))):
        for _ in lab.train_offline(agent, buffer, steps=20):
            pass
    z, observations = np.full((7, config.z_dim), 0.3), np.random.default_rng(0).normal(size=(7, 2))
    in_other_units = observations * [1000.0, 1.0] + [100.0, 0.0]
    np.testing.assert_allclose(metric.act(observations, z), other.act(in_other_units, z), atol=2e-3)
    unscaled = lab.SMAC(problem.config, problem.family.spec, seed=0)
    assert not np.allclose(unscaled.act(observations, z), unscaled.act(in_other_units, z), atol=2e-3)


def test_scaling_is_by_static_data_once_and_for_all(problem: Problem) -> None:
    agent = lab.SMAC(changed(problem, observation_scaling=True), problem.family.spec, seed=0)
    for _ in lab.train_offline(agent, problem.buffer, steps=1):
        pass
    actor: Any = agent.actor
    torch.testing.assert_close(actor.scaling.mean, problem.buffer.observations.mean(0))
    torch.testing.assert_close(actor.scaling.std, problem.buffer.observations.std(0))
    for _ in lab.train_offline(agent, stretched(problem), steps=1):
        pass
    torch.testing.assert_close(actor.scaling.mean, problem.buffer.observations.mean(0))
    encoder: Any = agent.encoder
    assert encoder.scaling.mean[2:].eq(0).all()  # actions and rewards
    targets: Any = agent.target_critics
    assert torch.equal(targets.scaling.std, actor.scaling.std)


def test_what_never_changes_is_centred_alone(problem: Problem) -> None:
    buffer = problem.buffer.clone()
    buffer.rows[:, buffer._columns["observations"].start] = 7.0
    agent = lab.SMAC(changed(problem, observation_scaling=True), problem.family.spec, seed=0)
    agent.fit_observation_scaling(buffer)
    actor: Any = agent.actor
    assert (actor.scaling.mean[0], actor.scaling.std[0]) == (7.0, 1.0)


def test_seeds_at_once_scale_by_their_own_data(problem: Problem) -> None:
    equal_to_each_alone(changed(problem, observation_scaling=True), [problem.buffer, stretched(problem)])


def test_seeds_at_once_explain_their_own_contexts(problem: Problem) -> None:
    dearer = problem.buffer.clone()
    dearer.rows[:, dearer._columns["rewards"]] *= 3.0
    assert not torch.equal(dearer.rewards, problem.buffer.rewards)
    equal_to_each_alone(changed(problem, explain_context=True), [problem.buffer, dearer])


def test_pearl_explains_no_context_unless_it_is_told_to(problem: Problem) -> None:
    config = changed(problem, explain_context=True)
    assert not config.for_pearl().explain_context
    assert dataclasses.replace(config, behaviour_changes={"explain_context": True}).for_pearl().explain_context


def equal_to_each_alone(config: lab.SMACConfig, buffers: list[lab.TransitionBuffer]) -> None:
    """Two seeds learn at once what each learns alone, to rounding."""
    together = lab.SMAC(config, buffers[0].spec, seed=(0, 1))
    for _ in lab.train_offline(together, lab.TransitionBuffer.join(buffers), steps=3):
        pass
    for seed, (buffer, one) in enumerate(zip(buffers, together.split(), strict=True)):
        alone = lab.SMAC(config, buffers[0].spec, seed=seed)
        for _ in lab.train_offline(alone, buffer, steps=3):
            pass
        for name, part in alone.parts.items():
            for key, value in part.state_dict().items():
                torch.testing.assert_close(
                    one.parts[name].state_dict()[key], value, rtol=2e-3, atol=1e-4, msg=f"{name} {key}"
                )


def test_scales_go_with_checkpoints_and_excerpts(problem: Problem, tmp_path: Path) -> None:
    agent = lab.SMAC(changed(problem, observation_scaling=True), problem.family.spec, seed=0)
    buffer = stretched(problem)
    for _ in lab.train_offline(agent, buffer, steps=3):
        pass
    begin_self_supervision(agent)
    lab.save(tmp_path / "checkpoint", agent, buffer=buffer)
    loaded = lab.load(tmp_path / "checkpoint").agent
    snapshots = Snapshots(problem.family, problem.train, problem.buffer, agent, {"frozen": {1: agent}})
    write_excerpt(tmp_path / "excerpt", snapshots)
    excerpt = read_snapshots(tmp_path / "excerpt").before
    z, observations = np.zeros((3, agent.config.z_dim)), np.array([[100.0, 0.0], [1000.0, 1.0], [-500.0, 0.2]])
    np.testing.assert_array_equal(loaded.act(observations, z), agent.act(observations, z))
    np.testing.assert_allclose(excerpt.act(observations, z), agent.act(observations, z), atol=2e-3)


def test_a_part_of_ones_own_may_be_scaled_too(problem: Problem) -> None:
    class Scaled(nn.Module):
        def __init__(self, config: lab.SMACConfig) -> None:
            super().__init__()
            self.scaling, self.net = lab.Standardise(2), lab.MLP(2 + config.z_dim, [8], 4)

        def forward(self, observations: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean, log_std = self.net(torch.cat([self.scaling(observations), z], -1)).chunk(2, -1)
            return mean, log_std.clamp(-20.0, 2.0)

    agent = lab.SMAC(problem.config, problem.family.spec, actor=Scaled(problem.config))
    for _ in lab.train_offline(agent, problem.buffer, steps=1):
        pass
    actor: Any = agent.actor
    torch.testing.assert_close(actor.scaling.mean, problem.buffer.observations.mean(0))


# -- the clip before atanh -------------------------------------------------------------------------------
@pytest.mark.parametrize(("limit", "u"), [(0.999999, 7.2543), (0.95, 1.8318)])
def test_a_saturated_action_is_known_up_to_the_clip(limit: float, u: float) -> None:
    mean, log_std = torch.full((1, 1), u, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    density = -0.5 * math.log(2 * math.pi) - math.log(1.0 - math.tanh(u) ** 2)
    for sign in (-1.0, 1.0):
        got = log_prob(sign * mean, log_std, torch.tensor([[sign]], dtype=torch.float64), limit)
        torch.testing.assert_close(got, torch.tensor([density], dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_the_actor_loss_uses_the_configs_clip(problem: Problem) -> None:
    gentle = lab.SMAC(changed(problem, max_action=0.95), problem.family.spec, seed=0)
    strict = lab.SMAC(problem.config, problem.family.spec, seed=0)
    batch = sample_offline(strict, problem.buffer)
    batch = batch._replace(actions=torch.ones_like(batch.actions), noise=strict.draw_noise(batch))
    found = [float(agent.offline_loss(batch)[1]["log_prob_mean"].detach()) for agent in (gentle, strict)]
    assert found[0] > found[1] + 10.0


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5])
def test_a_clip_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"max_action={value} is not allowed: it must be a number between 0 and 1"):
        lab.SMACConfig(max_action=value)


# -- initial weights -------------------------------------------------------------------------------------
def test_initial_weights_as_the_authors_draw_them(problem: Problem) -> None:
    config = changed(problem, initial_weights="authors", actor_hidden=(50, 70), critic_hidden=(50, 70))
    agent: Any = lab.SMAC(config, problem.family.spec, seed=0)
    hidden = [layer for layer in agent.actor.net if isinstance(layer, nn.Linear)]
    for layer, n_out in zip(hidden[:-1], (50, 70), strict=True):
        assert 0.9 / math.sqrt(n_out) < layer.weight.abs().max() <= 1.0 / math.sqrt(n_out)
        assert layer.bias.eq(0).all()
    assert 0.9e-3 < hidden[-1].weight.abs().max() <= 1e-3
    first, second, last = agent.critics.net.weights
    for weight, n_out in ((first, 50), (second, 70)):
        assert 0.9 / math.sqrt(n_out) < weight.abs().max() <= 1.0 / math.sqrt(n_out)
    assert 2.7e-3 < last.abs().max() <= 3e-3
    assert agent.critics.net.biases[0].eq(0).all()
    assert not torch.equal(first[0], first[1])  # two critics, not one twice
    for part in (agent.encoder, agent.reward_decoder):
        assert part.net[-1].weight.abs().max() <= 3e-3


def test_initial_weights_of_pytorch(problem: Problem) -> None:
    agent: Any = lab.SMAC(changed(problem, initial_weights="pytorch"), problem.family.spec, seed=0)
    first = agent.reward_decoder.net[0]
    assert 0.9 / math.sqrt(first.in_features) < first.weight.abs().max() <= 1.0 / math.sqrt(first.in_features)


# -- Adam's moments --------------------------------------------------------------------------------------
@pytest.mark.parametrize("moments", ["carried", "fresh"])
def test_moments_over_the_switch_of_phases(problem: Problem, moments: Any) -> None:
    agent = lab.SMAC(changed(problem, optimizer_moments=moments), problem.family.spec, seed=0)
    for _ in lab.train_offline(agent, problem.buffer, steps=7):
        pass
    begin_self_supervision(agent)
    agent.update(sample_offline(agent, problem.buffer), agent.self_supervised_loss)
    first = next(agent.actor.parameters())
    assert int(agent.optimizer.state[first]["step"]) == (8 if moments == "carried" else 1)
    begin_self_supervision(agent)  # as when a stopped phase goes on: nothing begins anew
    agent.update(sample_offline(agent, problem.buffer), agent.self_supervised_loss)
    assert int(agent.optimizer.state[first]["step"]) == (9 if moments == "carried" else 2)


# -- one home for the numbers ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("awac_lambda", 0.01),
        ("discount", 0.2),
        ("reward_scale", 0.5),
        ("kl_weight", 9.0),
        ("kl_reduction", "sum"),
        ("awac_weight", "exp"),
        ("max_action", 0.5),
    ],
)
def test_losses_follow_a_new_config(problem: Problem, field: str, value: Any) -> None:
    agent, other = problem.agent(), lab.SMAC(changed(problem, **{field: value}), problem.family.spec, seed=0)
    batch = sample_offline(agent, problem.buffer)
    batch = batch._replace(noise=agent.draw_noise(batch))
    before = agent.offline_loss(batch)[0]
    agent.config = other.config
    after = agent.offline_loss(batch)[0]
    assert torch.equal(after, other.offline_loss(batch)[0])
    assert not torch.equal(after, before)


def test_adam_follows_a_new_learning_rate(problem: Problem) -> None:
    agent = problem.agent()
    agent.update(sample_offline(agent, problem.buffer))
    agent.config = changed(problem, learning_rate=0.125)
    assert agent.optimizer.param_groups[0]["lr"] == 0.125


def test_the_learning_rate_falls_at_the_end_of_each_phase(problem: Problem) -> None:
    phases = {"offline_steps": 20, "online_iterations": 5, "online_updates": 2}
    falling = changed(problem, learning_rate=0.01, learning_rate_decay=0.2, **phases)
    agent = lab.SMAC(falling, problem.family.spec)
    seen = []
    for _ in range(32):
        agent.update(sample_offline(agent, problem.buffer))
        seen.append(agent.optimizer.param_groups[0]["lr"])
    assert set(seen[:16]) == set(seen[20:28]) == {0.01}
    assert seen[16:21] == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.01]), "the next phase begins anew"
    assert seen[28:32] == pytest.approx([0.01, 0.006, 0.002, 0.002]), "after the last phase it stays"
    again = lab.SMAC(falling, problem.family.spec)
    again.load_state_dict(agent.state_dict())
    again.update(sample_offline(again, problem.buffer))
    assert again.optimizer.param_groups[0]["lr"] == seen[31], "who goes on goes on at the same rate"
    assert problem.agent().learning_rate == problem.config.learning_rate
    with pytest.raises(
        ValueError, match=r"learning_rate_decay=0.0 is not allowed: it must be a number in \(0.0, 1.0\]"
    ):
        changed(problem, learning_rate_decay=0.0)


@pytest.mark.parametrize(("field", "value"), [("z_dim", 9), ("actor_hidden", (9,)), ("observation_scaling", True)])
def test_what_parts_are_built_from_cannot_change(problem: Problem, field: str, value: Any) -> None:
    agent = problem.agent()
    with pytest.raises(ValueError, match=f"{field} cannot change once an agent is made"):
        agent.config = changed(problem, **{field: value})
    assert agent.config == problem.config


# -- what is trained -------------------------------------------------------------------------------------
def moved_by(agent: lab.SMAC, *arguments: Any, **options: Any) -> set[str]:
    before = {name: [p.detach().clone() for p in agent.parts[name].parameters()] for name in ALL_PARTS}
    agent.update(*arguments, **options)
    return {
        name
        for name, values in before.items()
        if any(not torch.equal(*pair) for pair in zip(values, agent.parts[name].parameters(), strict=True))
    }


def test_a_loss_of_ones_own_trains_every_part_whatever_its_name(problem: Problem) -> None:
    agent = problem.agent()

    def inference_loss(batch: lab.Batch) -> Any:
        return agent.offline_loss(batch)

    batch = sample_offline(agent, problem.buffer)
    assert moved_by(agent, batch, inference_loss) == set(ALL_PARTS)
    assert moved_by(agent, batch, lambda batch: agent.offline_loss(batch)) == set(ALL_PARTS)


def test_what_learns_is_said_at_the_call(problem: Problem) -> None:
    agent = problem.agent()
    batch = sample_offline(agent, problem.buffer)
    agent.update(batch)  # moments of every part, which a resting one must not feel
    assert moved_by(agent, batch, agent.offline_loss, trains=("critics",)) == {"critics"}
    assert moved_by(agent, batch, Objective("mine", agent.offline_loss, ("encoder",))) == {"encoder"}
    assert moved_by(agent, batch, lambda batch: agent.self_supervised_loss(batch)) == {"actor", "critics"}
    with pytest.raises(ValueError, match=r"there is no part \['decoder'\] to train; parts are actor, critics, encoder"):
        agent.update(batch, trains=("decoder",))


def test_targets_rest_where_critics_do(problem: Problem) -> None:
    agent = problem.agent()
    batch = sample_offline(agent, problem.buffer)
    before = [p.clone() for p in agent.target_critics.parameters()]
    agent.update(batch, trains=("actor",))
    assert all(torch.equal(*pair) for pair in zip(before, agent.target_critics.parameters(), strict=True))


# -- presets ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", PRESETS)
def test_gpu_is_the_recipe_of_cpu_at_the_paper_s_size(family: str) -> None:
    cpu, gpu, paper = (lab.SMACConfig.preset(family, name).to_dict() for name in ("cpu", "gpu", "paper"))
    assert {name for name in gpu if gpu[name] != cpu[name]} <= set(GPU)
    assert all(gpu[f"{part}_hidden"] == paper[f"{part}_hidden"] for part in ("encoder", "actor", "critic"))
    assert gpu["offline_steps"] >= cpu["offline_steps"]
    assert gpu["online_iterations"] * gpu["online_updates"] > cpu["online_iterations"] * cpu["online_updates"]
