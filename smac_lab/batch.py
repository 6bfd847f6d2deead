"""The data of one update, and what losses may read of an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from smac_lab.config import SMACConfig
from smac_lab.tasks.spec import FamilySpec

Info = dict[str, Tensor]  # metrics that a loss returns


class Noise(NamedTuple):
    """Random numbers of one update; standard normal but for `next_z`."""

    z: Tensor  # (task, z_dim)
    action: Tensor  # (task, batch, action_dim)
    next_action: Tensor  # (task, batch, action_dim)
    next_z: Tensor | None = None  # (task, batch, z_dim): a second z, for the next action alone


class Batch(NamedTuple):
    """Transitions and context of some tasks."""

    observations: Tensor  # (task, batch, obs_dim)
    actions: Tensor  # (task, batch, action_dim)
    rewards: Tensor  # (task, batch), unscaled; decoded for self-collected transitions
    next_observations: Tensor  # (task, batch, obs_dim)
    terminations: Tensor  # (task, batch), 0 or 1
    context: Tensor  # (task, n, context_dim)
    noise: Noise | None = None  # None: `agent.update` draws it


class Networks(Protocol):
    """The attributes of an agent that a loss may read."""

    actor: nn.Module
    critics: nn.Module
    target_critics: nn.Module
    encoder: nn.Module
    reward_decoder: nn.Module
    spec: FamilySpec

    @property
    def config(self) -> SMACConfig:
        """Every number."""


PhaseLoss = Callable[[Any], tuple[Tensor, Info]]  # of a batch
