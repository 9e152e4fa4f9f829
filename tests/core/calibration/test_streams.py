"""Moving thresholds: the false-alarm rate on fresh normal streams, drift, attacks and JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genad.core.calibration import (
    DSPOT,
    SPOT,
    RunningConformal,
    conformal_p_values,
    stream_from_dict,
)
from genad.errors import CalibrationWarning, InputError, InputTypeError

RULES = [SPOT(q=1e-3), DSPOT(q=1e-3, depth=20), RunningConformal(alpha=0.01, window=500)]
NAMES = ["SPOT", "DSPOT", "RunningConformal"]


def _copy(rule):
    return stream_from_dict(rule.to_dict())


def test_spot_starts_at_the_extrapolated_quantile() -> None:
    got = [SPOT(q=1e-3).initialize(np.random.default_rng(s).exponential(size=5000)).threshold for s in range(10)]
    assert abs(np.mean(got) - np.log(1000)) < 0.3


def test_spot_false_alarms_stay_near_q_on_a_long_normal_stream() -> None:
    # Forgetting what is flagged, as published, gives 2.5e-3 to 3.7e-3 here.
    rates = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rates.append(SPOT(q=1e-3).initialize(rng.normal(size=2000)).run(rng.normal(size=30_000)))
    assert 0.4e-3 < np.mean(rates) < 1.8e-3


def test_dspot_false_alarms_near_q() -> None:
    rng = np.random.default_rng(1)
    rule = DSPOT(q=2e-3, depth=50).initialize(rng.normal(size=2000))
    assert 0.5e-3 < rule.run(rng.normal(size=20_000)).mean() < 4e-3


def test_dspot_follows_a_drift_that_breaks_spot() -> None:
    rng = np.random.default_rng(2)
    x = np.linspace(0, 60, 12_000) + rng.normal(size=12_000)
    assert SPOT(q=1e-3).initialize(x[:2000]).run(x[2000:]).mean() > 0.5
    dspot = DSPOT(q=1e-3, depth=20).initialize(x[:2000])
    assert dspot.run(x[2000:]).mean() < 3e-3
    assert dspot.update(dspot.threshold + 0.01)


def test_attack_does_not_raise_the_spot_threshold_far() -> None:
    rng = np.random.default_rng(3)
    rule = SPOT(q=1e-3).initialize(rng.normal(size=3000))
    before = rule.threshold
    x = rng.normal(size=5000)
    x[::10] = 1e6
    flagged = rule.run(x)
    assert flagged[::10].all()
    assert rule.threshold < before + 1.0


def test_running_conformal_keeps_alpha_without_sinking() -> None:
    rng = np.random.default_rng(4)
    rule = RunningConformal(alpha=0.05, window=500).initialize(rng.normal(size=500))
    flagged = rule.run(rng.normal(size=40_000))
    # The window carries noise of relative size 1 / sqrt(25); over 80 windows it averages out.
    assert abs(flagged[:20_000].mean() - 0.05) < 0.006
    assert abs(flagged[20_000:].mean() - 0.05) < 0.006


def test_running_conformal_follows_drift_and_limits_attacks() -> None:
    rng = np.random.default_rng(5)
    x = np.linspace(0, 10, 20_000) + rng.normal(size=20_000)
    rule = RunningConformal(alpha=0.05, window=300).initialize(x[:300])
    assert rule.run(x[300:]).mean() < 0.09
    attack = rng.normal(1e3, 1.0, size=3000)
    assert _copy(rule).run(attack).mean() > 0.3


def test_running_conformal_equals_the_p_value_in_its_window() -> None:
    rng = np.random.default_rng(6)
    rule = RunningConformal(alpha=0.1, window=40).initialize(rng.integers(0, 9, 40))
    window = None
    for score in rng.integers(0, 12, 500).astype(float).tolist():
        window = rule.to_dict()["state"]["scores"]
        p = rule.p_value(score)
        assert p == conformal_p_values(window, [score])[0]
        assert rule.update(score) == (p <= 0.1)
    assert len(window) == 40


def test_running_conformal_with_a_short_past_says_what_it_can_do() -> None:
    with pytest.warns(CalibrationWarning, match=r"lowest level is 0.0476.*at least 99"):
        rule = RunningConformal(alpha=0.01).initialize(range(20))
    assert rule.threshold == 19.0


def test_infinite_scores_are_flagged() -> None:
    rng = np.random.default_rng(7)
    for rule in RULES:
        started = _copy(rule).initialize(rng.normal(size=2000))
        assert started.update(np.inf)
        assert np.isfinite(started.threshold)
        assert started.n_flagged == 1


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_update_equals_run(rule) -> None:
    rng = np.random.default_rng(8)
    past, x = rng.normal(size=800), rng.normal(size=400) * 1.5
    one, many = _copy(rule).initialize(past), _copy(rule).initialize(past)
    assert [one.update(v) for v in x] == many.run(x).tolist()
    assert one.threshold == many.threshold


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_json_goes_on_with_the_same_decisions(rule) -> None:
    rng = np.random.default_rng(9)
    past, x = rng.normal(size=800), rng.normal(size=3000) * 1.3
    whole, half = _copy(rule).initialize(past), _copy(rule).initialize(past)
    expected, head = whole.run(x), half.run(x[:1000])
    again = stream_from_dict(json.loads(json.dumps(half.to_dict(), allow_nan=False)))
    assert type(again) is type(rule)
    np.testing.assert_array_equal(np.concatenate([head, again.run(x[1000:])]), expected)
    assert expected.any()
    assert again.threshold == whole.threshold
    assert (again.n, again.n_flagged) == (whole.n, whole.n_flagged)
    assert again.to_dict() == whole.to_dict()


def test_peaks_are_bounded() -> None:
    rng = np.random.default_rng(10)
    rule = SPOT(q=1e-3, max_peaks=30).initialize(rng.normal(size=3000))
    rule.run(rng.normal(size=3000))
    assert len(rule.to_dict()["state"]["peaks"]) == 30
    assert rule.n_excess > 90


def test_constant_past() -> None:
    with pytest.warns(CalibrationWarning, match="Only 0 of 100 scores"):
        rule = SPOT().initialize(np.ones(100))
    assert rule.threshold == 1.0
    assert [rule.update(1.0), rule.update(2.0)] == [False, True]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: SPOT(q=0.05, level=0.98), r"q must lie in \(0, 0.02\), found 0.05"),
        (lambda: SPOT(level=1.0), "level must lie in"),
        (lambda: SPOT(max_peaks=3), "max_peaks must be at least 10, found 3"),
        (lambda: DSPOT(depth=0), "depth must be at least 1"),
        (lambda: RunningConformal(alpha=0.0), "alpha must lie in"),
        (lambda: RunningConformal(window=0), "window must be at least 1"),
        (lambda: SPOT().update(1.0), "SPOT has no past yet. Call initialize"),
        (lambda: DSPOT().run([1.0]), "DSPOT has no past yet"),
        (lambda: RunningConformal().p_value(1.0), "RunningConformal has no past yet"),
        (lambda: SPOT().initialize([]), "scores is empty"),
        (lambda: SPOT().initialize([1.0, np.inf]), "NaN or infinite"),
        (lambda: DSPOT(depth=5).initialize(range(5)), "more than depth=5 scores, found 5"),
        (lambda: SPOT().update(float("nan")), "score must lie in"),
        (lambda: stream_from_dict({"rule": "X"}), "DSPOT, RunningConformal, SPOT, found 'X'"),
        (lambda: SPOT.from_dict(DSPOT().to_dict()), "must be one of SPOT, found 'DSPOT'"),
        (lambda: SPOT.from_dict({"rule": "SPOT", "parameters": {}}), "SPOT: the saved state"),
    ],
)
def test_bad_values_are_named(call, match) -> None:
    with pytest.raises(InputError, match=match):
        call()


def test_minus_infinity_cannot_enter_a_moving_average() -> None:
    rule = DSPOT(q=1e-3, depth=5).initialize(np.random.default_rng(11).normal(size=1000))
    with pytest.raises(InputError, match="found -inf"):
        rule.update(-np.inf)


def test_bad_types_are_named() -> None:
    with pytest.raises(InputTypeError, match="score must be a number"):
        SPOT().update("1")  # type: ignore[arg-type]
