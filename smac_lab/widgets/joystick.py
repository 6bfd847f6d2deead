"""LatentJoystick: move z, and see the behaviour and the task that it solves."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import plotly.graph_objects as go
import torch

from smac_lab.engine.rollout import Episodes
from smac_lab.figures import plots, style
from smac_lab.figures.style import GREY, OFFLINE, Array
from smac_lab.widgets import stage
from smac_lab.widgets.agents import CHOSEN, FRAME, PointExplorer
from smac_lab.widgets.explorer import Traces


class LatentJoystick(PointExplorer):
    """One z, and the agent's behaviour given it.

    Upper left: the latent plane with the posterior means of all tasks given offline context; the star is z, which
    sliders and clicks set. Upper right: the rollout. Lower left: its labels, decoded from z, and its true rewards in
    the selected task. Lower right: its true return in each task, which shows which task z represents.

    State: `z1`, `z2` (z, in the plane), `task` (sets z to the task's posterior mean), `offline_context` ("exploration"
    or "transitions", if the buffer has exploration), and, for `Snapshots`, `arm` and `iteration`.
    """

    clicks: ClassVar = {"every": ("task",), "anywhere": ("z1", "z2")}
    varied = ("z1", "z2")
    about = (
        "The star is z, all that the agent knows about its task; the marks are the z of known tasks. Move the star, by "
        "the sliders or a click, and the agent acts differently. Below: the rewards that the decoder gives to this "
        "behaviour, and which task it would solve best."
    )

    def frame(self) -> go.Figure:
        titles = ["where z lies", "what the agent does", "what it is paid", "what that returns in each task"]
        figure, (plane, does, pays, returns) = style.grid(titles, 290)
        self.plane_frame(figure, plane)
        marker = {"color": self.scale.values, "coloraxis": "coloraxis", "size": 8}
        names = [self.task_name(i) for i in range(len(self.tasks))]
        hover = "task %{text}<extra>posterior mean, offline context</extra>"
        every = go.Scatter(mode="markers", marker=marker, text=names, hovertemplate=hover, name="tasks", **FRAME)
        self.add(figure, "every", every, plane)
        star = {"symbol": "star", "size": 15, "color": CHOSEN}
        self.add(figure, "point", go.Scatter(mode="markers", marker=star, hoverinfo="skip", name="z", **FRAME), plane)
        self.stage_frame(figure, does)
        path = go.Scatter(mode="lines", line={"color": CHOSEN, "width": 2.5}, name="rollout", showlegend=False, **FRAME)
        self.add(figure, "acts", path, does)
        for name, label, line in (
            ("decoded", "decoded from z", {"color": CHOSEN, "width": 2.5}),
            ("true", "true, selected task", {"color": GREY, "width": 1.5, "dash": "dash"}),
        ):
            self.add(figure, name, go.Scatter(mode="lines", line=line, name=label, **FRAME), pays)
        figure.update_xaxes(title="time (s)", **pays).update_yaxes(title="reward", **pays)
        dots = {"color": OFFLINE, "size": 7}
        paid = go.Scatter(
            mode="markers", marker=dots, name="return", showlegend=False, text=names,
            hovertemplate="task %{text}: %{y:.4g}<extra></extra>", **FRAME,
        )  # fmt: skip
        self.add(figure, "paid", paid, returns)
        ring = {"symbol": "circle-open", "size": 16, "color": CHOSEN, "line_width": 2.5}
        self.add(figure, "best", go.Scatter(mode="markers", marker=ring, name="task solved best", **FRAME), returns)
        here = {"symbol": "line-ns-open", "size": 16, "color": GREY, "line_width": 2}
        self.add(figure, "wanted", go.Scatter(mode="markers", marker=here, name="selected task", **FRAME), returns)
        figure.update_xaxes(title=self.scale.label, **returns).update_yaxes(title="return per episode", **returns)
        style.colour_bar(figure, self.scale)
        return figure.update_layout(hovermode="closest", margin_r=90)

    def returns(self) -> Array:
        """Compute the rollout's return in each task, `(task,)`."""
        episodes = self._acted
        assert episodes is not None
        return np.array([self.true_rewards(task)[episodes.first[0]].sum() for task in range(len(self.tasks))])

    def true_rewards(self, task: int) -> Array:
        """Compute the rollout's true rewards in a task, `(time,)`."""
        assert self._acted is not None
        own = np.repeat(self.tasks.values[task][None], self.family.horizon, 0)
        return self.family.reward(self._acted.features[0], self._acted.actions[0], own)

    def decoded_rewards(self) -> Array:
        """Decode the rollout's rewards from the chosen z, `(time,)`."""
        assert self._acted is not None
        z = self.exact(self.z_at(self.chosen)).mean.expand(self.family.horizon, -1)
        inputs = (self.agent.tensor(part[0]) for part in (self._acted.observations, self._acted.actions))
        with torch.inference_mode():
            return self.agent.reward_decoder(*inputs, z).cpu().numpy()

    def draw(self) -> Traces:
        means = plots.project(self.posterior().mean.cpu().numpy(), self.axes)
        self._acted: Episodes | None = None
        return {
            "every": {"x": means[:, 0], "y": means[:, 1]},
            "point": {"x": self.chosen[:1], "y": self.chosen[1:]},
        }

    def draw_slowly(self) -> Traces:
        task = self.state["task"]
        self._acted = self.act(self.exact(self.z_at(self.chosen)))
        path = stage.lines(self.family, self._acted)
        aim, paid = stage.target(self.family, self.tasks.values[task], path), self.returns()
        x, best = self.scale.values, int(paid.argmax())
        first, time = self._acted.first[0], np.arange(1, self.family.horizon + 1) * self.family.control_dt
        return {
            "decoded": {"x": time[first], "y": self.decoded_rewards()[first]},
            "true": {"x": time[first], "y": self.true_rewards(task)[first]},
            "target": {"x": aim[:, 0], "y": aim[:, 1]},
            "acts": {"x": path[0, :, 0], "y": path[0, :, 1]},
            "paid": {"x": x, "y": paid},
            "best": {"x": x[[best]], "y": paid[[best]]},
            "wanted": {"x": x[[task]], "y": paid[[task]]},
        }

    @property
    def text(self) -> str:
        at = ", ".join(f"{value:.2f}" for value in self.chosen)
        if self._acted is None:
            return f"z at ({at}) in the plane ..."
        paid, task = self.returns(), self.state["task"]
        best = int(paid.argmax())
        return (
            f"z at ({at}) in the plane: the rollout would return {paid[best]:.1f} in task {self.task_name(best)}, "
            f"most of all, and {paid[task]:.1f} in the selected task {self.task_name(task)}.{self.words_of_z}"
        )

    def film(self) -> str:
        at = ", ".join(f"{value:.2f}" for value in self.chosen)
        return stage.film(
            self.agent, self.family, self.tasks[self.state["task"]], self.exact(self.z_at(self.chosen)),
            f"What the agent does at z = ({at}) in the plane.", still=self.state["reduced_motion"],
        )  # fmt: skip
