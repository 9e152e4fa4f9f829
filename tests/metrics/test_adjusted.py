"""Point adjustment: right, beside the plain figure, and never without a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from genad.errors import MetricWarning
from genad.metrics import f_beta, oracle_best_f1, oracle_point_adjusted_f1, point_adjusted_f1

quick = settings(deadline=None, max_examples=50, derandomize=True)
rows = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=30)


def silent(metric, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)
        return metric(*args)


def split(pairs):
    y = np.array([row[0] for row in pairs], dtype=bool)
    s = np.array([row[1] for row in pairs], dtype=float)
    assume(y.any())
    return y, s


def adjust(y, flags):
    out = np.array(flags, bool)
    i = 0
    while i < len(y):
        j = i
        while j < len(y) and y[j]:
            j += 1
        if j > i and out[i:j].any():
            out[i:j] = True
        i = max(j, i + 1)
    return out


@quick
@given(pairs=rows)
def test_flags_follow_the_definition(pairs):
    y, s = split(pairs)
    flags = s > 0
    result = silent(point_adjusted_f1, y, flags)
    assert result.adjusted_f1 == pytest.approx(f1_score(y, adjust(y, flags), zero_division=0))
    assert result.plain_f1 == pytest.approx(f_beta(y, flags))
    assert result.adjusted_f1 >= result.plain_f1 - 1e-12
    assert result.adjusted_recall >= result.plain_recall
    assert result.adjusted_precision >= result.plain_precision
    assert 0 <= result.random_adjusted_f1 <= 1


@quick
@given(pairs=rows)
def test_oracle_is_the_best_of_every_threshold(pairs):
    y, s = split(pairs)
    best = max(f1_score(y, adjust(y, s >= t), zero_division=0) for t in np.unique(s))
    result = silent(oracle_point_adjusted_f1, y, s)
    assert result.adjusted_f1 == pytest.approx(best)
    at = f1_score(y, adjust(y, s >= result.adjusted_threshold))
    assert at == pytest.approx(best)
    plain = oracle_best_f1(y, s)
    assert (result.plain_f1, result.plain_threshold) == (plain.f1, plain.threshold)
    assert result.plain_f1 - 1e-12 <= result.adjusted_f1 <= 1


def test_flags_always_warn_and_say_why():
    with pytest.warns(MetricWarning, match=r"is 1\.000 where plain F1 is 0\.400.*inflates.*random"):
        point_adjusted_f1([0, 1, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0])


def test_oracle_always_warns_and_points_at_the_caller():
    with pytest.warns(MetricWarning, match="inflates") as caught:
        oracle_point_adjusted_f1([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.2])
    assert caught[0].filename == __file__


def test_a_random_score_does_well():
    rng = np.random.default_rng(0)
    y = np.zeros(20_000, int)
    for start in range(1000, 20_000, 4000):
        y[start : start + 400] = 1
    result = silent(oracle_point_adjusted_f1, y, rng.random(y.size))
    assert result.plain_f1 < 0.2
    assert result.adjusted_f1 > 0.8
    assert result.random_adjusted_f1 == pytest.approx(result.adjusted_f1, abs=0.1)


def test_random_baseline_agrees_with_simulation():
    rng = np.random.default_rng(1)
    y = np.zeros(4000, bool)
    for start in range(100, 4000, 400):
        y[start : start + 30] = True
    flags = np.zeros(4000, bool)
    flags[::50] = True
    simulated = [f1_score(y, adjust(y, rng.random(4000) < flags.mean())) for _ in range(100)]
    expected = silent(point_adjusted_f1, y, flags).random_adjusted_f1
    assert expected == pytest.approx(np.mean(simulated), abs=0.03)


def test_no_flags_give_zero():
    result = silent(point_adjusted_f1, [0, 1, 1], [0, 0, 0])
    assert result.adjusted_f1 == result.plain_f1 == result.random_adjusted_f1 == 0.0
