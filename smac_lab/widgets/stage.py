"""Rollouts of explorers as lines and films."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

import numpy as np
import torch

from smac_lab.agent import SMAC
from smac_lab.encoder import Gaussian
from smac_lab.engine.rollout import Episodes, rollout
from smac_lab.figures.style import Array
from smac_lab.tasks import rendering
from smac_lab.tasks.family import MujocoFamily, TaskFamily
from smac_lab.tasks.spec import Tasks

FILM_FRAMES = 50  # per film, about


class Axes(NamedTuple):
    """The axes of a family's rollouts."""

    x_label: str
    y_label: str
    plane: bool  # paths in a plane; otherwise lines over time


def axes_of(family: TaskFamily) -> Axes:
    """Choose paths in the plane for points and walkers, otherwise the first feature over time."""
    if hasattr(family, "landmark") or _walks(family):
        return Axes("x (m)", "y (m)", True)
    return Axes("time (s)", feature_label(family), False)


def feature_label(family: TaskFamily) -> str:
    """Return the first feature's label, with unit; if a task is one number, the task's label without "target"."""
    return family.task_label.removeprefix("target ") if family.task_dim == 1 else family.feature_label


def act(agent: SMAC, family: TaskFamily, task: Array, z: Gaussian, seed: int = 0) -> Episodes:
    """Roll out an episode in `task`, `(task_dim,)`, per z, `(n, z_dim)`, with equal initial states and mean actions."""
    n = len(z.mean)
    env = family.batch_env(Tasks(np.repeat(np.atleast_2d(task), n, axis=0)), num_threads=1)
    generator = torch.Generator(agent.device).manual_seed(seed)
    return rollout(agent.policy(z, generator), env, seed=[seed] * n)


def lines(family: TaskFamily, episodes: Episodes) -> Array:
    """Return each simulation's line, `(n, time, 2)`; NaN after its first episode."""
    features = np.where(episodes.first[..., None], episodes.features, np.nan)
    if hasattr(family, "landmark"):
        start = episodes.observations[:, :1]
        ends = np.where(episodes.first[..., None], episodes.next_observations, np.nan)
        return np.concatenate([start, ends], axis=1)
    if _walks(family):
        return np.cumsum(features[..., :2], 1) * family.control_dt
    time = np.broadcast_to(np.arange(1, features.shape[1] + 1) * family.control_dt, features.shape[:2])
    return np.stack([time, features[..., 0]], axis=-1)


def target(family: TaskFamily, task: Array, drawn: Array) -> Array:
    """Return the task's target on the same axes, `(point, 2)`; empty if it cannot be drawn."""
    if hasattr(family, "landmark"):
        return np.atleast_2d(family.landmark(task))
    if _walks(family):
        angle = task[0]
        reach = float(np.nanmax(np.linalg.norm(drawn, axis=-1)))
        return np.stack([np.zeros(2), reach * np.array([np.cos(angle), np.sin(angle)])])
    if family.task_dim == 1:
        return np.stack([[0.0, task[0]], [family.horizon * family.control_dt, task[0]]])
    return np.empty((0, 2))


def outcomes(family: TaskFamily, tasks: Array, episodes: Episodes) -> list[str]:
    """Return each return as text and, if the family has `success`, whether the last step succeeded.

    Args:
        family: of the episodes.
        tasks: `(n, task_dim)`.
        episodes: `(n, time, ...)`.
    """
    last = episodes.first.sum(1) - 1
    reached = family.success(episodes.features[np.arange(len(tasks)), last], tasks)
    said = [f"{value:.1f}" for value in episodes.returns]
    if reached is None:
        return said
    return [f"{value} ({'reached' if done else 'not reached'})" for value, done in zip(said, reached, strict=True)]


def film(
    agent: SMAC, family: TaskFamily, tasks: Tasks, z: Gaussian, caption: str, *, still: bool = False, seed: int = 0
) -> str:
    """Film `act` side by side and return HTML; without a renderer, HTML with the reason.

    Args:
        agent, family: the agent and its task family.
        tasks: one task per z.
        z: `(n, z_dim)`.
        caption: text below the film, also for screen readers.
        still: do not start automatically.
        seed: of the initial state, which all simulations share.
    """
    from smac_lab.figures import video

    if isinstance(family, MujocoFamily):
        try:
            rendering.require_renderer()
        except RuntimeError as error:
            return f"<p>No film here, the lines above show the same rollout. {html.escape(str(error))}</p>"
    generator = torch.Generator(agent.device).manual_seed(seed)
    made = video.render_episodes(
        agent.policy(z, generator), family, tasks, seed=[seed] * len(tasks),
        width=240, height=180, every=max(1, family.horizon // FILM_FRAMES),
    )  # fmt: skip
    return player(made.frames, made.fps, caption, still)


def player(frames: Any, fps: float, caption: str, still: bool = False) -> str:
    """Return a self-contained HTML video."""
    from smac_lab.figures import video

    moving = "" if still else "autoplay loop "
    source, said = video.data_url(frames, fps), html.escape(caption)
    return (
        f'<figure style="margin:0"><video {moving}muted playsinline controls src="{source}" aria-label="{said}">'
        f"</video><figcaption>{said}</figcaption></figure>"
    )


def _walks(family: TaskFamily) -> bool:
    """Return whether tasks are directions and the first two features a velocity."""
    return "direction" in family.task_label and family.spec.feature_dim >= 2
