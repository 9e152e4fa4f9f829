from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import gaussian_log_prob, kl_normal_normal
from genad.reconstruction.vae.dvgcrn import DVGCRN, DVGCRNNet, schedule

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of():
    torch.manual_seed(0)
    return DVGCRNNet((6, 3), (4, 3, 2), (5, 4, 3), 8, 0.1)


def test_graph_is_the_likeness_of_embeddings_of_channels_and_units_of_a_layer():
    net = net_of()
    for layer, units in enumerate((4, 3, 2)):
        graph = net.graph(layer)
        assert graph.shape == (3 + units, 3 + units)
        torch.testing.assert_close(graph.sum(1), torch.ones(3 + units))
    likeness = F.cosine_similarity(net.alpha[0][0], net.alpha[2], dim=0 if net.alpha[2].ndim == 1 else 1).relu()
    row = net.graph(1)[0]
    torch.testing.assert_close(row[3:] / row[0], torch.exp(likeness - 1.0))


def test_loadings_are_normalised_products_of_the_same_embeddings():
    net = net_of()
    loading = net.loading(net.alpha[1], net.alpha[2])
    assert loading.shape == (4, 3)
    torch.testing.assert_close(loading.sum(0), torch.ones(3))
    torch.testing.assert_close(loading[:, 1], (net.alpha[1] @ net.alpha[2][1]).softmax(0))
    for part in (net.graph(0)[0, 0], net.loading(net.alpha[0], net.alpha[1])[0, 0]):
        (gradient,) = torch.autograd.grad(part, net.alpha[1])
        assert gradient.abs().sum() > 0


def test_priors_come_from_above_and_from_the_past_and_posteriors_see_the_step():
    net = net_of()
    x, noise = torch.randn(1, 6, 3), torch.randn(1, 6, 9)
    kicked, other = noise.clone(), x.clone()
    kicked[:, 3, 4:7] += 1.0  # the codes of the middle layer
    other[:, 3] += 1.0

    def moves(one, two):
        return [bool((a[0] - b[0]).abs().sum(-1)[0, 3] > 0) for a, b in zip(one, two, strict=True)]

    posterior, prior, output, _, forecast = net(x, noise)
    posterior_z, prior_z, output_z, *_ = net(x, kicked)
    assert moves(posterior, posterior_z) == [False] * 3
    assert moves(prior, prior_z) == [True, False, False]
    torch.testing.assert_close(output_z[0], output[0])
    assert not torch.allclose(prior_z[1][0][:, 4:], prior[1][0][:, 4:])  # by the state that the codes leave behind
    posterior_x, prior_x, *_, forecast_x = net(other, noise)
    assert moves(posterior, posterior_x) == [True] * 3
    assert moves(prior, prior_x) == [True, True, False]
    assert not torch.allclose(forecast, forecast_x)
    last = x.clone()
    last[:, 5] += 1.0
    assert torch.equal(net(last, noise)[4], forecast)


def test_loss_joins_likelihood_divergences_of_all_layers_and_a_forecast_that_learns():
    net, detector = net_of(), DVGCRN(latent=(4, 3, 2), state=(5, 4, 3))
    net.progress.fill_(7.9)
    x = torch.randn(5, 6, 3)
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(x))
    torch.manual_seed(3)
    posterior, prior, output, drawn, forecast = net(x, torch.randn(5, 6, 9))
    apart = sum(kl_normal_normal(*q, *p).sum() for q, p in zip(posterior, prior, strict=True))
    nll = -gaussian_log_prob(x, *output).sum()
    missed = (x[:, -1] - forecast).square().mean()
    torch.testing.assert_close(loss, (nll + net.betas[7] * apart) / x.numel() + missed)
    assert [z.shape[-1] for z in drawn] == [4, 3, 2]
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_weight_of_the_divergence_grows_from_nothing_to_one_over_the_training():
    betas = schedule(60)
    assert betas[0] == 0
    assert betas[2] == pytest.approx((betas[1] + 0.01) * math.exp(0.1))
    assert betas[-1] == 1
    assert betas == sorted(betas)
    detector = DVGCRN(window=6, training=Training(updates=30)).fit(np.sin(np.arange(200.0)))
    assert float(detector.net_.progress) == pytest.approx(59, abs=1e-3)


def test_score_adds_the_surprise_of_the_codes_with_noise_that_is_fixed():
    net, detector = net_of(), DVGCRN(latent=(4, 3, 2), state=(5, 4, 3))
    x = torch.randn(4, 6, 3)
    _, prior, output, drawn, _ = net(x, net.noise.expand(4, -1, -1))
    codes = sum(gaussian_log_prob(z, *p).sum(-1) for z, p in zip(drawn, prior, strict=True))
    score = detector.score_batch(net, Batch(x))
    torch.testing.assert_close(score, -gaussian_log_prob(x, *output).sum(-1) - codes)
    torch.testing.assert_close(detector.score_batch(net, Batch(x[2:3])), score[2:3])
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[..., 0] = False
    gap = torch.where(mask, x, 0.0)
    _, prior, output, drawn, _ = net(gap, net.noise.expand(4, -1, -1))
    codes = sum(gaussian_log_prob(z, *p).sum(-1) for z, p in zip(drawn, prior, strict=True))
    nll = -gaussian_log_prob(gap, *output)[..., 1:].sum(-1)
    torch.testing.assert_close(detector.score_batch(net, Batch(gap, mask)), 1.5 * nll - codes)
    assert torch.isfinite(detector.loss(net, Batch(gap, mask)))


def test_a_spike_is_found_on_its_channel_as_it_arrives_and_after_saving(tmp_path):
    t = np.arange(500)
    series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    detector = DVGCRN(window=8, training=Training(updates=60)).fit(series)
    other = series.copy()
    other[300, 1] += 5
    found = detector.detect(other)
    assert found.maps[300].argmax() == 1
    assert found.scores[300] > np.quantile(found.scores, 0.99)
    np.testing.assert_allclose(detector.anomaly_score(other[:302])[:302], found.scores[:302], rtol=1e-4, atol=1e-3)
    again = genad.load(detector.save(tmp_path / "m"))
    assert np.array_equal(found.scores, again.anomaly_score(other))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": ()}, r"latent: \(\)"),
        ({"latent": (4, 0)}, r"latent: \(4, 0\)"),
        ({"state": 3}, "state: 3"),
        ({"latent": (4, 2)}, "state: 3 layers were given, but latent has 2"),
        ({"embedding": 0}, "embedding: 0"),
        ({"min_std": 0.0}, "min_std: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        DVGCRN(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = DVGCRN(training=Training(updates=50)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.75
