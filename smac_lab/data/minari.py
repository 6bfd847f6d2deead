"""Conversion to and from Minari data sets, a common format of offline RL: https://minari.farama.org.

`from_minari` reads these keys from any Minari data set of one task family:

| of | key | meaning |
|---|---|---|
| episode's metadata | `task` | the task's parameters, `(task_dim,)` |
| | `task_index` | number of the task in the buffer; by default, tasks are numbered in order of appearance |
| | `source` | "offline" (default), "exploration", "explored" or "self-collected" |
| | `continues` | True: the episode's first observation is the previous one's last, bit for bit (in point robots) |
| its infos | `features` | features of the reward, `(steps, feature_dim)`; a row for the reset may precede them |
| data set's metadata | `smac_lab` | record of `to_minari`: spec, body, version, checks; compared if present |

All episodes need `task`, or all need `task_index`. Without features, rewards are not checked and cannot be relabelled.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.chains import COLUMNS, Values
from smac_lab.data.lookup import CODE, LENGTH, TASK
from smac_lab.data.storage import StorageError, check_body, read_json
from smac_lab.data.store import CODES
from smac_lab.data.validation import check_dataset, check_spec, episode_ends
from smac_lab.tasks.family import MujocoFamily, TaskFamily
from smac_lab.tasks.spec import FamilySpec, Tasks


def to_minari(
    buffer: TransitionBuffer,
    family: TaskFamily,
    dataset_id: str,
    tasks: Tasks | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a buffer as a Minari data set, in the folder `MINARI_DATASETS_PATH`.

    An episode ends with a termination, a truncation, or where no transition follows. The data set appears as a whole or
    not at all. `from_minari` restores the buffer bit for bit.

    Args:
        buffer: of one seed; `tasks[i]` is its task `i`.
        family: of the transitions.
        dataset_id: `(namespace/)name-vN`.
        tasks: their parameters; None: only task numbers are written, and rewards are not checked.
        about: further metadata, such as `description` or `author` (a set).
        overwrite: whether to replace a data set of this name.

    Returns:
        The data set's folder.

    Raises:
        ValueError: Minari rejects the name, or the buffer is not sound (see `check_dataset`).
        StorageError: a data set of this name exists.
        ImportError: Minari is not installed.
    """
    minari = _import_minari()
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage.datasets_root_dir import get_dataset_path

    from smac_lab.version import __version__

    try:
        namespace, _, _ = parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:  # Minari raises TypeError on a name without a version
        raise ValueError(f"dataset_id must be (namespace/)name-vN, such as 'ant-dir-v0', got {dataset_id!r}") from error
    target = get_dataset_path(dataset_id)
    if target.exists() and not overwrite:
        raise StorageError(f"there is a Minari data set {dataset_id} in {target}; overwrite=True replaces it")
    record = {
        "version": __version__,
        "spec": family.spec._asdict(),
        "xml_sha256": family.xml_hash if isinstance(family, MujocoFamily) else None,
        "n_tasks": buffer.n_tasks,
        "checks": check_dataset(buffer, family, tasks, unknown_features=True),
    }
    # Minari would write to the target itself; a renamed folder is never seen half-written.
    partial = get_dataset_path(f".partial_{uuid.uuid4().hex}")
    try:
        partial.mkdir()
        box, actions = gym.spaces.Box, gym.spaces.Box(-1.0, 1.0, (family.action_dim,), np.float32)
        observations = box(-np.inf, np.inf, (family.obs_dim,), np.float32)
        storage = MinariStorage.new(partial / "data", observations, actions, _env_spec(family))
        own = {"dataset_id": dataset_id, "minari_version": minari.__version__, "smac_lab": record}
        storage.update_metadata({**(about or {}), **own})
        storage.update_episodes(_episodes(buffer))
        storage.update_episode_metadata(_episode_metadata(buffer, tasks))
        if namespace is not None and namespace not in list_local_namespaces():
            create_namespace(namespace)
        _publish(partial, target, overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def from_minari(dataset_id: str, family: TaskFamily) -> TransitionBuffer:
    """Read a Minari data set of this family, whoever wrote it (see the module docstring).

    Actions are scaled from the bounds of their space to [-1, 1]. Missing features become NaN; the buffer cannot then be
    relabelled with true rewards.

    Returns:
        A buffer whose task `i` is `minari_tasks(dataset_id, family)[i]`.

    Raises:
        StorageError: the data set is missing or damaged; its spaces, family, variant, body or tasks do not fit; or it
            fails `check_dataset`.
        ImportError: Minari is not installed.
    """
    with _as_storage_error(dataset_id):
        dataset = _open(dataset_id, family)
        index, tasks, metadata = _read_tasks(dataset, family)
        record = dataset.storage.metadata.get("smac_lab")
        buffer = TransitionBuffer(family.spec, int(index.max()) + 1)
        buffer.reserve(dataset.total_steps)
        unknown, run = [np.empty(0, bool)], []
        for i, episode in enumerate(dataset.iterate_episodes()):
            if not len(episode.rewards):
                raise ValueError(f"its episode {i} has no steps")
            columns, known = _columns(episode, family, dataset.action_space)
            unknown.append(np.full(len(columns["rewards"]), not known))
            run.append(columns)
            if i + 1 == len(index) or not metadata[i + 1].get("continues", False):
                whole = {name: np.concatenate([part[name] for part in run]) for name in COLUMNS}
                buffer.append(int(index[i]), whole, metadata[i].get("source", "offline"))
                run = []
        if (lost := np.concatenate(unknown)).any():
            holders = np.cumsum(buffer.segments[:, LENGTH] + 1) - 1
            places = np.delete(np.arange(len(buffer.rows)), holders)[lost]
            buffer.rows[places, buffer._columns["features"]] = np.nan
        checks = check_dataset(buffer, family, tasks, unknown_features=True)
        if record is not None and record["checks"]["content_sha256"] != checks["content_sha256"]:
            raise ValueError("its transitions and tasks are not those that to_minari wrote")
        return buffer


def minari_tasks(dataset_id: str, family: TaskFamily) -> Tasks:
    """Read the tasks of a Minari data set: number `i` is the buffer's task `i`.

    Raises:
        StorageError: as `from_minari`, or the data set has only task numbers.
        ImportError: Minari is not installed.
    """
    with _as_storage_error(dataset_id):
        _, tasks, _ = _read_tasks(_open(dataset_id, family), family)
        if tasks is None:
            raise ValueError("its episodes have no `task` in their metadata, only `task_index`")
        return tasks


# -- writing -----------------------------------------------------------------------------------------------------


def _episodes(buffer: TransitionBuffer) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    columns: Values = {name: buffer.column(name).cpu().numpy() for name in COLUMNS}
    ends = np.flatnonzero(episode_ends(buffer)) + 1
    for start, end in zip(np.append(0, ends), ends, strict=False):
        part = {name: column[start:end] for name, column in columns.items()}
        features = part["features"]
        yield EpisodeBuffer(
            observations=np.concatenate([part["observations"], part["next_observations"][-1:]]),
            actions=part["actions"],
            rewards=part["rewards"],
            terminations=part["terminations"] != 0,
            truncations=part["truncations"] != 0,
            infos={} if np.isnan(features).all() else {"features": features},
        )


def _episode_metadata(buffer: TransitionBuffer, tasks: Tasks | None) -> Iterator[dict[str, Any]]:
    names, ends = {code: source for source, code in CODES.items()}, episode_ends(buffer)
    first = 0
    for task, length, code in buffer.segments[:, [TASK, LENGTH, CODE]].tolist():
        about = {"task_index": task, "source": names[code]}
        if tasks is not None:
            about["task"] = tasks.values[task]
        for k in range(np.count_nonzero(ends[first : first + length])):
            yield {**about, "continues": k > 0}
        first += length


def _env_spec(family: TaskFamily) -> Any:
    """Return the spec for `recover_environment`; None for a family not registered with gymnasium."""
    from smac_lab.tasks import FAMILIES

    if FAMILIES.get(family.name) is not type(family):
        return None
    known = gym.spec(f"smac_lab/{type(family).__name__}-v0")
    return replace(known, max_episode_steps=family.horizon, kwargs={"family": family.full_name})


def _publish(partial: Path, target: Path, overwrite: bool) -> None:
    """Rename a finished folder to `target`, and only then remove an old one."""
    old = partial.with_name(f".old_{uuid.uuid4().hex}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if overwrite and target.exists():
        os.rename(target, old)
    try:
        os.rename(partial, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


# -- reading -----------------------------------------------------------------------------------------------------


@contextmanager
def _as_storage_error(dataset_id: str) -> Iterator[None]:
    try:
        yield
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        OSError,
        MemoryError,
        AssertionError,
    ) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise StorageError(f"Minari data set {dataset_id}: {what}") from error


def _open(dataset_id: str, family: TaskFamily) -> Any:
    minari = _import_minari()
    _check_room(Path(minari.storage.get_dataset_path(dataset_id)) / "data", family)
    dataset = minari.load_dataset(dataset_id)
    for name, dim in (("observation", family.obs_dim), ("action", family.action_dim)):
        space = getattr(dataset, f"{name}_space")
        if not isinstance(space, gym.spaces.Box) or space.shape != (dim,):
            raise ValueError(f"{family.full_name} needs {name}s in a Box of shape ({dim},), this one has {space}")
    if (record := dataset.storage.metadata.get("smac_lab")) is not None:
        check_spec(FamilySpec(**record["spec"]), family.spec)
        check_body(record["xml_sha256"], family)
    return dataset


def _check_room(folder: Path, family: TaskFamily) -> None:
    """Raise ValueError if the files promise far more than they hold: Minari makes room for what they promise."""
    import h5py

    room = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if (folder / "metadata.json").is_file():
        named = read_json(folder / "metadata.json")
        for name, least in (("total_episodes", 1), ("total_steps", family.obs_dim + family.action_dim)):  # bytes
            if not isinstance(named.get(name), int) or not 0 <= least * named[name] <= room:
                raise ValueError(f"its {name} is {named.get(name)!r}, and its files have {room} bytes")
    if h5py.is_hdf5(file := folder / "main_data.hdf5"):
        promised = 0

        def count(name: str, node: Any) -> None:
            nonlocal promised
            promised += node.nbytes if isinstance(node, h5py.Dataset) else 0

        with h5py.File(file) as stored:
            stored.visititems(count)
        if promised > 64 * room:
            raise ValueError(f"{file.name} has arrays of {promised} bytes, and the files have {room}")


def _read_tasks(dataset: Any, family: TaskFamily) -> tuple[NDArray[np.int64], Tasks | None, list[dict[str, Any]]]:
    metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
    with_values, with_index = ([key in about for about in metadata] for key in ("task", "task_index"))
    if not metadata or not (all(with_values) or all(with_index)):
        lacking = [
            i for i, (value, index) in enumerate(zip(with_values, with_index, strict=True)) if not (value or index)
        ]
        raise ValueError(
            "the metadata of every episode must have `task`, the task's parameters, or every one `task_index`; "
            f"episodes {lacking[:5]} of {len(metadata)} have neither"
        )
    values = None
    if all(with_values):
        given = [np.atleast_1d(np.asarray(about["task"], np.float64)) for about in metadata]
        if strange := [value for value in given if value.shape != (family.task_dim,)]:
            raise ValueError(f"`task` must be of shape ({family.task_dim},) for {family.full_name}, got {strange[0]}")
        values = np.stack(given)
    if all(with_index):
        numbers = [about["task_index"] for about in metadata]
        if strange := [number for number in numbers if number != int(number) or number < 0]:
            raise ValueError(f"`task_index` must be a whole number of at least 0, got {strange[0]}")
        index = np.array(numbers, np.int64)
    else:
        assert values is not None
        known: dict[bytes, int] = {}
        index = np.array([known.setdefault(value.tobytes(), len(known)) for value in values], np.int64)
    record = dataset.storage.metadata.get("smac_lab")
    n_tasks = int(index.max()) + 1 if record is None else record["n_tasks"]
    present, first = np.unique(index, return_index=True)
    if len(present) != n_tasks or present[-1] != n_tasks - 1:  # they are different and sorted
        raise ValueError(f"there must be episodes of tasks 0 to {n_tasks - 1}, there are of {present.tolist()}")
    if values is None:
        return index, None, metadata
    tasks = Tasks(values[first])
    if len(wrong := np.flatnonzero((tasks.values[index] != values).any(1))):
        raise ValueError(
            f"episode {wrong[0]} of task {index[wrong[0]]} has other parameters than that task's first one"
        )
    return index, tasks, metadata


def _columns(episode: Any, family: TaskFamily, space: gym.spaces.Box) -> tuple[dict[str, NDArray[Any]], bool]:
    steps, observations = len(episode.rewards), np.asarray(episode.observations)
    if len(observations) != steps + 1:
        raise ValueError(
            f"episode {episode.id} has {steps} rewards, so {steps + 1} observations, not {len(observations)}"
        )
    features = (episode.infos or {}).get("features")
    known = features is not None
    features = np.zeros((steps, family.spec.feature_dim)) if features is None else np.asarray(features)
    columns = {
        "observations": observations[:-1],
        "actions": _unit_actions(np.asarray(episode.actions), space),
        "rewards": episode.rewards,
        "next_observations": observations[1:],
        "terminations": episode.terminations,
        "truncations": episode.truncations,
        "features": features[len(features) - steps :] if len(features) == steps + 1 else features,
    }
    return columns, known


def _unit_actions(actions: NDArray[Any], space: gym.spaces.Box) -> NDArray[Any]:
    """Scale actions from the space's bounds to [-1, 1]; unchanged if a bound is infinite."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not (np.isfinite(low) & np.isfinite(high)).all() or ((low == -1.0) & (high == 1.0)).all():
        return actions
    return 2.0 * (actions - low) / (high - low) - 1.0


def _import_minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError('Minari is not installed: pip install "smac-lab[data]"') from error
    return minari
