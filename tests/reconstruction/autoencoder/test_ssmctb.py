from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.conv import Upsampling
from genad.nn.ssmctb import SSMCTBlock
from genad.nn.structural import contrast
from genad.reconstruction.autoencoder.ssmctb import SSMCTB

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=20)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:12, :12]
    place = rng.uniform(3, 8, (200, 2, 1, 1))
    return np.exp(-((row - place[:, 0]) ** 2 + (column - place[:, 1]) ** 2) / 8)[:, None]


@pytest.fixture(scope="module")
def fitted(images):
    return SSMCTB(latent=8, training=Training(updates=150)).fit(images)


def batch(images):
    return Batch(torch.from_numpy(((images - images.mean()) / images.std()).astype(np.float32)))


def test_block_stands_in_front_of_the_last_layer(fitted, images):
    net = fitted.net_
    assert isinstance(net.block, SSMCTBlock)
    assert isinstance(net.last, Upsampling)
    features = net.widen(net.encode(batch(images[:2]).x))
    restored, surprise = net(batch(images[:2]).x)
    output, expected = net.block(features)
    assert torch.equal(restored, net.last(output))
    assert torch.equal(surprise, expected)
    assert (features >= 0).all()


def test_loss_is_the_hosts_plus_the_weighted_block(fitted, images):
    part, net = batch(images[:6]), fitted.net_
    restored, surprise = net(part.x)
    for weight in (0.0, 0.1, 2.0):
        found = SSMCTB(block_weight=weight, noise=0.0).loss(net, part)
        expected = (restored - part.x).square().mean() + weight * surprise.mean()
        assert found == pytest.approx(float(expected), rel=1e-5)


def test_noise_goes_to_the_input_and_not_to_the_target(fitted, images):
    part, net = batch(images[:6]), fitted.net_
    torch.manual_seed(0)
    found = SSMCTB(block_weight=0.0, noise=0.7).loss(net, part)
    torch.manual_seed(0)
    restored = net(part.x + 0.7 * torch.randn_like(part.x))[0]
    assert found == pytest.approx(float((restored - part.x).square().mean()), rel=1e-5)


def test_weight_of_the_block_lowers_its_penalty(images):
    penalties = []
    for weight in (0.0, 5.0):
        net = SSMCTB(latent=8, block_weight=weight, training=Training(updates=40)).fit(images).net_
        with torch.no_grad():
            penalties.append(float(net(batch(images).x)[1].mean()))
    assert penalties[1] < 0.3 * penalties[0]


def test_score_is_the_hosts_error_relative_to_the_contrast(fitted, images):
    part = Batch(fitted._ingest(images[:5], reset=False).samples.x)
    restored = fitted.net_(part.x)[0]
    error = (restored - part.x).square().mean((1, 2, 3)).sqrt()
    assert fitted.anomaly_score(images[:5]) == pytest.approx((error / contrast(part.x)).numpy(), rel=1e-3)
    plain = fitted.set_params(relative=False)
    assert plain.anomaly_score(images[:5]) == pytest.approx(error.numpy(), rel=1e-3)
    fitted.set_params(relative=True)


def test_penalty_of_the_block_joins_score_and_map_when_asked(fitted, images):
    before = fitted.detect(images[:4])
    fitted.set_params(residual_weight=1.0)
    after = fitted.detect(images[:4])
    fitted.set_params(residual_weight=0.0)
    assert (after.scores > before.scores).all()
    assert (after.maps >= before.maps).all()
    assert after.restored == pytest.approx(before.restored)


def test_unusual_shapes_score_higher(fitted, images):
    squares = np.zeros((40, 1, 12, 12))
    for square, (row, column) in zip(squares, np.random.default_rng(1).integers(0, 6, (40, 2)), strict=True):
        square[0, row : row + 6, column : column + 6] = 0.8
    y = np.r_[np.zeros(200), np.ones(40)]
    assert roc_auc_score(y, fitted.anomaly_score(np.concatenate([images, squares]))) > 0.95


def test_other_digits_score_higher(data_dir):
    with np.load(data_dir / "image" / "mnist10k.npz", allow_pickle=False) as file:
        name = next(key for key in file.files if key.lower() != "y")
        X, y = file[name][:, None].astype(np.float32) / 255, file["y"]
    zeros, others = X[y == 0], X[y != 0][::40]
    detector = SSMCTB(training=Training(updates=100)).fit(zeros[:300])
    test = np.concatenate([zeros[300:500], others])
    assert roc_auc_score(np.r_[np.zeros(200), np.ones(len(others))], detector.anomaly_score(test)) > 0.85


def test_block_options_reach_the_block(images):
    net = SSMCTB(size=2, gap=0, block_loss="squared", training=QUICK).fit(images).net_
    assert net.block.conv.corners[0].kernel_size == (2, 2)
    assert net.block.conv.far == 3
    assert not net.block.huber


def test_saved_and_loaded_scores_alike(fitted, images, tmp_path):
    again = load(fitted.save(tmp_path / "ssmctb.genad"))
    assert (again.anomaly_score(images) == fitted.anomaly_score(images)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent": 0}, "latent: 0 was given"),
        ({"size": 0}, "size: 0 was given"),
        ({"gap": -1}, "gap: -1 was given"),
        ({"block_weight": -0.1}, "block_weight: -0.1 was given"),
        ({"residual_weight": -0.1}, "residual_weight: -0.1 was given"),
        ({"noise": -1.0}, "noise: -1.0 was given"),
        ({"block_loss": "absolute"}, "block_loss: 'absolute' was given"),
        ({"backbone": "mlp"}, "backbone: 'mlp' was given; the block works on feature maps"),
    ],
)
def test_refused(images, parameters, message):
    with pytest.raises(InputError, match=message):
        SSMCTB(**parameters).fit(images[:50])
