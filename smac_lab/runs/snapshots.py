"""Agents along a run: at the end of the offline phase, at every saved iteration of each arm; and small excerpts."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from smac_lab.agent import SMAC
from smac_lab.arms import folder_of
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.starter import STARTER, TRANSITIONS, starter_data
from smac_lab.data.storage import StorageError, check_hash, file_sha256, read_json, replace_text
from smac_lab.runs import checkpoint
from smac_lab.runs.behaviour import collect_behaviour, uses_pearl
from smac_lab.tasks import make_family
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import FamilySpec, Tasks

EXAMPLES = Path(__file__).parents[1] / "examples"
KEPT = ("actor", "critics", "encoder", "reward_decoder")  # of an agent, in an excerpt
RECIPE = (  # fields of the config that say whose data it is
    *("behaviour_policy", "behaviour_part", "behaviour_on_task", "behaviour_noise"),
    *("exploration_transitions", "exploration_policy"),
)


@dataclass(frozen=True, eq=False)
class Snapshots:
    """One seed's agents along a run, with what they learned from.

    Args:
        family: what they act in.
        tasks: training tasks; `tasks[i]` is the buffer's task `i`.
        buffer: their offline transitions.
        before: the agent after the offline phase.
        arms: arm to iteration to agent. Iteration 0, of every arm, is `before`.
        test: held-out tasks.
        known: what explorers of these agents have worked out, so that several of them do so once.
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
        """A single agent, whatever it has gone through."""
        return cls(family, tasks, buffer, agent, {})

    def agent(self, arm: str | None = None, iteration: int = 0) -> SMAC:
        """The agent of an arm after some iterations; without an arm, or at iteration 0, the one before.

        Raises:
            ValueError: nothing was kept of that arm or at that iteration; the message says what was.
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
    """Read a run's agents: its folder, or an excerpt of it.

    Args:
        run: folder that `smac-lab train` or `smac-lab excerpt` wrote.
        seed: which of its seeds; default the first.

    Raises:
        StorageError: neither of the two is there, a seed that was not run, or a damaged file.
    """
    folder = find_run(run)
    if (folder / "excerpt.json").is_file():
        return _read_excerpt(folder)
    stored = read_json(folder / "config.json")
    seed = stored["seeds"][0] if seed is None else seed
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
    """The folder of a run, of an excerpt, or of the example of that name.

    Raises:
        StorageError: there is none.
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
    """Agents that are shipped with the library, trained on the family's starter data and more like it.

    Raises:
        StorageError: there is no such example; the message says which there are.
    """
    return _read_excerpt(find_run(EXAMPLES / name))


def write_excerpt(
    folder: str | Path,
    snapshots: Snapshots,
    iterations: Sequence[int] = (),
    arms: Sequence[str] = (),
    about: dict[str, Any] | None = None,
) -> Path:
    """Store agents small enough to be sent: parts only, in half precision, without optimizers and data.

    Whoever reads it gets the family's starter data beside the agents (or data of its tasks by the run's own recipe), so
    an excerpt is of a run on tasks that the starter data begins with: those of the same family and seed.

    Args:
        folder: where `agents.safetensors` and `excerpt.json` come to stand.
        snapshots: what to take from.
        iterations: of each arm; default the last alone.
        arms: default all there are.
        about: anything JSON can hold, for the record.

    Raises:
        ValueError: an arm or an iteration of which nothing was kept.
    """
    arms, kept = tuple(arms) or tuple(snapshots.arms), tuple(iterations) or (snapshots.iterations[-1],)
    tensors = _halved("before/0", snapshots.before)
    for arm in arms:
        for iteration in kept:
            tensors |= _halved(f"{arm}/{iteration}", snapshots.agent(arm, iteration))
    before, folder = snapshots.before, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "agents.safetensors")
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
    """Starter data; where it is by another recipe than the config's, as much data of its tasks by that one."""
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


def _read_excerpt(folder: Path) -> Snapshots:
    record, file = read_json(folder / "excerpt.json"), folder / "agents.safetensors"
    check_hash(file, record["sha256"])
    tensors, spec = load_file(file), FamilySpec(**record["spec"])
    family, config = make_family(spec.name), SMACConfig.from_dict(record["config"])
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
    before.freeze_labeller()  # the very parts that label what the arms collect
    labeller, before.labeller = before.labeller, None
    kept = record["iterations"]
    arms = {arm: {i: agent(f"{arm}/{i}", own, labeller) for i in kept} for arm, own in configs.items()}
    return Snapshots(family, tasks, buffer.to(config.torch_device()), before, arms, test)
