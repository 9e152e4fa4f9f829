"""The martingale seldom cries wolf, however long it watches, and sees a change soon."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genad import ConformalMartingale
from genad.errors import InputError


def test_false_alarms_are_at_most_alpha_over_a_long_watch() -> None:
    alarms = 0
    for k in range(300):
        rng = np.random.default_rng(k)
        watch = ConformalMartingale(alpha=0.1, seed=k).initialize(rng.gamma(2.0, size=50))
        alarms += bool(watch.run(rng.gamma(2.0, size=400)).any())
    # at most 30 of 300 are expected; five is what a watch that never sees anything would stay below
    assert alarms <= 45


def test_the_capital_has_mean_one_where_nothing_changes() -> None:
    capital = []
    for k in range(400):
        rng = np.random.default_rng(k)
        watch = ConformalMartingale(seed=k).initialize(rng.normal(size=30))
        watch.run(rng.normal(size=15))
        capital.append(np.exp(watch.log_capital))
    assert np.mean(capital) == pytest.approx(1.0, abs=4 * np.std(capital) / 20)


@pytest.mark.parametrize(("mean", "spread", "soon"), [(1.0, 1.0, 80), (3.0, 1.0, 40), (-2.0, 1.0, 60)])
def test_a_change_is_seen_soon(mean: float, spread: float, soon: int) -> None:
    rng = np.random.default_rng(0)
    watch = ConformalMartingale(alpha=0.01).initialize(rng.normal(size=500))
    assert not watch.run(rng.normal(size=300)).any()
    assert watch.run(rng.normal(mean, spread, size=soon))[-1]
    assert 300 < watch.alarm_at <= 300 + soon


def test_an_alarm_stays_and_says_when() -> None:
    rng = np.random.default_rng(1)
    watch = ConformalMartingale(alpha=0.05).initialize(rng.normal(size=200))
    first = int(watch.run(rng.normal(5.0, 1.0, size=60)).argmax()) + 1
    assert watch.alarm_at == first
    watch.run(rng.normal(size=200))
    assert watch.alarm
    assert watch.alarm_at == first


def test_ties_are_no_evidence() -> None:
    watch = ConformalMartingale(alpha=0.05).initialize(np.zeros(100))
    assert not watch.run(np.zeros(1000)).any()


def test_one_by_one_and_restored_watches_agree_with_a_whole_run() -> None:
    rng = np.random.default_rng(2)
    calibration, scores = rng.normal(size=100), rng.normal(0.8, 1.0, size=120)
    whole = ConformalMartingale(seed=3).initialize(calibration)
    flags = whole.run(scores)
    parts = ConformalMartingale(seed=3).initialize(calibration)
    first = [parts.update(float(score)) for score in scores[:70]]
    again = ConformalMartingale.from_dict(json.loads(json.dumps(parts.to_dict())))
    assert [*first, *again.run(scores[70:])] == flags.tolist()
    assert again.log_capital == whole.log_capital
    assert again.alarm_at == whole.alarm_at


def test_the_capital_may_pass_what_a_float_can_hold() -> None:
    rng = np.random.default_rng(4)
    watch = ConformalMartingale().initialize(np.arange(20_000.0))
    watch.run(rng.uniform(30_000, 40_000, size=4_000))
    assert watch.log_capital > 710
    assert np.isfinite(watch.log_capital)


@pytest.mark.parametrize(
    ("options", "found"),
    [({"alpha": 0.0}, "alpha"), ({"alpha": 1.0}, "alpha"), ({"jump": 1.5}, "jump"), ({"seed": -1}, "seed")],
)
def test_bad_parameters_are_named(options: dict[str, float], found: str) -> None:
    with pytest.raises(InputError, match=found):
        ConformalMartingale(**options)


def test_a_watch_needs_calibration_and_numbers() -> None:
    with pytest.raises(InputError, match="no calibration yet"):
        ConformalMartingale().update(1.0)
    watch = ConformalMartingale().initialize([1.0, 2.0])
    with pytest.raises(InputError, match="score"):
        watch.update(float("nan"))
    with pytest.raises(InputError, match="shares"):
        ConformalMartingale.from_dict({**watch.to_dict(), "state": {**watch.to_dict()["state"], "shares": [1.0]}})
