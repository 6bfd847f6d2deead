"""Transitions of many tasks as rows of one tensor, each with its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smac_lab.data.chains import COLUMNS, SCALARS, chain_ends, check_finite, select, widths_of, write_chains
from smac_lab.data.lookup import CODE, LENGTH, TASK, Segments, task_counts
from smac_lab.tasks.spec import FamilySpec

# Sources of a transition. Static and truly rewarded: "offline", for actor and critics, and "exploration", with z from
# the prior (or a stand-in), which the encoder reads in its place. Self-supervised phase: "explored", with z from the
# prior, and "self-collected".
CODES = {"offline": 0, "explored": 1, "self-collected": 2, "exploration": 3}
# Sources that can be sampled; actor and critics learn from "mixture" online.
Source = Literal["offline", "exploration", "explored", "any exploration", "self-collected", "mixture", "all"]
MEMBERS: dict[str, tuple[int, ...]] = {
    "offline": (0,),
    "exploration": (3,),
    "explored": (1,),
    "any exploration": (1, 3),
    "self-collected": (1, 2),
    "mixture": (0, 1, 2),
    "all": (0, 1, 2, 3),
}
GROWTH = 1.15  # by which full storage grows


def check_source(source: str) -> None:
    """Raise ValueError unless `source` is one of `MEMBERS`."""
    if source not in MEMBERS:
        raise ValueError(f"source={source!r} is not allowed: it must be one of {', '.join(map(repr, MEMBERS))}")


class TransitionStore:
    """Per-task transitions on one device.

    Rows are stored in the order of arrival, and never rewritten. Within a segment (mostly an episode), the next
    observation of a transition is the observation of the row after. A segment's last next observation is in a holder
    row, which is not a transition. Task and source are stored per segment: a transition of the cheetah takes 120 bytes,
    and an episode some more.

    Full storage grows by copying; `reserve` avoids that if the number of transitions to come is known.

    Args:
        spec: of the family.
        n_tasks: number of tasks.
        device: of the transitions.

    Attributes:
        seeds: number of buffers joined here, or None; `n_tasks` counts the tasks of all.
    """

    def __init__(self, spec: FamilySpec, n_tasks: int, device: str | torch.device = "cpu"):
        self.spec = spec
        self.n_tasks = n_tasks
        self.device = torch.device(device)
        self.seeds: int | None = None
        self._widths = widths_of(spec)
        stored = {name: width for name, width in self._widths.items() if name != "next_observations"}
        ends = np.cumsum(list(stored.values())).tolist()
        self._columns = {name: slice(end - stored[name], end) for name, end in zip(stored, ends, strict=True)}
        self._rows = torch.empty(0, ends[-1], device=self.device, dtype=torch.float32)
        self._used = 0
        self._pieces: list[Segments] = [np.empty((0, 3), np.int64)]
        self._segment_room = 0
        self._moves = 0  # times that a sampled tensor has moved to another address

    @property
    def counts(self) -> Tensor:
        """Number of transitions per task, `(task,)`."""
        return self._counts("all")

    @property
    def offline_counts(self) -> Tensor:
        """Number of offline transitions per task, `(task,)`."""
        return self._counts("offline")

    @property
    def has_exploration(self) -> bool:
        """Whether the buffer has exploration, which the encoder then reads."""
        return bool((self.segments[:, CODE] == CODES["exploration"]).any())

    def _counts(self, source: Source) -> Tensor:
        return torch.from_numpy(task_counts(self.segments, self.n_tasks, MEMBERS[source])).to(self.device)

    # -- writing -----------------------------------------------------------------------------------------
    def append(self, task: int, columns: dict[str, Any], source: Source) -> None:
        """Add transitions of one task, in time order.

        Args:
            task: index of the task.
            columns: array by name in `COLUMNS`, `(n, dim)` or `(n,)`.
            source: one of `CODES`.

        Raises:
            ValueError: unknown task or source, missing column, wrong shape, or non-finite number. Nothing is stored
                then.
        """
        n = len(columns.get("rewards", ()))
        self._append([task], columns, [source], np.ones(n, bool), np.array([n]))

    def append_batch(
        self, tasks: Sequence[int], columns: dict[str, Any], sources: Sequence[Source], valid: NDArray[np.bool_]
    ) -> None:
        """Add transitions of many simulations, like one `append` per simulation.

        Args:
            tasks: `(simulation,)`.
            columns: array by name in `COLUMNS`, `(simulation, time, dim)` or `(simulation, time)`.
            sources: `(simulation,)`.
            valid: steps to store, `(simulation, time)`.

        Raises:
            ValueError: as `append`, or tasks, sources and valid differ in length. Nothing is stored then.
        """
        if valid.ndim != 2 or not len(tasks) == len(sources) == len(valid):
            raise ValueError(
                f"{len(tasks)} tasks and {len(sources)} sources do not fit valid of shape {valid.shape}, "
                "which must be (simulation, time)"
            )
        self._append(tasks, columns, sources, valid, valid.sum(1))

    def _append(
        self,
        tasks: Sequence[int],
        columns: dict[str, Any],
        sources: Sequence[Source],
        keep: NDArray[np.bool_],
        counts: NDArray[np.int64],
    ) -> None:
        for task in tasks:
            self._check_task(task)
        if keep.dtype != np.bool_:
            raise ValueError(f"valid must hold booleans, got {keep.dtype}")
        if missing := [name for name in COLUMNS if name not in columns]:
            raise ValueError(f"transitions lack {missing}; needed are {list(COLUMNS)}")
        for source in sources:
            if source not in CODES:
                raise ValueError(f"source must be one of {', '.join(map(repr, CODES))}, got {source!r}")
        values = select(columns, self._widths, keep)
        check_finite(values, tasks, counts)
        ends = chain_ends(values, counts)
        last = np.flatnonzero(ends)
        start, end = self._used, self._used + len(ends) + len(last)
        if end > len(self._rows):
            self._move(max(end, int(GROWTH * len(self._rows)), 1024))
        target = self._rows[start:end]
        rows = target if target.device.type == "cpu" else torch.empty(target.shape)
        write_chains(rows.numpy(), self._columns, values, ends)
        if rows is not target:
            target.copy_(rows)
        self._used = end
        simulation = np.repeat(np.arange(len(counts)), counts)[last]
        codes = np.array([CODES[source] for source in sources], np.int64)
        self._pieces.append(
            np.stack([np.asarray(tasks, np.int64)[simulation], np.diff(last, prepend=-1), codes[simulation]], axis=1)
        )

    def _check_task(self, task: Any) -> None:
        if not isinstance(task, (int, np.integer)) or not 0 <= task < self.n_tasks:
            raise ValueError(f"task {task!r} is not among the buffer's {self.n_tasks} tasks")

    def reserve(self, transitions: int) -> None:
        """Make room for further transitions per seed, in episodes of `horizon` steps.

        Appending these transitions moves no tensor.

        Raises:
            ValueError: the number is negative.
        """
        if transitions < 0:
            raise ValueError(f"transitions={transitions} is not allowed: at least 0")
        transitions *= self.seeds or 1
        episodes = -(-transitions // self.spec.horizon)
        self._segment_room = len(self.segments) + episodes
        if (capacity := self._used + transitions + episodes) > len(self._rows):
            self._move(capacity)

    @torch.inference_mode(False)
    def _move(self, capacity: int) -> None:
        rows = torch.empty(capacity, self._rows.shape[1], device=self.device)
        rows[: self._used] = self.rows
        self._rows = rows
        self._moves += 1

    # -- reading -----------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self._used - len(self.segments)

    def column(self, name: str) -> Tensor:
        """Return one of `COLUMNS`, `(transition, dim)` or `(transition,)`, in the order of storage."""
        holders = torch.from_numpy(np.cumsum(self.segments[:, LENGTH] + 1) - 1).to(self.device)
        stored = torch.ones(self._used, dtype=torch.bool, device=self.device)
        stored[holders] = False
        if name == "next_observations":
            return self.rows[1:, self._columns["observations"]][stored[:-1]]
        column = self.rows[:, self._columns[name]][stored]
        return column.squeeze(1) if name in SCALARS else column

    @property
    def observations(self) -> Tensor:
        """Observation before each transition, `(transition, obs_dim)`."""
        return self.column("observations")

    @property
    def actions(self) -> Tensor:
        """Action of each transition, `(transition, action_dim)`."""
        return self.column("actions")

    @property
    def rewards(self) -> Tensor:
        """Reward of each transition, `(transition,)`."""
        return self.column("rewards")

    @property
    def next_observations(self) -> Tensor:
        """Observation after each transition, `(transition, obs_dim)`."""
        return self.column("next_observations")

    @property
    def terminations(self) -> Tensor:
        """1 where a transition terminates its episode, `(transition,)`."""
        return self.column("terminations")

    @property
    def truncations(self) -> Tensor:
        """1 where a transition is the last before a time limit, `(transition,)`."""
        return self.column("truncations")

    @property
    def features(self) -> Tensor:
        """Features of each transition, `(transition, feature_dim)`; see `TaskFamily.measure`."""
        return self.column("features")

    @property
    def rows(self) -> Tensor:
        """All rows, `(row, width)`: transitions without next observations, and holder rows."""
        return self._rows[: self._used]

    @property
    def segments(self) -> Segments:
        """Task, length and source code of each segment, `(segment, 3)`."""
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return self._pieces[0]

    @property
    def task(self) -> Tensor:
        """Task of each transition, `(transition,)`."""
        return torch.from_numpy(np.repeat(self.segments[:, TASK], self.segments[:, LENGTH])).to(self.device)

    @property
    def codes(self) -> Tensor:
        """Source of each transition, as in `CODES`, `(transition,)`."""
        codes = self.segments[:, CODE].astype(np.int8)
        return torch.from_numpy(np.repeat(codes, self.segments[:, LENGTH])).to(self.device)

    @property
    def source(self) -> Tensor:
        """0 for static and 1 for self-collected transitions, `(transition,)`."""
        codes = self.codes
        return ((codes == CODES["explored"]) | (codes == CODES["self-collected"])).to(torch.int8)

    def rows_of(self, task: int, source: Source = "all") -> Tensor:
        """Return indices of one task's transitions, in time order, `(k,)`.

        Raises:
            ValueError: the task or source is unknown.
        """
        self._check_task(task)
        check_source(source)
        segments = self.segments
        chosen = (segments[:, TASK] == task) & np.isin(segments[:, CODE], MEMBERS[source])
        return torch.from_numpy(np.flatnonzero(np.repeat(chosen, segments[:, LENGTH]))).to(self.device)

    # -- buffers of buffers ------------------------------------------------------------------------------
    def clone(self) -> Self:
        """Return an independent copy."""
        return self.from_rows(self.spec, self.n_tasks, self.rows.clone(), self.segments, self.seeds)

    def to(self, device: str | torch.device) -> Self:
        """Return a copy on `device`, or this buffer if it is there."""
        if self._rows.device == torch.empty(0, device=device).device:
            return self
        return self.from_rows(self.spec, self.n_tasks, self.rows.to(device), self.segments, self.seeds)

    @classmethod
    def from_rows(
        cls, spec: FamilySpec, n_tasks: int, rows: Tensor, segments: Segments, seeds: int | None = None
    ) -> Self:
        """Build a buffer from another's `rows`, `segments` and `seeds`.

        Raises:
            ValueError: rows and segments do not fit.
        """
        if len(rows) != (expected := int((segments[:, LENGTH] + 1).sum())):
            raise ValueError(f"{len(rows)} rows do not fit segments of {expected}, holder rows included")
        buffer = cls(spec, n_tasks, rows.device)
        buffer._rows, buffer._used, buffer._pieces, buffer.seeds = rows.contiguous(), len(rows), [segments], seeds
        return buffer

    @classmethod
    def join(cls, buffers: Sequence[Self]) -> Self:
        """Copy the buffers of several seeds into one, on the first buffer's device.

        Task t of buffer s becomes task s * n_tasks + t, with n_tasks of a single buffer.

        Raises:
            ValueError: there is no buffer, families or numbers of tasks differ, or a buffer is joined already.
        """
        if not buffers:
            raise ValueError("there are no buffers to join")
        spec, n_tasks = buffers[0].spec, buffers[0].n_tasks
        for buffer in buffers:
            if (buffer.spec, buffer.n_tasks, buffer.seeds) != (spec, n_tasks, None):
                raise ValueError(
                    f"only single seeds' buffers of {spec} with {n_tasks} tasks can be joined here, got one of "
                    f"{buffer.spec} with {buffer.n_tasks} tasks and seeds={buffer.seeds}"
                )
        rows = torch.cat([buffer.rows.to(buffers[0].device) for buffer in buffers])
        segments = np.concatenate([buffer.segments + np.array([s * n_tasks, 0, 0]) for s, buffer in enumerate(buffers)])
        return cls.from_rows(spec, n_tasks * len(buffers), rows, segments, len(buffers))

    def split(self) -> list[Self]:
        """Return the buffer of each seed.

        Raises:
            ValueError: this buffer was not joined.
        """
        if self.seeds is None:
            raise ValueError("this buffer is a single seed's; only one made by join can be split")
        n_tasks, segments, parts = self.n_tasks // self.seeds, self.segments, []
        for seed in range(self.seeds):
            own = segments[:, TASK] // n_tasks == seed
            mask = torch.from_numpy(np.repeat(own, segments[:, LENGTH] + 1)).to(self.device)
            mine = segments[own] - [seed * n_tasks, 0, 0]
            parts.append(self.from_rows(self.spec, n_tasks, self.rows[mask], mine))
        return parts

    def __repr__(self) -> str:
        sources: tuple[Source, ...] = ("offline", "exploration", "self-collected")
        counts = {source: int(self._counts(source).sum()) for source in sources}
        shown = " + ".join(f"{n} {source}" for source, n in counts.items() if n or source != "exploration")
        return f"{type(self).__name__}({self.spec.name!r}, {self.n_tasks} tasks, {shown} transitions)"
