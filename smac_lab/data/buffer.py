"""Transitions of many tasks, offline and self-collected told apart, sampled a meta-batch at a time."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.encoder import make_context
from smac_lab.tasks.family import FamilySpec

# Where transitions come from. "explored" ones are self-collected with z from the prior, as at meta-test.
Source = Literal["offline", "self-collected", "explored", "all"]
CODES = {"offline": 0, "explored": 1, "self-collected": 2}
MEMBERS: dict[str, tuple[int, ...]] = {
    "offline": (0,),
    "explored": (1,),
    "self-collected": (1, 2),
    "all": (0, 1, 2),
}
COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations", "features")


class Transitions(NamedTuple):
    """Transitions of a meta-batch: `(task, batch, dim)`, and `(task, batch)` for the scalars."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminations: Tensor


class TransitionBuffer:
    """Per-task transitions on one device.

    Rows of all tasks lie one after another in the order in which they came, and are never rewritten; for each
    source, a table leads from (task, k) to the row of that task's k-th transition.

    Args:
        spec: sizes of the family.
        n_tasks: number of tasks.
        device: where the transitions live.
    """

    def __init__(self, spec: FamilySpec, n_tasks: int, device: str | torch.device = "cpu"):
        self.spec = spec
        self.n_tasks = n_tasks
        self.device = torch.device(device)
        self.includes_next = spec.context_dim > spec.obs_dim + spec.action_dim + 1
        widths = (spec.obs_dim, spec.action_dim, 1, spec.obs_dim, 1, 1, spec.feature_dim)
        ends = np.cumsum(widths).tolist()
        self._columns = {n: slice(e - w, e) for n, e, w in zip(COLUMNS, ends, widths, strict=True)}
        self._rows = torch.empty(0, ends[-1], device=self.device, dtype=torch.float32)
        self._used = 0
        self._task = torch.empty(0, dtype=torch.int64, device=self.device)
        self._codes = torch.empty(0, dtype=torch.int8, device=self.device)
        self._tables = {source: _Table(n_tasks, self.device) for source in MEMBERS}

    @property
    def counts(self) -> Tensor:
        """Number of transitions of each task, `(task,)`."""
        return self._tables["all"].counts

    @property
    def offline_counts(self) -> Tensor:
        """Number of offline transitions of each task, `(task,)`."""
        return self._tables["offline"].counts

    # -- writing -----------------------------------------------------------------------------------------
    def append(self, task: int, columns: dict[str, Any], source: Source) -> None:
        """Add transitions of one task, in the order in which they happened.

        Args:
            task: index of the task.
            columns: an array for each of `COLUMNS`, `(n, dim)` or `(n,)`.
            source: "offline", "explored" (self-collected with z from the prior) or "self-collected".

        Raises:
            ValueError: unknown task or source, missing column, wrong shape, or a number that is not finite.
                Nothing is stored then.
        """
        if not 0 <= task < self.n_tasks:
            raise ValueError(f"task {task} is not among the buffer's {self.n_tasks} tasks")
        if missing := [name for name in COLUMNS if name not in columns]:
            raise ValueError(f"transitions lack {missing}; needed are {list(COLUMNS)}")
        if source not in CODES:
            raise ValueError(f"source must be one of {', '.join(map(repr, CODES))}, got {source!r}")

        n = len(columns["rewards"])
        rows = np.empty((n, self._rows.shape[1]), np.float32)
        for name, where in self._columns.items():
            value, shape = np.asarray(columns[name]), (n, where.stop - where.start)
            if value.shape != shape and (value.shape != (n,) or shape[1] > 1):
                raise ValueError(f"{name} of {n} transitions needs shape {shape}, got {value.shape}")
            with np.errstate(over="ignore"):  # what single precision cannot hold is found just below
                rows[:, where] = value.reshape(shape)
        if not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            name = next(name for name, where in self._columns.items() if where.start <= column < where.stop)
            raise ValueError(
                f"{name} of task {task} holds numbers that are not finite (first at transition {row}: "
                f"{rows[row, self._columns[name]].tolist()}); only finite transitions can be stored"
            )
        code = torch.full((n,), CODES[source], dtype=torch.int8, device=self.device)
        self._append_rows(torch.from_numpy(rows).to(self.device), torch.full_like(code, task, dtype=torch.int64), code)

    def _append_rows(self, rows: Tensor, task: Tensor, codes: Tensor) -> None:
        start, end = self._used, self._used + len(rows)
        if end > len(self._rows):
            capacity = max(end, int(1.5 * len(self._rows)))
            self._rows = _grown(self._rows, capacity)
            self._task = _grown(self._task, capacity)
            self._codes = _grown(self._codes, capacity)
        self._rows[start:end], self._task[start:end], self._codes[start:end] = rows, task, codes
        self._used = end
        places = torch.arange(start, end, device=self.device)
        for source, members in MEMBERS.items():
            belongs = torch.isin(codes, torch.tensor(members, dtype=codes.dtype, device=self.device))
            self._tables[source].append(task[belongs], places[belongs])

    # -- reading -----------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self._used

    def __getattr__(self, name: str) -> Tensor:
        """A whole column by its name, `(transition, dim)` or `(transition,)`, in the order of storage."""
        columns = self.__dict__.get("_columns", {})
        if name not in columns:
            raise AttributeError(name)
        column = self._rows[: self._used, columns[name]]
        return column.squeeze(1) if name in ("rewards", "terminations", "truncations") else column

    @property
    def rows(self) -> Tensor:
        """All columns of all stored transitions side by side, `(transition, width)`."""
        return self._rows[: self._used]

    @property
    def task(self) -> Tensor:
        """Task of each stored transition, `(transition,)`."""
        return self._task[: self._used]

    @property
    def codes(self) -> Tensor:
        """Source of each stored transition as one of `CODES`, `(transition,)`."""
        return self._codes[: self._used]

    @property
    def source(self) -> Tensor:
        """0 for offline, 1 for self-collected transitions, `(transition,)`."""
        return (self.codes > 0).to(torch.int8)

    def rows_of(self, task: int, source: Source = "all") -> Tensor:
        """Storage rows of one task's transitions, in time order."""
        table = self._tables[source]
        return table.index[task, : int(table.counts[task])]

    def tasks_with(self, source: Source) -> Tensor:
        """Tasks that have transitions of this source, `(k,)`."""
        return torch.nonzero(self._tables[source].counts).squeeze(1)

    def sample(self, tasks: Tensor, batch: int, generator: torch.Generator, source: Source = "all") -> Transitions:
        """`batch` transitions of each task, uniformly with replacement."""
        return self._transitions(self._draw(tasks, batch, generator, source))

    def sample_context(
        self, tasks: Tensor, n: int, generator: torch.Generator, source: Source = "all", consecutive: bool = False
    ) -> Tensor:
        """Context of each task, `(task, n, context_dim)`.

        Args:
            tasks: indices, `(task,)`.
            n: transitions a task.
            source: which transitions may be drawn.
            consecutive: a run of successive transitions that starts with an episode, as meta-test sees them,
                instead of `n` independent draws. Every `horizon` transitions start one (a simulation that broke
                down, whose bad step is left out, shifts that by a step).
        """
        return self._context(self._draw(tasks, n, generator, source, consecutive))

    def _draw(
        self, tasks: Tensor, n: int, generator: torch.Generator, source: Source, consecutive: bool = False
    ) -> Tensor:
        tasks, table = tasks.to(self.device), self._tables[source]
        size = table.counts[tasks].unsqueeze(1)
        if bool((size == 0).any()):
            empty = tasks[(size == 0).squeeze(1)].tolist()
            raise ValueError(f"tasks {empty} have no {source} transitions to sample from")
        if consecutive:
            horizon = self.spec.horizon
            starts = ((size - n).clamp(min=0) // horizon + 1).to(torch.float32)
            first = (torch.rand(len(tasks), 1, generator=generator, device=self.device) * starts).long() * horizon
            offset = (first + torch.arange(n, device=self.device)) % size
        else:
            offset = (torch.rand(len(tasks), n, generator=generator, device=self.device) * size).long()
        return table.index[tasks.unsqueeze(1), offset.minimum(size - 1)]

    def _transitions(self, rows: Tensor) -> Transitions:
        values = self._rows[rows].to(torch.get_default_dtype())
        c = self._columns
        return Transitions(
            values[..., c["observations"]],
            values[..., c["actions"]],
            values[..., c["rewards"]].squeeze(-1),
            values[..., c["next_observations"]],
            values[..., c["terminations"]].squeeze(-1),
        )

    def _context(self, rows: Tensor) -> Tensor:
        t = self._transitions(rows)
        return make_context(t.observations, t.actions, t.rewards, t.next_observations if self.includes_next else None)

    def clone(self) -> TransitionBuffer:
        """An independent copy, so that each arm appends to its own."""
        return self.from_rows(self.spec, self.n_tasks, self.rows.clone(), self.task.clone(), self.codes.clone())

    @classmethod
    def from_rows(cls, spec: FamilySpec, n_tasks: int, rows: Tensor, task: Tensor, codes: Tensor) -> TransitionBuffer:
        """A buffer from stored rows, their tasks and source codes, in their order."""
        buffer = cls(spec, n_tasks, rows.device)
        if len(rows):
            buffer._append_rows(rows, task, codes)
        return buffer

    def __repr__(self) -> str:
        offline = int(self.offline_counts.sum())
        return (
            f"TransitionBuffer({self.spec.name!r}, {self.n_tasks} tasks, {offline} offline + "
            f"{self._used - offline} self-collected transitions)"
        )


class _Table:
    """Rows of each task, `(task, k)`, growing as they come."""

    def __init__(self, n_tasks: int, device: torch.device):
        self.index = torch.zeros(n_tasks, 0, dtype=torch.int64, device=device)
        self.counts = torch.zeros(n_tasks, dtype=torch.int64, device=device)

    def append(self, task: Tensor, rows: Tensor) -> None:
        """Add `rows`, each to its task; both `(n,)`."""
        if not len(rows):
            return
        task, order = torch.sort(task, stable=True)
        new = torch.bincount(task, minlength=len(self.counts))
        first = new.cumsum(0) - new  # where each task's run begins among the sorted rows
        place = self.counts[task] + torch.arange(len(rows), device=task.device) - first[task]
        self.counts = self.counts + new
        if (width := int(self.counts.max())) > self.index.shape[1]:
            self.index = _grown(self.index.T, max(width, int(1.5 * self.index.shape[1]))).T.contiguous()
        self.index[task, place] = rows[order]


def _grown(values: Tensor, capacity: int) -> Tensor:
    grown = torch.zeros(capacity, *values.shape[1:], dtype=values.dtype, device=values.device)
    grown[: len(values)] = values
    return grown
