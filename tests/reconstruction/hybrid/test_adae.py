from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.hybrid.adae import ADAE

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture(scope="module")
def plane():
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(500, 6))


@pytest.fixture(scope="module")
def fitted(plane):
    return ADAE(training=Training(updates=200)).fit(plane)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ADAE().build((6,))


def standard(X):
    return Batch(torch.from_numpy(((X - X.mean(0)) / X.std(0)).astype(np.float32)))


def error(x, y):
    return (x - y).abs().mean()


def test_both_are_autoencoders_with_weights_of_their_own(net):
    one, two = net.generator.state_dict(), net.discriminator.state_dict()
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_generator_reconstructs_and_makes_what_the_discriminator_reconstructs(net, plane):
    batch = standard(plane)
    made = net.generator(batch.x)
    for weight in (0.0, 0.7):
        expected = error(batch.x, made) + weight * error(made, net.discriminator(made))
        assert torch.allclose(ADAE(adversarial_weight=weight).generator_loss(net, batch), expected)


def test_discriminator_reconstructs_real_samples_and_fails_on_made_ones_up_to_the_margin(net, plane):
    batch = standard(plane)
    made = net.generator(batch.x)
    real, fake = error(batch.x, net.discriminator(batch.x)), error(made, net.discriminator(made))
    # Far below the margin the loss is the paper's, shifted by m; at the margin it is the error on real samples.
    assert torch.allclose(ADAE(margin=100.0).discriminator_loss(net, batch), real + 100 * real - fake)
    assert torch.allclose(ADAE(margin=0.0).discriminator_loss(net, batch), real)


def test_discriminator_loss_is_bounded_below(net, plane):
    batch = standard(plane)
    with torch.no_grad():
        for parameter in net.discriminator.parameters():
            parameter.mul_(30.0)
    assert ADAE(margin=2.0).discriminator_loss(net, batch) >= 0


def test_generator_receives_no_gradient_from_the_discriminator(net, plane):
    ADAE(margin=5.0).discriminator_loss(net, standard(plane)).backward()
    assert all(p.grad is None for p in net.generator.parameters())
    assert all(p.grad is not None for p in net.discriminator.parameters())


def test_each_phase_moves_its_own_part(net):
    phases = ADAE().phases(net)
    assert [(phase.name, tuple(phase.modules)) for phase in phases] == [
        ("generator", ("generator",)),
        ("discriminator", ("discriminator",)),
    ]


def test_score_is_the_error_behind_both(fitted, plane):
    z = standard(plane)
    with torch.no_grad():
        through = fitted.net_.discriminator(fitted.net_.generator(z.x))
        score = fitted.score_batch(fitted.net_, z)
    assert torch.allclose(score, (z.x - through).square().mean(1), atol=1e-6)
    assert not torch.allclose(score, (z.x - fitted.net_.generator(z.x)).square().mean(1), atol=1e-4)


def test_the_opponent_makes_the_discriminator_worse_on_made_samples(plane):
    z = standard(plane)
    gaps = []
    for margin in (0.0, 3.0):
        net = ADAE(margin=margin, training=Training(updates=200)).fit(plane).net_
        with torch.no_grad():
            made = net.generator(z.x)
            gaps.append(float(error(made, net.discriminator(made)) / error(z.x, net.discriminator(z.x))))
    assert gaps[1] > 1.2 * gaps[0]


def test_anomalies_off_the_plane_are_found(fitted, plane):
    odd = plane[:100] + 1.5 * np.random.default_rng(1).normal(size=(100, 6))
    y = np.r_[np.zeros(400), np.ones(100)]
    assert roc_auc_score(y, fitted.anomaly_score(np.r_[plane[100:], odd])) > 0.95


@pytest.mark.parametrize("shape", [(12, 2), (1, 8, 8), (4, 1, 8, 8)])
def test_other_shapes(shape):
    X = np.random.default_rng(0).normal(size=(50, *shape))
    detector = ADAE(latent=5, training=Training(updates=5)).fit(X)
    assert detector.anomaly_map(X).shape[0] == 50
    assert detector.encode(X).shape == (50, 5)


def test_missing_values_add_nothing(fitted, plane):
    X = plane.copy()
    X[:, 1] = np.nan
    maps = fitted.anomaly_map(X)
    assert (maps[:, 1] == 0).all()
    assert np.isfinite(fitted.anomaly_score(X)).all()


def test_saved_and_loaded_scores_alike(fitted, plane, tmp_path):
    again = load(fitted.save(tmp_path / "adae.genad"))
    assert (again.anomaly_score(plane) == fitted.anomaly_score(plane)).all()


def test_real_table(one_class):
    train, test, y = one_class("ionosphere")
    assert roc_auc_score(y, ADAE().fit(train).anomaly_score(test)) > 0.93


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent": 0}, "latent: 0 was given"),
        ({"margin": -1.0}, "margin: -1.0 was given"),
        ({"adversarial_weight": -1.0}, "adversarial_weight: -1.0 was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        ADAE(**parameters).fit(np.random.default_rng(0).normal(size=(50, 3)))
