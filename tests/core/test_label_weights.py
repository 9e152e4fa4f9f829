"""Thresholds from labels: what is kept of each class weighs as many units as were labelled."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from genad import BestF, load
from genad.core.label_weights import LabelCounts, fit_to_labels, standing_for
from genad.core.splits import Labels
from genad.density.explicit.ppca import PPCA


def rows(normal, odd, seed):
    rng = np.random.default_rng(seed)
    X = np.r_[rng.normal(size=(normal, 4)), rng.normal(0.0, 1.6, size=(odd, 4))]
    return X, np.r_[np.zeros(normal, int), np.ones(odd, int)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_threshold_is_the_best_for_the_share_of_anomalies_labelled(seed):
    X, y = rows(4000, 200, seed)
    detector = PPCA(threshold=BestF()).fit(X, y)
    fresh, truth = rows(20000, 1000, seed + 10)
    scores = detector.anomaly_score(fresh)
    best = max(f1_score(truth, scores > t) for t in np.quantile(scores, np.linspace(0.5, 0.999, 200)))
    # All anomalies against a fifth of the normals gave 0.23 to 0.31 where 0.38 to 0.41 could be had.
    assert f1_score(truth, detector.threshold_.flag(scores)) > best - 0.03


def test_the_promise_counts_the_labels_given(tmp_path):
    X, y = rows(1000, 50, 0)
    detector = PPCA(threshold=BestF()).fit(X, y)
    told = "on the 1050 labelled rows given (200 held-out rows stand for 1000 normal ones)"
    assert told in detector.threshold_.promise
    assert detector.threshold_.n == 250
    detector = load(detector.save(tmp_path / "model"))
    detector.feedback(X[:2], [0, 1])
    assert told.replace("1050", "1052") in detector.threshold_.promise
    detector.calibrate(X, y)
    assert "on the 1052 labelled rows given;" in detector.threshold_.promise
    assert "on the 1050 labelled rows given;" in detector.forget().threshold_.promise


def test_unlabelled_rows_are_no_labelled_normals():
    X, y = rows(1000, 50, 0)
    y[100:1000] = -1
    few = PPCA(threshold=BestF()).fit(X, y).threshold_
    assert "on the 150 labelled rows given (200 held-out rows stand for 100 normal ones)" in few.promise
    assert few.parameters["normals"] == 100
    assert few.parameters["anomalies"] == 50
    many = PPCA(threshold=BestF()).fit(X, np.where(y < 0, 0, y)).threshold_
    # A third of the labelled rows are anomalies, and not a twentieth: it pays to flag more.
    assert few.value < many.value


def test_unlabelled_rows_stand_in_where_none_is_labelled_normal():
    X, y = rows(1000, 50, 0)
    known = PPCA(threshold=BestF()).fit(X, y).threshold_
    detector = PPCA(threshold=BestF()).fit(X, np.where(y == 1, 1, -1))
    assert detector.threshold_.value == known.value
    told = "on the 50 labelled rows given and 1000 unlabelled rows taken as normal (200 held-out rows stand for these)"
    assert told in detector.threshold_.promise
    detector.feedback(X[:1], [0])
    assert told.replace("50 ", "51 ", 1) in detector.threshold_.promise


@pytest.mark.parametrize("normals", [10, 40, 100, 5000])
def test_scores_weigh_as_the_units_they_stand_for(normals):
    rng = np.random.default_rng(0)
    held, odd = rng.normal(size=40), rng.normal(1.5, 1.0, size=20)
    fitted = fit_to_labels(BestF(), held, odd, LabelCounts(normals, 20), "row")

    def weighted(value):
        hits = (odd > value).sum()
        return 2.0 * hits / (20 + hits + (held > value).sum() * normals / 40)

    best = max(weighted(value) for value in np.r_[held, odd, -9.0])
    assert fitted.parameters["f_score"] == pytest.approx(best, rel=1e-9)
    assert weighted(fitted.value) == pytest.approx(best, rel=1e-9)


def test_labels_are_counted():
    assert LabelCounts.of(Labels(np.array([0, 1, -1, 0]))) == LabelCounts(2, 1)
    assert LabelCounts.of(Labels(np.array([-1, 1, -1, 1]))) == LabelCounts(2, 2, taken=True)


def test_files_without_counts_are_read_as_before():
    fitted = BestF().fit([0.0, 1.0, 2.0], [0, 0, 1])
    assert LabelCounts.behind(fitted, 2) == LabelCounts(2, 1)


def test_scores_are_repeated_alike():
    assert np.bincount(standing_for(np.arange(3.0), 8).astype(int)).tolist() == [3, 2, 3]
    assert standing_for(np.arange(5.0), 5).tolist() == [0, 1, 2, 3, 4]
    assert standing_for(np.empty(0), 5).size == 0
