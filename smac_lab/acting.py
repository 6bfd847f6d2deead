"""Methods that adapt a latent variable z, and act on it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from smac_lab.actor_critic import sample_action
from smac_lab.encoder import Gaussian
from smac_lab.engine.method import Method
from smac_lab.engine.policy import EpisodePolicy
from smac_lab.engine.seeds import Generators, draw


class LatentMethod(Method):
    """A method whose encoder infers q(z|h) from context h, and whose actor is given z: SMAC, PEARL and cloning."""

    encoder: nn.Module
    actor: nn.Module

    @torch.inference_mode()
    def infer_posterior(self, context: Tensor) -> Gaussian:
        """Infer q(z|h) of each task: `(task, n, context_dim)` to mean and std, `(task, z_dim)` each.

        Raises:
            ValueError: the context has another width or non-finite numbers.
        """
        return Gaussian(*self._apply(self.encoder, self.checked(context)))

    def prior(self, tasks: int) -> Gaussian:
        """Return p(z) = N(0, I) for each task."""
        zeros = torch.zeros(*self.seed_axis, tasks, self.config.z_dim, device=self.device)
        return Gaussian(zeros, torch.ones_like(zeros))

    def unadapted(self, simulations: int) -> Gaussian:
        """Return p(z) for each simulation."""
        return self.prior(simulations)

    def adapt(self, context: Tensor) -> Gaussian:
        """Infer q(z|h) from each simulation's context."""
        return self.infer_posterior(context)

    def posterior(self, adapted: Gaussian) -> Gaussian:
        """Return `adapted`, which is the posterior."""
        return adapted

    def act(
        self,
        observations: np.ndarray | Tensor,
        z: np.ndarray | Tensor,
        deterministic: bool = True,
        generator: Generators | None = None,
    ) -> np.ndarray:
        """Return actions in [-1, 1], given `(..., obs_dim)` and `(..., z_dim)`."""
        shape = (*observations.shape[:-1], self.spec.action_dim)
        chosen = self.generator if generator is None else generator
        return self.actions(observations, z, None if deterministic else draw(torch.randn, shape, chosen))

    @torch.inference_mode()
    def actions(
        self, observations: np.ndarray | Tensor, z: np.ndarray | Tensor, noise: Tensor | None = None
    ) -> np.ndarray:
        """Act as `act`, with noise ~ N(0, I), `(..., action_dim)`, from the caller; without it, the mean action."""
        mean, log_std = self._apply(self.actor, self.tensor(observations), self.tensor(z))
        return (torch.tanh(mean) if noise is None else sample_action(mean, log_std, noise)).cpu().numpy()

    def policy(self, z: Gaussian, generator: Generators, deterministic: bool = True) -> EpisodePolicy:
        """Return a policy for one episode, `(n, obs_dim)` to `(n, action_dim)`."""
        return EpisodePolicy(self, z, generator, deterministic)
