"""Actor and critics, conditioned on z, and their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import Module, functional

from smac_lab.batch import Batch, Info, Networks
from smac_lab.nets import MLP, EnsembleMLP, Standardise

LOG_STD_RANGE = (-20.0, 2.0)
MAX_ACTION = 0.999999  # data actions are clipped to +- this before atanh by default


class Actor(Module):
    """pi(a|s, z): a Gaussian squashed by tanh.

    Args:
        obs_dim, action_dim, z_dim: sizes.
        hidden: hidden layers.
        scaling: of the observations, applied first; default: none.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        z_dim: int,
        hidden: Sequence[int] = (300, 300, 300),
        scaling: Standardise | None = None,
    ):
        super().__init__()
        self.scaling = scaling or nn.Identity()
        self.net = MLP(obs_dim + z_dim, hidden, 2 * action_dim, small_output=True)

    def forward(self, observations: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation before the tanh, `(..., action_dim)` each; log_std within [-20, 2]."""
        mean, log_std = self.net(torch.cat([self.scaling(observations), z], dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


class Critics(Module):
    """Q(s, a, z) of several critics, in one batched product per layer.

    Args:
        obs_dim, action_dim, z_dim: sizes.
        hidden: of each critic.
        num_critics: how many.
        scaling: as for `Actor`.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        z_dim: int,
        hidden: Sequence[int] = (300, 300, 300),
        num_critics: int = 2,
        scaling: Standardise | None = None,
    ):
        super().__init__()
        self.scaling = scaling or nn.Identity()
        self.net = EnsembleMLP(num_critics, obs_dim + action_dim + z_dim, hidden, 1)

    def forward(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        """Return values `(critic, ...)` for inputs `(..., dim)`."""
        return self.net(torch.cat([self.scaling(observations), actions, z], dim=-1)).squeeze(-1)


def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """a = tanh(mean + std * noise), `(..., action_dim)`; the caller draws noise ~ N(0, I)."""
    return torch.tanh(mean + log_std.exp() * noise)


def act(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a ~ pi, reparameterised, `(..., action_dim)`, and compute log pi(a), `(...)`, for soft actor-critic."""
    u = mean + log_std.exp() * noise
    return torch.tanh(u), log_prob_before_tanh(mean, log_std, u)


def log_prob(mean: Tensor, log_std: Tensor, actions: Tensor, max_action: float = MAX_ACTION) -> Tensor:
    """log pi(a) of a tanh-squashed Gaussian, `(...)`, in nats.

    u = atanh(a), with a clipped to +-`max_action`, since atanh(1) is infinite. A saturated action gives u = 7.25 at
    `max_action` 0.999999, and u = 1.83 at 0.95.
    """
    return log_prob_before_tanh(mean, log_std, actions.clamp(-max_action, max_action).atanh())


def log_prob_before_tanh(mean: Tensor, log_std: Tensor, u: Tensor) -> Tensor:
    """log pi(a) of a = tanh(u), `(...)`, in nats.

    log N(u; mean, std) - sum log(1 - tanh(u)^2), the last term in the stable form 2 (log 2 - u - softplus(-2u))
    (Haarnoja et al., SAC, 2018, appendix C).
    """
    gaussian = -0.5 * ((u - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    log_jacobian = 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
    return (gaussian - log_jacobian).sum(-1)


def awac_weights(advantages: Tensor, awac_lambda: float, kind: str) -> Tensor:
    """Compute the weight of each data action in imitation, shaped as `advantages`.

    "softmax" (the authors' code): N softmax(A / lambda) over all N transitions, so weights average one.
    "exp" (the paper, eq. 4): exp(A / lambda).
    """
    scaled = advantages / awac_lambda
    if kind == "exp":
        return scaled.exp()
    return scaled.flatten().softmax(0).reshape(scaled.shape) * scaled.numel()


def detached_values(critics: Module, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
    """Q(s, a, z) with the critics' parameters detached, `(critic, task, batch)`.

    The gradient reaches the actions, but not the critics.
    """
    parameters = {name: parameter.detach() for name, parameter in critics.named_parameters()}
    return functional_call(critics, parameters, (observations, actions, z))


# -- equations -------------------------------------------------------------------------------------------
def bellman_target(
    rewards: Tensor, terminations: Tensor, next_values: Tensor, discount: float, reward_scale: float = 1.0
) -> Tensor:
    """r_scale r + gamma (1 - terminated) Q_target(s', a', z), `(task, batch)`.

    Args:
        rewards, terminations: `(task, batch)`.
        next_values: minimum over the target critics, `(task, batch)`.
        discount: gamma.
        reward_scale: r_scale.

    Example:
        >>> import torch
        >>> rewards, terminations, next_values = torch.tensor([[[1.0, 1.0]], [[0.0, 1.0]], [[2.0, 2.0]]])
        >>> bellman_target(rewards, terminations, next_values, discount=0.5)
        tensor([[2., 1.]])
    """
    following = discount * (1.0 - terminations) * next_values
    return reward_scale * rewards + following


def bellman_error(values: Tensor, targets: Tensor) -> Tensor:
    """(target - Q_k)^2, averaged over transitions and summed over critics, a scalar.

    Args:
        values: `(critic, task, batch)`.
        targets: `(task, batch)`.
    """
    return (values - targets).square().mean((-2, -1)).sum()


def weighted_imitation(log_probs: Tensor, weights: Tensor) -> Tensor:
    """-E[w log pi(a|s, z)], a scalar; with `awac_weights` the loss of AWAC (Nair et al., 2020; SMAC, eq. 4)."""
    return -(weights * log_probs).mean()


# -- the losses of a phase -------------------------------------------------------------------------------
class Seen(NamedTuple):
    """Outputs of the networks on one batch, for the losses of a phase."""

    mean: Tensor  # of pi(.|s, z) before the tanh, (task, batch, action_dim)
    log_std: Tensor
    data_values: Tensor  # Q(s, a, z) of the data's actions, (critic, task, batch)
    policy_values: Tensor  # Q(s, a_pi, z) with one a_pi ~ pi(.|s, z), (critic, task, batch)


def look(agent: Networks, batch: Batch, z: Tensor, through_actions: bool = False) -> Seen:
    """Evaluate actor and critics once, for all losses of a phase.

    Args:
        agent, batch: as passed to a loss.
        z: of each transition, `(task, batch, z_dim)`; detached.
        through_actions: whether the gradient of `policy_values` reaches the actions. It never reaches the critics.
    """
    assert batch.noise is not None
    z = z.detach()
    data_values = agent.critics(batch.observations, batch.actions, z)
    mean, log_std = agent.actor(batch.observations, z)
    if through_actions:
        actions = sample_action(mean, log_std, batch.noise.action)
        return Seen(mean, log_std, data_values, detached_values(agent.critics, batch.observations, actions, z))
    with torch.no_grad():
        actions = sample_action(mean, log_std, batch.noise.action)
        return Seen(mean, log_std, data_values, agent.critics(batch.observations, actions, z))


def critic_loss(agent: Networks, batch: Batch, z: Tensor, seen: Seen | None = None) -> tuple[Tensor, Info]:
    """Compute `bellman_error` against `bellman_target`, with a' ~ pi(.|s', z).

    z is detached: the critics do not train the encoder (SMAC, section 4).

    Args:
        agent, batch: agent and data.
        z: of each transition, `(task, batch, z_dim)`.
        seen: output of `look`; default: computed here.
    """
    assert batch.noise is not None
    z, c = z.detach(), agent.config
    with torch.no_grad():
        next_z = z if batch.noise.next_z is None else batch.noise.next_z  # the authors' code draws a second z
        mean, log_std = agent.actor(batch.next_observations, next_z)
        next_actions = sample_action(mean, log_std, batch.noise.next_action)
        next_values = agent.target_critics(batch.next_observations, next_actions, z).amin(0)  # (task, batch)
        targets = bellman_target(batch.rewards, batch.terminations, next_values, c.discount, c.reward_scale)
    values = agent.critics(batch.observations, batch.actions, z) if seen is None else seen.data_values
    loss = bellman_error(values, targets)
    return loss, {"critic_loss": loss, "q_mean": values.mean(), "target_mean": targets.mean()}


def awac_loss(agent: Networks, batch: Batch, z: Tensor, seen: Seen | None = None) -> tuple[Tensor, Info]:
    """Compute `weighted_imitation` of the data with `awac_weights`; only the actor is trained.

    A = min_k Q_k(s, a, z) - min_k Q_k(s, a_pi, z) with one a_pi ~ pi(.|s, z).

    Args:
        agent, batch, z, seen: as in `critic_loss`.
    """
    seen, c = look(agent, batch, z) if seen is None else seen, agent.config
    with torch.no_grad():
        advantages = seen.data_values.amin(0) - seen.policy_values.amin(0)  # (task, batch)
        weights = awac_weights(advantages, c.awac_lambda, c.awac_weight)
    log_probs = log_prob(seen.mean, seen.log_std, batch.actions, c.max_action)
    loss = weighted_imitation(log_probs, weights)
    return loss, {
        "awac_loss": loss,
        "advantage_mean": advantages.mean(),
        "weight_max": weights.max(),
        "log_prob_mean": log_probs.mean(),
    }


def q_loss(agent: Networks, batch: Batch, z: Tensor, seen: Seen | None = None) -> tuple[Tensor, Info]:
    """Compute -E[min_k Q_k(s, pi(s, z), z)], reparameterised; only the actor is trained.

    Args:
        agent, batch, z: as in `critic_loss`.
        seen: output of `look` with `through_actions`.
    """
    seen = look(agent, batch, z, through_actions=True) if seen is None else seen
    loss = -seen.policy_values.amin(0).mean()
    return loss, {"q_loss": loss}
