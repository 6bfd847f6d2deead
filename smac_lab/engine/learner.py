"""Learning by gradient steps, for one seed or several at once.

Losses are written for one seed, and mapped over seeds and compiled here.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from smac_lab.batch import Info, PhaseLoss
from smac_lab.config import SMACConfig
from smac_lab.engine.acceleration import capturing, compiled_and_checked, float32_products, has_tf32
from smac_lab.engine.seeds import Generators, draw, mapped_over_seeds, over_seeds, select_seed, stack_modules
from smac_lab.tasks.spec import FamilySpec

FALLS_OVER = 0.2  # last share of a phase, in which the learning rate falls
Part = nn.Module | Callable[[], nn.Module]


class Objective(NamedTuple):
    """The loss of a phase, and the parts that learn from it."""

    name: str
    loss: PhaseLoss
    trains: tuple[str, ...]


class Learner(ABC):
    """Base class of agents that learn by gradient steps.

    Args:
        config: another may be assigned later if the fields in `built_from` are equal.
        spec: of the task family.
        seed: of initial parameters and all later draws, one or several.

    Raises:
        ValueError: there is no seed, or a seed occurs twice.
    """

    trainable: ClassVar[tuple[str, ...]]  # parts that learn by gradients
    built_from: ClassVar[tuple[str, ...]] = ()  # fields of the config that cannot change later

    def __init__(self, config: SMACConfig, spec: FamilySpec, seed: int | Sequence[int]):
        self._config, self.spec = config, spec
        every = (int(seed),) if isinstance(seed, (int, np.integer)) else tuple(int(one) for one in seed)
        if not every or len(set(every)) < len(every):
            raise ValueError(f"seed={seed!r} is not allowed: at least one seed, each once")
        self.seeds = None if isinstance(seed, (int, np.integer)) else every
        self.seed: Any = every[0] if self.seeds is None else every
        self.seed_axis = () if self.seeds is None else (len(self.seeds),)  # leading axis of every shape
        self.device = config.torch_device()
        streams = [torch.Generator(self.device).manual_seed(one) for one in every]
        self.generator: Generators = streams[0] if self.seeds is None else streams
        self.updates = 0  # updates so far, all phases
        self._optimizer: torch.optim.Adam | None = None
        self._compiled: dict[tuple[PhaseLoss, str], PhaseLoss] = {}

    def make(self, given: Mapping[str, Part | None], default: Callable[[str], nn.Module]) -> list[nn.Module]:
        """Make each part on the device, given or default; with several seeds, stacked over seeds.

        Args:
            given: by name; a module, a function that makes one, or None.
            default: name to a new module. Functions are called once per seed, under that seed.
        """
        of_seeds = []
        for seed in self.seeds or (self.seed,):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                of_seeds.append([default(name) if part is None else _module(part) for name, part in given.items()])
        parts = of_seeds[0] if self.seeds is None else [stack_modules(same) for same in zip(*of_seeds, strict=True)]
        return [part.to(self.device) for part in parts]

    # -- to be defined by a method -----------------------------------------------------------------------
    @property
    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The networks by name, including those without gradients."""

    @property
    @abstractmethod
    def objectives(self) -> dict[str, Objective]:
        """Objectives by name; the first is the default of `update`."""

    @property
    @abstractmethod
    def losses(self) -> tuple[Any, ...]:
        """Return a key that distinguishes the losses of agents with equal parts."""

    @abstractmethod
    def remade(self, parts: Mapping[str, Part], seed: Any) -> Self:
        """Make an agent with equal numbers and losses, but these `trainable` parts and seeds."""

    @abstractmethod
    def after_step(self, trained: Sequence[str]) -> None:
        """Finish a gradient step of these parts, such as by updating slow copies."""

    # -- numbers -----------------------------------------------------------------------------------------
    @property
    def config(self) -> SMACConfig:
        """The configuration."""
        return self._config

    @config.setter
    def config(self, config: SMACConfig) -> None:
        if fixed := [name for name in self.built_from if getattr(config, name) != getattr(self._config, name)]:
            raise ValueError(
                f"{', '.join(fixed)} cannot change once an agent is made: make another, SMAC(config, spec)"
            )
        self._config, self._compiled = config, {}
        if self._optimizer is not None:
            self.follow_learning_rate()

    @property
    def precision(self) -> str:
        """Precision of dense products: "fp32", "tf32" or "bf16"; on a device without TF32, "fp32" for "tf32"."""
        chosen = self.config.precision
        if chosen in ("auto", "tf32"):
            return "tf32" if has_tf32(self.device) else "fp32"
        return chosen

    # -- learning ----------------------------------------------------------------------------------------
    def update(
        self, batch: Any, loss: PhaseLoss | Objective | None = None, trains: Sequence[str] | None = None
    ) -> Info:
        """Take one gradient step, and call `after_step`.

        Args:
            batch: a `Batch` or another method's tuple; noise is drawn if it has none.
            loss: one of `objectives`, one of the agent's losses, or a custom one, `(batch) -> (loss, info)`. Default:
                the first of `objectives`.
            trains: parts that learn. Default: the objective's; for a custom loss, all `trainable` parts.

        Returns:
            The loss's info, detached.

        Raises:
            ValueError: `trains` contains an unknown part.
        """
        objective = self._objective(loss, trains)
        trained = [p for part in objective.trains for p in self.parts[part].parameters() if p.requires_grad]

        # Noise is data, so the loss is deterministic.
        if batch.noise is None:
            batch = batch._replace(noise=self.draw_noise(batch))

        # Seeds share no parameter, so a sum of losses keeps gradients separate.
        with float32_products(self.precision):
            value, info = self._as_configured(objective.loss)(batch)
            gradients = torch.autograd.grad(value.sum(), trained, allow_unused=True)
        self.optimizer.zero_grad()  # Adam skips parameters without gradient; with one of zero, moments would move them
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = _laid_out_as(parameter, gradient)
        if not capturing():  # `captured` does this between replays
            self.follow_learning_rate()
        self.optimizer.step()

        self.after_step(objective.trains)
        self.updates += 1
        return {name: number.detach() for name, number in info.items()}

    def _objective(self, loss: PhaseLoss | Objective | None, trains: Sequence[str] | None) -> Objective:
        if loss is None:
            objective = next(iter(self.objectives.values()))
        elif isinstance(loss, Objective):
            objective = loss
        else:
            own = (known for known in self.objectives.values() if known.loss == loss)
            objective = next(own, Objective("your own", loss, self.trainable))
        if trains is not None:
            objective = objective._replace(trains=tuple(trains))
        if unknown := [part for part in objective.trains if part not in self.trainable]:
            raise ValueError(f"there is no part {unknown} to train; parts are {', '.join(self.trainable)}")
        return objective

    def _as_configured(self, loss: PhaseLoss) -> PhaseLoss:
        key = (loss, self.precision)
        if self.config.compile and key in self._compiled:
            return self._compiled[key]
        bf16, parts = self.precision == "bf16", nn.ModuleDict(self.parts)
        mapped = loss if self.seeds is None else mapped_over_seeds(parts, loss)

        def evaluate(batch: Any) -> tuple[Tensor, Info]:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                return mapped(batch)

        if not self.config.compile:
            return evaluate
        parameters = {name: value for name, value in parts.named_parameters() if value.requires_grad}
        return self._compiled.setdefault(key, compiled_and_checked(evaluate, parameters, self.precision))

    @abstractmethod
    def draw_noise(self, batch: Any) -> Any:
        """Draw the noise of one update."""

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers; with several seeds, `shape` per seed."""
        return draw(torch.randn, (*self.seed_axis, *shape), self.generator)

    def _apply(self, part: nn.Module, *inputs: Tensor) -> Any:
        return part(*inputs) if self.seeds is None else over_seeds(part, part, *inputs)

    @property
    def optimizer(self) -> torch.optim.Adam:
        """Adam of all parts; a step moves only parameters with gradients."""
        if self._optimizer is None:
            on_gpu = self.device.type == "cuda"  # rate and step count are on the device, for CUDA graphs
            groups: list[dict[str, Any]] = []
            for share in dict.fromkeys(self.rates.get(part, 1.0) for part in self.trainable):
                own = [part for part in self.trainable if self.rates.get(part, 1.0) == share]
                parameters = [p for part in own for p in self.parts[part].parameters() if p.requires_grad]
                rate = self.learning_rate * share
                lr = torch.tensor(rate, device=self.device) if on_gpu else rate
                groups.append({"params": parameters, "lr": lr, "share": share})
            self._optimizer = torch.optim.Adam(groups, fused=True, capturable=on_gpu)
        return self._optimizer

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate in the next update.

        In each phase, the rate is constant, then falls linearly to `learning_rate_decay` of itself over the last fifth
        (Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, NeurIPS 2024). The
        offline phase has `offline_steps` updates, the self-supervised phase `online_iterations` times `online_updates`;
        later updates keep the last rate.
        """
        c = self.config
        done, phase = self.updates, c.offline_steps
        if done >= phase:
            done, phase = done - phase, c.online_iterations * c.online_updates
        share = min(done / phase, 1.0) if phase else 1.0
        fallen = max(0.0, 1 - (1 - share) / FALLS_OVER)  # from 0 to 1
        return c.learning_rate * (1 - (1 - c.learning_rate_decay) * fallen)

    @property
    def rates(self) -> Mapping[str, float]:
        """Ratio of a part's rate to `learning_rate`, by name; 1 for other parts."""
        return {}

    def follow_learning_rate(self) -> None:
        """Set Adam to the present `learning_rate`."""
        for group in self.optimizer.param_groups:
            rate = self.learning_rate * group["share"]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def forget_moments(self) -> None:
        """Clear Adam's moments."""
        self.optimizer.state.clear()

    # -- several seeds -----------------------------------------------------------------------------------
    def split(self) -> list[Self]:
        """Copy each seed's agent, in the order of the seeds; `[self]` for one seed."""
        if self.seeds is None:
            return [self]
        return [self._of_seed(index) for index in range(len(self.seeds))]

    @classmethod
    def join(cls, agents: Sequence[Self]) -> Self:
        """Join single-seed agents into one; inverse of `split`.

        Raises:
            ValueError: there are no agents, one has several seeds, or they differ in family, config, losses or number
                of updates.
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
        parts = {name: iter([agent.parts[name] for agent in agents]) for name in first.trainable}
        makers = {name: partial(next, of_seeds) for name, of_seeds in parts.items()}
        joined = first.remade(makers, [agent.seed for agent in agents])

        def stack(values: Sequence[Any]) -> Any:
            one = values[0]
            if isinstance(one, dict):
                return {key: stack([value[key] for value in values]) for key in one}
            return torch.stack(list(values)) if isinstance(one, Tensor) and one.ndim else one

        states = [agent.state_dict() for agent in agents]
        joined.load_state_dict({**stack(states), "generator": torch.cat([state["generator"] for state in states])})
        return joined

    def _alike(self) -> tuple[Any, ...]:
        return self.config, self.spec, self.losses, self.updates

    def _of_seed(self, index: int) -> Self:
        assert self.seeds is not None
        parts = {name: select_seed(self.parts[name], index) for name in self.trainable}
        agent = self.remade(parts, self.seeds[index])
        state = self.state_dict()

        def pick(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: pick(one) for key, one in value.items()}
            return value[index].clone() if isinstance(value, Tensor) and value.ndim else value

        agent.load_state_dict({**pick(state), "generator": state["generator"][index : index + 1]})
        return agent

    def generators(self) -> list[torch.Generator]:
        """Return the agent's random streams, one per seed."""
        return [self.generator] if isinstance(self.generator, torch.Generator) else list(self.generator)

    # -- saving ------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return all that the next update depends on."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "optimizer": {} if self._optimizer is None else self._optimizer.state_dict()["state"],
            "generator": torch.stack([generator.get_state() for generator in self.generators()]),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; the next update is the same as without saving.

        An agent moved between GPU and CPU keeps its present random streams.

        Raises:
            RuntimeError: a part's parameters do not fit.
        """
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self._optimizer, moments = None, copy.deepcopy(state["optimizer"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for generator, stored in zip(self.generators(), state["generator"], strict=True):
            if len(stored) == len(generator.get_state()):  # GPU and CPU streams are incompatible
                generator.set_state(stored.clone())
        self.updates = state["updates"]


def _module(part: Part) -> nn.Module:
    return part if isinstance(part, nn.Module) else part()


def _laid_out_as(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """Return the gradient in its parameter's memory layout, which fused Adam requires."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
