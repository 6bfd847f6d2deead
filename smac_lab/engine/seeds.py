"""Several seeds at once: parameters get a leading seed axis, over which functions are mapped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

Generators = torch.Generator | Sequence[torch.Generator]  # one, or one per seed


def axis_of(generator: Generators) -> tuple[int, ...]:
    """Return the leading axes of drawn numbers."""
    return () if isinstance(generator, torch.Generator) else (len(generator),)


def draw(function: Callable[..., Tensor], shape: Sequence[int], generator: Generators) -> Tensor:
    """Draw random numbers on the generator's device.

    Args:
        function: `torch.rand` or `torch.randn`.
        shape: of the result; with several generators, their number comes first.
        generator: one, or one per seed, so that each seed draws as it would alone.

    Raises:
        ValueError: the numbers of generators and seeds differ.
    """
    if isinstance(generator, torch.Generator):
        return function(*shape, generator=generator, device=generator.device)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators cannot draw for {shape[0]} seeds: shape is {tuple(shape)}")
    return torch.stack([function(*shape[1:], generator=g, device=g.device) for g in generator])


def over_seeds(modules: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:
    """Evaluate `function(*inputs)` for every seed, with the seed's parameters.

    Args:
        modules: all that `function` calls; parameters have a leading seed axis.
        function: pure function of tensors and of `modules`, written for one seed.
        inputs: tensors with a leading seed axis, or nested tuples of them; others are passed on unchanged.

    Returns:
        The function's outputs with a leading seed axis.
    """
    return mapped_over_seeds(modules, function)(*inputs)


def mapped_over_seeds(modules: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `over_seeds` as a function of the inputs, which `torch.compile` can trace."""
    within = _Within(modules, function)
    state = dict(_leaves(within))

    def one_seed(state: dict[str, Tensor], *inputs: Any) -> Any:
        return functional_call(within, state, inputs, tie_weights=False)

    def all_seeds(*inputs: Any) -> Any:
        dims = tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, inputs)
        return vmap(one_seed, in_dims=(0, *dims), randomness="different")(state, *inputs)

    return all_seeds


class _Within(nn.Module):
    """A function as a module, for `functional_call`."""

    function: Callable[..., Any]

    def __init__(self, modules: nn.Module, function: Callable[..., Any]):
        super().__init__()
        self.inner = modules
        object.__setattr__(self, "function", function)  # not a child, even if it is a module

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def stack_modules(modules: Sequence[nn.Module]) -> nn.Module:
    """Stack the parameters of `modules` along a leading seed axis in one module."""
    states = [_state(module) for module in modules]
    return _with(modules[0], {name: torch.stack([state[name] for state in states]) for name in states[0]})


def select_seed(module: nn.Module, index: int) -> nn.Module:
    """Copy a stacked module with one seed's parameters."""
    return _with(module, {name: value[index].clone() for name, value in _state(module).items()})


def of_seed(result: Any, index: int) -> Any:
    """Select one seed's part of arrays, tensors, or tuples of them, with a leading seed axis."""
    return tree_map(lambda leaf: leaf[index], result)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in _leaves(module)}


def _leaves(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers; a shared one under each of its names."""
    for owner_name, owner in module.named_modules():
        for name, value in [*owner._parameters.items(), *owner._buffers.items()]:
            if value is not None:
                yield f"{owner_name}.{name}".removeprefix("."), value


def _with(module: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    made = copy.deepcopy(module)
    replaced: dict[nn.Parameter, nn.Parameter] = {}  # old to new: shared parameters stay shared
    for name, value in values.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = made.get_submodule(owner_name)
        if leaf in owner._parameters:
            old = owner._parameters[leaf]
            assert old is not None
            owner._parameters[leaf] = replaced.setdefault(old, nn.Parameter(value, old.requires_grad))
        else:
            owner._buffers[leaf] = value
    return made
