"""Banks of segments, and dynamic time warping between them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.representation.series.segments import (
    as_bank,
    from_bank,
    labelled_runs,
    nearest_segments,
    normal_segments,
    resampled,
    warped_distances,
)


def slow_warping(one, two, band):
    """Return the distance by the textbook recursion, cell by cell."""
    m = len(one)
    table = np.full((m + 1, m + 1), np.inf)
    table[0, 0] = 0.0
    for i in range(1, m + 1):
        for j in range(1, m + 1):
            if abs(i - j) <= band:
                table[i, j] = abs(one[i - 1] - two[j - 1]) + min(table[i - 1, j - 1], table[i - 1, j], table[i, j - 1])
    return table[m, m]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 5), st.integers(0, 1000))
def test_warping_agrees_with_the_textbook(m, band, seed):
    rng = np.random.default_rng(seed)
    query, others = rng.normal(size=m), rng.normal(size=(4, m))
    expected = [slow_warping(query, other, band) for other in others]
    np.testing.assert_allclose(warped_distances(query, others, band), expected)


def test_a_shifted_pattern_is_nearer_than_another_one():
    t = np.linspace(0, 4 * np.pi, 64)
    distances = warped_distances(np.sin(t), np.stack([np.sin(t + 0.4), np.sin(3 * t), np.sin(t)]))
    assert distances[2] == 0
    assert distances[0] < 0.4 * np.abs(np.sin(t) - np.sin(t + 0.4)).sum()
    assert distances[0] < distances[1]


def test_runs_are_padded_kept_within_the_series_and_cut():
    flags = np.zeros(100, bool)
    flags[[0, 1]] = flags[40:90] = True
    assert labelled_runs(flags, 5, 30) == [(0, 7), (35, 65)]
    assert labelled_runs(np.zeros(5, bool), 5, 30) == []


def test_normal_segments_do_not_overlap_and_are_halved_until_they_fit():
    found = normal_segments([np.arange(100.0), np.arange(30.0)], 160, 64)
    assert found.shape == (1, 80)
    found = normal_segments([np.arange(100.0)], 10, 4)
    assert found[:, 0].tolist() == [0, 30, 60, 90]
    assert (np.diff(found, axis=1) == 1).all()


def test_a_bank_gives_back_what_it_took():
    segments = [np.arange(3.0), np.arange(7.0), np.array([5.0])]
    bank = as_bank(segments)
    assert bank.shape == (3, 7)
    for row, segment in zip(bank, segments, strict=True):
        assert from_bank(row).tolist() == segment.tolist()
    assert as_bank([]).shape == (0, 0)


def test_the_nearest_segments_come_first_whatever_their_length():
    t = np.linspace(0, 2 * np.pi, 50)
    bank = as_bank([np.cos(3 * t), np.sin(np.linspace(0, 2 * np.pi, 90)), np.zeros(20)])
    assert nearest_segments(np.sin(t), bank, 1) == [1]
    assert nearest_segments(np.sin(t), bank, 5)[0] == 1
    assert len(nearest_segments(np.sin(t), bank, 5)) == 3
    assert nearest_segments(np.sin(t), bank, 0) == []
    assert nearest_segments(np.sin(t), as_bank([]), 2) == []


def test_resampling_keeps_the_ends():
    found = resampled(np.array([1.0, 2.0, 5.0]), 5)
    assert found.tolist() == [1.0, 1.5, 2.0, 3.5, 5.0]
