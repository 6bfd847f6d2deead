"""Cost against size: four measurements, each with its exponent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smac_lab.adaptation import evaluate
from smac_lab.bench.pipeline import hold
from smac_lab.bench.race import Call, Effort, aligned, race, slope
from smac_lab.bench.simulation import make_env, paper_agent, random_actions, vector_call
from smac_lab.bench.update import Case, make_agent, make_buffer
from smac_lab.tasks.spec import Tasks

FAMILY = "cheetah-vel"
MIB = 2**20


class Curve(NamedTuple):
    """Cost at each size, and the exponent p of cost ~ size^p."""

    name: str
    x: str
    y: str
    sizes: list[float]
    costs: list[float]
    exponent: float


class Sizes(NamedTuple):
    """Sizes at which each cost is measured."""

    batches: tuple[tuple[int, int], ...] = ((4, 32), (4, 64), (4, 128), (8, 128), (8, 256), (16, 256), (16, 512))
    simulations: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024)
    tasks: tuple[int, ...] = (10, 20, 40, 80, 130, 260)
    transitions: tuple[int, ...] = (500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)


FEW = Sizes(((2, 4), (2, 16)), (2, 4), (1, 2), (100_000, 300_000))


def curves(effort: Effort, sizes: Sizes) -> list[Curve]:
    """Measure the four curves, with all sizes in turns."""
    rounds = max(2, effort.rounds // 3)

    def timed(name: str, x: str, y: str, counts: list[float], scale: float, calls: list[Call]) -> Curve:
        costs = (scale * np.median(1 / race(name, calls, rounds), axis=1)).tolist()
        return Curve(name, x, y, counts, costs, slope(counts, costs))

    steps, many, tasks = effort.steps // 4 + 1, list(map(float, sizes.simulations)), list(map(float, sizes.tasks))
    batches = [float(tasks * batch) for tasks, batch in sizes.batches]
    return [
        timed("offline update", "tasks x transitions", "ms", batches, 1e3, [_update(*b) for b in sizes.batches]),
        timed("step", "simulations", "ms", many, 1e3, [_steps(n, steps) for n in sizes.simulations]),
        timed("evaluate", "tasks", "s", tasks, 1, [_evaluate(n) for n in sizes.tasks]),
        _memory(sizes.transitions),
    ]  # fmt: skip


def _update(tasks: int, batch: int) -> Call:
    case = Case("offline", tasks, batch)
    config = dataclasses.replace(case.config(), n_train_tasks=16)
    agent, buffer = make_agent(config), make_buffer(config)
    return Call(lambda: case.step(agent, buffer))


def _steps(simulations: int, steps: int) -> Call:
    """Return a call in units of one step of all simulations."""
    env = make_env(FAMILY, simulations)
    return vector_call(env, random_actions(env, steps))._replace(amount=steps)


def _evaluate(tasks: int) -> Call:
    env = make_env(FAMILY, tasks)
    agent, family = paper_agent(env), env.family
    some = Tasks(family.sample_tasks(np.random.default_rng(0), tasks))
    return Call(lambda: evaluate(agent, family, some))


def _memory(transitions: tuple[int, ...]) -> Curve:
    costs = [max(hold(FAMILY, n, 10)["grown"], 1) / MIB for n in transitions]
    sizes = list(map(float, transitions))
    return Curve("memory of a buffer", "transitions", "MiB", sizes, costs, slope(sizes, costs))


def curve_table(found: list[dict[str, Any]]) -> Iterator[str]:
    """Format curves as text."""
    cells = [("cost against size", "exponent", "costs")]
    for c in found:
        pairs = ", ".join(f"{size:,g}: {cost:.3g}" for size, cost in zip(c["sizes"], c["costs"], strict=True))
        cells.append((f"{c['name']} ({c['y']}) against {c['x']}", f"{c['exponent']:.2f}", pairs))
    yield from aligned(cells, right={1})


def write(file: Path, curves: list[Curve], about: dict[str, Any], say: Callable[[str], object] = print) -> list[Path]:
    """Write curves as HTML, JSON and, with kaleido and a browser, PNG; return the paths."""
    from smac_lab.data.storage import replace_text
    from smac_lab.figures import plots, style

    figure = plots.scaling([(c.name, c.x, c.y, c.sizes, c.costs, c.exponent) for c in curves])
    page, numbers, picture = (file.with_suffix(end) for end in (".html", ".json", ".png"))
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(page, style.page_of(figure))
    numbers.write_text(json.dumps({**about, "scaling": [c._asdict() for c in curves]}, indent=1), encoding="utf-8")
    try:
        figure.update_layout(paper_bgcolor="white").write_image(picture, width=1100, scale=2)
    except Exception as error:  # without kaleido or a browser that starts, its class differs
        say(f"no {picture.name}: {' '.join(str(error).split())[:200]}")
        return [page, numbers]
    return [page, numbers, picture]
