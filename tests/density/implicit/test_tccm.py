"""TCCM: the contraction field, its one evaluation, and what bounds its score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from genad import Backbone, Training, create
from genad.data.samples import Batch
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=200)


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).normal(size=(800, 5))


@pytest.fixture(scope="module")
def fitted(normal):
    return create("tccm", training=QUICK).fit(normal)


def test_the_network_is_the_paper_s():
    net = create("tccm").build((6,))
    layers = [layer for layer in net.body if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(134, 256), (256, 256), (256, 6)]
    assert net.time.dim == 128
    assert sum(isinstance(layer, torch.nn.ReLU) for layer in net.body) == 2


def test_the_target_is_minus_x_at_uniform_times():
    detector = create("tccm")
    seen = []

    def field(x, t):
        seen.append((x, t))
        return -x + 2.0

    x = torch.randn(5000, 3)
    torch.manual_seed(0)
    assert detector.loss(field, Batch(x)).item() == pytest.approx(4.0, rel=1e-5)
    given, t = seen[0]
    # The sample itself goes in: nothing is interpolated.
    assert torch.equal(given, x)
    assert t.min() >= 0
    assert t.max() <= 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.02)
    assert t.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_the_score_is_one_evaluation_at_the_end_of_time(fitted, normal):
    net = fitted.net_
    x = torch.from_numpy(normal[:20]).float()
    residual = net(x, torch.ones(20)) + x
    found = fitted.infer(net, Batch(x), frozenset({"map"}))
    assert torch.allclose(found.score, residual.norm(dim=1), rtol=1e-5)
    assert torch.allclose(found.map, residual.square(), rtol=1e-4, atol=1e-9)
    calls = []
    handle = net.register_forward_hook(lambda *_: calls.append(1))
    fitted.infer(net, Batch(x), frozenset())
    handle.remove()
    assert len(calls) == 1


def test_missing_values_leave_the_score_to_the_rest(fitted):
    x = torch.tensor([[1.0, -1.0, 0.5, 0.0, 2.0]])
    mask = torch.tensor([[True, True, True, False, True]])
    residual = fitted.net_(x, torch.ones(1)) + x
    expected = (residual[mask].square().mean() * 5).sqrt()
    assert fitted.score_batch(fitted.net_, Batch(x, mask)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_score_is_not_the_distance_to_the_mean(one_class):
    X, test, _ = one_class("pendigits")
    test = test[::4]
    scores = create("tccm", training=Training(updates=600)).fit(X).anomaly_score(test)
    length = np.linalg.norm((test - X.mean(0)) / X.std(0).clip(1e-9), axis=1)
    assert spearmanr(scores, length).statistic < 0.9


def test_the_bound_holds(fitted, normal):
    bound = fitted.lipschitz_bound()
    x = torch.from_numpy(normal[:200]).float()
    step = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    moved = fitted.score_batch(fitted.net_, Batch(x + step)) - fitted.score_batch(fitted.net_, Batch(x))
    assert (moved.abs() <= bound * step.norm(dim=1)).all()
    assert bound < 1000


def test_the_bound_is_refused_where_it_is_not_known(normal):
    windows = normal[:80].reshape(10, 8, 5)
    detector = create("tccm", training=Training(updates=3)).fit(windows)
    with pytest.raises(InputError, match=r"backbone: .*fully connected"):
        detector.lipschitz_bound()
    detector = create("tccm", backbone=Backbone(activation="silu"), training=Training(updates=3)).fit(normal)
    with pytest.raises(InputError, match="silu"):
        detector.lipschitz_bound()


@pytest.mark.parametrize("shape", [(1,), (12, 2), (1, 12, 12), (4, 1, 8, 8)])
def test_every_shape_works(shape):
    X = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    detector = create("tccm", training=Training(updates=5)).fit(X)
    assert np.isfinite(detector.detect(X).scores).all()
    assert detector.restore(X).shape == X.shape


def test_the_map_names_the_odd_value_and_restoring_takes_it_back(fitted):
    fresh = np.random.default_rng(1).normal(size=(200, 5))
    odd = fresh.copy()
    odd[:, 2] += 10
    assert roc_auc_score(np.repeat([0, 1], 200), fitted.anomaly_score(np.vstack([fresh, odd]))) > 0.95
    assert (fitted.anomaly_map(odd).argmax(1) == 2).mean() > 0.8
    assert np.linalg.norm(fitted.restore(fresh) - fresh, axis=1).mean() < 0.5


@pytest.mark.parametrize(("table", "least"), [("cardio", 0.92), ("thyroid", 0.92)])
def test_floor_on_real_tables(one_class, table, least):
    X, test, y = one_class(table)
    detector = create("tccm", training=Training(updates=500)).fit(X)
    assert roc_auc_score(y, detector.anomaly_score(test)) > least
