"""Findings of a run: its folder as arrays, and the sections of its report."""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from smac_lab.arms import folder_of
from smac_lab.data.storage import StorageError, read_json, reading
from smac_lab.figures import plots, style
from smac_lab.figures.stats import Interval, gap_closed, over_seeds, share_of_range
from smac_lab.runs.measurement import SUCCESSES, load_measurement

Array = NDArray[np.float64]
MEASURES = {  # label with unit, and whether it is a percentage
    "offline_context": ("offline context (return)", False),
    "online_context": ("self-collected context (return)", False),
    "test": ("held-out tasks (return)", False),
    "closed": ("gap closed", True),
    "recovered": ("recovered", True),
    "range": ("share of range", True),
    "shift": ("shift", False),
    "offline_context_success": ("success at the last step, offline context", True),
    "online_context_success": ("success at the last step, self-collected context", True),
    "test_success": ("success at the last step, held-out tasks", True),
    "offline_context_success_ever": ("success at any step, offline context", True),
    "online_context_success_ever": ("success at any step, self-collected context", True),
    "test_success_ever": ("success at any step, held-out tasks", True),
    "velocity_error_offline": ("velocity error, offline context (m/s)", False),
    "velocity_error_online": ("velocity error, self-collected context (m/s)", False),
}
NEEDED = ("family", "preset", "seeds", "default_arm", "before", "arms", "random", "best", "config")  # of a summary
NOTE_OF_ONE_SEED = "one seed: no interval"


class Run(NamedTuple):
    """Contents of a run's folder. A phase is "before" (after the offline phase) or an arm."""

    folder: Path
    summary: dict[str, Any]
    experiment: dict[str, Any]  # config.json; empty if it is missing
    phases: dict[str, dict[str, Array]]  # phase to measure to one value per seed, NaN if unknown
    measurements: dict[str, dict[int, dict[str, Array]]]  # phase to seed to arrays
    metrics: dict[str, dict[int, dict[str, Array]]]  # phase to seed to columns of metrics.csv, NaN for empty cells
    missing: list[str]  # arms and files that this run lacks

    @property
    def default(self) -> str | None:
        """The arm of the text: the default arm if it was run, else the first; None without arms."""
        arms = list(self.summary["arms"])
        return self.summary["default_arm"] if self.summary["default_arm"] in arms else (arms[0] if arms else None)

    @property
    def shown_seed(self) -> int | None:
        """The first seed among those measured in most phases; None if there is none."""
        measured = self.measurements["before"]
        return max(measured, key=lambda s: sum(s in found for found in self.measurements.values()), default=None)

    @property
    def family(self) -> Any:
        """The task family; None if it is not installed."""
        from smac_lab.tasks import make_family

        try:
            return make_family(self.summary["family"])
        except ValueError:
            return None

    def scale(self, tasks: Array) -> style.TaskScale:
        """Return the colour scale of tasks."""
        return style.task_scale(tasks, getattr(self.family, "task_label", "task"))

    def posteriors(self, seed: int) -> dict[str, plots.Posteriors]:
        """Return a seed's posteriors in each measured phase; empty without z."""
        found = {p: seeds[seed] for p, seeds in self.measurements.items() if "online_mean" in seeds.get(seed, {})}
        return {p: plots.Posteriors(*(f[name] for name in plots.Posteriors._fields)) for p, f in found.items()}


class Section(NamedTuple):
    """A heading, a computed caption, and a figure, table or film."""

    heading: str
    caption: str
    body: go.Figure | dict[str, dict[str, str]] | str  # table: row to phase to cell; film: URL


# -- reading -------------------------------------------------------------------------------------------


def read_run(run_dir: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        FileNotFoundError: the folder has no `summary.json`.
        StorageError: `summary.json` lacks an entry, or a file is damaged.
    """
    folder = Path(run_dir)
    summary = read_summary(folder)
    with reading(folder):
        return _read_run(folder, summary)


def read_summary(folder: Path) -> dict[str, Any]:
    """Read and check the `summary.json` of a run, or of kept results.

    Raises:
        FileNotFoundError: the folder has none.
        StorageError: it lacks an entry, or one has another type.
    """
    file = folder / "summary.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no summary.json: is it the folder of a finished run?")
    summary = read_json(file)
    if lacking := [name for name in NEEDED if name not in summary]:
        raise StorageError(f"{file} is no summary of a run: it lacks {', '.join(lacking)}")
    with reading(file):
        _check_summary(summary)
    return summary


def _check_summary(summary: Mapping[str, Any]) -> None:
    """Raise ValueError if an entry has another type than `write_summary` gives it."""
    seeds = summary["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"seeds={seeds!r:.100} must be a list of integers")
    for name in ("family", "preset", "default_arm"):
        if not isinstance(summary[name], str):
            raise ValueError(f"{name}={summary[name]!r:.100} must be a text")
    for name in ("arms", "config", "seconds", "success_by_description", "versions"):
        if not isinstance(summary.get(name, {}), dict):
            raise ValueError(f"{name}={summary[name]!r:.100} must be an object")
    numbers = {name: summary.get(name) for name in ("random", "best", "behaviour", "parameters")}
    for name, value in {**numbers, **summary.get("seconds", {})}.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"{name}={value!r:.100} must be a number")
    for phase, lists in {"before": summary["before"], **summary["arms"]}.items():
        if not isinstance(lists, dict):
            raise ValueError(f"{phase}={lists!r:.100} must be an object")
        for name, values in lists.items():
            if not isinstance(values, list) or not all(v is None or type(v) in (int, float) for v in values):
                raise ValueError(f"{name} of {phase} must be a list of one number per seed, got {values!r:.100}")


def _read_run(folder: Path, summary: dict[str, Any]) -> Run:
    experiment = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    phases = measures(summary)
    run = Run(folder, summary, experiment, phases, {p: {} for p in phases}, {p: {} for p in phases}, [])
    run.missing.extend(f"seed {seed}" for seed in experiment.get("seeds", []) if seed not in summary["seeds"])
    run.missing.extend(f"arm {arm}" for arm in experiment.get("arms", []) if arm not in summary["arms"])
    for phase in phases:
        for seed in summary["seeds"]:
            here = folder / f"seed_{seed}" / ("offline" if phase == "before" else folder_of(phase))
            for name, read, found in (
                ("measurement.npz", load_measurement, run.measurements),
                ("metrics.csv", _read_columns, run.metrics),
            ):
                if (here / name).is_file():
                    found[phase][seed] = read(here / name)
                else:
                    run.missing.append(str((here / name).relative_to(folder)))
        for name in ("velocity_error_offline", "velocity_error_online"):
            errors = [run.measurements[phase].get(seed, {}).get(name, np.nan) for seed in summary["seeds"]]
            phases[phase][name] = np.array(errors, dtype=np.float64)
    return run


def _read_columns(path: Path) -> dict[str, Array]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}


def measures(summary: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Collect the measures of a summary: phase to measure to `(seed,)`; NaN where missing."""
    n = len(summary["seeds"])
    phases: dict[str, dict[str, Array]] = {}
    for phase, lists in {"before": summary["before"], **summary["arms"]}.items():
        names = ["offline_context", "online_context", "test", "shift", *(n for n in lists if "success" in n)]
        found = {name: np.array([*lists.get(name, []), *[None] * n][:n], dtype=np.float64) for name in names}
        before = phases.get("before", found)
        gap = gap_closed(before, found, negligible_gap(before, summary.get("random")))
        unknown = np.full(n, np.nan)
        found["closed"], found["recovered"] = (gap.closed, gap.recovered) if phases else (unknown, unknown)
        found["range"] = share_of_range(found["online_context"], summary.get("random"), summary.get("best"))
        phases[phase] = found
    return phases


def negligible_gap(before: Mapping[str, Array], random: float | None) -> float:
    """Return the gap up to which no share is given: 2 % of offline context's gain over random actions."""
    return 0.0 if random is None else 0.02 * abs(float(np.mean(before["offline_context"])) - random)


# -- numbers as words ----------------------------------------------------------------------------------


def number(value: float | None, percent: bool = False) -> str:
    """Format a number with two decimals, or fewer if it is large; a dash if unknown."""
    if value is None or not np.isfinite(value):
        return "\N{EN DASH}"
    if percent:
        return f"{100 * value:.0f} %"
    text = f"{value:.{2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def bounds(estimate: Interval, percent: bool = False) -> str:
    """Format an interval's bounds in brackets; empty if unknown."""
    if not np.isfinite(estimate.low):
        return ""
    return f"[{number(estimate.low, percent)}, {number(estimate.high, percent)}]".replace(" %,", ",")


def references(summary: Mapping[str, Any]) -> str:
    """List the known returns of random actions, behaviour data and best controller, as text."""
    labels = {"random": "random actions", "behaviour": "behaviour data", "best": "best known controller"}
    return ", ".join(f"{label} {number(summary[k])}" for k, label in labels.items() if summary.get(k) is not None)


def _mean(seeds: Array) -> str:
    return number(over_seeds(seeds).point)


def _each(values: Mapping[str, float]) -> str:
    return ", ".join(f"{number(value)} ({phase})" for phase, value in values.items())


def _wins(first: Array, second: Array) -> str:
    """Count the seeds in which `second` is higher; empty with fewer than two."""
    both = np.isfinite(first) & np.isfinite(second)
    return f", higher in {int((second > first)[both].sum())} of {int(both.sum())} seeds" if both.sum() > 1 else ""


def success_cells(summary: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return success at the last step, in %, by task description and phase: offline / self-collected / held-out.

    Values are means over seeds. The result is empty without success or descriptions.
    """
    phases = {phase: found for phase, found in summary.get("success_by_description", {}).items() if found}
    cells: dict[str, dict[str, str]] = {}
    for phase, found in phases.items():
        for description, shares in found.items():
            means = [over_seeds(np.array(shares.get(name, [np.nan]))).point for name in SUCCESSES.values()]
            cell = " / ".join(number(mean, True).removesuffix(" %") for mean in means)
            cells.setdefault(description, {})[phase] = cell
    return cells


def headline(run: Run) -> str:
    """Summarise the result."""
    before = run.phases["before"]
    gap = over_seeds(before["offline_context"] - before["online_context"])
    text = (
        f"After the offline phase the agent collects {_mean(before['offline_context'])} return an episode given "
        f"offline context, and {_mean(before['online_context'])} given context that it collected itself: a gap of "
        f"{number(gap.point)} {bounds(gap)}".rstrip()
        + ". "
    )
    if run.default is None:
        return text + "No arm of the self-supervised phase was run."
    after = run.phases[run.default]
    online, left = over_seeds(after["online_context"]), over_seeds(after["offline_context"] - after["online_context"])
    # Share of the mean gap: a mean of shares is meaningless if a seed has almost no gap.
    of_it = (
        f": {number(1 - left.point / gap.point, True)} of it closed"
        if gap.point > negligible_gap(before, run.summary.get("random"))
        else " (before, there was none to speak of)"
    )
    return (
        f"{text}After the self-supervised phase ({run.default}), self-collected context gives "
        f"{number(online.point)} {bounds(online)}".rstrip() + _wins(before["online_context"], after["online_context"])
        + f", and the gap is {number(left.point)}{of_it}. Held-out tasks: "
        f"{_mean(before['test'])} before, {_mean(after['test'])} after{_wins(before['test'], after['test'])}."
    )  # fmt: skip


# -- sections ------------------------------------------------------------------------------------------


def sections(run: Run) -> Iterator[Section]:
    """Yield a report's sections that have data, in order."""
    yield _returns(run)
    yield from _successes(run)
    if run.shown_seed is not None:
        yield from _returns_by_task(run, run.shown_seed)
        if run.posteriors(run.shown_seed):
            yield _plane(run, run.shown_seed)
    yield from _shift(run)
    yield from _curves(run)
    if run.shown_seed is not None:
        yield _episodes(run, run.shown_seed)
    for path in sorted(run.folder.glob("seed_*/*/video.mp4")):
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            yield Section("The agent, filmed", f"From {path.relative_to(run.folder)}.", f"data:video/mp4;base64,{data}")


def _returns(run: Run) -> Section:
    s = run.summary
    figure = plots.return_bars(run.phases, random=s["random"], best=s["best"], behaviour=s.get("behaviour"))
    caption = ""
    if s["random"] is not None:
        caption += f"Bars rise from the return of random actions ({number(s['random'])}), so that longer is better. "
    caption += "Dots are seeds; whiskers are 95 % intervals"
    caption += f" ({NOTE_OF_ONE_SEED}, no whisker)." if len(s["seeds"]) == 1 else "."
    return Section(
        "What the agent gets: compare the orange bars before and after", caption + _true_rewards(run), figure
    )


def _true_rewards(run: Run) -> str:
    online, text = {phase: found["online_context"] for phase, found in run.phases.items()}, ""
    if {"frozen-true-rewards", "frozen"} <= online.keys():
        true, decoded = online["frozen-true-rewards"], online["frozen"]
        text += (
            f" True rewards and nothing else (frozen-true-rewards): self-collected context gives {_mean(true)}, "
            f"compared with {_mean(decoded)} for decoded ones (frozen{_wins(true, decoded)})."
        )
    other = "frozen" if "frozen" in online else run.default
    if "oracle" in online and other not in (None, "oracle"):
        oracle, ours = online["oracle"], online[str(other)]
        text += (
            " True rewards from which encoder and decoder, too, go on learning (oracle): self-collected context gives "
            f"{_mean(oracle)}, compared with {_mean(ours)} ({other}{_wins(oracle, ours)})."
        )
    return text


def _successes(run: Run) -> Iterator[Section]:
    cells = success_cells(run.summary)
    if not cells:
        return
    caption = (
        "Episodes that are successful at their last step, in %: given offline context / given context that the agent "
        "collected itself / in held-out tasks. Means over seeds."
    )
    yield Section("What tasks ask for: what is reached, and what is not?", caption, cells)


def _returns_by_task(run: Run, seed: int) -> Iterator[Section]:
    shown = {p: run.measurements[p][seed] for p in ("before", run.default) if p and seed in run.measurements[p]}
    if any("behaviour_returns" not in found for found in shown.values()):
        return  # runs of older versions lack this array
    panels = {
        phase: plots.TaskReturns(found["behaviour_returns"], found["offline_returns"], found["online_returns"])
        for phase, found in shown.items()
    }
    data = shown["before"]["behaviour_returns"]
    above = {p: f"{np.mean(np.asarray(r.online) > data):.0%}" for p, r in panels.items()}
    caption = (
        f"Training tasks of seed {seed}. Bars: mean return of the episodes that actor and critics learned from, "
        f"from {number(data.min())} to {number(data.max())}. Share of tasks in which the agent, "
        "given context that it collected itself, gets more: "
        f"{'; '.join(f'{phase}, {share}' for phase, share in above.items())}."
    )
    figure = plots.returns_by_task(panels, run.scale(shown["before"]["tasks"]))
    yield Section("Task by task: who gets more than the data it learned from?", caption, figure)


def _plane(run: Run, seed: int) -> Section:
    panels, tasks = run.posteriors(seed), run.measurements["before"][seed]["tasks"]
    caption = (
        f"Each marker is the mean of q(z | h) of one of {len(tasks)} training tasks (seed {seed}), coloured by task, "
        "seen in the plane in which the offline posteriors of all panels differ most. Filled: h is offline context; "
        "hollow: h collected by the agent itself. A line joins the two markers of a task."
    )
    ratios = {phase: _distance_ratio(posteriors) for phase, posteriors in panels.items()}
    if np.isfinite(list(ratios.values())).all():
        caption += (
            " Median length of those lines in the whole space of z, as a multiple of the median distance between the "
            f"offline means of two different tasks: {_each(ratios)}. At 1, the posterior lies as far off as "
            "that of another task."
        )
    figure = plots.posterior_plane(panels, run.scale(tasks))
    return Section("What the encoder infers: how far is each hollow marker from its filled one?", caption, figure)


def _distance_ratio(posteriors: plots.Posteriors) -> float:
    """Divide the median distance of online from offline means by that between tasks."""
    offline, online = np.asarray(posteriors.offline_mean)[:, 0], np.asarray(posteriors.online_mean)[:, 0]
    others = np.linalg.norm(offline[:, None] - offline[None], axis=-1)[np.triu_indices(len(offline), 1)]
    if not others.any():
        return np.nan
    return float(np.median(np.linalg.norm(online - offline, axis=-1)) / np.median(others))


def _shift(run: Run) -> Iterator[Section]:
    shift = {phase: found["shift"] for phase, found in run.phases.items()}
    if np.isfinite(list(shift.values())).any():
        caption = (
            "Normalised shift = (within(on, off) - within(off, off')) / (between(off, off') - within(off, off')). "
            "Here within averages KL divergences between two posteriors of the same task, between those of different "
            "tasks; on is from self-collected, off and off' are from two draws of offline context. 0: no shift; 1: as "
            f"far away as another task. Mean over seeds: {_each({p: over_seeds(v).point for p, v in shift.items()})}."
        )
        yield Section("The distribution shift in one number: closer to 0 is better", caption, plots.shift_bars(shift))
    names = [f"kl_{name}" for name in plots.Divergences._fields]
    pooled = {
        phase: plots.Divergences(*(np.concatenate([seed[name] for seed in found.values()]) for name in names))
        for phase, found in run.measurements.items()
        if found and all(names[0] in seed for seed in found.values())
    }
    if pooled:
        shifts = {phase: float(np.median(np.asarray(kl.online_offline))) for phase, kl in pooled.items()}
        says = {phase: float(np.median(np.asarray(kl.online_prior))) for phase, kl in pooled.items()}
        caption = (
            "Left: KL(q(z | own context) || q(z | offline context)) of every task of all seeds; the further left, the "
            f"smaller the shift. Median in nats: {_each(shifts)}. Right: how much each kind of context says at all, as "
            "KL to the prior p(z); at 0 the encoder would have learnt nothing from it. Median for self-collected "
            f"context: {_each(says)}."
        )
        yield Section("The same task by task: do the left histograms move left?", caption, plots.kl_histograms(pooled))


def curves(run: Run, phases: Sequence[str], wanted: Sequence[str]) -> dict[str, dict[str, list[plots.Curve]]]:
    """Collect curves, metric to phase to one per seed, without columns that have no number."""
    picked: dict[str, dict[str, list[plots.Curve]]] = {}
    for metric in wanted:
        for phase in phases:
            columns = [c for c in run.metrics[phase].values() if np.isfinite(c.get(metric, np.nan)).any()]
            if columns:
                picked.setdefault(metric, {})[phase] = [(c["step"], c[metric]) for c in columns]
    return picked


def _curves(run: Run) -> Iterator[Section]:
    wanted = ["online_context_return", "offline_context_return", "test_return", "shift"]
    wanted += ["online_context_success", "offline_context_success", "test_success"]
    wanted += ["velocity_error_online", "velocity_error_offline"]
    drawn = curves(run, list(run.summary["arms"]), wanted)
    if not drawn:
        return
    caption = "Iteration 0 is the agent after the offline phase. Thick: mean over seeds; thin: each seed."
    ours = drawn.get("online_context_return", {}).get(str(run.default))
    if ours:
        steps, mean = plots.mean_curve(ours)
        if len(steps) > 1:
            caption += (
                f" Self-collected context, {run.default}: from {number(mean[0])} at iteration {steps[0]:.0f} to "
                f"{number(mean[-1])} at iteration {steps[-1]:.0f}; highest, {number(mean.max())}, at iteration "
                f"{steps[mean.argmax()]:.0f}."
            )
    figure = plots.learning_curves(drawn, best=run.summary["best"])
    yield Section("When it happens: follow the self-collected context over the phase", caption, figure)


def _episodes(run: Run, seed: int) -> Section:
    shown = {p: run.measurements[p][seed] for p in ("before", run.default) if p and seed in run.measurements[p]}
    family, tasks = run.family, shown["before"]["shown_tasks"]
    scale, dt = run.scale(tasks), float(getattr(family, "control_dt", 1.0))
    intro = (
        f"The episode after adaptation on the first {len(tasks)} training task{'s' if len(tasks) != 1 else ''} (seed "
        f"{seed}), acting on a z drawn from q(z | h): h is offline context on the left, collected by the agent itself "
        "on the right. Colours as above. "
    )

    def rollouts(array: str, draw: Callable[[Array], Array]) -> dict[str, plots.Rollouts]:
        return {p: plots.Rollouts(draw(m[f"offline_{array}"]), draw(m[array])) for p, m in shown.items()}

    def measured(panels: Mapping[str, plots.Rollouts], measure: Callable[[Array], Any]) -> str:
        return "; ".join(
            f"{phase}, {number(float(measure(np.asarray(r.offline))))} given offline and "
            f"{number(float(measure(np.asarray(r.online))))} given self-collected context"
            for phase, r in panels.items()
        )

    plane = hasattr(family, "landmark")
    if "direction" in scale.label and (plane or shown["before"]["features"].shape[-1] >= 2):
        unit = np.stack([np.cos(scale.values), np.sin(scale.values)], axis=1)
        paths = rollouts("observations", lambda o: o) if plane else rollouts(
            "features", lambda velocity: np.cumsum(velocity[..., :2], 1) * dt
        )  # fmt: skip
        reach = max(float(np.linalg.norm(p, axis=-1).max()) for r in paths.values() for p in r)

        def along(path: Array) -> Any:
            moved = path[:, -1] - path[:, 0]
            return ((moved * unit).sum(1) / np.maximum(np.linalg.norm(moved, axis=1), 1e-9)).mean()

        intro += "Crosses lie along the directions. Share of the way travelled that goes along it (mean cosine): "
        figure = plots.trajectories(paths, scale, reach * unit, goal_name="direction of the task")
        heading = "What it does: does each path follow its own direction?"
        return Section(heading, intro + measured(paths, along) + ".", figure)
    if plane:
        goals = np.stack([family.landmark(task) for task in tasks])
        paths = rollouts("observations", lambda o: o)
        figure = plots.trajectories(paths, scale, goals, radius=getattr(family, "radius", None))
        intro += "Crosses are goals, dots the ends of episodes. Mean distance from end to goal (m): "
        intro += measured(paths, lambda path: np.linalg.norm(path[:, -1] - goals, axis=-1).mean()) + "."
        return Section("What it does: do the paths end at the crosses of their colour?", intro, figure)
    lines, label, targets = rollouts("features", lambda f: f[..., :1]), "first feature", None
    label = getattr(family, "feature_label", label)
    if family is not None and tasks.shape[1] == 1:
        targets, label = tasks[:, 0], scale.label.removeprefix("target ")
        errors = measured(lines, lambda line: np.abs(line[..., 0] - tasks).mean())
        intro += f"Dashed: the target. Mean distance from it: {errors}."
    figure = plots.trajectories(lines, scale, targets, goal_name="target", y_label=label, dt=dt)
    return Section("What it does: do the lines reach their dashed targets?", intro, figure)


def signed(text: str) -> str:
    """Replace minus signs by typographic ones and spaces before % by no-break spaces."""
    return re.sub(r"(?<!\w)-(?=\d)|(?<= )-(?= )", "\N{MINUS SIGN}", text).replace(" %", "\N{NO-BREAK SPACE}%")
