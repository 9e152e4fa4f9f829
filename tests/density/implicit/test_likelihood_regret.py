"""Likelihood regret: a search for each sample alone, and what it gains."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Backbone, Training
from genad.data.samples import Batch
from genad.density.implicit.likelihood_regret import LikelihoodRegret, directions
from genad.errors import InputError
from genad.nn.vae import draw_posterior

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(600, 2)) @ rng.normal(size=(2, 5)) + 0.2 * rng.normal(size=(600, 5))


@pytest.fixture(scope="module")
def fitted(rows):
    return LikelihoodRegret(latent=4, draws=32, training=Training(updates=300)).fit(rows)


@pytest.fixture(scope="module")
def odd(fitted, rows):
    rng = np.random.default_rng(1)
    return Batch(torch.from_numpy(np.r_[rows[:16] / rows.std(0), 3 * rng.normal(size=(16, 5))]).float())


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_the_score_is_what_the_best_posterior_gains_under_the_same_noise(fitted, odd, bound):
    detector = LikelihoodRegret(latent=4, draws=32, bound=bound)
    net = fitted.net_
    with torch.no_grad():
        before = draw_posterior(net, odd.x, *net.posterior(odd.x), odd.sample_sum)
        after = draw_posterior(net, odd.x, *detector.best_posterior(net, odd), odd.sample_sum)
    if bound == "iwae":
        expected = after.bound - before.bound
    else:
        expected = after.reconstruction - after.divergence - before.reconstruction + before.divergence
    assert torch.allclose(detector.score_batch(net, odd), expected, atol=1e-3)
    # Strange samples have more to gain.
    assert expected[16:].mean() > expected[:16].mean() + 3


@pytest.mark.parametrize("by", ["posterior", "encoder"])
def test_the_search_raises_the_evidence_of_every_sample(fitted, odd, by):
    detector = LikelihoodRegret(latent=4, optimise_by=by, steps=15, rate=None if by == "posterior" else 2e-3)
    net = fitted.net_
    with torch.no_grad():
        start = detector.negative_bound(net, odd, *net.posterior(odd.x))
        found = detector.negative_bound(net, odd, *detector.best_posterior(net, odd))
    # The encoder of a normal sample may be as good as it can be.
    assert (found <= start + 1e-5 * start.abs()).all()
    assert (found < start)[16:].all()


@pytest.mark.parametrize("by", ["posterior", "encoder"])
def test_nothing_of_a_search_is_kept_and_none_meets_another(fitted, odd, by):
    detector = LikelihoodRegret(latent=4, optimise_by=by, steps=5)
    net = fitted.net_
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    whole = detector.score_batch(net, odd)
    parts = [detector.score_batch(net, Batch(odd.x[k : k + 8])) for k in range(0, 32, 8)]
    assert torch.allclose(torch.cat(parts), whole, rtol=1e-3, atol=1e-3)
    assert torch.equal(detector.score_batch(net, odd), whole)
    for name, value in net.state_dict().items():
        assert torch.equal(value, kept[name])


def test_an_encoder_of_its_own_is_the_trained_one_further_optimised(fitted, odd):
    # One step of Adam at a small rate moves every parameter of each copy by that rate, against its own gradient.
    rate = 1e-4
    detector = LikelihoodRegret(latent=4, optimise_by="encoder", steps=1, rate=rate)
    found = detector.best_posterior(fitted.net_, odd)
    net, one = copy.deepcopy(fitted.net_).requires_grad_(), Batch(odd.x[20:21])
    parameters = list(net.encode.parameters())
    loss = detector.negative_bound(net, one, *net.posterior(one.x)).sum()
    loss = loss + 0.5 * 5e-5 * sum(p.square().sum() for p in parameters)
    slopes = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        start = net.posterior(one.x)[0]
        for p, slope in zip(parameters, slopes, strict=True):
            p -= rate * slope.sign()
        expected = net.posterior(one.x)
    assert (expected[0] - start).abs().max() > 2e-3
    assert torch.allclose(found[0][20:21], expected[0], atol=2e-4)
    assert torch.allclose(found[1][20:21], expected[1], atol=2e-4)


@pytest.mark.parametrize("by", ["posterior", "encoder"])
def test_absurd_rows_out_of_reach_of_a_search_gain_by_the_prior(rows, by):
    detector = LikelihoodRegret(latent=2, draws=4, steps=2, optimise_by=by, backbone=Backbone("mlp", hidden=(16,)))
    X = rows[:3].copy()
    X[2, 0] = 1e30
    scores = detector.set_params(training=Training(updates=20)).fit(rows).anomaly_score(X)
    assert np.isfinite(scores).all()
    assert scores[2] > 1e6


def test_more_steps_gain_more(fitted, odd):
    few, many = (
        LikelihoodRegret(latent=4, draws=32, steps=steps).score_batch(fitted.net_, odd).mean() for steps in (3, 40)
    )
    assert many > few > 0


def test_the_noise_to_search_with_is_mirrored(fitted):
    noise = fitted.net_.search_noise
    assert torch.equal(noise[: len(noise) // 2], -noise[len(noise) // 2 :])


def test_the_map_shows_where_the_gain_is_and_the_restored_row_is_the_best_found(fitted, rows):
    broken = rows[:100].copy()
    column = np.arange(100) % 5
    broken[np.arange(100), column] += 8 * rows.std(0)[column]
    found = fitted.detect(broken)
    assert (found.maps >= 0).all()
    assert (found.maps.argmax(1) == column).mean() > 0.6
    assert np.abs((fitted.restore(rows) - rows) / rows.std(0)).mean() < 0.3


def test_no_encoder_of_its_own_for_recurrent_networks():
    X = np.random.default_rng(0).normal(size=(30, 12, 2))
    detector = LikelihoodRegret(optimise_by="encoder", backbone="gru", training=Training(updates=2))
    with pytest.raises(InputError, match=r"optimise_by: .*gru"):
        detector.fit(X)
    other = LikelihoodRegret(latent=2, optimise_by="encoder", steps=2, draws=2, training=Training(updates=2))
    assert np.isfinite(other.fit(X).anomaly_score(X)).all()


@pytest.mark.parametrize(
    "params", [{"optimise_by": "both"}, {"bound": "exact"}, {"steps": 0}, {"rate": 0.0}, {"draws": 0}]
)
def test_unusable_parameters_are_named(params):
    with pytest.raises(InputError, match=next(iter(params))):
        LikelihoodRegret(**params).fit(np.zeros((20, 3)))


@pytest.mark.parametrize(("table", "floor"), [("cardio", 0.85), ("thyroid", 0.9)])
def test_floor_on_real_tables(one_class, table, floor):
    train, test, y = one_class(table)
    keep = np.flatnonzero((y == 1) | (np.arange(len(y)) % 4 == 0))
    detector = LikelihoodRegret(draws=16, training=Training(updates=300)).fit(train[:1500])
    assert roc_auc_score(y[keep], detector.anomaly_score(test[keep])) > floor


@pytest.mark.parametrize("latent", [1, 3, 16, 40])
def test_the_search_looks_in_every_direction(latent):
    noise = directions(latent)
    assert 8 <= len(noise) <= 16
    torch.testing.assert_close(noise.square().mean(0), torch.ones(latent))
    if latent <= 16:
        torch.testing.assert_close(noise.T @ noise / len(noise), torch.eye(latent), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
def test_a_search_that_was_fitted_to_few_codes_is_no_worse_by_others(one_class):
    """With independent noise the regret of most normal rows was negative, and AUROC 0.62 in one seed."""
    for seed in range(3):
        train, test, y = one_class("breastw", seed)
        regret = LikelihoodRegret(random_state=seed).fit(train).anomaly_score(test)
        assert (regret[y == 0] < 0).mean() < 0.3
        assert roc_auc_score(y, regret) > 0.8
