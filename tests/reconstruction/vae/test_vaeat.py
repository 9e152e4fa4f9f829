from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import kl_to_standard_normal
from genad.reconstruction.vae.vaeat import VAEAT, VAEATNet

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of():
    torch.manual_seed(0)
    return VAEATNet((5, 3), 8, 4)


def test_attention_is_learnt_weighs_the_steps_and_multiplies_the_states():
    net = net_of()
    x = torch.randn(4, 5, 3)
    states = net.encoder.read(x)[0]
    weight = net.encoder.attention(states)
    torch.testing.assert_close(weight.sum(1), torch.ones(4))
    assert weight.std() > 0
    torch.testing.assert_close(net.encoder(x), net.encoder.head(states * 5 * weight[..., None]))
    # nothing is drawn: twice the same
    torch.testing.assert_close(net.encoder(x)[0], net.encoder(x)[0], atol=0, rtol=0)
    assert isinstance(net.encoder.query, torch.nn.Parameter)


def mse(a, b):
    return (a - b).square().mean()


@pytest.mark.parametrize("n", [1.0, 4.0])
def test_both_losses_equal_their_formulas(n, monkeypatch):
    net, detector = net_of(), VAEAT(kl_weight=0.3)
    net.epoch.fill_(n)
    # without noise a code is its mean
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    x = torch.randn(6, 5, 3)
    mean, std = net.encoder(x)
    kl = kl_to_standard_normal(mean, std).mean()
    w1, w2 = net.first(mean), net.second(mean)
    w3 = net.second(net.encoder(w1)[0])
    first = (mse(x, w1) + 0.3 * kl) / n + (1 - 1 / n) * mse(x, w3)
    second = (mse(x, w2) + 0.3 * kl) / n - (1 - 1 / n) * mse(x, w3)
    torch.testing.assert_close(detector.first_loss(net, Batch(x)), first)
    torch.testing.assert_close(detector.second_loss(net, Batch(x)), second)


def test_each_side_moves_the_encoder_and_its_own_decoder():
    net = net_of()
    first, second = VAEAT().phases(net)
    assert tuple(first.modules) == ("encoder", "first")
    assert tuple(second.modules) == ("encoder", "second")


@pytest.fixture(scope="module")
def fitted():
    t = np.arange(600)
    series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    return VAEAT(training=Training(updates=150), epochs=6).fit(series), series


def test_the_contest_runs_through_its_epochs_whatever_the_updates(fitted):
    detector, _ = fitted
    # the last update itself moves on once more
    assert detector.net_.epoch.item() == pytest.approx(6.0, abs=0.1)
    losses = detector.training_report_.history
    assert set(losses) == {"first", "second"}
    # at the end the second decoder gains from the first one's flaws
    assert losses["second"][-1] < losses["second"][0]


def test_score_mixes_both_errors_and_missing_values_do_not_count():
    net = net_of()
    x = torch.randn(3, 5, 3)
    z = net.encoder(x)[0]
    one, two = ((x - decode(z)).square().mean((1, 2)) for decode in (net.first, net.second))
    torch.testing.assert_close(VAEAT(alpha=0.3).score_batch(net, Batch(x)), 0.3 * one + 0.7 * two)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 0] = False
    gap = torch.where(mask, x, 0.0)
    found = VAEAT(alpha=1.0).error_map(net, Batch(gap, mask))
    assert (found[..., 0] == 0).all()
    torch.testing.assert_close(VAEAT(alpha=1.0).score_batch(net, Batch(gap, mask)), found[..., 1:].mean((1, 2)))


def test_scores_survive_saving_and_the_map_points_at_the_channel(fitted, tmp_path):
    detector, series = fitted
    other = series.copy()
    other[300, 1] += 5
    found = detector.detect(other)
    assert found.maps[300].argmax() == 1
    assert found.scores[300] > np.quantile(found.scores, 0.99)
    again = genad.load(detector.save(tmp_path / "m"))
    assert np.array_equal(found.scores, again.anomaly_score(other))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 1.5}, "alpha: 1.5"),
        ({"epochs": 0}, "epochs: 0"),
        ({"kl_weight": -1.0}, "kl_weight: -1.0"),
        ({"hidden": 0}, "hidden: 0"),
        ({"latent": 2.5}, "latent: 2.5"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        VAEAT(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = VAEAT(training=Training(updates=150)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.7
