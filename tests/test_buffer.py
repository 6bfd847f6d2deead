"""TransitionBuffer: what is stored, what is refused, and from where samples come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import smac_lab as lab
from smac_lab.data.buffer import COLUMNS, Source
from smac_lab.tasks.family import FamilySpec

SPEC = FamilySpec("toy", obs_dim=3, action_dim=2, task_dim=1, feature_dim=2, context_dim=6, horizon=5)
WIDTHS = {"observations": 3, "actions": 2, "next_observations": 3, "features": 2}


def columns(n: int, start: float = 0.0) -> dict[str, np.ndarray]:
    """`n` transitions; the reward is a running number that tells them apart."""
    rng = np.random.default_rng(int(start))
    made = {name: rng.normal(size=(n, WIDTHS[name]) if name in WIDTHS else n) for name in COLUMNS}
    return {
        **made,
        "rewards": start + np.arange(n),
        "terminations": np.zeros(n, bool),
        "truncations": np.zeros(n, bool),
    }


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def buffer() -> lab.TransitionBuffer:
    """Task 0: rewards 0-9 offline, 100-104 explored, 200-209 collected; task 1: 1000-1004 offline; task 2: nothing."""
    buffer = lab.TransitionBuffer(SPEC, 3)
    buffer.append(0, columns(10), "offline")
    buffer.append(1, columns(5, 1000), "offline")
    buffer.append(0, columns(5, 100), "explored")
    buffer.append(0, columns(10, 200), "self-collected")
    return buffer


SOURCES: dict[Source, list[float]] = {
    "offline": [*range(10)],
    "explored": [*range(100, 105)],
    "self-collected": [*range(100, 105), *range(200, 210)],
    "all": [*range(10), *range(100, 105), *range(200, 210)],
}


# -- writing -----------------------------------------------------------------------------------------------------


def test_columns_come_back_as_they_were(buffer: lab.TransitionBuffer) -> None:
    given = [columns(10), columns(5, 1000), columns(5, 100), columns(10, 200)]
    assert len(buffer) == 30
    for name in COLUMNS:
        expected = np.concatenate([part[name] for part in given]).astype(np.float32)
        np.testing.assert_array_equal(getattr(buffer, name), expected)
        assert getattr(buffer, name).dtype == torch.float32
    assert buffer.task.tolist() == [0] * 10 + [1] * 5 + [0] * 15
    assert buffer.source.tolist() == [0] * 15 + [1] * 15
    assert buffer.counts.tolist() == [25, 5, 0]
    assert buffer.offline_counts.tolist() == [10, 5, 0]
    assert buffer.tasks_with("explored").tolist() == [0]
    assert "3 tasks, 15 offline + 15 self-collected" in repr(buffer)
    with pytest.raises(AttributeError, match="velocities"):
        _ = buffer.velocities


@pytest.mark.parametrize("source", SOURCES)
def test_rows_of_a_task_are_in_time_order(buffer: lab.TransitionBuffer, source: Source) -> None:
    assert buffer.rewards[buffer.rows_of(0, source)].tolist() == SOURCES[source]


def test_growth_keeps_rows_and_order() -> None:
    buffer = lab.TransitionBuffer(SPEC, 4)
    rng = np.random.default_rng(0)
    stored: dict[tuple[int, str], list[float]] = {}
    for k in range(120):  # small appends in any order of tasks and sources
        task, source = int(rng.integers(4)), str(rng.choice(["offline", "explored", "self-collected"]))
        n = int(rng.integers(0, 7))
        buffer.append(task, columns(n, 10 * k), source)
        stored.setdefault((task, source), []).extend(10 * k + i for i in range(n))
    assert len(buffer) == sum(map(len, stored.values())) == int(buffer.counts.sum())
    for (task, source), rewards in stored.items():
        if source != "self-collected":
            assert buffer.rewards[buffer.rows_of(task, source)].tolist() == rewards
        else:
            both = sorted(rewards + stored.get((task, "explored"), []))
            assert buffer.rewards[buffer.rows_of(task, source)].tolist() == both
    again = buffer.clone()  # builds its tables in one go
    for task in range(4):
        for source in SOURCES:
            assert torch.equal(again.rows_of(task, source), buffer.rows_of(task, source))


@pytest.mark.parametrize("column", ["observations", "rewards", "features"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_numbers_that_are_not_finite_are_refused(buffer: lab.TransitionBuffer, column: str, bad: float) -> None:
    data = columns(4)
    data[column][2] = bad
    with pytest.raises(
        ValueError, match=f"{column} of task 1 holds numbers that are not finite .first at transition 2"
    ):
        buffer.append(1, data, "self-collected")
    assert len(buffer) == 30
    assert buffer.counts.tolist() == [25, 5, 0]


def test_other_bad_input_is_refused_and_stores_nothing(buffer: lab.TransitionBuffer) -> None:
    good = columns(4)
    for task, data, source, message in (
        (3, good, "offline", "task 3 is not among the buffer's 3 tasks"),
        (-1, good, "offline", "task -1 is not among"),
        (0, good, "online", "source must be one of 'offline', 'explored', 'self-collected', got 'online'"),
        (0, good, "all", "source must be one of"),
        (0, {k: v for k, v in good.items() if k != "features"}, "offline", r"transitions lack \['features'\]"),
        (
            0,
            {**good, "actions": np.zeros((4, 3))},
            "offline",
            r"actions of 4 transitions needs shape \(4, 2\), got \(4, 3\)",
        ),
        (0, {**good, "actions": np.zeros((8, 1))}, "offline", r"needs shape \(4, 2\), got \(8, 1\)"),
        (0, {**good, "observations": np.zeros((3, 3))}, "offline", r"needs shape \(4, 3\), got \(3, 3\)"),
        (0, {**good, "features": np.zeros(4)}, "offline", r"needs shape \(4, 2\), got \(4,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            buffer.append(task, data, source)
    assert len(buffer) == 30
    buffer.append(0, {**good, "rewards": good["rewards"][:, None]}, "offline")  # a column of one may stand upright
    assert buffer.rewards[-4:].tolist() == [0, 1, 2, 3]


def test_a_clone_is_independent(buffer: lab.TransitionBuffer) -> None:
    clone = buffer.clone()
    assert torch.equal(clone.rows, buffer.rows)
    clone.append(0, columns(3, 300), "self-collected")
    buffer.append(2, columns(2, 2000), "offline")
    assert (len(clone), len(buffer)) == (33, 32)
    assert buffer.counts.tolist() == [25, 5, 2]
    assert clone.counts.tolist() == [28, 5, 0]
    assert clone.rewards[clone.rows_of(0)].tolist() == [*SOURCES["all"], 300, 301, 302]
    assert buffer.rewards[buffer.rows_of(0)].tolist() == SOURCES["all"]


# -- sampling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_samples_are_uniform_over_their_source(buffer: lab.TransitionBuffer, source: Source) -> None:
    n = 20_000
    tasks = torch.tensor([0, 1, 0]) if source in ("offline", "all") else torch.tensor([0, 0])
    sampled = buffer.sample(tasks, n, generator(), source).rewards
    assert sampled.shape == (len(tasks), n)
    for row, allowed in zip(sampled, [SOURCES[source], [*range(1000, 1005)], SOURCES[source]], strict=False):
        if len(tasks) == 2:
            allowed = SOURCES[source]
        values, counts = np.unique(row.numpy(), return_counts=True)
        assert values.tolist() == allowed
        expected = n / len(allowed)
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < len(allowed) - 1 + 4 * np.sqrt(2 * len(allowed))  # four standard deviations
    assert not torch.equal(sampled[0], sampled[-1])  # drawn independently


def test_sampled_transitions_belong_together(buffer: lab.TransitionBuffer) -> None:
    t = buffer.sample(torch.tensor([1, 0]), 50, generator())
    assert [field.shape for field in t] == [(2, 50, 3), (2, 50, 2), (2, 50), (2, 50, 3), (2, 50)]
    where = {reward: k for k, reward in enumerate(buffer.rewards.tolist())}
    rows = torch.tensor([[where[r] for r in row] for row in t.rewards.tolist()])
    assert torch.equal(buffer.task[rows], torch.tensor([1, 0])[:, None].expand(2, 50))
    for name in ("observations", "actions", "next_observations", "terminations"):
        assert torch.equal(getattr(t, name), getattr(buffer, name)[rows])
    context = buffer.sample_context(torch.tensor([1, 0]), 50, generator())
    assert torch.equal(context, torch.cat([t.observations, t.actions, t.rewards[..., None]], -1))


def test_the_next_observation_belongs_to_the_context_where_the_family_says_so() -> None:
    buffer = lab.TransitionBuffer(SPEC._replace(context_dim=9), 1)
    buffer.append(0, columns(10), "offline")
    t = buffer.sample(torch.tensor([0]), 7, generator())
    context = buffer.sample_context(torch.tensor([0]), 7, generator())
    assert torch.equal(context, torch.cat([t.observations, t.actions, t.rewards[..., None], t.next_observations], -1))


def test_samples_are_reproducible(buffer: lab.TransitionBuffer) -> None:
    tasks = torch.tensor([0, 1])
    one, same, other = (buffer.sample_context(tasks, 9, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_sampling_what_is_not_there_says_so(buffer: lab.TransitionBuffer) -> None:
    with pytest.raises(ValueError, match=r"tasks \[1, 2\] have no explored transitions"):
        buffer.sample(torch.tensor([0, 1, 2]), 4, generator(), "explored")


def test_consecutive_context_starts_with_an_episode() -> None:
    buffer = lab.TransitionBuffer(SPEC, 2)
    buffer.append(0, columns(20), "offline")
    buffer.append(0, columns(15, 100), "self-collected")
    buffer.append(1, columns(5, 1000), "offline")
    starts = set()
    for seed in range(40):
        context = buffer.sample_context(torch.tensor([0]), 7, generator(seed), "offline", consecutive=True)
        rewards = context[0, :, -1]
        starts.add(float(rewards[0]))
        assert rewards.tolist() == (rewards[0] + torch.arange(7)).tolist()
    assert starts == {0, 5, 10}  # every episode from which 7 transitions can follow
    context = buffer.sample_context(torch.tensor([0]), 10, generator(), "self-collected", consecutive=True)
    assert context[0, 0, -1] in (100, 105)
    everything = buffer.sample_context(torch.tensor([0, 0]), 12, generator(), "all", consecutive=True)[..., -1]
    assert (everything[:, 0] % 5 == 0).all()
    # A task with less than what is asked for gives all of it, again from the start.
    context = buffer.sample_context(torch.tensor([1]), 8, generator(), "offline", consecutive=True)
    assert context[0, :, -1].tolist() == [1000, 1001, 1002, 1003, 1004, 1000, 1001, 1002]
