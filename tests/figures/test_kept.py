"""Kept results: what is stored, how sittings are joined, and what is still to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smac_lab as lab
from smac_lab.data.storage import claim_folder
from smac_lab.figures import claims, comparison, kept
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import GROWS, Experiment

CONFIG = lab.SMACConfig.preset("ant-dir", "smoke").to_dict()
KINDS = ("offline_context", "online_context", "test", "shift")


def summary(seeds: list[int], arms: tuple[str, ...] = ("frozen",), **more: Any) -> dict[str, Any]:
    """Every value is 10 times its seed, and 1 more for arms."""
    before = {kind: [10.0 * seed for seed in seeds] for kind in KINDS}
    after = {kind: [10.0 * seed + 1 for seed in seeds] for kind in KINDS}
    return {
        "family": "ant-dir", "preset": "smoke", "method": "smac", "seeds": seeds, "default_arm": "frozen",
        "before": before, "arms": dict.fromkeys(arms, after), "random": 1.0, "best": None, "behaviour": 2.0,
        "success_by_description": {}, "seconds": {"offline": 60.0, "frozen": 30.0, "total": 999.0}, "config": CONFIG,
        "commit": "abc", "versions": {"torch": "2"}, "device": "cpu", "threads": 1, **more,
    }  # fmt: skip


# -- joining ---------------------------------------------------------------------------------------------
def test_a_second_sitting_adds_its_seeds() -> None:
    success = {"press": {"test": [0.5, None]}, "hand": {"test": [None, 1.0]}}
    first = summary([0, 2], success_by_description={"before": success})
    second = summary([1], commit="def", random=4.0, seconds={"offline": 90.0, "frozen": 30.0})
    second["success_by_description"] = {"before": {"press": {"test": [0.75]}}}
    found = kept.joined(first, second)
    assert found["seeds"] == [0, 1, 2]
    assert found["before"]["test"] == [0.0, 10.0, 20.0]
    assert found["arms"]["frozen"]["online_context"] == [1.0, 11.0, 21.0]
    described = found["success_by_description"]["before"]
    assert described == {"press": {"test": [0.5, 0.75, None]}, "hand": {"test": [None, None, 1.0]}}
    assert (found["random"], found["best"], found["behaviour"]) == (2.0, None, 2.0)
    assert found["seconds"] == {"offline": 70.0, "frozen": 30.0}
    assert [(part["seeds"], part["commit"]) for part in found["sittings"]] == [([0, 2], "abc"), ([1], "def")]
    assert kept.hours({"run": found}) == pytest.approx(3 * 100 / 3600)
    third = kept.joined(found, summary([3]))
    assert [part["seeds"] for part in third["sittings"]] == [[0, 2], [1], [3]]


def test_of_a_seed_that_both_have_the_new_one_counts() -> None:
    new = summary([1], ("frozen", "oracle"))
    new["before"]["test"] = [7.0]
    found = kept.joined(summary([0, 1]), new)
    assert found["before"]["test"] == [0.0, 7.0]
    assert found["arms"]["oracle"]["test"] == [None, 11.0]
    assert found["arms"]["frozen"]["test"] == [1.0, 11.0]
    assert [part["seeds"] for part in found["sittings"]] == [[0], [1]]


def test_claims_compare_the_seeds_that_both_runs_have() -> None:
    results = {"ant-dir": summary([0, 1, 2])}
    results |= {f"ant-dir-{method}": summary([2, 1], ()) for method in claims.PRIOR_WORK}
    shares = claims.above_prior_work(results, "ant-dir")["macaw, return"]
    assert shares.tolist()[1:] == [1 / 10, 1 / 20]  # 11 against 10 and 21 against 20, above random actions' 1
    assert np.isnan(shares[0]), "macaw has no seed 0"


def test_families_are_pooled_over_the_seeds_that_all_have(tmp_path: Path) -> None:
    for name, seeds in (("ant-dir", [0, 1, 2]), ("walker-params", [2, 1]), ("sawyer", [0])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({**summary(seeds), "family": name, "best": 101.0}))
    found = comparison.gather([tmp_path / "ant-dir", tmp_path / "walker-params"])
    assert found.pool == "all 2 families"
    matrix = found.matrix("frozen", "test")
    assert matrix is not None
    assert matrix.tolist() == [[0.1, 0.1], [0.2, 0.2]]  # seeds 1 and 2
    # One seed has no interval, and would leave one of the others.
    more = comparison.gather([tmp_path / "ant-dir", tmp_path / "walker-params", tmp_path / "sawyer"])
    assert more.pool == "all 2 families with several seeds"
    np.testing.assert_array_equal(more.matrix("frozen", "test"), matrix)
    for name in ("ant-dir", "sawyer"):
        (tmp_path / name / "summary.json").write_text(json.dumps({**summary([0]), "family": name, "best": 101.0}))
    assert comparison.gather([tmp_path / "ant-dir", tmp_path / "sawyer"]).pool == "all 2 families", "all have one seed"


# -- keeping ---------------------------------------------------------------------------------------------
def test_finished_runs_are_kept_small_and_grow_by_seeds(tmp_path: Path) -> None:
    config = lab.SMACConfig.preset("point-robot", "smoke")
    results, stored = tmp_path / "results", tmp_path / "results" / "run"

    def run(*seeds: int) -> dict[str, Any]:
        folder = tmp_path / "-".join(map(str, seeds)) / "run"
        plan = Experiment("point-robot", "smoke", config, seeds, ("frozen",))
        found = run_experiment(folder, plan, workers=1, quiet=True)
        kept.keep(folder, results)
        return json.loads(json.dumps(found))

    first = run(0)
    assert kept.read_results(results) == {"run": first}
    lines = (stored / "curves.csv").read_text().splitlines()
    assert lines[0] == "phase,seed,step,offline_context_return,online_context_return,test_return"
    assert [line.split(",")[:3] for line in lines[1:]][-1] == ["frozen", "0", "2"]
    assert sum(file.stat().st_size for file in results.rglob("*.*")) < 20_000
    again = run(1)
    both = kept.read_results(results)["run"]
    assert both["seeds"] == [0, 1]
    for kind in KINDS:
        assert both["arms"]["frozen"][kind] == first["arms"]["frozen"][kind] + again["arms"]["frozen"][kind]
    curves = [line.split(",") for line in (stored / "curves.csv").read_text().splitlines()[1:]]
    assert len(curves) == 2 * (len(lines) - 1)
    assert [(row[0], row[1]) for row in curves] == sorted((row[0], row[1]) for row in curves), "before, then frozen"
    kept.keep(tmp_path / "1" / "run", results)
    assert len((stored / "curves.csv").read_text().splitlines()) == 1 + len(curves), "nothing twice"
    # Another config is another run: its results replace these.
    other = {**both, "config": {**both["config"], "tau": 0.5}}
    (stored / "summary.json").write_text(json.dumps(other))
    kept.keep(tmp_path / "0" / "run", results)
    assert kept.read_results(results) == {"run": first}
    (stored / "summary.json").write_text("{}")
    with pytest.raises(lab.StorageError, match="is no summary of a run"):
        kept.read_results(results)


# -- what is lacking -------------------------------------------------------------------------------------
def lacking(results: dict[str, Any], seeds: tuple[int, ...] = (0, 1)) -> dict[str, tuple[Any, ...]]:
    """Seeds and arms of each run that is still to be made."""
    sweeps = claims.sweeps(["oracle", "prior-work"], "smoke", Path("x"), seeds, results, ["ant-dir"])
    return {folder.name: (run.seeds, run.arms) for sweep in sweeps for folder, run in sweep.runs().items()}


def test_only_the_seeds_that_are_not_kept_are_run() -> None:
    arms = ("frozen", "oracle")
    names = ["ant-dir", *(f"ant-dir-{method}" for method in claims.PRIOR_WORK)]
    nothing = lacking({})
    assert nothing == {"ant-dir": ((0, 1), arms), **dict.fromkeys(names[1:], ((0, 1), ()))}
    results = {name: summary([0, 1, 2], arms if name == "ant-dir" else ()) for name in names}
    assert lacking(results) == {}
    assert lacking(results, (0, 1, 2, 3)) == {"ant-dir": ((3,), arms), **dict.fromkeys(names[1:], ((3,), ()))}
    fewer = {**results, "ant-dir-macaw": summary([1], ())}
    assert lacking(fewer) == {"ant-dir-macaw": ((0,), ())}
    # Another arm needs the offline phase again, hence all arms; other numbers need everything.
    more = {**results, "ant-dir": kept.joined(summary([0], arms), summary([1], ("frozen", "self-labelled")))}
    assert lacking(more) == {"ant-dir": ((1,), (*arms, "self-labelled"))}
    more["ant-dir"] = summary([0, 1], (*arms, "self-labelled"))
    assert lacking(more, (1, 2)) == {"ant-dir": ((2,), (*arms, "self-labelled"))}, "the new seed has every arm, too"
    other = {**results, "ant-dir": {**results["ant-dir"], "config": {**CONFIG, "tau": 0.5}}}
    assert lacking(other) == {"ant-dir": ((0, 1), arms)}


def test_methods_without_arms_go_with_those_that_have_some() -> None:
    """They learn from its data, and trials of one sweep fill all cores."""
    (sweep,) = claims.sweeps(["oracle", "prior-work"], "smoke", Path("x"), (0, 1), {}, ["ant-dir", "hopper-params"])
    assert sweep.runs()[Path("x/ant-dir-macaw")].data == "x/ant-dir"


def test_methods_do_not_learn_from_a_run_that_lacks_their_seeds(tmp_path: Path) -> None:
    """SMAC's seeds 0 and 1 were run elsewhere: only seed 2 has data here."""
    results = {"ant-dir": summary([0, 1], ("frozen", "oracle"))}
    smac, others = claims.sweeps(["oracle", "prior-work"], "smoke", tmp_path, (0, 1, 2), results, ["ant-dir"])
    (folder, experiment), *more = smac.runs().items()
    assert (folder.name, experiment.seeds, more) == ("ant-dir", (2,), [])
    claim_folder(folder, experiment.to_dict(), GROWS)
    assert {run.data for run in others.runs().values()} == {None}
    assert {run.seeds for run in others.runs().values()} == {(0, 1, 2)}


def test_what_was_begun_for_other_claims_goes_on(tmp_path: Path) -> None:
    """An interrupted `reproduce all` does not stand in the way of `reproduce shift`."""
    (whole,) = claims.sweeps(["oracle"], "smoke", tmp_path, (0, 1), {})
    folder, experiment = next(iter(whole.runs().items()))
    claim_folder(folder, experiment.to_dict(), GROWS)
    (folder / "seed_1" / "oracle").mkdir(parents=True)
    again, others = claims.sweeps(["shift"], "smoke", tmp_path, (0,), {})
    assert (again.seeds, again.arms) == ((0, 1), ("frozen", "oracle"))
    claim_folder(folder, again.runs()[folder].to_dict(), GROWS)
    assert (others.seeds, others.arms) == ((0,), ("frozen",)), "nothing more of the families that were not begun"
