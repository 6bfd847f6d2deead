"""RewardExplorer: decoded and true rewards of a task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from smac_lab.engine.rollout import Episodes, rollout
from smac_lab.figures import style
from smac_lab.figures.style import HELD_OUT, OFFLINE, SELF_COLLECTED, Array, Place
from smac_lab.tasks.family import DynamicsFamily, TaskFamily
from smac_lab.widgets import stage
from smac_lab.widgets.agents import CHOSEN, FRAME, PointExplorer
from smac_lab.widgets.explorer import Control, Traces

SIDE = 33  # points along each axis of a map
REACH = 1.6  # m, half the side of a map
EDGES = 41  # edges of the histogram of residuals


class RewardExplorer(PointExplorer):
    """Decoded and true rewards of one task.

    For points of a plane, two maps show the reward decoded from z and the true reward, both of standing still. For
    bodies, two panels show both rewards of offline and of self-collected transitions, over the first feature. On the
    right are residuals (decoded - true) on both kinds of transitions.

    State: `task` (the task of the true reward; also sets z to its posterior mean), `offline_context` ("exploration" or
    "transitions", if the buffer has exploration), `z1`, `z2` (z, in the plane), and, for `Snapshots`, `arm` and
    `iteration`.
    """

    varied = ("task", "iteration")
    about = (
        "The agent labels what it collects itself with rewards that the decoder computes from z. Here they stand "
        "beside the true ones of the same task. The last panel shows how far they are off, on the transitions of the "
        "data and on those that the agent collects."
    )

    def make_controls(self) -> dict[str, Control]:
        self.maps = isinstance(self.family, DynamicsFamily) and self.family.obs_dim == 2
        return super().make_controls()

    # -- rewards -----------------------------------------------------------------------------------------
    def transitions(self) -> dict[str, Episodes]:
        """Return offline transitions, and an episode given self-collected context, `(task, n, dim)` each."""

        def compute() -> dict[str, Episodes]:
            generator = torch.Generator(self.agent.device).manual_seed(0)
            acted = rollout(
                self.agent.policy(self.posterior("self-collected"), generator), self.family.batch_env(self.tasks)
            )
            n, b = self.family.horizon, self.buffer
            rows = torch.stack([b.rows_of(i, "offline")[:n] for i in range(len(self.tasks))])
            names = [name for name in Episodes._fields if name != "valid"]
            kept: dict[str, Any] = {name: np.asarray(b.column(name)[rows].cpu(), np.float64) for name in names}
            return {"offline": Episodes(**kept, valid=np.ones(rows.shape, bool)), "self-collected": acted}

        return self.once(("transitions", self.key), compute)

    @torch.inference_mode()
    def decode(self, observations: Array, actions: Array) -> Array:
        """Decode r(s, a, z), `(n,)`, of inputs `(n, dim)` and the chosen z."""
        z = self.exact(self.z_at(self.chosen)).mean.expand(1, len(observations), -1)
        inputs = (self.agent.tensor(observations)[None], self.agent.tensor(actions)[None])
        return self.agent.reward_decoder(*inputs, z)[0].cpu().numpy()

    def frame(self) -> go.Figure:
        if self.maps:
            titles = ["decoded reward", "true reward", "what is off: decoded - true"]
        else:
            titles = ["offline transitions", "self-collected transitions", "what is off: decoded - true"]
        figure, places = style.grid(titles, 300, columns=3)
        if self.maps:
            for name, place in zip(("decoded", "true"), places, strict=False):
                self._map_frame(figure, name, place)
        else:
            for name, place in zip(("offline", "self-collected"), places, strict=False):
                self._dots_frame(figure, name, place, legend=place is places[0])
        for name, colour in (("offline", OFFLINE), ("self-collected", SELF_COLLECTED)):
            bars = go.Bar(
                marker={"color": colour, "line_width": 0}, opacity=0.6, name=f"on {name} states",
                hovertemplate="%{x:.2f}: %{y:.0%} of transitions<extra>" + name + "</extra>", **FRAME,
            )  # fmt: skip
            self.add(figure, f"off {name}", bars, places[2])
        figure.update_xaxes(title="decoded - true reward", **places[2])
        figure.update_yaxes(title="share of transitions", tickformat=".0%", **places[2])
        if self.maps:
            bar = {"title": {"text": "reward per step", "side": "right"}, "thickness": 12, "outlinewidth": 0}
            figure.update_layout(coloraxis={"colorscale": "Cividis", "colorbar": bar})
        return figure.update_layout(barmode="overlay", bargap=0, margin_r=90)

    def _map_frame(self, figure: go.Figure, name: str, place: Place) -> None:
        """Add a map of the plane; both share a colour scale."""
        side = np.linspace(-REACH, REACH, SIDE)
        surface = go.Contour(
            x=side, y=side, z=np.zeros((SIDE, SIDE)), coloraxis="coloraxis",
            hovertemplate="x %{x:.2f} m, y %{y:.2f} m: %{z:.2f}<extra></extra>", name=name, ncontours=12,
        )  # fmt: skip
        self.add(figure, f"map {name}", surface, place)
        cross = {"symbol": "x-thin", "size": 14, "line": {"width": 3, "color": "white"}}
        self.add(figure, f"goal {name}", go.Scatter(mode="markers", marker=cross, showlegend=False, **FRAME), place)
        figure.update_xaxes(title="x (m)", range=[-REACH, REACH], constrain="domain", **place)
        along_x = style.axis_name(figure, place, "x")
        figure.update_yaxes(title="y (m)", range=[-REACH, REACH], constrain="domain", scaleanchor=along_x, **place)

    def _dots_frame(self, figure: go.Figure, name: str, place: Place, legend: bool) -> None:
        for kind, colour in (("true", HELD_OUT), ("decoded", CHOSEN)):
            dots = go.Scatter(
                mode="markers", marker={"color": colour, "size": 5, "opacity": 0.6}, name=f"{kind} reward",
                legendgroup=kind, showlegend=legend,
                hovertemplate=f"%{{x:.2f}}: %{{y:.2f}}<extra>{kind}</extra>", **FRAME,
            )  # fmt: skip
            self.add(figure, f"{kind} {name}", dots, place)
        figure.update_xaxes(title=stage.feature_label(self.family), **place)
        figure.update_yaxes(title="reward per step", **place)

    def residuals(self) -> dict[str, Array]:
        """Compute decoded - true reward on both kinds of transitions, `(n,)` each."""
        task = self.state["task"]
        found = {}
        for name, episodes in self.transitions().items():
            decoded = self.decode(episodes.observations[task], episodes.actions[task])
            found[name] = decoded - episodes.rewards[task]
        return found

    def draw(self) -> Traces:
        task = self.state["task"]
        traces: Traces = {}
        if self.maps:
            decoded, true = self._maps()
            for name, values in (("decoded", decoded), ("true", true)):
                traces[f"map {name}"] = {"z": values.reshape(SIDE, SIDE)}
                if hasattr(self.family, "landmark"):
                    x, y = self.family.landmark(self.tasks.values[task])
                    traces[f"goal {name}"] = {"x": [x], "y": [y]}
        else:
            for name, episodes in self.transitions().items():
                x = episodes.features[task, :, 0]
                decoded = self.decode(episodes.observations[task], episodes.actions[task])
                traces[f"true {name}"] = {"x": x, "y": episodes.rewards[task]}
                traces[f"decoded {name}"] = {"x": x, "y": decoded}
        found = self.residuals()
        reach = max(0.05, *(float(np.abs(r).max()) for r in found.values()))
        edges = np.linspace(-reach, reach, EDGES)
        for name, values in found.items():
            share = np.histogram(values, edges)[0] / len(values)
            traces[f"off {name}"] = {"x": (edges[1:] + edges[:-1]) / 2, "y": share, "width": np.diff(edges)}
        return traces

    def _maps(self) -> tuple[Array, Array]:
        """Compute both rewards of standing still on a grid, `(SIDE^2,)` each."""
        family: TaskFamily = self.family
        assert isinstance(family, DynamicsFamily)
        y, x = np.meshgrid(*[np.linspace(-REACH, REACH, SIDE)] * 2, indexing="ij")
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        still = np.zeros((len(points), family.action_dim))
        before = SimpleNamespace(position=points)
        after = SimpleNamespace(**family.dynamics(before, still))
        own = np.repeat(self.tasks.values[[self.state["task"]]], len(points), 0)
        true = family.reward(family.measure(before, still, after), still, own)
        return self.decode(family.observe(before), still), true

    @property
    def text(self) -> str:
        rms = {name: float(np.sqrt(np.square(values).mean())) for name, values in self.residuals().items()}
        spread = float(self.transitions()["self-collected"].rewards[self.state["task"]].std())
        at = ", ".join(f"{value:.2f}" for value in self.chosen)
        return (
            f"Task {self.task_name(self.state['task'])}, z at ({at}) in the plane: decoded rewards are off by "
            f"{rms['offline']:.2f} (rms) on offline and {rms['self-collected']:.2f} on self-collected transitions, "
            f"where true ones spread by {spread:.2f}.{self.words_of_z}"
        )
