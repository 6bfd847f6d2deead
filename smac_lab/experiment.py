"""A whole experiment on disk: data, offline phase, every arm of the self-supervised phase, measurements; resumable.

runs/<name>/config.json  summary.json  report.html
runs/<name>/seed_<k>/<offline | arm>/checkpoint/  metrics.csv  events.out.tfevents.*  measurement.npz
runs/<name>/seed_<k>/behaviour/checkpoint/        PEARL, where it makes the data
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smac_lab import checkpoint
from smac_lab.agent import SMAC
from smac_lab.arms import find_arm, folder_of
from smac_lab.behaviour import check_recipe, collect_behaviour, uses_pearl
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.relabel import share_reached
from smac_lab.data.storage import StorageError, claim_folder, holding, load_dataset, read_json
from smac_lab.measurement import load_measurement, measure, save_measurement, summarise
from smac_lab.metric_log import MetricLog
from smac_lab.summary import write_summary
from smac_lab.tasks import make_family
from smac_lab.tasks.family import TaskFamily, Tasks
from smac_lab.training import Metrics, train_offline, train_self_supervised

DEFAULT_ARMS = ("frozen", "self-labelled", "oracle")
Tick = Callable[[str, int, int], None]  # (what is being done, done, total), in updates


@dataclass(frozen=True)
class Experiment:
    """What is to be run; stored as `config.json`.

    Args:
        family: name of the task family.
        preset: name the config came from, for the record.
        config: every number.
        seeds: one independent run each: tasks, data, agent.
        arms: ways of going on after the offline phase, names from `ARMS`.
        data: folder of a data set from `smac-lab collect`, or None to make the data.
        evaluations: how often each arm is measured on its way.

    Raises:
        ValueError: unknown family or arm, no seed.
    """

    family: str
    preset: str
    config: SMACConfig
    seeds: tuple[int, ...] = (0,)
    arms: tuple[str, ...] = DEFAULT_ARMS
    data: str | None = None
    evaluations: int = 10

    def __post_init__(self) -> None:
        family = make_family(self.family)
        object.__setattr__(self, "family", family.full_name)  # one name for a variant, however it was written
        check_recipe(family, self.config)
        for arm in self.arms:
            find_arm(arm)
        if len(set(self.arms)) != len(self.arms):
            raise ValueError(f"arms={self.arms} is not allowed: each arm once")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds={self.seeds} is not allowed: at least one seed, each once")
        if self.data is not None and len(self.seeds) > 1:
            raise ValueError(f"a data set holds the tasks of one seed, but there are {len(self.seeds)} seeds")

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**vars(self), "config": self.config.to_dict(), "seeds": list(self.seeds), "arms": list(self.arms)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Experiment:
        """Inverse of `to_dict`."""
        config = SMACConfig.from_dict(fields["config"])
        return cls(**{**fields, "config": config, "seeds": tuple(fields["seeds"]), "arms": tuple(fields["arms"])})

    def updates(self) -> dict[str, int]:
        """Updates of a seed in each phase, in the order in which they run; "behaviour" is PEARL's."""
        c = self.config
        pearl = self.data is None and uses_pearl(c)
        return {
            "behaviour": c.behaviour_iterations * c.behaviour_updates if pearl else 0,
            "offline": c.offline_steps,
            **{folder_of(arm): c.online_iterations * c.online_updates for arm in self.arms},
        }


def read_data(experiment: Experiment) -> TransitionBuffer:
    """The data set that an experiment names.

    Raises:
        StorageError: it is missing, damaged, of another family, or of other tasks than the seed's.
    """
    assert experiment.data is not None
    family, config = make_family(experiment.family), experiment.config
    train, _ = family.split(config.n_train_tasks, config.n_test_tasks, experiment.seeds[0])
    buffer, tasks, _ = load_dataset(experiment.data, family)
    if not np.array_equal(tasks.values, train.values):
        raise StorageError(f"{experiment.data} was collected for other tasks than those of seed {experiment.seeds[0]}")
    return buffer.to(config.torch_device())


def run_seed(folder: Path, experiment: Experiment, seed: int, tick: Tick = lambda *_: None) -> None:
    """Data, offline phase and every arm of one seed; goes on from the last checkpoint of each phase."""
    family, config = make_family(experiment.family), experiment.config
    train, test = family.split(config.n_train_tasks, config.n_test_tasks, seed)
    here = folder / f"seed_{seed}"

    def data() -> TransitionBuffer:
        if experiment.data is not None:
            return read_data(experiment)

        def collected(done: int, total: int) -> None:
            if uses_pearl(config):
                tick("behaviour", done * config.behaviour_updates, total * config.behaviour_updates)
            else:
                tick("episodes of the script", done, total)

        return collect_behaviour(family, train, config, seed, here / "behaviour", collected)

    def start() -> tuple[SMAC, TransitionBuffer]:
        agent, buffer = SMAC(config, family.spec, seed=seed), data()
        if never := [what for what, share in share_reached(buffer, family, train).items() if share == 0.0]:
            warnings.warn(f"the offline data never shows how to {', or to '.join(never)}", RuntimeWarning, stacklevel=1)
        return agent, buffer

    phase = _Phase(here / "offline", family, train, test, seed, experiment)
    phase.run(start, None, partial(tick, "offline"))

    def after_offline_phase() -> tuple[SMAC, TransitionBuffer]:
        run = checkpoint.load(here / "offline" / "checkpoint", family=family)
        assert run.buffer is not None
        return run.agent, run.buffer

    for arm in experiment.arms:
        phase = _Phase(here / folder_of(arm), family, train, test, seed, experiment)
        phase.run(after_offline_phase, arm, partial(tick, folder_of(arm)))


class _Phase:
    """One phase of one seed in its folder: train, measure, save, log; resumable at every save."""

    def __init__(self, folder: Path, family: TaskFamily, train: Tasks, test: Tasks, seed: int, experiment: Experiment):
        self.folder, self.family, self.train, self.test, self.seed = folder, family, train, test, seed
        self.experiment = experiment

    def run(
        self,
        start: Callable[[], tuple[SMAC, TransitionBuffer]],
        arm: str | None,
        tick: Callable[[int, int], None],
    ) -> None:
        """Train from the last checkpoint, or from `start()`; `arm` is None for the offline phase."""
        path, began = self.folder / "checkpoint", time.monotonic()
        if checkpoint.exists(path):
            agent, stored, progress = checkpoint.load(path, family=self.family)
            assert stored is not None
            buffer = stored
        else:
            agent, buffer = start()
            progress = {"done": 0, "seconds": 0.0}
        c = agent.config
        unit, total = (1, c.offline_steps) if not arm else (c.online_updates, c.online_iterations)
        save_every = max(1, total // self.experiment.evaluations)
        done, spent = int(progress["done"]), float(progress["seconds"])
        tick(done * unit, total * unit)
        if done >= total:
            if not (self.folder / "measurement.npz").exists():
                found = measure(agent, self.family, self.train, self.test, buffer, self.seed)
                save_measurement(self.folder / "measurement.npz", found)
            return
        with MetricLog(self.folder, done) as log:
            if arm and done == 0:
                before = self.folder.parent / "offline" / "measurement.npz"  # of this very agent
                log.write(0, summarise(load_measurement(before)))
            for step, metrics in self._train(agent, buffer, arm, total - done, save_every):
                now = done + step
                tick(now * unit, total * unit)
                row: Metrics = dict(metrics)
                if now % save_every == 0 or now == total:
                    if arm or now == total:
                        found = measure(agent, self.family, self.train, self.test, buffer, self.seed)
                        row.update(summarise(found))
                        if now == total:
                            save_measurement(self.folder / "measurement.npz", found)
                    log.write(now, row)
                    spent_now = spent + time.monotonic() - began
                    checkpoint.save(path, agent, buffer=buffer, progress={"done": now, "seconds": spent_now})
                else:
                    log.write(now, row)

    def _train(
        self, agent: SMAC, buffer: TransitionBuffer, arm: str | None, remaining: int, save_every: int
    ) -> Iterator[tuple[int, Metrics]]:
        if arm:
            return train_self_supervised(agent, buffer, self.family, self.train, iterations=remaining, arm=arm)
        return train_offline(agent, buffer, steps=remaining, log_every=max(1, save_every // 2))


# -- many seeds ------------------------------------------------------------------------------------------
def run_experiment(
    folder: Path, experiment: Experiment, workers: int | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Run all seeds, several in processes of their own, with one progress bar each; then write the summary.

    Args:
        folder: the run's folder; an interrupted run there is continued.
        experiment: what to run.
        workers: processes; default one a seed. One worker runs the seeds in this process, one after another.
        quiet: no progress bars.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        StorageError: the folder holds another experiment, or another process is at work in it.
        ValueError: fewer than one worker, or a device that is not here.
    """
    experiment.config.torch_device()
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} is not allowed: at least 1")
    began = time.monotonic()
    if experiment.data is not None:
        read_data(experiment)  # tells what is wrong with it before anything is written
    workers = min(workers or len(experiment.seeds), len(experiment.seeds))
    threads = torch.get_num_threads() if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
    with holding(folder):
        claim_folder(folder, experiment.to_dict())
        with _progress_bars(experiment, quiet) as tick:
            if workers == 1:
                for seed in experiment.seeds:
                    run_seed(folder, experiment, seed, partial(tick, seed))
            else:
                _run_in_processes(folder, experiment, workers, threads, tick)
        previous = read_json(folder / "summary.json")["seconds"] if (folder / "summary.json").exists() else {}
        total = previous.get("total", 0.0) + time.monotonic() - began
        return write_summary(folder, experiment, {"total": total}, threads)


def _run_in_processes(
    folder: Path, experiment: Experiment, workers: int, threads: int, tick: Callable[..., None]
) -> None:
    import multiprocessing
    import queue
    from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait

    context = multiprocessing.get_context("spawn")
    ticks = context.Queue()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(threads, ticks)) as pool:
        futures = [pool.submit(_run_in_worker, folder, experiment, seed) for seed in experiment.seeds]
        pending = set(futures)
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
        except BaseException:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


TICKS: Any = None  # in a worker, the queue of what it has done


def _begin_worker(threads: int, ticks: Any) -> None:
    import signal

    global TICKS
    TICKS = ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _run_in_worker(folder: Path, experiment: Experiment, seed: int) -> None:
    run_seed(folder, experiment, seed, lambda *what: TICKS.put((seed, *what)))


def _end_with_parent() -> None:
    """End this worker as soon as its parent is gone, however that ended: nobody would hear of what it goes on with."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _progress_bars(experiment: Experiment, quiet: bool) -> Iterator[Callable[[int, str, int, int], None]]:
    from tqdm import tqdm

    updates = experiment.updates()
    starts = dict(zip(updates, itertools.accumulate(updates.values(), initial=0), strict=False))
    bars = {
        seed: tqdm(
            total=sum(updates.values()), position=i, disable=quiet, unit=" updates", desc=f"seed {seed}",
            mininterval=0.5, smoothing=0.05,
        )
        for i, seed in enumerate(experiment.seeds)
    }  # fmt: skip

    def tick(seed: int, what: str, done: int, total: int) -> None:
        bar = bars[seed]
        if what not in starts:  # it makes no updates, so that its words have to say how far it is
            bar.set_description(f"seed {seed}, {what}: {done:,} of {total:,}")
            return
        bar.set_description(f"seed {seed}, {what}", refresh=False)
        bar.update(starts[what] + done - bar.n)

    try:
        yield tick
    finally:
        for bar in bars.values():
            bar.close()
