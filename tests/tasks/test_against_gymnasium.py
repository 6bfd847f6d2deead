"""What `compare_with_gymnasium.py` prints: our bodies are gymnasium's, but for the differences that are documented."""

from __future__ import annotations

import compare_with_gymnasium as table
import pytest

from smac_lab.tasks import FAMILIES, MujocoFamily


@pytest.mark.parametrize("comparison", table.COMPARISONS, ids=lambda comparison: comparison.label)
def test_one_step_is_gymnasiums(comparison: table.Comparison) -> None:
    found = table.compare(comparison)
    assert found.state <= 1e-10
    assert found.observation <= 1e-10
    assert found.reward <= 1e-10
    if comparison.family == "ant-dir:velocity_only=True":
        assert found.endings == 0
        assert found.endings_of_one > 5  # of gymnasium's ant alone
    else:
        assert found.endings_of_one == 0
        assert found.endings > 10 or "cheetah" in comparison.family  # the cheetah never falls
    for difference, most in found.differences.items():
        assert most > 1e-3, f"the states never show: {difference}"


def test_every_body_that_gymnasium_has_is_compared() -> None:
    bodies = {name: family for name, family in FAMILIES.items() if issubclass(family, MujocoFamily)}
    gymnasiums = {name for name, family in bodies.items() if family.xml_path is MujocoFamily.xml_path}
    assert {comparison.family.partition(":")[0] for comparison in table.COMPARISONS} == gymnasiums


def test_the_comparison_tells_bodies_and_rewards_apart() -> None:
    feet = table.Comparison("walker-params:feet=paper", "Walker2d-v5", {}, table.runner)
    assert table.compare(feet).state > 1e-3  # a foot that grips less
    effort = table.Comparison("hopper-params", "Hopper-v5", {"ctrl_cost_weight": 2e-3}, table.runner)
    found = table.compare(effort)
    assert found.state == 0
    assert 1e-3 < found.reward <= 3e-3
    bonus = table.Comparison("hopper-params", "Hopper-v5", {}, lambda sample: {})
    assert table.compare(bonus).reward == pytest.approx(1.0)


def test_the_table_has_a_row_a_comparison() -> None:
    result = table.Result(1e-12, 0.0, 2e-11, 0, 3, {"one thing": 0.25})
    lines = table.table({"a": result, "b": result}).splitlines()
    assert lines[2] == "| a | 1.0e-12 | 0.0e+00 | 2.0e-11 | 3 / 0 | one thing (0.25) |"
    assert len(lines) == 4
