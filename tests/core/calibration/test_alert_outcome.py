"""What a policy made of a series: the alarms with their peaks, and what each rule removed and lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genad.core.calibration.alert_outcome import spans_of
from genad.core.calibration.alert_policy import AlertPolicy
from genad.errors import InputError

LOST = ("persistence", "silence", "duration", "cool-down", "budget")


def flags(text: str) -> list[bool]:
    return [c == "x" for c in text]


def steps(text: str) -> list[int]:
    return [int(c == "#") for c in text]


def test_the_peak_is_the_lowest_p_value() -> None:
    run = AlertPolicy(k=1, n=1, on=0.05).run([1.0, 0.04, 0.001, 0.02, 1.0]).runs[0]
    assert (run.start, run.stop, run.peak, run.n) == (1, 4, 2, 3)


@pytest.mark.parametrize(("p", "peak"), [((0.009, 0.0001), 4), ((0.0001, 0.009), 1), ((0.001, 0.001), 1)])
def test_the_peak_of_a_merged_alarm_is_that_of_all_its_stretches(p: tuple[float, float], peak: int) -> None:
    outcome = AlertPolicy(k=1, n=1, merge_gap=3).run([0.5, p[0], 0.5, 0.5, p[1], 0.5])
    assert [(a.start, a.stop, a.peak, a.n) for a in outcome.alarms] == [(1, 5, peak, 2)]
    assert [run.peak for run in outcome.runs] == [1, 4]


def test_a_merged_alarm_counts_the_hits_between_its_stretches() -> None:
    p = np.where(flags("xx...x...xx"), 0.005, 1.0)
    p[5] = 1e-6
    outcome = AlertPolicy(k=2, n=2, merge_gap=8).run(p)
    assert [(r.start, r.stop, r.verdict) for r in outcome.runs] == [(1, 2, "raised"), (10, 11, "merged")]
    assert [(a.start, a.stop, a.peak, a.n) for a in outcome.alarms] == [(1, 11, 5, 4)]


def test_the_account_without_labels_tells_what_each_rule_removed() -> None:
    policy = AlertPolicy(k=2, n=2, min_duration=2, merge_gap=1, cool_down=5, budget=1, silent=[("a", None)])
    text = "xxxx..xxx...xxx..x...xx....xxx...xxx"
    kinds = ["a" if t >= 33 else None for t in range(len(text))]
    outcome = policy.run(flags(text), kinds)
    verdicts = ["raised", "cool-down", "budget", "duration", "budget", "silence"]
    assert [run.verdict for run in outcome.runs] == verdicts
    assert outcome.account() == {
        "flags": 19,
        "alarms": 1,
        "persistence": 1,
        "merged": 0,
        "silence": 1,
        "duration": 1,
        "cool-down": 1,
        "budget": 2,
    }


def test_the_account_with_labels_tells_events_and_delay() -> None:
    p = flags("x....xxxxx......x....xx.....")
    truth = steps(".....#####...........##...#.")
    every, steady = AlertPolicy(k=1, n=1).run(p).account(truth), AlertPolicy(k=3, n=3).run(p).account(truth)
    assert every == {
        "flags": 9,
        "alarms": 4,
        **dict.fromkeys(("persistence", "merged", "silence", "duration", "cool-down", "budget"), 0),
        "events": 3,
        "events flagged": 2,
        "events told": 2,
        **{f"lost to {rule}": 0 for rule in LOST},
        "delay": 0,
    }
    assert (steady["alarms"], steady["persistence"], steady["events told"], steady["delay"]) == (1, 3, 1, 2)
    assert (steady["events flagged"], steady["lost to persistence"]) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"k": 3, "n": 3}, "persistence"),
        ({"silent": [("a", None)]}, "silence"),
        ({"min_duration": 3}, "duration"),
        ({"cool_down": 9}, "cool-down"),
        ({"budget": 1}, "budget"),
    ],
)
def test_an_event_is_lost_to_the_rule_that_keeps_it_back(settings: dict[str, object], rule: str) -> None:
    made = AlertPolicy(**{"k": 1, "n": 1, **settings})
    kinds = [None] * 5 + ["a"] * 4
    account = made.run(flags("xxx..xx.."), kinds).account(steps("###..###."))
    assert (account["events"], account["events flagged"], account["events told"]) == (2, 2, 1)
    assert {name for name in LOST if account[f"lost to {name}"]} == {rule}
    assert account[f"lost to {rule}"] == account[rule] == 1
    # Without the rule nothing is lost.
    assert AlertPolicy(k=1, n=1).run(flags("xxx..xx.."), kinds).account(steps("###..###."))["events told"] == 2


def test_an_event_that_is_over_before_its_stretch_is_told_is_lost_to_the_duration() -> None:
    account = AlertPolicy(k=1, n=1, min_duration=3).run(flags(".xxxx.")).account(steps(".#...."))
    assert (account["alarms"], account["duration"], account["lost to duration"]) == (1, 0, 1)


def test_an_event_in_the_silent_part_of_a_stretch_is_lost_to_silence() -> None:
    outcome = AlertPolicy(k=1, n=1, silent=[("a", None)]).run([True] * 4, ["a", "a", None, None])
    assert [(run.start, run.stop, run.verdict) for run in outcome.runs] == [(2, 4, "raised")]
    account = outcome.account(steps("##.."))
    assert (account["silence"], account["lost to silence"]) == (0, 1)


@given(st.integers(0, 2**30), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9), st.sampled_from([None, 1]))
def test_every_flagged_event_is_told_or_lost_to_one_rule(
    seed: int, k: int, lasting: int, cool: int, budget: int | None
) -> None:
    rng = np.random.default_rng(seed)
    p, truth = rng.choice([0.0, 0.05, 1.0], 60), rng.random(60) < 0.4
    policy = AlertPolicy(k=k, n=k + 1, min_duration=lasting, cool_down=cool, budget=budget, silent=[("a", None)])
    outcome = policy.run(p, rng.choice(["a", "b"], 60))
    account = outcome.account(truth)
    kept = sum(bool(outcome.flags[a:b].any() and outcome.on[a:b].any()) for a, b in spans_of(truth))
    assert account["events flagged"] == kept + sum(account[f"lost to {rule}"] for rule in LOST)
    assert account["alarms"] == len(outcome.alarms) == outcome.raised.sum()


def test_nothing_gives_nothing() -> None:
    account = AlertPolicy().run([]).account([])
    assert not any(account.values())


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="labels: 1 were given for 2 steps"):
        AlertPolicy().run([0.5, 0.5]).account([1])
