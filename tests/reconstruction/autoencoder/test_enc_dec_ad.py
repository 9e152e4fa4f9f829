from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import genad
from genad import Training
from genad.data.samples import Batch, WindowSamples
from genad.errors import InputError
from genad.reconstruction.autoencoder.enc_dec_ad import EncDecAD, EncDecNet

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


class Fixed(nn.Module):
    """An encoder that ends in the same state whatever it reads."""

    def __init__(self, hidden):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.state = tuple(torch.randn(1, 1, hidden, generator=generator) for _ in range(2))

    def forward(self, x):
        return None, tuple(part.expand(-1, len(x), -1).contiguous() for part in self.state)


def ready(shrinkage=0.1):
    torch.manual_seed(0)
    detector = EncDecAD(hidden=8, shrinkage=shrinkage)
    detector.device_ = "cpu"
    net = detector.build((12, 2)).eval()
    series = torch.randn(400, 2)
    series[:, 1] = 0.5 * series[:, 0] + 0.1 * series[:, 1]
    samples = WindowSamples(series, torch.arange(389), 12)
    with torch.no_grad():
        detector.finish(net, samples)
    return detector, net, samples


def waves(n=900):
    t = np.arange(n)
    return np.c_[np.sin(t / 5), np.cos(t / 5)]


def test_nothing_but_the_state_reaches_the_reconstruction():
    net = EncDecNet(2, 8)
    net.encoder = Fixed(8)
    x = torch.randn(3, 12, 2)
    torch.testing.assert_close(net(x), net(x + 5.0))
    plain = EncDecNet(2, 8)
    assert not torch.allclose(plain(x), plain(x + 5.0))


def test_it_is_written_from_the_last_step_to_the_first():
    net = EncDecNet(2, 8)
    net.encoder = Fixed(8)
    x = torch.randn(1, 12, 2)
    other = x.clone()
    other[0, 7] += 1.0
    moved = (net.forced(other) - net.forced(x)).abs().sum(2)[0] > 1e-6
    # The true step 7 is read to write step 6, and so on to the first; those from 7 on were written before.
    assert moved.tolist() == [True] * 7 + [False] * 5
    torch.testing.assert_close(net.forced(x)[:, -1], net(x)[:, -1])


def test_a_decoder_fed_its_own_output_as_the_truth_writes_the_same():
    net = EncDecNet(2, 8)
    net.encoder = Fixed(8)
    written = net(torch.randn(2, 12, 2))
    torch.testing.assert_close(net.forced(written), written)


@pytest.mark.parametrize("forcing", [False, True])
def test_the_loss_is_the_mean_square_error_of_the_decoder_in_training(forcing):
    _, net, samples = ready()
    x = samples.batch(torch.arange(6)).x
    written = net.forced(x) if forcing else net(x)
    loss = EncDecAD(forcing=forcing).loss(net, Batch(x))
    torch.testing.assert_close(loss, (x - written).square().mean())


@pytest.mark.parametrize("shrinkage", [0.1, 1.0])
def test_the_score_is_the_mahalanobis_distance_of_the_errors_of_a_step(shrinkage):
    detector, net, samples = ready(shrinkage)
    x = samples.batch(torch.arange(389)).x
    errors = (x - net(x)).detach().reshape(-1, 2).numpy().astype(float)
    centred, covariance = errors - errors.mean(0), np.cov(errors.T, ddof=0)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.eye(2) * np.trace(covariance) / 2
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred) / 2
    got = detector.score_batch(net, Batch(x)).detach().numpy()
    np.testing.assert_allclose(got.ravel(), expected, rtol=1e-3, atol=1e-4)
    if shrinkage == 1.0:
        assert got.mean() == pytest.approx(1.0, rel=0.01)


def test_the_map_adds_up_to_the_score():
    detector, net, samples = ready()
    x = samples.batch(torch.arange(5)).x
    out = detector.infer(net, Batch(x), frozenset({"map", "restored"}))
    torch.testing.assert_close(out.map.sum(2), out.score)
    torch.testing.assert_close(out.restored, net(x))


def test_missing_values_have_the_mean_error():
    detector, net, samples = ready()
    x = samples.batch(torch.arange(4)).x
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 5, 0] = False
    x[:, 5, 0] = 0.0
    out = detector.infer(net, Batch(x, mask), frozenset({"map"}))
    assert (out.map[:, 5, 0] == 0).all()
    error = (x - net(x))[:, 5, 1] - net.mean[1]
    expected = (torch.stack([torch.zeros(4), error], 1) @ net.whiten).square().sum(1)
    torch.testing.assert_close(out.score[:, 5], expected)


def test_a_break_is_found_named_and_restored(tmp_path):
    series = waves()
    detector = EncDecAD(training=Training(updates=150)).fit(series[:700])
    broken = series.copy()
    broken[800:806, 1] *= -1
    found = detector.detect(broken)
    assert found.scores[800:806].min() > np.quantile(detector.anomaly_score(series[:700]), 0.99)
    assert (found.maps[800:806].argmax(1) == 1).mean() > 0.5
    assert np.abs(detector.restore(broken)[800:806] - series[800:806]).mean() < 0.3
    again = genad.load(detector.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(broken), found.scores)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hidden": 0}, "hidden: 0"),
        ({"shrinkage": 0.0}, "shrinkage: 0.0"),
        ({"shrinkage": 1.5}, "shrinkage: 1.5"),
        ({"forcing": 1}, "forcing: 1"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        EncDecAD(**params).fit(waves(100))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    one = table[table.file.astype(str) == "other/6"]
    columns = [name for name in table.columns if name not in {"file", "datetime", "anomaly", "changepoint"}]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    found = []
    for seed in range(2):
        detector = EncDecAD(random_state=seed, training=Training(updates=100)).fit(X[:400])
        found.append(roc_auc_score(y[400:], detector.anomaly_score(X[400:])))
    assert min(found) > 0.85
