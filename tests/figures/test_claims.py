"""Claims: which runs they need, what is judged, and the verdict in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from smac_lab import cli
from smac_lab.figures import claims
from smac_lab.figures.claims import CLAIMS, FAMILIES, PRIOR_WORK
from smac_lab.figures.style import PLOTLY


def summary(offline: float, online: float, arms: dict[str, float], spread: float = 0.1, **more: Any) -> dict[str, Any]:
    """Returns of five seeds on a family where random actions return 0."""
    noise = spread * np.linspace(-1.0, 1.0, 5)

    def phase(first: float, second: float) -> dict[str, list[float]]:
        return {
            "offline_context": (first + noise).tolist(),
            "online_context": (second + noise).tolist(),
            "test": [second] * 5,
            "shift": [1.0] * 5,
        }

    return {
        "family": "cheetah-vel", "preset": "cpu", "method": "smac", "seeds": [0, 1, 2, 3, 4], "default_arm": "frozen",
        "before": phase(offline, online), "arms": {arm: phase(offline, value) for arm, value in arms.items()},
        "random": 0.0, "best": None, "behaviour": 1.0, "config": {}, "seconds": {}, **more,
    }  # fmt: skip


def judged(name: str, **results: dict[str, Any]) -> dict[str, str]:
    """The verdicts on the half-cheetah, by what is compared."""
    runs = {f"cheetah-vel{suffix}".replace("_", "-"): found for suffix, found in results.items()}
    return {verdict.about: verdict.words for verdict in claims.verdicts([name], runs)}


# -- verdicts --------------------------------------------------------------------------------------------
def test_shares_by_hand() -> None:
    results = {"cheetah-vel": summary(10.0, 4.0, {"frozen": 8.0, "oracle": 9.0}, spread=0.0)}
    np.testing.assert_allclose(claims.lost(results, "cheetah-vel")["return"], 0.6)
    np.testing.assert_allclose(claims.closed(results, "cheetah-vel")["return"], 1 - 2 / 6)
    np.testing.assert_allclose(claims.near_oracle(results, "cheetah-vel")["return"], 8 / 9)
    results["cheetah-vel-macaw"] = summary(6.0, 2.0, {}, spread=0.0)
    results |= {f"cheetah-vel-{m}": summary(6.0, 4.0, {}, spread=0.0) for m in PRIOR_WORK[1:]}
    shares = claims.above_prior_work(results, "cheetah-vel")
    np.testing.assert_allclose(shares["macaw, return"], 0.75)
    np.testing.assert_allclose(shares["borel, return"], 0.5)
    results["cheetah-vel-near-random"] = summary(9.0, 3.0, {"self-labelled": 6.0}, spread=0.0)
    np.testing.assert_allclose(claims.without_exploration(results, "cheetah-vel")["return"], 0.75)


def test_words_follow_from_the_interval_and_the_bound() -> None:
    assert judged("shift", **{"": summary(10.0, 4.0, {})}) == {"return": "holds"}
    assert judged("shift", **{"": summary(10.0, 9.9, {})}) == {"return": "does not hold"}
    assert judged("oracle", **{"": summary(10.0, 4.0, {"frozen": 9.0, "oracle": 10.0}, spread=1.0)}) == {
        "return": "cannot be told with 5 seeds"
    }
    # No gap, so that there is nothing to close.
    none = judged("closes", **{"": summary(10.0, 10.0, {"frozen": 10.0})})
    assert none == {"return": "cannot be told: there is no gap, or no gain, to measure it by"}
    # An agent no better than random actions has no gain of which a share could be lost.
    assert judged("shift", **{"": summary(-1.0, -2.0, {})})["return"].startswith("cannot be told: there is no gap")


def test_all_claims_in_brief() -> None:
    results = {"cheetah-vel": summary(10.0, 4.0, {"frozen": 9.9}), "ant-dir": summary(10.0, 9.9, {"frozen": 9.9})}
    results |= {f"cheetah-vel-{m}": summary(6.0, 4.0, {}) for m in PRIOR_WORK[1:]}
    results["cheetah-vel-macaw"] = summary(9.9, 9.9, {})
    found = claims.verdicts(["shift", "closes", "prior-work"], results)
    assert claims.in_brief(found).splitlines()[2:] == [
        "| shift | ant-dir |  | cheetah-vel |",
        "| closes |  | ant-dir | cheetah-vel |",
        "| prior-work | cheetah-vel (macaw) |  | cheetah-vel (borel, cloning, offline-pearl) |",
    ]


def test_one_seed_tells_nothing() -> None:
    one = summary(10.0, 4.0, {})
    one["seeds"], one["before"] = [0], {name: values[:1] for name, values in one["before"].items()}
    assert judged("shift", **{"": one}) == {"return": "cannot be told with 1 seed"}


def test_success_is_judged_beside_the_return() -> None:
    run = summary(10.0, 9.9, {})
    run["before"] |= {
        "offline_context_success": [0.9] * 5,
        "online_context_success": [0.2] * 5,
        "test_success": [0.2] * 5,
    }
    assert judged("shift", **{"": run}) == {"return": "does not hold", "success": "holds"}


def test_what_has_no_results_is_left_out_and_misses_come_first() -> None:
    runs = {"cheetah-vel": summary(10.0, 4.0, {}), "ant-dir": summary(10.0, 9.9, {})}
    found = claims.verdicts(list(CLAIMS), runs)
    assert {(verdict.claim, verdict.family) for verdict in found} == {("shift", "cheetah-vel"), ("shift", "ant-dir")}
    table = claims.markdown(found)
    assert table.index("| ant-dir | return | 1 % [1, 1 %] | 5 | does not hold |") < table.index("| cheetah-vel |")
    drawn = claims.figure(found)
    assert len(drawn.data) == 1
    assert list(drawn.data[0].y) == ["cheetah-vel, return", "ant-dir, return"]


# -- runs ------------------------------------------------------------------------------------------------
def test_every_run_that_a_claim_reads_is_run() -> None:
    """Sweeps of all claims name exactly the runs that the judges look up."""
    runs = [folder.name for sweep in claims.sweeps(list(CLAIMS), "cpu", Path("x"), (0,), {}) for folder in sweep.runs()]
    assert len(runs) == len(set(runs)) == 7 * 5 - 2 + 1  # BOReL cannot relabel data of other bodies
    looked: set[str] = set()

    class Looked(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            looked.add(name)
            arms = {"frozen": 8.0, "oracle": 9.0, "self-labelled": 9.0}
            return summary(10.0, 4.0, arms)

    claims.verdicts(list(CLAIMS), Looked())
    assert looked == set(runs)
    main, near_random = claims.sweeps(list(CLAIMS), "cpu", Path("x"), (0,), {})
    assert set(main.families) == set(FAMILIES)
    assert set(main.arms) == {"frozen", "oracle"}
    assert near_random.runs()[Path("x/cheetah-vel-near-random")].config.exploration_transitions == 0
    assert near_random.arms == ("self-labelled",)
    # A claim alone asks for what it reads and no more.
    one, other = claims.sweeps(["self-labelled"], "cpu", Path("x"), (0,), {})
    assert (one.families, one.arms, other.arms) == (("cheetah-vel",), ("frozen",), ("self-labelled",))


def test_the_command_knows_every_claim() -> None:
    assert get_args(get_args(get_type_hints(cli.reproduce, include_extras=True)["claim"])[0]) == ("all", *CLAIMS)


def test_the_command_judges_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "kept" / "cheetah-vel"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(10.0, 4.0, {"frozen": 8.0})))
    cli.read(["reproduce", "all", "--no-run", "--results", str(tmp_path / "kept")])()
    said = capsys.readouterr().out
    assert "| cheetah-vel | return | 60 % [60, 60 %] | 5 | holds |" in said
    assert "**Online data without rewards closes that gap.**" in said
    assert "true rewards.**" not in said, "the oracle was not run"
    page = (tmp_path / "kept-all.html").read_text()
    assert "Plotly.newPlot(" in page
    assert PLOTLY.read_text() in page
    with pytest.raises(ValueError, match="has no results of oracle"):
        cli.read(["reproduce", "oracle", "--no-run", "--results", str(tmp_path / "kept")])()


def test_one_family_alone_is_run_and_judged(tmp_path: Path) -> None:
    (sweep,) = claims.sweeps(["prior-work"], "cpu", tmp_path, (0,), {}, ["ant-dir"])
    assert {run.family for run in sweep.runs().values()} == {"ant-dir"}
    assert len(sweep.runs()) == 1 + len(PRIOR_WORK)
    results = {family: summary(10.0, 4.0, {"frozen": 8.0}) for family in ("ant-dir", "cheetah-vel")}
    assert [verdict.family for verdict in claims.verdicts(["closes"], results, ["ant-dir"])] == ["ant-dir"]
    assert claims.sweeps(["self-labelled"], "cpu", tmp_path, (0,), {}, ["ant-dir"]) == [], "it is about the cheetah"
    with pytest.raises(ValueError, match="--family mars is not allowed: claims are about point-robot, cheetah-vel"):
        cli.read(["reproduce", "closes", "--family", "mars"])()
