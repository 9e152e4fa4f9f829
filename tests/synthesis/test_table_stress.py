"""Stress tests of labelled tables: what they keep, what they add, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import genad
from genad.errors import InputError


@given(n=st.integers(1, 40), times=st.integers(1, 6), seed=st.integers(0, 5))
def test_only_anomalies_are_repeated(n, times, seed):
    generator = np.random.default_rng(seed)
    X, y = generator.normal(size=(n, 2)), generator.integers(2, size=n)
    rows, labels = genad.duplicate_anomalies(X, y, times, random_state=seed)
    found = {tuple(row): 0 for row in X}
    for row in rows:
        found[tuple(row)] += 1
    assert [found[tuple(row)] for row in X] == [times if label else 1 for label in y]
    assert labels.sum() == times * y.sum()
    assert set(map(tuple, rows[labels == 1])) == set(map(tuple, X[y == 1]))


@given(d=st.integers(1, 12), share=st.floats(0, 0.9), seed=st.integers(0, 5))
def test_noise_is_appended_in_the_range_of_some_column(d, share, seed):
    X = np.random.default_rng(seed).normal(size=(30, d)) * np.arange(1, d + 1)
    wide = genad.add_irrelevant_columns(X, share, random_state=seed)
    assert wide.shape[1] == d + round(d * share / (1 - share))
    np.testing.assert_array_equal(wide[:, :d], X)
    low, high = X.min(0), X.max(0)
    for column in wide[:, d:].T:
        assert ((low <= column.min()) & (column.max() <= high)).any()


def test_missing_values_do_not_spoil_the_noise():
    X = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan]])
    wide = genad.add_irrelevant_columns(X, 0.8)
    assert wide.shape == (3, 10)
    assert np.isfinite(wide[:, 2:]).all()


@given(n=st.integers(1, 60), share=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_so_many_labels_are_wrong(n, share, seed):
    y = np.random.default_rng(seed).integers(2, size=n)
    before = y.copy()
    wrong = genad.flip_labels(y, share, random_state=seed)
    assert (wrong != y).sum() == int(share * n)
    assert np.array_equal(y, before)


def test_irrelevant_columns_drown_a_distance(one_class):
    train, test, y = one_class("cardio", 0)
    whole = genad.add_irrelevant_columns(np.vstack([train, test]), 0.9)
    noisy = whole[: len(train)], whole[len(train) :]

    def auroc(train, test):
        return roc_auc_score(y, genad.NearestMemory().fit(train).anomaly_score(test))

    assert auroc(*noisy) < auroc(train, test) - 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: genad.duplicate_anomalies([["a"]], [0], 2), "X: it holds values that are no numbers"),
        (lambda: genad.duplicate_anomalies([1.0, 2.0], [0, 1], 2), r"X: it has the shape \(2,\)"),
        (lambda: genad.duplicate_anomalies([[1.0], [2.0]], [0, 2], 2), "y: it holds values other than 1"),
        (lambda: genad.duplicate_anomalies([[1.0], [2.0]], [0], 2), "y: 1 labels were given for 2 rows"),
        (lambda: genad.duplicate_anomalies([[1.0], [2.0]], [0, 1], 0), "times: 0 was given"),
        (lambda: genad.duplicate_anomalies([[1.0]], [1], 1, random_state=-1), "random_state: -1"),
        (lambda: genad.add_irrelevant_columns([[1.0]], 1.0), "share: 1.0 was given"),
        (lambda: genad.add_irrelevant_columns(np.empty((0, 3)), 0.1), r"X: it has the shape \(0, 3\)"),
        (lambda: genad.flip_labels([0, 1], -0.1), "share: -0.1 was given"),
        (lambda: genad.flip_labels(["a"], 0.1), "y: it holds values other than 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
