"""True relabelling: what the simulation would have paid, and data lent from task to task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import Problem

import smac_lab as lab
from smac_lab.data.chains import COLUMNS
from smac_lab.data.relabel import label_errors
from smac_lab.data.validation import check_dataset


@pytest.mark.parametrize("name", ["point-robot", "cheetah-vel", "ant-dir", "humanoid-dir"])
def test_relabelled_rewards_are_those_that_the_simulation_would_have_paid(name: str) -> None:
    family = lab.make_family(name)
    family.horizon = 30
    tasks, others = family.split(3, 3, seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 3, family.action_dim)).astype(np.float32)
    made = []
    for values in (tasks, others):  # the same interaction in simulations of other tasks
        step = iter(actions)
        episodes = lab.rollout(lambda observations, step=step: next(step), family.batch_env(values), seed=2)
        buffer = lab.TransitionBuffer(family.spec, 3)
        buffer.append_batch([0, 1, 2], episodes._asdict(), ["offline", "explored", "self-collected"], episodes.valid)
        made.append(buffer)
    buffer, expected = made
    rows = buffer.rows.clone()
    relabelled = lab.relabelled(buffer, family, others)
    assert torch.equal(buffer.rows, rows)  # the input stays as it was
    assert relabelled.segments.tolist() == buffer.segments.tolist()
    for column in COLUMNS:
        if column != "rewards":
            assert torch.equal(getattr(relabelled, column), getattr(expected, column))
    assert (relabelled.rewards - buffer.rewards).abs().max() > 0.1
    # The simulation computes in double precision; the features are stored in single.
    torch.testing.assert_close(relabelled.rewards, expected.rewards, rtol=1e-5, atol=1e-5)
    same = lab.relabelled(relabelled, family, tasks)
    torch.testing.assert_close(same.rows, buffer.rows, rtol=1e-5, atol=1e-5)


def test_lent_episodes_are_whole_truly_labelled_and_of_other_tasks(problem) -> None:
    family, tasks, buffer = problem.family, problem.train, problem.buffer
    before, horizon = buffer.clone(), family.horizon
    shared = lab.shared_between_tasks(buffer, family, tasks, episodes=4, seed=1)
    assert torch.equal(buffer.rows, before.rows)
    assert buffer.segments.tolist() == before.segments.tolist()
    assert shared.counts.tolist() == [n + 4 * horizon for n in buffer.counts.tolist()]
    assert shared.offline_counts.tolist() == shared.counts.tolist()
    assert torch.equal(shared.rows[: len(buffer.rows)], buffer.rows)  # own data comes first, untouched
    check_dataset(shared, family, tasks)  # every reward is the own task's
    episodes = {
        (task, buffer.actions[rows].numpy().tobytes())
        for task in range(len(tasks))
        for rows in buffer.rows_of(task).split(horizon)
    }
    for task in range(len(tasks)):
        lent = shared.rows_of(task)[buffer.counts[task] :].split(horizon)
        found = [(of, data) for of, data in episodes for rows in lent if shared.actions[rows].numpy().tobytes() == data]
        assert len(set(found)) == 4
        assert task not in {of for of, _ in found}
    again, other = (lab.shared_between_tasks(buffer, family, tasks, 4, seed) for seed in (1, 2))
    assert torch.equal(again.rows, shared.rows)
    assert not torch.equal(other.rows, shared.rows)
    assert torch.equal(lab.shared_between_tasks(buffer, family, tasks, 0).rows, buffer.rows)


def test_only_offline_data_is_lent_and_no_more_than_there_is(problem) -> None:
    family, tasks, buffer = problem.family, problem.train, problem.buffer
    own = {name: getattr(buffer, name)[buffer.rows_of(0)].numpy() for name in COLUMNS}
    there = int(buffer.offline_counts[1:].sum()) // family.horizon
    buffer.append(1, own, "self-collected")
    with pytest.raises(
        ValueError, match=rf"task 0 can take 0 to {there} episodes of 20 steps from other tasks, not {there + 1}"
    ):
        lab.shared_between_tasks(buffer, family, tasks, there + 1)
    assert int(lab.shared_between_tasks(buffer, family, tasks, there).counts[0]) == int(buffer.offline_counts.sum())


@pytest.mark.parametrize("name", ["walker-params", "hopper-params"])
def test_data_of_tasks_with_other_physics_is_not_relabelled(name: str) -> None:
    family = lab.make_family(name)
    tasks, _ = family.split(2, 1, seed=0)
    buffer = lab.TransitionBuffer(family.spec, 2)
    for call in (lab.relabelled, lambda *given: lab.shared_between_tasks(*given, episodes=0)):
        with pytest.raises(ValueError, match=rf"{name} cannot be relabelled: its tasks change the dynamics .body_mass"):
            call(buffer, family, tasks)


def test_tasks_and_families_that_do_not_fit_are_refused(problem) -> None:
    with pytest.raises(ValueError, match=r"tasks of shape \(6, 2\) are needed.* got \(5, 2\)"):
        lab.relabelled(problem.buffer, problem.family, problem.train[:5])
    with pytest.raises(ValueError, match="data of point-robot, which does not fit sparse-point-robot: name"):
        lab.relabelled(problem.buffer, lab.make_family("sparse-point-robot"), problem.train)


def test_tasks_with_scenes_lend_within_a_scene_only() -> None:
    family = lab.make_family("sawyer")
    drawn = family.sample_tasks(np.random.default_rng(0), 2)
    aims = family.detours(np.random.default_rng(1), drawn)  # other aims, the same two scenes
    tasks = lab.Tasks(np.concatenate([drawn, aims]))
    assert family.rewards_alone_differ(tasks.values[0], tasks.values).tolist() == [True, False, True, False]
    recipe = dataclasses.replace(lab.SMACConfig.preset("sawyer", "smoke"), behaviour_transitions=75)
    buffer = lab.collect_behaviour(family, tasks, recipe, seed=0)
    shared = lab.shared_between_tasks(buffer, family, tasks, episodes=1)
    lent = shared.features[shared.rows_of(0)[75:]]
    assert torch.equal(lent, buffer.features[buffer.rows_of(2)])
    with pytest.raises(ValueError, match="task 0 can take 0 to 1 episodes"):
        lab.shared_between_tasks(buffer, family, tasks, episodes=2)


def test_label_errors_are_of_the_newest_transitions_alone(problem: Problem) -> None:
    """By hand: two rounds whose rewards are off by 3 and by -1; only the newer one is looked at."""
    buffer, family = problem.buffer, problem.family
    assert label_errors(buffer, family, problem.train, 40) == {}
    for off in (3.0, -1.0):
        for task in range(2):
            rows = buffer.rows_of(task, "offline")[:20]
            columns = {name: getattr(buffer, name)[rows].numpy() for name in COLUMNS}
            buffer.append(task, {**columns, "rewards": columns["rewards"] + off}, "self-collected")
    found = label_errors(buffer, family, problem.train, 40)
    assert found["label_error"] == pytest.approx(1.0, abs=1e-5)
    assert found["label_bias"] == pytest.approx(-1.0, abs=1e-5)
    true = np.concatenate([buffer.rewards[buffer.rows_of(task, "offline")[:20]].numpy() for task in range(2)])
    assert found["label_true"] == pytest.approx(true.mean(), abs=1e-5)
    assert found["label_true_sd"] == pytest.approx(true.std(), abs=1e-5)
    both = label_errors(buffer, family, problem.train, 80)
    assert both["label_error"] == pytest.approx(np.sqrt(5.0), abs=1e-5)
