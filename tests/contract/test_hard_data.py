"""Data at the edge: few rows, constant and missing values, gross values, labels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from genad.core.calibration import Conformal
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.errors import CalibrationWarning, GenadWarning, InputError

BRIEF = Training(updates=4)


@pytest.mark.parametrize("n", [1, 2, 31])
def test_few_samples_give_finite_answers_and_a_warning(refit_sample_case, n):
    case = refit_sample_case
    X = case.wrap(case.normal(n))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = case.make(BRIEF, threshold=None).fit(X)
    assert all(issubclass(w.category, GenadWarning) for w in caught), [str(w.message) for w in caught]
    assert any(issubclass(w.category, CalibrationWarning) for w in caught)
    found = detector.detect(X)
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.maps).all()
    assert case.usable(detector.restore(X))


@pytest.mark.parametrize("n", [8, 31])
def test_a_short_series_gives_finite_answers(series_case, n):
    case = series_case
    X = case.normal(n)
    detector = case.fit(case.make(BRIEF), X)
    found = detector.detect(case.wrap(X))
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.maps).all()


def test_a_series_of_one_step_is_refused(series_case):
    with pytest.raises(InputError, match="X"):
        series_case.fit(series_case.make(BRIEF), series_case.normal(1))


def test_fewer_samples_than_a_batch(refit_sample_case):
    case = refit_sample_case
    detector = case.make(BRIEF)
    deep = [key for key in detector.get_params() if key.rpartition("__")[2] == "training"]
    detector.set_params(**dict.fromkeys(deep, Training(updates=4, batch_size=100_000)))
    assert np.isfinite(case.fit(detector, case.normal()).anomaly_score(case.wrap(case.normal(seed=1)))).all()


def test_a_constant_feature(number_case):
    case = number_case
    X, fresh = case.normal(), case.normal(seed=1)
    where = (..., 1) if case.kind is not Kind.IMAGE and case.kind is not Kind.VIDEO else (..., 0, 0)
    X[where] = fresh[where] = 7.0
    detector = case.fit(case.make(BRIEF), X)
    assert np.isfinite(detector.anomaly_score(case.wrap(fresh))).all()
    fresh[(0, *where)] = 9.0
    found = detector.detect(case.wrap(fresh))
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.maps).all()


def test_constant_data(refit_sample_case):
    case = refit_sample_case
    X = np.broadcast_to(case.normal(1), case.normal(40).shape).copy()
    found = case.fit(case.make(), X).detect(case.wrap(X))
    assert np.isfinite(found.scores).all()
    np.testing.assert_allclose(found.scores, found.scores[0], rtol=1e-5)


def test_missing_cells_are_skipped(number_case):
    case = number_case
    detector, _ = case.gappy
    fresh = case.normal(seed=1)
    fresh[case.missing] = np.nan
    found = detector.detect(case.wrap(fresh))
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.maps).all()
    assert (found.maps[np.isnan(fresh)] == 0).all()
    # What is restored fills the gaps.
    assert np.isfinite(case.values(detector.restore(case.wrap(fresh)))).all()


def test_a_sample_without_any_value_scores_finite(number_sample_case):
    case = number_sample_case
    fresh = case.normal(20, seed=1)
    fresh[3] = np.nan
    found = case.fitted.detect(case.wrap(fresh))
    assert np.isfinite(found.scores).all()
    assert (found.maps[3] == 0).all()
    others = np.arange(20) != 3
    np.testing.assert_allclose(found.scores[others], case.fitted.anomaly_score(case.wrap(fresh[others])), rtol=1e-5)


def test_steps_without_any_value_score_finite(series_case):
    fresh = series_case.normal(seed=1)
    fresh[100:180] = np.nan
    found = series_case.fitted.detect(series_case.wrap(fresh))
    assert np.isfinite(found.scores).all()
    assert (found.maps[100:180] == 0).all()


@pytest.mark.parametrize("size", [1e6, 1e30, -1e30])
def test_gross_values_score_finite_and_high(number_sample_case, size):
    case = number_sample_case
    fresh = case.normal(30, seed=1).astype(np.float64)
    fresh[(2, *[0] * (fresh.ndim - 1))] = size
    found = case.trained.detect(case.wrap(fresh))
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.maps).all()
    assert found.scores[2] >= np.median(found.scores)


def test_labelled_anomalies_are_kept_out(refit_sample_case):
    case = refit_sample_case
    detector, X, y = case.labelled
    # Neither do those of a table that are a million times too large set the scale.
    fresh = np.concatenate([case.normal(60, seed=5), case.anomalous(60, seed=6)])
    assert roc_auc_score(np.repeat([0, 1], 60), detector.anomaly_score(case.wrap(fresh))) > 0.95
    if hasattr(detector, "calibration_scores_"):
        assert len(detector.calibration_scores_) <= 0.2 * (y == 0).sum()
        # Had the anomalies been calibrated on, they would not be told from normal samples.
        bad = X[len(case.normal()) :][: len(case.normal()) // 4]
        assert detector.p_value(case.wrap(bad)).mean() < 0.2


def test_labels_set_a_label_driven_threshold(refit_case):
    case = refit_case
    if not case.takes_arrays:
        pytest.skip("each group has its own threshold")
    detector, X, y = case.labelled
    assert detector.threshold_.rule == "BestF"
    assert detector.predict(case.wrap(X))[y == 1][: len(case.normal()) // 4].mean() < 0


def test_y_of_another_length_is_refused(refit_case):
    case = refit_case
    with pytest.raises(InputError, match="y"):
        case.fit(case.make(BRIEF), case.normal(), np.zeros(3, int))


def test_all_anomalous_is_refused(refit_case):
    case = refit_case
    X = case.normal()
    with pytest.raises(InputError, match="y"):
        case.fit(case.make(BRIEF), X, np.ones(len(X), int))


def test_a_strict_alpha_says_what_is_attainable(refit_sample_case):
    case = refit_sample_case
    X = case.wrap(case.normal())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = case.make(BRIEF, threshold=Conformal(alpha=0.001)).fit(X)
    assert any(issubclass(w.category, CalibrationWarning) for w in caught)
    # The lowest level there is: only what exceeds every calibration score is flagged.
    if hasattr(detector, "calibration_scores_"):
        assert detector.threshold_.value == detector.calibration_scores_[-1]
    else:
        assert detector.threshold_.promise
