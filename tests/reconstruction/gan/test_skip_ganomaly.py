from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Ensemble, Training, Windowed
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.conv import UNet
from genad.reconstruction.gan.skip_ganomaly import SkipGANomaly, SkipGANomalyNet

# small data leave few samples to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SkipGANomalyNet((1, 8, 8), None)


def _batch(n=6):
    return Batch(torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_the_generator_is_a_u_net(net):
    assert isinstance(net.generator, UNet)
    assert len(net.generator.down_blocks) >= 1


def test_the_generators_loss_is_the_weighted_sum_of_three_parts(net):
    batch = _batch()
    made = net(batch.x)
    parts = [
        -torch.sigmoid(net.critic(made)).log().mean(),
        (net.critic.features(batch.x) - net.critic.features(made)).square().mean(),
        (batch.x - made).abs().mean(),
    ]
    for weights in ((1.0, 1.0, 50.0), (0.0, 2.0, 3.0)):
        names = ("adversarial_weight", "latent_weight", "contextual_weight")
        loss = SkipGANomaly(**dict(zip(names, weights, strict=True))).generator_loss(net, batch)
        torch.testing.assert_close(loss, sum(w * part for w, part in zip(weights, parts, strict=True)))


def test_the_discriminators_loss_holds_the_features_too(net):
    batch = _batch()
    made = net(batch.x)
    real, fake = torch.sigmoid(net.critic(batch.x)), torch.sigmoid(net.critic(made))
    apart = (net.critic.features(batch.x) - net.critic.features(made)).square().mean()
    expected = -real.log().mean() - (1 - fake).log().mean() + apart
    loss = SkipGANomaly().discriminator_loss(net, batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for name, p in net.named_parameters() if name.startswith("generator"))


def test_the_score_weighs_values_and_features(net):
    batch = _batch()
    made = net(batch.x)
    image = (batch.x - made).square().mean((1, 2, 3))
    apart = (net.critic.features(batch.x) - net.critic.features(made)).square().mean(1)
    for weight in (0.0, 0.1, 1.0):
        torch.testing.assert_close(
            SkipGANomaly(lambda_d=weight).score_batch(net, batch), (1 - weight) * image + weight * apart
        )


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="image"):
        SkipGANomaly().fit(np.zeros((40, 3)))
    series = Windowed(SkipGANomaly(training=Training(updates=2)), window=8)
    with pytest.raises(InputError, match="skip_ganomaly takes image data, not windows"):
        series.fit(np.random.default_rng(0).normal(size=(60, 2)))
    with pytest.raises(InputError, match="Take GANomaly"):
        Ensemble(SkipGANomaly(training=Training(updates=2)), n=2).fit(np.random.default_rng(0).normal(size=(60, 3)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"adversarial_weight": -1.0}, "adversarial_weight: -1.0"),
        ({"latent_weight": np.nan}, "latent_weight: nan"),
        ({"contextual_weight": 0.0}, "contextual_weight: 0.0"),
        ({"lambda_d": 2}, "lambda_d: 2"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        SkipGANomaly(**params).fit(np.zeros((20, 1, 8, 8)))


@pytest.mark.data
def test_floor_on_digits(data_dir):
    with np.load(data_dir / "image" / "mnist10k.npz", allow_pickle=False) as file:
        X, y = file["X"], file["y"]
    X = X[:, None, ::2, ::2].astype(np.float32) / 255
    ones, others = np.flatnonzero(y == 1), np.flatnonzero(y != 1)[::90]
    detector = SkipGANomaly(training=Training(updates=30)).fit(X[ones[:200]])
    test = np.r_[ones[300:400], others]
    assert roc_auc_score(y[test] != 1, detector.anomaly_score(X[test])) > 0.8
