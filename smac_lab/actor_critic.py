"""Actor and critics, both told the task through z, with the losses that train them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import Module, functional

from smac_lab.nets import MLP, EnsembleMLP, Standardise

if TYPE_CHECKING:
    from smac_lab.agent import SMAC, Batch

LOG_STD_RANGE = (-20.0, 2.0)
MAX_ACTION = 0.999999  # data actions are clipped here before atanh, where no other limit is given
Info = dict[str, Tensor]


class Actor(Module):
    """pi(a|s, z): a Gaussian squashed by tanh.

    Args:
        obs_dim, action_dim, z_dim: sizes.
        hidden: hidden layers.
        scaling: applied to the observations first; None: they are read as they are.
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
        """Mean and log standard deviation before the tanh, `(..., action_dim)` each; log_std within [-20, 2]."""
        mean, log_std = self.net(torch.cat([self.scaling(observations), z], dim=-1)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)


class Critics(Module):
    """Q(s, a, z), twice over, in one batched product a layer.

    Args:
        obs_dim, action_dim, z_dim: sizes.
        hidden: hidden layers of each critic.
        num_critics: how many.
        scaling: as the actor's.
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
        """Values `(critic, ...)` for inputs `(..., dim)`."""
        return self.net(torch.cat([self.scaling(observations), actions, z], dim=-1)).squeeze(-1)


def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """a = tanh(mean + std * noise), with noise ~ N(0, I) drawn by the caller, `(..., action_dim)`."""
    return torch.tanh(mean + log_std.exp() * noise)


def log_prob(mean: Tensor, log_std: Tensor, actions: Tensor, max_action: float = MAX_ACTION) -> Tensor:
    """log pi(a) of a tanh-squashed Gaussian, `(...)`, in nats.

    Actions of the data are known after the tanh alone: u = atanh(a), with a clipped to +-`max_action`, since
    atanh(1) has no end. At 0.999999 a saturated action is u = 7.25, at 0.95 it is 1.83.
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
    """How much each data action is imitated, same shape as `advantages`.

    "softmax" (the authors' code): N softmax(A / lambda) over the whole batch of N, so weights average one.
    "exp" (the paper, eq. 4): exp(A / lambda).
    """
    scaled = advantages / awac_lambda
    if kind == "exp":
        return scaled.exp()
    return scaled.flatten().softmax(0).reshape(scaled.shape) * scaled.numel()


def detached_values(critics: Module, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
    """Q(s, a, z) with the critics' parameters detached, `(critic, task, batch)`.

    For actor losses that judge actions: the gradient reaches the actions, and the critics learn nothing.
    """
    parameters = {name: parameter.detach() for name, parameter in critics.named_parameters()}
    return functional_call(critics, parameters, (observations, actions, z))


class Evaluations:
    """The networks' outputs on one batch, each computed once, when a loss first asks for it.

    Critic, AWAC and Q loss read the same policy and the same values. A phase's loss gives them one object of this
    class in `batch.evaluations`; a loss that is called by itself makes its own (`evaluations_of`), and a loss of
    your own may use it or call the networks.

    Args:
        agent, batch, z: what a loss is given; z is detached.
    """

    def __init__(self, agent: SMAC, batch: Batch, z: Tensor):
        assert batch.noise is not None
        self.agent, self.observations, self.actions = agent, batch.observations, batch.actions
        self.noise, self.z = batch.noise.action, z
        self._known: dict[tuple[str, bool], Any] = {}

    def belongs_to(self, agent: SMAC, batch: Batch, z: Tensor) -> bool:
        """Whether these are of the very same agent, transitions, noise and z."""
        assert batch.noise is not None
        return (
            self.agent is agent
            and self.observations is batch.observations
            and self.actions is batch.actions
            and self.noise is batch.noise.action
            and self.z is z
        )

    def policy(self) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of pi(.|s, z), `(task, batch, action_dim)` each."""
        return self._once("policy", lambda: self.agent.actor(self.observations, self.z))

    def policy_actions(self) -> Tensor:
        """a_pi ~ pi(.|s, z), reparameterised, `(task, batch, action_dim)`."""
        return self._once("policy_actions", lambda: sample_action(*self.policy(), self.noise))

    def data_values(self) -> Tensor:
        """Q(s, a, z) of the data's actions, `(critic, task, batch)`."""
        return self._once("data_values", lambda: self.agent.critics(self.observations, self.actions, self.z))

    def policy_values(self) -> Tensor:
        """Q(s, a_pi, z), `(critic, task, batch)`; a gradient reaches the actions, and not the critics."""
        inputs = (self.observations, self.policy_actions(), self.z)
        if not torch.is_grad_enabled():
            return self._once("policy_values", lambda: self.agent.critics(*inputs))
        return self._once("policy_values", lambda: detached_values(self.agent.critics, *inputs))

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        # What was computed with a graph serves a reader who needs none, and not the other way round.
        for graph in (True,) if torch.is_grad_enabled() else (True, False):
            if (name, graph) in self._known:
                return self._known[name, graph]
        value = self._known[name, torch.is_grad_enabled()] = compute()
        return value


def evaluations_of(agent: SMAC, batch: Batch, z: Tensor) -> Evaluations:
    """What is already known of this batch and z, or a new object to fill."""
    known = batch.evaluations
    return known if known is not None and known.belongs_to(agent, batch, z) else Evaluations(agent, batch, z.detach())


def critic_loss(agent: SMAC, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
    """Squared Bellman error of every critic, averaged over transitions and summed over critics.

    (r_scale r + gamma (1 - terminated) min_k Q_target_k(s', a', z) - Q_k(s, a, z))^2 with a' ~ pi(.|s', z).
    z is detached: the critics do not train the encoder (SMAC, section 4).

    Args:
        z: latent task variable of each transition, `(task, batch, z_dim)`.
    """
    assert batch.noise is not None
    at = evaluations_of(agent, batch, z)
    with torch.no_grad():
        next_z = at.z if batch.noise.next_z is None else batch.noise.next_z  # the authors' code draws a second one
        mean, log_std = agent.actor(batch.next_observations, next_z)
        next_actions = sample_action(mean, log_std, batch.noise.next_action)
        next_values = agent.target_critics(batch.next_observations, next_actions, at.z).amin(0)  # (task, batch)
        following = agent.config.discount * (1.0 - batch.terminations) * next_values
        targets = agent.config.reward_scale * batch.rewards + following
    values = at.data_values()  # (critic, task, batch)
    loss = (values - targets).square().mean((-2, -1)).sum()
    return loss, {"critic_loss": loss, "q_mean": values.mean(), "target_mean": targets.mean()}


def awac_loss(agent: SMAC, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
    """Advantage-weighted imitation of the data: -E[w(A) log pi(a|s, z)] (Nair et al., AWAC, 2020; SMAC, eq. 4).

    A = min_k Q_k(s, a, z) - min_k Q_k(s, a_pi, z) with one a_pi ~ pi(.|s, z). Only the actor is trained.

    Args:
        z: `(task, batch, z_dim)`.
    """
    at = evaluations_of(agent, batch, z)
    mean, log_std = at.policy()
    with torch.no_grad():
        advantages = at.data_values().amin(0) - at.policy_values().amin(0)  # (task, batch)
        weights = awac_weights(advantages, agent.config.awac_lambda, agent.config.awac_weight)
    log_probs = log_prob(mean, log_std, batch.actions, agent.config.max_action)
    loss = -(weights * log_probs).mean()
    return loss, {
        "awac_loss": loss,
        "advantage_mean": advantages.mean(),
        "weight_max": weights.max(),
        "log_prob_mean": log_probs.mean(),
    }


def q_loss(agent: SMAC, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
    """The actor's own actions judged by the critics: -E[min_k Q_k(s, pi(s, z), z)], reparameterised.

    Critic parameters enter detached (`detached_values`), so only the actor is trained.

    Args:
        z: `(task, batch, z_dim)`.
    """
    loss = -evaluations_of(agent, batch, z).policy_values().amin(0).mean()
    return loss, {"q_loss": loss}
