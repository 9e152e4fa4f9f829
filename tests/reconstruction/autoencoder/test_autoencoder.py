from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch import nn

from genad import Backbone, Conformal, Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.backbone import KINDS, BackboneKind
from genad.reconstruction.autoencoder.autoencoder import Autoencoder, DenoisingAutoencoder

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture
def linear(monkeypatch):
    """A backbone without hidden layers, which makes an autoencoder linear."""
    kind = BackboneKind(
        lambda shape: len(shape) == 1,
        "a row",
        lambda shape, out, spec: nn.Linear(shape[0], out),
        lambda shape, latent, spec, heads: nn.Linear(latent, shape[0]),
        lambda shape, spec, cond: nn.Linear(shape[0], shape[0]),
        default=False,
    )
    monkeypatch.setitem(KINDS, "linear", kind)
    return "linear"


def _lorenz(rng, steps: int, rho: float = 28.0) -> np.ndarray:
    state, path = np.array([1.0, 1.0, 25.0]) + rng.normal(size=3), []
    for _ in range(steps):
        for _ in range(5):
            x, y, z = state
            state = state + 0.004 * np.array([10 * (y - x), x * (rho - z) - y, x * y - 8 / 3 * z])
        path.append(state)
    return np.array(path[200:])


def _lifted(seed: int):
    """The Lorenz system seen through a random curved map to 25 sensors; anomalies have other dynamics in one."""
    rng = np.random.default_rng(seed)
    lift, mix = rng.normal(size=(3, 25)), rng.normal(size=(25, 25)) / 5
    path = _lorenz(rng, 2200) / np.array([8.0, 9.0, 25.0])
    X = np.tanh(path @ lift) @ mix + 0.01 * rng.normal(size=(2000, 25))
    normal, broken = X[1500:], X[1500:].copy()
    # A sensor that shows another moment: within its range, but not with the others.
    column = rng.integers(25, size=500)
    broken[np.arange(500), column] = normal[rng.permutation(500), column]
    return X[:1500], np.r_[normal, broken], np.r_[np.zeros(500), np.ones(500)]


def test_linear_autoencoder_spans_the_principal_subspace(linear):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 8)) + 0.1 * rng.normal(size=(500, 8))
    training = Training(updates=600, batch_size=400, lr=1e-2)
    detector = Autoencoder(latent=3, backbone=linear, training=training).fit(X)
    basis = torch.linalg.qr(detector.net_.decode.weight).Q.numpy()
    Z = (X - X.mean(0)) / X.std(0)
    axes = PCA(3).fit(Z).components_.T
    cosines = np.linalg.svd(basis.T @ axes, compute_uv=False)
    assert cosines.min() > 0.999


def test_nonlinear_autoencoder_beats_pca_of_the_same_size_on_a_curved_set():
    train, test, y = _lifted(0)
    detector = Autoencoder(latent=3, training=Training(updates=600)).fit(train)
    own = roc_auc_score(y, detector.anomaly_score(test))
    mean, std = train.mean(0), train.std(0)
    pca = PCA(3).fit((train - mean) / std)
    Z = (test - mean) / std
    flat = roc_auc_score(y, np.square(Z - pca.inverse_transform(pca.transform(Z))).sum(1))
    assert own > 0.9
    assert own > flat + 0.03


@pytest.mark.parametrize("cls", [Autoencoder, DenoisingAutoencoder])
def test_score_is_the_root_mean_square_of_the_map(cls):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    detector = cls(training=Training(updates=20)).fit(X)
    found = detector.detect(X)
    np.testing.assert_allclose(found.scores, np.sqrt(found.maps.mean(1)), rtol=1e-5)
    restored = np.asarray(found.restored)
    expected = ((X - restored) / X.std(0)) ** 2
    np.testing.assert_allclose(found.maps, expected, rtol=0.05, atol=1e-3)


def test_default_code_is_a_bottleneck_and_encode_returns_it():
    X = np.random.default_rng(0).normal(size=(120, 9))
    detector = Autoencoder(training=Training(updates=5)).fit(X)
    code = detector.encode(X)
    assert code.shape == (120, 4)
    assert code.dtype == np.float32
    assert code.std(0).min() > 0
    assert Autoencoder(latent=2, training=Training(updates=5)).fit(X).encode(X[:7]).shape == (7, 2)


def test_codes_of_anomalies_differ():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1)) * np.ones(4) + 0.1 * rng.normal(size=(300, 4))
    detector = Autoencoder(latent=1, training=Training(updates=200)).fit(X)
    codes = detector.encode(X)
    far = detector.encode(np.full((1, 4), 6.0))
    assert np.abs(far - codes.mean()) > 2 * codes.std()


def test_noise_level_is_drawn_per_sample_and_leaves_missing_values_alone():
    detector = DenoisingAutoencoder(noise=(0.1, 2.0))
    torch.manual_seed(0)
    x = torch.zeros(400, 300)
    spread = detector.corrupt(Batch(x)).std(1)
    low, high = (spread - 0.1).abs() < 0.03, (spread - 2.0).abs() < 0.3
    assert bool((low | high).all())
    assert 100 < int(low.sum()) < 300
    mask = torch.rand(400, 300) > 0.5
    assert bool((detector.corrupt(Batch(x, mask))[~mask] == 0).all())


def test_masking_sets_its_share_to_the_mean():
    detector = DenoisingAutoencoder(noise=0.0, masking=0.25)
    corrupted = detector.corrupt(Batch(torch.ones(100, 100)))
    assert set(corrupted.unique().tolist()) == {0.0, 1.0}
    assert float((corrupted == 0).float().mean()) == pytest.approx(0.25, abs=0.02)


def test_denoiser_is_the_posterior_mean_of_gaussian_data(linear):
    # For N(0, 1) values and noise s, E[x | x + s e] = (x + s e) / (1 + s^2).
    X = np.random.default_rng(0).normal(size=(4000, 3))
    training = Training(updates=500, batch_size=512, lr=2e-2)
    detector = DenoisingAutoencoder(noise=1.0, backbone=linear, training=training).fit(X)
    np.testing.assert_allclose(detector.net_.weight.numpy(), 0.5 * np.eye(3), atol=0.05)


def test_denoiser_has_no_bottleneck_and_finds_the_hole_of_a_ring():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 1000)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.03 * rng.normal(size=(1000, 2))
    off = rng.uniform(-0.5, 0.5, size=(200, 2))
    test, y = np.r_[ring[:200], off], np.r_[np.zeros(200), np.ones(200)]
    detector = DenoisingAutoencoder(training=Training(updates=400)).fit(ring[200:])
    widths = [layer.out_features for layer in detector.net_ if isinstance(layer, nn.Linear)]
    assert min(widths[:-1]) > 2
    assert roc_auc_score(y, detector.anomaly_score(test)) > 0.95


@pytest.mark.parametrize("cls", [Autoencoder, DenoisingAutoencoder])
def test_missing_values_do_not_change_the_score_of_the_rest(cls):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 1)) * np.ones(6) + 0.1 * rng.normal(size=(200, 6))
    detector = cls(training=Training(updates=200)).fit(X)
    broken = X[:1].copy()
    broken[0, 2] = np.nan
    found = detector.detect(broken)
    assert np.isfinite(found.scores).all()
    assert found.maps[0, 2] == 0


@pytest.mark.parametrize("cls", [Autoencoder, DenoisingAutoencoder])
@pytest.mark.parametrize("shape", [(1,), (3,), (16, 2), (1, 8, 8), (4, 1, 8, 8)])
def test_every_dense_shape_and_tiny_data(cls, shape):
    X = np.random.default_rng(0).normal(size=(30, *shape))
    X.reshape(30, -1)[:, 0] = 1.0
    detector = cls(training=Training(updates=3)).fit(X)
    found = detector.detect(X)
    assert np.isfinite(found.scores).all()
    assert np.asarray(found.restored).shape == X.shape


@pytest.mark.parametrize("cls", [Autoencoder, DenoisingAutoencoder])
def test_normal_rows_are_restored_to_near_themselves_and_models_survive_saving(cls, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 6)) + 0.05 * rng.normal(size=(600, 6))
    detector = cls(training=Training(updates=300)).fit(X)
    residual = (np.asarray(detector.restore(X)) - X) / X.std(0)
    assert np.sqrt(np.square(residual).mean()) < 0.35
    again = load(detector.save(tmp_path / "model.genad"))
    np.testing.assert_array_equal(again.anomaly_score(X), detector.anomaly_score(X))


@pytest.mark.parametrize(
    ("cls", "params", "word"),
    [
        (Autoencoder, {"latent": 0}, "latent"),
        (Autoencoder, {"latent": 1.5}, "latent"),
        (DenoisingAutoencoder, {"noise": -0.1}, "noise"),
        (DenoisingAutoencoder, {"noise": ()}, "noise"),
        (DenoisingAutoencoder, {"noise": ("a",)}, "noise"),
        (DenoisingAutoencoder, {"noise": float("inf")}, "noise"),
        (DenoisingAutoencoder, {"noise": 0.0}, "copy"),
        (DenoisingAutoencoder, {"masking": 1.0}, "masking"),
    ],
)
def test_unusable_parameters_are_named(cls, params, word):
    with pytest.raises(InputError, match=word):
        cls(**params).fit(np.zeros((20, 3)))


def test_an_asked_for_backbone_is_used():
    X = np.random.default_rng(0).normal(size=(50, 4))
    detector = Autoencoder(
        latent=2, backbone=Backbone(hidden=(7,), activation="relu"), training=Training(updates=2)
    ).fit(X)
    assert detector.net_.encode[0].out_features == 7
    assert isinstance(detector.net_.encode[1], nn.ReLU)


@pytest.mark.parametrize("cls", [Autoencoder, DenoisingAutoencoder])
@pytest.mark.parametrize(("table", "floor"), [("cardio", 0.87), ("thyroid", 0.88), ("pendigits", 0.9)])
def test_floor_on_real_tables(one_class, cls, table, floor):
    found = []
    for seed in (0, 1, 2):
        train, test, y = one_class(table, seed)
        found.append(roc_auc_score(y, cls(random_state=seed).fit(train).anomaly_score(test)))
    assert np.mean(found) > floor


@pytest.mark.parametrize("cls", [Autoencoder, DenoisingAutoencoder])
def test_floor_on_heart_beats(data_dir, cls):
    with np.load(data_dir / "series" / "ecg5000_500.npz", allow_pickle=False) as file:
        beats, y = file["X"].astype(np.float32)[..., None], (file["cls"] != 1).astype(int)
    for seed in range(3):
        normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
        half = len(normal) // 2
        test = np.r_[normal[half:], np.flatnonzero(y == 1)]
        detector = cls(random_state=seed, backbone="mlp", threshold=Conformal(0.1)).fit(beats[normal[:half]])
        assert roc_auc_score(y[test], detector.anomaly_score(beats[test])) > 0.95
