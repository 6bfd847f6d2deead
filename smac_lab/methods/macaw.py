"""MACAW: meta-learn weights from which one gradient step on a task's data solves the task."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

from smac_lab.batch import Info
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.episodes import EpisodeData, last_of_episode, returns_to_go
from smac_lab.data.validation import check_buffer
from smac_lab.encoder import split_context
from smac_lab.engine.learner import Objective, Part
from smac_lab.engine.meter import Metrics, check_counts, metered
from smac_lab.engine.method import Method
from smac_lab.engine.seeds import Generators, draw, over_seeds
from smac_lab.nets import Standardise, polyak_update
from smac_lab.parts import fit_scaling
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import FamilySpec, Tasks

Parameters = Mapping[str, Tensor]
Layers = list[tuple[Tensor, Tensor]]  # weights (in, out) and biases (out,)
AT_ONCE = 32  # simulations adapted at once: each needs a copy of all parameters


@dataclass(frozen=True)
class MACAWNumbers:
    """Numbers of MACAW beside the config; the defaults are those of the authors' `standard.json`."""

    steps: int = 1_000_000  # outer steps
    tasks: int = 5  # per outer step
    inner_batch_size: int = 256  # per task, in the inner step
    batch_size: int = 256  # per task, in the outer losses
    contiguous: bool = True  # whether the inner step reads successive transitions
    hidden: tuple[int, ...] = (100, 100, 100)
    layers: Literal["weights", "biases"] = "weights"  # what a latent vector transforms; see `AdaptiveMLP`
    latent: int = 100
    value_step: float = 1e-3  # initial inner step sizes, learned per parameter tensor
    actor_step: float = 1e-3
    value_rate: float = 1e-5  # Adam's in the outer loop
    actor_rate: float = 1e-4
    step_rate: float = 1e-3  # Adam's for step sizes and the head's weight
    advantage_head: float = 0.01  # initial weight of the head in the inner loss; 0: none
    bootstrap: bool = True  # whether outer targets add gamma^k V_target(s_T) to the return
    temperature: float = 1.0
    clip: float = 20.0  # greatest weight of an action
    std: float = 0.2  # of the policy
    target_rate: float = 0.1  # Polyak rate of the target value


class Outcomes(NamedTuple):
    """Transitions with the outcome of their episode, `(task, batch, dim)` and `(task, batch)`."""

    observations: Tensor
    actions: Tensor
    returns: Tensor  # discounted, to the end of the episode
    last_observations: Tensor  # s_T, the episode's last observation
    bootstrap: Tensor  # gamma^k, k steps from here to s_T; 0 where the episode terminated


class Meta(NamedTuple):
    """Data of an outer step: independent draws for inner and outer loss."""

    inner: Outcomes
    outer: Outcomes
    noise: tuple[()] = ()  # the loss draws nothing


class AdaptiveMLP(nn.Module):
    """ReLU network whose layers are functions of latent vectors, so that one gradient step has a large effect.

    "weights": all weights and biases of layer l are A_l h_l + b_l, with a learned latent h_l (MACAW, section 4.3).
    "biases": W_l x + b_l + U_l h_l (Finn et al., 2017, "One-shot visual imitation learning", section 4.2).
    "plain": W_l x + b_l.

    Args:
        sizes: of input, hidden layers and output.
        kind, latent: kind as above, and the size of h.
        scaling: of observations.
    """

    def __init__(self, sizes: Sequence[int], kind: str, latent: int, scaling: Standardise | None = None):
        super().__init__()
        self.sizes, self.kind, self.scaling = tuple(sizes), kind, scaling or nn.Identity()
        self.plain, self.latents, self.maps = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in itertools.pairwise(sizes):
            self.plain.append(nn.Parameter(_uniform(n_in * n_out + n_out, bound=n_in**-0.5)))
            if kind != "plain":
                transformed = n_in * n_out + n_out if kind == "weights" else n_out
                self.latents.append(nn.Parameter(torch.randn(latent) / n_out))
                self.maps.append(nn.Parameter(_uniform(latent, transformed, bound=latent**-0.5)))

    def layers(self, p: Parameters) -> Layers:
        """Return weights and biases under parameters `p`."""
        made = []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(self.sizes)):
            flat = p[f"plain.{i}"]
            if self.kind != "plain":
                shift = p[f"latents.{i}"] @ p[f"maps.{i}"]
                flat = flat + functional.pad(shift, (len(flat) - len(shift), 0))  # biases come last
            made.append((flat[: n_in * n_out].reshape(n_in, n_out), flat[n_in * n_out :]))
        return made


def _uniform(*shape: int, bound: float) -> Tensor:
    return torch.empty(*shape).uniform_(-bound, bound)


def forward(layers: Layers, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and last hidden features, `(..., in)` to `(..., out)` and `(..., hidden)`."""
    for weight, bias in layers[:-1]:
        inputs = torch.relu(inputs @ weight + bias)
    weight, bias = layers[-1]
    return inputs @ weight + bias, inputs


# -- equations -------------------------------------------------------------------------------------------
def imitation_weights(advantages: Tensor, temperature: float = 1.0, clip: float = 20.0) -> Tensor:
    """w = exp(min((A - mean A) / (T std A), log clip)), `(batch,)` (section 4.1)."""
    normalised = (advantages - advantages.mean()) / (temperature * advantages.std(correction=0) + 1e-8)
    return normalised.clamp(max=math.log(clip)).exp()


def gaussian_log_prob(mean: Tensor, std: float, actions: Tensor) -> Tensor:
    """log N(a; mean, std^2 I), `(...)`, in nats."""
    gaussian = -0.5 * ((actions - mean) / std).square() - math.log(std) - 0.5 * math.log(2 * math.pi)
    return gaussian.sum(-1)


def descend(loss: Callable[[dict[str, Tensor]], Tensor], p: Parameters, step_sizes: Tensor) -> dict[str, Tensor]:
    """Take a differentiable gradient step, p_i - eta_i dL/dp_i, with eta_i per parameter tensor."""
    gradient = grad(loss)(dict(p))
    return {name: p[name] - eta * gradient[name] for name, eta in zip(p, step_sizes, strict=True)}


class Actor(nn.Module):
    """pi(a|s) = N(tanh f(s), std^2), and the advantage head A(s, a) on the last hidden features of f.

    Args:
        spec, numbers: sizes.
        scaling: as `AdaptiveMLP`'s.
    """

    def __init__(self, spec: FamilySpec, numbers: MACAWNumbers, scaling: Standardise | None = None):
        super().__init__()
        n = numbers
        self.policy = AdaptiveMLP((spec.obs_dim, *n.hidden, spec.action_dim), n.layers, n.latent, scaling)
        self.head = AdaptiveMLP((n.hidden[-1] + spec.action_dim, 32, 1), "plain", 0) if n.advantage_head else None


class StepSizes(nn.Module):
    """Softplus parameters: inner step sizes, one per parameter tensor, and the advantage head's weight."""

    def __init__(self, numbers: MACAWNumbers, value: int, actor: int):
        super().__init__()
        self.value = nn.Parameter(torch.full((value,), math.log(numbers.value_step)))
        self.actor = nn.Parameter(torch.full((actor,), math.log(numbers.actor_step)))
        self.head = nn.Parameter(torch.tensor(math.log(numbers.advantage_head or 1.0)))


class Adapted(NamedTuple):
    """The policy's layers, per simulation or for all, and whether it explores."""

    layers: Layers
    explores: bool


class MACAW(Method):
    """Meta-actor critic with advantage weighting (Mitchell et al., ICML 2021, arXiv 2008.06043).

    MACAW has no z. It adapts the weights of a value function and of a policy, by one gradient step each on the context,
    which consists of whole episodes.

    Args:
        config: discount, scaling, device and protocol are read.
        spec, seed: as SMAC's.
        numbers: MACAW's numbers.
        value, actor, steps: passed by `Learner.remade`.
    """

    trainable = ("value", "actor", "steps")
    reads_episodes = True
    value: Any  # networks; the losses call their methods
    actor: Any
    steps: Any

    def __init__(
        self,
        config: SMACConfig,
        spec: FamilySpec,
        *,
        seed: int | Sequence[int] = 0,
        numbers: MACAWNumbers | None = None,
        value: Part | None = None,
        actor: Part | None = None,
        steps: Part | None = None,
    ):
        super().__init__(config, spec, seed)
        self.numbers = numbers or MACAWNumbers()
        self.value, self.actor = self.make({"value": value, "actor": actor}, self._new)
        sizes = [len(list(part.parameters())) for part in (self.value, self.actor)]
        (self.steps,) = self.make({"steps": steps}, lambda _: StepSizes(self.numbers, *sizes))
        self.target_value = copy.deepcopy(self.value).requires_grad_(False)

    def _new(self, name: str) -> nn.Module:
        n, spec = self.numbers, self.spec
        scaling = Standardise(spec.obs_dim) if self.config.observation_scaling else None
        if name == "actor":
            return Actor(spec, n, scaling)
        return AdaptiveMLP((spec.obs_dim, *n.hidden, 1), n.layers, n.latent, scaling)

    # -- losses ------------------------------------------------------------------------------------------
    def loss(self, batch: Meta) -> tuple[Tensor, Info]:
        """Average the outer losses of value and policy, after one inner step each, over tasks (MACAW, algorithm 1)."""
        losses, info = vmap(self.task_loss)(batch.inner, batch.outer)
        sizes = {"value_step": self.steps.value, "actor_step": self.steps.actor}
        steps = {name: functional.softplus(size).mean() for name, size in sizes.items()}
        return losses.mean(), {**{name: value.mean() for name, value in info.items()}, **steps}

    def task_loss(self, inner: Outcomes, outer: Outcomes) -> tuple[Tensor, Info]:
        """Compute the outer losses of one task.

        L_V = E_out (y - V_i(s))^2 and L_pi = -E_out w log pi_i(a|s), where i marks parameters after the inner step, w
        are `imitation_weights` of y - V_i(s), and y is the return, with gamma^k V_target(s_T) added if `bootstrap`.
        """
        value, actor = self.inner_step(inner)
        targets = outer.returns
        if self.numbers.bootstrap:
            with torch.no_grad():
                last = self.values(dict(self.target_value.named_parameters()), outer.last_observations)
            targets = targets + outer.bootstrap * last
        advantages = targets - self.values(value, outer.observations)
        value_loss = advantages.square().mean()
        log_probs, _ = self.act_on(actor, outer.observations, outer.actions)
        weights = imitation_weights(advantages.detach(), self.numbers.temperature, self.numbers.clip)
        actor_loss = -(weights * log_probs).mean()
        info = {"value_loss": value_loss, "actor_loss": actor_loss, "return_mean": targets.mean()}
        return value_loss + actor_loss, info

    def inner_step(self, data: Outcomes) -> tuple[Parameters, Parameters]:
        """Take one gradient step of value and actor, and return their parameters.

        First V minimises E (G - V(s))^2, then pi minimises -E w log pi(a|s) + c E (A(s, a) - (G - V_i(s)))^2. The last
        term trains the advantage head, whose gradient informs the policy's features (MACAW, section 4.2).
        """
        value, actor = dict(self.value.named_parameters()), dict(self.actor.named_parameters())
        value = descend(lambda p: (data.returns - self.values(p, data.observations)).square().mean(),
                        value, functional.softplus(self.steps.value))  # fmt: skip
        advantages = data.returns - self.values(value, data.observations)
        weights = imitation_weights(advantages, self.numbers.temperature, self.numbers.clip).detach()

        def imitation(p: Parameters) -> Tensor:
            log_probs, estimates = self.act_on(p, data.observations, data.actions)
            loss = -(weights * log_probs).mean()
            if estimates is None:
                return loss
            return loss + functional.softplus(self.steps.head) * (estimates - advantages.detach()).square().mean()

        return value, descend(imitation, actor, functional.softplus(self.steps.actor))

    def values(self, p: Parameters, observations: Tensor) -> Tensor:
        """V(s) under parameters `p`, `(batch,)`."""
        return forward(self.value.layers(p), self.value.scaling(observations))[0].squeeze(-1)

    def act_on(self, p: Parameters, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """log pi(a|s) and the advantage head's A(s, a) under parameters `p`, `(batch,)` each."""
        policy, head = self.actor.policy, self.actor.head
        outputs, features = forward(policy.layers(_below(p, "policy")), policy.scaling(observations))
        log_probs = gaussian_log_prob(outputs.tanh(), self.numbers.std, actions)
        if head is None:
            return log_probs, None
        estimates, _ = forward(head.layers(_below(p, "head")), torch.cat([features, actions], dim=-1))
        return log_probs, estimates.squeeze(-1)

    # -- numbers and parts -------------------------------------------------------------------------------
    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by name."""
        return {"value": self.value, "actor": self.actor, "steps": self.steps, "target_value": self.target_value}

    @property
    def objectives(self) -> dict[str, Objective]:
        """One objective, the outer losses."""
        return {"offline": Objective("offline", self.loss, self.trainable)}

    @property
    def learning_rate(self) -> float:
        """Adam's rate for the step sizes."""
        return self.numbers.step_rate

    @property
    def rates(self) -> dict[str, float]:
        """See `Learner.rates`."""
        n = self.numbers
        return {"value": n.value_rate / n.step_rate, "actor": n.actor_rate / n.step_rate}

    def after_step(self, trained: Sequence[str]) -> None:
        """Update the slow copy of the value function."""
        polyak_update(self.target_value, self.value, self.numbers.target_rate)

    def draw_noise(self, batch: Any) -> tuple[()]:
        """Return an empty tuple."""
        return ()

    # -- acting ------------------------------------------------------------------------------------------
    def unadapted(self, simulations: int) -> Adapted:
        """Return the meta-learned policy, which explores by its noise."""
        return Adapted(self._mapped(lambda: self._layers(dict(self.actor.named_parameters()))), True)

    def adapt(self, context: Tensor) -> Adapted:
        """Take one inner step on each simulation's episodes."""
        observations, actions, rewards = split_context(self.checked(context), self.spec.obs_dim, self.spec.action_dim)
        ends = torch.zeros_like(rewards)
        ends[..., self.spec.horizon - 1 :: self.spec.horizon] = 1.0
        returns = returns_to_go(rewards, ends, self.config.discount)

        def adapted(observations: Tensor, actions: Tensor, returns: Tensor) -> Layers:
            data = Outcomes(observations, actions, returns, observations, returns)  # the inner step never bootstraps
            return self._layers(self.inner_step(data)[1])

        each = vmap(adapted, chunk_size=AT_ONCE)
        return Adapted(self._mapped(each, observations, actions, returns), False)

    def _layers(self, p: Parameters) -> Layers:
        return self.actor.policy.layers(_below(p, "policy"))

    def _mapped(self, function: Callable[..., Layers], *inputs: Tensor) -> Layers:
        with torch.no_grad(), torch.inference_mode(False):  # tensors of inference mode have no gradient
            inputs = tuple(value.clone() for value in inputs)
            return function(*inputs) if self.seeds is None else over_seeds(nn.ModuleDict(self.parts), function, *inputs)

    def policy(
        self, adapted: Adapted, generator: Generators, deterministic: bool = True
    ) -> Callable[[NDArray[np.float64]], NDArray[np.floating]]:
        """See `Method.policy`. An unadapted policy explores with noise, even if `deterministic`."""
        noisy = adapted.explores or not deterministic
        layers = [(weight, bias.unsqueeze(-2)) for weight, bias in adapted.layers]
        if adapted.explores and self.seeds is not None:  # one policy per seed
            layers = [(weight.unsqueeze(1), bias.unsqueeze(1)) for weight, bias in layers]

        def act(observations: NDArray[np.float64]) -> NDArray[np.floating]:
            with torch.no_grad():
                inputs = self.tensor(observations).reshape(*self.seed_axis, -1, 1, self.spec.obs_dim)
                mean = forward(layers, self._scaled(inputs))[0].squeeze(-2).tanh()
                noise = draw(torch.randn, mean.shape, generator) if noisy else torch.zeros_like(mean)
                actions = (mean + self.numbers.std * noise).clamp(-1.0, 1.0)
            return actions.reshape(len(observations), -1).cpu().numpy()

        return act

    def _scaled(self, observations: Tensor) -> Tensor:
        scaling = self.actor.policy.scaling
        return observations if isinstance(scaling, nn.Identity) else self._apply(scaling, observations)


def _below(p: Parameters, name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in p.items() if key.startswith(f"{name}.")}


# -- learning --------------------------------------------------------------------------------------------
class OutcomeData:
    """Static transitions with their returns.

    Args:
        buffer: of the agent's family.
        discount: of the returns.
    """

    def __init__(self, buffer: TransitionBuffer, discount: float):
        self.episodes = EpisodeData(buffer)
        whole, horizon = self.episodes.all, buffer.spec.horizon
        last = last_of_episode(whole.ends)
        ahead = last - torch.arange(horizon, device=last.device) + 1
        cut_off = 1.0 - whole.terminations.gather(1, last)
        index = last.unsqueeze(-1).expand_as(whole.next_observations)
        columns = Outcomes(
            whole.observations,
            whole.actions,
            returns_to_go(whole.rewards, whole.ends, discount),
            whole.next_observations.gather(1, index),
            cut_off * discount**ahead,
        )
        self.flat = Outcomes(*(column.flatten(0, 1) for column in columns))
        self.first, self.count = self.episodes.first * horizon, self.episodes.count * horizon

    def sample(self, tasks: Tensor, size: int, generator: Generators, contiguous: bool) -> Outcomes:
        """Draw transitions, `(..., task, size)`, successive ones if `contiguous`."""
        count = self.count[tasks].unsqueeze(-1)
        uniform = draw(torch.rand, (*tasks.shape, 1 if contiguous else size), generator)
        if contiguous:
            place = (uniform * (count - size + 1).clamp(min=1)).long() + torch.arange(size, device=count.device)
            place = place % count
        else:
            place = (uniform * count).long()
        rows = self.first[tasks].unsqueeze(-1) + place
        return Outcomes(*(column[rows] for column in self.flat))


def train_macaw(
    agent: MACAW,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    steps: int | None = None,
    log_every: int = 200,
) -> Iterator[tuple[int, Metrics]]:
    """Meta-train on static data: outer steps of `numbers.tasks` tasks each.

    Args:
        agent: updated in place.
        buffer: all static transitions are used, exploration included.
        family, tasks: not used.
        steps: outer steps from now on; default `numbers.steps`.
        log_every: steps between two yields.

    Yields, Raises:
        As `train_offline`; a task without a whole episode raises ValueError.
    """
    n = agent.numbers
    steps = n.steps if steps is None else steps
    check_counts(steps=steps, log_every=log_every)
    check_buffer(agent, buffer)
    fit_scaling(agent.parts.values(), buffer)
    data = OutcomeData(buffer, agent.config.discount)

    def learn() -> Info:
        chosen = buffer.draw_tasks(n.tasks, agent.generator)
        inner = data.sample(chosen, n.inner_batch_size, agent.generator, n.contiguous)
        return agent.update(Meta(inner, data.sample(chosen, n.batch_size, agent.generator, contiguous=False)))

    yield from metered(learn, steps, log_every)
