"""The memory of normal samples: exact distances, and a row that never counts itself."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from genad import Conformal, NearestMemory, load
from genad.errors import InputError


def rows(n=800, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def z(X, like):
    return (X - like.mean(0)) / like.std(0)


@pytest.mark.parametrize("d", [4, 30])  # a tree below, products above
@pytest.mark.parametrize("k", [1, 3])
def test_scores_of_new_rows_are_nearest_neighbour_distances(d, k):
    X, new = rows(d=d), rows(50, d, seed=1)
    memory = NearestMemory(neighbours=k).fit(X)
    expected = NearestNeighbors(n_neighbors=k).fit(z(X, X)).kneighbors(z(new, X))[0].mean(1) / np.sqrt(d)
    np.testing.assert_allclose(memory.anomaly_score(new), expected, rtol=1e-4)


def test_all_training_rows_are_remembered():
    X = rows()
    assert len(NearestMemory().fit(X).net_.bank) == len(X)
    assert len(NearestMemory(size=100).fit(X).net_.bank) == 100


def test_a_remembered_row_does_not_count_itself():
    X = rows()
    memory = NearestMemory().fit(X)
    expected = NearestNeighbors(n_neighbors=2).fit(z(X, X)).kneighbors(z(X, X))[0][:, 1] / 2
    np.testing.assert_allclose(memory.anomaly_score(X), expected, rtol=1e-4)
    # A held-out row passes over itself and one more, so without repeated rows it is judged by leaving one out.
    nearest = np.abs(memory.calibration_scores_[:, None] - expected).min(1)
    np.testing.assert_allclose(nearest, 0, atol=1e-5)


def test_planted_rows_are_found_among_the_rows_of_fit():
    X = rows()
    X[:5] += 12 * np.arange(1, 6)[:, None]
    assert (NearestMemory(threshold=Conformal(0.05)).fit_predict(X)[:5] == -1).all()


def test_p_values_hold_where_rows_repeat():
    rng = np.random.default_rng(0)
    share = []
    for seed in range(20):
        X = rng.integers(0, 6, size=(1000, 2)).astype(float) + (rng.random((1000, 1)) < 0.2) * rng.normal(
            size=(1000, 2)
        )
        memory = NearestMemory(random_state=seed).fit(X[:600])
        share.append((memory.p_value(X[600:]) <= 0.1).mean())
    assert np.mean(share) < 0.12


def test_missing_values_are_left_out_of_the_distance():
    X = rows()
    memory = NearestMemory().fit(X)
    broken = X[:5].copy()
    broken[:, 2] = np.nan
    found = memory.detect(broken)
    assert np.isfinite(found.scores).all()
    assert (found.maps[:, 2] == 0).all()
    # What is known of a remembered row still leads back to it, so the row itself is passed over and its like is close.
    assert (found.scores <= memory.anomaly_score(X[:5]) * 1.2 + 0.2).all()


def test_it_restores_to_a_remembered_row_and_keeps_its_memory_in_the_file(tmp_path):
    X = rows()
    memory = NearestMemory().fit(X)
    restored = memory.restore(rows(10, seed=3))
    distance = NearestNeighbors(n_neighbors=1).fit(X).kneighbors(restored)[0]
    np.testing.assert_allclose(distance, 0, atol=1e-5)
    again = load(memory.save(tmp_path / "m.genad"))
    assert again.anomaly_score(X).tobytes() == memory.anomaly_score(X).tobytes()


def test_unusable_parameters_are_named():
    with pytest.raises(InputError, match="neighbours"):
        NearestMemory(neighbours=0).fit(rows(20))
    with pytest.raises(InputError, match="size"):
        NearestMemory(size=0).fit(rows(20))


@pytest.mark.parametrize(("table", "floor"), [("thyroid", 0.96), ("pendigits", 0.99), ("satellite", 0.85)])
def test_floor_on_real_tables(one_class, table, floor):
    found = []
    for seed in range(3):
        train, test, y = one_class(table, seed)
        found.append(roc_auc_score(y, NearestMemory(random_state=seed).fit(train).anomaly_score(test)))
    assert np.mean(found) > floor
