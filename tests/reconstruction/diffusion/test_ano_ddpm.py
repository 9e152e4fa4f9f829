from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.diffusion.ano_ddpm import AnoDDPM

# few images leave few to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def blobs(n, size=16, seed=0):
    """Draw smooth images: one bright blob at a random place."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(4, size - 4, (n, 2, 1, 1))
    grid = np.arange(size)
    far = (grid[:, None] - place[:, 0]) ** 2 + (grid[None] - place[:, 1]) ** 2
    return np.exp(-far / 18)[:, None].astype(np.float32)


def scratched(X, seed=0):
    """Return copies with a dark or bright square, and where it is."""
    rng = np.random.default_rng(seed)
    X, mask = X.copy(), np.zeros(X.shape, bool)
    for i in range(len(X)):
        row, column = rng.integers(0, X.shape[2] - 5, 2)
        mask[i, :, row : row + 5, column : column + 5] = True
    X[mask] = 1.3 - X[mask].round()
    return X, mask


@pytest.fixture(scope="module")
def fitted():
    return AnoDDPM(training=Training(updates=250)).fit(blobs(120))


def test_defaults_are_a_quarter_of_the_way_and_the_training_stays_below_it():
    detector = AnoDDPM()
    assert (detector.level, detector.start, detector.horizon) == (0.25, 249, 250)
    assert (detector.noise, detector.persistence, detector.top) == ("simplex", 0.8, 0.01)


def test_level_zero_returns_the_input():
    X = blobs(30)
    detector = AnoDDPM(level=0.0, training=Training(updates=2)).fit(X)
    found = detector.detect(X)
    np.testing.assert_allclose(found.restored, X, atol=1e-6)
    assert (found.scores == 0).all()
    assert (found.maps == 0).all()


def lag(fields, k):
    return float((fields[..., k:] * fields[..., :-k]).mean() / fields.square().mean())


def test_forward_and_reverse_noise_are_simplex_fields(fitted):
    bank = fitted.net_.bank
    assert bank.shape == (fitted.draws, fitted.steps + 1, 1, 16, 16)
    assert lag(bank, 1) > 0.3
    assert lag(fitted.net_.source.draw(200), 1) > 0.3
    # each draw and each step has a field of its own
    assert torch.pdist(bank.flatten(0, 1).flatten(1)).min() > 3
    white = AnoDDPM(noise="gaussian", training=Training(updates=2)).fit(blobs(30)).net_.bank
    assert abs(lag(white, 1)) < 0.1


def test_training_gives_every_sample_noise_and_a_step_of_its_own(fitted, monkeypatch):
    net, seen = fitted.net_, {}

    def loss(x, noise, horizon):
        seen.update(noise=noise, horizon=horizon)
        return noise.sum()

    monkeypatch.setattr(net, "loss", loss)
    fitted.loss(net, Batch(torch.zeros(6, 1, 16, 16)))
    assert seen["horizon"] == 250
    assert torch.pdist(seen["noise"].flatten(1)).min() > 3


def test_scoring_draws_no_noise(fitted, monkeypatch):
    X = blobs(20, seed=1)
    expected = fitted.anomaly_score(X)
    for name in ("randn", "randn_like", "rand", "rand_like", "randint", "normal"):
        monkeypatch.setattr(torch, name, lambda *a, **k: pytest.fail("noise was drawn"))
    monkeypatch.setattr(type(fitted.net_.source), "draw", lambda *a, **k: pytest.fail("the pool was used"))
    assert np.array_equal(fitted.anomaly_score(X), expected)


def test_the_chain_starts_at_lambda_and_comes_back_in_even_strides(fitted, monkeypatch):
    net, seen = fitted.net_, []
    predict = type(net.predict).forward

    def spy(self, x, t):
        seen.append((x.clone(), int(t[0])))
        return predict(self, x, t)

    monkeypatch.setattr(type(net.predict), "forward", spy)
    x = torch.randn(4, 1, 16, 16)
    with torch.no_grad():
        fitted.regenerate(net, x)
    assert len(seen) == fitted.draws * fitted.steps
    steps = [t for _, t in seen[: fitted.steps]]
    assert steps[0] == 249
    assert set(np.diff(steps)) <= {-31, -32}
    for draw in range(fitted.draws):
        first = seen[draw * fitted.steps][0]
        t = torch.full((4,), 249)
        torch.testing.assert_close(first, net.schedule.q(x, t, net.bank[draw, 0].expand_as(x)))


def test_score_is_the_mean_of_the_largest_squared_errors(fitted):
    X, _ = scratched(blobs(20, seed=2))
    plain = AnoDDPM(smooth=0.0, top=0.02)
    batch = fitted._ingest(X, reset=False).samples.batch(torch.arange(20))
    with torch.no_grad():
        found = plain.infer(fitted.net_, batch, frozenset({"map", "restored"}))
    squared = (batch.x - found.restored).square()
    torch.testing.assert_close(found.map, squared, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.score, squared.flatten(1).topk(5).values.mean(1), atol=1e-5, rtol=1e-4)


def test_defects_score_higher_and_are_found(fitted):
    normal = blobs(40, seed=3)
    bad, mask = scratched(normal)
    scores = np.r_[fitted.anomaly_score(normal), fitted.anomaly_score(bad)]
    assert roc_auc_score(np.repeat([0, 1], 40), scores) > 0.9
    assert roc_auc_score(mask.ravel(), fitted.anomaly_map(bad).ravel()) > 0.9
    restored = fitted.restore(bad)
    assert np.abs(restored - normal)[mask].mean() < 0.7 * np.abs(bad - normal)[mask].mean()


def test_a_row_does_not_depend_on_the_others_and_models_are_saved(fitted, tmp_path):
    X = blobs(20, seed=4)
    scores = fitted.anomaly_score(X)
    np.testing.assert_allclose([fitted.anomaly_score(X[i : i + 1])[0] for i in range(3)], scores[:3], rtol=1e-6)
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(X), scores)


def test_large_images_are_worked_on_small_and_answered_in_full_size():
    X = np.repeat(np.repeat(blobs(30), 4, 2), 3, 3)
    detector = AnoDDPM(resolution=16, training=Training(updates=20)).fit(X)
    assert detector.net_.bank.shape[-2:] == (16, 12)
    found = detector.detect(X[:3])
    assert found.maps.shape == found.restored.shape == (3, 1, 64, 48)


def test_missing_pixels_are_not_blamed(fitted):
    X = blobs(3, seed=5)
    X[0, 0, 2:6, 2:6] = np.nan
    found = fitted.detect(X)
    assert np.isfinite(found.scores).all()
    assert (found.maps[0, 0, 2:6, 2:6] == 0).all()


def test_the_network_of_diffusers():
    pytest.importorskip("diffusers")
    detector = AnoDDPM(network="diffusers", steps=2, draws=1, training=Training(updates=3)).fit(blobs(20, size=8))
    assert type(detector.net_.predict).__name__ == "DiffusersUNet"
    assert np.isfinite(detector.anomaly_score(blobs(3, size=8))).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"level": 1.5}, "level: 1.5"),
        ({"steps": 0}, "steps: 0"),
        ({"draws": 0}, "draws: 0"),
        ({"smooth": -1.0}, "smooth: -1"),
        ({"top": 0.0}, "top: 0"),
        ({"resolution": 0}, "resolution: 0"),
        ({"network": "mlp"}, "network: 'mlp'"),
        ({"noise": "perlin"}, "noise: 'perlin'"),
        ({"octaves": 0}, "octaves: 0"),
        ({"wavelength": 0.0}, "wavelength: 0"),
        ({"persistence": 0}, "persistence: 0"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        AnoDDPM(**params).fit(blobs(20))


@pytest.mark.data
def test_floor_on_brain_slices(data_dir):
    images = pytest.importorskip("PIL.Image")
    folder = data_dir / "image" / "brain_mri"

    def read(name, start, stop):
        paths = sorted(p for p in (folder / name).iterdir() if p.suffix in {".jpg", ".png"})[start:stop]
        return np.stack([np.array(images.open(p).convert("L").resize((16, 16))) for p in paths])[:, None] / 255.0

    normal, held, tumour = read("normal", 0, 60), read("normal", 60, 98), read("tumour", 0, 40)
    detector = AnoDDPM(training=Training(updates=300)).fit(normal)
    scores = np.r_[detector.anomaly_score(held), detector.anomaly_score(tumour)]
    assert roc_auc_score(np.r_[np.zeros(len(held)), np.ones(len(tumour))], scores) > 0.65
