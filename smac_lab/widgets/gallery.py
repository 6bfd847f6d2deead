"""RolloutGallery: rollouts before and after the self-supervised phase."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from smac_lab.encoder import Gaussian
from smac_lab.engine.rollout import Episodes, rollout
from smac_lab.figures import style
from smac_lab.widgets import stage
from smac_lab.widgets.agents import FRAME, AgentExplorer, offline_of
from smac_lab.widgets.explorer import Choice, Control, Traces


class RolloutGallery(AgentExplorer):
    """Rollouts on several tasks before (left) and after (right) the self-supervised phase, as lines and films.

    State: `context` ("self-collected" or "offline", from which z is inferred), `offline_context` ("exploration" or
    "transitions", if the buffer has exploration), and, for `Snapshots`, `arm` and `iteration` (after). A single agent
    has one panel.

    Args:
        grid: tasks to roll out, evenly spaced among the shown tasks.
        subject, family, tasks, buffer, shown_tasks, **state: see `AgentExplorer`.
    """

    varied = ("iteration", "context", "arm")
    about = (
        "The same tasks from the same initial states, before the self-supervised phase and after it, a colour per "
        "task. Dashed lines and crosses are what the tasks ask for. Choose where z is inferred from: what the agent "
        "collected itself, or offline context."
    )

    def __init__(
        self, subject: Any, family: Any = None, tasks: Any = None, buffer: Any = None, *, grid: int = 4, **more: Any
    ):
        self._size = grid
        super().__init__(subject, family, tasks, buffer, **more)

    def make_controls(self) -> dict[str, Control]:
        order = self.scale.values.argsort()
        places = np.linspace(0, len(order) - 1, min(self._size, len(order))).round().astype(int)
        self.grid = order[np.unique(places)]
        controls = super().make_controls()
        del controls["task"]
        if "iteration" in controls:
            controls["iteration"] = controls["iteration"]._replace(start=self.subject.iterations[-1])  # type: ignore
        context = Choice("z from", ["self-collected", "offline"], "self-collected")
        return {**controls, "context": context, **self.offline_controls()}

    def panels(self) -> dict[str, tuple[str | None, int]]:
        """Return arm and iteration of each panel, by title."""
        if not self.subject.arms:
            return {"the agent": (None, 0)}
        return {"before the phase": (None, 0), "after": self.key}

    def z(self, key: tuple[str | None, int]) -> Gaussian:
        """Infer an agent's posteriors of the grid's tasks, `(task, z_dim)`."""
        q = self.posterior(self.state["context"], key)
        return Gaussian(q.mean[self.grid], q.std[self.grid])

    def acted(self, key: tuple[str | None, int]) -> Episodes:
        """Roll out an episode of every task in the grid."""

        def compute() -> Episodes:
            agent = self.subject.agent(*key)
            policy = agent.policy(self.z(key), torch.Generator(agent.device).manual_seed(0))
            return rollout(policy, self.family.batch_env(self.tasks[self.grid]), seed=[0] * len(self.grid))

        return self.once(("acted", key, self.state["context"], offline_of(self.state)), compute)

    def frame(self) -> go.Figure:
        names = ["before the phase", "after"] if self.subject.arms else ["the agent"]
        figure, places = style.grid(names, 290)
        axes, colours = stage.axes_of(self.family), self.task_colours()
        for panel, place in enumerate(places):
            for i in self.grid:
                look = {
                    "line": {"color": colours[i], "width": 2.5},
                    "name": self.task_name(i),
                    "showlegend": panel == 0,
                }
                self.add(figure, f"{panel} {i}", go.Scatter(mode="lines", legendgroup=str(i), **look, **FRAME), place)
                aim = {"color": colours[i], "width": 1.5, "dash": "dash"}
                cross = {"symbol": "x-thin", "size": 12, "line": {"color": colours[i], "width": 3}}
                wanted = go.Scatter(
                    mode="lines+markers" if axes.plane else "lines", line=aim, marker=cross, hoverinfo="skip",
                    showlegend=False, name="what the task asks for", **FRAME,
                )  # fmt: skip
                self.add(figure, f"target {panel} {i}", wanted, place)
            figure.update_xaxes(title=axes.x_label, **place).update_yaxes(title=axes.y_label, **place)
            if axes.plane:
                figure.update_yaxes(scaleanchor=style.axis_name(figure, place, "x"), **place)
        return figure.update_yaxes(matches="y").update_xaxes(matches="x")

    def draw(self) -> Traces:
        traces: Traces = {}
        for panel, key in enumerate(self.panels().values()):
            paths = stage.lines(self.family, self.acted(key))
            for path, i in zip(paths, self.grid, strict=True):
                aim = stage.target(self.family, self.tasks.values[i], paths)
                traces[f"{panel} {i}"] = {"x": path[:, 0], "y": path[:, 1]}
                traces[f"target {panel} {i}"] = {"x": aim[:, 0], "y": aim[:, 1]}
        return traces

    @property
    def text(self) -> str:
        said = []
        for title, key in self.panels().items():
            outcomes = stage.outcomes(self.family, self.tasks.values[self.grid], self.acted(key))
            said.append(f"{title}, returns {', '.join(outcomes)}")
        if self.subject.arms:
            said[-1] += f" ({style.phase_label(self.state['arm'])}, iteration {self.state['iteration']})"
        context = self.offline_words if self.state["context"] == "offline" else "self-collected context"
        values = ", ".join(f"{self.scale.values[i]:.2f}" for i in self.grid)
        return f"{len(self.grid)} tasks, {self.scale.label} {values}, z inferred from {context}: {'; '.join(said)}."

    def by_hand(self, name: str, value: Any) -> dict[str, Any]:
        return {name: value} | ({"context": "offline"} if name == "offline_context" else {})

    def film(self) -> str:
        figures, tasks = [], self.tasks[self.grid]
        for title, key in self.panels().items():
            label = f"{title}: {', '.join(self.task_name(i) for i in self.grid)}"
            agent, still = self.subject.agent(*key), self.state["reduced_motion"]
            made = stage.film(agent, self.family, tasks, self.z(key), label, still=still)
            figures.append(f'<div style="flex:1 1 300px">{made}</div>')
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(figures)}</div>'

    def buttons(self) -> list[Any]:
        return [self.play_button()]

    def _make_widget(self) -> Any:
        box = super()._make_widget()
        self.play()
        return box
