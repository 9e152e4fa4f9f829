"""Alarms: each rule by itself, and the stream as the series."""

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


def test_a_stretch_is_told_once_it_has_lasted() -> None:
    policy = AlertPolicy(k=1, n=1, min_duration=3)
    outcome = policy.run(flags("xx..xxxx.xxx"))
    assert [run.verdict for run in outcome.runs] == ["duration", "raised", "raised"]
    assert [(run.start, run.stop) for run in outcome.alarms] == [(4, 8), (9, 12)]
    assert lit(policy, "xx..xxxx.xxx") == "......##...#"
    assert np.flatnonzero(outcome.raised).tolist() == [6, 11]


def test_what_did_not_last_is_neither_merged_nor_in_the_budget() -> None:
    policy = AlertPolicy(k=1, n=1, min_duration=2, merge_gap=2, budget=1)
    assert [r.verdict for r in policy.run(flags("x.xx..x.xx")).runs] == ["duration", "raised", "duration", "budget"]
    assert [r.verdict for r in policy.run(flags("xx..xx")).runs] == ["raised", "merged"]


# ---------------------------------------------------------------------- silence


def test_listed_kinds_are_silent_until_their_step() -> None:
    policy = AlertPolicy(k=1, n=1, silent=[("backup", 4), ("patching", None)])
    kinds = ["backup", "login", "patching", "backup", "backup", None, "patching"]
    outcome = policy.run([True] * 7, kinds)
    assert outcome.on.tolist() == [False, True, False, False, True, True, False]
    assert outcome.silent.tolist() == [not on for on in outcome.on]
    assert outcome.n_flags == 7
    # Steps that are given no kind are loud.
    assert policy.run([True] * 7).on.all()


def test_silent_steps_are_no_hits_of_a_stretch() -> None:
    policy = AlertPolicy(k=2, n=3, silent=[("backup", None)])
    outcome = policy.run(flags("xxx..xxxx"), ["backup"] * 6 + ["login", "login", "backup"])
    # The first stretch is gone; the second begins with the second hit that is not silent.
    assert [(r.start, r.stop, r.n, r.verdict) for r in outcome.runs] == [(1, 4, 2, "silence"), (7, 9, 1, "raised")]


def test_a_silent_step_does_not_keep_an_alarm_on() -> None:
    policy = AlertPolicy(k=1, n=1, off=0.5, silent=[("backup", None)])
    assert policy.run([0.0, 0.3, 0.3], [None, None, "backup"]).on.tolist() == [True, True, False]


def test_vectors_within_the_radius_are_of_one_kind() -> None:
    kinds = np.array([[0.0, 0.0], [0.3, 0.4], [0.3, 0.5]])
    policy = AlertPolicy(k=1, n=1, silent=[((0.0, 0.0), None)], radius=0.5)
    assert policy.run([True] * 3, kinds).on.tolist() == [False, False, True]
    assert AlertPolicy(k=1, n=1, silent=[((0.0, 0.0), None)]).run([True] * 3, kinds).on.tolist() == [False, True, True]


def test_a_dismissed_kind_is_silent_for_some_time() -> None:
    policy = AlertPolicy(k=1, n=1, known_for=2, known_share=1.0)
    assert policy.update(True, "scan")
    policy.dismiss("scan")
    assert policy.known == [["scan", 3]]
    assert [policy.update(True, kind) for kind in ("scan", "login", "scan")] == [False, True, True]
    # What is loud again is dropped from the list at the next call, and a kind that comes again is renewed.
    policy.dismiss("login")
    policy.dismiss("login")
    assert policy.known == [["login", 6]]


def test_dismissed_kinds_hold_back_no_more_than_their_share() -> None:
    policy = AlertPolicy(k=1, n=1, period=10, known_share=0.3, silent=[("backup", None)])
    policy.dismiss("scan")
    heard = [policy.update(True, "scan") for _ in range(20)]
    assert heard == ([False] * 3 + [True] * 7) * 2
    # Steps that would raise nothing take no part of the share, and listed kinds have no limit.
    policy.reset()
    policy.dismiss("scan")
    assert not any(policy.update(0.9, "scan") for _ in range(9))
    assert not any(policy.update(True, "backup") for _ in range(9))
    assert [policy.update(True, "scan") for _ in range(4)] == [False, False, False, True]


def test_a_series_is_judged_by_the_list_alone() -> None:
    policy = AlertPolicy(k=1, n=1)
    policy.dismiss("scan")
    assert policy.run([True], ["scan"]).on.all()
    assert not AlertPolicy(k=1, n=1, silent=policy.known).run([True], ["scan"]).on.any()


def test_what_was_dismissed_survives_saving() -> None:
    policy = AlertPolicy(k=1, n=1, period=10, known_share=0.2, radius=0.5)
    policy.dismiss([0.0, 1.0])
    assert not policy.update(True, (0.0, 1.25))
    again = AlertPolicy.from_dict(json.loads(json.dumps(policy.to_dict())))
    assert again.to_dict() == policy.to_dict()
    assert again.known == [[[0.0, 1.0], 10_000]]
    assert [again.update(True, (0.0, 1.0)) for _ in range(2)] == [False, True]


# ---------------------------------------------------------------------- stream and series


@given(
    st.lists(st.sampled_from([0.0, 0.005, 0.05, 0.3, 1.0]), max_size=80),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 8),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 0.05, 0.5]),
    st.integers(1, 4),
    st.integers(0, 2**30),
)
def test_the_stream_decides_as_the_series_even_after_saving(
    p: list[float],
    k: int,
    more: int,
    gap: int,
    cool: int,
    budget: int | None,
    off: float | None,
    lasting: int,
    seed: int,
) -> None:
    made = {"k": k, "n": k + more, "off": off, "merge_gap": gap, "cool_down": cool, "budget": budget, "period": 15}
    made |= {"min_duration": lasting, "silent": [("a", None), ("b", 30)]}
    kinds = np.random.default_rng(seed).choice(["a", "b", "c", "d"], len(p)).tolist()
    whole = AlertPolicy(**made).run(p, kinds).on.tolist()
    policy, found = AlertPolicy(**made), []
    for at, value in enumerate(p):
        if at % 7 == 3:
            policy = AlertPolicy.from_dict(json.loads(json.dumps(policy.to_dict())))
        found.append(policy.update(value, kinds[at]))
    assert found == whole


def test_run_leaves_the_stream_alone_and_reset_forgets_it() -> None:
    policy = AlertPolicy(k=1, n=3)
    policy.update(True)
    policy.dismiss("scan")
    before = policy.to_dict()
    policy.run(flags("x.x.x"))
    assert policy.to_dict() == before
    policy.reset()
    assert policy.to_dict() == AlertPolicy(k=1, n=3).to_dict()


def test_false_alarms_of_uniform_p_values_become_rare() -> None:
    p = np.random.default_rng(0).random(100_000)
    outcome = AlertPolicy(k=3, n=5, on=0.01).run(p)
    assert outcome.n_flags == pytest.approx(1000, rel=0.1)
    # Three of five at 1 % each: about 10 * 1e-6 a step.
    assert len(outcome.runs) < 10


def test_nothing_gives_nothing() -> None:
    outcome = AlertPolicy().run([])
    assert outcome.runs == ()
    assert outcome.alarms == []


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
        ({"min_duration": 0}, "min_duration must be at least 1"),
        ({"silent": [("a", -1)]}, "silent: step must be at least 0"),
        ({"radius": -1.0}, "radius must lie in"),
        ({"known_for": 0}, "known_for must be at least 1"),
        ({"known_share": 0.0}, "known_share must lie in"),
    ],
)
def test_parameters_out_of_range_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AlertPolicy(**change)


def test_kinds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="kinds: 1 were given for 2 steps"):
        AlertPolicy().run([0.5, 0.5], ["a"])
    with pytest.raises(InputError, match="kinds: 1 were given for 2 steps"):
        AlertPolicy().run([0.5, 0.5], "ab")
    with pytest.raises(InputError, match=r"kinds: .* use a text or a vector \(d,\) of finite numbers"):
        AlertPolicy().run([0.5, 0.5], [1, 2])
    with pytest.raises(InputTypeError, match="kind: True was given; use a text or a vector of numbers"):
        AlertPolicy().update(0.5, True)
    with pytest.raises(InputTypeError, match="kind: None was given"):
        AlertPolicy().dismiss(None)


def test_values_that_are_no_p_values_are_refused() -> None:
    with pytest.raises(InputError, match="not scores"):
        AlertPolicy().run([0.5, 7.0])
    with pytest.raises(InputError, match="NaN"):
        AlertPolicy().run([0.5, float("nan")])
    with pytest.raises(InputError, match="p_value must lie in"):
        AlertPolicy().update(1.5)


def test_a_broken_state_is_refused() -> None:
    data = AlertPolicy().to_dict()
    with pytest.raises(InputError, match="0 steps are kept of 4"):
        AlertPolicy.from_dict(data | {"state": data["state"] | {"steps": 4}})
    with pytest.raises(InputError, match="the saved state is broken"):
        AlertPolicy.from_dict(data | {"state": {}})
    with pytest.raises(InputError, match=r"the saved state is broken .*known"):
        AlertPolicy.from_dict(data | {"state": data["state"] | {"known": ["scan"]}})
    with pytest.raises(InputError, match="'rule' must be one of"):
        AlertPolicy.from_dict({"rule": "Other"})
    with pytest.raises(InputTypeError, match="is read from a dict"):
        AlertPolicy.from_dict([])  # type: ignore[arg-type]
