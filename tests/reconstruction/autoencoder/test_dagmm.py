from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import mixture_parameters
from genad.reconstruction.autoencoder.dagmm import DAGMM

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(600, 5))
    return DAGMM(holdout=0.25, training=Training(updates=200)).fit(X), X


def _batch(detector, X):
    return detector._ingest(X, reset=False).samples.batch(torch.arange(len(X)))


def test_representation_is_code_relative_distance_and_cosine(fitted):
    detector, X = fitted
    batch = _batch(detector, X[:50])
    with torch.no_grad():
        z, restored = detector.net_.represent(batch)
    x, r = batch.x.double().numpy(), restored.double().numpy()
    distance = np.linalg.norm(x - r, axis=1) / np.linalg.norm(x, axis=1)
    cosine = (x * r).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(r, axis=1)
    np.testing.assert_allclose(z[:, -2], distance, rtol=1e-3)
    np.testing.assert_allclose(z[:, -1], cosine, rtol=1e-3)
    assert z.shape == (50, detector.latent + 2)
    np.testing.assert_allclose(detector.encode(X[:50]), z, rtol=1e-5, atol=1e-6)


def test_memberships_are_soft_and_dropout_is_off_after_training(fitted):
    detector, X = fitted
    net = detector.net_
    with torch.no_grad():
        z, _ = net.represent(_batch(detector, X))
        gamma = net.estimate(z)
        torch.testing.assert_close(gamma, net.estimate(z))
    torch.testing.assert_close(gamma.sum(1), torch.ones(len(X)))
    assert not net.estimate.training


def test_mixture_is_that_of_the_whole_training_set_not_of_a_batch(fitted):
    detector, X = fitted
    net = detector.net_
    assert detector.training_report_.samples == 450
    from genad.core.splits import split_rows

    train, _ = split_rows(np.ones(600, bool), 0.25, detector.seed_)
    with torch.no_grad():
        z, _ = net.represent(_batch(detector, X[train]))
        phi, mu, sigma = mixture_parameters(z, net.estimate(z))
    torch.testing.assert_close(net.phi, phi, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(net.mu, mu, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(net.sigma, sigma, rtol=1e-3, atol=1e-4)


def test_score_is_the_mixture_energy_of_scipy_in_double_precision(fitted):
    detector, X = fitted
    net = detector.net_
    assert net.sigma.dtype == torch.float64
    z = detector.encode(X[:40]).astype(float)
    eye = detector.eps * np.eye(z.shape[1])
    logs = [
        np.log(p) + stats.multivariate_normal(m, s + eye).logpdf(z)
        for p, m, s in zip(net.phi.numpy(), net.mu.numpy(), net.sigma.numpy(), strict=True)
    ]
    expected = -special.logsumexp(np.stack(logs), axis=0)
    np.testing.assert_allclose(detector.anomaly_score(X[:40]), expected, rtol=1e-3, atol=1e-2)


def test_loss_joins_error_energy_and_penalty():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = DAGMM().build((4,)).eval()
    with torch.no_grad():
        parts = [
            float(DAGMM(energy_weight=e, covariance_weight=c).loss(net, Batch(x)))
            for e, c in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25))
        ]
        error = float((net.decode(net.encode(x)) - x).square().sum(1).mean())
    base, energy, penalty = parts[0], parts[1] - parts[0], parts[2] - parts[0]
    assert base == pytest.approx(error, rel=1e-5)
    assert penalty > 0
    assert parts[3] == pytest.approx(base + 0.5 * energy + 0.25 * penalty, rel=1e-4)


def test_every_part_of_the_network_gets_a_gradient_of_the_energy():
    torch.manual_seed(0)
    detector = DAGMM(energy_weight=1.0)
    net = detector.build((4,))
    detector.loss(net, Batch(torch.randn(64, 4))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert float(net.estimate[0].weight.grad.abs().sum()) > 0


def test_map_and_restored_rows(fitted, tmp_path):
    detector, X = fitted
    found = detector.detect(X[:20])
    assert (found.maps >= 0).all()
    assert np.asarray(found.restored).shape == (20, 5)
    again = load(detector.save(tmp_path / "model.genad"))
    np.testing.assert_array_equal(again.anomaly_score(X), detector.anomaly_score(X))


def test_missing_values_have_no_share(fitted):
    detector, X = fitted
    broken = X[:4].copy()
    broken[:, 1] = np.nan
    found = detector.detect(broken)
    assert np.isfinite(found.scores).all()
    assert (found.maps[:, 1] == 0).all()


@pytest.mark.parametrize("shape", [(1,), (16, 2), (1, 8, 8)])
def test_every_dense_shape_with_a_constant_value(shape):
    X = np.random.default_rng(0).normal(size=(30, *shape))
    X.reshape(30, -1)[:, 0] = 1.0
    found = DAGMM(training=Training(updates=3)).fit(X).detect(X)
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.maps).all()


@pytest.mark.parametrize(
    "params",
    [{"latent": 0}, {"components": 0}, {"energy_weight": -1.0}, {"covariance_weight": -1.0}, {"eps": 0.0}],
)
def test_unusable_parameters_are_named(params):
    with pytest.raises(InputError, match=next(iter(params))):
        DAGMM(**params).fit(np.zeros((20, 3)))


def test_floor_on_a_real_table(one_class):
    found = []
    for seed in (0, 1, 2):
        train, test, y = one_class("breastw", seed)
        found.append(roc_auc_score(y, DAGMM(random_state=seed).fit(train).anomaly_score(test)))
    assert np.mean(found) > 0.85
