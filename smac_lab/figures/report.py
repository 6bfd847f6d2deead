"""`report.html`: the results of a run on one self-contained page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import plotly.graph_objects as go

from smac_lab.arms import ARMS
from smac_lab.data.storage import replace_text
from smac_lab.figures import findings, plots, style
from smac_lab.figures.findings import MEASURES, NOTE_OF_ONE_SEED, Run, bounds, number, read_run, signed
from smac_lab.figures.stats import over_seeds
from smac_lab.runs.plan import DEFAULT_ARMS

LOSSES = ["reward_error", "kl", "critic_loss", "awac_loss", "weight_max"]


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run's folder.

    Sections without data are omitted; the page lists what is missing.

    Args:
        run_dir: folder with a `summary.json`.

    Returns:
        Path of the page, which needs no network.

    Raises:
        FileNotFoundError: the folder has no `summary.json`.
    """
    run = read_run(run_dir)
    path = run.folder / "report.html"
    replace_text(path, _page(run))
    return path


def write_picture(run_dir: str | Path, path: str | Path) -> Path:
    """Write a PNG of returns and latent plane before and after the default arm.

    Args:
        run_dir: folder with a `summary.json`.
        path: file to write.

    Raises:
        FileNotFoundError: `summary.json` or the offline phase's measurement is missing.
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
    picture = png_of(figure, width=500 + 500 * len(panels), height=480)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    return path


def png_of(figure: go.Figure, **size: int) -> bytes:
    """Return a figure as a PNG on a white background.

    Raises:
        RuntimeError: kaleido or a Chromium browser is not installed.
    """
    figure.update_layout(paper_bgcolor="white", font_color="#333333")
    try:
        picture: bytes = figure.to_image(format="png", scale=1.5, **size)
    except Exception as error:  # its class differs between versions of kaleido
        raise RuntimeError(
            "plotly could not export a picture; it needs kaleido and a Chromium browser "
            f"(`pip install kaleido`, `apt-get install chromium`): {type(error).__name__}: {error}"
        ) from error
    return picture


def print_summary(summary: Mapping[str, Any]) -> str:
    """Format the summary as text: one column per phase, mean over seeds above its 95 % interval.

    Args:
        summary: contents of `summary.json`.
    """
    phases = findings.measures(summary)
    only = len(phases) == 1
    titles = [f"{phase} *" if phase == summary["default_arm"] else phase for phase in phases]
    titles = [summary.get("method", "offline phase")] if only else titles
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
    what = "returns given each kind of context" + ("" if only else ", and what closed of the gap")
    note = NOTE_OF_ONE_SEED if len(summary["seeds"]) == 1 else "see report.html for each seed"
    return "\n".join([
        f"{summary['family']}, preset {summary['preset']}, {_seeds(summary)}",
        f"{what}: mean over seeds [95 % interval]",
        "",
        *(line(label, cells) for label, cells in rows if any(cells)),
        *successes,
        "",
        f"for comparison: {known}" if known else "",
        note if only else f"* the default arm; {note}",
    ])  # fmt: skip


def command(run: Run) -> str:
    """Return the command line that repeats a run."""
    s, stored = run.summary, run.experiment
    words = ["smac-lab", "train", s["family"], "--preset", s["preset"], "--seed", *map(str, s["seeds"])]
    arms = list(s["arms"])
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
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


def _changed(run: Run) -> dict[str, Any]:
    """Return the preset's values of the settings that differ from it."""
    from smac_lab.config import SMACConfig

    try:
        preset = SMACConfig.preset(run.summary["family"], run.summary["preset"]).to_dict()
    except ValueError:
        return {}
    return {name: preset[name] for name, v in run.summary["config"].items() if name in preset and preset[name] != v}


def _known(phases: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, bool]]:
    """Return measures with a known value."""
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
    s = run.summary
    frame = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    frame.filters |= {"signed": signed, "colour": style.phase_colour, "label": style.phase_label, "drawn": _drawn}
    arms = [phase for phase in run.phases if phase != "before"]
    return frame.get_template("report.html.jinja").render(
        title=f"{'SMAC' if s.get('method', 'smac') == 'smac' else s['method']} on {s['family']}",
        facts=[
            s["family"],
            f"preset {s['preset']}",
            _seeds(s),
            *([f"commit {s['commit'][:10]}"] if s.get("commit") else []),
        ],
        plotly=style.PLOTLY.read_text(encoding="utf-8"),
        headline=findings.headline(run),
        phases=list(run.phases),
        default=s["default_arm"],
        rows=_rows(run),
        notes=_notes(run),
        missing=run.missing,
        offline_context=_offline_context(run),
        arms={arm: ARMS[arm].about if arm in ARMS else "an arm of one's own" for arm in arms},
        sections=findings.sections(run),
        made_with=_made_with(run),
        command=command(run),
        by_hand=_by_hand(run),
        settings=s["config"],
        changed=_changed(run),
        losses=_losses(run),
    )


def _by_hand(run: Run) -> list[str]:
    """Return the commands that show the shift of the run by hand; the explorer is of SMAC's agents."""
    explore = shlex.join(["smac-lab", "explore", str(run.folder)])
    return [explore, f"{explore} --html FILE.html"] if run.summary.get("method", "smac") == "smac" else []


def _offline_context(run: Run) -> str:
    if run.summary.get("offline_context") == "exploration":
        return (
            "recorded exploration of that task, which the encoder alone reads, while actor and critics learn from "
            "other recordings"
        )
    return "the recordings of that task"


def _drawn(figure: go.Figure) -> str:
    buttons = ["select2d", "lasso2d", "autoScale2d"]
    return figure.to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, default_width="100%",
        config={"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": buttons},
        default_height=f"{figure.layout.height}px",
    )  # fmt: skip


class _Cell(NamedTuple):
    known: bool
    mean: str
    interval: str
    seeds: list[str]  # empty for a single seed


class _Row(NamedTuple):
    title: str
    unit: str
    cells: dict[str, _Cell]  # by phase


def _rows(run: Run) -> list[_Row]:
    rows = []
    for name, (label, percent) in _known(run.phases).items():
        cells = {}
        for phase, found in run.phases.items():
            estimate = over_seeds(found[name])
            seeds = [number(v, percent).removesuffix(" %") for v in found[name]] if len(found[name]) > 1 else []
            known = bool(np.isfinite(estimate.point))
            cells[phase] = _Cell(known, number(estimate.point, percent), bounds(estimate, percent), seeds)
        title, _, unit = label.partition(" (")
        rows.append(_Row(title, unit, cells))
    return rows


def _notes(run: Run) -> str:
    s = run.summary
    notes = "Bold: mean over seeds; in brackets: its 95 % interval; below: each seed"
    notes = (f"Of {NOTE_OF_ONE_SEED}" if len(s["seeds"]) == 1 else notes) + f" ({_seeds(s)})."
    if levels := findings.references(s):
        notes += f" Returns to compare with: {levels}."
    if s["best"] is None:
        notes += " The best possible return is not known here, so there is no share of range."
    if "velocity_error_online" in _known(run.phases):
        notes += " Velocity error: mean of |v - v*| over the episodes of training tasks."
    return notes


def _losses(run: Run) -> dict[str, go.Figure]:
    phases = {
        "Offline phase": (["before"], "updates of the offline phase"),
        "Self-supervised phase": (list(run.summary["arms"]), "iterations of the self-supervised phase"),
    }
    curves = {title: findings.curves(run, names, LOSSES) for title, (names, _) in phases.items()}
    return {title: plots.learning_curves(found, x_label=phases[title][1]) for title, found in curves.items() if found}


def _made_with(run: Run) -> dict[str, str]:
    s = run.summary
    return {
        "task family": s["family"],
        "preset": s["preset"],
        "seeds": " ".join(map(str, s["seeds"])),
        "arms": ", ".join(s["arms"]) or "none",
        "time (phases: mean over seeds)": ", ".join(f"{k} {v:.0f} s" for k, v in s["seconds"].items()),
        "device": f"{s.get('device')}, {s.get('threads')} thread{'s' if s.get('threads') != 1 else ''}",
        "commit": s.get("commit") or "unknown",
        "versions": ", ".join(f"{k} {v}" for k, v in s["versions"].items()),
    }
