"""Transitions of many tasks, sampled in meta-batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from smac_lab.data.lookup import Lookup
from smac_lab.data.store import MEMBERS, Source, TransitionStore, check_source
from smac_lab.encoder import make_context
from smac_lab.engine.seeds import Generators, axis_of, draw
from smac_lab.tasks.spec import FamilySpec


class Transitions(NamedTuple):
    """Transitions of a meta-batch: `(task, batch, dim)`, and `(task, batch)` for the scalars.

    A leading seed axis of the tasks is kept.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminations: Tensor


class TransitionBuffer(TransitionStore):
    """Per-task transitions on one device, sampled in meta-batches.

    Args:
        spec: of the family.
        n_tasks: number of tasks.
        device: of the transitions.

    Example:
        >>> import torch, smac_lab as lab
        >>> buffer, tasks = lab.starter_data(lab.make_family("point-robot"))
        >>> buffer.sample_context(torch.tensor([0, 3]), 16, torch.Generator(), "offline").shape
        torch.Size([2, 16, 5])
    """

    def __init__(self, spec: FamilySpec, n_tasks: int, device: str | torch.device = "cpu"):
        super().__init__(spec, n_tasks, device)
        self._lookups: dict[str, Lookup] = {}

    @property
    def version(self) -> int:
        """Number that changes whenever a sampled tensor moves.

        Reading it also updates these tensors with appended transitions. Read it before each replay of a CUDA graph that
        samples, and capture the graph anew if it has changed.
        """
        for source in self._lookups:
            self._lookup(source)
        return self._moves

    def _lookup(self, source: str) -> Lookup:
        lookup = self._lookups.get(source)
        if new := lookup is None:
            check_source(source)
            lookup = self._lookups[source] = Lookup(self.n_tasks, self.device)
        moved = lookup.update(self.segments, MEMBERS[source], self._segment_room)
        self._moves += moved and not new
        return lookup

    @property
    def offline_context(self) -> Source:
        """Source of static context: exploration if the buffer has any, else offline transitions."""
        return "exploration" if self.has_exploration else "offline"

    @property
    def mixed_context(self) -> Source:
        """Source of context from static and self-collected data together.

        If the buffer has exploration, it is joined by self-collected episodes with z from the prior, as in the authors'
        cheetah script. Otherwise the source is all data of actor and critics, as in the authors' default.
        """
        return "any exploration" if self.has_exploration else "mixture"

    # -- tasks -------------------------------------------------------------------------------------------
    @property
    def tasks_each(self) -> int:
        """Number of tasks per seed."""
        return self.n_tasks // (self.seeds or 1)

    def all_tasks(self, generator: Generators) -> Tensor:
        """Return all tasks, `(task,)`, or `(seed, task)` with one generator per seed."""
        each = torch.arange(self.tasks_each, device=self.device)
        return each.expand(*axis_of(generator), -1) + self._first_task

    def draw_tasks(self, size: int, generator: Generators) -> Tensor:
        """Draw `size` different tasks, or all if there are fewer; shapes as in `all_tasks`."""
        order = draw(torch.rand, (*axis_of(generator), self.tasks_each), generator).argsort(-1)
        return order[..., :size] + self._first_task

    def draw_tasks_with(self, source: Source, size: int, generator: Generators) -> Tensor:
        """Draw `size` tasks with transitions of `source`, with replacement; shapes as in `all_tasks`.

        The call does not wait for the device.
        """
        has = (self.counts_of(source) > 0).reshape(*([self.seeds] if self.seeds else []), self.tasks_each)
        place = has.cumsum(-1).to(torch.float32)  # tasks with transitions, up to this one
        place = place.expand(*axis_of(generator), -1)
        chosen = (draw(torch.rand, (*axis_of(generator), size), generator) * place[..., -1:]).floor()
        found = torch.searchsorted(place.contiguous(), chosen, right=True)
        return found.clamp(max=self.tasks_each - 1) + self._first_task

    @property
    def _first_task(self) -> Tensor | int:
        """Each seed's first task, `(seed, 1)`; 0 if the buffer is not joined."""
        if not self.seeds:
            return 0
        return torch.arange(0, self.n_tasks, self.tasks_each, device=self.device).unsqueeze(1)

    # -- sampling ----------------------------------------------------------------------------------------
    def counts_of(self, source: Source) -> Tensor:
        """Count the transitions of `source` per task, `(task,)`, on the device."""
        return self._lookup(source).counts

    def sample(self, tasks: Tensor, batch: int, generator: Generators, source: Source = "mixture") -> Transitions:
        """Draw `batch` transitions per task, uniformly with replacement; see `sample_context`."""
        return self._transitions(self._draw(tasks, batch, generator, source))

    def sample_context(
        self,
        tasks: Tensor,
        n: int,
        generator: Generators,
        source: Source = "mixture",
        consecutive: bool = False,
        last: int | None = None,
    ) -> Tensor:
        """Sample context of each task, `(task, n, context_dim)`, or `(seed, task, n, context_dim)`.

        The call waits for a CUDA device only if some task of the buffer has no transitions of `source`: then the
        sampled tasks are checked, except while a CUDA graph is captured.

        Args:
            tasks: indices among all `n_tasks`, `(task,)` or `(seed, task)`.
            n: transitions per task.
            generator: one, or a list with one per seed.
            source: which transitions may be drawn.
            consecutive: draw `n` successive transitions from the start of an episode, as at meta-test, not independent
                ones. Every `horizon` transitions count as an episode; a step left out because physics broke down shifts
                later starts by one.
            last: draw only from so many newest transitions. Default: all. With `consecutive`, at least `horizon`, and
                whole episodes are left out.

        Raises:
            ValueError: `source` is unknown, a task has no transitions of it, or `last` is too small.
        """
        least = self.spec.horizon if consecutive else 1
        if last is not None and last < least:
            raise ValueError(f"last={last} is not allowed: it must be at least {least} here")
        return self._context(self._draw(tasks, n, generator, source, consecutive, last))

    def _draw(
        self,
        tasks: Tensor,
        n: int,
        generator: Generators,
        source: Source,
        consecutive: bool = False,
        last: int | None = None,
    ) -> Tensor:
        if n < 0:
            raise ValueError(f"{n} transitions cannot be drawn: at least 0")
        tasks, lookup = tasks.to(self.device), self._lookup(source)
        size = lookup.counts[tasks].unsqueeze(-1)
        if not lookup.complete and not _capturing(self.device) and bool((size == 0).any()):
            empty = tasks[(size == 0).squeeze(-1)].unique().tolist()
            who = f"tasks {empty} have no" if lookup.counts.any() else "the buffer has no"
            raise ValueError(f"{who} {source} transitions to sample from")
        old = self._too_old(size, last, consecutive)
        size = size - old
        if consecutive:
            horizon = self.spec.horizon
            starts = ((size - n).clamp(min=0) // horizon + 1).to(torch.float32)
            first = (draw(torch.rand, (*tasks.shape, 1), generator) * starts).long() * horizon
            offset = (first + torch.arange(n, device=self.device)) % size
        else:
            offset = (draw(torch.rand, (*tasks.shape, n), generator) * size).long()
        return lookup.rows(tasks, old + offset.minimum(size - 1))

    def _too_old(self, size: Tensor, last: int | None, consecutive: bool) -> Tensor | int:
        if last is None:
            return 0
        old = (size - last).clamp(min=0)
        horizon = self.spec.horizon
        return (old + horizon - 1) // horizon * horizon if consecutive else old

    def _transitions(self, rows: Tensor) -> Transitions:
        c, (values, following) = self._columns, self._gather(rows)
        return Transitions(
            values[..., c["observations"]],
            values[..., c["actions"]],
            values[..., c["rewards"]].squeeze(-1),
            following,
            values[..., c["terminations"]].squeeze(-1),
        )

    def _context(self, rows: Tensor) -> Tensor:
        t = self._transitions(rows)
        return make_context(
            t.observations, t.actions, t.rewards, t.next_observations if self.spec.includes_next else None
        )

    def _gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows, and the observations of the rows after them."""
        width, more = self._rows.shape[1], self.spec.obs_dim
        pairs = self._rows.as_strided((len(self._rows) - 1, width + more), (width, 1))
        values = pairs.index_select(0, rows.flatten()).to(torch.get_default_dtype())  # faster than pairs[rows]
        values = values.unflatten(0, rows.shape)
        return values[..., :width], values[..., width:]


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
