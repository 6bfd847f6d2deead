"""The diagnosis replaces what it says it replaces."""

from __future__ import annotations

import math

from conftest import Problem

import smac_lab as lab
from smac_lab.diagnosis import diagnose


def test_every_link_is_tried_and_finite(problem: Problem) -> None:
    agent = problem.agent()
    list(lab.train_offline(agent, problem.buffer, steps=20))
    findings = diagnose(agent, problem.family, problem.train, problem.buffer)
    assert {f.link for f in findings} == {
        "both ends", "context sampling", "exploration", "posterior", "labels", "critic",
    }  # fmt: skip
    assert all(math.isfinite(f.value) for f in findings)


def test_both_ends_are_those_of_measure_shift(problem: Problem) -> None:
    agent = problem.agent()
    findings = diagnose(agent, problem.family, problem.train, problem.buffer, seed=3)
    tested = lab.evaluate(agent, problem.family, problem.train, seed=3)
    assert findings[1].value == float(tested.final_returns.mean())


def test_label_errors_vanish_with_a_perfect_decoder(problem: Problem) -> None:
    """A decoder that is told the goal by an encoder that reads it off the data makes no error."""
    import torch
    from torch import nn

    class Goal(nn.Module):
        """Least squares for the goal g from |s' - g| = -r, exact as |s'|^2 - r^2 = 2 s'.g - |g|^2."""

        def forward(self, context: torch.Tensor) -> lab.Gaussian:
            s, a, r = context[..., :2].double(), context[..., 2:4].double(), context[..., 4:].double()
            p = s + 0.1 * a
            left = torch.cat([2 * p, -torch.ones_like(r)], -1)
            right = p.square().sum(-1, keepdim=True) - r.square()
            goal = torch.linalg.lstsq(left, right).solution[:, :2, 0].float()
            mean = torch.cat([goal, torch.zeros(len(goal), problem.config.z_dim - 2)], -1)
            return lab.Gaussian(mean, torch.full_like(mean, 1e-3))

    class Distance(nn.Module):
        def forward(self, o: torch.Tensor, a: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return -(o + 0.1 * a - z[..., :2]).norm(dim=-1)

    agent = problem.agent(encoder=Goal(), reward_decoder=Distance())
    errors = [
        f.value for f in diagnose(agent, problem.family, problem.train, problem.buffer) if "error" in f.experiment
    ]
    assert len(errors) == 2
    assert max(errors) < 1e-2
