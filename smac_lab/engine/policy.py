"""The actor as a policy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smac_lab.config import SMACConfig
from smac_lab.encoder import Gaussian
from smac_lab.engine.seeds import Generators, draw
from smac_lab.tasks.spec import FamilySpec


class Actor(Protocol):
    """An agent that acts; see `SMAC`."""

    spec: FamilySpec
    seeds: Any  # None: a single seed

    @property
    def config(self) -> SMACConfig:
        """The configuration."""

    def actions(self, observations: np.ndarray | Tensor, z: np.ndarray | Tensor, noise: Tensor | None = None) -> Any:
        """Return actions in [-1, 1]."""


def steps_of(z_resampling: str | int, horizon: int) -> int:
    """Return the number of steps for which z is kept."""
    if isinstance(z_resampling, int):
        return z_resampling
    return 1 if z_resampling == "step" else horizon


class EpisodePolicy:
    """Map from observations `(n, obs_dim)` to actions in [-1, 1], `(n, action_dim)`, once per control step.

    z is drawn once (`z_resampling="episode"`), at every step ("step"), or every k steps (an integer k). All random
    numbers are drawn beforehand, so that they do not depend on the number of threads.

    Args:
        agent: later changes of its parameters take effect.
        z: in each simulation, `(n, z_dim)`; with several seeds `(seed, n / seeds, z_dim)`, seed after seed.
        generator: of z and of the actions.
        deterministic: act with the mean action.
    """

    def __init__(self, agent: Actor, z: Gaussian, generator: Generators, deterministic: bool = True):
        self.agent = agent
        self._leading = tuple(z.mean.shape[:-1])  # (n,), or (seed, n / seeds)
        self._steps = itertools.count()
        horizon, action_dim = agent.spec.horizon, agent.spec.action_dim
        self._hold = steps_of(agent.config.z_resampling, horizon)
        draws = math.ceil(horizon / self._hold)
        self._z = z.mean.unsqueeze(-3) + z.std.unsqueeze(-3) * self._draw(draws, z.mean.shape[-1], generator)
        self._noise = None if deterministic else self._draw(horizon, action_dim, generator)

    def _draw(self, steps: int, width: int, generator: Generators) -> Tensor:
        """Draw from N(0, I), `(..., step, n, width)`."""
        *seeds, n = self._leading
        return draw(torch.randn, (*seeds, steps, n, width), generator)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Return the actions of the next step."""
        step = next(self._steps)  # after an episode, the random numbers repeat
        z = self._z.select(-3, step // self._hold % self._z.shape[-3])
        noise = None if self._noise is None else self._noise.select(-3, step % self._noise.shape[-3])
        actions = self.agent.actions(observations.reshape(*self._leading, -1), z, noise)
        return actions.reshape(len(observations), -1)

    def for_simulations(self, sizes: Sequence[int]) -> list[EpisodePolicy]:
        """Split a single seed's policy into consecutive shares of `sizes` simulations."""
        pieces = []
        for start, size in zip(np.cumsum([0, *sizes]).tolist(), sizes, strict=False):
            piece = object.__new__(EpisodePolicy)
            piece.agent, piece._leading, piece._steps = self.agent, (size,), itertools.count()
            piece._hold = self._hold
            piece._z = self._z[:, start : start + size]
            piece._noise = None if self._noise is None else self._noise[:, start : start + size]
            pieces.append(piece)
        return pieces
