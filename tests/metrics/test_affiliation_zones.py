"""Affiliation against the paper's example and numerical integration of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.metrics import affiliation

quick = settings(deadline=None, max_examples=50, derandomize=True)
rows = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=24).filter(lambda r: any(a for a, _ in r))
FINE = 32  # grid cells in one step


def at_least(distances, d):
    """Probability of a distance of at least d; on a grid, equals count half (d > 0)."""
    if d == 0:
        return 1.0
    return np.mean(distances > d + 1e-9) + 0.5 * np.mean(np.abs(distances - d) <= 1e-9)


def integrate(y, flags):
    """Evaluate the definition on a fine grid of times."""
    n = len(y)
    times = (np.arange(n * FINE) + 0.5) / FINE
    step = times.astype(int)
    in_event, flagged = np.array(y, bool)[step], np.array(flags, bool)[step]
    edges = np.flatnonzero(np.diff(np.r_[0, np.array(y, int), 0])).reshape(-1, 2)
    # zone: the event at the smallest distance
    away = np.stack([np.maximum(np.maximum(a - times, times - b), 0) for a, b in edges])
    zone = away.argmin(axis=0)
    precision, recall = [], []
    for k in range(len(edges)):
        inside = zone == k
        flags_here = times[inside & flagged]
        if flags_here.size == 0:
            precision.append(np.nan)
            recall.append(0.0)
            continue
        spread = away[k][inside]
        precision.append(np.mean([at_least(spread, d) for d in away[k][inside & flagged]]))
        worth = []
        event = inside & in_event
        for t, hit in zip(times[event], flagged[event], strict=True):
            # half a cell: the flag's border, not the middle of its nearest cell
            d = 0 if hit else np.abs(flags_here - t).min() - 0.5 / FINE
            worth.append(at_least(np.abs(times[inside] - t), d))
        recall.append(np.mean(worth))
    return np.array(precision), np.array(recall)


@quick
@given(pairs=rows)
def test_follows_the_definition(pairs):
    y, flags = zip(*pairs, strict=True)
    precision, recall = integrate(y, flags)
    result = affiliation(y, flags)
    np.testing.assert_allclose(result.precision_by_event, precision, atol=0.02)
    np.testing.assert_allclose(result.recall_by_event, recall, atol=0.02)
    expected = 0.0 if np.isnan(precision).all() else np.nanmean(precision)
    assert result.precision == pytest.approx(expected, abs=0.02)
    assert result.recall == pytest.approx(np.mean(recall), abs=0.02)


def flags_of(events, n):
    flags = np.zeros(n, int)
    for a, b in events:
        flags[a:b] = 1
    return flags


@pytest.mark.parametrize("scale", [1, 60])
def test_example_of_the_paper(scale):
    truth = np.array([(0, 10), (50, 70), (170, 175)]) * scale
    found = np.array([(5, 6), (7, 10), (11, 12), (40, 60), (115, 130), (135, 140), (165, 170)])
    n = 180 * scale
    result = affiliation(flags_of(truth, n), flags_of(found * scale, n))
    assert result.precision_by_event[1] == pytest.approx(0.672222, abs=1e-6)
    assert result.recall_by_event[1] == pytest.approx(0.944444, abs=1e-6)


def test_closed_form_of_one_event_and_one_flag():
    # zone [0, 10), event [4, 6), flag [7, 8): distances 1 to 2 of an arm of 4 on either side
    y, flags = flags_of([(4, 6)], 10), flags_of([(7, 8)], 10)
    result = affiliation(y, flags)
    assert result.precision == pytest.approx(2 * (4 - 1.5) / 10)
    # the event's time 6 - u is 1 + u away, and 4 + u from the zone's end: 1 - 2 (1 + u) / 10
    assert result.recall == pytest.approx(np.mean([1 - 2 * (1 + 0) / 10, 1 - 2 * (1 + 2) / 10]))


@quick
@given(pairs=rows)
def test_perfect_flags_give_one(pairs):
    y = [row[0] for row in pairs]
    result = affiliation(y, y)
    assert (result.precision, result.recall, result.f1) == (1.0, 1.0, 1.0)


@quick
@given(pairs=rows)
def test_in_unit_interval_and_blind_to_time_direction(pairs):
    y, flags = (np.array(v) for v in zip(*pairs, strict=True))
    result, mirrored = affiliation(y, flags), affiliation(y[::-1], flags[::-1])
    assert all(0 <= v <= 1 for v in (result.precision, result.recall, result.f1))
    assert mirrored.precision == pytest.approx(result.precision)
    assert mirrored.recall == pytest.approx(result.recall)
    np.testing.assert_allclose(mirrored.recall_by_event[::-1], result.recall_by_event, atol=1e-12)


@quick
@given(pairs=rows, times=st.integers(2, 4))
def test_finer_sampling_does_not_matter(pairs, times):
    y, flags = (np.array(v) for v in zip(*pairs, strict=True))
    coarse, fine = affiliation(y, flags), affiliation(np.repeat(y, times), np.repeat(flags, times))
    assert fine.precision == pytest.approx(coarse.precision)
    assert fine.recall == pytest.approx(coarse.recall)


def test_nearer_flags_are_worth_more():
    y = flags_of([(50, 55)], 100)
    results = [affiliation(y, flags_of([(a, a + 2)], 100)) for a in (45, 35, 20, 5)]
    assert np.all(np.diff([r.precision for r in results]) < 0)
    assert np.all(np.diff([r.recall for r in results]) < 0)


def test_a_random_flag_is_worth_one_half():
    y = flags_of([(500, 501)], 1001)
    worth = [affiliation(y, flags_of([(a, a + 1)], 1001)).precision for a in range(0, 1001, 7)]
    assert np.mean(worth) == pytest.approx(0.5, abs=0.01)


def test_recall_is_zero_only_where_a_zone_is_empty():
    y = flags_of([(10, 20), (80, 90)], 100)
    result = affiliation(y, flags_of([(12, 14)], 100))
    assert result.recall_by_event[1] == 0
    assert np.isnan(result.precision_by_event[1])
    assert result.precision == 1.0
    assert 0 < result.recall < 0.5


def test_a_flag_over_the_border_counts_in_both_zones():
    y = flags_of([(0, 1), (10, 11)], 11)
    result = affiliation(y, flags_of([(4, 7)], 11))  # the border is at 5.5
    assert result.precision_by_event[0] == pytest.approx(result.precision_by_event[1])
    assert result.recall_by_event[0] == pytest.approx(result.recall_by_event[1])


def test_a_flag_that_ends_at_the_border_stays_in_its_zone():
    y = flags_of([(0, 1), (9, 10)], 10)  # the border is at 5
    result = affiliation(y, flags_of([(3, 5)], 10))
    assert result.recall_by_event[1] == 0
    assert np.isnan(result.precision_by_event[1])


def test_no_flags_give_zero():
    result = affiliation([0, 1, 0], [0, 0, 0])
    assert (result.precision, result.recall, result.f1) == (0.0, 0.0, 0.0)
