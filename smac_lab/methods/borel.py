"""BOReL: learn a belief over tasks, then a policy that acts on state and belief."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smac_lab.actor_critic import (
    Actor,
    Critics,
    act,
    bellman_error,
    bellman_target,
    detached_values,
)
from smac_lab.batch import Info
from smac_lab.config import SMACConfig
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.data.episodes import EpisodeData, Trajectories
from smac_lab.data.relabel import check_relabelling, shared_between_tasks
from smac_lab.data.validation import check_buffer
from smac_lab.encoder import Gaussian, kl_divergence, make_context
from smac_lab.engine.learner import Objective, Part
from smac_lab.engine.meter import Metrics, check_counts, metered
from smac_lab.engine.method import Method
from smac_lab.engine.seeds import Generators, draw
from smac_lab.nets import MLP, polyak_update
from smac_lab.tasks.family import TaskFamily
from smac_lab.tasks.spec import FamilySpec, Tasks, only_set


@dataclass(frozen=True)
class BOReLNumbers:
    """Numbers of BOReL beside the config; the defaults are the authors' unless noted."""

    relabel: bool = True  # half of the belief's data are other tasks' trajectories, relabelled
    belief_updates: int = 5_000
    belief_rate: float = 3e-4
    belief_tasks: int = 4  # per update, each with `trajectories` trajectories
    trajectories: int = 4
    episodes: int = 3  # per trajectory; the belief is carried through
    embeddings: tuple[int, int, int] = (32, 16, 16)  # of state, action and reward
    hidden: int = 128  # of the recurrent network
    latent: int = 5
    decoder_hidden: tuple[int, ...] = (32, 32)
    kl_weight: float = 0.05
    decoded_beliefs: int = 32  # steps whose beliefs are decoded, drawn at random; authors: all
    decoded_rewards: int = 128  # rewards per decoded belief, drawn at random; authors: all
    policy_updates: int = 1_000_000
    policy_rate: float = 3e-4
    policy_tasks: int = 16
    batch_size: int = 256
    policy_hidden: tuple[int, ...] = (256, 256)
    temperature: float = 0.2  # alpha of soft actor-critic
    tau: float = 0.005
    cql_weight: float = 0.0  # weight of `conservatism`
    cql_actions: int = 4  # per state for that term, uniform and the policy's each


class TrajectoryBatch(NamedTuple):
    """Trajectories of several tasks, `(trajectory, time, ...)`, and the steps to decode."""

    context: Tensor  # (trajectory, time, context_dim)
    inputs: Tensor  # s, a and s' of the decoded rewards, (trajectory, decoded_rewards, dim)
    rewards: Tensor  # (trajectory, decoded_rewards)
    beliefs: Tensor  # steps whose beliefs are decoded, (trajectory, decoded_beliefs)
    noise: Tensor  # (trajectory, decoded_beliefs, latent)


class BeliefBatch(NamedTuple):
    """Transitions with the belief before and after, `(task, batch, dim)` and `(task, batch)`."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminations: Tensor
    belief: Tensor  # mean and log variance, (task, batch, 2 latent)
    next_belief: Tensor
    noise: Tensor  # (2 + 2 cql_actions, task, batch, action_dim): for a', a, the policy's and uniform actions


class BeliefEncoder(nn.Module):
    """q(m|h_t) after every step: embeddings, a gated recurrent unit, a Gaussian of size `latent`.

    Args:
        spec, numbers: sizes.
    """

    def __init__(self, spec: FamilySpec, numbers: BOReLNumbers):
        super().__init__()
        n = numbers
        obs, act = spec.obs_dim, spec.action_dim
        rest = spec.context_dim - obs - act - 1  # s', if tasks differ in dynamics
        widths = (obs, act, 1, *((rest,) if rest else ()))
        self.widths = widths
        sizes = (*n.embeddings, *((n.embeddings[0],) if rest else ()))
        self.embed = nn.ModuleList(nn.Linear(width, size) for width, size in zip(widths, sizes, strict=True))
        self.gru = nn.GRU(sum(sizes), n.hidden, batch_first=True)
        for name, parameter in self.gru.named_parameters():
            nn.init.orthogonal_(parameter) if "weight" in name else nn.init.zeros_(parameter)
        self.out = nn.Linear(n.hidden, 2 * n.latent)

    def forward(self, context: Tensor, hidden: Tensor) -> Tensor:
        """Return hidden states after each step, `(n, time, hidden)`, from `(n, time, context_dim)`, `(n, hidden)`."""
        pieces = context.split(self.widths, dim=-1)
        embedded = [torch.relu(layer(piece)) for layer, piece in zip(self.embed, pieces, strict=True)]
        return self.gru(torch.cat(embedded, dim=-1), hidden.unsqueeze(0))[0]

    def belief(self, hidden: Tensor) -> Tensor:
        """Return mean and log variance, `(..., 2 latent)`."""
        return self.out(hidden)


def gaussian(belief: Tensor) -> Gaussian:
    """Convert mean and log variance, `(..., 2 latent)`, to a Gaussian."""
    mean, log_variance = belief.chunk(2, dim=-1)
    return Gaussian(mean, (0.5 * log_variance).exp())


# -- equations -------------------------------------------------------------------------------------------
def change_of_belief(beliefs: Gaussian) -> Tensor:
    """sum_t KL(q_t || q_{t-1}) with q_{-1} = N(0, I), `(trajectory,)`, in nats; from `(trajectory, time, latent)`."""
    start = torch.zeros_like(beliefs.mean[:, :1])
    before = Gaussian(
        torch.cat([start, beliefs.mean[:, :-1]], dim=1), torch.cat([start + 1.0, beliefs.std[:, :-1]], dim=1)
    )
    return kl_divergence(beliefs, before).sum(-1)


def conservatism(values: Tensor, data_values: Tensor) -> Tensor:
    """E[log sum_a exp Q(s, a) - Q(s, a_data)], summed over critics (Kumar et al., CQL, 2020, eq. 4 as CQL(H)).

    Args:
        values: of drawn actions, minus their log-probabilities, `(action, critic, ...)`.
        data_values: `(critic, ...)`.
    """
    return (values.logsumexp(0) - data_values).flatten(1).mean(1).sum()


class BOReL(Method):
    """Bayes-adaptive offline RL (Dorfman et al., NeurIPS 2021, arXiv 2008.02598).

    BOReL adapts a belief q(m|h_t), which it updates after every step, also in the last episode. The policy reads the
    state, and mean and log variance of the belief.

    Args:
        config: discount, device and protocol are read.
        spec, seed: as SMAC's; one seed.
        numbers: BOReL's numbers.
        encoder, decoder, actor, critics: passed by `Learner.remade`.

    Raises:
        ValueError: there are several seeds.
    """

    trainable = ("encoder", "decoder", "actor", "critics")
    reads_episodes = True
    adapts_while_exploring = True
    encoder: Any
    decoder: Any
    actor: Any
    critics: Any

    def __init__(
        self,
        config: SMACConfig,
        spec: FamilySpec,
        *,
        seed: int | Sequence[int] = 0,
        numbers: BOReLNumbers | None = None,
        encoder: Part | None = None,
        decoder: Part | None = None,
        actor: Part | None = None,
        critics: Part | None = None,
    ):
        super().__init__(config, spec, seed)
        if self.seeds is not None:
            raise ValueError(f"seed={seed!r} is not allowed: BOReL learns one seed at a time")
        self.numbers = numbers or BOReLNumbers()
        given = {"encoder": encoder, "decoder": decoder, "actor": actor, "critics": critics}
        self.encoder, self.decoder, self.actor, self.critics = self.make(given, self._new)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)

    def _new(self, name: str) -> nn.Module:
        n, spec = self.numbers, self.spec
        if name == "encoder":
            return BeliefEncoder(spec, n)
        if name == "decoder":
            return MLP(n.latent + 2 * spec.obs_dim + spec.action_dim, n.decoder_hidden, 1)
        kind: Any = Actor if name == "actor" else Critics
        return kind(spec.obs_dim, spec.action_dim, 2 * n.latent, n.policy_hidden)

    # -- losses ------------------------------------------------------------------------------------------
    def belief_loss(self, batch: TrajectoryBatch) -> tuple[Tensor, Info]:
        """Compute the negative ELBO of a trajectory's rewards (Dorfman et al., eq. 3; Zintgraf et al., VariBAD, eq. 6).

        mean_t sum_k (r_hat(s_k, a_k, s'_k, m_t) - r_k)^2 + kl_weight sum_t KL(q_t || q_{t-1}), m_t ~ q_t, averaged over
        trajectories. Steps t and k are drawn at random; the sum over k is scaled up to the trajectory.
        """
        n, steps = self.numbers, batch.context.shape[1]
        start = batch.context.new_zeros(len(batch.context), n.hidden)
        beliefs = gaussian(self.encoder.belief(self.encoder(batch.context, start)))
        index = batch.beliefs.unsqueeze(-1).expand(-1, -1, n.latent)
        m = Gaussian(beliefs.mean.gather(1, index), beliefs.std.gather(1, index)).sample(batch.noise)
        count = batch.inputs.shape[1]
        both = torch.cat(
            [
                m.unsqueeze(2).expand(-1, -1, count, -1),
                batch.inputs.unsqueeze(1).expand(-1, m.shape[1], -1, -1),
            ],
            dim=-1,
        )
        error = (self.decoder(both).squeeze(-1) - batch.rewards.unsqueeze(1)).square()  # (trajectory, t, k)
        kl = change_of_belief(beliefs)
        loss = (error.mean((1, 2)) * steps + n.kl_weight * kl).mean()
        return loss, {"belief_loss": loss, "reward_error": error.mean(), "kl": kl.mean()}

    def policy_loss(self, batch: BeliefBatch) -> tuple[Tensor, Info]:
        """Compute soft actor-critic's losses (Haarnoja et al., 2018) on states with beliefs.

        Critics: `bellman_error` against r + gamma (1 - terminated) V(s', b'), where V(s', b') is
        min_k Q_target_k(s', a', b') - alpha log pi(a'|s', b') with a' ~ pi.
        Actor: E[alpha log pi(a|s, b) - min_k Q_k(s, a, b)]. `conservatism` is weighted by `cql_weight`, 0 by default.
        """
        n = self.numbers
        with torch.no_grad():
            next_actions, next_log_probs = self._act(batch.next_observations, batch.next_belief, batch.noise[0])
            next_values = self.target_critics(batch.next_observations, next_actions, batch.next_belief).amin(0)
            soft = next_values - n.temperature * next_log_probs
            targets = bellman_target(batch.rewards, batch.terminations, soft, self.config.discount)
        values = self.critics(batch.observations, batch.actions, batch.belief)
        critic = bellman_error(values, targets)

        actions, log_probs = self._act(batch.observations, batch.belief, batch.noise[1])
        judged = detached_values(self.critics, batch.observations, actions, batch.belief).amin(0)
        actor = (n.temperature * log_probs - judged).mean()
        info = {"critic_loss": critic, "actor_loss": actor, "q_mean": values.mean(), "entropy": -log_probs.mean()}
        loss = critic + actor
        if n.cql_weight:
            info["conservatism"] = self._conservatism(batch, values)
            loss = loss + n.cql_weight * info["conservatism"]
        return loss, info

    def _conservatism(self, batch: BeliefBatch, data_values: Tensor) -> Tensor:
        n, own = self.numbers, batch.noise[2 : 2 + self.numbers.cql_actions]
        uniform = torch.erf(batch.noise[2 + n.cql_actions :] * 0.5**0.5)  # N(0, 1) to U(-1, 1)
        with torch.no_grad():
            acted, log_probs = self._act(
                batch.observations.expand(len(own), -1, -1, -1), batch.belief.expand(len(own), -1, -1, -1), own
            )
        density = torch.full_like(log_probs, -self.spec.action_dim * np.log(2.0))
        actions, densities = torch.cat([uniform, acted]), torch.cat([density, log_probs])
        many = (len(actions), -1, -1, -1)
        values = self.critics(batch.observations.expand(*many), actions, batch.belief.expand(*many))
        return conservatism((values - densities).movedim(1, 0), data_values)

    def _act(self, observations: Tensor, belief: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(observations, belief)
        return act(mean, log_std, noise)

    # -- numbers and parts -------------------------------------------------------------------------------
    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by name."""
        names = ("encoder", "decoder", "actor", "critics", "target_critics")
        return {name: getattr(self, name) for name in names}

    @property
    def objectives(self) -> dict[str, Objective]:
        """Objectives of belief and policy, in this order."""
        return {
            "belief": Objective("belief", self.belief_loss, ("encoder", "decoder")),
            "policy": Objective("policy", self.policy_loss, ("actor", "critics")),
        }

    @property
    def learning_rate(self) -> float:
        """Adam's rate for actor and critics."""
        return self.numbers.policy_rate

    @property
    def rates(self) -> dict[str, float]:
        """See `Learner.rates`."""
        return dict.fromkeys(("encoder", "decoder"), self.numbers.belief_rate / self.numbers.policy_rate)

    def after_step(self, trained: Sequence[str]) -> None:
        """Update the slow copy of the critics if they were trained."""
        if "critics" in trained:
            polyak_update(self.target_critics, self.critics, self.numbers.tau)

    def draw_noise(self, batch: Any) -> Any:
        """Return the batch's noise."""
        return batch.noise

    # -- acting ------------------------------------------------------------------------------------------
    def unadapted(self, simulations: int) -> Tensor:
        """Return the first hidden state, `(simulation, hidden)`."""
        return torch.zeros(simulations, self.numbers.hidden, device=self.device)

    @torch.inference_mode()
    def adapt(self, context: Tensor) -> Tensor:
        """Compute the hidden state after whole episodes."""
        context = self.checked(context)
        return self.encoder(context, self.unadapted(len(context)))[:, -1]

    def posterior(self, adapted: Tensor) -> Gaussian:
        """Return q(m|h)."""
        with torch.inference_mode():
            return gaussian(self.encoder.belief(adapted))

    def policy(self, adapted: Tensor, generator: Generators, deterministic: bool = True) -> BeliefPolicy:
        """See `Method.policy`; the belief is updated while the policy acts."""
        return BeliefPolicy(self, adapted, generator, deterministic)


class BeliefPolicy:
    """Policy that updates the belief after each step."""

    def __init__(self, agent: BOReL, hidden: Tensor, generator: Generators, deterministic: bool):
        self.agent, self.hidden, self.generator, self.deterministic = agent, hidden, generator, deterministic
        self.seen: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, observations: NDArray[np.float64]) -> NDArray[np.floating]:
        """Return the actions of the next step."""
        agent = self.agent
        self.seen = agent.tensor(observations)
        mean, log_std = agent.actor(self.seen, agent.encoder.belief(self.hidden))
        if not self.deterministic:
            mean = mean + log_std.exp() * draw(torch.randn, mean.shape, self.generator)
        return torch.tanh(mean).cpu().numpy()

    @torch.inference_mode()
    def watch(
        self, actions: NDArray[np.float64], rewards: NDArray[np.float64], next_observations: NDArray[np.float64]
    ) -> None:
        """Update the belief by the last step."""
        assert self.seen is not None
        tensor = self.agent.tensor
        context = _context(self.agent.spec, self.seen, tensor(actions), tensor(rewards), tensor(next_observations))
        self.hidden = self.agent.encoder(context.unsqueeze(1), self.hidden)[:, -1]


def _context(spec: FamilySpec, observations: Tensor, actions: Tensor, rewards: Tensor, following: Tensor) -> Tensor:
    return make_context(observations, actions, rewards, following if spec.includes_next else None)


# -- learning --------------------------------------------------------------------------------------------
def check_borel(family: TaskFamily, numbers: BOReLNumbers) -> None:
    """Raise ValueError if `relabel` is set and other tasks' rewards cannot be computed."""
    if numbers.relabel:
        check_relabelling(family)


def train_borel(
    agent: BOReL,
    buffer: TransitionBuffer,
    family: TaskFamily,
    tasks: Tasks | Sequence[Tasks],
    steps: int | None = None,
    log_every: int = 200,
) -> Iterator[tuple[int, Metrics]]:
    """Learn the belief, add it to all states, then learn the policy (Dorfman et al., algorithm 1).

    Args:
        agent: updated in place, from `agent.updates` on.
        buffer: all static transitions are used, exploration included.
        family, tasks: for other tasks' rewards, if `numbers.relabel`; `tasks[i]` is the buffer's task `i`.
        steps: updates from now on; default: the rest of both stages.
        log_every: updates between two yields.

    Yields, Raises:
        As `train_offline`; ValueError if rewards cannot be relabelled or a task has no whole episode.
    """
    n = agent.numbers
    left = n.belief_updates + n.policy_updates - agent.updates
    steps = max(0, left) if steps is None else steps
    check_counts(steps=steps, log_every=log_every)
    check_buffer(agent, buffer)
    check_borel(family, n)
    done, own, tasks = 0, EpisodeData(buffer), only_set(tasks)

    # learning the belief
    first = min(steps, max(0, n.belief_updates - agent.updates))
    if first:
        mixed = own
        if n.relabel:
            lent = int(buffer.offline_counts.min()) // family.horizon
            mixed = EpisodeData(shared_between_tasks(buffer, family, tasks, lent, seed=int(agent.seed)))
        learn_belief = _belief_step(agent, buffer, mixed)
        for done, metrics in metered(learn_belief, first, log_every):
            yield done, metrics

    # learning the policy on states with beliefs
    if steps > first:
        learn_policy = _policy_step(agent, buffer, BeliefData(agent, own))
        for step, metrics in metered(learn_policy, steps - first, log_every):
            yield done + step, metrics


def _belief_step(agent: BOReL, buffer: TransitionBuffer, data: EpisodeData) -> Callable[[], Info]:
    n = agent.numbers

    def learn() -> Info:
        tasks = buffer.draw_tasks(n.belief_tasks, agent.generator)
        t = trajectories_of(data, tasks, n.trajectories, n.episodes, agent.generator)
        count, steps = t.rewards.shape
        k = draw(torch.rand, (count, n.decoded_rewards), agent.generator)
        k = (k * steps).long()
        beliefs = (draw(torch.rand, (count, n.decoded_beliefs), agent.generator) * steps).long()
        every = torch.cat([t.observations, t.actions, t.next_observations], dim=-1)
        inputs = every.gather(1, k.unsqueeze(-1).expand(-1, -1, every.shape[-1]))
        noise = agent.normal(count, n.decoded_beliefs, n.latent)
        context = _context(agent.spec, t.observations, t.actions, t.rewards, t.next_observations)
        batch = TrajectoryBatch(context, inputs, t.rewards.gather(1, k), beliefs, noise)
        return agent.update(batch, agent.objectives["belief"])

    return learn


def trajectories_of(data: EpisodeData, tasks: Tensor, each: int, episodes: int, generator: Generators) -> Trajectories:
    """Draw `each` trajectories of `episodes` random episodes per task, `(task * each, time, ...)`."""
    drawn = data.sample(tasks, each * episodes, generator).reshape(-1, episodes)
    return Trajectories(*[column[drawn].flatten(1, 2) for column in data.all])


class BeliefData:
    """Static transitions with beliefs, in trajectories of random episodes.

    Only the agent's seed determines the draw, so a resumed run has the same trajectories.
    """

    def __init__(self, agent: BOReL, data: EpisodeData):
        n, device = agent.numbers, agent.device
        generator = torch.Generator(device).manual_seed(int(agent.seed))
        each = -(-int(data.count.max()) // n.episodes)
        found: list[list[Tensor]] = []
        with torch.inference_mode():
            for task in torch.arange(len(data.count), device=device):
                t = trajectories_of(data, task.reshape(1), each, n.episodes, generator)
                context = _context(agent.spec, t.observations, t.actions, t.rewards, t.next_observations)
                start = agent.unadapted(len(context))
                hidden = torch.cat([start.unsqueeze(1), agent.encoder(context, start)], dim=1)
                belief = agent.encoder.belief(hidden)
                found.append([column.flatten(0, 1) for column in (*t[:5], belief[:, :-1], belief[:, 1:])])
        self.columns = [torch.stack(column).clone() for column in zip(*found, strict=True)]  # (task, transition, ...)
        self.size = self.columns[2].shape[1]

    def sample(self, agent: BOReL, tasks: Tensor) -> BeliefBatch:
        """Draw a meta-batch of these tasks."""
        n = agent.numbers
        rows = (draw(torch.rand, (len(tasks), n.batch_size), agent.generator) * self.size).long()
        draws = 2 + (2 * n.cql_actions if n.cql_weight else 0)
        noise = agent.normal(draws, len(tasks), n.batch_size, agent.spec.action_dim)
        return BeliefBatch(*[*(column[tasks.unsqueeze(1), rows] for column in self.columns), noise])


def _policy_step(agent: BOReL, buffer: TransitionBuffer, data: BeliefData) -> Callable[[], Info]:
    def learn() -> Info:
        tasks = buffer.draw_tasks(agent.numbers.policy_tasks, agent.generator)
        return agent.update(data.sample(agent, tasks), agent.objectives["policy"])

    return learn
