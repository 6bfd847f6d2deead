"""The reward decoder r(s, a, z), which labels the transitions that the policy collects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import Module

from smac_lab.batch import Batch, Info, Networks
from smac_lab.encoder import Gaussian, kl_to_prior, split_context
from smac_lab.nets import MLP, Standardise


class RewardDecoder(Module):
    """Unscaled reward of a transition in the task that z represents.

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
        hidden: Sequence[int] = (64, 64),
        scaling: Standardise | None = None,
    ):
        super().__init__()
        self.scaling = scaling or nn.Identity()
        self.net = MLP(obs_dim + action_dim + z_dim, hidden, 1)

    def forward(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        """Return rewards `(...)` for inputs `(..., dim)`."""
        return self.net(torch.cat([self.scaling(observations), actions, z], dim=-1)).squeeze(-1)


def reward_loss(agent: Networks, batch: Batch, z: Tensor, posterior: Gaussian) -> tuple[Tensor, Info]:
    """E[(r - r_hat(s, a, z))^2] + kl_weight KL(q(z|h) || N(0, I)): trains encoder and decoder (SMAC, eq. 5).

    KL is summed over latent dimensions and averaged over tasks (PEARL's code sums: `kl_reduction="sum"`).

    Transitions (s, a, r) are the batch's, as in the authors' code. `explain_context` (ours) adds the mean over the
    transitions of the context h. With exploration, the decoder then learns from rewards where the batch's transitions
    never go.

    Args:
        z: drawn from the posterior, one per task, `(task, batch, z_dim)`.
        posterior: q(z|h) of each task, `(task, z_dim)`.
    """
    error = (agent.reward_decoder(batch.observations, batch.actions, z) - batch.rewards).square().mean()
    kl = kl_to_prior(posterior)  # (task,)
    penalty = agent.config.kl_weight * (kl.sum() if agent.config.kl_reduction == "sum" else kl.mean())
    loss, info = error + penalty, {"reward_error": error, "kl": kl.mean()}
    if agent.config.explain_context:
        info["context_error"] = context_error(agent, batch.context, z[:, :1])
        loss = loss + info["context_error"]
    return loss, info


def context_error(agent: Networks, context: Tensor, z: Tensor) -> Tensor:
    """E[(r - r_hat(s, a, z))^2] over the context's transitions, a scalar.

    Args:
        context: `(task, n, context_dim)`.
        z: one per task, `(task, 1, z_dim)`.
    """
    observations, actions, rewards = split_context(context, agent.spec.obs_dim, agent.spec.action_dim)
    decoded = agent.reward_decoder(observations, actions, z.expand(-1, context.shape[1], -1))
    return (decoded - rewards).square().mean()


@torch.inference_mode()
def relabel(
    encoder: Callable[[Tensor], Gaussian],
    reward_decoder: Module,
    context: Tensor,
    observations: Tensor,
    actions: Tensor,
    noise: Tensor,
) -> Tensor:
    """Label reward-free transitions: r_hat(s, a, z_label), z_label ~ q(.|offline context) (SMAC, section 4.2).

    Args:
        context: offline, `(task, n, context_dim)`.
        observations, actions: transitions to label, `(task, batch, dim)`.
        noise: N(0, I), `(task, z_dim)`: one z_label per task.

    Returns:
        Decoded rewards, `(task, batch)`.
    """
    z = Gaussian(*encoder(context)).sample(noise)
    z = z.unsqueeze(-2).expand(*observations.shape[:-1], z.shape[-1])
    return reward_decoder(observations, actions, z)
