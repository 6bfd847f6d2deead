"""Kept results: summaries and return curves of finished runs, as `<folder>/<run>/summary.json` and `curves.csv`.

A run may be made in several sittings, on several machines: each adds its seeds, and only what is lacking is run.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smac_lab.arms import folder_of
from smac_lab.data.storage import read_json, replace_text
from smac_lab.figures import findings
from smac_lab.runs.plan import Experiment
from smac_lab.runs.sweep import Sweep

Summary = Mapping[str, Any]
Results = Mapping[str, Summary]  # by the run's name
CURVES = ("offline_context_return", "online_context_return", "test_return")
SAME = ("family", "preset", "method", "config")  # of the sittings of one run
SITTING = ("seeds", "commit", "versions", "device", "threads")


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the kept summaries by the run's name.

    Raises:
        StorageError: a summary is damaged.
    """
    return {file.parent.name: findings.read_summary(file.parent) for file in sorted(folder.glob("*/summary.json"))}


def keep(run: Path, results: Path) -> None:
    """Copy a finished run's summary and return curves to a folder of results.

    They join what is kept of the same run; of a seed that is kept already, the new result replaces the old one.
    """
    found, folder = findings.read_run(run), results / run.name
    summary, curves = found.summary, _curves(found)
    if (folder / "summary.json").exists() and _same(kept := findings.read_summary(folder), summary):
        curves = [row for row in _read_curves(folder) if int(row[1]) not in summary["seeds"]] + curves
        summary = joined(kept, summary)
    phases = ["before", *map(folder_of, summary["arms"])]
    curves.sort(key=lambda row: (phases.index(row[0]), int(row[1]), int(row[2])))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["phase", "seed", "step", *CURVES], *curves])
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "curves.csv", text.getvalue())
    replace_text(folder / "summary.json", json.dumps(summary, indent=1))


def _curves(found: findings.Run) -> list[list[str]]:
    rows = []
    for phase, seeds in found.metrics.items():
        for seed, columns in seeds.items():
            if all(name in columns for name in CURVES):
                values = np.stack([columns[name] for name in ("step", *CURVES)], axis=1)
                for step, *returns in values[np.isfinite(values).all(1)]:
                    rows.append([folder_of(phase), str(seed), str(int(step)), *(f"{one:.6g}" for one in returns)])
    return rows


def _read_curves(folder: Path) -> list[list[str]]:
    file = folder / "curves.csv"
    return list(csv.reader(file.read_text(encoding="utf-8").splitlines()))[1:] if file.exists() else []


def _same(first: Summary, second: Summary) -> bool:
    return all(first.get(name) == second.get(name) for name in SAME)


def joined(kept: Summary, new: Summary) -> dict[str, Any]:
    """Join two summaries of one run; of a seed that both have, the new one counts.

    A seed has None for an arm that it lacks. `sittings` lists the commit, versions and machine of every seed. There is
    no total time, which would count what was replaced.
    """
    source = {seed: (summary, at) for summary in (kept, new) for at, seed in enumerate(summary["seeds"])}
    seeds = sorted(source)

    def names(*path: str) -> list[str]:
        """Return the names at a path, in either summary."""
        return list(dict.fromkeys([*_at(kept, path, {}), *_at(new, path, {})]))

    def value(seed: int, *path: str) -> float | None:
        """Return a seed's value at the path of a list."""
        summary, at = source[seed]
        values = _at(summary, path, [])
        return values[at] if at < len(values) else None

    def values(*path: str) -> dict[str, list[float | None]]:
        """Return the values of every seed by the names at a path."""
        return {name: [value(seed, *path, name) for seed in seeds] for name in names(*path)}

    def mean(*path: str) -> float | None:
        """Return the mean over seeds of what summaries have the mean of."""
        known = [found for seed in seeds if (found := _at(source[seed][0], path, None)) is not None]
        return float(np.mean(known)) if known else None

    said, left = "success_by_description", [seed for seed in seeds if source[seed][0] is kept]
    return {
        **new,
        "seeds": seeds,
        "before": values("before"),
        "arms": {arm: values("arms", arm) for arm in names("arms")},
        said: {phase: {task: values(said, phase, task) for task in names(said, phase)} for phase in names(said)},
        **{name: mean(name) for name in ("random", "best", "behaviour")},
        "seconds": {phase: mean("seconds", phase) for phase in names("seconds") if phase != "total"},
        "sittings": [
            *_sittings(kept, left),
            *_sittings(new, new["seeds"]),
        ],
    }


def _at(summary: Summary, path: Iterable[str], default: Any) -> Any:
    found: Any = summary
    for name in path:
        found = found.get(name, {})
    return default if found is None or found == {} else found


def _sittings(summary: Summary, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the sittings that made these seeds of a summary."""
    every = summary.get("sittings", [{name: summary.get(name) for name in SITTING}])
    counted = [{**one, "seeds": [seed for seed in one["seeds"] if seed in seeds]} for one in every]
    return [one for one in counted if one["seeds"]]


def hours(results: Results) -> float:
    """Sum the time that all seeds and phases of the results took to learn, as if one after the other."""
    of_phases = [
        (seconds, len(summary["seeds"]))
        for summary in results.values()
        for phase, seconds in summary["seconds"].items()
        if phase != "total"
    ]
    return sum(seconds * seeds for seconds, seeds in of_phases) / 3600


# -- what is lacking -------------------------------------------------------------------------------------
def missing(sweep: Sweep, kept: Results) -> list[Sweep]:
    """List the runs of a sweep that kept results lack, with what was begun: a sweep for each set of seeds and arms.

    A seed is run with all arms that are kept of the run, so that all seeds have the same.
    """
    runs = sweep.runs()
    groups: dict[tuple[tuple[int, ...], tuple[str, ...]], list[str]] = {}
    # Methods without arms come last: they join SMAC's group, whose data they use, if they lack the same seeds.
    for folder, run in sorted(runs.items(), key=lambda item: not item[1].arms):
        of_seeds = _arms_by_seed(kept.get(folder.name), run)
        lacking = [seed for seed in run.seeds if seed not in of_seeds or set(run.arms) - set(of_seeds[seed])]
        if not lacking:
            continue
        begun = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
        seeds = _unique(lacking, begun.get("seeds", ()))
        arms = _unique(run.arms, begun.get("arms", ()), *of_seeds.values())
        fits = next((key for key in groups if key[0] == seeds and not arms), (seeds, arms))
        groups.setdefault(fits, []).append(folder.name)

    def part(seeds: tuple[int, ...], arms: tuple[str, ...], names: Sequence[str]) -> Sweep:
        others = [folder.name for folder in runs if folder.name not in names]
        return dataclasses.replace(sweep, seeds=seeds, arms=arms, skip=(*sweep.skip, *others))

    return [part(*group, names) for group, names in groups.items()]


def _arms_by_seed(summary: Summary | None, run: Experiment) -> dict[int, list[str]]:
    """Map the kept seeds of a run to the arms that they have; nothing of another config."""
    if summary is None or summary["config"] != json.loads(json.dumps(run.config.to_dict())):
        return {}
    arms = summary["arms"].items()
    return {
        seed: [arm for arm, found in arms if found["online_context"][at] is not None]
        for at, seed in enumerate(summary["seeds"])
    }


def _unique(*parts: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(itertools.chain(*parts)))
