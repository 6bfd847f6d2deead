"""What one update sees, and what its losses may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from smac_lab.config import SMACConfig
from smac_lab.tasks.spec import FamilySpec

Info = dict[str, Tensor]  # what a loss tells beside its value


class Noise(NamedTuple):
    """Standard normal numbers that an update consumes; `agent.draw_noise` makes them."""

    z: Tensor  # (task, z_dim)
    action: Tensor  # (task, batch, action_dim)
    next_action: Tensor  # (task, batch, action_dim)
    next_z: Tensor | None = None  # (task, batch, z_dim): a second draw of z, for the next action alone


class Batch(NamedTuple):
    """Transitions and context of some tasks."""

    observations: Tensor  # (task, batch, obs_dim)
    actions: Tensor  # (task, batch, action_dim)
    rewards: Tensor  # (task, batch), unscaled: true for offline, decoded for self-collected transitions
    next_observations: Tensor  # (task, batch, obs_dim)
    terminations: Tensor  # (task, batch), 0 or 1
    context: Tensor  # (task, n, context_dim)
    noise: Noise | None = None  # drawn by `agent.update` where it is not given


class Networks(Protocol):
    """What a loss may ask of an agent; it changes nothing."""

    actor: nn.Module
    critics: nn.Module
    target_critics: nn.Module
    encoder: nn.Module
    reward_decoder: nn.Module
    spec: FamilySpec

    @property
    def config(self) -> SMACConfig:
        """Every number."""


PhaseLoss = Callable[[Any], tuple[Tensor, Info]]  # of a `Batch`, or of what another method learns from
