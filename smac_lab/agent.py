"""SMAC: the parts, wired. What each phase minimises, one update, and how to act."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smac_lab.actor_critic import Seen, awac_loss, critic_loss, look, q_loss, sample_action
from smac_lab.batch import Batch, Info, Noise, PhaseLoss
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.encoder import Gaussian
from smac_lab.engine.acceleration import capturing, compiled_and_checked, float32_products, has_tf32
from smac_lab.engine.policy import EpisodePolicy
from smac_lab.engine.seeds import Generators, draw, mapped_over_seeds, over_seeds, select_seed, stack_modules
from smac_lab.nets import polyak_update
from smac_lab.parts import ALL_PARTS, Part, check_parts, fit_scaling, make_parts
from smac_lab.reward_model import relabel, reward_loss
from smac_lab.tasks.spec import FamilySpec

FALLS_OVER = 0.2  # share of a phase over which the learning rate falls, at its end


ActorLoss = Callable[["SMAC", Batch, Tensor], tuple[Tensor, Info]]
RewardLoss = Callable[["SMAC", Batch, Tensor, Gaussian], tuple[Tensor, Info]]

# Fields of the config that an agent is built from, and that cannot change in its life.
BUILT_FROM = (
    *("z_dim", "encoder_hidden", "decoder_hidden", "actor_hidden", "critic_hidden"),
    *("initial_weights", "observation_scaling", "device"),
)


class Objective(NamedTuple):
    """What a phase minimises, and which parts learn from it; no other part is moved."""

    name: str
    loss: PhaseLoss
    trains: tuple[str, ...]


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

    Attributes:
        config: every number; losses read it at each update. Another one may be assigned, with the fields that the
            parts are built from (`BUILT_FROM`) as they are.
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
        self._config, self.spec = config, spec
        every = (int(seed),) if isinstance(seed, (int, np.integer)) else tuple(int(one) for one in seed)
        if not every or len(set(every)) < len(every):
            raise ValueError(f"seed={seed!r} is not allowed: at least one seed, each once")
        self.seeds = None if isinstance(seed, (int, np.integer)) else every
        self.seed: Any = every[0] if self.seeds is None else every
        self.seed_axis = () if self.seeds is None else (len(self.seeds),)  # leads every shape
        self.device = config.torch_device()

        given = {"encoder": encoder, "actor": actor, "critics": critics, "reward_decoder": reward_decoder}
        made = [make_parts(given, config, spec, one) for one in every]
        parts = made[0] if self.seeds is None else [stack_modules(parts) for parts in zip(*made, strict=True)]
        self.encoder, self.actor, self.critics, self.reward_decoder = (part.to(self.device) for part in parts)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.labeller: nn.ModuleDict | None = None  # frozen encoder and decoder, from the self-supervised phase on
        self.actor_loss, self.critic_loss, self.reward_loss = actor_loss, critic_loss, reward_loss

        streams = [torch.Generator(self.device).manual_seed(one) for one in every]
        self.generator: Generators = streams[0] if self.seeds is None else streams
        self._optimizer: torch.optim.Adam | None = None
        self.updates = 0  # updates so far, all phases
        self._compiled: dict[tuple[PhaseLoss, str], PhaseLoss] = {}
        check_parts(self.parts, self._apply, config, spec, self.seed_axis, self.device)

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

        The encoder reads, but does not learn.
        """
        _, z = self.infer(batch)
        return self._improve(batch, z)

    def self_labelled_loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """As `self_supervised_loss`, and q(z|h) is also to explain the batch's rewards through the decoder.

        The `self-labelled` arm (ours) trains the encoder with it and holds the decoder still: rewards are decoded on
        self-collected, true on offline transitions, and no true reward of new interaction is used. The authors'
        code has the same loss as an option that trains both, off in their scripts. The `oracle` arm trains both,
        from true rewards.
        """
        posterior, z = self.infer(batch)
        reward, reward_info = self.reward_loss(self, batch, z, posterior)
        improve, info = self._improve(batch, z)
        return reward + improve, {**reward_info, **info}

    def _improve(self, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
        """What actor and critics minimise on self-collected and offline data together."""
        z = z.detach()
        seen = self._shared(batch, z, through_actions=True)
        critic, critic_info = self.critic_loss(self, batch, z, *seen)
        q, q_info = q_loss(self, batch, z, *seen)
        awac, awac_info = self.actor_loss(self, batch, z, *seen)
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

    def _shared(self, batch: Batch, z: Tensor, through_actions: bool = False) -> tuple[Seen, ...]:
        """What the losses share, as their further argument; none where one of them is not the library's."""
        own = self.actor_loss is awac_loss and self.critic_loss is critic_loss
        return (look(self, batch, z, through_actions),) if own else ()

    # -- numbers and parts ---------------------------------------------------------------------------
    @property
    def config(self) -> SMACConfig:
        """Every number of the experiment."""
        return self._config

    @config.setter
    def config(self, config: SMACConfig) -> None:
        if fixed := [name for name in BUILT_FROM if getattr(config, name) != getattr(self._config, name)]:
            raise ValueError(
                f"{', '.join(fixed)} cannot change once an agent is made: make another, SMAC(config, spec)"
            )
        self._config, self._compiled = config, {}
        if self._optimizer is not None:
            self.follow_learning_rate()

    @property
    def precision(self) -> str:
        """Of dense products in updates: "fp32", "tf32" or "bf16"; TF32 is float32 on a device that lacks it."""
        chosen = self.config.precision
        if chosen in ("auto", "tf32"):
            return "tf32" if has_tf32(self.device) else "fp32"
        return chosen

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
        """What the phases and arms minimise, by name."""
        actor_critic = ("actor", "critics")
        made = (
            Objective("offline", self.offline_loss, ALL_PARTS),
            Objective("self-supervised", self.self_supervised_loss, actor_critic),
            Objective("self-labelled", self.self_labelled_loss, (*actor_critic, "encoder")),
            Objective("oracle", self.self_labelled_loss, ALL_PARTS),
            Objective("inference", self.inference_loss, ("encoder", "reward_decoder")),
        )
        return {objective.name: objective for objective in made}

    # -- learning ----------------------------------------------------------------------------------------
    def update(
        self, batch: Batch, loss: PhaseLoss | Objective | None = None, trains: Sequence[str] | None = None
    ) -> Info:
        """One gradient step, one Polyak step.

        Args:
            batch: what to learn from; noise is drawn where it has none.
            loss: one of `objectives`, one of the agent's phase losses, or a loss of your own, `(batch) -> (loss,
                info)`. Default: the offline phase's.
            trains: the parts that learn; default those of the objective, and for a loss of your own all of them.

        Returns:
            The loss's info, on the device, detached.

        Raises:
            ValueError: `trains` names a part that there is not.
        """
        objective = self._objective(loss, trains)
        trained = [p for part in objective.trains for p in self.parts[part].parameters() if p.requires_grad]

        # Noise is data: drawn here, so that the loss itself is a deterministic function.
        if batch.noise is None:
            batch = batch._replace(noise=self.draw_noise(batch))

        # Gradients of the trained parts only. Seeds have no parameter in common: a sum keeps their gradients apart.
        with float32_products(self.precision):
            value, info = self._as_configured(objective.loss)(batch)
            gradients = torch.autograd.grad(value.sum(), trained, allow_unused=True)
        self.optimizer.zero_grad()  # Adam leaves alone what has none: one of zero would move it through its moments
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = _laid_out_as(parameter, gradient)
        if not capturing():  # whoever replays a graph does that between two updates
            self.follow_learning_rate()
        self.optimizer.step()

        # Slow copy of the critics, where they moved.
        if "critics" in objective.trains:
            polyak_update(self.target_critics, self.critics, self.config.tau)
        self.updates += 1
        return {name: number.detach() for name, number in info.items()}

    def _objective(self, loss: PhaseLoss | Objective | None, trains: Sequence[str] | None) -> Objective:
        """The objective meant: a loss of the agent's own is known as the very function, never by its name."""
        if loss is None:
            objective = self.objectives["offline"]
        elif isinstance(loss, Objective):
            objective = loss
        else:
            own = (known for known in self.objectives.values() if known.loss == loss)
            objective = next(own, Objective("your own", loss, ALL_PARTS))
        if trains is not None:
            objective = objective._replace(trains=tuple(trains))
        if unknown := [part for part in objective.trains if part not in ALL_PARTS]:
            raise ValueError(f"there is no part {unknown} to train; parts are {', '.join(ALL_PARTS)}")
        return objective

    def _as_configured(self, loss: PhaseLoss) -> PhaseLoss:
        """The very same loss as the config wants it evaluated: over seeds, in bf16 products, compiled."""
        key = (loss, self.precision)
        if self.config.compile and key in self._compiled:
            return self._compiled[key]
        bf16, parts = self.precision == "bf16", nn.ModuleDict(self.parts)
        mapped = loss if self.seeds is None else mapped_over_seeds(parts, loss)

        def evaluate(batch: Batch) -> tuple[Tensor, Info]:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                return mapped(batch)

        if not self.config.compile:
            return evaluate
        parameters = {name: value for name, value in parts.named_parameters() if value.requires_grad}
        return self._compiled.setdefault(key, compiled_and_checked(evaluate, parameters, self.precision))

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

    @property
    def optimizer(self) -> torch.optim.Adam:
        """Adam of all parts; it moves those that a step gives gradients to, and remembers moments of each."""
        if self._optimizer is None:
            parameters = [p for part in ALL_PARTS for p in self.parts[part].parameters() if p.requires_grad]
            on_gpu = self.device.type == "cuda"  # there rate and step count live on the device, for CUDA graphs
            rate = torch.tensor(self.learning_rate, device=self.device) if on_gpu else self.learning_rate
            self._optimizer = torch.optim.Adam(parameters, lr=rate, fused=True, capturable=on_gpu)
        return self._optimizer

    @property
    def learning_rate(self) -> float:
        """Adam's in the next update: it falls to `learning_rate_decay` of itself over the last fifth of each phase.

        Before that it stays, so that policy and values get on; "stable, then decay" (Hägele et al., Scaling Laws and
        Compute-Optimal Training Beyond Fixed Training Durations, NeurIPS 2024). The offline phase has `offline_steps`
        updates, the self-supervised one `online_iterations` times `online_updates`; who goes on after that goes on at
        the last rate.
        """
        c = self.config
        done, phase = self.updates, c.offline_steps
        if done >= phase:
            done, phase = done - phase, c.online_iterations * c.online_updates
        share = min(done / phase, 1.0) if phase else 1.0
        fallen = max(0.0, 1 - (1 - share) / FALLS_OVER)  # from 0 to 1
        return c.learning_rate * (1 - (1 - c.learning_rate_decay) * fallen)

    def follow_learning_rate(self) -> None:
        """Let Adam go on at the present `learning_rate`."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.learning_rate)
            else:
                group["lr"] = self.learning_rate

    def forget_moments(self) -> None:
        """Let Adam start anew, as with `optimizer_moments="fresh"` where the phases change."""
        self.optimizer.state.clear()

    def fit_observation_scaling(self, buffer: TransitionBuffer) -> None:
        """Standardise what the parts observe by the buffer's static transitions; see `parts.fit_scaling`."""
        fit_scaling(self.parts.values(), buffer)

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
        """q(z|h) of each task, `(task, n, context_dim)` to mean and std, `(task, z_dim)` each.

        Raises:
            ValueError: context of another width, or with numbers that are not finite.
        """
        context = self.tensor(context)
        if context.shape[-1] != self.spec.context_dim:
            raise ValueError(
                f"context of {self.spec.name} must be (..., n, {self.spec.context_dim}), got {tuple(context.shape)}"
            )
        if not bool(context.isfinite().all()):
            raise ValueError("context holds numbers that are not finite, from which nothing can be inferred")
        return Gaussian(*self._apply(self.encoder, context))

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

    @classmethod
    def join(cls, agents: Sequence[SMAC]) -> SMAC:
        """One agent of several seeds from an agent of each; inverse of `split`.

        Raises:
            ValueError: no agents, one that has several seeds itself, or agents of another family or config, with other
                losses, or not equally far.
        """
        if not agents:
            raise ValueError("there are no agents to join")
        first = agents[0]
        for agent in agents:
            if agent.seeds is not None:
                raise ValueError(f"an agent of several seeds, {agent.seeds}, cannot be joined: split it first")
            if agent._alike() != first._alike():
                raise ValueError(
                    "only agents of one family and config, with the same losses and equally far, can be joined"
                )
        parts = {name: iter([agent.parts[name] for agent in agents]) for name in ALL_PARTS}
        joined = cls(
            first.config,
            first.spec,
            seed=[agent.seed for agent in agents],
            **{name: partial(next, of_seeds) for name, of_seeds in parts.items()},
            actor_loss=first.actor_loss,
            critic_loss=first.critic_loss,
            reward_loss=first.reward_loss,
        )

        def stack(values: Sequence[Any]) -> Any:
            one = values[0]
            if isinstance(one, dict):
                return {key: stack([value[key] for value in values]) for key in one}
            return torch.stack(list(values)) if isinstance(one, Tensor) and one.ndim else one

        states = [agent.state_dict() for agent in agents]
        joined.load_state_dict({**stack(states), "generator": torch.cat([state["generator"] for state in states])})
        return joined

    def _alike(self) -> tuple[Any, ...]:
        """What agents that learn at once have in common."""
        losses = (self.actor_loss, self.critic_loss, self.reward_loss)
        return self.config, self.spec, losses, self.updates, self.labeller is None

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
            "optimizer": {} if self._optimizer is None else self._optimizer.state_dict()["state"],
            "generator": torch.stack([generator.get_state() for generator in self.generators()]),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, so that the next update is the one that would have followed.

        What was saved on a GPU and is loaded on a processor, or the other way round, draws from a stream of its own.

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
        self._optimizer, moments = None, copy.deepcopy(state["optimizer"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for generator, stored in zip(self.generators(), state["generator"], strict=True):
            if len(stored) == len(generator.get_state()):  # a GPU's stream of numbers is none of a processor's
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


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """The gradient in its parameter's memory layout: fused Adam goes through both in order of memory."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
