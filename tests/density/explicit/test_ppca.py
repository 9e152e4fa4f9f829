"""Probabilistic PCA: its closed form against scikit-learn and against the Gaussian it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from genad import PPCA
from genad.errors import InputError


def plane(n=1000, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.1 * rng.normal(size=(n, d))


def training_rows(detector, X):
    """Return the standardised rows the model was fitted on, those not held out."""
    from genad.core.splits import split_rows

    train, _ = split_rows(np.ones(len(X), bool), detector.holdout, detector.seed_)
    return ((X - X.mean(0)) / X.std(0))[train]


def test_the_axes_span_the_principal_subspace():
    X = plane()
    detector = PPCA(keep=0.9).fit(X)
    reference = PCA(2).fit(training_rows(detector, X))
    axes = detector.net_.axes.numpy().astype(float)
    assert axes.shape == (2, 6)
    cosines = np.linalg.svd(axes @ reference.components_.T)[1]
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    np.testing.assert_allclose(detector.net_.variances, reference.explained_variance_ * 799 / 800, rtol=1e-4)


def test_the_score_is_the_mahalanobis_distance_of_the_model():
    X = plane()
    detector = PPCA(keep=0.9).fit(X)
    net = detector.net_
    axes, variances = net.axes.numpy().astype(float), net.variances.numpy().astype(float)
    noise = float(net.noise)
    covariance = axes.T @ np.diag(variances - noise) @ axes + noise * np.eye(6)
    z = (X[:50] - X.mean(0)) / X.std(0) - net.mean.numpy()
    expected = np.einsum("ij,jk,ik->i", z, np.linalg.inv(covariance), z) / 6
    np.testing.assert_allclose(detector.anomaly_score(X[:50]), expected, rtol=1e-4)
    # The parts of the map add up to the distance where all of them are positive.
    maps = detector.anomaly_map(X[:50])
    whole = (maps > 0).all(axis=1)
    assert whole.sum() > 5
    np.testing.assert_allclose(maps[whole].sum(1), expected[whole] * 6, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
def test_fewer_rows_than_values_go_through_the_gram_matrix():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 90)) + 0.05 * rng.normal(size=(40, 90))
    detector = PPCA(keep=0.95).fit(X, None)
    axes = detector.net_.axes.numpy().astype(float)
    reference = PCA(len(axes)).fit(training_rows(detector, X))
    np.testing.assert_allclose(np.linalg.svd(axes @ reference.components_.T)[1], 1, atol=1e-4)


def test_far_out_in_the_subspace_counts_and_is_drawn_in():
    X = plane()
    detector = PPCA(keep=0.9).fit(X)
    outer = detector.restore(X[[np.argmax(np.linalg.norm(X - X.mean(0), axis=1))]])[0]
    far = X.mean(0) + 8 * (outer - X.mean(0))
    assert detector.anomaly_score(far[None]) > 10 * np.median(detector.anomaly_score(X))
    restored = detector.restore(far[None])
    assert np.linalg.norm(restored - X.mean(0)) < 0.5 * np.linalg.norm(far - X.mean(0))


@pytest.mark.parametrize(("params", "word"), [({"keep": 0}, "keep"), ({"keep": 1.0}, "keep"), ({"floor": 0}, "floor")])
def test_unusable_parameters_are_named(params, word):
    with pytest.raises(InputError, match=word):
        PPCA(**params).fit(plane(50))


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@pytest.mark.parametrize(("table", "floor"), [("thyroid", 0.95), ("cardio", 0.9)])
def test_floor_on_real_tables(one_class, table, floor):
    found = []
    for seed in range(3):
        train, test, y = one_class(table, seed)
        found.append(roc_auc_score(y, PPCA(random_state=seed).fit(train).anomaly_score(test)))
    assert np.mean(found) > floor
