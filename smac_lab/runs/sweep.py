"""The runs of a sweep file, on many machines, as tasks of Ray.

A trial is one group of seeds of one run, and writes to the run's folder as `smac-lab train` does. If its machine fails,
it continues elsewhere from its last checkpoint. A finished trial is never repeated. All machines need the same path to
the folders.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import re
import runpy
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from smac_lab.config import SMACConfig
from smac_lab.data.storage import StorageError, claim_folder, holding, read_json, reading, remove_partial
from smac_lab.methods import find_method
from smac_lab.runs.experiment import is_finished, run_seeds
from smac_lab.runs.plan import DEFAULT_ARMS, GROWS, Experiment, slug
from smac_lab.runs.summary import write_summary

INSTALL = 'sweeps need ray: pip install "smac-lab[sweep]"'


class Trial(NamedTuple):
    """A group of seeds of one run, which learn at once."""

    folder: Path
    experiment: Experiment
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The run's folder and the seeds."""
        return f"{self.folder.name} seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"

    @property
    def is_finished(self) -> bool:
        """Whether all phases and measurements are on disk."""
        return all(is_finished(self.folder, self.experiment, seed) for seed in self.seeds)


@dataclass(frozen=True)
class Sweep:
    """The contents of a sweep file: every family with every variant, method and seed.

    Args:
        out: folder of the runs' folders, `<family>[-<variant>][-<method>]`.
        families: names of task families.
        preset: preset of all runs.
        methods: names from `METHODS`. The others learn from `smac`'s static data if it is among them, or has all seeds.
        arms: of methods that go online.
        seeds: seeds of each run.
        variants: name to fields of SMACConfig that replace the preset's; `default` adds nothing to the folder's name.
        at_once: seeds per trial that learn at once, if the method can.
        num_cpus, num_gpus: resources of each trial. `num_cpus` is also its number of PyTorch threads.
        skip: folder names of runs to leave out.

    Raises:
        ValueError: a name or number is not allowed.
    """

    out: str
    families: tuple[str, ...]
    preset: str = "cpu"
    methods: tuple[str, ...] = ("smac",)
    arms: tuple[str, ...] = DEFAULT_ARMS
    seeds: tuple[int, ...] = (0,)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    at_once: int = 1
    num_cpus: int = 1
    num_gpus: float = 0.0
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("families", "methods", "arms", "seeds", "skip"):
            value = getattr(self, name)
            empty = name in ("arms", "skip")
            if isinstance(value, str) or not isinstance(value, Sequence) or not (value or empty):
                raise ValueError(f"{name}={value!r} is not allowed: it must be a list, such as [{_EXAMPLES[name]}]")
            object.__setattr__(self, name, tuple(value))
        for name in ("out", "preset"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: it must be a text")
        for name in ("at_once", "num_cpus"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: an integer of at least 1")
        if type(self.num_gpus) not in (int, float) or not 0 <= self.num_gpus < math.inf:
            raise ValueError(f"num_gpus={self.num_gpus!r} is not allowed: a number of at least 0")
        if not isinstance(self.variants, Mapping) or not all(isinstance(v, Mapping) for v in self.variants.values()):
            raise ValueError(f"variants={self.variants!r} is not allowed: it must map names to fields of SMACConfig")
        self.runs()

    @classmethod
    def read(cls, file: str | Path) -> Sweep:
        """Read a sweep from YAML, or from Python that defines `sweep`.

        Raises:
            StorageError: the file is missing or not readable.
            ValueError: a key is unknown, or a value not allowed.
        """
        file = Path(file)
        if file.suffix == ".py":
            found = runpy.run_path(str(file)).get("sweep")
            if not isinstance(found, Sweep):
                raise StorageError(f"{file} does not define sweep = Sweep(...)")
            return found
        import yaml  # type: ignore[import-untyped]

        try:
            fields = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise StorageError(f"{file} is missing or is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(fields, dict):
            raise StorageError(f"{file} does not contain keys and values")
        known = [one.name for one in dataclasses.fields(cls)]
        if unknown := sorted(set(map(str, fields)) - set(known)):
            raise ValueError(f"{file} has unknown keys {unknown}; known keys: {', '.join(known)}")
        if missing := [name for name in ("out", "families") if name not in fields]:
            raise ValueError(f"{file} lacks {' and '.join(missing)}")
        with reading(file):
            return cls(**fields)

    def runs(self) -> dict[Path, Experiment]:
        """List runs by folder, those first whose data others use."""
        found = {}
        methods = sorted(self.methods, key=lambda method: method != "smac")
        for family, (variant, changes), method in itertools.product(self.families, self.variants.items(), methods):
            config = SMACConfig.preset(family, self.preset)
            if unknown := sorted(set(changes) - set(config.to_dict())):
                raise ValueError(f"variant {variant!r} names unknown fields {unknown} of SMACConfig")
            base = Path(self.out) / "-".join([slug(family), *([variant] if variant != "default" else [])])
            folder = base if method == "smac" else base.with_name(f"{base.name}-{method}")
            if folder.name in self.skip:
                continue
            shares = method != "smac" and (base in found or self._has_seeds(base))
            found[folder] = Experiment(
                family,
                self.preset,
                dataclasses.replace(config, **changes),
                self.seeds,
                self.arms if find_method(method).goes_online else (),
                data=str(base) if shares else None,
                method=method,
            )
        return found

    def _has_seeds(self, run: Path) -> bool:
        """Return whether a run of an earlier sweep has data of all seeds: results of some may be kept elsewhere."""
        config = run / "config.json"
        return config.exists() and set(self.seeds) <= set(read_json(config)["seeds"])

    def trials(self) -> list[Trial]:
        """List trials in the order of the runs."""
        found = []
        for folder, experiment in self.runs().items():
            size = self.at_once if experiment.entry.seeds_at_once else 1
            lots = [experiment.seeds[start : start + size] for start in range(0, len(experiment.seeds), size)]
            found += [Trial(folder, experiment, lot) for lot in lots]
        return found


_EXAMPLES = {
    "families": "cheetah-vel, ant-dir",
    "methods": "smac, macaw",
    "arms": "frozen",
    "seeds": "0, 1, 2",
    "skip": "cheetah-vel-macaw",
}


def run_sweep(
    sweep: Sweep,
    address: str | None = None,
    quiet: bool = False,
    finished: Callable[[Path], None] = lambda folder: None,
) -> dict[str, str]:
    """Run every unfinished trial, and write each run's summary as soon as it can be.

    Args:
        sweep: what to run; existing folders are continued.
        address: of a Ray cluster, such as `auto`; None starts one on this machine.
        quiet: no progress bar.
        finished: called with the folder of each finished run.

    Returns:
        The failed trials by name, with the reason.

    Raises:
        ImportError: Ray is not installed.
        OSError: Ray does not start, or is not at the address.
        StorageError: a folder contains another experiment, or another process uses it.
        ValueError: a trial reserves more than there is.
    """
    with ExitStack() as stack:
        for folder, experiment in sweep.runs().items():
            stack.enter_context(holding(folder))
            claim_folder(folder, experiment.to_dict(), GROWS)

        def summarise(folder: Path, experiment: Experiment) -> None:
            if all(is_finished(folder, experiment, seed) for seed in experiment.seeds):
                if not _is_summarised(folder, experiment):
                    write_summary(folder, experiment, threads=sweep.num_cpus)
                finished(folder)

        left = [trial for trial in sweep.trials() if not trial.is_finished]
        for folder, experiment in sweep.runs().items():
            summarise(folder, experiment)
        return _run(left, sweep, address, quiet, summarise) if left else {}


def _is_summarised(folder: Path, experiment: Experiment) -> bool:
    if not (file := folder / "summary.json").exists():
        return False
    with reading(file):
        summary = read_json(file)
        return all(set(summary[name]) == set(getattr(experiment, name)) for name in GROWS)


def _run(
    trials: Sequence[Trial], sweep: Sweep, address: str | None, quiet: bool, done: Callable[[Path, Experiment], None]
) -> dict[str, str]:
    """Run trials as tasks of Ray, which moves them if a machine fails."""
    with _cluster(sweep, address) as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()
        task = ray.remote(num_cpus=sweep.num_cpus, num_gpus=sweep.num_gpus, max_retries=-1)(_learn)
        running: dict[Any, Trial] = {}
        for trial in trials:
            of_data = [r for r, other in running.items() if trial.experiment.data == str(other.folder)]
            needed = [r for r in of_data if set(running[r].seeds) & set(trial.seeds)]
            running[task.options(name=trial.name).remote(trial, sweep.num_cpus, board, *needed)] = trial
        try:
            return _watch(ray, running, board, quiet, done)
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=True)
            raise


@contextmanager
def _cluster(sweep: Sweep, address: str | None) -> Iterator[Any]:
    try:
        import ray
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if found := re.fullmatch(r"([\w.-]+):(\d+)", address or ""):  # Ray would try for minutes, then exit
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except OSError as error:
            raise OSError(f"Ray is not reachable at {address}: {error}") from error
    memory: dict[str, Any] = {} if address else {"object_store_memory": 100 << 20}  # trials exchange files, not objects
    for attempt in (1, 2, 3):  # on a busy machine, Ray may not start in time
        try:
            ray.init(address=address or "local", logging_level=logging.WARNING, log_to_driver=False, **memory)
            break
        except Exception as error:  # Ray has no class for this
            ray.shutdown()
            if attempt == 3 or address is not None:
                where = f"is not reachable at {address}" if address else "does not start"
                raise OSError(f"Ray {where}: {' '.join(str(error).split())}") from error
    try:
        there = ray.cluster_resources()
        for name, wanted in (("CPU", sweep.num_cpus), ("GPU", sweep.num_gpus)):
            if wanted > there.get(name, 0.0):
                raise ValueError(f"a trial reserves {wanted:g} {name}, and there are {there.get(name, 0.0):g}")
        yield ray
    finally:
        ray.shutdown()


class _Board:
    """Updates of each trial so far; an actor of Ray."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def note(self, trial: str, done: int) -> None:
        self.done[trial] = done

    def read(self) -> dict[str, int]:
        return self.done


def _learn(trial: Trial, threads: int, board: Any, *_data_is_there: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    for seed in trial.seeds:  # a failed machine may have left half-written files
        if (own := trial.folder / f"seed_{seed}").exists():
            remove_partial(own)
    run_seeds(trial.folder, trial.experiment, trial.seeds, _teller(trial, board))


def _teller(trial: Trial, board: Any) -> Callable[[str, int, int], None]:
    """Return a function that notes progress, at most once per second."""
    updates = trial.experiment.updates()
    before = dict(zip(updates, itertools.accumulate(updates.values(), initial=0), strict=False))
    last = 0.0

    def tick(what: str, done: int, total: int) -> None:
        nonlocal last
        if what in before and (time.monotonic() - last > 1.0 or done == total):
            last = time.monotonic()
            board.note.remote(trial.name, before[what] + done)

    return tick


def _watch(
    ray: Any, running: Mapping[Any, Trial], board: Any, quiet: bool, done: Callable[[Path, Experiment], None]
) -> dict[str, str]:
    """Wait for all tasks; return the reasons of failures."""
    from tqdm import tqdm

    failed: dict[str, str] = {}
    pending, total = list(running), sum(sum(trial.experiment.updates().values()) for trial in running.values())
    with tqdm(total=total, unit=" updates", disable=quiet, smoothing=0.05) as bar:
        while pending:
            ready, pending = ray.wait(pending, timeout=1.0)
            for reference in ready:
                try:
                    ray.get(reference)
                    done(running[reference].folder, running[reference].experiment)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    failed[running[reference].name] = f"{type(cause).__name__}: {str(cause).splitlines()[-1]}"
            bar.set_description(f"{len(running) - len(pending)} of {len(running)} trials")
            bar.update(sum(ray.get(board.read.remote()).values()) - bar.n)
    return failed
