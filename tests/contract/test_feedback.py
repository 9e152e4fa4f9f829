"""Every detector learns from a few labels, forgets them, keeps them in its file, and proposes what to label."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from genad.core.persistence import load
from genad.data.kinds import Kind
from genad.errors import InputError


def _taught(case, labels=None):
    """Return a detector that was told of gross anomalies that they are normal, and these."""
    detector, X = case.copy(), case.anomalous(400 if case.kind is Kind.SERIES else 6, seed=3)
    y = np.full(len(X), -1)
    y[:6] = 0 if labels is None else labels
    return detector.feedback(case.wrap(X), y), X


def test_false_alarms_called_normal_are_less_of_an_alarm_until_that_is_forgotten(case):
    X = case.wrap(case.normal(seed=4))
    detector, told = _taught(case)
    ranks = case.fitted.p_value(case.wrap(told))[:6]
    assert (detector.p_value(case.wrap(told))[:6] >= ranks).all()
    for head in (d.head_ for d in getattr(detector, "detectors_", {"": detector}).values()):
        if head is not None:
            assert (head.judge_labelled() < head.rarity(head.told[:, 0])).all()
    assert np.isfinite(detector.anomaly_score(X)).all()
    detector.forget()
    np.testing.assert_array_equal(detector.anomaly_score(X), case.fitted.anomaly_score(X))
    np.testing.assert_array_equal(detector.p_value(X), case.fitted.p_value(X))
    np.testing.assert_array_equal(detector.predict(X), case.fitted.predict(X))


def test_p_values_stay_uniform_after_feedback(table_case):
    case = table_case
    if case.name not in {"ppca", "autoencoder", "mem_stream"}:
        pytest.skip("the head is the same for all; three ways of scoring are enough")
    detector = case.fit(case.make(holdout=0.5), case.normal(800, seed=11))
    X = np.concatenate([case.normal(10, seed=12), case.anomalous(10, seed=13)])
    detector.feedback(X, np.r_[np.zeros(10, int), np.ones(10, int)])
    p = detector.p_value(case.normal(1500, seed=14))
    for level in (0.1, 0.25, 0.5):
        assert (p <= level).mean() < level + 4 * np.sqrt(level * (1 - level) / 400)


def test_feedback_is_saved(first_case, tmp_path):
    case = first_case
    detector, _ = _taught(case)
    X = case.wrap(case.normal(seed=4))
    again = load(detector.save(tmp_path / "taught.genad"))
    np.testing.assert_array_equal(again.anomaly_score(X), detector.anomaly_score(X))
    np.testing.assert_array_equal(again.predict(X), detector.predict(X))
    again.forget()
    np.testing.assert_array_equal(again.anomaly_score(X), case.fitted.anomaly_score(X))


def test_taught_scores_do_not_depend_on_the_other_rows(table_case):
    case = table_case
    detector, _ = _taught(case)
    X = case.normal(40, seed=6)
    whole = detector.anomaly_score(case.wrap(X))
    if case.takes_arrays:
        np.testing.assert_array_equal(detector.anomaly_score(X[7:8]), whole[7:8])
        np.testing.assert_array_equal(detector.anomaly_score(X[::-1]), whole[::-1])


@pytest.mark.parametrize("labels", [[1] * 6, [0] * 6, [0, 1, 0, 1, 0, 1]])
def test_one_class_and_contradicting_labels_are_taken(first_case, labels):
    detector, X = _taught(first_case, labels)
    assert np.isfinite(detector.anomaly_score(first_case.wrap(X))).all()
    assert detector.threshold_.promise


def test_query_proposes_different_units_deterministically(first_case):
    case = first_case
    X = np.concatenate([case.normal(90, seed=7), case.anomalous(30, seed=8)])
    chosen = case.fitted.query(case.wrap(X), 8)
    assert len(set(chosen.tolist())) == 8
    assert ((chosen >= 0) & (chosen < len(X))).all()
    np.testing.assert_array_equal(case.fitted.query(case.wrap(X), 8), chosen)


def test_bad_feedback_is_named_and_changes_nothing(first_case):
    case, X = first_case, first_case.wrap(first_case.normal(120, seed=9))
    detector = copy.deepcopy(case.fitted)
    for y, found in (([0, 1], "2 labels were given for 120"), ([2] * 120, "other than 1"), ([-1] * 120, "no unit is")):
        with pytest.raises(InputError, match=found):
            detector.feedback(X, y)
    for n in (0, 121, 1.5):
        with pytest.raises(InputError, match=r"n: .* was given; use a whole number from 1 to the 120"):
            detector.query(X, n)
    np.testing.assert_array_equal(detector.anomaly_score(X), case.fitted.anomaly_score(X))
