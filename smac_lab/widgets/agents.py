"""Base of explorers of agents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.arms import OF_ENCODER
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.store import Source
from smac_lab.encoder import Gaussian
from smac_lab.engine.rollout import Episodes
from smac_lab.figures import plots, style
from smac_lab.figures.style import Array, Place
from smac_lab.runs.snapshots import Snapshots
from smac_lab.shift import Shift, measure_shift
from smac_lab.tasks.family import MujocoFamily, TaskFamily
from smac_lab.tasks.spec import Tasks
from smac_lab.widgets import stage
from smac_lab.widgets.explorer import Choice, Control, Explorer, Slider

T = TypeVar("T")
Key = tuple[str | None, int]  # arm and iteration; (None, 0) is after the offline phase
Plane = tuple[plots.Axes, Array, Array]  # axes, and corners `(2,)` of the shown part
SHOWN_TASKS = 20
CHOSEN = "#CC79A7"  # a chosen z
PLANE_POINTS = 41  # values on the slider of a coordinate of z
# Offline context of a buffer with exploration: source and label.
OFFLINE_CONTEXTS: dict[str, tuple[Source, str]] = {
    "exploration": ("exploration", "exploration episodes"),
    "transitions": ("offline", "the actor's transitions"),
}
FRAME: dict[str, Any] = {"x": [], "y": []}  # `draw` fills it


class AgentExplorer(Explorer):
    """An explorer of one agent, or of the agents of a run.

    Args:
        subject: `Snapshots` of a run, or one agent.
        family, tasks, buffer: family, training tasks and data; required with one agent.
        shown_tasks: tasks to show, at most.
        **state: the initial state, as for `update`.
    """

    def __init__(
        self,
        subject: Snapshots | SMAC,
        family: TaskFamily | None = None,
        tasks: Tasks | None = None,
        buffer: TransitionBuffer | None = None,
        *,
        shown_tasks: int = SHOWN_TASKS,
        **state: Any,
    ):
        if isinstance(subject, SMAC):
            if family is None or tasks is None or buffer is None:
                raise ValueError(
                    f"{type(self).__name__}(agent, family, tasks, buffer): all four, or Snapshots of a run"
                )
            subject = Snapshots.of(subject, family, tasks, buffer)
        self.subject, self.family = subject, subject.family
        self.takes_long = isinstance(self.family, MujocoFamily)  # rollouts of bodies are slow
        self.tasks, self.buffer = subject.tasks[: min(shown_tasks, len(subject.tasks))], subject.buffer
        self.scale = style.task_scale(self.tasks.values, self.family.task_label)
        self.n_context = subject.before.config.exploration_episodes * self.family.horizon
        super().__init__(**state)

    def make_controls(self) -> dict[str, Control]:
        controls: dict[str, Control] = {}
        if self.subject.arms:
            arms, kept = list(self.subject.arms), self.subject.iterations
            own = OF_ENCODER[self.subject.before.config.online_encoder]
            controls["arm"] = Choice("arm", arms, own if own in arms else arms[0], style.phase_label)
            controls["iteration"] = Slider("iteration", kept, kept[0])
        controls["task"] = Slider("task", list(range(len(self.tasks))), 0, self.task_name)
        return controls

    def offline_controls(self) -> dict[str, Control]:
        """Return the control of offline context, if there are two kinds."""
        if not self.buffer.has_exploration:
            return {}
        names = {name: called for name, (_, called) in OFFLINE_CONTEXTS.items()}
        return {"offline_context": Choice("offline context", list(names), "exploration", names.__getitem__)}

    @property
    def agent(self) -> SMAC:
        """The present agent."""
        return self.subject.agent(*self.key)

    @property
    def key(self) -> Key:
        """Arm and iteration of the present agent."""
        return key_of(self.state)

    @property
    def offline_words(self) -> str:
        """The kind of offline context in words."""
        kind = self.state.get("offline_context")
        return f"offline context ({OFFLINE_CONTEXTS[kind][1]})" if kind else "offline context"

    def measured(self, key: Key | None = None, offline: Source | None = None) -> Shift:
        """Measure the shift with one context of each kind per shown task.

        Args:
            key: arm and iteration; default the present agent's.
            offline: source of offline context; default the present one.
        """
        key = self.key if key is None else key
        offline = offline_of(self.state) if offline is None else offline
        agent = self.subject.agent(*key)
        return self.once_for_all(
            ("measured", key, offline),
            lambda: measure_shift(agent, self.family, self.tasks, self.buffer, repeats=1, source=offline),
        )

    def context_of(self, source: str, key: Key | None = None, offline: Source | None = None) -> Tensor:
        """Return the whole "offline" or "self-collected" context of the shown tasks, `(task, n, context_dim)`."""
        measured = self.measured(key, offline)
        return (measured.offline_contexts if source == "offline" else measured.online_contexts)[:, 0]

    def once_for_all(self, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """Return `compute()`, cached for all explorers of the same agents and tasks."""
        known = self.subject.known
        key = (*key, len(self.tasks))
        if key not in known:
            known[key] = compute()
        return known[key]

    def posterior(self, source: str = "offline", key: Key | None = None, offline: Source | None = None) -> Gaussian:
        """Infer q(z | whole context) of the shown tasks, `(task, z_dim)`."""
        measured = self.measured(key, offline)
        q = measured.offline if source == "offline" else measured.online
        return Gaussian(q.mean[:, 0], q.std[:, 0])

    # -- the latent plane --------------------------------------------------------------------------------
    def plane(self) -> Plane:
        """Compute the plane in which the posterior means of the run's agents differ most, and its corners.

        One plane serves the whole run and both kinds of offline context, so that movements are visible.
        """

        def compute() -> Plane:
            before: Key = (None, 0)
            keys: list[Key] = [before, *((arm, i) for arm, agents in self.subject.arms.items() for i in agents)]
            kinds: list[Source] = ["exploration", "offline"] if self.buffer.has_exploration else ["offline"]
            contexts = [self.context_of("offline", before, kind) for kind in kinds]
            found = []
            for key in keys:
                found += [self.subject.agent(*key).infer_posterior(context).mean for context in contexts]
                found.append(self.posterior("self-collected", key, kinds[0]).mean)
            means = torch.cat(found).cpu().numpy()
            axes = plots.principal_axes(means)
            points = plots.project(means, axes)
            half = np.full(2, 0.62 * max(float(np.ptp(points, 0).max()), 0.5))
            return axes, (points.max(0) + points.min(0)) / 2 - half, (points.max(0) + points.min(0)) / 2 + half

        return self.once_for_all(("plane",), compute)

    @property
    def axes(self) -> plots.Axes:
        return self.plane()[0]

    def z_at(self, point: Any) -> Array:
        """Return the z of a point of the plane, `(z_dim,)`."""
        axes = self.axes
        return axes.centre + np.asarray(point, float) @ axes.directions

    def z_controls(self) -> dict[str, Control]:
        axes, low, high = self.plane()
        return {
            f"z{i + 1}": Slider(
                f"z along axis {i + 1}", [float(v) for v in np.linspace(low[i], high[i], PLANE_POINTS).round(3)],
                float(np.linspace(low[i], high[i], PLANE_POINTS).round(3)[PLANE_POINTS // 2]), "{:.2f}".format,
                any_between=True,
            )
            for i in range(1 if not axes.share[1] > 0 else 2)
        }  # fmt: skip

    @property
    def chosen(self) -> Array:
        """The chosen point of the plane, `(2,)`."""
        return np.array([self.state.get("z1", 0.0), self.state.get("z2", 0.0)])

    def nearest_chosen(self, point: Any) -> dict[str, float]:
        """Return a point of the plane as state, within the ranges of the sliders."""
        found = {}
        for i, name in enumerate(("z1", "z2")):
            if name in self.controls:
                values = self.controls[name].values
                found[name] = float(np.clip(point[i], values[0], values[-1]))
        return found

    def plane_frame(self, figure: go.Figure, place: Place) -> None:
        """Add the axes of the plane, and an invisible layer that receives clicks."""
        axes, low, high = self.plane()
        x, y = (np.linspace(low[i], high[i], 61) for i in (0, 1))
        self.add(
            figure, "anywhere",
            go.Heatmap(x=x, y=y, z=np.zeros((61, 61)), opacity=0.0, showscale=False, hoverinfo="none"), place,
        )  # fmt: skip
        style.same_scale(figure, [place], np.stack([low, high]))
        figure.update_xaxes(title=f"axis 1 of z ({axes.share[0]:.0%} of variance)", **place)
        figure.update_yaxes(title=f"axis 2 ({axes.share[1]:.0%})", **place)

    # -- the stage ---------------------------------------------------------------------------------------
    def stage_frame(self, figure: go.Figure, place: Place) -> None:
        axes = stage.axes_of(self.family)
        self.add(
            figure, "target",
            go.Scatter(
                mode="lines+markers" if axes.plane else "lines", name="what the task asks for", **FRAME,
                line={"color": style.GREY, "dash": "dash"}, marker={"symbol": "x-thin", "size": 12, "line_width": 3},
            ), place,
        )  # fmt: skip
        figure.update_xaxes(title=axes.x_label, **place).update_yaxes(title=axes.y_label, **place)
        if axes.plane:
            figure.update_yaxes(scaleanchor=style.axis_name(figure, place, "x"), **place)

    def act(self, z: Gaussian) -> Episodes:
        """Roll out one episode of the present task for each z, `(n, z_dim)`."""
        return stage.act(self.agent, self.family, self.tasks.values[self.state["task"]], z)

    def exact(self, z: Array) -> Gaussian:
        """Return z as a Gaussian of zero variance, `(1, z_dim)`."""
        mean = self.agent.tensor(np.atleast_2d(z))
        return Gaussian(mean, torch.zeros_like(mean))

    def task_name(self, index: int) -> str:
        if words := self.family.describe(self.tasks.values[index]):
            return f"{index}: {words}"
        label, _, unit = self.scale.label.partition(" (")
        return f"{index}: {label} {self.scale.values[index]:.2f} {unit.removesuffix(')').split(')')[0]}".strip()

    def task_colours(self, shades: int | None = None) -> list[str]:
        """Return the colours of shown tasks, rounded to `shades` if given."""
        from plotly.colors import sample_colorscale

        where = np.clip((self.scale.values - self.scale.low) / (self.scale.high - self.scale.low), 0.0, 1.0)
        if shades:
            where = (np.minimum(np.floor(where * shades), shades - 1) + 0.5) / shades
        return sample_colorscale(self.scale.palette, where.tolist())

    def play_button(self) -> Any:
        import ipywidgets

        button = ipywidgets.Button(description="Play", tooltip="film the rollout of the present state", icon="play")
        button.add_class("smac-play")
        button.on_click(lambda _: self.play())
        return button

    def buttons(self) -> list[Any]:
        """Return a play button, if a film shows more than the lines."""
        filmed = type(self).film is not Explorer.film and not hasattr(self.family, "landmark")
        return [self.play_button()] if filmed else []


class PointExplorer(AgentExplorer):
    """An explorer of one z, a point of the plane.

    A change of task, arm, iteration or offline context moves z to the task's posterior mean, unless z is also set.
    """

    def make_controls(self) -> dict[str, Control]:
        return {**super().make_controls(), **self.offline_controls(), **self.z_controls()}

    @property
    def words_of_z(self) -> str:
        """Sentence with the kind of offline context of z; empty if there is only one."""
        return f" The task's z is inferred from {self.offline_words}." if "offline_context" in self.state else ""

    def settle(self, changes: dict[str, Any]) -> dict[str, Any]:
        moved = {"task", "arm", "iteration", "offline_context"} & changes.keys() or not self._drawn
        if not moved or {"z1", "z2"} & changes.keys():
            return changes
        state = self.state | changes
        means = plots.project(self.posterior("offline", key_of(state), offline_of(state)).mean.cpu().numpy(), self.axes)
        return changes | self.nearest_chosen(means[state["task"]])


def key_of(state: dict[str, Any]) -> Key:
    """Return arm and iteration of a state; at iteration 0 all arms are one agent."""
    iteration = state.get("iteration", 0)
    return (state["arm"] if iteration else None), iteration


def offline_of(state: dict[str, Any]) -> Source:
    """Return the source of offline context of a state."""
    return OFFLINE_CONTEXTS[state.get("offline_context", "transitions")][0]


def outlines(posterior: Gaussian, axes: plots.Axes) -> list[Array]:
    """Return ellipses of one standard deviation, `(point, 2)` each."""
    means, stds = posterior.mean.cpu().numpy(), posterior.std.cpu().numpy()
    return [plots.ellipse(mean, std, axes) for mean, std in zip(means, stds, strict=True)]


def stacked(several: Iterable[Gaussian]) -> Gaussian:
    """Concatenate Gaussians over z, `(n, z_dim)`."""
    return Gaussian(*(torch.cat(parts) for parts in zip(*several, strict=True)))


def joined(lines: Any) -> dict[str, Any]:
    """Join polylines `(point, 2)` into the x and y of one trace."""
    points = [np.concatenate([line, [[np.nan, np.nan]]]) for line in lines]
    x, y = np.concatenate(points).T if points else (np.empty(0), np.empty(0))
    return {"x": x, "y": y}
