"""Runs killed at random moments end as uninterrupted ones: SMAC and its arms, PEARL, prior work."""

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
SETTINGS = "--offline-steps 600 --online-iterations 6 --online-updates 60"
# What is run, by name; and in which folders of a seed it leaves checkpoints.
RUNS = {
    "smac": (f"point-robot {SETTINGS}", PHASES),
    "two seeds": (f"point-robot {SETTINGS} --seed 0 1 --at-once 2", PHASES),
    "pearl": ("cheetah-vel --arms --behaviour-iterations 3 --behaviour-updates 100", ("behaviour", "offline")),
    "macaw": ("point-robot --method macaw", ("offline",)),
    "borel": ("point-robot --method borel", ("offline",)),
}
CASES = [*(("smac", phase) for phase in PHASES), ("two seeds", "frozen"), ("pearl", "behaviour")]
CASES += [("macaw", "offline"), ("borel", "offline")]


def command(out: Path, which: str) -> list[str]:
    words = [*RUNS[which][0].split(), "--preset", "smoke", "--threads", "1", "--out", str(out)]
    return [sys.executable, "-m", "smac_lab", "train", *words]


def start(out: Path, which: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(out, which), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def written_since(folder: Path, moment: float) -> bool:
    return any(file.stat().st_mtime > moment for file in folder.glob("*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @functools.cache
    def run(which: str) -> Path:
        out = tmp_path_factory.mktemp("whole") / "run"
        subprocess.run(command(out, which), check=True, capture_output=True)
        return out

    return run


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize(("which", "phase"), CASES)
def test_killed_runs_resume_to_the_bit(
    uninterrupted: Callable[[str], Path], tmp_path: Path, which: str, phase: str
) -> None:
    """`SMAC_LAB_KILLS` kills (default 1) in each phase, each followed by going on."""
    rng, out, landed = random.Random(which + phase), tmp_path / "run", 0
    kills = int(os.environ.get("SMAC_LAB_KILLS", "1"))
    for _ in range(3 * kills):
        began, process = time.time(), start(out, which)
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
    print(f"{which}, {phase}: {landed} kills landed")
    subprocess.run(command(out, which), check=True, capture_output=True)
    runs = (uninterrupted(which), out)
    for name, seed in itertools.product(RUNS[which][1], range(len(list(out.glob("seed_*"))))):
        one, two = (lab.load(run / f"seed_{seed}" / name / "checkpoint") for run in runs)
        for part in one.agent.parts:
            a, b = one.agent.parts[part].state_dict(), two.agent.parts[part].state_dict()
            assert all(torch.equal(a[key], b[key]) for key in a), f"{part} of {name}, seed {seed}, differs"
        assert one.buffer is not None
        assert two.buffer is not None
        assert torch.equal(one.buffer.rows, two.buffer.rows)
        assert torch.equal(one.agent.generator.get_state(), two.agent.generator.get_state())
