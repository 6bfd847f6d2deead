"""Transitions of many tasks, offline and self-collected told apart, sampled a meta-batch at a time."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_lab.encoder import make_context
from smac_lab.tasks.family import FamilySpec

Source = Literal["offline", "self-collected", "all"]
OFFLINE, SELF_COLLECTED = 0, 1
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

    Rows of all tasks lie one after another in the order in which they came, and are never rewritten; a table
    leads from (task, k) to the row of that task's k-th transition. A task's offline transitions come before
    its self-collected ones.

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
        self._source = torch.empty(0, dtype=torch.int8, device=self.device)
        self._index = torch.zeros(n_tasks, 0, dtype=torch.int64, device=self.device)
        self.counts = torch.zeros(n_tasks, dtype=torch.int64, device=self.device)  # transitions of each task
        self.offline_counts = torch.zeros(n_tasks, dtype=torch.int64, device=self.device)

    # -- writing -----------------------------------------------------------------------------------------
    def append(self, task: int, columns: dict[str, Any], source: Literal["offline", "self-collected"]) -> None:
        """Add transitions of one task, in the order in which they happened.

        Args:
            task: index of the task.
            columns: an array for each of `COLUMNS`, `(n, dim)` or `(n,)`.
            source: where they come from. Offline ones must all come before the task's self-collected ones.

        Raises:
            ValueError: unknown task, missing column, wrong shape, number that is not finite, or offline
                transitions after self-collected ones. Nothing is stored then.
        """
        if not 0 <= task < self.n_tasks:
            raise ValueError(f"task {task} is not among the buffer's {self.n_tasks} tasks")
        if missing := [name for name in COLUMNS if name not in columns]:
            raise ValueError(f"transitions lack {missing}; needed are {list(COLUMNS)}")
        if source not in ("offline", "self-collected"):
            raise ValueError(f"source must be 'offline' or 'self-collected', got {source!r}")
        code = OFFLINE if source == "offline" else SELF_COLLECTED
        if code == OFFLINE and self.counts[task] > self.offline_counts[task]:
            raise ValueError(f"task {task} already has self-collected transitions; offline data must come first")

        n = len(columns["rewards"])
        rows = torch.empty(n, self._rows.shape[1], device=self.device)
        for name, where in self._columns.items():
            value = torch.as_tensor(np.asarray(columns[name]), dtype=torch.float32).reshape(n, -1)
            if value.shape[1] != where.stop - where.start:
                raise ValueError(f"{name} needs {where.stop - where.start} numbers a transition, got {value.shape[1]}")
            if not torch.isfinite(value).all():
                row = int((~torch.isfinite(value)).any(1).nonzero()[0])
                raise ValueError(
                    f"{name} of task {task} holds numbers that are not finite (first at transition {row}: "
                    f"{value[row].tolist()}); only finite transitions can be stored"
                )
            rows[:, where] = value.to(self.device)
        self._append_rows(rows, torch.full((n,), task, dtype=torch.int64), torch.full((n,), code, dtype=torch.int8))

    def _append_rows(self, rows: Tensor, task: Tensor, source: Tensor) -> None:
        start, end = self._used, self._used + len(rows)
        if end > len(self._rows):
            capacity = max(end, int(1.5 * len(self._rows)))
            self._rows = _grown(self._rows, capacity)
            self._task = _grown(self._task, capacity)
            self._source = _grown(self._source, capacity)
        self._rows[start:end], self._task[start:end], self._source[start:end] = rows, task, source
        self._used = end
        for i in task.unique().tolist():
            new = torch.nonzero(task == i).squeeze(1).to(self.device) + start
            count = int(self.counts[i])
            if count + len(new) > self._index.shape[1]:
                width = max(count + len(new), int(1.5 * self._index.shape[1]))
                index = torch.zeros(self.n_tasks, width, dtype=torch.int64, device=self.device)
                index[:, : self._index.shape[1]] = self._index
                self._index = index
            self._index[i, count : count + len(new)] = new
            self.counts[i] += len(new)
            self.offline_counts[i] += int((source[task == i] == OFFLINE).sum())

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
    def source(self) -> Tensor:
        """0 for offline, 1 for self-collected transitions, `(transition,)`."""
        return self._source[: self._used]

    def rows_of(self, task: int, source: Source = "all") -> Tensor:
        """Storage rows of one task's transitions, in time order."""
        low = int(self.offline_counts[task]) if source == "self-collected" else 0
        high = int(self.offline_counts[task] if source == "offline" else self.counts[task])
        return self._index[task, low:high]

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
                instead of `n` independent draws.
        """
        return self._context(self._draw(tasks, n, generator, source, consecutive))

    def _draw(self, tasks: Tensor, n: int, generator: torch.Generator, source: Source, consecutive: bool = False) -> Tensor:
        tasks = tasks.to(self.device)
        low = self.offline_counts[tasks] if source == "self-collected" else torch.zeros_like(tasks)
        high = self.offline_counts[tasks] if source == "offline" else self.counts[tasks]
        size = (high - low).unsqueeze(1)
        if bool((size <= 0).any()):
            empty = tasks[(size <= 0).squeeze(1)].tolist()
            raise ValueError(f"tasks {empty} have no {source} transitions to sample from")
        if consecutive:
            horizon = self.spec.horizon
            starts = ((size - n).clamp(min=0) // horizon + 1).to(torch.float32)
            first = (torch.rand(len(tasks), 1, generator=generator, device=self.device) * starts).long() * horizon
            offset = (first + torch.arange(n, device=self.device)) % size
        else:
            offset = (torch.rand(len(tasks), n, generator=generator, device=self.device) * size).long()
        return self._index[tasks.unsqueeze(1), low.unsqueeze(1) + offset.clamp(max=size - 1)]

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
        return self.from_rows(
            self.spec, self.n_tasks, self._rows[: self._used].clone(), self.task.clone(), self.source.clone()
        )

    @classmethod
    def from_rows(
        cls, spec: FamilySpec, n_tasks: int, rows: Tensor, task: Tensor, source: Tensor
    ) -> TransitionBuffer:
        """A buffer from stored rows, their tasks and sources, in their order."""
        buffer = cls(spec, n_tasks, rows.device)
        if len(rows):
            buffer._append_rows(rows, task, source)
        return buffer

    def __repr__(self) -> str:
        offline = int(self.offline_counts.sum())
        return (
            f"TransitionBuffer({self.spec.name!r}, {self.n_tasks} tasks, {offline} offline + "
            f"{self._used - offline} self-collected transitions)"
        )


def _grown(values: Tensor, capacity: int) -> Tensor:
    grown = torch.empty(capacity, *values.shape[1:], dtype=values.dtype, device=values.device)
    grown[: len(values)] = values
    return grown
