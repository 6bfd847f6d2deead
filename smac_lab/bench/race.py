"""Tools of all cases: timing in turns, ratios with their spread, and bars."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Effort(NamedTuple):
    """Amount of work; bars apply to the defaults, and `QUICK` only shows that the code runs."""

    rounds: int = 7
    simulations: int = 128
    steps: int = 200  # control steps of each simulation in one timing: a horizon
    tasks: int = 130  # of an evaluation: 100 training, 30 held-out ones
    updates: int = 6  # in one timing
    seeds: int = 16  # at once


QUICK = Effort(rounds=2, simulations=4, steps=5, tasks=2, updates=1, seeds=2)


class Bar(NamedTuple):
    """A target, and whether it is met."""

    wanted: str
    met: bool


def at_least(value: float, wanted: float, unit: str = "x") -> Bar:
    """Return the bar `value` >= `wanted`."""
    return Bar(f">= {wanted:g} {unit}", bool(value >= wanted))


def at_most(value: float, wanted: float, unit: str = "x") -> Bar:
    """Return the bar `value` <= `wanted`."""
    return Bar(f"<= {wanted:g} {unit}", bool(value <= wanted))


class Ratio(NamedTuple):
    """`ours` relative to `limit`, in `unit`; ratios are taken per round, because the machine's speed drifts."""

    name: str
    against: str
    unit: str
    ours: float  # median over rounds
    limit: float
    ratio: float  # ours / limit: median of the rounds' ratios
    low: float  # least and greatest of the rounds' ratios
    high: float
    rounds: int
    bar: Bar | None = None
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        return {**self._asdict(), "bar": None if self.bar is None else self.bar._asdict()}


class Skipped(NamedTuple):
    """A figure that cannot be measured on this machine."""

    name: str
    why: str


Row = Ratio | Skipped


class Call(NamedTuple):
    """A function to time: `run` does `amount` units, after an untimed `prepare`."""

    run: Callable[[], object]
    amount: float = 1.0
    prepare: Callable[[], object] = lambda: None


def repeat(times: int, call: Callable[[], object]) -> Callable[[], None]:
    """Return a function that makes `times` calls."""

    def run() -> None:
        for _ in range(times):
            call()

    return run


def race(name: str, calls: Sequence[Call], rounds: int, device: str = "cpu") -> Array:
    """Time `calls` in turns, after a warm-up; every other round runs backwards.

    Args:
        name: label of the progress bar.
        calls: to compare.
        rounds: timings per call.
        device: with "cuda", each timing waits for the device at both ends.

    Returns:
        Units per second, `(call, round)`.
    """
    from tqdm import tqdm

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    rates = np.empty((len(calls), rounds))
    with tqdm(total=(rounds + 1) * len(calls), desc=name, unit=" timings", leave=False, disable=None) as bar:
        for turn in range(-1, rounds):  # turn -1 is the warm-up; the last round overwrites it
            for i in range(len(calls))[:: -1 if turn % 2 else 1]:
                call = calls[i]
                call.prepare()
                wait()
                began = time.perf_counter()
                call.run()
                wait()
                rates[i, turn] = call.amount / (time.perf_counter() - began)
                bar.update()
    return rates


def against(
    name: str, limit_name: str, unit: str, ours: Array, limit: Array, bar: Callable[[float], Bar] | None = None,
    device: str = "cpu",
) -> Ratio:  # fmt: skip
    """Compute the ratio of two measurements of the same rounds.

    Args:
        name, limit_name, unit: labels of both measurements, and their unit.
        ours, limit: one number per round.
        bar: function from the median ratio to its bar.
        device: of the measurement.
    """
    ratios = ours / limit
    ratio = float(np.median(ratios))
    return Ratio(
        name, limit_name, unit, float(np.median(ours)), float(np.median(limit)), ratio, float(ratios.min()),
        float(ratios.max()), len(ratios), bar(ratio) if bar else None, device,
    )  # fmt: skip


def compare(
    name: str, unit: str, amount: float, ours: Callable[[], object], limit: Callable[[], object], rounds: int = 9
) -> Ratio:
    """Race two callables that do `amount` units each."""
    rates = race(name, [Call(ours, amount), Call(limit, amount)], rounds)
    return against(name, "", unit, rates[0], rates[1])


def slope(sizes: Iterable[float], values: Iterable[float]) -> float:
    """Fit p of values ~ sizes^p by least squares of the logarithms."""
    return float(np.polyfit(np.log(list(sizes)), np.log(list(values)), 1)[0])


def resident_memory() -> int:
    """Return this process's resident memory in bytes; without /proc, its peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory()
    return 1024 * int(status.read_text(encoding="utf-8").split("VmRSS:")[1].split()[0])


def peak_memory() -> int:
    """Return this process's peak resident memory, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage starts from the parent's memory
        (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def native_bf16() -> bool:
    """Return whether this processor has bfloat16 products; otherwise they are emulated and slower."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if any(getattr(torch.cpu, name, bool)() for name in names):
        return True
    info = Path("/proc/cpuinfo")
    words = info.read_text(encoding="utf-8").split() if info.exists() else []
    return bool({"avx512_bf16", "amx_bf16", "bf16"}.intersection(words))


def machine() -> dict[str, Any]:
    """Describe the machine and the package versions."""
    from smac_lab.runs.summary import versions

    info = Path("/proc/cpuinfo")
    models = (
        [s.partition(":")[2].strip() for s in info.read_text(encoding="utf-8").splitlines() if "model name" in s]
        if info.exists()
        else []
    )
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "native_bf16": native_bf16(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "versions": versions(),
    }


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Format rows as text, one line each."""
    found = [row for row in rows if isinstance(row, Ratio)]
    cells = [("figure", "ours", "of", "unit", "ratio", "[low, high] x rounds", "wanted", "", "device", "against")]
    for r in found:
        verdict = "" if r.bar is None else "met" if r.bar.met else "MISSED"
        cells.append(
            (r.name, _number(r.ours), _number(r.limit), r.unit, f"{r.ratio:.2f}",
             f"[{r.low:.2f}, {r.high:.2f}] x {r.rounds}", r.bar.wanted if r.bar else "", verdict, r.device, r.against)
        )  # fmt: skip
    yield from aligned(cells if found else [], right={1, 2, 4})
    for row in rows:
        if isinstance(row, Skipped):
            yield f"not measured: {row.name}: {row.why}"


def aligned(cells: Sequence[Sequence[str]], right: set[int]) -> Iterator[str]:
    """Format cells as lines of text; columns in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        pieces = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(pieces).rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
