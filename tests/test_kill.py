"""A training run killed with SIGKILL at random moments ends with the parameters of an uninterrupted one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import smac_lab as lab
from smac_lab.experiment import DEFAULT_ARMS

PHASES = ("offline", *DEFAULT_ARMS)
SETTINGS = (
    "--preset",
    "smoke",
    "--threads",
    "1",
    "--set",
    "offline_steps=600",
    "online_iterations=6",
    "online_updates=60",
)


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "smac_lab", "train", "point-robot", "--out", str(out), *SETTINGS]


def start(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def written_since(folder: Path, moment: float) -> bool:
    return any(file.stat().st_mtime > moment for file in folder.glob("*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(out), check=True, capture_output=True)
    return out


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("phase", PHASES)
def test_killed_runs_resume_to_the_bit(uninterrupted: Path, tmp_path: Path, phase: str) -> None:
    """`SMAC_LAB_KILLS` kills (default 1) in each phase, each followed by going on."""
    rng, out, landed = random.Random(phase), tmp_path / "run", 0
    kills = int(os.environ.get("SMAC_LAB_KILLS", "1"))
    for _ in range(3 * kills):
        began, process = time.time(), start(out)
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
    subprocess.run(command(out), check=True, capture_output=True)
    for name in PHASES:
        one, two = (lab.load(run / "seed_0" / name / "checkpoint") for run in (uninterrupted, out))
        for part in one.agent.parts:
            a, b = one.agent.parts[part].state_dict(), two.agent.parts[part].state_dict()
            assert all(torch.equal(a[key], b[key]) for key in a), f"{part} of {name} differs"
        assert one.buffer is not None
        assert two.buffer is not None
        assert torch.equal(one.buffer.rows, two.buffer.rows)
        assert torch.equal(one.agent.generator.get_state(), two.agent.generator.get_state())
