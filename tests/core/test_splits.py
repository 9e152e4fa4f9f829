"""Labels and the split into training and calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.core import splits
from genad.core.splits import read_labels, rows_to_scale, split_rows
from genad.errors import DataWarning, InputError


def test_no_labels_are_all_unlabelled():
    labels = read_labels(None, 4)
    assert labels.values.tolist() == [-1] * 4
    assert labels.normal.all()
    assert not labels.any_anomaly


@pytest.mark.parametrize("y", [[0, 1, -1, 0], [0.0, 1.0, -1.0, 0.0], [[0], [1], [-1], [0]]])
def test_labels_of_any_numbers(y):
    labels = read_labels(y, 4)
    assert labels.values.tolist() == [0, 1, -1, 0]
    assert labels.normal.tolist() == [True, False, True, True]
    assert labels.anomalous.tolist() == [False, True, False, False]
    assert labels.any_anomaly


def test_truth_values_are_labels():
    assert read_labels(np.array([False, True]), 2).values.tolist() == [0, 1]


@pytest.mark.parametrize("y", [["a", "b", "a"], [0, 1, 2], [0.5, 0, 1], ["1", None, 0]])
def test_other_values_are_ignored_with_a_warning(y):
    with pytest.warns(DataWarning, match="y is ignored"):
        labels = read_labels(y, 3)
    assert labels.values.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("y", [[np.nan, 0, 1], [None, 0, 1], [pd.NA, False, True], pd.array([None, 0, 1], "Int64")])
def test_nothing_is_unlabelled(y):
    assert read_labels(y, 3).values.tolist() == [-1, 0, 1]
    assert rows_to_scale(y, 3).tolist() == [0, 1]


def test_labels_in_the_sense_of_scikit_learn_are_refused():
    with pytest.raises(InputError, match=r"^y: 19 labels are 1, 1 are -1 or nothing, and none is 0\. .*scikit-learn"):
        read_labels([1] * 19 + [-1], 20)


@pytest.mark.parametrize("y", [[1, -1, -1], [1, -1], [1, 1, 0], [1, 1, -1, 0]])
def test_labelled_anomalies_among_others_are_taken(y):
    assert read_labels(y, len(y)).values.tolist() == y


@pytest.mark.parametrize("y", [[0, 1], [0] * 5, []])
def test_another_number_of_labels(y):
    with pytest.raises(InputError, match=rf"^y: {len(y)} labels were given for 3 units"):
        read_labels(y, 3)


def test_nothing_normal():
    with pytest.raises(InputError, match=r"^y: every unit is labelled anomalous"):
        read_labels([1, 1], 2)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=80), st.floats(0.01, 0.9), st.integers(0, 2**31))
def test_the_parts_are_disjoint_and_cover(usable, holdout, seed):
    usable = np.array(usable)
    train, held = split_rows(usable, holdout, seed)
    assert sorted([*train, *held]) == np.flatnonzero(usable).tolist()
    assert len(held) == int(usable.sum() * holdout)
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()
    again = split_rows(usable, holdout, seed)
    np.testing.assert_array_equal(again[1], held)


def test_the_split_is_random_in_the_seed():
    usable = np.ones(100, bool)
    one, two = split_rows(usable, 0.2, 0)[1], split_rows(usable, 0.2, 1)[1]
    assert not np.array_equal(one, two)
    # Every row has the same chance to be held out.
    counts = sum(np.bincount(split_rows(usable, 0.2, seed)[1], minlength=100) for seed in range(400))
    assert abs(counts - 80).max() < 5 * np.sqrt(400 * 0.16)


def test_the_part_held_out_is_bounded(monkeypatch):
    monkeypatch.setattr(splits, "MAX_HELD_OUT", 7)
    train, held = split_rows(np.ones(100, bool), 0.5, 0)
    assert (len(train), len(held)) == (93, 7)
