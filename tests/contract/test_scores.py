"""Scores: shape, direction, determinism, and independence of the rows around a row."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad.core.registry import Family
from genad.core.training import Training
from genad.data.kinds import Kind

# A fit that only has to run.
BRIEF = Training(updates=4)


def test_one_finite_score_a_unit(case):
    X = case.normal(seed=1)
    scores = case.fitted.anomaly_score(case.wrap(X))
    assert scores.shape == (len(X),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    # Sessions without a new line may all be as normal as can be.
    assert np.ptp(scores) > 0 or case.kind is Kind.LOG


def test_signs_follow_scikit_learn(case):
    X = case.wrap(case.normal(seed=1))
    detector = case.fitted
    np.testing.assert_array_equal(detector.score_samples(X), -detector.anomaly_score(X))
    decision = detector.decision_function(X)
    labels = detector.predict(X)
    assert labels.shape == decision.shape
    assert set(np.unique(labels)) <= {-1, 1}
    if case.takes_arrays:
        np.testing.assert_array_equal(decision, detector.score_samples(X) - detector.offset_)
    np.testing.assert_array_equal(labels == -1, decision < 0)


def test_gross_anomalies_score_higher(sample_case):
    case = sample_case
    normal, anomalous = case.normal(60, seed=5), case.anomalous(60, seed=6)
    scores = case.trained.anomaly_score(case.wrap(np.concatenate([normal, anomalous])))
    assert roc_auc_score(np.repeat([0, 1], 60), scores) > 0.95


def test_a_gross_stretch_of_a_series_scores_higher(series_case):
    case = series_case
    X = case.normal(seed=5)
    X[120:150] = case.anomalous(400, seed=6)[120:150]
    scores = case.trained.anomaly_score(case.wrap(X))
    inside = np.zeros(len(X), bool)
    inside[120:150] = True
    # Steps that share a window with the stretch are neither normal nor anomalous.
    near = np.zeros(len(X), bool)
    near[80:190] = True
    judged = inside | ~near
    assert roc_auc_score(inside[judged], scores[judged]) > 0.95


def test_the_map_points_at_the_changed_cell(table_case):
    case = table_case
    X = case.normal(60, seed=5)
    X[np.arange(60), 1 + np.arange(60) % 4] += 12 * case.normal(2000).std(0)[1 + np.arange(60) % 4]
    maps = case.trained.anomaly_map(case.wrap(X))
    found = np.argmax(maps, axis=1) == 1 + np.arange(60) % 4
    assert found.mean() > 0.6


def test_the_same_call_gives_the_same_bytes(case):
    X = case.wrap(case.normal(seed=1))
    detector = case.fitted
    assert detector.anomaly_score(X).tobytes() == detector.anomaly_score(X).tobytes()
    one, two = detector.detect(X), detector.detect(X)
    assert one.scores.tobytes() == two.scores.tobytes()
    assert one.maps.tobytes() == two.maps.tobytes()
    assert case.values(one.restored).tobytes() == case.values(two.restored).tobytes()


def test_two_fits_with_one_seed_give_the_same_bytes(refit_case):
    case = refit_case
    X = case.wrap(case.normal(seed=1))
    again = case.fit(case.make(), case.normal())
    assert again.anomaly_score(X).tobytes() == case.fitted.anomaly_score(X).tobytes()
    assert again.p_value(X).tobytes() == case.fitted.p_value(X).tobytes()


def test_a_refit_forgets_the_first_fit(table_case):
    case = table_case
    X = case.wrap(case.normal(seed=1))
    again = case.fit(case.make(), 1000 * case.normal(60, seed=9)[:, :4])
    case.fit(again, case.normal())
    assert again.anomaly_score(X).tobytes() == case.fitted.anomaly_score(X).tobytes()


def test_another_seed_gives_another_model(table_case):
    case = table_case
    if case.cls.card.family in {Family.MEMORY, Family.LINEAR}:
        pytest.skip("it takes in every row of small data, whatever the seed")
    X = case.wrap(case.normal(seed=1))
    params = {key: 1 for key in case.make().get_params() if key.rpartition("__")[2] == "random_state"}
    other = case.fit(case.make(**params), case.normal())
    assert not np.array_equal(other.anomaly_score(X), case.fitted.anomaly_score(X))


def test_nothing_global_is_touched(refit_case):
    case = refit_case
    X = case.wrap(case.normal(seed=1))

    def state():
        name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the legacy state is what must not change
        return (
            torch.get_rng_state().numpy().tobytes(), keys.tobytes(), name, rest, random.getstate(),
            torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip

    before = state()
    detector = case.fit(case.make(BRIEF), case.normal())
    assert state() == before
    detector.detect(X)
    assert state() == before


def test_the_thread_count_of_the_user_is_kept(first_case):
    threads = 2
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first_case.fit(first_case.make(Training(updates=1)), first_case.normal(40))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * float(np.abs(expected).mean()))


@pytest.mark.parametrize("size", [1, 7, 31])
def test_scores_do_not_depend_on_the_size_of_the_call(sample_case, size):
    case = sample_case
    X = np.concatenate([case.anomalous(8, seed=2), case.normal(40, seed=1)])
    whole = case.fitted.anomaly_score(case.wrap(X))
    starts = range(0, len(X), size)[:14]
    parts = np.concatenate([case.fitted.anomaly_score(case.wrap(X[k : k + size])) for k in starts])
    _close(parts, whole[: len(parts)])


def test_scores_do_not_depend_on_the_order_of_rows(sample_case):
    case = sample_case
    X = np.concatenate([case.normal(90, seed=1), case.anomalous(10, seed=2)])
    order = np.random.default_rng(0).permutation(len(X))
    whole = case.fitted.anomaly_score(case.wrap(X))
    _close(case.fitted.anomaly_score(case.wrap(X[order])), whole[order])


def test_scores_do_not_depend_on_the_blocks_inside(table_case):
    case = table_case
    X = case.normal(3000, seed=1)
    whole = case.fitted.anomaly_score(case.wrap(X))
    _close(case.fitted.anomaly_score(case.wrap(X[2040:2060])), whole[2040:2060])


@pytest.mark.parametrize("size", [1, 7, 31])
def test_maps_and_restored_rows_do_not_depend_on_the_call(table_case, size):
    case = table_case
    X = np.concatenate([case.normal(40, seed=1), case.anomalous(8, seed=2)])
    order = np.random.default_rng(0).permutation(len(X))
    maps, restored = case.fitted.anomaly_map(case.wrap(X)), case.values(case.fitted.restore(case.wrap(X)))
    for part in np.array_split(order, np.arange(size, len(X), size))[:14]:
        some = case.wrap(X[part])
        np.testing.assert_allclose(case.fitted.anomaly_map(some), maps[part], rtol=1e-4, atol=1e-5 * float(maps.mean()))
        np.testing.assert_allclose(case.values(case.fitted.restore(some)), restored[part], rtol=1e-5, atol=1e-6)


def test_fit_and_score_leave_the_data_alone(number_case):
    case = number_case
    detector, X = case.gappy
    fresh = case.normal(seed=1)
    fresh.setflags(write=False)
    detector.detect(case.wrap(fresh))
    kept = case.normal()
    kept[case.missing] = np.nan
    np.testing.assert_array_equal(X, kept)
    np.testing.assert_array_equal(fresh, case.normal(seed=1))


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_any_numbers_will_do(refit_number_case, dtype):
    case = refit_number_case
    X, fresh = (case.normal(seed=seed) for seed in (0, 1))
    if case.kind is Kind.TABLE and dtype is np.int64:
        X, fresh = X * [1, 1, 1, 1, 1000], fresh * [1, 1, 1, 1, 1000]
    scores = case.fit(case.make(BRIEF), X.astype(dtype)).anomaly_score(case.wrap(fresh.astype(dtype)))
    assert np.isfinite(scores).all()
    if dtype is np.float32:
        expected = case.brief.anomaly_score(case.wrap(fresh))
        # The same numbers in another type are the same data, up to their rounding.
        assert np.corrcoef(scores, expected)[0, 1] > 0.99
