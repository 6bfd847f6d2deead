"""Map from (task, k) to the row of the task's k-th transition."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TASK, LENGTH, CODE = range(3)  # columns of a table of segments, `(segment, 3)`
Segments = NDArray[np.int64]
NEVER = torch.iinfo(torch.int64).max


class Lookup:
    """Segments of consecutive rows, ordered by task and time.

    New segments fill spare room of the tensors, which move only when it is used up.

    Args:
        n_tasks: number of tasks.
        device: of the lookup.
    """

    def __init__(self, n_tasks: int, device: torch.device):
        self.n_tasks = n_tasks
        self.device = device
        self.seen = -1  # segments at the last update
        self.complete = False  # every task has transitions; kept on the host
        with torch.inference_mode(False):  # inference tensors could not be written to later
            self.counts, self.base = torch.zeros(2, n_tasks, dtype=torch.int64, device=device)
            self._ends, self._shift = torch.empty(2, 0, dtype=torch.int64, device=device)

    @torch.inference_mode(False)
    def update(self, segments: Segments, members: tuple[int, ...], room: int) -> bool:
        """Read the table again if it has grown.

        Args:
            segments: all segments, in the order of their rows; a holder row follows each.
            members: source codes of the segments to include.
            room: segments to have room for.

        Returns:
            Whether a tensor has moved.
        """
        if self.seen == len(segments) and room < len(self._ends):
            return False
        self.seen = len(segments)
        first = np.cumsum(segments[:, LENGTH] + 1) - segments[:, LENGTH] - 1
        chosen = np.flatnonzero(np.isin(segments[:, CODE], members))
        chosen = chosen[np.argsort(segments[chosen, TASK], kind="stable")]
        length, first = segments[chosen, LENGTH], first[chosen]
        ends = np.cumsum(length)  # counting chosen transitions only
        counts = task_counts(segments, self.n_tasks, members)

        moved = False
        if max(len(ends), room) >= len(self._ends):  # one spare entry: no search returns an index outside
            capacity = max(room, int(1.5 * len(ends))) + 1
            self._ends, self._shift = torch.full((2, capacity), NEVER, dtype=torch.int64, device=self.device)
            moved = True
        self.complete = bool(counts.all())
        for target, values in (
            (self.counts, counts),
            (self.base, np.cumsum(counts) - counts),
            (self._ends, ends),
            (self._shift, first + length - ends),
        ):
            target[: len(values)].copy_(torch.from_numpy(values))
        return moved

    def rows(self, tasks: Tensor, k: Tensor) -> Tensor:
        """Return the row of each task's k-th transition, `(..., n)`; `tasks` is `(...)`, `k` is `(..., n)`."""
        place = self.base[tasks].unsqueeze(-1) + k
        return place + self._shift[torch.searchsorted(self._ends, place, right=True)]


def task_counts(segments: Segments, n_tasks: int, members: tuple[int, ...]) -> NDArray[np.int64]:
    """Count the transitions per task with one of the codes, `(task,)`."""
    counts = np.zeros(n_tasks, np.int64)
    chosen = segments[np.isin(segments[:, CODE], members)]
    np.add.at(counts, chosen[:, TASK], chosen[:, LENGTH])
    return counts
