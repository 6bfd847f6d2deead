"""ShiftExplorer: posteriors from both kinds of context, and their effect on returns."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from smac_lab.encoder import Gaussian, kl_divergence, kl_to_prior
from smac_lab.figures import plots, style
from smac_lab.figures.style import GREY, OFFLINE, SELF_COLLECTED, Array
from smac_lab.widgets import stage
from smac_lab.widgets.agents import CHOSEN, FRAME, AgentExplorer, joined, offline_of, outlines, stacked
from smac_lab.widgets.explorer import Choice, Control, Slider, Traces

SHADES = 8  # of the outlines; one trace each, for quick redraws
KL_EDGES = np.linspace(-4.0, 4.0, 33)  # decimal logarithms of nats


class ShiftExplorer(AgentExplorer):
    """The distribution shift as an interactive figure.

    Upper left: the latent plane. Each task has two ellipses (one standard deviation of a posterior): filled given
    offline context, dotted given context of which a share is self-collected; a line joins their means. Upper right:
    rollouts given both posteriors, or the chosen point. Lower left: returns over the self-supervised phase. Lower
    right: KL divergences of the posteriors from each other and from the prior.

    State: `n` (context transitions), `share` (self-collected share of them, 0 to 1), `offline_context` ("exploration"
    or "transitions", if the buffer has exploration), `arm`, `iteration` (for `Snapshots`), `task` (selected), `show`
    ("task": rollouts given its two posteriors; "point": given the chosen point), `z1`, `z2` (the chosen point).
    """

    clicks: ClassVar = {"offline": ("task",), "mixed": ("task",), "anywhere": ("z1", "z2")}
    varied = ("iteration", "share", "task")
    about = (
        "Each task has a filled mark, where the encoder puts it given offline context, and a hollow one, given context "
        "that the agent collected itself; a line joins the two. Where they lie apart, the agent may take the task for "
        "another. Move the iteration to see what the self-supervised phase does about it, or click a mark to see its "
        "task played."
    )

    def make_controls(self) -> dict[str, Control]:
        counts = sorted(
            {*range(1, min(self.n_context, 10) + 1), *np.linspace(1, self.n_context, 40).astype(int).tolist()}
        )
        return {
            "n": Slider("context transitions", counts, counts[-1]),
            "share": Slider("share self-collected", np.linspace(0, 1, 21).round(2).tolist(), 1.0, "{:.0%}".format),
            **self.offline_controls(),
            **super().make_controls(),
            **self.z_controls(),
            "show": Choice("play", ["task", "point"], "task", {"task": "the task", "point": "the point"}.__getitem__),
        }

    # -- what is shown -----------------------------------------------------------------------------------
    def mixed(self) -> tuple[Tensor, Tensor]:
        """Return offline and mixed context, `(task, n, context_dim)` each."""
        n = self.state["n"]
        own = round(self.state["share"] * n)
        offline = self.context_of("offline")[:, :n]
        return offline, torch.cat([self.context_of("self-collected")[:, :own], offline[:, : n - own]], dim=1)

    def posteriors(self) -> tuple[Gaussian, Gaussian]:
        """Infer q(z | offline context) and q(z | mixed context)."""

        def infer() -> tuple[Gaussian, Gaussian]:
            offline, mixed = self.mixed()
            return self.agent.infer_posterior(offline), self.agent.infer_posterior(mixed)

        return self.once(("posteriors", self.key, offline_of(self.state), self.state["n"], self.state["share"]), infer)

    def returns(self) -> tuple[list[int], Array, Array]:
        """Return iterations, and their mean returns given offline and self-collected context."""
        arm = self.state.get("arm")
        kept = self.subject.iterations
        found = [self.measured((arm if i else None, i)) for i in kept]
        offline, online = ([getattr(f, f"{kind}_context_return") for f in found] for kind in ("offline", "online"))
        return kept, np.array(offline), np.array(online)

    def frame(self) -> go.Figure:
        titles = ["what the encoder infers", "what the agent does", "what it gets", "how far posteriors lie apart"]
        figure, (plane, does, gets, apart) = style.grid(titles, 270, gap=100)
        self.plane_frame(figure, plane)
        shades = np.array(self.task_colours(SHADES))
        self.shades = {colour: np.flatnonzero(shades == colour) for colour in dict.fromkeys(shades.tolist())}
        for colour in self.shades:
            look = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, **FRAME}
            filled = {"fill": "toself", "fillcolor": colour.replace("rgb", "rgba").replace(")", ", 0.25)")}
            for name, line, more in (
                ("offline", {"color": colour, "width": 1}, filled),
                ("mixed", {"color": colour, "width": 1.5, "dash": "dot"}, {}),
            ):
                self.add(figure, f"{name} {colour}", go.Scatter(line=line, **more, **look), plane)
        line = {"color": "rgba(127,127,127,0.7)", "width": 1}
        self.add(
            figure, "links", go.Scatter(mode="lines", line=line, hoverinfo="skip", name="same task", **FRAME), plane
        )
        marker = {"color": self.scale.values, "coloraxis": "coloraxis"}
        names = [self.task_name(i) for i in range(len(self.tasks))]
        for name, label, look in (
            ("offline", "offline context", {"symbol": "circle", "size": 8}),
            ("mixed", "with self-collected context", {"symbol": "circle-open", "size": 10, "line_width": 2}),
        ):
            hover = f"task %{{text}}<extra>{label}</extra>"
            points = go.Scatter(
                mode="markers", marker={**marker, **look}, text=names, hovertemplate=hover, name=label, **FRAME
            )
            self.add(figure, name, points, plane)
        for name, label, look in (
            ("selected", "selected task", {"symbol": "circle-open", "size": 20, "color": GREY, "line_width": 2}),
            ("point", "chosen point", {"symbol": "star", "size": 13, "color": CHOSEN}),
        ):  # the marker below receives clicks
            mark = go.Scatter(mode="markers", marker=look, hoverinfo="skip", name=label, **FRAME)
            self.add(figure, name, mark, plane)

        self.stage_frame(figure, does)
        for name, label, colour in (
            ("acts offline", "given offline context", OFFLINE),
            ("acts mixed", "given the mixed context", SELF_COLLECTED),
            ("acts point", "given the chosen point", CHOSEN),
        ):
            path = go.Scatter(mode="lines", line={"color": colour, "width": 2.5}, name=label, showlegend=False, **FRAME)
            self.add(figure, name, path, does)

        for name, label, colour in (
            ("return offline", "offline context", OFFLINE),
            ("return online", "self-collected context", SELF_COLLECTED),
        ):
            curve = go.Scatter(
                mode="lines+markers", line_color=colour, name=f"return, {label}", showlegend=False, **FRAME
            )
            self.add(figure, name, curve, gets)
        now = {"color": [OFFLINE, SELF_COLLECTED], "size": 15, "symbol": "circle-open", "line_width": 3}
        self.add(figure, "now", go.Scatter(mode="markers", marker=now, name="now", showlegend=False, **FRAME), gets)
        figure.update_xaxes(title="iteration of the self-supervised phase", **gets)
        figure.update_yaxes(title="return per episode", **gets)

        centres = (KL_EDGES[1:] + KL_EDGES[:-1]) / 2
        for name, label, colour in (
            ("kl shift", "KL(mixed || offline)", CHOSEN),
            ("kl offline", "KL(offline || prior)", OFFLINE),
            ("kl mixed", "KL(mixed || prior)", SELF_COLLECTED),
        ):
            bars = go.Bar(
                x=centres, y=np.zeros(len(centres)), width=np.diff(KL_EDGES), marker={"color": colour, "line_width": 0},
                opacity=0.6, name=label, customdata=10**centres,
                hovertemplate=f"about %{{customdata:.2g}} nats: %{{y}} tasks<extra>{label}</extra>",
            )  # fmt: skip
            self.add(figure, name, bars, apart)
        ticks = [-4, -2, 0, 2, 4]
        figure.update_xaxes(
            title="KL divergence (nats)", tickvals=ticks, ticktext=[f"{10.0**t:g}" for t in ticks], **apart
        )
        figure.update_yaxes(title="tasks", range=[0, len(self.tasks)], **apart)
        style.colour_bar(figure, self.scale)
        return figure.update_layout(barmode="overlay", bargap=0, hovermode="closest", margin_r=90)

    def draw(self) -> Traces:
        state, axes, kind = self.state, self.axes, self.state.get("offline_context")
        offline, mixed = self.posteriors()
        at, to = (plots.project(q.mean.cpu().numpy(), axes) for q in (offline, mixed))
        traces: Traces = {
            "offline": {"x": at[:, 0], "y": at[:, 1], "name": f"offline context{f': {kind}' if kind else ''}"},
            "mixed": {"x": to[:, 0], "y": to[:, 1]},
            "links": joined(np.stack([at, to], 1)),
            "selected": {"x": [at[state["task"], 0]], "y": [at[state["task"], 1]]},
            "point": {"x": self.chosen[:1], "y": self.chosen[1:], "visible": state["show"] == "point"},
        }
        for name, posterior in (("offline", offline), ("mixed", mixed)):
            drawn = outlines(posterior, axes)
            for colour, tasks in self.shades.items():
                traces[f"{name} {colour}"] = joined([drawn[i] for i in tasks])
        for name, kl in (
            ("shift", kl_divergence(mixed, offline)),
            ("offline", kl_to_prior(offline)),
            ("mixed", kl_to_prior(mixed)),
        ):
            logs = np.log10(np.clip(kl.cpu().numpy(), 1.01e-4, 0.99e4))
            traces[f"kl {name}"] = {"y": np.histogram(logs, KL_EDGES)[0]}
        kept, given_offline, given_online = self.returns()
        here = kept.index(self.state.get("iteration", 0))
        traces["return offline"] = {"x": kept, "y": given_offline}
        traces["return online"] = {"x": kept, "y": given_online}
        traces["now"] = {"x": [kept[here]] * 2, "y": [given_offline[here], given_online[here]]}
        self._outcomes: dict[str, str] = {}
        return traces

    def acting(self) -> dict[str, Gaussian]:
        """Return the selected task's two posteriors, or the chosen point, `(1, z_dim)` each."""
        if self.state["show"] == "point":
            return {"point": self.exact(self.z_at(self.chosen))}
        task = [self.state["task"]]
        named = zip(("offline", "mixed"), self.posteriors(), strict=True)
        return {name: Gaussian(q.mean[task], q.std[task]) for name, q in named}

    def draw_slowly(self) -> Traces:
        task, given = self.state["task"], self.acting()
        names, acted = list(given), self.act(stacked(given.values()))
        paths = stage.lines(self.family, acted)
        tasks = self.tasks.values[[task] * len(names)]
        self._outcomes = dict(zip(names, stage.outcomes(self.family, tasks, acted), strict=True))
        aim = stage.target(self.family, self.tasks.values[task], paths)
        traces: Traces = {"target": {"x": aim[:, 0], "y": aim[:, 1]}}
        for name in ("offline", "mixed", "point"):
            drawn = paths[names.index(name)] if name in names else np.empty((0, 2))
            traces[f"acts {name}"] = {"x": drawn[:, 0], "y": drawn[:, 1]}
        return traces

    @property
    def text(self) -> str:
        s, (kept, offline, online) = self.state, self.returns()
        here = kept.index(s.get("iteration", 0))
        q, mixed = self.posteriors()
        apart = float(kl_divergence(mixed, q).median())
        when = (
            f"{style.phase_label(s['arm'])}, iteration {s['iteration']}" if s.get("iteration") else "before the phase"
        )
        at = ", ".join(f"{value:.2f}" for value in self.chosen)
        given = {"offline": "offline context", "mixed": "the mixed context", "point": f"the chosen point ({at})"}
        returns = [f"{outcome} given {given[name]}" for name, outcome in self._outcomes.items()]
        kind = self.offline_words if "offline_context" in s else "offline"
        played = f", return {', '.join(returns)}" if returns else " ..."
        return (
            f"{when[0].upper() + when[1:]}: {s['n']} context transitions, {s['share']:.0%} of them self-collected in "
            f"the hollow markers. These lie {apart:.2g} nats from the filled ones (median of {len(self.tasks)} tasks). "
            f"Mean return {offline[here]:.1f} from {kind} and {online[here]:.1f} from self-collected context. "
            f"Played: task {self.task_name(s['task'])}{played}."
        )

    def film(self) -> str:
        point = self.state["show"] == "point"
        what = "the chosen point" if point else "offline context (left) and the mixed context (right)"
        caption = f"Task {self.task_name(self.state['task'])}: given {what}."
        z = stacked(self.acting().values())
        tasks = self.tasks[[self.state["task"]] * len(z.mean)]
        return stage.film(self.agent, self.family, tasks, z, caption, still=self.state["reduced_motion"])

    # -- by hand -----------------------------------------------------------------------------------------
    def by_hand(self, name: str, value: Any) -> dict[str, Any]:
        """Show what a person last chose, point or task."""
        shown = {"z1": "point", "z2": "point", "task": "task"}.get(name)
        return {name: value} | ({"show": shown} if shown else {})

    def clicked(self, changes: dict[str, Any]) -> None:
        self.update(**changes)
        if self.buttons():
            self.play()
