"""Agents of a run at every saved iteration, and small excerpts."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.arms import folder_of
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.starter import STARTER, TRANSITIONS, starter_data
from smac_lab.data.storage import (
    StorageError,
    check_hash,
    check_widths,
    file_sha256,
    read_json,
    reading,
    replace_text,
    write_tensors,
)
from smac_lab.data.validation import check_spec
from smac_lab.runs import checkpoint
from smac_lab.runs.behaviour import collect_behaviour, uses_pearl
from smac_lab.tasks import make_family
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import FamilySpec, Tasks

EXAMPLES = Path(__file__).parents[1] / "examples"
KEPT = ("actor", "critics", "encoder", "reward_decoder")  # in an excerpt
RECIPE = (  # fields that define the data
    *("behaviour_policy", "behaviour_part", "behaviour_on_task", "behaviour_noise"),
    *("exploration_transitions", "exploration_policy"),
)


@dataclass(frozen=True, eq=False)
class Snapshots:
    """One seed's agents during a run, with their data.

    Args:
        family: family of the tasks.
        tasks: training tasks; `tasks[i]` is the buffer's task `i`.
        buffer: their offline transitions.
        before: the agent after the offline phase.
        arms: arm to iteration to agent; iteration 0 is `before`.
        test: held-out tasks.
        known: cache that explorers share.
    """

    family: TaskFamily
    tasks: Tasks
    buffer: TransitionBuffer
    before: SMAC
    arms: Mapping[str, Mapping[int, SMAC]]
    test: Tasks | None = None
    known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.before.check_spec(self.family.spec, "act in")
        self.before.check_spec(self.buffer.spec, "infer tasks from a buffer of")
        if self.before.seeds is not None:
            raise ValueError("several seeds at once cannot be looked at together: pass one of agent.split()")
        if len(self.tasks) > self.buffer.n_tasks:
            raise ValueError(f"there are {len(self.tasks)} tasks, but the buffer has only {self.buffer.n_tasks}")

    @classmethod
    def of(cls, agent: SMAC, family: TaskFamily, tasks: Tasks, buffer: TransitionBuffer) -> Snapshots:
        """Wrap a single agent."""
        return cls(family, tasks, buffer, agent, {})

    def agent(self, arm: str | None = None, iteration: int = 0) -> SMAC:
        """Return an arm's agent at an iteration; without an arm, or at iteration 0, return `before`.

        Raises:
            ValueError: there is no such agent; the message lists those that were kept.
        """
        if arm is None or iteration == 0:
            return self.before
        if arm not in self.arms:
            raise ValueError(f"no arm {arm!r} here; there is {', '.join(self.arms) or 'none'}")
        if iteration not in self.arms[arm]:
            kept = ", ".join(map(str, [0, *self.arms[arm]]))
            raise ValueError(f"nothing was kept at iteration {iteration} of {arm}; kept are {kept}")
        return self.arms[arm][iteration]

    @property
    def iterations(self) -> list[int]:
        """Iterations that every arm has, from 0 on."""
        kept = [set(agents) for agents in self.arms.values()]
        return [0, *sorted(set.intersection(*kept))] if kept else [0]


def read_snapshots(run: str | Path, seed: int | None = None) -> Snapshots:
    """Read a run's agents from its folder or an excerpt.

    Args:
        run: folder of a run or excerpt, or the name of an example.
        seed: one of the run's seeds; default the first.

    Raises:
        StorageError: the run, excerpt or seed is missing, or a file is damaged.
    """
    folder = find_run(run)
    if (folder / "excerpt.json").is_file():
        return _read_excerpt(folder, seed)
    stored = read_json(folder / "config.json")
    with reading(folder / "config.json"):
        return _read_run(folder, stored, seed)


def _read_run(folder: Path, stored: dict[str, Any], seed: int | None) -> Snapshots:
    seed = int(stored["seeds"][0]) if seed is None else seed
    here = folder / f"seed_{seed}"
    if not checkpoint.exists(here / "offline" / "checkpoint"):
        raise StorageError(f"{folder} has no finished offline phase of seed {seed}; its seeds are {stored['seeds']}")
    family = make_family(stored["family"])
    before, buffer, _ = checkpoint.load(here / "offline" / "checkpoint", family=family)
    assert buffer is not None
    tasks, test = family.split(before.config.n_train_tasks, before.config.n_test_tasks, seed)
    arms: dict[str, dict[int, SMAC]] = {}
    for arm in stored["arms"]:
        steps = sorted((here / folder_of(arm) / "checkpoint").glob("step_*/state.json"))
        found = [checkpoint.load(step.parent, buffer=False) for step in steps]
        if found:
            arms[arm] = {int(one.progress["done"]): one.agent for one in found}
    return Snapshots(family, tasks, buffer, before, arms, test)


def find_run(run: str | Path) -> Path:
    """Return the folder of a run, excerpt or example.

    Raises:
        StorageError: there is no such folder.
    """
    for folder in (Path(run), EXAMPLES / str(run)):
        if (folder / "excerpt.json").is_file() or (folder / "config.json").is_file():
            return folder
    known = sorted(path.parent.name for path in EXAMPLES.glob("*/excerpt.json"))
    raise StorageError(
        f"{run} is no run: there is neither config.json (of smac-lab train) nor excerpt.json in such a folder, and the "
        f"examples are {', '.join(known)}"
    )


def example(name: str) -> Snapshots:
    """Read an example: shipped agents, trained on the family's starter data and more of its kind.

    Raises:
        StorageError: there is no such example; the message lists all.
    """
    return _read_excerpt(find_run(EXAMPLES / name), None)


def write_excerpt(
    folder: str | Path,
    snapshots: Snapshots,
    iterations: Sequence[int] = (),
    arms: Sequence[str] = (),
    about: dict[str, Any] | None = None,
) -> Path:
    """Store agents in small files: only parts, in half precision, without optimizers and data.

    Readers get the starter data with the agents, or data of the starter tasks by the run's recipe. The run must
    therefore be of the starter data's family and seed.

    Args:
        folder: folder for `agents.safetensors` and `excerpt.json`.
        snapshots: agents to store.
        iterations: of each arm; default the last.
        arms: default all.
        about: anything that JSON can store.

    Raises:
        ValueError: no agent was kept of an arm or iteration.
    """
    arms, kept = tuple(arms) or tuple(snapshots.arms), tuple(iterations) or (snapshots.iterations[-1],)
    tensors = _halved("before/0", snapshots.before)
    for arm in arms:
        for iteration in kept:
            tensors |= _halved(f"{arm}/{iteration}", snapshots.agent(arm, iteration))
    before, folder = snapshots.before, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, folder / "agents.safetensors")
    record = {
        **(about or {}),
        "config": before.config.to_dict(),
        "spec": before.spec._asdict(),
        "seed": before.seed,
        "arms": {arm: snapshots.agent(arm, kept[-1]).config.to_dict() for arm in arms},
        "iterations": kept,
        "sha256": file_sha256(folder / "agents.safetensors"),
    }
    replace_text(folder / "excerpt.json", json.dumps(record, indent=1))
    return folder


def _halved(prefix: str, agent: SMAC) -> dict[str, Tensor]:
    parts = agent.parts
    return {
        f"{prefix}/{part}/{name}": value.detach().cpu().half().contiguous()
        for part in KEPT
        for name, value in parts[part].state_dict().items()
    }


def _data_like(family: TaskFamily, config: SMACConfig, seed: int) -> tuple[TransitionBuffer, Tasks]:
    """Read the starter data; if its recipe is not the config's, make as much data by the config's."""
    buffer, tasks = starter_data(family)
    stored = SMACConfig.from_dict(read_json(STARTER / family.name / "dataset.json")["config"])
    if any(getattr(config, name) != getattr(stored, name) for name in RECIPE):
        if uses_pearl(config):
            raise StorageError(
                f"the starter data of {family.full_name} is by another recipe than this excerpt's, whose data "
                "PEARL made; read the run itself, or write starter data with smac-lab collect ... --starter"
            )
        buffer = collect_behaviour(family, tasks, replace(config, behaviour_transitions=TRANSITIONS), seed)
    return buffer, tasks


def _read_excerpt(folder: Path, seed: int | None) -> Snapshots:
    record = read_json(folder / "excerpt.json")
    if seed is not None and seed != record.get("seed"):
        raise StorageError(f"{folder} is an excerpt of seed {record.get('seed')}, and has no seed {seed}")
    with reading(folder / "excerpt.json"):
        return _agents_of(record, folder / "agents.safetensors")


def _agents_of(record: dict[str, Any], file: Path) -> Snapshots:
    check_hash(file, record["sha256"])
    tensors, spec = load_file(file), FamilySpec(**record["spec"])
    family, config = make_family(spec.name), SMACConfig.from_dict(record["config"])
    check_spec(spec, family.spec)
    for fields in (record["config"], *record["arms"].values()):
        check_widths({name: value for name, value in fields.items() if name in checkpoint.WIDTHS}, file)
    configs = {arm: SMACConfig.from_dict(fields) for arm, fields in record["arms"].items()}
    buffer, tasks = _data_like(family, config, record["seed"])
    _, test = family.split(config.n_train_tasks, config.n_test_tasks, record["seed"])

    def agent(prefix: str, config: SMACConfig, labeller: torch.nn.ModuleDict | None = None) -> SMAC:
        made = SMAC(config, spec, seed=record["seed"])
        for part in KEPT:
            start = f"{prefix}/{part}/"
            state = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
            made.parts[part].load_state_dict(state)  # into single precision
        made.target_critics.load_state_dict(made.critics.state_dict())
        made.labeller = copy.deepcopy(labeller)
        return made

    before = agent("before/0", config)
    before.freeze_labeller()  # these parts label the arms' data
    labeller, before.labeller = before.labeller, None
    kept = record["iterations"]
    arms = {arm: {i: agent(f"{arm}/{i}", own, labeller) for i in kept} for arm, own in configs.items()}
    return Snapshots(family, tasks, buffer.to(config.torch_device()), before, arms, test)
