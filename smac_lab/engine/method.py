"""Interface of all methods of meta-RL."""

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
    """A method of meta-RL.

    SMAC adapts z, MACAW weights, BOReL a belief. `unadapted` returns this quantity before any context, `adapt` given a
    context, and `policy` acts on either.
    """

    reads_episodes: ClassVar[bool] = False  # context must be successive whole episodes
    adapts_while_exploring: ClassVar[bool] = False  # exploration uses earlier episodes, not the prior
    numbers: Any = None  # hyperparameters that the experiment's config lacks

    @abstractmethod
    def unadapted(self, simulations: int) -> Any:
        """Return the knowledge before any context, for so many simulations per seed."""

    @abstractmethod
    def adapt(self, context: Tensor) -> Any:
        """Return the knowledge of each task given its context, `(simulation, n, context_dim)`."""

    @abstractmethod
    def policy(
        self, adapted: Any, generator: Generators, deterministic: bool = True
    ) -> Callable[[NDArray[np.float64]], NDArray[np.floating]]:
        """Return a policy for one episode: `(simulation, obs_dim)` to `(simulation, action_dim)`.

        Args:
            adapted: from `unadapted` or `adapt`.
            generator: of all random numbers.
            deterministic: act with the mean action.
        """

    def posterior(self, adapted: Any) -> Gaussian | None:
        """Return the belief over z, `(simulation, z_dim)`; None if the method has none."""
        return None

    @property
    def losses(self) -> tuple[Any, ...]:
        """The method's `numbers`, which determine the losses."""
        return (self.numbers,)

    def remade(self, parts: Mapping[str, Part], seed: Any) -> Self:
        """See `Learner.remade`."""
        make: Any = type(self)
        return make(self.config, self.spec, seed=seed, numbers=self.numbers, **parts)

    def tensor(self, values: Any) -> Tensor:
        """Convert numbers to a tensor of default dtype on the agent's device."""
        return torch.as_tensor(values, dtype=torch.get_default_dtype(), device=self.device)

    def checked(self, context: Tensor) -> Tensor:
        """Convert context to a tensor, and check it.

        Raises:
            ValueError: the context has another width or non-finite numbers.
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
        """Raise ValueError if this agent is of another family or variant.

        Args:
            spec: of a family or buffer.
            use: such as "act in", for the message.
        """
        if spec != self.spec:
            raise ValueError(f"an agent for {self.spec} cannot {use} {spec}")
