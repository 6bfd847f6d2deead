"""`report.html`: what a run found, in one self-contained page for a reader who has never seen the project.

Reads a run's folder and says what is in it (`findings`), draws it (`plots`), and lays it out (`page`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from smac_lab.arms import ARMS
from smac_lab.data.storage import replace_text
from smac_lab.figures import findings, plots, style
from smac_lab.figures.findings import MEASURES, NOTE_OF_ONE_SEED, Run, bounds, number, read_run, signed
from smac_lab.figures.page import TEMPLATE
from smac_lab.figures.stats import over_seeds
from smac_lab.runs.plan import DEFAULT_ARMS

LOSSES = ["reward_error", "kl", "critic_loss", "awac_loss", "weight_max"]


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
    replace_text(path, _page(run))
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
    seed = run.shown_seed
    if seed is None:
        raise FileNotFoundError(
            f"{run.folder} holds no measurement.npz of the offline phase, so there is no plane to draw"
        )
    panels = {p: posteriors for p, posteriors in run.posteriors(seed).items() if p in ("before", run.default)}
    scale, s = run.scale(run.measurements["before"][seed]["tasks"]), run.summary
    figure = plots.overview(panels, scale, run.phases, random=s["random"], best=s["best"])
    figure.update_layout(paper_bgcolor="white", font_color="#333333")
    try:
        picture = figure.to_image(format="png", width=500 + 500 * len(panels), height=480, scale=1.5)
    except Exception as error:  # kaleido's and choreographer's own kinds, which differ between versions
        raise RuntimeError(
            "plotly could not export a picture; it needs kaleido and a Chromium browser "
            f"(`pip install kaleido`, `apt-get install chromium`): {type(error).__name__}: {error}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    return path


def print_summary(summary: Mapping[str, Any]) -> str:
    """The summary as a plain-text table: a column a phase, mean over seeds above its 95 % interval.

    Args:
        summary: contents of `summary.json`.
    """
    phases = findings.measures(summary)
    titles = [f"{phase} *" if phase == summary["default_arm"] else phase for phase in phases]
    rows = [("", titles)]
    for name, (label, percent) in _known(phases).items():
        estimates = [over_seeds(found[name]) for found in phases.values()]
        rows.append((label.split(" (")[0].removesuffix(" context"), [number(e.point, percent) for e in estimates]))
        rows.append(("", [bounds(e, percent) for e in estimates]))
    described, known = findings.success_cells(summary), findings.references(summary)
    left = max(map(len, [*(label for label, _ in rows), *described])) + 2
    width = max(17, *(len(title) + 2 for title in titles))

    def line(label: str, cells: Sequence[str]) -> str:
        return f"{label:{left}}" + "".join(f"{cell:>{width}}" for cell in cells)

    successes = [line(what, [found.get(phase, "") for phase in phases]) for what, found in described.items()]
    if successes:
        successes = ["", "success at the last step, %: offline / self-collected context / held-out tasks", *successes]
    return "\n".join([
        f"{summary['family']}, preset {summary['preset']}, {_seeds(summary)}",
        "returns given each kind of context, and what closed of the gap: mean over seeds [95 % interval]",
        "",
        *(line(label, cells) for label, cells in rows if any(cells)),
        *successes,
        "",
        f"for comparison: {known}" if known else "",
        f"* the default arm; {NOTE_OF_ONE_SEED if len(summary['seeds']) == 1 else 'see report.html for each seed'}",
    ])  # fmt: skip


def command(run: Run) -> str:
    """The command line that makes a run again: preset, seeds, arms, and every setting that differs from the preset."""
    s, stored = run.summary, run.experiment
    words = ["smac-lab", "train", s["family"], "--preset", s["preset"], "--seed", *map(str, s["seeds"])]
    arms = list(stored.get("arms", s["arms"]))
    if (method := stored.get("method", "smac")) != "smac":
        words += ["--method", method]
    elif arms != list(DEFAULT_ARMS):
        words += ["--arms", *arms]
    if stored.get("data"):
        words += ["--data", str(stored["data"])]
    for name in _changed(run):
        words += _flag(name, s["config"][name])
    return shlex.join([*words, "--out", str(run.folder)])


def _flag(name: str, value: Any) -> list[str]:
    """A setting as the command line takes it."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def _changed(run: Run) -> dict[str, Any]:
    """Settings that differ from the preset, with the preset's value."""
    from smac_lab.config import SMACConfig

    try:
        preset = SMACConfig.preset(run.summary["family"], run.summary["preset"]).to_dict()
    except ValueError:
        return {}
    return {name: preset[name] for name, v in run.summary["config"].items() if name in preset and preset[name] != v}


def _known(phases: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The measures of which at least one value is known."""
    return {
        name: label
        for name, label in MEASURES.items()
        if any(np.isfinite(found.get(name, np.nan)).any() for found in phases.values())
    }


def _seeds(summary: Mapping[str, Any]) -> str:
    seeds = summary["seeds"]
    return f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}"


# -- the page ------------------------------------------------------------------------------------------


def _page(run: Run) -> str:
    from plotly.offline import get_plotlyjs

    s, missing, drawn = run.summary, "", ""
    if run.missing:
        missing = f"<p class=note>Not in this run's folder, and so not shown: {escape(', '.join(run.missing))}.</p>"
    for heading, caption, body in findings.sections(run):
        shown = body if isinstance(body, str) else _figure(body, heading)
        caption = signed(escape(caption, quote=False))
        drawn += f"<section><h2>{escape(heading)}</h2>{shown}<p class=caption>{caption}</p></section>\n"
    facts = [
        s["family"],
        f"preset {s['preset']}",
        _seeds(s),
        *([f"commit {s['commit'][:10]}"] if s.get("commit") else []),
    ]
    return TEMPLATE.format(
        title=escape(f"SMAC on {s['family']}"),
        facts=escape(" · ".join(facts)),
        plotly=get_plotlyjs(),
        headline=signed(escape(findings.headline(run))),
        table=_table(run),
        missing=missing,
        offline_context=_offline_context(run),
        arms=_arms(run),
        sections=drawn,
        losses=_losses(run),
        settings=_settings(run),
    )


def _offline_context(run: Run) -> str:
    """What the offline context of a run is drawn from, in words."""
    if run.summary.get("offline_context") == "exploration":
        return (
            "recorded exploration of that task, which the encoder alone reads, while actor and critics learn from "
            "other recordings"
        )
    return "the recordings of that task"


def _arms(run: Run) -> str:
    """What each arm of a run does, a row of the list of words each."""
    arms = [phase for phase in run.phases if phase != "before"]
    about = {arm: ARMS[arm].about if arm in ARMS else "an arm of one's own" for arm in arms}
    return "\n".join(f"<dt>arm <em>{escape(arm)}</em></dt><dd>{escape(text)}</dd>" for arm, text in about.items())


def _figure(figure: go.Figure, label: str) -> str:
    buttons = ["select2d", "lasso2d", "autoScale2d"]
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, default_width="100%",
        config={"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": buttons},
        default_height=f"{figure.layout.height}px",
    )  # fmt: skip
    return f'<figure role="img" aria-label="{escape(label)}">{drawn}</figure>'


def _table(run: Run) -> str:
    """A row a measure, a column a phase: narrow enough for a telephone."""
    s, head, body = run.summary, "", ""
    chosen = {phase: " class=default" if phase == s["default_arm"] else "" for phase in run.phases}
    for phase, mark in chosen.items():
        swatch = f'<i style="background:{style.phase_colour(phase)}"></i>'
        default = " <b class=mark>default</b>" if mark else ""
        head += f"<th scope=col{mark}>{swatch}{escape(style.phase_label(phase))}{default}</th>"
    for name, (label, percent) in _known(run.phases).items():
        title, _, unit = label.partition(" (")
        body += f"<tr><th scope=row>{title}{f' <small>({unit}</small>' if unit else ''}</th>"
        for phase, found in run.phases.items():
            estimate = over_seeds(found[name])
            each = [number(v, percent).removesuffix(" %") for v in found[name]] if len(found[name]) > 1 else []
            small = "<wbr>".join(f"<span>{v}{' · ' if i + 1 < len(each) else ''}</span>" for i, v in enumerate(each))
            body += f"<td{chosen[phase]}><b>{number(estimate.point, percent)}</b>"
            if np.isfinite(estimate.point):
                body += f"<small>{bounds(estimate, percent)}</small><small>{small}</small>"
            body += "</td>"
        body += "</tr>"
    under = "Bold: mean over seeds; in brackets: its 95 % interval; below: each seed"
    under = (f"Of {NOTE_OF_ONE_SEED}" if len(s["seeds"]) == 1 else under) + f" ({_seeds(s)})."
    if levels := findings.references(s):
        under += f" Returns to compare with: {levels}."
    if s["best"] is None:
        under += " The best possible return is not known here, so there is no share of range."
    if "velocity_error_online" in _known(run.phases):
        under += " Velocity error: mean of |v - v*| over the episodes of training tasks."
    return signed(
        f"<div class=wide><table class=summary><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"</div><p class=caption>{escape(under)}</p>"
    )


def _losses(run: Run) -> str:
    """Training metrics, folded away: for whoever wants to see whether training itself went well."""
    drawn = ""
    for title, phases, x_label in (
        ("Offline phase", ["before"], "updates of the offline phase"),
        ("Self-supervised phase", list(run.summary["arms"]), "iterations of the self-supervised phase"),
    ):
        if found := findings.curves(run, phases, LOSSES):
            figure = _figure(plots.learning_curves(found, x_label=x_label), f"{title}: losses")
            drawn += f"<h3>{title}</h3>{figure}"
    return f"<details><summary>Losses of both phases</summary>{drawn}</details>" if drawn else ""


def _settings(run: Run) -> str:
    s, changed = run.summary, _changed(run)
    facts = {
        "task family": s["family"],
        "preset": s["preset"],
        "seeds": " ".join(map(str, s["seeds"])),
        "arms": ", ".join(s["arms"]) or "none",
        "time (phases: mean over seeds)": ", ".join(f"{k} {v:.0f} s" for k, v in s["seconds"].items()),
        "device": f"{s.get('device')}, {s.get('threads')} thread{'s' if s.get('threads') != 1 else ''}",
        "commit": s.get("commit") or "unknown",
        "versions": ", ".join(f"{k} {v}" for k, v in s["versions"].items()),
    }
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    rows = ""
    for name, value in s["config"].items():
        mark, note = "", ""
        if name in changed:
            mark, note = " class=default", f"<small>preset: {escape(str(changed[name]))}</small>"
        rows += f"<tr{mark}><th scope=row>{escape(name)}</th><td>{escape(str(value))} {note}</td></tr>"
    return (
        f"<dl class=facts>{listed}</dl><p>The command that makes it again:</p><pre>{escape(command(run))}</pre>"
        f"<details><summary>All settings</summary><div class=columns><table class=config>{rows}</table></div></details>"
    )
