"""All seeds of an experiment side by side on one GPU, into a run's folder as `smac-lab train` writes it.

    python docs/seeds_at_once.py cheetah-vel --seeds 0 1 2 3 4 --out runs/cheetah
    python docs/seeds_at_once.py cheetah-vel --seeds 0 1 --out runs/try --preset smoke

PEARL, the offline phase and every arm run for all seeds at once; the processor's cores measure saved agents meanwhile.
Then `smac_lab.report.write_report(folder)` shows what was found. It cannot be continued after a stop.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import Future, ProcessPoolExecutor
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
from smac_lab.data.storage import claim_folder, load_dataset
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


def main() -> None:
    """Run the experiment."""
    options = arguments()
    torch.set_float32_matmul_precision("high")  # TF32 products where there is a GPU that has them
    config = configure(options.family, options.preset, None, tuple(options.set))
    experiment = Experiment(options.family, options.preset, config, tuple(options.seeds), tuple(options.arms))
    seeds, out = experiment.seeds, options.out
    claim_folder(out, experiment.to_dict())
    family = lab.make_family(experiment.family)
    splits = [family.split(config.n_train_tasks, config.n_test_tasks, seed) for seed in seeds]
    tasks = [train for train, _ in splits]
    pool = ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"))
    threads = max(1, torch.get_num_threads() // options.workers)

    def save(agents: lab.SMAC, phase: str, done: int, seconds: float, buffers: Any = None) -> list[Future[Any]]:
        """Save each seed's agent, and have it measured."""
        futures = []
        for i, (seed, agent) in enumerate(zip(seeds, agents.split(), strict=True)):
            path, progress = out / f"seed_{seed}" / phase / "checkpoint", {"done": done, "seconds": seconds}
            step = checkpoint.save(path, agent, buffer=buffers and buffers[i], progress=progress)
            futures.append(pool.submit(measure_saved, out, experiment.family, step, seed, threads))
            futures[-1].add_done_callback(partial(tell, f"{phase} {done}, seed {seed}"))
        return futures

    # data
    collected: list[Any] = [None] * len(seeds)
    empty = [lab.TransitionBuffer(family.spec, len(train), config.torch_device()) for train in tasks]
    if uses_pearl(config) and not options.data:
        pearl, joined = lab.SMAC(config.for_pearl(), family.spec, seed=seeds), lab.TransitionBuffer.join(empty)
        amounts = (config.behaviour_iterations, config.behaviour_updates, config.behaviour_initial_episodes)
        alpha = partial(temperature_of, config)
        for iteration, metrics in lab.train_pearl(pearl, joined, family, tasks, *amounts, temperature=alpha):
            if iteration % max(1, config.behaviour_iterations // 10) == 0:
                say(f"PEARL {iteration}: rewards of an episode {metrics['collected_reward_mean'] * family.horizon}")
        collected = list(joined.split())
    parts = zip(seeds, tasks, collected, strict=True)
    if options.data:
        data = [load_dataset(folder, family)[0].to(config.torch_device()) for folder in options.data]
    else:
        data = [lab.collect_behaviour(family, train, config, seed, pearl=seen) for seed, train, seen in parts]
    say(f"data: {data[0]}")
    for source in ("offline", "exploration"):
        rewards = [one.rewards[one.codes == CODES[source]] for one in data]
        say(f"{source}: return {[round(float(one.mean()) * family.horizon, 1) for one in rewards if len(one)]}")

    # offline phase
    agents, buffers, start = (
        lab.SMAC(config, family.spec, seed=seeds),
        lab.TransitionBuffer.join(data),
        time.monotonic(),
    )
    for _ in lab.train_offline(agents, buffers, log_every=config.offline_steps):
        pass
    say(f"{config.offline_steps} offline updates in {time.monotonic() - start:.0f} s")
    pending = {("offline", config.offline_steps): save(agents, "offline", 1, time.monotonic() - start, data)}

    # every arm, from there
    rows: dict[str, list[tuple[int, Any]]] = {}
    newest = config.online_tasks * (config.prior_episodes + config.posterior_episodes) * family.horizon
    state, every = agents.state_dict(), max(1, config.online_iterations // options.measurements)
    for arm in experiment.arms:
        agents, start = lab.SMAC(config, family.spec, seed=seeds), time.monotonic()
        agents.load_state_dict(state)
        phase, here = rows.setdefault(folder_of(arm), []), buffers.clone()
        for iteration, metrics in lab.train_self_supervised(agents, here, family, tasks, arm=arm):
            phase.append((iteration, metrics))
            if iteration % every == 0 or iteration == config.online_iterations:
                labels = [
                    label_errors(*one, newest) for one in zip(here.split(), [family] * len(seeds), tasks, strict=True)
                ]
                metrics |= {name: [one[name] for one in labels] for name in labels[0]}
                futures = save(agents, folder_of(arm), iteration, time.monotonic() - start)
                pending[folder_of(arm), iteration] = futures
        say(f"{arm}: {config.online_iterations} iterations in {time.monotonic() - start:.0f} s")

    # what was measured, as a run's files
    found = {key: [future.result() for future in futures] for key, futures in pending.items()}
    pool.shutdown()
    for i, seed in enumerate(seeds):
        before = found["offline", config.offline_steps][i]
        save_measurement(out / f"seed_{seed}" / "offline" / "measurement.npz", before)
        for phase_name, metric_rows in rows.items():
            with MetricLog(out / f"seed_{seed}" / phase_name, 0) as log:
                log.write(0, summarise(before))
                for iteration, metrics in metric_rows:
                    known = found.get((phase_name, iteration))
                    row = {name: value[i] for name, value in metrics.items()}
                    log.write(iteration, row | (summarise(known[i]) if known else {}))
            last = found[phase_name, config.online_iterations][i]
            save_measurement(out / f"seed_{seed}" / phase_name / "measurement.npz", last)
    summary = write_summary(out, experiment, {"total": time.monotonic() - BEGAN})
    for phase_name, four in {"before": summary["before"], **summary["arms"]}.items():
        words = "; ".join(f"{name} {[round(value, 2) for value in values]}" for name, values in four.items())
        print(f"{phase_name}: {words}")
    print(f"wrote {out / 'summary.json'}")


if __name__ == "__main__":
    main()
