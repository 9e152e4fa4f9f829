"""Labels, calibration and threshold rules together: each keeps its word when another comes after it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import genad
from genad import BestF, Conformal, Training, Windowed
from genad.core.calibration import FixedValue
from genad.core.detector import Detector
from genad.core.persistence import load
from genad.density.explicit.ppca import PPCA
from genad.errors import CalibrationWarning, InputError


def rows(n: int, seed: int, scale: float = 1.0, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, scale, (n, d))


def alarms(detector: Detector, X: Any) -> float:
    return float((detector.predict(X) < 0).mean())


def assert_alike(one: Detector, other: Detector, X: Any) -> None:
    np.testing.assert_array_equal(one.anomaly_score(X), other.anomaly_score(X))
    np.testing.assert_array_equal(one.p_value(X), other.p_value(X))
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert one.threshold_ == other.threshold_


@pytest.fixture(scope="module")
def fitted() -> Detector:
    return genad.create("ppca").fit(rows(2000, 0))


# ---------------------------------------------------------------------- calibrate and feedback, in any order


def test_labels_lean_on_the_last_calibration(fitted: Detector) -> None:
    detector, fresh = copy.deepcopy(fitted), rows(5000, 2, scale=2.5)
    detector.calibrate(rows(2000, 1, scale=2.5))
    plain = copy.deepcopy(detector)
    assert alarms(detector, fresh) < 0.02
    detector.feedback(fresh[:1], [0])
    assert alarms(detector, fresh) < 0.02
    assert (detector.p_value(fresh) <= 0.1).mean() == pytest.approx(0.1, abs=0.03)
    assert_alike(detector.forget(), plain, fresh)


def test_a_calibration_after_labels_keeps_them_and_forget_returns_to_it(fitted: Detector) -> None:
    fresh, normal = rows(5000, 2, scale=2.5), rows(2000, 1, scale=2.5)
    harmless = np.array([[30.0, 0.0, 0.0, 0.0]] * 4)
    before = copy.deepcopy(fitted).calibrate(normal).feedback(harmless, [0] * 4)
    after = copy.deepcopy(fitted).feedback(harmless, [0] * 4).calibrate(normal)
    assert_alike(after, before, fresh)
    assert alarms(after, fresh) < 0.02
    assert after.predict([[29.0, 0.0, 0.0, 0.0], [0.0, 0.0, 30.0, 0.0]]).tolist() == [1, -1]
    plain = copy.deepcopy(fitted).calibrate(normal)
    assert_alike(copy.deepcopy(after).forget(), plain, fresh)
    # More labels join those given before the calibration.
    after.feedback([[0.0, 30.0, 0.0, 0.0]] * 4, [0] * 4)
    assert after.predict([[29.0, 0.0, 0.0, 0.0], [0.0, 29.0, 0.0, 0.0]]).tolist() == [1, 1]


def test_calibration_and_labels_of_a_series() -> None:
    def waves(scale: float, seed: int) -> np.ndarray:
        t = np.arange(800)
        return np.c_[np.sin(t / 5), np.cos(t / 5)] + rows(800, seed, scale, 2)

    fitted = Windowed(PPCA(), window=8).fit(waves(0.1, 0))
    y = np.full(800, -1)
    y[:20] = 0
    told, fresh = waves(0.5, 1), waves(0.5, 2)
    before = copy.deepcopy(fitted).calibrate(waves(0.5, 3)).feedback(told, y)
    after = copy.deepcopy(fitted).feedback(told, y).calibrate(waves(0.5, 3))
    assert_alike(after, before, fresh)
    assert alarms(after, fresh) < 0.05
    assert_alike(after.forget(), copy.deepcopy(fitted).calibrate(waves(0.5, 3)), fresh)


def test_calibration_and_labels_of_images_and_their_pixels() -> None:
    images = np.random.default_rng(0).normal(size=(60, 1, 8, 8))
    fitted = genad.create("ppca", threshold=Conformal(0.1)).fit(images)
    detector = copy.deepcopy(fitted).feedback(images[:3] * 4, [0] * 3).calibrate(images * 3)
    assert alarms(detector, images * 3) < 0.2
    plain = copy.deepcopy(fitted).calibrate(images * 3)
    assert detector.pixels_.threshold(0.1) == plain.pixels_.threshold(0.1) != fitted.pixels_.threshold(0.1)
    assert detector.pixels_.images == 60
    assert_alike(detector.forget(), plain, images)


@pytest.mark.filterwarnings("ignore:time column", "ignore:2 time steps lie in stretches")
def test_steps_that_no_window_holds_are_typical_after_labels_too() -> None:
    t = np.arange(800.0)
    series = {"time": t, "a": 1e3 * np.sin(t / 5) + 10 * rows(800, 0, d=1)[:, 0]}
    detector = Windowed(PPCA(), window=8).fit(series)
    y = np.full(800, -1)
    y[:5] = 0
    detector.feedback(series, y)
    short = np.r_[np.arange(100.0), 200.0, 201.0, np.arange(300.0, 400.0)]
    gaps = {"time": short, "a": 1e3 * np.sin(short / 5)}
    p_values = detector.p_value(gaps)
    assert (p_values[100:102] > 0.4).all()
    assert (p_values[100:102] < 0.8).all()


# ---------------------------------------------------------------------- the rule of the threshold


@pytest.mark.parametrize("share", [0.5, 0.92, 0.99])
def test_a_fixed_value_keeps_its_place_among_normal_units(share: float) -> None:
    mixing, normal = rows(6, 0, d=6), rows(4000, 1, d=6)
    X = normal @ mixing
    detector = genad.create("autoencoder", training=Training(updates=100)).fit(X[:2000])
    detector.threshold = FixedValue(float(np.quantile(detector.anomaly_score(X[2000:]), share)))
    detector.calibrate(X[:2000])
    flags = detector.predict(X[2000:]) < 0
    assert flags.mean() == pytest.approx(1 - share, abs=0.002)
    # Two labels say that usual rows are usual; the others keep near their places.
    detector.feedback(X[2000:2002], [0, 0])
    assert alarms(detector, X[2000:]) < 1.2 * (1 - share)
    told = detector.threshold_
    assert told.value == detector.head_.level(detector.threshold.value)
    assert f"{detector.threshold.value:g}, the value given" in told.promise
    assert f"above {told.value:.3g} nats" in told.promise
    assert "nats" not in detector.forget().threshold_.promise


def test_the_ends_of_fixed_values_stay_the_ends() -> None:
    for value, all_flagged in ((np.inf, False), (-np.inf, True), (-1.0, True)):
        detector = genad.create("ppca", threshold=FixedValue(value)).fit(rows(300, 0))
        far = rows(300, 1) + np.array([8.0, 0.0, 0.0, 0.0])
        detector.feedback(far[:2], [1, 1])
        assert alarms(detector, far) == float(all_flagged)


def test_best_f_goes_on_with_the_labels_of_the_fit_and_those_given_since(tmp_path: Any) -> None:
    y = np.r_[np.zeros(8000, int), np.ones(20, int)]
    X = np.r_[rows(8000, 0), rows(20, 1, scale=4.0)]
    detector = genad.create("ppca", threshold=BestF()).fit(X, y)
    normal, odd = rows(4000, 2), rows(2000, 3, scale=4.0)
    found = alarms(detector, odd)
    plain = detector.threshold_
    detector = load(detector.save(tmp_path / "fitted.genad"))
    detector.feedback(normal[:1], [0])
    assert detector.threshold_.rule == "BestF"
    # The 1,000 held-out rows that are kept stand for all 1,600 of them, so one class weighs what it weighed.
    assert detector.threshold_.n == plain.n + 1 == 1621
    f_score = detector.threshold_.parameters["f_score"]
    assert f_score == pytest.approx(plain.parameters["f_score"], abs=0.02)
    assert alarms(detector, odd) == pytest.approx(found, abs=0.06)
    assert alarms(detector, normal) < 0.002
    detector.feedback(odd[:5], [1] * 5)
    assert detector.threshold_.n == plain.n + 6
    assert detector.forget().threshold_ == plain


def test_best_f_takes_the_labels_of_the_last_calibration() -> None:
    y = np.r_[np.zeros(1000, int), np.ones(10, int)]
    detector = genad.create("ppca", threshold=BestF()).fit(np.r_[rows(1000, 0), rows(10, 1, scale=9.0)], y)
    harmless = rows(3, 2)
    detector.feedback(harmless, [0] * 3)
    state = copy.deepcopy(detector)
    with pytest.raises(InputError, match="labels are missing"):
        detector.calibrate(rows(500, 3))
    assert_alike(detector, state, rows(200, 4))
    y = np.r_[np.zeros(500, int), np.ones(40, int)]
    detector.calibrate(np.r_[rows(500, 3), rows(40, 5, scale=4.0)], y)
    assert detector.threshold_.rule == "BestF"
    assert detector.threshold_.n == 543
    assert detector.forget().threshold_.n == 540


def test_best_f_goes_on_with_the_labelled_steps_of_a_series() -> None:
    t = np.arange(1000)
    series = np.c_[np.sin(t / 5), np.cos(t / 5)] + rows(1000, 0, 0.1, 2)
    y = np.zeros(1000, int)
    series[300:310] += 2.0
    y[300:310] = 1
    detector = Windowed(PPCA(), window=8, threshold=BestF()).fit(series, y)
    plain = detector.threshold_
    told = np.full(1000, -1)
    told[:5] = 0
    detector.feedback(series, told)
    assert detector.threshold_.rule == "BestF"
    assert detector.threshold_.n == plain.n + 5
    assert alarms(detector, series[298:312]) > 0.6
    assert alarms(detector, series[400:]) < 0.02


# ---------------------------------------------------------------------- what is said


def test_what_is_kept_of_many_calibration_units_bounds_what_can_be_promised() -> None:
    detector = genad.create("ppca", holdout=0.5, threshold=Conformal(0.0005)).fit(rows(6000, 0, d=2))
    assert len(detector.calibration_scores_) == 3000
    with pytest.warns(CalibrationWarning, match="alpha=0.0005"):
        detector.feedback(rows(1, 1, d=2), [0])
    assert len(detector.calibration_scores_) == 1000
    assert detector.threshold_.attainable == pytest.approx(1 / 1001)
    assert len(detector.forget().calibration_scores_) == 3000


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y: no labels were given; give one a unit of X: 1 anomaly, 0 normal, -1 unlabelled"),
        ([0], "y: 1 label was given for 3 units of X; give one a unit"),
        (0, "y: 1 label was given for 3 units"),
        ([0, 1], "y: 2 labels were given for 3 units"),
        ([None] * 3, "y: found values other than 1"),
    ],
)
def test_labels_that_are_none_are_named(fitted: Detector, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted.feedback(rows(3, 1), y)
    assert fitted.head_ is None


def test_the_promise_counts_the_labels_that_moved_it(fitted: Detector) -> None:
    detector = copy.deepcopy(fitted)
    X = rows(4000, 5)
    order = np.argsort(-detector.anomaly_score(X))
    told = detector.feedback(X[order[60:63]], [1, 0, 1]).threshold_
    assert told.parameters["alpha"] != 0.01
    assert told.promise.endswith("3 labels moved it from 1 %.")
