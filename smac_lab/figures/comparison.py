"""Comparison of methods and arms on the same families, with the statistics of rliable.

Scores are means over tasks, one per seed. The aggregates are those of Agarwal et al. (NeurIPS 2021, arXiv 2108.13264),
as in `stats`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from smac_lab.arms import folder_of
from smac_lab.figures import findings, style
from smac_lab.figures.findings import MEASURES, bounds, number, read_run
from smac_lab.figures.stats import Interval, interval, probability_of_improvement, profile, share_of_range
from smac_lab.runs.plan import slug

Array = NDArray[np.float64]
RETURNS = ("offline_context", "online_context", "test")
COLUMNS = (*RETURNS, "closed", "shift")
COLOURS = ("#4D4D4D", "#56B4E9", "#D55E00", "#CC79A7", "#332288", "#44AA99", "#882255", "#999933", "#8C6D31", "#0072B2")


class Entry(NamedTuple):
    """One method or arm on one family; measures have one value per seed, NaN if unknown."""

    family: str
    method: str
    name: str
    run: str
    seeds: tuple[int, ...]
    measures: dict[str, Array]
    minutes: float | None  # of learning, per seed
    parameters: int | None
    references: dict[str, float | None]  # random, behaviour, best
    apart: str = ""  # the run's folder, if another run has the method and family
    further: bool = False  # whether it is on other data than a run whose folder is named after method and family

    @property
    def label(self) -> str:
        """The name, unique in the family."""
        return f"{self.name} ({self.apart})" if self.apart else self.name


class Comparison(NamedTuple):
    """Entries, and each family's returns of the normalised scores 0 and 1."""

    entries: list[Entry]
    ends: dict[str, tuple[float, float]]

    def scores(self, entry: Entry, kind: str) -> Array:
        """Compute normalised returns, `(seed,)`: 0 is random actions, 1 the best known return."""
        return share_of_range(entry.measures[kind], *self.ends[entry.family])

    @property
    def names(self) -> list[str]:
        """Names of methods and arms, in the order of the runs."""
        return list(dict.fromkeys(entry.label for entry in self.entries))

    @property
    def pooled(self) -> list[str]:
        """Families that are pooled: those with several seeds, or all of them."""
        several = {entry.family for entry in self.entries if len(entry.seeds) > 1}
        return sorted(several or self.ends)

    @property
    def pool(self) -> str:
        """The name of all families that are pooled."""
        return f"all {len(self.pooled)} families" + (" with several seeds" if len(self.pooled) < len(self.ends) else "")

    def matrix(self, name: str, kind: str) -> Array | None:
        """Return the normalised scores, `(seed, family)`, of the seeds that all pooled families have, or None."""
        found = {entry.family: entry for entry in self.entries if entry.label == name}
        if not set(self.pooled) <= set(found):
            return None
        entries = [found[family] for family in self.pooled]
        columns = [dict(zip(entry.seeds, self.scores(entry, kind), strict=True)) for entry in entries]
        shared = [seed for seed in columns[0] if all(np.isfinite(column.get(seed, np.nan)) for column in columns)]
        return np.array([[column[seed] for column in columns] for seed in shared]) if shared else None


def gather(runs: Sequence[str | Path]) -> Comparison:
    """Read finished runs.

    The best known return of a family is its controller's or, without one, the highest mean among the entries and the
    behaviour data.

    Raises:
        ValueError: there is no run, or a family has two variants, which cannot be compared.
        FileNotFoundError: a folder contains no finished run.
    """
    found = [read_run(run) for run in runs]
    summaries = [run.summary for run in found]
    if not summaries:
        raise ValueError("there is nothing to compare: name the folders of finished runs")
    variants: dict[str, set[str]] = {}
    for family in (summary["family"] for summary in summaries):
        variants.setdefault(family.partition(":")[0], set()).add(family)
    if mixed := [sorted(names) for names in variants.values() if len(names) > 1]:
        raise ValueError(f"returns of different variants cannot be compared: {'; '.join(map(' and '.join, mixed))}")
    entries = _told_apart([entry for run in found for entry in _entries(run.summary, str(run.folder))])
    return Comparison(entries, {family: _ends(entries, family) for family in dict.fromkeys(e.family for e in entries)})


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """Add the folder to labels if another run has the method and family, unless the folder is named after these."""
    runs = {(entry.family, entry.method, entry.run) for entry in entries}
    kinds, folders = [(family, method) for family, method, _ in runs], [Path(run).name for *_, run in runs]
    usual = {(entry.family, entry.method) for entry in entries if Path(entry.run).name == _folder_of(entry)}
    found = []
    for entry in entries:
        kind, folder = (entry.family, entry.method), Path(entry.run).name
        if kinds.count(kind) > 1 and folder != _folder_of(entry):
            apart = folder if folders.count(folder) == 1 else entry.run
            entry = entry._replace(apart=apart, further=kind in usual)
        found.append(entry)
    return found


def _folder_of(entry: Entry) -> str:
    """Return the name that a sweep gives the folder of a run on a family's default data."""
    return slug(entry.family) + ("" if entry.method == "smac" else f"-{entry.method}")


def _entries(summary: Mapping[str, Any], folder: str) -> list[Entry]:
    """List a run's entries: the offline phase and each arm."""
    method, seconds = summary.get("method", "smac"), summary.get("seconds", {})
    known = {name: summary.get(name) for name in ("random", "behaviour", "best")}
    entries = []
    for phase, found in findings.measures(summary).items():
        spent = seconds.get("offline")
        if phase != "before" and spent is not None:
            spent += seconds.get(folder_of(phase), 0.0)
        name = method if phase == "before" else phase if method == "smac" else f"{method}, {phase}"
        entries.append(
            Entry(
                summary["family"],
                method,
                "smac, offline phase" if name == "smac" else name,
                folder,
                tuple(summary["seeds"]),
                found,
                None if spent is None else spent / 60,
                summary.get("parameters"),
                known,
            )
        )
    return entries


def _ends(entries: Sequence[Entry], family: str) -> tuple[float, float]:
    own = [entry for entry in entries if entry.family == family]
    randoms = [entry.references["random"] for entry in own if entry.references["random"] is not None]
    best = [entry.references["best"] for entry in own if entry.references["best"] is not None]
    reached = [float(np.nanmean(entry.measures[kind])) for entry in own for kind in RETURNS]
    reached += [entry.references["behaviour"] for entry in own if entry.references["behaviour"] is not None]
    low = float(np.mean(randoms)) if randoms else np.nan
    return low, max(best) if best else max(reached)


# -- tables ----------------------------------------------------------------------------------------------
def rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return titles and one row of cells per entry: interquartile mean over seeds [95 % interval]."""
    titles = ["family", "seeds", "method", *(MEASURES[name][0].removesuffix(" (return)") for name in COLUMNS)]
    titles += ["score", "better than the first", "minutes", "parameters", "random", "data", "best known"]
    table: list[list[str]] = []
    first_of: dict[str, Entry] = {}
    last = None
    for entry in comparison.entries:
        new, last = entry.run != last, entry.run
        first = first_of.setdefault(entry.family, entry)
        cells = [entry.family, str(len(entry.seeds))] if new else ["", ""]
        cells.append(entry.label)
        for name in COLUMNS:
            estimate, percent = _estimate(entry.measures[name]), MEASURES[name][1]
            cells.append(f"{number(estimate.point, percent)} {bounds(estimate, percent)}".strip())
        cells.append(number(_estimate(comparison.scores(entry, "online_context")).point))
        pair = [entry.measures["online_context"], first.measures["online_context"]]
        better = None if entry is first else probability_of_improvement(pair[0], pair[1])
        cells.append("" if better is None else f"{number(better.point, True)} {bounds(better, True)}".strip())
        cells.append(number(entry.minutes))
        cells.append("" if entry.parameters is None else f"{entry.parameters:,}")
        cells += [number(entry.references.get(k)) for k in ("random", "behaviour", "best")] if new else [""] * 3
        table.append(cells)
    return titles, table


def _estimate(values: Array) -> Interval:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return interval(known, "iqm") if len(known) else Interval(np.nan, np.nan, np.nan)


def overall(comparison: Comparison) -> dict[str, dict[str, Interval]]:
    """Compute interquartile means of normalised scores over families and seeds, by method and context.

    Families with one seed are left out, and so are seeds and methods that one of the others lacks.
    """
    found: dict[str, dict[str, Interval]] = {}
    for name in comparison.names:
        for kind in RETURNS:
            if (matrix := comparison.matrix(name, kind)) is not None:
                found.setdefault(name, {})[kind] = interval(matrix, "iqm")
    return found


def markdown(comparison: Comparison) -> str:
    """Format as a Markdown table, with a second one over all families if there are several."""
    titles, table = rows(comparison)
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    lines += [f"| {' | '.join(cells)} |" for cells in table]
    if len(comparison.pooled) > 1 and (total := overall(comparison)):
        names = [style.KINDS[kind][1] for kind in RETURNS]
        lines += ["", f"| {comparison.pool}, score | {' | '.join(names)} |", "|---|---|---|---|"]
        for name, kinds in total.items():
            cells = [f"{number(kinds[k].point)} {bounds(kinds[k])}".strip() if k in kinds else "" for k in RETURNS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    if len(comparison.ends) > 1:
        lines += ["", in_brief(comparison)]
    return "\n".join(lines)


def in_brief(comparison: Comparison) -> str:
    """Format as a Markdown table: interquartile means over seeds of SMAC and the best other method.

    There is a row per family, and one per further run on other data. Cells are the return from offline / self-collected
    context / in held-out tasks. A family with successes has a second row, with their shares at the last step.
    """
    entries = comparison.entries
    arms = list(dict.fromkeys(e.name for e in entries if e.method == "smac"))
    lines = [f"| family | seeds | {' | '.join([*arms, 'best prior work'])} |", "|---" * (len(arms) + 3) + "|"]
    for about in dict.fromkeys(e.apart if e.further else e.family for e in entries):
        own = [e for e in entries if about == (e.apart if e.further else e.family)]
        for suffix, percent in (("", False), ("_success", True)):
            kinds = [f"{kind}{suffix}" for kind in RETURNS]
            known = {
                e.name: [_estimate(e.measures[kind]).point for kind in kinds] for e in own if kinds[0] in e.measures
            }
            others = {e.name: known[e.name] for e in own if e.method != "smac" and e.name in known}
            best = max(others, key=lambda name: others[name][1], default="")
            cells = [" / ".join(number(value, percent) for value in known.get(arm, ())) for arm in arms]
            cells.append(f"{best} {' / '.join(number(value, percent) for value in others[best])}" if best else "")
            if known:
                seeds = sorted({len(entry.seeds) for entry in own})
                title = f"{about}, success" if percent else about
                lines.append(f"| {title} | {' to '.join(map(str, seeds))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def latex(comparison: Comparison) -> str:
    r"""Format as a LaTeX `tabular`, which requires `\usepackage{booktabs}`."""
    titles, table = rows(comparison)

    def line(cells: Sequence[str]) -> str:
        escaped = (c.replace("%", r"\%").replace("_", r"\_").replace("\N{EN DASH}", "--") for c in cells)
        return " & ".join(escaped) + r" \\"

    columns = "l" * 3 + "r" * (len(titles) - 3)
    body = [line(titles), r"\midrule", *map(line, table)]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"])


# -- figure ----------------------------------------------------------------------------------------------
SCORES = (-0.25, 1.25)  # drawn range; an arrow at its end stands for scores beyond it


def figure(comparison: Comparison) -> go.Figure:
    """Draw the scores of each family, then of all together as in `overall`, and their performance profiles.

    A profile is the share of scores above tau, given self-collected context. Further runs on other data are left out.
    """
    entries = [entry for entry in comparison.entries if not entry.further]
    several, names = len(comparison.pooled) > 1, list(dict.fromkeys(entry.label for entry in entries))
    panels: dict[str, dict[str, dict[str, Interval]]] = {}  # title: method: context: interval
    for family in comparison.ends:
        own = [entry for entry in entries if entry.family == family]
        panels[family] = {e.label: {kind: _estimate(comparison.scores(e, kind)) for kind in RETURNS} for e in own}
    if several:
        panels[comparison.pool] = overall(comparison)
    titles = [*panels, "share of runs above a score"]
    fig, places = style.grid(titles, 60 + 26 * max(4, len(names)), columns=3 if several else 2)
    for panel, place in zip(panels.values(), places, strict=False):
        _scores(fig, place, panel, names, first=place is places[0])
    taus = np.linspace(*SCORES, 61)
    for j, name in enumerate(names):
        scores = comparison.matrix(name, "online_context")
        if scores is not None:
            line = {"color": COLOURS[j % len(COLOURS)], "shape": "hv"}
            fig.add_scatter(
                x=taus, y=profile(scores, taus), mode="lines", line=line, name=name, legend="legend2", **places[-1]
            )  # fmt: skip
    last = fig.get_subplot(**places[-1])  # low on the left, where no profile is
    fig.update_layout(
        legend2={
            "x": last.xaxis.domain[0], "y": last.yaxis.domain[0], "xanchor": "left", "yanchor": "bottom",
            "font_size": 10, "bgcolor": "rgba(0,0,0,0)",
        }
    )  # fmt: skip
    fig.update_xaxes(title_text="score, given self-collected context", **places[-1])
    fig.update_yaxes(range=[-0.02, 1.02], **places[-1])
    return fig


def _scores(
    fig: go.Figure, place: style.Place, found: Mapping[str, Mapping[str, Interval]], names: Sequence[str], first: bool
) -> None:
    """Draw interquartile means with intervals, a row per method."""
    low, high = SCORES
    for i, kind in enumerate(RETURNS):
        colour, label = style.KINDS[kind]
        known = {name: kinds[kind] for name, kinds in found.items() if np.isfinite(kinds[kind].point)}
        points = np.array([e.point for e in known.values()])
        ends = [np.clip([e.low for e in known.values()], *SCORES), np.clip([e.high for e in known.values()], *SCORES)]
        drawn = np.clip(points, *SCORES)
        symbols = np.where(points < low, "triangle-left", np.where(points > high, "triangle-right", "circle"))
        fig.add_scatter(
            x=drawn, y=[names.index(name) + 0.2 * (i - 1) for name in known], mode="markers", name=label,
            legendgroup=kind, showlegend=first, customdata=points, hovertemplate="%{customdata:.2f}",
            marker={"color": colour, "opacity": 1, "size": np.where(symbols == "circle", 8, 12), "symbol": symbols},
            error_x={
                "type": "data", "symmetric": False, "color": colour, "thickness": 1.5,
                "array": ends[1] - drawn, "arrayminus": drawn - ends[0],
            }, **place,
        )  # fmt: skip
    labels = names if place["col"] == 1 else [""] * len(names)
    rows = [-0.5, len(names) - 0.5]
    fig.update_yaxes(tickvals=list(range(len(names))), ticktext=labels, range=rows[::-1], **place)
    fig.update_xaxes(title_text="score (random 0, best known 1)", range=[low - 0.05, high + 0.05], **place)
