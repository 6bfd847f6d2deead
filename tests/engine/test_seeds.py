"""Several seeds at once: the same numbers as one at a time, and no seed that notices another."""

import copy
import dataclasses
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

import smac_lab as lab
from smac_lab.actor_critic import awac_loss
from smac_lab.data.buffer import TransitionBuffer
from smac_lab.engine.seeds import draw, of_seed, over_seeds, select_seed, stack_modules
from smac_lab.runs.experiment import run_experiment
from smac_lab.runs.plan import Experiment
from smac_lab.sampling import sample_offline, sample_self_supervised

SEEDS = (3, 1, 8)
LOSSES = ("offline", "self-supervised", "self-labelled", "oracle", "inference")


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def setting():
    family = lab.make_family("point-robot")
    config = dataclasses.replace(lab.SMACConfig.preset("point-robot", "smoke"), device="cpu")
    train, test = family.split(config.n_train_tasks, config.n_test_tasks, 0)
    return family, config, train, test, lab.collect_behaviour(family, train, config, 0)


class MeanEncoder(nn.Module):
    def __init__(self, context_dim, z_dim):
        super().__init__()
        self.net = lab.MLP(context_dim, [32], 2 * z_dim)

    def forward(self, context):
        mean, raw = self.net(context).mean(-2).chunk(2, -1)
        return lab.Gaussian(mean, F.softplus(raw) + 1e-3)


def own_actor_loss(agent, batch, z):
    mean, _ = agent.actor(batch.observations, z)
    loss = (torch.tanh(mean) - batch.actions).square().mean()
    return loss, {"imitation": loss}


def parameters(agent):
    return {f"{name}.{key}": value for name, part in agent.parts.items() for key, value in part.named_parameters()}


@pytest.mark.parametrize(("loss", "next_z"), [*((loss, "shared") for loss in LOSSES), (LOSSES[0], "resampled")])
def test_seeds_at_once_equal_seeds_one_by_one(setting, double, loss, next_z):
    """In double precision, several updates of three seeds together are those of three agents, draws included."""
    family, config, _, _, buffer = setting
    config = dataclasses.replace(config, next_z=next_z)
    together = lab.SMAC(config, family.spec, seed=SEEDS)
    alone = [lab.SMAC(config, family.spec, seed=seed) for seed in SEEDS]
    for _ in range(4):
        info = together.update(sample_offline(together, buffer), together.objectives[loss])
        infos = [agent.update(sample_offline(agent, buffer), agent.objectives[loss]) for agent in alone]
    for name, values in info.items():
        torch.testing.assert_close(values, torch.stack([one[name] for one in infos]), rtol=1e-8, atol=1e-8)
    for name, value in parameters(together).items():
        torch.testing.assert_close(value, torch.stack([parameters(a)[name] for a in alone]), rtol=1e-7, atol=1e-9)
    for one, agent in zip(together.generators(), alone, strict=True):
        assert torch.equal(one.get_state(), agent.generator.get_state())


def test_parts_and_losses_from_a_cell_are_mapped_too(setting, double):
    family, config, _, _, buffer = setting
    options = {
        "encoder": lambda: MeanEncoder(family.spec.context_dim, config.z_dim),
        "actor_loss": own_actor_loss,
    }
    together = lab.SMAC(config, family.spec, seed=SEEDS, **options)
    alone = [lab.SMAC(config, family.spec, seed=seed, **options) for seed in SEEDS]
    first = together.encoder.net[0].weight
    assert not torch.equal(first[0], first[1]), "a function makes each seed's part under that seed"
    for _ in range(3):
        info = together.update(sample_offline(together, buffer))
        infos = [agent.update(sample_offline(agent, buffer)) for agent in alone]
    torch.testing.assert_close(info["imitation"], torch.stack([one["imitation"] for one in infos]))
    for name, value in parameters(together).items():
        torch.testing.assert_close(value, torch.stack([parameters(a)[name] for a in alone]), rtol=1e-7, atol=1e-9)


def test_a_seed_does_not_notice_another(setting):
    """To the bit: whatever happens to one seed, even not-a-number, the others go on as they would have."""
    family, config, _, _, buffer = setting
    sound, broken = (lab.SMAC(config, family.spec, seed=SEEDS) for _ in range(2))
    for step in range(3):
        batches = [sample_offline(agent, buffer) for agent in (sound, broken)]
        if step == 1:
            batches[1].rewards[1] = torch.nan
        sound.update(batches[0])
        broken.update(batches[1])
    damaged = False
    for name, value in parameters(sound).items():
        other = parameters(broken)[name]
        assert torch.equal(value[[0, 2]], other[[0, 2]]), name
        damaged |= not bool(torch.isfinite(other[1]).all())
    assert damaged, "the second seed did see it"


def test_whole_run_and_splitting(setting, tmp_path):
    family, config, train, test, buffer = setting
    agent = lab.SMAC(config, family.spec, seed=SEEDS)
    for _, metrics in lab.train_offline(agent, buffer, steps=6, log_every=3):
        assert all(value.shape == (3,) and np.isfinite(value).all() for value in metrics.values())
    with pytest.raises(ValueError, match=r"3 seeds .* TransitionBuffer.join"):
        next(lab.train_self_supervised(agent, buffer, family, train))

    joined = TransitionBuffer.join([buffer] * 3)
    for _, metrics in lab.train_self_supervised(agent, joined, family, train, iterations=2):
        assert all(value.shape == (3,) and np.isfinite(value).all() for value in metrics.values())
    rounds = 2 * config.online_tasks * (config.prior_episodes + config.posterior_episodes)
    assert len(joined) == 3 * (len(buffer) + rounds * family.horizon)

    singles, buffers = agent.split(), joined.split()
    assert [one.seed for one in singles] == list(SEEDS)
    assert torch.equal(singles[1].actor.net[0].weight, agent.actor.net[0].weight[1])
    found = lab.evaluate(agent, family, test, seed=5)
    shift = lab.measure_shift(agent, family, train, joined, seed=5)
    for index, (one, own) in enumerate(zip(singles, buffers, strict=True)):
        assert_close(of_seed(found, index), lab.evaluate(one, family, test, seed=5))
        assert_close(of_seed(shift, index), lab.measure_shift(one, family, train, own, seed=5))

    # A seed taken out goes on where it was, and so do all of them from a checkpoint.
    lab.save(tmp_path, agent, buffer=joined)
    restored = lab.load(tmp_path)
    assert restored.agent.seeds == SEEDS
    assert restored.buffer.seeds == 3
    one = singles[2]
    for mine, data in ((agent, joined), (restored.agent, restored.buffer), (one, buffers[2])):
        mine.update(sample_self_supervised(mine, data), mine.self_supervised_loss)
    for name, value in parameters(agent).items():
        assert torch.equal(value, parameters(restored.agent)[name])
    assert torch.equal(agent.generators()[2].get_state(), one.generator.get_state())


def test_join_is_the_inverse_of_split(setting):
    family, config, train, _, buffer = setting
    agent, joined = lab.SMAC(config, family.spec, seed=SEEDS), TransitionBuffer.join([buffer] * 3)
    for _ in lab.train_self_supervised(agent, joined, family, train, iterations=1):
        pass
    again = lab.SMAC.join(agent.split())
    for mine, data in ((agent, joined), (again, TransitionBuffer.join(joined.split()))):
        mine.update(sample_self_supervised(mine, data), mine.self_supervised_loss)
    for one, other in zip(tree_leaves(agent.state_dict()), tree_leaves(again.state_dict()), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert again.seeds == SEEDS


def test_what_cannot_be_joined(setting):
    family, config, *_, buffer = setting
    one, other = (lab.SMAC(config, family.spec, seed=seed) for seed in (0, 1))
    with pytest.raises(ValueError, match="there are no agents"):
        lab.SMAC.join([])
    with pytest.raises(ValueError, match="split it first"):
        lab.SMAC.join([lab.SMAC(config, family.spec, seed=SEEDS)])
    other.update(sample_offline(other, buffer))
    with pytest.raises(ValueError, match="equally far"):
        lab.SMAC.join([one, other])


def tree_of(folder):
    """Every file of a run but for TensorBoard's, whose names hold the time."""
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return sorted(str(file) for file in files if "tfevents" not in file.name and "buffer" not in file.parts)


def test_an_experiment_looks_the_same_either_way(double, tmp_path):
    """Seeds at once, one after the other, and at once after a stop in which they got unequally far."""
    config = lab.SMACConfig.preset("point-robot", "smoke")
    pearl = {
        "behaviour_policy": "pearl",
        "behaviour_iterations": 2,
        "behaviour_updates": 5,
        "behaviour_transitions": 200,
    }
    config = dataclasses.replace(config, device="cpu", **pearl)
    experiment = Experiment("point-robot", "smoke", config, seeds=(0, 1), arms=("frozen",))
    summaries = [
        run_experiment(tmp_path / str(size), experiment, workers=1, quiet=True, at_once=size) for size in (1, 2)
    ]
    assert tree_of(tmp_path / "1") == tree_of(tmp_path / "2")
    for name, values in summaries[0]["arms"]["frozen"].items():
        np.testing.assert_allclose(values, summaries[1]["arms"]["frozen"][name], rtol=1e-4, err_msg=name)

    stopped = tmp_path / "2"
    before = (stopped / "seed_1" / "frozen" / "metrics.csv").read_text()
    shutil.rmtree(stopped / "seed_1" / "frozen")
    (stopped / "seed_0" / "frozen" / "measurement.npz").unlink()
    again = run_experiment(stopped, experiment, workers=1, quiet=True, at_once=2)
    for name, values in again["arms"]["frozen"].items():
        np.testing.assert_allclose(values, summaries[1]["arms"]["frozen"][name], rtol=1e-4, err_msg=name)
    assert before.splitlines()[0] == (stopped / "seed_1" / "frozen" / "metrics.csv").read_text().splitlines()[0]
    with pytest.raises(ValueError, match="at_once=0 is not allowed"):
        run_experiment(tmp_path / "none", experiment, at_once=0)


def test_what_a_seed_collects_is_its_own(setting):
    """The first round of interaction of each seed is that of an agent with this seed alone."""
    family, config, train, _, buffer = setting
    agent, joined = lab.SMAC(config, family.spec, seed=SEEDS), TransitionBuffer.join([buffer] * 3)
    config = dataclasses.replace(config, online_updates=0)
    agent.config = config
    metrics = dict(lab.train_self_supervised(agent, joined, family, train, iterations=1))[1]
    for index, seed in enumerate(SEEDS):
        alone, own = lab.SMAC(config, family.spec, seed=seed), buffer.clone()
        expected = dict(lab.train_self_supervised(alone, own, family, train, iterations=1))[1]
        assert metrics["collected_reward_mean"][index] == pytest.approx(expected["collected_reward_mean"], abs=1e-5)
        torch.testing.assert_close(joined.split()[index].observations, own.observations, rtol=1e-4, atol=1e-4)


def test_tasks_and_draws_of_each_seed(setting):
    family, config, *_ = setting
    agent = lab.SMAC(config, family.spec, seed=(0, 1))
    sets = [family.split(3, 1, seed)[0] for seed in (0, 1)]
    found = lab.evaluate(agent, family, sets, seed=(7, 8))
    assert_close(of_seed(found, 1), lab.evaluate(agent.split()[1], family, sets[1], seed=8))
    with pytest.raises(ValueError, match=r"one for each of 2 seeds"):
        lab.evaluate(agent, family, sets, seed=(7, 8, 9))
    for wrong in (sets[:1], [sets[0], sets[1][:2]]):
        with pytest.raises(ValueError, match=r"2 seeds need as many sets of tasks, all of one size; got sizes"):
            lab.evaluate(agent, family, wrong)


def assert_close(one, other):
    """Equal but for rounding: several seeds' products are summed in another order than one seed's."""
    for mine, its in zip(tree_leaves(one), tree_leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(its), rtol=1e-4, atol=1e-4)


def test_stacking():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(2, 2)
            self.two = self.one
            self.register_buffer("scale", torch.ones(1))

        def forward(self, x):
            return self.two(self.one(x)) * self.scale

    modules = [Tied() for _ in range(4)]
    stacked = stack_modules(modules)
    assert stacked.one.weight.shape == (4, 2, 2)
    assert stacked.two.weight is stacked.one.weight
    x = torch.randn(4, 5, 2)
    expected = torch.stack([module(one) for module, one in zip(modules, x, strict=True)])
    torch.testing.assert_close(over_seeds(stacked, stacked, x), expected)
    torch.testing.assert_close(select_seed(stacked, 2)(x[2]), expected[2])
    assert torch.equal(modules[0].one.weight, stacked.one.weight[0])
    assert modules[0].one.weight.ndim == 2


def test_draws_are_those_of_each_seed():
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    both = draw(torch.randn, (2, 3), generators)
    assert torch.equal(both[1], torch.randn(3, generator=torch.Generator().manual_seed(6)))


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_impossible_seeds(setting, seeds):
    family, config, *_ = setting
    with pytest.raises(ValueError, match="at least one seed, each once"):
        lab.SMAC(config, family.spec, seed=seeds)


def test_buffers_that_do_not_fit(setting):
    family, config, train, _, buffer = setting
    other = lab.make_family("point-direction")
    strange = lab.collect_behaviour(other, other.split(6, 1, 0)[0], config)
    one, many = lab.SMAC(config, family.spec), lab.SMAC(config, family.spec, seed=(0, 1))
    three = TransitionBuffer.join([buffer] * 3)
    for agent, data, message in (
        (one, strange, "point-robot.* cannot learn from a buffer of .*point-direction"),
        (one, three, "a buffer of 3 seeds does not fit an agent with seed=0"),
        (many, three, r"a buffer of 3 seeds does not fit an agent with seed=\(0, 1\)"),
        (
            one,
            TransitionBuffer(family.spec, 6, "meta"),
            r"is on meta, the agent on cpu: buffer.to\('cpu'\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            next(lab.train_offline(agent, data))
        with pytest.raises(ValueError, match=message):
            next(lab.train_self_supervised(agent, data, family, train))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("compile", "yes", "True or False"),
        ("compile", 1, "True or False"),
        ("precision", "fp16", "'auto', 'fp32', 'tf32', 'bf16'"),
        ("z_resampling", 0, "'step', 'episode' or a number"),
        ("z_resampling", "day", "'step', 'episode' or a number"),
    ],
)
def test_settings_out_of_range(field, value, allowed):
    with pytest.raises(ValueError, match=rf"{field}={value!r} is not allowed: it must be .*{allowed}"):
        lab.SMACConfig(**{field: value})


# -- compiled, and with bf16 products --------------------------------------------------------------------
def test_without_a_compiler_one_warning_and_eager(setting, monkeypatch):
    family, config, _, _, buffer = setting

    def no_compiler(function, **_):
        def fail(*_):
            raise RuntimeError("no working C++ compiler was found")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    agent, eager = (lab.SMAC(dataclasses.replace(config, compile=on), family.spec) for on in (True, False))
    with pytest.warns(UserWarning, match="updates run eagerly: no working C\\+\\+ compiler"):
        agent.update(sample_offline(agent, buffer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        agent.update(sample_offline(agent, buffer))
    for _ in range(2):
        eager.update(sample_offline(eager, buffer))
    assert all(torch.equal(a, b) for a, b in zip(parameters(agent).values(), parameters(eager).values(), strict=True))


def test_compiling_does_not_hide_an_error_of_a_loss(setting):
    family, config, _, _, buffer = setting

    def wrong(agent, batch, z):
        raise KeyError("mine")

    agent = lab.SMAC(dataclasses.replace(config, compile=True), family.spec, actor_loss=wrong)
    with pytest.raises(KeyError, match="mine"):
        agent.update(sample_offline(agent, buffer))


def test_bf16_is_for_dense_products_alone(setting):
    family, config, _, _, buffer = setting
    seen = []

    def spying(agent, batch, z):
        mean, log_std = agent.actor(batch.observations, z)
        values = agent.critics(batch.observations, batch.actions, z)
        seen.extend([z.dtype, mean.dtype, log_std.dtype, values.dtype])
        return awac_loss(agent, batch, z)

    exact, rounded = (
        lab.SMAC(dataclasses.replace(config, precision=precision), family.spec, actor_loss=spying)
        for precision in ("fp32", "bf16")
    )
    batch = sample_offline(exact, buffer)
    batch = batch._replace(noise=exact.draw_noise(batch))
    infos = [agent.update(copy.copy(batch)) for agent in (exact, rounded)]
    assert set(seen) == {torch.float32}
    for name, value in infos[0].items():
        assert infos[1][name].dtype == torch.float32
        torch.testing.assert_close(infos[1][name], value, rtol=0.05, atol=0.05)
    weights = [agent.critics.net.weights[1] for agent in (exact, rounded)]
    assert weights[1].dtype == weights[1].grad.dtype == torch.float32
    difference = (weights[0].grad - weights[1].grad).norm() / weights[0].grad.norm()
    assert 1e-5 < difference < 0.1, "products were rounded, and no more than that"


@pytest.mark.parametrize(("has", "expected"), [(True, {"auto": "tf32", "tf32": "tf32"}), (False, {})])
def test_tf32_is_for_updates_where_the_device_has_it(setting, monkeypatch, has, expected):
    """PyTorch's setting is TF32's while losses and gradients are computed, and nobody else's afterwards."""
    family, config, _, _, buffer = setting
    monkeypatch.setattr("smac_lab.engine.learner.has_tf32", lambda device: has)
    seen = []

    def spying(agent, batch, z):
        seen.append(torch.get_float32_matmul_precision())
        if len(seen) == 2:
            raise KeyError("mine")
        return awac_loss(agent, batch, z)

    for asked in ("auto", "fp32", "tf32", "bf16"):
        agent = lab.SMAC(dataclasses.replace(config, precision=asked), family.spec, actor_loss=spying)
        assert agent.precision == expected.get(asked, "bf16" if asked == "bf16" else "fp32")
        agent.update(sample_offline(agent, buffer))
        with pytest.raises(KeyError, match="mine"):
            agent.update(sample_offline(agent, buffer))
        assert seen == ["high" if agent.precision == "tf32" else "highest"] * 2
        assert torch.get_float32_matmul_precision() == "highest"
        seen.clear()
