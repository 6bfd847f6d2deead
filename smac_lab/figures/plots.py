"""Figures of an experiment: pure functions from arrays to plotly figures, in the colours of `style`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.colors import sample_colorscale

from smac_lab.figures import style
from smac_lab.figures.stats import over_seeds
from smac_lab.figures.style import (
    GREY,
    KINDS,
    METRIC_LABELS,
    OFFLINE,
    SELF_COLLECTED,
    Array,
    Place,
    TaskScale,
    phase_label,
)

Curve = tuple[ArrayLike, ArrayLike]  # steps (point,), values (point,)
KL_KINDS = {  # colour (None: that of the phase) and label
    "online_offline": (None, "KL(self-collected || offline)"),
    "offline_prior": (OFFLINE, "KL(offline || prior)"),
    "online_prior": (SELF_COLLECTED, "KL(self-collected || prior)"),
}


class Posteriors(NamedTuple):
    """q(z | context) per task, from both kinds of context; each `(task, repeat, z_dim)`."""

    offline_mean: ArrayLike
    offline_std: ArrayLike
    online_mean: ArrayLike
    online_std: ArrayLike


class Divergences(NamedTuple):
    """KL divergences of posteriors, in nats; each `(task,)`, all seeds concatenated."""

    online_offline: ArrayLike
    online_prior: ArrayLike
    offline_prior: ArrayLike


class TaskReturns(NamedTuple):
    """Mean return per task, each `(task,)`; None without an agent."""

    behaviour: ArrayLike
    offline: ArrayLike | None = None
    online: ArrayLike | None = None


class Rollouts(NamedTuple):
    """One episode per shown task and kind of context; each `(shown_task, time, dim)`."""

    offline: ArrayLike
    online: ArrayLike


class Axes(NamedTuple):
    """A plane of z: centre `(z_dim,)`, directions `(2, z_dim)`, their shares of variance `(2,)`."""

    centre: Array
    directions: Array
    share: Array


# -- the latent plane ------------------------------------------------------------------------------------


def principal_axes(means: ArrayLike) -> Axes:
    """Compute the centre and first two principal axes of posterior means.

    Args:
        means: `(..., z_dim)`.

    Returns:
        Axes, each with its largest coordinate positive. For one-dimensional z the second is zero; for equal means they
        are the first two coordinates.
    """
    points = np.asarray(means, dtype=np.float64).reshape(-1, np.shape(means)[-1])
    z_dim, centre = points.shape[1], points.mean(0)
    _, scale, rows = np.linalg.svd(np.vstack([points - centre, np.zeros((2, z_dim))]), full_matrices=False)
    if (scale**2).sum() < 1e-18:
        rows, scale = np.eye(z_dim), np.zeros(z_dim)
    directions, share = np.zeros((2, z_dim)), np.zeros(2)
    directions[: len(rows)], share[: len(rows)] = rows[:2], scale[:2] ** 2 / max((scale**2).sum(), 1e-18)
    largest = directions[np.arange(2), np.abs(directions).argmax(1)]
    return Axes(centre, directions * np.where(largest < 0, -1.0, 1.0)[:, None], share)


def project(points: ArrayLike, axes: Axes) -> Array:
    """Project points onto the plane, `(..., z_dim)` to `(..., 2)`."""
    return (np.asarray(points, dtype=np.float64) - axes.centre) @ axes.directions.T


def ellipse(mean: ArrayLike, std: ArrayLike, axes: Axes) -> Array:
    """Return the projected outline of one standard deviation of a diagonal Gaussian.

    Args:
        mean, std: `(z_dim,)`.

    Returns:
        `(point, 2)`; the last point equals the first.
    """
    scaled = axes.directions * np.asarray(std, dtype=np.float64)  # (2, z_dim)
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    return project(mean, axes) + style.circle(np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def posterior_plane(panels: Mapping[str, Posteriors], tasks: TaskScale) -> go.Figure:
    """Draw posteriors in one plane of z, one panel per phase: offline filled, self-collected hollow.

    A line joins the two markers of a task; its length shows the shift. The plane is spanned by the principal axes of
    all offline posterior means. Of repeated contexts only the first is drawn. Up to 12 tasks have outlines of one
    standard deviation.

    Args:
        panels: phase to posteriors.
        tasks: colours of the tasks.
    """
    means = [np.asarray(m)[:, 0] for p in panels.values() for m in (p.offline_mean, p.online_mean)]
    height = _panel_height(project(np.concatenate(means), _shared_axes(panels)), least=280)
    fig, places = style.grid([phase_label(phase) for phase in panels], height)
    _draw_planes(fig, places, panels, tasks)
    return fig


def _shared_axes(panels: Mapping[str, Posteriors]) -> Axes:
    return principal_axes(np.concatenate([np.asarray(p.offline_mean) for p in panels.values()]))


def _draw_planes(fig: go.Figure, places: Sequence[Place], panels: Mapping[str, Posteriors], tasks: TaskScale) -> None:
    axes, extent = _shared_axes(panels), []
    for place, (phase, posteriors) in zip(places, panels.items(), strict=True):
        off_mean, off_std, on_mean, on_std = (np.asarray(p, np.float64)[:, 0] for p in posteriors)
        offline, online = project(off_mean, axes), project(on_mean, axes)  # (task, 2)
        extent += [offline, online]
        legend = place is places[0]
        style.lines_of(
            fig, place, np.stack([offline, online], 1), "same task", legend, color="rgba(127,127,127,0.6)", width=0.8
        )
        if len(tasks.values) <= 12:
            for name, colour, means, stds in (
                ("offline, 1 std", OFFLINE, off_mean, off_std),
                ("self-collected, 1 std", SELF_COLLECTED, on_mean, on_std),
            ):
                outlines = [ellipse(mean, std, axes) for mean, std in zip(means, stds, strict=True)]
                extent += outlines
                style.lines_of(fig, place, outlines, name, legend, color=colour, width=1)
        for name, (x, y), symbol, size in (
            ("offline context", offline.T, "circle", 8),
            ("self-collected context", online.T, "circle-open", 9),
        ):
            look = {"symbol": symbol, "size": size, "line_width": 2 if symbol == "circle-open" else 0}
            shared = {"mode": "markers", "name": name, "legendgroup": name, **place}
            fig.add_scatter(
                x=x, y=y, marker={"color": tasks.values, "coloraxis": "coloraxis", **look}, showlegend=False,
                hovertemplate=f"{tasks.label} %{{marker.color:.2f}}<extra>{name}, {phase_label(phase)}</extra>",
                **shared,
            )  # fmt: skip
            if legend:  # grey, because the legend shows a colour scale as black
                fig.add_scatter(x=[None], y=[None], marker={"color": GREY, **look}, hoverinfo="skip", **shared)
        if {**place, "row": place["row"] + 1} not in places:
            fig.update_xaxes(title=f"axis 1 of z ({axes.share[0]:.0%} of variance)", **place)
        if place["col"] == places[0]["col"]:
            fig.update_yaxes(title=f"axis 2 ({axes.share[1]:.0%})", **place)
    style.same_scale(fig, places, np.concatenate(extent))
    style.colour_bar(fig, tasks)


# -- bars ------------------------------------------------------------------------------------------------


def return_bars(
    returns: Mapping[str, Mapping[str, ArrayLike]],
    *,
    random: float | None = None,
    best: float | None = None,
    behaviour: float | None = None,
) -> go.Figure:
    """Draw returns before and after each arm: mean over seeds with 95 % interval, and one dot per seed.

    Bars start at the return of random actions if it is known.

    Args:
        returns: phase to "offline_context", "online_context", "test", each `(seed,)`; NaN where unknown.
        random, best, behaviour: values of horizontal lines, or None.
    """
    fig, places = style.grid([""], 305)
    _draw_returns(fig, places[0], returns, random, best, behaviour)
    return fig


def shift_bars(shift: Mapping[str, ArrayLike]) -> go.Figure:
    """Draw the normalised shift before and after each arm: mean with 95 % interval, and one dot per seed.

    Args:
        shift: phase to `(seed,)`.
    """
    fig, places = style.grid([""], 205)
    _bars(fig, places[0], shift, [style.phase_colour(phase) for phase in shift], "normalised shift", width=0.45)
    style.level(fig, places[0], 1.0, "as far as another task:", "dot")
    fig.update_yaxes(title="normalised shift (no unit)", zeroline=True, zerolinecolor=GREY)
    return fig.update_traces(showlegend=False)


def overview(
    panels: Mapping[str, Posteriors],
    tasks: TaskScale,
    returns: Mapping[str, Mapping[str, ArrayLike]],
    *,
    random: float | None = None,
    best: float | None = None,
) -> go.Figure:
    """Draw the returns and the latent plane of each phase in one row.

    Args: see `posterior_plane` and `return_bars`.
    """
    titles = ["what the agent gets", *(f"what the encoder infers, {phase_label(phase)}" for phase in panels)]
    fig, places = style.grid(titles, 345, columns=len(titles))
    _draw_returns(fig, places[0], returns, random, best)
    _draw_planes(fig, places[1:], panels, tasks)
    return fig


def returns_by_task(panels: Mapping[str, TaskReturns], tasks: TaskScale) -> go.Figure:
    """Draw each task's return in the behaviour data, given offline and given self-collected context.

    Args:
        panels: phase to returns; one panel each.
        tasks: order on the x axis: by value, or by the rank of the data's return if a task has several numbers.
    """
    fig, places = style.grid([phase_label(phase) for phase in panels], 300, columns=len(panels))
    for i, (place, found) in enumerate(zip(places, panels.values(), strict=True)):
        behaviour = np.asarray(found.behaviour, np.float64)
        ranked = tasks.label.endswith("first parameter")
        x = behaviour.argsort().argsort() if ranked else tasks.values
        for values, name, colour, symbol in (
            (behaviour, "behaviour data", GREY, "line-ew-open"),
            (found.offline, KINDS["offline_context"][1], OFFLINE, "circle"),
            (found.online, KINDS["online_context"][1], SELF_COLLECTED, "circle-open"),
        ):
            if values is not None:
                fig.add_scatter(
                    x=x, y=values, mode="markers", name=name, showlegend=i == 0, legendgroup=name,
                    marker={"color": colour, "symbol": symbol, "size": 8, "line": {"width": 2, "color": colour}},
                    hovertemplate="%{y:.4g}<extra>" + name + "</extra>", **place,
                )  # fmt: skip
        fig.update_xaxes(title="task, by return of its data" if ranked else tasks.label, **place)
        fig.update_yaxes(title="return per episode" if i == 0 else None, **place)
    return fig.update_yaxes(matches="y")


def _draw_returns(
    fig: go.Figure,
    place: Place,
    returns: Mapping[str, Mapping[str, ArrayLike]],
    random: float | None,
    best: float | None,
    behaviour: float | None = None,
) -> None:
    for offset, (kind, (colour, label)) in zip((-0.28, 0.0, 0.28), KINDS.items(), strict=True):
        values = {phase: measured[kind] for phase, measured in returns.items()}
        _bars(fig, place, values, [colour] * len(values), label, base=random or 0.0, offset=offset)
    style.level(fig, place, best, "best known", "dash")
    style.level(fig, place, behaviour, "behaviour data", "dashdot")
    style.level(fig, place, random, "random actions", "dot", "bottom right")
    fig.update_yaxes(title="return per episode", **place)


def _bars(
    fig: go.Figure,
    place: Place,
    phases: Mapping[str, ArrayLike],
    colours: Sequence[str],
    name: str,
    base: float = 0.0,
    offset: float = 0.0,
    width: float = 0.26,
) -> None:
    """Draw one bar per phase with its interval, and the seeds as dots side by side."""
    centres, values = np.arange(len(phases)) + offset, np.array(list(phases.values()), np.float64)  # (phase, seed)
    mean, low, high = np.array([over_seeds(seeds) for seeds in values]).T
    fig.add_bar(
        x=centres, y=mean - base, base=base, width=width, name=name, customdata=mean, opacity=0.85,
        marker={"color": list(colours), "line_width": 0}, hovertemplate="%{customdata:.3g}<extra>" + name + "</extra>",
        **place,
    )  # fmt: skip
    if np.isfinite(low).any():
        spread = {"array": np.nan_to_num(high - mean), "arrayminus": np.nan_to_num(mean - low)}
        fig.add_scatter(
            x=centres, y=mean, mode="markers", marker={"opacity": 0, "color": GREY}, hoverinfo="skip",
            error_y={**spread, "color": "#555555", "thickness": 1.8, "width": 5}, name=f"{name}, 95 % interval",
            showlegend=False, **place,
        )  # fmt: skip
    n, known = values.shape[1], np.isfinite(values)
    dots = centres[:, None] + (np.linspace(-0.065, 0.065, n) if n > 1 else np.zeros(1))
    fig.add_scatter(
        x=dots[known], y=values[known], mode="markers", name=f"{name}, each seed", showlegend=False,
        marker={"color": "#FFFFFF", "size": 6, "line": {"color": "#444444", "width": 1.2}},
        hovertemplate="%{y:.3g}<extra>" + name + ", one seed</extra>", **place,
    )  # fmt: skip
    fig.update_xaxes(
        tickvals=list(range(len(phases))), ticktext=[phase_label(p).replace(" ", "<br>", 1) for p in phases],
        tickangle=0, range=[-0.6, len(phases) - 0.4], showgrid=False, **place,
    )  # fmt: skip


# -- histograms, curves, episodes ------------------------------------------------------------------------


def kl_histograms(panels: Mapping[str, Divergences]) -> go.Figure:
    """Draw histograms of KL divergences, one row per phase: self-collected to offline, and both to the prior.

    Args:
        panels: phase to divergences; values below 1e-6 nats count as 1e-6.
    """
    titles = [
        t for p in panels for t in (f"{phase_label(p)}: self-collected against offline", "each against the prior")
    ]
    fig, places = style.grid(titles, 120, gap=35, shared_xaxes="columns")
    logs = {p: Divergences(*(np.log10(np.maximum(np.asarray(v), 1e-6)) for v in kl)) for p, kl in panels.items()}
    for column, kinds in enumerate((("online_offline",), ("offline_prior", "online_prior"))):
        values = np.concatenate([getattr(kl, kind) for kl in logs.values() for kind in kinds])
        edges = np.linspace(values.min() - 0.05, max(values.max(), values.min() + 0.5) + 0.05, 31)
        centres = (edges[1:] + edges[:-1]) / 2
        for place, (phase, kl) in zip(places[column::2], logs.items(), strict=True):
            for kind in kinds:
                colour, name = KL_KINDS[kind]
                fig.add_bar(
                    x=centres, y=np.histogram(getattr(kl, kind), edges)[0], width=np.diff(edges), name=name,
                    marker={"color": colour or style.phase_colour(phase), "line_width": 0}, opacity=0.65,
                    customdata=10**centres, showlegend=place == places[1], **place,
                    hovertemplate=f"about %{{customdata:.2g}} nats: %{{y}} tasks<extra>{name}</extra>",
                )  # fmt: skip
            most = max(max(trace.y) for trace in fig.select_traces(**place))
            fig.update_yaxes(dtick=max(1, round(int(most) / 4)), **place)
        ticks = [m * 10.0**d for d in range(-7, 10) for m in ((1,) if np.ptp(edges) > 2 else (1, 2, 5))]
        fig.update_xaxes(
            tickvals=np.log10(ticks), ticktext=[f"{t:g}" for t in ticks], range=edges[[0, -1]], col=column + 1
        )
    fig.update_yaxes(title="tasks", col=1)
    fig.update_xaxes(title="KL divergence (nats)", row=len(panels))
    return fig.update_layout(barmode="overlay", bargap=0)


def learning_curves(
    curves: Mapping[str, Mapping[str, Sequence[Curve]]],
    *,
    best: float | None = None,
    x_label: str = "iterations of the self-supervised phase",
) -> go.Figure:
    """Draw metrics over training, a panel per metric and a colour per arm: mean over seeds thick, seeds thin.

    Args:
        curves: metric to arm to one curve per seed. Points that are not finite are omitted.
        best: horizontal line in panels of returns.
        x_label: unit of the steps.
    """
    fig, places = style.grid([METRIC_LABELS.get(metric, metric) for metric in curves], 190)
    named: set[str] = set()
    first_return = None
    for place, (metric, arms) in zip(places, curves.items(), strict=True):
        for arm, seeds in arms.items():
            shared = {"legendgroup": arm, "line_color": style.phase_colour(arm), **place}
            for seed, (steps, values) in enumerate(map(_finite, seeds)):
                if len(seeds) > 1:
                    fig.add_scatter(
                        x=steps, y=values, mode="lines", opacity=0.4, line_width=1, showlegend=False,
                        name=f"{phase_label(arm)}, seed {seed}", **shared,
                    )  # fmt: skip
            steps, mean = mean_curve(seeds)
            fig.add_scatter(
                x=steps, y=mean, mode="lines+markers" if len(steps) < 25 else "lines", marker_size=5, line_width=2.5,
                name=phase_label(arm), showlegend=arm not in named, **shared,
            )  # fmt: skip
            named.add(arm)
        if metric.endswith("_return"):  # one scale for returns
            first_return = first_return or style.axis_name(fig, place, "y")
            fig.update_yaxes(matches=first_return, **place)
            style.level(fig, place, best, "best known", "dash")
        if {**place, "row": place["row"] + 1} not in places:
            fig.update_xaxes(title=x_label, **place)
    if max((max(trace.x) for trace in fig.data if len(trace.x)), default=0) <= 6:
        fig.update_xaxes(dtick=1)
    return fig


def mean_curve(curves: Sequence[Curve]) -> tuple[Array, Array]:
    """Average over seeds, at the steps where all seeds have a finite value.

    Args:
        curves: one per seed.

    Returns:
        Steps and means, both `(shared_point,)`.
    """
    points = [_finite(curve) for curve in curves]
    shared = points[0][0]
    for steps, _ in points[1:]:
        shared = np.intersect1d(shared, steps)
    return shared, np.mean([values[np.isin(steps, shared)] for steps, values in points], axis=0)


def _finite(curve: Curve) -> tuple[Array, Array]:
    steps, values = (np.asarray(a, np.float64) for a in curve)
    return steps[np.isfinite(values)], values[np.isfinite(values)]


def trajectories(
    panels: Mapping[str, Rollouts],
    tasks: TaskScale,
    goals: ArrayLike | None = None,
    *,
    goal_name: str = "goal",
    radius: float | None = None,
    y_label: str = "y (m)",
    dt: float = 1.0,
) -> go.Figure:
    """Draw episodes after adaptation, one row per phase: offline context left, self-collected right.

    Two-dimensional rollouts are paths in a plane (m). Of others the first coordinate is drawn over time.

    Args:
        panels: phase to rollouts of the same shown tasks.
        tasks: colours of the tasks.
        goals: for paths, crosses `(shown_task, 2)`, or distant points in the directions of tasks; over time, dashed
            lines `(shown_task,)`.
        goal_name: in the legend.
        radius: of a circle around each cross (m).
        y_label: label of the y axis, with unit.
        dt: seconds per step, for the time axis; 1 labels the axis in steps.
    """
    cells = [np.asarray(rollout, np.float64) for rollouts in panels.values() for rollout in rollouts]
    plane = cells[0].shape[-1] == 2
    goals = None if goals is None else np.asarray(goals, np.float64)
    corners = (
        np.concatenate([p.reshape(-1, 2) for p in (*cells, goals) if p is not None]) if plane else np.zeros((1, 2))
    )
    titles = [f"{phase_label(p)}: {kind} context" for p in panels for kind in ("offline", "self-collected")]
    fig, places = style.grid(titles, _panel_height(corners, least=150) if plane else 180)
    where = np.clip((tasks.values - tasks.low) / (tasks.high - tasks.low), 0.0, 1.0)
    colours = sample_colorscale(tasks.palette, where.tolist())  # plotly has no scale for lines
    for place, paths in zip(places, cells, strict=True):
        legend = place is places[0]
        for task, (path, colour) in enumerate(zip(paths, colours, strict=True)):
            x, y = path.T if plane else (dt * np.arange(len(path)), path[:, 0])
            fig.add_scatter(
                x=x, y=y, mode="lines", line={"color": colour, "width": 2}, opacity=0.9, showlegend=False,
                name=f"{tasks.label} {tasks.values[task]:.2f}", **place,
            )  # fmt: skip
            if goals is not None and not plane:
                fig.add_scatter(
                    x=x[[0, -1]], y=goals[[task, task]], mode="lines", hoverinfo="skip", opacity=0.7, name=goal_name,
                    line={"color": colour, "width": 1.5, "dash": "dash"}, showlegend=legend and task == 0,
                    legendgroup="goal", **place,
                )  # fmt: skip
        if plane:
            x, y = paths[:, -1].T
            shared = {"mode": "markers", "hoverinfo": "skip", "showlegend": legend, **place}
            fig.add_scatter(x=x, y=y, marker={"color": colours, "size": 7}, name="end of the episode", **shared)
        if plane and goals is not None:
            if radius is not None:
                rings = goals[:, None] + style.circle(np.full(2, radius))
                style.lines_of(fig, place, rings, "rewarded", legend, color=GREY, width=1, dash="dot")
            cross = {"symbol": "x-thin", "size": 12, "line": {"color": colours, "width": 3}}
            fig.add_scatter(x=goals[:, 0], y=goals[:, 1], marker=cross, name=goal_name, **shared)
    style.colour_bar(fig, tasks)
    x_label = "x (m)" if plane else "time (s)" if dt != 1.0 else "time (steps)"
    fig.update_xaxes(title=x_label, row=len(panels)).update_yaxes(title=y_label, col=1)
    if plane:
        style.same_scale(fig, places, corners)
    else:
        fig.update_yaxes(matches="y")
    return fig


def _panel_height(points: Array, least: int) -> int:
    """Compute the height that gives a panel of width 400 equal scales, in pixels."""
    width, height = np.ptp(points, axis=0)
    return int(np.clip(400 * height / max(width, 1e-6), least, 400))


# -- speed -----------------------------------------------------------------------------------------------
def scaling(curves: Sequence[tuple[str, str, str, ArrayLike, ArrayLike, float]]) -> go.Figure:
    """Draw cost against size on logarithmic axes, with a fitted power law.

    Args:
        curves: per panel: name, label of the sizes, unit of the costs, sizes and costs `(point,)`, and the exponent of
            `costs ~ sizes^exponent`.
    """
    fig, places = style.grid([f"{name}: size^{exponent:.2f}" for name, *_, exponent in curves], height=300)
    for (name, x, y, sizes, costs, exponent), place in zip(curves, places, strict=True):
        sizes, costs = np.asarray(sizes, dtype=np.float64), np.asarray(costs, dtype=np.float64)
        fitted = np.exp(np.log(costs).mean() + exponent * (np.log(sizes) - np.log(sizes).mean()))
        shared = {"showlegend": False, "x": sizes, **place}
        fig.add_scatter(y=fitted, mode="lines", name="fit", line={"color": GREY, "dash": "dot"}, **shared)
        hover = f"%{{x:,}} {x}: %{{y:.3g}} {y}<extra></extra>"
        fig.add_scatter(
            y=costs, mode="lines+markers", name=name, line={"color": OFFLINE}, hovertemplate=hover, **shared
        )
        fig.update_xaxes(type="log", title=x, dtick=1, **place).update_yaxes(type="log", title=y, **place)
    return fig
