"""Starter data: whole, small, and replayed one control step at a time."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

import smac_lab as lab
from smac_lab.data.starter import STARTER, load_replay, replay_error, write_starter
from smac_lab.tasks import FAMILIES, MujocoFamily

BODIES = [name for name, family in FAMILIES.items() if issubclass(family, MujocoFamily)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_with_some_tasks(name: str) -> None:
    record = json.loads((STARTER / name / "dataset.json").read_text())
    family = lab.make_family(record["spec"]["name"])
    buffer, tasks = lab.starter_data(family)
    assert buffer.n_tasks == len(tasks) >= 5
    assert buffer.offline_counts.tolist() == [600] * len(tasks)
    drawn, _ = family.split(record["config"]["n_train_tasks"], record["config"]["n_test_tasks"], record["seed"])
    np.testing.assert_array_equal(tasks.values, drawn.values[: len(tasks)])
    if buffer.has_exploration:
        assert int(buffer.counts_of("exploration").min()) >= 2 * family.horizon
    assert record["command"].startswith(f"smac-lab collect {record['spec']['name']} ")
    config = lab.SMACConfig.preset(name, "smoke")
    agent = lab.SMAC(config, family.spec)
    _, metrics = next(lab.train_offline(agent, buffer, steps=1))
    assert np.isfinite(list(metrics.values())).all()


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in STARTER.rglob("*") if file.is_file()) < 25e6


@pytest.mark.parametrize("name", BODIES)
def test_states_and_actions_lead_where_they_led(name: str) -> None:
    family = lab.make_family(json.loads((STARTER / name / "dataset.json").read_text())["spec"]["name"])
    assert isinstance(family, MujocoFamily)
    replay = load_replay(family)
    assert len(replay["actions"]) >= 200
    errors = replay_error(family, replay)
    assert set(errors) >= {"after_qpos", "after_qvel", "features", "rewards"}
    for what, error in errors.items():
        size = max(1.0, np.abs(replay[what]).max())  # contact forces reach 1e7 N^2
        assert error < 1e-6 * size, what
    replay["actions"] = -replay["actions"]
    assert replay_error(family, replay)["after_qvel"] > 1e-3


def test_what_there_is_none_of(tmp_path: Path) -> None:
    other = lab.make_family("cheetah-vel", obs="v5")
    with pytest.raises(lab.StorageError, match="cheetah-vel:obs=v5"):
        lab.starter_data(other)

    class Mine(lab.tasks.HalfCheetah):
        name = "mine"

        def sample_tasks(self, rng: np.random.Generator, n: int) -> np.ndarray:
            return rng.uniform(0, 1, (n, 1))

    with pytest.raises(lab.StorageError, match=r"no starter data for mine; there is some for .*cheetah-vel"):
        lab.starter_data(Mine())


def test_an_excerpt_keeps_the_last_transitions_of_the_first_tasks(tmp_path: Path) -> None:
    family = lab.make_family("point-robot")
    tasks, _ = family.split(6, 1, seed=0)
    config = dataclasses.replace(
        lab.SMACConfig.preset("point-robot", "cpu"), behaviour_iterations=2, behaviour_updates=5
    )
    buffer = lab.collect_behaviour(family, tasks, config, seed=0)
    write_starter(tmp_path, buffer, family, tasks, {"seed": 0}, n_tasks=4)
    assert not (tmp_path / "replay.safetensors").exists()  # nothing to be simulated
    small, few, _ = lab.data.storage.load_dataset(tmp_path, family)
    np.testing.assert_array_equal(few.values, tasks.values[:4])
    for task in range(4):
        for source in ("offline", "exploration"):
            last = buffer.rewards[buffer.rows_of(task, source)[-600:]]
            np.testing.assert_array_equal(small.rewards[small.rows_of(task, source)], last)
    assert os.listdir(tmp_path / "buffer")
