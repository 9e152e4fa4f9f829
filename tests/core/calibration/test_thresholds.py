"""Threshold rules: their numbers, the promises in words, warnings, errors and JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import fbeta_score

from genad.core.calibration import (
    SPOT,
    Adaptive,
    BestF,
    Conformal,
    FittedThreshold,
    FixedValue,
    PeaksOverThreshold,
    Quantile,
    RunningConformal,
    Threshold,
    conformal_p_values,
    threshold_from_dict,
)
from genad.core.calibration.fitted import plural
from genad.errors import CalibrationWarning, InputError, InputTypeError

QUICK = settings(deadline=None, max_examples=50, derandomize=True)
TIED = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30)
SCORES = np.random.default_rng(0).normal(size=2000)
LABELS = np.where(np.arange(2000) % 7 == 0, -1, SCORES > 1.2).astype(int)
RULES = [
    Conformal(alpha=0.02),
    Quantile(contamination=0.1),
    PeaksOverThreshold(q=1e-3, level=0.97),
    FixedValue(value=1.5),
    BestF(beta=2.0),
    Adaptive(alpha=0.03, window=500),
    Adaptive(alpha=1e-3, method="dspot", depth=30),
]


@QUICK
@given(TIED, TIED, st.floats(0.01, 0.99))
def test_conformal_flags_exactly_p_at_most_alpha(cal: list[float], new: list[float], alpha: float) -> None:
    if alpha < 1 / (len(cal) + 1):
        return
    fitted = Conformal(alpha).fit(cal)
    p = conformal_p_values(cal, [*cal, *new])
    np.testing.assert_array_equal(fitted.flag([*cal, *new]), p <= alpha)
    assert fitted.attainable == 1 / (len(cal) + 1)


def test_conformal_coverage_by_simulation() -> None:
    # 3000 draws of 59 calibration scores and 20 new ones; the exact level is 3 / 60 = 0.05, the
    # spread over calibration sets is Beta(3, 57) with deviation 0.028: standard error 0.0008.
    rng = np.random.default_rng(1)
    rates = [Conformal(0.05).fit(rng.normal(size=59)).flag(rng.normal(size=20)).mean() for _ in range(3000)]
    assert abs(np.mean(rates) - 0.05) < 5 * np.std(rates) / np.sqrt(3000)


def test_conformal_below_the_attainable_level_flags_above_the_maximum() -> None:
    with pytest.warns(
        CalibrationWarning,
        match=r"alpha=0.01 is not attainable with 49 calibration time step\(s\): the lowest level "
        r"is 0.02, and that one is used. Hold out at least 99",
    ):
        fitted = Conformal(alpha=0.01).fit(np.arange(49), unit="time step")
    assert fitted.value == 48.0
    assert fitted.flag([48.0, 48.5]).tolist() == [False, True]
    assert fitted.attainable == fitted.parameters["level"] == 0.02
    assert fitted.parameters["alpha"] == 0.01
    assert fitted.promise == (
        "At most 2 % of normal time steps are flagged by mistake, on average (split-conformal, "
        "49 held-out time steps; 1 % was asked for)."
    )


def test_conformal_at_exactly_enough_rows_does_not_warn() -> None:
    assert Conformal(alpha=0.01).fit(range(99)).value == 98.0


@QUICK
@given(TIED, st.one_of(st.floats(0, 0.99), st.sampled_from([0.0, 0.29, 0.1, 0.3])))
def test_quantile_never_flags_more_than_its_share(cal: list[float], share: float) -> None:
    fitted = Quantile(share).fit(cal)
    flagged = fitted.flag(cal)
    assert flagged.mean() <= share
    assert flagged.sum() == fitted.parameters["n_flagged"]
    lower = [c for c in cal if c < fitted.value]
    if lower:  # the next lower threshold would flag more than the share
        assert (np.asarray(cal) > max(lower)).mean() > share


def test_quantile_known_values() -> None:
    assert Quantile(0.0).fit([3.0, 9.0, 1.0]).value == 9.0
    assert Quantile(0.29).fit(range(100)).flag(range(100)).sum() == 29
    assert "nothing is promised for new images" in Quantile().fit(SCORES, unit="image").promise


def test_peaks_over_threshold_reaches_beyond_the_calibration_scores() -> None:
    x = np.random.default_rng(2).exponential(size=5000)
    fitted = PeaksOverThreshold(q=1e-5).fit(x)
    assert x.max() < fitted.value
    assert abs(fitted.value - np.log(1e5)) < 4
    assert fitted.parameters["n_excess"] == 100
    assert fitted.promise.startswith("About 0.001 % of normal rows are flagged by mistake")


def test_peaks_over_threshold_false_alarms_near_q() -> None:
    rng = np.random.default_rng(3)
    rates = [
        PeaksOverThreshold(q=1e-3).fit(rng.normal(size=4000)).flag(rng.normal(size=40_000)).mean() for _ in range(20)
    ]
    assert 0.7e-3 < np.mean(rates) < 1.4e-3


def test_peaks_over_threshold_with_little_or_tied_data() -> None:
    with pytest.warns(CalibrationWarning, match="Only 1 of 40 scores lie above the peak level"):
        assert PeaksOverThreshold().fit(np.arange(40)).value > 39
    with pytest.warns(CalibrationWarning, match="Only 0 of 50"):
        assert PeaksOverThreshold().fit(np.ones(50)).value == 1.0
    tied = np.r_[np.zeros(10), np.ones(1000), 2.0]
    with pytest.warns(CalibrationWarning, match="Only 1 of 1011"):
        assert PeaksOverThreshold(q=0.01).fit(tied).value == 1.0


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_best_f_is_the_best_of_all_thresholds(beta: float) -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        labels = rng.choice([-1, 0, 1], 40)
        scores = np.round(rng.normal(size=40) + (labels == 1), 1)
        fitted = BestF(beta).fit(scores, labels)
        known = labels >= 0
        got = fbeta_score(labels[known], fitted.flag(scores[known]), beta=beta)
        every = [fbeta_score(labels[known], scores[known] >= s, beta=beta) for s in np.unique(scores)]
        assert got == pytest.approx(max(every), abs=1e-12)
        assert fitted.parameters["f_score"] == pytest.approx(got, abs=1e-12)
        assert fitted.n == known.sum()


def test_best_f_edges() -> None:
    assert BestF().fit([1.0, 1.0], [0, 1]).flag([1.0]).all()
    assert BestF().fit([-np.inf, np.inf], [0, 1]).flag([-np.inf, np.inf]).tolist() == [False, True]
    tiny = np.nextafter(1.0, 2.0)
    assert BestF().fit([1.0, tiny], [0, 1]).flag([1.0, tiny]).tolist() == [False, True]
    assert "labelled rows given" in BestF().fit([1.0, 2.0], [False, True]).promise


def test_adaptive_starts_where_its_stream_starts() -> None:
    for rule in (Adaptive(0.05, 300), Adaptive(1e-3, method="spot"), RULES[-1]):
        assert rule.fit(SCORES).value == rule.stream(SCORES).threshold
    assert isinstance(Adaptive().stream(SCORES), RunningConformal)
    assert isinstance(Adaptive(1e-3, method="spot").stream(SCORES), SPOT)
    # Only the last `window` scores count.
    assert Adaptive(0.05, 100).fit(SCORES).value == Conformal(0.05).fit(SCORES[-100:]).value


def test_fixed_value_keeps_its_value() -> None:
    fitted = FixedValue(value=2.5).fit([1.0], unit="image")
    assert fitted.value == fitted.parameters.get("value", 2.5) == 2.5
    assert fitted.promise.startswith("Flags every image that scores above 2.5")


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_rules_and_fits_round_trip_through_strict_json(rule: Threshold) -> None:
    again = threshold_from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False)))
    assert again == rule
    assert hash(again) == hash(rule)
    fitted = rule.fit(SCORES, LABELS)
    assert fitted == again.fit(SCORES, LABELS)
    back = FittedThreshold.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert back == fitted
    assert hash(back) == hash(fitted)
    assert fitted.rule == type(rule).__name__
    assert fitted.promise.endswith(".")
    assert isinstance(fitted.value, float)
    np.testing.assert_array_equal(back.flag(SCORES), fitted.value < SCORES)


def test_infinite_value_survives_strict_json() -> None:
    rule = FixedValue(-np.inf)
    assert threshold_from_dict(json.loads(json.dumps(rule.to_dict(), allow_nan=False))) == rule
    fitted = rule.fit([0.0])
    text = json.dumps(fitted.to_dict(), allow_nan=False)
    assert FittedThreshold.from_dict(json.loads(text)) == fitted


def test_flag_keeps_the_shape() -> None:
    assert FixedValue(0.0).fit([1.0]).flag([[1.0, -1.0], [0.0, 2.0]]).tolist() == [
        [True, False],
        [False, True],
    ]


def test_class_facts() -> None:
    assert Conformal.holdout
    assert not Quantile.holdout
    assert [r.needs_labels for r in (Conformal, BestF)] == [False, True]


@pytest.mark.parametrize(("unit", "many"), [("row", "rows"), ("log entry", "log entries"), ("series", "series")])
def test_plural(unit: str, many: str) -> None:
    assert plural(unit) == many
    assert plural(unit, 1) == unit


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Conformal(alpha=2), r"alpha must lie in \(0, 1\), found 2"),
        (lambda: Quantile(contamination=1.0), r"contamination must lie in \[0, 1\), found 1"),
        (lambda: Quantile(contamination=-0.1), "contamination must lie in"),
        (lambda: PeaksOverThreshold(q=0.5), r"q must lie in \(0, 0.02\), found 0.5"),
        (lambda: PeaksOverThreshold(level=0), "level must lie in"),
        (lambda: PeaksOverThreshold().fit([1.0, np.inf]), "NaN or infinite"),
        (lambda: FixedValue(float("nan")), "value must lie in"),
        (lambda: BestF(beta=0), "beta must lie in"),
        (lambda: BestF().fit([1.0, 2.0]), "labels are missing: BestF needs one label per score"),
        (lambda: BestF().fit([1.0, 2.0], [1]), r"labels must have shape \(2,\)"),
        (lambda: BestF().fit([1.0, 2.0], [1, 2]), r"-1 \(unlabelled\), found"),
        (lambda: BestF().fit([1.0, 2.0], ["a", "b"]), r"found \['a', 'b'\]"),
        (lambda: BestF().fit([1.0, 2.0], [1, -1]), "found 1 and 0"),
        (lambda: Adaptive(alpha=0.05, method="spot"), "alpha must be below 1 - level = 0.02"),
        (lambda: Adaptive(method="mean"), "method must be 'conformal', 'spot' or 'dspot'"),
        (lambda: Adaptive(window=0), "window must be at least 1"),
        (lambda: Conformal().fit([]), "scores is empty"),
        (lambda: Conformal().fit([1.0, np.nan]), "scores must not hold NaN"),
        (lambda: FixedValue(1.0).fit([1.0]).flag([np.nan]), "scores must not hold NaN"),
        (lambda: threshold_from_dict({"rule": "X"}), "must be one of Adaptive, BestF"),
        (lambda: Quantile.from_dict(Conformal().to_dict()), "one of Quantile, found 'Conformal'"),
        (
            lambda: threshold_from_dict({"rule": "Conformal", "parameters": {"beta": 1}}),
            "saved form is broken",
        ),
        (
            lambda: threshold_from_dict({"rule": "Conformal", "parameters": {"alpha": 7}}),
            "alpha must lie in",
        ),
        (lambda: FittedThreshold.from_dict({"rule": "Conformal"}), "saved form is broken"),
        (lambda: FittedThreshold(float("nan"), "r", "p", 1), "value must lie in"),
    ],
)
def test_bad_values_are_named(call, match) -> None:
    with pytest.raises(InputError, match=match):
        call()


def test_bad_types_are_named() -> None:
    with pytest.raises(InputTypeError, match=r"alpha must be a number, found '0\.1'"):
        Conformal(alpha="0.1")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="alpha must be a number, found True"):
        Conformal(alpha=True)
    with pytest.raises(InputTypeError, match="read from a dict"):
        threshold_from_dict("Conformal")  # type: ignore[arg-type]
