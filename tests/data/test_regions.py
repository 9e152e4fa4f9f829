"""Regions are exactly the 8-connected pieces of what lies above the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genad.data.regions import regions
from genad.errors import InputError

MAPS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.integers(0, 6).map(float),
)


@given(MAPS, st.integers(0, 6))
@settings(max_examples=80, deadline=None)
def test_regions_cover_what_is_above_the_threshold_once(values, threshold):
    found = regions(values, threshold)
    above = values > threshold
    assert sum(region.area for region in found) == above.sum()
    assert sum(region.area * region.mean for region in found) == pytest.approx(values[above].sum())
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    covered = np.zeros_like(above)
    for region in found:
        top, left, bottom, right = region.box
        inside = values[top:bottom, left:right]
        covered[top:bottom, left:right] |= inside > threshold
        assert threshold < region.mean <= region.score <= inside.max()
        assert 1 <= region.area <= (bottom - top) * (right - left)
        assert top <= region.centroid[0] <= bottom - 1
        assert left <= region.centroid[1] <= right - 1
        # The box is tight: its outermost rows and columns hold a pixel of the region's own.
        assert (inside[0] > threshold).any()
        assert (inside[:, -1] > threshold).any()
    np.testing.assert_array_equal(covered, above)


@given(MAPS, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_min_area_only_leaves_out(values, least):
    everything = regions(values, 2)
    assert regions(values, 2, least) == [region for region in everything if region.area >= least]


def test_a_mirrored_map_has_mirrored_regions():
    values = np.random.default_rng(0).random((12, 17))
    there, back = regions(values, 0.7), regions(values[:, ::-1], 0.7)
    assert [(r.area, r.score) for r in there] == [(r.area, r.score) for r in back]
    for a, b in zip(there, back, strict=True):
        assert b.box == (a.box[0], 17 - a.box[3], a.box[2], 17 - a.box[1])
        assert b.centroid == pytest.approx((a.centroid[0], 16 - a.centroid[1]))


def test_corners_touch_and_gaps_do_not():
    assert [r.area for r in regions(np.eye(5), 0.5)] == [5]
    assert len(regions([[1, 0, 1]], 0.5)) == 2


def test_equal_and_missing_values_are_outside():
    assert regions(np.full((3, 3), 2.0), 2.0) == []
    assert [r.area for r in regions([[np.nan, 5.0, np.nan]], 0)] == [1]


def test_infinite_scores_come_first():
    found = regions([[np.inf, 0, 9.0]], 1)
    assert [r.score for r in found] == [np.inf, 9.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regions(np.zeros((1, 2, 2)), 0), r"map: float64 values of shape \(1, 2, 2\)"),
        (lambda: regions([["a"]], 0), "map: <U1 values"),
        (lambda: regions([[1]], float("nan")), "threshold: NaN"),
        (lambda: regions([[1]], 0, 0), "min_area: 0 was given"),
        (lambda: regions([[1]], 0, True), "min_area: True was given"),
    ],
)
def test_messages(call, message):
    with pytest.raises(InputError, match=message):
        call()
