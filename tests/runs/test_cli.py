"""The command line: what it writes, and one clear line for everything it cannot do."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from smac_lab import cli
from smac_lab.config import SMACConfig
from smac_lab.data.storage import StorageError, claim_folder
from smac_lab.figures.findings import read_run
from smac_lab.runs import checkpoint
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import DEFAULT_ARMS, GROWS, Experiment


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smac_lab", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke run of the cheetah: collected, then trained on what was collected."""
    folder = tmp_path_factory.mktemp("cli")
    done = run("collect", "cheetah-vel", "--preset", "smoke", "--out", folder / "data")
    assert done.returncode == 0, done.stderr
    assert "next: smac-lab train cheetah-vel" in done.stdout
    done = run(
        "train",
        "cheetah-vel",
        "--preset",
        "smoke",
        "--threads",
        "1",
        "--data",
        folder / "data",
        "--out",
        folder / "run",
    )
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
    return folder


def test_a_run_leaves_what_the_readme_says(finished: Path) -> None:
    run_folder = finished / "run"
    for phase in ("offline", *DEFAULT_ARMS):
        names = {file.name for file in (run_folder / "seed_0" / phase).iterdir()}
        assert {"metrics.csv", "measurement.npz", "checkpoint"} <= names
        assert any(name.startswith("events.out.tfevents") for name in names)
    assert (run_folder / "report.html").stat().st_size > 1_000_000
    assert not list(run_folder.rglob(".partial*"))


def test_summary_has_the_contract_s_fields(finished: Path) -> None:
    summary = json.loads((finished / "run" / "summary.json").read_text())
    assert summary["family"] == "cheetah-vel"
    assert summary["seeds"] == [0]
    assert summary["default_arm"] in summary["arms"]
    assert set(summary["arms"]) == set(DEFAULT_ARMS)
    for four in (summary["before"], *summary["arms"].values()):
        assert set(four) == {"online_context", "offline_context", "shift", "test"}
        assert all(len(values) == 1 and math.isfinite(values[0]) for values in four.values())
    assert summary["best"] is None
    assert summary["random"] < 0
    assert summary["behaviour"] < 0
    assert {"seconds", "config", "versions", "commit", "device", "threads"} <= set(summary)


def test_a_finished_run_is_not_run_again(finished: Path) -> None:
    before = (finished / "run" / "seed_0" / "frozen" / "measurement.npz").stat().st_mtime_ns
    words = ("train", "cheetah-vel", "--preset", "smoke", "--data", finished / "data", "--out", finished / "run")
    assert run(*words).returncode == 0
    assert (finished / "run" / "seed_0" / "frozen" / "measurement.npz").stat().st_mtime_ns == before


def test_evaluate_and_diagnose(finished: Path) -> None:
    done = run("evaluate", finished / "run" / "seed_0" / "frozen", "--diagnose")
    assert done.returncode == 0, done.stderr
    record = json.loads((finished / "run" / "seed_0" / "frozen" / "evaluation.json").read_text())
    assert len(record["final_returns"]) == len(record["tasks"]) == 3
    assert {f["link"] for f in record["diagnosis"]} >= {"posterior", "exploration", "labels", "critic"}


def test_the_demo_has_two_acts_and_either_takes_a_third_arm(tmp_path: Path) -> None:
    done = run("demo", "--preset", "smoke", "--seed", "0", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("Act 1") < done.stdout.index("oracle") < done.stdout.index("Act 2")
    acts = {"claim": tmp_path / "demo", "narrow": tmp_path / "demo" / "narrow"}
    arms = {name: read_run(folder).summary["arms"] for name, folder in acts.items()}
    assert {name: list(own) for name, own in arms.items()} == {
        "claim": ["frozen", "oracle"],
        "narrow": ["frozen", "self-labelled"],
    }
    assert all((folder / "report.html").exists() for folder in acts.values())

    done = run("train", "point-robot", "--preset", "smoke", "--seed", "0", "--out", acts["claim"])
    assert done.returncode == 0, done.stderr
    grown = read_run(acts["claim"]).summary["arms"]
    assert list(grown) == list(DEFAULT_ARMS)
    assert {arm: grown[arm] for arm in arms["claim"]} == arms["claim"], "what was there stays"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "cheetah-velocity"), "known: point-robot, point-direction"),
        (("collect", "moon"), "point-robot"),
        (("train", "point-robot", "--awac-lambda", "-1"), "awac_lambda=-1"),
        (("train", "point-robot", "--colour", "red"), "Unrecognized options: --colour, red"),
        (("train", "point-robot", "--behaviour-transitions", "30"), "multiple of the horizon"),
        (("evaluate", "nowhere"), "no checkpoint"),
        (("train", "point-robot", "--data", "nowhere"), "no data set, and no run"),
    ],
)
def test_bad_input_ends_in_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    out = () if words[0] == "evaluate" else ("--out", tmp_path / "out")
    done = run(*words, *out)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.strip() and "updates/s" not in line]  # no progress bars
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert message in said[0]
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_data_of_other_tasks_or_families_is_refused(finished: Path, tmp_path: Path) -> None:
    words = ("--preset", "smoke", "--data", finished / "data", "--out", tmp_path / "x")
    assert "does not fit" in run("train", "point-robot", *words).stderr
    assert "other tasks" in run("train", "cheetah-vel", "--seed", "1", *words).stderr


def test_a_method_learns_from_the_data_of_a_run(finished: Path, tmp_path: Path) -> None:
    words = ("train", "cheetah-vel", "--preset", "smoke", "--method", "cloning", "--data", finished / "run")
    done = run(*words, "--out", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    (theirs, own) = (
        checkpoint.load(f / "seed_0" / "offline" / "checkpoint").buffer for f in (finished / "run", tmp_path / "x")
    )
    assert own is not None
    assert theirs is not None
    assert torch.equal(own.rows, theirs.rows)
    assert "no run with data of seed 1" in run(*words, "--seed", "0", "1", "--out", tmp_path / "y").stderr
    words = ("train", "cheetah-vel", "--preset", "smoke", "--data", finished / "data", "--seed", "0", "1")
    assert "a data set holds the tasks of one seed" in run(*words, "--out", tmp_path / "y").stderr
    assert not (tmp_path / "y").exists()


def test_another_experiment_does_not_overwrite_a_run(finished: Path) -> None:
    words = ("train", "cheetah-vel", "--preset", "smoke", "--out", finished / "run", "--kl-weight", "0.5")
    done = run(*words)
    assert done.returncode == 2
    assert "kl_weight" in done.stderr


def test_damaged_data_is_refused(finished: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished / "data", tmp_path / "data")
    shard = next((tmp_path / "data" / "buffer").iterdir())
    shard.write_bytes(shard.read_bytes()[:-100])
    done = run("train", "cheetah-vel", "--preset", "smoke", "--data", tmp_path / "data", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert "damaged" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("learn point-robot", "Unrecognized options: learn, point-robot; Available subcommands: demo, config, collect"),
        ("train", "Missing from smac-lab train: FAMILY"),
        ("train point-robot --kl-wieght 1", "Unrecognized options: --kl-wieght, 1; perhaps you meant --kl-weight"),
        ("train point-robot --kl-weight much", "Error parsing --kl-weight: could not convert string to float: 'much'"),
        ("train point-robot --precision fp8", "Expected one of ('auto', 'fp32', 'tf32', 'bf16')"),
        ("train point-robot --behaviour-changes {", "Error parsing --behaviour-changes: Expecting property name"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_no_command_takes_is_told_in_one_line(
    words: str, message: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))  # tyro frames by its encoding
    with pytest.raises(ValueError, match=re.escape(message)) as told:
        cli.read(words.split())
    assert "\n" not in str(told.value)
    assert not re.search("[─│-]{4}|[|]", str(told.value))


def test_every_field_is_a_flag_with_its_type_and_comment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.read(["train", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(SMACConfig):
        assert f"--{field.name.replace('_', '-')} " in shown or f"--{field.name.replace('_', '-')}, " in shown
    for words in ("--tau FLOAT", "Polyak rate of the target critics (paper: 0.005)", "{softmax,exp}"):
        assert words in shown


def test_flags_replace_the_preset_s_values(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "config point-robot --preset smoke --behaviour broad --z-dim 3 --awac-weight exp --actor-hidden 8 8 --compile"
    )
    cli.read([*words.split(), "--behaviour-changes", '{"actor_hidden": [9]}', "--z-resampling", "7"])()
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[2:]}
    assert lines["z_dim"].startswith("3 ")
    assert lines["awac_weight"].startswith("'exp' ")
    assert lines["actor_hidden"].startswith("(8, 8) ")
    assert lines["compile"].startswith("True ")
    assert lines["z_resampling"].startswith("7 ")
    assert lines["behaviour_changes"].startswith("{'actor_hidden': [9]}")
    assert lines["behaviour_on_task"].startswith("0.0"), "what is not given is the preset's"


def test_interrupted_collection_by_pearl_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after a checkpoint, the same command goes on from there; the data is as if nothing had happened."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def collect(out: Path, seed: int = 0) -> None:
        cli.collect("hopper-params", "smoke", seed=seed, out=out, settings={"behaviour_iterations": 12})

    collect(whole)
    save, stopped = checkpoint.save_seeds, KeyboardInterrupt()

    def save_once(*words: Any, **named: Any) -> None:
        if (parts / "pearl" / "checkpoint" / "latest.json").exists():
            raise stopped
        save(*words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_seeds", save_once)
        with pytest.raises(KeyboardInterrupt):
            collect(parts)
    assert not (parts / "dataset.json").exists()
    with pytest.raises(StorageError, match=r"holds another experiment \(it differs in seed\)"):
        collect(parts, seed=1)
    collect(parts)
    records = [json.loads((folder / "dataset.json").read_text()) for folder in (whole, parts)]
    assert records[0]["checks"] == records[1]["checks"]
    for name in ("command", "versions", "xml_sha256", "seed", "preset"):
        assert records[1][name] is not None, name
    with pytest.raises(ValueError, match="already holds a data set"):
        collect(parts)
    cli.evaluate(parts / "pearl")  # PEARL itself is a baseline, and is meta-tested like any agent
    assert (parts / "pearl" / "evaluation.json").exists()


def test_seeds_and_arms_are_added_to_a_run(tmp_path: Path) -> None:
    whole, grown, small = tmp_path / "whole", tmp_path / "grown", SMACConfig.preset("point-robot", "smoke")
    options: dict[str, Any] = {"preset": "smoke", "threads": 1, "settings": {}}
    cli.train("point-robot", seed=(0, 1), arms=("frozen", "oracle"), out=whole, workers=1, **options)
    cli.train("point-robot", seed=(0,), arms=("frozen",), out=grown, **options)
    first = [file for file in grown.rglob("*") if file.is_file() and "seed_0" in str(file)]
    written = {file: file.stat().st_mtime_ns for file in first}
    with pytest.raises(StorageError, match="holds seeds 0 too: name them as well, remove them, or choose another"):
        cli.train("point-robot", seed=(1,), arms=("frozen",), out=grown, **options)
    claim_folder(grown, Experiment("point-robot", "smoke", small, (0, 7), ("frozen", "no-q")).to_dict(), GROWS)
    assert read_run(grown).missing == ["seed 7", "arm no-q"]  # named by mistake, and not begun
    with pytest.raises(StorageError, match=r"holds another experiment \(it differs in config, kl_weight\)"):
        cli.train(
            "point-robot", seed=(0, 1), arms=("frozen",), out=grown, **{**options, "settings": {"kl_weight": 1.0}}
        )
    assert len(read_run(grown).summary["seeds"]) == 1
    cli.train("point-robot", seed=(0, 1), arms=("frozen", "oracle"), out=grown, workers=1, **options)
    assert {file: file.stat().st_mtime_ns for file in first} == written
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, grown)]
    for summary in summaries:
        del summary["seconds"]
    assert summaries[0] == summaries[1]


def test_runs_of_two_variants_are_not_compared(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    (again / "summary.json").write_text((finished / "run" / "summary.json").read_text())
    done = run("compare", finished / "run", again, "--figure", tmp_path / "figure.gif")
    assert done.returncode == 2
    assert "figure.gif is not allowed: it must end in .html or .png" in done.stderr
    done = run("compare", finished / "run", again)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| cheetah-vel |") == 2
    other = tmp_path / "v5"
    other.mkdir()
    summary = json.loads((finished / "run" / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps({**summary, "family": "cheetah-vel:obs=v5"}))
    done = run("compare", finished / "run", other)
    assert done.returncode == 2
    assert "different variants cannot be compared: cheetah-vel and cheetah-vel:obs=v5" in done.stderr


def test_progress_tells_of_scripted_data_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = SMACConfig.preset("sawyer", "smoke")
    run_experiment(tmp_path / "run", Experiment("sawyer", "smoke", config, arms=()), workers=1)
    episodes = config.n_train_tasks * config.behaviour_transitions // 75
    assert f"seed 0, episodes of the script: {episodes} of {episodes}" in capfd.readouterr().err


def test_config_marks_what_differs_from_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    cli.config("sawyer:scene=drawn", settings={"awac_lambda": 100.0, "tau": 0.5})
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert set(lines) >= {field.name for field in dataclasses.fields(SMACConfig)}
    assert lines["awac_lambda"].split()[1:] == ["100.0"], "as in the paper"
    assert lines["tau"].split()[1:] == ["0.5", "*", "0.005"]
    assert lines["discount"].split()[1:] == ["0.97", "*", "0.99"]
