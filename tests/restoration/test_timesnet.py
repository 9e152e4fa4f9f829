from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.restoration.timesnet import Inception, TimesBlock, TimesNetImputer

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def waves(n=700, period=24):
    t = np.arange(n) * 2 * np.pi / period
    return np.c_[np.sin(t), np.cos(t)] + 0.05 * np.random.default_rng(0).normal(size=(n, 2))


def block(steps=24, width=4, periods=2):
    torch.manual_seed(0)
    return TimesBlock(steps, width, 6, periods, 2).eval()


def ready(shape=(24, 3), **params):
    torch.manual_seed(0)
    detector = TimesNetImputer(**{"width": 4, "inner": 6, "span": 4, **params})
    net = detector.build(shape).eval()
    torch.nn.init.normal_(net.output.weight)  # it begins at 0, as a straight line
    return detector, net, torch.randn(5, *shape)


def test_one_convolution_is_the_mean_of_the_kernels():
    torch.manual_seed(0)
    inception, x = Inception(3, 5, 4), torch.randn(2, 3, 9, 7)
    assert [conv.kernel_size for conv in inception.convs] == [(1, 1), (3, 3), (5, 5), (7, 7)]
    for conv in inception.convs:
        torch.nn.init.normal_(conv.bias)
    torch.testing.assert_close(inception(x), torch.stack([conv(x) for conv in inception.convs]).mean(0))


def test_the_strongest_periods_are_found_and_the_mean_is_none():
    net = block(steps=48, periods=2)
    t = torch.arange(48.0)
    x = 5 + 2 * torch.sin(2 * torch.pi * 4 * t / 48) + torch.sin(2 * torch.pi * 9 * t / 48)
    amplitudes = net.amplitudes(x.view(1, 48, 1).repeat(1, 1, 4))
    assert (amplitudes[:, 0] == 0).all()
    assert net.strongest(amplitudes).tolist() == [4, 9]


def test_a_fold_has_one_row_a_period():
    net = block()
    net.convolve = torch.nn.Identity()
    x = torch.randn(2, 24, 4)
    torch.testing.assert_close(net.fold(x, 7), x)  # padded to 28 steps and cut again
    seen = []
    net.convolve.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
    net.fold(x, 7)
    assert seen[0].shape == (2, 4, 4, 7)
    torch.testing.assert_close(seen[0][0, :, 1, 2], x[0, 9])
    assert (seen[0][0, :, 3, 3:] == 0).all()


def test_folds_are_weighted_by_the_windows_own_amplitudes():
    net, x = block(), torch.randn(3, 24, 4)
    net.chosen.copy_(torch.tensor([3, 5]))
    weights = net.amplitudes(x)[:, [3, 5]].softmax(1)
    expected = x + weights[:, :1, None] * net.fold(x, 8) + weights[:, 1:, None] * net.fold(x, 4)
    torch.testing.assert_close(net(x), expected)


def test_periods_are_the_batchs_in_training_and_settled_afterwards():
    _, net, x = ready()
    seen = torch.ones_like(x, dtype=torch.bool)
    net(x, seen, settle=True)
    whole = net(x, seen)
    # Scored one by one, windows get the same answer.
    torch.testing.assert_close(torch.cat([net(one[None], seen[:1]) for one in x]), whole, atol=1e-5, rtol=1e-4)
    net.train()
    torch.testing.assert_close(net(x, seen), whole)  # the batch it was settled on
    assert [b.chosen.tolist() for b in net.blocks] == [b.chosen.tolist() for b in net.eval().blocks]


def test_windows_are_normalised_by_what_is_seen():
    _, net, x = ready()
    seen = torch.rand_like(x) > 0.3
    found = net(x, seen)
    torch.testing.assert_close(net(torch.where(seen, x, 1e3), seen), found)
    torch.testing.assert_close(net(50 * x + 20, seen), 50 * found + 20, atol=0.05, rtol=1e-3)


def test_untrained_it_draws_the_line_and_at_zero_it_does_not():
    x = torch.arange(24.0).view(1, 24, 1)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:, 6:12] = False
    line = TimesNetImputer().build((24, 1)).eval()
    torch.testing.assert_close(line(x, seen), x, atol=1e-4, rtol=1e-4)
    torch.manual_seed(0)
    zero = TimesNetImputer(hidden="zero").build((24, 1)).eval()
    assert (zero(x, seen) - x)[:, 6:12].abs().max() > 1.0


def test_loss_counts_hidden_values_alone():
    detector, net, x = ready()
    seen = []
    forward = net.forward
    net.forward = lambda values, known: seen.append(known) or forward(values, known)
    loss = detector.loss(net, Batch(x))
    hidden = ~seen[0]
    assert 0.05 < hidden.float().mean() < 0.6
    torch.testing.assert_close(loss, (forward(x, ~hidden) - x)[hidden].square().mean())
    plain, _, _ = ready(score_by="reconstruction")
    everything = torch.ones_like(x, dtype=torch.bool)
    torch.testing.assert_close(plain.loss(net, Batch(x)), (forward(x, everything) - x).square().mean())


def test_reconstruction_scores_by_squared_errors_of_all():
    detector, net, x = ready(score_by="reconstruction", level=0.0)
    net.usual.fill_(7.0)  # which plays no part
    expected = (net(x, torch.ones_like(x, dtype=torch.bool)) - x).square()
    torch.testing.assert_close(detector.error_map(net, Batch(x)), expected)
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), expected.mean(2))


@pytest.fixture(scope="module")
def fitted():
    return TimesNetImputer(window=48, training=Training(updates=150, lr=5e-3)).fit(waves())


def test_spans_are_filled_better_than_by_a_straight_line(fitted, tmp_path):
    series = waves()[300:500]
    gaps = series.copy()
    gaps[60:70] = np.nan
    gaps[120:132, 0] = np.nan
    hidden = np.isnan(gaps)
    restored = fitted.restore(gaps)
    line = pd.DataFrame(gaps).interpolate().to_numpy()
    assert np.square(restored - series)[hidden].mean() < 0.4 * np.square(line - series)[hidden].mean()
    # All but false alarms come back as they were.
    assert np.isclose(restored, series, atol=1e-5)[~hidden].mean() > 0.85
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.restore(gaps), restored)


def test_an_anomaly_is_named_and_taken_out(fitted):
    series = waves()
    other = series.copy()
    other[400:404] += 3
    found = fitted.detect(other)
    assert 400 <= found.scores.argmax() < 404
    # Steps beside it are doubted too, so that what is filled in is long, but most of what was off is gone.
    assert np.abs(found.restored[400:404] - series[400:404]).mean() < 0.3 * 3


def test_the_width_grows_with_the_channels():
    for channels, width in ((2, 16), (17, 32), (38, 64), (300, 64)):
        assert TimesNetImputer().build((24, channels)).output.in_features == width


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 0}, "width: 0"),
        ({"inner": 1.5}, "inner: 1.5"),
        ({"periods": 0}, "periods: 0"),
        ({"kernels": True}, "kernels: True"),
        ({"hidden": "mean"}, "hidden: 'mean'"),
        ({"score_by": "both"}, "score_by: 'both'"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        TimesNetImputer(**params).fit(waves(100))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, which a plain baseline also finds: the floor guards against breakage.
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    scores = TimesNetImputer(window=32, training=Training(updates=60)).fit(X[:400]).anomaly_score(X[400:])
    assert roc_auc_score(y[400:], scores) > 0.8
