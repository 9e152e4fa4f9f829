"""Alarms: each rule by itself, the stream as the series, and what each rule costs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genad.core.calibration.alert_policy import AlertPolicy
from genad.errors import InputError, InputTypeError


def flags(text: str) -> list[bool]:
    return [c == "x" for c in text]


def lit(policy: AlertPolicy, text: str) -> str:
    return "".join("#" if on else "." for on in policy.run(flags(text)).on)


def test_persistence_needs_k_of_the_last_n() -> None:
    assert lit(AlertPolicy(k=3, n=5), "..x.x.x....x....") == "......#........."
    assert lit(AlertPolicy(k=3, n=5), "x...x...x...x...") == "................"
    assert lit(AlertPolicy(k=1, n=1), "x.xx.") == "#.##."


def test_hysteresis_keeps_an_alarm_on_between_the_levels() -> None:
    p = [0.5, 0.1, 0.005, 0.1, 0.1, 0.5, 0.1]
    assert AlertPolicy(k=1, n=1, off=0.2).run(p).on.tolist() == [False, False, True, True, True, False, False]
    assert AlertPolicy(k=1, n=1).run(p).on.tolist() == [False, False, True, False, False, False, False]


def test_runs_close_to_each_other_are_one_alarm() -> None:
    outcome = AlertPolicy(k=1, n=1, merge_gap=2).run(flags("xx..x...x"))
    assert [run.verdict for run in outcome.runs] == ["raised", "merged", "raised"]
    assert [(a.start, a.stop, a.n) for a in outcome.alarms] == [(0, 5, 3), (8, 9, 1)]
    assert np.flatnonzero(outcome.raised).tolist() == [0, 8]


def test_the_cool_down_counts_from_the_end_of_the_last_alarm_told() -> None:
    outcome = AlertPolicy(k=1, n=1, cool_down=5).run(flags("x..x..x..x"))
    # The stretches at 3 is kept back and does not put the end further off.
    assert [run.verdict for run in outcome.runs] == ["raised", "cool-down", "raised", "cool-down"]
    assert not outcome.on[3]


def test_the_budget_is_for_each_period() -> None:
    outcome = AlertPolicy(k=1, n=1, budget=2, period=10).run(flags("x.x.x.....x.x"))
    assert [run.verdict for run in outcome.runs] == ["raised", "raised", "budget", "raised", "raised"]
    assert outcome.account()["budget"] == 1


def test_the_peak_is_the_lowest_p_value() -> None:
    run = AlertPolicy(k=1, n=1, on=0.05).run([1.0, 0.04, 0.001, 0.02, 1.0]).runs[0]
    assert (run.start, run.stop, run.peak, run.n) == (1, 4, 2, 3)


@given(
    st.lists(st.sampled_from([0.0, 0.005, 0.05, 0.3, 1.0]), max_size=80),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 8),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 0.05, 0.5]),
)
def test_the_stream_decides_as_the_series_even_after_saving(
    p: list[float], k: int, more: int, gap: int, cool: int, budget: int | None, off: float | None
) -> None:
    made = {"k": k, "n": k + more, "off": off, "merge_gap": gap, "cool_down": cool, "budget": budget, "period": 15}
    whole = AlertPolicy(**made).run(p).on.tolist()
    policy, found = AlertPolicy(**made), []
    for at, value in enumerate(p):
        if at % 7 == 3:
            policy = AlertPolicy.from_dict(json.loads(json.dumps(policy.to_dict())))
        found.append(policy.update(value))
    assert found == whole


def test_run_leaves_the_stream_alone_and_reset_forgets_it() -> None:
    policy = AlertPolicy(k=1, n=3)
    policy.update(True)
    before = policy.to_dict()
    policy.run(flags("x.x.x"))
    assert policy.to_dict() == before
    policy.reset()
    assert policy.to_dict() == AlertPolicy(k=1, n=3).to_dict()


def test_the_account_tells_alarms_removed_events_lost_and_delay() -> None:
    p = flags("x....xxxxx......x....xx.....")
    truth = [int(5 <= t < 10 or 21 <= t < 23) for t in range(len(p))]
    every, steady = AlertPolicy(k=1, n=1).run(p).account(truth), AlertPolicy(k=3, n=3).run(p).account(truth)
    assert every == {
        "flags": 9,
        "alarms": 4,
        "merged": 0,
        "cool-down": 0,
        "budget": 0,
        "events": 2,
        "events told": 2,
        "delay": 0,
    }
    assert (steady["alarms"], steady["events told"], steady["delay"]) == (1, 1, 2)


def test_false_alarms_of_uniform_p_values_become_rare() -> None:
    p = np.random.default_rng(0).random(100_000)
    outcome = AlertPolicy(k=3, n=5, on=0.01).run(p)
    assert outcome.n_flags == pytest.approx(1000, rel=0.1)
    # Three of five at 1 % each: about 10 * 1e-6 a step.
    assert len(outcome.runs) < 10


def test_nothing_gives_nothing() -> None:
    outcome = AlertPolicy().run([])
    assert outcome.runs == ()
    assert outcome.account([])["events"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 6}, "k must be at most n=5"),
        ({"k": 0}, "k must be at least 1"),
        ({"n": 0}, "n must be at least 1"),
        ({"on": 0.0}, "on must lie in"),
        ({"off": 0.001}, "off must lie in"),
        ({"merge_gap": -1}, "merge_gap must be at least 0"),
        ({"cool_down": -1}, "cool_down must be at least 0"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"period": 0}, "period must be at least 1"),
    ],
)
def test_parameters_out_of_range_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AlertPolicy(**change)


def test_values_that_are_no_p_values_are_refused() -> None:
    with pytest.raises(InputError, match="not scores"):
        AlertPolicy().run([0.5, 7.0])
    with pytest.raises(InputError, match="NaN"):
        AlertPolicy().run([0.5, float("nan")])
    with pytest.raises(InputError, match="p_value must lie in"):
        AlertPolicy().update(1.5)
    with pytest.raises(InputError, match="labels: 1 were given for 2 steps"):
        AlertPolicy().run([0.5, 0.5]).account([1])


def test_a_broken_state_is_refused() -> None:
    data = AlertPolicy().to_dict()
    with pytest.raises(InputError, match="0 steps are kept of 4"):
        AlertPolicy.from_dict(data | {"state": data["state"] | {"steps": 4}})
    with pytest.raises(InputError, match="the saved state is broken"):
        AlertPolicy.from_dict(data | {"state": {}})
    with pytest.raises(InputError, match="'rule' must be one of"):
        AlertPolicy.from_dict({"rule": "Other"})
    with pytest.raises(InputTypeError, match="is read from a dict"):
        AlertPolicy.from_dict([])  # type: ignore[arg-type]
