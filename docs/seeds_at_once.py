"""All seeds of an experiment side by side on one GPU, into a run's folder as `smac-lab train` writes it.

    python docs/seeds_at_once.py cheetah-vel --seeds 0 1 2 3 4 --out runs/cheetah
    python docs/seeds_at_once.py cheetah-vel --seeds 0 1 --out runs/try --preset smoke

PEARL, the offline phase and every arm run for all seeds at once; the processor's cores measure saved agents meanwhile.
Then `smac_lab.report.write_report(folder)` shows what was found. It cannot be continued after a stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import smac_lab as lab
from smac_lab import checkpoint
from smac_lab.arms import ARMS, folder_of
from smac_lab.behaviour import temperature_of, uses_pearl
from smac_lab.cli import configure
from smac_lab.data.relabel import label_errors
from smac_lab.data.storage import claim_folder, holding, load_dataset
from smac_lab.data.store import CODES
from smac_lab.experiment import Experiment
from smac_lab.measurement import measure, save_measurement, summarise
from smac_lab.metric_log import MetricLog
from smac_lab.summary import write_summary

BEGAN = time.monotonic()


def arguments() -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--preset", choices=("smoke", "cpu", "paper"), default="cpu")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=["frozen", "self-labelled", "oracle"])
    parser.add_argument("--measurements", type=int, default=4, help="of each arm, on its way")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of smac-lab collect, one a seed")
    parser.add_argument("--workers", type=int, default=5, help="processes that measure")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    return parser.parse_args()


def say(words: str) -> None:
    """Print with the seconds so far."""
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {words}", flush=True)


def tell(what: str, measured: Future[Any]) -> None:
    """Say what was measured, as soon as it is."""
    found = summarise(measured.result())
    names = ("offline_context_return", "online_context_return", "test_return", "shift")
    say(f"{what}: " + ", ".join(f"{name} {found[name]:.2f}" for name in names))


def measure_saved(folder: Path, family_name: str, step: Path, seed: int, threads: int) -> dict[str, Any]:
    """In a process of its own: everything that is measured of one saved agent, on the processor."""
    torch.set_num_threads(threads)
    family = lab.make_family(family_name)
    agent = checkpoint.load(step, device="cpu", buffer=False).agent
    buffer = checkpoint.load(folder / f"seed_{seed}" / "offline" / "checkpoint", device="cpu").buffer
    assert buffer is not None
    train, test = family.split(agent.config.n_train_tasks, agent.config.n_test_tasks, seed)
    return measure(agent, family, train, test, buffer, seed)


class AtOnce:
    """An experiment whose seeds run side by side; `run` takes it from data to summary."""

    def __init__(self, experiment: Experiment, out: Path, workers: int, measurements: int):
        self.experiment, self.config, self.seeds, self.out = experiment, experiment.config, experiment.seeds, out
        self.family = lab.make_family(experiment.family)
        c = self.config
        self.tasks = [self.family.split(c.n_train_tasks, c.n_test_tasks, seed)[0] for seed in self.seeds]
        self.every = max(1, c.online_iterations // measurements)
        self.pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        self.threads = max(1, torch.get_num_threads() // workers)

    def run(self, folders: list[Path]) -> None:
        """Data, the offline phase, and every arm from there; an arm's files are written when it ends."""
        data = [load_dataset(folder, self.family)[0] for folder in folders] if folders else self.collect()
        buffers = lab.TransitionBuffer.join([one.to(self.config.torch_device()) for one in data])
        say(f"data: {data[0]}")
        for source in ("offline", "exploration"):
            rewards = [one.rewards[one.codes == CODES[source]] for one in data]
            say(
                f"{source}: return {[round(float(one.mean()) * self.family.horizon, 1) for one in rewards if len(one)]}"
            )

        agents, start = lab.SMAC(self.config, self.family.spec, seed=self.seeds), time.monotonic()
        for _ in lab.train_offline(agents, buffers, log_every=self.config.offline_steps):
            pass
        say(f"{self.config.offline_steps} offline updates in {time.monotonic() - start:.0f} s")
        measured = self.save(agents, "offline", 1, time.monotonic() - start, data)
        state = agents.state_dict()
        arms: list[str] = []
        for arm in self.experiment.arms:
            phase, start = Phase(), time.monotonic()
            agents = lab.SMAC(self.config, self.family.spec, seed=self.seeds)
            agents.load_state_dict(state)
            self.train(agents, buffers.clone(), arm, phase)
            say(f"{arm}: {self.config.online_iterations} iterations in {time.monotonic() - start:.0f} s")
            arms.append(arm)
            self.write(folder_of(arm), [future.result() for future in measured], phase)
            done = dataclasses.replace(self.experiment, arms=tuple(arms))
            summary = write_summary(self.out, done, {"total": time.monotonic() - BEGAN})
            say(f"{arm}: { ({k: [round(v, 2) for v in values] for k, values in summary['arms'][arm].items()}) }")
        self.pool.shutdown()
        print(f"wrote {self.out / 'summary.json'}")

    def collect(self) -> list[lab.TransitionBuffer]:
        """Each seed's data set, PEARL's runs at once."""
        c, family, collected = self.config, self.family, [None] * len(self.seeds)
        if uses_pearl(c):
            empty = [lab.TransitionBuffer(family.spec, len(train), c.torch_device()) for train in self.tasks]
            pearl, joined = lab.SMAC(c.for_pearl(), family.spec, seed=self.seeds), lab.TransitionBuffer.join(empty)
            amounts = (c.behaviour_iterations, c.behaviour_updates, c.behaviour_initial_episodes)
            alpha = partial(temperature_of, c)
            for iteration, metrics in lab.train_pearl(pearl, joined, family, self.tasks, *amounts, temperature=alpha):
                if iteration % max(1, c.behaviour_iterations // 5) == 0:
                    say(f"PEARL {iteration}: rewards of an episode {metrics['collected_reward_mean'] * family.horizon}")
            collected = list(joined.split())
        parts = zip(self.seeds, self.tasks, collected, strict=True)
        return [lab.collect_behaviour(family, train, c, seed, pearl=seen) for seed, train, seen in parts]

    def train(self, agents: lab.SMAC, buffers: lab.TransitionBuffer, arm: str, phase: Phase) -> None:
        """One arm of all seeds."""
        c, start = self.config, time.monotonic()
        newest = c.online_tasks * (c.prior_episodes + c.posterior_episodes) * self.family.horizon
        for iteration, metrics in lab.train_self_supervised(agents, buffers, self.family, self.tasks, arm=arm):
            if iteration % self.every == 0 or iteration == c.online_iterations:
                if ARMS[arm].interacts:
                    own = zip(buffers.split(), self.tasks, strict=True)
                    labels = [label_errors(one, self.family, train, newest) for one, train in own]
                    metrics |= {name: [one[name] for one in labels] for name in labels[0]}
                phase.measured[iteration] = self.save(agents, folder_of(arm), iteration, time.monotonic() - start)
            phase.rows.append((iteration, metrics))

    def save(self, agents: lab.SMAC, phase: str, done: int, seconds: float, data: Any = None) -> list[Future[Any]]:
        """Save each seed's agent, and have it measured."""
        futures = []
        for i, (seed, agent) in enumerate(zip(self.seeds, agents.split(), strict=True)):
            path, progress = self.out / f"seed_{seed}" / phase / "checkpoint", {"done": done, "seconds": seconds}
            step = checkpoint.save(path, agent, buffer=data and data[i], progress=progress)
            futures.append(self.pool.submit(measure_saved, self.out, self.family.full_name, step, seed, self.threads))
            futures[-1].add_done_callback(partial(tell, f"{phase} {done}, seed {seed}"))
        return futures

    def write(self, folder: str, before: list[Any], phase: Phase) -> None:
        """An arm's `measurement.npz` and `metrics.csv`, and the offline phase's."""
        found = {iteration: [future.result() for future in futures] for iteration, futures in phase.measured.items()}
        for i, seed in enumerate(self.seeds):
            here = self.out / f"seed_{seed}"
            save_measurement(here / "offline" / "measurement.npz", before[i])
            with MetricLog(here / folder, 0) as log:
                log.write(0, summarise(before[i]))
                for iteration, metrics in phase.rows:
                    row = {name: value[i] for name, value in metrics.items()}
                    log.write(iteration, row | (summarise(found[iteration][i]) if iteration in found else {}))
            save_measurement(here / folder / "measurement.npz", found[max(found)][i])


@dataclass
class Phase:
    """What comes of an arm: metrics of its iterations, and what is being measured of its agents."""

    rows: list[tuple[int, Any]] = field(default_factory=list)
    measured: dict[int, list[Future[Any]]] = field(default_factory=dict)


def main() -> None:
    """Run the experiment."""
    options = arguments()
    torch.set_float32_matmul_precision("high")  # TF32 products where there is a GPU that has them
    config = configure(options.family, options.preset, None, tuple(options.set))
    experiment = Experiment(options.family, options.preset, config, tuple(options.seeds), tuple(options.arms))
    with holding(options.out):
        claim_folder(options.out, experiment.to_dict())
        AtOnce(experiment, options.out, options.workers, options.measurements).run(options.data)


if __name__ == "__main__":
    main()
