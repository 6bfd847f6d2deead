"""`report.html`: what a run found, in one self-contained page for a reader who has never seen the project.

Reads a run's folder (`summary.json`, `config.json`, measurements, metrics), draws with `plots`, and computes every
sentence about the results from the data.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from smac_lab import plots
from smac_lab.page import TEMPLATE
from smac_lab.stats import Interval, gap_closed, interval, share_of_range

Array = NDArray[np.float64]
FOUR = ("offline_context", "online_context", "test", "shift")
DASH = "\N{EN DASH}"


class Run(NamedTuple):
    """What a run's folder holds. A phase is "before" (the offline phase) or the name of an arm."""

    folder: Path
    summary: dict[str, Any]
    experiment: dict[str, Any]  # config.json; empty where there is none
    measurements: dict[str, dict[int, dict[str, Array]]]  # phase to seed to arrays
    metrics: dict[str, dict[int, dict[str, Array]]]  # phase to seed to columns of metrics.csv, NaN where empty
    missing: list[str]  # files that a complete run has and this one lacks

    @property
    def default(self) -> str | None:
        """The arm that sentences are about: the default one, else the first there is."""
        arms = list(self.summary["arms"])
        return self.summary["default_arm"] if self.summary["default_arm"] in arms else (arms[0] if arms else None)


class Section(NamedTuple):
    """A heading that says what to look at, a caption computed from data, and what to look at (HTML or a figure)."""

    heading: str
    caption: str
    body: go.Figure | str


# -- what may be called --------------------------------------------------------------------------------


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run's folder.

    Arms, measurements or films that are not there are left out, and the page says which.

    Args:
        run_dir: folder with a `summary.json`.

    Returns:
        Path of the page. It needs no network: plotly.js is part of it.

    Raises:
        FileNotFoundError: no `summary.json` there.
    """
    run = read_run(run_dir)
    path = run.folder / "report.html"
    _replace(path, _page(run).encode())
    return path


def write_picture(run_dir: str | Path, path: str | Path) -> Path:
    """Write one static PNG: returns, and the latent plane before and after the default arm.

    Args:
        run_dir: folder with a `summary.json`.
        path: file to write.

    Raises:
        FileNotFoundError: no `summary.json`, or no measurement of the offline phase.
        RuntimeError: kaleido or a Chromium browser is not installed.
    """
    run, path = read_run(run_dir), Path(path)
    seed = _shown_seed(run)
    if seed is None:
        raise FileNotFoundError(
            f"{run.folder} holds no measurement.npz of the offline phase, so there is no plane to draw"
        )
    shown = [phase for phase in ("before", run.default) if phase and seed in run.measurements.get(phase, {})]
    figure = plots.overview(
        {phase: _posteriors(run, phase, seed) for phase in shown},
        _scale(run, run.measurements["before"][seed]["tasks"]),
        _phases(run.summary),
        random=run.summary["random"],
        best=run.summary["best"],
    )
    figure.update_layout(paper_bgcolor="white", font_color="#333333")
    try:
        picture = figure.to_image(format="png", width=500 + 500 * len(shown), height=480, scale=1.5)
    except Exception as error:  # kaleido's and choreographer's own kinds, which differ between versions
        raise RuntimeError(
            "plotly could not export a picture; it needs kaleido and a Chromium browser "
            f"(`pip install kaleido`, `apt-get install chromium`): {type(error).__name__}: {error}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, picture)
    return path


def print_summary(summary: Mapping[str, Any]) -> str:
    """The summary as a plain-text table: a column a phase, mean over seeds above its 95 % interval.

    Args:
        summary: contents of `summary.json`.
    """
    rows, phases = _estimates(summary), list(_phases(summary))
    default = summary["default_arm"]
    lines = [
        f"{summary['family']}, preset {summary['preset']}, {_seeds_text(summary)}",
        "returns given each kind of context, and what closed of the gap: mean over seeds [95 % interval]",
        "",
    ]
    lines.append(" " * 14 + "".join(f"{phase + (' *' if phase == default else ''):>17}" for phase in phases))
    for name, label, percent in MEASURES:
        cells = [rows[phase][name] for phase in phases]
        if not any(np.isfinite(c.estimate.point) for c in cells):
            continue
        lines.append(
            f"{label.split(' (')[0].removesuffix(' context'):14}"
            + "".join(f"{_text(c.estimate.point, percent):>17}" for c in cells)
        )
        if any(np.isfinite(c.estimate.low) for c in cells):
            lines.append(" " * 14 + "".join(f"{_bounds(c.estimate, percent):>17}" for c in cells))
    known = [f"{label} {_text(summary.get(key))}" for key, label in REFERENCES if summary.get(key) is not None]
    lines += ["", f"for comparison: {', '.join(known)}" if known else ""]
    lines.append(
        f"* the default arm; {NOTE_OF_ONE_SEED if len(summary['seeds']) == 1 else 'see report.html for each seed'}"
    )
    return "\n".join(lines)


# -- reading a run -------------------------------------------------------------------------------------


def read_run(run_dir: str | Path) -> Run:
    """Everything of a run's folder that a report shows.

    Raises:
        FileNotFoundError: no `summary.json` there.
    """
    folder = Path(run_dir)
    if not (folder / "summary.json").is_file():
        raise FileNotFoundError(f"{folder} holds no summary.json: is it the folder of a finished run?")
    summary = json.loads((folder / "summary.json").read_text())
    experiment = json.loads((folder / "config.json").read_text()) if (folder / "config.json").is_file() else {}
    measurements: dict[str, dict[int, dict[str, Array]]] = {}
    metrics: dict[str, dict[int, dict[str, Array]]] = {}
    missing = [f"arm {arm}" for arm in experiment.get("arms", []) if arm not in summary["arms"]]
    for phase in ("before", *summary["arms"]):
        measurements[phase], metrics[phase] = {}, {}
        for seed in summary["seeds"]:
            here = folder / f"seed_{seed}" / ("offline" if phase == "before" else phase)
            if (here / "measurement.npz").is_file():
                with np.load(here / "measurement.npz") as arrays:
                    measurements[phase][seed] = dict(arrays)
            if (here / "metrics.csv").is_file():
                metrics[phase][seed] = _read_csv(here / "metrics.csv")
            missing += [
                str((here / name).relative_to(folder))
                for name in ("measurement.npz", "metrics.csv")
                if not (here / name).is_file()
            ]
    return Run(folder, summary, experiment, measurements, metrics, missing)


def _read_csv(path: Path) -> dict[str, Array]:
    """Columns by name; an empty cell is NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}


def _phases(summary: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Phase to the four lists as arrays with one entry a seed; what is missing is NaN."""
    n = len(summary["seeds"])

    def padded(values: Sequence[float | None]) -> Array:
        known = np.array([np.nan if v is None else v for v in values][:n], dtype=np.float64)
        return np.concatenate([known, np.full(n - len(known), np.nan)])

    phases = {"before": summary["before"], **summary["arms"]}
    return {phase: {name: padded(four.get(name, [])) for name in FOUR} for phase, four in phases.items()}


def _shown_seed(run: Run) -> int | None:
    """The seed whose tasks are drawn: the first one measured in most phases."""
    measured = run.measurements["before"]
    return max(measured, key=lambda s: sum(s in found for found in run.measurements.values()), default=None)


def _posteriors(run: Run, phase: str, seed: int) -> plots.Posteriors:
    return plots.Posteriors(*(run.measurements[phase][seed][name] for name in plots.Posteriors._fields))


def _family(run: Run) -> Any:
    """The task family, or None for one that this installation does not know."""
    from smac_lab.tasks import make_family

    try:
        return make_family(run.summary["family"])
    except ValueError:
        return None


def _scale(run: Run, tasks: Array) -> plots.TaskScale:
    return plots.task_scale(tasks, getattr(_family(run), "task_label", "task"))


# -- estimates -----------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """One entry of the summary table."""

    estimate: Interval
    seeds: Array


MEASURES = (  # name, label, whether it is a percentage
    ("offline_context", "offline context (return)", False),
    ("online_context", "self-collected context (return)", False),
    ("test", "held-out tasks (return)", False),
    ("closed", "gap closed", True),
    ("recovered", "recovered", True),
    ("range", "share of range", True),
    ("shift", "shift", False),
)
REFERENCES = (("random", "random actions"), ("behaviour", "behaviour data"), ("best", "best known controller"))
NOTE_OF_ONE_SEED = "one seed: no interval"


def _estimates(summary: Mapping[str, Any]) -> dict[str, dict[str, Cell]]:
    """Phase to measure to estimate and values of the seeds."""
    phases = _phases(summary)
    rows = {}
    for phase, four in phases.items():
        gap = gap_closed(phases["before"], four)
        nothing = np.full(len(gap.before), np.nan)
        values = {
            **four,
            "closed": nothing if phase == "before" else gap.closed,
            "recovered": nothing if phase == "before" else gap.recovered,
            "range": share_of_range(four["online_context"], summary.get("random"), summary.get("best")),
        }
        rows[phase] = {name: Cell(_estimate(values[name]), values[name]) for name, _, _ in MEASURES}
    return rows


def _estimate(values: ArrayLike) -> Interval:
    """`stats.interval` of the seeds that have a value."""
    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    return interval(finite) if len(finite) else Interval(np.nan, np.nan, np.nan)


def _text(value: float | None, percent: bool = False) -> str:
    """A number with two decimals, fewer for large ones, or a dash."""
    if value is None or not np.isfinite(value):
        return DASH
    if percent:
        return f"{100 * value:.0f} %"
    text = f"{value:.{2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _bounds(estimate: Interval, percent: bool = False) -> str:
    if not np.isfinite(estimate.low):
        return ""
    return f"[{_text(estimate.low, percent)}, {_text(estimate.high, percent)}]".replace(" %,", ",")


def _signed(text: str) -> str:
    """Typographic minus signs and percentages that stay on one line, for pages."""
    return re.sub(r"(?<!\w)-(?=\d)|(?<= )-(?= )", "\N{MINUS SIGN}", text).replace(" %", "\N{NO-BREAK SPACE}%")


def _seeds_text(summary: Mapping[str, Any]) -> str:
    seeds = summary["seeds"]
    return f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}"


# -- sections ------------------------------------------------------------------------------------------


def _sections(run: Run) -> Iterator[Section]:
    yield _returns(run)
    seed = _shown_seed(run)
    if seed is not None:
        yield _plane(run, seed)
    yield from _shift(run)
    yield from _curves(run)
    if seed is not None:
        yield _episodes(run, seed)
    yield from _films(run)


def _returns(run: Run) -> Section:
    s, phases, rows = run.summary, _phases(run.summary), _estimates(run.summary)
    figure = plots.return_bars(phases, random=s["random"], best=s["best"], behaviour=s.get("behaviour"))
    caption = ""
    if s["random"] is not None:
        caption += f"Bars rise from the return of random actions ({_text(s['random'])}), so that longer is better. "
    caption += "Dots are seeds; whiskers are 95 % intervals"
    caption += f" ({NOTE_OF_ONE_SEED}, no whisker)." if len(s["seeds"]) == 1 else "."
    if "oracle" in rows and run.default not in (None, "oracle"):
        oracle, ours = rows["oracle"]["online_context"], rows[run.default]["online_context"]
        caption += (
            f" With true rewards instead of decoded ones (oracle), self-collected context gives "
            f"{_text(oracle.estimate.point)}; {_text(ours.estimate.point)} without them ({run.default}"
            f"{_wins(oracle.seeds, ours.seeds)})."
        )
    return Section("What the agent gets: compare the orange bars before and after", caption, figure)


def _headline(run: Run) -> str:
    """The result in a sentence or two."""
    phases, arm, rows = _phases(run.summary), run.default, _estimates(run.summary)
    before = rows["before"]
    gap = _estimate(phases["before"]["offline_context"] - phases["before"]["online_context"])
    text = (
        f"After the offline phase the agent collects {_text(before['offline_context'].estimate.point)} return an "
        f"episode given offline context, and {_text(before['online_context'].estimate.point)} given context that it "
        f"collected itself: a gap of {_text(gap.point)}{_after(_bounds(gap))}."
    )
    if arm is None:
        return text + " No arm of the self-supervised phase was run."
    after, four = rows[arm], phases[arm]
    gap_after = _estimate(four["offline_context"] - four["online_context"])
    text += (
        f" After the self-supervised phase ({arm}), self-collected context gives "
        f"{_text(after['online_context'].estimate.point)}{_after(_bounds(after['online_context'].estimate))}"
        f"{_wins(phases['before']['online_context'], four['online_context'])}, and the gap is {_text(gap_after.point)}"
    )
    if np.isfinite(after["closed"].estimate.point):
        text += f": {_text(after['closed'].estimate.point, True)} of it closed"
    else:
        text += " (before, there was none to close)"
    text += (
        f". Held-out tasks: {_text(before['test'].estimate.point)} before, {_text(after['test'].estimate.point)} after"
        f"{_wins(phases['before']['test'], four['test'])}."
    )
    return text


def _after(text: str) -> str:
    return f" {text}" if text else ""


def _wins(first: Array, second: Array) -> str:
    """In how many seeds the second is higher."""
    both = np.isfinite(first) & np.isfinite(second)
    return f", higher in {int((second > first)[both].sum())} of {int(both.sum())} seeds" if both.sum() > 1 else ""


def _plane(run: Run, seed: int) -> Section:
    panels = {p: _posteriors(run, p, seed) for p, found in run.measurements.items() if seed in found}
    tasks = run.measurements["before"][seed]["tasks"]
    figure = plots.posterior_plane(panels, _scale(run, tasks))
    caption = (
        f"Each marker is the mean of q(z | h) of one of {len(tasks)} training tasks (seed {seed}), coloured by task, "
        "seen in the plane in which the offline posteriors of all panels differ most. Filled: h from offline data; "
        "hollow: h collected by the agent itself. A line joins the two markers of a task."
    )
    ratios = {p: r for p, q in panels.items() if (r := _distance_ratio(q)) is not None}
    if ratios:
        listed = ", ".join(f"{_text(r)} ({p})" for p, r in ratios.items())
        caption += (
            " Median length of those lines in the whole space of z, as a multiple of the median distance between the "
            f"offline means of two different tasks: {listed}. At 1, the posterior lies as far off as "
            "that of another task."
        )
    return Section("What the encoder infers: how far is each hollow marker from its filled one?", caption, figure)


def _distance_ratio(q: plots.Posteriors) -> float | None:
    """Median distance online to offline, over that between tasks; None for a single task."""
    offline, online = np.asarray(q.offline_mean)[:, 0], np.asarray(q.online_mean)[:, 0]
    others = np.linalg.norm(offline[:, None] - offline[None], axis=-1)[np.triu_indices(len(offline), 1)]
    if len(others) == 0 or np.median(others) == 0:
        return None
    return float(np.median(np.linalg.norm(online - offline, axis=-1)) / np.median(others))


def _shift(run: Run) -> Iterator[Section]:
    phases = {phase: four["shift"] for phase, four in _phases(run.summary).items()}
    if any(np.isfinite(v).any() for v in phases.values()):
        listed = ", ".join(f"{_text(_estimate(v).point)} ({phase})" for phase, v in phases.items())
        caption = (
            "Normalised shift = (within(on, off) - within(off, off')) / (between(off, off') - within(off, off')). "
            "Here within averages KL divergences between two posteriors of the same task, between those of different "
            "tasks; on is from self-collected, off and off' are from two draws of offline context. 0: no shift; 1: as "
            f"far away as another task. Mean over seeds: {listed}."
        )
        yield Section("The distribution shift in one number: closer to 0 is better", caption, plots.shift_bars(phases))
    pooled = {}
    for phase, found in run.measurements.items():
        if found:
            names = plots.Divergences._fields
            pooled[phase] = plots.Divergences(*(np.concatenate([f[f"kl_{n}"] for f in found.values()]) for n in names))
    if pooled:
        medians = ", ".join(
            f"{_text(float(np.median(np.asarray(kl.online_offline))))} ({phase})" for phase, kl in pooled.items()
        )
        caption = (
            "Left: KL(q(z | own context) || q(z | offline context)) of every task of all seeds; the further left, the "
            f"smaller the shift. Median in nats: {medians}. Right: how much each kind of context says at all, as KL to "
            "the prior p(z); at 0 the encoder would have learnt nothing from it. Median for self-collected context: "
            + ", ".join(
                f"{_text(float(np.median(np.asarray(kl.online_prior))))} ({phase})" for phase, kl in pooled.items()
            )
            + "."
        )
        yield Section("The same task by task: do the left histograms move left?", caption, plots.kl_histograms(pooled))


def _curves(run: Run) -> Iterator[Section]:
    arms = {phase: seeds for phase, seeds in run.metrics.items() if phase != "before" and seeds}
    wanted = ["online_context_return", "offline_context_return", "test_return", "shift"]
    wanted += ["velocity_error_online", "velocity_error_offline"]
    curves = _pick(arms, wanted)
    if not curves:
        return
    figure = plots.learning_curves(curves, best=run.summary["best"])
    caption = "Iteration 0 is the agent after the offline phase. Thick: mean over seeds; thin: each seed."
    if run.default in arms and run.default in curves.get("online_context_return", {}):
        steps, mean = plots.mean_curve(curves["online_context_return"][run.default])
        if len(steps) > 1:
            peak = int(mean.argmax())
            caption += (
                f" Self-collected context, {run.default}: from {_text(mean[0])} at iteration {steps[0]:.0f} to "
                f"{_text(mean[-1])} at iteration {steps[-1]:.0f}; highest, {_text(mean[peak])}, at iteration "
                f"{steps[peak]:.0f}."
            )
    yield Section("When it happens: follow the self-collected context over the phase", caption, figure)


def _pick(
    phases: Mapping[str, Mapping[int, Mapping[str, Array]]], wanted: Sequence[str]
) -> dict[str, dict[str, list[tuple[Array, Array]]]]:
    """Metric to phase to curves, of the columns that are there and hold a number."""
    curves: dict[str, dict[str, list[tuple[Array, Array]]]] = {}
    for metric in wanted:
        for phase, seeds in phases.items():
            found = [(c["step"], c[metric]) for c in seeds.values() if np.isfinite(c.get(metric, np.nan)).any()]
            if found:
                curves.setdefault(metric, {})[phase] = found
    return curves


def _episodes(run: Run, seed: int) -> Section:
    family = _family(run)
    shown = {
        phase: run.measurements[phase][seed]
        for phase in ("before", run.default)
        if phase is not None and seed in run.measurements.get(phase, {})
    }
    tasks = shown["before"]["shown_tasks"]
    scale = _scale(run, tasks)
    directions = "direction" in scale.label
    dt = float(getattr(family, "control_dt", 1.0))
    n = f"{len(tasks)} training task{'s' if len(tasks) != 1 else ''}"
    intro = (
        f"The episode after adaptation on the first {n} (seed {seed}), acting on a z drawn from q(z | h): h from "
        "offline data on the left, collected by the agent itself on the right. Colours as above. "
    )
    if hasattr(family, "landmark"):
        rollouts = {p: plots.Rollouts(m["offline_observations"], m["observations"]) for p, m in shown.items()}
    elif directions and shown["before"]["features"].shape[-1] >= 2:
        rollouts = {
            p: plots.Rollouts(*(np.cumsum(m[k][..., :2], 1) * dt for k in ("offline_features", "features")))
            for p, m in shown.items()
        }
    else:
        rollouts = {p: plots.Rollouts(m["offline_features"][..., :1], m["features"][..., :1]) for p, m in shown.items()}
        targets = tasks[:, 0] if family is not None and tasks.shape[1] == 1 else None
        label = scale.label.removeprefix("target ") if targets is not None else "first feature"
        if targets is not None:
            errors = _listed(rollouts, lambda paths: np.abs(paths[..., 0] - targets[:, None]).mean())
            intro += f"Dashed: the target. Mean distance from it: {errors}."
        figure = plots.trajectories(rollouts, scale, targets=targets, labels=("", label), dt=dt)
        return Section("What it does: do the lines reach their dashed targets?", intro, figure)
    if directions:
        heading, unit = "What it does: does each path follow its own direction?", _unit(scale.values)
        reach = max(float(np.linalg.norm(np.asarray(p), axis=-1).max()) for r in rollouts.values() for p in r)
        figure = plots.trajectories(rollouts, scale, goals=reach * unit, goal_name="direction of the task")
        shares = _listed(rollouts, lambda paths: _along(paths, unit))
        intro += (
            f"Crosses lie along the directions. Share of the way travelled that goes along it (mean cosine): {shares}."
        )
        return Section(heading, intro, figure)
    goals = np.stack([family.landmark(task) for task in tasks])
    figure = plots.trajectories(rollouts, scale, goals=goals, radius=getattr(family, "radius", None))
    errors = _listed(rollouts, lambda paths: np.linalg.norm(paths[:, -1] - goals, axis=-1).mean())
    intro += f"Crosses are goals, dots the ends of episodes. Mean distance from end to goal (m): {errors}."
    return Section("What it does: do the paths end at the crosses of their colour?", intro, figure)


def _unit(angles: Array) -> Array:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _along(paths: Array, unit: Array) -> float:
    """Mean cosine between the whole displacement and the task's direction."""
    moved = paths[:, -1] - paths[:, 0]
    return float(((moved * unit).sum(1) / np.maximum(np.linalg.norm(moved, axis=1), 1e-9)).mean())


def _listed(rollouts: Mapping[str, plots.Rollouts], measure: Any) -> str:
    """A measure of both kinds of context in every phase, as words."""
    return "; ".join(
        f"{phase}, {_text(float(measure(np.asarray(r.offline))))} given offline and "
        f"{_text(float(measure(np.asarray(r.online))))} given self-collected context"
        for phase, r in rollouts.items()
    )


def _films(run: Run) -> Iterator[Section]:
    for path in sorted({run.folder / "video.mp4", *run.folder.glob("seed_*/*/video.mp4")}):
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            film = f'<video controls loop muted playsinline src="data:video/mp4;base64,{data}"></video>'
            yield Section("The agent, filmed", escape(f"From {path.relative_to(run.folder)}."), film)


# -- the page ------------------------------------------------------------------------------------------


def _page(run: Run) -> str:
    from plotly.offline import get_plotlyjs

    s = run.summary
    sections = "".join(_section_html(section) for section in _sections(run))
    missing = ""
    if run.missing:
        missing = f"<p class=note>Not in this run's folder, and so not shown: {escape(', '.join(run.missing))}.</p>"
    facts = [s["family"], f"preset {s['preset']}", _seeds_text(s)] + (
        [f"commit {s['commit'][:10]}"] if s.get("commit") else []
    )
    return TEMPLATE.format(
        title=escape(f"SMAC on {s['family']}"),
        facts=escape(" · ".join(facts)),
        plotly=get_plotlyjs(),
        headline=_signed(escape(_headline(run))),
        table=_table(run),
        missing=missing,
        sections=sections,
        losses=_losses(run),
        settings=_settings(run),
    )


def _section_html(section: Section) -> str:
    body = section.body if isinstance(section.body, str) else _figure_html(section.body, section.heading)
    caption = _signed(escape(section.caption, quote=False))
    return f"<section><h2>{escape(section.heading)}</h2>{body}<p class=caption>{caption}</p></section>\n"


def _figure_html(figure: go.Figure, label: str) -> str:
    config = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    }
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, config=config,
        default_width="100%", default_height=f"{figure.layout.height}px",
    )  # fmt: skip
    return f'<figure role="img" aria-label="{escape(label)}">{drawn}</figure>'


def _table(run: Run) -> str:
    rows = _estimates(run.summary)
    known = {name for cells in rows.values() for name, cell in cells.items() if np.isfinite(cell.estimate.point)}
    measures = [measure for measure in MEASURES if measure[0] in known]
    body = ""
    for phase, cells in rows.items():
        name = escape(plots.phase_label(phase))
        swatch = f'<i style="background:{plots.phase_colour(phase)}"></i>'
        mark = " <b class=mark>default</b>" if phase == run.summary["default_arm"] else ""
        body += f"<tr{' class=default' if mark else ''}><th scope=row>{swatch}{name}{mark}</th>"
        for measure, _, percent in measures:
            estimate, seeds = cells[measure]
            each = " · ".join(_text(v, percent).removesuffix(" %") for v in seeds) if len(seeds) > 1 else ""
            if not np.isfinite(estimate.point):
                each = ""
            bounds = _bounds(estimate, percent)
            body += f"<td><b>{_text(estimate.point, percent)}</b><span>{bounds}</span><small>{each}</small></td>"
        body += "</tr>"
    levels = ", ".join(
        f"{label} {_text(run.summary.get(k))}" for k, label in REFERENCES if run.summary.get(k) is not None
    )
    under = "Bold: mean over seeds; in brackets: its 95 % interval; small: each seed"
    if len(run.summary["seeds"]) == 1:
        under = f"Of {NOTE_OF_ONE_SEED}"
    under += f" ({_seeds_text(run.summary)})."
    if levels:
        under += f" Returns to compare with: {levels}."
    if run.summary["best"] is None:
        under += " The best possible return is not known here, so there is no share of range."
    return _signed(f"{_grid(measures, body)}<p class=caption>{escape(under)}</p>")


def _grid(kinds: Sequence[Sequence[Any]], body: str) -> str:
    """A table with a column for each of `kinds`, whose second entry is its heading; units go on a line below."""
    heads = [escape(kind[1]).replace(" (", "<br><small>(") for kind in kinds]
    head = "".join(f"<th scope=col>{h}{'</small>' if '<small>' in h else ''}</th>" for h in heads)
    return (
        f"<div class=wide><table class=summary><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _losses(run: Run) -> str:
    """Training metrics, folded away: for whoever wants to see whether training itself went well."""
    names = ["reward_error", "kl", "critic_loss", "awac_loss", "weight_max"]
    drawn = ""
    offline = _pick({"before": run.metrics.get("before", {})}, names)
    if offline:
        figure = plots.learning_curves(offline, x_label="updates of the offline phase")
        drawn += f"<h3>Offline phase</h3>{_figure_html(figure, 'losses of the offline phase')}"
    arms = _pick({p: seeds for p, seeds in run.metrics.items() if p != "before"}, names)
    if arms:
        drawn += f"<h3>Self-supervised phase</h3>{_figure_html(plots.learning_curves(arms), 'losses of the arms')}"
    return f"<details><summary>Losses of both phases</summary>{drawn}</details>" if drawn else ""


def _settings(run: Run) -> str:
    s = run.summary
    seconds = ", ".join(f"{escape(str(k))} {v:.0f} s" for k, v in s["seconds"].items())
    facts = {
        "task family": s["family"],
        "preset": s["preset"],
        "seeds": " ".join(map(str, s["seeds"])),
        "arms": ", ".join(s["arms"]) or "none",
        "time (phases: mean over seeds)": seconds,
        "device": f"{s.get('device')}, {s.get('threads')} thread{'s' if s.get('threads') != 1 else ''}",
        "commit": s.get("commit") or "unknown",
        "versions": ", ".join(f"{k} {v}" for k, v in s["versions"].items()),
    }
    preset = _preset_values(run)
    rows = ""
    for name, value in s["config"].items():
        changed = name in preset and preset[name] != value
        note = f"<small>preset: {escape(str(preset[name]))}</small>" if changed else ""
        rows += f"<tr{' class=default' if changed else ''}><th scope=row>{escape(name)}</th>"
        rows += f"<td>{escape(str(value))} {note}</td></tr>"
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return (
        f"<dl class=facts>{listed}</dl><p>The command that makes it again:</p><pre>{escape(command(run))}</pre>"
        f"<details><summary>All settings</summary><div class=columns><table class=config>{rows}</table></div></details>"
    )


def _preset_values(run: Run) -> dict[str, Any]:
    from smac_lab.config import SMACConfig

    try:
        return SMACConfig.preset(run.summary["family"], run.summary["preset"]).to_dict()
    except ValueError:
        return {}


def command(run: Run) -> str:
    """The command line that makes a run again: preset, seeds, arms, and every setting that differs from the preset."""
    s, stored = run.summary, run.experiment
    words = ["smac-lab", "train", s["family"], "--preset", s["preset"], "--seed", *map(str, s["seeds"])]
    arms = list(stored.get("arms", s["arms"]))
    if arms != ["frozen", "self-labelled", "oracle"]:
        words += ["--arms", *arms]
    if stored.get("data"):
        words += ["--data", str(stored["data"])]
    preset = _preset_values(run)
    changed = [f"{k}={v}" for k, v in s["config"].items() if k in preset and preset[k] != v]
    if changed:
        words += ["--set", *changed]
    return shlex.join([*words, "--out", str(run.folder)])


def _replace(path: Path, content: bytes) -> None:
    """Write next to `path`, then swap: a reader never sees half a file."""
    partial = path.with_name(f".partial_{path.name}_{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
