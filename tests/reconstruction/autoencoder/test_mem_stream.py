from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Conformal, Training
from genad.errors import InputError
from genad.reconstruction.autoencoder.mem_stream import MemStream, RunningMoments

# alpha=0.1 is attainable with few calibration rows
USUAL = {"training": Training(updates=50), "threshold": Conformal(alpha=0.1)}


def stream_of(n, d=3, seed=0, drift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + np.linspace(0, drift, n)[:, None]


def fit(X, **params):
    return MemStream(**({"memory": 32} | USUAL | params)).fit(X)


def by_the_book(detector, X):
    """Score X with plain lists, all moments and distances computed afresh for each row."""
    net = detector.net_
    weight, bias = (p.double().numpy() for p in net.encode[0].parameters())
    codes = list(net.codes.ordered().double().numpy())
    records = list(net.records.ordered().double().numpy())
    beta, size, scores = float(net.beta), net.codes.size, []
    for row in detector._ingest(X, reset=False).samples.stretch(0, len(X)).x.double().numpy():
        mean, std = np.mean(records, 0), np.std(records, 0)
        scaled = np.where(std > 1e-6, (row - mean) / np.where(std > 1e-6, std, 1), 0)
        code = np.tanh(weight @ scaled + bias)
        nearest = np.sort(np.abs(np.array(codes) - code).sum(1))[: detector.neighbours]
        weights = detector.discount ** np.arange(len(nearest))
        scores.append(float(nearest @ weights / weights.sum()))
        if scores[-1] <= beta:
            codes, records = [*codes, code][-size:], [*records, row][-size:]
    return np.array(scores), np.array(codes), np.array(records)


@pytest.mark.filterwarnings("ignore:constant columns")
@pytest.mark.parametrize("params", [{}, {"neighbours": 1}, {"memory": 100}, {"discount": 1.0}])
def test_stream_equals_the_definition(params):
    X = stream_of(400, drift=4.0)
    X[:, 2] = 7.0
    detector = fit(X[:100], **params)
    expected, codes, records = by_the_book(detector, X[100:])
    got = detector.score_update(X[100:])
    np.testing.assert_allclose(got, expected, atol=2e-4)
    np.testing.assert_allclose(detector.net_.codes.ordered().numpy(), codes, atol=2e-4)
    np.testing.assert_allclose(detector.net_.records.ordered().numpy(), records, atol=1e-5)


def test_score_comes_before_the_update_and_repeats_score_zero():
    detector = fit(stream_of(100), neighbours=1, beta=100.0)
    row = np.full((1, 3), 2.5)
    first = float(detector.anomaly_score(row)[0])
    again = detector.score_update(np.repeat(row, 2, axis=0))
    assert again[0] == pytest.approx(first, abs=1e-5)
    # the row is remembered now; only the shift of the normalisation lies between
    assert again[1] < 0.2 * first


def test_only_rows_within_beta_are_remembered():
    detector = fit(stream_of(100), beta=0.5)
    X = np.r_[stream_of(20, seed=1), np.full((5, 3), 8.0)]
    before = int(detector.net_.codes.pushed)
    scores = detector.score_update(X)
    assert int(detector.net_.codes.pushed) - before == (scores <= 0.5).sum()
    assert (scores[-5:] > 0.5).all()
    assert float(detector.net_.records.rows.max()) < 6


def test_beta_defaults_to_the_largest_leave_one_out_distance():
    detector = MemStream(memory=80, neighbours=3, **USUAL).fit(stream_of(100))
    codes = detector.net_
    with torch.no_grad():
        X = detector._ingest(stream_of(100)[:80], reset=False).samples.stretch(0, 80).x
        mean, std = X.double().mean(0), X.double().std(0, correction=0)
        z = codes.encode(((X - mean) / std).float()).numpy()
    apart = np.sort(np.abs(z[:, None] - z).sum(2), axis=1)[:, 1:4]
    weights = np.array([1, 0.5, 0.25]) / 1.75
    assert float(codes.beta) == pytest.approx((apart @ weights).max(), rel=1e-4)
    assert float(fit(stream_of(100), beta=0.25).net_.beta) == 0.25


def test_memory_is_first_in_first_out_and_codes_are_not_computed_again():
    detector = fit(stream_of(100), memory=8, beta=1e9, neighbours=1)
    old = detector.net_.codes.ordered().clone()
    detector.score_update(stream_of(3, seed=1))
    assert torch.equal(detector.net_.codes.ordered()[:5], old[3:])


def test_encoder_is_over_complete_and_frozen_in_the_stream():
    detector = fit(stream_of(100, d=4))
    assert detector.net_.encode[0].weight.shape == (8, 4)
    before = [p.clone() for p in detector.net_.parameters()]
    detector.score_update(stream_of(200, d=4, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(before, detector.net_.parameters(), strict=True))


def test_without_update_nothing_is_remembered():
    detector = fit(stream_of(100), update=False)
    X = stream_of(50, seed=1)
    assert np.array_equal(detector.score_update(X), detector.anomaly_score(X))
    assert np.array_equal(detector.score_update(X), detector.anomaly_score(X))


@pytest.mark.filterwarnings("ignore:constant columns")
def test_a_constant_feature_is_left_out_and_missing_cells_are_neutral():
    X = stream_of(200)
    X[:, 1] = 4.0
    detector = fit(X, beta=0.0)
    other = X[:5].copy()
    other[:, 1] = 99.0
    assert np.array_equal(detector.anomaly_score(X[:5]), detector.anomaly_score(other))
    gap = stream_of(4, seed=2)
    gap[:, 0] = np.nan
    same = gap.copy()
    same[:, 0] = detector.adapter_.columns(detector.net_.records.stored().mean(0)[None].numpy())["x0"]
    np.testing.assert_allclose(detector.score_update(gap), detector.anomaly_score(same), atol=1e-3)


def test_running_moments_do_not_lose_digits():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 2)) + 1e4
    moments = RunningMoments(rows)
    for k in range(500):
        new = rng.normal(size=2) + 1e4 + k
        moments.replace(rows[k % 50].copy(), new)
        rows[k % 50] = new
    mean, inverse = moments.scale()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(inverse, 1 / rows.std(0), rtol=1e-6)


def test_restored_row_is_the_nearest_one_remembered(tmp_path):
    X = stream_of(100)
    detector = fit(X)
    restored = detector.restore(X[:5] + 0.01)
    gaps = np.abs(restored[:, None] - X).max(2).min(1)
    assert gaps.max() < 1e-4
    again = genad.load(detector.save(tmp_path / "m"))
    assert np.array_equal(again.score_update(X), detector.score_update(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"memory": 0}, "memory: 0 was given"),
        ({"memory": 4, "neighbours": 5}, "at most memory=4"),
        ({"neighbours": 0}, "neighbours: 0"),
        ({"discount": 0.0}, "discount: 0.0"),
        ({"beta": -1.0}, "beta: -1.0"),
        ({"noise": -0.1}, "noise: -0.1"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        fit(stream_of(10), **params)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_memory_that_follows_beats_a_fixed_one_where_normal_drifts(seed):
    rng = np.random.default_rng(seed)
    X = stream_of(3000, d=4, seed=seed, drift=15.0)
    y = np.zeros(3000, int)
    y[rng.choice(np.arange(300, 3000), 60, replace=False)] = 1
    X[y == 1] += rng.choice([-4, 4], size=(60, 4))

    def auroc(**params):
        scores = fit(X[:256], memory=128, random_state=seed, **params).score_update(X[256:])
        return roc_auc_score(y[256:], scores)

    assert auroc() > 0.95
    assert auroc(update=False) < 0.8


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "floor"), [("mammography", 0.78), ("ionosphere", 0.9)])
def test_floor_on_real_tables(one_class, name, floor):
    found = []
    for seed in (0, 1):
        train, test, y = one_class(name, seed)
        detector = MemStream(random_state=seed).fit(train[:1280])
        found.append(roc_auc_score(y, detector.anomaly_score(test)))
    assert np.mean(found) > floor
