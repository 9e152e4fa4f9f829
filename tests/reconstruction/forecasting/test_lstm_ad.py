from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch, WindowSamples
from genad.errors import InputError
from genad.reconstruction.forecasting.lstm_ad import LSTMAD

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def ready(**params):
    torch.manual_seed(0)
    detector = LSTMAD(**{"hidden": 8, "horizon": 3, **params})
    detector.device_ = "cpu"
    net = detector.build((12, 2)).eval()
    series = torch.randn(400, 2)
    series[:, 1] = 0.5 * series[:, 0] + 0.1 * series[:, 1]
    samples = WindowSamples(series, torch.arange(389), 12)
    with torch.no_grad():
        detector.finish(net, samples)
    return detector, net, samples


def waves(n=700):
    t = np.arange(n)
    return np.c_[np.sin(t / 5), np.cos(t / 5)]


def test_every_error_of_a_vector_is_about_the_same_step():
    _, net, samples = ready()
    x = samples.batch(torch.arange(1)).x
    other = x.clone()
    other[0, 7] += 1.0
    before, after = net.forecaster(x), net.forecaster(other)
    # What step 7 was expected to be does not hang on it, from any distance; its own error moves in all places alike.
    assert torch.equal(before[0, 7], after[0, 7])
    moved = (other.unsqueeze(2) - after) - (x.unsqueeze(2) - before)
    torch.testing.assert_close(moved[0, 7], torch.ones(3, 2))


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
def test_score_is_the_mahalanobis_distance_of_the_error_vector(shrinkage):
    detector, net, samples = ready(shrinkage=shrinkage)
    x = samples.batch(torch.arange(389)).x
    errors = (x.unsqueeze(2) - net.forecaster(x)).flatten(2)[:, -1].detach().numpy().astype(float)
    centred, covariance = errors - errors.mean(0), np.cov(errors.T, ddof=0)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.eye(6) * np.trace(covariance) / 6
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred) / 6
    got = detector.score_batch(net, Batch(x))[:, -1].detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_errors_that_break_the_usual_relation_score_higher_than_equally_large_ones():
    detector, net, samples = ready(shrinkage=0.1)
    forecasts = net.forecaster(samples.batch(torch.arange(1)).x)
    base = forecasts[0, -1, 0].detach()

    def score(step):
        x = samples.batch(torch.arange(1)).x
        x[0, -1] = base + torch.tensor(step)
        return detector.score_batch(net, Batch(x))[0, -1].item()

    assert score([1.0, -0.5]) > 3 * score([1.0, 0.5])


def test_map_adds_up_to_the_score_and_restored_is_the_mean_forecast():
    detector, net, samples = ready()
    x = samples.batch(torch.arange(5)).x
    out = detector.infer(net, Batch(x), frozenset({"map", "restored"}))
    torch.testing.assert_close(out.map.sum(2), out.score)
    torch.testing.assert_close(out.restored, net.forecaster(x).mean(2))


def test_full_shrinkage_leaves_a_sphere():
    _, net, _ = ready(shrinkage=1.0)
    off = net.whiten - torch.diag(net.whiten.diagonal())
    assert off.abs().max() < 1e-6 * net.whiten.diagonal().max()


def test_missing_values_take_no_part():
    detector, net, samples = ready()
    x = samples.batch(torch.arange(4)).x
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, -1, 0] = False
    one, two = x.clone(), x.clone()
    one[:, -1, 0], two[:, -1, 0] = 0.0, 50.0
    first, second = (detector.score_batch(net, Batch(v, mask))[:, -1] for v in (one, two))
    torch.testing.assert_close(first, second)
    assert (detector.error_map(net, Batch(one, mask))[:, -1, 0] == 0).all()
    whole = detector.loss(net, Batch(x))
    error = (net.forecaster(x) - x.unsqueeze(2)).square().mean(2)
    torch.testing.assert_close(whole, error.mean())
    torch.testing.assert_close(detector.loss(net, Batch(x, mask)), error[mask].view(4, -1).mean())


@pytest.fixture(scope="module")
def fitted():
    return LSTMAD(window=24, training=Training(updates=120)).fit(waves())


def test_a_shape_at_the_wrong_time_is_found(fitted, tmp_path):
    series = waves()
    other = series.copy()
    other[400:406] = series[409:415]
    found = fitted.detect(other)
    assert found.scores[400:406].max() > 10 * np.quantile(fitted.anomaly_score(series)[24:], 0.99)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(other), found.scores)


def test_the_map_names_the_channel_and_forecasts_follow_the_series(fitted):
    series = waves()
    assert np.abs(fitted.restore(series)[30:] - series[30:]).mean() < 0.15
    series[400, 1] += 2
    assert fitted.anomaly_map(series)[400].argmax() == 1


def test_the_opening_of_a_series_is_not_an_alarm(fitted):
    scores = fitted.anomaly_score(waves())
    assert scores[:24].mean() < 5 * scores[24:].mean()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"horizon": 0}, "horizon: 0"),
        ({"hidden": 1.5}, "hidden: 1.5"),
        ({"layers": False}, "layers: False"),
        ({"shrinkage": 0.0}, "shrinkage: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        LSTMAD(**params).fit(waves(100))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, which a plain baseline also finds: the floor guards against breakage.
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    scores = LSTMAD(window=24, hidden=16, training=Training(updates=80)).fit(X[:400]).anomaly_score(X[400:])
    assert roc_auc_score(y[400:], scores) > 0.85
