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
from genad.reconstruction.forecasting.patchtst_ad import PatchTSTDetector, miss

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def ready(shape=(36, 3), **params):
    torch.manual_seed(0)
    detector = PatchTSTDetector(**{"width": 8, "heads": 2, "layers": 1, "patch": 8, "stride": 4, **params})
    detector.device_ = "cpu"
    return detector, detector.build(shape).eval(), torch.randn(5, *shape)


def waves(n=700, period=24):
    t = np.arange(n) * 2 * np.pi / period
    return np.c_[np.sin(t), np.cos(t)] + 0.05 * np.random.default_rng(0).normal(size=(n, 2))


def test_loss_is_the_pinball_loss_of_three_quantiles_of_the_last_block():
    detector, net, x = ready()
    assert (net.context, net.horizon, net.blocks) == (24, 6, 2)
    quantiles = net.forecaster(x[:, 6:30])
    expected = 0.0
    for level, q in zip((0.05, 0.5, 0.95), quantiles, strict=True):
        gap = x[:, 30:] - q
        expected += torch.where(gap > 0, level * gap, (level - 1) * gap).mean()
    torch.testing.assert_close(detector.loss(net, Batch(x)), expected)


def test_a_miss_is_the_distance_from_the_interval_in_its_widths():
    quantiles = torch.tensor([-1.0, 0.0, 3.0]).view(3, 1)
    assert [miss(torch.tensor([y]), quantiles).item() for y in (-3.0, 0.5, 7.0)] == [0.5, 0.0, 1.0]
    # An interval of no width is widened: 0.1 standard deviations.
    assert miss(torch.tensor([0.5]), torch.zeros(3, 1)).item() == pytest.approx(5.0)


def test_flagged_values_are_replaced_before_they_become_context():
    detector, net, x = ready()
    plain = detector.forecasts(net, Batch(x))
    odd = x.clone()
    odd[:, 26] += 50
    net.limit.fill_(5.0)
    healed = detector.forecasts(net, Batch(odd))
    middle = plain[1][:, 2]
    # As if the forecast itself had been observed there.
    known = x.clone()
    known[:, 26] = middle
    torch.testing.assert_close(healed[:, :, 6:], net.forecaster(known[:, 6:30]))
    net.limit.fill_(torch.inf)
    assert (detector.forecasts(net, Batch(odd))[:, :, 6:] - healed[:, :, 6:]).abs().max() > 0.5


def test_a_level_that_moved_counts_when_forecasts_have_followed_it():
    detector, net, x = ready()
    samples = WindowSamples(torch.randn(400, 3), torch.arange(360), 36)
    detector.finish(net, samples)
    shifted = x + 6.0
    without, _, _ = ready(level=0.0)
    # The forecast of a window that lies at the new level altogether does not see it.
    torch.testing.assert_close(
        without.infer(net, Batch(shifted), frozenset()).score[:, -6:],
        without.infer(net, Batch(x), frozenset()).score[:, -6:],
        atol=1e-2, rtol=1e-2,
    )  # fmt: skip
    raised = detector.infer(net, Batch(shifted), frozenset()).score - detector.infer(net, Batch(x), frozenset()).score
    assert (raised[:, -6:] > 1.0).all()


@pytest.fixture(scope="module")
def fitted():
    return PatchTSTDetector(
        window=72, width=16, layers=1, patch=8, stride=4, training=Training(updates=120, lr=5e-3)
    ).fit(waves())


def test_forecasts_follow_the_series_and_scores_name_step_and_channel(fitted, tmp_path):
    series = waves()
    restored = fitted.restore(series)
    assert np.abs(restored[80:] - series[80:]).mean() < 0.2
    other = series.copy()
    other[400, 1] += 3
    found = fitted.detect(other)
    assert found.scores.argmax() == 400
    assert found.maps[400].argmax() == 1
    # Nothing of the step itself is in what was expected of it.
    np.testing.assert_allclose(found.restored[400], restored[400], atol=1e-5)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(other), found.scores)


def test_every_step_but_the_first_context_is_the_mean_of_its_forecasts(fitted):
    net, series = fitted.net_, waves()
    loaded = fitted._ingest(series, reset=False).samples
    windows = fitted._thinned(loaded)
    batch = windows.batch(torch.arange(len(windows)))
    starts = loaded.starts[windows.indices]
    middle = fitted.forecasts(net, batch)[1][:, -net.horizon :]
    step = 300
    ends = [(step - int(s) - 72 + net.horizon, i) for i, s in enumerate(starts)]
    made = [middle[i, k] for k, i in ends if 0 <= k < net.horizon]
    assert len(made) == 4
    expected = torch.stack(made).mean(0).numpy()
    found = fitted.adapter_.columns(expected[None])
    np.testing.assert_allclose(fitted.restore(series)[step], [v[0] for v in found.values()], atol=1e-3)


def test_the_opening_of_a_series_is_not_an_alarm_unless_it_is_odd(fitted):
    series = waves()
    scores = fitted.anomaly_score(series)
    assert scores[:48].mean() < 3 * scores[48:].mean() + 0.05
    series[20] = 8.0
    assert fitted.anomaly_score(series)[:60].argmax() == 20


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"patch": 0}, "patch: 0"),
        ({"stride": 20}, "stride: 20 was given, which leaves gaps between patches of 16"),
        ({"horizon": 1.5}, "horizon: 1.5"),
        ({"horizon": 2, "window": 144}, "step: windows lie 6 steps apart but forecast 2"),
        ({"width": 10}, "width: 10 was given; use a multiple of heads=4"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"level": -1}, "level: -1"),
        ({"quantile": 1.0}, "quantile: 1.0"),
        ({"score_by": "both"}, "score_by: 'both'"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        PatchTSTDetector(**params).fit(waves(800))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, which a plain baseline also finds: the floor guards against breakage.
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    scores = PatchTSTDetector(window=72, training=Training(updates=60)).fit(X[:400]).anomaly_score(X[400:])
    assert roc_auc_score(y[400:], scores) > 0.85
