"""Metrics of many updates, averaged on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smac_lab.batch import Info

Metrics = dict[str, Any]  # name to float, or, with several seeds, to an array (seed,)


def metrics_of_each(metrics: Metrics, seed_axis: tuple[int, ...]) -> list[Metrics]:
    """Split metrics by seed, as floats."""
    if not seed_axis:
        return [metrics]
    return [{name: float(value[index]) for name, value in metrics.items()} for index in range(seed_axis[0])]


def metered(learn: Callable[[], Info], steps: int, log_every: int) -> Iterator[tuple[int, Metrics]]:
    """Make `steps` updates; yield their number and averaged metrics every `log_every` and at the end."""
    meter = Meter()
    for step in range(1, steps + 1):
        meter.add(learn())
        if step % log_every == 0 or step == steps:
            yield step, meter.read()


def check_counts(log_every: int, **counts: int) -> None:
    """Raise ValueError if a count is below 0, or `log_every` below 1."""
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name}={count} is not allowed: at least 0")
    if log_every < 1:
        raise ValueError(f"log_every={log_every} is not allowed: at least 1")


def number(value: Tensor) -> Any:
    """Convert to a float, or with several seeds to an array `(seed,)`."""
    return value.cpu().numpy() if value.ndim else float(value)


class Meter:
    """Averages of info tensors; only `read` waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], Tensor] = {}  # per set of names that occur together
        self.counts: dict[tuple[str, ...], int] = {}

    def add(self, info: Info) -> None:
        """Add the info of one update."""
        names, values = tuple(info), torch.stack(list(info.values()))
        self.sums[names] = self.sums[names] + values if names in self.sums else values
        self.counts[names] = self.counts.get(names, 0) + 1

    def read(self) -> Metrics:
        """Return averages since the last reading: floats, or with several seeds arrays `(seed,)`.

        Raises:
            FloatingPointError: a metric is not finite.
        """
        metrics: Metrics = {}
        for names, sums in self.sums.items():
            means = (sums / self.counts[names]).cpu()
            metrics.update({name: number(mean) for name, mean in zip(names, means, strict=True)})
        self.sums, self.counts = {}, {}
        if bad := {name: value for name, value in metrics.items() if not np.isfinite(value).all()}:
            raise FloatingPointError(
                f"training diverged: {bad}. Lower learning_rate or raise awac_lambda, or look at the data."
            )
        return metrics
