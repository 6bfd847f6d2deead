"""Transitions of many tasks, sampled a meta-batch at a time."""

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

    Tasks given with a leading seed axis lead to results with one.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminations: Tensor


class TransitionBuffer(TransitionStore):
    """Per-task transitions on one device, sampled for a meta-batch of tasks at once.

    What sampling reads keeps its address on the device while transitions are appended, up to the `version`.

    Args:
        spec: sizes of the family.
        n_tasks: number of tasks.
        device: where the transitions live.

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
        """A number that is another one whenever a tensor that sampling reads has moved to another address.

        Asking for it brings the tensors up to date with what was appended. So a captured CUDA graph that samples
        may be replayed after appends, once this is asked, and must be captured anew where it has changed.
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
        """What the encoder reads of static data: exploration where there is any, else the offline transitions."""
        return "exploration" if self.has_exploration else "offline"

    @property
    def mixed_context(self) -> Source:
        """What it reads of static and self-collected data together.

        Where there is exploration, prior-z episodes join it and no others do, as in the authors' cheetah script;
        elsewhere, everything that actor and critics learn from, as in their default.
        """
        return "any exploration" if self.has_exploration else "mixture"

    # -- tasks -------------------------------------------------------------------------------------------
    @property
    def tasks_each(self) -> int:
        """Number of tasks of a seed."""
        return self.n_tasks // (self.seeds or 1)

    def all_tasks(self, generator: Generators) -> Tensor:
        """Every task, `(task,)`; with a generator for each of several seeds `(seed, task)`. Nothing is drawn."""
        each = torch.arange(self.tasks_each, device=self.device)
        return each.expand(*axis_of(generator), -1) + self._first_task

    def draw_tasks(self, size: int, generator: Generators) -> Tensor:
        """`size` different tasks (all of them where there are fewer); shapes as `all_tasks`."""
        order = draw(torch.rand, (*axis_of(generator), self.tasks_each), generator).argsort(-1)
        return order[..., :size] + self._first_task

    def draw_tasks_with(self, source: Source, size: int, generator: Generators) -> Tensor:
        """`size` tasks, with replacement, among those that have transitions of this source; shapes as `all_tasks`.

        Without a look at the numbers, so that the device is not waited for.
        """
        has = (self.counts_of(source) > 0).reshape(*([self.seeds] if self.seeds else []), self.tasks_each)
        place = has.cumsum(-1).to(torch.float32)  # how many tasks up to this one have some
        place = place.expand(*axis_of(generator), -1)
        chosen = (draw(torch.rand, (*axis_of(generator), size), generator) * place[..., -1:]).floor()
        found = torch.searchsorted(place.contiguous(), chosen, right=True)
        return found.clamp(max=self.tasks_each - 1) + self._first_task

    @property
    def _first_task(self) -> Tensor | int:
        """Index of each seed's first task, `(seed, 1)`; 0 where seeds share the buffer."""
        if not self.seeds:
            return 0
        return torch.arange(0, self.n_tasks, self.tasks_each, device=self.device).unsqueeze(1)

    # -- sampling ----------------------------------------------------------------------------------------
    def counts_of(self, source: Source) -> Tensor:
        """Number of transitions of this source, of each task, `(task,)`; kept on the device and up to date there."""
        return self._lookup(source).counts

    def sample(self, tasks: Tensor, batch: int, generator: Generators, source: Source = "mixture") -> Transitions:
        """`batch` transitions of each task, uniformly with replacement; arguments as in `sample_context`."""
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
        """Context of each task, `(task, n, context_dim)`, or `(seed, task, n, context_dim)`.

        Nothing here waits for a CUDA device, except where some task of the buffer has no transition of the source:
        then it must be seen whether such a one is asked for (not while a CUDA graph is captured, which cannot wait).

        Args:
            tasks: indices, `(task,)` or `(seed, task)`, among all `n_tasks` of this buffer.
            n: transitions a task.
            generator: one, or a list of one for each seed.
            source: which transitions may be drawn.
            consecutive: a run of successive transitions that starts with an episode, as meta-test sees them,
                instead of `n` independent draws. Every `horizon` transitions start one (a simulation that broke
                down, whose bad step is left out, shifts that by a step).
            last: draw only from the last so many transitions that each task has of this source, in time order; from
                all where it has fewer. Default: from all. With `consecutive` at least `horizon`, and what is cut off
                there ends with an episode.

        Raises:
            ValueError: an unknown source, or one of which a task has no transitions; or `last` is too small.
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
        """How many transitions come before the `last` ones; whole episodes where runs are to start with one."""
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
        """Rows, and the observations of the rows after them, which lie right behind in memory."""
        width, more = self._rows.shape[1], self.spec.obs_dim
        pairs = self._rows.as_strided((len(self._rows) - 1, width + more), (width, 1))
        values = pairs.index_select(0, rows.flatten()).to(torch.get_default_dtype())  # faster than pairs[rows]
        values = values.unflatten(0, rows.shape)
        return values[..., :width], values[..., width:]


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
