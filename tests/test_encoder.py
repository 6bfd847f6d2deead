"""The encoder and the arithmetic of Gaussians, against numeric integrals and torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl
from torch.nn import functional

from smac_lab.encoder import (
    MIN_VARIANCE,
    ContextEncoder,
    Gaussian,
    kl_divergence,
    kl_to_prior,
    make_context,
    product_of_gaussians,
)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def random_gaussian(*shape: int) -> Gaussian:
    return Gaussian(torch.randn(*shape), 0.2 + torch.rand(*shape))


# -- product of Gaussians --------------------------------------------------------------------------------
def test_product_by_hand() -> None:
    # N(0, 1) N(2, 1) ~ N(1, 1/2); times N(4, 2): precision 2 + 1/2, mean 0.4 (2 * 1 + 1/2 * 4)
    two = product_of_gaussians(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]]))
    three = product_of_gaussians(torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([[1.0], [1.0], [2.0]]))
    torch.testing.assert_close(torch.stack(two).flatten(), torch.tensor([1.0, math.sqrt(0.5)]))
    torch.testing.assert_close(torch.stack(three).flatten(), torch.tensor([1.6, math.sqrt(0.4)]))


def test_product_of_densities_on_a_grid() -> None:
    means, variances = torch.randn(5, 1, dtype=torch.float64), 0.3 + torch.rand(5, 1, dtype=torch.float64)
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    density = Normal(means, variances.sqrt()).log_prob(grid).sum(0).exp()  # of five factors, on the grid
    density = density / density.sum()
    mean = (density * grid).sum()
    std = (density * (grid - mean).square()).sum().sqrt()

    product = product_of_gaussians(means, variances)
    torch.testing.assert_close(product.mean.squeeze(), mean)
    torch.testing.assert_close(product.std.squeeze(), std)


def test_product_of_one_factor_is_the_factor() -> None:
    mean, std = random_gaussian(3, 1, 4)
    product = product_of_gaussians(mean, std.square())
    torch.testing.assert_close(product.mean, mean.squeeze(1))
    torch.testing.assert_close(product.std, std.squeeze(1))


def test_equal_factors_shrink_the_variance() -> None:
    mean, std = random_gaussian(3, 1, 4)
    product = product_of_gaussians(mean.expand(3, 9, 4), std.square().expand(3, 9, 4))
    torch.testing.assert_close(product.mean, mean.squeeze(1))
    torch.testing.assert_close(product.std, std.squeeze(1) / 3)


def test_variances_are_clamped() -> None:
    product = product_of_gaussians(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1e-30]]))
    torch.testing.assert_close(product.mean, torch.tensor([2.0]))
    torch.testing.assert_close(product.std, torch.tensor([math.sqrt(MIN_VARIANCE / 2)]))


# -- the encoder -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("n", [1, 8])
def test_encoder_shapes(tasks: int, n: int) -> None:
    q = ContextEncoder(6, 4, [10])(torch.randn(tasks, n, 6))
    assert isinstance(q, Gaussian)
    assert q.mean.shape == q.std.shape == (tasks, 4)
    assert (q.std > 0).all()


def test_encoder_is_the_product_of_its_transitions() -> None:
    encoder = ContextEncoder(6, 4, [10])
    context = torch.randn(3, 8, 6)
    q = encoder(context)
    factors = encoder.net(context)
    precisions = 1 / functional.softplus(factors[..., 4:])
    torch.testing.assert_close(q.std, precisions.sum(1).rsqrt())
    torch.testing.assert_close(q.mean, (precisions * factors[..., :4]).sum(1) / precisions.sum(1))


def test_order_of_transitions_does_not_matter() -> None:
    encoder, context = ContextEncoder(6, 4, [10]), torch.randn(3, 8, 6)
    shuffled = context[:, torch.randperm(8)]
    assert not torch.equal(shuffled, context)
    torch.testing.assert_close(encoder(shuffled), encoder(context))


def test_tasks_do_not_mix() -> None:
    encoder, context = ContextEncoder(6, 4, [10]), torch.randn(3, 8, 6)
    other = context.clone()
    other[1] += 1.0
    before, after = encoder(context), encoder(other)
    torch.testing.assert_close(after.mean[[0, 2]], before.mean[[0, 2]])
    assert (after.mean[1] != before.mean[1]).any()


def test_sample_is_reparameterised() -> None:
    mean, std = (torch.randn(3, 2, requires_grad=True) for _ in range(2))
    noise = torch.randn(3, 2)
    sample = Gaussian(mean, std).sample(noise)
    torch.testing.assert_close(sample, mean + std * noise)
    sample.sum().backward()
    assert mean.grad is not None
    assert std.grad is not None
    torch.testing.assert_close(mean.grad, torch.ones(3, 2))
    torch.testing.assert_close(std.grad, noise)


# -- divergences -----------------------------------------------------------------------------------------
def expected_kl(q: Gaussian, p: Gaussian) -> Tensor:
    return torch_kl(Normal(*q), Normal(*p)).sum(-1)


def test_kl_against_torch_distributions() -> None:
    q, p = random_gaussian(3, 5, 4), random_gaussian(3, 5, 4)
    prior = Gaussian(torch.zeros(3, 5, 4), torch.ones(3, 5, 4))
    torch.testing.assert_close(kl_divergence(q, p), expected_kl(q, p))
    torch.testing.assert_close(kl_to_prior(q), expected_kl(q, prior))
    torch.testing.assert_close(kl_to_prior(q), kl_divergence(q, prior))


def test_kl_by_hand() -> None:
    # Only the mean differs: half its square. Only the variance, 4 against 1: (4 - 1 - log 4) / 2.
    q = Gaussian(torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 2.0]]))
    torch.testing.assert_close(kl_to_prior(q), torch.tensor([4.5, 1.5 - math.log(2.0)]))


def test_kl_vanishes_only_between_equals() -> None:
    q, p = random_gaussian(6, 2), random_gaussian(6, 2)
    torch.testing.assert_close(kl_divergence(q, q), torch.zeros(6))
    assert (kl_divergence(q, p) > 1e-3).all()
    assert not torch.allclose(kl_divergence(q, p), kl_divergence(p, q))


def test_kl_of_the_narrowest_posterior_is_finite() -> None:
    std = torch.full((1, 2), math.sqrt(MIN_VARIANCE / 1000), requires_grad=True)
    kl = kl_to_prior(Gaussian(torch.zeros(1, 2), std))
    kl.sum().backward()
    assert kl.isfinite().all()
    assert std.grad is not None
    assert std.grad.isfinite().all()


# -- context ---------------------------------------------------------------------------------------------
def test_context_columns() -> None:
    obs, act, rewards, next_obs = torch.randn(2, 5, 3), torch.randn(2, 5, 2), torch.randn(2, 5), torch.randn(2, 5, 3)
    short, full = make_context(obs, act, rewards, None), make_context(obs, act, rewards, next_obs)
    assert short.shape == (2, 5, 6)
    assert full.shape == (2, 5, 9)
    assert torch.equal(full[..., :6], short)
    for got, expected in ((short[..., :3], obs), (short[..., 3:5], act), (short[..., 5], rewards)):
        assert torch.equal(got, expected)
    assert torch.equal(full[..., 6:], next_obs)
