"""Sweeps: what a file asks for, and trials on a Ray cluster whose machine fails."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import smac_lab as lab
from smac_lab.runs import checkpoint
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.sweep import Sweep, run_sweep

FILE = """
out: {out}
preset: smoke
families: [point-robot]
methods: [cloning, smac]
arms: [frozen]
seeds: [0, 1]
variants:
  default: {{}}
  sharp: {{awac_lambda: 0.1}}
"""


def written(folder: Path, text: str = FILE, name: str = "sweep.yaml") -> Path:
    file = folder / name
    file.write_text(text.format(out=folder / "runs"))
    return file


# -- files -----------------------------------------------------------------------------------------------
def test_a_file_lists_runs_those_first_whose_data_others_use(tmp_path: Path) -> None:
    sweep = Sweep.read(written(tmp_path))
    runs = {folder.name: experiment for folder, experiment in sweep.runs().items()}
    assert list(runs) == ["point-robot", "point-robot-cloning", "point-robot-sharp", "point-robot-sharp-cloning"]
    assert runs["point-robot"].arms == ("frozen",)
    assert runs["point-robot-cloning"].arms == ()
    assert runs["point-robot-sharp-cloning"].data == str(tmp_path / "runs" / "point-robot-sharp")
    assert runs["point-robot-sharp"].config.awac_lambda == 0.1
    assert [trial.seeds for trial in sweep.trials()] == [(0,), (1,)] * 4
    together = dataclasses.replace(sweep, methods=("smac", "borel"), at_once=2)
    assert {(trial.experiment.method, trial.seeds) for trial in together.trials()} == {
        ("smac", (0, 1)),
        ("borel", (0,)),
        ("borel", (1,)),
    }


def test_a_python_file_defines_a_sweep(tmp_path: Path) -> None:
    text = "from smac_lab.runs.sweep import Sweep\nsweep = Sweep('{out}', ['point-robot'], 'smoke', seeds=range(3))\n"
    assert Sweep.read(written(tmp_path, text, "sweep.py")).seeds == (0, 1, 2)
    with pytest.raises(lab.StorageError, match="does not define sweep"):
        Sweep.read(written(tmp_path, "a = 1", "other.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: {out}\nfamilies: [moon]", "no presets for task family 'moon'"),
        ("out: {out}\nfamilies: point-robot", "families='point-robot' is not allowed: it must be a list"),
        ("out: {out}\nfamilies: []", r"families=\[\] is not allowed"),
        (
            "out: {out}\nfamilies: [point-robot]\nmethod: [smac]",
            r"unknown keys \['method'\]; known keys: out, families",
        ),
        ("families: [point-robot]", "lacks out"),
        ("out: {out}\nfamilies: [point-robot]\nmethods: [magic]", "unknown method 'magic'"),
        ("out: {out}\nfamilies: [point-robot]\narms: [none]", "unknown arm 'none'"),
        ("out: {out}\nfamilies: [point-robot]\nseeds: [1, 1]", "each once"),
        ("out: {out}\nfamilies: [point-robot]\nnum_cpus: 0", "num_cpus=0 is not allowed: an integer"),
        ("out: {out}\nfamilies: [point-robot]\nnum_cpus: 1.5", "num_cpus=1.5 is not allowed: an integer"),
        ("out: {out}\nfamilies: [point-robot]\nnum_gpus: .nan", "num_gpus=nan is not allowed"),
        ("out: {out}\nfamilies: [point-robot]\npreset: tpu", "unknown preset 'tpu'"),
        ("out: {out}\nfamilies: [point-robot]\nvariants: [a]", "must map names to fields"),
        (
            "out: {out}\nfamilies: [point-robot]\nvariants: {{a: {{lambda: 1}}}}",
            r"'a' names unknown fields \['lambda'\]",
        ),
        ("out: {out}\nfamilies: [point-robot]\nvariants: {{a: {{tau: 2}}}}", "tau=2 is not allowed"),
        ("out: [", "is missing or is not YAML"),
        ("- 1", "does not contain keys and values"),
    ],
)
def test_bad_files_end_in_one_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep.read(written(tmp_path, text))
    assert not (tmp_path / "runs").exists()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(lab.StorageError, match="is missing"):
        Sweep.read(tmp_path / "none.yaml")


# -- runs ------------------------------------------------------------------------------------------------
def equal_to_the_bit(folder: Path, other: Path) -> None:
    """The agents and buffers of all phases of two runs."""
    phases = [path.parent for path in sorted(folder.glob("seed_*/*/checkpoint"))]
    assert phases
    for phase in phases:
        one, two = (checkpoint.load(path / "checkpoint") for path in (phase, other / phase.relative_to(folder)))
        for name, part in one.agent.parts.items():
            for key, value in part.state_dict().items():
                assert torch.equal(value, two.agent.parts[name].state_dict()[key]), (phase, name, key)
        assert one.buffer is not None
        assert two.buffer is not None
        assert torch.equal(one.buffer.rows, two.buffer.rows), phase


def two_nodes() -> tuple[Any, Any]:
    """A Ray cluster of two nodes with a core each, and the second; on a busy machine Ray may need several attempts."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    for attempt in (1, 2, 3):
        cluster = Cluster()
        try:
            cluster.add_node(**node, include_dashboard=False)
            return cluster, cluster.add_node(**node)
        except Exception:  # Ray raises no class of its own here
            cluster.shutdown()
            if attempt == 3:
                raise
    raise AssertionError


def kill_later(cluster: Any, node: Any, runs: Path, trials: int) -> threading.Thread:
    """Kill a node once so many trials have begun."""

    def wait_and_kill() -> None:
        until = time.monotonic() + 120
        while len(list(runs.glob("*/seed_*/*/checkpoint"))) < trials and time.monotonic() < until:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "seeds", [2, pytest.param(6, marks=pytest.mark.learning)], ids=["four-trials", "twelve-trials"]
)
def test_a_killed_machine_loses_nothing(seeds: int, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs ray: pip install -e ".[dev]"')
    sweep = Sweep(str(tmp_path / "runs"), ["point-robot"], "smoke", ["smac", "cloning"], ["frozen"], range(seeds))
    cluster, second = two_nodes()
    try:
        killer = kill_later(cluster, second, tmp_path / "runs", seeds)
        finished: list[Path] = []
        failed = run_sweep(sweep, cluster.address, quiet=True, finished=finished.append)
        killer.join()
        assert len(cluster.list_all_nodes()) == 1
        large = dataclasses.replace(sweep, out=str(tmp_path / "large"), num_cpus=64)
        with pytest.raises(ValueError, match="a trial reserves 64 CPU, and there are"):
            run_sweep(large, cluster.address, quiet=True)
    finally:
        cluster.shutdown()
    assert failed == {}
    assert set(finished) == set(sweep.runs())
    for folder, experiment in sweep.runs().items():
        assert (folder / "summary.json").exists()
        alone = dataclasses.replace(experiment, data=None)
        run_experiment(tmp_path / "alone" / folder.name, alone, workers=1, quiet=True)
        equal_to_the_bit(folder, tmp_path / "alone" / folder.name)
    # The same sweep again has nothing left to do: it does not even start Ray.
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*") if file.name != ".lock"}
    assert run_sweep(sweep, "no such cluster", quiet=True) == {}
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*") if file.name != ".lock"}


def test_ray_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs ray: pip install -e ".[dev]"')
    sweep = Sweep(str(tmp_path / "runs"), ["point-robot"], "smoke")
    with pytest.raises(OSError, match=r"Ray is not reachable at 127\.0\.0\.1:1: "):
        run_sweep(sweep, "127.0.0.1:1", quiet=True)


def test_a_trial_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """A learning rate at which one variant diverges; the other finishes, and so does its summary."""
    pytest.importorskip("ray", reason='needs ray: pip install -e ".[dev]"')
    variants = {"default": {}, "hot": {"learning_rate": 1e20}}
    sweep = Sweep(str(tmp_path / "runs"), ["point-robot"], "smoke", arms=[], variants=variants)
    failed = run_sweep(sweep, quiet=True)
    assert list(failed) == ["point-robot-hot seed 0"]
    assert failed["point-robot-hot seed 0"].startswith("FloatingPointError: training diverged")
    assert (tmp_path / "runs" / "point-robot" / "summary.json").exists()
    assert not (tmp_path / "runs" / "point-robot-hot" / "summary.json").exists()
