"""Missing values: guessed from the observed ones, so that a gap in a normal row is no alarm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import genad
from genad import Autoencoder, Committee, Conformal, Ensemble, Training, Windowed, create, default_detector
from genad.data.samples import Batch
from genad.density.explicit.ppca import LinearGaussian

ALPHA = 0.05


def correlated(n, seed, columns=6):
    mixing = np.random.default_rng(0).normal(size=(3, columns))
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ mixing + 0.3 * rng.normal(size=(n, columns))


def with_gaps(X, k, seed=9):
    """Empty ``k`` cells of each row."""
    Y = X.copy()
    rng = np.random.default_rng(seed)
    for row in Y:
        row[rng.permutation(Y.shape[1])[:k]] = np.nan
    return Y


@pytest.fixture(scope="module")
def fitted():
    made = {}

    def get(name):
        if name not in made:
            detector = default_detector("table") if name == "default" else create(name)
            made[name] = detector.set_params(threshold=Conformal(ALPHA)).fit(correlated(3000, 1))
        return made[name]

    return get


@pytest.mark.parametrize(
    "name", ["default", "ppca", "autoencoder", "denoising_autoencoder", "vae", "flow", "nearest_memory"]
)
def test_gaps_in_normal_rows_are_no_alarms(fitted, name):
    fresh = correlated(600, 2)
    for k in (1, 3):
        assert fitted(name).detect(with_gaps(fresh, k)).is_anomaly.mean() < 2 * ALPHA


@pytest.mark.parametrize("name", ["default", "ppca", "autoencoder"])
def test_a_wrong_value_beside_a_gap_is_found(fitted, name):
    X = with_gaps(correlated(300, 2), 1)
    for row in X:
        row[np.flatnonzero(~np.isnan(row))[0]] += 8.0
    assert fitted(name).detect(X).is_anomaly.mean() > 0.9


@pytest.mark.parametrize("name", ["default", "ppca", "autoencoder", "vae", "flow"])
def test_complete_rows_do_not_see_the_gaps_of_others(fitted, name):
    X = correlated(70, 3)
    scores = fitted(name).anomaly_score(X[:64])
    X[64:, 2] = np.nan
    np.testing.assert_allclose(fitted(name).anomaly_score(X)[:64], scores, rtol=1e-5)


@pytest.mark.parametrize("name", ["ppca", "autoencoder", "vae", "flow"])
def test_a_guess_does_not_depend_on_the_other_rows(fitted, name):
    X = with_gaps(correlated(90, 4), 2)
    whole = fitted(name).detect(X)
    for part in (slice(0, 1), slice(10, 41), slice(41, 90)):
        alone = fitted(name).detect(X[part])
        np.testing.assert_allclose(alone.scores, whole.scores[part], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.restored, whole.restored[part], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(fitted(name).anomaly_score(X), fitted(name).anomaly_score(X))


def test_complete_samples_and_observed_values_stay_as_they_are(fitted):
    detector = fitted("autoencoder")
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(40, 6, dtype=torch.bool)
    mask[5:9, 2] = False
    mask[20] = False
    x = x * mask
    with torch.inference_mode():
        filled = detector.fill_missing(detector.net_, Batch(x, mask))
    assert torch.equal(filled.x[mask], x[mask])
    assert (filled.x[5:9, 2] != 0).all()
    # Nothing to guess from.
    assert (filled.x[20] == 0).all()
    assert filled.mask is mask
    complete = Batch(x)
    assert detector.fill_missing(detector.net_, complete) is complete


def test_wrappers_guess_as_what_they_wrap(fitted):
    rows = correlated(1500, 1)
    gaps = with_gaps(correlated(400, 2), 2)
    brief = Autoencoder(training=Training(updates=300))
    for detector in (Ensemble(brief, n=2), Committee((brief, create("ppca")))):
        detector.set_params(threshold=Conformal(ALPHA)).fit(rows)
        assert detector.detect(gaps).is_anomaly.mean() < 2 * ALPHA


@pytest.mark.parametrize("name", ["default", "ppca", "vae", "dagmm", "dte", "nearest_memory"])
def test_a_row_without_any_value_is_typical(fitted, name):
    X = correlated(20, 2)
    X[[3, 7]] = np.nan
    found = fitted(name).detect(X)
    assert (found.scores[[3, 7]] == np.median(fitted(name).calibration_scores_)).all()
    assert not found.is_anomaly[[3, 7]].any()


def test_rows_without_any_value_are_not_calibrated_on():
    X = correlated(400, 1)
    X[::2] = np.nan
    detector = create("ppca", threshold=Conformal(0.1)).fit(X)
    assert np.isfinite(detector.calibration_scores_).all()
    assert len(detector.calibration_scores_) < 60
    y = np.zeros(400, int)
    y[1:40:2] = 1
    labelled = create("ppca", threshold=genad.BestF()).fit(X, y)
    assert np.isfinite(labelled.threshold_.value)


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_the_linear_model_expects_what_its_gaussian_does(keep):
    rows = torch.from_numpy(correlated(500, 1, columns=7)).float()
    model = LinearGaussian(7)
    model.maximise(rows, keep, 1e-3)
    axes, noise = model.axes.double(), float(model.noise)
    covariance = noise * torch.eye(7, dtype=torch.float64)
    covariance += axes.T @ torch.diag(model.variances.double() - noise) @ axes
    for gaps in ([2], [0, 4], [0, 1, 2, 3, 5, 6]):
        mask = torch.ones(3, 7, dtype=torch.bool)
        mask[1:, gaps] = False
        x = (rows[:3] - model.mean) * mask
        full = model.complete(x, mask)
        seen = mask[1]
        gain = covariance[~seen][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
        torch.testing.assert_close(full[1:, ~seen], (x[1:, seen].double() @ gain.T).float(), rtol=1e-3, atol=1e-4)
        assert torch.equal(full[mask], x[mask])


def waves(n, seed):
    k = np.arange(n)
    return np.c_[np.sin(k / 7), np.cos(k / 11)] + 0.1 * np.random.default_rng(seed).normal(size=(n, 2))


@pytest.mark.parametrize("name", ["default", "ppca"])
def test_a_dropout_in_a_normal_series_is_no_alarm(name):
    inner = default_detector("series") if name == "default" else Windowed(create(name), window=16)
    detector = inner.set_params(threshold=Conformal(ALPHA)).fit(waves(3000, 0))
    X = waves(4000, 1)
    dropouts, single = range(300, 3900, 400), range(500, 3900, 400)
    for start in dropouts:
        X[start : start + 40] = np.nan
    for start in single:
        X[start : start + 40, 0] = np.nan
    found = detector.detect(X)
    flags = found.is_anomaly
    silent = np.isnan(X).all(axis=1)
    assert (found.scores[silent] == np.median(detector.calibration_scores_)).all()
    assert not flags[silent].any()
    beside = np.concatenate([np.r_[start - 15 : start, start + 40 : start + 55] for start in dropouts])
    assert flags[beside].mean() < 4 * ALPHA
    assert flags[np.isnan(X).any(axis=1)].mean() < 2 * ALPHA
    # An anomaly beside a gap still shows.
    X[344:350] += 4.0
    assert detector.detect(X).is_anomaly[344:350].any()
