from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import ArraySamples, Batch
from genad.errors import InputError
from genad.nn import kl_to_standard_normal
from genad.reconstruction.vae.vae_svdd import VAEDeepSVDD

# short sets leave few rows to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def untrained(**params):
    detector = VAEDeepSVDD(latent=3, **params)
    detector.device_, detector.seed_ = "cpu", 0
    torch.manual_seed(0)
    return detector, detector.build((4,))


@pytest.mark.parametrize("boundary", ["one-class", "soft"])
def test_one_encoder_serves_bound_and_sphere_at_once(boundary):
    detector, net = untrained(boundary=boundary, compactness=0.7, nu=0.2)
    net.centre.copy_(torch.tensor([1.0, 0.0, -1.0]))
    net.radius2.fill_(0.5 if boundary == "soft" else 0.0)
    x = torch.randn(6, 4)
    torch.manual_seed(1)
    loss = detector.loss(net, Batch(x))
    torch.manual_seed(1)
    mean, std = net.posterior(x)
    z = mean + std * torch.randn(6, 3)
    apart = (z - net.centre).square().sum(1)
    if boundary == "soft":
        apart = 0.5 + torch.relu(apart - 0.5) / 0.2
    bound = 0.5 * (x - net.decode(z)).square().sum(1) + kl_to_standard_normal(mean, std).sum(1)
    torch.testing.assert_close(loss, (bound + 0.7 * apart).mean() / 4)
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []
    assert len(detector.phases(net)) == 1


def test_the_centre_is_the_mean_code_before_training_and_stays():
    detector, net = untrained(training=Training(updates=5))
    samples = ArraySamples(torch.randn(50, 4))
    before = net.posterior(samples.x)[0].mean(0).detach()
    detector.optimise(net, samples)
    torch.testing.assert_close(net.centre, before)
    assert not torch.allclose(net.posterior(samples.x)[0].mean(0), before, atol=1e-4)


@pytest.mark.parametrize("nu", [0.1, 0.4])
def test_the_soft_sphere_holds_all_but_nu(nu):
    detector, net = untrained(boundary="soft", nu=nu, training=Training(updates=60))
    samples = ArraySamples(torch.randn(200, 4))
    detector.optimise(net, samples)
    outside = detector.score_batch(net, Batch(samples.x)) > 0
    assert outside.float().mean().item() == pytest.approx(nu, abs=0.01)


def test_the_sphere_does_not_collapse_and_a_heavier_one_is_smaller():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 6))
    sizes = []
    for weight in (0.01, 3.0):
        detector = VAEDeepSVDD(compactness=weight, training=Training(updates=200)).fit(X)
        sizes.append(np.median(detector.anomaly_score(X)))
        assert detector.encode(X).std(0).max() > 0.02
    assert sizes[1] < sizes[0]


def test_scores_draw_nothing_and_survive_saving(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 5))
    detector = VAEDeepSVDD(boundary="soft", training=Training(updates=50)).fit(X)
    scores = detector.anomaly_score(X)
    torch.manual_seed(9)
    assert np.array_equal(detector.anomaly_score(X), scores)
    assert np.array_equal(genad.load(detector.save(tmp_path / "m")).anomaly_score(X), scores)
    centre = detector.net_.centre.numpy()
    expected = ((detector.encode(X) - centre) ** 2).sum(1) - detector.net_.radius2.item()
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"compactness": 0.0}, "compactness: 0.0"),
        ({"boundary": "hard"}, "boundary: 'hard'"),
        ({"nu": 1.0}, "nu: 1.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        VAEDeepSVDD(**params).fit(np.random.default_rng(0).normal(size=(50, 3)))


@pytest.mark.data
def test_floor_on_a_real_table(one_class):
    train, test, y = one_class("breastw")
    scores = VAEDeepSVDD(training=Training(updates=150)).fit(train).anomaly_score(test)
    assert roc_auc_score(y, scores) > 0.95
