"""The benchmark measures what it says; how fast is never asserted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import smac_lab as lab
from smac_lab import bench
from smac_lab.bench import memory, pipeline, profiling, race, scaling, simulation, update
from smac_lab.bench.update import Case

RATIO_FIELDS = {"name", "against", "unit", "ours", "limit", "ratio", "low", "high", "rounds", "bar", "device"}
TINY = Case("offline", 2, 4)


# -- ratios and bars ---------------------------------------------------------------------------------------------


def test_compare_measures_the_ratio_of_rates() -> None:
    found = bench.compare("sleep", "naps", 1, lambda: time.sleep(0.02), lambda: time.sleep(0.005), rounds=3)
    assert 0.1 < found.ratio < 0.5
    assert found.low <= found.ratio <= found.high
    assert found.ours == pytest.approx(1 / 0.02, rel=0.5)
    assert found.rounds == 3


def test_contenders_take_turns_and_are_prepared() -> None:
    said: list[str] = []
    calls = [race.Call(lambda n=n: said.append(n), 7, lambda n=n: said.append(n.upper())) for n in "abc"]
    rates = race.race("turns", calls, rounds=2)
    assert "".join(said) == "CcBbAa" + "AaBbCc" + "CcBbAa"  # the warm-up, and the two rounds
    assert rates.shape == (3, 2)
    assert (rates > 0).all()


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    ours, limit = np.array([1.0, 8.0, 6.0]), np.array([2.0, 4.0, 8.0])
    row = race.against("x", "y", "u", ours, limit, lambda ratio: race.at_least(ratio, 0.8))
    assert (row.ours, row.limit, row.ratio, row.low, row.high) == (6.0, 4.0, 0.75, 0.5, 2.0)
    assert row.bar == (">= 0.8 x", False)


@pytest.mark.parametrize(
    ("bar", "met"),
    [
        (race.at_least(0.92, 0.92), True),
        (race.at_least(0.919, 0.92), False),
        (race.at_most(1.5, 1.5), True),
        (race.at_most(1.51, 1.5, "s"), False),
    ],
)
def test_verdicts(bar: race.Bar, met: bool) -> None:
    assert bar.met is met


def test_slope_is_the_exponent() -> None:
    sizes = np.array([1.0, 10.0, 300.0])
    assert bench.slope(sizes, 5 * sizes**1.7) == pytest.approx(1.7)


def test_table_is_aligned_and_tells_what_was_left_out() -> None:
    row = race.against("x", "the rest", "u", np.ones(2), np.ones(2), lambda ratio: race.at_least(ratio, 2))
    head, line, skipped = bench.table([row, bench.Skipped("y", "no such thing here")])
    assert line.index("the rest") == head.index("against")
    assert "MISSED" in line
    assert skipped == "not measured: y: no such thing here"


# -- what is counted ---------------------------------------------------------------------------------------------


def test_operations_of_an_mlp_are_those_counted_by_hand() -> None:
    net, rows = lab.MLP(3, (5, 7), 2), 11
    x = torch.randn(rows, 3)
    optimizer = torch.optim.Adam(net.parameters())

    def step() -> None:
        net(x).sum().backward()
        optimizer.step()

    forward = 2 * rows * (3 * 5 + 5 * 7 + 7 * 2)
    weights, inputs = forward, 2 * rows * (5 * 7 + 7 * 2)  # nobody wants the gradient of the data
    assert update.operations(step) == forward + weights + inputs


def test_ceiling_adds_up_to_the_operations() -> None:
    flops = 10 * 2 * 16 * update.WIDTH**2
    assert update.operations(update.ceiling(flops, 16, "fp32")) == flops
    assert update.operations(update.ceiling(flops, 16, "fp32", members=5)) == flops


def test_an_update_costs_in_proportion_to_its_batch() -> None:
    small, large = (update.eager_operations(Case("offline", tasks, 64)) for tasks in (2, 4))
    assert large == 2 * small


# -- what is measured --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["cheetah-vel", "ant-dir"])
def test_the_bare_simulation_does_the_same(family: str) -> None:
    """Same states after the same actions: what the library adds is all that differs."""
    env = simulation.make_env(family, 3)
    bare = simulation.Bare(env)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, env.family.action_dim))
    bare.restart()
    bare.step(actions)
    for action in actions:
        env.step(action)
    for name, value in bare.state.items():
        np.testing.assert_array_equal(value, getattr(env.simulation.state, name))


def test_simulation_against_gymnasium() -> None:
    found = list(simulation.simulation("cheetah-vel", bench.QUICK, processes=(1, 2)))
    assert [r.against.split(",")[0] for r in found] == [
        simulation.BARE,
        "AsyncVectorEnv",
        "AsyncVectorEnv",
        "SyncVectorEnv",
    ]
    assert [r.bar.wanted for r in found if r.bar] == [">= 0.92 x", ">= 8 x", ">= 8 x", ">= 2 x"]
    assert sys.modules.get("imageio") is None or sys.modules["imageio"].__spec__ is not None  # no stand-in stays


def test_updates_against_products_and_the_textbook() -> None:
    found = list(update.update(bench.QUICK, (TINY, TINY._replace(loss="self_labelled"))))
    ratios = [r for r in found if isinstance(r, bench.Ratio)]
    assert {r.name.split(" update")[0] for r in ratios} == {"offline", "self-labelled"}
    assert any(r.against.startswith("textbook") for r in ratios)
    assert all("GFLOP" in r.against for r in ratios)


def test_without_the_repository_there_is_no_textbook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "REFERENCE", Path("nowhere"))
    found = list(update.update(bench.QUICK, (TINY,)))
    assert any(isinstance(r, bench.Skipped) and "textbook" in r.name for r in found)


def test_memory_of_a_process_with_transitions() -> None:
    width = sum(memory.widths(lab.make_family("cheetah-vel").spec).values())
    assert width == 20 + 6 + 1 + 20 + 1 + 1 + 1
    found = pipeline.hold("cheetah-vel", 2_100, 5)
    assert (found["transitions"], found["stored"]) == (2_100, 2_100 * width * 4)
    assert 5e7 < found["peak"] < 5e9


def test_transitions_of_a_whole_run() -> None:
    config = lab.SMACConfig.preset("cheetah-vel", "paper")
    assert pipeline.final_transitions("cheetah-vel", config) == 100 * 1200 + 51 * 5 * 5 * 200


def test_imports_are_compared() -> None:
    seconds, heavy = pipeline.imports(rounds=1)
    assert seconds.bar is not None
    assert seconds.bar.wanted == "<= 0.5 s more"
    assert heavy.bar == ("none", True)


def test_stages_of_a_run() -> None:
    found = {s.name: s for s in pipeline.stages("point-robot", "smoke", bench.QUICK)}
    assert found["offline update"].times == 40
    assert found["self-supervised update"].times == 20
    assert found["self-collection: sample, roll out, label, append"].times == 2
    assert all(s.seconds > 0 for s in found.values())
    assert "100.0%" in list(pipeline.stage_table(list(found.values())))[-1]


def test_parts_of_a_profile_add_up() -> None:
    found = [
        profiling.update(TINY, 2),
        profiling.collecting("cheetah-vel", bench.QUICK),
        profiling.evaluating("cheetah-vel", bench.QUICK),
    ]
    for stage in found:
        assert sum(stage.parts.values()) == pytest.approx(stage.wall)
        assert all(seconds > 0 for seconds in stage.parts.values()), stage
    assert set(found[0].parts) >= {"products", "optimizer", "sampling", "Python overhead"}
    assert set(found[1].parts) == {"physics", "actor", "observation and reward", "copying and bookkeeping"}


def test_scaling_writes_a_page_and_numbers(tmp_path: Path) -> None:
    curves = [scaling.Curve(f"c{i}", "size", "s", [1.0, 10.0], [2.0, 20.0], 1.0) for i in range(4)]
    said: list[str] = []
    files = scaling.write(tmp_path / "made" / "scaling.html", curves, {"machine": "m"}, said.append)
    assert [f.suffix for f in files] == [".html", ".json"] if said else [".html", ".json", ".png"]
    assert "size^1.00" in files[0].read_text()
    assert json.loads(files[1].read_text())["scaling"][0]["exponent"] == 1.0


# -- the command -------------------------------------------------------------------------------------------------


def test_bench_prints_json() -> None:
    command = [sys.executable, "-m", "smac_lab", "bench", "evaluate", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"processor", "cores", "threads", "native_bf16", "versions"} <= set(found["machine"])
    (row,) = found["ratios"]
    assert set(row) == RATIO_FIELDS
    assert row["bar"] == {"wanted": "<= 1.5 x", "met": row["ratio"] <= 1.5}
    assert row["ours"] > 0
    assert row["rounds"] == 2


def test_bench_tells_what_it_measured_where() -> None:
    command = [sys.executable, "-m", "smac_lab", "bench", "evaluate", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    head, row, *_, machine = done.stdout.splitlines()
    assert row.index("bare mujoco") == head.index("against")
    assert f"torch {torch.__version__}" in machine


def test_an_interrupted_bench_leaves_no_processes() -> None:
    command = [sys.executable, "-m", "smac_lab", "bench", "simulation", "--processes", "3"]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in a shell's background inherit none
    )
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    if not children.exists():
        started.kill()
        pytest.skip("needs /proc")
    try:
        deadline = time.monotonic() + 120
        while len(children.read_text().split()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1.0)
        os.killpg(started.pid, signal.SIGINT)
        _, errors = started.communicate(timeout=60)
        assert started.returncode == 130, errors
        assert b"Traceback" not in errors, errors
        with pytest.raises(ProcessLookupError):  # nobody of the group is left
            os.killpg(started.pid, 0)
    finally:
        started.kill()
