"""The streamed pixel metrics: exact while they can be, within their stated bound when they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.errors import InputError, InputTypeError
from genad.metrics import PixelMetrics, aupro, pixel_ap, pixel_auroc

quick = settings(deadline=None, max_examples=40, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed, n=6, side=12):
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, side, side), bool)
    for mask in masks[::2]:
        a, b = rng.integers(0, side - 3, 2)
        mask[a : a + 3, b : b + 4] = True
    maps = rng.normal(size=masks.shape) * rng.choice([1e-3, 1.0, 1e4]) + rng.choice([0.0, -3.0, 50.0])
    return maps + masks * maps.std(), masks


def streamed(maps, masks, capacity):
    found = PixelMetrics(capacity)
    for map_, mask in zip(maps, masks, strict=True):
        found.update(map_, mask)
    return found


def exact(maps, masks, limit=0.3):
    return pixel_auroc(maps, masks), pixel_ap(maps, masks), aupro(maps, masks, limit)


def values(figures):
    return figures.auroc, figures.average_precision, figures.aupro


def errors(figures):
    return figures.auroc_error, figures.average_precision_error, figures.aupro_error


@quick
@given(seed=seeds)
def test_exact_while_the_bins_suffice(seed):
    maps, masks = drawn(seed)
    figures = streamed(maps, masks, maps.size).compute()
    assert values(figures) == pytest.approx(exact(maps, masks), abs=1e-12)
    assert errors(figures) == (0.0, 0.0, 0.0)


@quick
@given(seed=seeds, capacity=st.sampled_from([2, 3, 17, 100, 400]), limit=st.sampled_from([0.02, 0.3, 1.0]))
def test_within_the_stated_error_when_they_do_not(seed, capacity, limit):
    maps, masks = drawn(seed)
    counted = streamed(maps, masks, capacity)
    figures = counted.compute(limit)
    for found, true, error in zip(values(figures), exact(maps, masks, limit), errors(figures), strict=True):
        assert 0 <= found <= 1
        assert abs(found - true) <= error + 1e-12
    assert max(errors(figures)) > 0


def test_the_bound_shrinks_with_the_capacity():
    maps, masks = drawn(0, n=40, side=32)
    bounds = np.array([errors(streamed(maps, masks, c).compute()) for c in (16, 256, 4096)])
    assert np.all(np.diff(bounds, axis=0) < 0)
    assert np.all(bounds[-1] < 0.01)


def test_the_bound_can_be_reached():
    # Two bins only: all four values share one, and the worst order is the true one.
    maps, masks = [[1.0, 1.1, 1.2, -1.0]], [[1, 0, 0, 0]]
    counted = PixelMetrics(2).update(maps, masks)
    figures = counted.update([[1.3, -1.2]], [[0, 0]]).compute(1.0)
    true = pixel_auroc([[[*maps[0], 1.3, -1.2]]], [[[*masks[0], 0, 0]]])
    assert abs(figures.auroc - true) == pytest.approx(figures.auroc_error)


@quick
@given(seed=seeds)
def test_neither_order_nor_sharing_out_matters(seed):
    maps, masks = drawn(seed)
    whole = streamed(maps, masks, 50).compute()
    back = streamed(maps[::-1], masks[::-1], 50).compute()
    left, right = streamed(maps[:2], masks[:2], 50), streamed(maps[2:], masks[2:], 50)
    merged = left.merge(right).compute()
    for other in (back, merged):
        assert values(other) == pytest.approx(values(whole), abs=1e-12)
        assert errors(other) == pytest.approx(errors(whole), abs=1e-12)
        assert (other.images, other.regions) == (whole.images, whole.regions)


def test_memory_is_bounded():
    rng = np.random.default_rng(0)
    counted = PixelMetrics(1000)
    for _ in range(20):
        counted.update(rng.normal(size=(40, 40)), rng.random((40, 40)) < 0.1)
        held = counted._keys.size + counted._waiting_pixels
        assert held <= 2000
    assert counted.compute().normal_pixels + counted.compute().defect_pixels == 20 * 1600


def test_single_precision_loses_nothing_when_its_numbers_fit():
    rng = np.random.default_rng(0)
    maps = rng.integers(-40, 40, (4, 30, 30)).astype(np.float32) / np.float32(7)
    masks = rng.random((4, 30, 30)) < 0.2
    figures = streamed(maps, masks, 90).compute()  # 80 distinct values in 3,600 pixels
    assert values(figures) == pytest.approx(exact(maps, masks), abs=1e-12)
    assert errors(figures) == (0.0, 0.0, 0.0)


def test_both_zeros_are_one_value():
    figures = PixelMetrics().update([[0.0, -0.0]], [[1, 0]]).compute()
    assert figures.auroc == 0.5


def test_counts_what_it_saw():
    mask = np.zeros((4, 5), int)
    mask[0, 0] = mask[3, 3:] = 1
    figures = PixelMetrics().update(np.ones((4, 5)), mask).update(np.ones((2, 2)), np.zeros((2, 2))).compute(0.1)
    assert (figures.images, figures.regions, figures.defect_pixels, figures.normal_pixels) == (2, 2, 3, 21)
    assert figures.fpr_limit == 0.1


def test_counting_goes_on_after_the_figures_were_read():
    maps, masks = drawn(3)
    counted = streamed(maps[:3], masks[:3], 60)
    counted.compute()
    for map_, mask in zip(maps[3:], masks[3:], strict=True):
        counted.update(map_, mask)
    assert values(counted.compute()) == pytest.approx(values(streamed(maps, masks, 60).compute()), abs=1e-12)


def test_a_refused_image_is_not_counted():
    counted = PixelMetrics().update([[1.0, 0.0]], [[1, 0]])
    before = counted.compute()
    with pytest.raises(InputError, match=r"map has 1 x 2 pixels but mask has 1 x 3"):
        counted.update([[1.0, 0.0]], [[1, 0, 0]])
    with pytest.raises(InputError, match="map holds nan"):
        counted.update([[np.nan]], [[1]])
    with pytest.raises(InputError, match=r"mask holds 2 at row 0, column 0"):
        counted.update([[1.0]], [[2]])
    with pytest.raises(InputTypeError, match="map holds values of type <U1"):
        counted.update([["a"]], [[1]])
    assert counted.compute() == before


def test_messages():
    with pytest.raises(InputError, match=r"no image was counted; call update"):
        PixelMetrics().compute()
    with pytest.raises(InputError, match="masks holds no defect pixel"):
        PixelMetrics().update([[1.0]], [[0]]).compute()
    with pytest.raises(InputError, match="masks holds no normal pixel"):
        PixelMetrics().update([[1.0]], [[1]]).compute()
    with pytest.raises(InputError, match="fpr_limit is 2"):
        PixelMetrics().update([[1.0, 0.0]], [[1, 0]]).compute(2)
    with pytest.raises(InputError, match="capacity is 1; a whole number at least 2"):
        PixelMetrics(1)
    with pytest.raises(InputTypeError, match=r"capacity is 10\.0 \(float\)"):
        PixelMetrics(10.0)
    with pytest.raises(InputError, match="other has a capacity of 20, not 10"):
        PixelMetrics(10).merge(PixelMetrics(20))
    with pytest.raises(InputTypeError, match="other is a dict; a PixelMetrics"):
        PixelMetrics().merge({})
