"""Pictures of an experiment: pure functions from arrays to a `plotly.graph_objects.Figure`.

A colour means one thing everywhere: blue is offline context, orange is self-collected context, green is
held-out tasks; each arm has its own; a task has its place on `TASK_SCALE` (or `TASK_CYCLE`, for directions).
The first eight are those of Okabe and Ito, which colour-blind readers can tell apart. Backgrounds are
transparent and lines grey, so that a figure can be read on light and on dark pages.

A *phase* here is "before" (after the offline phase) or the name of an arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from smac_lab.stats import Interval, interval

Array = NDArray[np.float64]

OFFLINE = "#0072B2"  # offline context: blue
SELF_COLLECTED = "#E69F00"  # self-collected context: orange
HELD_OUT = "#009E73"  # held-out tasks: bluish green
GREY = "#7F7F7F"  # whatever carries no meaning of its own, and the phase "before"
PHASE_COLOURS = {"before": GREY, "frozen": "#56B4E9", "self-labelled": "#D55E00", "oracle": "#CC79A7"}
OTHER_ARM = "#8C6D31"
PHASE_LABELS = {
    "before": "before",
    "frozen": "frozen encoder",
    "self-labelled": "self-labelled encoder",
    "oracle": "oracle (true rewards)",
}
KINDS = {  # the three returns of a measurement: colour and label
    "offline_context": (OFFLINE, "offline context"),
    "online_context": (SELF_COLLECTED, "self-collected context"),
    "test": (HELD_OUT, "held-out tasks"),
}
METRIC_LABELS = {
    "offline_context_return": "return, offline context",
    "online_context_return": "return, self-collected context",
    "test_return": "return, held-out tasks",
    "shift": "normalised shift",
    "velocity_error_offline": "velocity error (m/s), offline context",
    "velocity_error_online": "velocity error (m/s), self-collected context",
    "reward_error": "squared error of the decoded reward",
    "kl": "KL(q(z|h) || p(z)) (nats)",
    "critic_loss": "critic loss",
    "awac_loss": "AWAC loss of the actor",
    "weight_max": "largest AWAC weight",
}
# Both scales avoid near-white and near-black. The cycle runs in lightness and blue-yellow only.
TASK_SCALE = ["#413f84", "#34608d", "#287c8e", "#20998a", "#32b37b", "#67cb5c", "#afdd2f"]
TASK_CYCLE = ["#a8bbac", "#b9a35d", "#a87118", "#824614", "#613d40", "#315884", "#0084c5", "#5fadd8", "#a8bbac"]
_FAINT = "rgba(127,127,127,0.25)"


class Posteriors(NamedTuple):
    """q(z | context) of the same tasks from both kinds of context; each `(task, repeat, z_dim)`."""

    offline_mean: ArrayLike
    offline_std: ArrayLike
    online_mean: ArrayLike
    online_std: ArrayLike


class Divergences(NamedTuple):
    """KL divergences of posteriors, in nats; each `(task,)`, seeds one after the other."""

    online_offline: ArrayLike
    online_prior: ArrayLike
    offline_prior: ArrayLike


class Rollouts(NamedTuple):
    """One episode a shown task, given offline and given self-collected context; each `(shown_task, time, dim)`."""

    offline: ArrayLike
    online: ArrayLike


class TaskScale(NamedTuple):
    """What colours a task: one number each, `(task,)`, its axis label, and whether it is an angle all round."""

    values: Array
    label: str
    cyclic: bool
    low: float
    high: float


class Axes(NamedTuple):
    """A plane in the space of z: centre `(z_dim,)`, two directions `(2, z_dim)`, their shares of variance `(2,)`."""

    centre: Array
    directions: Array
    share: Array


# -- what several figures need ---------------------------------------------------------------------------


def phase_colour(phase: str) -> str:
    """The colour of "before" or of an arm; arms of one's own are brown."""
    return PHASE_COLOURS.get(phase, OTHER_ARM)


def phase_label(phase: str) -> str:
    """How "before" or an arm is called in pictures."""
    return PHASE_LABELS.get(phase, phase)


def task_scale(tasks: ArrayLike, label: str = "task") -> TaskScale:
    """One number a task to colour it by.

    An angle, where the label names radians (of the vector, where tasks are points of a plane); otherwise the
    first task parameter.

    Args:
        tasks: `(task, task_dim)`.
        label: the family's `task_label`, with unit.
    """
    tasks = np.asarray(tasks, dtype=np.float64)
    angle = "(rad)" in label
    if angle:
        values = (np.arctan2(tasks[:, 1], tasks[:, 0]) if tasks.shape[1] == 2 else tasks[:, 0]) % (2 * np.pi)
    else:
        values = tasks[:, 0]
        label = label if tasks.shape[1] == 1 else f"{label}, first parameter"
    if angle and ("direction" in label or values.max() > np.pi + 1e-6):
        return TaskScale(values, label, True, 0.0, 2 * np.pi)
    low, high = float(values.min()), float(values.max())
    return TaskScale(values, label, False, low, high if high > low else low + 1.0)


def principal_axes(means: ArrayLike) -> Axes:
    """The plane in which posterior means differ most: centre and first two principal axes.

    Args:
        means: `(..., z_dim)`.

    Returns:
        Axes, each direction with its largest coordinate positive. With a one-dimensional z the second
        direction is zero; with a single mean the axes are the first coordinates.
    """
    means = np.asarray(means, dtype=np.float64)
    points = means.reshape(-1, means.shape[-1])
    centre = points.mean(0)
    _, scale, rows = np.linalg.svd(np.vstack([points - centre, np.zeros((2, points.shape[1]))]), full_matrices=False)
    variance = scale**2
    if variance.sum() < 1e-18:
        rows, variance = np.eye(points.shape[1]), np.zeros(points.shape[1])
    directions, share = np.zeros((2, points.shape[1])), np.zeros(2)
    n = min(2, len(rows))
    directions[:n] = rows[:n]
    share[:n] = variance[:n] / max(float(variance.sum()), 1e-18)
    largest = directions[np.arange(2), np.abs(directions).argmax(1)]
    return Axes(centre, directions * np.where(largest < 0, -1.0, 1.0)[:, None], share)


def project(points: ArrayLike, axes: Axes) -> Array:
    """Coordinates in the plane, `(..., z_dim)` to `(..., 2)`."""
    return (np.asarray(points, dtype=np.float64) - axes.centre) @ axes.directions.T


def ellipse(mean: ArrayLike, std: ArrayLike, axes: Axes, points: int = 33) -> Array:
    """Outline of one standard deviation of a diagonal Gaussian, seen in the plane.

    Args:
        mean, std: `(z_dim,)`.
        points: of the outline; the last is the first.

    Returns:
        `(points, 2)`.
    """
    scaled = axes.directions * np.asarray(std, dtype=np.float64)  # (2, z_dim)
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    angle = np.linspace(0, 2 * np.pi, points)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return project(mean, axes) + ((vectors * np.sqrt(np.maximum(values, 0.0))) @ circle).T


# -- figures ---------------------------------------------------------------------------------------------


def posterior_plane(
    panels: Mapping[str, Posteriors],
    tasks: TaskScale,
    *,
    repeat: int = 0,
    ellipses: bool | None = None,
    axes: Axes | None = None,
) -> go.Figure:
    """Posteriors of all tasks in one plane of z, a panel a phase: offline filled, self-collected hollow.

    A thin line joins the two markers of a task: the longer it is, the further the shift has carried what the
    encoder infers. All panels share the plane, the principal axes of all their offline posterior means.

    Args:
        panels: phase to posteriors.
        tasks: colours of the tasks.
        repeat: which of the repeated contexts to show (averages would hide how far they differ).
        ellipses: draw one standard deviation of each posterior; default for up to 12 tasks.
        axes: plane to use instead.
    """
    axes = _shared_axes(panels) if axes is None else axes
    means = [np.asarray(m)[:, repeat] for p in panels.values() for m in (p.offline_mean, p.online_mean)]
    height = _row_height(project(np.concatenate(means), axes), least=280)
    fig, places = _grid(len(panels), [phase_label(phase) for phase in panels], height)
    _draw_planes(fig, places, panels, tasks, axes, repeat, ellipses)
    return fig


def return_bars(
    returns: Mapping[str, Mapping[str, ArrayLike]],
    *,
    random: float | None = None,
    best: float | None = None,
    behaviour: float | None = None,
) -> go.Figure:
    """Returns before and after each arm: mean over seeds with 95 % interval, every seed a dot.

    Bars rise from the return of random actions, where that is known, so that longer is better.

    Args:
        returns: phase to "offline_context", "online_context", "test", each `(seed,)`.
        random, best, behaviour: horizontal lines; None leaves one out.
    """
    fig, places = _grid(1, [""], height=430)
    _draw_returns(fig, places[0], returns, random, best, behaviour)
    return fig


def overview(
    panels: Mapping[str, Posteriors],
    tasks: TaskScale,
    returns: Mapping[str, Mapping[str, ArrayLike]],
    *,
    random: float | None = None,
    best: float | None = None,
) -> go.Figure:
    """One picture of an experiment: the latent plane in each panel's phase, and the returns.

    Args: as `posterior_plane` and `return_bars`.
    """
    titles = [f"what the encoder infers, {phase_label(phase)}" for phase in panels]
    fig, places = _grid(len(panels) + 1, ["what the agent gets", *titles], height=470, columns=len(panels) + 1)
    _draw_returns(fig, places[0], returns, random, best, None)
    _draw_planes(fig, places[1:], panels, tasks, _shared_axes(panels), 0, None)
    return fig


def shift_bars(shift: Mapping[str, ArrayLike]) -> go.Figure:
    """Normalised shift before and after each arm: mean over seeds with 95 % interval, every seed a dot.

    Args:
        shift: phase to `(seed,)`.
    """
    fig, places = _grid(1, [""], height=330)
    colours = [phase_colour(phase) for phase in shift]
    _bars(fig, places[0], [phase_label(phase) for phase in shift], list(shift.values()), colours, "normalised shift")
    _level(fig, places[0], 1.0, "1: as far as another task", "dot")
    fig.update_yaxes(title="normalised shift (no unit)", zeroline=True, zerolinecolor=GREY)
    return fig


def kl_histograms(panels: Mapping[str, Divergences], *, bins: int = 30) -> go.Figure:
    """How posteriors lie, a row a phase: self-collected against offline left, both against the prior right.

    Args:
        panels: phase to divergences (of all seeds, one after the other).
        bins: of the logarithmic axis that all rows share.
    """
    titles = [
        t
        for phase in panels
        for t in (f"{phase_label(phase)}: self-collected against offline", "each against the prior")
    ]
    fig = make_subplots(
        rows=len(panels),
        cols=2,
        shared_xaxes="columns",
        subplot_titles=titles,
        vertical_spacing=0.3 / (len(panels) + 1),
    )
    left = _log_edges([d.online_offline for d in panels.values()], bins)
    right = _log_edges([kl for d in panels.values() for kl in (d.online_prior, d.offline_prior)], bins)
    for row, (phase, kl) in enumerate(panels.items(), start=1):
        drawn = (
            (
                1,
                left,
                kl.online_offline,
                phase_colour(phase),
                f"KL(self-collected || offline), {phase_label(phase)}",
                False,
            ),
            (2, right, kl.offline_prior, OFFLINE, "KL(offline || prior)", row == 1),
            (2, right, kl.online_prior, SELF_COLLECTED, "KL(self-collected || prior)", row == 1),
        )
        for col, edges, values, colour, name, legend in drawn:
            logs = np.log10(np.maximum(np.asarray(values, np.float64), 1e-6))
            centres = (edges[1:] + edges[:-1]) / 2
            fig.add_bar(
                x=centres, y=np.histogram(logs, edges)[0], width=np.diff(edges), customdata=10**centres,
                marker={"color": colour, "line_width": 0}, opacity=0.65, name=name, showlegend=legend,
                hovertemplate="about %{customdata:.2g} nats: %{y} tasks<extra>" + name + "</extra>", row=row, col=col,
            )  # fmt: skip
        for col in (1, 2):
            most = max(int(max(trace.y)) for trace in fig.select_traces(row=row, col=col))
            fig.update_yaxes(dtick=max(1, round(most / 4)), row=row, col=col)
        fig.update_yaxes(title="tasks", row=row, col=1)
    for col, edges in ((1, left), (2, right)):
        ticks = [m * 10.0**d for d in range(-7, 10) for m in ((1,) if np.ptp(edges) > 2 else (1, 2, 5))]
        fig.update_xaxes(tickvals=np.log10(ticks), ticktext=[f"{t:g}" for t in ticks], range=edges[[0, -1]], col=col)
    fig.update_xaxes(title="KL divergence (nats)", row=len(panels))
    fig.update_layout(barmode="overlay", bargap=0)
    return _styled(fig, 110 + 150 * len(panels))


def learning_curves(
    curves: Mapping[str, Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]]],
    *,
    random: float | None = None,
    best: float | None = None,
    x_label: str = "iterations of the self-supervised phase",
) -> go.Figure:
    """Metrics over training, a panel a metric: mean over seeds thick, every seed thin, an arm a colour.

    Args:
        curves: metric to arm to, for each seed, `(steps (point,), values (point,))`. The mean is drawn at the
            steps that all seeds have. Points that are not finite are left out.
        random, best: horizontal lines in the panels of returns.
        x_label: what steps are.
    """
    fig, places = _grid(len(curves), [METRIC_LABELS.get(m, m) for m in curves], height=300, columns=2)
    named: set[str] = set()
    returns: list[Place] = []
    for (row, col), (metric, arms) in zip(places, curves.items(), strict=True):
        for arm, seeds in arms.items():
            points = [_finite(steps, values) for steps, values in seeds]
            colour, label = phase_colour(arm), phase_label(arm)
            shared = {"mode": "lines", "legendgroup": arm, "line_color": colour}
            if len(points) > 1:
                for i, (steps, values) in enumerate(points):
                    fig.add_scatter(
                        x=steps, y=values, opacity=0.4, line_width=1, name=f"{label}, seed {i}", showlegend=False,
                        row=row, col=col, **shared,
                    )  # fmt: skip
            steps, mean = mean_curve(points)
            if len(steps):
                fig.add_scatter(
                    x=steps, y=mean, line_width=2.5, name=label, showlegend=arm not in named, row=row, col=col,
                    **{**shared, "mode": "lines+markers" if len(steps) < 25 else "lines"}, marker_size=5,
                )  # fmt: skip
                named.add(arm)
        if metric.endswith("_return"):
            returns.append((row, col))
            _level(fig, (row, col), best, _named("best known", best), "dash")
            _level(fig, (row, col), random, _named("random", random), "dot")
    longest = max(
        (float(np.max(steps)) for arms in curves.values() for s in arms.values() for steps, _ in s), default=0
    )
    if longest <= 6:
        fig.update_xaxes(dtick=1)  # there is no half iteration
    for row, col in returns[1:]:  # returns can be compared between panels
        fig.update_yaxes(matches=_axis(fig, returns[0], "y"), row=row, col=col)
    for col in {col for _, col in places}:
        fig.update_xaxes(title=x_label, row=max(r for r, c in places if c == col), col=col)
    return fig


def trajectories(
    panels: Mapping[str, Rollouts],
    tasks: TaskScale,
    *,
    goals: ArrayLike | None = None,
    goal_name: str = "goal",
    targets: ArrayLike | None = None,
    radius: float | None = None,
    labels: tuple[str, str] = ("x (m)", "y (m)"),
    dt: float = 1.0,
) -> go.Figure:
    """Episodes after adaptation, a row a phase: given offline context left, given self-collected context right.

    Two-dimensional rollouts are drawn as paths in a plane, others (their first coordinate) over time.

    Args:
        panels: phase to rollouts of the same shown tasks.
        tasks: colours of the shown tasks.
        goals: `(shown_task, 2)`, a cross each; paths only. Where tasks are directions: points far out along them.
        goal_name: what the legend calls them.
        targets: `(shown_task,)`, a dashed level each; over time only.
        radius: of a circle around each goal, in axis units.
        labels: of the two axes, with units. Over time, the second one.
        dt: time a step takes; over time only.
    """
    cells = [np.asarray(rollout, np.float64) for rollouts in panels.values() for rollout in rollouts]
    plane = all(cell.shape[-1] == 2 for cell in cells)
    height = 290
    if plane:
        points = (*cells, np.zeros((0, 2)) if goals is None else np.asarray(goals, np.float64))
        corners = np.concatenate([p.reshape(-1, 2) for p in points])
        height = _row_height(corners)
    titles = [f"{phase_label(p)}: {kind} context" for p in panels for kind in ("offline", "self-collected")]
    fig, places = _grid(2 * len(panels), titles, height, columns=2)
    colours = _colours_of(tasks)
    for index, ((row, col), paths) in enumerate(zip(places, cells, strict=True)):
        for task, (path, colour, value) in enumerate(zip(paths, colours, tasks.values, strict=True)):
            x = path[:, 0] if plane else dt * np.arange(len(path))
            y = path[:, 1] if plane else path[:, 0]
            fig.add_scatter(
                x=x, y=y, mode="lines", line={"color": colour, "width": 2}, opacity=0.9, showlegend=False,
                name=f"{tasks.label} {value:.2f}", row=row, col=col,
            )  # fmt: skip
            if plane:
                fig.add_scatter(
                    x=x[-1:], y=y[-1:], mode="markers", marker={"color": colour, "size": 7}, hoverinfo="skip",
                    name="end of the episode", legendgroup="end", showlegend=index + task == 0, row=row, col=col,
                )  # fmt: skip
            elif targets is not None:
                fig.add_scatter(
                    x=x[[0, -1]], y=np.repeat(np.asarray(targets)[task], 2), mode="lines", hoverinfo="skip",
                    line={"color": colour, "width": 1.5, "dash": "dash"}, opacity=0.7,
                    name="target", legendgroup="target", showlegend=index + task == 0, row=row, col=col,
                )  # fmt: skip
        if plane and goals is not None:
            _draw_goals(
                fig, (row, col), np.asarray(goals, np.float64), colours, radius, goal_name if index == 0 else None
            )
    _colour_bar(fig, tasks)
    x_label, y_label = labels if plane else ("time (s)" if dt != 1.0 else "time (steps)", labels[1])
    fig.update_xaxes(title=x_label, row=len(panels))
    fig.update_yaxes(title=y_label, col=1)
    if plane:
        _same_scale(fig, places, corners)
    else:
        fig.update_yaxes(matches="y")
    return fig


# -- drawing into a place of a grid ----------------------------------------------------------------------

Place = tuple[int, int]


def _draw_planes(
    fig: go.Figure,
    places: Sequence[Place],
    panels: Mapping[str, Posteriors],
    tasks: TaskScale,
    axes: Axes,
    repeat: int,
    ellipses: bool | None,
) -> None:
    ellipses = len(tasks.values) <= 12 if ellipses is None else ellipses
    extent = []
    for index, ((row, col), (phase, posteriors)) in enumerate(zip(places, panels.items(), strict=True)):
        off_mean, off_std, on_mean, on_std = (np.asarray(p, np.float64)[:, repeat] for p in posteriors)
        offline, online = project(off_mean, axes), project(on_mean, axes)  # (task, 2)
        extent += [offline, online]
        where: dict[str, Any] = {"row": row, "col": col}
        x, y = _joined([np.stack(pair) for pair in zip(offline, online, strict=True)])
        fig.add_scatter(
            x=x, y=y, mode="lines", line={"color": "rgba(127,127,127,0.6)", "width": 0.8}, hoverinfo="skip",
            name="same task", legendgroup="join", showlegend=index == 0, **where,
        )  # fmt: skip
        if ellipses:
            for name, colour, means, stds in (
                ("offline, 1 std", OFFLINE, off_mean, off_std),
                ("self-collected, 1 std", SELF_COLLECTED, on_mean, on_std),
            ):
                outlines = [ellipse(mean, std, axes) for mean, std in zip(means, stds, strict=True)]
                extent += outlines
                x, y = _joined(outlines)
                fig.add_scatter(
                    x=x, y=y, mode="lines", line={"color": colour, "width": 1}, hoverinfo="skip",
                    name=name, legendgroup=name, showlegend=index == 0, **where,
                )  # fmt: skip
        for name, points, symbol, size in (
            ("offline context", offline, "circle", 8),
            ("self-collected context", online, "circle-open", 9),
        ):
            fig.add_scatter(
                x=points[:, 0], y=points[:, 1], mode="markers", name=name, legendgroup=name, showlegend=False,
                marker={"color": tasks.values, "coloraxis": "coloraxis", "symbol": symbol, "size": size,
                        "line": {"width": 2 if symbol.endswith("open") else 0}},
                customdata=tasks.values,
                hovertemplate=f"{tasks.label} %{{customdata:.2f}}<extra>{name}, {phase_label(phase)}</extra>", **where,
            )  # fmt: skip
            if index == 0:  # a grey stand-in: the legend would paint a colour scale black
                fig.add_scatter(
                    x=[None], y=[None], mode="markers", name=name, legendgroup=name, hoverinfo="skip",
                    marker={"color": GREY, "symbol": symbol, "size": size, "line_width": 2}, **where,
                )  # fmt: skip
        if (row + 1, col) not in places:
            fig.update_xaxes(title=f"principal axis 1 of z ({axes.share[0]:.0%} of variance)", **where)
        fig.update_yaxes(title=f"axis 2 ({axes.share[1]:.0%})" if col == places[0][1] else None, **where)
    _same_scale(fig, places, np.concatenate(extent))
    _colour_bar(fig, tasks)


def _draw_returns(
    fig: go.Figure,
    place: Place,
    returns: Mapping[str, Mapping[str, ArrayLike]],
    random: float | None,
    best: float | None,
    behaviour: float | None,
) -> None:
    phases = [phase_label(phase) for phase in returns]
    for offset, (kind, (colour, label)) in zip((-1, 0, 1), KINDS.items(), strict=True):
        values = [measured[kind] for measured in returns.values()]
        _bars(fig, place, phases, values, [colour] * len(phases), label, base=random or 0.0, offset=offset)
    _level(fig, place, best, _named("best known", best), "dash")
    _level(fig, place, behaviour, _named("behaviour data", behaviour), "dashdot")
    _level(fig, place, random, _named("random actions", random), "dot", "bottom right")
    row, col = place
    fig.update_yaxes(title="return per episode", row=row, col=col)


def _bars(
    fig: go.Figure,
    place: Place,
    phases: Sequence[str],
    values: Sequence[ArrayLike],
    colours: Sequence[str],
    name: str,
    base: float = 0.0,
    offset: int | None = None,
) -> None:
    """Bars (one a phase) with intervals and a dot a seed; `offset` -1, 0, 1 puts three sets side by side."""
    row, col = place
    width = 0.45 if offset is None else 0.26
    centres = np.arange(len(phases)) + (0.0 if offset is None else 0.28 * offset)
    intervals = [_interval(v) for v in values]
    points = np.array([i.point for i in intervals])
    up = [i.high - i.point if np.isfinite(i.high) else 0.0 for i in intervals]
    down = [i.point - i.low if np.isfinite(i.low) else 0.0 for i in intervals]
    fig.add_bar(
        x=centres, y=points - base, base=base, width=width, name=name, showlegend=offset is not None, customdata=points,
        marker={"color": list(colours), "line_width": 0}, opacity=0.85,
        hovertemplate="%{customdata:.3g}<extra>" + name + "</extra>", row=row, col=col,
    )  # fmt: skip
    if any(up) or any(down):
        fig.add_scatter(
            x=centres, y=points, mode="markers", marker={"opacity": 0, "color": GREY}, hoverinfo="skip",
            error_y={"array": up, "arrayminus": down, "color": "#555555", "thickness": 1.8, "width": 5},
            name=f"{name}, 95 % interval", showlegend=False, row=row, col=col,
        )  # fmt: skip
    dots = [(c + spread, v) for c, seeds in zip(centres, values, strict=True) for spread, v in _spread(seeds, width)]
    fig.add_scatter(
        x=[d[0] for d in dots], y=[d[1] for d in dots], mode="markers", name=f"{name}, each seed", showlegend=False,
        marker={"color": "#FFFFFF", "size": 6, "line": {"color": "#444444", "width": 1.2}},
        hovertemplate="%{y:.3g}<extra>" + name + ", one seed</extra>", row=row, col=col,
    )  # fmt: skip
    fig.update_xaxes(
        tickvals=list(range(len(phases))), ticktext=[_two_lines(phase) for phase in phases], tickangle=0,
        range=[-0.6, len(phases) - 0.4], showgrid=False, row=row, col=col,
    )  # fmt: skip


def _draw_goals(
    fig: go.Figure, place: Place, goals: Array, colours: Sequence[str], radius: float | None, legend: str | None
) -> None:
    row, col = place
    if radius is not None:
        angle = np.linspace(0, 2 * np.pi, 33)
        circle = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        x, y = _joined([goal + circle for goal in goals])
        fig.add_scatter(
            x=x, y=y, mode="lines", line={"color": GREY, "width": 1, "dash": "dot"}, hoverinfo="skip",
            name="rewarded", showlegend=legend is not None, row=row, col=col,
        )  # fmt: skip
    fig.add_scatter(
        x=goals[:, 0], y=goals[:, 1], mode="markers", hoverinfo="skip",
        name=legend or "goal", showlegend=legend is not None,
        marker={"symbol": "x-thin", "size": 12, "line": {"color": list(colours), "width": 3}}, row=row, col=col,
    )  # fmt: skip


def _named(label: str, value: float | None) -> str:
    return label if value is None else f"{label} {value:.3g}".replace("-", "\N{MINUS SIGN}")


def _level(
    fig: go.Figure, place: Place, value: float | None, label: str, dash: str, position: str = "top right"
) -> None:
    """A labelled horizontal line that the axis makes room for; nothing where the value is unknown."""
    if value is None or not np.isfinite(value):
        return
    row, col = place
    fig.add_hline(
        y=value, line={"color": GREY, "width": 1.5, "dash": dash}, annotation_text=label,
        annotation_position=position, annotation_font_size=11, row=row, col=col,
    )  # fmt: skip


# -- small things ----------------------------------------------------------------------------------------


def _grid(n: int, titles: Sequence[str], height: int, columns: int = 2) -> tuple[go.Figure, list[Place]]:
    """A styled figure of `n` panels in rows of `columns`, and the place of each."""
    columns = min(columns, n)
    rows = -(-n // columns)
    fig = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=list(titles),
        horizontal_spacing=0.09 if columns < 3 else 0.06,
        vertical_spacing=85 / (height * rows) if rows > 1 else 0.0,
    )
    return _styled(fig, height * rows), [(1 + i // columns, 1 + i % columns) for i in range(n)]


def _styled(fig: go.Figure, height: int) -> go.Figure:
    axis = {"gridcolor": _FAINT, "zeroline": False, "linecolor": GREY, "ticks": "outside", "tickcolor": GREY}
    fig.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif", "size": 13, "color": "#707070"},
        margin={"l": 70, "r": 25, "t": 70, "b": 55},
        legend={"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": OFFLINE},
    )
    for update in (fig.update_xaxes, fig.update_yaxes):
        update(**axis, title_standoff=8, automargin=True)
    fig.update_annotations(font_size=14)
    return fig


def _colour_bar(fig: go.Figure, tasks: TaskScale) -> None:
    bar: dict[str, Any] = {"title": {"text": tasks.label, "side": "right"}, "thickness": 12, "outlinewidth": 0}
    if tasks.cyclic:
        bar |= {"tickvals": [0, np.pi / 2, np.pi, 1.5 * np.pi, 2 * np.pi], "ticktext": ["0", "π/2", "π", "3π/2", "2π"]}
    scale = TASK_CYCLE if tasks.cyclic else TASK_SCALE
    fig.update_layout(coloraxis={"colorscale": scale, "cmin": tasks.low, "cmax": tasks.high, "colorbar": bar})


def _colours_of(tasks: TaskScale) -> list[str]:
    """Each task's colour as a string, for lines, which have no colour scale of their own."""
    scale = TASK_CYCLE if tasks.cyclic else TASK_SCALE
    where = np.clip((tasks.values - tasks.low) / (tasks.high - tasks.low), 0.0, 1.0)
    return sample_colorscale(scale, where.tolist())


def _shared_axes(panels: Mapping[str, Posteriors]) -> Axes:
    means = [np.asarray(p.offline_mean, np.float64) for p in panels.values()]
    return principal_axes(np.concatenate([mean.reshape(-1, mean.shape[-1]) for mean in means]))


def _same_scale(fig: go.Figure, places: Sequence[Place], points: Array) -> None:
    """Equal ranges in all panels and equal lengths along both axes, so that distances can be compared."""
    low, high = points.min(0), points.max(0)
    pad = 0.06 * max(float((high - low).max()), 1e-3)
    for row, col in places:
        axis = _axis(fig, (row, col), "x")
        fig.update_xaxes(range=[low[0] - pad, high[0] + pad], constrain="domain", row=row, col=col)
        fig.update_yaxes(range=[low[1] - pad, high[1] + pad], scaleanchor=axis, constrain="domain", row=row, col=col)


def _two_lines(label: str) -> str:
    """Break a label at its first space, so that it fits under a bar."""
    return label.replace(" ", "<br>", 1)


def _axis(fig: go.Figure, place: Place, which: str) -> str:
    """Name of a panel's "x" or "y" axis, such as "y3"."""
    return getattr(fig.get_subplot(*place), f"{which}axis").plotly_name.replace("axis", "")


def _row_height(points: Array, least: int = 150) -> int:
    """Pixels that a row of two panels needs for equal lengths along both axes, about 400 pixels wide each."""
    width, height = np.ptp(points, axis=0)
    return int(90 + np.clip(400 * height / max(width, 1e-6), least, 400))


def _joined(lines: Sequence[Array]) -> tuple[list[float | None], list[float | None]]:
    """Several polylines `(point, 2)` as one trace, with gaps between them: far quicker to draw than many traces."""
    x: list[float | None] = []
    y: list[float | None] = []
    for line in lines:
        x += [*line[:, 0].tolist(), None]
        y += [*line[:, 1].tolist(), None]
    return x, y


def _interval(values: ArrayLike) -> Interval:
    values = np.asarray(values, np.float64)
    return interval(values[np.isfinite(values)]) if np.isfinite(values).any() else Interval(0.0, np.nan, np.nan)


def _spread(values: ArrayLike, width: float) -> list[tuple[float, float]]:
    """Finite seeds side by side within half a bar, so that equal ones do not hide each other."""
    values = np.asarray(values, np.float64)
    offsets = np.linspace(-0.25, 0.25, len(values)) * min(width, 0.26) if len(values) > 1 else np.zeros(1)
    return [(o, v) for o, v in zip(offsets.tolist(), values.tolist(), strict=True) if np.isfinite(v)]


def _log_edges(values: Sequence[ArrayLike], bins: int) -> Array:
    """Equal bins of log10 over all values, `(bins + 1,)`; zeros count as a millionth."""
    logs = np.log10(np.maximum(np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in values]), 1e-6))
    low, high = float(logs.min()), float(logs.max())
    return np.linspace(low - 0.05, max(high, low + 0.5) + 0.05, bins + 1)


def _finite(steps: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    steps, values = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    keep = np.isfinite(values)
    return steps[keep], values[keep]


def mean_curve(curves: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[Array, Array]:
    """Mean over seeds at the steps where all of them have a finite value.

    Args:
        curves: `(steps (point,), values (point,))` for each seed.

    Returns:
        Steps and means, both `(shared_point,)`.
    """
    points = [_finite(steps, values) for steps, values in curves]
    steps = points[0][0] if points else np.empty(0)
    for other, _ in points[1:]:
        steps = np.intersect1d(steps, other)
    return steps, np.mean([v[np.isin(s, steps)] for s, v in points], axis=0) if len(steps) else np.empty(0)
