"""VUS against plain loops written from the definition, and against AUROC and AP."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genad.errors import InputError, InputTypeError
from genad.metrics import auroc, average_precision, volume_under_surface, vus_pr, vus_roc

quick = settings(deadline=None, max_examples=50, derandomize=True)
rows = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=30)


def split(pairs):
    y = np.array([row[0] for row in pairs], dtype=int)
    s = np.array([row[1] for row in pairs], dtype=float)
    assume(0 < y.sum() < y.size)
    return y, s


def events_of(y):
    edges = np.flatnonzero(np.diff(np.r_[0, y, 0]))
    return [list(range(a, b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def naive(y, s, longest, n_thresholds):
    """One loop for each buffer length and threshold, as the definition reads."""
    n, positives = len(y), int(y.sum())
    ranked = sorted(s, reverse=True)
    thresholds = [ranked[int(r)] for r in np.linspace(0, n - 1, n_thresholds)]
    rocs, prs = [], []
    for length in range(longest + 1):
        half = length // 2
        soft = y.astype(float)
        groups = []
        for event in events_of(y):
            for d in range(1, half + 1):
                for i in (event[0] - d, event[-1] + d):
                    if 0 <= i < n:
                        soft[i] += np.sqrt(1 - d / length)
            reach = set(range(event[0] - half, event[-1] + half + 1))
            if groups and groups[-1] & reach:
                groups[-1] |= reach
            else:
                groups.append(reach)
        soft = np.minimum(soft, 1)
        tprs, fprs, pr, last = [0.0], [0.0], 0.0, 0.0
        for t in thresholds:
            flags = s >= t
            hits = float(soft[flags].sum())
            buffered = float(soft[flags & (y == 0)].sum())
            soft_positives = (positives + positives + buffered) / 2
            found = sum(any(0 <= i < n and flags[i] for i in group) for group in groups)
            tpr = min(hits / soft_positives, 1) * found / len(groups)
            tprs.append(tpr)
            fprs.append((flags.sum() - hits) / (n - soft_positives))
            pr += (tpr - last) * hits / flags.sum()
            last = tpr
        tprs.append(1.0)
        fprs.append(1.0)
        rocs.append(sum((fprs[i + 1] - fprs[i]) * (tprs[i + 1] + tprs[i]) / 2 for i in range(len(tprs) - 1)))
        prs.append(pr)
    return np.array(rocs), np.array(prs)


@quick
@given(pairs=rows, longest=st.integers(0, 13), n_thresholds=st.sampled_from([2, 5, 40]))
def test_follows_the_definition(pairs, longest, n_thresholds):
    y, s = split(pairs)
    roc, pr = naive(y, s, longest, n_thresholds)
    result = volume_under_surface(y, s, max_buffer=longest, n_thresholds=n_thresholds)
    np.testing.assert_allclose(result.roc_by_buffer, roc, atol=1e-12)
    np.testing.assert_allclose(result.pr_by_buffer, pr, atol=1e-12)
    assert result.roc == pytest.approx(roc.mean())
    assert result.pr == pytest.approx(pr.mean())


def test_follows_the_definition_on_a_longer_series():
    rng = np.random.default_rng(3)
    y = np.zeros(600, int)
    for start in (40, 70, 300, 304, 592):
        y[start : start + 8 if start != 304 else 305] = 1
    s = rng.normal(size=600) + np.convolve(y, np.ones(9) / 4, "same")
    roc, pr = naive(y, s, 41, 50)
    result = volume_under_surface(y, s, max_buffer=41, n_thresholds=50)
    np.testing.assert_allclose(result.roc_by_buffer, roc, atol=1e-12)
    np.testing.assert_allclose(result.pr_by_buffer, pr, atol=1e-12)


@quick
@given(pairs=rows, longest=st.integers(0, 20))
def test_in_unit_interval(pairs, longest):
    y, s = split(pairs)
    result = volume_under_surface(y, s, max_buffer=longest)
    for values in (result.roc_by_buffer, result.pr_by_buffer, [result.roc, result.pr]):
        assert np.all(np.isfinite(values))
        assert np.min(values) >= 0
        assert np.max(values) <= 1


@quick
@given(
    scores=st.lists(st.integers(-5, 5), min_size=3, max_size=40),
    start=st.integers(0, 38),
    length=st.integers(1, 10),
)
def test_one_event_without_buffer_is_auroc_and_ap(scores, start, length):
    y = np.zeros(len(scores), int)
    y[start : start + length] = 1
    assume(0 < y.sum() < y.size)
    result = volume_under_surface(y, scores, max_buffer=0)
    assert result.roc == pytest.approx(auroc(y, scores))
    assert result.pr == pytest.approx(average_precision(y, scores))


@quick
@given(pairs=rows)
def test_existence_can_only_lower_it(pairs):
    y, s = split(pairs)
    assert vus_roc(y, s, max_buffer=0) <= auroc(y, s) + 1e-12


@quick
@given(pairs=rows, longest=st.integers(0, 9))
def test_only_ranks_matter(pairs, longest):
    y, s = split(pairs)
    first = volume_under_surface(y, s, max_buffer=longest)
    second = volume_under_surface(y, np.exp(s) * 3 - 1, max_buffer=longest)
    assert (first.roc, first.pr) == (second.roc, second.pr)


@quick
@given(pairs=rows, longest=st.integers(0, 9))
def test_perfect_scores_give_one(pairs, longest):
    y, s = split(pairs)
    result = volume_under_surface(y, s + 100 * y, max_buffer=longest)
    assert result.roc == pytest.approx(1)
    assert result.pr == pytest.approx(1)


@quick
@given(pairs=rows, longest=st.integers(0, 9))
def test_time_reversed_is_the_same(pairs, longest):
    y, s = split(pairs)
    first = volume_under_surface(y, s, max_buffer=longest)
    second = volume_under_surface(y[::-1], s[::-1], max_buffer=longest)
    assert first.roc == pytest.approx(second.roc)
    assert first.pr == pytest.approx(second.pr)


def test_constant_scores():
    y = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    result = volume_under_surface(y, np.ones(8), max_buffer=2)
    assert result.roc_by_buffer[0] == 0.5
    # one soft step on either side: B = 2 sqrt(1/2), fpr = (6 - B) / (6 - B / 2)
    mass = 2 * np.sqrt(0.5)
    fpr = (6 - mass) / (6 - mass / 2)
    assert result.roc_by_buffer[2] == pytest.approx(1 - fpr / 2)
    assert result.pr_by_buffer[2] == pytest.approx((2 + mass) / 8)


def test_a_near_miss_beats_a_far_miss():
    y = np.zeros(200, int)
    y[100:110] = 1
    near, far = np.zeros(200), np.zeros(200)
    near[93:100] = 1
    far[20:27] = 1
    assert auroc(y, near) == auroc(y, far)
    assert vus_pr(y, near, max_buffer=20) > vus_pr(y, far, max_buffer=20) + 0.1
    assert vus_roc(y, near, max_buffer=20) > vus_roc(y, far, max_buffer=20) + 0.1


def test_a_buffer_longer_than_the_series_is_fine():
    y, s = np.array([0, 1, 0]), np.array([0.0, 2.0, 1.0])
    roc, pr = naive(y, s, 12, 250)
    result = volume_under_surface(y, s, max_buffer=12)
    np.testing.assert_allclose(result.roc_by_buffer, roc)
    np.testing.assert_allclose(result.pr_by_buffer, pr)


def test_a_long_series_is_handled():
    rng = np.random.default_rng(0)
    y = np.zeros(300_000, int)
    for start in rng.integers(0, 299_000, 300):
        y[start : start + 100] = 1
    s = rng.normal(size=y.size) + y
    result = volume_under_surface(y, s, max_buffer=100)
    assert 0.5 < result.roc < 1


@pytest.mark.parametrize(("name", "value", "low"), [("max_buffer", -1, 0), ("n_thresholds", 1, 2)])
def test_numbers_out_of_range(name, value, low):
    with pytest.raises(InputError, match=f"{name} is {value}; a whole number at least {low}"):
        volume_under_surface([0, 1], [0, 1], **{name: value})


@pytest.mark.parametrize("name", ["max_buffer", "n_thresholds"])
def test_numbers_not_whole(name):
    with pytest.raises(InputTypeError, match=rf"{name} is 2\.5 \(float\)"):
        vus_pr([0, 1], [0, 1], **{name: 2.5})
