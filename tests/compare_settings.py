"""Ten seeds of the point robot at once, in two settings of the machine: does what is learned depend on them?

python tests/compare_settings.py precision=bf16 --short
python tests/compare_settings.py compile=True
"""

import ast
import dataclasses
import sys
import time

import numpy as np

import smac_lab as lab
from smac_lab.stats import gap_closed, interval

SHORT = {"offline_steps": 1_500, "online_iterations": 8, "online_updates": 150}


def learn(config, seeds):
    """Both phases with the preset's arm; what is measured before and after the second, each `(seed,)`."""
    family = lab.make_family("point-robot")
    tasks = [family.split(config.n_train_tasks, config.n_test_tasks, seed)[0] for seed in seeds]
    data = [lab.collect_behaviour(family, own, config, seed) for own, seed in zip(tasks, seeds, strict=True)]
    agent, buffer = lab.SMAC(config, family.spec, seed=seeds), lab.TransitionBuffer.join(data)

    def look():
        shift = lab.measure_shift(agent, family, tasks, buffer)
        return {
            "offline_context": shift.offline_context_return,
            "online_context": shift.online_context_return,
            "shift": shift.normalised,
        }

    began = time.perf_counter()
    for _ in lab.train_offline(agent, buffer):
        pass
    before = look()
    for _ in lab.train_self_supervised(agent, buffer, family, tasks):
        pass
    return before, look(), time.perf_counter() - began


def compare(changes, seeds=tuple(range(10)), short=False):
    """Print both settings and their paired difference, each with its 95 % interval over seeds.

    Returns:
        The intervals of the differences by name.
    """
    base = dataclasses.replace(lab.SMACConfig.preset("point-robot", "cpu"), **(SHORT if short else {}))
    found = {}
    for name, config in (("default", base), ("changed", dataclasses.replace(base, **changes))):
        before, after, seconds = learn(config, seeds)
        found[name] = {
            "before, offline context": before["offline_context"],
            "before, self-collected context": before["online_context"],
            "before, shift": before["shift"],
            "after, offline context": after["offline_context"],
            "after, self-collected context": after["online_context"],
            "after, shift": after["shift"],
            "gap closed": gap_closed(before, after).closed,
        }
        print(f"{name}: {seconds:.0f} s")
    print(f"\n{len(seeds)} seeds, {'shortened' if short else 'whole'}; {changes}; mean [95 % interval]")
    differences = {}
    for name, one in found["default"].items():
        two = found["changed"][name]
        differences[name] = interval(np.asarray(two) - np.asarray(one))
        cells = [f"{i.point:8.3f} [{i.low:.3f}, {i.high:.3f}]" for i in (interval(one), interval(two))]
        d = differences[name]
        print(f"{name:32s} {cells[0]:30s} {cells[1]:30s} difference {d.point:+.3f} [{d.low:+.3f}, {d.high:+.3f}]")
    return differences


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    fields = dict(word.split("=", 1) for word in words)
    known = {"True": True, "False": False}
    compare(
        {k: known.get(v, v if not v[:1].isdigit() else ast.literal_eval(v)) for k, v in fields.items()},
        short="--short" in sys.argv,
    )
