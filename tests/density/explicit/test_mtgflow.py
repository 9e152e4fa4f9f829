"""MTGFlow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.density.explicit.mtgflow import MTGFlow, MTGFlowNet
from genad.errors import InputError

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of(sensors=3, dropout=0.0):
    torch.manual_seed(0)
    return MTGFlowNet((6, sensors), 8, 0.1, dropout)


def modes(n, seed=0):
    """Three sensors; the last follows the first or the second, by turns of 40 steps."""
    rng = np.random.default_rng(seed)
    one, two = (np.convolve(rng.normal(size=n + 4), np.ones(5) / 5, "valid") for _ in range(2))
    turn = (np.arange(n) // 40) % 2 == 0
    return np.c_[one, two, np.where(turn, one, two) + 0.05 * rng.normal(size=n)]


@pytest.fixture(scope="module")
def fitted():
    return MTGFlow(window=12, random_state=0, training=Training(updates=150, lr=1e-2)).fit(modes(900))


def test_every_window_has_a_graph_of_its_own_by_scaled_products_of_queries_and_keys():
    net = net_of()
    x = torch.randn(4, 6, 3)
    graph = net.graph(x)
    assert graph.shape == (4, 3, 3)
    assert (graph.diagonal(dim1=1, dim2=2) == 0).all()
    torch.testing.assert_close(graph.sum(1), torch.ones(4, 3))
    assert not torch.allclose(graph[0], graph[1])
    torch.testing.assert_close(graph[2:3], net.graph(x[2:3]))
    query, key = net.query(x[0, :, 2]), net.key(x[0, :, :2].T)
    torch.testing.assert_close(graph[0, :2, 2], (key @ query / 6**0.5).softmax(0))


def test_attention_is_dropped_in_training_alone():
    net = net_of(sensors=6, dropout=0.5)
    x = torch.randn(1, 6, 6)
    off = ~torch.eye(6, dtype=torch.bool)
    assert (net.train().graph(x)[0][off] == 0).any()
    assert (net.eval().graph(x)[0][off] > 0).all()


def test_loss_is_the_mean_negative_log_density_alone_and_everything_learns():
    net, detector = net_of().eval(), MTGFlow()
    x = torch.randn(5, 6, 3)
    nll = net.nll(x, net.condition(x, net.graph(x)))
    loss = detector.loss(net, Batch(x))
    torch.testing.assert_close(loss, nll.mean())
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), nll.mean((1, 2)))
    torch.testing.assert_close(detector.error_map(net, Batch(x)), nll - net.lowest)
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_mean_of_its_own_shifts_the_density_of_its_sensor_alone():
    net, x = net_of(), torch.randn(2, 6, 3)
    condition = net.condition(x, net.graph(x))
    before = net.nll(x, condition), net.expected(condition)
    with torch.no_grad():
        net.base[1] += 1.0
    after = net.nll(x, condition), net.expected(condition)
    for old, new, least in (*zip(before, after, (1e-3, 0.1), strict=True),):
        moved = (new - old).abs()
        assert (moved[..., [0, 2]] == 0).all()
        assert moved[..., 1].min() >= 0
        assert moved[..., 1].max() > least


def test_missing_values_do_not_count():
    net, detector = net_of().eval(), MTGFlow()
    x = torch.randn(4, 6, 3)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 2:4, 1] = False
    gap = torch.where(mask, x, 0.0)
    nll = net.nll(gap, net.condition(gap, net.graph(gap)))
    torch.testing.assert_close(detector.score_batch(net, Batch(gap, mask)), (nll * mask).sum((1, 2)) / 16)
    assert (detector.error_map(net, Batch(gap, mask))[~mask] == 0).all()


def test_means_are_learnt(fitted):
    assert (fitted.net_.base != 0).all()


def test_a_relation_of_neither_mode_is_found_though_every_value_is_usual(fitted):
    fresh = modes(900, seed=1)
    broken = fresh.copy()
    broken[402:436, 2] = fresh[700:734, 2]
    inside = np.zeros(900, bool)
    inside[402:436] = True
    judged = inside | (np.abs(np.arange(900) - 419) > 35)
    found = fitted.detect(broken)
    assert roc_auc_score(inside[judged], found.scores[judged]) > 0.9
    assert found.maps[404:434].sum(0).argmax() == 2


def test_answers_survive_saving(fitted, tmp_path):
    fresh = modes(200, seed=3)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(fitted.anomaly_score(fresh), again.anomaly_score(fresh))


def test_one_sensor_is_told_nothing_and_judged_by_its_own_past():
    net = net_of(sensors=1)
    assert (net.graph(torch.randn(3, 6, 1)) == 0).all()
    series = np.sin(np.arange(400) / 5)
    detector = MTGFlow(window=8, training=Training(updates=60, lr=1e-2)).fit(series)
    series[200] += 5
    scores = detector.anomaly_score(series)
    assert scores[200] > np.quantile(scores, 0.98)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"hidden": 0}, "hidden: 0"),
        ({"min_std": 0.0}, "min_std: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        MTGFlow(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = MTGFlow(training=Training(updates=60, lr=1e-2)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.75
