"""Saving and resuming, exact to the bit: immutable step folders, append-only buffer shards, nothing pickled.

path/latest.json                 names the newest step; swapped by one `os.replace`
path/step_000000120/             agent.safetensors, state.json (config, progress, hashes); never changed
path/buffer/<hash>.safetensors   runs of buffer rows; never rewritten
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from smac_lab.actor_critic import Actor, Critics, awac_loss, critic_loss
from smac_lab.agent import SMAC
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.storage import (
    PARTIAL,
    StorageError,
    check_hash,
    check_widths,
    file_sha256,
    inside,
    load_shards,
    read_json,
    reading,
    replace_text,
    save_shards,
    write_tensors,
)
from smac_lab.encoder import ContextEncoder
from smac_lab.engine.method import Method
from smac_lab.methods import find_method, name_of
from smac_lab.reward_model import RewardDecoder, reward_loss
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import FamilySpec

FORMAT = 3
DEFAULT_PARTS = {"encoder": ContextEncoder, "actor": Actor, "critics": Critics, "reward_decoder": RewardDecoder}
DEFAULT_LOSSES = {"actor_loss": awac_loss, "critic_loss": critic_loss, "reward_loss": reward_loss}
# fields that become sizes of layers
WIDTHS = {
    *("obs_dim", "action_dim", "context_dim", "z_dim", "latent", "hidden", "embeddings", "policy_hidden"),
    *("encoder_hidden", "decoder_hidden", "actor_hidden", "critic_hidden"),
}


class Run(NamedTuple):
    """Result of `load`."""

    agent: Any  # `SMAC` or another method's agent
    buffer: TransitionBuffer | None
    progress: dict[str, Any]


def save(
    path: str | Path,
    agent: Method,
    *,
    buffer: TransitionBuffer | None = None,
    progress: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint under `path` and make it the latest, atomically.

    Args:
        path: folder of a run's checkpoints; created if missing.
        agent: stored with everything that the next update needs.
        buffer: its new rows are added as shards.
        progress: anything that JSON can store.

    Returns:
        The new step's folder.
    """
    step = _write_step(Path(path), agent, buffer, progress)
    _make_latest(step)
    return step


def save_seeds(
    paths: Sequence[Path], agent: Method, buffer: TransitionBuffer, progress: dict[str, Any] | None = None
) -> None:
    """Save an agent in one folder per seed, as if every seed had run alone.

    All steps are written before any becomes the latest, so that an interruption rarely leaves seeds at different steps.
    """
    buffers = [buffer] if agent.seeds is None else buffer.split()
    parts = zip(paths, agent.split(), buffers, strict=True)
    for step in [_write_step(path, one, own, progress) for path, one, own in parts]:
        _make_latest(step)


def _make_latest(step: Path) -> None:
    pointer = {"step": step.name, "state_sha256": file_sha256(step / "state.json")}
    replace_text(step.parent / "latest.json", json.dumps(pointer))


def _write_step(path: Path, agent: Method, buffer: TransitionBuffer | None, progress: dict[str, Any] | None) -> Path:
    """Write a step's folder, which is not yet the latest."""
    path.mkdir(parents=True, exist_ok=True)
    name = _free_name(path, f"step_{agent.updates:09d}")
    partial = path / f"{PARTIAL}{name}_{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_files(path, partial, agent, buffer, progress)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    final = path / name
    os.replace(partial, final)
    return final


def _write_files(
    path: Path, partial: Path, agent: Method, buffer: TransitionBuffer | None, progress: dict[str, Any] | None
) -> None:
    latest = _read_state(path)[1]["buffer"] if exists(path) else None
    known = latest["shards"] if latest else []
    write_tensors(_flatten(agent.state_dict()), partial / "agent.safetensors")
    state = {
        "format": FORMAT,
        "config": agent.config.to_dict(),
        "spec": agent.spec._asdict(),
        "seed": agent.seed,
        "updates": agent.updates,
        "method": name_of(agent),
        "numbers": None if agent.numbers is None else dataclasses.asdict(agent.numbers),
        "parts": {part: _qualified(type(getattr(agent, part))) for part in _may_differ(agent, DEFAULT_PARTS)},
        "losses": {loss: _qualified(getattr(agent, loss)) for loss in _may_differ(agent, DEFAULT_LOSSES)},
        "has_labeller": getattr(agent, "labeller", None) is not None,
        "agent_sha256": file_sha256(partial / "agent.safetensors"),
        "buffer": None if buffer is None else save_shards(path, buffer, known),
        "progress": progress or {},
        "versions": {"torch": torch.__version__},
    }
    (partial / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")


def load(
    path: str | Path,
    *,
    family: TaskFamily | FamilySpec | None = None,
    device: str | None = None,
    buffer: bool = True,
    **parts: Any,
) -> Run:
    """Read the latest checkpoint under `path` (or one step's folder).

    Args:
        path: folder passed to `save`, or returned by it.
        family: required family; default: any.
        device: of agent and buffer; default the saved config's.
        buffer: whether to read the transitions; if False, `run.buffer` is None.
        **parts: the agent's custom parts and losses, by `SMAC`'s argument names; parts receive the stored parameters.

    Raises:
        StorageError: no checkpoint under `path`, a pickle, a damaged file, another family, or a missing part.
    """
    folder, state = _read_state(Path(path))
    with reading(folder):
        return _load(Path(path), folder, state, family, device, buffer, parts)


def _load(
    path: Path,
    folder: Path,
    state: dict[str, Any],
    family: TaskFamily | FamilySpec | None,
    device: str | None,
    buffer: bool,
    parts: dict[str, Any],
) -> Run:
    spec = FamilySpec(**state["spec"])
    if family is not None:
        wanted = family if isinstance(family, FamilySpec) else family.spec
        if wanted != spec:
            raise StorageError(f"{path} is a checkpoint of {spec}, which does not fit {wanted}")
    for part in state["parts"]:
        if state["parts"][part] != _qualified(DEFAULT_PARTS[part]) and part not in parts:
            raise StorageError(
                f"{path} was made with {part}={state['parts'][part]}, which is not part of smac_lab; pass it: "
                f"lab.load(path, {part}={state['parts'][part].rsplit('.', 1)[-1]}(...))"
            )
    for loss in state["losses"]:
        if state["losses"][loss] != _qualified(DEFAULT_LOSSES[loss]) and loss not in parts:
            warnings.warn(
                f"{path} was trained with {loss}={state['losses'][loss]}; pass {loss}=... to go on training with it",
                stacklevel=3,
            )
    file = folder / "agent.safetensors"
    check_hash(file, state["agent_sha256"])
    if not parts:  # custom parts need not have the widths of the config
        for record in (state["spec"], state["config"], state.get("numbers") or {}):
            check_widths({name: value for name, value in record.items() if name in WIDTHS}, file)
    config = SMACConfig.from_dict(state["config"])
    if device is not None:
        config = dataclasses.replace(config, device=device)
    method = find_method(state.get("method", "smac"))
    numbers = None if method.paper is None else type(method.paper)(**_tuples(state["numbers"]))
    agent = method.agent(config, spec, state["seed"], numbers, **parts)
    try:
        agent.load_state_dict(_unflatten(load_file(file), state["updates"], agent))
    except (RuntimeError, KeyError) as error:
        raise StorageError(f"{path}: the stored parameters do not fit the parts given: {error}") from error
    stored = None
    if buffer and state["buffer"] is not None:
        stored = load_shards(folder.parent, state["buffer"], spec, str(agent.device))
    return Run(agent, stored, state["progress"])


def load_seeds(paths: Sequence[Path], *, family: TaskFamily | FamilySpec | None = None) -> Run:
    """Read the latest checkpoints of equally far seeds as one agent and one buffer; inverse of `save_seeds`.

    Raises:
        StorageError: as `load`, or a checkpoint has no transitions.
    """
    runs = [load(path, family=family) for path in paths]
    buffers = [run.buffer for run in runs if run.buffer is not None]
    if len(buffers) < len(runs):
        raise StorageError(f"a checkpoint in {', '.join(map(str, paths))} has no transitions, so that none can go on")
    if len(runs) == 1:
        return runs[0]
    return Run(type(runs[0].agent).join([run.agent for run in runs]), TransitionBuffer.join(buffers), runs[0].progress)


def _may_differ(agent: Method, names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parts or losses that may be custom, which only `SMAC` and its subclasses accept."""
    return names if isinstance(agent, SMAC) else {}


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def exists(path: str | Path) -> bool:
    """Return whether there is a checkpoint under `path`."""
    return (Path(path) / "latest.json").is_file()


def read_progress(path: str | Path) -> dict[str, Any]:
    """Read only the progress of the latest checkpoint."""
    folder, state = _read_state(Path(path))
    with reading(folder):
        return dict(state["progress"])


# -- named tensors ------------------------------------------------------------------------
def _flatten(state: dict[str, Any]) -> dict[str, Tensor]:
    tensors = {"generator": state["generator"]}
    for part, values in state["parts"].items():
        tensors.update({f"parts/{part}/{name}": value for name, value in values.items()})
    for name, value in (state.get("labeller") or {}).items():
        tensors[f"labeller/{name}"] = value
    for index, values in state["optimizer"].items():
        tensors.update({f"optimizer/{index}/{name}": value for name, value in values.items()})
    # safetensors requires separate memory for each tensor
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def _unflatten(tensors: dict[str, Tensor], updates: int, agent: Method) -> dict[str, Any]:
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in agent.parts}
    labeller: dict[str, Tensor] = {}
    optimizer: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "parts":
            part, _, name = rest.partition("/")
            parts[part][name] = value
        elif kind == "labeller":
            labeller[rest] = value
        elif kind == "optimizer":
            index, _, name = rest.partition("/")
            optimizer.setdefault(int(index), {})[name] = value
    return {
        "parts": parts,
        "labeller": labeller or None,
        "optimizer": optimizer,
        "generator": tensors["generator"],
        "updates": updates,
    }


# -- files -----------------------------------------------------------------------------------------------
def _read_state(path: Path) -> tuple[Path, dict[str, Any]]:
    if path.is_file():
        raise StorageError(
            f"{path} is a file, and a checkpoint is a folder that smac_lab.save made. Pickled checkpoints "
            "(.pt, .pth, .pkl) are never loaded: unpickling runs whatever code the file holds."
        )
    expected = None
    if not (path / "state.json").is_file():
        latest = path / "latest.json"
        if not latest.is_file():
            raise StorageError(f"no checkpoint in {path}: there is neither latest.json nor state.json")
        pointer = read_json(latest)
        with reading(latest):
            path, expected = inside(path, pointer["step"]), pointer["state_sha256"]
    file = path / "state.json"
    if expected is not None:
        check_hash(file, expected)
    state = read_json(file)
    if state.get("format") != FORMAT:
        raise StorageError(f"{path} has checkpoint format {state.get('format')!r}; this version reads {FORMAT}")
    return path, state


def _free_name(path: Path, name: str) -> str:
    if not (path / name).exists():
        return name
    return next(f"{name}_{i}" for i in range(1, 10_000) if not (path / f"{name}_{i}").exists())


def _qualified(thing: Any) -> str:
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{getattr(thing, '__module__', type(thing).__module__)}.{name}"
