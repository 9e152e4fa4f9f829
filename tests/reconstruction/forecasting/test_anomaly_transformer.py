from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.forecasting.anomaly_transformer import AnomalyTransformer, discrepancy

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def ready(**params):
    torch.manual_seed(0)
    detector = AnomalyTransformer(**{"width": 8, "heads": 2, **params})
    return detector, detector.build((6, 3)).eval(), torch.randn(5, 6, 3)


def waves(n=700):
    t = np.arange(n)
    return np.c_[np.sin(t / 5), np.cos(t / 5)]


def test_both_associations_are_distributions_and_the_prior_is_a_gaussian_of_the_learnt_width():
    _, net, x = ready()
    _, associations = net(x)
    assert len(associations) == 2
    for series, prior in associations:
        torch.testing.assert_close(series.sum(-1), torch.ones(5, 2, 6))
        torch.testing.assert_close(prior.sum(-1), torch.ones(5, 2, 6))
    layer = net.layers[0]
    tokens = layer.first(net.embed(x) + net.place)
    sigma = 3 ** (torch.sigmoid(5 * layer.attention.spread(tokens)) + 1e-5) - 1
    t = torch.arange(6.0)
    bell = torch.exp(-0.5 * ((t[:, None] - t) / sigma[0, :, 1:2]) ** 2)
    torch.testing.assert_close(associations[0][1][0, 1], bell / bell.sum(1, keepdim=True))


def test_discrepancy_is_the_symmetric_divergence():
    one, other = torch.rand(2, 3, 4, 4).softmax(-1), torch.rand(2, 3, 4, 4).softmax(-1)
    p, q = one + 1e-4, other + 1e-4
    expected = (one * (p / q).log() + other * (q / p).log()).sum(-1).mean(1)
    torch.testing.assert_close(discrepancy(one, other), expected)
    assert (discrepancy(one, one) == 0).all()


def test_each_side_of_the_game_moves_its_own_association_only():
    detector, net, x = ready(layers=1)
    spread = net.layers[0].attention.spread.weight
    query = net.layers[0].attention.query.weight
    still, _, _ = ready(weight=0.0)
    still.loss(net, Batch(x)).backward()
    assert spread.grad.abs().sum() == 0  # the reconstruction does not hang on the prior
    base = query.grad.clone()
    net.zero_grad()
    detector.loss(net, Batch(x)).backward()
    towards, away = spread.grad.clone(), query.grad - base
    scale = 0.5 * 3.0
    series, prior = net(x)[1][0]
    gap = discrepancy(series, prior).mean()
    by_spread, by_query = torch.autograd.grad(gap, [spread, query])
    # Minimised by the prior, maximised by the attention.
    torch.testing.assert_close(towards, scale * by_spread, atol=1e-6, rtol=1e-4)
    # The prior of a one-layer network hangs on the query nowhere, so what is left is the attention's side.
    torch.testing.assert_close(away, -scale * by_query, atol=1e-6, rtol=1e-4)


def test_score_is_the_error_weighted_within_the_window():
    detector, net, x = ready(temperature=2.0)
    restored, associations = net(x)
    apart = torch.stack([discrepancy(s, p) for s, p in associations]).mean(0)
    error = (restored - x).square()
    expected = 6 * (-2.0 * apart).softmax(1) * error.mean(2)
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), expected)
    torch.testing.assert_close(detector.error_map(net, Batch(x)).mean(2), expected)
    plain, _, _ = ready(temperature=0.0)
    torch.testing.assert_close(plain.score_batch(net, Batch(x)), error.mean(2))


def test_missing_values_take_no_part():
    detector, net, x = ready(temperature=0.0)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 1] = False
    gap = x * mask
    error = (net(gap)[0] - gap).square()[..., [0, 2]].mean(2)
    torch.testing.assert_close(detector.score_batch(net, Batch(gap, mask)), error)
    assert (detector.error_map(net, Batch(gap, mask))[..., 1] == 0).all()


def test_scores_name_step_and_channel_and_survive_saving(tmp_path):
    series = waves()
    training = Training(updates=60, lr=1e-2)
    detector = AnomalyTransformer(window=20, width=16, heads=2, layers=1, training=training).fit(series)
    assert np.square(detector.restore(series) - series).mean() < 0.3 * series.var()
    other = series.copy()
    other[400, 1] += 6
    found = detector.detect(other)
    assert found.scores.argmax() == 400
    assert found.maps[400].argmax() == 1
    assert np.array_equal(genad.load(detector.save(tmp_path / "m")).anomaly_score(other), found.scores)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 0}, "width: 0"),
        ({"width": 10}, "width: 10 was given; use a multiple of heads=4"),
        ({"layers": 1.5}, "layers: 1.5"),
        ({"weight": -1.0}, "weight: -1.0"),
        ({"temperature": math.inf}, "temperature: inf"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        AnomalyTransformer(**params).fit(waves(100))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, which a plain baseline also finds: the floor guards against breakage.
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    detector = AnomalyTransformer(window=20, width=16, layers=1, training=Training(updates=60))
    assert roc_auc_score(y[400:], detector.fit(X[:400]).anomaly_score(X[400:])) > 0.85
