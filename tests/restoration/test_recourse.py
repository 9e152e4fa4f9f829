"""Recourse: valid, feasible, sparse and short, and silent about nothing it could not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import genad
from genad.errors import InputError
from genad.restoration.recourse import Action, recourse


def table(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    load = rng.normal(size=n)
    return {
        "load": load,
        "heat": 2 * load + rng.normal(0, 0.1, n),
        "state": np.where(load > 0, "on", "off"),
        "count": rng.integers(0, 9, n),
        "open": rng.random(n) < 0.5,
    }


@pytest.fixture(scope="module")
def detector() -> genad.Detector:
    return genad.Autoencoder(training=genad.Training(updates=300)).fit(table(800))


def odd() -> dict[str, np.ndarray]:
    data = {name: cells[:12].copy() for name, cells in table(800).items()}
    data["heat"][4] = 9.0
    data["count"][5] = 40
    data["state"][6] = "on" if data["load"][6] < 0 else "off"
    return data


def test_a_row_is_brought_below_the_threshold_by_its_culprit(detector: genad.Detector) -> None:
    data = odd()
    found = recourse(detector, data, [4, 5, 6])
    assert [r.found for r in found] == [True] * 3
    assert [r.index for r in found] == [4, 5, 6]
    assert {c.name for c in found[0].changes} <= {"heat", "load"}
    assert [c.name for c in found[1].changes] == ["count"]
    assert [c.name for c in found[2].changes] == ["state"]
    for r in found:
        # The new row really scores what is said, and no other cell has moved.
        new = {name: np.array([cell]) for name, cell in r.row.items()}
        assert float(detector.anomaly_score(new)[0]) == pytest.approx(r.new_score, rel=1e-4)
        assert r.new_score <= r.goal < r.threshold < r.score
        changed = {c.name for c in r.changes}
        assert all(r.row[name] == data[name][r.index] for name in data if name not in changed)


def test_flagged_rows_are_the_default_and_normal_ones_need_nothing(detector: genad.Detector) -> None:
    data = odd()
    flagged = np.flatnonzero(detector.predict(data) == -1)
    assert [r.index for r in recourse(detector, data)] == flagged.tolist()
    calm = int(np.argmin(detector.anomaly_score(data)))
    only = recourse(detector, data, [calm])[0]
    assert only.found
    assert only.changes == ()
    assert only.cost == 0
    assert "normal as it is" in str(only)
    assert recourse(detector, {name: cells[[calm]] for name, cells in data.items()}) == []


def test_what_is_immutable_stays_even_if_nothing_can_be_found(detector: genad.Detector) -> None:
    found = recourse(detector, odd(), [5], immutable=["count"])[0]
    assert not found.found
    assert found.row["count"] == 40
    assert found.new_score > found.goal
    assert "with 'count' held" in found.reason
    assert "the lowest reached" in str(found)
    assert recourse(detector, odd(), [4], immutable=["heat"])[0].row["heat"] == 9.0


def test_directions_and_bounds_hold(detector: genad.Detector) -> None:
    up = recourse(detector, odd(), [5], actions={"count": Action(direction="up")})[0]
    assert not up.found
    assert up.row["count"] == 40
    low = recourse(detector, odd(), [4], actions={"heat": Action(low=-0.5), "load": Action(high=0.0)})[0]
    assert low.row["heat"] >= -0.5
    assert low.row["load"] <= 0.0
    bound = recourse(detector, odd(), [5], actions={"count": Action(low=20)})[0]
    assert not bound.found
    assert bound.row["count"] >= 20


def test_integers_stay_whole(detector: genad.Detector) -> None:
    assert float(recourse(detector, odd(), [5])[0].row["count"]).is_integer()
    heat = recourse(detector, odd(), [4], actions={"heat": Action(integer=True)}, immutable=["load"])[0]
    assert float(heat.row["heat"]).is_integer()
    assert heat.found


def test_costs_move_the_choice() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(size=1000)
    rows = np.column_stack([common, common]) + 0.1 * rng.normal(size=(1000, 2))
    detector = genad.create("ppca").fit({"a": rows[:, 0], "b": rows[:, 1]})
    row = {"a": [2.0], "b": [-2.0]}
    for cheap, dear in (("a", "b"), ("b", "a")):
        found = recourse(detector, row, [0], actions={dear: Action(cost=20.0)})[0]
        assert found.found
        assert found.changes[0].name == cheap


def test_numbers_move_no_further_than_needed() -> None:
    detector = genad.create("ppca").fit(np.random.default_rng(0).normal(size=(1000, 3)) * [1, 1, 0.01])
    found = recourse(detector, np.array([[0.0, 8.0, 0.0]]), [0])[0]
    assert found.found
    assert found.goal - found.new_score < 0.1 * (found.score - found.goal)


def test_the_margin_asks_for_more(detector: genad.Detector) -> None:
    near, far = (recourse(detector, odd(), [5], margin=margin)[0] for margin in (0.0, 0.6))
    assert near.goal == near.threshold
    assert far.goal < near.goal
    assert far.found
    assert far.cost >= near.cost


def test_few_changes_may_not_be_enough() -> None:
    rng = np.random.default_rng(2)
    detector = genad.create("ppca").fit(rng.normal(size=(1000, 6)))
    row = np.full((1, 6), 9.0)
    one = recourse(detector, row, [0], max_changes=1)[0]
    assert not one.found
    assert len(one.changes) <= 1
    assert recourse(detector, row, [0])[0].found


def test_a_missing_cell_is_filled_in(detector: genad.Detector) -> None:
    data = odd()
    data["load"][7], data["heat"][7] = np.nan, 30.0
    found = recourse(detector, data, [7])[0]
    assert found.found
    told = {c.name: c for c in found.changes}
    assert told["heat"].observed == 30.0
    if "load" in told:
        assert told["load"].observed is None


def test_real_rows_and_a_second_judge(detector: genad.Detector) -> None:
    judge = genad.create("ppca").fit(table(800))
    plain = recourse(detector, odd(), [4, 6])
    found = recourse(detector, odd(), [4, 6], normal=table(800), judge=judge)
    assert [r.p_value for r in plain] == [None, None]
    assert all(0 < r.p_value <= 1 for r in found if r.p_value is not None)
    assert found[1].p_value is not None
    assert found[1].p_value > 0.05
    told = json.loads(json.dumps(found[0].to_dict()))
    assert told["changes"][0]["name"] in {"heat", "load"}


def test_answers_are_deterministic(detector: genad.Detector) -> None:
    assert recourse(detector, odd(), [4, 5]) == recourse(detector, odd(), [4, 5])


def test_a_row_gets_the_same_answer_alone(detector: genad.Detector) -> None:
    together = recourse(detector, odd(), [4, 5, 6])
    assert [recourse(detector, odd(), [i])[0] for i in (4, 5, 6)] == together


def test_anomalies_of_a_real_table_find_a_way(one_class: Callable) -> None:
    train, test, truth = one_class("breastw")
    detector = genad.create("ppca", threshold=genad.Conformal(alpha=0.05)).fit(train)
    found = recourse(detector, test[truth == 1][:40], immutable=["x0"])
    assert np.mean([r.found for r in found]) > 0.8
    assert all(c.name != "x0" for r in found for c in r.changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"immutable": ["weight"]}, "immutable: no column named 'weight'"),
        ({"immutable": "load"}, "use a list of names"),
        ({"immutable": ["load", "heat", "state", "count", "open"]}, "no feature is left"),
        ({"actions": {"weight": Action()}}, "actions: no column named 'weight'"),
        ({"actions": {"load": 3}}, "use an Action"),
        ({"rows": [12]}, "use positions from 0 to 11"),
        ({"rows": [0.5]}, "use positions from 0 to 11"),
        ({"margin": 1.0}, "margin: 1.0 was given"),
        ({"max_changes": 0}, "max_changes: 0 was given"),
        ({"normal": {"load": [1.0]}}, "normal: columns"),
    ],
)
def test_what_cannot_be_used_is_named(detector: genad.Detector, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        recourse(detector, odd(), **({"rows": [4]} | change))


def test_actions_and_detectors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="cost: 0 was given"):
        Action(cost=0)
    with pytest.raises(InputError, match="use low <= high"):
        Action(low=2, high=1)
    with pytest.raises(InputError, match="direction: 'left' was given"):
        Action(direction="left")  # type: ignore[arg-type]
    windows = np.random.default_rng(0).normal(size=(600, 8, 2))
    of_windows = genad.create("ppca").fit(windows)
    with pytest.raises(InputError, match="a detector of table rows"):
        recourse(of_windows, windows)


def test_a_row_between_goal_and_threshold_is_left_as_it_is(detector: genad.Detector) -> None:
    data = table(800)
    scores = detector.anomaly_score(data)
    near = int(np.argmax(np.where(scores <= detector.threshold_.value, scores, -np.inf)))
    found = recourse(detector, data, [near], margin=0.9)[0]
    assert found.found
    assert found.changes == ()
    assert found.goal == found.threshold
