"""Faster training steps: compiled, or captured once as a CUDA graph and replayed."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from smac_lab.batch import Batch, Info, PhaseLoss
from smac_lab.config import SMACConfig

WARM_UP = 3  # steps before capture, which compile and autotune


class Tolerance(NamedTuple):
    """Allowed differences between two evaluations of a loss, relative to norms of the plain one.

    A compiler may sum in another order. If terms cancel, the rounding error then exceeds the rounding of the sum. The
    new order can also flip a ReLU whose input is zero up to rounding. A different loss is off by about 1.
    """

    number: float  # of the loss and of each number in the info, relative to itself
    gradient: float  # of one parameter's gradient, relative to itself
    cancelled: float  # added, relative to all numbers, or to the part's gradient


# By the precision of dense products. Differences measured on a CPU with two presets, new and trained agents, one and
# two seeds: numbers 3e-4 and, where terms cancel, 0.1; gradients 0.003 (a flipped ReLU; otherwise 6e-5) and 0.02, or
# 0.15 in one whose terms cancel. TF32 rounds less than bf16.
TOLERANCES = {
    "fp32": Tolerance(number=0.001, gradient=0.05, cancelled=1e-5),
    "tf32": Tolerance(number=0.05, gradient=0.2, cancelled=0.01),
    "bf16": Tolerance(number=0.05, gradient=0.2, cancelled=0.01),
}
_numbers = itertools.count()


def has_tf32(device: torch.device) -> bool:
    """Return whether the device multiplies TF32 numbers, as NVIDIA GPUs since Ampere do."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Compute dense products of float32 numbers in TF32 if `precision` is "tf32".

    TF32 rounds operands to 10 bits of mantissa instead of 23, and sums in float32.
    """
    if precision != "tf32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compiled_and_checked(function: PhaseLoss, parameters: Mapping[str, Tensor], precision: str = "fp32") -> PhaseLoss:
    """Compile a loss, and use the compiled loss only while it agrees with the plain one.

    Loss, info and gradients are compared on the first batch of every shape. If they differ, or the machine cannot
    compile, a warning is issued, and the plain function is called from then on.

    Args:
        function: pure function of a batch, `(loss, info)`; over several seeds the loss is `(seed,)`.
        parameters: trainable ones, under names that begin with the part's: "actor.net.0.weight".
        precision: of dense products, "fp32", "tf32" or "bf16"; see `Tolerance`.

    Returns:
        A function to call in place of `function`.
    """
    return _Compiled(function, parameters, TOLERANCES[precision])


class _Different(Exception):
    """The compiled loss differs from the plain one."""


class _Compiled:
    def __init__(self, function: PhaseLoss, parameters: Mapping[str, Tensor], tolerance: Tolerance):
        self.function, self.parameters, self.tolerance = function, parameters, tolerance
        # After a graph break, Dynamo would compile under a code object that all losses share: one graph or an error.
        self.compiled = torch.compile(_with_own_code(function), dynamic=False, fullgraph=True)
        self.checked: set[tuple[torch.Size, ...]] = set()
        self.works = True

    def __call__(self, batch: Batch) -> tuple[Tensor, Info]:
        if not self.works:
            return self.function(batch)
        shapes = tuple(leaf.shape for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
        if shapes not in self.checked and capturing():
            return self.function(batch)  # no number can be read during capture
        try:
            if shapes not in self.checked:
                self._check(batch)
                self.checked.add(shapes)
            return self.compiled(batch)
        except Exception as error:
            outputs = self.function(batch)  # raises if the plain function fails too
            self.works = False
            warnings.warn(_told(error), stacklevel=2)
            return outputs

    def _check(self, batch: Batch) -> None:
        plain, compiled = (self._evaluated(function, batch) for function in (self.function, self.compiled))
        for group in plain | compiled:
            own = self.tolerance.gradient if group else self.tolerance.number
            _compare(plain.get(group, {}), compiled.get(group, {}), own, self.tolerance.cancelled)

    def _evaluated(self, function: PhaseLoss, batch: Batch) -> dict[str, dict[str, Tensor]]:
        loss, info = function(batch)
        gradients = torch.autograd.grad(loss.sum(), list(self.parameters.values()), allow_unused=True)
        numbers = {"the loss": loss, **{f"info[{name!r}]": number for name, number in info.items()}}
        groups = {"": {name: number.detach() for name, number in numbers.items()}}
        for name, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is not None:
                groups.setdefault(name.partition(".")[0], {})[f"the gradient of {name}"] = gradient
        return groups


def capturing() -> bool:
    """Return whether a CUDA graph is being captured."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # the latter needs a driver


def _with_own_code(function: PhaseLoss) -> PhaseLoss:
    """Give the function a code object that no other function shares.

    Dynamo stores compiled code with the code object. The guards of torch 2.11 do not distinguish losses that one inner
    function closes over, so a phase would train with the loss of the phase before.
    """

    def evaluate(batch: Batch) -> tuple[Tensor, Info]:
        return function(batch)

    code = evaluate.__code__.replace(co_name=f"evaluate_{next(_numbers)}")  # compared by value, names included
    return FunctionType(code, globals(), code.co_name, None, evaluate.__closure__)


def _compare(plain: dict[str, Tensor], compiled: dict[str, Tensor], own: float, cancelled: float) -> None:
    """Raise `_Different` for a value off by more than `own` of its norm plus `cancelled` of the norm of all."""
    if odd := plain.keys() ^ compiled.keys():
        raise _Different(f"only one of the two has {', '.join(sorted(odd))}")
    sizes = {name: _norm(value) for name, value in plain.items()}
    rest = cancelled * math.hypot(*sizes.values())
    for name, size in sizes.items():
        distance = _distance(plain[name], compiled[name])
        if distance > own * size + rest:
            raise _Different(f"{name} is off by {distance:.3g}, where its norm is {size:.3g}")


def _distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference; infinite if shapes, types or places of non-finite entries differ."""
    alike = one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.isfinite(), other.isfinite())
    return _norm(one.float() - other.float()) if alike else math.inf


def _norm(values: Tensor) -> float:
    """Return the norm of the finite entries."""
    return float(values.float().nan_to_num(0.0, 0.0, 0.0).norm())


def _told(error: Exception) -> str:
    if isinstance(error, _Different):
        return f"compile=True is not used, updates run eagerly: compiled, {error}"
    lines = str(error).splitlines() or [type(error).__name__]
    reason = next((line for line in lines if not line.startswith("backend=")), lines[0])
    return f"compile=True has no effect here, updates run eagerly: {reason}"


class Trained(Protocol):
    """The agent that a captured step trains."""

    device: torch.device
    updates: int

    @property
    def config(self) -> SMACConfig:
        """The configuration."""

    def generators(self) -> list[torch.Generator]:
        """Return the generators that a step uses."""

    def follow_learning_rate(self) -> None:
        """Set the optimizer to the present learning rate."""


class Sampled(Protocol):
    """The buffer that a captured step reads."""

    @property
    def version(self) -> int:
        """Number that changes whenever a tensor moves to another address."""


def captured(agent: Trained, buffer: Sampled, step: Callable[[], Info]) -> Callable[[], Info]:
    """Return `step` as a replayed CUDA graph if the agent is on a GPU, else `step` itself.

    A graph replaces hundreds of launches by one.

    Args:
        agent: trained by the step.
        buffer: sampled by the step; appending between steps is allowed.
        step: samples, updates, and returns info on the device. It must not wait for the device or depend on numbers
            that change on the host.

    Returns:
        A function that makes one step. On a GPU, the next call overwrites the returned info.
    """
    return _Captured(agent, buffer, step) if agent.device.type == "cuda" else step


class _Captured:
    def __init__(self, agent: Trained, buffer: Sampled, step: Callable[[], Info]):
        self.agent, self.buffer, self.step = agent, buffer, step
        self.stream = torch.cuda.Stream(agent.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = 0
        self.version = -1

    def __call__(self) -> Info:
        version = self.buffer.version  # updates the tensors that the graph reads
        if self.version != version:  # the graph would read freed memory
            self.graph, self.warm, self.version = None, 0, version
        if self.warm < WARM_UP:
            self.warm += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                info = self.step()
            torch.cuda.current_stream().wait_stream(self.stream)
            return info
        if self.graph is None:
            self.graph = self._capture()
        if self.agent.config.learning_rate_decay < 1.0:  # a replay runs no Python
            self.agent.follow_learning_rate()
        self.graph.replay()
        self.agent.updates += self.updates
        return self.info

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph, before = torch.cuda.CUDAGraph(), self.agent.updates
        for generator in self.agent.generators():
            graph.register_generator_state(generator)  # for new numbers in each replay
        with torch.cuda.graph(graph, stream=self.stream):
            self.info = self.step()
        self.updates = self.agent.updates - before
        self.agent.updates = before  # capture does not execute the step
        return graph
