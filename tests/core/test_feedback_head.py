"""The head corrects what is like a labelled unit, and leaves the rest alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genad.core.feedback_head import FeedbackHead
from genad.core.traits import MOST, map_traits

RNG = np.random.default_rng(0)
TRAITS = RNG.gamma(1.0, size=(500, 3))
SCORES = TRAITS.sum(axis=1)


def head(rows: list[list[float]], labels: list[int]) -> FeedbackHead:
    """Return a head that was told the labels of units with these maps."""
    at = np.array(rows, float).reshape(-1, 3)
    return FeedbackHead(SCORES, TRAITS, np.column_stack([at.sum(axis=1), at]), np.array(labels, np.int64))


def judged(of: FeedbackHead, row: list[float]) -> float:
    at = np.array([row], float)
    return float(of.judge(at.sum(axis=1), at)[0])


def test_without_labels_the_score_is_its_rarity() -> None:
    none = head([], [])
    np.testing.assert_array_equal(none.judge(SCORES, TRAITS), none.rarity(SCORES))
    assert none.rarity(np.quantile(SCORES, [0.9]))[0] == pytest.approx(-np.log(0.1), rel=0.05)


def test_rarity_keeps_the_order_of_scores_however_gross() -> None:
    scores = np.sort(np.r_[SCORES, np.geomspace(10, 1e6, 50)])
    assert (np.diff(head([], []).rarity(scores)) >= 0).all()
    assert (np.diff(head([], []).rarity(np.geomspace(10, 1e6, 50))) > 0).all()


def test_a_label_reaches_its_like_and_no_other() -> None:
    none, told = head([], []), head([[20.0, 0.2, 0.2]], [0])
    assert judged(told, [20.0, 0.2, 0.2]) < -np.log(0.01) < judged(none, [20.0, 0.2, 0.2])
    like = judged(none, [18.0, 0.3, 0.2]) - judged(told, [18.0, 0.3, 0.2])
    other = judged(none, [0.2, 0.2, 20.0]) - judged(told, [0.2, 0.2, 20.0])
    assert like > 3
    assert abs(other) < 0.35 * like


def test_an_anomaly_that_was_missed_is_found_with_its_like() -> None:
    none, told = head([], []), head([[0.0, 0.0, 2.5]], [1])
    assert judged(none, [0.0, 0.0, 2.6]) < 2
    assert judged(told, [0.0, 0.0, 2.6]) > -np.log(0.01)


def test_contradicting_labels_of_one_unit_cancel() -> None:
    none, both = head([], []), head([[4.0, 1.0, 1.0]] * 2, [0, 1])
    one = head([[4.0, 1.0, 1.0]], [0])
    moved = abs(judged(both, [4.0, 1.0, 1.0]) - judged(none, [4.0, 1.0, 1.0]))
    assert moved < 0.5 * abs(judged(one, [4.0, 1.0, 1.0]) - judged(none, [4.0, 1.0, 1.0]))


def test_proposals_are_suspect_and_unlike_each_other_and_not_like_what_is_known() -> None:
    crowd = np.tile([12.0, 0.1, 0.1], (20, 1)) + RNG.normal(0, 0.01, (20, 3))
    X = np.r_[crowd, [[0.1, 12.0, 0.1]], [[0.1, 0.1, 12.0]], TRAITS[:50] * 0.2]
    first = head([], []).propose(X.sum(axis=1), X, 3)
    assert {20, 21} < set(first.tolist())
    assert sum(first < 20) == 1
    known = head(crowd[:3].tolist(), [0, 0, 0]).propose(X.sum(axis=1), X, 2)
    assert set(known.tolist()) == {20, 21}


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0, 50), st.sampled_from([0, 1])), max_size=8))
def test_a_head_comes_back_from_plain_values(units: list[tuple[float, float, float, int]]) -> None:
    told = head([list(unit[:3]) for unit in units], [unit[3] for unit in units])
    again = FeedbackHead.from_state(told.state())
    np.testing.assert_array_equal(again.judge(SCORES[:20], TRAITS[:20]), told.judge(SCORES[:20], TRAITS[:20]))
    assert np.isfinite(told.judge(SCORES, TRAITS)).all()


@pytest.mark.parametrize(
    ("shape", "width"),
    [((4, 7), 7), ((4, 100), MOST), ((4, 12, 3), 12), ((4, 2, 3), 6), ((4, 3, 9, 9), 25), ((4, 5, 1, 9, 9), 32)],
)
def test_traits_are_few_and_lose_nothing(shape: tuple[int, ...], width: int) -> None:
    maps = RNG.random(shape)
    found = map_traits(maps)
    assert found.shape == (4, width)
    np.testing.assert_allclose(found.sum(axis=1), maps.reshape(4, -1).sum(axis=1))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.8, 0.95, 0.999])
def test_a_value_on_raw_scores_parts_the_same_units_as_its_level(share: float) -> None:
    none, value = head([], []), float(np.quantile(SCORES, share))
    np.testing.assert_array_equal(none.rarity(SCORES) > none.level(value), value < SCORES)


@pytest.mark.parametrize(("value", "above"), [(-1.0, [0, 1, 2]), (0.0, [1, 2]), (0.5, [1, 2]), (1.0, [2]), (9.0, [])])
def test_the_level_of_a_value_keeps_ties_together_with_room_on_both_sides(value: float, above: list[int]) -> None:
    """Labels move every score a little; that must not part units that score the same from their side."""
    for shares in ((80, 15, 5), (480, 15, 5), (5, 15, 480)):
        ties = np.repeat([0.0, 1.0, 2.0], shares)
        none = FeedbackHead(ties, np.empty((len(ties), 0)), np.empty((0, 1)), np.empty(0, np.int64))
        rare, level = none.rarity(np.array([0.0, 1.0, 2.0])), none.level(value)
        assert np.flatnonzero(rare > level).tolist() == above
        if value != 1.0:
            assert (np.abs(rare - level) > 1e-3).all()


def test_no_value_is_beyond_a_level() -> None:
    assert head([], []).level(np.inf) == np.inf
    assert head([], []).level(-np.inf) == -np.inf
    same = FeedbackHead(np.ones(50), np.empty((50, 0)), np.empty((0, 1)), np.empty(0, np.int64))
    assert same.rarity(np.array([1.0]))[0] < same.level(1.0) < same.rarity(np.array([1.1]))[0]


def test_a_head_without_traits_is_made_again() -> None:
    plain = FeedbackHead(SCORES, np.empty((len(SCORES), 0)), np.array([[2.0]]), np.array([0], np.int64))
    again = FeedbackHead.from_state(plain.state())
    assert again.traits.shape == (len(SCORES), 0)
    none = np.empty((3, 0))
    np.testing.assert_array_equal(again.judge(SCORES[:3], none), plain.judge(SCORES[:3], none))


def test_units_that_are_all_alike_are_proposed_once_each() -> None:
    plain = FeedbackHead(SCORES, np.empty((len(SCORES), 0)), np.empty((0, 1)), np.empty(0, np.int64))
    chosen = plain.propose(np.repeat([1.0, 5.0], 6), np.empty((12, 0)), 8)
    assert len(set(chosen.tolist())) == 8
