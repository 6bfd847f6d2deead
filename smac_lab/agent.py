"""SMAC: the parts, wired. What each phase minimises, one update, and how to act."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smac_lab.acceleration import compiled_and_checked
from smac_lab.actor_critic import Actor, Critics, Evaluations, Info, awac_loss, critic_loss, q_loss, sample_action
from smac_lab.config import SMACConfig
from smac_lab.encoder import ContextEncoder, Gaussian
from smac_lab.nets import polyak_update
from smac_lab.policy import EpisodePolicy
from smac_lab.reward_model import RewardDecoder, relabel, reward_loss
from smac_lab.seeds import Generators, draw, mapped_over_seeds, over_seeds, select_seed, stack_modules
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
Part = nn.Module | Callable[[], nn.Module]

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
        seed: makes initial parameters and every later draw. Several, such as `range(16)`, make as many agents that
            learn at once: parameters, batches, contexts, metrics and results then have a leading seed axis, and each
            seed draws what it would draw alone. Losses and parts are written for one seed all the same.
        encoder, actor, critics, reward_decoder: parts of your own, by the shapes in the README: a module, or a
            function without arguments that makes one, called once a seed under that seed. (Several seeds start
            from equal copies of a module.)
        actor_loss: replaces AWAC in both phases, `(agent, batch, z) -> (loss, info)`.
        critic_loss: likewise for the Bellman error.
        reward_loss: likewise for encoder and decoder, `(agent, batch, z, posterior) -> (loss, info)`.

    Raises:
        ValueError: a part returns outputs of the wrong shape; no seed, or one twice.
    """

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
        self.config, self.spec = config, spec
        every = (int(seed),) if isinstance(seed, (int, np.integer)) else tuple(int(one) for one in seed)
        if not every or len(set(every)) < len(every):
            raise ValueError(f"seed={seed!r} is not allowed: at least one seed, each once")
        self.seeds = None if isinstance(seed, (int, np.integer)) else every
        self.seed: Any = every[0] if self.seeds is None else every
        self.seed_axis = () if self.seeds is None else (len(self.seeds),)  # leads every shape
        self.device = config.torch_device()

        obs, act, z = spec.obs_dim, spec.action_dim, config.z_dim
        made: list[tuple[nn.Module, ...]] = []  # parts of each seed
        for one in every:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(one)
                made.append(
                    (
                        _made(encoder) or ContextEncoder(spec.context_dim, z, config.encoder_hidden),
                        _made(actor) or Actor(obs, act, z, config.actor_hidden),
                        _made(critics) or Critics(obs, act, z, config.critic_hidden),
                        _made(reward_decoder) or RewardDecoder(obs, act, z, config.decoder_hidden),
                    )
                )
        parts = made[0] if self.seeds is None else [stack_modules(parts) for parts in zip(*made, strict=True)]
        self.encoder, self.actor, self.critics, self.reward_decoder = (part.to(self.device) for part in parts)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.labeller: nn.ModuleDict | None = None  # frozen encoder and decoder, from the self-supervised phase on
        self.actor_loss, self.critic_loss, self.reward_loss = actor_loss, critic_loss, reward_loss

        # What the losses read
        self.discount, self.reward_scale = config.discount, config.reward_scale
        self.awac_lambda, self.awac_weight = config.awac_lambda, config.awac_weight
        self.kl_weight, self.kl_reduction = config.kl_weight, config.kl_reduction

        streams = [torch.Generator(self.device).manual_seed(one) for one in every]
        self.generator: Generators = streams[0] if self.seeds is None else streams
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self.updates = 0  # updates so far, all phases
        self._compiled: dict[tuple[PhaseLoss, str], PhaseLoss] = {}
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
        posterior, z = self.infer(batch)
        reward, reward_info = self.reward_loss(self, batch, z, posterior)
        batch, z = self._with_evaluations(batch, z)
        critic, critic_info = self.critic_loss(self, batch, z)
        actor, actor_info = self.actor_loss(self, batch, z)
        return reward + critic + actor, {**reward_info, **critic_info, **actor_info}

    def self_supervised_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Bellman error (critics) + AWAC and -Q(s, pi(s, z), z) (actor); SMAC, algorithm 2.

        The encoder reads, but does not learn.
        """
        _, z = self.infer(batch)
        return self._improve(batch, z)

    def self_labelled_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """As `self_supervised_loss`, and the encoder learns from decoded rewards (an extension of ours).

        It is trained so that the *frozen* decoder, given q(z|h), reproduces the rewards in the batch: decoded
        ones on self-collected, true ones on offline transitions. No true reward of new interaction is used.
        """
        posterior, z = self.infer(batch)
        reward, reward_info = self.reward_loss(self, batch, z, posterior)
        improve, info = self._improve(batch, z)
        return reward + improve, {**reward_info, **info}

    def _improve(self, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
        """What actor and critics minimise on self-collected and offline data together."""
        batch, z = self._with_evaluations(batch, z)
        critic, critic_info = self.critic_loss(self, batch, z)
        q, q_info = q_loss(self, batch, z)  # before AWAC, which needs the same values without their graph
        awac, awac_info = self.actor_loss(self, batch, z)
        loss = critic + self.config.online_awac_weight * awac + self.config.online_q_weight * q
        return loss, {**critic_info, **awac_info, **q_info}

    def inference_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Reward error + KL alone: what keeps encoder and decoder learning from offline data."""
        posterior, z = self.infer(batch)
        return self.reward_loss(self, batch, z, posterior)

    def infer(self, batch: Batch) -> tuple[Gaussian, Tensor]:
        """Posterior `(task, z_dim)` and one z a task, spread over its transitions, `(task, batch, z_dim)`."""
        assert batch.noise is not None
        posterior = Gaussian(*self.encoder(batch.context))
        z = posterior.sample(batch.noise.z).unsqueeze(1)
        return posterior, z.expand(-1, batch.observations.shape[1], -1)

    def _with_evaluations(self, batch: Batch, z: Tensor) -> tuple[Batch, Tensor]:
        """The batch with room for what several losses read, and z as actor and critics see it: without a gradient."""
        z = z.detach()
        fields: list[Any] = [*batch]
        fields[-1] = Evaluations(self, batch, z)
        return Batch(*fields), z  # not `_replace`, which torch 2.8 does not compile

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

        # Gradients of the trained parts only. Seeds have no parameter in common: a sum keeps their gradients apart.
        value, info = self._as_configured(loss)(batch)
        parameters = optimizer.param_groups[0]["params"]
        gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = _laid_out_as(parameter, gradient)
        optimizer.step()

        # Slow copy of the critics, where they moved.
        if "critics" in TRAINED[name]:
            polyak_update(self.target_critics, self.critics, self.config.tau)
        self.updates += 1
        return {name: number.detach() for name, number in info.items()}

    def _as_configured(self, loss: PhaseLoss) -> PhaseLoss:
        """The very same loss as the config wants it evaluated: over seeds, in bf16 products, compiled."""
        key = (loss, self.config.precision)
        if self.config.compile and key in self._compiled:
            return self._compiled[key]
        bf16, parts = self.config.precision == "bf16", nn.ModuleDict(self.parts)
        mapped = loss if self.seeds is None else mapped_over_seeds(parts, loss)

        def evaluate(batch: Batch) -> tuple[Tensor, Info]:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                return mapped(batch)

        if not self.config.compile:
            return evaluate
        parameters = {name: value for name, value in parts.named_parameters() if value.requires_grad}
        products = torch.bfloat16 if bf16 else torch.float32
        return self._compiled.setdefault(key, compiled_and_checked(evaluate, parameters, products))

    def draw_noise(self, batch: Batch) -> Noise:
        """Noise for one update, from the agent's own generator."""
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

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers from the agent's generator; with several seeds, `shape` for each of them."""
        return draw(torch.randn, (*self.seed_axis, *shape), self.generator)

    def _apply(self, part: nn.Module, *inputs: Tensor) -> Any:
        """A part's outputs; with several seeds, each seed's own part on its own inputs."""
        return part(*inputs) if self.seeds is None else over_seeds(part, part, *inputs)

    def _optimizer(self, name: str) -> torch.optim.Adam:
        if name not in self.optimizers:
            parameters = [p for part in TRAINED[name] for p in self.parts[part].parameters() if p.requires_grad]
            on_gpu = self.device.type == "cuda"  # there the step count lives on the device, for CUDA graphs
            self.optimizers[name] = torch.optim.Adam(
                parameters, lr=self.config.learning_rate, fused=True, capturable=on_gpu
            )
        return self.optimizers[name]

    # -- labels ------------------------------------------------------------------------------------------
    def freeze_labeller(self) -> None:
        """Keep a frozen copy of encoder and decoder, which labels whatever the policy collects from now on."""
        parts = {"encoder": self.encoder, "reward_decoder": self.reward_decoder}
        self.labeller = nn.ModuleDict({k: copy.deepcopy(v) for k, v in parts.items()}).requires_grad_(False)

    def label(self, context: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Decoded rewards of self-collected transitions, `(task, batch)`; see `reward_model.relabel`."""
        own = {"encoder": self.encoder, "reward_decoder": self.reward_decoder}
        labeller = nn.ModuleDict(own) if self.labeller is None else self.labeller
        noise = self.normal(context.shape[-3], self.config.z_dim)
        inputs = (context, observations, actions, noise)
        if self.seeds is None:
            return relabel(labeller["encoder"], labeller["reward_decoder"], *inputs)
        with torch.inference_mode():
            return over_seeds(labeller, partial(relabel, labeller["encoder"], labeller["reward_decoder"]), *inputs)

    # -- acting ------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def infer_posterior(self, context: Tensor) -> Gaussian:
        """q(z|h) of each task, `(task, n, context_dim)` to mean and std, `(task, z_dim)` each."""
        return Gaussian(*self._apply(self.encoder, context.to(self.device)))

    def prior(self, tasks: int) -> Gaussian:
        """p(z) = N(0, I) for each task."""
        zeros = torch.zeros(*self.seed_axis, tasks, self.config.z_dim, device=self.device)
        return Gaussian(zeros, torch.ones_like(zeros))

    def tensor(self, values: Any) -> Tensor:
        """Numbers as the agent's networks take them: default dtype, on its device."""
        return torch.as_tensor(values, dtype=torch.get_default_dtype(), device=self.device)

    def act(
        self,
        observations: np.ndarray | Tensor,
        z: np.ndarray | Tensor,
        deterministic: bool = True,
        generator: Generators | None = None,
    ) -> np.ndarray:
        """Actions in [-1, 1] for `observations`, `(..., obs_dim)`, and z, `(..., z_dim)`, as a numpy array."""
        shape = (*observations.shape[:-1], self.spec.action_dim)
        chosen = self.generator if generator is None else generator
        return self.actions(observations, z, None if deterministic else draw(torch.randn, shape, chosen))

    @torch.inference_mode()
    def actions(
        self, observations: np.ndarray | Tensor, z: np.ndarray | Tensor, noise: Tensor | None = None
    ) -> np.ndarray:
        """As `act`, with the N(0, I) drawn by the caller, `(..., action_dim)`; without, the mean action."""
        mean, log_std = self._apply(self.actor, self.tensor(observations), self.tensor(z))
        return (torch.tanh(mean) if noise is None else sample_action(mean, log_std, noise)).cpu().numpy()

    def policy(self, z: Gaussian, generator: Generators, deterministic: bool = True) -> EpisodePolicy:
        """A policy for one episode of many simulations: `(n, obs_dim)` to `(n, action_dim)`; see `EpisodePolicy`."""
        return EpisodePolicy(self, z, generator, deterministic)

    # -- several seeds -----------------------------------------------------------------------------------
    def split(self) -> list[SMAC]:
        """Each seed's agent as one of its own, a copy, in the order of the seeds."""
        if self.seeds is None:
            return [self]
        return [self._of_seed(index) for index in range(len(self.seeds))]

    def _of_seed(self, index: int) -> SMAC:
        assert self.seeds is not None
        agent = SMAC(
            self.config,
            self.spec,
            seed=self.seeds[index],
            **{name: select_seed(part, index) for name, part in self.parts.items() if name != "target_critics"},
            actor_loss=self.actor_loss,
            critic_loss=self.critic_loss,
            reward_loss=self.reward_loss,
        )
        state = self.state_dict()

        def pick(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: pick(one) for key, one in value.items()}
            return value[index].clone() if isinstance(value, Tensor) and value.ndim else value

        agent.load_state_dict({**pick(state), "generator": state["generator"][index : index + 1]})
        return agent

    # -- saving ------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "labeller": None if self.labeller is None else self.labeller.state_dict(),
            "optimizers": {name: o.state_dict()["state"] for name, o in self.optimizers.items()},
            "generator": torch.stack([generator.get_state() for generator in self.generators()]),
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
        for generator, stored in zip(self.generators(), state["generator"], strict=True):
            generator.set_state(stored.clone())
        self.updates = state["updates"]

    def generators(self) -> list[torch.Generator]:
        """The agent's stream of random numbers, one a seed."""
        return [self.generator] if isinstance(self.generator, torch.Generator) else list(self.generator)

    # -- checks ------------------------------------------------------------------------------------------
    def check_spec(self, spec: FamilySpec, use: str) -> None:
        """Refuse a family or a buffer that the agent is not for, be it only another variant of its own family.

        Args:
            spec: the family's or the buffer's.
            use: what was asked of the agent, as in "act in".

        Raises:
            ValueError: name, variant or sizes are not those of the agent's `spec`; the message names both.
        """
        if spec != self.spec:
            raise ValueError(f"an agent for {self.spec} cannot {use} {spec}")

    @torch.no_grad()
    def _check_parts(self) -> None:
        """Run every part once on zeros, so that a wrong shape is told now and not an hour into training."""
        tasks, batch, n = 2, 3, 4
        seeds = self.seed_axis
        zeros = lambda *shape: torch.zeros(*seeds, *shape, device=self.device)  # noqa: E731
        obs, act = zeros(tasks, batch, self.spec.obs_dim), zeros(tasks, batch, self.spec.action_dim)
        z = zeros(tasks, batch, self.config.z_dim)

        def check(part: str, outputs: Iterable[Tensor], expected: dict[str, tuple[int, ...]]) -> None:
            expect_shapes(part, [output[0] for output in outputs] if seeds else outputs, expected)

        posterior = self._apply(self.encoder, zeros(tasks, n, self.spec.context_dim))
        check("encoder", posterior, {"mean": (tasks, self.config.z_dim), "std": (tasks, self.config.z_dim)})
        owed = (tasks, batch, self.spec.action_dim)
        check("actor", self._apply(self.actor, obs, z), {"mean": owed, "log_std": owed})
        values = self._apply(self.critics, obs, act, z)
        members = values.shape[len(seeds)] if values.ndim > len(seeds) else 1
        check("critics", [values], {"values": (members, tasks, batch)})
        check("reward_decoder", [self._apply(self.reward_decoder, obs, act, z)], {"rewards": (tasks, batch)})


def expect_shapes(part: str, outputs: Iterable[Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    """Compare a part's outputs with the shapes it owes.

    Raises:
        ValueError: they differ.
    """
    got = [tuple(output.shape) for output in outputs]
    if got != list(expected.values()):
        owed = ", ".join(f"{name} {shape}" for name, shape in expected.items())
        raise ValueError(f"{part} returned shapes {got} for 2 tasks and 3 transitions each; it must return {owed}")


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """The gradient in its parameter's memory layout: fused Adam goes through both in order of memory."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _made(part: Part | None) -> nn.Module | None:
    return part if part is None or isinstance(part, nn.Module) else part()
