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
from genad.nn.robust_divergence import robust_divergence
from genad.reconstruction.vae.vqrae import VQRAE, BiVQRAE, VQRAENet

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of(*, both=False, flows=0):
    torch.manual_seed(0)
    return VQRAENet((8, 3), 2, 6, flows, 0.1, both=both)


def moved(function, at=4):
    """Return which steps of the output change with step ``at`` of the input."""
    x = torch.randn(1, 8, 3)
    other = x.clone()
    other[:, at] += 1
    return ((function(x) - function(other)).abs().sum(-1)[0] > 0).tolist()


def test_context_holds_the_past_and_with_both_directions_the_future_never_the_step_itself():
    assert moved(net_of().context) == [False] * 5 + [True] * 3
    assert moved(net_of(both=True).context) == [True] * 4 + [False] + [True] * 3


def test_posterior_sees_the_step_and_its_future():
    net = net_of()
    h = torch.zeros(1, 8, 6)
    assert moved(lambda x: net.infer(x, h)[0]) == [True] * 5 + [False] * 3
    net, h = net_of(both=True), torch.zeros(1, 8, 12)
    assert all(moved(lambda x: net.infer(x, h)[0]))


@pytest.mark.parametrize("divergence", ["beta", "alpha", "gamma", "kl"])
def test_loss_is_the_divergence_of_a_step_plus_that_of_its_posterior(divergence):
    net, detector = net_of(), VQRAE(divergence=divergence, strength=0.1, kl_weight=0.3)
    x = torch.randn(5, 8, 3)
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(x))
    torch.manual_seed(3)
    h = net.context(x)
    mean, std = net.infer(x, h)
    centre, spread = net.decode(mean + std * torch.randn_like(mean), h)
    fit = robust_divergence(divergence, gaussian_log_prob(x, centre, spread), spread, 0.1)
    apart = kl_normal_normal(mean, std, *net.prior(h)).sum(-1).mean()
    torch.testing.assert_close(loss, (fit + 0.3 * apart) / 3)
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_past_a_flow_the_draw_estimates_the_divergence():
    net, detector = net_of(flows=3), VQRAE(divergence="kl", flows=3)
    x = torch.randn(5, 8, 3)
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(x))
    torch.manual_seed(3)
    h = net.context(x)
    mean, std = net.infer(x, h)
    base = mean + std * torch.randn_like(mean)
    z, log_det = net.flow(base)
    log_q = gaussian_log_prob(base, mean, std).sum(-1) - log_det
    apart = (log_q - gaussian_log_prob(z, *net.prior(h)).sum(-1)).mean()
    centre, spread = net.decode(z, h)
    torch.testing.assert_close(loss, (apart - gaussian_log_prob(x, centre, spread).sum(-1).mean()) / 3)


def test_a_wild_training_step_pulls_less_than_under_likelihood():
    net = net_of()
    x = torch.zeros(1, 8, 3)
    x[0, 4] = 8.0
    pulls = {}
    for divergence in ("kl", "beta"):
        detector = VQRAE(divergence=divergence, strength=0.2, kl_weight=0.0)
        net.zero_grad()
        torch.manual_seed(1)
        detector.loss(net, Batch(x)).backward()
        pulls[divergence] = float(net.likelihood[0].weight.grad.abs().sum())
    assert pulls["beta"] < 0.2 * pulls["kl"]


def test_score_is_the_squared_error_at_the_posterior_mean_and_missing_values_do_not_count():
    net, detector = net_of(), VQRAE()
    x = torch.randn(3, 8, 3)
    h = net.context(x)
    centre = net.decode(net.infer(x, h)[0], h)[0]
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), (x - centre).square().sum(-1))
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 0] = False
    gap = torch.where(mask, x, 0.0)
    error = (gap - detector.reconstruct(net, Batch(gap, mask))).square()
    torch.testing.assert_close(detector.score_batch(net, Batch(gap, mask)), 1.5 * error[..., 1:].sum(-1))
    assert torch.isfinite(detector.loss(net, Batch(gap, mask)))


@pytest.mark.parametrize("cls", [VQRAE, BiVQRAE])
def test_scores_survive_saving_and_the_map_points_at_the_channel(cls, tmp_path):
    t = np.arange(500)
    series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    detector = cls(window=10, flows=2, training=Training(updates=80)).fit(series)
    other = series.copy()
    other[300, 1] += 5
    found = detector.detect(other)
    assert found.maps[300].argmax() == 1
    assert found.scores[300] > np.quantile(found.scores, 0.99)
    again = genad.load(detector.save(tmp_path / "m"))
    assert np.array_equal(found.scores, again.anomaly_score(other))
    online = np.allclose(detector.anomaly_score(other[:302])[:302], found.scores[:302], atol=1e-4)
    assert online == (cls is VQRAE)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"divergence": "delta"}, "divergence: 'delta'"),
        ({"strength": 0.0}, "strength: 0.0"),
        ({"strength": 1.0}, "strength: 1.0"),
        ({"kl_weight": -1}, "kl_weight: -1"),
        ({"latent": 0}, "latent: 0"),
        ({"hidden": 2.5}, "hidden: 2.5"),
        ({"flows": -1}, "flows: -1"),
        ({"min_std": 0.0}, "min_std: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        VQRAE(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # the floor guards against breakage; how the method compares is in its docstring
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    one = table[table.file.astype(str) == "other/10"]
    X, y = one[[c for c in table.columns if c not in ignored]].to_numpy(float), one.anomaly.to_numpy()
    detector = VQRAE(training=Training(updates=80)).fit(X[:400])
    assert roc_auc_score(y[400:], detector.anomaly_score(X[400:])) > 0.75
