"""Checks of data sets on the way out and in: what is recorded, and one clear error for each thing that is wrong."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import smac_lab as lab
from smac_lab.data.chains import COLUMNS
from smac_lab.data.storage import file_sha256, load_dataset, save_dataset
from smac_lab.data.validation import check_dataset
from smac_lab.tasks import AntDir

Tensors = dict[str, torch.Tensor]
REWARD = 2 + 2  # columns of the point robot's rows: observations, actions, reward, termination, truncation, features


@pytest.fixture
def saved(problem, tmp_path: Path) -> Path:
    return save_dataset(tmp_path / "data", problem.buffer, problem.family, problem.train, {"seed": 0})


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change `dataset.json`."""
    record = json.loads((path / "dataset.json").read_text())
    change(record)
    (path / "dataset.json").write_text(json.dumps(record))


def forge(path: Path, change: Callable[[Tensors], Tensors | None]) -> None:
    """Change the shard, and its hash and sizes in the record with it."""
    (file,) = (path / "buffer").iterdir()
    tensors = load_file(file)
    tensors = change(tensors) or tensors
    save_file(tensors, file)

    def sign(record: dict[str, Any]) -> None:
        sizes = {name: len(value) for name, value in tensors.items()}
        record["buffer"]["shards"][0] |= {"sha256": file_sha256(file), **sizes}

    edit(path, sign)


def put(row: int, column: int, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors["rows"][row, column] = value

    return change


# -- what is recorded --------------------------------------------------------------------------------------------


def test_the_record_says_what_is_in_it(problem, saved: Path) -> None:
    buffer, tasks, record = load_dataset(saved, problem.family)
    assert torch.equal(buffer.rows, problem.buffer.rows)
    np.testing.assert_array_equal(tasks.values, problem.train.values)
    checks, horizon = record["checks"], problem.family.horizon
    assert checks == check_dataset(buffer, problem.family, tasks)
    assert checks["transitions"] == buffer.counts.tolist()
    assert checks["episodes"] == [n // horizon for n in buffer.counts.tolist()]
    assert checks["truncations"] == sum(checks["episodes"])
    assert checks["terminations"] == 0
    for task in range(6):
        own = buffer.rewards[buffer.rows_of(task)].double()
        assert checks["returns"][task] == pytest.approx(own.reshape(-1, horizon).sum(1).mean().item())
    assert checks["observations"]["max"] == buffer.observations.max(0).values.tolist()
    assert checks["rewards"]["min"] == buffer.rewards.min().item()
    assert 0 < checks["reward_error"] < 1e-6
    shuffled = lab.Tasks(tasks.values)
    assert check_dataset(buffer, problem.family, None)["content_sha256"] != checks["content_sha256"]
    assert check_dataset(buffer, problem.family, shuffled)["content_sha256"] == checks["content_sha256"]


# -- what is refused on the way in -------------------------------------------------------------------------------


def without_task_1(tensors: Tensors) -> Tensors:
    keep = tensors["segments"][:, 0] != 1
    rows = keep.repeat_interleave(tensors["segments"][:, 1] + 1)
    return {"rows": tensors["rows"][rows], "segments": tensors["segments"][keep]}


def of_task(number: int) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors["segments"][0, 0] = number

    return change


FORGERIES: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "a missing task": (without_task_1, r"tasks \[1\] of 6 have no transitions; every task needs some"),
    "an unknown task": (of_task(6), r"tasks \[6\] are not among those of tasks 0 to 5"),
    "another task": (of_task(3), r"20 of \d+ rewards are not those that point-robot pays: transition 0, of task 3 "),
    "NaN": (put(5, REWARD, np.nan), r"rewards of task 0 holds numbers that are not finite .* transition 5: .*nan"),
    "infinite features": (put(5, 8, np.inf), "features of task 0 holds numbers that are not finite"),
    "a last observation": (put(20, 1, np.nan), "next_observations of task 0 holds numbers that are not finite"),
    "an action": (put(7, 2, 1.5), r"actions must lie within \[-1, 1\]; transition 7, of task 0, has \[1.5, "),
    "half a termination": (put(3, 5, 0.5), "terminations must be 0 or 1; transition 3 has 0.5"),
    "a reward": (put(9, REWARD, 1.0), "1 of .* transition 9, of task 0 .*, has 1 instead of -.*another variant"),
    "another observation": (put(4, 0, 0.25), "damaged: its transitions and tasks are not those that were written"),
    "a column less": (lambda t: t | {"rows": t["rows"][:, 1:].clone()}, r"holds rows of .*, 8\]\), needed are .*, 9"),
    "rows less": (lambda t: t | {"rows": t["rows"][:-5].clone()}, "rows do not fit segments of"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_transitions_are_found(problem, saved: Path, name: str) -> None:
    change, message = FORGERIES[name]
    forge(saved, change)
    with pytest.raises(lab.StorageError, match=message):
        load_dataset(saved, problem.family)


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "spaces": (
        lambda r: r["spec"].update(obs_dim=3, context_dim=6),
        "does not fit point-robot: obs_dim 3 instead of 2, context_dim 6 instead of 5",
    ),
    "format": (lambda r: r.update(format=9), "data format 9; this version reads 2"),
    "a missing key": (lambda r: r.pop("tasks"), "dataset.json cannot be read: it lacks 'tasks'"),
    "a task less": (lambda r: r["tasks"].pop(), r"tasks of shape \(6, 2\) are needed.* got \(5, 2\)"),
    "order of tasks": (lambda r: r["tasks"].reverse(), "rewards are not those .* of tasks in another order"),
    "a task by a hair": (lambda r: r["tasks"][0].__setitem__(0, r["tasks"][0][0] + 1e-9), "is damaged"),
    "counts": (lambda r: r["counts"].__setitem__(0, 19), "transitions of its tasks, not "),
    "hash": (lambda r: r["buffer"]["shards"][0].update(sha256="0"), "do not have the SHA-256 recorded"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_record_is_found(problem, saved: Path, name: str) -> None:
    change, message = EDITS[name]
    edit(saved, change)
    with pytest.raises(lab.StorageError, match=message):
        load_dataset(saved, problem.family)


def test_other_variants_are_told_apart_even_where_the_name_is_forged(problem, saved: Path) -> None:
    square, sparse = lab.make_family("point-robot", layout="square"), lab.make_family("sparse-point-robot")
    with pytest.raises(lab.StorageError, match=r"name 'point-robot' instead of 'point-robot:layout=square'"):
        load_dataset(saved, square)
    edit(saved, lambda record: record["spec"].update(name="sparse-point-robot"))
    with pytest.raises(lab.StorageError, match="rewards are not those that sparse-point-robot pays"):
        load_dataset(saved, sparse)


def test_another_body_is_refused(tmp_path: Path) -> None:
    family = lab.make_family("cheetah-vel")
    tasks = lab.Tasks([[1.0]])
    episodes = lab.rollout(lambda observations: np.zeros((1, 6)), family.batch_env(tasks), seed=0)
    buffer = lab.TransitionBuffer(family.spec, 1)
    buffer.append(0, episodes.columns(0), "offline")
    path = save_dataset(tmp_path, buffer, family, tasks, {})
    assert load_dataset(path, family)[2]["checks"]["episodes"] == [1]
    edit(path, lambda record: record.update(xml_sha256="0123"))
    with pytest.raises(lab.StorageError, match=f"half_cheetah.xml .SHA-256 0123. than .*{family.xml_hash}"):
        load_dataset(path, family)


@pytest.mark.parametrize("signed", [False, True])
def test_a_truncated_file_is_found(problem, saved: Path, signed: bool) -> None:
    (file,) = (saved / "buffer").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    if signed:
        edit(saved, lambda record: record["buffer"]["shards"][0].update(sha256=file_sha256(file)))
    with pytest.raises(lab.StorageError, match=f"{re.escape(str(file))} is damaged"):
        load_dataset(saved, problem.family)
    file.unlink()
    with pytest.raises(lab.StorageError, match=f"{re.escape(str(file))} is missing"):
        load_dataset(saved, problem.family)
    (saved / "dataset.json").write_text('{"format": 2, ')
    with pytest.raises(lab.StorageError, match=r"dataset\.json is missing or damaged"):
        load_dataset(saved, problem.family)


# -- what is refused on the way out ------------------------------------------------------------------------------


def test_nothing_is_written_of_unsound_data(problem, tmp_path: Path) -> None:
    family, train = problem.family, problem.train
    for buffer, of, tasks, message in (
        (problem.buffer, family, train[::-1], "rewards are not those that point-robot pays"),
        (problem.buffer, lab.make_family("sparse-point-robot"), train, "does not fit sparse-point-robot"),
        (lab.TransitionBuffer(family.spec, 6), family, train, r"tasks \[0, 1, 2, 3, 4, 5\] of 6 have no transitions"),
        (lab.TransitionBuffer.join([problem.buffer] * 2), family, train, r"joins 2; split\(\) it first"),
    ):
        with pytest.raises(ValueError, match=message):
            save_dataset(tmp_path / "out", buffer, of, tasks, {})
    assert not (tmp_path / "out").exists()


def test_an_episode_beyond_the_horizon_is_refused(problem) -> None:
    long = {name: getattr(problem.buffer, name)[:21].numpy().copy() for name in COLUMNS}
    long["truncations"][:] = 0.0
    long["observations"][20] = long["next_observations"][19]
    problem.buffer.append(2, long, "self-collected")
    with pytest.raises(ValueError, match="point-robot lasts longer than 20 steps, but one of task 2 has 21"):
        check_dataset(problem.buffer, problem.family, problem.train)


def test_decoded_rewards_of_self_collected_data_are_not_compared(problem) -> None:
    columns = {name: getattr(problem.buffer, name)[:20].numpy().copy() for name in COLUMNS}
    columns["rewards"] += 1.0
    problem.buffer.append(0, columns, "explored")
    check_dataset(problem.buffer, problem.family, problem.train)
    problem.buffer.append(0, columns, "offline")
    with pytest.raises(ValueError, match="20 of"):
        check_dataset(problem.buffer, problem.family, problem.train)


def test_a_reward_that_jumps_may_jump_by_the_rounding_of_its_features() -> None:
    """Straight up to a goal at (0, 1): after eight moves of 0.1 m it is 0.2 m away, the radius, or nearly so."""
    family, tasks = lab.make_family("sparse-point-robot"), lab.Tasks([[0.0, 1.0]])
    episodes = lab.rollout(lambda observations: np.array([[0.0, 1.0]]), family.batch_env(tasks), seed=0)
    buffer = lab.TransitionBuffer(family.spec, 1)
    buffer.append(0, episodes.columns(0), "offline")
    naive = family.reward(buffer.features.double().numpy(), buffer.actions.numpy(), tasks.repeat(20).values)
    assert np.abs(naive - buffer.rewards.numpy()).max() > 0.5, "the case that this test is about"
    assert check_dataset(buffer, family, tasks)["reward_error"] < 1e-6
    places = np.abs(naive - buffer.rewards.numpy()).argmax()
    buffer.rows[places + 1, REWARD] = 0.5  # one move on, at no threshold
    with pytest.raises(ValueError, match=f"1 of 20 rewards .* transition {places + 1}"):
        check_dataset(buffer, family, tasks)


def test_checks_of_120000_ant_transitions_take_less_than_two_seconds() -> None:
    family, rng, n = AntDir(), np.random.default_rng(0), 1200
    tasks = lab.Tasks(rng.uniform(0, 6, (100, 1)))
    buffer = lab.TransitionBuffer(family.spec, 100)
    buffer.reserve(100 * n)
    path, ends = rng.normal(size=(n + 1, 27)), np.arange(n) % 200 == 199
    features, actions = rng.normal(size=(n, 3)), rng.uniform(-1, 1, (n, 8))
    for task in range(100):
        rewards = family.reward(features, actions, np.tile(tasks.values[task], (n, 1)))
        values = (path[:-1], actions, rewards, path[1:], np.zeros(n), ends, features)
        buffer.append(task, dict(zip(COLUMNS, values, strict=True)), "offline")
    began = time.perf_counter()
    assert sum(check_dataset(buffer, family, tasks)["transitions"]) == 120_000
    assert time.perf_counter() - began < 2.0
