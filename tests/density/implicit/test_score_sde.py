"""Score SDE: the probability flow, its divergence, and likelihoods that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

from genad import Backbone, Training, create
from genad.data.samples import Batch
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=200)
MIXING = np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 1.0], [0.0, 0.0, 0.7]])


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).normal(size=(2000, 3)) @ MIXING


@pytest.fixture(scope="module")
def fitted(normal):
    return create("score_sde", training=Training(updates=500)).fit(normal)


def _blank(sde, shape=(4,)):
    net = create("score_sde", sde=sde).build(shape)
    torch.nn.init.zeros_(net.score.body.last.weight)
    torch.nn.init.zeros_(net.score.body.last.bias)
    return net.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("sde", ["vp", "ve"])
@pytest.mark.parametrize("way", ["closed", "exact", "hutchinson"])
def test_the_likelihood_of_a_standard_gaussian_is_known(sde, way):
    net = _blank(sde)
    x = 2 * torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    expected = multivariate_normal(np.zeros(4)).logpdf(x.numpy())
    assert net.log_density(x, 15, way).numpy() == pytest.approx(expected, abs=0.05)


def test_the_likelihood_of_a_learnt_gaussian_is_near_the_truth(fitted, normal):
    fresh = np.random.default_rng(1).normal(size=(400, 3)) @ MIXING
    z = (fresh - normal.mean(0)) / normal.std(0)
    truth = multivariate_normal(np.zeros(3), np.corrcoef(normal.T)).logpdf(z)
    found = fitted.log_prob(fresh)
    assert found.mean() == pytest.approx(truth.mean(), abs=0.25)
    assert np.corrcoef(found, truth)[0, 1] > 0.9


def test_more_steps_change_nothing(fitted, normal):
    x = torch.from_numpy(normal[:50]).float()
    few, many = (fitted.net_.log_density(x, steps, "closed") for steps in (10, 80))
    assert (few - many).abs().median() < 0.05


def test_the_closed_trace_is_the_trace_of_the_jacobian(fitted):
    net = fitted.net_
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for sigma in (0.02, 1.0, 30.0):
        level = torch.full((1,), sigma)

        def noise_of(row, level=level):
            return net.score.noise(row[None], level)[0]

        jacobians = [torch.autograd.functional.jacobian(noise_of, row) for row in x]
        expected = torch.stack([jacobian.trace() for jacobian in jacobians])
        for way in ("closed", "exact"):
            noise, trace = net.noise_and_trace(x, sigma, way)
            assert torch.allclose(noise, net.score.noise(x, level.expand(5)), atol=1e-5)
            assert torch.allclose(trace, expected, rtol=1e-3, atol=1e-4)


def test_hutchinson_s_probes_are_signs_kept_for_all_rows(fitted):
    net = create("score_sde", probes=6).build((3,))
    assert net.probes.shape == (6, 3)
    assert set(net.probes.unique().tolist()) == {-1.0, 1.0}
    x = torch.randn(1, 3).expand(20, 3)
    trace = net.noise_and_trace(x, 0.5, "hutchinson")[1]
    assert torch.allclose(trace, trace[0].expand(20), rtol=1e-5)
    fitted.net_.probes, kept = (
        torch.randn(400, 3, generator=torch.Generator().manual_seed(0)).sign(),
        fitted.net_.probes,
    )
    exact, estimate = (fitted.net_.noise_and_trace(x, 0.5, way)[1][0].item() for way in ("closed", "hutchinson"))
    fitted.net_.probes = kept
    assert estimate == pytest.approx(exact, abs=0.3)


def test_the_divergence_follows_network_and_size():
    def way(shape, **parameters):
        detector = create("score_sde", **parameters)
        return detector.way(detector.build(shape))

    assert way((100,)) == "closed"
    assert way((100,), divergence="hutchinson") == "hutchinson"
    assert way((8, 3)) == "exact"
    assert way((20, 3)) == "hutchinson"
    assert way((20, 3), divergence="exact") == "exact"
    assert way((5,), backbone=Backbone(hidden=(16, 16, 16))) == "exact"


def test_noise_levels_of_the_diffusions():
    scale, sigma = create("score_sde").build((2,)).level(torch.tensor([0.0, 1e-3, 1.0]))
    assert scale[0] == 1
    assert scale[2].item() == pytest.approx(np.exp(-0.25 * 19.9 - 0.05), rel=1e-4)
    assert torch.allclose(scale.square() * (1 + sigma.square()), torch.ones(3), atol=1e-5)
    scale, sigma = (
        create("score_sde", sde="ve", noise=10.0, first=0.01).build((2,)).level(torch.tensor([0.0, 0.5, 1.0]))
    )
    assert (scale == 1).all()
    assert sigma.tolist() == pytest.approx([0.1, 1.0, 10.0], rel=1e-5)


def test_the_norm_is_that_of_the_score_under_the_least_noise(normal):
    detector = create("score_sde", score_by="norm", training=QUICK).fit(normal)
    net = detector.net_
    x = torch.from_numpy(normal[:10]).float()
    _, sigma = net.level(torch.full((10,), 1e-3))
    assert torch.allclose(detector.score_batch(net, Batch(x)), net.score(x, sigma).norm(dim=1), rtol=1e-5)
    with pytest.raises(InputError, match=r"score_by: .*no density"):
        detector.log_prob(normal[:5])


@pytest.mark.parametrize("weighting", ["simple", "likelihood"])
@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_every_setting_finds_what_is_far_and_restores_it(normal, sde, weighting):
    detector = create("score_sde", sde=sde, weighting=weighting, training=QUICK).fit(normal)
    fresh, odd = normal[:100], normal[:100].copy()
    odd[:, 1] += 10
    assert roc_auc_score(np.repeat([0, 1], 100), detector.anomaly_score(np.vstack([fresh, odd]))) > 0.98
    assert np.linalg.norm(detector.restore(odd) - fresh, axis=1).mean() < 7
    assert np.linalg.norm(detector.restore(fresh) - fresh, axis=1).mean() < 1


@pytest.mark.parametrize("shape", [(1,), (12, 3), (1, 8, 8), (3, 1, 6, 6)])
def test_every_shape_works_and_absurd_values_stay_finite(shape):
    X = np.random.default_rng(0).normal(size=(30, *shape)).astype(np.float32)
    detector = create("score_sde", steps=3, probes=2, training=Training(updates=3)).fit(X)
    X[0] = 1e25
    found = detector.detect(X)
    assert np.isfinite(found.scores).all()
    assert found.scores[0] > np.median(found.scores)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"sde": "sub-vp"}, "sde: .*vp"),
        ({"score_by": "path"}, "score_by: .*norm"),
        ({"divergence": "skilling"}, "divergence: .*hutchinson"),
        ({"steps": 0}, "steps: .*at least 1"),
        ({"probes": 0}, "probes: .*at least 1"),
        ({"weighting": "snr"}, "weighting: .*likelihood"),
        ({"first": 0.0}, "first: .*0.1]"),
        ({"noise": 0.0}, "noise: .*inf"),
    ],
)
def test_wrong_parameters_are_named(normal, parameters, words):
    with pytest.raises(InputError, match=words):
        create("score_sde", **parameters).fit(normal[:50])


@pytest.mark.parametrize(("table", "least"), [("cardio", 0.78), ("thyroid", 0.92)])
def test_floor_on_real_tables(one_class, table, least):
    X, test, y = one_class(table)
    detector = create("score_sde", training=Training(updates=400)).fit(X)
    assert roc_auc_score(y, detector.anomaly_score(test)) > least
