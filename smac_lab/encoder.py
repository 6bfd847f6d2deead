"""The context encoder q(z|h)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Module, functional

from smac_lab.nets import MLP, Standardise

MIN_VARIANCE = 1e-7


class Gaussian(NamedTuple):
    """A diagonal Gaussian; both fields `(..., z_dim)`."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise; the caller draws noise ~ N(0, I)."""
        return self.mean + self.std * noise


class ContextEncoder(Module):
    """Product of one Gaussian factor per transition: q(z|h) ~ prod_n N(z; mu(h_n), sigma^2(h_n)).

    The order of the transitions does not matter (Rakelly et al., PEARL, ICML 2019, eq. 2).

    Args:
        context_dim: size of a context transition (s, a, r).
        z_dim: size of z.
        hidden: hidden layers.
        scaling: of the transitions, applied first; default: none.
    """

    def __init__(
        self,
        context_dim: int,
        z_dim: int,
        hidden: Sequence[int] = (200, 200, 200),
        scaling: Standardise | None = None,
    ):
        super().__init__()
        self.scaling = scaling or nn.Identity()
        self.net = MLP(context_dim, hidden, 2 * z_dim)

    def forward(self, context: Tensor) -> Gaussian:
        """Infer each task's posterior, `(task, n, context_dim)` to `(task, z_dim)`."""
        means, raw = self.net(self.scaling(context)).chunk(2, dim=-1)  # (task, n, z_dim) each
        return product_of_gaussians(means, functional.softplus(raw))


def product_of_gaussians(means: Tensor, variances: Tensor) -> Gaussian:
    """Multiply `n` Gaussian densities and renormalise.

    1 / sigma^2 = sum_n 1 / sigma_n^2 and mu = sigma^2 sum_n mu_n / sigma_n^2; variances are clamped at 1e-7.

    Args:
        means, variances: factors, `(..., n, z_dim)`.

    Returns:
        The product, `(..., z_dim)`.
    """
    precisions = variances.clamp(min=MIN_VARIANCE).reciprocal()
    variance = precisions.sum(dim=-2).reciprocal()
    return Gaussian(variance * (means * precisions).sum(dim=-2), variance.sqrt())


def kl_to_prior(q: Gaussian) -> Tensor:
    """KL(q || N(0, I)) summed over latent dimensions, `(...)`, in nats."""
    variance = q.std.square()
    return 0.5 * (variance + q.mean.square() - 1.0 - variance.log()).sum(-1)


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) summed over latent dimensions, `(...)`, in nats."""
    ratio = (q.std / p.std).square()
    return 0.5 * (ratio + ((q.mean - p.mean) / p.std).square() - 1.0 - ratio.log()).sum(-1)


def make_context(observations: Tensor, actions: Tensor, rewards: Tensor, next_observations: Tensor | None) -> Tensor:
    """Build context transitions (s, a, r), or (s, a, r, s') if tasks differ in dynamics, `(..., context_dim)`."""
    parts = [observations, actions, rewards.unsqueeze(-1)]
    return torch.cat(parts if next_observations is None else [*parts, next_observations], dim=-1)


def split_context(context: Tensor, obs_dim: int, action_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split context into observations, actions, `(..., dim)` each, and rewards, `(...)`."""
    actions_end = obs_dim + action_dim
    return context[..., :obs_dim], context[..., obs_dim:actions_end], context[..., actions_end]
