"""Cost of a whole run: seconds of each stage, memory, and import time."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smac_lab.adaptation import evaluate
from smac_lab.agent import SMAC
from smac_lab.bench.race import Bar, Effort, Ratio, against, aligned, at_most
from smac_lab.config import SMACConfig
from smac_lab.interaction import self_collect
from smac_lab.methods.pearl import pearl_loss
from smac_lab.runs import checkpoint
from smac_lab.runs.behaviour import collect_behaviour
from smac_lab.runs.plan import Experiment
from smac_lab.sampling import sample_mixed, sample_offline, sample_self_supervised
from smac_lab.shift import measure_shift
from smac_lab.tasks import make_family

GIB = 2**30
LIBRARIES = {  # `import smac_lab` must not load these
    "plotly", "kaleido", "matplotlib", "IPython", "ipywidgets", "anywidget", "notebook", "mediapy", "tensorboard",
}  # fmt: skip


class Stage(NamedTuple):
    """A stage of a run."""

    name: str
    seconds: float  # per execution: median
    times: int  # in a run with one arm

    @property
    def total(self) -> float:
        """Seconds in a whole run."""
        return self.seconds * self.times


def final_transitions(family_name: str, config: SMACConfig) -> int:
    """Return a run's final number of transitions."""
    collected = min(config.online_tasks, config.n_train_tasks) * (config.prior_episodes + config.posterior_episodes)
    return (
        config.n_train_tasks * config.behaviour_transitions
        + config.online_iterations * collected * make_family(family_name).horizon
    )


def stages(family_name: str, preset: str, effort: Effort) -> Iterator[Stage]:
    """Time each stage of a preset's run; the buffer is that of the self-supervised phase's start."""
    family, c = make_family(family_name), SMACConfig.preset(family_name, preset)
    train, test = family.split(c.n_train_tasks, c.n_test_tasks, 0)
    agent, few = SMAC(c, family.spec), max(1, effort.rounds // 3)
    updates = 2 * effort.updates
    evaluations = Experiment(family_name, preset, c).evaluations
    saves = [-(-n // max(1, n // evaluations)) if n else 0 for n in (c.offline_steps, c.online_iterations)]
    measured = 2 + saves[1]  # after the offline phase, before the arm, at each save
    online_updates = c.online_iterations * c.online_updates

    by_pearl = c.behaviour_policy == "pearl"  # timed in parts, on random data of the same size
    recipe = dataclasses.replace(c, behaviour_policy="random") if by_pearl else c
    if not by_pearl:
        collecting = _median(lambda: collect_behaviour(family, train, c), 1 if few < 3 else 2)
        yield Stage("collect behaviour data", collecting, 1)
    buffer = collect_behaviour(family, train, recipe)
    if by_pearl:
        pearl = SMAC(c, family.spec)
        loss = partial(pearl_loss, pearl)
        update = _median(lambda: float(pearl.update(sample_mixed(pearl, buffer), loss=loss)["critic_loss"]), updates)
        yield Stage("PEARL update, for behaviour data", update, c.behaviour_iterations * c.behaviour_updates)
        grown = buffer.clone()
        collecting = _median(lambda: self_collect(pearl, grown, family, train, oracle=True), few)
        yield Stage("PEARL's collection", collecting, c.behaviour_iterations)
    offline = _median(lambda: float(agent.update(sample_offline(agent, buffer))["critic_loss"]), updates)
    yield Stage("offline update", offline, c.offline_steps)
    agent.freeze_labeller()
    collecting = _median(lambda: self_collect(agent, buffer, family, train, oracle=False), few)
    yield Stage("self-collection: sample, roll out, label, append", collecting, c.online_iterations)
    phase_loss = agent.self_labelled_loss if c.online_encoder == "self-labelled" else agent.self_supervised_loss
    online = _median(
        lambda: float(agent.update(sample_self_supervised(agent, buffer), loss=phase_loss)["critic_loss"]), updates
    )
    yield Stage("self-supervised update", online, online_updates)
    yield Stage("measure_shift", _median(lambda: measure_shift(agent, family, train, buffer), 1), measured)
    yield Stage("evaluate on held-out tasks", _median(lambda: evaluate(agent, family, test), few), measured)
    with tempfile.TemporaryDirectory() as folder:
        saving = _median(lambda: checkpoint.save(Path(folder), agent, buffer=buffer), few)
    yield Stage("save a checkpoint", saving, sum(saves))


def stage_table(found: list[Stage]) -> Iterator[str]:
    """Format stages as text, with shares of the total."""
    whole = sum(stage.total for stage in found)
    cells = [("stage", "seconds", "times", "hours", "share")]
    cells += [
        (s.name, f"{s.seconds:.4g}", f"{s.times:,}", f"{s.total / 3600:.3f}", f"{s.total / whole:.1%}") for s in found
    ]
    cells.append(("a whole run: offline phase and one arm", "", "", f"{whole / 3600:.3f}", "100.0%"))
    yield from aligned(cells, right={1, 2, 3, 4})


def memory(family_name: str, preset: str) -> Iterator[Ratio]:
    """Measure the peak memory of storing a run's transitions, relative to its limit."""
    config = SMACConfig.preset(family_name, preset)
    found = hold(family_name, final_transitions(family_name, config), config.n_train_tasks)
    peak, limit = np.array([found["peak"] / GIB]), np.array([1.2 * found["stored"] / GIB + 1.5])
    name = f"peak memory, {found['transitions']:,} transitions"
    about = f"1.2 x {found['stored'] / 2**20:,.1f} MiB stored + 1.5 GiB"
    yield against(name, about, "GiB", peak, limit, lambda ratio: at_most(ratio, 1.0))


def hold(family_name: str, transitions: int, n_tasks: int) -> dict[str, int]:
    """Run `memory.hold` in a separate process."""
    words = [sys.executable, "-m", "smac_lab.bench.memory", family_name, str(transitions), str(n_tasks)]
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout)


def imports(rounds: int = 5) -> Iterator[Ratio]:
    """Time `import smac_lab` relative to `import torch`, and count the `LIBRARIES` that it loads."""
    found = {"torch": [], "smac_lab": []}  # type: dict[str, list[float]]
    loaded: set[str] = set()
    for turn in range(-1, rounds):  # the first fills the file system's cache
        for module, seconds in found.items():
            answer = _import(module)
            loaded = set(answer["modules"])  # in the end those of smac_lab
            if turn >= 0:
                seconds.append(answer["seconds"])
    ours, limit = np.array(found["smac_lab"]), np.array(found["torch"])
    beyond = float(np.median(ours - limit))
    row = against("import smac_lab", f"import torch, {beyond:.2f} s less", "s", ours, limit)
    yield row._replace(bar=at_most(beyond, 0.5, "s more"))
    heavy = sorted(loaded & LIBRARIES)
    name = f"import smac_lab: plotting or notebook libraries loaded{': ' if heavy else ''}{', '.join(heavy)}"
    count = np.array([float(len(heavy))])
    yield against(name, "modules loaded", "modules", count, np.array([float(len(loaded))]))._replace(
        bar=Bar("none", not heavy)
    )


def _import(module: str) -> dict[str, Any]:
    code = (
        "import json, sys, time; began = time.perf_counter(); import {0}; seconds = time.perf_counter() - began; "
        "print(json.dumps({{'seconds': seconds, 'modules': sorted(sys.modules)}}))"
    )
    words = [sys.executable, "-c", code.format(module)]
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout)


def _median(call: Callable[[], object], times: int) -> float:
    """Return the median seconds of `times` calls, after a warm-up if `times` > 1."""
    seconds = []
    for turn in range(times if times == 1 else times + 1):
        began = time.perf_counter()
        call()
        if turn or times == 1:
            seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))
