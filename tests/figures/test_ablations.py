"""Ablations: which runs they need, and what is said of their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smac_lab import cli
from smac_lab.config import SMACConfig
from smac_lab.figures import ablations
from smac_lab.figures.ablations import ABLATIONS
from smac_lab.runs.sweep import Sweep


def stored(returns: list[float], arms: dict[str, list[float]]) -> dict[str, object]:
    def phase(values: list[float]) -> dict[str, list[float]]:
        kinds = ("offline_context", "online_context", "test", "shift")
        return {kind: [value + 10 * i for value in values] for i, kind in enumerate(kinds)}

    return {
        "family": "point-robot", "preset": "cpu", "seeds": [0, 1, 2], "default_arm": "frozen", "random": -20.0,
        "before": phase(returns), "arms": {arm: phase(values) for arm, values in arms.items()}, "best": None,
        "behaviour": -16.0, "config": SMACConfig.preset("point-robot").to_dict(),
    }  # fmt: skip


@pytest.mark.parametrize("family", ["point-robot", "cheetah-vel", "sawyer"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_alternative_differs_from_the_preset_and_from_the_others(name: str, family: str) -> None:
    config = SMACConfig.preset(family)
    others = ABLATIONS[name].others(config)
    changed = [config.to_dict() | fields for fields in others]
    assert len(others) + len(ABLATIONS[name].arms) >= 2
    assert all(one != config.to_dict() and SMACConfig.from_dict(one) for one in changed)
    assert len({json.dumps(one) for one in changed}) == len(changed)


def test_tenfold_is_a_tenth_and_ten_times() -> None:
    assert ABLATIONS["lambda"].others(SMACConfig.preset("point-robot")) == [{"awac_lambda": 0.05}, {"awac_lambda": 5.0}]


def test_what_is_kept_is_not_run_again(tmp_path: Path) -> None:
    default, others = ablations.sweeps("cpu", tmp_path, (0, 1), {}, ["point-robot"])
    assert default.arms == ("frozen", "no-awac", "no-q")
    assert others.arms == ("frozen",)
    runs = {folder.name: run.to_dict() for folder, run in others.runs().items()}
    assert "point-robot-awac_lambda-0.05" in runs
    assert "point-robot" not in runs

    def kept_of(sweep: Sweep) -> dict[str, dict[str, Any]]:
        arms = {arm: {"online_context": [-9.0, -8.0]} for arm in sweep.arms}
        found = {folder.name: run.to_dict() | {"arms": arms} for folder, run in sweep.runs().items()}
        return json.loads(json.dumps(found))

    kept, done = kept_of(default), kept_of(others)
    assert [sweep.arms for sweep in ablations.sweeps("cpu", tmp_path, (0, 1), kept, ["point-robot"])] == [("frozen",)]
    assert ablations.sweeps("cpu", tmp_path, (0, 1), kept | done, ["point-robot"]) == []


def test_the_command_shows_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"frozen": [-9.0, -9.0, -9.0], "no-awac": [-11.0, -11.0, -11.0]}
    for name, found in {
        "point-robot": stored([-8.0] * 3, arms),
        "point-robot-awac_lambda-5.0": stored([-15.0] * 3, {"frozen": [-14.0, -13.0, -12.0]}),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(found))
    cli.read(["ablate", "--no-run", "--results", str(tmp_path)])()
    said = capsys.readouterr().out
    assert "**lambda**: lambda, which divides the advantages." in said
    # measures: offline context, self-collected context (10 more), held-out (20 more), before and after
    assert "| point-robot | awac_lambda=0.5 (preset) | -8.00 [-8.00, -8.00] | 2.00 [2.00, 2.00] |" in said
    assert "| point-robot | awac_lambda=5.0 | -15.00 [-15.00, -15.00] |" in said
    assert "-13.00 [-14.00, -12.00] | -3.00 [-4.00, -2.00] | 7.00 [6.00, 8.00] |" in said
    assert "| point-robot | no-awac |" in said
    assert "no-q" not in said, "that arm was not run"
    drawn = ablations.figure(list(ablations.rows({"point-robot": stored([-8.0] * 3, arms)}, ["point-robot"])))
    assert list(drawn.data[0].x) == [-9.0, -11.0], "the first panel: offline context, both arms"
    with pytest.raises(ValueError, match="has no results of ablations"):
        cli.read(["ablate", "--no-run", "--family", "sawyer", "--results", str(tmp_path)])()
