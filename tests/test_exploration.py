"""Exploration: static data that the encoder reads in place of what actor and critics learn from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Problem

import smac_lab as lab
from smac_lab.data.storage import load_dataset, save_dataset
from smac_lab.interaction import self_collect
from smac_lab.runs.behaviour import uses_pearl
from smac_lab.sampling import sample_mixed, sample_offline, sample_self_supervised

PEARL = {"behaviour_iterations": 2, "behaviour_updates": 5, "behaviour_initial_episodes": 4}


def collect(problem: Problem, **changes: Any) -> tuple[lab.SMACConfig, lab.TransitionBuffer]:
    config = dataclasses.replace(problem.config, **{"exploration_transitions": 40, **PEARL, **changes})
    return config, lab.collect_behaviour(problem.family, problem.train, config, seed=0)


def rows_of(buffer: lab.TransitionBuffer, source: Any) -> set[tuple[float, ...]]:
    """Observations, actions and rewards of a source, of all tasks, as a context shows them."""
    places = torch.cat([buffer.rows_of(task, source) for task in range(buffer.n_tasks)])
    columns = (buffer.observations[places], buffer.actions[places], buffer.rewards[places, None])
    return {tuple(row) for row in torch.cat(columns, 1).tolist()}


def is_from(context: torch.Tensor, buffer: lab.TransitionBuffer, source: Any) -> bool:
    known = rows_of(buffer, source)
    return all(tuple(row) in known for row in context.flatten(0, -2).tolist())


def test_a_recipe_with_exploration_makes_both_parts(problem: Problem) -> None:
    config, buffer = collect(problem)
    assert buffer.has_exploration
    assert not problem.buffer.has_exploration
    assert [int(n) for n in buffer.counts_of("exploration")] == [40] * len(problem.train)
    assert [int(n) for n in buffer.offline_counts] == [config.behaviour_transitions] * len(problem.train)
    assert "exploration" not in repr(problem.buffer)
    assert "240 exploration" in repr(buffer)
    true = lab.relabelled(buffer, problem.family, problem.train)
    assert torch.allclose(true.rewards, buffer.rewards, atol=1e-5)


def test_progress_is_told_in_one_unit(problem: Problem) -> None:
    """Iterations of PEARL where it runs, whatever else is collected: a bar that counts them shows nothing else."""
    config, _ = collect(problem)
    said: list[tuple[int, int]] = []
    lab.collect_behaviour(problem.family, problem.train, config, tick=lambda *at: said.append(at))
    assert said == [(done, config.behaviour_iterations) for done in range(config.behaviour_iterations + 1)]


def test_pearl_gives_its_first_or_last_transitions_and_its_last_exploration(problem: Problem) -> None:
    agent = lab.SMAC(dataclasses.replace(problem.config, **PEARL), problem.family.spec, seed=0)
    pearl = lab.TransitionBuffer(problem.family.spec, len(problem.train))
    for _ in lab.train_pearl(agent, pearl, problem.family, problem.train, 2, 5, 4):
        pass
    for part in ("first", "last"):
        config = dataclasses.replace(
            problem.config,
            **PEARL,
            behaviour_policy="pearl",
            behaviour_part=part,
            behaviour_transitions=60,
            exploration_transitions=40,
        )
        buffer = lab.collect_behaviour(problem.family, problem.train, config, seed=0, pearl=pearl)
        for task in range(len(problem.train)):
            everything, explored = pearl.rows_of(task), pearl.rows_of(task, "explored")
            kept = everything[:60] if part == "first" else everything[-60:]
            assert torch.equal(buffer.observations[buffer.rows_of(task, "offline")], pearl.observations[kept])
            own = buffer.rewards[buffer.rows_of(task, "exploration")]
            assert torch.equal(own, pearl.rewards[explored[-40:]])


def test_scripted_exploration_stands_in_where_a_family_has_a_script(problem: Problem) -> None:
    config, buffer = collect(problem, exploration_policy="scripted")
    assert not uses_pearl(config)
    assert buffer.has_exploration
    cheetah = lab.make_family("cheetah-vel")
    wanted = dataclasses.replace(
        lab.SMACConfig.preset("cheetah-vel", "smoke"),
        behaviour_policy="random",
        exploration_transitions=400,
        exploration_policy="scripted",
    )
    with pytest.raises(ValueError, match="cheetah-vel has no script, so that exploration_policy='scripted'"):
        lab.collect_behaviour(cheetah, cheetah.split(2, 1, 0)[0], wanted)
    with pytest.raises(ValueError, match="exploration_transitions=50 is not allowed: it must be a multiple"):
        collect(problem, exploration_transitions=50)


def test_the_encoder_reads_exploration_and_actor_and_critics_do_not(problem: Problem) -> None:
    config, buffer = collect(problem)
    agent = lab.SMAC(config, problem.family.spec, seed=0)
    batch = sample_offline(agent, buffer)
    assert is_from(batch.context, buffer, "exploration")
    learned = torch.cat([batch.observations, batch.actions, batch.rewards[..., None]], -1)
    assert is_from(learned, buffer, "offline")
    shift = lab.measure_shift(agent, problem.family, problem.train, buffer)
    assert is_from(shift.offline_contexts.flatten(0, 1), buffer, "exploration")


def test_without_exploration_the_encoder_reads_the_transitions(problem: Problem) -> None:
    assert (problem.buffer.offline_context, problem.buffer.mixed_context) == ("offline", "mixture")
    assert is_from(sample_offline(problem.agent(), problem.buffer).context, problem.buffer, "offline")


@pytest.mark.parametrize("online_context", ["mixed", "separate", "episodes"])
def test_prior_episodes_join_the_exploration_and_posterior_ones_do_not(problem: Problem, online_context: Any) -> None:
    config, buffer = collect(problem, online_context=online_context, online_tasks=6)
    agent = lab.SMAC(config, problem.family.spec, seed=0)
    agent.freeze_labeller()
    self_collect(agent, buffer, problem.family, problem.train, oracle=False)
    posterior = rows_of(buffer, "self-collected") - rows_of(buffer, "explored")
    assert posterior
    known, seen = rows_of(buffer, "any exploration"), set()
    for _ in range(20):
        batch = (sample_mixed if online_context == "mixed" else sample_self_supervised)(agent, buffer)
        seen |= {tuple(row) for row in batch.context.flatten(0, -2).tolist()}
        learned = torch.cat([batch.observations, batch.actions, batch.rewards[..., None]], -1)
        assert is_from(learned, buffer, "mixture")
    if online_context != "separate":
        assert seen <= known
    assert seen & rows_of(buffer, "exploration")
    assert seen & rows_of(buffer, "explored")


def test_labels_come_from_exploration(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    config, buffer = collect(problem)
    agent, contexts = lab.SMAC(config, problem.family.spec, seed=0), []
    label = agent.label
    monkeypatch.setattr(agent, "label", lambda context, *rest: contexts.append(context) or label(context, *rest))
    agent.freeze_labeller()
    self_collect(agent, buffer, problem.family, problem.train, oracle=False)
    assert contexts
    assert all(is_from(context, buffer, "exploration") for context in contexts)


def test_both_parts_survive_files_copies_and_seeds(problem: Problem, tmp_path: Path) -> None:
    config, buffer = collect(problem)
    save_dataset(tmp_path / "data", buffer, problem.family, problem.train, {})
    read, _, record = load_dataset(tmp_path / "data", problem.family)
    agent = lab.SMAC(config, problem.family.spec)
    lab.save(tmp_path / "run", agent, buffer=buffer)
    stored = lab.load(tmp_path / "run").buffer
    assert stored is not None
    joined = lab.TransitionBuffer.join([buffer, buffer])
    for other in (read, stored, buffer.clone(), *joined.split()):
        assert torch.equal(other.codes, buffer.codes)
        assert torch.equal(other.rewards, buffer.rewards)
    assert joined.has_exploration
    moved = buffer.clone()
    moved.segments[:, 2] = 0  # the same rows, all of them for actor and critics
    save_dataset(tmp_path / "other", moved, problem.family, problem.train, {})
    other_record = load_dataset(tmp_path / "other", problem.family)[2]
    assert record["checks"]["content_sha256"] != other_record["checks"]["content_sha256"]


def test_exploration_goes_to_minari_and_back(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    _, buffer = collect(problem)
    lab.to_minari(buffer, problem.family, "explored-v0", tasks=problem.train)
    back = lab.from_minari("explored-v0", problem.family)
    assert torch.equal(back.codes, buffer.codes)
    assert torch.equal(back.rewards, buffer.rewards)


def test_exploration_of_some_tasks_alone_is_no_data_set(problem: Problem, tmp_path: Path) -> None:
    buffer = problem.buffer
    columns = {name: getattr(buffer, name)[buffer.rows_of(0)[:20]].numpy() for name in lab.data.chains.COLUMNS}
    buffer.append(0, columns, "exploration")
    with pytest.raises(ValueError, match=r"tasks \[1, 2, 3, 4, 5\] of 6 have no exploration, and others do"):
        save_dataset(tmp_path / "data", buffer, problem.family, problem.train, {})


@pytest.mark.parametrize("moment", ["iteration", "episode"])
def test_how_often_the_collecting_posterior_is_inferred(
    problem: Problem, moment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anew for every episode, from context that includes the episodes just collected; or once an iteration."""
    config, buffer = collect(problem, collecting_posterior=moment, prior_episodes=1, posterior_episodes=3)
    agent, sizes = lab.SMAC(config, problem.family.spec, seed=0), []
    agent.freeze_labeller()
    infer = agent.infer_posterior
    monkeypatch.setattr(agent, "infer_posterior", lambda context: sizes.append(len(buffer)) or infer(context))
    before, horizon = len(buffer), problem.family.horizon
    self_collect(agent, buffer, problem.family, problem.train, oracle=False)
    episode = config.online_tasks * horizon
    assert sizes == ([before] if moment == "iteration" else [before + k * episode for k in (1, 2, 3)])
    assert len(buffer) == before + 4 * episode
    assert int(buffer.counts_of("explored").sum()) == episode


def test_snapshots_know_the_recipe(problem: Problem) -> None:
    from smac_lab.runs.snapshots import RECIPE

    fields = {field.name for field in dataclasses.fields(lab.SMACConfig)}
    assert set(RECIPE) <= fields
    assert {"exploration_transitions", "exploration_policy", "behaviour_part"} <= set(RECIPE)


def test_behaviour_returns_are_of_the_transitions_alone(problem: Problem) -> None:
    from smac_lab.runs.measurement import behaviour_returns

    _, buffer = collect(problem)
    alone = lab.collect_behaviour(problem.family, problem.train, problem.config, seed=0)
    np.testing.assert_allclose(behaviour_returns(buffer), behaviour_returns(alone), rtol=1e-5)
