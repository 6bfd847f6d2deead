"""A training run killed with SIGKILL at random moments ends with the parameters of an uninterrupted one."""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import smac_lab as lab
from smac_lab.runs.plan import DEFAULT_ARMS

PHASES = ("offline", *DEFAULT_ARMS)
SETTINGS = (
    "--preset",
    "smoke",
    "--threads",
    "1",
    *("--offline-steps", "600", "--online-iterations", "6", "--online-updates", "60"),
)


def command(out: Path, seeds: int) -> list[str]:
    """A run of some seeds that learn at once."""
    which = ["--seed", *map(str, range(seeds)), "--at-once", str(seeds)]
    return [sys.executable, "-m", "smac_lab", "train", "point-robot", "--out", str(out), *which, *SETTINGS]


def start(out: Path, seeds: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(out, seeds), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def written_since(folder: Path, moment: float) -> bool:
    return any(file.stat().st_mtime > moment for file in folder.glob("*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    @functools.cache
    def run(seeds: int) -> Path:
        out = tmp_path_factory.mktemp("whole") / "run"
        subprocess.run(command(out, seeds), check=True, capture_output=True)
        return out

    return run


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize(("phase", "seeds"), [*((phase, 1) for phase in PHASES), ("frozen", 2)])
def test_killed_runs_resume_to_the_bit(
    uninterrupted: Callable[[int], Path], tmp_path: Path, phase: str, seeds: int
) -> None:
    """`SMAC_LAB_KILLS` kills (default 1) in each phase, each followed by going on."""
    rng, out, landed = random.Random(phase), tmp_path / "run", 0
    kills = int(os.environ.get("SMAC_LAB_KILLS", "1"))
    for _ in range(3 * kills):
        began, process = time.time(), start(out, seeds)
        # Wait until this run writes in the phase's folder, then kill somewhere in the phase.
        while not written_since(out / "seed_0" / phase, began) and process.poll() is None:
            assert time.time() < began + 120
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.6))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            landed += 1
        process.wait()
        if landed == kills:
            break
        if process.returncode == 0:  # too late: the run had ended
            shutil.rmtree(out)
    assert landed == kills, f"only {landed} of {kills} kills came in time"
    print(f"{phase}: {landed} kills landed")
    subprocess.run(command(out, seeds), check=True, capture_output=True)
    for name, seed in itertools.product(PHASES, range(seeds)):
        runs = (uninterrupted(seeds), out)
        one, two = (lab.load(run / f"seed_{seed}" / name / "checkpoint") for run in runs)
        for part in one.agent.parts:
            a, b = one.agent.parts[part].state_dict(), two.agent.parts[part].state_dict()
            assert all(torch.equal(a[key], b[key]) for key in a), f"{part} of {name}, seed {seed}, differs"
        assert one.buffer is not None
        assert two.buffer is not None
        assert torch.equal(one.buffer.rows, two.buffer.rows)
        assert torch.equal(one.agent.generator.get_state(), two.agent.generator.get_state())
