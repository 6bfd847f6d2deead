"""The networks of an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smac_lab.actor_critic import Actor, Critics
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.encoder import ContextEncoder
from smac_lab.nets import Standardise, start_as_authors
from smac_lab.reward_model import RewardDecoder
from smac_lab.tasks.spec import FamilySpec

ALL_PARTS = ("actor", "critics", "encoder", "reward_decoder")
SMALLEST_DEVIATION = 1e-6  # an observed number that deviates less is constant, up to rounding


def default_part(name: str, config: SMACConfig, spec: FamilySpec) -> nn.Module:
    """Build the default encoder, actor, critics or reward decoder, from PyTorch's global stream."""
    obs, act, z = spec.obs_dim, spec.action_dim, config.z_dim
    starts = (0, obs + act + 1) if spec.includes_next else (0,)  # of the observations in a context transition
    scaled = config.observation_scaling
    scaling = Standardise(obs) if scaled else None
    part: Any
    if name == "encoder":
        of_context = Standardise(spec.context_dim, starts) if scaled else None
        part = ContextEncoder(spec.context_dim, z, config.encoder_hidden, of_context)
    elif name == "actor":
        part = Actor(obs, act, z, config.actor_hidden, scaling)
    elif name == "critics":
        part = Critics(obs, act, z, config.critic_hidden, scaling=scaling)
    else:
        part = RewardDecoder(obs, act, z, config.decoder_hidden, scaling)
    if config.initial_weights == "authors":
        start_as_authors(part.net, 1e-3 if name == "actor" else 3e-3)
    return part


@torch.no_grad()
def check_parts(
    parts: Mapping[str, nn.Module],
    apply: Callable[..., Any],
    config: SMACConfig,
    spec: FamilySpec,
    seed_axis: tuple[int, ...],
    device: torch.device,
) -> None:
    """Run every part once on zeros, to find wrong shapes.

    Args:
        parts: by name.
        apply: `(part, *inputs)` to the part's outputs.
        config, spec, seed_axis, device: the agent's.

    Raises:
        ValueError: a part returns outputs of the wrong shape.
    """
    tasks, batch, n = 2, 3, 4
    seeds = seed_axis
    zeros = lambda *shape: torch.zeros(*seeds, *shape, device=device)  # noqa: E731
    obs, act = zeros(tasks, batch, spec.obs_dim), zeros(tasks, batch, spec.action_dim)
    z = zeros(tasks, batch, config.z_dim)

    def check(part: str, outputs: Iterable[Tensor], expected: dict[str, tuple[int, ...]]) -> None:
        expect_shapes(part, [output[0] for output in outputs] if seeds else outputs, expected)

    posterior = apply(parts["encoder"], zeros(tasks, n, spec.context_dim))
    check("encoder", posterior, {"mean": (tasks, config.z_dim), "std": (tasks, config.z_dim)})
    owed = (tasks, batch, spec.action_dim)
    check("actor", apply(parts["actor"], obs, z), {"mean": owed, "log_std": owed})
    values = apply(parts["critics"], obs, act, z)
    members = values.shape[len(seeds)] if values.ndim > len(seeds) else 1
    check("critics", [values], {"values": (members, tasks, batch)})
    check("reward_decoder", [apply(parts["reward_decoder"], obs, act, z)], {"rewards": (tasks, batch)})


def expect_shapes(part: str, outputs: Iterable[Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    """Check the shapes of a part's outputs.

    Raises:
        ValueError: the shapes differ.
    """
    got = [tuple(output.shape) for output in outputs]
    if got != list(expected.values()):
        owed = ", ".join(f"{name} {shape}" for name, shape in expected.items())
        raise ValueError(f"{part} returned shapes {got} for 2 tasks and 3 transitions each; it must return {owed}")


@torch.no_grad()
def fit_scaling(parts: Iterable[nn.Module], buffer: TransitionBuffer) -> None:
    """Standardise the parts' observations by mean and deviation of the buffer's static transitions.

    Only the first call has an effect, and only with `observation_scaling`. A constant number is centred, but not
    scaled.
    """
    found = [m for part in parts for m in part.modules() if isinstance(m, Standardise)]
    if not found or bool(found[0].fitted.all()):
        return
    static = [one.observations[one.source == 0] for one in (buffer.split() if buffer.seeds else [buffer])]
    std = torch.stack([observations.std(0) for observations in static])
    std = torch.where(std > SMALLEST_DEVIATION, std, torch.ones_like(std))
    mean = torch.stack([observations.mean(0) for observations in static])
    for scaling in found:
        scaling.fit(*((mean, std) if buffer.seeds else (mean[0], std[0])))
