"""Pages of methods and how-to pages: their form, their code, and the metrics that they list."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import pytest

import smac_lab as lab
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import Experiment

DOCS = Path(__file__).parents[1] / "docs"
METHODS = sorted(set((DOCS / "methods").glob("*.md")) - {DOCS / "methods" / "index.md"})
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
SECTIONS = ["What it is", "Use", "Logged metrics", "Differences from the authors' code", "Evidence"]
name_of = lambda page: page.stem  # noqa: E731


def run_code(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """Run the page's Python, one block after the other, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of everything that a small run logs, in either phase."""
    folder = tmp_path_factory.mktemp("run")
    config = dataclasses.replace(lab.SMACConfig.preset("point-robot", "smoke"), explain_context=True)
    arms = ("frozen", "self-labelled")
    run_experiment(folder, Experiment("point-robot", "smoke", config, arms=arms), quiet=True)
    names: set[str] = set()
    for file in folder.glob("seed_0/*/metrics.csv"):
        with file.open(newline="") as stream:
            names |= set(next(csv.reader(stream)))
    return names - {"step"}


def listed(page: Path) -> set[str]:
    """Metrics in the table of a page of a method."""
    table = page.read_text().split("## Logged metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("page", METHODS, ids=name_of)
def test_a_methods_page_has_the_sections_in_order(page: Path) -> None:
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == SECTIONS
    assert f"({page.name})" in (DOCS / "methods" / "index.md").read_text()
    assert "$$" in page.read_text().split("## Use")[0], "What it is has an equation"


@pytest.mark.parametrize("page", METHODS, ids=name_of)
def test_a_methods_page_lists_metrics_that_are_logged(
    page: Path, logged: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = run_code(page, monkeypatch, tmp_path).get("metrics", {})
    assert listed(page)
    assert listed(page) <= logged | set(own)  # type: ignore[call-overload]


def test_every_logged_metric_is_on_a_page(logged: set[str]) -> None:
    assert logged <= set().union(*map(listed, METHODS))


@pytest.mark.parametrize("page", HOW_TO, ids=name_of)
def test_how_to_pages_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_code(page, monkeypatch, tmp_path)
