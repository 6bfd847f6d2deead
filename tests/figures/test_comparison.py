"""Runs side by side: scores, tables, the figure, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from smac_lab.figures import comparison

CONFIG = {"online_encoder": "frozen"}


def run_of(folder: Path, family: str, method: str = "smac", returns: float = -5.0, **changes: object) -> Path:
    """A summary as a run of two seeds leaves it."""
    found = {
        "offline_context": [returns + 1, returns + 3],
        "online_context": [returns, returns + 2],
        "test": [returns] * 2,
    }
    found["shift"] = [None, None] if method == "macaw" else [1.0, 2.0]
    arms = {"frozen": {k: [v + 1 if v is not None else v for v in values] for k, values in found.items()}}
    summary = {
        "family": family, "preset": "cpu", "method": method, "seeds": [0, 1], "default_arm": "frozen",
        "before": found, "arms": arms if method == "smac" else {}, "random": -20.0, "best": -4.0, "behaviour": -12.0,
        "config": CONFIG, "seconds": {"offline": 120.0, "frozen": 60.0}, "parameters": 1234, **changes,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        run_of(tmp_path / "a", "point-robot"),
        run_of(tmp_path / "b", "point-robot", "macaw", returns=-9.0),
        run_of(tmp_path / "c", "ant-dir", returns=-6.0),
        run_of(tmp_path / "d", "ant-dir", "macaw", returns=-5.0),
    ]


def test_scores_are_between_random_and_best_known(runs: list[Path]) -> None:
    found = comparison.gather(runs)
    assert found.names == ["smac, offline phase", "frozen", "macaw"]
    assert found.ends == {"point-robot": (-20.0, -4.0), "ant-dir": (-20.0, -4.0)}
    np.testing.assert_allclose(found.scores(found.entries[2], "online_context"), [11 / 16, 13 / 16])
    matrix = found.matrix("macaw", "online_context")
    assert matrix is not None
    np.testing.assert_allclose(matrix, [[15 / 16, 11 / 16], [17 / 16, 13 / 16]])  # families in alphabetical order
    total = comparison.overall(found)
    assert total["macaw"]["online_context"].point == pytest.approx(np.mean([11, 13, 15, 17]) / 16, abs=1e-9)


def test_where_no_controller_is_known_the_best_mean_is_the_end(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / m, "ant-dir", m, returns=r, best=None) for m, r in (("smac", -6.0), ("macaw", -9.0))]
    assert comparison.gather(runs).ends == {"ant-dir": (-20.0, -3.0)}  # the arm's offline context: -6 + 2 + 1


def test_the_table_says_who_took_how_long_and_beats_whom(runs: list[Path]) -> None:
    titles, table = comparison.rows(comparison.gather(runs[:2]))
    assert len(table) == 3
    frozen, macaw = (dict(zip(titles, row, strict=True)) for row in table[1:])
    assert frozen["method"] == "frozen"
    assert frozen["self-collected context"].startswith("-3.00")
    assert frozen["minutes"] == "3.00"  # both phases
    assert frozen["parameters"] == "1,234"
    assert frozen["better than the first"].startswith("75 %")  # three of four pairs of seeds
    assert macaw["better than the first"].startswith("0 %")
    assert macaw["shift"] == "\N{EN DASH}"  # there is no z


def test_two_runs_of_one_method_are_told_apart(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, "ant-dir") for name in ("a", "b")]
    names = comparison.gather(runs).names
    assert names == [f"{name} ({run})" for run in "ab" for name in ("smac, offline phase", "frozen")]
    runs = [run_of(tmp_path / "1" / "ant-dir", "ant-dir"), run_of(tmp_path / "2" / "b", "ant-dir")]
    names = comparison.gather(runs).names  # the first is on the family's default data
    assert names == ["smac, offline phase", "frozen", "smac, offline phase (b)", "frozen (b)"]
    runs = [run_of(tmp_path / name / "run", "ant-dir") for name in ("3", "4")]
    assert comparison.gather(runs).names[1] == f"frozen ({runs[0]})"


def test_all_families_in_brief(tmp_path: Path) -> None:
    success = {f"{kind}_success": [0.5, 0.7] for kind in comparison.RETURNS}
    runs = [
        run_of(tmp_path / "sawyer", "sawyer"),
        run_of(tmp_path / "macaw", "sawyer", "macaw", returns=-9.0),
        run_of(tmp_path / "cloning", "sawyer", "cloning", returns=-8.0),
        run_of(tmp_path / "ant-dir", "ant-dir", returns=-6.0),
        run_of(tmp_path / "ant-dir-near-random", "ant-dir", returns=-1.0),
    ]
    summary = json.loads((runs[0] / "summary.json").read_text())
    summary["before"] |= success
    (runs[0] / "summary.json").write_text(json.dumps(summary))
    assert comparison.in_brief(comparison.gather(runs)).splitlines() == [
        "| family | seeds | smac, offline phase | frozen | best prior work |",
        "|---|---|---|---|---|",
        "| sawyer | 2 | -3.00 / -4.00 / -5.00 | -2.00 / -3.00 / -4.00 | cloning -6.00 / -7.00 / -8.00 |",
        "| sawyer, success | 2 | 60 % / 60 % / 60 % |  |  |",
        "| ant-dir | 2 | -4.00 / -5.00 / -6.00 | -3.00 / -4.00 / -5.00 |  |",
        "| ant-dir-near-random | 2 | 1.00 / 0.00 / -1.00 | 2.00 / 1.00 / 0.00 |  |",
    ]


def test_a_table_over_all_families_needs_all_of_them(runs: list[Path]) -> None:
    assert "all 2 families" in comparison.markdown(comparison.gather(runs))
    three = comparison.markdown(comparison.gather(runs[:3]))
    assert "| macaw |" not in three.split("all 2 families")[1]


def test_latex_is_a_tabular_with_escaped_signs(runs: list[Path]) -> None:
    text = comparison.latex(comparison.gather(runs))
    assert text.startswith(r"\begin{tabular}")
    assert text.count(r"\\") == 1 + 6
    assert "75 \\%" in text
    assert " %" not in text.replace(" \\%", "")


def test_the_figure_has_a_panel_per_family_one_of_all_and_profiles(runs: list[Path]) -> None:
    found = comparison.gather(runs)
    figure = comparison.figure(found)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["point-robot", "ant-dir", "all 2 families", "share of runs above a score"]
    points, profiles = figure.data[:9], figure.data[9:]
    assert [len(trace.x) for trace in points] == [3] * 9  # methods, by panel and kind
    assert [trace.name for trace in profiles] == ["smac, offline phase", "frozen", "macaw"]
    for trace in profiles:
        assert trace.y[0] == 1.0
        assert (np.diff(trace.y) <= 0).all()
    pooled = points[7]  # of all families, given self-collected context
    assert list(pooled.x) == [kinds["online_context"].point for kinds in comparison.overall(found).values()]
    alone = comparison.figure(comparison.gather(runs[:2]))
    assert [annotation.text for annotation in alone.layout.annotations] == ["point-robot", titles[-1]]


def test_a_method_that_lacks_a_family_is_in_no_aggregate_of_the_figure(runs: list[Path]) -> None:
    figure = comparison.figure(comparison.gather(runs[:3]))
    assert [len(trace.x) for trace in figure.data[:9]] == [3] * 3 + [2] * 6  # macaw has the point robot alone
    assert [trace.name for trace in figure.data[9:]] == ["smac, offline phase", "frozen"]


def test_a_score_outside_the_drawn_range_is_an_arrow_at_its_end(tmp_path: Path, runs: list[Path]) -> None:
    far = run_of(tmp_path / "far", "ant-dir", "borel", returns=-90.0)
    trace = comparison.figure(comparison.gather([*runs, far])).data[4]  # ant-dir, self-collected context
    assert trace.x[-1] == comparison.SCORES[0]
    assert trace.customdata[-1] == pytest.approx((-89 + 20) / 16)
    assert list(trace.marker.symbol) == ["circle", "circle", "circle", "triangle-left"]


def test_what_cannot_be_compared_is_told(tmp_path: Path, runs: list[Path]) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        comparison.gather([])
    other = run_of(tmp_path / "e", "ant-dir:contact_cost=False")
    with pytest.raises(ValueError, match="different variants cannot be compared: ant-dir and ant-dir:contact_cost"):
        comparison.gather([*runs, other])
