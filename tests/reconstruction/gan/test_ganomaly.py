from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.gan.ganomaly import GANomaly, GANomalyNet

# small data leave few samples to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return GANomalyNet((1, 8, 8), 4, None)


@pytest.fixture(scope="module")
def parabola():
    t = np.random.default_rng(0).uniform(-1, 1, 500)
    return np.column_stack([t, t**2])


@pytest.fixture(scope="module")
def fitted(parabola):
    return GANomaly(latent=1, training=Training(updates=150)).fit(parabola)


def _batch(n=6, *, gaps=False):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, 8, 8, generator=generator)
    if not gaps:
        return Batch(x)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, :2] = False
    return Batch(x * mask, mask)


def test_three_parts_of_which_the_encoders_share_shapes_and_no_weights(net):
    first, second = dict(net.encode.named_parameters()), dict(net.encode_again.named_parameters())
    assert [p.shape for p in first.values()] == [p.shape for p in second.values()]
    assert not {id(p) for p in first.values()} & {id(p) for p in second.values()}
    assert not {p.data_ptr() for p in first.values()} & {p.data_ptr() for p in second.values()}
    code, made, again = net(_batch().x)
    torch.testing.assert_close(code, net.encode(_batch().x))
    torch.testing.assert_close(made, net.decode(code))
    torch.testing.assert_close(again, net.encode_again(made))


def test_the_generators_loss_is_the_weighted_sum_of_three_means(net):
    batch = _batch()
    code, made, again = net(batch.x)
    parts = [
        (net.critic.features(batch.x) - net.critic.features(made)).square().mean(),
        (batch.x - made).abs().mean(),
        (code - again).square().mean(),
    ]
    for weights in ((1.0, 50.0, 1.0), (0.0, 3.0, 2.0), (2.0, 1.0, 0.0)):
        names = ("adversarial_weight", "contextual_weight", "encoder_weight")
        detector = GANomaly(**dict(zip(names, weights, strict=True)))
        expected = sum(w * part for w, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(detector.generator_loss(net, batch), expected)


def test_the_generator_matches_features_and_never_sees_the_logit(net, monkeypatch):
    batch = _batch()
    before = GANomaly().generator_loss(net, batch)
    monkeypatch.setattr(net.critic.head, "forward", lambda x: 1e6 * x[:, :1])
    torch.testing.assert_close(GANomaly().generator_loss(net, batch), before)
    assert float(GANomaly().discriminator_loss(net, batch).detach()) > 100


def test_the_discriminator_tells_samples_from_reconstructions(net):
    batch = _batch()
    real, fake = net.critic(batch.x), net.critic(net.decode(net.encode(batch.x)))
    expected = 0.5 * (-torch.sigmoid(real).log().mean() - torch.sigmoid(-fake).log().mean())
    torch.testing.assert_close(GANomaly().discriminator_loss(net, batch), expected)
    GANomaly().discriminator_loss(net, batch).backward()
    assert all(p.grad is None for name, p in net.named_parameters() if not name.startswith("critic"))


def test_each_phase_moves_its_own_part(net):
    generator, discriminator = GANomaly().phases(net)
    assert set(generator.modules) == {"encode", "decode", "encode_again"}
    assert discriminator.modules == ("critic",)


@pytest.mark.parametrize("p", [1, 2])
def test_the_score_is_the_distance_of_the_codes_alone(net, p):
    batch = _batch()
    code, made, again = net(batch.x)
    found = GANomaly(p=p).infer(net, batch, frozenset({"map", "restored"}))
    torch.testing.assert_close(found.score, (code - again).abs().pow(p).mean(1))
    torch.testing.assert_close(found.map, (batch.x - made).square())
    torch.testing.assert_close(found.restored, made)
    # an error of the image that the codes do not show does not reach the score
    decode = net.decode.forward
    again_of = net.encode_again.forward
    net.decode.forward = lambda z: decode(z) + 5.0
    net.encode_again.forward = lambda x: again_of(x - 5.0)
    torch.testing.assert_close(GANomaly(p=p).score_batch(net, batch), found.score, rtol=1e-4, atol=1e-5)


def test_what_is_put_into_a_hole_costs_nothing(net):
    batch = _batch(gaps=True)
    # the second encoder does see the whole reconstruction, so its loss is left out here
    detector = GANomaly(encoder_weight=0.0)
    losses = [detector.generator_loss(net, batch), detector.discriminator_loss(net, batch)]
    decode = net.decode.forward
    net.decode.forward = lambda z: decode(z) + 9.0 * ~batch.mask
    torch.testing.assert_close([detector.generator_loss(net, batch), detector.discriminator_loss(net, batch)], losses)
    assert (detector.error_map(net, batch)[~batch.mask] == 0).all()


def test_scores_do_not_hang_on_the_batch_even_in_training_mode(net):
    batch = _batch()
    alone = GANomaly().score_batch(net.train(), Batch(batch.x[:1]))
    torch.testing.assert_close(GANomaly().score_batch(net.train(), batch)[:1], alone)


def test_codes_agree_on_normal_samples_and_differ_off_the_curve(fitted, parabola):
    normal = fitted.anomaly_score(parabola)
    off = fitted.anomaly_score([[2.0, -4.0], [-2.0, -3.0]])
    assert off.min() > 10 * np.median(normal)
    assert fitted.encode(parabola).shape == (500, 1)
    history = fitted.training_report_.history["generator"]
    assert history[-1] < 0.8 * history[0]


def test_scores_survive_saving(fitted, parabola, tmp_path):
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(parabola), fitted.anomaly_score(parabola))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 0}, "latent: 0"),
        ({"adversarial_weight": -1.0}, "adversarial_weight: -1.0"),
        ({"contextual_weight": np.nan}, "contextual_weight: nan"),
        ({"encoder_weight": "1"}, "encoder_weight: '1'"),
        ({"contextual_weight": 0, "encoder_weight": 0}, "set one of them above 0"),
        ({"p": 3}, "p: 3"),
    ],
)
def test_parameters_are_checked(params, message, parabola):
    with pytest.raises(InputError, match=message):
        GANomaly(**params).fit(parabola)


def test_it_is_listed_under_its_short_name():
    assert genad.create("ganomaly", latent=3).latent == 3
    assert GANomaly.card.row == "1.1.3-06"


@pytest.mark.data
def test_floor_on_digits(data_dir):
    with np.load(data_dir / "image" / "mnist10k.npz", allow_pickle=False) as file:
        X, y = file["X"], file["y"]
    X = X[:, None, ::2, ::2].astype(np.float32) / 255
    zeros, others = np.flatnonzero(y == 0), np.flatnonzero(y != 0)[::30]
    detector = GANomaly(training=Training(updates=100)).fit(X[zeros[:400]])
    test = np.r_[zeros[400:700], others]
    scores = detector.anomaly_score(X[test])
    assert roc_auc_score(y[test] != 0, scores) > 0.8
