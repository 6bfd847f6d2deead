"""Kept results: the pages quote them as they are, and they say how they were made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smac_lab.figures import ablations, claims, comparison
from smac_lab.figures.ablations import ABLATIONS
from smac_lab.figures.findings import bounds, number, read_summary
from smac_lab.figures.kept import read_results
from smac_lab.figures.stats import over_seeds

ROOT = Path(__file__).parents[2]
KEPT = sorted(file.parent for file in (ROOT / "results").glob("*/*/summary.json"))
ABLATED = sorted(file.parent for file in (ROOT / "results" / "ablations").glob("*/*/summary.json"))
README = (ROOT / "README.md").read_text()
QUOTED = (ROOT / "docs" / "results.md").read_text().replace("**", "").replace("`", "").splitlines()


def test_some_are_kept() -> None:
    assert len(KEPT) >= 4


@pytest.mark.parametrize("run", KEPT, ids=lambda run: run.name)
def test_the_page_quotes_every_run_as_compare_prints_it(run: Path) -> None:
    rows = comparison.markdown(comparison.gather([run])).splitlines()[2:]
    interval = r" \[.*\]" if len(read_summary(run)["seeds"]) > 1 else ""
    assert rows
    for row in rows:
        returns = [cell.strip() for cell in row.split("|")[4:7]]
        assert all(re.fullmatch(rf"-?[\d.,]+{interval}", cell) for cell in returns), returns
        name = row.split("|")[3].strip().replace("-", " ")
        assert any(name in line.lower().replace("-", " ") and " | ".join(returns) in line for line in QUOTED), row


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


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.replace("*", "").replace("`", "").strip()[1:-1].split("|")]


def _table(text: str, first: str) -> list[list[str]]:
    """Rows of the Markdown table whose first title is `first`."""
    lines = text.split(f"\n| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    return [_cells(line) for line in lines]


def test_the_readme_quotes_the_verdicts() -> None:
    found = claims.verdicts(list(claims.CLAIMS), read_results(ROOT / "results" / "cpu"))
    brief = [_cells(line) for line in claims.in_brief(found).splitlines()[2:]]
    assert _table(README, "claim") == brief


def test_the_readme_quotes_returns_as_compare_prints_them() -> None:
    brief = comparison.in_brief(comparison.gather(sorted((ROOT / "results" / "cpu").iterdir()))).splitlines()
    columns = _cells(brief[0])
    printed = {row[0]: dict(zip(columns, row, strict=True)) for row in map(_cells, brief[2:])}
    quoted = {row[0]: row[1:] for row in _table(README, "family")}
    assert set(quoted) == set(printed)
    for family, cells in quoted.items():
        shown = [name for name in columns[1:] if name in printed[family]]
        assert cells == [printed[family][name] for name in shown], family
