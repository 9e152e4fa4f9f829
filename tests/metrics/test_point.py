"""Point metrics against scikit-learn, brute force and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from genad.errors import InputError, InputTypeError
from genad.metrics import (
    auroc,
    average_precision,
    f_beta,
    oracle_best_f1,
    precision,
    precision_at_k,
    recall,
    recall_at_false_alarm_rate,
)

quick = settings(deadline=None, max_examples=50, derandomize=True)
# Few distinct integers: ties are the hard case, and powers of them are exact.
pairs = st.lists(st.tuples(st.booleans(), st.integers(-6, 6)), min_size=2, max_size=40)
FUNCTIONS = {
    "auroc": auroc,
    "average_precision": average_precision,
    "oracle_best_f1": lambda y, s: oracle_best_f1(y, s).f1,
    "oracle_best_f2": lambda y, s: oracle_best_f1(y, s, beta=2).f1,
    "precision_at_k": precision_at_k,
    "recall_at_false_alarm_rate": lambda y, s: recall_at_false_alarm_rate(y, s, 0.2),
}
every = pytest.mark.parametrize("metric", FUNCTIONS.values(), ids=FUNCTIONS)


def split(rows):
    y = np.array([row[0] for row in rows], dtype=int)
    s = np.array([row[1] for row in rows], dtype=float)
    assume(0 < y.sum() < y.size)
    return y, s


@every
@quick
@given(rows=pairs)
def test_in_unit_interval(metric, rows):
    assert 0 <= metric(*split(rows)) <= 1


@every
@quick
@given(rows=pairs)
def test_only_ranks_matter(metric, rows):
    y, s = split(rows)
    assert metric(y, s) == metric(y, 3 * s**3 + 7) == metric(y, np.exp(s))


@every
@quick
@given(rows=pairs, seed=st.integers(0, 1000))
def test_row_order_does_not_matter(metric, rows, seed):
    y, s = split(rows)
    order = np.random.default_rng(seed).permutation(y.size)
    assert metric(y[order], s[order]) == pytest.approx(metric(y, s), abs=1e-12)


@every
@quick
@given(rows=pairs)
def test_perfect_scores_give_one(metric, rows):
    y, s = split(rows)
    assert metric(y, s + 100 * y) == 1.0


def test_constant_scores_are_chance():
    y, s = np.array([0, 1, 0, 0]), np.zeros(4)
    assert auroc(y, s) == 0.5
    assert average_precision(y, s) == 0.25
    assert precision_at_k(y, s) == 0.25
    assert recall_at_false_alarm_rate(y, s, 0.5) == 0.0
    assert oracle_best_f1(y, s).f1 == pytest.approx(2 * 0.25 / 1.25)


@quick
@given(rows=pairs)
def test_reversed_scores_mirror_auroc(rows):
    y, s = split(rows)
    assert auroc(y, -s) == pytest.approx(1 - auroc(y, s))


@quick
@given(rows=pairs)
def test_auroc_is_a_probability_of_pairs(rows):
    y, s = split(rows)
    high, low = s[y == 1][:, None], s[y == 0][None, :]
    assert auroc(y, s) == pytest.approx(np.mean((high > low) + 0.5 * (high == low)))


@quick
@given(rows=pairs, beta=st.sampled_from([0.5, 1.0, 2.0]))
def test_oracle_is_the_best_of_every_threshold(rows, beta):
    y, s = split(rows)
    tried = {t: sk.fbeta_score(y, s >= t, beta=beta) for t in np.unique(s)}
    result = oracle_best_f1(y, s, beta=beta)
    assert result.f1 == pytest.approx(max(tried.values()), abs=1e-12)
    flags = s >= result.threshold
    assert f_beta(y, flags, beta=beta) == pytest.approx(result.f1, abs=1e-12)
    assert precision(y, flags) == pytest.approx(result.precision)
    assert recall(y, flags) == pytest.approx(result.recall)
    # the highest of the thresholds that are as good
    assert all(f < result.f1 + 1e-9 for t, f in tried.items() if t > result.threshold)


def test_oracle_cannot_part_ties():
    result = oracle_best_f1([1, 0, 0, 0], [1.0, 1.0, 1.0, 0.0])
    assert result.precision == pytest.approx(1 / 3)
    assert result.f1 == pytest.approx(0.5)


@quick
@given(rows=pairs, k=st.integers(1, 40))
def test_precision_at_k_is_the_mean_over_orders_of_ties(rows, k):
    y, s = split(rows)
    k = min(k, y.size)
    rng = np.random.default_rng(0)
    tops = []
    for _ in range(400):
        order = np.lexsort((rng.random(y.size), -s))[:k]
        tops.append(y[order].mean())
    assert precision_at_k(y, s, k) == pytest.approx(np.mean(tops), abs=0.12)


def test_precision_at_k_known_answers():
    y, s = [1, 0, 1, 0, 0], [5, 4, 3, 3, 1]
    assert precision_at_k(y, s, 1) == 1.0
    assert precision_at_k(y, s, 2) == 0.5
    assert precision_at_k(y, s, 3) == pytest.approx((1 + 0.5) / 3)
    assert precision_at_k(y, s, 4) == 0.5
    assert precision_at_k(y, s, 5) == pytest.approx(0.4)
    assert precision_at_k(y, s) == 0.5


@quick
@given(rows=pairs, rate=st.floats(0, 1))
def test_recall_at_rate_is_the_best_admitted(rows, rate):
    y, s = split(rows)
    best = 0.0
    for t in np.unique(s):
        if np.mean(s[y == 0] >= t) <= rate:
            best = max(best, float(np.mean(s[y == 1] >= t)))
    assert recall_at_false_alarm_rate(y, s, rate) == pytest.approx(best)


@quick
@given(rows=pairs)
def test_decisions_agree_with_counts(rows):
    y, s = split(rows)
    flags = s > 0
    tp = int(np.sum(flags & (y == 1)))
    assert recall(y, flags) == pytest.approx(tp / y.sum())
    assert precision(y, flags) == pytest.approx(tp / flags.sum() if flags.any() else 0.0)
    assert f_beta(y, flags) == pytest.approx(2 * tp / (y.sum() + flags.sum()))


def test_no_flags_give_zero_without_a_warning():
    y, flags = [0, 1, 1], [0, 0, 0]
    assert (precision(y, flags), recall(y, flags), f_beta(y, flags)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_k_out_of_range(k):
    with pytest.raises(InputError, match=f"k is {k}; a whole number from 1 to 3"):
        precision_at_k([0, 1, 0], [1, 2, 3], k)


@pytest.mark.parametrize("k", [1.5, True, "2"])
def test_k_not_whole(k):
    with pytest.raises(InputTypeError, match=r"k is .* a whole number is needed"):
        precision_at_k([0, 1, 0], [1, 2, 3], k)


@pytest.mark.parametrize("beta", [0, -1, np.nan, np.inf])
@pytest.mark.parametrize("metric", [oracle_best_f1, f_beta])
def test_beta_out_of_range(metric, beta):
    with pytest.raises(InputError, match=r"beta is .* a finite number above 0"):
        metric([0, 1], [0, 1], beta=beta)


@pytest.mark.parametrize("rate", [-0.1, 1.1, np.nan])
def test_rate_out_of_range(rate):
    with pytest.raises(InputError, match=r"rate is .* a share from 0 to 1"):
        recall_at_false_alarm_rate([0, 1], [0, 1], rate)
