"""Capturing an update as a CUDA graph: what can be checked without a GPU, and the whole with one."""

import contextlib
import dataclasses

import pytest
import torch
from test_buffer import Reads

import smac_lab as lab
from smac_lab.acceleration import WARM_UP, captured
from smac_lab.training import sample_offline, sample_self_supervised, self_collect

CONTEXTS = ("mixed", "separate", "episodes")


def setting(device="cpu", **changes):
    family = lab.make_family("point-robot")
    config = dataclasses.replace(lab.SMACConfig.preset("point-robot", "smoke"), device=device, **changes)
    train, _ = family.split(config.n_train_tasks, config.n_test_tasks, 0)
    return family, config, train, lab.collect_behaviour(family, train, config, 0)


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
    columns = {name: getattr(buffer, name)[:20].numpy() for name in lab.data.chains.COLUMNS}
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
@pytest.mark.parametrize("seed", [0, (0, 1)])
def test_replayed_updates_are_the_updates(seed):
    family, config, _, device_buffer = setting("cuda")
    agents = [lab.SMAC(config, family.spec, seed=seed) for _ in range(2)]
    plain, replayed = agents
    learn = captured(replayed, device_buffer, lambda: replayed.update(sample_offline(replayed, device_buffer)))
    for _ in range(WARM_UP + 5):
        learn()
        plain.update(sample_offline(plain, device_buffer))
    for name, part in plain.parts.items():
        for one, two in zip(part.parameters(), replayed.parts[name].parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
