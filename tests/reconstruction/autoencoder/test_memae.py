from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.memory_bank import addressing_entropy
from genad.reconstruction.autoencoder.memae import MemAE

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=30)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:12, :12]
    place = rng.uniform(3, 8, (160, 2, 1, 1))
    return np.exp(-((row - place[:, 0]) ** 2 + (column - place[:, 1]) ** 2) / 8)[:, None]


@pytest.fixture(scope="module")
def brain(data_dir):
    """Half of the healthy slices to train; the other half and as many with tumours to test, 32 pixels."""
    folder = data_dir / "image" / "brain_mri"
    parts = []
    for name in ("normal", "tumour"):
        files = sorted(path for path in (folder / name).iterdir() if path.suffix in {".jpg", ".png"})
        parts.append(np.stack([np.asarray(Image.open(f).convert("L").resize((32, 32))) for f in files[:160]]))
    normal, tumour = (part[:, None] / 255.0 for part in parts)
    test = np.concatenate([normal[1::2], tumour])
    return normal[::2], test, np.r_[np.zeros(len(normal) // 2), np.ones(len(tumour))]


@pytest.fixture(scope="module")
def fitted(images):
    return MemAE(memory_size=20, training=Training(updates=150)).fit(images)


def batch(images):
    return Batch(torch.from_numpy(((images - images.mean()) / images.std()).astype(np.float32)))


def test_decoder_is_given_mixtures_of_items_and_nothing_else(fitted, images, monkeypatch):
    net, seen = fitted.net_, []
    forward = net.decode.forward
    monkeypatch.setattr(net.decode, "forward", lambda code: seen.append(code) or forward(code))
    with torch.no_grad():
        _, weights = net(batch(images[:5]).x)
    positions = seen[0].flatten(2).transpose(1, 2)
    assert torch.allclose(positions, weights @ net.memory.rows, atol=1e-6)


def test_every_position_of_the_map_is_a_query(fitted, images):
    code = fitted.net_.encode(batch(images[:3]).x)
    weights = fitted.net_(batch(images[:3]).x)[1]
    assert code.ndim == 4
    assert weights.shape == (3, code.shape[2] * code.shape[3], 20)


def test_rows_and_windows_have_one_query(images):
    for shape in ((5,), (12, 2)):
        X = np.random.default_rng(0).normal(size=(80, *shape))
        net = MemAE(memory_size=7, training=QUICK).fit(X).net_
        assert net(torch.zeros(2, *shape))[1].shape == (2, 1, 7)


def test_clips_have_one_query_per_position_in_time_and_space():
    X = np.random.default_rng(0).normal(size=(40, 4, 1, 8, 8))
    net = MemAE(memory_size=7, training=QUICK).fit(X).net_
    restored, weights = net(torch.zeros(2, 4, 1, 8, 8))
    assert restored.shape == (2, 4, 1, 8, 8)
    assert weights.shape == (2, 2 * 4 * 4, 7)


def test_weights_are_sparse_and_sum_to_one(fitted, images):
    weights = fitted.net_(batch(images).x)[1]
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    assert (weights == 0).float().mean() > 0.2


def test_loss_is_error_plus_weighted_entropy(fitted, images):
    part = batch(images[:8])
    restored, weights = fitted.net_(part.x)
    error = (restored - part.x).square().mean()
    for weight in (0.0, 0.5):
        detector = MemAE(entropy_weight=weight)
        expected = error + weight * addressing_entropy(weights).mean()
        assert detector.loss(fitted.net_, part) == pytest.approx(float(expected), rel=1e-5)


def test_memory_is_trained(fitted):
    start = MemAE(memory_size=20)
    torch.manual_seed(0)
    bound = start.build((1, 12, 12)).memory.rows.abs().max()
    assert fitted.net_.memory.rows.abs().max() > 1.2 * bound


def test_anomalies_are_rebuilt_from_normal_pieces(fitted, images):
    rng = np.random.default_rng(1)
    squares = np.zeros((40, 1, 12, 12))
    for square, (row, column) in zip(squares, rng.integers(0, 6, (40, 2)), strict=True):
        square[0, row : row + 6, column : column + 6] = rng.uniform(0.5, 1)
    y = np.r_[np.zeros(160), np.ones(40)]
    assert roc_auc_score(y, fitted.anomaly_score(np.concatenate([images, squares]))) > 0.95


def test_code_says_which_items_a_sample_is_made_of(fitted, images):
    code = fitted.encode(images[:4])
    assert code.shape == (4, 20)
    assert code.sum(1) == pytest.approx(1.0, abs=1e-4)


def test_relative_error_divides_by_contrast_for_images_alone(images):
    on, off = (MemAE(relative=flag, training=QUICK).fit(images) for flag in (True, False))
    z = batch(images).x
    contrast = np.sqrt(1 + z.numpy().var((1, 2, 3)))
    assert on.anomaly_score(images) * contrast == pytest.approx(off.anomaly_score(images), rel=1e-2)
    X = np.random.default_rng(0).normal(size=(80, 4))
    on, off = (MemAE(relative=flag, training=QUICK).fit(X) for flag in (True, False))
    assert on.anomaly_score(X) == pytest.approx(off.anomaly_score(X))


def test_dot_product_is_offered(images):
    detector = MemAE(similarity="dot", training=QUICK).fit(images)
    assert detector.net_.memory.similarity == "dot"


def test_saved_and_loaded_scores_alike(fitted, images, tmp_path):
    again = load(fitted.save(tmp_path / "memae.genad"))
    assert (again.anomaly_score(images) == fitted.anomaly_score(images)).all()


def test_brain_slices_with_tumours_score_higher_than_healthy_ones(brain):
    train, test, y = brain
    detector = MemAE(training=Training(updates=120)).fit(train)
    assert roc_auc_score(y, detector.anomaly_score(test)) > 0.65


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"memory_size": 0}, "memory_size: 0 was given"),
        ({"shrink": 1.0}, "shrink: 1.0 was given"),
        ({"entropy_weight": -1.0}, "entropy_weight: -1.0 was given"),
        ({"similarity": "angle"}, "similarity: 'angle' was given"),
        ({"latent": 0}, "latent: 0 was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        MemAE(**parameters).fit(np.random.default_rng(0).normal(size=(50, 3)))
