"""The very same step, faster: compiled, or captured once as a CUDA graph and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from smac_lab.actor_critic import Info
    from smac_lab.agent import SMAC
    from smac_lab.data.buffer import TransitionBuffer

WARM_UP = 3  # steps that run as they are first: optimizer state, compilation and autotuning are then in place


def compiled_or_eager(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile(function)`; where the machine cannot compile, the function itself, after one warning."""
    compiled = torch.compile(function, dynamic=False)
    works: bool | None = None

    def call(*inputs: Any) -> Any:
        nonlocal works
        if works is None:
            try:
                outputs = compiled(*inputs)
            except Exception as error:
                outputs = function(*inputs)  # an error of the function's own is raised here
                works = False
                lines = str(error).splitlines() or [type(error).__name__]
                reason = next((line for line in lines if not line.startswith("backend=")), lines[0])
                warnings.warn(f"compile=True has no effect here, updates run eagerly: {reason}", stacklevel=2)
            else:
                works = True
            return outputs
        return compiled(*inputs) if works else function(*inputs)

    return call


def captured(agent: SMAC, buffer: TransitionBuffer, step: Callable[[], Info]) -> Callable[[], Info]:
    """The same step, replayed from a CUDA graph where the agent lives on a GPU; elsewhere `step` itself.

    On a GPU an update is hundreds of small launches; a graph makes them one.

    Args:
        agent: what the step trains.
        buffer: what it samples. Appending to it between steps is allowed.
        step: samples, updates, and returns info on the device. It may not wait for the device, nor depend on
            numbers that change on the host.

    Returns:
        A function that makes one step a call. What it returns is overwritten by the next call.
    """
    return _Captured(agent, buffer, step) if agent.device.type == "cuda" else step


class _Captured:
    def __init__(self, agent: SMAC, buffer: TransitionBuffer, step: Callable[[], Info]):
        self.agent, self.buffer, self.step = agent, buffer, step
        self.stream = torch.cuda.Stream(agent.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = 0
        self.version = -1

    def __call__(self) -> Info:
        version = self.buffer.version  # asking brings what was appended to the addresses that the graph reads
        if self.version != version:  # or to others: then what was captured reads freed memory
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
        self.graph.replay()
        self.agent.updates += self.updates
        return self.info

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph, before = torch.cuda.CUDAGraph(), self.agent.updates
        for generator in self.agent.generators():
            graph.register_generator_state(generator)  # a replay then draws new numbers, as the step would have
        with torch.cuda.graph(graph, stream=self.stream):
            self.info = self.step()
        self.updates = self.agent.updates - before
        self.agent.updates = before  # capturing runs nothing
        return graph
