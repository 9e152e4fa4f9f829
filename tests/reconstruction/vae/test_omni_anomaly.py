from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import PlanarFlow, gaussian_log_prob
from genad.reconstruction.vae.omni_anomaly import OmniAnomaly, OmniAnomalyNet, RandomWalkPrior

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def net_of(shape=(8, 3), latent=2, flows=3, draws=2):
    torch.manual_seed(0)
    return OmniAnomalyNet(shape, latent, 16, flows, draws, 0.1)


def kalman(z):
    """Return log p of a path by the filter of a random walk observed in noise."""
    mean, variance, total = 0.0, 0.0, 0.0
    for value in z:
        variance += 1.0
        spread = variance + 1.0
        total += -0.5 * ((value - mean) ** 2 / spread + np.log(2 * np.pi * spread))
        gain = variance / spread
        mean, variance = mean + gain * (value - mean), (1 - gain) * variance
    return total


def test_prior_equals_the_kalman_filter_and_the_joint_normal():
    z = torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(0))
    got = RandomWalkPrior(7).log_prob(z)
    filtered = [sum(kalman(path[:, d].numpy()) for d in range(2)) for path in z]
    np.testing.assert_allclose(got.numpy(), filtered, rtol=1e-5)
    t = np.arange(1, 8)
    joint = multivariate_normal(np.zeros(7), np.minimum(t, t[:, None]) + np.eye(7))
    np.testing.assert_allclose(
        got.numpy(), [joint.logpdf(p[:, 0]) + joint.logpdf(p[:, 1]) for p in z.numpy()], rtol=1e-5
    )


def test_prior_prefers_smooth_paths():
    prior = RandomWalkPrior(20)
    smooth = torch.linspace(0, 3, 20).view(1, 20, 1)
    rough = smooth * torch.tensor([1.0, -1.0]).repeat(10).view(1, 20, 1)
    assert prior.log_prob(smooth) > prior.log_prob(rough) + 5


def test_posterior_is_a_chain_with_the_flow_of_the_library():
    net = net_of()
    x, eps = torch.randn(4, 8, 3), torch.randn(4, 8, 2)
    path, log_q = net.posterior_path(x, eps)
    evidence = net.from_read(net.read(x)[0])
    z, expected = torch.zeros(4, 2), torch.zeros(4)
    for t in range(8):
        mean, std = net.posterior(torch.tanh(evidence[:, t] + net.from_before(z)))
        base = mean + std * eps[:, t]
        z, log_det = PlanarFlow.forward(net.flow, base)
        expected = expected + gaussian_log_prob(base, mean, std).sum(1) - log_det
        torch.testing.assert_close(path[:, t], z)
    torch.testing.assert_close(log_q, expected)


def test_noise_of_a_step_reaches_later_steps_only():
    net = net_of()
    x, eps = torch.randn(1, 8, 3), torch.zeros(1, 8, 2)
    other = eps.clone()
    other[:, 4] = 1.0
    moved = (net.posterior_path(x, eps)[0] - net.posterior_path(x, other)[0]).abs().sum(-1)[0]
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 0).all()


def test_loss_holds_likelihood_prior_and_posterior():
    net, detector = net_of(), OmniAnomaly(latent=2, draws=2)
    x = torch.randn(5, 8, 3)
    torch.manual_seed(3)
    loss = detector.loss(net, Batch(x))
    torch.manual_seed(3)
    z, log_q = net.posterior_path(x, torch.randn(5, 8, 2))
    likelihood = gaussian_log_prob(x, *net.decode(z)).sum((1, 2))
    bound = (likelihood + net.prior.log_prob(z) - log_q).mean()
    torch.testing.assert_close(loss, -bound / 24)
    assert net.noise.shape == (2, 8, 2)


def test_gradient_reaches_every_part_through_the_chain():
    net, detector = net_of(), OmniAnomaly(latent=2)
    detector.loss(net, Batch(torch.randn(4, 8, 3))).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_score_is_the_last_steps_surprise_and_missing_values_do_not_count():
    net, detector = net_of(draws=1), OmniAnomaly(latent=2, draws=1)
    x = torch.randn(3, 8, 3)
    z, _ = net.posterior_path(x, net.noise.expand(3, -1, -1))
    expected = -gaussian_log_prob(x, *net.decode(z)).sum(-1)
    torch.testing.assert_close(detector.score_batch(net, Batch(x)), expected)
    assert OmniAnomaly.fold == "last"
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 0] = False
    gap = torch.where(mask, x, 0.0)
    z, _ = net.posterior_path(gap, net.noise.expand(3, -1, -1))
    part = -gaussian_log_prob(gap, *net.decode(z))[..., 1:].sum(-1)
    torch.testing.assert_close(detector.score_batch(net, Batch(gap, mask)), part * 1.5)
    assert (detector.error_map(net, Batch(gap, mask))[..., 0] == 0).all()


@pytest.fixture(scope="module")
def fitted():
    t = np.arange(400)
    series = np.c_[np.sin(t / 5), np.cos(t / 5)]
    training = Training(updates=60)
    with pytest.warns(genad.errors.CalibrationWarning):
        return OmniAnomaly(window=10, flows=2, training=training).fit(series), series


def test_scores_do_not_change_from_call_to_call_and_survive_saving(fitted, tmp_path):
    detector, series = fitted
    scores = detector.anomaly_score(series)
    torch.manual_seed(5)
    assert np.array_equal(scores, detector.anomaly_score(series))
    assert np.array_equal(scores, genad.load(detector.save(tmp_path / "m")).anomaly_score(series))
    # a step's score needs no step after it
    np.testing.assert_allclose(detector.anomaly_score(series[:200]), scores[:200], atol=1e-4)


def test_map_points_at_the_channel_and_restored_is_near_normal(fitted):
    detector, series = fitted
    other = series.copy()
    other[300, 1] += 5
    found = detector.detect(other)
    assert found.maps[300].argmax() == 1
    assert (found.maps >= 0).all()
    assert abs(detector.restore(other)[300, 1] - series[300, 1]) < 3
    assert detector.anomaly_score(other)[300] > np.quantile(found.scores, 0.99)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"hidden": 2.5}, "hidden: 2.5"),
        ({"flows": 0}, "flows: 0"),
        ({"draws": True}, "draws: True"),
        ({"min_std": 0.0}, "min_std: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        OmniAnomaly(**params).fit(np.arange(100.0))


@pytest.mark.data
def test_floor_on_a_real_series(data_dir):
    # An easy recording, chosen because a plain baseline also finds it: the floor guards against breakage, and says
    # nothing of how the method compares. See the figures in its docstring.
    pd = pytest.importorskip("pandas")
    table = pd.read_parquet(data_dir / "series" / "skab.parquet")
    ignored = {"file", "datetime", "anomaly", "changepoint"}
    columns = [name for name in table.columns if name not in ignored]
    one = table[table.file.astype(str) == "other/4"]
    X, y = one[columns].to_numpy(float), one.anomaly.to_numpy()
    found = []
    for seed in (0, 1):
        detector = OmniAnomaly(window=16, flows=2, random_state=seed, training=Training(updates=60))
        scores = detector.fit(X[:400]).anomaly_score(X[400:])
        found.append(roc_auc_score(y[400:], scores))
    assert np.mean(found) > 0.85
