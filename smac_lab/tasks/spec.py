"""Sets of tasks, and the sizes of a task family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class FamilySpec(NamedTuple):
    """Sizes of a task family."""

    name: str  # with the variant: `TaskFamily.full_name`
    obs_dim: int
    action_dim: int
    task_dim: int
    feature_dim: int
    context_dim: int  # (s, a, r), and s' if dynamics differ between tasks
    horizon: int

    @property
    def includes_next(self) -> bool:
        """Whether a context transition contains s'."""
        return self.context_dim > self.obs_dim + self.action_dim + 1


@dataclass(frozen=True, eq=False)
class Tasks:
    """A set of tasks of one family.

    Args:
        values: `(n, task_dim)`; a scalar or `n` scalars are reshaped.

    Raises:
        ValueError: a value is not finite, or the array has more than two axes.
    """

    values: Array

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.ndim < 2:
            values = values.reshape(-1, 1)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError(f"task values must be finite and of shape (n, task_dim), got {values.shape}: {values}")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Tasks:
        return Tasks(self.values[index if isinstance(index, slice) else np.atleast_1d(np.asarray(index))])

    def repeat(self, times: int) -> Tasks:
        """Repeat each task `times` times, `(n * times, task_dim)`."""
        return Tasks(self.values.repeat(times, axis=0))


def only_set(tasks: Any) -> Tasks:
    """Return the tasks of an agent of one seed.

    Raises:
        ValueError: `tasks` is not a `Tasks`.
    """
    if not isinstance(tasks, Tasks):
        raise ValueError(f"an agent of one seed needs its tasks as one lab.Tasks(values), got a {type(tasks).__name__}")
    return tasks
