"""Figures by class: each class of anomalies against all normal units, the hardest first."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from genad.errors import InputError, InputTypeError
from genad.metrics import by_class

SCORES = np.array([0.1, 0.2, 0.3, 0.25, 0.05, 0.9, 0.8])
LABELS = np.array([0, 0, 0, 1, 1, 1, 1])
NAMES = ["good", "good", "good", "crack", "crack", "hole", "fray"]


def test_each_class_meets_all_normal_units_and_no_other_class():
    rows = by_class(SCORES, LABELS, NAMES, flags=SCORES > 0.22)
    assert [row.name for row in rows] == ["crack", "fray", "hole"]
    assert [row.units for row in rows] == [2, 1, 1]
    assert [row.auroc for row in rows] == pytest.approx([2 / 6, 1.0, 1.0])
    assert [row.recall for row in rows] == [0.5, 1.0, 1.0]
    kept = np.r_[0:3, 3:5]
    assert rows[0].average_precision == pytest.approx(average_precision_score(LABELS[kept], SCORES[kept]))


def test_without_flags_there_is_no_recall():
    assert [row.recall for row in by_class(SCORES, LABELS, NAMES)] == [None] * 3


def test_weighted_mean_over_classes_is_the_whole():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 200), rng.normal(size=200)
    rows = by_class(scores, labels, rng.integers(0, 5, 200))
    whole = np.average([row.auroc for row in rows], weights=[row.units for row in rows])
    assert whole == pytest.approx(roc_auc_score(labels, scores))
    assert [row.name for row in sorted(rows, key=lambda row: row.name)] == list("01234")
    assert [row.auroc for row in rows] == sorted(row.auroc for row in rows)


def test_names_of_normal_units_do_not_matter():
    renamed = ["crack", "x", "", *NAMES[3:]]
    assert by_class(SCORES, LABELS, renamed) == by_class(SCORES, LABELS, NAMES)


def test_messages():
    with pytest.raises(InputError, match=r"classes has shape \(2,\) but labels has \(7,\)"):
        by_class(SCORES, LABELS, ["a", "b"])
    with pytest.raises(InputTypeError, match="classes cannot be read as an array"):
        by_class(SCORES[:2], [0, 1], [["a"], ["b", "c"]])
    with pytest.raises(InputError, match="holds no normal unit"):
        by_class([1, 2], [1, 1], ["a", "b"])
    with pytest.raises(InputError, match="y_true has 7 entries but flags has 2"):
        by_class(SCORES, LABELS, NAMES, flags=[1, 0])
