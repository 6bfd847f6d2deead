"""The reward decoder, its loss in closed form, and labels for reward-free transitions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smac_lab import Batch, Gaussian
from smac_lab.encoder import ContextEncoder, make_context
from smac_lab.reward_model import RewardDecoder, relabel, reward_loss


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


class Sum(nn.Module):
    """r_hat(s, a, z) = sum of s, a and z: a decoder whose answers are known."""

    def forward(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        return observations.sum(-1) + actions.sum(-1) + z.sum(-1)


def make_batch(observations: Tensor, actions: Tensor, rewards: Tensor) -> Batch:
    return Batch(observations, actions, rewards, observations, torch.zeros_like(rewards), torch.zeros(1, 1, 1))


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (5,)], ids=str)
def test_decoder_shapes(shape: tuple[int, ...]) -> None:
    assert (
        RewardDecoder(3, 2, 4, [8])(torch.zeros(*shape, 3), torch.zeros(*shape, 2), torch.zeros(*shape, 4)).shape
        == shape
    )


def test_decoder_reads_everything() -> None:
    inputs = [torch.randn(5, size, requires_grad=True) for size in (3, 2, 4)]
    gradients = torch.autograd.grad(RewardDecoder(3, 2, 4, [8])(*inputs).sum(), inputs)
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("kl_reduction", "penalty"), [("mean", 5.0), ("sum", 10.0)])
@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
def test_reward_loss_by_hand(kl_weight: float, kl_reduction: str, penalty: float) -> None:
    """Errors 1, -2, 0 and 3 square to a mean of 3.5; KLs of 2 and 8 nats average 5. Rewards enter unscaled."""
    observations = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    z = torch.tensor([[[2.0, 0.0]], [[0.0, 4.0]]]).expand(2, 2, 2)
    rewards = torch.tensor([[3.0, 4.0], [7.0, 8.0]]) - torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    posterior = Gaussian(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.ones(2, 2))
    agent: Any = SimpleNamespace(
        reward_decoder=Sum(),
        config=SimpleNamespace(kl_weight=kl_weight, kl_reduction=kl_reduction, explain_context=False, reward_scale=5.0),
    )
    loss, info = reward_loss(agent, make_batch(observations, torch.zeros(2, 2, 1), rewards), z, posterior)
    torch.testing.assert_close(info["reward_error"], torch.tensor(3.5))
    torch.testing.assert_close(info["kl"], torch.tensor(5.0))
    torch.testing.assert_close(loss, torch.tensor(3.5 + kl_weight * penalty))


def test_context_is_explained_by_the_same_z() -> None:
    """Errors of the context's own rewards: 1 and -3 for z = 2, 0 and 2 for z = 4; their squares average 3.5."""
    s, a = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]), torch.tensor([[[0.5], [0.0]], [[-1.0], [1.0]]])
    z = torch.tensor([[[2.0]], [[4.0]]])
    rewards = (s + a + z).squeeze(-1) - torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    context = make_context(s, a, rewards, 100.0 + s)
    agent: Any = SimpleNamespace(
        reward_decoder=Sum(),
        spec=SimpleNamespace(obs_dim=1, action_dim=1),
        config=SimpleNamespace(kl_weight=0.0, kl_reduction="mean", explain_context=True),
    )
    batch = make_batch(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.zeros(2, 3))._replace(context=context)
    posterior = Gaussian(torch.zeros(2, 1), torch.ones(2, 1))
    loss, info = reward_loss(agent, batch, z.expand(2, 3, 1), posterior)
    torch.testing.assert_close(info["context_error"], torch.tensor(3.5))
    torch.testing.assert_close(loss, torch.tensor(3.5 + 10.0))  # the batch: rewards of 0, decoded as 2 and as 4


def test_label_is_the_decoded_reward_under_one_z_a_task() -> None:
    encoder, decoder = ContextEncoder(4, 3, [8]), RewardDecoder(2, 1, 3, [8])
    context, noise = torch.randn(2, 6, 4), torch.randn(2, 3)
    observations, actions = torch.randn(2, 5, 2), torch.randn(2, 5, 1)
    labels = relabel(encoder, decoder, context, observations, actions, noise)
    assert labels.shape == (2, 5)
    q = encoder(context)
    for task in range(2):
        z = q.mean[task] + q.std[task] * noise[task]
        for i in range(5):
            expected = decoder(observations[task, i], actions[task, i], z)
            torch.testing.assert_close(labels[task, i], expected)


def test_labels_by_hand() -> None:
    """Any callable that returns a plain pair can stand for the encoder."""

    def encoder(context: Tensor) -> Any:
        return context.mean(1), torch.full((len(context), 2), 0.5)

    context = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 2.0]]])  # means (2, 3) and (0, 1)
    observations = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    noise = torch.tensor([[2.0, 0.0], [0.0, -2.0]])  # z: (3, 3) and (0, 0)
    labels = relabel(encoder, Sum(), context, observations, torch.zeros(2, 3, 1), noise)
    torch.testing.assert_close(labels, torch.tensor([[7.0, 8.0, 9.0], [4.0, 5.0, 6.0]]))


def test_labels_carry_no_gradient() -> None:
    encoder, decoder = ContextEncoder(4, 3, [8]), RewardDecoder(2, 1, 3, [8])
    labels = relabel(
        encoder, decoder, torch.randn(1, 6, 4), torch.randn(1, 5, 2), torch.randn(1, 5, 1), torch.randn(1, 3)
    )
    assert not labels.requires_grad
