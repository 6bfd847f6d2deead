"""Style of pictures: colours, labels, and the layout of figures.

A colour has one meaning in all figures. Each arm has a separate colour. Tasks are coloured on `TASK_SCALE` (directions:
on `TASK_CYCLE`). The colours of contexts, held-out tasks and the arms `frozen`, `self-labelled` and `oracle` are Okabe
and Ito's, which colour-blind readers can tell apart. Transparent backgrounds and grey lines suit light and dark pages.

Here a *phase* is "before" (after the offline phase) or an arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

Array = NDArray[np.float64]
Place = dict[str, int]  # row and column of a panel

PLOTLY = Path(__file__).parent / "vendor" / "plotly-cartesian.min.js"  # of pages: a third of plotly's whole script
OFFLINE = "#0072B2"  # offline context: blue
SELF_COLLECTED = "#E69F00"  # self-collected context: orange
HELD_OUT = "#009E73"  # held-out tasks: bluish green
GREY = "#7F7F7F"  # elements without a meaning, and the phase "before"
OTHER_ARM = "#8C6D31"  # custom arms: brown
PHASES = {
    "before": (GREY, "before"),
    "frozen": ("#56B4E9", "frozen encoder"),
    "self-labelled": ("#D55E00", "self-labelled encoder"),
    "oracle": ("#CC79A7", "oracle (true rewards)"),
    "frozen-true-rewards": ("#332288", "frozen, true rewards"),
    "offline-encoder": ("#44AA99", "encoder on offline data"),
    "no-awac": ("#882255", "no AWAC"),
    "no-q": ("#999933", "no -Q"),
    "offline": ("#4D4D4D", "nothing online"),
}
KINDS = {  # the three returns of a measurement
    "offline_context": (OFFLINE, "offline context"),
    "online_context": (SELF_COLLECTED, "self-collected context"),
    "test": (HELD_OUT, "held-out tasks"),
}
METRIC_LABELS = {
    "offline_context_return": "return, offline context",
    "online_context_return": "return, self-collected context",
    "test_return": "return, held-out tasks",
    "offline_context_success": "success at the last step, offline context",
    "online_context_success": "success at the last step, self-collected context",
    "test_success": "success at the last step, held-out tasks",
    "shift": "normalised shift",
    "velocity_error_offline": "velocity error (m/s), offline context",
    "velocity_error_online": "velocity error (m/s), self-collected context",
    "reward_error": "squared error of the decoded reward",
    "kl": "KL(q(z|h) || p(z)) (nats)",
    "critic_loss": "critic loss",
    "awac_loss": "AWAC loss of the actor",
    "weight_max": "largest AWAC weight",
}
# Both scales avoid near-white and near-black.
TASK_SCALE = ["#413f84", "#34608d", "#287c8e", "#20998a", "#32b37b", "#67cb5c", "#afdd2f"]
TASK_CYCLE = ["#a8bbac", "#b9a35d", "#a87118", "#824614", "#613d40", "#315884", "#0084c5", "#5fadd8", "#a8bbac"]


class TaskScale(NamedTuple):
    """The number that colours each task, `(task,)`, its label, its range, and whether it is a cyclic angle."""

    values: Array
    label: str
    cyclic: bool
    low: float
    high: float

    @property
    def palette(self) -> list[str]:
        """Colours from the lowest value to the highest."""
        return TASK_CYCLE if self.cyclic else TASK_SCALE


def phase_colour(phase: str) -> str:
    """Return the colour of "before" or of an arm."""
    return PHASES.get(phase, (OTHER_ARM, phase))[0]


def phase_label(phase: str) -> str:
    """Return the label of "before" or of an arm."""
    return PHASES.get(phase, (OTHER_ARM, phase))[1]


def task_scale(tasks: ArrayLike, label: str = "task") -> TaskScale:
    """Choose the number that colours each task.

    If the label names radians, it is an angle (for points of a plane: the angle of the vector). Otherwise it is the
    first task parameter.

    Args:
        tasks: `(task, task_dim)`.
        label: the family's `task_label`, with unit.
    """
    tasks = np.asarray(tasks, dtype=np.float64)
    values = tasks[:, 0]
    if "(rad)" in label:
        values = (np.arctan2(tasks[:, 1], values) if tasks.shape[1] == 2 else values) % (2 * np.pi)
        if "direction" in label or values.max() > np.pi + 1e-6:
            return TaskScale(values, label, True, 0.0, 2 * np.pi)
    elif tasks.shape[1] > 1:
        label += ", first parameter"
    low, high = float(values.min()), float(values.max())
    return TaskScale(values, label, False, low, high if high > low else low + 1.0)


def grid(
    titles: Sequence[str], height: int, columns: int = 2, gap: int = 85, **options: Any
) -> tuple[go.Figure, list[Place]]:
    """Build a figure with one panel per title, `height` pixels each, `gap` between rows; return it and the places."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    inside = rows * height + (rows - 1) * gap
    fig = make_subplots(
        rows=rows, cols=columns, subplot_titles=list(titles), horizontal_spacing=0.09,
        vertical_spacing=gap / inside if rows > 1 else 0.0, **options,
    )  # fmt: skip
    fig.update_layout(
        template="none",
        height=inside + 125,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif", "size": 13, "color": "#707070"},
        margin={"l": 70, "r": 25, "t": 70, "b": 55},
        legend={"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": OFFLINE},
    )
    for update in (fig.update_xaxes, fig.update_yaxes):
        update(gridcolor="rgba(127,127,127,0.25)", zeroline=False, linecolor=GREY, ticks="outside", tickcolor=GREY)
        update(title_standoff=8, automargin=True)
    fig.update_annotations(font_size=14)
    return fig, [{"row": 1 + i // columns, "col": 1 + i % columns} for i in range(len(titles))]


def axis_name(fig: go.Figure, place: Place, which: str) -> str:
    """Return the name of a panel's "x" or "y" axis, such as "y3"."""
    return getattr(fig.get_subplot(**place), f"{which}axis").plotly_name.replace("axis", "")


def same_scale(fig: go.Figure, places: Sequence[Place], points: Array) -> None:
    """Set equal ranges in all panels and equal scales on both axes."""
    low, high = points.min(0), points.max(0)
    pad = 0.06 * max(float((high - low).max()), 1e-3)
    for place in places:
        fig.update_xaxes(range=[low[0] - pad, high[0] + pad], constrain="domain", **place)
        fig.update_yaxes(range=[low[1] - pad, high[1] + pad], constrain="domain", **place)
        fig.update_yaxes(scaleanchor=axis_name(fig, place, "x"), **place)


def colour_bar(fig: go.Figure, tasks: TaskScale) -> None:
    """Add the scale of task colours."""
    bar: dict[str, Any] = {"title": {"text": tasks.label, "side": "right"}, "thickness": 12, "outlinewidth": 0}
    if tasks.cyclic:
        bar |= {"tickvals": np.arange(5) * np.pi / 2, "ticktext": ["0", "π/2", "π", "3π/2", "2π"]}
    fig.update_layout(coloraxis={"colorscale": tasks.palette, "cmin": tasks.low, "cmax": tasks.high, "colorbar": bar})


def circle(radii: Array) -> Array:
    """Return an ellipse around the origin, `(point, 2)`, with one radius per axis."""
    angle = np.linspace(0, 2 * np.pi, 33)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii


def lines_of(fig: go.Figure, place: Place, lines: Iterable[Array], name: str, legend: bool, **line: Any) -> None:
    """Add polylines `(point, 2)` as one trace, which browsers draw fast."""
    x, y = zip(*(point for path in lines for point in [*path.tolist(), (None, None)]), strict=True)
    fig.add_scatter(
        x=x, y=y, mode="lines", line=line, hoverinfo="skip", name=name, legendgroup=name, showlegend=legend, **place
    )


def page_of(fig: go.Figure) -> str:
    """Return a figure of Cartesian charts as one HTML file, which needs no network."""
    script = f"<script>{PLOTLY.read_text(encoding='utf-8')}</script>"
    return fig.to_html(include_plotlyjs=False).replace("<head>", f"<head>{script}", 1)


def level(
    fig: go.Figure, place: Place, value: float | None, label: str, dash: str, position: str = "top right"
) -> None:
    """Add a labelled horizontal line within the axis range; nothing if the value is None or not finite."""
    if value is not None and np.isfinite(value):
        text = f"{label} {value:.3g}".replace("-", "\N{MINUS SIGN}")
        fig.add_hline(
            y=value, line={"color": GREY, "width": 1.5, "dash": dash}, annotation_text=text,
            annotation_position=position, annotation_font_size=11, **place,
        )  # fmt: skip
