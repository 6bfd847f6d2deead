"""Compiled losses, checked; updates captured as CUDA graphs: what needs no GPU, and the whole with one."""

import contextlib
import dataclasses
import functools
import warnings

import pytest
import torch
from conftest import Reads
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import smac_lab as lab
from smac_lab.engine.acceleration import WARM_UP, captured, compiled_and_checked
from smac_lab.interaction import self_collect
from smac_lab.sampling import sample_offline, sample_self_supervised

CONTEXTS = ("mixed", "separate", "episodes")
PHASES = ("offline_loss", "self_supervised_loss", "self_labelled_loss")


def setting(device="cpu", **changes):
    family = lab.make_family("point-robot")
    config = dataclasses.replace(lab.SMACConfig.preset("point-robot", "smoke"), device=device, **changes)
    train, _ = family.split(config.n_train_tasks, config.n_test_tasks, 0)
    return family, config, train, lab.collect_behaviour(family, train, config, 0)


def two_agents(seed=0):
    """An eager agent, a compiled one, and a batch for both."""
    family, config, _, buffer = setting()
    eager, compiled = (
        lab.SMAC(dataclasses.replace(config, **change), family.spec, seed=seed) for change in ({}, {"compile": True})
    )
    batch = sample_offline(eager, lab.TransitionBuffer.join([buffer] * len(seed)) if eager.seeds else buffer)
    batch = batch._replace(noise=eager.draw_noise(batch))
    compiled.load_state_dict(eager.state_dict())
    return eager, compiled, batch


# -- operations ------------------------------------------------------------------------------------------
class Operations(TorchDispatchMode):
    """Counts the operations that compute or copy: on a GPU about one kernel each."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        names = ("empty", "detach", "view", "_record_function")  # no kernels
        self.count += not (function.is_view or any(word in str(function) for word in names))
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("phase", "seeds", "sampling", "update"),
    [
        ("offline", 0, 36, 258),
        ("offline", range(16), 119, 342),
        ("self_supervised", 0, 36, 199),
        ("self_supervised", range(16), 119, 264),
    ],
)
def test_an_update_is_few_operations(phase, seeds, sampling, update):
    """Upper bounds: who adds a pass through a network, or a copy in every layer, breaks them. Paper's networks."""
    family = lab.make_family("point-robot")
    small = {"meta_batch": 4, "batch_size": 8, "context_size": 8, "online_meta_batch": 4, "online_batch_size": 8}
    data = {"n_train_tasks": 6, "behaviour_policy": "scripted", "behaviour_transitions": 200}
    config = lab.SMACConfig(device="cpu", **small, **data)
    train, _ = family.split(config.n_train_tasks, 1, 0)
    buffer = lab.collect_behaviour(family, train, config, 0)
    agent = lab.SMAC(config, family.spec, seed=seeds)
    if agent.seeds:
        buffer = lab.TransitionBuffer.join([buffer] * len(agent.seeds))
    sample = sample_offline if phase == "offline" else sample_self_supervised
    loss = getattr(agent, f"{phase}_loss")
    agent.update(sample(agent, buffer), loss)  # Adam's moments are there from now on
    with Operations() as before:
        batch = sample(agent, buffer)
        batch = batch._replace(noise=agent.draw_noise(batch))
    with Operations() as counted:
        agent.update(batch, loss)
    print(phase, before.count, counted.count)
    assert before.count <= sampling
    assert counted.count <= update


# -- compiled --------------------------------------------------------------------------------------------
@functools.cache
def why_not_compiled():
    """What a machine says that cannot compile at all, such as one without a C++ compiler."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", [0, pytest.param((0, 1), marks=pytest.mark.learning)])  # a minute each
def test_losses_in_a_row_on_equal_shapes_are_each_compiled(seed):
    """torch 2.11 trained the first of them three times: what it had compiled fitted the shapes."""
    if reason := why_not_compiled():
        pytest.skip(f"needs what torch.compile needs: {reason}")
    eager, compiled, batch = two_agents(seed)
    for phase in PHASES:
        compiled.load_state_dict(eager.state_dict())
        # A warning would be an error here (pyproject.toml): eager results would pass, too.
        infos = [agent.update(batch, getattr(agent, phase)) for agent in (eager, compiled)]
        torch.testing.assert_close(infos[1], infos[0], rtol=1e-4, atol=1e-5)
        for name, part in eager.parts.items():
            for one, two in zip(part.parameters(), compiled.parts[name].parameters(), strict=True):
                torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-5)


def test_every_compiled_function_has_code_of_its_own(monkeypatch):
    """Dynamo finds what it compiled by the code object; with one graph each, nothing else is compiled."""
    seen, options = [], []

    def compile(function, **given):
        seen.append(function.__code__)
        options.append(given)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    for _ in range(2):
        _, agent, batch = two_agents()
        for phase in PHASES:
            agent.update(batch, getattr(agent, phase))
            agent.update(batch, getattr(agent, phase))
    assert len({*seen}) == len({id(code) for code in seen}) == len(seen) == 2 * len(PHASES)
    assert all(given["fullgraph"] for given in options)


@pytest.mark.parametrize("seed", [0, (0, 1)])
def test_the_check_changes_nothing(monkeypatch, seed):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    eager, compiled, batch = two_agents(seed)
    before = torch.random.get_rng_state()
    for phase in PHASES:
        for agent in (eager, compiled):
            agent.update(batch._replace(noise=None), getattr(agent, phase))
    states = [agent.state_dict() for agent in (eager, compiled)]
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_phase_in_place_of_the_loss_is_refused(monkeypatch):
    eager, compiled, batch = two_agents()
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.offline_loss)
    with pytest.warns(UserWarning, match=r"compile=True is not used.*only one of the two has .*info\['kl'\]") as caught:
        compiled.update(batch, compiled.self_supervised_loss)
    assert len(caught) == 1
    compiled.update(batch, compiled.self_supervised_loss)  # once is enough
    for _ in range(2):
        eager.update(batch, eager.self_supervised_loss)
    torch.testing.assert_close(compiled.state_dict(), eager.state_dict(), rtol=0, atol=0)


class Toy:
    """A loss of two parts, and what a compiler might make of it instead."""

    def __init__(self):
        self.parameters = {"big.weight": torch.full((3,), 1e4), "small.weight": torch.tensor([1.0, -2.0, 0.5])}
        self.parameters = {name: nn.Parameter(value) for name, value in self.parameters.items()}
        self.calls = 0

    def loss(self, batch):
        big, small = (parameter * batch for parameter in self.parameters.values())
        loss = (big.square() + small.square()).mean()
        return loss, {"small": small.sum(), "unknown": (0 * small).sum() / 0}  # 0 / 0 is 0 / 0 however it is computed

    def made(self, monkeypatch, change, precision="fp32"):
        def wrong(batch):
            self.calls += 1
            return change(*self.loss(batch), *self.parameters.values())

        monkeypatch.setattr(torch, "compile", lambda function, **_: wrong)
        return compiled_and_checked(self.loss, self.parameters, precision)

    def expect_plain(self, function, batch):
        outputs = [f(batch) for f in (function, self.loss)]
        torch.testing.assert_close(*outputs, rtol=0, atol=0, equal_nan=True)
        gradients = [torch.autograd.grad(loss, list(self.parameters.values())) for loss, _ in outputs]
        torch.testing.assert_close(*gradients, rtol=0, atol=0)


def more_gradient(factor):
    """The same numbers, with the gradient of the small part times `factor`."""

    def change(loss, info, big, small):
        extra = 2 * (factor - 1) / 3 * (small.detach() * small).sum()
        return loss + extra - extra.detach(), info

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda loss, info, *_: (2 * loss, info), r"the loss is off by 1e\+08, where its norm is 1e\+08"),
        (lambda loss, info, *_: (loss, {"small": info["small"]}), r"only one of the two has info\['unknown'\]"),
        (lambda loss, info, *_: (loss, {**info, "more": loss}), r"only one of the two has info\['more'\]"),
        (lambda loss, info, *_: (loss, {**info, "unknown": info["small"]}), r"info\['unknown'\] is off by inf"),
        (lambda loss, info, *_: (loss, {**info, "small": info["small"][None]}), r"info\['small'\] is off by inf"),
        (lambda loss, info, *_: (loss * torch.ones(2) / 2, info), "the loss is off by inf"),
        (more_gradient(1.5), "the gradient of small.weight is off by 0.764, where its norm is 1.53"),
        (more_gradient(torch.nan), "is off by inf"),
        (
            lambda loss, info, big, small: (big.square().mean() + small.detach().square().mean(), info),
            "only one of the two has the gradient of small.weight",
        ),
    ],
)
def test_what_is_not_the_loss_is_refused(monkeypatch, change, told):
    toy, batch = Toy(), torch.ones(3)
    function = toy.made(monkeypatch, change)
    with pytest.warns(UserWarning, match=f"updates run eagerly: compiled, .*{told}") as caught:
        toy.expect_plain(function, batch)
    assert len(caught) == 1
    assert toy.calls == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.expect_plain(function, batch)
        toy.expect_plain(function, torch.ones(2, 3))  # for good, whatever the shapes
    assert toy.calls == 1


@pytest.mark.parametrize(
    ("precision", "factor", "used"),
    [
        ("fp32", 1.01, True),
        ("fp32", 1.1, False),
        ("bf16", 1.1, True),
        ("bf16", 1.3, False),
    ],
)
def test_how_far_rounding_may_go(monkeypatch, precision, factor, used):
    """A part is compared with itself: another part's gradient is 10,000 times as large here."""
    toy, batch = Toy(), torch.ones(3)
    function = toy.made(monkeypatch, more_gradient(factor), precision)
    with contextlib.nullcontext() if used else pytest.warns(UserWarning, match="small.weight is off"):
        loss, _ = function(batch)
    (gradient,) = torch.autograd.grad(loss, [toy.parameters["small.weight"]])
    torch.testing.assert_close(gradient, (factor if used else 1.0) * 2 / 3 * toy.parameters["small.weight"].detach())


def test_every_shape_is_checked_once(monkeypatch):
    toy, factor = Toy(), 1
    function = toy.made(monkeypatch, lambda loss, info, *_: (factor * loss, info))
    for batch, calls in ((torch.ones(3), 2), (torch.zeros(3), 3), (torch.ones(1, 3), 5)):  # a check is a call, too
        toy.expect_plain(function, batch)
        assert toy.calls == calls
    factor = 2
    with pytest.warns(UserWarning, match="the loss is off"):
        toy.expect_plain(function, torch.ones(2, 3))
    toy.expect_plain(function, torch.ones(3))
    assert toy.calls == 6


def test_nothing_is_read_back_while_capturing(monkeypatch):
    toy = Toy()
    function = toy.made(monkeypatch, lambda loss, info, *_: (loss, info))
    function(torch.ones(3))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with Reads() as reads:
        for batch, calls in ((torch.ones(3), 3), (torch.ones(2, 3), 3)):  # the second has not been checked
            function(batch)
            assert toy.calls == calls
    assert reads.found == []


# -- captured --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [0, (0, 1)])
@pytest.mark.parametrize("context", CONTEXTS)
def test_an_update_reads_nothing_back(seed, context):
    """Sampling, losses, gradients, Adam and slow copies: not one number is brought to the host in between."""
    family, config, train, buffer = setting(online_context=context, online_tasks=6)
    agent = lab.SMAC(config, family.spec, seed=seed)
    if agent.seeds:
        buffer = lab.TransitionBuffer.join([buffer] * 2)
    self_collect(agent, buffer, family, train, oracle=False)
    agent.freeze_labeller()

    def step():
        agent.update(sample_offline(agent, buffer))
        agent.update(sample_self_supervised(agent, buffer), agent.self_labelled_loss)

    step()
    with Reads() as reads:
        step()
    assert reads.found == []


class FakeGraph:
    """Stands in for torch.cuda.CUDAGraph: replaying calls what was captured, and capturing is told apart."""

    made: list = []  # noqa: RUF012
    capturing = False

    def __init__(self):
        self.generators, self.replays = [], 0
        FakeGraph.made.append(self)

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.replays += 1


@pytest.fixture
def fake_cuda(monkeypatch):
    class Stream:
        def __init__(self, *_):
            pass

        def wait_stream(self, other):
            assert isinstance(other, Stream)

    @contextlib.contextmanager
    def capture(graph, stream):
        FakeGraph.capturing = True
        yield
        FakeGraph.capturing = False

    FakeGraph.made = []
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)


def test_every_call_is_one_step_whether_run_captured_or_replayed(fake_cuda):
    family, config, _, buffer = setting()
    agent = lab.SMAC(config, family.spec, seed=(0, 1))
    agent.device = torch.device("cuda")
    ran, captures = [], []

    def step():
        agent.updates += 2  # such as an update of the encoder beside the other
        (captures if FakeGraph.capturing else ran).append(agent.updates)
        return {"loss": torch.zeros(2)}

    learn = captured(agent, buffer, step)
    for call in range(1, WARM_UP + 3):
        learn()
        assert agent.updates == 2 * call
    assert len(ran) == WARM_UP, "then it is replayed"
    assert len(captures) == 1
    (graph,) = FakeGraph.made
    assert graph.replays == 2
    assert graph.generators == agent.generators()

    # What is appended in reserved room is seen by the same graph; when the buffer moves, a new one is captured.
    buffer.version  # noqa: B018
    buffer.reserve(100_000)
    for _ in range(WARM_UP + 1):
        learn()
    assert len(FakeGraph.made) == 2
    columns = {name: buffer.column(name)[:20].numpy() for name in lab.data.chains.COLUMNS}
    buffer.append(0, columns, "offline")
    learn()
    assert len(FakeGraph.made) == 2
    assert FakeGraph.made[1].replays == 2


def test_without_a_gpu_it_is_the_step_itself():
    family, config, _, buffer = setting()
    agent = lab.SMAC(config, family.spec)

    def step():
        return {}

    assert captured(agent, buffer, step) is step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("seed", [0, (0, 1)])
def test_replayed_updates_are_the_updates(seed, compile):
    family, config, _, device_buffer = setting("cuda")
    plain, replayed = (
        lab.SMAC(dataclasses.replace(config, compile=on), family.spec, seed=seed) for on in (False, compile)
    )
    learn = captured(replayed, device_buffer, lambda: replayed.update(sample_offline(replayed, device_buffer)))
    for _ in range(WARM_UP + 5):
        learn()
        plain.update(sample_offline(plain, device_buffer))
    for name, part in plain.parts.items():
        for one, two in zip(part.parameters(), replayed.parts[name].parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
