from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.encoder import TableEncoder
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.gaussian import gaussian_log_prob, kl_normal_normal
from genad.restoration.draws import quantile
from genad.restoration.masked_vae import MaskedVAERestorer
from genad.restoration.masked_vae_net import Layout, MaskedVAENet


def mixed(n=300, seed=0):
    """Three colours that decide on a size, whether it is heavy, and a number that has nothing to do with them."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green", "blue"], n)
    size = np.select([colour == "red", colour == "green"], [-4.0, 0.0], 4.0) + 0.3 * rng.normal(size=n)
    return pd.DataFrame({"colour": colour, "size": size, "heavy": size > 2, "other": rng.normal(size=n)})


def net_of(frame, **sizes):
    torch.manual_seed(0)
    encoder = TableEncoder().fit(frame)
    wanted = {"hidden": (8, 8), "latent": 3, "draws": 5, "sets": 24, "min_std": 0.1} | sizes
    net = MaskedVAENet(Layout.of(encoder), **wanted)
    return net.eval(), torch.from_numpy(encoder.transform(frame)[0])


def linked(n=500, seed=0):
    """Five numbers made of two."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0.8, 0.0, -0.6, 0.3], [0.0, 0.6, 1.0, 0.8, -0.9]])
    return rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, 5))


def test_columns_of_a_category_are_one_feature():
    net, x = net_of(mixed())
    assert net.features == 4
    assert net.owner.tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert net.kinds.tolist() == [1, 1, 1, 1, 0, 2, 0]
    present = x * net.scale + net.shift
    torch.testing.assert_close(present[:, :4].sum(1), torch.ones(300))
    assert set(present[:, 5].round(decimals=4).tolist()) == {0.0, 1.0}


def test_every_kind_of_feature_has_its_likelihood():
    net, x = net_of(mixed())
    outputs = torch.randn(2, 300, 7)
    first, second = outputs
    found = net.log_prob(x, (first, second))
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(
        found[:, 3], gaussian_log_prob(x[:, 6], first[:, 6], softplus(second[:, 6]) + 0.1), atol=1e-5, rtol=1e-4
    )
    logit = 15 * torch.tanh(first / 15)
    level = (x * net.scale + net.shift)[:, :4].argmax(1)
    expected = logit[:, :4].log_softmax(1).gather(1, level[:, None])[:, 0]
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-4)
    truth = (x * net.scale + net.shift)[:, 5]
    bernoulli = torch.distributions.Bernoulli(logits=logit[:, 5], validate_args=False).log_prob(truth.round())
    torch.testing.assert_close(found[:, 2], bernoulli, atol=1e-4, rtol=1e-4)
    # Asked for some columns, the others have none.
    some = torch.tensor([4, 6])
    part = net.log_prob(x, (first[:, some], second[:, some]), some)
    torch.testing.assert_close(part, found * torch.tensor([0.0, 1.0, 0.0, 1.0]))


def test_the_prior_sees_visible_values_and_the_posterior_all():
    net, x = net_of(mixed())
    observed = torch.ones_like(x, dtype=torch.bool)
    visible = observed.clone()
    visible[:, 4] = False
    other = torch.where(visible, x, x + 3)
    for one, two in zip(net.prior(net.seen(x, visible)), net.prior(net.seen(other, visible)), strict=True):
        assert torch.equal(one, two)
    assert not torch.allclose(net.posterior(x, observed, visible)[0], net.posterior(other, observed, visible)[0])
    # And is told which values are hidden.
    assert not torch.allclose(net.posterior(x, observed, visible)[0], net.posterior(x, observed, observed)[0])


def test_loss_is_the_bound_of_what_is_hidden_given_what_is_seen(monkeypatch):
    net, x = net_of(mixed())
    torch.manual_seed(1)
    loss = MaskedVAERestorer().loss(net, Batch(x))
    torch.manual_seed(1)
    ratio = 0.7 * torch.rand(300, 1)
    hidden = torch.rand(300, 4) < ratio
    visible, observed = ~hidden[:, net.owner], torch.ones_like(x, dtype=torch.bool)
    posterior, prior = net.posterior(x, observed, visible), net.prior(seen := net.seen(x, visible))
    z = posterior[0] + posterior[1] * torch.randn_like(posterior[0])
    likelihood = (net.log_prob(x, net.decode(z, seen)) * hidden).sum()
    weak = 1e-4 * (0.5 * prior[0].square() + prior[1] - prior[1].log()).sum()
    bound = likelihood - kl_normal_normal(*posterior, *prior).sum() - weak
    torch.testing.assert_close(loss, -bound / (4 * 300))


def test_the_surprise_is_the_density_averaged_over_codes_of_the_prior():
    net, x = net_of(mixed())
    observed = torch.ones_like(x, dtype=torch.bool)
    found = net.surprises(x, observed)
    for feature, columns in enumerate(([0, 1, 2, 3], [4], [5], [6])):
        visible = observed.clone()
        visible[:, columns] = False
        seen = net.seen(x, visible)
        mean, std = net.prior(seen)
        log_p = [net.log_prob(x, net.decode(mean + std * eps, seen))[:, feature] for eps in net.noise]
        expected = -(torch.stack(log_p).logsumexp(0) - math.log(5))
        torch.testing.assert_close(found[:, feature], expected, atol=1e-4, rtol=1e-4)
    # Its own value aside, a feature's surprise hangs on the visible others alone.
    hidden = observed.clone()
    hidden[:, 6] = False
    other = x.clone()
    other[:, 6] += 5
    torch.testing.assert_close(net.surprises(other, hidden)[:, :3], net.surprises(x, hidden)[:, :3])


def test_features_of_wide_tables_are_hidden_in_sets():
    torch.manual_seed(0)
    net = MaskedVAENet(Layout.plain(7), (8,), 2, 3, 3, 0.1)
    assert net.turns.tolist() == [[0, 1, 2, 0, 1, 2, 0], [0, 1, 0, 1, 0, 1, 0], [0] * 7]
    x = torch.randn(4, 7)
    other = x.clone()
    other[:, 3] += 5
    every = torch.ones(4, 7, dtype=torch.bool)
    moved = (net.surprises(x, every) - net.surprises(other, every)).abs().amax(0) > 1e-7
    assert moved.tolist() == [False, True, True, True, True, True, False]


@pytest.fixture(scope="module")
def fitted():
    return MaskedVAERestorer(training=Training(updates=500, lr=3e-3)).fit(linked())


def test_missing_values_follow_from_the_others(fitted, tmp_path):
    fresh = linked(300, seed=1)
    gaps = fresh.copy()
    gaps[np.arange(300), np.arange(300) % 5] = np.nan
    hidden = np.isnan(gaps)
    restored = fitted.restore(gaps)
    assert np.square(restored - fresh)[hidden].mean() < 0.2 * np.square(linked().mean(0) - fresh)[hidden].mean()
    assert np.isclose(restored, fresh, atol=1e-5)[~hidden].mean() > 0.95
    low, high = fitted.interval(gaps, 0.8)
    assert 0.5 < ((low <= fresh) & (fresh <= high))[hidden].mean() <= 1.0
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.restore(gaps), restored)


def test_ends_of_intervals_are_those_of_few_draws_of_the_value_itself():
    net, x = net_of(mixed())
    visible = torch.ones_like(x, dtype=torch.bool)
    visible[:, 4] = visible[:, 6] = False
    seen = net.seen(x, visible)
    mean, std = net.prior(seen)
    draws = net.expected(net.decode(mean + std * net.noise.unsqueeze(1), seen), net.jitter.unsqueeze(1))
    detector = MaskedVAERestorer()
    for level in (0.1, 0.3, 0.5):
        detector._level = level
        found = detector.restored(net, x, visible)
        torch.testing.assert_close(found[:, [4, 6]], quantile(draws, level)[:, [4, 6]])
        assert torch.equal(found[visible], x[visible])
    # Of five draws, the smallest is all there is to say of the lowest tenth.
    detector._level = 0.1
    assert torch.equal(detector.restored(net, x, visible)[:, 6], draws.amin(0)[:, 6])


def test_the_value_that_does_not_belong_is_found_and_mended_and_no_other(fitted):
    fresh = linked(200, seed=2)
    bad = fresh.copy()
    where = (np.arange(200), np.arange(200) % 5)
    bad[where] += 6.0
    found = fitted.detect(bad)
    assert roc_auc_score(np.repeat([0, 1], 200), fitted.anomaly_score(np.r_[fresh, bad])) > 0.98
    changed = ~np.isclose(found.restored, bad, atol=1e-5)
    assert changed[where].mean() > 0.95
    # Judged without it, its neighbours look right again.
    changed[where] = False
    assert changed.mean() < 0.1
    assert np.abs(found.restored - fresh)[where].mean() < 1.0
    assert fitted.anomaly_score(found.restored).mean() < 0.2 * found.scores.mean()


def test_no_more_than_the_budget_is_changed():
    detector = MaskedVAERestorer(changes=1, training=Training(updates=100)).fit(linked())
    bad = linked(50, seed=3) + 8 * np.random.default_rng(0).choice([-1, 1], (50, 5))
    assert ((~np.isclose(detector.restore(bad), bad, atol=1e-5)).sum(1) == 1).all()


def test_a_row_is_judged_by_none_half_and_all_of_its_other_values():
    net, x = net_of(mixed(), sets=1)
    every = torch.ones_like(x, dtype=torch.bool)
    # In one set, all features are hidden: what is left is the same for all rows.
    alone, average = net.both(x, every)
    nothing = net.seen(x, torch.zeros_like(every))
    mean, std = net.prior(nothing)
    log_p = torch.stack([net.log_prob(x, net.decode(mean + std * eps, nothing)) for eps in net.noise])
    torch.testing.assert_close(alone, math.log(5) - log_p.logsumexp(0), atol=1e-4, rtol=1e-4)
    half = net.surprises(x, every, 1)
    torch.testing.assert_close(average, (2 * alone + half) / 3)
    visible = every.clone()
    visible[:, net.owner % 2 == 0] = False
    seen = net.seen(x, visible)
    mean, std = net.prior(seen)
    log_p = torch.stack([net.log_prob(x, net.decode(mean + std * eps, seen)) for eps in net.noise])
    torch.testing.assert_close(half[:, [0, 2]], (math.log(5) - log_p.logsumexp(0))[:, [0, 2]], atol=1e-4, rtol=1e-4)


def test_sum_and_max_of_standardised_surprises(fitted):
    x, net = torch.randn(6, 5), fitted.net_
    every = torch.ones_like(x, dtype=torch.bool)
    alone, average = (net.both(x, every) - net.centre.unsqueeze(1)) / net.spread.unsqueeze(1)
    torch.testing.assert_close(fitted.score_batch(net, Batch(x)), average.sum(1))
    torch.testing.assert_close(fitted.error_map(net, Batch(x)), average.clamp_min(0))
    for given, standard in (("any", average), ("others", alone)):
        other = MaskedVAERestorer(aggregate="max", given=given)
        torch.testing.assert_close(other.score_batch(net, Batch(x)), standard.amax(1))
    mask = every.clone()
    mask[:, 1] = False
    gone = (net.both(x * mask, mask)[1] - net.centre[1]) / net.spread[1]
    torch.testing.assert_close(
        fitted.score_batch(net, Batch(x * mask, mask)), gone[:, [0, 2, 3, 4]].mean(1) * 5, atol=1e-4, rtol=1e-4
    )


def test_a_level_that_contradicts_the_rest_is_replaced():
    detector = MaskedVAERestorer(training=Training(updates=500, lr=5e-3)).fit(mixed(600))
    rows = mixed(40, seed=5)
    wrong = rows.copy()
    wrong["colour"] = rows["colour"].map({"red": "blue", "green": "red", "blue": "green"})
    restored = detector.restore(wrong)
    # Where the size tells two colours apart and nothing else speaks for it, the size may be taken for the odd one.
    mended = (restored["colour"] == rows["colour"]) | ~np.isclose(restored["size"], rows["size"])
    assert (restored["colour"] == rows["colour"]).mean() > 0.5
    assert mended.mean() > 0.9
    gaps = rows.copy()
    gaps.loc[:, "colour"] = None
    assert (detector.restore(gaps)["colour"] == rows["colour"]).mean() > 0.9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"hidden": ()}, r"hidden: \(\) was given"),
        ({"hidden": (8, 0)}, "hidden"),
        ({"draws": 1}, "draws: 1"),
        ({"ratio": 0.0}, "ratio: 0.0"),
        ({"aggregate": "mean"}, "aggregate: 'mean'"),
        ({"given": "all"}, "given: 'all'"),
        ({"changes": 0}, "changes: 0"),
        ({"quantile": 1.0}, "quantile: 1.0"),
        ({"sets": 0}, "sets: 0"),
        ({"min_std": 0.0}, "min_std: 0.0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        MaskedVAERestorer(**params).fit(linked())


@pytest.mark.data
def test_floor_on_a_real_table(one_class):
    train, test, y = one_class("cardio")
    scores = MaskedVAERestorer(training=Training(updates=400)).fit(train).anomaly_score(test)
    assert roc_auc_score(y, scores) > 0.85
