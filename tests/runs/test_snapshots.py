"""Agents along a run: read back as they were, small enough to ship, and never of something else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import smac_lab as lab
from smac_lab.runs import snapshots
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import Experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run of the point robot, of seed 0, as the starter data is."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = lab.SMACConfig.preset("point-robot", "smoke")
    run_experiment(folder, Experiment("point-robot", "smoke", config, arms=("frozen", "self-labelled")), quiet=True)
    return folder


def test_reads_every_saved_iteration(run) -> None:
    found = snapshots.read_snapshots(run)
    assert list(found.arms) == ["frozen", "self-labelled"]
    assert found.iterations == [0, 1, 2]
    assert found.agent("frozen", 0) is found.agent() is found.before
    assert found.agent("frozen", 2).updates > found.agent("frozen", 1).updates > found.before.updates
    same = [torch.equal(a, b) for a, b in zip(*(encoder_of(found.agent("frozen", i)) for i in (0, 2)), strict=True)]
    moved = [
        torch.equal(a, b) for a, b in zip(*(encoder_of(found.agent("self-labelled", i)) for i in (0, 2)), strict=True)
    ]
    assert all(same)
    assert not any(moved)


def encoder_of(agent):
    return list(agent.encoder.parameters())


def test_excerpt_holds_the_same_agents_in_half_precision(run, tmp_path) -> None:
    found = snapshots.read_snapshots(run)
    snapshots.write_excerpt(tmp_path / "small", found, (2,), about={"made_by": "a test"})
    small = snapshots.read_snapshots(tmp_path / "small")
    assert small.iterations == [0, 2]
    assert small.agent("frozen", 2).config.online_encoder == "frozen"
    for arm, iteration in ((None, 0), ("frozen", 2), ("self-labelled", 2)):
        one, other = found.agent(arm, iteration), small.agent(arm, iteration)
        for name in snapshots.KEPT:
            for a, b in zip(one.parts[name].parameters(), other.parts[name].parameters(), strict=True):
                assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
    labeller = small.agent("frozen", 2).labeller
    assert labeller is not None
    for a, b in zip(labeller["encoder"].parameters(), small.before.encoder.parameters(), strict=True):
        assert torch.equal(a, b)  # what labels is what the offline phase ended with
    # Its tasks are those of the starter data, which the run of that seed begins with, too.
    n = min(len(small.tasks), len(found.tasks))
    assert np.array_equal(small.tasks.values[:n], found.family.split(100, 20, 0)[0].values[:n])


def test_every_example_is_read_and_learned_something() -> None:
    names = sorted(path.parent.name for path in snapshots.EXAMPLES.glob("*/excerpt.json"))
    assert "point-robot" in names
    assert sum(f.stat().st_size for f in snapshots.EXAMPLES.rglob("*") if f.is_file()) < 7.5e6
    for name in names:
        found = snapshots.example(name)
        assert found.iterations[0] == 0
        assert len(found.iterations) > 1
        record = json.loads((snapshots.EXAMPLES / name / "excerpt.json").read_text())
        assert all("/tmp" not in command for command in record["made_by"])


def test_the_shipped_point_robot_shows_the_shift_and_how_it_closes() -> None:
    """The example must show what the notebooks say of it: far more than noise lies between these returns."""
    for name, arm in (("point-robot", "frozen"), ("point-robot-narrow", "self-labelled")):
        found = snapshots.example(name)
        before, after = (
            lab.measure_shift(agent, found.family, found.tasks, found.buffer)
            for agent in (found.before, found.agent(arm, 20))
        )
        assert before.offline_context_return - before.online_context_return > 5
        assert after.offline_context_return - after.online_context_return < 4


@pytest.mark.parametrize("missing", ["nothing", "file"])
def test_what_is_no_run_is_refused(tmp_path, missing) -> None:
    with pytest.raises(lab.StorageError, match=r"examples are .*point-robot"):
        snapshots.read_snapshots(tmp_path / missing)


def test_an_excerpt_has_one_seed() -> None:
    assert snapshots.read_snapshots("point-robot", 0).arms
    with pytest.raises(lab.StorageError, match="is an excerpt of seed 0, and has no seed 7"):
        snapshots.read_snapshots("point-robot", 7)


def test_a_damaged_excerpt_is_refused(run, tmp_path) -> None:
    folder = snapshots.write_excerpt(tmp_path / "small", snapshots.read_snapshots(run))
    data = bytearray((folder / "agents.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "agents.safetensors").write_bytes(data)
    with pytest.raises(lab.StorageError, match=r"agents\.safetensors"):
        snapshots.read_snapshots(folder)


def test_what_was_not_kept_is_named(run) -> None:
    found = snapshots.read_snapshots(run)
    with pytest.raises(ValueError, match="no arm 'best' here; there is frozen, self-labelled"):
        found.agent("best", 2)
    with pytest.raises(ValueError, match="kept are 0, 1, 2"):
        found.agent("frozen", 7)
    with pytest.raises(ValueError, match="no arm 'oracle'"):
        snapshots.write_excerpt(run.parent / "never", found, (2,), ("oracle",))
    with pytest.raises(lab.StorageError, match="seed 5"):
        snapshots.read_snapshots(run, seed=5)


def test_several_seeds_are_refused(problem) -> None:
    agents = lab.SMAC(problem.config, problem.family.spec, seed=range(2))
    with pytest.raises(ValueError, match=r"agent\.split\(\)"):
        snapshots.Snapshots.of(agents, problem.family, problem.train, problem.buffer)
