"""A whole, resumable experiment on disk: data, offline phase, arms, measurements.

runs/<name>/config.json  summary.json  report.html
runs/<name>/seed_<k>/<offline | arm>/checkpoint/  metrics.csv  events.out.tfevents.*  measurement.npz
runs/<name>/seed_<k>/behaviour/checkpoint/        PEARL, if it makes the data
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smac_lab.agent import SMAC
from smac_lab.arms import folder_of
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.relabel import share_reached
from smac_lab.data.storage import StorageError, claim_folder, holding, load_dataset, read_json
from smac_lab.engine.meter import Metrics, metrics_of_each
from smac_lab.engine.method import Method
from smac_lab.runs import checkpoint
from smac_lab.runs.behaviour import collect_behaviour, run_pearl, uses_pearl
from smac_lab.runs.log import MetricLog
from smac_lab.runs.measurement import load_measurement, measure, save_measurement, summarise
from smac_lab.runs.plan import GROWS, Experiment, is_data_set
from smac_lab.runs.summary import write_summary
from smac_lab.tasks import make_family
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import Tasks
from smac_lab.training import train_self_supervised

Tick = Callable[[str, int, int], None]  # (phase, done, total), in updates, or the script's episodes


def read_data(experiment: Experiment, seed: int) -> TransitionBuffer:
    """Read one seed's static data from the experiment's data set or run.

    Raises:
        StorageError: it is missing, damaged, or of another family or other tasks.
    """
    assert experiment.data is not None
    family, config, folder = make_family(experiment.family), experiment.config, Path(experiment.data)
    train, _ = family.split(config.n_train_tasks, config.n_test_tasks, seed)
    if is_data_set(folder):
        buffer, tasks, _ = load_dataset(folder, family)
    else:
        own = folder / f"seed_{seed}" / "offline" / "checkpoint"
        if not checkpoint.exists(own):
            raise StorageError(f"{folder} contains no data set, and no run with data of seed {seed} (in {own})")
        agent, stored, _ = checkpoint.load(own, family=family)
        assert stored is not None
        buffer, (tasks, _) = stored, family.split(agent.config.n_train_tasks, agent.config.n_test_tasks, seed)
    if not np.array_equal(tasks.values, train.values):
        raise StorageError(f"{folder} was collected for other tasks than those of seed {seed}")
    return buffer.to(config.torch_device())


@dataclass(frozen=True)
class _Seed:
    number: int
    folder: Path
    train: Tasks
    test: Tasks

    def done(self, phase: str) -> int:
        """Return the progress of a phase on disk; -1 if it has not begun."""
        path = self.folder / phase / "checkpoint"
        return int(checkpoint.read_progress(path)["done"]) if checkpoint.exists(path) else -1


def run_seeds(folder: Path, experiment: Experiment, seeds: Sequence[int], tick: Tick = lambda *_: None) -> None:
    """Make the data and run the offline phase and every arm, each from its last checkpoint.

    Several seeds learn at once, as one agent, and are stored as if each had run alone. After a resume, only equally far
    seeds learn at once.

    Args:
        folder, experiment: as in `run_experiment`.
        seeds: seeds of the experiment to run.
        tick: called with phase, progress and total.
    """
    family, c = make_family(experiment.family), experiment.config
    splits = [family.split(c.n_train_tasks, c.n_test_tasks, number) for number in seeds]
    each = [_Seed(number, folder / f"seed_{number}", *split) for number, split in zip(seeds, splits, strict=True)]
    for group in _equally_far(each, "offline"):
        phase = _Phase("offline", family, group, experiment)
        phase.run(partial(_start, family, group, experiment, tick), None, partial(tick, "offline"))

    def after_offline_phase(group: list[_Seed]) -> tuple[Method, TransitionBuffer]:
        run = checkpoint.load_seeds([one.folder / "offline" / "checkpoint" for one in group], family=family)
        assert run.buffer is not None
        return run.agent, run.buffer

    for arm in experiment.arms:
        for group in _equally_far(each, folder_of(arm)):
            phase = _Phase(folder_of(arm), family, group, experiment)
            phase.run(partial(after_offline_phase, group), arm, partial(tick, folder_of(arm)))


def _equally_far(seeds: Sequence[_Seed], phase: str) -> list[list[_Seed]]:
    """Group seeds by their progress in a phase, furthest first."""
    done = {one.number: one.done(phase) for one in seeds}
    return [[one for one in seeds if done[one.number] == far] for far in sorted(set(done.values()), reverse=True)]


def _start(
    family: TaskFamily, seeds: list[_Seed], experiment: Experiment, tick: Tick
) -> tuple[Method, TransitionBuffer]:
    c = experiment.config
    pearl: dict[int, TransitionBuffer] = {}
    if experiment.data is None and uses_pearl(c):
        for group in _equally_far(seeds, "behaviour"):
            numbers, folders = [one.number for one in group], [one.folder / "behaviour" for one in group]

            def iterated(done: int, total: int) -> None:
                tick("behaviour", done * c.behaviour_updates, total * c.behaviour_updates)

            collected = run_pearl(family, [one.train for one in group], c, numbers, folders, iterated)
            pearl.update(zip(numbers, collected, strict=True))
    buffers = []
    for one in seeds:
        if experiment.data is not None:
            buffer = read_data(experiment, one.number)
        else:
            told = partial(tick, "episodes of the script")
            buffer = collect_behaviour(family, one.train, c, one.number, None, told, pearl.pop(one.number, None))
        if never := [what for what, share in share_reached(buffer, family, one.train).items() if share == 0.0]:
            warnings.warn(f"the offline data never shows how to {', or to '.join(never)}", RuntimeWarning, stacklevel=1)
        buffers.append(buffer)
    seed: Any = seeds[0].number if len(seeds) == 1 else [one.number for one in seeds]
    agent = experiment.entry.agent(c, family.spec, seed, experiment.numbers)
    return agent, buffers[0] if len(seeds) == 1 else TransitionBuffer.join(buffers)


class _Phase:
    """One phase of seeds that learn at once, resumable at every save."""

    def __init__(self, name: str, family: TaskFamily, seeds: list[_Seed], experiment: Experiment):
        self.family, self.seeds, self.experiment = family, seeds, experiment
        self.folders = [one.folder / name for one in seeds]
        self.paths = [folder / "checkpoint" for folder in self.folders]

    def run(
        self,
        start: Callable[[], tuple[Method, TransitionBuffer]],
        arm: str | None,
        tick: Callable[[int, int], None],
    ) -> None:
        """Train from the last checkpoints, or from `start()`; `arm` is None for the offline phase."""
        began = time.monotonic()
        if checkpoint.exists(self.paths[0]):  # all seeds have one
            agent, stored, progress = checkpoint.load_seeds(self.paths, family=self.family)
            assert stored is not None
            buffer = stored
        else:
            agent, buffer = start()
            progress = {"done": 0, "seconds": 0.0}
        c = agent.config
        updates = self.experiment.entry.updates(c, self.experiment.numbers)
        unit, total = (1, updates) if not arm else (c.online_updates, c.online_iterations)
        save_every = max(1, total // self.experiment.evaluations)
        done, spent = int(progress["done"]), float(progress["seconds"])
        saved = done
        tick(done * unit, total * unit)
        if done >= total:
            if not all((folder / "measurement.npz").exists() for folder in self.folders):
                self._measure(agent, buffer, last=True)
            return
        with ExitStack() as stack:
            logs = [stack.enter_context(MetricLog(folder, done)) for folder in self.folders]
            if arm and done == 0:
                for one, log in zip(self.seeds, logs, strict=True):
                    before = one.folder / "offline" / "measurement.npz"  # of the agent that the arm starts from
                    log.write(0, summarise(load_measurement(before)))
            for step, metrics in self._train(agent, buffer, arm, total - done, save_every):
                now = done + step
                tick(now * unit, total * unit)
                saves = now - saved >= save_every or now == total
                rows = [dict(own) for own in metrics_of_each(metrics, agent.seed_axis)]
                if saves and (arm or now == total):
                    for row, found in zip(rows, self._measure(agent, buffer, last=now == total), strict=True):
                        row.update(summarise(found))
                for log, row in zip(logs, rows, strict=True):
                    log.write(now, row)
                if saves:
                    saved = now
                    spent_now = spent + time.monotonic() - began
                    checkpoint.save_seeds(self.paths, agent, buffer, {"done": now, "seconds": spent_now})

    def _train(
        self, agent: Method, buffer: TransitionBuffer, arm: str | None, remaining: int, save_every: int
    ) -> Iterator[tuple[int, Metrics]]:
        tasks: Any = [one.train for one in self.seeds] if agent.seeds else self.seeds[0].train
        if not arm:
            return self.experiment.entry.learn(agent, buffer, self.family, tasks, remaining, max(1, save_every // 2))
        assert isinstance(agent, SMAC)
        return train_self_supervised(agent, buffer, self.family, tasks, iterations=remaining, arm=arm)

    def _measure(self, agent: Method, buffer: TransitionBuffer, last: bool) -> list[dict[str, Any]]:
        """Measure, and store the last measurement."""
        train, test = [one.train for one in self.seeds], [one.test for one in self.seeds]
        measured = measure(agent, self.family, train, test, buffer, [one.number for one in self.seeds])
        if last:
            for folder, found in zip(self.folders, measured, strict=True):
                save_measurement(folder / "measurement.npz", found)
        return measured


def is_finished(folder: Path, experiment: Experiment, seed: int) -> bool:
    """Return whether a seed has all its phases and measurements."""
    c = experiment.config
    totals = {"offline": experiment.entry.updates(c, experiment.numbers)}
    totals |= {folder_of(arm): c.online_iterations for arm in experiment.arms}
    for phase, total in totals.items():
        own = folder / f"seed_{seed}" / phase
        if not (checkpoint.exists(own / "checkpoint") and (own / "measurement.npz").exists()):
            return False
        if checkpoint.read_progress(own / "checkpoint")["done"] < total:
            return False
    return True


# -- many seeds ------------------------------------------------------------------------------------------
def run_experiment(
    folder: Path,
    experiment: Experiment,
    workers: int | None = None,
    quiet: bool = False,
    at_once: int | None = None,
) -> dict[str, Any]:
    """Run all seeds, and write the summary.

    Args:
        folder: the run's folder; an interrupted run in it is continued, and further seeds and arms are added to it.
        experiment: the experiment to run.
        workers: processes; default one per group of seeds that learn at once. One worker runs the groups in turn, in
            this process.
        quiet: no progress bars.
        at_once: seeds that learn at once, as one agent; default all on a GPU, if the method allows it, and one on a
            CPU. The files have the same form either way.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        StorageError: the folder holds another experiment, or another process uses it.
        ValueError: `workers` or `at_once` is below 1, the method learns one seed at a time, or the device is missing.
    """
    device = experiment.config.torch_device()
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} is not allowed: at least 1")
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once={at_once} is not allowed: at least 1")
    if (at_once or 1) > 1 and not experiment.entry.seeds_at_once:
        raise ValueError(f"at_once={at_once} is not allowed: {experiment.method} learns one seed at a time")
    several = device.type == "cuda" and experiment.entry.seeds_at_once
    size = at_once or (len(experiment.seeds) if several else 1)
    lots = [experiment.seeds[start : start + size] for start in range(0, len(experiment.seeds), size)]
    began = time.monotonic()
    if experiment.data is not None:
        for seed in experiment.seeds:
            read_data(experiment, seed)  # raises before any writing
    workers = min(workers or len(lots), len(lots))
    threads = torch.get_num_threads() if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
    with holding(folder):
        claim_folder(folder, experiment.to_dict(), GROWS)
        with _progress_bars(experiment, lots, quiet) as tick:
            if workers == 1:
                for seeds in lots:
                    run_seeds(folder, experiment, seeds, partial(tick, seeds))
            else:
                _run_in_processes(folder, experiment, lots, workers, threads, tick)
        previous = read_json(folder / "summary.json")["seconds"] if (folder / "summary.json").exists() else {}
        total = previous.get("total", 0.0) + time.monotonic() - began
        return write_summary(folder, experiment, {"total": total}, threads)


def _run_in_processes(
    folder: Path,
    experiment: Experiment,
    lots: Sequence[tuple[int, ...]],
    workers: int,
    threads: int,
    tick: Callable[..., None],
) -> None:
    import multiprocessing
    import queue
    from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")
    ticks = context.Queue()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(threads, ticks)) as pool:
        futures = [pool.submit(_run_in_worker, folder, experiment, seeds) for seeds in lots]
        pending, processes = set(futures), list(pool._processes.values())
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                while True:
                    try:
                        tick(*ticks.get_nowait())
                    except queue.Empty:
                        break
                for future in finished:
                    future.result()
                if pending and any(process.exitcode is not None for process in processes):
                    raise BrokenProcessPool  # the pool itself notices only the death of its first worker
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            if not isinstance(error, BrokenProcessPool):
                raise
            raise ChildProcessError(
                "a worker process was ended from outside, often by the system for want of memory; the same command "
                "goes on from the last checkpoints, perhaps with fewer --workers"
            ) from None


TICKS: Any = None  # in a worker, the queue of its progress


def _begin_worker(threads: int, ticks: Any) -> None:
    import signal

    global TICKS
    TICKS = ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _run_in_worker(folder: Path, experiment: Experiment, seeds: tuple[int, ...]) -> None:
    run_seeds(folder, experiment, seeds, lambda *what: TICKS.put((seeds, *what)))


def _end_with_parent() -> None:
    """End this worker as soon as its parent ends."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _progress_bars(
    experiment: Experiment, lots: Sequence[tuple[int, ...]], quiet: bool
) -> Iterator[Callable[[tuple[int, ...], str, int, int], None]]:
    from tqdm import tqdm

    updates = experiment.updates()
    starts = dict(zip(updates, itertools.accumulate(updates.values(), initial=0), strict=False))
    names = {seeds: f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" for seeds in lots}
    bars = {
        seeds: tqdm(
            total=sum(updates.values()), position=i, disable=quiet, unit=" updates", desc=names[seeds],
            mininterval=0.5, smoothing=0.05,
        )
        for i, seeds in enumerate(lots)
    }  # fmt: skip

    def tick(seeds: tuple[int, ...], what: str, done: int, total: int) -> None:
        bar = bars[seeds]
        if what not in starts:  # no updates: the description shows progress
            bar.set_description(f"{names[seeds]}, {what}: {done:,} of {total:,}")
            return
        bar.set_description(f"{names[seeds]}, {what}", refresh=False)
        bar.update(starts[what] + done - bar.n)

    try:
        yield tick
    finally:
        for bar in bars.values():
            bar.close()
