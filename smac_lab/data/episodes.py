"""Static data as whole episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.store import Source
from smac_lab.engine.seeds import Generators, draw


class Trajectories(NamedTuple):
    """Horizons of successive transitions, `(..., time, dim)`, and `(..., time)` for the scalars."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminations: Tensor
    ends: Tensor  # 1 where an episode or the horizon ends


class EpisodeData:
    """Whole horizons of a buffer's static transitions, task after task.

    A horizon is `spec.horizon` successive transitions of one task and source. An incomplete last one is not used.

    Args:
        buffer: of one seed, or joined.
        sources: to use; a source without transitions is skipped.

    Raises:
        ValueError: a task has no whole horizon.

    Attributes:
        all: all horizons, `(horizon, time, ...)`.
        first, count: each task's first horizon and number of horizons, `(task,)`.
    """

    def __init__(self, buffer: TransitionBuffer, sources: Sequence[Source] = ("offline", "exploration")):
        horizon, places, counts = buffer.spec.horizon, [], []
        for task in range(buffer.n_tasks):
            rows = [buffer.rows_of(task, source) for source in sources]
            whole = torch.cat([own[: len(own) // horizon * horizon] for own in rows])
            if not len(whole):
                raise ValueError(f"task {task} has no {' or '.join(sources)} episode of {horizon} steps to learn from")
            places.append(whole)
            counts.append(len(whole) // horizon)
        chosen = torch.cat(places)

        def column(name: str) -> Tensor:
            values: Tensor = buffer.column(name)[chosen].to(torch.get_default_dtype())
            return values.unflatten(0, (-1, horizon))

        ends = column("terminations").maximum(column("truncations"))
        ends[:, -1] = 1.0
        self.all = Trajectories(
            column("observations"),
            column("actions"),
            column("rewards"),
            column("next_observations"),
            column("terminations"),
            ends,
        )
        self.count = torch.tensor(counts, device=buffer.device)
        self.first = self.count.cumsum(0) - self.count

    def sample(self, tasks: Tensor, n: int, generator: Generators) -> Tensor:
        """Draw indices of `n` horizons per task, with replacement: `(..., task)` to `(..., task, n)`."""
        uniform = draw(torch.rand, (*tasks.shape, n), generator)
        return self.first[tasks].unsqueeze(-1) + (uniform * self.count[tasks].unsqueeze(-1)).long()


def returns_to_go(rewards: Tensor, ends: Tensor, discount: float) -> Tensor:
    """G_t = r_t + gamma G_{t+1}, `(..., time)`; sums stop at the end of an episode."""
    returns, following = torch.empty_like(rewards), torch.zeros_like(rewards[..., 0])
    for t in reversed(range(rewards.shape[-1])):
        following = rewards[..., t] + discount * (1.0 - ends[..., t]) * following
        returns[..., t] = following
    return returns


def last_of_episode(ends: Tensor) -> Tensor:
    """Return the last step of each step's episode, `(..., time)`."""
    time = torch.arange(ends.shape[-1], device=ends.device)
    ending = torch.where(ends != 0, time, ends.shape[-1] - 1)
    return ending.flip(-1).cummin(-1).values.flip(-1)
