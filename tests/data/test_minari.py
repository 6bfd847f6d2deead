"""Minari data sets: round trips to the bit, readers without smac_lab, data from elsewhere, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

import smac_lab as lab
from smac_lab.data.chains import COLUMNS
from smac_lab.data.validation import check_dataset

ID = "lab/point-robot-v0"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


def identical(buffer: lab.TransitionBuffer, other: lab.TransitionBuffer) -> bool:
    """Whether all that is stored is the same to the bit: -0.0 is not 0.0 here."""
    assert buffer.segments.tolist() == other.segments.tolist()
    assert (buffer.spec, buffer.n_tasks) == (other.spec, other.n_tasks)
    return torch.equal(buffer.rows.view(torch.int32), other.rows.view(torch.int32))


def taken(buffer: lab.TransitionBuffer, n: int, start: int = 0) -> dict[str, np.ndarray]:
    return {name: getattr(buffer, name)[start : start + n].numpy().copy() for name in COLUMNS}


def contents(path: Path) -> list[str]:
    """Files under a folder, but for what Minari notes down for `lab/`."""
    files = (str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    return sorted(file for file in files if not file.endswith("namespace_metadata.json"))


# -- round trips -------------------------------------------------------------------------------------------------


def test_a_round_trip_is_exact_to_the_bit(problem) -> None:
    family, tasks, buffer = problem.family, problem.train, problem.buffer
    chain = taken(buffer, 20)  # three episodes, each of which starts where the one before it ended
    chain["truncations"][:] = chain["terminations"][:] = 0.0
    chain["truncations"][6] = chain["terminations"][12] = chain["truncations"][12] = 1.0
    chain["rewards"][3] = -0.0
    buffer.append(4, chain, "explored")  # the last one ends with neither
    buffer.append(0, taken(buffer, 3), "self-collected")
    buffer.append(4, taken(buffer, 1, 7), "self-collected")
    path = lab.to_minari(buffer, family, ID, tasks)
    again = lab.from_minari(ID, family)
    assert identical(again, buffer)
    np.testing.assert_array_equal(lab.minari_tasks(ID, family).values, tasks.values)
    dataset = minari.load_dataset(ID)
    assert path == Path(dataset.spec.data_path).parent
    assert dataset.total_steps == len(buffer)
    assert dataset.total_episodes == len(buffer.segments) + 2
    flags = [(len(e), e.terminations[-1], e.truncations[-1]) for e in dataset.iterate_episodes(range(120, 125))]
    assert flags == [(7, False, True), (6, True, True), (7, False, False), (3, False, False), (1, False, False)]


@pytest.mark.parametrize("name", ["ant-dir:contact_cost=False", "walker-params"])
def test_a_round_trip_of_a_simulated_body(name: str) -> None:
    family = lab.make_family(name)
    family.horizon = 60
    tasks, _ = family.split(2, 1, seed=0)
    rng = np.random.default_rng(0)
    episodes = lab.rollout(lambda o: rng.uniform(-1, 1, (2, family.action_dim)), family.batch_env(tasks), seed=0)
    buffer = lab.TransitionBuffer(family.spec, 2)
    buffer.append_batch([0, 1], episodes._asdict(), ["offline"] * 2, episodes.valid)
    lab.to_minari(buffer, family, "body-v3", tasks)
    assert identical(lab.from_minari("body-v3", family), buffer)
    env = minari.load_dataset("body-v3").recover_environment()
    assert env.unwrapped.family.full_name == name
    assert env.spec.max_episode_steps == 60
    record = minari.load_dataset("body-v3").storage.metadata["smac_lab"]
    assert record["spec"]["name"] == name
    assert record["xml_sha256"] == family.xml_hash
    assert record["version"] == lab.__version__
    assert record["checks"]["transitions"] == [60, 60]


def test_minari_alone_reads_it(problem) -> None:
    lab.to_minari(problem.buffer, problem.family, ID, problem.train, about={"description": "moves", "author": {"us"}})
    code = f"""
import sys
sys.modules["smac_lab"] = None  # an import of it fails
import minari
dataset = minari.load_dataset({ID!r})
assert {ID!r} in minari.list_local_datasets()
returns = [episode.rewards.sum() for episode in dataset]
metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
assert {{tuple(about["task"]) for about in metadata}} == {set(map(tuple, problem.train.values.tolist()))}
assert {{about["source"] for about in metadata}} == {{"offline"}}
episode = dataset[7]
assert episode.observations.shape == (21, 2) and episode.infos["features"].shape == (20, 2)
assert dataset.observation_space.contains(episode.observations[0])
assert dataset.storage.metadata["description"] == "moves"
print(len(returns), sum(returns))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, total = done.stdout.split()
    assert int(count) == len(problem.buffer) // 20
    assert float(total) == pytest.approx(problem.buffer.rewards.sum().item(), rel=1e-5)


def test_without_tasks_only_their_numbers_are_stored(problem) -> None:
    lab.to_minari(problem.buffer, problem.family, ID)
    assert identical(lab.from_minari(ID, problem.family), problem.buffer)
    with pytest.raises(lab.StorageError, match="no `task` in their metadata, only `task_index`"):
        lab.minari_tasks(ID, problem.family)


def test_a_family_of_ones_own_goes_without_an_environment(problem) -> None:
    class Nearer(lab.tasks.PointRobot):
        name = "nearer"

    family = Nearer()
    buffer = lab.collect_behaviour(family, problem.train, problem.config)
    lab.to_minari(buffer, family, ID, problem.train)
    assert minari.load_dataset(ID).env_spec is None
    assert identical(lab.from_minari(ID, family), buffer)


# -- writing -----------------------------------------------------------------------------------------------------


def test_a_data_set_of_that_name_is_replaced_only_when_told(problem, root: Path) -> None:
    small = lab.TransitionBuffer(problem.family.spec, 1)
    small.append(0, taken(problem.buffer, 20), "offline")
    lab.to_minari(problem.buffer, problem.family, ID, problem.train)
    before = contents(root)
    with pytest.raises(lab.StorageError, match=f"there is a Minari data set {ID} in .*overwrite=True replaces it"):
        lab.to_minari(small, problem.family, ID, problem.train[:1])
    assert identical(lab.from_minari(ID, problem.family), problem.buffer)
    lab.to_minari(small, problem.family, ID, problem.train[:1], overwrite=True)
    assert identical(lab.from_minari(ID, problem.family), small)
    assert contents(root) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_leaves_what_was_there(problem, root: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    if overwrite:
        lab.to_minari(problem.buffer, problem.family, ID, problem.train)
    before = contents(root) if overwrite else []

    def full(*_: Any) -> None:
        raise OSError("no space left")

    def rename(source: Path, target: Path, rename=os.rename) -> None:
        if source.name.startswith(".partial"):  # the finished data set; what was there has been put aside by now
            full()
        rename(source, target)

    for owner, step in ((MinariStorage, full), (os, rename)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, "get_size" if owner is MinariStorage else "rename", step)
            with pytest.raises(OSError, match="no space left"):
                lab.to_minari(problem.buffer, problem.family, ID, problem.train, overwrite=overwrite)
        assert contents(root) == before
    assert list(minari.list_local_datasets()) == [ID] * overwrite


@pytest.mark.parametrize("dataset_id", ["point-robot", "../point-v0", "point robot-v0", ""])
def test_names_that_minari_does_not_take_are_refused(problem, root: Path, dataset_id: str) -> None:
    with pytest.raises(ValueError, match=r"dataset_id must be \(namespace/\)name-vN"):
        lab.to_minari(problem.buffer, problem.family, dataset_id, problem.train)
    assert not root.exists() or not contents(root)


def test_unsound_data_is_not_written(problem, root: Path) -> None:
    with pytest.raises(ValueError, match="rewards are not those that point-robot pays"):
        lab.to_minari(problem.buffer, problem.family, ID, problem.train[::-1])
    assert not root.exists() or not contents(root)


# -- what is refused on the way in -------------------------------------------------------------------------------


def test_other_families_and_missing_sets_are_refused(problem) -> None:
    lab.to_minari(problem.buffer, problem.family, ID, problem.train)
    for name, message in (
        ("point-robot:layout=square", "name 'point-robot' instead of 'point-robot:layout=square'"),
        ("point-direction", "does not fit point-direction: name .*, task_dim 2 instead of 1"),
        (
            "cheetah-vel",
            r"cheetah-vel needs observations in a Box of shape \(20,\), this one has Box\(-inf, inf, \(2,\)",
        ),
    ):
        for read in (lab.from_minari, lab.minari_tasks):
            with pytest.raises(lab.StorageError, match=f"{ID}: .*{message}"):
                read(ID, lab.make_family(name))
    with pytest.raises(lab.StorageError, match="nothing-v0 not found locally at"):
        lab.from_minari("nothing-v0", problem.family)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rewards", 1.0, "1 of .* rewards are not those that point-robot pays: transition 3, of task 0"),
        ("rewards", np.nan, "rewards of task 0 holds numbers that are not finite"),
        ("actions", 3.0, r"actions must lie within \[-1, 1\]; transition 3"),
        ("observations", 0.125, "its transitions and tasks are not those that to_minari wrote"),
        ("infos/features", 9.0, "1 of .* rewards are not those"),
    ],
)
def test_changed_numbers_are_found(problem, column: str, value: float, message: str) -> None:
    path = lab.to_minari(problem.buffer, problem.family, ID, problem.train)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file[f"episode_0/{column}"][3] = value
    with pytest.raises(lab.StorageError, match=message):
        lab.from_minari(ID, problem.family)


def test_changed_tasks_and_damaged_files_are_found(problem) -> None:
    path = lab.to_minari(problem.buffer, problem.family, ID, problem.train)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_3"].attrs["task"] = [0.0, 0.5]
    with pytest.raises(lab.StorageError, match="episode 3 of task 0 has other parameters than that task's first one"):
        lab.from_minari(ID, problem.family)
    file = path / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:2000])
    for read in (lab.from_minari, lab.minari_tasks):
        with pytest.raises(lab.StorageError, match=f"Minari data set {ID}: "):
            read(ID, problem.family)


@pytest.mark.parametrize("name", ["total_episodes", "total_steps"])
def test_files_that_promise_more_than_they_hold_are_refused(problem, name: str) -> None:
    path = lab.to_minari(problem.buffer, problem.family, ID, problem.train)
    file = path / "data" / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: 10**12}))
    with pytest.raises(lab.StorageError, match=f"its {name} is 1000000000000, and its files have"):
        lab.from_minari(ID, problem.family)


def test_an_array_that_promises_more_than_the_file_holds_is_refused(problem) -> None:
    path = lab.to_minari(problem.buffer, problem.family, ID, problem.train)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:  # chunks that were never written take no room
        del file["episode_3/rewards"]
        file.create_dataset("episode_3/rewards", shape=(10**12,), dtype="f4", chunks=(1000,))
    with pytest.raises(lab.StorageError, match=r"main_data\.hdf5 has arrays of 40000\d+ bytes"):
        lab.from_minari(ID, problem.family)


# -- data sets from elsewhere ------------------------------------------------------------------------------------


def elsewhere(
    buffer: lab.TransitionBuffer,
    metadata: list[dict[str, Any]],
    bound: float = 1.0,
    features: str = "all",
    **changes: Any,
) -> None:
    """A data set of 20-step episodes as others make them: double precision, other bounds, perhaps no features."""
    episodes = []
    for i in range(len(metadata)):
        part = {name: value.astype(np.float64) for name, value in taken(buffer, 20, 20 * i).items()}
        infos = {"reset": np.concatenate([np.zeros((1, 2)), part["features"]]), "all": part["features"]}
        episodes.append(
            EpisodeBuffer(
                observations=np.concatenate([part["observations"], part["next_observations"][-1:]]),
                actions=bound * part["actions"],
                rewards=part["rewards"],
                terminations=part["terminations"].astype(bool),
                truncations=np.zeros(20, bool),  # ended by neither
                infos={"features": infos[features]} if features in infos else {"other": part["rewards"]},
            )
        )
    spaces = {
        "observation_space": gym.spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "action_space": gym.spaces.Box(-bound, bound, (2,), np.float64),
        **changes,
    }
    with warnings.catch_warnings(action="ignore"):  # Minari misses an author, an e-mail address, ...
        made = minari.create_dataset_from_buffers("theirs-v1", episodes, **spaces)
    made.storage.update_episode_metadata(metadata)


@pytest.mark.parametrize("features", ["all", "reset"])
def test_data_from_elsewhere_is_read(problem, features: str) -> None:
    per_task = int(problem.buffer.counts[0]) // 20
    places = [0, per_task, 0, 1 + per_task]  # which episodes belong to which task, interleaved
    buffer = lab.TransitionBuffer(problem.family.spec, 6)
    for place in places:
        buffer.append(0, taken(problem.buffer, 20, 20 * place), "offline")
    values = problem.train.values
    elsewhere(buffer, [{"task": values[place // per_task]} for place in places], bound=0.4, features=features)
    read, tasks = lab.from_minari("theirs-v1", problem.family), lab.minari_tasks("theirs-v1", problem.family)
    np.testing.assert_array_equal(tasks.values, values[:2])  # numbered as they first appear
    assert read.segments.tolist() == [[0, 20, 0], [1, 20, 0], [0, 20, 0], [1, 20, 0]]
    assert read.truncations.sum() == 0
    torch.testing.assert_close(read.actions, buffer.actions, rtol=0, atol=1e-6)
    assert torch.equal(read.rewards, buffer.rewards)
    assert torch.equal(read.features, buffer.features)
    moved = lab.relabelled(read, problem.family, tasks[::-1])
    assert (moved.rewards - read.rewards).abs().max() > 0.1


def test_data_without_features_is_learned_from_but_not_relabelled(problem) -> None:
    metadata = [{"task": problem.train.values[0], "task_index": 0, "source": "explored"}] * 2
    elsewhere(problem.buffer, metadata, features="none")
    read, tasks = lab.from_minari("theirs-v1", problem.family), lab.minari_tasks("theirs-v1", problem.family)
    assert read.features.isnan().all()
    assert read.counts_of("explored").tolist() == [40]
    assert read.sample_context(torch.tensor([0]), 9, torch.Generator().manual_seed(0)).isfinite().all()
    for call in (lab.relabelled, lambda *given: lab.shared_between_tasks(*given, episodes=0)):
        with pytest.raises(ValueError, match="read from data without features, which true rewards are computed from"):
            call(read, problem.family, tasks)
    with pytest.raises(ValueError, match="features of task 0 holds numbers that are not finite"):
        check_dataset(read, problem.family, tasks)
    lab.to_minari(read, problem.family, ID, tasks)
    assert identical(lab.from_minari(ID, problem.family), read)


@pytest.mark.parametrize(
    ("metadata", "changes", "message"),
    [
        ([{"task": [0.0, 1.0]}, {}], {}, r"`task`, .* or every one `task_index`; episodes \[1\] of 2 have neither"),
        ([{"task": [0.0]}] * 2, {}, r"`task` must be of shape \(2,\) for point-robot, got \[0.\]"),
        ([{"task_index": 0}, {"task_index": 2}], {}, r"episodes of tasks 0 to 2, there are of \[0, 2\]"),
        ([{"task_index": 0.5}], {}, "`task_index` must be a whole number of at least 0, got 0.5"),
        ([{"task_index": -1}], {}, "`task_index` must be a whole number of at least 0, got -1"),
        ([{"task_index": 0, "source": "expert"}], {}, "source must be one of 'offline'.* got 'expert'"),
        ([{"task": [0.0, 9.0]}], {}, "20 of 20 rewards are not those that point-robot pays"),
        (
            [{"task_index": 0}],
            {"bound": 3.0, "action_space": gym.spaces.Box(-9, np.inf, (2,))},
            "actions must lie within",
        ),
    ],
)
def test_data_from_elsewhere_that_does_not_fit_is_refused(problem, metadata, changes, message: str) -> None:
    elsewhere(problem.buffer, metadata, **changes)
    with pytest.raises(lab.StorageError, match=message):
        lab.from_minari("theirs-v1", problem.family)


def test_an_episode_without_steps_is_refused(problem, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(problem.buffer, [{"task_index": 0}])
    empty = SimpleNamespace(rewards=np.empty(0))
    monkeypatch.setattr(minari.MinariDataset, "iterate_episodes", lambda self: iter([empty]))
    with pytest.raises(lab.StorageError, match="its episode 0 has no steps"):
        lab.from_minari("theirs-v1", problem.family)


def test_spaces_that_are_no_boxes_are_refused(problem, root: Path) -> None:
    (root / "goals-v0" / "data").mkdir(parents=True)
    made = MinariStorage.new(root / "goals-v0" / "data", gym.spaces.Dict(), gym.spaces.Box(-1, 1, (2,)))
    made.update_metadata({"dataset_id": "goals-v0", "minari_version": minari.__version__})
    with pytest.raises(lab.StorageError, match=r"needs observations in a Box of shape \(2,\), this one has Dict\(\)"):
        lab.from_minari("goals-v0", problem.family)


def test_without_minari_the_error_says_what_to_install(problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    for call in (
        lambda: lab.to_minari(problem.buffer, problem.family, ID),
        lambda: lab.from_minari(ID, problem.family),
    ):
        with pytest.raises(ImportError, match=r'pip install "smac-lab\[data\]"'):
            call()
