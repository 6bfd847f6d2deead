"""SMAC: the agent that joins the parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from smac_lab.acting import LatentMethod
from smac_lab.actor_critic import Seen, awac_loss, critic_loss, look, q_loss
from smac_lab.batch import Batch, Info, Noise
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.encoder import Gaussian
from smac_lab.engine.learner import Objective, Part
from smac_lab.engine.seeds import over_seeds
from smac_lab.nets import polyak_update
from smac_lab.parts import ALL_PARTS, check_parts, default_part, fit_scaling
from smac_lab.reward_model import relabel, reward_loss
from smac_lab.tasks.spec import FamilySpec

ActorLoss = Callable[["SMAC", Batch, Tensor], tuple[Tensor, Info]]
RewardLoss = Callable[["SMAC", Batch, Tensor, Gaussian], tuple[Tensor, Info]]


class SMAC(LatentMethod):
    """Semi-supervised meta actor-critic (Pong et al., ICML 2022).

    Args:
        config: numbers of the experiment.
        spec: sizes of the task family.
        seed: of initial parameters and every later draw. Several seeds, such as `range(16)`, make as many agents that
            learn at once: parameters, batches, contexts, metrics and results then have a leading seed axis, and each
            seed draws as it would alone. Losses and parts are still written for one seed.
        encoder, actor, critics, reward_decoder: custom parts, with the shapes in the README: a module, of which every
            seed gets a copy, or a function without arguments that makes one, called once per seed under that seed.
        actor_loss: replaces AWAC in both phases, `(agent, batch, z) -> (loss, info)`.
        critic_loss: likewise for the Bellman error.
        reward_loss: likewise for encoder and decoder, `(agent, batch, z, posterior) -> (loss, info)`.

    Raises:
        ValueError: a part returns a wrong shape; no seed is given, or one twice.

    Attributes:
        config: read by losses at each update. Another may be assigned if the fields in `built_from` stay equal.

    Example:
        >>> import smac_lab as lab
        >>> family = lab.make_family("point-robot")
        >>> agent = lab.SMAC(lab.SMACConfig.preset("point-robot", "smoke"), family.spec, seed=0)
        >>> context = agent.tensor([[[0.0] * family.spec.context_dim] * 7])  # (task, n, context_dim)
        >>> agent.infer_posterior(context).mean.shape
        torch.Size([1, 5])
    """

    trainable = ALL_PARTS
    built_from = (
        *("z_dim", "encoder_hidden", "decoder_hidden", "actor_hidden", "critic_hidden"),
        *("initial_weights", "observation_scaling", "device"),
    )

    # -- the two phases ----------------------------------------------------------------------------------
    def offline_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Reward error + KL (encoder, decoder) + Bellman error (critics) + AWAC (actor); SMAC, algorithm 1."""
        posterior, z = self.infer(batch)
        reward, reward_info = self.reward_loss(self, batch, z, posterior)
        z = z.detach()  # actor and critics do not train the encoder
        seen = self._shared(batch, z)
        critic, critic_info = self.critic_loss(self, batch, z, *seen)
        actor, actor_info = self.actor_loss(self, batch, z, *seen)
        return reward + critic + actor, {**reward_info, **critic_info, **actor_info}

    def self_supervised_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Bellman error (critics) + AWAC and -Q(s, pi(s, z), z) (actor); SMAC, algorithm 2.

        The encoder infers z, but does not learn.
        """
        _, z = self.infer(batch)
        return self._improve(batch, z)

    def self_labelled_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Add `reward_loss` to `self_supervised_loss`: q(z|h) must also explain the rewards through the decoder.

        The `self-labelled` arm (ours) trains the encoder with this loss, but not the decoder. Rewards are decoded on
        self-collected transitions and true on offline ones: no true reward of new interaction is used. The `oracle` arm
        trains encoder and decoder, from true rewards. In the authors' code the loss is an option that trains both;
        their scripts leave it off.
        """
        posterior, z = self.infer(batch)
        reward, reward_info = self.reward_loss(self, batch, z, posterior)
        improve, info = self._improve(batch, z)
        return reward + improve, {**reward_info, **info}

    def _improve(self, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
        z = z.detach()
        seen = self._shared(batch, z, through_actions=True)
        critic, critic_info = self.critic_loss(self, batch, z, *seen)
        q, q_info = q_loss(self, batch, z, *seen)
        awac, awac_info = self.actor_loss(self, batch, z, *seen)
        loss = critic + self.config.online_awac_weight * awac + self.config.online_q_weight * q
        return loss, {**critic_info, **awac_info, **q_info}

    def inference_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Reward error + KL alone (encoder, decoder), on offline data."""
        posterior, z = self.infer(batch)
        return self.reward_loss(self, batch, z, posterior)

    def infer(self, batch: Batch) -> tuple[Gaussian, Tensor]:
        """Infer the posterior, `(task, z_dim)`, and draw one z per task, `(task, batch, z_dim)`."""
        assert batch.noise is not None
        posterior = Gaussian(*self.encoder(batch.context))
        z = posterior.sample(batch.noise.z).unsqueeze(1)
        return posterior, z.expand(-1, batch.observations.shape[1], -1)

    def _shared(self, batch: Batch, z: Tensor, through_actions: bool = False) -> tuple[Seen, ...]:
        """Return `look`'s output, or nothing if the actor or critic loss is custom."""
        own = self.actor_loss is awac_loss and self.critic_loss is critic_loss
        return (look(self, batch, z, through_actions),) if own else ()

    # -- construction ----------------------------------------------------------------------------------
    def __init__(
        self,
        config: SMACConfig,
        spec: FamilySpec,
        *,
        seed: int | Sequence[int] = 0,
        encoder: Part | None = None,
        actor: Part | None = None,
        critics: Part | None = None,
        reward_decoder: Part | None = None,
        actor_loss: ActorLoss = awac_loss,
        critic_loss: ActorLoss = critic_loss,
        reward_loss: RewardLoss = reward_loss,
    ):
        super().__init__(config, spec, seed)
        given = {"encoder": encoder, "actor": actor, "critics": critics, "reward_decoder": reward_decoder}
        parts = self.make(given, lambda name: default_part(name, config, spec))
        self.encoder, self.actor, self.critics, self.reward_decoder = parts
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.labeller: nn.ModuleDict | None = None  # from the self-supervised phase on
        self.actor_loss, self.critic_loss, self.reward_loss = actor_loss, critic_loss, reward_loss
        check_parts(self.parts, self._apply, config, spec, self.seed_axis, self.device)

    # -- numbers and parts ---------------------------------------------------------------------------
    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by name."""
        return {
            "actor": self.actor,
            "critics": self.critics,
            "target_critics": self.target_critics,
            "encoder": self.encoder,
            "reward_decoder": self.reward_decoder,
        }

    @property
    def objectives(self) -> dict[str, Objective]:
        """Objectives by name."""
        actor_critic = ("actor", "critics")
        made = (
            Objective("offline", self.offline_loss, ALL_PARTS),
            Objective("self-supervised", self.self_supervised_loss, actor_critic),
            Objective("self-labelled", self.self_labelled_loss, (*actor_critic, "encoder")),
            Objective("oracle", self.self_labelled_loss, ALL_PARTS),
            Objective("inference", self.inference_loss, ("encoder", "reward_decoder")),
        )
        return {objective.name: objective for objective in made}

    @property
    def losses(self) -> tuple[ActorLoss, ActorLoss, RewardLoss]:
        """Actor, critic and reward loss."""
        return self.actor_loss, self.critic_loss, self.reward_loss

    def remade(self, parts: Mapping[str, Part], seed: Any) -> Self:
        """See `Learner.remade`."""
        options: dict[str, Any] = {**parts, "actor_loss": self.actor_loss, "critic_loss": self.critic_loss}
        return type(self)(self.config, self.spec, seed=seed, reward_loss=self.reward_loss, **options)

    # -- learning ----------------------------------------------------------------------------------------
    def after_step(self, trained: Sequence[str]) -> None:
        """Update the slow copy of the critics if they were trained."""
        if "critics" in trained:
            polyak_update(self.target_critics, self.critics, self.config.tau)

    def draw_noise(self, batch: Batch) -> Noise:
        """Draw the noise of one update."""
        tasks, size = batch.observations.shape[-3:-1]
        z = self.normal(tasks, self.config.z_dim)
        action, next_action = self.normal(2, tasks, size, self.spec.action_dim).unbind(-4)
        next_z = None
        if self.config.next_z == "resampled":
            with torch.no_grad():
                posterior = Gaussian(*self._apply(self.encoder, batch.context))
                drawn = posterior.sample(self.normal(tasks, self.config.z_dim))
            next_z = drawn.unsqueeze(-2).expand(*drawn.shape[:-1], size, -1)
        return Noise(z, action, next_action, next_z)

    def fit_observation_scaling(self, buffer: TransitionBuffer) -> None:
        """See `parts.fit_scaling`."""
        fit_scaling(self.parts.values(), buffer)

    # -- labels ------------------------------------------------------------------------------------------
    def freeze_labeller(self) -> None:
        """Keep a frozen copy of encoder and decoder, which labels from now on."""
        parts = {"encoder": self.encoder, "reward_decoder": self.reward_decoder}
        self.labeller = nn.ModuleDict({k: copy.deepcopy(v) for k, v in parts.items()}).requires_grad_(False)

    def label(self, context: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Decode rewards, `(task, batch)`; see `reward_model.relabel`."""
        own = {"encoder": self.encoder, "reward_decoder": self.reward_decoder}
        labeller = nn.ModuleDict(own) if self.labeller is None else self.labeller
        noise = self.normal(context.shape[-3], self.config.z_dim)
        inputs = (context, observations, actions, noise)
        if self.seeds is None:
            return relabel(labeller["encoder"], labeller["reward_decoder"], *inputs)
        with torch.inference_mode():
            return over_seeds(labeller, partial(relabel, labeller["encoder"], labeller["reward_decoder"]), *inputs)

    # -- saving ------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return the state that the next update depends on."""
        state, labeller = super().state_dict(), None if self.labeller is None else self.labeller.state_dict()
        return {"parts": state["parts"], "labeller": labeller, **state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Learner.load_state_dict`."""
        super().load_state_dict(state)
        self.labeller = None
        if state["labeller"] is not None:
            self.freeze_labeller()
            assert self.labeller is not None
            self.labeller.load_state_dict(state["labeller"])
