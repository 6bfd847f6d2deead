"""SMAC: the parts, wired. What each phase minimises, one update, and how to act."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smac_lab.actor_critic import Actor, Critics, Evaluations, Info, awac_loss, critic_loss, q_loss, sample_action
from smac_lab.config import SMACConfig
from smac_lab.encoder import ContextEncoder, Gaussian
from smac_lab.nets import polyak_update
from smac_lab.reward_model import RewardDecoder, relabel, reward_loss
from smac_lab.tasks.family import FamilySpec


class Noise(NamedTuple):
    """Standard normal numbers that an update consumes; `agent.draw_noise` makes them."""

    z: Tensor  # (task, z_dim)
    action: Tensor  # (task, batch, action_dim)
    next_action: Tensor  # (task, batch, action_dim)
    next_z: Tensor | None = None  # (task, batch, z_dim): a second draw of z, for the next action alone


class Batch(NamedTuple):
    """What one update sees."""

    observations: Tensor  # (task, batch, obs_dim)
    actions: Tensor  # (task, batch, action_dim)
    rewards: Tensor  # (task, batch), unscaled: true for offline, decoded for self-collected transitions
    next_observations: Tensor  # (task, batch, obs_dim)
    terminations: Tensor  # (task, batch), 0 or 1
    context: Tensor  # (task, n, context_dim)
    noise: Noise | None = None
    evaluations: Evaluations | None = None  # what the losses of a phase have in common; made within the phase's loss


ActorLoss = Callable[["SMAC", Batch, Tensor], tuple[Tensor, Info]]
RewardLoss = Callable[["SMAC", Batch, Tensor, Gaussian], tuple[Tensor, Info]]
PhaseLoss = Callable[[Batch], tuple[Tensor, Info]]

# What each loss trains. A part outside the list is outside that loss's optimizer: a zero gradient would still
# move it through Adam's moments.
TRAINED = {
    "offline_loss": ("actor", "critics", "encoder", "reward_decoder"),
    "self_supervised_loss": ("actor", "critics"),
    "self_labelled_loss": ("actor", "critics", "encoder"),
    "inference_loss": ("encoder", "reward_decoder"),
}


class SMAC:
    """Semi-supervised meta actor-critic (Pong et al., ICML 2022).

    Args:
        config: numbers of the experiment.
        spec: sizes of the task family.
        seed: makes initial parameters and every later draw.
        encoder, actor, critics, reward_decoder: parts of your own, by the shapes in the README.
        actor_loss: replaces AWAC in both phases, `(agent, batch, z) -> (loss, info)`.
        critic_loss: likewise for the Bellman error.
        reward_loss: likewise for encoder and decoder, `(agent, batch, z, posterior) -> (loss, info)`.

    Raises:
        ValueError: a part returns outputs of the wrong shape.
    """

    def __init__(
        self,
        config: SMACConfig,
        spec: FamilySpec,
        *,
        seed: int = 0,
        encoder: nn.Module | None = None,
        actor: nn.Module | None = None,
        critics: nn.Module | None = None,
        reward_decoder: nn.Module | None = None,
        actor_loss: ActorLoss = awac_loss,
        critic_loss: ActorLoss = critic_loss,
        reward_loss: RewardLoss = reward_loss,
    ):
        self.config, self.spec, self.seed = config, spec, seed
        self.device = torch.device(_resolve_device(config.device))
        obs, act, z = spec.obs_dim, spec.action_dim, config.z_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = encoder or ContextEncoder(spec.context_dim, z, config.encoder_hidden)
            actor = actor or Actor(obs, act, z, config.actor_hidden)
            critics = critics or Critics(obs, act, z, config.critic_hidden)
            reward_decoder = reward_decoder or RewardDecoder(obs, act, z, config.decoder_hidden)
        self.encoder, self.actor, self.critics, self.reward_decoder = (
            part.to(self.device) for part in (encoder, actor, critics, reward_decoder)
        )
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.labeller: nn.ModuleDict | None = None  # frozen encoder and decoder, from the self-supervised phase on
        self.actor_loss, self.critic_loss, self.reward_loss = actor_loss, critic_loss, reward_loss

        # What the losses read
        self.discount, self.reward_scale = config.discount, config.reward_scale
        self.awac_lambda, self.awac_weight = config.awac_lambda, config.awac_weight
        self.kl_weight, self.kl_reduction = config.kl_weight, config.kl_reduction

        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self.updates = 0  # updates so far, all phases
        self._check_parts()

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

    # -- the two phases ----------------------------------------------------------------------------------
    def offline_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Reward error + KL (encoder, decoder) + Bellman error (critics) + AWAC (actor); SMAC, algorithm 1."""
        posterior, z = self._infer(batch)
        reward, reward_info = self.reward_loss(self, batch, z, posterior)
        batch, z = self._evaluate(batch, z)
        critic, critic_info = self.critic_loss(self, batch, z)
        actor, actor_info = self.actor_loss(self, batch, z)
        return reward + critic + actor, {**reward_info, **critic_info, **actor_info}

    def self_supervised_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Bellman error (critics) + AWAC and -Q(s, pi(s, z), z) (actor); SMAC, algorithm 2.

        The encoder reads, but does not learn.
        """
        _, z = self._infer(batch)
        return self._improve(batch, z)

    def self_labelled_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """As `self_supervised_loss`, and the encoder learns from decoded rewards (an extension of ours).

        It is trained so that the *frozen* decoder, given q(z|h), reproduces the rewards in the batch: decoded
        ones on self-collected, true ones on offline transitions. No true reward of new interaction is used.
        """
        posterior, z = self._infer(batch)
        reward, reward_info = self.reward_loss(self, batch, z, posterior)
        improve, info = self._improve(batch, z)
        return reward + improve, {**reward_info, **info}

    def _improve(self, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
        """What actor and critics minimise on self-collected and offline data together."""
        batch, z = self._evaluate(batch, z)
        critic, critic_info = self.critic_loss(self, batch, z)
        q, q_info = q_loss(self, batch, z)  # before AWAC, which needs the same values without their graph
        awac, awac_info = self.actor_loss(self, batch, z)
        loss = critic + self.config.online_awac_weight * awac + self.config.online_q_weight * q
        return loss, {**critic_info, **awac_info, **q_info}

    def inference_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Reward error + KL alone: what keeps encoder and decoder learning from offline data."""
        posterior, z = self._infer(batch)
        return self.reward_loss(self, batch, z, posterior)

    def _infer(self, batch: Batch) -> tuple[Gaussian, Tensor]:
        """Posterior `(task, z_dim)` and one z a task, spread over its transitions, `(task, batch, z_dim)`."""
        assert batch.noise is not None
        posterior = Gaussian(*self.encoder(batch.context))
        z = posterior.sample(batch.noise.z).unsqueeze(1)
        return posterior, z.expand(-1, batch.observations.shape[1], -1)

    def _evaluate(self, batch: Batch, z: Tensor) -> tuple[Batch, Tensor]:
        """The batch with room for what several losses read, and z as actor and critics see it: without a gradient."""
        z = z.detach()
        return batch._replace(evaluations=Evaluations(self, batch, z)), z

    # -- learning ----------------------------------------------------------------------------------------
    def update(self, batch: Batch, loss: PhaseLoss | None = None) -> Info:
        """One gradient step on `loss` (default: `offline_loss`), one Polyak step.

        Returns:
            The loss's info, on the device, detached.
        """
        loss = loss or self.offline_loss
        name = getattr(getattr(loss, "func", loss), "__name__", "")  # a partial's function is in .func
        name = name if name in TRAINED else "offline_loss"  # a loss of one's own trains every part
        optimizer = self._optimizer(name)

        # Noise is data: drawn here, so that the loss itself is a deterministic function.
        if batch.noise is None:
            batch = batch._replace(noise=self.draw_noise(batch))

        # Gradients of the trained parts only.
        value, info = loss(batch)
        parameters = optimizer.param_groups[0]["params"]
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(value, parameters, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()

        # Slow copy of the critics, where they moved.
        if "critics" in TRAINED[name]:
            polyak_update(self.target_critics, self.critics, self.config.tau)
        self.updates += 1
        return {name: number.detach() for name, number in info.items()}

    def draw_noise(self, batch: Batch) -> Noise:
        """Noise for one update, from the agent's own generator."""
        tasks, size = batch.observations.shape[:2]
        z = self.normal(tasks, self.config.z_dim)
        action, next_action = self.normal(2, tasks, size, self.spec.action_dim)
        next_z = None
        if self.config.next_z == "resampled":
            with torch.no_grad():
                posterior = Gaussian(*self.encoder(batch.context))
                draw = posterior.sample(self.normal(tasks, self.config.z_dim))
            next_z = draw.unsqueeze(1).expand(-1, size, -1)
        return Noise(z, action, next_action, next_z)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers from the agent's generator."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def _optimizer(self, name: str) -> torch.optim.Adam:
        if name not in self.optimizers:
            parameters = [p for part in TRAINED[name] for p in self.parts[part].parameters() if p.requires_grad]
            self.optimizers[name] = torch.optim.Adam(parameters, lr=self.config.learning_rate, fused=True)
        return self.optimizers[name]

    # -- labels ------------------------------------------------------------------------------------------
    def freeze_labeller(self) -> None:
        """Keep a frozen copy of encoder and decoder, which labels whatever the policy collects from now on."""
        parts = {"encoder": self.encoder, "reward_decoder": self.reward_decoder}
        self.labeller = nn.ModuleDict({k: copy.deepcopy(v) for k, v in parts.items()}).requires_grad_(False)

    def label(self, context: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Decoded rewards of self-collected transitions, `(task, batch)`; see `reward_model.relabel`."""
        labeller = self.labeller or {"encoder": self.encoder, "reward_decoder": self.reward_decoder}
        noise = self.normal(len(context), self.config.z_dim)
        return relabel(labeller["encoder"], labeller["reward_decoder"], context, observations, actions, noise)

    # -- acting ------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def infer_posterior(self, context: Tensor) -> Gaussian:
        """q(z|h) of each task, `(task, n, context_dim)` to mean and std, `(task, z_dim)` each."""
        return Gaussian(*self.encoder(context.to(self.device)))

    def prior(self, tasks: int) -> Gaussian:
        """p(z) = N(0, I) for each task."""
        zeros = torch.zeros(tasks, self.config.z_dim, device=self.device)
        return Gaussian(zeros, torch.ones_like(zeros))

    def tensor(self, values: Any) -> Tensor:
        """Numbers as the agent's networks take them: default dtype, on its device."""
        return torch.as_tensor(values, dtype=torch.get_default_dtype(), device=self.device)

    @torch.inference_mode()
    def act(
        self,
        observations: np.ndarray | Tensor,
        z: np.ndarray | Tensor,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> np.ndarray:
        """Actions in [-1, 1] for `observations`, `(..., obs_dim)`, and z, `(..., z_dim)`, as a numpy array."""
        mean, log_std = self.actor(self.tensor(observations), self.tensor(z))
        if deterministic:
            return torch.tanh(mean).cpu().numpy()
        noise = torch.randn(mean.shape, generator=generator or self.generator, device=self.device)
        return sample_action(mean, log_std, noise).cpu().numpy()

    def policy(
        self, z: Gaussian, generator: torch.Generator, deterministic: bool = True
    ) -> Callable[[np.ndarray], np.ndarray]:
        """A policy for one episode of many simulations: `(n, obs_dim)` to `(n, action_dim)`.

        z is drawn from the Gaussian once (`z_resampling="episode"`) or anew at every step ("step").
        """

        def draw() -> Tensor:
            return z.sample(torch.randn(z.mean.shape, generator=generator, device=self.device))

        if self.config.z_resampling == "step":
            return lambda observations: self.act(observations, draw(), deterministic, generator)
        fixed = draw()
        return lambda observations: self.act(observations, fixed, deterministic, generator)

    # -- saving ------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "labeller": None if self.labeller is None else self.labeller.state_dict(),
            "optimizers": {name: o.state_dict()["state"] for name, o in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, so that the next update is the one that would have followed.

        Raises:
            RuntimeError: a part's parameters do not fit.
        """
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.labeller = None
        if state["labeller"] is not None:
            self.freeze_labeller()
            assert self.labeller is not None
            self.labeller.load_state_dict(state["labeller"])
        self.optimizers = {}
        for name, moments in state["optimizers"].items():
            optimizer, moments = self._optimizer(name), copy.deepcopy(moments)
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]

    # -- checks ------------------------------------------------------------------------------------------
    @torch.no_grad()
    def _check_parts(self) -> None:
        """Run every part once on zeros, so that a wrong shape is told now and not an hour into training."""
        tasks, batch, n = 2, 3, 4
        zeros = lambda *shape: torch.zeros(*shape, device=self.device)  # noqa: E731
        obs, act = zeros(tasks, batch, self.spec.obs_dim), zeros(tasks, batch, self.spec.action_dim)
        z = zeros(tasks, batch, self.config.z_dim)
        expect_shapes(
            "encoder",
            self.encoder(zeros(tasks, n, self.spec.context_dim)),
            {"mean": (tasks, self.config.z_dim), "std": (tasks, self.config.z_dim)},
        )
        expect_shapes("actor", self.actor(obs, z), {"mean": tuple(act.shape), "log_std": tuple(act.shape)})
        values = self.critics(obs, act, z)
        expect_shapes("critics", [values], {"values": (len(values) if values.ndim else 1, tasks, batch)})
        expect_shapes("reward_decoder", [self.reward_decoder(obs, act, z)], {"rewards": (tasks, batch)})


def expect_shapes(part: str, outputs: Iterable[Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    """Compare a part's outputs with the shapes it owes.

    Raises:
        ValueError: they differ.
    """
    got = [tuple(output.shape) for output in outputs]
    if got != list(expected.values()):
        owed = ", ".join(f"{name} {shape}" for name, shape in expected.items())
        raise ValueError(f"{part} returned shapes {got} for 2 tasks and 3 transitions each; it must return {owed}")


def _resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
