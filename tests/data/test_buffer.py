"""TransitionBuffer: what is stored, what is refused, and from where samples come."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Reads

import smac_lab as lab
from smac_lab.data.buffer import draw
from smac_lab.data.chains import COLUMNS
from smac_lab.data.store import CODES, MEMBERS, Source
from smac_lab.tasks.spec import FamilySpec

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


def walk(rng: np.random.Generator, *shape: int, ends: float = 0.15) -> dict[str, np.ndarray]:
    """Transitions that follow each other, `(*shape, dim)`, where no episode ends early."""
    path = rng.normal(size=(*shape[:-1], shape[-1] + 1, 3))
    after = path[..., 1:, :].copy()
    ended = rng.random(shape) < ends
    after[ended] = rng.normal(size=(int(ended.sum()), 3))
    return {
        "observations": path[..., :-1, :],
        "next_observations": after,
        "actions": rng.normal(size=(*shape, 2)),
        "rewards": rng.normal(size=shape),
        "terminations": ended,
        "truncations": np.broadcast_to(np.arange(shape[-1]) % 5 == 4, shape),
        "features": rng.normal(size=(*shape, 2)),
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
    assert buffer.counts_of("explored").nonzero().flatten().tolist() == [0]
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
    again = buffer.clone()
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
        (
            0,
            good,
            "online",
            "source must be one of 'offline', 'explored', 'self-collected', 'exploration', got 'online'",
        ),
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
    assert clone.segments.tolist() == buffer.segments.tolist()
    clone.append(0, columns(3, 300), "self-collected")
    buffer.append(2, columns(2, 2000), "offline")
    assert (len(clone), len(buffer)) == (33, 32)
    assert buffer.counts.tolist() == [25, 5, 2]
    assert clone.counts.tolist() == [28, 5, 0]
    assert clone.rewards[clone.rows_of(0)].tolist() == [*SOURCES["all"], 300, 301, 302]
    assert buffer.rewards[buffer.rows_of(0)].tolist() == SOURCES["all"]


# -- what is kept ------------------------------------------------------------------------------------------------


def test_next_observations_that_are_the_next_row_are_not_stored_again() -> None:
    buffer, rng = lab.TransitionBuffer(SPEC, 2), np.random.default_rng(0)
    given = walk(rng, 30, ends=0.0)
    given["next_observations"][[6, 20]] += 1.0  # two episodes end early, two steps are bad
    buffer.append(0, given, "offline")
    buffer.append(1, walk(rng, 1), "explored")
    assert buffer.segments.tolist() == [[0, 7, 0], [0, 14, 0], [0, 9, 0], [1, 1, 1]]
    assert buffer.rows.shape == (31 + 4, 3 + 2 + 3 + 2)
    np.testing.assert_array_equal(buffer.next_observations[:30], given["next_observations"].astype(np.float32))
    zero = {**walk(rng, 2, ends=0.0), "next_observations": np.full((2, 3), -0.0)}
    zero["observations"] = np.zeros((2, 3))
    buffer.append(0, zero, "offline")  # as numbers the same, to the bit not
    assert buffer.next_observations[-2:].signbit().all()


def test_a_batch_is_stored_as_its_simulations_one_by_one() -> None:
    rng = np.random.default_rng(0)
    batch, single = lab.TransitionBuffer(SPEC, 4), lab.TransitionBuffer(SPEC, 4)
    for n in (1, 6):
        tasks, sources = rng.integers(4, size=n).tolist(), rng.choice(list(CODES), n).tolist()
        given, valid = walk(rng, n, 12), rng.random((n, 12)) < 0.9
        valid[n // 2] = n == 1  # a simulation of which nothing is left
        given["next_observations"][-2:, -1] = given["observations"][-1, 0]  # where the last simulation starts
        valid[-2:, [0, -1]] = True
        batch.append_batch(tasks, given, sources, valid)
        for i, task in enumerate(tasks):
            single.append(task, {name: value[i][valid[i]] for name, value in given.items()}, sources[i])
    assert torch.equal(batch.rows, single.rows)
    assert batch.segments.tolist() == single.segments.tolist()
    for name in COLUMNS:
        assert torch.equal(getattr(batch, name), getattr(single, name))


def test_a_bad_batch_stores_nothing() -> None:
    buffer, given = lab.TransitionBuffer(SPEC, 3), walk(np.random.default_rng(0), 3, 8)
    valid = np.ones((3, 8), bool)
    valid[0, 1] = valid[2, 4] = False
    sources = ["offline"] * 3
    given["actions"][2, 4] = np.nan  # left out
    buffer.append_batch([0, 1, 2], given, sources, valid)
    stored = len(buffer)
    given["actions"][2, 6] = given["rewards"][2, 7] = np.inf
    with pytest.raises(ValueError, match=r"actions of task 1 .* not finite \(first at transition 5"):
        buffer.append_batch([0, 2, 1], given, sources, valid)
    with pytest.raises(ValueError, match="task 3 is not among the buffer's 3 tasks"):
        buffer.append_batch([0, 3, 1], given, sources, valid)
    with pytest.raises(ValueError, match=r"observations of 21 transitions needs shape \(3, 7, 3\), got \(3, 8, 3\)"):
        buffer.append_batch([0, 1, 2], given, sources, valid[:, :7])
    with pytest.raises(ValueError, match=r"2 tasks and 3 sources do not fit valid of shape \(3, 8\)"):
        buffer.append_batch([0, 1], given, sources, valid)
    assert len(buffer) == stored == 22


@pytest.mark.parametrize("reserved", [False, True])
def test_memory_is_that_of_the_transitions(reserved: bool) -> None:
    """All tensors and arrays held, spare room included; one task has half of all episodes."""
    spec = SPEC._replace(horizon=200)
    buffer, given = lab.TransitionBuffer(spec, 20), walk(np.random.default_rng(0), 200, ends=0.0)
    if reserved:
        buffer.reserve(400 * 200)
    for k in range(400):
        buffer.append(k % 20 if k < 200 else 7, given, "offline" if k < 100 else "self-collected")
        assert reserved or k < 10 or len(buffer._rows) < 1.17 * len(buffer)
    for source in SOURCES:
        buffer.counts_of(source)
    lookups = [value for lookup in buffer._lookups.values() for value in vars(lookup).values()]
    tensors = [value for value in [buffer._rows, *lookups] if isinstance(value, torch.Tensor)]
    held = sum(t.numel() * t.element_size() for t in tensors) + buffer.segments.nbytes
    packed = len(buffer) * 4 * (3 + 2 + 3 + 2)
    assert held < (1.05 if reserved else 1.2) * packed
    assert len(buffer._rows) == 400 * 201 or not reserved


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


@pytest.mark.parametrize("last", [1, 4, 15, 16, 1000])
def test_context_of_the_last_transitions(buffer: lab.TransitionBuffer, last: int) -> None:
    tasks = torch.tensor([0, 1, 0])
    drawn = buffer.sample_context(tasks, 3_000, generator(), "all", last=last)[..., -1]
    for row, own in zip(drawn, [SOURCES["all"], [*range(1000, 1005)], SOURCES["all"]], strict=True):
        assert row.unique().tolist() == own[-last:]
    drawn = buffer.sample_context(torch.tensor([0]), 500, generator(), "self-collected", last=last)[..., -1]
    assert drawn.unique().tolist() == SOURCES["self-collected"][-last:]
    buffer.append(0, columns(5, 300), "explored")
    drawn = buffer.sample_context(torch.tensor([0]), 500, generator(), "explored", last=last)[..., -1]
    assert drawn.unique().tolist() == [*SOURCES["explored"], *range(300, 305)][-last:]


def test_a_window_that_holds_everything_changes_no_draw(buffer: lab.TransitionBuffer) -> None:
    tasks = torch.tensor([0, 1])
    for consecutive in (False, True):
        whole = buffer.sample_context(tasks, 6, generator(), "all", consecutive)
        assert torch.equal(whole, buffer.sample_context(tasks, 6, generator(), "all", consecutive, last=25))


def test_runs_within_a_window_start_with_an_episode_too() -> None:
    buffer = lab.TransitionBuffer(SPEC, 2)
    buffer.append(0, columns(20), "offline")
    buffer.append(1, columns(5, 1000), "offline")

    def starts(n: int, last: int) -> set[float]:
        found = set()
        for seed in range(40):
            rewards = buffer.sample_context(torch.tensor([0]), n, generator(seed), "offline", True, last)[0, :, -1]
            assert rewards.tolist() == (rewards[0] + torch.arange(n)).tolist()
            found.add(float(rewards[0]))
        return found

    assert starts(5, last=10) == {10, 15}
    assert starts(7, last=14) == {10}  # from 6 on: the first episode within starts at 10
    assert starts(5, last=5) == {15}
    short = buffer.sample_context(torch.tensor([0, 1]), 7, generator(), "offline", True, 5)[..., -1]
    assert short.tolist() == [[15, 16, 17, 18, 19, 15, 16], [1000, 1001, 1002, 1003, 1004, 1000, 1001]]
    with pytest.raises(ValueError, match="last=4 is not allowed: it must be at least 5"):
        buffer.sample_context(torch.tensor([0]), 5, generator(), "offline", True, 4)
    with pytest.raises(ValueError, match="last=0 is not allowed: it must be at least 1"):
        buffer.sample_context(torch.tensor([0]), 5, generator(), "offline", last=0)


def test_each_seed_has_its_own_window() -> None:
    one, two = lab.TransitionBuffer(SPEC, 2), lab.TransitionBuffer(SPEC, 2)
    for task in range(2):
        one.append(task, columns(10, 100 * task), "explored")
        two.append(task, columns(20, 1000 + 100 * task), "explored")
    joined = lab.TransitionBuffer.join([one, two])
    tasks = torch.tensor([[1, 0], [3, 2]])
    drawn = joined.sample_context(tasks, 500, [generator(0), generator(1)], "explored", last=3)[..., -1]
    assert [row.unique().tolist() for row in drawn.flatten(0, 1)] == [
        [107, 108, 109],
        [7, 8, 9],
        [1117, 1118, 1119],
        [1017, 1018, 1019],
    ]


class Plain:
    """Each task's transitions as plain lists, sampled by the rule that TransitionBuffer states."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, int, dict[str, np.ndarray]]] = []

    def append(self, task: int, given: dict[str, np.ndarray], source: str) -> None:
        single = {name: np.asarray(given[name], np.float32) for name in COLUMNS}
        for i in range(len(given["rewards"])):
            self.stored.append((task, CODES[source], {name: value[i] for name, value in single.items()}))

    def sample(
        self, tasks: list[int], n: int, generator: torch.Generator, source: str, consecutive: bool = False
    ) -> dict[str, np.ndarray]:
        uniform = torch.rand(len(tasks), 1 if consecutive else n, generator=generator)
        found = []
        for task, u in zip(tasks, uniform, strict=True):
            own = [t for of, code, t in self.stored if of == task and code in MEMBERS[source]]
            if consecutive:
                first = int(u * (max(len(own) - n, 0) // SPEC.horizon + 1)) * SPEC.horizon
                places = [(first + i) % len(own) for i in range(n)]
            else:
                places = [min(k, len(own) - 1) for k in (u * len(own)).long().tolist()]
            found.append([own[k] for k in places])
        return {name: np.array([[t[name] for t in row] for row in found]) for name in COLUMNS}


@pytest.mark.parametrize("includes_next", [False, True])
def test_samples_are_those_of_a_plain_list_to_the_bit(includes_next: bool) -> None:
    buffer = lab.TransitionBuffer(SPEC._replace(context_dim=9 if includes_next else 6), 5)
    plain, rng, one, two = Plain(), np.random.default_rng(1), generator(4), generator(4)
    for k in range(90):
        task, source = (k % 5, list(CODES)[k // 5]) if k < 15 else (int(rng.integers(5)), str(rng.choice(list(CODES))))
        given = walk(rng, 5 if k < 15 else int(rng.integers(13)))
        buffer.append(task, given, source)
        plain.append(task, given, source)
        if k < 15 or k % 5:
            continue
        tasks = rng.permutation(5)[:3].tolist()
        for drawn in SOURCES:
            expected, got = plain.sample(tasks, 17, one, drawn), buffer.sample(torch.tensor(tasks), 17, two, drawn)
            for name, value in got._asdict().items():
                np.testing.assert_array_equal(value, expected[name])
            for consecutive in (False, True):
                expected = plain.sample(tasks, 11, one, drawn, consecutive)
                context = buffer.sample_context(torch.tensor(tasks), 11, two, drawn, consecutive=consecutive)
                parts = [expected["observations"], expected["actions"], expected["rewards"][..., None]]
                parts += [expected["next_observations"]] * includes_next
                np.testing.assert_array_equal(context, np.concatenate(parts, -1))


def test_sampling_reads_nothing_back_from_the_device(buffer: lab.TransitionBuffer) -> None:
    tasks = torch.tensor([0, 1])
    with Reads() as reads:
        buffer.sample(tasks, 4, generator(), "offline")
    assert reads.found, "task 2 has nothing, so somebody must look whether it is asked for"
    buffer.append(2, columns(5, 3000), "offline")
    buffer.version  # noqa: B018
    with Reads() as reads:
        buffer.counts_of("explored")
        buffer.sample(tasks, 4, generator(), "offline")
        buffer.sample_context(tasks, 4, generator(), "offline", consecutive=True)
        buffer.sample_context(tasks, 4, generator(), "offline", consecutive=True, last=6)
        buffer.sample_context(tasks.expand(2, 2), 4, [generator(), generator()], "offline", last=3)
        buffer.sample_context(tasks.expand(2, 2), 4, [generator(), generator()], "all")
    assert reads.found == []


def test_what_sampling_reads_stays_in_place_until_the_version_changes() -> None:
    buffer, given = lab.TransitionBuffer(SPEC, 2), walk(np.random.default_rng(0), 5, ends=0.0)
    sources: list[Source] = ["offline", "all", "explored"]

    def addresses() -> list[object]:
        read = [t for s in sources for t in vars(buffer._lookup(s)).values() if isinstance(t, torch.Tensor)]
        return [buffer._rows.data_ptr(), *((t.data_ptr(), t.shape) for t in read)]

    versions = []
    for k in range(600):
        before, version = addresses(), buffer.version
        buffer.append(k % 2 if k < 500 else 0, given, sources[0] if k < 550 else "explored")
        versions.append(buffer.version)
        assert (addresses() == before) == (versions[-1] == version)
    assert 10 < len(set(versions)) < 60

    buffer.reserve(100 * 5)
    counts, before, version = buffer._lookup("all").counts, addresses(), buffer.version
    for _ in range(100):
        buffer.append(0, given, "offline")
    assert buffer.version == version
    assert addresses() == before
    assert counts.tolist() == buffer.counts.tolist(), "brought up to date in place, by asking for the version"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_graph_samples_what_was_appended_since() -> None:
    buffer, on_device = lab.TransitionBuffer(SPEC, 2, "cuda"), torch.Generator("cuda").manual_seed(0)
    buffer.reserve(200)
    for task in (0, 1):
        buffer.append(task, columns(20), "offline")
    tasks = torch.arange(2, device="cuda")
    buffer.sample(tasks, 500, on_device)  # warm up
    torch.cuda.set_sync_debug_mode("error")
    try:
        buffer.sample_context(tasks, 500, on_device, consecutive=True)
        buffer.sample_context(tasks, 500, on_device, last=5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph, version = torch.cuda.CUDAGraph(), buffer.version
    graph.register_generator_state(on_device)
    with torch.cuda.graph(graph):
        rewards = buffer.sample(tasks, 500, on_device).rewards
        latest = buffer.sample_context(tasks, 500, on_device, last=5)[..., -1]
    graph.replay()
    assert rewards.unique().tolist() == [*range(20)]
    assert latest.unique().tolist() == [*range(15, 20)]
    buffer.append(1, columns(20, 100), "offline")
    assert buffer.version == version
    graph.replay()
    assert rewards[0].unique().tolist() == [*range(20)]
    assert rewards[1].unique().tolist() == [*range(20), *range(100, 120)]
    assert latest[0].unique().tolist() == [*range(15, 20)]
    assert latest[1].unique().tolist() == [*range(115, 120)]


def test_tensors_made_in_inference_mode_can_be_written_to_outside() -> None:
    buffer = lab.TransitionBuffer(SPEC, 1)
    with torch.inference_mode():
        buffer.append(0, columns(5), "offline")
        buffer.sample(torch.tensor([0]), 2, generator())
    buffer.append(0, columns(5, 10), "offline")
    assert not buffer.sample(torch.tensor([0]), 2, generator()).rewards.is_inference()
    assert buffer.rewards[buffer.rows_of(0)].tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


# -- several seeds -----------------------------------------------------------------------------------------------


def seeds_of(n: int) -> list[lab.TransitionBuffer]:
    buffers = [lab.TransitionBuffer(SPEC, 3) for _ in range(n)]
    for s, buffer in enumerate(buffers):
        rng = np.random.default_rng(s)
        for k in range(12):
            buffer.append(k % 3, walk(rng, 5 + k), "offline" if k < 6 else "explored")
    return buffers


@pytest.mark.parametrize("consecutive", [False, True])
def test_a_joined_buffer_samples_for_each_seed_what_its_own_would(consecutive: bool) -> None:
    buffers = seeds_of(3)
    joined = lab.TransitionBuffer.join(buffers)
    assert (joined.seeds, joined.n_tasks, len(joined)) == (3, 9, sum(map(len, buffers)))
    tasks = torch.tensor([[2, 0], [1, 2], [0, 1]])
    shifted = tasks + 3 * torch.arange(3)[:, None]
    for source in ("offline", "explored", "all"):
        context = joined.sample_context(shifted, 8, [generator(s) for s in range(3)], source, consecutive)
        assert context.shape == (3, 2, 8, 6)
        sampled = joined.sample(shifted, 8, [generator(s) for s in range(3)], source)
        assert sampled.rewards.shape == (3, 2, 8)
        for s, own in enumerate(buffers):
            assert torch.equal(context[s], own.sample_context(tasks[s], 8, generator(s), source, consecutive))
            for field, expected in zip(sampled, own.sample(tasks[s], 8, generator(s), source), strict=True):
                assert torch.equal(field[s], expected)


def test_splitting_gives_each_seed_its_rows_back() -> None:
    buffers = seeds_of(3)
    joined, rng = lab.TransitionBuffer.join(buffers).clone(), np.random.default_rng(9)
    for k in (8, 0, 4, 3, 1):  # tasks of all seeds in turn
        given = walk(rng, 7)
        joined.append(k, given, "self-collected")
        buffers[k // 3].append(k % 3, given, "self-collected")
    for part, own in zip(joined.split(), buffers, strict=True):
        assert (part.seeds, part.n_tasks) == (None, 3)
        assert torch.equal(part.rows, own.rows)
        assert part.segments.tolist() == own.segments.tolist()


def test_buffers_that_do_not_belong_together_are_refused() -> None:
    one, *_ = buffers = seeds_of(2)
    joined = lab.TransitionBuffer.join(buffers)
    for other in (lab.TransitionBuffer(SPEC, 4), lab.TransitionBuffer(SPEC._replace(horizon=6), 3), joined):
        with pytest.raises(ValueError, match="can be joined"):
            lab.TransitionBuffer.join([one, other])
    with pytest.raises(ValueError, match="no buffers"):
        lab.TransitionBuffer.join([])
    with pytest.raises(ValueError, match="only one made by join can be split"):
        one.split()
    with pytest.raises(ValueError, match="rows do not fit segments"):
        lab.TransitionBuffer.from_rows(SPEC, 3, one.rows[1:], one.segments)


@pytest.mark.parametrize("function", [torch.rand, torch.randn])
def test_each_seed_draws_what_it_would_draw_alone(function) -> None:  # type: ignore[no-untyped-def]
    together = draw(function, (2, 3, 4), [generator(1), generator(2)])
    assert torch.equal(together[1], draw(function, (3, 4), generator(2)))
    assert torch.equal(together[0], function(3, 4, generator=generator(1)))
    with pytest.raises(ValueError, match="2 generators cannot draw for 3 seeds"):
        draw(function, (3, 4), [generator(1), generator(2)])
