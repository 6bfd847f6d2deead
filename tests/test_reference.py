"""The library against the textbook: loss values, gradients, and parameters after ten updates of each phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from reference_smac import (
    Net,
    ReferenceSMAC,
    copy_of,
    nets_of,
    offline_gradients,
    self_supervised_gradients,
)

from smac_lab import SMAC, Batch, SMACConfig
from smac_lab.tasks import FamilySpec
from smac_lab.training import begin_self_supervision

PHASES = ("offline", "self_supervised", "self_labelled", "oracle")
LEARNERS = {"self_labelled": ("encoder",), "oracle": ("encoder", "decoder")}


class Sizes(NamedTuple):
    tasks: int
    batch: int
    n: int
    obs: int
    act: int
    z: int
    hidden: tuple[int, ...]


SIZES = [Sizes(1, 5, 1, 1, 1, 1, (7,)), Sizes(3, 4, 6, 3, 2, 4, (8, 5)), Sizes(2, 9, 3, 2, 3, 2, (6, 6, 4))]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """Everything here in float64, so that only the mathematics can differ."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_agent(sizes: Sizes, seed: int, **options: Any) -> SMAC:
    """A small agent whose weights, targets included, are spread far enough that no term is negligible."""
    config = SMACConfig(
        z_dim=sizes.z,
        encoder_hidden=sizes.hidden,
        decoder_hidden=sizes.hidden[:1],
        actor_hidden=sizes.hidden,
        critic_hidden=sizes.hidden,
        device="cpu",
        **{
            "awac_lambda": 0.7,
            "tau": 0.03,
            "learning_rate": 2e-3,
            "online_q_weight": 0.6,
            "online_awac_weight": 0.8,
            **options,
        },
    )
    spec = FamilySpec("made-up", sizes.obs, sizes.act, 1, 1, sizes.obs + sizes.act + 1, 10)
    agent = SMAC(config, spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in agent.parts.values():
            for parameter in part.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return agent


def make_batch(agent: SMAC, sizes: Sizes, generator: torch.Generator) -> Batch:
    """Random numbers; some actions lie on the bounds, about a third of the transitions end an episode."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    shape = (sizes.tasks, sizes.batch)
    batch = Batch(
        observations=normal(*shape, sizes.obs),
        actions=(0.8 * normal(*shape, sizes.act)).clamp(-1.0, 1.0),
        rewards=normal(*shape),
        next_observations=normal(*shape, sizes.obs),
        terminations=(normal(*shape) > 0.4).double(),
        context=normal(sizes.tasks, sizes.n, agent.spec.context_dim),
    )
    return batch._replace(noise=agent.draw_noise(batch))


def reference_gradients(reference: ReferenceSMAC, phase: str, batch: Batch) -> tuple[Net, dict[str, Net]]:
    if phase == "offline":
        return offline_gradients(reference, batch)
    return self_supervised_gradients(reference, batch, LEARNERS.get(phase, ()))


def assert_close(name: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-10, msg=lambda message: f"{name}: {message}")


def assert_same(got: dict[str, Net], expected: dict[str, Net]) -> None:
    for name, net in expected.items():
        for key, tensor in net.items():
            assert_close(f"{name}, {key}", got[name][key], tensor.detach())


CASES = pytest.mark.parametrize("sizes", SIZES, ids=lambda s: f"{s.tasks}tasks")
WEIGHTS = pytest.mark.parametrize("awac_weight", ["softmax", "exp"])
NEXT_Z = pytest.mark.parametrize("next_z", ["shared", "resampled"])
PHASE = pytest.mark.parametrize("phase", PHASES)


@PHASE
@NEXT_Z
@WEIGHTS
@CASES
def test_losses_and_gradients(sizes: Sizes, awac_weight: str, next_z: str, phase: str) -> None:
    agent = make_agent(sizes, seed=1, awac_weight=awac_weight, next_z=next_z)
    batch = make_batch(agent, sizes, torch.Generator().manual_seed(2))
    assert batch.noise is not None
    assert (batch.noise.next_z is not None) == (next_z == "resampled")
    losses, gradients = reference_gradients(copy_of(agent), phase, batch)

    objective = agent.objectives[phase.replace("_", "-")]
    value, info = objective.loss(batch)
    for name, expected in losses.items():
        assert_close(name, value if name == "loss" else info[name], expected)

    trained = [p for part in objective.trains for p in agent.parts[part].parameters()]
    for parameter, gradient in zip(trained, torch.autograd.grad(value, trained), strict=True):
        parameter.grad = gradient
    got = nets_of(agent.parts, lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
    assert any(g.abs().max() > 1e-3 for net in gradients.values() for g in net.values())
    assert_same(got, gradients)


@PHASE
@NEXT_Z
@WEIGHTS
@CASES
def test_parameters_after_ten_updates(sizes: Sizes, awac_weight: str, next_z: str, phase: str) -> None:
    agent = make_agent(sizes, seed=3, awac_weight=awac_weight, next_z=next_z)
    reference = copy_of(agent)
    run_both(agent, reference, phase, sizes, torch.Generator().manual_seed(4))
    assert_same(nets_of(agent.parts, torch.Tensor.detach), reference.nets)


@pytest.mark.parametrize("moments", ["carried", "fresh"])
def test_parameters_after_both_phases(moments: str) -> None:
    """A phase goes on from the other's weights and targets, and from its Adam moments or fresh ones."""
    sizes, generator = SIZES[1], torch.Generator().manual_seed(6)
    agent = make_agent(sizes, seed=5, optimizer_moments=moments)
    reference = copy_of(agent)
    run_both(agent, reference, "offline", sizes, generator)
    begin_self_supervision(agent)
    if moments == "fresh":
        reference.begin_phase()
    run_both(agent, reference, "self_supervised", sizes, generator)
    assert_same(nets_of(agent.parts, torch.Tensor.detach), reference.nets)


@pytest.mark.parametrize("kl_reduction", ["mean", "sum"])
def test_kl_reduction(kl_reduction: str) -> None:
    sizes = SIZES[1]
    agent = make_agent(sizes, seed=7, kl_reduction=kl_reduction)
    reference = copy_of(agent)
    run_both(agent, reference, "offline", sizes, torch.Generator().manual_seed(8))
    assert_same(nets_of(agent.parts, torch.Tensor.detach), reference.nets)


def run_both(agent: SMAC, reference: ReferenceSMAC, phase: str, sizes: Sizes, generator: torch.Generator) -> None:
    """Ten updates of each on the same batches, with the same noise."""
    for _ in range(10):
        batch = make_batch(agent, sizes, generator)
        agent.update(batch, agent.objectives[phase.replace("_", "-")])
        getattr(reference, f"{phase}_update")(batch)
