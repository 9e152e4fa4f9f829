"""A watch over many groups: each by itself, in any mix, saved and taken up again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genad.core.calibration.martingale import DriftRule
from genad.core.group_monitor import GroupMonitor
from genad.errors import InputError


def started(n=300, alpha=0.01, **unseen):
    rng = np.random.default_rng(0)
    return GroupMonitor(alpha).initialize({"1": rng.normal(size=n), "2": rng.normal(50, 1, n)}, **unseen)


def test_groups_come_in_any_mix_and_any_steps():
    rng = np.random.default_rng(1)
    scores, groups = np.r_[rng.normal(size=80), rng.normal(53, 1, 80)], np.repeat([1.0, 2.0], 80)
    # The order within a group counts, that among groups does not.
    first = rng.permutation(groups) == 1.0
    mixed = np.empty(160, np.intp)
    mixed[first], mixed[~first] = np.arange(80), np.arange(80, 160)
    blocks, steps = started(), started()
    on = blocks.run(scores, groups)
    one_by_one = [steps.update(scores[i], int(groups[i])) for i in mixed]
    np.testing.assert_array_equal(on[mixed], one_by_one)
    assert blocks.alarms == steps.alarms
    assert list(blocks.alarms) == ["2"]
    assert blocks.alarm


def test_the_level_is_for_all_groups_together():
    watch = started(alpha=0.03, unseen=np.zeros(50))
    assert [each.alpha for each in (*watch.groups.values(), watch.unseen)] == [0.01] * 3
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(60):
        watch = GroupMonitor(0.2).initialize({str(k): rng.normal(size=30) for k in range(4)})
        watch.run(rng.normal(size=240), np.tile(np.arange(4), 60))
        false += watch.alarm
    assert false <= 60 * 0.2 + 3 * np.sqrt(60 * 0.2 * 0.8)


def test_a_watch_goes_on_from_what_was_saved():
    rng = np.random.default_rng(3)
    watch = started(unseen=rng.normal(size=100))
    groups = ["1", "2", "new"] * 30
    watch.run(rng.normal(size=90), groups)
    again = DriftRule.from_dict(json.loads(json.dumps(watch.to_dict())))
    assert isinstance(again, GroupMonitor)
    scores = rng.normal(2, 1, size=90)
    np.testing.assert_array_equal(again.run(scores, groups), watch.run(scores, groups))
    assert again.to_dict() == watch.to_dict()
    with pytest.raises(InputError, match="the saved state is broken"):
        DriftRule.from_dict(watch.to_dict() | {"state": {}})


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda w: w.run([1.0, 2.0], ["1"]), r"^groups: found shape \(1,\) for 2 scores"),
        (lambda w: w.run([1.0, 2.0], ["1", None]), "^groups: names no group in 1 of 2 rows, the first is row 1"),
        (lambda w: w.run([1.0, 2.0], ["1", "3"]), r"^groups: '3' is not watched \(known: 1, 2\)"),
        (lambda w: w.run([1.0, np.nan], ["1", "2"]), "^scores must not hold NaN"),
        (lambda w: w.update(np.nan, "1"), "^score must lie in"),
        (lambda _: GroupMonitor(0.0), "^alpha must lie in"),
    ],
)
def test_what_cannot_be_watched_is_named_and_changes_nothing(call, found):
    watch = started()
    before = watch.to_dict()
    with pytest.raises(InputError, match=found):
        call(watch)
    assert watch.to_dict() == before


def test_nothing_is_watched_where_nothing_comes():
    assert started().run([], []).shape == (0,)
