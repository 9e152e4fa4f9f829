from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.core.calibration.dynamic import NonparametricDynamicThreshold
from genad.data.samples import Batch, WindowSamples
from genad.errors import InputError
from genad.reconstruction.forecasting.errors import opening_gain
from genad.reconstruction.forecasting.lstm_ndt import LSTMNDT

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of(shape=(12, 3), **params):
    torch.manual_seed(0)
    detector = LSTMNDT(hidden=8, **params)
    detector.device_ = "cpu"
    return detector, detector.build(shape).eval()


def waves(n=700):
    t = np.arange(n)
    return np.c_[np.sin(t / 5), np.cos(t / 5)]


def test_errors_are_smoothed_as_an_exponentially_weighted_mean():
    _, net = net_of(span=5.0)
    errors = torch.rand(4, 12, 3)
    expected = np.stack([pd.DataFrame(e.numpy()).ewm(span=5).mean().to_numpy() for e in errors])
    np.testing.assert_allclose(net.smooth(errors).numpy(), expected, rtol=1e-5)
    seen = torch.ones(4, 12, 3, dtype=torch.bool)
    seen[:, 5:] = False
    np.testing.assert_allclose(net.smooth(errors, seen)[:, 11].numpy(), expected[:, 4], rtol=1e-4)


def test_the_span_is_that_of_the_paper_unless_given():
    detector, net = net_of(shape=(250, 1))
    assert detector.span is None
    decay = 1 - 2 / (105 + 1)
    torch.testing.assert_close(net.smoother[10, :11], decay ** torch.arange(10.0, -1.0, -1.0))
    assert (net.smoother.triu(1) == 0).all()
    _, sharp = net_of(span=1.0)
    torch.testing.assert_close(sharp.smoother, torch.eye(12))


def test_loss_is_the_squared_error_of_every_forecast():
    detector, net = net_of(horizon=4)
    x = torch.randn(5, 12, 3)
    expected = (net.forecaster(x) - x.unsqueeze(2)).square().mean()
    torch.testing.assert_close(detector.loss(net, Batch(x)), expected)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 1] = False
    part = (net.forecaster(x) - x.unsqueeze(2)).square()[..., [0, 2]].mean()
    torch.testing.assert_close(detector.loss(net, Batch(x, mask)), part)


def test_first_and_mean_take_the_forecasts_they_name():
    x = torch.randn(2, 12, 3)
    for aggregate in ("first", "mean"):
        detector, net = net_of(horizon=4, aggregate=aggregate)
        forecasts = net.forecaster(x)
        expected = forecasts[:, :, 0] if aggregate == "first" else forecasts.mean(2)
        torch.testing.assert_close(detector.reconstruct(net, Batch(x)), expected)


def test_score_is_the_mean_of_errors_in_units_of_mean_plus_deviation():
    detector, net = net_of(span=3.0)
    series = torch.randn(60, 3)
    samples = WindowSamples(series, torch.arange(49), 12)
    detector.finish(net, samples)
    x = samples.batch(torch.arange(49)).x
    errors = (x - net.forecaster(x, 1)[:, :, 0]).abs()
    smooth = net.smooth(errors * net.gain)
    size = smooth[:, -1].mean(0) + smooth[:, -1].std(0, correction=0)
    torch.testing.assert_close(net.size, size)
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), (smooth / size).mean(2))
    torch.testing.assert_close(detector.error_map(net, Batch(x)), smooth / size)


def test_errors_made_from_little_are_brought_to_the_size_of_the_others():
    gain = opening_gain(torch.tensor([3.0, 1.0, 0.5, 1.0]).view(1, 4, 1))
    assert gain.flatten().tolist() == pytest.approx([1 / 3, 1.0, 1.0, 1.0])
    seen = torch.tensor([[True], [True], [True], [False]]).view(1, 4, 1)
    assert opening_gain(torch.ones(1, 4, 1), seen).isfinite().all()


def test_one_target_is_forecast_from_all_channels():
    detector, net = net_of(target=1)
    x = torch.randn(2, 12, 3)
    assert net.forecaster(x).shape == (2, 12, 10, 1)
    out = detector.infer(net, Batch(x), frozenset({"map", "restored"}))
    assert (out.map[..., [0, 2]] == 0).all()
    assert (out.map[..., 1] > 0).all()
    assert torch.equal(out.restored[..., [0, 2]], x[..., [0, 2]])
    other = x.clone()
    other[:, 3, 0] += 1
    assert not torch.equal(detector.reconstruct(net, Batch(other))[:, 4, 1], out.restored[:, 4, 1])
    with pytest.raises(InputError, match=r"target: 2 was given, but the series has 2 channels; use 0 to 1"):
        LSTMNDT(target=2).fit(waves(400))


@pytest.fixture(scope="module")
def fitted():
    return LSTMNDT(window=16, span=2.0, training=Training(updates=120)).fit(waves())


def test_forecasts_follow_the_series_and_scores_name_step_and_channel(fitted, tmp_path):
    series = waves()
    restored = fitted.restore(series)
    assert np.abs(restored[30:] - series[30:]).mean() < 0.15
    other = series.copy()
    other[400, 1] += 3
    found = fitted.detect(other)
    assert found.scores.argmax() in (400, 401)
    assert found.maps[400].argmax() == 1
    # Nothing of the step itself is in what was expected of it.
    np.testing.assert_allclose(found.restored[400], restored[400], atol=1e-5)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(other), found.scores)


def test_the_opening_of_a_series_is_not_an_alarm(fitted):
    series = waves()
    scores = fitted.anomaly_score(series)
    assert scores[:16].mean() < 3 * scores[16:].mean()


def test_the_dynamic_threshold_finds_the_anomaly(fitted):
    series = waves()
    series[400:405] += 3
    rule = NonparametricDynamicThreshold(buffer=5)
    flags = rule.flag(fitted.anomaly_score(series))
    assert flags[400:405].all()
    assert flags.sum() < 40
    small = LSTMNDT(window=16, threshold=rule, training=Training(updates=5)).fit(waves(200))
    assert small.threshold_.rule == "NonparametricDynamicThreshold"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"horizon": 0}, "horizon: 0"),
        ({"hidden": 1.5}, "hidden: 1.5"),
        ({"layers": True}, "layers: True"),
        ({"aggregate": "last"}, "aggregate: 'last'"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"span": 0.5}, "span: 0.5"),
        ({"target": -1}, "target: -1"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        LSTMNDT(**params).fit(waves(100))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, which a plain baseline also finds: the floor guards against breakage.
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    scores = LSTMNDT(window=32, hidden=16, training=Training(updates=80)).fit(X[:400]).anomaly_score(X[400:])
    assert roc_auc_score(y[400:], scores) > 0.85
