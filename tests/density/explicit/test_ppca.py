"""Probabilistic PCA: its closed form against scikit-learn and against the Gaussian it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from genad import PPCA
from genad.core.splits import split_rows
from genad.errors import InputError


def plane(n=1000, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.1 * rng.normal(size=(n, d))


def standardised(X):
    """Return the rows as the model sees them; held-out ones belong to it in the end."""
    return (X - X.mean(0)) / X.std(0)


def trained_on(detector, X):
    """Return the standardised rows that were not held out."""
    train, _ = split_rows(np.ones(len(X), bool), detector.holdout, detector.seed_)
    return standardised(X)[train]


def distances(net, z):
    """Return the squared Mahalanobis distance of rows to a model, per value, by the inverse of its covariance."""
    axes, variances = net.axes.numpy().astype(float), net.variances.numpy().astype(float)
    noise, d = float(net.noise), z.shape[1]
    covariance = axes.T @ np.diag(variances - noise) @ axes + noise * np.eye(d)
    z = z - net.mean.numpy()
    return np.einsum("ij,jk,ik->i", z, np.linalg.inv(covariance), z) / d


def test_the_axes_span_the_principal_subspace():
    X = plane()
    detector = PPCA(keep=0.9).fit(X)
    reference = PCA(2).fit(standardised(X))
    axes = detector.net_.axes.numpy().astype(float)
    assert axes.shape == (2, 6)
    cosines = np.linalg.svd(axes @ reference.components_.T)[1]
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    np.testing.assert_allclose(detector.net_.variances, reference.explained_variance_ * 999 / 1000, rtol=1e-4)


def test_the_score_is_the_mahalanobis_distance_of_the_model():
    X = plane()
    detector = PPCA(keep=0.9).fit(X)
    expected = distances(detector.net_, standardised(X)[:50])
    np.testing.assert_allclose(detector.anomaly_score(X[:50]), expected, rtol=1e-4)
    # The parts of the map add up to the distance where all of them are positive.
    maps = detector.anomaly_map(X[:50])
    whole = (maps > 0).all(axis=1)
    assert whole.sum() > 5
    np.testing.assert_allclose(maps[whole].sum(1), expected[whole] * 6, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
def test_held_out_rows_are_learnt_from_after_they_were_scored_unseen():
    X = plane(n=60, d=8)
    detector = PPCA(keep=0.9).fit(X)
    _, held = split_rows(np.ones(len(X), bool), detector.holdout, detector.seed_)
    np.testing.assert_allclose(detector.net_.mean, standardised(X).mean(0), atol=1e-6)
    np.testing.assert_allclose(detector.net_.earlier.mean, trained_on(detector, X).mean(0), atol=1e-6)
    unseen = distances(detector.net_.earlier, standardised(X)[held])
    np.testing.assert_allclose(detector.calibration_scores_, np.sort(unseen), rtol=1e-4)
    assert unseen.mean() > distances(detector.net_, standardised(X)[held]).mean()
    assert len(detector.net_.rows) == 0  # the samples themselves are let go
    assert not any("earlier" in name or "rows" in name for name in detector.net_.state_dict())


def test_the_residual_is_what_principal_components_leave():
    X = plane()
    detector = PPCA(keep=0.9, score_by="residual").fit(X)
    net, z = detector.net_, standardised(X)[:50]
    reference = PCA(2).fit(standardised(X))
    left = (z - reference.inverse_transform(reference.transform(z))) ** 2 / float(net.noise)
    np.testing.assert_allclose(detector.anomaly_score(X[:50]), left.mean(1), rtol=1e-3)
    np.testing.assert_allclose(detector.anomaly_map(X[:50]), left, rtol=1e-2, atol=1e-3)


def test_far_out_in_the_subspace_is_normal_to_the_residual():
    X = plane()
    detector = PPCA(keep=0.9, score_by="residual").fit(X)
    row = detector.restore(X[:1])[0]
    far = X.mean(0) + 20 * (row - X.mean(0))
    assert detector.anomaly_score(far[None])[0] < np.median(detector.anomaly_score(X))
    np.testing.assert_allclose(detector.restore(far[None])[0], far, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
def test_fewer_rows_than_values_go_through_the_gram_matrix():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 90)) + 0.05 * rng.normal(size=(40, 90))
    detector = PPCA(keep=0.95).fit(X, None)
    axes = detector.net_.axes.numpy().astype(float)
    reference = PCA(len(axes)).fit(standardised(X))
    np.testing.assert_allclose(np.linalg.svd(axes @ reference.components_.T)[1], 1, atol=1e-4)


def test_far_out_in_the_subspace_counts_and_is_drawn_in():
    X = plane()
    detector = PPCA(keep=0.9).fit(X)
    outer = detector.restore(X[[np.argmax(np.linalg.norm(X - X.mean(0), axis=1))]])[0]
    far = X.mean(0) + 8 * (outer - X.mean(0))
    assert detector.anomaly_score(far[None]) > 10 * np.median(detector.anomaly_score(X))
    restored = detector.restore(far[None])
    assert np.linalg.norm(restored - X.mean(0)) < 0.5 * np.linalg.norm(far - X.mean(0))


@pytest.mark.parametrize(
    ("params", "word"),
    [({"keep": 0}, "keep"), ({"keep": 1.0}, "keep"), ({"floor": 0}, "floor"), ({"score_by": "both"}, "score_by")],
)
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
