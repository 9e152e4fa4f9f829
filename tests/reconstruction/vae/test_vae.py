from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch import nn

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.backbone import KINDS, BackboneKind
from genad.reconstruction.vae.vae import VAE

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture
def linear(monkeypatch):
    """A backbone without hidden layers."""

    def decoder(shape, latent, spec, heads):
        return nn.Sequential(nn.Linear(latent, heads * shape[0]), nn.Unflatten(1, (heads, *shape)))

    kind = BackboneKind(
        lambda shape: len(shape) == 1,
        "a row",
        lambda shape, out, spec: nn.Linear(shape[0], out),
        decoder,
        lambda shape, spec, cond: nn.Linear(shape[0], shape[0]),
        default=False,
    )
    monkeypatch.setitem(KINDS, "linear-vae", kind)
    return "linear-vae"


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 5)) + 0.2 * rng.normal(size=(500, 5))
    return VAE(training=Training(updates=300)).fit(X), X


def test_linear_vae_reaches_the_likelihood_of_probabilistic_pca(linear):
    rng = np.random.default_rng(0)
    # Loadings of one length: all features have one variance, so that scaling keeps the noise isotropic.
    loadings = rng.normal(size=(2, 6))
    loadings /= np.linalg.norm(loadings, axis=0)
    X = rng.normal(size=(2000, 2)) @ loadings + 0.5 * rng.normal(size=(2000, 6))
    X = (X - X.mean(0)) / X.std(0)
    detector = VAE(
        latent=2,
        beta=1.0,
        draws=64,
        min_std=0.01,
        backbone=linear,
        training=Training(updates=1000, batch_size=256, lr=3e-2),
    ).fit(X)
    exact = PCA(2).fit(X).score(X)
    bound = detector.elbo(X).mean()
    # A bound at most 0.1 nats in 6 dimensions from the optimum; features have their own noise, which can gain a bit.
    assert exact - 0.1 < bound < exact + 0.1


def test_score_is_the_mean_negative_log_density_over_the_noise_bank(fitted):
    detector, X = fitted
    net = detector.net_
    Z = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    batch = Batch(torch.from_numpy(Z[:20]))
    with torch.no_grad():
        mean, std = net.posterior(batch.x)
        expected = np.zeros((20, 5))
        for noise in net.noise:
            mu, sigma = net.likelihood(mean + std * noise)
            expected -= stats.norm(mu.numpy(), sigma.numpy()).logpdf(Z[:20]) / len(net.noise)
        found = detector.infer(net, batch, frozenset({"map"}))
    np.testing.assert_allclose(found.map.numpy() + detector.least, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.score.numpy(), expected.sum(1), rtol=1e-3, atol=1e-4)


def test_score_leaves_out_the_divergence_that_the_bound_has(fitted):
    detector, X = fitted
    assert (detector.elbo(X) < -detector.anomaly_score(X)).all()


def test_scores_are_repeatable_whatever_rows_come_along(fitted):
    detector, X = fitted
    whole = detector.anomaly_score(X)
    np.testing.assert_array_equal(whole, detector.anomaly_score(X))
    np.testing.assert_allclose(detector.anomaly_score(X[7:10]), whole[7:10], rtol=1e-6)


def test_the_same_error_counts_less_where_the_decoder_is_uncertain():
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=2000)
    X = np.column_stack([4.0 * group, np.where(group == 1, 1.0, 0.1) * rng.normal(size=2000)])
    detector = VAE(min_std=0.02, training=Training(updates=500)).fit(X)
    quiet, loud = detector.anomaly_score([[0.0, 1.5], [4.0, 1.5]])
    assert quiet > loud + 1.0


def test_standard_deviation_has_a_floor_for_constant_features():
    X = np.random.default_rng(0).normal(size=(200, 3))
    X[:, 1] = 5.0
    detector = VAE(min_std=0.2, training=Training(updates=300)).fit(X)
    with torch.no_grad():
        _, sigma = detector.net_.likelihood(torch.randn(50, 16))
    assert float(sigma.min()) >= 0.2
    assert np.isfinite(detector.anomaly_score(X)).all()


def test_samples_follow_the_data(fitted):
    detector, X = fitted
    drawn = detector.sample(4000, random_state=1)
    assert drawn.shape == (4000, 5)
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.3 * X.std())
    agreement = np.corrcoef(np.cov(drawn.T).ravel(), np.cov(X.T).ravel())[0, 1]
    assert agreement > 0.95
    np.testing.assert_array_equal(drawn, detector.sample(4000, random_state=1))


def test_map_finds_the_broken_feature(fitted):
    detector, X = fitted
    broken = X[:100].copy()
    column = np.arange(100) % 5
    broken[np.arange(100), column] += 4 * X.std(0)[column]
    assert (detector.anomaly_map(broken).argmax(1) == column).mean() > 0.8


def test_normal_rows_are_restored_to_near_themselves_and_models_survive_saving(fitted, tmp_path):
    detector, X = fitted
    residual = (np.asarray(detector.restore(X)) - X) / X.std(0)
    assert np.sqrt(np.square(residual).mean()) < 0.35
    again = load(detector.save(tmp_path / "model.genad"))
    np.testing.assert_array_equal(again.anomaly_score(X), detector.anomaly_score(X))


def test_missing_values_count_at_the_mean_of_the_observed(fitted):
    detector, X = fitted
    broken = X[:3].copy()
    broken[:, 2] = np.nan
    found = detector.detect(broken)
    assert (found.maps[:, 2] == 0).all()
    least = 4 * detector.least
    np.testing.assert_allclose(found.scores, (found.maps.sum(1) + least) * 5 / 4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1,), (16, 2), (1, 8, 8), (4, 1, 8, 8)])
def test_every_dense_shape(shape):
    X = np.random.default_rng(0).normal(size=(30, *shape))
    detector = VAE(latent=3, training=Training(updates=3)).fit(X)
    found = detector.detect(X)
    assert np.isfinite(found.scores).all()
    assert np.asarray(found.restored).shape == X.shape
    assert detector.encode(X).shape == (30, 3)


@pytest.mark.parametrize("params", [{"latent": 0}, {"latent": True}, {"draws": 0}, {"beta": -1.0}, {"min_std": 0.0}])
def test_unusable_parameters_are_named(params):
    with pytest.raises(InputError, match=next(iter(params))):
        VAE(**params).fit(np.zeros((20, 3)))


@pytest.mark.parametrize(("table", "floor"), [("cardio", 0.86), ("thyroid", 0.94), ("pendigits", 0.94)])
def test_floor_on_real_tables(one_class, table, floor):
    found = []
    for seed in (0, 1, 2):
        train, test, y = one_class(table, seed)
        found.append(roc_auc_score(y, VAE(random_state=seed).fit(train).anomaly_score(test)))
    assert np.mean(found) > floor
