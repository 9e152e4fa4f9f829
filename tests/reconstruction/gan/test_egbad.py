from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.gan.egbad import EGBAD, EGBADNet

# small data leave few samples to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return EGBADNet((6,), 2, None)


@pytest.fixture(scope="module")
def parabola():
    t = np.random.default_rng(0).uniform(-1, 1, 500)
    return np.column_stack([t, t**2])


def _batch(n=8):
    return Batch(torch.randn(n, 6, generator=torch.Generator().manual_seed(1)))


def _losses(net, batch, seed=3):
    """Return the cross-entropies of (x, E(x)) and (G(z), z) being called real, and generated."""
    torch.manual_seed(seed)
    z = torch.randn(len(batch), 2)
    seen = torch.sigmoid(net.critic(batch.x, net.encoder(batch.x)))
    made = torch.sigmoid(net.critic(net.generator(z), z))
    return [-p.log().mean() for p in (seen, made)], [-(1 - p).log().mean() for p in (seen, made)]


def test_the_discriminator_calls_encoded_samples_real_and_generated_ones_not(net):
    (seen_real, _), (_, made_fake) = _losses(net, _batch())
    torch.manual_seed(3)
    torch.testing.assert_close(EGBAD().discriminator_loss(net, _batch()), 0.5 * (seen_real + made_fake))


def test_encoder_and_generator_get_both_labels_exchanged(net):
    batch = _batch()
    (_, made_real), (seen_fake, _) = _losses(net, batch)
    torch.manual_seed(3)
    torch.testing.assert_close(EGBAD(cycle=0).generator_loss(net, batch), 0.5 * (seen_fake + made_real))
    torch.manual_seed(3)
    residual = (batch.x - net(batch.x)).abs().mean()
    expected = 0.5 * (seen_fake + made_real) + 2 * residual
    torch.testing.assert_close(EGBAD(cycle=2.0).generator_loss(net, batch), expected)


def test_each_phase_moves_its_own_part(net):
    discriminator, generator = EGBAD().phases(net)
    assert discriminator.modules == ("critic",)
    assert set(generator.modules) == {"encoder", "generator"}
    EGBAD().discriminator_loss(net, _batch()).backward()
    assert all(p.grad is None for name, p in net.named_parameters() if not name.startswith("critic"))
    EGBAD(cycle=0).generator_loss(net, _batch()).backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("critic"))


def test_the_discriminator_judges_sample_and_code_together(net):
    x, z = _batch().x, torch.randn(8, 2)
    logit = net.critic(x, z)
    assert not torch.allclose(logit, net.critic(x, z.roll(1, 0)))
    assert not torch.allclose(logit, net.critic(x.roll(1, 0), z))
    torch.testing.assert_close(logit, net.critic.head(net.critic.features(x, z)).squeeze(-1))


def test_the_score_weighs_residual_and_discriminator(net):
    batch = _batch()
    code, made = net.encoder(batch.x), net(batch.x)
    residual = (batch.x - made).abs().mean(1)
    entropy = -torch.sigmoid(net.critic(batch.x, code)).log()
    apart = (net.critic.features(batch.x, code) - net.critic.features(made, code)).abs().mean(1)
    for weight in (0.0, 0.3, 1.0):
        for name, doubt in (("cross_entropy", entropy), ("features", apart)):
            score = EGBAD(lambda_d=weight, doubt=name).score_batch(net, batch)
            torch.testing.assert_close(score, (1 - weight) * residual + weight * doubt)
    found = EGBAD().infer(net, batch, frozenset({"map", "restored"}))
    torch.testing.assert_close(found.map, (batch.x - made).square())
    torch.testing.assert_close(found.restored, made)


def test_what_is_put_into_a_hole_costs_nothing(net):
    x = _batch().x
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 2] = False
    batch = Batch(x * mask, mask)
    detector = EGBAD()
    before = detector.infer(net, batch, frozenset({"map"}))
    bias = net.generator[-1].bias
    with torch.no_grad():
        bias[2] += 7.0
    after = detector.infer(net, batch, frozenset({"map"}))
    torch.testing.assert_close(after.score, before.score)
    assert (after.map[:, 2] == 0).all()


def test_encoder_and_generator_learn_to_invert_each_other(parabola):
    detector = EGBAD(latent=1, training=Training(updates=200)).fit(parabola)
    normal = detector.anomaly_score(parabola)
    assert detector.anomaly_score([[2.0, -4.0], [-2.0, -3.0]]).min() > 3 * np.median(normal)
    drawn = detector.sample(400)
    # what is generated lies about the curve, and not anywhere in the plane
    assert np.median(np.abs(drawn[:, 1] - drawn[:, 0] ** 2)) < 0.6 * np.median(np.abs(parabola[:, 1] - 1 / 3))
    assert detector.encode(parabola).shape == (500, 1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"lambda_d": 1.5}, "lambda_d: 1.5"),
        ({"doubt": "both"}, "doubt: 'both'"),
        ({"cycle": -1.0}, "cycle: -1.0"),
    ],
)
def test_parameters_are_checked(params, message, parabola):
    with pytest.raises(InputError, match=message):
        EGBAD(**params).fit(parabola)


@pytest.mark.data
def test_floor_on_a_table(data_dir):
    with np.load(data_dir / "tabular" / "adbench_thyroid.npz", allow_pickle=False) as file:
        X, y = file["X"], file["y"].ravel()
    normal = np.flatnonzero(y == 0)
    test = np.r_[normal[1500:2500], np.flatnonzero(y == 1)]
    detector = genad.create("egbad", training=Training(updates=80)).fit(X[normal[:1500]])
    assert roc_auc_score(y[test], detector.anomaly_score(X[test])) > 0.8
