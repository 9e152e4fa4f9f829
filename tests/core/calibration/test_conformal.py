"""Split-conformal p-values: exact values, exchangeability, and the threshold that equals them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genad.core.calibration import (
    attainable_alpha,
    conformal_p_values,
    conformal_quantile,
    conformal_rank,
    grouped_p_values,
    samples_needed,
)
from genad.errors import InputError, InputTypeError

QUICK = settings(deadline=None, max_examples=50, derandomize=True)
TIED = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=25)


def test_known_values_with_plus_one_and_ties_against() -> None:
    p = conformal_p_values([1.0, 2.0, 2.0, 3.0], [0.0, 2.0, 2.5, 3.0, 4.0])
    np.testing.assert_array_equal(p, np.array([5, 4, 2, 2, 1]) / 5)
    assert p.dtype == np.float64


def test_any_shape_and_infinite_scores() -> None:
    p = conformal_p_values([1, 2, np.inf], [[np.inf, -np.inf], [2, 1]])
    np.testing.assert_array_equal(p, np.array([[2, 4], [3, 4]]) / 4)
    assert conformal_p_values([1.0], []).shape == (0,)


@QUICK
@given(TIED, TIED)
def test_equals_the_definition_and_falls_with_the_score(cal: list[float], new: list[float]) -> None:
    p = conformal_p_values(cal, new)
    slow = [(1 + sum(c >= s for c in cal)) / (len(cal) + 1) for s in new]
    np.testing.assert_array_equal(p, slow)
    assert (np.diff(p[np.argsort(new)]) <= 0).all()
    assert p.min() >= attainable_alpha(len(cal))


def test_p_values_are_uniform_over_calibration_draws() -> None:
    # n = 19: P(p <= k / 20) = k / 20 exactly for continuous scores. 40 000 independent draws give
    # a standard error of at most 0.0025; the band is five of them.
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(40_000, 20))
    p = (1 + (draws[:, :19] >= draws[:, 19:]).sum(axis=1)) / 20
    first = [conformal_p_values(row[:19], row[19:])[0] for row in draws[:300]]
    np.testing.assert_array_equal(first, p[:300])
    for k in range(1, 21):
        assert abs((p <= k / 20).mean() - k / 20) < 0.0125


def test_tied_scores_are_conservative_over_calibration_draws() -> None:
    rng = np.random.default_rng(1)
    p = np.array([conformal_p_values(row[:19], row[19:])[0] for row in rng.integers(0, 4, (4000, 20))])
    for a in (0.05, 0.1, 0.25, 0.5):
        assert (p <= a).mean() <= a + 5 * np.sqrt(a / 4000)


@QUICK
@given(TIED, TIED, st.one_of(st.floats(0.001, 0.999), st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7])))
def test_threshold_is_exactly_the_p_value_rule(cal: list[float], new: list[float], alpha: float) -> None:
    new = [*new, *cal, np.inf, -np.inf]
    flagged = np.asarray(new) > conformal_quantile(cal, alpha)
    np.testing.assert_array_equal(flagged, conformal_p_values(cal, new) <= alpha)


@pytest.mark.parametrize("n", [1, 2, 6, 9, 10, 49, 98, 99, 100, 999])
def test_rank_is_exact_at_every_attainable_level(n: int) -> None:
    levels = np.arange(1, n + 1) / (n + 1)
    assert [conformal_rank(n, a) for a in levels] == list(range(1, n + 1))
    assert conformal_rank(n, float(np.nextafter(levels[0], 0))) == 0
    assert conformal_quantile(range(n), float(np.nextafter(levels[0], 0))) == np.inf


@pytest.mark.parametrize(
    ("alpha", "n"),
    [(0.01, 99), (0.05, 19), (0.1, 9), (0.07, 14), (1 / 3, 2), (0.9, 1), (1e-4, 9999)],
)
def test_samples_needed(alpha: float, n: int) -> None:
    assert samples_needed(alpha) == n
    assert attainable_alpha(n) <= alpha
    assert n == 1 or attainable_alpha(n - 1) > alpha


def test_groups_equal_one_call_per_group() -> None:
    rng = np.random.default_rng(2)
    cal, cg = rng.normal(size=200), rng.choice(["a", "b", "c"], 200)
    new, ng = rng.normal(size=50), rng.choice(["a", "b", "c"], 50)
    p = grouped_p_values(cal, cg, new, ng)
    for g in "abc":
        np.testing.assert_array_equal(p[ng == g], conformal_p_values(cal[cg == g], new[ng == g]))


def test_groups_keep_the_level_where_pooling_does_not() -> None:
    rng = np.random.default_rng(3)
    cg, ng = np.repeat([0, 1], 500), np.repeat([0, 1], 5000)
    cal, new = rng.normal(size=1000) * (1 + 9 * cg), rng.normal(size=10_000) * (1 + 9 * ng)
    own, pooled = grouped_p_values(cal, cg, new, ng), conformal_p_values(cal, new)
    assert (pooled[ng == 1] <= 0.1).mean() > 0.15
    assert abs((own[ng == 1] <= 0.1).mean() - 0.1) < 0.04


def test_unseen_group() -> None:
    with pytest.raises(InputError, match=r"1 group\(s\) without any calibration sample: 'z'"):
        grouped_p_values([1.0], ["a"], [9.0], ["z"])
    p = grouped_p_values([1.0], ["a"], [9.0, 9.0], ["z", "a"], unseen="one")
    assert p.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: conformal_p_values([1.0, np.nan], [1.0]), "calibration_scores must not hold NaN"),
        (lambda: conformal_p_values([1.0], [1.0, np.nan]), "found 1, the first at position 1"),
        (lambda: conformal_p_values([], [1.0]), "calibration_scores is empty"),
        (lambda: conformal_p_values([[1.0]], [1.0]), "one dimension, found shape"),
        (lambda: conformal_quantile([1.0], 0.0), r"alpha must lie in \(0, 1\), found 0"),
        (lambda: conformal_quantile([1.0], 1.0), r"alpha must lie in \(0, 1\), found 1"),
        (lambda: samples_needed(float("nan")), "found nan"),
        (lambda: attainable_alpha(0), "n must be at least 1, found 0"),
        (lambda: grouped_p_values([1.0], ["a", "b"], [1.0], ["a"]), r"shape \(1,\)"),
        (lambda: grouped_p_values([1.0], [np.nan], [1.0], [1.0]), "missing labels, found 1"),
        (
            lambda: grouped_p_values([1.0], np.array([None]), [1.0], ["a"]),
            "calibration_groups must not hold missing",
        ),
        (lambda: grouped_p_values([1.0], ["a"], [1.0], ["a"], unseen="x"), "'raise' or 'one'"),
    ],
)
def test_bad_values_are_named(call, match) -> None:
    with pytest.raises(InputError, match=match):
        call()


def test_bad_types_are_named() -> None:
    with pytest.raises(InputTypeError, match="scores must be real numbers"):
        conformal_p_values([1.0], ["high"])
    with pytest.raises(InputTypeError, match="alpha must be a number"):
        conformal_quantile([1.0], "0.1")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="n must be a whole number"):
        attainable_alpha(1.5)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="mix text and numbers"):
        grouped_p_values([1.0], np.array(["a"], object), [1.0], np.array([1], object))
