"""Values predicted from the others by the nearest normal samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Conformal, NearestMemory, NeighbourRegression
from genad.data.samples import Batch
from genad.errors import InputError


def kernel_regression(memory, row, h):
    """Predict each value of a row from its others, by all of the memory, one value at a time."""
    found = []
    for j in range(len(row)):
        others = np.delete(np.arange(len(row)), j)
        square = ((memory[:, others] - row[others]) ** 2).mean(1)
        weights = np.exp(-(square - square.min()) / (2 * h**2))
        found.append((weights * memory[:, j]).sum() / weights.sum())
    return np.array(found)


def fitted(rows, **settings):
    detector = NeighbourRegression(**settings)
    detector._check_parameters()
    net = detector.build(rows.shape[1:])
    net.bank.put(torch.from_numpy(rows))
    return detector, net


@pytest.mark.parametrize("d", [3, 20])
def test_every_value_is_predicted_without_itself(d):
    rng = np.random.default_rng(0)
    memory = rng.normal(size=(50, d)).astype(np.float32)
    queries = rng.normal(size=(7, d)).astype(np.float32)
    detector, net = fitted(memory, neighbours=50, bandwidth=0.7)
    out = detector.infer(net, Batch(torch.from_numpy(queries)), frozenset({"map", "restored"}))
    expected = np.stack([kernel_regression(memory, row, 0.7) for row in queries])
    np.testing.assert_allclose(out.restored, expected, rtol=1e-4, atol=1e-5)
    residual = queries - expected
    np.testing.assert_allclose(out.map, residual**2, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(out.score, (residual**4).mean(1) ** 0.25, rtol=1e-4)


def test_missing_values_choose_no_neighbours_and_are_filled_by_them():
    rng = np.random.default_rng(0)
    memory = np.repeat(rng.normal(size=(200, 1)), 3, axis=1).astype(np.float32)
    detector, net = fitted(memory, neighbours=200, bandwidth=0.1)
    x = torch.tensor([[1.0, 0.0, 1.0]])
    out = detector.infer(net, Batch(x, torch.tensor([[True, False, True]])), frozenset({"map", "restored"}))
    assert abs(float(out.restored[0, 1]) - 1) < 0.1
    assert float(out.map[0, 1]) == 0
    assert float(out.score) < 0.1


def test_a_missing_value_is_predicted_from_all_that_are_observed():
    rng = np.random.default_rng(0)
    memory = rng.normal(size=(50, 4)).astype(np.float32)
    x = rng.normal(size=4).astype(np.float32)
    detector, net = fitted(memory, neighbours=50, bandwidth=0.7)
    batch = Batch(torch.from_numpy(x)[None] * torch.tensor([1.0, 1, 1, 0]), torch.tensor([[True, True, True, False]]))
    restored = detector.infer(net, batch, frozenset({"restored"})).restored[0]
    # The observed ones from the two others, the missing one from all three.
    np.testing.assert_allclose(restored[:3], kernel_regression(memory[:, :3], x[:3], 0.7), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(restored[3], kernel_regression(memory, x, 0.7)[3], rtol=1e-4, atol=1e-5)


def test_one_wrong_value_stands_alone():
    """The wrong value has the largest residual, and what it should be is restored."""
    rng = np.random.default_rng(0)
    signs = np.array([1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0])
    X = rng.normal(size=(1500, 1)) * signs + 0.05 * rng.normal(size=(1500, 10))
    detector = NeighbourRegression(threshold=Conformal(0.05)).fit(X)
    wrong = signs[None].copy()
    wrong[0, 3] = -1.0
    assert int(detector.anomaly_map(wrong)[0].argmax()) == 3
    assert abs(detector.restore(wrong)[0, 3] - 1) < 0.3
    assert detector.predict(wrong).tolist() == [-1]


def test_memory_does_not_judge_itself():
    X = np.random.default_rng(0).normal(size=(600, 3))
    detector = NeighbourRegression(neighbours=1).fit(X)
    nearest = NearestMemory().fit(X)
    assert (detector.anomaly_score(X) > 0).all()
    np.testing.assert_array_equal(detector.nearest(X[:9], k=1).units, nearest.nearest(X[:9], k=1).units)


def test_bad_settings_are_named():
    X = np.random.default_rng(0).normal(size=(300, 3))
    for name in ("bandwidth", "neighbours", "size"):
        with pytest.raises(InputError, match=name):
            NeighbourRegression(**{name: 0}).fit(X)


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
@pytest.mark.parametrize(("table", "floor"), [("cardio", 0.93), ("thyroid", 0.95), ("wine", 0.9)])
def test_floor_on_real_tables(one_class, table, floor):
    found = []
    for seed in range(3):
        train, test, y = one_class(table, seed)
        found.append(roc_auc_score(y, NeighbourRegression(random_state=seed).fit(train).anomaly_score(test)))
    assert np.mean(found) > floor
