"""Metrics of one training phase on disk."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from smac_lab.data.storage import replacing
from smac_lab.engine.meter import Metrics


class MetricLog:
    """Metrics of one phase as `metrics.csv` (rewritten atomically) and TensorBoard events.

    Args:
        folder: where to write.
        done: later rows are dropped, because the resumed phase makes them again.
    """

    def __init__(self, folder: Path, done: int):
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        if self.file.exists() and done:
            with self.file.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= done]
        self.writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def write(self, step: int, metrics: Metrics) -> None:
        """Add one row."""
        self.rows.append({"step": step, **metrics})
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(self.file) as scratch, scratch.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, names, restval="")
            table.writeheader()
            table.writerows(self.rows)

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
