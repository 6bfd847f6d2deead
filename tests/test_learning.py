"""What the demo claims: a gap before the self-supervised phase, most of it closed after."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from compare_settings import compare

import smac_lab as lab
from smac_lab.bench.race import native_bf16
from smac_lab.figures.stats import gap_closed, share_of_range
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import Experiment


def test_one_seed_a_fifth_of_the_phase(tmp_path: Path) -> None:
    """The short form: seed 0 of the demo's second act, 4 of its 20 iterations, its default arm."""
    config = dataclasses.replace(lab.SMACConfig.preset("point-robot", "cpu", "narrow"), online_iterations=4)
    experiment = Experiment("point-robot", "cpu", config, (0,), ("self-labelled",), evaluations=1)
    summary = run_experiment(tmp_path / "run", experiment, quiet=True)
    check(summary, "self-labelled", each_closed=0.5, mean_closed=0.6, level=0.65)


@pytest.mark.learning
def test_the_papers_claim(tmp_path: Path) -> None:
    """The demo's first act on its three seeds: the paper's arm closes most of a gap that is there."""
    experiment = Experiment("point-robot", "cpu", lab.SMACConfig.preset("point-robot", "cpu"), (0, 1, 2), ("frozen",))
    summary = run_experiment(tmp_path / "run", experiment, quiet=True)
    gap = gap_closed(summary["before"], summary["arms"]["frozen"])
    assert np.mean(gap.before) > 0.15 * (summary["best"] - summary["random"]), "there is a gap to close"
    assert np.mean(gap.closed) > 0.55
    assert np.mean(summary["arms"]["frozen"]["test"]) > np.mean(summary["before"]["test"])


@pytest.mark.learning
def test_narrow_data(tmp_path: Path) -> None:
    """Its second act: where the encoder reads narrow data, `self-labelled` closes what `frozen` leaves."""
    config = lab.SMACConfig.preset("point-robot", "cpu", "narrow")
    experiment = Experiment("point-robot", "cpu", config, (0, 1, 2), ("frozen", "self-labelled"))
    summary = run_experiment(tmp_path / "run", experiment, quiet=True)
    check(summary, "self-labelled", each_closed=0.5, mean_closed=0.8, level=0.65)
    assert np.mean(gap_closed(summary["before"], summary["arms"]["frozen"]).closed) < 0.5


def check(summary: dict, arm: str, each_closed: float, mean_closed: float, level: float) -> None:
    before, after = summary["before"], summary["arms"][arm]
    whole = summary["best"] - summary["random"]
    gap = gap_closed(before, after)
    assert np.mean(gap.before) > 0.15 * whole, "there is a gap to close"
    assert np.all(gap.closed > each_closed)
    assert np.mean(gap.closed) > mean_closed
    assert np.mean(share_of_range(after["online_context"], summary["random"], summary["best"])) > level
    assert np.all(np.array(after["shift"]) < 0.5 * np.array(before["shift"]))


@pytest.mark.learning
def test_bf16_products_learn_the_same() -> None:
    """Ten seeds, a third of the demo's length: no difference that its interval tells from nothing."""
    differences = compare({"precision": "bf16"}, short=True, emulate=not native_bf16())
    for name in ("after, self-collected context", "gap closed"):
        assert differences[name].low < 0 < differences[name].high, name
