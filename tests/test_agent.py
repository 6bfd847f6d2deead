"""The agent: what each loss may move, parts and losses of one's own, and resuming to the bit."""

from __future__ import annotations

import copy
import io
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from conftest import Problem
from torch import Tensor, nn

import smac_lab as lab
from smac_lab import SMAC, Batch, SMACConfig, TransitionBuffer
from smac_lab.actor_critic import awac_loss, critic_loss, detached_values, q_loss
from smac_lab.batch import Info
from smac_lab.reward_model import reward_loss
from smac_lab.sampling import sample_offline, sample_self_supervised
from smac_lab.tasks import FamilySpec

SPEC = FamilySpec("made-up", obs_dim=3, action_dim=2, task_dim=1, feature_dim=1, context_dim=6, horizon=5)
CONFIG = SMACConfig(
    z_dim=4,
    encoder_hidden=(8,),
    decoder_hidden=(8,),
    actor_hidden=(8,),
    critic_hidden=(8,),
    meta_batch=2,
    online_meta_batch=2,
    batch_size=6,
    online_batch_size=6,
    context_size=5,
    device="cpu",
)
PHASES = ("offline", "self-supervised", "self-labelled", "oracle", "inference")


def make_batch(agent: SMAC, tasks: int = 3, seed: int = 0) -> Batch:
    """Random numbers with noise, `tasks` tasks of six transitions and five of context."""
    spec, generator = agent.spec, torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    batch = Batch(
        observations=normal(tasks, 6, spec.obs_dim),
        actions=normal(tasks, 6, spec.action_dim).tanh(),
        rewards=normal(tasks, 6),
        next_observations=normal(tasks, 6, spec.obs_dim),
        terminations=(normal(tasks, 6) > 1).float(),
        context=normal(tasks, 5, spec.context_dim),
    )
    return batch._replace(noise=agent.draw_noise(batch))


def make_agent(**options: Any) -> SMAC:
    """A small agent whose actor and targets are moved off their start, so that nothing is zero by accident."""
    agent = SMAC(CONFIG, SPEC, **options)
    with torch.no_grad():
        for parameter in [*agent.actor.parameters(), *agent.target_critics.parameters()]:
            parameter.add_(0.2)
    return agent


def snapshot(agent: SMAC) -> dict[str, dict[str, Tensor]]:
    return {name: {k: v.clone() for k, v in part.state_dict().items()} for name, part in agent.parts.items()}


def draw(agent: SMAC, batch: Batch) -> tuple[Any, Tensor]:
    """Posterior and z, as the losses get them, with gradients to the encoder."""
    assert batch.noise is not None
    q = lab.Gaussian(*agent.encoder(batch.context))
    return q, q.sample(batch.noise.z).unsqueeze(1).expand(-1, 6, -1)


def touched(agent: SMAC, loss: Tensor) -> set[str]:
    """Names of the parts to which a loss sends a gradient that is not zero."""
    names = {name: list(part.parameters()) for name, part in agent.parts.items() if name != "target_critics"}
    flat = [parameter for parameters in names.values() for parameter in parameters]
    gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    found = {name: [next(gradients) for _ in parameters] for name, parameters in names.items()}
    return {name for name, grads in found.items() if any(g is not None and bool(g.any()) for g in grads)}


# -- gradient routing ------------------------------------------------------------------------------------
def test_each_loss_reaches_its_own_parts_and_no_others() -> None:
    agent = make_agent()
    batch = make_batch(agent)
    posterior, z = draw(agent, batch)
    assert touched(agent, critic_loss(agent, batch, z)[0]) == {"critics"}
    assert touched(agent, awac_loss(agent, batch, z)[0]) == {"actor"}
    assert touched(agent, q_loss(agent, batch, z)[0]) == {"actor"}
    assert touched(agent, reward_loss(agent, batch, z, posterior)[0]) == {"encoder", "reward_decoder"}


def test_both_terms_of_the_reward_loss_reach_the_encoder() -> None:
    agent = make_agent()
    batch = make_batch(agent)
    for term, parts in (("reward_error", {"encoder", "reward_decoder"}), ("kl", {"encoder"})):
        posterior, z = draw(agent, batch)
        assert touched(agent, reward_loss(agent, batch, z, posterior)[1][term]) == parts


def test_target_critics_never_require_gradients() -> None:
    assert not any(parameter.requires_grad for parameter in make_agent().target_critics.parameters())


@pytest.mark.parametrize("loss", PHASES)
def test_what_should_move_moves_and_nothing_else(loss: str) -> None:
    """Every parameter of a trained part changes; the others stay equal to the bit, after several updates."""
    agent = make_agent()
    for seed in range(3):  # fill Adam's moments with every part trained, which a resting part must not feel
        agent.update(make_batch(agent, seed=seed))
    before = snapshot(agent)
    for seed in range(3, 6):
        agent.update(make_batch(agent, seed=seed), agent.objectives[loss])
    after, moving = snapshot(agent), set(agent.objectives[loss].trains)
    moving |= {"target_critics"} if "critics" in moving else set()
    for part, values in before.items():
        for name, value in values.items():
            assert torch.equal(after[part][name], value) != (part in moving), f"{part}.{name} after {loss}"


def test_phases_train_what_the_paper_says() -> None:
    assert {name: set(objective.trains) for name, objective in make_agent().objectives.items()} == {
        "offline": {"actor", "critics", "encoder", "reward_decoder"},
        "self-supervised": {"actor", "critics"},
        "self-labelled": {"actor", "critics", "encoder"},
        "oracle": {"actor", "critics", "encoder", "reward_decoder"},
        "inference": {"encoder", "reward_decoder"},
    }


def test_targets_follow_slowly() -> None:
    agent = make_agent()
    before = snapshot(agent)
    agent.update(make_batch(agent))
    after, tau = snapshot(agent), CONFIG.tau
    for name, value in after["target_critics"].items():
        torch.testing.assert_close(value, (1 - tau) * before["target_critics"][name] + tau * after["critics"][name])


# -- losses are functions --------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", PHASES)
@pytest.mark.parametrize("tasks", [1, 3])
def test_loss_is_a_scalar_and_deterministic(loss: str, tasks: int) -> None:
    agent = make_agent()
    batch, generator = make_batch(agent, tasks), agent.generator.get_state()
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        value, info = agent.objectives[loss].loss(batch)
        values.append(value)
        assert all(number.shape == () and number.isfinite() for number in info.values())
    assert values[0].shape == ()
    assert torch.equal(values[0], values[1])
    assert torch.equal(agent.generator.get_state(), generator)


def test_noise_matters() -> None:
    agent = make_agent()
    batch = make_batch(agent)
    other = batch._replace(noise=agent.draw_noise(batch))
    assert agent.offline_loss(batch)[0] != agent.offline_loss(other)[0]


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("next_z", ["shared", "resampled"])
def test_noise_shapes(tasks: int, next_z: str) -> None:
    agent = SMAC(SMACConfig(**{**CONFIG.to_dict(), "next_z": next_z}), SPEC)
    noise = make_batch(agent, tasks).noise
    assert noise is not None
    assert noise.z.shape == (tasks, 4)
    assert noise.action.shape == noise.next_action.shape == (tasks, 6, 2)
    assert not torch.equal(noise.action, noise.next_action)
    if next_z == "shared":
        assert noise.next_z is None
    else:
        assert noise.next_z is not None
        assert noise.next_z.shape == (tasks, 6, 4)
        assert torch.equal(noise.next_z[:, 0], noise.next_z[:, 5])  # one draw a task


def test_update_draws_missing_noise_from_the_agents_generator() -> None:
    given, drawn = make_agent(seed=3), make_agent(seed=3)
    batch = make_batch(given)._replace(noise=None)
    drawn.generator.set_state(given.generator.get_state())
    given.update(batch._replace(noise=given.draw_noise(batch)))
    drawn.update(batch)
    assert_equal_agents(given, drawn)
    assert given.updates == 1


def test_seed_makes_parameters_and_draws() -> None:
    same, other = SMAC(CONFIG, SPEC, seed=1), SMAC(CONFIG, SPEC, seed=2)
    torch.manual_seed(123)
    again = SMAC(CONFIG, SPEC, seed=1)
    assert_equal_agents(same, again)
    assert torch.equal(same.normal(3), again.normal(3))
    assert not torch.equal(next(same.actor.parameters()), next(other.actor.parameters()))


def test_targets_start_as_copies() -> None:
    agent = SMAC(CONFIG, SPEC)
    for target, source in zip(agent.target_critics.parameters(), agent.critics.parameters(), strict=True):
        assert torch.equal(target, source)
        assert target.data_ptr() != source.data_ptr()


# -- acting ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tasks", [1, 3])
def test_acting_shapes(tasks: int) -> None:
    agent = make_agent()
    q = agent.infer_posterior(torch.randn(tasks, 9, 6))
    assert q.mean.shape == q.std.shape == agent.prior(tasks).mean.shape == (tasks, 4)
    actions = agent.act(torch.randn(tasks, 3), q.mean)
    assert actions.shape == (tasks, 2)
    assert (abs(actions) < 1).all()


def test_deterministic_action_is_the_tanh_of_the_mean() -> None:
    agent = make_agent()
    observations, z = torch.randn(4, 3), torch.randn(4, 4)
    expected = agent.actor(observations, z)[0].tanh().detach().numpy()
    assert (agent.act(observations, z) == expected).all()
    assert (agent.act(observations, z, deterministic=False) != expected).any()


@pytest.mark.parametrize("z_resampling", ["episode", "step"])
def test_policy_draws_z_once_an_episode_or_every_step(z_resampling: str) -> None:
    agent = SMAC(SMACConfig(**{**CONFIG.to_dict(), "z_resampling": z_resampling}), SPEC)
    policy = agent.policy(agent.prior(5), torch.Generator().manual_seed(0))
    observations = torch.randn(5, 3).numpy()
    assert (policy(observations) == policy(observations)).all() == (z_resampling == "episode")


# -- labels ----------------------------------------------------------------------------------------------
def test_labeller_is_a_frozen_copy() -> None:
    agent = make_agent()
    context, observations, actions = torch.randn(2, 5, 6), torch.randn(2, 7, 3), torch.randn(2, 7, 2).tanh()

    def label() -> Tensor:
        agent.generator.manual_seed(0)
        return agent.label(context, observations, actions)

    start = label()
    assert start.shape == (2, 7)
    agent.freeze_labeller()
    agent.update(make_batch(agent), loss=agent.inference_loss)
    assert torch.equal(label(), start)
    agent.labeller = None
    assert not torch.equal(label(), start)


# -- parts and losses of one's own -----------------------------------------------------------------------
class MeanEncoder(nn.Module):
    def __init__(self, context_dim: int, z_dim: int):
        super().__init__()
        self.net = lab.MLP(context_dim, [64], 2 * z_dim)

    def forward(self, context: Tensor) -> lab.Gaussian:
        mean, raw = self.net(context).mean(-2).chunk(2, -1)
        return lab.Gaussian(mean, F.softplus(raw) + 1e-3)


class PairEncoder(MeanEncoder):
    """Returns a plain pair."""

    def forward(self, context: Tensor) -> Any:
        mean, std = super().forward(context)
        return mean, std


class LinearActor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Linear(7, 2), nn.Parameter(torch.zeros(2))

    def forward(self, observations: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(torch.cat([observations, z], -1))
        return mean, self.log_std.expand_as(mean)


class ThreeCritics(nn.Module):
    """Three separate networks."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(lab.MLP(9, [8], 1) for _ in range(3))

    def forward(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        inputs = torch.cat([observations, actions, z], -1)
        return torch.stack([net(inputs).squeeze(-1) for net in self.nets])


class BilinearDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Bilinear(5, 4, 1)

    def forward(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        rewards: Tensor = self.net(torch.cat([observations, actions], -1), z.contiguous())
        return rewards.squeeze(-1)


PARTS = {
    "encoder": lambda: MeanEncoder(6, 4),
    "pair": lambda: PairEncoder(6, 4),
    "actor": LinearActor,
    "critics": ThreeCritics,
    "reward_decoder": BilinearDecoder,
}


@pytest.mark.parametrize("loss", PHASES)
@pytest.mark.parametrize("part", PARTS)
def test_custom_part_learns_in_every_phase(part: str, loss: str) -> None:
    name = "encoder" if part == "pair" else part
    custom = PARTS[part]()
    agent = make_agent(**{name: custom})
    assert agent.parts[name] is custom
    before = snapshot(agent)
    info = agent.update(make_batch(agent), agent.objectives[loss])
    assert all(number.isfinite() for number in info.values())
    for key, value in snapshot(agent)[name].items():
        assert torch.equal(before[name][key], value) != (name in agent.objectives[loss].trains)


def test_custom_part_acts_labels_and_has_targets() -> None:
    agent = make_agent(**{name: PARTS[name]() for name in ("encoder", "actor", "critics", "reward_decoder")})
    assert type(agent.target_critics) is ThreeCritics
    agent.freeze_labeller()
    assert agent.label(torch.randn(2, 5, 6), torch.randn(2, 7, 3), torch.randn(2, 7, 2)).shape == (2, 7)
    assert agent.act(torch.randn(2, 3), agent.infer_posterior(torch.randn(2, 5, 6)).mean).shape == (2, 2)


def imitation(agent: SMAC, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
    """Behaviour cloning of the mean."""
    mean, _ = agent.actor(batch.observations, z.detach())
    loss = (mean.tanh() - batch.actions).square().mean()
    return loss, {"imitation": loss}


@pytest.mark.parametrize("phase", ["offline_loss", "self_supervised_loss", "self_labelled_loss"])
def test_custom_actor_loss(phase: str) -> None:
    agent = make_agent(actor_loss=imitation)
    batch = make_batch(agent)
    before = snapshot(agent)
    info = agent.update(batch, loss=getattr(agent, phase))
    assert info["imitation"] == imitation_of(before, batch)
    assert "awac_loss" not in info
    assert not torch.equal(before["actor"]["net.0.weight"], agent.parts["actor"].state_dict()["net.0.weight"])


def imitation_of(parts: dict[str, dict[str, Tensor]], batch: Batch) -> Tensor:
    fresh = make_agent()
    for name, part in fresh.parts.items():
        part.load_state_dict(parts[name])
    return imitation(fresh, batch, draw(fresh, batch)[1])[0]


def test_custom_critic_and_reward_losses() -> None:
    """Each replaces its own term and nothing else."""

    def twice_critic(agent: SMAC, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
        loss, info = critic_loss(agent, batch, z)
        return 2 * loss, info

    def twice_reward(agent: SMAC, batch: Batch, z: Tensor, posterior: Any) -> tuple[Tensor, Info]:
        loss, info = reward_loss(agent, batch, z, posterior)
        return 2 * loss, info

    plain, custom = make_agent(), make_agent(critic_loss=twice_critic, reward_loss=twice_reward)
    batch = make_batch(plain)
    value, info = plain.offline_loss(batch)
    reward = info["reward_error"] + CONFIG.kl_weight * info["kl"]
    torch.testing.assert_close(custom.offline_loss(batch)[0], value + info["critic_loss"] + reward)


def test_update_takes_any_loss_of_a_batch() -> None:
    """A loss that the agent does not know trains what it gives a gradient to; the rest stays."""
    agent = make_agent()
    batch = make_batch(agent)

    def keep_values_small(batch: Batch) -> tuple[Tensor, Info]:
        assert batch.noise is not None
        loss = agent.critics(batch.observations, batch.actions, draw(agent, batch)[1].detach()).square().mean()
        return loss, {"size": loss}

    before = snapshot(agent)
    sizes = [agent.update(batch, loss=keep_values_small)["size"] for _ in range(5)]
    assert sizes[-1] < sizes[0]
    for part in ("actor", "encoder", "reward_decoder"):
        assert all(torch.equal(v, before[part][k]) for k, v in snapshot(agent)[part].items())


class Returning(nn.Module):
    """A part that ignores its inputs and returns zeros of given shapes."""

    def __init__(self, *shapes: tuple[int, ...]):
        super().__init__()
        self.shapes = shapes

    def forward(self, *inputs: Tensor) -> Any:
        outputs = tuple(torch.zeros(shape) for shape in self.shapes)
        return outputs if len(outputs) > 1 else outputs[0]


# The agent tries parts on 2 tasks of 3 transitions; obs 3, action 2, z 4.
WRONG = {
    "encoder of each transition": ("encoder", Returning((2, 4, 4), (2, 4, 4))),
    "encoder of too wide a z": ("encoder", Returning((2, 5), (2, 5))),
    "encoder without std": ("encoder", Returning((2, 4))),
    "actor without log_std": ("actor", Returning((2, 3, 2))),
    "actor of too many actions": ("actor", Returning((2, 3, 3), (2, 3, 3))),
    "a single critic": ("critics", Returning((2, 3))),
    "critics with a last axis": ("critics", Returning((2, 2, 3, 1))),
    "decoder with a last axis": ("reward_decoder", Returning((2, 3, 1))),
    "decoder of tasks": ("reward_decoder", Returning((2,))),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_shape_is_told_at_once(case: str) -> None:
    name, part = WRONG[case]
    with pytest.raises(ValueError, match=rf"^{name} returned shapes .* must return") as error:
        make_agent(**{name: part})
    assert "\n" not in str(error.value)


# -- saving ----------------------------------------------------------------------------------------------
def random_buffer(tasks: int = 3, n: int = 10) -> TransitionBuffer:
    """Offline and self-collected random transitions of every task."""
    buffer, generator = TransitionBuffer(SPEC, tasks), torch.Generator().manual_seed(5)
    sources: tuple[Literal["offline"], Literal["self-collected"]] = ("offline", "self-collected")
    for source in sources:
        for task in range(tasks):
            columns = {
                "observations": torch.randn(n, 3, generator=generator),
                "actions": torch.randn(n, 2, generator=generator).tanh(),
                "rewards": torch.randn(n, generator=generator),
                "next_observations": torch.randn(n, 3, generator=generator),
                "terminations": torch.zeros(n),
                "truncations": torch.zeros(n),
                "features": torch.randn(n, 1, generator=generator),
            }
            buffer.append(task, {name: column.numpy() for name, column in columns.items()}, source)
    return buffer


def train(agent: SMAC, buffer: TransitionBuffer, loss: str, updates: int) -> None:
    sample = sample_offline if loss in ("offline", "inference") else sample_self_supervised
    for _ in range(updates):
        agent.update(sample(agent, buffer), agent.objectives[loss])


def assert_equal_agents(first: SMAC, second: SMAC) -> None:
    a, b = snapshot(first), snapshot(second)
    for part in a:
        for name in a[part]:
            assert torch.equal(a[part][name], b[part][name]), f"{part}.{name}"


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file)
    return loaded


@pytest.mark.parametrize("loss", PHASES)
def test_resuming_equals_going_on(loss: str) -> None:
    buffer = random_buffer()
    agent = SMAC(CONFIG, SPEC, seed=1)
    train(agent, buffer, "offline", 2)
    agent.freeze_labeller()
    train(agent, buffer, loss, 2)
    resumed = SMAC(CONFIG, SPEC, seed=99)
    resumed.load_state_dict(through_a_file(agent.state_dict()))

    context, observations = torch.randn(2, 5, 6), torch.randn(2, 7, 3)
    labels = []
    for one in (agent, resumed):
        train(one, buffer, loss, 3)
        train(one, buffer, "offline", 2)  # the moments of the parts that rested came along, too
        labels.append(one.label(context, observations, observations[..., :2]))
    assert_equal_agents(agent, resumed)
    assert torch.equal(*labels)
    assert agent.updates == resumed.updates == 9
    assert torch.equal(agent.generator.get_state(), resumed.generator.get_state())


def test_loading_shares_no_memory() -> None:
    """Two arms that start from one agent's state go their own ways: neither feels the other's updates."""
    buffer = random_buffer()
    agent, alone = SMAC(CONFIG, SPEC, seed=1), SMAC(CONFIG, SPEC, seed=1)
    train(agent, buffer, "offline", 2)
    train(alone, buffer, "offline", 2)
    arm = SMAC(CONFIG, SPEC, seed=2)
    arm.load_state_dict(agent.state_dict())
    for _ in range(3):
        train(agent, buffer, "offline", 1)
        train(arm, buffer, "offline", 1)
    train(alone, buffer, "offline", 3)
    assert_equal_agents(agent, alone)
    assert_equal_agents(arm, alone)


def test_loading_forgets_what_the_agent_did_before() -> None:
    buffer = random_buffer()
    fresh, used = SMAC(CONFIG, SPEC, seed=1), SMAC(CONFIG, SPEC, seed=1)
    state = copy.deepcopy(used.state_dict())
    train(used, buffer, "offline", 3)
    used.freeze_labeller()
    used.load_state_dict(state)
    assert used.labeller is None
    for one in (fresh, used):
        train(one, buffer, "offline", 3)
    assert_equal_agents(fresh, used)


def test_loading_a_foreign_part_is_an_error() -> None:
    state = SMAC(CONFIG, SPEC).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        SMAC(SMACConfig(**{**CONFIG.to_dict(), "actor_hidden": (9,)}), SPEC).load_state_dict(state)


def test_smoke_phases_resume_through_the_generators() -> None:
    """On the point robot: both phases, interrupted between them and inside each, equal the uninterrupted run."""
    family = lab.make_family("point-robot")
    config = SMACConfig(**{**SMACConfig.preset("point-robot", "smoke").to_dict(), "device": "cpu"})
    tasks, _ = family.split(config.n_train_tasks, config.n_test_tasks, seed=0)
    data = lab.collect_behaviour(family, tasks, config, seed=0)

    def offline(agent: SMAC, steps: int) -> None:
        for _ in lab.train_offline(agent, data, steps=steps):
            pass

    def online(agent: SMAC, buffer: TransitionBuffer, iterations: int) -> None:
        for _ in lab.train_self_supervised(agent, buffer, family, tasks, iterations=iterations):
            pass

    whole, whole_buffer = SMAC(config, family.spec, seed=0), data.clone()
    offline(whole, 6)
    online(whole, whole_buffer, 2)

    first, second, third = (SMAC(config, family.spec, seed=seed) for seed in (0, 7, 8))
    buffer = data.clone()
    offline(first, 3)
    second.load_state_dict(through_a_file(first.state_dict()))
    offline(second, 3)
    online(second, buffer, 1)
    third.load_state_dict(through_a_file(second.state_dict()))
    online(third, buffer, 1)
    assert_equal_agents(whole, third)
    assert torch.equal(whole_buffer.rewards, buffer.rewards)


def test_part_with_frozen_parameters_trains_the_rest(problem: Problem) -> None:
    agent = problem.agent()
    first = agent.encoder.net[0]
    first.requires_grad_(False)
    fixed, last = first.weight.clone(), agent.encoder.net[-1].weight.clone()
    list(lab.train_offline(agent, problem.buffer, steps=2))
    assert torch.equal(fixed, first.weight)
    assert not torch.equal(last, agent.encoder.net[-1].weight)


def test_actor_loss_with_detached_values_leaves_critics_and_encoder_alone(problem: Problem) -> None:
    def judged(agent: SMAC, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
        mean, _ = agent.actor(batch.observations, z)
        loss = -detached_values(agent.critics, batch.observations, torch.tanh(mean), z).amin(0).mean()
        return loss, {"judged": loss}

    def ignored(agent: SMAC, batch: Batch, z: Tensor) -> tuple[Tensor, Info]:
        mean, _ = agent.actor(batch.observations, z)
        return 0.0 * mean.sum(), {}

    one, two = problem.agent(actor_loss=judged), problem.agent(actor_loss=ignored)
    for agent in (one, two):
        list(lab.train_offline(agent, problem.buffer, steps=1))
    same = {
        name: all(map(torch.equal, part.state_dict().values(), two.parts[name].state_dict().values()))
        for name, part in one.parts.items()
    }
    assert same == {"actor": False, "critics": True, "target_critics": True, "encoder": True, "reward_decoder": True}
