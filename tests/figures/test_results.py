"""Kept results: the pages quote them as they are, and they say how they were made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smac_lab.figures import ablations, comparison
from smac_lab.figures.ablations import ABLATIONS
from smac_lab.figures.claims import read_results
from smac_lab.figures.findings import bounds, number, read_summary
from smac_lab.figures.stats import over_seeds

ROOT = Path(__file__).parents[2]
KEPT = sorted(file.parent for file in (ROOT / "results").glob("*/*/summary.json"))
ABLATED = sorted(file.parent for file in (ROOT / "results" / "ablations").glob("*/*/summary.json"))
QUOTED = (ROOT / "docs" / "results.md").read_text().replace("**", "").replace("`", "").splitlines()


def test_some_are_kept() -> None:
    assert len(KEPT) >= 4


@pytest.mark.parametrize("run", KEPT, ids=lambda run: run.name)
def test_the_page_quotes_every_run_as_compare_prints_it(run: Path) -> None:
    rows = comparison.markdown(comparison.gather([run])).splitlines()[2:]
    assert rows
    for row in rows:
        returns = [cell.strip() for cell in row.split("|")[4:7]]
        assert all(re.fullmatch(r"-?[\d.,]+ \[.*\]", cell) for cell in returns), returns
        name = row.split("|")[3].strip().replace("-", " ")
        assert any(name in line.lower() and " | ".join(returns) in line for line in QUOTED), row


@pytest.mark.parametrize("run", KEPT + ABLATED, ids=lambda run: run.name)
def test_a_result_names_its_origin(run: Path) -> None:
    summary = read_summary(run)
    assert run.parent.name == summary["preset"]
    assert re.fullmatch("[0-9a-f]{40}", summary["commit"])
    assert {"torch", "mujoco", "smac-lab"} <= set(summary["versions"])
    rows = [line.split(",") for line in (run / "curves.csv").read_text().splitlines()[1:]]
    assert {int(row[1]) for row in rows} == set(summary["seeds"])
    assert {row[0] for row in rows} == {"before", *summary["arms"]}


def test_the_page_quotes_the_ablations() -> None:
    found = read_results(ROOT / "results" / "ablations" / "cpu")
    rows = list(ablations.rows(found, ["point-robot"]))
    assert {row.ablation for row in rows} == set(ABLATIONS)
    for row in rows:
        before, after = (
            [number(over_seeds(measures[kind]).point) for kind in ("offline_context", "online_context", "test")]
            for measures in (row.before, row.after)
        )
        after[1] += " " + bounds(over_seeds(row.after["online_context"]))
        assert any(f"| {row.label} | {' / '.join(before)} | {' / '.join(after)} |" in line for line in QUOTED), row
