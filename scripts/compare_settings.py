"""Train ten seeds of the point robot at once in two settings, and compare.

python scripts/compare_settings.py precision=bf16            on a processor with native bf16
python scripts/compare_settings.py precision=bf16 --emulate  on any other, where native products are slow
python scripts/compare_settings.py precision=tf32 --emulate  without a GPU that has it
python scripts/compare_settings.py compile=True

python scripts/compare_settings.py --each max_action=0.999999 z_resampling=step   each beside the default, on equal data

--short trains for about a third of the steps; --five takes five seeds; --run FOLDER (with --each) takes data and config
of a run's first seed.
"""

import ast
import contextlib
import dataclasses
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import smac_lab as lab
from smac_lab.figures.stats import gap_closed, interval
from smac_lab.runs.snapshots import read_snapshots
from smac_lab.sampling import sample_offline

SHORT = {"offline_steps": 1_500, "online_iterations": 8, "online_updates": 150}


class Emulated(TorchFunctionMode):
    """Emulation of dense products in another precision, forward and backward; sums are in float32.

    "tf32" rounds only operands; "bf16" also rounds results.
    """

    def __init__(self, precision):
        super().__init__()
        self.precision = precision

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function not in (F.linear, torch.baddbmm):
            return function(*args, **(kwargs or {}))
        if self.precision == "tf32":
            first = 0 if function is F.linear else 1  # the added term is not an operand
            operands = (Tf32Operand.apply(a) for a in args[first : first + 2])
            args = (*args[:first], *operands, *args[first + 2 :])
            return Tf32Gradient.apply(function(*args, **(kwargs or {})))
        if function is torch.baddbmm and args[2].shape[-1] == 1:  # the critics' last layer is exact
            return function(*args, **(kwargs or {}))
        args = tuple(rounded(a) if isinstance(a, torch.Tensor) else a for a in args)
        return rounded(function(*args, **(kwargs or {})))


def rounded(values):
    return values.to(torch.bfloat16).to(values.dtype)


def to_tf32(values):
    """Round float32 to 10 bits after the point (Veltkamp's splitting)."""
    large = (2.0**13 + 1) * values
    return large - (large - values)


class Tf32Operand(torch.autograd.Function):
    """An operand, rounded in the forward pass."""

    generate_vmap_rule = True
    setup_context = staticmethod(lambda context, inputs, output: None)

    @staticmethod
    def forward(values):
        return to_tf32(values)

    @staticmethod
    def backward(context, gradient):
        return gradient


class Tf32Gradient(torch.autograd.Function):
    """A result, whose gradient is rounded as an operand of the backward pass."""

    generate_vmap_rule = True
    setup_context = staticmethod(lambda context, inputs, output: None)

    @staticmethod
    def forward(values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        return to_tf32(gradient)


def check_emulation(config):
    """Compute differences of the critics' gradients: emulated to real bf16, and real bf16 to float32."""
    family = lab.make_family("point-robot")
    buffer = lab.collect_behaviour(family, family.split(config.n_train_tasks, 1, 0)[0], config)
    gradients = []
    for precision, emulate in (("fp32", False), ("bf16", False), ("fp32", True)):
        agent = lab.SMAC(dataclasses.replace(config, precision=precision), family.spec)
        with Emulated("bf16") if emulate else contextlib.nullcontext():
            agent.update(sample_offline(agent, buffer))
        gradients.append(torch.cat([p.grad.flatten() for p in agent.critics.parameters()]))
    exact, real, emulated = gradients
    return float((emulated - real).norm() / real.norm()), float((real - exact).norm() / exact.norm())


def collect(config, seeds):
    family = lab.make_family("point-robot")
    tasks = [family.split(config.n_train_tasks, config.n_test_tasks, seed)[0] for seed in seeds]
    return (
        family,
        tasks,
        [lab.collect_behaviour(family, own, config, seed) for own, seed in zip(tasks, seeds, strict=True)],
    )


def learn(config, seeds, collected=None):
    """Train both phases; return measurements after each, `(seed,)` by name, and the seconds."""
    family, tasks, data = collected or collect(config, seeds)
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


def compare_each(settings, seeds, short, run=None):
    """Print the default's and each setting's results, from equal data, with 95 % intervals over seeds."""
    if run is None:
        base = dataclasses.replace(lab.SMACConfig.preset("point-robot", "cpu"), **(SHORT if short else {}))
        collected = collect(base, seeds)
    else:
        found = read_snapshots(run)
        base, seeds = dataclasses.replace(found.before.config, online_encoder="frozen"), (found.before.seed,)
        if short:
            base = dataclasses.replace(base, online_iterations=max(1, base.online_iterations // 3))
        collected = (found.family, [found.tasks], [found.buffer])
    for name, changes in [("default", {}), *((f"{k}={v}", {k: v}) for k, v in settings.items())]:
        before, after, _ = learn(dataclasses.replace(base, **changes), seeds, collected)
        returns = [interval(one[kind]) for one in (before, after) for kind in ("offline_context", "online_context")]
        cells = [f"{i.point:.2f} [{i.low:.2f}, {i.high:.2f}]" for i in returns]
        gap = [
            np.mean(np.asarray(one["offline_context"]) - np.asarray(one["online_context"])) for one in (before, after)
        ]
        print(f"| {name} | {' | '.join(cells)} | {gap[0]:.2f} | {gap[1]:.2f} |", flush=True)


def compare(changes, seeds=tuple(range(10)), short=False, emulate=False):
    """Print both settings and their paired difference, each with its 95 % interval over seeds.

    Returns:
        The intervals of the differences by name.
    """
    base = dataclasses.replace(lab.SMACConfig.preset("point-robot", "cpu"), **(SHORT if short else {}))
    precision = changes.get("precision", "")
    if emulate:
        if changes not in ({"precision": "bf16"}, {"precision": "tf32"}):
            raise SystemExit("--emulate stands in for precision=bf16 or precision=tf32 alone")
        if precision == "bf16":
            off = check_emulation(base)
            print("gradients: emulated from real bf16 {:.1e}, real bf16 from float32 {:.1e}".format(*off))
        changes = {}
    found = {}
    for name, config in (("default", base), ("changed", dataclasses.replace(base, **changes))):
        with Emulated(precision) if emulate and name == "changed" else contextlib.nullcontext():
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
    what = changes or f"{precision} products, emulated"
    print(f"\n{len(seeds)} seeds, {'shortened' if short else 'whole'}; {what}; mean [95 % interval]")
    differences = {}
    for name, one in found["default"].items():
        two = found["changed"][name]
        differences[name] = interval(np.asarray(two) - np.asarray(one))
        cells = [f"{i.point:8.3f} [{i.low:.3f}, {i.high:.3f}]" for i in (interval(one), interval(two))]
        d = differences[name]
        print(f"{name:32s} {cells[0]:30s} {cells[1]:30s} difference {d.point:+.3f} [{d.low:+.3f}, {d.high:+.3f}]")
    return differences


if __name__ == "__main__":
    arguments = sys.argv[1:]
    folder = arguments.pop(arguments.index("--run") + 1) if "--run" in arguments else None
    words = [word for word in arguments if not word.startswith("--")]
    fields = dict(word.split("=", 1) for word in words)
    known = {"True": True, "False": False}
    changes = {k: known.get(v, v if not v[:1].isdigit() else ast.literal_eval(v)) for k, v in fields.items()}
    chosen = tuple(range(5 if "--five" in arguments else 10))
    if "--each" in arguments:
        compare_each(changes, chosen, "--short" in arguments, folder)
    else:
        compare(changes, chosen, "--short" in arguments, "--emulate" in arguments)
