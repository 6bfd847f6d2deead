"""Transitions as rows: the next observation is the observation of the row after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smac_lab.tasks.spec import FamilySpec

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations", "features")
SCALARS = ("rewards", "terminations", "truncations")
Values = dict[str, NDArray[np.float32]]


def widths_of(spec: FamilySpec) -> dict[str, int]:
    """Return the size of each of `COLUMNS`."""
    sizes = (spec.obs_dim, spec.action_dim, 1, spec.obs_dim, 1, 1, spec.feature_dim)
    return dict(zip(COLUMNS, sizes, strict=True))


def select(columns: dict[str, Any], widths: dict[str, int], keep: NDArray[np.bool_]) -> Values:
    """Select steps from each column, in single precision, `(n, dim)`.

    Args:
        columns: array or tensor by name in `COLUMNS`, `(*keep.shape, dim)` or, where dim is 1, `keep.shape`.
        widths: dim of each column.
        keep: steps to keep.

    Raises:
        ValueError: a column has another shape, values that are not real, or flags that are not 0 or 1.
    """
    values: Values = {}
    for name, width in widths.items():
        given, shape = columns[name], (*keep.shape, width)
        value = np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given)
        if value.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be real numbers, got {value.dtype}")
        if value.shape != shape and (value.shape != keep.shape or width > 1):
            raise ValueError(f"{name} of {math.prod(keep.shape)} transitions needs shape {shape}, got {value.shape}")
        with np.errstate(over="ignore"):  # check_finite finds the overflow
            values[name] = value.reshape(shape)[keep].astype(np.float32, copy=False)
    for name in ("terminations", "truncations"):
        if len(odd := values[name][(values[name] != 0) & (values[name] != 1)]):
            raise ValueError(f"{name} must be 0 or 1, got {odd[0]}")
    return values


def check_finite(values: Values, tasks: Sequence[int], counts: NDArray[np.int64]) -> None:
    """Raise ValueError, naming the first, if some numbers are not finite.

    Args:
        values: from `select`, simulation after simulation.
        tasks, counts: of each simulation.
    """
    first = {name: bad[0] for name, value in values.items() if len(bad := np.argwhere(~np.isfinite(value))[:, 0])}
    if not first:
        return
    name = min(first, key=lambda name: first[name])
    simulation = int(np.searchsorted(np.cumsum(counts), first[name], side="right"))
    raise ValueError(
        f"{name} of task {tasks[simulation]} holds numbers that are not finite (first at transition "
        f"{first[name] - counts[:simulation].sum()}: {values[name][first[name]].tolist()}); only finite transitions "
        "can be stored"
    )


def chain_ends(values: Values, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark transitions whose next observation is not, bit for bit, the following observation, `(n,)`."""
    # integers, so that -0.0 differs from 0.0
    following, starts = (values[name].view(np.int32) for name in ("next_observations", "observations"))
    ends = np.ones(len(starts), bool)
    ends[:-1] = (following[:-1] != starts[1:]).any(1)
    ends[np.cumsum(counts)[counts > 0] - 1] = True  # of a simulation
    return ends


def write_chains(rows: NDArray[np.float32], where: dict[str, slice], values: Values, ends: NDArray[np.bool_]) -> None:
    """Fill `rows`, `(n + number of chains, width)`, with transitions, and a holder row after each chain.

    A holder row contains its chain's last next observation, and zeros.
    """
    place = np.arange(len(ends)) + np.cumsum(ends) - ends
    holders = place[ends] + 1
    for name, columns in where.items():
        rows[place, columns] = values[name]
    rows[holders] = 0.0
    rows[holders, where["observations"]] = values["next_observations"][ends]
