"""DoSE: statistics of a likelihood model, and their density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch.distributions import Normal, kl_divergence

from genad import Training, load
from genad.data.samples import Batch
from genad.density.implicit.dose import DoSE, WhitenedSupportVectors
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


def sphere(n, seed):
    X = np.random.default_rng(seed).normal(size=(n, 5))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["vae", "flow"])
def fitted(request):
    return DoSE(model=request.param, training=Training(updates=300)).fit(sphere(1000, 0))


def test_the_statistics_of_an_autoencoder():
    detector = DoSE(model="vae", training=Training(updates=50)).fit(sphere(300, 0))
    net = detector.net_.density
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = detector.look(detector.net_, Batch(x), frozenset())[0].float()
        mean, std = net.posterior(x)
        posterior, prior = Normal(mean, std), Normal(0.0, 1.0)
        z = mean + std * net.noise[:, None]
        mu, sigma = (part.unflatten(0, z.shape[:2]) for part in net.likelihood(z.flatten(0, 1)))
        likelihood = Normal(mu, sigma).log_prob(x).sum(2)
        weights = likelihood + (prior.log_prob(z) - posterior.log_prob(z)).sum(2)
    divergence, entropy = kl_divergence(posterior, prior).sum(1), posterior.entropy().sum(1)
    cross = 0.5 * (np.log(2 * np.pi) + mean.square() + std.square()).sum(1)
    expected = [weights.exp().mean(0).log(), likelihood.mean(0), divergence, entropy, cross]
    assert torch.allclose(found, torch.stack(expected, 1), rtol=1e-4, atol=1e-3)


def test_the_statistics_of_a_flow_are_the_parts_of_its_likelihood():
    detector = DoSE(model="flow", training=Training(updates=50)).fit(sphere(300, 0))
    terms = detector.statistics(sphere(40, 1))
    assert list(terms) == ["likelihood", "latent", "volume"]
    np.testing.assert_allclose(terms["latent"] + terms["volume"], terms["likelihood"], rtol=1e-5, atol=1e-5)
    net = detector.net_.density
    X = sphere(300, 0)
    x = torch.from_numpy((sphere(40, 1) - X.mean(0)) / X.std(0)).float()
    np.testing.assert_allclose(net.log_prob(x).detach().numpy(), terms["likelihood"], rtol=1e-4, atol=1e-3)
    assert np.ptp(terms["volume"]) > 0


@pytest.mark.parametrize("density", ["kde", "svm"])
def test_the_density_is_that_of_samples_kept_from_the_model(density):
    learnt = []

    class Watched(DoSE):
        def learn(self, net, seen, unseen):
            learnt.extend([seen, unseen])
            super().learn(net, seen, unseen)

    X = sphere(500, 0)
    detector = Watched(density=density, held_share=0.25, training=Training(updates=30)).fit(X)
    seen, unseen = learnt
    assert (len(seen), len(unseen)) == (300, 100)
    assert not torch.isin(seen[:, 0], unseen[:, 0]).any()
    if density == "kde":
        tail = detector.net_.tail
        assert torch.allclose(tail.points * tail.scale + tail.centre, unseen)
    else:
        # At most a tenth of them lies outside of the machine's boundary, as precisely as it is solved.
        assert (detector.net_.tail(unseen) > 1e-2).double().mean() <= 0.11


def test_what_is_more_likely_than_normal_samples_is_rare_too(fitted):
    # The mean of a sphere is no point of it, but smooth models think it likely.
    fresh = fitted.anomaly_score(sphere(300, 2))
    middle, outside = fitted.anomaly_score(np.r_[np.zeros((1, 5)), 4 * sphere(1, 3)])
    assert middle > np.quantile(fresh, 0.75)
    assert outside > fresh.max()


def test_the_product_adds_up_what_each_statistic_says(fitted):
    tail = fitted.net_.tail
    statistics = np.stack(list(fitted.statistics(sphere(200, 4)).values()), 1)
    rows = (torch.from_numpy(statistics) - tail.centre) / tail.scale
    each = Normal(tail.points.T[:, :, None], len(tail.points) ** -0.2).log_prob(rows.T[:, None])
    expected = -(each.exp().mean(1).log()).sum(0).numpy()
    np.testing.assert_allclose(fitted.anomaly_score(sphere(200, 4)), expected, rtol=1e-4, atol=1e-3)


def test_whitening_drops_what_depends_on_the_rest():
    rng = np.random.default_rng(0)
    free = rng.normal(size=(400, 2)) @ [[3.0, 1.0], [0.0, 0.1]]
    vectors = torch.from_numpy(np.column_stack([free, free.sum(1), np.full(400, 7.0)]))
    machine = WhitenedSupportVectors(4)
    machine.fit_to(vectors, 0.1)
    whitened = machine._whitened(vectors)
    kept = whitened.std(0, correction=0) > 0.5
    assert kept.sum() == 2
    covariance = torch.cov(whitened[:, kept].T, correction=0)
    assert torch.allclose(covariance, torch.eye(2, dtype=torch.float64), atol=1e-6)
    # A vector that breaks the small direction is outside, though each of its numbers is usual.
    usual, broken = machine(torch.tensor([[1.0, 0.33, 1.33, 7.0], [3.0, -0.5, 2.5, 7.0]]))
    assert broken > 0 > usual


def test_the_machine_ranks_like_the_product():
    X, fresh = sphere(600, 0), np.r_[sphere(100, 1), 1.5 * sphere(100, 2)]
    product, machine = (
        DoSE(density=density, training=Training(updates=100)).fit(X).anomaly_score(fresh) for density in ("kde", "svm")
    )
    assert spearmanr(product, machine).statistic > 0.4
    assert roc_auc_score(np.repeat([0, 1], 100), machine) > 0.9


def test_a_file_keeps_model_and_density(fitted, tmp_path):
    again = load(fitted.save(tmp_path / "model.genad"))
    X = sphere(30, 5)
    np.testing.assert_array_equal(again.anomaly_score(X), fitted.anomaly_score(X))
    assert again.sample(3).shape == (3, 5)


@pytest.mark.parametrize("params", [{"density": "gmm"}, {"nu": 0.0}, {"model": "gan"}, {"held_share": 1.0}])
def test_unusable_parameters_are_named(params):
    with pytest.raises(InputError, match=next(iter(params))):
        DoSE(**params).fit(np.zeros((20, 3)))


@pytest.mark.parametrize(("table", "floor"), [("pendigits", 0.95), ("thyroid", 0.92)])
def test_floor_on_real_tables(one_class, table, floor):
    train, test, y = one_class(table)
    detector = DoSE(training=Training(updates=200)).fit(train)
    assert roc_auc_score(y, detector.anomaly_score(test)) > floor
