"""The variational autoencoder's network, and the bounds that weighted draws give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from genad.nn.vae import VAENet, draw_posterior, gaussian_vae, log_mean_exp, log_ratio, log_weights


def total(values):
    return values.flatten(1).sum(1)


class LinearVAE(VAENet):
    """Decoder ``W z + b`` with noise of 0.5, whose likelihood and posterior are known."""

    def __init__(self, draws):
        super().__init__(nn.Linear(4, 4), nn.Linear(2, 4), 2, draws, 0.5)

    def likelihood(self, z):
        mean = self.decode(z)
        return mean, torch.full_like(mean, 0.5)

    def exact(self, x):
        weight, bias = self.decode.weight, self.decode.bias
        return MultivariateNormal(bias, weight @ weight.T + 0.25 * torch.eye(4)).log_prob(x)

    def true_posterior(self, x):
        weight = self.decode.weight
        precision = torch.eye(2) + weight.T @ weight / 0.25
        mean = torch.linalg.solve(precision, weight.T @ (x - self.decode.bias).T / 0.25).T
        return mean, torch.linalg.inv(precision)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return LinearVAE(4000).requires_grad_(requires_grad=False)


@pytest.fixture
def x():
    return torch.randn(30, 4, generator=torch.Generator().manual_seed(1))


def test_the_ratio_is_prior_over_posterior():
    generator = torch.Generator().manual_seed(0)
    z, mean = (torch.randn(3, 5, 2, generator=generator) for _ in range(2))
    std = torch.rand(5, 2, generator=generator) + 0.1
    expected = (Normal(0.0, 1.0).log_prob(z) - Normal(mean, std).log_prob(z)).sum(-1)
    assert torch.allclose(log_ratio(z, mean, std), expected, atol=1e-5)


def test_the_mean_is_taken_inside_the_logarithm_and_divided_by_the_draws():
    weights = torch.tensor([[0.0, 1.0, -3.0], [-2000.0, -2001.0, -2002.0]])
    assert log_mean_exp(weights)[0].item() == pytest.approx(np.log(np.exp([0.0, 1.0, -3.0]).mean()))
    assert log_mean_exp(weights)[1].item() == pytest.approx(-2000 + np.log(np.exp([0.0, -1.0, -2.0]).mean()))
    assert torch.equal(log_mean_exp(weights[:, :1]), weights[:, 0])


def test_codes_weighed_at_once_have_the_weights_of_the_noise_bank(linear, x):
    few = linear.noise[:7]
    linear.noise = few
    mean, std = linear.posterior(x)
    found = log_weights(linear, x, mean + std * few[:, None], mean, std, total)
    assert torch.allclose(found.T, draw_posterior(linear, x, mean, std, total).log_weights, atol=1e-5)


def test_many_draws_reach_the_exact_likelihood_from_a_poor_posterior(linear, x):
    mean, covariance = linear.true_posterior(x)
    # Off by a shift, twice as wide, and blind to the correlation of the two dimensions.
    std = 2 * covariance.diagonal().sqrt().expand_as(mean)
    draws = draw_posterior(linear, x, mean + 0.3 * std, std, total)
    exact = linear.exact(x)
    assert (draws.bound - exact).abs().max() < 0.15
    elbo = draws.reconstruction - draws.divergence
    assert (elbo < exact - 0.5).all()
    assert torch.allclose(draws.log_weights.mean(1), elbo, atol=0.15)


def test_the_bound_is_tighter_the_more_draws_there_are(linear, x):
    mean, covariance = linear.true_posterior(x)
    std = 1.5 * covariance.diagonal().sqrt().expand_as(mean)
    weights = draw_posterior(linear, x, mean, std, total).log_weights

    def bound(k):
        # Every draw is used, in groups of k.
        return log_mean_exp(weights.view(len(x), -1, k)).mean()

    found = [bound(k).item() for k in (1, 2, 10, 100)]
    assert found == sorted(found)
    assert found[0] < found[1] - 0.05
    assert found[-1] < linear.exact(x).mean().item() + 0.02


def test_averages_by_value_are_weighed(linear, x):
    linear.noise = linear.noise[:50]
    mean, std = linear.posterior(x)
    draws = draw_posterior(linear, x, mean, std, total, values=True)
    z = mean + std * linear.noise[:, None]
    made = linear.decode(z)
    weights = torch.softmax(draws.log_weights, 1).T[..., None]
    assert torch.allclose(draws.restored, (weights * made).sum(0), atol=1e-5)
    assert torch.allclose(draws.nll, -(weights * Normal(made, 0.5).log_prob(x)).sum(0), rtol=1e-4, atol=1e-5)
    plain = draw_posterior(linear, x, mean, std, total)
    assert plain.nll is None
    assert plain.restored is None
    assert torch.equal(plain.log_weights, draws.log_weights)


def test_entropy_and_divergence_are_the_posterior_s(linear, x):
    draws = draw_posterior(linear, x, *linear.posterior(x), total)
    posterior = Normal(draws.mean, draws.std)
    assert torch.allclose(draws.entropy, posterior.entropy().sum(1), atol=1e-5)
    expected = torch.distributions.kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(draws.divergence, expected, atol=1e-4)


def test_absurd_values_stay_finite():
    torch.manual_seed(0)
    net = gaussian_vae((5,), 3, None, draws=4, min_std=0.1)
    x = torch.full((2, 5), 1e15)
    with torch.no_grad():
        draws = draw_posterior(net, x, *net.posterior(x), total, values=True)
    assert draws.bound.isfinite().all()
    assert draws.nll.isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (12, 2), (1, 8, 8), (4, 1, 8, 8)])
def test_the_names_that_model_files_hold_stay(shape):
    net = gaussian_vae(shape, 3, None, draws=4, min_std=0.1)
    assert {name.partition(".")[0] for name in net.state_dict()} == {"encode", "decode", "noise"}
    assert net.generate(6).shape == (6, *shape)
    assert net.noise.shape == (4, 3)
