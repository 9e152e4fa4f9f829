from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import gaussian_log_prob, kl_normal_normal
from genad.reconstruction.vae.sisvae import SISVAE, SISVAENet, roughness

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of(shape=(6, 3), draws=2):
    torch.manual_seed(0)
    return SISVAENet(shape, 2, 8, 10, draws, 0.1)


def test_the_network_is_the_recursion_of_the_paper():
    net = net_of()
    x, eps = torch.randn(4, 6, 3), torch.randn(4, 6, 2)
    posterior, prior, output = net(x, eps)
    h = torch.zeros(4, 10)
    for t in range(6):
        e = net.embed_x(x[:, t])
        mean, std = net.posterior(torch.cat([e, h], 1))
        code = net.embed_z(mean + std * eps[:, t])
        for got, expected in (
            (posterior, (mean, std)),
            (prior, net.prior(h)),
            (output, net.likelihood(torch.cat([code, h], 1))),
        ):
            torch.testing.assert_close((got[0][:, t], got[1][:, t]), expected)
        h = net.cell(torch.cat([e, code], 1), h)


def test_mean_and_spread_of_the_output_change_from_step_to_step():
    _, _, (mean, std) = net_of()(torch.randn(1, 6, 3), torch.randn(1, 6, 2))
    assert (mean.std(1) > 0).all()
    assert (std.std(1) > 0).all()


def test_roughness_is_the_divergence_from_the_step_before_to_the_next():
    mean = torch.tensor([0.0, 0.0, 3.0]).view(1, 3, 1)
    std = torch.tensor([1.0, 2.0, 2.0]).view(1, 3, 1)
    found = roughness((mean, std)).flatten()
    # KL(N(0, 1) || N(0, 4)), not the other way round, which would be 0.8069
    assert found.tolist() == pytest.approx([np.log(2) + 1 / 8 - 1 / 2, 9 / 8])


def test_loss_adds_likelihood_divergence_and_weighted_roughness():
    net, detector = net_of(), SISVAE(smoothness=0.7)
    x = torch.randn(5, 6, 3)
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(x))
    torch.manual_seed(3)
    posterior, prior, output = net(x, torch.randn(5, 6, 2))
    expected = (
        -gaussian_log_prob(x, *output).sum()
        + kl_normal_normal(*posterior, *prior).sum()
        + 0.7 * roughness(output).sum()
    )
    torch.testing.assert_close(loss, expected / x.numel())
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_smoothness_makes_the_expected_series_smoother():
    rng = np.random.default_rng(0)
    series = rng.normal(size=(400, 1))
    rough = []
    for weight in (0.0, 20.0):
        detector = SISVAE(smoothness=weight, window=8, draws=1, training=Training(updates=60)).fit(series)
        rough.append(np.abs(np.diff(detector.restore(series), axis=0)).mean())
    assert rough[1] < 0.8 * rough[0]


def test_both_scores_and_missing_values():
    net = net_of(draws=1)
    x = torch.randn(3, 6, 3)
    mean, std = net(x, net.noise.expand(3, -1, -1))[2]
    likely, error = SISVAE(draws=1), SISVAE(draws=1, score_by="error")
    torch.testing.assert_close(likely.score_batch(net, Batch(x)), -gaussian_log_prob(x, mean, std).sum(-1))
    torch.testing.assert_close(error.score_batch(net, Batch(x)), (x - mean).square().sum(-1))
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 0] = False
    gap = torch.where(mask, x, 0.0)
    mean, _ = net(gap, net.noise.expand(3, -1, -1))[2]
    torch.testing.assert_close(error.score_batch(net, Batch(gap, mask)), 1.5 * (gap - mean).square()[..., 1:].sum(-1))
    assert (error.error_map(net, Batch(gap, mask))[..., 0] == 0).all()


@pytest.fixture(scope="module")
def fitted():
    t = np.arange(500)
    series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    return SISVAE(window=10, training=Training(updates=60)).fit(series), series


def test_online_scores_need_no_later_step_and_survive_saving(fitted, tmp_path):
    detector, series = fitted
    scores = detector.anomaly_score(series)
    np.testing.assert_allclose(detector.anomaly_score(series[:200]), scores[:200], atol=1e-4)
    assert np.array_equal(scores, genad.load(detector.save(tmp_path / "m")).anomaly_score(series))
    assert detector.fold == "last"
    assert SISVAE(online=False).fold == "mean"


def test_map_points_at_the_channel(fitted):
    detector, series = fitted
    other = series.copy()
    other[300, 1] += 5
    found = detector.detect(other)
    assert found.maps[300].argmax() == 1
    assert found.scores[300] > np.quantile(found.scores, 0.99)
    assert abs(detector.restore(other)[300, 1] - series[300, 1]) < 4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"hidden": 2.5}, "hidden: 2.5"),
        ({"state": -1}, "state: -1"),
        ({"draws": True}, "draws: True"),
        ({"smoothness": -1}, "smoothness: -1"),
        ({"min_std": 0.0}, "min_std: 0.0"),
        ({"score_by": "kl"}, "score_by: 'kl'"),
        ({"online": "yes"}, "online: 'yes' was given; use True or False"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        SISVAE(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = SISVAE(training=Training(updates=100)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.75
