"""The dictionary of figures holds what was asked for, equal to the metrics it names."""

from __future__ import annotations

import numpy as np
import pytest

from genad import metrics
from genad.errors import InputError, MetricWarning

RNG = np.random.default_rng(0)
Y = np.zeros(300, int)
Y[50:70] = Y[200:215] = 1
S = RNG.normal(size=300) + 2 * Y
FLAGS = S > 1.5
TABLE = {
    "auroc",
    "average_precision",
    "precision_at_k",
    "recall_at_1pct_false_alarms",
    "oracle_f1",
}
DECIDED = {"precision", "recall", "f1"}
SERIES = {"vus_roc", "vus_pr"}
EVENTS = {f"{a}_{b}" for a in ("range", "affiliation") for b in ("precision", "recall", "f1")}


def test_names_by_kind():
    assert set(metrics.evaluate(Y, S)) == TABLE
    assert set(metrics.evaluate(Y, S, FLAGS)) == TABLE | DECIDED
    assert set(metrics.evaluate(Y, S, kind="series")) == TABLE | SERIES
    assert set(metrics.evaluate(Y, S, FLAGS, kind="series")) == TABLE | DECIDED | SERIES | EVENTS


def test_values_are_those_of_the_metrics():
    result = metrics.evaluate(Y, S, FLAGS, kind="series", max_buffer=30)
    assert all(type(v) is float and 0 <= v <= 1 for v in result.values())
    assert result["auroc"] == metrics.auroc(Y, S)
    assert result["average_precision"] == metrics.average_precision(Y, S)
    assert result["precision_at_k"] == metrics.precision_at_k(Y, S)
    assert result["recall_at_1pct_false_alarms"] == metrics.recall_at_false_alarm_rate(Y, S, 0.01)
    assert result["oracle_f1"] == metrics.oracle_best_f1(Y, S).f1
    assert result["precision"] == metrics.precision(Y, FLAGS)
    assert result["recall"] == metrics.recall(Y, FLAGS)
    assert result["f1"] == metrics.f_beta(Y, FLAGS)
    assert result["vus_roc"] == metrics.vus_roc(Y, S, max_buffer=30)
    assert result["vus_pr"] == metrics.vus_pr(Y, S, max_buffer=30)
    ranges, zones = metrics.range_based(Y, FLAGS), metrics.affiliation(Y, FLAGS)
    assert result["range_precision"] == ranges.precision
    assert result["range_recall"] == ranges.recall
    assert result["range_f1"] == ranges.f1
    assert result["affiliation_precision"] == zones.precision
    assert result["affiliation_recall"] == zones.recall
    assert result["affiliation_f1"] == zones.f1


def test_oracle_is_at_least_any_decision():
    result = metrics.evaluate(Y, S, FLAGS)
    assert result["oracle_f1"] >= result["f1"]


def test_point_adjusted_is_asked_for_and_warns():
    with pytest.warns(MetricWarning, match="inflates"):
        result = metrics.evaluate(Y, S, FLAGS, kind="series", point_adjusted=True)
    assert result["point_adjusted_f1"] >= result["f1"]
    assert result["oracle_point_adjusted_f1"] >= result["oracle_f1"]
    assert 0 < result["oracle_point_adjusted_random_f1"] < 1
    assert 0 < result["point_adjusted_random_f1"] < 1


def test_point_adjusted_needs_time():
    with pytest.raises(InputError, match="point_adjusted is True but kind is 'table'"):
        metrics.evaluate(Y, S, point_adjusted=True)


def test_unknown_kind():
    with pytest.raises(InputError, match=r"kind is 'image'; 'table' .* or 'series'"):
        metrics.evaluate(Y, S, kind="image")


def test_flags_of_another_length():
    with pytest.raises(InputError, match="y_true has 300 entries but flags has 299"):
        metrics.evaluate(Y, S, FLAGS[1:])
