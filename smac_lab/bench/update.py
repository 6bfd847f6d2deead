"""Speed of updates, relative to dense products of as many floating-point operations."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import smac_lab
from smac_lab.agent import SMAC
from smac_lab.batch import Batch, Info
from smac_lab.bench.race import Array, Call, Effort, Row, Skipped, against, at_least, at_most, native_bf16, race, repeat
from smac_lab.config import Precision, SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.engine.acceleration import captured, float32_products, has_tf32
from smac_lab.runs.behaviour import collect_behaviour
from smac_lab.sampling import sample_offline, sample_self_supervised
from smac_lab.tasks import make_family

FAMILY = "cheetah-vel"
WIDTH = 300  # of the products, and of the hidden layers of the paper's actor and critics
REFERENCE = Path(smac_lab.__file__).parents[1] / "tests" / "reference_smac.py"
OFFLINE_MINUTES = 15.0  # target for the paper preset's offline phase


class Setting(NamedTuple):
    """Precision and compilation of an update."""

    precision: Precision  # of dense products
    compiled: bool

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.precision} compiled" if self.compiled else self.precision

    def missing(self, device: str) -> str | None:
        """Return why the setting is not measured on this machine, or None."""
        if self.precision == "bf16" and device == "cpu" and not native_bf16():
            return "no native bf16 here"
        if self.precision == "tf32" and not has_tf32(torch.device(device)):
            return "no TF32 here"
        return None


PLAIN = Setting("fp32", compiled=False)
ON_CPU = (PLAIN, Setting("fp32", compiled=True), Setting("bf16", compiled=True))
TF32 = (Setting("tf32", compiled=False), Setting("tf32", compiled=True))
SETTINGS = {"cpu": ON_CPU, "cuda": (*ON_CPU[:2], *TF32, ON_CPU[2])}
SHARES = {"fp32": 0.70, "bf16": 0.40}  # target share of the ceiling, at 4 x 256


class Case(NamedTuple):
    """An update of the paper's networks."""

    loss: str  # the agent's method, without "_loss"
    meta_batch: int
    batch_size: int

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.loss.replace('_', '-')} update, {self.meta_batch} x {self.batch_size}"

    def config(self, device: str = "cpu") -> SMACConfig:
        """Return the paper's config with this case's batch."""
        return SMACConfig(
            n_train_tasks=max(8, self.meta_batch),
            meta_batch=self.meta_batch,
            batch_size=self.batch_size,
            online_meta_batch=self.meta_batch,
            online_batch_size=self.batch_size,
            device=device,
        )

    def sample(self, agent: SMAC, buffer: TransitionBuffer) -> Batch:
        """Sample a meta-batch of the phase."""
        return (sample_offline if self.loss == "offline" else sample_self_supervised)(agent, buffer)

    def step(self, agent: SMAC, buffer: TransitionBuffer) -> Info:
        """Make one update as in training, with sampling."""
        return agent.update(self.sample(agent, buffer), loss=getattr(agent, f"{self.loss}_loss"))

    def stepper(self, agent: SMAC, buffer: TransitionBuffer) -> Callable[[], Info]:
        """Return `step` as in training: on a GPU, as a CUDA graph."""
        return captured(agent, buffer, partial(self.step, agent, buffer))


CPU_CASES = (
    Case("offline", 4, 128),
    Case("offline", 4, 256),
    Case("self_supervised", 4, 256),
    Case("self_labelled", 4, 256),
)
CUDA_CASES = (Case("offline", 4, 256),)


def make_agent(config: SMACConfig, setting: Setting = PLAIN, seed: Any = 0) -> SMAC:
    """Make an agent that computes in `setting`."""
    config = dataclasses.replace(config, precision=setting.precision, compile=setting.compiled)
    return SMAC(config, make_family(FAMILY).spec, seed=seed)


def make_buffer(config: SMACConfig) -> TransitionBuffer:
    """Collect behaviour data on the config's device."""
    family = make_family(FAMILY)
    return collect_behaviour(family, family.split(config.n_train_tasks, 1, 0)[0], config, 0)


def operations(update: Callable[[], object]) -> int:
    """Count the floating-point operations of `update`'s dense products (a product and a sum are two)."""
    with FlopCounterMode(display=False) as counter:
        update()
    return int(counter.get_total_flops())


def eager_operations(case: Case) -> int:
    """Count the operations of an update in the setting `PLAIN`."""
    config = case.config()
    agent, buffer = make_agent(config), make_buffer(config)
    return operations(lambda: case.step(agent, buffer))


def ceiling(
    flops: float, rows: int, precision: str, device: str = "cpu", members: int = 1, width: int = WIDTH
) -> Callable[[], None]:
    """Return a function that makes `flops` of products `(rows, width) x (width, width)`, `members` at once."""
    stack = (members,) if members > 1 else ()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.randn(*stack, rows, width, device=device, dtype=dtype)
    right = torch.randn(*stack, width, width, device=device, dtype=dtype)
    out, product = torch.empty_like(left), torch.bmm if stack else torch.mm
    times = max(1, round(flops / (2 * members * rows * width * width)))

    def run() -> None:
        with float32_products(precision):
            for _ in range(times):
                product(left, right, out=out)

    return run


def update(effort: Effort, cases: tuple[Case, ...] = CPU_CASES, device: str = "cpu") -> Iterator[Row]:
    """Measure each case in each setting that this machine supports."""
    for case in cases:
        yield from _one_case(case, effort, device)


def _one_case(case: Case, effort: Effort, device: str) -> Iterator[Row]:
    """Race an update in each setting, the ceilings, and the textbook version."""
    count, rows, config = effort.updates, case.meta_batch * case.batch_size, case.config(device)
    flops, buffer = eager_operations(case), make_buffer(config)
    members = 1 if device == "cpu" else effort.seeds  # a single product leaves a GPU idle
    calls: dict[str, Call] = {}
    settings: list[Setting] = []
    for setting in SETTINGS[device]:
        step = case.stepper(make_agent(config, setting), buffer)
        if why := setting.missing(device) or _compiles_not(step):
            yield Skipped(f"{case.name}, {setting.name}", why)
            continue
        settings.append(setting)
        calls[setting.name] = Call(repeat(count, step), count)
        limit = f"ceiling {setting.precision}"
        calls.setdefault(limit, Call(ceiling(count * flops, rows, setting.precision, device, members), count))
    if textbook := _textbook(case, config, buffer):
        calls["textbook"] = Call(repeat(count, textbook), count)
    found = race(case.name, list(calls.values()), effort.rounds, device)
    rates: dict[str, Array] = dict(zip(calls, found, strict=True))

    # The bar applies to a precision's fastest setting.
    fastest = {
        precision: max((s for s in settings if s.precision == precision), key=lambda s: float(np.median(rates[s.name])))
        for precision in {s.precision for s in settings}
    }
    products = "torch.mm" if members == 1 else f"torch.bmm of {members}"
    for setting in settings:
        row = against(
            f"{case.name}, {setting.name}", f"{products}, {flops / 1e9:.2f} GFLOP", "updates/s", rates[setting.name],
            rates[f"ceiling {setting.precision}"], device=device,
        )  # fmt: skip
        if setting is fastest[setting.precision] and case.batch_size == 256 and device == "cpu":
            row = row._replace(bar=at_least(row.ratio, SHARES[setting.precision]))
        yield row
    best = fastest["fp32"]
    if textbook:
        name, its = f"{case.name}, {best.name}", f"textbook, {operations(textbook) / 1e9:.2f} GFLOP"
        yield against(name, its, "updates/s", rates[best.name], rates["textbook"], device=device)
    else:
        yield Skipped(f"{case.name} against the textbook", "tests/reference_smac.py is only in the repository")
    if case == Case("offline", 4, 128) and device == "cpu":
        minutes = SMACConfig().offline_steps / rates[best.name] / 60
        name = f"offline phase of the paper preset, {best.name}"
        row = against(name, "what is wanted", "min", minutes, np.full_like(minutes, OFFLINE_MINUTES))
        yield row._replace(bar=at_most(row.ours, OFFLINE_MINUTES, "min"))


def seeds(effort: Effort, device: str = "cpu") -> Iterator[Row]:
    """Race an update of many seeds at once against as many of one seed, and against batched products.

    The networks have the paper's size and, on a CPU, also that of the point robot's preset, where one seed does not
    keep the CPU busy.
    """
    n = effort.seeds
    effort = effort._replace(updates=max(1, effort.updates // 5), rounds=min(5, effort.rounds))
    small = SMACConfig.preset("point-robot", "cpu")
    sizes = {field: getattr(small, field) for field in ("encoder_hidden", "actor_hidden", "critic_hidden")}
    yield from _seeds(Case("offline", 4, 256), {}, n, effort, device)
    if device == "cpu":
        yield from _seeds(Case("offline", small.meta_batch, small.batch_size), sizes, n, effort, device)


def _seeds(case: Case, sizes: dict[str, Any], n: int, effort: Effort, device: str) -> Iterator[Row]:
    config, singles = dataclasses.replace(case.config(device), **sizes), n * effort.updates
    buffer = make_buffer(config)
    joined, width = TransitionBuffer.join([buffer] * n), config.actor_hidden[0]
    counted = make_agent(dataclasses.replace(config, device="cpu"))
    flops = operations(partial(case.step, counted, make_buffer(counted.config)))
    rows = case.meta_batch * case.batch_size
    for setting in (PLAIN,) if device == "cpu" else SETTINGS[device]:
        name = f"{case.name}, {width} wide, {n} seeds at once, {setting.name}"
        step = case.stepper(make_agent(config, setting, range(n)), joined)
        if why := setting.missing(device) or _compiles_not(step):
            yield Skipped(name, why)
            continue
        calls = [
            Call(repeat(effort.updates, step), singles),
            Call(repeat(singles, case.stepper(make_agent(config, setting), buffer)), singles),
            Call(ceiling(singles * flops, rows, setting.precision, device, members=n, width=width), singles),
        ]
        rates = race(name, calls, effort.rounds, device)
        limits = ("one seed after the other", f"torch.bmm of {n}, {flops / 1e9:.3g} GFLOP")
        for limit_name, limit in zip(limits, rates[1:], strict=True):
            yield against(name, limit_name, "updates/s", rates[0], limit, device=device)


def _compiles_not(step: Callable[[], Info]) -> str | None:
    """Make a first step; return why it was not compiled as requested, or None."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    has_no_effect = any("compile=True has no effect" in str(warning.message) for warning in caught)
    return "no C++ compiler here" if has_no_effect else None


def cuda(effort: Effort) -> Iterator[Row]:
    """Measure `update` and `seeds` on a GPU, if there is one."""
    if not torch.cuda.is_available():
        yield Skipped("updates on cuda", "no GPU here")
        return
    yield from update(effort, CUDA_CASES, "cuda")
    yield from seeds(effort, "cuda")


def _textbook(case: Case, config: SMACConfig, buffer: TransitionBuffer) -> Callable[[], object] | None:
    """Return an update of the textbook version, with sampling; None without the tests' files."""
    if not REFERENCE.exists():
        return None
    name = "smac_lab_textbook"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, REFERENCE)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    agent = make_agent(config)
    step = getattr(sys.modules[name].copy_of(agent), f"{case.loss}_update")

    def run() -> object:
        batch = case.sample(agent, buffer)
        return step(batch._replace(noise=agent.draw_noise(batch)))

    return run
