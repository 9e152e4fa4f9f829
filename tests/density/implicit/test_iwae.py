"""IWAE: the bound it is trained by and scored by, and its doubly reparameterised gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.distributions import Normal

from genad import Training
from genad.data.samples import Batch
from genad.density.implicit.iwae import IWAEDetector
from genad.errors import InputError
from genad.nn import gaussian_log_prob, kl_to_standard_normal
from genad.nn.vae import VAENet

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(600, 2)) @ rng.normal(size=(2, 5)) + 0.2 * rng.normal(size=(600, 5))


@pytest.fixture(scope="module")
def fitted(rows):
    return IWAEDetector(training=Training(updates=300)).fit(rows)


@pytest.fixture(scope="module")
def batch(rows):
    return Batch(torch.from_numpy((rows - rows.mean(0)) / rows.std(0)).float()[:40])


def test_the_loss_is_the_bound_of_fresh_draws(fitted, batch):
    net = fitted.net_
    torch.manual_seed(3)
    found = fitted.loss(net, batch).item()
    torch.manual_seed(3)
    mean, std = net.posterior(batch.x)
    z = mean + std * torch.randn(5, *mean.shape)
    weights = []
    for one in z:
        likelihood = Normal(*net.likelihood(one)).log_prob(batch.x).sum(1)
        weights.append(likelihood + (Normal(0, 1).log_prob(one) - Normal(mean, std).log_prob(one)).sum(1))
    bound = torch.stack(weights).exp().mean(0).log()
    assert found == pytest.approx(-bound.mean().item() / 5, rel=1e-4)


def test_one_particle_gives_the_evidence_lower_bound(fitted, batch):
    net = fitted.net_
    detector = IWAEDetector(particles=1)
    torch.manual_seed(0)
    found = np.mean([detector.loss(net, batch).item() for _ in range(400)])
    mean, std = net.posterior(batch.x)
    drawn = [
        gaussian_log_prob(batch.x, *net.likelihood(mean + std * torch.randn_like(mean))).sum(1).mean().item()
        for _ in range(400)
    ]
    elbo = np.mean(drawn) - kl_to_standard_normal(mean, std).sum(1).mean().item()
    assert found == pytest.approx(-elbo / 5, abs=0.02)
    # More particles bound the same density more tightly.
    torch.manual_seed(0)
    assert np.mean([fitted.loss(net, batch).item() for _ in range(100)]) < found - 0.02


def gradients(detector, net, batch, n):
    """Return gradients of encoder and decoder, (n, parameters) each."""
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        net.zero_grad()
        detector.loss(net, batch).backward()
        found.append([torch.cat([p.grad.flatten() for p in part.parameters()]) for part in (net.encode, net.decode)])
    return [torch.stack(part) for part in zip(*found, strict=True)]


def test_the_doubly_reparameterised_gradient_is_another_estimate_of_the_same(batch):
    torch.manual_seed(0)
    plain, doubly = IWAEDetector(latent=2, particles=4), IWAEDetector(latent=2, particles=4, doubly=True)
    net = plain.build((5,))
    (encoder, decoder), (encoder2, decoder2) = (gradients(d, net, batch, 80) for d in (plain, doubly))
    # The decoder's is the same, draw by draw.
    assert torch.allclose(decoder, decoder2, atol=1e-6)
    assert not torch.allclose(encoder[0], encoder2[0], rtol=0.1)
    apart = (encoder.mean(0) - encoder2.mean(0)).norm()
    assert apart < 2 * ((encoder.var(0) + encoder2.var(0)).sum() / 80).sqrt()
    torch.manual_seed(0)
    one = plain.loss(net, batch).item()
    torch.manual_seed(0)
    assert doubly.loss(net, batch).item() == pytest.approx(one, rel=1e-5)


def test_the_doubly_reparameterised_gradient_has_no_noise_where_the_posterior_is_exact(batch):
    torch.manual_seed(0)
    weight = torch.linalg.qr(torch.randn(5, 2)).Q * torch.tensor([1.0, 0.5])
    variance = 1 / (1 + weight.square().sum(0) / 0.25)

    class Exact(VAENet):
        """A linear decoder with noise of 0.5, and the encoder that inverts it."""

        def likelihood(self, z):
            mean = self.decode(z)
            return mean, torch.full_like(mean, 0.5)

    net = Exact(nn.Linear(5, 4), nn.Linear(2, 5, bias=False), 2, 1, 0.5)
    with torch.no_grad():
        net.decode.weight.copy_(weight)
        net.encode.weight.zero_()
        net.encode.weight[:2] = variance[:, None] * weight.T / 0.25
        net.encode.bias.zero_()
        net.encode.bias[2:] = 1 + (variance.sqrt() - 1e-4).expm1().log()
    (encoder, _), (encoder2, _) = (
        gradients(IWAEDetector(particles=4, doubly=doubly), net, batch, 20) for doubly in (False, True)
    )
    assert encoder2.abs().max() < 1e-4
    assert encoder.std(0).max() > 1e-2


def test_the_score_is_the_negated_bound_over_the_noise_bank(fitted, batch):
    net = fitted.net_
    with torch.no_grad():
        mean, std = net.posterior(batch.x)
        z = mean + std * net.noise[:, None]
        mu, sigma = (part.unflatten(0, z.shape[:2]) for part in net.likelihood(z.flatten(0, 1)))
        weights = Normal(mu, sigma).log_prob(batch.x).sum(2)
        weights = weights + (Normal(0, 1).log_prob(z) - Normal(mean, std).log_prob(z)).sum(2)
        expected = math.log(len(net.noise)) - torch.logsumexp(weights, 0)
        assert len(net.noise) == fitted.draws
        assert torch.allclose(fitted.score_batch(net, batch), expected, rtol=1e-4, atol=1e-3)


def test_the_bound_lies_above_the_evidence_and_the_terms_add_up(fitted, rows):
    terms = fitted.terms(rows)
    np.testing.assert_allclose(terms["bound"], -fitted.anomaly_score(rows), rtol=1e-5, atol=1e-5)
    elbo = terms["reconstruction"] - terms["divergence"]
    assert terms["bound"].mean() > elbo.mean() + 0.1
    assert (terms["divergence"] > 0).all()


def test_missing_values_count_at_the_mean_of_the_observed(fitted, batch):
    mask = torch.ones_like(batch.x, dtype=torch.bool)
    mask[:, 2] = False
    with torch.no_grad():
        holed = fitted.look(fitted.net_, Batch(batch.x * mask, mask))
        alike = fitted.look(fitted.net_, Batch(batch.x * mask))
        # The same codes; what stands in the hole does not count.
        assert torch.equal(holed.mean, alike.mean)
        z = holed.mean + holed.std * fitted.net_.noise[0]
        values = gaussian_log_prob(batch.x, *fitted.net_.likelihood(z))
    expected = (values * mask).sum(1) * 5 / 4
    assert torch.allclose(holed.log_likelihoods[:, 0], expected, rtol=1e-4, atol=1e-3)


def test_the_map_finds_the_broken_feature_and_restoring_mends_it(fitted, rows):
    broken = rows[:100].copy()
    column = np.arange(100) % 5
    broken[np.arange(100), column] += 4 * rows.std(0)[column]
    assert (fitted.anomaly_map(broken).argmax(1) == column).mean() > 0.7
    assert np.abs((fitted.restore(rows) - rows) / rows.std(0)).mean() < 0.3
    assert fitted.sample(20).shape == (20, 5)
    assert fitted.encode(rows[:3]).shape == (3, 16)


@pytest.mark.parametrize("doubly", [False, True])
@pytest.mark.parametrize("shape", [(12, 2), (1, 8, 8)])
def test_other_shapes(shape, doubly):
    X = np.random.default_rng(0).normal(size=(30, *shape))
    found = IWAEDetector(latent=3, draws=4, doubly=doubly, training=Training(updates=3)).fit(X).detect(X)
    assert np.isfinite(found.scores).all()
    assert np.asarray(found.restored).shape == X.shape


@pytest.mark.parametrize(
    "params", [{"latent": 0}, {"draws": 0}, {"particles": 0}, {"particles": 2.5}, {"min_std": 0.0}]
)
def test_unusable_parameters_are_named(params):
    with pytest.raises(InputError, match=next(iter(params))):
        IWAEDetector(**params).fit(np.zeros((20, 3)))


@pytest.mark.parametrize(("table", "floor"), [("pendigits", 0.9), ("thyroid", 0.94)])
def test_floor_on_real_tables(one_class, table, floor):
    train, test, y = one_class(table)
    detector = IWAEDetector(draws=16, training=Training(updates=300)).fit(train)
    assert roc_auc_score(y, detector.anomaly_score(test)) > floor
