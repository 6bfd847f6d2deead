"""Checkpoints: exact, atomic, append-only; and one clear error for everything that is not one."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from conftest import Problem
from torch import nn

import smac_lab as lab
from smac_lab.data import storage
from smac_lab.data.chains import COLUMNS
from smac_lab.encoder import ContextEncoder
from smac_lab.runs import checkpoint


class MeanEncoder(nn.Module):
    def __init__(self, context_dim: int, z_dim: int):
        super().__init__()
        self.net = lab.MLP(context_dim, [8], 2 * z_dim)

    def forward(self, context: torch.Tensor) -> lab.Gaussian:
        mean, raw = self.net(context).mean(-2).chunk(2, -1)
        return lab.Gaussian(mean, nn.functional.softplus(raw) + 1e-3)


def parameters(agent: lab.SMAC) -> dict[str, torch.Tensor]:
    return {f"{k}.{n}": p.clone() for k, part in agent.parts.items() for n, p in part.state_dict().items()}


def assert_equal(left: lab.SMAC, right: lab.SMAC) -> None:
    a, b = parameters(left), parameters(right)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def finish(generator: object) -> None:
    for _ in generator:  # type: ignore[attr-defined]
        pass


@pytest.mark.parametrize("encoder", ["frozen", "offline", "self-labelled"])
def test_resume_equals_uninterrupted_to_the_bit(problem: Problem, tmp_path: Path, encoder: str) -> None:
    config = dataclasses.replace(problem.config, online_encoder=encoder)
    whole = lab.SMAC(config, problem.family.spec, seed=3)
    whole_buffer = problem.buffer.clone()
    finish(lab.train_offline(whole, whole_buffer, steps=12))
    finish(lab.train_self_supervised(whole, whole_buffer, problem.family, problem.train, iterations=3))

    agent, buffer = lab.SMAC(config, problem.family.spec, seed=3), problem.buffer.clone()
    finish(lab.train_offline(agent, buffer, steps=5))
    lab.save(tmp_path, agent, buffer=buffer, progress={"done": 5})
    run = lab.load(tmp_path)
    assert run.progress == {"done": 5}
    assert run.buffer is not None
    finish(lab.train_offline(run.agent, run.buffer, steps=7))
    finish(lab.train_self_supervised(run.agent, run.buffer, problem.family, problem.train, iterations=1))
    lab.save(tmp_path, run.agent, buffer=run.buffer)
    again = lab.load(tmp_path)
    assert again.buffer is not None
    finish(lab.train_self_supervised(again.agent, again.buffer, problem.family, problem.train, iterations=2))

    assert_equal(whole, again.agent)
    assert torch.equal(whole_buffer.rows, again.buffer.rows)
    assert whole_buffer.segments.tolist() == again.buffer.segments.tolist()
    assert torch.equal(whole.generator.get_state(), again.agent.generator.get_state())


def test_steps_are_immutable_and_buffer_shards_are_never_rewritten(problem: Problem, tmp_path: Path) -> None:
    agent = problem.agent()
    first = lab.save(tmp_path, agent, buffer=problem.buffer)
    shards = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "buffer").iterdir()}
    state = (first / "state.json").read_bytes()
    finish(lab.train_self_supervised(agent, problem.buffer, problem.family, problem.train, iterations=1))
    second = lab.save(tmp_path, agent, buffer=problem.buffer)
    assert second != first
    assert (first / "state.json").read_bytes() == state
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "buffer").iterdir()}
    assert len(after) == len(shards) + 1
    assert shards.items() <= after.items()
    assert lab.load(tmp_path).agent.updates == agent.updates
    assert lab.load(first).agent.updates == 0, "an earlier step can still be opened"


def test_shards_are_pieces_of_whole_segments(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SHARD_ROWS", 50)  # two episodes of 20 steps, each with its holder row
    agent, buffer = problem.agent(), problem.buffer
    whole = lab.TransitionBuffer.join([buffer, buffer])
    whole.append(7, {name: getattr(buffer, name)[:70] for name in COLUMNS}, "self-collected")
    lab.save(tmp_path, agent, buffer=whole)
    record = json.loads((next(tmp_path.glob("step_*")) / "state.json").read_text())["buffer"]
    assert {(shard["rows"], shard["segments"]) for shard in record["shards"]} == {(42, 2), (32, 2)}
    again = lab.load(tmp_path).buffer
    assert again is not None
    assert again.seeds == 2
    assert again.n_tasks == 2 * buffer.n_tasks
    assert torch.equal(again.rows, whole.rows)
    assert again.segments.tolist() == whole.segments.tolist()
    packed = whole.rows.shape[1] * 4 * len(whole)
    on_disk = sum(file.stat().st_size for file in (tmp_path / "buffer").iterdir())
    assert on_disk < 1.06 * packed + 400 * len(record["shards"]), "holder rows, segments and headers alone come on top"


def test_interrupted_save_leaves_the_previous_checkpoint(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = problem.agent()
    lab.save(tmp_path, agent, buffer=problem.buffer, progress={"done": 1})
    finish(lab.train_offline(agent, problem.buffer, steps=2))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for function in ("write_tensors", "file_sha256", "replace_text"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, function, killed)
            with pytest.raises(KeyboardInterrupt):
                lab.save(tmp_path, agent, buffer=problem.buffer, progress={"done": 2})
        assert lab.load(tmp_path).progress == {"done": 1}
    lab.save(tmp_path, agent, buffer=problem.buffer, progress={"done": 2})
    assert lab.load(tmp_path).progress == {"done": 2}


def test_part_from_a_cell_must_be_passed_in_again(problem: Problem, tmp_path: Path) -> None:
    make = lambda: MeanEncoder(problem.family.spec.context_dim, problem.config.z_dim)  # noqa: E731
    agent = problem.agent(encoder=make())
    finish(lab.train_offline(agent, problem.buffer, steps=2))
    lab.save(tmp_path, agent)
    with pytest.raises(lab.StorageError, match=r"encoder=.*MeanEncoder.*pass it"):
        lab.load(tmp_path)
    assert_equal(agent, lab.load(tmp_path, encoder=make()).agent)
    with pytest.raises(lab.StorageError, match="do not fit"):
        lab.load(tmp_path, encoder=ContextEncoder(problem.family.spec.context_dim, problem.config.z_dim))


def test_loss_from_a_cell_is_asked_for(problem: Problem, tmp_path: Path) -> None:
    def my_actor_loss(agent: lab.SMAC, batch: lab.Batch, z: torch.Tensor) -> tuple[torch.Tensor, dict]:
        mean, _ = agent.actor(batch.observations, z.detach())
        loss = (torch.tanh(mean) - batch.actions).square().mean()
        return loss, {"imitation": loss}

    lab.save(tmp_path, problem.agent(actor_loss=my_actor_loss))
    with pytest.warns(UserWarning, match="actor_loss=.*my_actor_loss"):
        lab.load(tmp_path)
    assert lab.load(tmp_path, actor_loss=my_actor_loss).agent.actor_loss is my_actor_loss


def test_bad_checkpoints_end_in_one_clear_error(problem: Problem, tmp_path: Path) -> None:
    error = lab.StorageError
    with pytest.raises(error, match="no checkpoint"):
        lab.load(tmp_path / "nothing")

    pickled = tmp_path / "agent.pt"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(error, match="never loaded"):
        lab.load(pickled)

    folder = lab.save(tmp_path / "run", problem.agent(), buffer=problem.buffer)
    with pytest.raises(error, match="does not fit"):
        lab.load(tmp_path / "run", family=lab.make_family("cheetah-vel"))

    shard = next((tmp_path / "run" / "buffer").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        lab.load(tmp_path / "run")
    shard.write_bytes(whole)
    lab.load(tmp_path / "run")

    for name in ("agent.safetensors", "state.json"):
        file = folder / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-7])
        with pytest.raises(ValueError, match="damaged"):
            lab.load(tmp_path / "run")
        file.write_bytes(whole)
    (tmp_path / "run" / "latest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        lab.load(tmp_path / "run")


def test_unknown_format_is_refused(problem: Problem, tmp_path: Path) -> None:
    folder = lab.save(tmp_path, problem.agent())
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        lab.load(folder)
