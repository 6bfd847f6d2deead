"""What every method of meta-RL here can do: learn from static data, adapt to context, act."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smac_lab.encoder import Gaussian
from smac_lab.engine.learner import Learner, Part
from smac_lab.engine.seeds import Generators
from smac_lab.tasks.spec import FamilySpec


class Method(Learner):
    """A method of meta-RL, as `evaluate`, `measure_shift`, checkpoints and the command line use it.

    SMAC adapts z, MACAW adapts weights, BOReL adapts a belief. Whatever it is, `unadapted` is what is known before
    any context, `adapt` turns context into what is known after it, and `policy` acts on either.
    """

    reads_episodes: ClassVar[bool] = False  # context must be successive whole episodes, not independent transitions
    adapts_while_exploring: ClassVar[bool] = False  # explores with what earlier episodes taught, not with the prior
    numbers: Any = None  # the method's own, where the experiment's config does not have them all

    @abstractmethod
    def unadapted(self, simulations: int) -> Any:
        """Return what is known of the task before any context, for so many simulations (of each seed)."""

    @abstractmethod
    def adapt(self, context: Tensor) -> Any:
        """Return what is known of each task after its context, `(simulation, n, context_dim)`."""

    @abstractmethod
    def policy(
        self, adapted: Any, generator: Generators, deterministic: bool = True
    ) -> Callable[[NDArray[np.float64]], NDArray[np.floating]]:
        """Return a policy for one episode: `(simulation, obs_dim)` to `(simulation, action_dim)`.

        Args:
            adapted: from `unadapted` or `adapt`.
            generator: of everything that is drawn.
            deterministic: act with the mean action.
        """

    def posterior(self, adapted: Any) -> Gaussian | None:
        """Return the belief over a latent task variable, `(simulation, z_dim)`; None where a method has none."""
        return None

    @property
    def losses(self) -> tuple[Any, ...]:
        """Agents of one class and equal numbers minimise the same."""
        return (self.numbers,)

    def remade(self, parts: Mapping[str, Part], seed: Any) -> Self:
        """See `Learner.remade`."""
        make: Any = type(self)
        return make(self.config, self.spec, seed=seed, numbers=self.numbers, **parts)

    def tensor(self, values: Any) -> Tensor:
        """Return numbers as the networks take them: default dtype, on the agent's device."""
        return torch.as_tensor(values, dtype=torch.get_default_dtype(), device=self.device)

    def checked(self, context: Tensor) -> Tensor:
        """Return the context as a tensor that the networks can read.

        Raises:
            ValueError: it has another width, or holds numbers that are not finite.
        """
        context = self.tensor(context)
        if context.shape[-1] != self.spec.context_dim:
            raise ValueError(
                f"context of {self.spec.name} must be (..., n, {self.spec.context_dim}), got {tuple(context.shape)}"
            )
        if not bool(context.isfinite().all()):
            raise ValueError("context holds numbers that are not finite, from which nothing can be inferred")
        return context

    def check_spec(self, spec: FamilySpec, use: str) -> None:
        """Raise ValueError if a family or buffer is not the one that this agent was built for, variant included.

        Args:
            spec: the family's or the buffer's.
            use: what was asked of the agent, as in "act in"; the message has it.
        """
        if spec != self.spec:
            raise ValueError(f"an agent for {self.spec} cannot {use} {spec}")
