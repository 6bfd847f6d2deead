"""The command line, `smac-lab`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypedDict, get_type_hints

import tyro

from smac_lab.arms import ArmName, folder_of
from smac_lab.config import MethodName, PresetName, SMACConfig

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from smac_lab.runs.sweep import Sweep

Settings = Annotated[
    Mapping[str, Any], tyro.conf.OmitArgPrefixes, tyro.conf.arg(constructor_factory=lambda: flags_of_config())
]
Behaviour = Literal["expert", "narrow", "broad"]
DEMO_FAMILY = "point-robot"


class Act(NamedTuple):
    """One act of the demo: its data, and the arms that it compares."""

    title: str
    behaviour: Behaviour | None
    arms: tuple[ArmName, ...]


ACTS = {
    "claim": Act(
        "Act 1, the paper's claim: the encoder reads exploration; `frozen`, the paper's arm, and true rewards.",
        None,
        ("frozen", "oracle"),
    ),
    "narrow": Act(
        "Act 2, narrow data for all: the encoder reads behaviour that betrays the task; `frozen` and `self-labelled`.",
        "narrow",
        ("frozen", "self-labelled"),
    ),
}


def demo(
    out: Path = Path("runs/demo"),
    preset: PresetName = "cpu",
    seed: tuple[int, ...] = (0, 1, 2),
    workers: int | None = None,
    acts: tuple[Literal["claim", "narrow"], ...] = ("claim", "narrow"),
) -> None:
    """Run the paper on the point robot in two acts, and write a report of each.

    Act one shows the paper's claim on its kind of data, beside the oracle. In act two the encoder reads only behaviour
    data, which give the task away: the paper's arm, beside one whose encoder learns.

    Args:
        out: folder of act one; act two is in its folder `narrow`. Interrupted runs are continued.
        preset: smoke (seconds), cpu (minutes on two cores), gpu (minutes on one, by reckoning) or paper.
        seed: seeds, a separate run each.
        workers: processes; default one per seed.
        acts: the acts to run.
    """
    from smac_lab.figures import report

    folders = {"claim": out, "narrow": out / "narrow"}
    for act in acts:
        title, behaviour, arms = ACTS[act]
        print(f"\n{title}\n")
        train(DEMO_FAMILY, preset, behaviour, seed, arms=arms, out=folders[act], workers=workers, settings={})
        try:
            print(f"and a picture of it: {report.write_picture(folders[act], folders[act] / 'picture.png')}")
        except RuntimeError as error:
            print(f"no picture.png: {error}")


def config(
    family: Annotated[str, tyro.conf.Positional],
    preset: PresetName = "cpu",
    behaviour: Behaviour | None = None,
    *,
    settings: Settings,
) -> None:
    """Print every number of a preset, and mark those that differ from the paper's.

    Args:
        family: as in `smac-lab train`.
        preset: smoke, cpu, gpu or paper.
        behaviour: how much scripted data gives the task away; default: the preset's.
        settings: fields that replace the preset's.
    """
    from smac_lab.tasks import make_family

    name = make_family(family).full_name
    chosen, paper = configure(name, preset, behaviour, settings), SMACConfig.preset(name, "paper")
    print(f"{name}, preset {preset}; * differs from the paper's\n")
    for field in dataclasses.fields(chosen):
        value, its = getattr(chosen, field.name), getattr(paper, field.name)
        note = "" if value == its else f"   * {its!r}"
        print(f"{field.name:28s} {value!r}{note}")


def collect(
    family: Annotated[str, tyro.conf.Positional],
    preset: PresetName = "cpu",
    behaviour: Behaviour | None = None,
    seed: int = 0,
    out: Path | None = None,
    starter: Path | None = None,
    *,
    settings: Settings,
) -> None:
    """Collect a task family's offline data set. The same command continues after a stop.

    Args:
        family: as in `smac-lab train`.
        preset: smoke, cpu, gpu or paper.
        behaviour: how much scripted data gives the task away; default: the preset's.
        seed: of tasks and data.
        out: folder; default data/<family>-<preset>-<seed>.
        starter: folder for a small excerpt with states to replay, as in smac_lab/starter.
        settings: fields that replace the preset's.
    """
    import numpy as np
    from tqdm import tqdm

    from smac_lab.data.relabel import share_reached
    from smac_lab.data.starter import write_starter
    from smac_lab.data.storage import claim_folder, holding, load_dataset, save_dataset
    from smac_lab.runs.behaviour import check_recipe, collect_behaviour, uses_pearl
    from smac_lab.runs.plan import slug
    from smac_lab.runs.summary import commit, versions
    from smac_lab.tasks import make_family

    made, config = make_family(family), configure(family, preset, behaviour, settings)
    check_recipe(made, config)
    family = made.full_name
    out = out or Path("data") / f"{slug(family)}-{preset}-{seed}"
    with holding(out):
        claim_folder(out, {"family": family, "preset": preset, "seed": seed, "config": config.to_dict()})
        tasks, _ = made.split(config.n_train_tasks, config.n_test_tasks, seed)
        already = (out / "dataset.json").exists()
        if not already:
            began = time.monotonic()
            who, unit = ("PEARL", " iterations") if uses_pearl(config) else ("script", " episodes")
            scripted = config.behaviour_policy == "scripted"
            with tqdm(desc=who, unit=unit, disable=not (scripted or uses_pearl(config))) as bar:

                def tick(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                buffer = collect_behaviour(made, tasks, config, seed, out / "pearl", tick)
            about = {
                "preset": preset,
                "seed": seed,
                "config": config.to_dict(),
                "seconds": time.monotonic() - began,
                "command": shlex.join(["smac-lab", *sys.argv[1:]]),
                "versions": versions(),
                "commit": commit(),
            }
            save_dataset(out, buffer, made, tasks, about)
            print(f"{len(buffer):,} transitions of {len(tasks)} tasks in {about['seconds']:.1f} s")
    if already and starter is None:
        raise ValueError(f"{out} already holds a data set; choose another --out")
    buffer, tasks, record = load_dataset(out, made)
    returns = np.array(record["checks"]["returns"])
    print(f"mean return of an episode: {returns.mean():.2f} (tasks from {returns.min():.2f} to {returns.max():.2f})")
    for what, share in share_reached(buffer, made, tasks).items():
        print(f"reached in {share:6.1%} of the transitions of its tasks: {what}")
    more = []
    if starter is not None:
        write_starter(
            starter, buffer, made, tasks, {k: record[k] for k in ("preset", "seed", "config", "command", "versions")}
        )
        more.append(starter / "dataset.json")
    wrote(out / "dataset.json", f"smac-lab train {family} --preset {preset} --seed {seed} --data {out}", *more)


def train(
    family: Annotated[str, tyro.conf.Positional],
    preset: PresetName = "cpu",
    behaviour: Behaviour | None = None,
    seed: tuple[int, ...] = (0,),
    method: MethodName = "smac",
    arms: tuple[ArmName, ...] | None = None,
    data: Path | None = None,
    out: Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    at_once: int | None = None,
    *,
    settings: Settings,
) -> None:
    """Meta-train: both phases, every arm, measurements, a report. The same command continues after a stop.

    Args:
        family: point-robot, cheetah-vel, ant-dir, humanoid-dir, walker-params, hopper-params, sawyer, ...; options may
            follow it, as in ant-dir:contact_cost=False.
        preset: smoke, cpu, gpu or paper.
        behaviour: how much scripted data gives the task away; default: the preset's.
        seed: seeds, a separate run each.
        method: smac, or prior work.
        arms: variants of the self-supervised phase; default frozen, self-labelled and oracle for smac, else none.
        data: data set of `smac-lab collect` with the same seed, or a run of the same seeds; default: collect it.
        out: folder of the run; default runs/<family>-<preset>.
        workers: processes for several seeds; default one per group of seeds that learn at once.
        threads: of PyTorch in this process; default all processors.
        at_once: seeds that learn at once, as one agent; default all on a GPU, one on a CPU.
        settings: fields that replace the preset's.
    """
    import torch

    from smac_lab.figures import report
    from smac_lab.runs.experiment import run_experiment
    from smac_lab.runs.plan import DEFAULT_ARMS, Experiment, slug
    from smac_lab.tasks import make_family

    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads} is not allowed: at least 1")
    if threads is not None:
        torch.set_num_threads(threads)
    if out is None:
        name = f"{slug(make_family(family).full_name)}-{preset}"
        out = Path("runs") / (name if method == "smac" else f"{name}-{method}")
    going_on: tuple[str, ...] = arms if arms is not None else DEFAULT_ARMS if method == "smac" else ()
    experiment = Experiment(
        family,
        preset,
        configure(family, preset, behaviour, settings),
        tuple(seed),
        going_on,
        data=None if data is None else str(data),
        method=method,
    )
    summary = run_experiment(out, experiment, workers, at_once=at_once)
    print(report.print_summary(summary))
    shown = [folder_of(arm) for arm in sorted(going_on, key=lambda arm: arm != summary["default_arm"])] or ["offline"]
    film(family, out / f"seed_{seed[0]}" / shown[0])
    wrote(
        out / "summary.json",
        f"smac-lab evaluate {out}/seed_{seed[0]}/{shown[0]}",
        report.write_report(out),
    )


def sweep(file: Annotated[Path, tyro.conf.Positional], address: str | None = None, plan: bool = False) -> None:
    """Run all trials of a sweep file, on this machine or on a Ray cluster. The same command continues after a stop.

    Args:
        file: YAML, or Python that defines `sweep`, with families, methods, arms, seeds, variants and resources.
        address: of a Ray cluster, such as auto; default: start Ray on this machine.
        plan: only list the trials.
    """
    from smac_lab.figures import comparison, report
    from smac_lab.runs.sweep import Sweep, run_sweep

    found = Sweep.read(file)
    trials, runs = found.trials(), list(found.runs())
    states = ["finished" if trial.is_finished else "to do" for trial in trials]
    print(f"{len(trials)} trials in {len(runs)} runs below {found.out}; {states.count('finished')} are finished")
    if plan:
        for trial, state in zip(trials, states, strict=True):
            print(f"{state:10s} {trial.name:40s} {sum(trial.experiment.updates().values()):>12,} updates per seed")
        return
    try:
        done: list[Path] = []
        failed = run_sweep(found, address, finished=done.append)
    except ImportError as error:
        raise ValueError(str(error)) from error
    finished = [run for run in runs if run in done]
    reports = [report.write_report(run) for run in finished]
    if finished:
        try:
            print(comparison.markdown(comparison.gather(finished)))
        except ValueError as error:  # two variants of a family
            print(f"no table: {error}")
        wrote(finished[-1] / "summary.json", f"tensorboard --logdir {found.out}", *reports)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def reproduce(
    claim: Annotated[Literal["all", "shift", "closes", "oracle", "prior-work", "self-labelled"], tyro.conf.Positional],
    preset: PresetName = "cpu",
    seed: tuple[int, ...] = (0, 1, 2, 3, 4),
    family: tuple[str, ...] | None = None,
    results: Path | None = None,
    out: Path | None = None,
    address: str | None = None,
    run: bool = True,
) -> None:
    """Answer a claim of the paper: run what is missing, and judge it. The same command continues after a stop.

    Args:
        claim: one of the claims, or all.
        preset: smoke, cpu, gpu or paper.
        seed: seeds of every run.
        family: task families; default: all that the claim is about.
        results: folder of the summaries and curves; default results/<preset>.
        out: folder of the runs; default runs/reproduce-<preset>.
        address: of a Ray cluster, such as auto; default: start Ray on this machine.
        run: run what is missing; otherwise only judge the results.
    """
    from smac_lab.figures import claims, kept

    names = list(claims.CLAIMS) if claim == "all" else [claim]
    families = family or claims.FAMILIES
    if unknown := sorted(set(families) - set(claims.FAMILIES)):
        raise ValueError(f"--family {' '.join(unknown)} is not allowed: claims are about {', '.join(claims.FAMILIES)}")
    results, out = results or Path("results") / preset, out or Path("runs") / f"reproduce-{preset}"
    sweeps = claims.sweeps(names, preset, out, seed, kept.read_results(results), families) if run else []
    failed = _run_missing(sweeps, results, address)
    known = kept.read_results(results)
    found = claims.verdicts(names, known, families)
    tables = [claims.markdown(found), *([claims.in_brief(found)] if len(names) > 1 else [])]
    cost = f"{len(known)} runs in {results} learned for {kept.hours(known):.1f} hours, all seeds one after the other"
    table = "\n\n".join([*tables, cost])
    _answer(claim, table, claims.figure(found) if found else None, results, failed)


def ablate(
    family: tuple[str, ...] = ("point-robot", "cheetah-vel"),
    preset: PresetName = "cpu",
    seed: tuple[int, ...] = (0, 1, 2),
    results: Path | None = None,
    out: Path | None = None,
    address: str | None = None,
    run: bool = True,
) -> None:
    """Show what each choice of the method is worth: run what is missing. The same command continues after a stop.

    Args:
        family: task families.
        preset: smoke, cpu, gpu or paper; one choice at a time differs from it.
        seed: seeds of every run.
        results: folder of the summaries and curves; default results/ablations/<preset>.
        out: folder of the runs; default runs/ablations-<preset>.
        address: of a Ray cluster, such as auto; default: start Ray on this machine.
        run: run what is missing; otherwise only show the results.
    """
    from smac_lab.figures import ablations, kept

    results, out = results or Path("results") / "ablations" / preset, out or Path("runs") / f"ablations-{preset}"
    sweeps = ablations.sweeps(preset, out, seed, kept.read_results(results), family) if run else []
    failed = _run_missing(sweeps, results, address)
    found = list(ablations.rows(kept.read_results(results), family))
    _answer("ablations", ablations.markdown(found), ablations.figure(found) if found else None, results, failed)


def _run_missing(sweeps: Sequence[Sweep], results: Path, address: str | None) -> dict[str, str]:
    """Run sweeps, and keep each run's results as soon as it is finished; return what failed, and why."""
    from smac_lab.figures import kept
    from smac_lab.runs.sweep import run_sweep

    failed: dict[str, str] = {}
    for sweep in sweeps:
        runs = sweep.runs()
        which = ", ".join(folder.name for folder in runs)
        print(f"{len(runs)} runs of {len(sweep.seeds)} seeds are missing in {results}: {which}")
        try:
            failed |= run_sweep(sweep, address, finished=lambda folder: kept.keep(folder, results))
        except ImportError as error:
            raise ValueError(str(error)) from error
    return failed


def _answer(name: str, table: str, figure: go.Figure | None, results: Path, failed: Mapping[str, str]) -> None:
    """Print what was found, and write the page of its figure."""
    from smac_lab.data.storage import replace_text
    from smac_lab.figures import style

    for trial, reason in failed.items():
        print(f"failed: {trial}: {reason}", file=sys.stderr)
    if figure is None:
        raise ValueError(f"{results} has no results of {name}")
    print(table)
    page = results.with_name(f"{results.name}-{name}.html")  # beside the folder: `compare FOLDER/*` takes runs
    replace_text(page, style.page_of(figure))
    wrote(page, f"smac-lab compare {results}/*")
    if failed:
        raise SystemExit(1)


def evaluate(
    run: Annotated[Path, tyro.conf.Positional], seed: int = 0, diagnose: bool = False, out: Path | None = None
) -> None:
    """Meta-test a trained agent on the held-out tasks of its run.

    Args:
        run: folder of one phase of a run, such as runs/demo/seed_0/frozen.
        seed: of simulations and draws.
        diagnose: also replace the links from exploration to action one at a time, on training tasks.
        out: file for the returns; default <run>/evaluation.json.
    """
    from smac_lab import adaptation, diagnosis
    from smac_lab.data.storage import replace_text
    from smac_lab.runs import checkpoint
    from smac_lab.tasks import make_family

    agent, buffer, _ = checkpoint.load(run / "checkpoint" if (run / "checkpoint").is_dir() else run)
    family, config = make_family(agent.spec.name), agent.config
    train, test = family.split(config.n_train_tasks, config.n_test_tasks, int(agent.seed))
    result = adaptation.evaluate(agent, family, test, seed=seed)
    print(f"{family.full_name}: {len(test)} held-out tasks x {result.returns.shape[1]} repeats")
    for episode, value in enumerate(result.returns.mean((0, 1))):
        last = episode == result.returns.shape[2] - 1
        print(f"  episode {episode + 1} ({'adapted to what it saw' if last else 'exploring'}): return {value:.2f}")
    file = out or run / "evaluation.json"
    record: dict[str, Any] = {
        "family": family.full_name,
        "seed": seed,
        "tasks": test.values.tolist(),
        "returns": result.returns.tolist(),
        "final_returns": result.final_returns.tolist(),
    }
    if diagnose and buffer is not None:
        findings = diagnosis.diagnose(agent, family, train, buffer, seed=seed)
        print(f"\nwhere the gap is lost ({len(train)} training tasks):")
        for link, experiment, value, unit in findings:
            print(f"  {link:17s} {experiment:70s} {value:9.3f} {unit}")
        record["diagnosis"] = [finding._asdict() for finding in findings]
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps(record, indent=1))
    wrote(file, "open report.html of the run to see it beside the other arms")


def compare(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    table: Literal["markdown", "latex"] = "markdown",
    figure: Path | None = None,
) -> None:
    """Print finished runs in one table, with intervals.

    Args:
        runs: folders, such as runs/ant-dir-cpu; one variant of each family.
        table: its format.
        figure: file for intervals and performance profiles (.html, or .png if Chromium is installed).
    """
    from smac_lab.data.storage import replace_text, replacing
    from smac_lab.figures import comparison, report, style

    if figure is not None and figure.suffix not in (".html", ".png"):
        raise ValueError(f"--figure {figure} is not allowed: it must end in .html or .png")
    found = comparison.gather(runs)
    print(comparison.latex(found) if table == "latex" else comparison.markdown(found))
    if figure is not None:
        drawn = comparison.figure(found)
        figure.parent.mkdir(parents=True, exist_ok=True)
        if figure.suffix == ".html":
            replace_text(figure, style.page_of(drawn))
        else:
            try:
                picture = report.png_of(drawn, width=1200)
            except RuntimeError as error:
                raise ValueError(f"no {figure}: {error}") from error
            with replacing(figure) as partial:
                partial.write_bytes(picture)
        wrote(figure, "add other runs to the same command")


def explore(
    run: Annotated[str, tyro.conf.Positional],
    seed: int | None = None,
    port: int = 8866,
    browser: bool = True,
    html: Path | None = None,
) -> None:
    """Open the ShiftExplorer on a finished run in the web browser, on this machine only. Ctrl-C ends it.

    With --html, write it to a file that needs neither a server nor a network.

    Args:
        run: folder of a run or excerpt, or the name of an example: point-robot, cheetah-vel, ...
        seed: of the run; default its first.
        port: of the page's server.
        browser: open the page; otherwise only print its address, with the token.
        html: file to write instead.
    """
    import subprocess
    import tempfile

    from smac_lab.runs import snapshots

    folder = snapshots.find_run(run)
    if html is not None:
        from smac_lab import widgets

        widgets.ShiftExplorer(snapshots.read_snapshots(folder, seed)).to_html(html, title=f"The shift in {folder.name}")
        wrote(html, "open it in a browser, or send it to someone: it needs no network")
        return
    try:
        import nbformat
        import voila  # noqa: F401
    except ImportError as error:
        raise ValueError(f'the explorer\'s page needs voila: pip install "smac-lab[lab]" ({error})') from error
    lines = [
        "from smac_lab import widgets",
        "from smac_lab.runs.snapshots import read_snapshots",
        f"widgets.ShiftExplorer(read_snapshots({str(folder.resolve())!r}, {seed!r}))",
    ]
    cells = [
        nbformat.v4.new_markdown_cell(f"## The distribution shift in {run}"),
        nbformat.v4.new_code_cell("\n".join(lines)),
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    with tempfile.TemporaryDirectory(prefix="smac-lab-") as here:
        file = Path(here) / "explore.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), file)
        options = ["--Voila.ip=127.0.0.1", f"--port={port}", "--token", *([] if browser else ["--no-browser"])]
        print(f"reading {folder}; the page opens in a few seconds. Ctrl-C ends it.")
        subprocess.run([sys.executable, "-m", "voila", str(file), *options], check=False)


def excerpt(
    run: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    seed: int | None = None,
    iterations: tuple[int, ...] = (),
    arms: tuple[ArmName, ...] = (),
) -> None:
    """Store a small copy of a run's agents: networks in half precision, at a few iterations of each arm.

    Args:
        run: folder of a finished run.
        out: folder to write.
        seed: of the run; default its first.
        iterations: iterations of each arm to keep; default the last.
        arms: arms to keep; default all.
    """
    from smac_lab.figures import findings, report
    from smac_lab.runs import snapshots
    from smac_lab.runs.summary import versions

    found = snapshots.read_snapshots(run, seed)
    about = {
        "made_by": [report.command(findings.read_run(run)), shlex.join(["smac-lab", *sys.argv[1:]])],
        "versions": versions(),
    }
    snapshots.write_excerpt(out, found, iterations, arms, about)
    size = sum(file.stat().st_size for file in out.iterdir())
    kept = f"{', '.join(arms or found.arms)} at {len(iterations) or 1} iterations each"
    print(f"{size / 1e6:.1f} MB: the agent before, and {kept}")
    wrote(out / "agents.safetensors", f"smac-lab explore {out}", out / "excerpt.json")


def bench(
    what: Annotated[tuple[Literal["simulation", "update", "evaluate", "pipeline"], ...], tyro.conf.Positional] = (
        "simulation",
        "update",
        "evaluate",
        "pipeline",
    ),
    family: str = "cheetah-vel",
    preset: PresetName = "paper",
    processes: tuple[int, ...] = (),
    profile: bool = False,
    scaling: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    quick: bool = False,
) -> None:
    """Measure speed relative to this machine's limits and to the code that one would otherwise write.

    Args:
        what: simulation, update, evaluate, pipeline; default all.
        family: of the run that `pipeline` measures.
        preset: of that run.
        processes: environments of gymnasium's AsyncVectorEnv, a process each; default four per core.
        profile: also show how each stage's time divides.
        scaling: .html file for cost against size, with .json and .png beside it.
        as_json: print one JSON object instead of tables.
        quick: tiny sizes, which only show that everything runs.
    """
    import contextlib

    from smac_lab import bench as bm

    effort = bm.QUICK if quick else bm.Effort()
    SMACConfig.preset(family, preset)
    record: dict[str, Any] = {"machine": bm.machine(), "quick": quick, "interrupted": True}
    rows: list[bm.Row] = []
    stages: list[bm.pipeline.Stage] = []
    profiles: list[bm.profiling.Profile] = []
    with contextlib.suppress(KeyboardInterrupt):  # report what has been measured so far
        for case in what:
            for row in bm.rows(case, effort, processes, (family, preset)):
                rows.append(row)
            if case == "pipeline":
                for stage in bm.pipeline.stages(family, preset, effort):
                    stages.append(stage)
        for found in bm.profiling.profiles(effort) if profile else ():
            profiles.append(found)
        if scaling is not None:
            curves = bm.scaling.curves(effort, bm.scaling.FEW if quick else bm.scaling.Sizes())
            record["scaling"] = [curve._asdict() for curve in curves]
            say = functools.partial(print, file=sys.stderr)
            record["files"] = [str(f) for f in bm.scaling.write(scaling, curves, {"machine": record["machine"]}, say)]
        record["interrupted"] = False

    record["ratios"] = [row.to_dict() for row in rows if isinstance(row, bm.Ratio)]
    record["skipped"] = [row._asdict() for row in rows if isinstance(row, bm.Skipped)]
    record["stages"] = [{**stage._asdict(), "total": stage.total} for stage in stages]
    record["profiles"] = [found._asdict() for found in profiles]
    if as_json:
        print(json.dumps(record, indent=1))
    else:
        print("\n".join(bm.report(record, rows, stages, profiles)))
    if record["interrupted"]:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130)


def film(family_name: str, phase: Path) -> None:
    """Film a body on four held-out tasks after adaptation, if this machine can render."""
    import numpy as np
    import torch

    from smac_lab import adaptation
    from smac_lab.figures import video
    from smac_lab.runs import checkpoint
    from smac_lab.tasks import MujocoFamily, make_family

    family = make_family(family_name)
    if not isinstance(family, MujocoFamily) or (phase / "video.mp4").exists():
        return
    agent, _, _ = checkpoint.load(phase / "checkpoint")
    _, test = family.split(agent.config.n_train_tasks, agent.config.n_test_tasks, int(agent.seed))
    test = test[np.linspace(0, len(test) - 1, min(4, len(test))).astype(int)]
    adapted = agent.adapt(adaptation.evaluate(agent, family, test, repeats=1).contexts[:, 0])
    try:
        made = video.render_episodes(agent.policy(adapted, torch.Generator(agent.device)), family, test, every=2)
        video.save_video(phase / "video.mp4", made.frames, made.fps)
    except (RuntimeError, ImportError) as error:
        print(f"no film of the agent: {error}")


def configure(family: str, preset: str, behaviour: str | None, settings: Mapping[str, Any]) -> SMACConfig:
    """Return the preset with some settings replaced."""
    return dataclasses.replace(SMACConfig.preset(family, preset, behaviour), **settings)


AS_JSON = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="JSON",
    instance_from_str=lambda words: json.loads(words[0]),
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda value: [json.dumps(value)],
)


def flags_of_config() -> type:
    """Build the type of `Settings`: each field of SMACConfig, with its type and comment."""
    comments = dict(re.findall(r"^    (\w+): .*  # (.*)$", inspect.getsource(SMACConfig), re.MULTILINE))
    hints = get_type_hints(SMACConfig, include_extras=True) | {"behaviour_changes": Annotated[dict[str, Any], AS_JSON]}
    flags = {}
    for field in dataclasses.fields(SMACConfig):
        default = {} if field.default is dataclasses.MISSING else field.default
        told = tyro.conf.arg(help=comments.get(field.name), help_behavior_hint=f"(paper: {default})")
        flags[field.name] = Annotated[hints[field.name], told]
    return TypedDict("Flags", flags, total=False)  # type: ignore[operator]


def refuse_repeated(words: list[str]) -> None:
    """Raise ValueError if an option is given twice, because the first value would be lost silently."""
    options = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--") and len(word) > 2]
    options = [option.replace("--no-", "--") for option in options]
    for option in options:
        if options.count(option) > 1:
            raise ValueError(f"{option} is given {options.count(option)} times; give all its values once: {option} A B")


def read(words: list[str]) -> Callable[[], None]:
    """Parse a command line into a command, bound to its arguments.

    Raises:
        ValueError: no command takes these words.
    """

    def bind(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
        @functools.wraps(command)
        def bound(*values: Any, **named: Any) -> Callable[[], None]:
            return functools.partial(command, *values, **named)

        return bound

    refuse_repeated(words)
    commands = (demo, config, collect, train, sweep, reproduce, ablate, evaluate, compare, explore, excerpt, bench)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(
                {command.__name__: bind(command) for command in commands},
                prog="smac-lab",
                args=words,
                config=(tyro.conf.PositionalMetavarFromFieldName,),
            )
    except SystemExit as ended:
        if not ended.code:  # --help
            raise
        raise ValueError(unboxed(box.getvalue())) from None


def unboxed(box: str) -> str:
    """Return the message and proposed options of one of tyro's boxes as one line."""
    parts = [""]
    for line in (line.strip("│ ") for line in box.splitlines()):
        if re.match("[╭╰]|[─-]{4}", line):  # a rule
            parts.append("")
        else:
            parts[-1] += f" {line}"
    _, message, *more = (" ".join(part.split()) for part in parts)  # the title, or nothing, is above the first rule
    said = [message, *(part for part in more if part.startswith("Available"))]
    proposed = {option for part in more if part.startswith("Perhaps") for option in re.findall(r" (--[a-z-]+)", part)}
    if options := sorted(proposed - {"--help"}):
        said.append(f"perhaps you meant {' or '.join(options)}")
    return "; ".join(said)


def wrote(file: Path, next_step: str, *more: Path) -> None:
    """Print what a command wrote and what to do next."""
    print(f"\nwrote {', '.join(str(f) for f in (file, *more))}\nnext: {next_step}")


def main() -> None:
    """Run `smac-lab`, and print bad input as one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds as Ctrl-C does, which ends the workers
    try:
        read(sys.argv[1:])()
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
