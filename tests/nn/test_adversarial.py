from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genad.errors import InputError
from genad.nn import Backbone, adversarial, decoder
from genad.nn.adversarial import (
    Critic,
    DenseSearch,
    discriminator_loss,
    feature_distance,
    generator_loss,
    gradient_penalty,
    invert_latent,
    leaky,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_networks_leak_and_light_ones_have_one_dense_layer():
    assert leaky((4,)) == Backbone("mlp", None, "leaky_relu")
    assert leaky((1, 28, 28)) == Backbone("conv", None, "leaky_relu")
    assert leaky((1, 64, 64), light=True) == Backbone("mlp", (128,), "leaky_relu")
    assert leaky((1, 64, 65), light=True).name == "conv"
    assert leaky((12, 2), light=True).name == "tcn"
    assert leaky((1, 28, 28), "conv", light=True).name == "conv"
    asked = Backbone(hidden=(4, 4), activation="tanh", dropout=0.1)
    assert leaky((1, 28, 28), asked, light=True) == Backbone("conv", (4, 4), "tanh", 0.1)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [((4,), None), ((12, 2), None), ((12, 2), "gru"), ((1, 8, 8), None), ((3, 1, 1), None), ((2, 1, 8, 8), None)],
)
def test_a_critic_shows_the_layer_before_its_logit(shape, spec):
    critic = Critic(shape, spec)
    x = torch.randn(5, *shape)
    logit, features = critic.both(x)
    assert logit.shape == (5,)
    assert features.ndim == 2
    torch.testing.assert_close(critic(x), logit)
    torch.testing.assert_close(critic.features(x), features)
    torch.testing.assert_close(nn.functional.linear(features, critic.head.weight, critic.head.bias)[:, 0], logit)


def test_a_critic_never_mixes_samples():
    critic = Critic((1, 8, 8))
    x = torch.randn(6, 1, 8, 8)
    other = x.clone()
    other[1:] = 100.0
    torch.testing.assert_close(critic.train()(x)[0], critic.train()(other)[0])


def test_losses_are_cross_entropies():
    real, fake = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5, -0.7])
    p, q = torch.sigmoid(real), torch.sigmoid(fake)
    torch.testing.assert_close(discriminator_loss(real, fake), -0.5 * (p.log().mean() + (1 - q).log().mean()))
    torch.testing.assert_close(generator_loss(fake), -q.log().mean())


def test_the_generators_loss_does_not_saturate():
    logit = torch.tensor([-30.0], requires_grad=True)
    generator_loss(logit).backward()
    assert float(logit.grad) == pytest.approx(-1.0)


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_gradient_penalty_of_a_plane(slope, expected):
    x = torch.randn(7, 3, 2)
    penalty = gradient_penalty(lambda v: slope * v[:, 0, 1], x, torch.randn(7, 3, 2))
    assert float(penalty) == pytest.approx(expected, abs=1e-4)


def test_gradient_penalty_is_taken_between_the_samples_and_moves_the_critic():
    seen = []
    critic = Critic((2,))

    def spy(v):
        seen.append(v)
        return critic(v)

    real, fake = torch.zeros(50, 2), torch.tensor([1.0, 2.0]).expand(50, 2)
    gradient_penalty(spy, real, fake).backward()
    (between,) = seen
    share = between[:, 0]
    torch.testing.assert_close(between[:, 1], 2 * share)
    assert 0 <= share.min() < 0.2 < 0.8 < share.max() <= 1
    grads = [p.grad for p in critic.parameters() if p.grad is not None]
    assert any(float(g.abs().sum()) > 0 for g in grads)


def test_feature_distance_is_a_mean_by_sample():
    a, b = torch.tensor([[0.0, 0.0], [1.0, 5.0]]), torch.tensor([[1.0, -3.0], [1.0, 5.0]])
    assert feature_distance(a, b, 1).tolist() == [2.0, 0.0]
    assert feature_distance(a, b).tolist() == [5.0, 0.0]


def _search(n, steps=60, **kwargs):
    generator = decoder((6,), 2, "mlp").requires_grad_(requires_grad=False)
    target = generator(torch.randn(n, 2))
    start = torch.randn(1, 2).expand(n, -1)

    def loss(z, rows=slice(None)):
        return (generator(z) - target[rows]).abs().mean(1)

    return loss, start, invert_latent(loss, start, steps=steps, rate=0.1, **kwargs)


def test_the_search_lowers_every_loss_and_returns_the_best_code_met():
    loss, start, (codes, lowest, trace) = _search(8)
    assert trace.shape == (61, 8)
    torch.testing.assert_close(trace[0], loss(start))
    torch.testing.assert_close(lowest, trace.min(0).values)
    torch.testing.assert_close(loss(codes), lowest)
    assert (lowest < trace[0]).all()
    assert lowest.mean() < 0.5 * trace[0].mean()
    assert not codes.requires_grad
    assert not trace.requires_grad


def test_rows_searched_together_and_alone_agree():
    loss, start, (codes, lowest, _) = _search(4, steps=20)
    for i in range(4):
        rows = slice(i, i + 1)
        alone, least, _ = invert_latent(lambda z, rows=rows: loss(z, rows), start[rows], steps=20, rate=0.1)
        torch.testing.assert_close(alone, codes[rows], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(least, lowest[rows], rtol=1e-4, atol=1e-5)


def test_the_search_takes_the_steps_of_adam():
    target = torch.randn(3, 2)
    start = torch.randn(3, 2)
    weights = start.clone().requires_grad_()
    adam = torch.optim.Adam([weights], lr=0.05, betas=(0.8, 0.95), eps=1e-12)
    expected = []
    for _ in range(15):
        adam.zero_grad()
        found = (weights - target).square().sum(1)
        expected.append(found.detach().clone())
        found.sum().backward()
        adam.step()
    _, _, trace = invert_latent(lambda z: (z - target).square().sum(1), start, steps=14, rate=0.05, betas=(0.8, 0.95))
    torch.testing.assert_close(trace, torch.stack(expected))


def test_rows_below_the_tolerance_stay_and_all_of_them_end_the_search():
    target = torch.tensor([[0.0], [1.0]])
    met = []

    def loss(z):
        met.append(z.detach().clone())
        return (z - target).abs().sum(1)

    codes, lowest, trace = invert_latent(loss, torch.zeros(2, 1), steps=500, rate=0.05, tolerance=0.1)
    assert all(float(z[0, 0]) == 0.0 for z in met)
    assert lowest[0] == 0
    assert lowest[1] <= 0.1
    assert len(trace) == len(met) < 30
    assert math.isclose(float(codes[1, 0]), 0.9, abs_tol=0.06)


def test_codes_of_any_rank_and_no_change_of_the_start():
    start = torch.ones(3, 4, 2)
    codes, lowest, _ = invert_latent(lambda z: z.square().sum((1, 2)), start, steps=50, rate=0.1)
    assert codes.shape == (3, 4, 2)
    assert lowest.max() < 0.1
    assert torch.equal(start, torch.ones(3, 4, 2))


def _dense(shape, hidden, n):
    spec = Backbone("mlp", hidden, "leaky_relu")
    networks = decoder(shape, 3, spec), Critic(shape, spec)
    return *(net.requires_grad_(requires_grad=False) for net in networks), torch.randn(n, *shape)


@pytest.mark.parametrize("cached", [2**17, 64 * 3, 1])
@pytest.mark.parametrize(("shape", "hidden"), [((1, 8, 8), (5,)), ((40,), (16, 8)), ((6, 4), (4,))])
def test_a_dense_search_compares_what_both_networks_would_and_has_their_slope(monkeypatch, shape, hidden, cached):
    # whole, in parts with a shorter last one, and row by row
    monkeypatch.setattr(adversarial, "_CACHED", cached)
    generator, critic, x = _dense(shape, hidden, 11)
    codes = torch.randn(11, 3, requires_grad=True)
    made = generator(codes)
    expected = (made - x).abs().flatten(1).mean(1), feature_distance(critic.features(x), critic.features(made), 1)
    assert DenseSearch.fits(generator, critic)
    found = DenseSearch(generator, critic, x)(codes)
    # one weight a row and a term, so that no slope can stand in for another
    weights = torch.rand(2, 11)
    slopes = []
    for terms in (expected, found):
        (slope,) = torch.autograd.grad((weights * torch.stack(terms)).sum(), codes)
        slopes.append(slope)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(slopes[1], slopes[0])
    with torch.no_grad():
        torch.testing.assert_close(DenseSearch(generator, critic, x)(codes)[0], expected[0].detach())


def test_a_dense_search_is_for_dense_networks_around_a_wide_layer():
    generator, critic, x = _dense((6,), (8,), 4)
    assert not DenseSearch.fits(generator, critic)
    with pytest.raises(InputError, match="affine"):
        DenseSearch(generator, critic, x)
    generator, critic, _ = _dense((1, 8, 8), (5,), 4)
    assert not DenseSearch.fits(decoder((1, 8, 8), 3, "conv"), critic)
    assert not DenseSearch.fits(generator, Critic((1, 8, 8), "conv"))
