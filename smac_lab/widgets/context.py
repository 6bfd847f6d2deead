"""ContextExplorer: extend or spoil the encoder's context, and see the effect."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from smac_lab.encoder import Gaussian, kl_divergence, kl_to_prior
from smac_lab.figures import plots, style
from smac_lab.figures.style import GREY, OFFLINE, SELF_COLLECTED
from smac_lab.widgets.agents import CHOSEN, FRAME, AgentExplorer, joined, outlines
from smac_lab.widgets.explorer import Choice, Control, Slider, Traces

REWARDS = ("kept", "left out", "shuffled", "another task's")
SPOILED = ("states shuffled", "actions shuffled", *(f"rewards {how}" for how in REWARDS[1:]))


class ContextExplorer(AgentExplorer):
    """The posterior of one task after each number of transitions.

    Left: the latent plane, with the path of the posterior mean, the present outline of one standard deviation, and the
    posterior means of all tasks from whole contexts. Middle: KL divergences from the prior and from the posterior of
    the whole context. Right: the KL divergence by which the posterior moves when one part of the context is spoiled.

    State: `task`, `n` (transitions so far), `source` ("offline" or "self-collected"), `offline_context` ("exploration"
    or "transitions", if the buffer has exploration), `rewards` ("kept"; "left out": replaced by the mean over all
    tasks; "shuffled" among the transitions; "another task's": from the context of task `other`), `other`.
    """

    clicks: ClassVar = {"every": ("task",)}
    varied = ("task", "n", "source")
    about = (
        "The encoder reads transitions of one task, one after another; the ring is where it puts the task so far. The "
        "curves show how far that is from knowing nothing, and from its final answer. The bars show which part of the "
        "transitions it goes by: how far its answer moves when that part is spoiled."
    )

    def make_controls(self) -> dict[str, Control]:
        counts = sorted(
            {*range(1, min(self.n_context, 10) + 1), *np.geomspace(1, self.n_context, 22).astype(int).tolist()}
        )
        tasks = list(range(len(self.tasks)))
        return {
            **super().make_controls(),
            "n": Slider("transitions", counts, counts[-1]),
            "source": Choice("context", ["offline", "self-collected"], "offline"),
            **self.offline_controls(),
            "rewards": Choice("rewards", REWARDS, "kept"),
            "other": Slider("another task", tasks, len(tasks) - 1, self.task_name),
        }

    # -- contexts ----------------------------------------------------------------------------------------
    def context(self, spoiled: str | None = None) -> Tensor:
        """Return the task's whole context, `(1, n, context_dim)`, with one part spoiled if `spoiled` names it."""
        s, spec = self.state, self.family.spec
        every = self.context_of(s["source"])
        context = every[[s["task"]]].clone()
        n, reward = context.shape[1], spec.obs_dim + spec.action_dim
        order = self.once("order", lambda: torch.randperm(n, generator=torch.Generator().manual_seed(0)))
        match spoiled:
            case "states shuffled":
                context[..., : spec.obs_dim] = context[:, order, : spec.obs_dim]
                context[..., reward + 1 :] = context[:, order, reward + 1 :]
            case "actions shuffled":
                context[..., spec.obs_dim : reward] = context[:, order, spec.obs_dim : reward]
            case "rewards shuffled":
                context[..., reward] = context[:, order, reward]
            case "rewards left out":
                context[..., reward] = every[..., reward].mean()
            case "rewards another task's":
                context[..., reward] = every[[s["other"]], :, reward]
        return context

    def along(self) -> tuple[list[int], Gaussian]:
        """Return numbers of transitions, and the posterior after each, `(number, z_dim)`."""
        counts = list(self.controls["n"].values)
        context, agent = self.context(f"rewards {self.state['rewards']}"), self.agent
        found = [agent.infer_posterior(context[:, :count]) for count in counts]
        return counts, Gaussian(*(torch.cat([getattr(q, f) for q in found]) for f in Gaussian._fields))

    def moved(self) -> list[float]:
        """Compute KL(posterior of the spoiled context || of the unspoiled context), in nats, for each of `SPOILED`."""
        infer, n = self.agent.infer_posterior, self.state["n"]
        kept = infer(self.context()[:, :n])
        return [float(kl_divergence(infer(self.context(spoiled)[:, :n]), kept)) for spoiled in SPOILED]

    # -- the figure --------------------------------------------------------------------------------------
    def frame(self) -> go.Figure:
        titles = ["what the encoder infers", "how much it has inferred", "what it goes by"]
        figure, places = style.grid(titles, 320, columns=3)
        plane, sure, goes_by = places
        self.plane_frame(figure, plane)
        marker = {"color": self.scale.values, "coloraxis": "coloraxis", "size": 7, "opacity": 0.55}
        names = [self.task_name(i) for i in range(len(self.tasks))]
        hover = "task %{text}<extra>whole context</extra>"
        every = go.Scatter(mode="markers", marker=marker, text=names, hovertemplate=hover, name="all tasks", **FRAME)
        self.add(figure, "every", every, plane)
        path = {"color": GREY, "width": 1.5}
        self.add(figure, "path", go.Scatter(mode="lines", line=path, hoverinfo="skip", name="so far", **FRAME), plane)
        outline = {"color": CHOSEN, "width": 2.5}
        now = go.Scatter(mode="lines", line=outline, hoverinfo="skip", name="posterior now, 1 std", **FRAME)
        self.add(figure, "now", now, plane)
        dot = {"color": CHOSEN, "size": 9}
        self.add(figure, "mean", go.Scatter(mode="markers", marker=dot, showlegend=False, name="mean", **FRAME), plane)
        for name, label, colour in (
            ("prior", "from the prior", OFFLINE),
            ("whole", "from the whole context's", SELF_COLLECTED),
        ):
            curve = go.Scatter(mode="lines+markers", line_color=colour, marker_size=4, name=f"KL {label}", **FRAME)
            self.add(figure, name, curve, sure)
        here = {"color": CHOSEN, "width": 1.5, "dash": "dot"}
        line = go.Scatter(mode="lines", line=here, hoverinfo="skip", showlegend=False, name="now", **FRAME)
        self.add(figure, "here", line, sure)
        bars = go.Bar(
            y=list(SPOILED), orientation="h", marker_color=CHOSEN, showlegend=False, name="moved by",
            x=[0.0] * len(SPOILED),
            text=list(SPOILED), textposition="auto", insidetextanchor="start", constraintext="none", cliponaxis=False,
            hovertemplate="%{x:.3g} nats<extra>%{y}</extra>",
        )  # fmt: skip
        self.add(figure, "moved", bars, goes_by)
        figure.update_xaxes(title="transitions", type="log", **sure).update_yaxes(
            title="nats", rangemode="tozero", **sure
        )
        figure.update_xaxes(title="posterior moves by (nats)", rangemode="tozero", **goes_by)
        figure.update_yaxes(autorange="reversed", showticklabels=False, ticks="", **goes_by)
        style.colour_bar(figure, self.scale)
        return figure.update_layout(hovermode="closest", margin_r=90)

    def draw(self) -> Traces:
        axes, whole = self.axes, self.posterior(self.state["source"])
        counts, q = self.along()
        at = counts.index(self.state["n"])
        means = plots.project(q.mean.cpu().numpy(), axes)
        everyone = plots.project(whole.mean.cpu().numpy(), axes)
        task = self.state["task"]
        last = Gaussian(whole.mean[[task]], whole.std[[task]])
        to_prior, to_whole = kl_to_prior(q).cpu().numpy(), kl_divergence(q, last).cpu().numpy()
        outline = outlines(Gaussian(q.mean[[at]], q.std[[at]]), axes)
        top = float(max(to_prior.max(), to_whole.max()))
        return {
            "every": {"x": everyone[:, 0], "y": everyone[:, 1]},
            "path": {"x": means[: at + 1, 0], "y": means[: at + 1, 1]},
            "now": joined(outline),
            "mean": {"x": means[[at], 0], "y": means[[at], 1]},
            "prior": {"x": counts, "y": to_prior},
            "whole": {"x": counts, "y": to_whole},
            "here": {"x": [counts[at]] * 2, "y": [0.0, top]},
            "moved": {"x": self.moved()},
        }

    @property
    def text(self) -> str:
        s, (counts, q) = self.state, self.along()
        at = counts.index(s["n"])
        moved = dict(zip(SPOILED, self.moved(), strict=True))
        most = max(moved, key=moved.__getitem__)
        context = self.offline_words if s["source"] == "offline" else "self-collected context"
        spoiled = "" if s["rewards"] == "kept" else f", rewards {s['rewards']}"
        return (
            f"Task {self.task_name(s['task'])}: after {s['n']} transitions of {context}{spoiled}, the "
            f"posterior lies {float(kl_to_prior(q)[at]):.2f} nats from the prior. "
            f"It moves most with {most}, by {moved[most]:.2g} nats."
        )

    def by_hand(self, name: str, value: Any) -> dict[str, Any]:
        return {name: value} | ({"source": "offline"} if name == "offline_context" else {})
