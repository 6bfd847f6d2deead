"""AdaptationExplorer: compare methods after each number of episodes of context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from smac_lab.adaptation import evaluate
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.engine.method import Method
from smac_lab.engine.rollout import Episodes, rollout
from smac_lab.figures import style
from smac_lab.figures.style import GREY, OFFLINE, SELF_COLLECTED, Array
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks
from smac_lab.widgets import stage
from smac_lab.widgets.agents import CHOSEN, FRAME
from smac_lab.widgets.explorer import Choice, Control, Explorer, Slider, Traces

EPISODES = (0, 1, 2, 3, 4)  # of context
KINDS = {"offline": OFFLINE, "self-collected": SELF_COLLECTED}


class AdaptationExplorer(Explorer):
    """Methods in one task after some episodes of context, side by side.

    Above, one panel per method: the path before any context (grey) and after adaptation. Below: the mean return of all
    tasks over the episodes of context, for both kinds of context. All methods get equal offline context, and each
    collects its own self-collected context.

    Args:
        methods: name to agent, each of one seed.
        family, tasks: of the episodes; `tasks[i]` is the buffer's task `i`.
        buffer: source of the offline context.
        **state: `task`, `episodes` (of context), `context` ("offline" or "self-collected").

    Raises:
        ValueError: there is no method, there are more than three, or one has another family or several seeds.
    """

    varied = ("task", "episodes", "context")
    about = (
        "Several methods in the same task: what each does before it has seen any context (grey), and after some "
        "episodes of it. Below: its mean return over all tasks, episode by episode. Offline context is the same for "
        "all; each method collects the other itself."
    )

    def __init__(
        self, methods: Mapping[str, Method], family: TaskFamily, tasks: Tasks, buffer: TransitionBuffer, **state: Any
    ):
        if not 1 <= len(methods) <= 3:
            raise ValueError(f"{len(methods)} methods are not allowed: one to three")
        for agent in methods.values():
            agent.check_spec(family.spec, "act in")
            if agent.seeds is not None:
                raise ValueError("methods of one seed each are needed here: agent.split()[0]")
        self.methods, self.family, self.tasks, self.buffer = dict(methods), family, tasks, buffer
        super().__init__(**state)

    def make_controls(self) -> dict[str, Control]:
        return {
            "task": Slider("task", list(range(len(self.tasks))), 0),
            "episodes": Slider("episodes of context", EPISODES, EPISODES[0]),
            "context": Choice("context", list(KINDS), "offline"),
        }

    # -- what is shown -----------------------------------------------------------------------------------
    def contexts(self, name: str, kind: str) -> Tensor:
        """Return as many episodes of every task as the last of `EPISODES`, `(task, n, context_dim)`."""
        if kind == "self-collected":
            options: dict[str, Any] = {"seed": 0, "repeats": 1, "exploration_episodes": EPISODES[-1]}
            return evaluate(self.methods[name], self.family, self.tasks, **options).contexts[:, 0]
        ids, generator = torch.arange(len(self.tasks)), torch.Generator().manual_seed(0)
        n, source = EPISODES[-1] * self.family.horizon, self.buffer.offline_context
        return self.buffer.sample_context(ids, n, generator, source, consecutive=True)

    def acts(self, name: str, kind: str, episodes: int) -> Episodes:
        """Roll out one episode of every task after `episodes` episodes of context."""
        agent = self.methods[name]

        def run() -> Episodes:
            if episodes == 0:
                adapted = agent.unadapted(len(self.tasks))
            else:
                context = self.once(("context", name, kind), lambda: self.contexts(name, kind))
                adapted = agent.adapt(context[:, : episodes * self.family.horizon])
            policy = agent.policy(adapted, torch.Generator(agent.device).manual_seed(0))
            return rollout(policy, self.family.batch_env(self.tasks, num_threads=1), seed=[0] * len(self.tasks))

        return self.once(("acts", name, kind if episodes else "", episodes), run)

    def returns(self, name: str, kind: str) -> Array:
        """Average the return over tasks, for each of `EPISODES`."""
        return np.array([self.acts(name, kind, k).returns.mean() for k in EPISODES])

    # -- the figure --------------------------------------------------------------------------------------
    def frame(self) -> go.Figure:
        names, axes = list(self.methods), stage.axes_of(self.family)
        titles = [*names, *(f"{name}: return by context" for name in names)]
        figure, places = style.grid(titles, 250, columns=len(names))
        for name, above, below in zip(names, places[: len(names)], places[len(names) :], strict=True):
            first = name == names[0]
            for what, colour, width in (("before", GREY, 1.5), ("after", CHOSEN, 2.5)):
                line = {"color": colour, "width": width}
                path = go.Scatter(mode="lines", line=line, name=f"{what} adapting", showlegend=first, **FRAME)
                self.add(figure, f"{name} {what}", path, above)
            marker = {"symbol": "x", "color": "black", "size": 9}
            goal = go.Scatter(mode="markers", marker=marker, name="task", showlegend=first, **FRAME)
            self.add(figure, f"{name} goal", goal, above)
            for kind, colour in KINDS.items():
                curve = go.Scatter(
                    mode="lines+markers", line_color=colour, name=f"{kind} context", showlegend=first, **FRAME
                )
                self.add(figure, f"{name} {kind}", curve, below)
            ring = {"symbol": "circle-open", "size": 15, "color": CHOSEN, "line_width": 2.5}
            self.add(figure, f"{name} now", go.Scatter(mode="markers", marker=ring, showlegend=False, **FRAME), below)
            figure.update_xaxes(title=axes.x_label, **above).update_yaxes(title=axes.y_label, **above)
            figure.update_xaxes(title="episodes of context", dtick=1, **below)
            shared = style.axis_name(figure, places[len(names)], "y")
            figure.update_yaxes(title="return per episode", matches=shared, **below)
        return figure.update_layout(hovermode="closest")

    def draw(self) -> Traces:
        s, found = self.state, {}
        for name in self.methods:
            for what, episodes in (("before", 0), ("after", s["episodes"])):
                path = stage.lines(self.family, self.acts(name, s["context"], episodes))[s["task"]]
                found[f"{name} {what}"] = {"x": path[:, 0], "y": path[:, 1]}
            goal = stage.target(self.family, self.tasks.values[s["task"]], path[None])
            found[f"{name} goal"] = {"x": goal[:, 0], "y": goal[:, 1]}
            for kind in KINDS:
                found[f"{name} {kind}"] = {"x": np.array(EPISODES), "y": self.returns(name, kind)}
            at = self.returns(name, s["context"])[s["episodes"]]
            found[f"{name} now"] = {"x": np.array([s["episodes"]]), "y": np.array([at])}
        return found

    @property
    def text(self) -> str:
        s = self.state
        said = []
        for name in self.methods:
            first, last = (self.acts(name, s["context"], k).returns[s["task"]] for k in (0, s["episodes"]))
            said.append(f"{name} from {first:.1f} to {last:.1f}")
        after = f"{s['episodes']} episodes of {s['context']} context"
        return f"Task {s['task']}, return before and after {after}: {', '.join(said)}."
