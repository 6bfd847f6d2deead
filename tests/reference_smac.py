"""SMAC, the textbook version: the paper's equations one after another in the plainest PyTorch.

Nothing here is shared with the library. Networks are dictionaries of weights, the two critics are two networks,
every loss is differentiated by itself with respect to the weights that it trains, and Adam and the Polyak average
are written out. Read it beside Pong et al., "Offline Meta-Reinforcement Learning with Online Self-Supervision",
ICML 2022; the tests hold the library against it.

Shapes: `task, batch, dim` for transitions, `task, n, context_dim` for context, `task, z_dim` for posteriors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution, kl_divergence
from torch.nn import functional

if TYPE_CHECKING:
    from smac_lab.agent import SMAC
    from smac_lab.batch import Batch

Net = dict[str, Tensor]  # "weight 0" (out, in), "bias 0" (out,), "weight 1", ...
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Numbers:
    """The numbers in the equations."""

    discount: float = 0.99  # gamma
    reward_scale: float = 5.0  # in the Bellman target only
    kl_weight: float = 0.1
    kl_reduction: Literal["mean", "sum"] = "mean"  # of the KL over tasks
    awac_lambda: float = 100.0  # lambda
    awac_weight: Literal["softmax", "exp"] = "softmax"
    online_awac_weight: float = 1.0  # in the self-supervised phase
    online_q_weight: float = 1.0
    learning_rate: float = 3e-4  # Adam's alpha
    tau: float = 0.005


# -- networks --------------------------------------------------------------------------------------------
def mlp(net: Net, x: Tensor) -> Tensor:
    """x_{l+1} = relu(W_l x_l + b_l); the last layer has no relu."""
    layers = len(net) // 2
    for layer in range(layers):
        x = functional.linear(x, net[f"weight {layer}"], net[f"bias {layer}"])
        if layer < layers - 1:
            x = torch.relu(x)
    return x


def product_of_gaussians(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """prod_n N(z; mu_n, sigma_n^2), `(task, n, z_dim)` to mean and standard deviation `(task, z_dim)`.

    1 / sigma^2 = sum_n 1 / sigma_n^2,    mu = sigma^2 sum_n mu_n / sigma_n^2    (PEARL, eq. 2)
    """
    precisions = 1.0 / torch.clamp(variances, min=1e-7)
    variance = 1.0 / precisions.sum(dim=1)
    mean = variance * (means * precisions).sum(dim=1)
    return mean, torch.sqrt(variance)


def infer(encoder: Net, context: Tensor) -> Normal:
    """q(z|h) of every task: each transition of h gives one Gaussian factor."""
    output = mlp(encoder, context)  # (task, n, 2 z_dim)
    z_dim = output.shape[-1] // 2
    mean, std = product_of_gaussians(output[..., :z_dim], functional.softplus(output[..., z_dim:]))
    return Normal(mean, std, validate_args=False)


def draw_z(posterior: Normal, noise: Tensor, batch_size: int) -> Tensor:
    """z = mu + sigma * noise, one draw a task, repeated for each of its transitions, `(task, batch, z_dim)`."""
    z = posterior.mean + posterior.stddev * noise
    return z.unsqueeze(1).expand(-1, batch_size, -1)


def gaussian_policy(actor: Net, observations: Tensor, z: Tensor) -> Normal:
    """N(mean(s, z), std(s, z)); its tanh is the action."""
    output = mlp(actor, torch.cat([observations, z], dim=-1))
    action_dim = output.shape[-1] // 2
    mean, log_std = output[..., :action_dim], torch.clamp(output[..., action_dim:], -20.0, 2.0)
    return Normal(mean, torch.exp(log_std), validate_args=False)


def act(gaussian: Normal, noise: Tensor) -> Tensor:
    """a = tanh(mean + std * noise)."""
    return torch.tanh(gaussian.mean + gaussian.stddev * noise)


def value(critic: Net, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
    """Q(s, a, z), `(task, batch)`."""
    return mlp(critic, torch.cat([observations, actions, z], dim=-1))[..., 0]


# -- losses ----------------------------------------------------------------------------------------------
def reward_error(decoder: Net, batch: Batch, z: Tensor) -> Tensor:
    """E[(r - r_hat(s, a, z))^2], with the unscaled reward."""
    predicted = mlp(decoder, torch.cat([batch.observations, batch.actions, z], dim=-1))[..., 0]
    return torch.mean((batch.rewards - predicted) ** 2)


def kl_to_prior(posterior: Normal, reduction: str) -> Tensor:
    """KL(q(z|h) || N(0, I)), summed over the dimensions of z, averaged (or summed) over tasks."""
    prior = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean), validate_args=False)
    kl = kl_divergence(posterior, prior).sum(dim=-1)  # (task,)
    return kl.mean() if reduction == "mean" else kl.sum()


def bellman_target(smac: ReferenceSMAC, batch: Batch, z: Tensor) -> Tensor:
    """y = reward_scale r + gamma (1 - terminated) min_k Q_target_k(s', a', z), a' ~ pi(.|s', z').

    z' is z itself; the authors' code draws it a second time, which is `noise.next_z`.
    """
    assert batch.noise is not None
    numbers, nets = smac.numbers, smac.nets
    with torch.no_grad():
        actor_z = z if batch.noise.next_z is None else batch.noise.next_z
        policy = gaussian_policy(nets["actor"], batch.next_observations, actor_z)
        next_actions = act(policy, batch.noise.next_action)
        next_1 = value(nets["target 1"], batch.next_observations, next_actions, z)
        next_2 = value(nets["target 2"], batch.next_observations, next_actions, z)
        bootstrap = numbers.discount * (1.0 - batch.terminations) * torch.minimum(next_1, next_2)
        return numbers.reward_scale * batch.rewards + bootstrap


def awac_weights(advantages: Tensor, awac_lambda: float, kind: str) -> Tensor:
    """exp(A / lambda) (paper), or that divided by its mean over the whole batch (authors' code)."""
    if kind == "exp":
        return torch.exp(advantages / awac_lambda)
    weights = torch.exp((advantages - advantages.max()) / awac_lambda)  # the maximum cancels; nothing overflows
    return weights / weights.mean()


def log_prob(gaussian: Normal, actions: Tensor) -> Tensor:
    """log pi(a) of a = tanh(u), u ~ gaussian: log N(u) - sum log(1 - a^2), `(task, batch)`."""
    policy = TransformedDistribution(gaussian, TanhTransform(), validate_args=False)
    log_probs: Tensor = policy.log_prob(torch.clamp(actions, -0.999999, 0.999999))
    return log_probs.sum(dim=-1)


def awac_loss(policy: Normal, batch: Batch, advantages: Tensor, numbers: Numbers) -> Tensor:
    """-E[w(A) log pi(a|s, z)], the advantages being constants."""
    weights = awac_weights(advantages.detach(), numbers.awac_lambda, numbers.awac_weight)
    return -torch.mean(weights * log_prob(policy, batch.actions))


# -- what each phase minimises, and the gradients --------------------------------------------------------
def gradients_of(loss: Tensor, *nets: Net) -> list[Net]:
    """d loss / d weights of each network, in one pass back through what they share."""
    weights = [weight for net in nets for weight in net.values()]
    found = iter(torch.autograd.grad(loss, weights))
    return [{name: next(found) for name in net} for net in nets]


def offline_gradients(smac: ReferenceSMAC, batch: Batch) -> tuple[Losses, dict[str, Net]]:
    """Algorithm 1: encoder and decoder explain rewards, critics fit the Bellman target, the actor imitates (AWAC).

    encoder, decoder: E[(r - r_hat)^2] + kl_weight KL
    critic k:         E[(y - Q_k(s, a, z))^2]
    actor:            -E[w(A) log pi(a|s, z)],   A = min_k Q_k(s, a, z) - min_k Q_k(s, a_pi, z),   a_pi ~ pi(.|s, z)
    """
    assert batch.noise is not None
    numbers, nets = smac.numbers, smac.nets
    obs, actions = batch.observations, batch.actions

    posterior = infer(nets["encoder"], batch.context)
    z = draw_z(posterior, batch.noise.z, obs.shape[1])
    error, kl = reward_error(nets["decoder"], batch, z), kl_to_prior(posterior, numbers.kl_reduction)
    reward_loss = error + numbers.kl_weight * kl

    z = z.detach()  # only the reward loss trains the encoder
    target = bellman_target(smac, batch, z)
    q1, q2 = value(nets["critic 1"], obs, actions, z), value(nets["critic 2"], obs, actions, z)
    critic_loss_1, critic_loss_2 = torch.mean((target - q1) ** 2), torch.mean((target - q2) ** 2)

    policy = gaussian_policy(nets["actor"], obs, z)
    with torch.no_grad():
        own_actions = act(policy, batch.noise.action)
        v1, v2 = value(nets["critic 1"], obs, own_actions, z), value(nets["critic 2"], obs, own_actions, z)
        advantages = torch.minimum(q1, q2) - torch.minimum(v1, v2)
    actor_loss = awac_loss(policy, batch, advantages, numbers)

    losses = {"reward_error": error, "kl": kl, "critic_loss": critic_loss_1 + critic_loss_2, "awac_loss": actor_loss}
    losses["loss"] = reward_loss + critic_loss_1 + critic_loss_2 + actor_loss
    gradients: dict[str, Net] = {}
    gradients["encoder"], gradients["decoder"] = gradients_of(reward_loss, nets["encoder"], nets["decoder"])
    (gradients["critic 1"],) = gradients_of(critic_loss_1, nets["critic 1"])
    (gradients["critic 2"],) = gradients_of(critic_loss_2, nets["critic 2"])
    (gradients["actor"],) = gradients_of(actor_loss, nets["actor"])
    return losses, gradients


def self_supervised_gradients(
    smac: ReferenceSMAC, batch: Batch, learners: tuple[str, ...] = ()
) -> tuple[Losses, dict[str, Net]]:
    """Algorithm 2: critics as before; the actor imitates and also climbs its critics.

    critic k: E[(y - Q_k(s, a, z))^2]
    actor:    awac_weight * AWAC + q_weight * -E[min_k Q_k(s, a_pi, z)],   a_pi = tanh(mean + std * noise)
    learners: none (the paper); the encoder (self-labelled); or encoder and decoder (the oracle, on true rewards).
              They minimise E[(r - r_hat)^2] + kl_weight KL, r being whatever reward the batch carries.
    """
    assert batch.noise is not None
    numbers, nets = smac.numbers, smac.nets
    obs, actions = batch.observations, batch.actions
    losses: Losses = {}
    gradients: dict[str, Net] = {}

    with torch.set_grad_enabled(bool(learners)):
        posterior = infer(nets["encoder"], batch.context)
        z = draw_z(posterior, batch.noise.z, obs.shape[1])
    if learners:
        losses["reward_error"] = reward_error(nets["decoder"], batch, z)
        losses["kl"] = kl_to_prior(posterior, numbers.kl_reduction)
        reward_loss = losses["reward_error"] + numbers.kl_weight * losses["kl"]
        gradients |= dict(zip(learners, gradients_of(reward_loss, *(nets[n] for n in learners)), strict=True))

    z = z.detach()
    target = bellman_target(smac, batch, z)
    q1, q2 = value(nets["critic 1"], obs, actions, z), value(nets["critic 2"], obs, actions, z)
    critic_loss_1, critic_loss_2 = torch.mean((target - q1) ** 2), torch.mean((target - q2) ** 2)
    (gradients["critic 1"],) = gradients_of(critic_loss_1, nets["critic 1"])
    (gradients["critic 2"],) = gradients_of(critic_loss_2, nets["critic 2"])

    policy = gaussian_policy(nets["actor"], obs, z)
    own_actions = act(policy, batch.noise.action)
    v1, v2 = value(nets["critic 1"], obs, own_actions, z), value(nets["critic 2"], obs, own_actions, z)
    own_values = torch.minimum(v1, v2)
    losses["critic_loss"] = critic_loss_1 + critic_loss_2
    losses["awac_loss"] = awac_loss(policy, batch, torch.minimum(q1, q2) - own_values, numbers)
    losses["q_loss"] = -own_values.mean()
    actor_loss = numbers.online_awac_weight * losses["awac_loss"] + numbers.online_q_weight * losses["q_loss"]
    (gradients["actor"],) = gradients_of(actor_loss, nets["actor"])

    losses["loss"] = losses["critic_loss"] + actor_loss + (reward_loss if learners else 0.0)
    return losses, gradients


# -- one update ------------------------------------------------------------------------------------------
@dataclass
class Adam:
    """Kingma & Ba (2015), algorithm 1, for one network.

    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2,
    theta <- theta - alpha (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
    """

    alpha: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    t: int = 0
    m: Net = field(default_factory=dict)
    v: Net = field(default_factory=dict)

    @torch.no_grad()
    def step(self, net: Net, gradients: Net) -> None:
        """Move the weights of `net` in place."""
        if self.t == 0:
            self.m, self.v = ({name: torch.zeros_like(g) for name, g in gradients.items()} for _ in range(2))
        self.t += 1
        for name, g in gradients.items():
            m, v = self.m[name], self.v[name]
            m.mul_(self.b1).add_(g, alpha=1 - self.b1)
            v.mul_(self.b2).addcmul_(g, g, value=1 - self.b2)
            v_hat = v / (1 - self.b2**self.t)
            net[name].addcdiv_(m, torch.sqrt(v_hat) + self.eps, value=-self.alpha / (1 - self.b1**self.t))


@torch.no_grad()
def polyak(target: Net, source: Net, tau: float) -> None:
    """theta_target <- (1 - tau) theta_target + tau theta, in place."""
    for name, weight in source.items():
        target[name].lerp_(weight, tau)


@dataclass
class ReferenceSMAC:
    """Weights and optimizers.

    Args:
        nets: "actor", "critic 1", "critic 2", "target 1", "target 2", "encoder", "decoder". Weights are leaves that
            require gradients, except the targets'.
        numbers: of the equations.
    """

    nets: dict[str, Net]
    numbers: Numbers
    adam: dict[str, Adam] = field(default_factory=dict)

    def offline_update(self, batch: Batch) -> Losses:
        """One update of the offline phase."""
        losses, gradients = offline_gradients(self, batch)
        self.apply(gradients)
        return losses

    def self_supervised_update(self, batch: Batch) -> Losses:
        """One update of the self-supervised phase, encoder and decoder frozen."""
        losses, gradients = self_supervised_gradients(self, batch)
        self.apply(gradients)
        return losses

    def self_labelled_update(self, batch: Batch) -> Losses:
        """One update of the self-supervised phase that trains the encoder, too."""
        losses, gradients = self_supervised_gradients(self, batch, ("encoder",))
        self.apply(gradients)
        return losses

    def oracle_update(self, batch: Batch) -> Losses:
        """One update of the oracle's second phase: everything learns."""
        losses, gradients = self_supervised_gradients(self, batch, ("encoder", "decoder"))
        self.apply(gradients)
        return losses

    def begin_phase(self) -> None:
        """Forget Adam's moments, for a phase that starts with fresh ones."""
        self.adam = {}

    def apply(self, gradients: dict[str, Net]) -> None:
        """Adam on every network that has a gradient, then the slow copies of the critics."""
        for name, net_gradient in gradients.items():
            adam = self.adam.setdefault(name, Adam(self.numbers.learning_rate))
            adam.step(self.nets[name], net_gradient)
        polyak(self.nets["target 1"], self.nets["critic 1"], self.numbers.tau)
        polyak(self.nets["target 2"], self.nets["critic 2"], self.numbers.tau)


# -- weights of the library's agent ----------------------------------------------------------------------
def copy_of(agent: SMAC) -> ReferenceSMAC:
    """A textbook agent with the same weights and numbers, all memory its own."""
    nets = nets_of(agent.parts, lambda parameter: parameter.detach().clone())
    for name, net in nets.items():
        for weight in net.values():
            weight.requires_grad_(not name.startswith("target"))
    return ReferenceSMAC(nets, Numbers(**{f.name: getattr(agent.config, f.name) for f in fields(Numbers)}))


def nets_of(parts: dict[str, nn.Module], pick: Callable[[nn.Parameter], Tensor]) -> dict[str, Net]:
    """The library's parts as seven networks; `pick` says what to take of each parameter (its value, its gradient)."""
    nets: dict[str, Net] = {}
    for name, part in (("actor", "actor"), ("encoder", "encoder"), ("decoder", "reward_decoder")):
        parameters = list(parts[part].parameters())  # weight, bias, weight, bias, ...
        nets[name] = {f"{'weight' if i % 2 == 0 else 'bias'} {i // 2}": pick(p) for i, p in enumerate(parameters)}
    for name, part in (("critic", "critics"), ("target", "target_critics")):
        both: Any = parts[part].net  # both critics in one: weights (critic, in, out), biases (critic, 1, out)
        for k in range(2):
            weights = {f"weight {layer}": pick(w)[k].T.contiguous() for layer, w in enumerate(both.weights)}
            biases = {f"bias {layer}": pick(b)[k, 0].contiguous() for layer, b in enumerate(both.biases)}
            nets[f"{name} {k + 1}"] = weights | biases
    return nets
