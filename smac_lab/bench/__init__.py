"""Benchmarks: each row is a ratio of two measurements, taken in turns in one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from smac_lab.bench import pipeline, profiling, scaling, simulation, update
from smac_lab.bench.race import QUICK, Bar, Effort, Ratio, Row, Skipped, compare, machine, slope, table

__all__ = [
    "CASES",
    "QUICK",
    "Bar",
    "Effort",
    "Ratio",
    "Row",
    "Skipped",
    "compare",
    "machine",
    "pipeline",
    "profiling",
    "report",
    "rows",
    "scaling",
    "simulation",
    "slope",
    "table",
    "update",
]

CASES = ("simulation", "update", "evaluate", "pipeline")


def rows(
    case: str, effort: Effort, processes: tuple[int, ...] = (), run: tuple[str, str] = ("cheetah-vel", "paper")
) -> Iterator[Row]:
    """Measure the ratios of one of `CASES`.

    Args:
        case: name of the case.
        effort: amount of work.
        processes: numbers of processes of gymnasium's `AsyncVectorEnv`.
        run: family and preset that `pipeline` measures.
    """
    if case == "simulation":
        for family in simulation.BODIES:
            yield from simulation.simulation(family, effort, processes)
        yield from simulation.collection("cheetah-vel", effort)
    elif case == "update":
        yield from update.update(effort)
        yield from update.seeds(effort)
        yield from update.cuda(effort)
    elif case == "evaluate":
        yield from simulation.evaluation("cheetah-vel", effort)
    else:
        yield from pipeline.memory(*run)
        yield from pipeline.imports()


def report(
    record: dict[str, Any], found: list[Row], stages: list[pipeline.Stage], profiles: list[profiling.Profile]
) -> Iterator[str]:
    """Format all measurements, a summary and the machine as lines of text."""
    here, tables = record["machine"], [table(found)]
    tables += [pipeline.stage_table(stages)] if stages else []
    tables += [profiling.profile_table(profiles)] if profiles else []
    tables += [scaling.curve_table(record["scaling"])] if "scaling" in record else []
    for lines in tables:
        yield from lines
        yield ""
    ratios = [row for row in found if isinstance(row, Ratio)]
    bars = [row.bar for row in ratios if row.bar is not None]
    yield f"{len(ratios)} ratios measured; {sum(bar.met for bar in bars)} of {len(bars)} wanted numbers met."
    yield "Medians of timings taken in turns; [low, high] are the extremes of the rounds' ratios."
    if record["quick"]:
        yield "--quick: sizes too small for any of it to mean anything."
    gpu = f", {here['gpu']}" if here["gpu"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    yield (
        f"{here['processor']}, {here['cores']} cores, {here['threads']} threads, native bf16: "
        f"{'yes' if here['native_bf16'] else 'no'}{gpu}; {here['system']}; {packages}"
    )
    if "files" in record:
        yield f"wrote {', '.join(record['files'])}"
