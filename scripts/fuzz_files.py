"""Read damaged and hostile files of every kind, mutated at random.

python scripts/fuzz_files.py [--mutants 10000] [--seed 0] [--kinds checkpoint dataset ...]

Each mutant must load or end in ValueError or OSError with a message. A crash, a hang of over 10 seconds, a file
written, a path opened outside the mutant's folder, a pickle read, a process started, or unbounded memory is a problem.
The script prints each, and ends with 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 10
MEMORY = 3 << 30  # bytes that reading one small folder may take, with the libraries
NUMBERS: list[Any] = [0, -1, 1, 3, 10**9, 10**12, 10**30, -(10**18), 1e308, -0.5, float("nan"), float("inf")]
VALUES: list[Any] = [
    *NUMBERS, None, True, False, "", "x", "..", "../../../etc/passwd", "/etc/passwd", "\x00", "é" * 300, "1" * 5000,
    [], [[]], {}, [None], {"": 0}, [1e9] * 3, [10**9, 10**9],
]  # fmt: skip


class Kind(NamedTuple):
    """A kind of file or folder.

    Args:
        make: writes a sound one into a folder.
        read: reads it, to the last number.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], object]


# -- sound files -----------------------------------------------------------------------------------------
def run_folder(folder: Path) -> None:
    from smac_lab.config import SMACConfig
    from smac_lab.runs.experiment import run_experiment
    from smac_lab.runs.plan import Experiment

    config = SMACConfig.preset("point-robot", "smoke")
    run_experiment(folder, Experiment("point-robot", "smoke", config, (0,), ("frozen",)), workers=1, quiet=True)
    for events in folder.rglob("events.out*"):  # TensorBoard's; never read here
        events.unlink()


def checkpoint_folder(folder: Path) -> None:
    """Write a smoke run's offline checkpoint."""
    with tempfile.TemporaryDirectory() as there:
        run_folder(Path(there) / "run")
        shutil.copytree(Path(there) / "run" / "seed_0" / "offline" / "checkpoint", folder)


def dataset_folder(folder: Path) -> None:
    import smac_lab as lab
    from smac_lab.data.storage import save_dataset

    family = lab.make_family("point-robot")
    config = lab.SMACConfig.preset("point-robot", "smoke")
    tasks, _ = family.split(config.n_train_tasks, config.n_test_tasks, 0)
    save_dataset(folder, lab.collect_behaviour(family, tasks, config), family, tasks, {"seed": 0})


def excerpt_folder(folder: Path) -> None:
    from smac_lab.runs.snapshots import EXAMPLES

    shutil.copytree(EXAMPLES / "point-robot", folder)


def minari_folder(folder: Path) -> None:
    import os

    import smac_lab as lab
    from smac_lab.data.minari import to_minari

    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    family = lab.make_family("point-robot")
    config = lab.SMACConfig.preset("point-robot", "smoke")
    tasks, _ = family.split(config.n_train_tasks, config.n_test_tasks, 0)
    to_minari(lab.collect_behaviour(family, tasks, config), family, "fuzz/point-robot-v0", tasks)


def sweep_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "sweep.yaml").write_text(
        "out: runs/fuzz\npreset: smoke\nfamilies: [point-robot]\nmethods: [smac, macaw]\narms: [frozen]\n"
        "seeds: [0, 1]\nvariants:\n  default: {}\n  sharp: {awac_lambda: 0.1}\nat_once: 1\nnum_cpus: 1\n"
    )


# -- reading ---------------------------------------------------------------------------------------------
def read_checkpoint(folder: Path) -> object:
    import numpy as np

    import smac_lab as lab

    run = lab.load(folder, family=lab.make_family("point-robot"))
    return run.agent.prior(1) and run.agent.act(np.zeros((1, 2)), np.zeros((1, run.agent.config.z_dim)))


def read_dataset(folder: Path) -> object:
    import smac_lab as lab
    from smac_lab.data.storage import load_dataset

    return load_dataset(folder, lab.make_family("point-robot"))


def read_excerpt(folder: Path) -> object:
    from smac_lab.runs.snapshots import read_snapshots

    return read_snapshots(folder)


def read_run_folder(folder: Path) -> object:
    """Read a run as reports, comparisons, explorers and resumed runs do."""
    from smac_lab.data.storage import read_json
    from smac_lab.figures import comparison, findings, report
    from smac_lab.runs.plan import Experiment
    from smac_lab.runs.snapshots import read_snapshots

    run = findings.read_run(folder)
    report.print_summary(run.summary)
    comparison.markdown(comparison.gather([folder]))
    Experiment.from_dict(read_json(folder / "config.json"))
    return read_snapshots(folder)


def read_minari(folder: Path) -> object:
    import os

    import smac_lab as lab
    from smac_lab.data.minari import from_minari, minari_tasks

    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    family = lab.make_family("point-robot")
    return from_minari("fuzz/point-robot-v0", family), minari_tasks("fuzz/point-robot-v0", family)


def read_sweep(folder: Path) -> object:
    from smac_lab.runs.sweep import Sweep

    return Sweep.read(folder / "sweep.yaml").trials()


KINDS = {
    "checkpoint": Kind(checkpoint_folder, read_checkpoint),
    "dataset": Kind(dataset_folder, read_dataset),
    "excerpt": Kind(excerpt_folder, read_excerpt),
    "run": Kind(run_folder, read_run_folder),
    "minari": Kind(minari_folder, read_minari),
    "sweep": Kind(sweep_folder, read_sweep),
}


# -- mutating --------------------------------------------------------------------------------------------
def mutate(folder: Path, rng: random.Random) -> str:
    """Damage one file of a folder; return what was done."""
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    data = file.read_bytes()
    ways: list[Callable[[bytes, random.Random], bytes | None]] = [truncate, flip, insert, pickle_in, header]
    if file.suffix in (".json", ".yaml"):
        ways = [change_value] * 8 + ways
    way = rng.choice([*ways, remove])
    if (changed := way(data, rng)) is None:
        file.unlink()
    else:
        file.write_bytes(changed)
        if rng.random() < 0.7:
            mend_hashes(folder, file)
    return f"{way.__name__} {file.relative_to(folder)}"


def remove(data: bytes, rng: random.Random) -> None:
    """Remove the file."""


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 3, 30])):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice([1, 8, 1000])) + data[at:]


def pickle_in(data: bytes, rng: random.Random) -> bytes:
    """Replace the file by a pickle that writes a file if it is read."""
    return b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x11touch /tmp/pickled\x85R."


def header(data: bytes, rng: random.Random) -> bytes:
    """Replace a number in the first kilobyte, where sizes and shapes are."""
    digits = [i for i, byte in enumerate(data[:1000]) if 48 <= byte <= 57]
    if not digits:
        return rng.randbytes(8) + data[8:]
    at = rng.choice(digits)
    return data[:at] + str(rng.choice([0, 10**9, 10**15, 2**63])).encode() + data[at + 1 :]


def change_value(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove or rename a value of JSON or YAML."""
    try:
        tree = json.loads(data)
        dump: Callable[[Any], str] = json.dumps
    except ValueError:
        import yaml  # type: ignore[import-untyped]

        tree, dump = yaml.safe_load(data), lambda value: yaml.safe_dump(value, allow_unicode=True)
    holders = list(containers(tree))
    if not holders:
        return data
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    way = rng.random()
    if way < 0.15:
        del holder[key]
    elif way < 0.2 and isinstance(holder, dict):
        holder[str(rng.choice(VALUES))] = holder.pop(key)
    else:
        holder[key] = rng.choice(VALUES)
    return dump(tree).encode("utf-8", "surrogatepass")


def containers(tree: Any) -> Iterator[Any]:
    """List the non-empty dicts and lists in a tree."""
    if isinstance(tree, (dict, list)) and tree:
        yield tree
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from containers(value)


def mend_hashes(folder: Path, file: Path) -> None:
    """Record the changed file's hash, as an attacker would."""
    from smac_lab.data.storage import file_sha256

    new = file_sha256(file)
    for other in folder.rglob("*.json"):
        with contextlib.suppress(ValueError, OSError):
            record = json.loads(other.read_text(encoding="utf-8"))
            before = json.dumps(record)
            _mend(record, file.name, new)
            if json.dumps(record) != before and other != file:
                other.write_text(json.dumps(record))
                mend_hashes(folder, other)


def _mend(tree: Any, name: str, new: str) -> None:
    if isinstance(tree, dict):
        if tree.get("file") == name and "sha256" in tree:
            tree["sha256"] = new
        if name == "state.json" and "state_sha256" in tree:
            tree["state_sha256"] = new
        if name == "agents.safetensors" and "sha256" in tree:
            tree["sha256"] = new
        if name in tree and isinstance(tree[name], str) and len(tree[name]) == 64:
            tree[name] = new
        for value in tree.values():
            _mend(value, name, new)
    elif isinstance(tree, list):
        for value in tree:
            _mend(value, name, new)


# -- watching --------------------------------------------------------------------------------------------
class Watch:
    """An audit hook that notes what reading must not do."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        self.allowed = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1] / "smac_lab", Path("/proc")]
        self.allowed += [Path("/sys"), Path("/usr"), Path("/dev"), Path("/tmp/torchinductor")]
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "socket.connect"):
            self.seen.append(f"{event} {arguments[:2]}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path, flags = Path(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()), arguments[2]
            path = path.resolve()
            writes = isinstance(flags, int) and flags & 3
            if writes or not any(path.is_relative_to(one) for one in (self.folder, *self.allowed)):
                self.seen.append(f"{'write' if writes else 'open'} {path}")


WATCH: Watch | None = None


class TooSlow(BaseException):
    """Reading took longer than allowed."""


def _too_slow(*_: object) -> None:
    raise TooSlow


def try_one(kind: Kind, folder: Path) -> tuple[str, str]:
    """Return "loaded", "refused" or "problem", and the message."""
    global WATCH
    WATCH = WATCH or Watch()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    WATCH.seen, WATCH.folder, began = [], folder.resolve(), time.monotonic()
    outcome, message = "loaded", ""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            kind.read(folder)
    except (ValueError, OSError) as error:
        outcome, message = "refused", f"{type(error).__name__}: {error}"
        if not str(error).strip() or len(str(error)) > 2000:
            outcome, message = "problem", f"a message of {len(str(error))} characters"
    except TooSlow:
        outcome, message = "problem", f"not done after {time.monotonic() - began:.0f} s"
    except BaseException as error:
        WATCH.folder = None  # a traceback opens the source
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome, message = "problem", f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        WATCH.folder = None
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    if WATCH.seen or after != before:
        outcome, message = "problem", next(iter(WATCH.seen), "files changed")
    return outcome, message


def fuzz(names: list[str], mutants: int, seed: int, say: Callable[[str], None] = print) -> dict[str, Counter[str]]:
    """Count the outcomes of reading mutants by kind."""
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as here:
        for name in names:
            kind, sound, counts = KINDS[name], Path(here) / name, Counter[str]()
            kind.make(sound)
            outcome, message = try_one(kind, sound)
            if outcome != "loaded":
                raise RuntimeError(f"a sound {name} does not load: {message}")
            size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for number in range(mutants):
                rng, mutant = random.Random(f"{seed} {name} {number}"), Path(here) / f"{name}_{number}"
                shutil.copytree(sound, mutant)
                done = mutate(mutant, rng)
                outcome, message = try_one(kind, mutant)
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) * 1024
                if grown > MEMORY:
                    outcome, message, size = "problem", f"{grown / 2**30:.1f} GiB of memory", size + grown // 1024
                counts[outcome] += 1
                if outcome == "problem":
                    say(f"{name} {number}: {done}: {message[:300]}")
                shutil.rmtree(mutant)
            found[name] = counts
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mutants", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    found = fuzz(
        options.kinds, -(-options.mutants // len(options.kinds)), options.seed, lambda line: print(line, flush=True)
    )
    print(f"{'kind':12s}{'tried':>8s}{'loaded':>8s}{'refused':>9s}{'problems':>10s}")
    for name, counts in found.items():
        print(f"{name:12s}{counts.total():8d}{counts['loaded']:8d}{counts['refused']:9d}{counts['problem']:10d}")
    raise SystemExit(any(counts["problem"] for counts in found.values()))


if __name__ == "__main__":
    main()
