from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.exceptions import NotFittedError

import genad
from genad import Adaptive, Conformal, Training
from genad.core.calibration import LORD, RunningConformal
from genad.core.stream import _joined
from genad.errors import InputError
from genad.reconstruction.autoencoder.mem_stream import MemStream

QUICK = Training(updates=20)


def rows(n, seed=0, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


def make(**params):
    # alpha=0.1 is attainable with few calibration rows
    usual = {"memory": 64, "training": QUICK, "prefix": 100, "threshold": Conformal(alpha=0.1)}
    params = usual | params
    return MemStream(**params)


@pytest.fixture(scope="module")
def fitted_file(tmp_path_factory):
    return make().fit(rows(200)).save(tmp_path_factory.mktemp("m") / "model")


def test_partial_fit_gathers_the_prefix_and_equals_fit_on_it():
    X = rows(130)
    detector = make()
    for start in range(0, 90, 30):
        assert detector.partial_fit(X[start : start + 30]) is detector
        with pytest.raises(NotFittedError):
            detector.anomaly_score(X)
    detector.partial_fit(X[90:120])
    whole = make().fit(X[:120])
    assert np.array_equal(detector.anomaly_score(X), whole.anomaly_score(X))
    detector.partial_fit(X[120:])
    whole.score_update(X[120:])
    assert np.array_equal(detector.anomaly_score(X), whole.anomaly_score(X))


def test_fit_forgets_gathered_rows():
    detector = make().partial_fit(rows(50)).fit(rows(120, 1))
    assert detector.partial_fit(rows(10, 2)).training_report_.samples == 96


def test_a_failed_fit_keeps_gathered_rows_and_the_moving_threshold():
    detector = make().partial_fit(rows(60))
    with pytest.raises(InputError):
        detector.fit(np.full((120, 3), np.inf))
    assert detector.partial_fit(rows(60, 1)).training_report_.samples == 96
    detector.detect_stream(rows(20, 2))
    moving = detector.stream_rule_
    with pytest.raises(InputError):
        detector.fit(np.full((120, 3), np.inf))
    assert moving is not None
    assert detector.stream_rule_ is moving


def test_partial_fit_joins_dataframes():
    X = rows(120)
    names = ["a", "b", "c"]
    for frame in (pd.DataFrame, pl.DataFrame):
        parts = [frame(dict(zip(names, X[i : i + 60].T, strict=True))) for i in (0, 60)]
        detector = make().partial_fit(parts[0]).partial_fit(parts[1])
        assert np.isfinite(detector.score_update(parts[0])).all()


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"\(2, 4\)"),
        ([np.zeros((2, 3)), np.zeros(3)], r"\(3,\)"),
        ([pd.DataFrame({"a": [1.0]}), np.zeros((2, 1))], "one kind"),
        ([pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]})], "same columns"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(parts, found):
    with pytest.raises(InputError, match=found):
        _joined(parts)


def test_calls_of_any_size_give_the_same_scores(fitted_file):
    X = rows(300, 1)
    whole, pieces = genad.load(fitted_file), genad.load(fitted_file)
    together = whole.score_update(X)
    apart = np.concatenate([pieces.score_update(part) for part in np.split(X, [1, 2, 50, 180])])
    assert np.array_equal(together, apart)


def test_looking_never_changes_the_state(fitted_file):
    X = rows(50, 2) * 0.1
    detector = genad.load(fitted_file)
    before = {k: v.clone() for k, v in detector.net_.state_dict().items()}
    detector.anomaly_score(X), detector.predict(X), detector.detect(X)
    assert all(torch.equal(v, before[k]) for k, v in detector.net_.state_dict().items())
    detector.score_update(X)
    assert not torch.equal(detector.net_.codes.rows, before["codes.rows"])


def test_calibration_takes_the_end_of_the_prefix_in_order():
    X = rows(200)
    detector = make().fit(X)
    assert len(detector.stream_scores_) == 40
    frozen = make(update=False).fit(X)
    assert np.array_equal(frozen.stream_scores_, frozen.anomaly_score(X[160:]))
    assert np.array_equal(np.sort(detector.stream_scores_), detector.calibration_scores_)


def test_labelled_anomalies_stay_out_of_the_prefix():
    X = rows(120)
    y = np.zeros(120, int)
    X[[3, 50, 119]] += 50
    y[[3, 50, 119]] = 1
    detector = make().fit(X, y)
    assert float(detector.net_.records.rows.abs().max()) < 5


def test_detect_stream_is_the_running_conformal_test(fitted_file):
    X = np.r_[rows(200, 3), np.full((3, 3), 9.0)]
    detector, plain = genad.load(fitted_file), genad.load(fitted_file)
    found = detector.detect_stream(X)
    rule = RunningConformal(alpha=0.1).initialize(plain.stream_scores_)
    scores = plain.score_update(X)
    assert np.array_equal(found.scores, scores)
    assert np.array_equal(found.is_anomaly, rule.run(scores))
    assert np.array_equal(found.is_anomaly, found.scores > found.thresholds)
    assert found.is_anomaly[-3:].all()
    assert len(found) == 203
    assert ((found.p_values > 0) & (found.p_values <= 1)).all()


def test_the_threshold_goes_on_after_saving(tmp_path):
    X = rows(300, 4)
    detector = make(threshold=Adaptive(alpha=0.05, window=200)).fit(rows(200))
    detector.detect_stream(X[:100])
    again = genad.load(detector.save(tmp_path / "stream"))
    one, other = detector.detect_stream(X[100:]), again.detect_stream(X[100:])
    assert np.array_equal(one.scores, other.scores)
    assert np.array_equal(one.thresholds, other.thresholds)
    assert again.stream_rule_.n == detector.stream_rule_.n


def test_alpha_of_another_rule_is_kept_and_calibrate_restarts():
    detector = make(threshold=Conformal(alpha=0.2)).fit(rows(200))
    detector.detect_stream(rows(10, 1))
    assert detector.stream_rule_.alpha == 0.2
    detector.calibrate(rows(50, 2))
    assert detector.stream_rule_ is None
    assert len(detector.stream_scores_) == 50


def test_online_fdr_decides_by_running_p_values():
    X = np.r_[np.full((3, 3), 9.0), rows(300, 5)]
    detector = make(threshold=Adaptive(alpha=0.01)).fit(rows(4000))
    procedure = LORD(alpha=0.1)
    found = detector.detect_stream(X, fdr=procedure)
    assert found.thresholds is None
    assert np.array_equal(found.is_anomaly, LORD(alpha=0.1).run(found.p_values))
    assert procedure.n_tests == len(X)
    assert found.is_anomaly[:3].all()
    assert found.is_anomaly[3:].sum() <= 3


def test_fdr_that_cannot_work_is_refused(fitted_file):
    with pytest.raises(InputError, match=r"fdr: 0\.1 was given; use an online procedure"):
        genad.load(fitted_file).detect_stream(rows(3), fdr=0.1)
    tail = make(threshold=Adaptive(alpha=0.001, method="spot")).fit(rows(3000))
    with pytest.raises(InputError, match="SPOT, which has no p-values"):
        tail.detect_stream(rows(3), fdr=LORD())
    assert tail.detect_stream(rows(3)).p_values is None


@pytest.mark.parametrize("method", ["meter", "mem_stream"])
def test_labels_correct_the_stream_and_start_its_threshold_anew(method, tmp_path):
    harmless = np.random.default_rng(6).normal([9.0, 0.0, 0.0], 0.2, (25, 3))
    other = np.array([[0.0, 0.0, -40.0]] * 3)
    detector = genad.create(method, training=QUICK, threshold=Conformal(0.05)).fit(rows(1000))
    file = detector.save(tmp_path / "model")
    untaught = genad.load(file)
    assert untaught.detect_stream(harmless[20:21]).is_anomaly.all()
    detector.detect_stream(rows(20, 1))
    detector.feedback(harmless[:20], [0] * 20)
    assert detector.stream_rule_ is None
    assert (detector.predict(harmless[20:]) == 1).all()
    detector = genad.load(detector.save(file))
    found = detector.detect_stream(np.r_[harmless[20:], rows(200, 2), other])
    assert not found.is_anomaly[:5].any()
    assert found.is_anomaly[5:-3].mean() < 0.12
    assert found.is_anomaly[-3:].all()
    assert detector.forget().stream_rule_ is None
    plain = genad.create(method, training=QUICK, threshold=Conformal(0.05)).fit(rows(1000))
    np.testing.assert_array_equal(detector.stream_scores_, plain.stream_scores_)


def test_the_threshold_starts_on_the_corrected_calibration_rows_and_rows_are_corrected_as_they_stand(fitted_file):
    X, told = rows(60, 1), np.array([[9.0, 0.0, 0.0]] * 4)
    whole, pieces, raw = (genad.load(fitted_file) for _ in range(3))
    for detector in (whole, pieces):
        detector.feedback(told, [0] * 4)
    # Before anything is learnt from it, a row scores what it scores when it is only looked at.
    first = whole.anomaly_score(X[:1])
    together = whole.score_update(X)
    assert together[0] == pytest.approx(first[0], abs=1e-6)
    assert np.array_equal(together, np.concatenate([pieces.score_update(part) for part in np.split(X, [1, 7, 50])]))
    raw.score_update(X)
    assert torch.equal(whole.net_.codes.rows, raw.net_.codes.rows)
    found = pieces.detect_stream(X)
    rule = RunningConformal(alpha=0.1).initialize(pieces.head_.calibration())
    assert np.array_equal(found.is_anomaly, rule.run(found.scores))
    # Gathering rows learns from them alike.
    whole.partial_fit(X)
    assert torch.equal(whole.net_.codes.rows, pieces.net_.codes.rows)


def test_calibrate_after_labels_starts_on_the_new_rows():
    detector = make().fit(rows(200))
    detector.feedback(rows(2, 3), [0, 0])
    detector.calibrate(rows(50, 2, d=3) * 2)
    assert len(detector.stream_scores_) == 50
    assert len(detector.head_.reference) == 50
    np.testing.assert_array_equal(detector.stream_scores_, detector.head_.reference)
    assert (detector.detect_stream(rows(200, 4) * 2).is_anomaly).mean() < 0.25


@pytest.mark.filterwarnings("ignore:constant columns")
def test_prefix_is_checked_and_tiny_ones_work():
    with pytest.raises(InputError, match="prefix: 1 was given"):
        make(prefix=1).partial_fit(rows(3))
    with pytest.raises(NotFittedError):
        make().score_update(rows(3))
    with pytest.warns(genad.errors.CalibrationWarning):
        detector = make().fit(rows(1))
    assert np.isfinite(detector.score_update(rows(4))).all()
