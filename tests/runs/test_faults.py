"""What people run into: a setting given twice, a folder in use, a parent that is gone, numbers that cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import psutil
import pytest
import torch

import smac_lab as lab
from smac_lab import cli
from smac_lab.data.storage import PARTIAL, holding, replacing
from smac_lab.figures.findings import read_run
from smac_lab.runs.measurement import load_measurement
from smac_lab.tasks import rendering


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smac_lab", *words], capture_output=True, text=True, timeout=120, **options
    )


# -- one line of words, exit code 2, nothing half-written --------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tau", "0.1", "--tau", "0.2"], "--tau is given 2 times; give all its values once: --tau A B"),
        (["--seed", "0", "--seed=1"], "--seed is given 2 times"),
        (["--z-dim", "3", "--z_dim=3"], "--z-dim is given 2 times"),
        (["--compile", "--no-compile"], "--compile is given 2 times"),
        (["--encoder-hidden"], "encoder_hidden=() is not allowed: it must be a tuple"),
        (["--device", "gpu"], "device='gpu' is not allowed: it must be \"auto\""),
        (["--device", "cuda:77"], "device='cuda:77' is not here"),
        (["--threads", "0"], "--threads 0 is not allowed: at least 1"),
        (["--workers", "0"], "workers=0 is not allowed: at least 1"),
    ],
)
def test_bad_words_end_in_one_line_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        sys, "argv", ["smac-lab", "train", "point-robot", "--preset", "smoke", "--out", str(tmp_path / "run"), *words]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {message}")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_a_file_or_below_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(lab.StorageError, match="cannot be a folder to write in"), holding(folder):
            pass


# -- one process at a time, and none left over -------------------------------------------------------------------


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    left = tmp_path / "seed_0" / f"{PARTIAL}step"
    left.mkdir(parents=True)
    (tmp_path / f"{PARTIAL}1_summary.json").touch()
    with holding(tmp_path):
        assert not list(tmp_path.rglob(f"{PARTIAL}*"))  # what a killed process left half-written is gone
        second = run("train", "point-robot", "--preset", "smoke", "--out", str(tmp_path))
        assert second.returncode == 2
        assert (
            second.stderr.strip()
            == f"error: another process is at work in {tmp_path}; wait for it, or choose another --out"
        )
    with holding(tmp_path):
        pass
    filelock.FileLock(tmp_path / ".lock", timeout=0).acquire()


def test_a_folder_below_that_another_process_holds_is_left_alone(tmp_path: Path) -> None:
    """As of `runs/demo` and `runs/demo/narrow`, which two processes may work in."""
    writing = tmp_path / "narrow" / "seed_0" / f"{PARTIAL}step"
    writing.parent.mkdir(parents=True)
    with holding(tmp_path / "narrow"):
        writing.touch()
        with holding(tmp_path):
            assert writing.exists()


def test_errors_of_what_is_done_in_a_held_folder_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), holding(tmp_path):
        raise PermissionError("elsewhere")
    with holding(tmp_path):  # and it was let go
        pass


def two_workers(folder: Path, **options: Any) -> tuple[subprocess.Popen[bytes], list[psutil.Process]]:
    """A run of two seeds, and its worker processes, once both are at work."""
    words = ["train", "point-robot", "--preset", "smoke", "--seed", "0", "1", "--offline-steps", "10000000"]
    command = [sys.executable, "-m", "smac_lab", *words, "--workers", "2", "--out", str(folder)]
    parent = subprocess.Popen(command, **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options})
    try:
        deadline = time.monotonic() + 90
        while len(list(folder.glob("seed_*/offline/events*"))) < 2:
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.2)
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 2
    except BaseException:
        parent.kill()
        raise
    return parent, workers


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(number: signal.Signals, tmp_path: Path) -> None:
    parent, workers = two_workers(tmp_path)
    try:
        parent.send_signal(number)
        assert parent.wait(30) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
    finally:
        parent.kill()
    with holding(tmp_path):  # nobody holds the folder any longer
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_a_run_ends_with_a_worker_that_the_system_killed(which: int, tmp_path: Path) -> None:
    """In one line, at once, and with all of its processes; a pool of Python 3.11 sees the first worker's death only."""
    parent, workers = two_workers(tmp_path, stderr=subprocess.PIPE)
    trained = [worker for worker in workers if "spawn_main" in " ".join(worker.cmdline())]
    try:
        trained[which].kill()
        _, said = parent.communicate(timeout=30)
        assert parent.returncode == 2
        last = said.decode().replace("\r", "\n").strip().splitlines()[-1]
        assert last.startswith("error: a worker process was ended from outside, often by the system for want of memory")
        assert "Traceback" not in said.decode()
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
    finally:
        parent.kill()
    with holding(tmp_path):
        pass


def test_nothing_is_left_of_a_file_whose_writing_failed(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")

    def write() -> None:
        with replacing(file) as partial:
            partial.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write()
    assert [f.name for f in tmp_path.iterdir()] == ["file.txt"]
    assert file.read_text() == "old"


def test_nothing_is_left_of_a_checkpoint_whose_writing_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), lab.make_family("point-robot").spec)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smac_lab.runs.checkpoint.write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        lab.save(tmp_path, agent)
    assert not list(tmp_path.iterdir())


# -- words of ours -----------------------------------------------------------------------------------------------


def test_damaged_measurements_and_summaries(tmp_path: Path) -> None:
    file = tmp_path / "measurement.npz"
    for content in (b"", b"PK\x03\x04 no archive", b"\x93NUMPY nothing"):
        file.write_bytes(content)
        with pytest.raises(lab.StorageError, match=r"measurement.npz cannot be read: it is no sound npz of arrays"):
            load_measurement(file)
    with pytest.raises(lab.StorageError, match="it is missing"):
        load_measurement(tmp_path / "none.npz")
    (tmp_path / "summary.json").write_text(json.dumps({"family": "point-robot", "seeds": [0]}))
    with pytest.raises(lab.StorageError, match="is no summary of a run: it lacks preset, default_arm, before"):
        read_run(tmp_path)
    (tmp_path / "summary.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(lab.StorageError, match="missing or damaged"):
        read_run(tmp_path)


def test_a_backend_that_failed_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "FAILED", {"egl": "no display was found"})
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(RuntimeError, match="Tried: egl: no display was found"):
        rendering._context_class.__wrapped__()


# -- numbers -----------------------------------------------------------------------------------------------------


def columns(n: int = 3, **changes: object) -> dict[str, object]:
    zeros = {"observations": np.zeros((n, 2)), "actions": np.zeros((n, 2)), "next_observations": np.zeros((n, 2))}
    flags = {"terminations": np.zeros(n, bool), "truncations": np.zeros(n, bool)}
    return {**zeros, **flags, "rewards": np.zeros(n), "features": np.zeros((n, 2)), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.zeros(3, complex)}, "rewards must be real numbers, got complex128"),
        ({"rewards": np.array(["1", "2", "3"])}, "rewards must be real numbers"),
        ({"terminations": np.array([0.0, 0.5, 0.0])}, "terminations must be 0 or 1, got 0.5"),
        ({"truncations": np.array([0, 2, 0])}, r"truncations must be 0 or 1, got 2\.0"),
    ],
)
def test_transitions_that_cannot_be(changes: dict[str, object], message: str) -> None:
    buffer = lab.TransitionBuffer(lab.make_family("point-robot").spec, 2)
    with pytest.raises(ValueError, match=message):
        buffer.append(0, columns(**changes), "offline")
    assert len(buffer) == 0


def test_tasks_sources_and_amounts_that_cannot_be() -> None:
    buffer = lab.TransitionBuffer(lab.make_family("point-robot").spec, 2)
    for task in (-1, 2, 0.5):
        with pytest.raises(ValueError, match="is not among the buffer's 2 tasks"):
            buffer.append(task, columns(), "offline")  # type: ignore[arg-type]
    buffer.append(np.int64(1), columns(rewards=torch.zeros(3, requires_grad=True)), "offline")
    for call in (lambda: buffer.rows_of(1, "ours"), lambda: buffer.counts_of("ours")):
        with pytest.raises(ValueError, match="source='ours' is not allowed: it must be one of 'offline'"):
            call()
    with pytest.raises(ValueError, match="task -1 is not among"):
        buffer.rows_of(-1)
    with pytest.raises(ValueError, match="transitions=-1 is not allowed"):
        buffer.reserve(-1)
    with pytest.raises(ValueError, match="-1 transitions cannot be drawn"):
        buffer.sample(torch.tensor([1]), -1, torch.Generator(), "offline")
    with pytest.raises(ValueError, match="valid must hold booleans, got int64"):
        buffer.append_batch([0], columns(1), ["offline"], np.array([[1]]))


def test_phases_of_a_negative_length() -> None:
    family = lab.make_family("point-robot")
    agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), family.spec)
    buffer, tasks = lab.starter_data(family)
    for options, message in (({"steps": -1}, "steps=-1 is not allowed"), ({"log_every": 0}, "log_every=0 is not")):
        with pytest.raises(ValueError, match=message):
            next(lab.train_offline(agent, buffer, **options))
    for options, message in (({"iterations": -1}, "iterations=-1 is not"), ({"log_every": 0}, "log_every=0 is not")):
        with pytest.raises(ValueError, match=message):
            next(lab.train_self_supervised(agent, buffer, family, tasks, **options))
    assert list(lab.train_offline(agent, buffer, steps=0)) == []


def test_context_as_numpy_users_have_it() -> None:
    family = lab.make_family("point-robot")
    agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), family.spec)
    context = np.random.default_rng(0).standard_normal((2, 10, family.spec.context_dim))
    expected = agent.infer_posterior(torch.as_tensor(context, dtype=torch.float32))
    for given in (context, torch.as_tensor(context)):
        torch.testing.assert_close(agent.infer_posterior(given).mean, expected.mean)
    context[1, 3, 0] = np.nan
    with pytest.raises(ValueError, match="context holds numbers that are not finite"):
        agent.infer_posterior(context)
    with pytest.raises(ValueError, match=r"context of point-robot must be \(..., n, 5\), got \(2, 10, 4\)"):
        agent.infer_posterior(context[..., :4])


def test_tasks_of_one_seed_are_one_set() -> None:
    family = lab.make_family("point-robot")
    agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), family.spec)
    buffer, tasks = lab.starter_data(family)
    for call in (
        lambda: lab.evaluate(agent, family, [tasks]),
        lambda: lab.measure_shift(agent, family, [tasks], buffer),
    ):
        with pytest.raises(ValueError, match=r"needs its tasks as one lab.Tasks\(values\), got a list"):
            call()


def test_seeds_and_actions_as_numpy_and_torch_users_have_them() -> None:
    env = lab.make_family("point-robot").batch_env(lab.Tasks(np.zeros((2, 2))))
    one, _ = env.reset(seed=[3, 4])
    np.testing.assert_array_equal(env.reset(seed=np.array([3, 4]))[0], one)
    np.testing.assert_array_equal(env.reset(seed=np.int64(3))[0], one)
    moved, *_ = env.step(torch.ones(2, 2, requires_grad=True))
    env.reset(seed=[3, 4])
    np.testing.assert_array_equal(env.step(np.ones((2, 2)))[0], moved)


def test_files_are_utf_8_under_any_locale(tmp_path: Path) -> None:
    """A whole run with its report, where the platform's encoding is ASCII."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["train", "point-robot", "--preset", "smoke", "--arms", "frozen", "--out", str(tmp_path)]
    done = run(*words, env=environment)
    assert done.returncode == 0, done.stderr[-500:]
    assert "\N{MINUS SIGN}" in (tmp_path / "report.html").read_text(encoding="utf-8")


# -- disks that are full or locked -------------------------------------------------------------------------------


def mounted(folder: Path, megabytes: int) -> bool:
    """Mount a small file system; False where that is not allowed."""
    folder.mkdir()
    try:
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_run_on_a_full_disk_ends_in_one_line_and_continues(tmp_path: Path) -> None:
    """The disk holds the first checkpoints alone; with more room the same command finishes, equal to the bit."""
    disk = tmp_path / "disk"
    if not mounted(disk, 1):
        pytest.skip("mounting a file system is not allowed here")
    words = ["train", "point-robot", "--preset", "smoke", "--threads", "1", "--offline-steps", "400", "--arms"]
    try:
        full = run(*words, "--out", str(disk / "run"))
        assert full.returncode == 2, full.stderr
        said = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        assert "No space left on device" in said[0]
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert run(*words, "--out", str(disk / "run")).returncode == 0
        assert not list(disk.rglob(f"{PARTIAL}*"))
        assert run(*words, "--out", str(tmp_path / "whole")).returncode == 0
        runs = [lab.load(folder / "seed_0" / "offline" / "checkpoint") for folder in (disk / "run", tmp_path / "whole")]
        for part in runs[0].agent.parts:
            one, two = (found.agent.parts[part].state_dict() for found in runs)
            assert all(torch.equal(one[key], two[key]) for key in one)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_read_only_folder_is_told_in_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not mounted(disk, 1):
        pytest.skip("mounting a file system is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = run("train", "point-robot", "--preset", "smoke", "--out", str(disk / "run"))
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "Read-only file system" in done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_files_from_the_future_do_not_confuse_a_run(tmp_path: Path) -> None:
    """As after a clock that was set back."""
    words = ["train", "point-robot", "--preset", "smoke", "--threads", "1", "--arms"]
    assert run(*words, "--offline-steps", "40", "--out", str(tmp_path / "run")).returncode == 0
    later = time.time() + 1e8
    for file in tmp_path.rglob("*"):
        os.utime(file, (later, later))
    before = (tmp_path / "run" / "seed_0" / "offline" / "measurement.npz").read_bytes()
    assert run(*words, "--offline-steps", "40", "--out", str(tmp_path / "run")).returncode == 0
    assert (tmp_path / "run" / "seed_0" / "offline" / "measurement.npz").read_bytes() == before
