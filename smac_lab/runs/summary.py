"""`summary.json`: the results of all seeds of a run."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smac_lab.arms import OF_ENCODER, folder_of
from smac_lab.config import SMACConfig
from smac_lab.data.storage import replace_text
from smac_lab.runs import checkpoint
from smac_lab.runs.measurement import SUCCESSES, load_measurement, references, success_by_description, summarise
from smac_lab.runs.plan import Experiment
from smac_lab.tasks import make_family
from smac_lab.tasks.spec import Array


def write_summary(
    folder: Path, experiment: Experiment, seconds: dict[str, float] | None = None, threads: int | None = None
) -> dict[str, Any]:
    """Gather all seeds' measurements into `summary.json`.

    Args:
        folder, experiment: a finished run.
        seconds: wall times beside those of the phases.
        threads: of each seed's process; default this process's.
    """
    family = make_family(experiment.family)

    def read(phase: str) -> list[dict[str, Array]]:
        return [load_measurement(folder / f"seed_{seed}" / phase / "measurement.npz") for seed in experiment.seeds]

    def four(phase: str) -> dict[str, list[float | None]]:
        scalars = [summarise(found) for found in read(phase)]
        names = {
            "online_context": "online_context_return",
            "offline_context": "offline_context_return",
            "shift": "shift",
            "test": "test_return",
        }
        names |= {name: name for name in scalars[0] if "success" in name}
        return {name: [s.get(of) for s in scalars] for name, of in names.items()}

    def described(phase: str) -> dict[str, dict[str, list[float | None]]]:
        """Map descriptions of tasks to measures, one value per seed, None for a seed without such tasks."""
        of_seeds = [success_by_description(family, found) for found in read(phase)]
        return {
            task: {name: [shares.get(task, {}).get(name) for shares in of_seeds] for name in SUCCESSES.values()}
            for task in sorted(set().union(*of_seeds))
        }

    phases = {"before": "offline", **{arm: folder_of(arm) for arm in experiment.arms}}
    known = []
    for seed in experiment.seeds:
        train, _ = family.split(experiment.config.n_train_tasks, experiment.config.n_test_tasks, seed)
        agent, stored, _ = checkpoint.load(folder / f"seed_{seed}" / "offline" / "checkpoint")
        known.append(references(family, train, stored, seed))
    mean = {k: None if known[0][k] is None else float(np.mean([r[k] for r in known])) for k in known[0]}
    summary = {
        "family": experiment.family,
        "preset": experiment.preset,
        "method": experiment.method,
        "seeds": list(experiment.seeds),
        "default_arm": OF_ENCODER[experiment.config.online_encoder],
        "before": four("offline"),
        "arms": {arm: four(folder_of(arm)) for arm in experiment.arms},
        "success_by_description": {phase: described(stored_in) for phase, stored_in in phases.items()},
        **mean,
        "offline_context": "offline" if stored is None else stored.offline_context,
        "seconds": {**_phase_seconds(folder, experiment), **(seconds or {})},
        "config": experiment.config.to_dict(),
        "versions": versions(),
        "commit": commit(),
        "parameters": sum(p.numel() for name in agent.trainable for p in agent.parts[name].parameters()),
        "device": _device_name(experiment.config),
        "threads": threads or torch.get_num_threads(),
    }
    replace_text(folder / "summary.json", json.dumps(summary, indent=1))
    return summary


def _phase_seconds(folder: Path, experiment: Experiment) -> dict[str, float]:
    def seconds(seed: int, phase: str) -> float:
        return float(checkpoint.read_progress(folder / f"seed_{seed}" / phase / "checkpoint")["seconds"])

    phases = ["offline", *map(folder_of, experiment.arms)]
    return {p: float(np.mean([seconds(seed, p) for seed in experiment.seeds])) for p in phases}


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    from importlib.metadata import version

    from smac_lab.version import __version__

    others = {name: version(name) for name in ("torch", "mujoco", "gymnasium", "numpy")}
    return {"python": platform.python_version(), "smac-lab": __version__, **others}


def commit() -> str | None:
    """Return the source's commit, or None outside a checkout."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _device_name(config: SMACConfig) -> str:
    on_gpu = config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())
    return torch.cuda.get_device_name() if on_gpu else "cpu"
