"""AUPRO: known answers by hand, every threshold by brute force, and what must never change it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genad.errors import InputError, InputTypeError
from genad.metrics import aupro

quick = settings(deadline=None, max_examples=80, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
limits = st.sampled_from([0.01, 0.05, 0.3, 0.5, 1.0])


def regions_of(mask):
    """Find the 8-connected regions by flooding, one list of pixels a region."""
    left, found = {tuple(p) for p in np.argwhere(mask).tolist()}, []
    while left:
        front, region = [left.pop()], []
        while front:
            r, c = front.pop()
            region.append((r, c))
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            front.extend(near)
        found.append(region)
    return found


def brute_force(maps, masks, limit):
    """Follow the definition: threshold by threshold, region by region, then a polygon cut at the limit."""
    points = [(0.0, 0.0)]
    for t in sorted({v for m in maps for v in m.ravel().tolist()}, reverse=True):
        overlaps, flagged, normal = [], 0, 0
        for m, k in zip(maps, masks, strict=True):
            overlaps += [np.mean([m[p] >= t for p in region]) for region in regions_of(k)]
            flagged += int((m[~k] >= t).sum())
            normal += int((~k).sum())
        points.append((flagged / normal, float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 <= x0 or x0 >= limit:
            continue
        end = min(x1, limit)
        y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def drawn(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8, (int(rng.integers(1, 4)), 2))
    masks = [rng.random(size) < rng.choice([0.15, 0.4, 0.7]) for size in sizes]
    levels = int(rng.choice([1, 3, 50]))
    maps = [rng.integers(0, levels, size) + k * (levels // 3) for k, size in zip(masks, sizes, strict=True)]
    flat = np.concatenate([m.ravel() for m in masks])
    assume(0 < flat.sum() < flat.size)
    return [m.astype(float) for m in maps], masks


@quick
@given(seed=seeds, limit=limits)
def test_agrees_with_the_definition(seed, limit):
    maps, masks = drawn(seed)
    found = aupro(maps, masks, limit)
    assert found == pytest.approx(brute_force(maps, masks, limit), abs=1e-12)
    assert 0 <= found <= 1


@quick
@given(seed=seeds, limit=limits)
def test_perfect_maps_give_one_and_inverted_ones_nothing_early(seed, limit):
    _, masks = drawn(seed)
    rng = np.random.default_rng(seed)
    noise = [rng.random(k.shape) for k in masks]
    assert aupro([n + 2 * k for n, k in zip(noise, masks, strict=True)], masks, limit) == 1.0
    inverted = aupro([n - 2 * k for n, k in zip(noise, masks, strict=True)], masks, limit)
    assert inverted == pytest.approx(0.0, abs=1e-12)


@quick
@given(seed=seeds, limit=limits)
def test_only_the_order_of_values_matters(seed, limit):
    maps, masks = drawn(seed)
    found = aupro(maps, masks, limit)
    for change in (np.exp, lambda v: v**3 - 7, lambda v: 1e6 * v):
        assert aupro([change(m / 10) for m in maps], masks, limit) == found


@quick
@given(seed=seeds)
def test_order_and_orientation_of_images_do_not_matter(seed):
    maps, masks = drawn(seed)
    found = aupro(maps, masks)
    assert aupro(maps[::-1], masks[::-1]) == pytest.approx(found, abs=1e-12)
    assert aupro([m.T for m in maps], [k.T for k in masks]) == pytest.approx(found, abs=1e-12)
    assert aupro([m[::-1] for m in maps], [k[::-1] for k in masks]) == pytest.approx(found, abs=1e-12)


def test_a_constant_map_rises_straight():
    # Ties are one step from (0, 0) to (1, 1), so the area up to the limit is half of the limit.
    mask = np.zeros((6, 6), bool)
    mask[2:4, 2:4] = True
    for limit in (0.1, 0.3, 1.0):
        assert aupro(np.full((6, 6), 3.0), mask, limit) == pytest.approx(limit / 2)


def test_the_limit_is_met_by_interpolation():
    # Ten normal pixels; one is flagged with half of the defect, then three more with the other half.
    values, truth = np.zeros((1, 12)), np.zeros((1, 12), bool)
    truth[0, :2] = True
    values[0, [0, 2]] = 9
    values[0, [1, 3, 4, 5]] = 5
    # (0, 0), (0.1, 0.5), (0.4, 1): at 0.3 the line has risen to 0.5 + 0.5 * 2 / 3
    expected = (0.1 * 0.25 + 0.2 * (0.5 + 0.5 + 0.5 * 2 / 3) / 2) / 0.3
    assert aupro(values, truth, 0.3) == pytest.approx(expected)
    assert aupro(values, truth, 0.05) == pytest.approx(0.125)


def test_small_and_large_defects_count_alike():
    mask = np.zeros((20, 20), bool)
    mask[2:10, 2:10] = True
    mask[15, 15] = True
    large, small = np.where(np.arange(400).reshape(20, 20) // 20 < 12, mask, 0), np.zeros((20, 20))
    small[15, 15] = 1.0
    # Each finds one of two regions at once; the other comes with all the normal pixels.
    assert aupro(large, mask) == pytest.approx(aupro(small, mask)) == pytest.approx(0.5 + 0.5 * 0.15)


def test_pixels_that_touch_at_a_corner_are_one_defect():
    joined, apart = np.zeros((5, 5), bool), np.zeros((5, 5), bool)
    joined[[0, 1, 1], [0, 1, 2]] = True  # one of three pixels
    apart[[0, 1, 1], [0, 2, 3]] = True  # one of one, one of two
    values = np.zeros((5, 5))
    values[0, 0] = 1.0
    assert aupro(values, joined, 1.0) == pytest.approx(1 / 3 + 2 / 3 / 2)
    assert aupro(values, apart, 1.0) == pytest.approx(1 / 2 + 1 / 2 / 2)


def test_a_normal_image_adds_false_positives_and_no_region():
    mask = np.zeros((2, 2), bool)
    mask[0, 0] = True
    values = np.array([[1.0, 0.0], [0.0, 0.0]])
    alarmed = np.full((2, 2), 2.0)
    assert aupro([values], [mask]) == 1.0
    assert aupro([values, alarmed], [mask, np.zeros((2, 2))]) == pytest.approx(
        0.0, abs=1e-12
    )  # 4 of 7 normal pixels come first


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, float("nan")])
def test_limits_out_of_range_are_refused(limit):
    with pytest.raises(InputError, match=r"fpr_limit is .*; a number above 0 and at most 1"):
        aupro([[1.0, 0.0]], [[1, 0]], limit)


@pytest.mark.parametrize("limit", ["0.3", None, True])
def test_limits_that_are_no_numbers_are_refused(limit):
    with pytest.raises(InputTypeError, match=r"fpr_limit is .* a number above 0"):
        aupro([[1.0, 0.0]], [[1, 0]], limit)
