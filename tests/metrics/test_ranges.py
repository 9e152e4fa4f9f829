"""Events and range-based precision and recall, against the definitions in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.errors import InputError
from genad.metrics import events_from_flags, precision, range_based, recall
from genad.metrics.ranges import overlapping_pairs

quick = settings(deadline=None, max_examples=50, derandomize=True)
rows = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30).filter(lambda r: any(a for a, _ in r))


def loop_events(flags):
    events, current = [], []
    for i, flag in enumerate([*flags, False]):
        if flag:
            current.append(i)
        elif current:
            events.append(current)
            current = []
    return events


def weight(position, length, bias):
    """Position counts from 1."""
    if bias == "flat":
        return 1
    if bias == "front":
        return length - position + 1
    if bias == "back":
        return position
    return position if position <= length / 2 else length - position + 1


def loop_reward(event, others, bias, cardinality):
    pieces = [o for o in others if set(o) & set(event)]
    total = sum(weight(p, len(event), bias) for p in range(1, len(event) + 1))
    got = sum(weight(p, len(event), bias) for p, step in enumerate(event, start=1) if any(step in o for o in pieces))
    factor = 1 / len(pieces) if cardinality == "reciprocal" and len(pieces) > 1 else 1
    return factor * got / total, bool(pieces)


def test_events_known_answers():
    np.testing.assert_array_equal(events_from_flags([1, 1, 0, 1]), [[0, 2], [3, 4]])
    assert events_from_flags([0, 0]).shape == (0, 2)
    assert events_from_flags([]).shape == (0, 2)
    assert events_from_flags([True]).tolist() == [[0, 1]]


@quick
@given(flags=st.lists(st.booleans(), max_size=40))
def test_events_rebuild_the_flags(flags):
    events = events_from_flags(flags)
    assert [list(range(a, b)) for a, b in events] == loop_events(flags)


@quick
@given(pairs=rows)
def test_overlapping_pairs_are_those_that_share_a_step(pairs):
    a, b = (events_from_flags([row[i] for row in pairs]) for i in (0, 1))
    i, j = overlapping_pairs(a, b)
    expected = [(p, q) for p in range(len(a)) for q in range(len(b)) if max(a[p, 0], b[q, 0]) < min(a[p, 1], b[q, 1])]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected


@quick
@given(
    pairs=rows,
    bias=st.sampled_from(["flat", "front", "back", "middle"]),
    precision_bias=st.sampled_from(["flat", "front", "back", "middle"]),
    cardinality=st.sampled_from(["one", "reciprocal"]),
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_range_based_follows_the_definition(pairs, bias, precision_bias, cardinality, alpha):
    y, flags = zip(*pairs, strict=True)
    truth, found = loop_events(y), loop_events(flags)
    recalls = []
    for event in truth:
        overlap, met = loop_reward(event, found, bias, cardinality)
        recalls.append(alpha * met + (1 - alpha) * overlap)
    precisions = [loop_reward(event, truth, precision_bias, cardinality)[0] for event in found]
    result = range_based(y, flags, alpha=alpha, bias=bias, precision_bias=precision_bias, cardinality=cardinality)
    assert result.recall == pytest.approx(np.mean(recalls))
    assert result.precision == pytest.approx(np.mean(precisions) if found else 0.0)
    assert all(0 <= v <= 1 for v in (result.precision, result.recall, result.f1))


@quick
@given(pairs=rows, bias=st.sampled_from(["flat", "front", "back", "middle"]))
def test_perfect_flags_give_one(pairs, bias):
    y = [row[0] for row in pairs]
    result = range_based(y, y, bias=bias, precision_bias=bias, alpha=0.4)
    assert (result.precision, result.recall, result.f1) == (1.0, 1.0, 1.0)


@quick
@given(pairs=rows)
def test_time_reversed_swaps_front_and_back(pairs):
    y, flags = (np.array(v) for v in zip(*pairs, strict=True))
    front = range_based(y, flags, bias="front", precision_bias="front")
    back = range_based(y[::-1], flags[::-1], bias="back", precision_bias="back")
    assert front.recall == pytest.approx(back.recall)
    assert front.precision == pytest.approx(back.precision)


@quick
@given(pairs=rows)
def test_unit_events_give_the_point_metrics(pairs):
    spaced = [pair for row in pairs for pair in (row, (False, False))]
    y, flags = zip(*spaced, strict=True)
    result = range_based(y, flags)
    assert result.recall == pytest.approx(recall(y, flags))
    assert result.precision == pytest.approx(precision(y, flags))


def test_bias_known_answers():
    y, early, late = [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]
    assert range_based(y, early, bias="flat").recall == 0.25
    assert range_based(y, early, bias="front").recall == 0.4
    assert range_based(y, late, bias="front").recall == 0.1
    assert range_based(y, early, bias="back").recall == 0.1
    assert range_based(y, early, bias="middle").recall == pytest.approx(1 / 6)
    assert range_based([1, 1, 1], [0, 1, 0], bias="middle").recall == pytest.approx(0.5)


def test_fragments_are_charged():
    y, flags = [1, 1, 1, 1, 1], [1, 0, 1, 0, 1]
    assert range_based(y, flags, cardinality="one").recall == pytest.approx(0.6)
    assert range_based(y, flags, cardinality="reciprocal").recall == pytest.approx(0.2)
    assert range_based(y, flags, alpha=1.0).recall == 1.0


def test_no_flags_give_zero():
    result = range_based([0, 1], [0, 0])
    assert (result.precision, result.recall, result.f1) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["bias", "precision_bias", "cardinality"])
def test_unknown_option(name):
    with pytest.raises(InputError, match=rf"^{name} is 'odd'; one of '\w+', "):
        range_based([0, 1], [0, 1], **{name: "odd"})


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_out_of_range(alpha):
    with pytest.raises(InputError, match=r"alpha is .* from 0"):
        range_based([0, 1], [0, 1], alpha=alpha)
