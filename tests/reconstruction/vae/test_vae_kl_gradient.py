from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn import kl_to_standard_normal
from genad.nn.structural import contrast, gaussian_blur
from genad.reconstruction.vae.vae_kl_gradient import VAEKLGradient

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=20)


def planes(n, seed):
    rng = np.random.default_rng(seed)
    grid = np.linspace(-1, 1, 12)
    slope = rng.normal(size=(n, 2, 1, 1))
    return (slope[:, 0] * grid[:, None] + slope[:, 1] * grid)[:, None] + 0.05 * rng.normal(size=(n, 1, 12, 12))


def spotted(X, seed=0):
    rng = np.random.default_rng(seed)
    bad, mask = X.copy(), np.zeros(X.shape, bool)
    for where, (row, column) in zip(mask, rng.integers(0, 9, (len(X), 2)), strict=True):
        where[0, row : row + 3, column : column + 3] = True
    bad[mask] += 3.0
    return bad, mask


@pytest.fixture(scope="module")
def fitted():
    return VAEKLGradient(relative=False, latent=4, training=Training(updates=150)).fit(planes(300, 0))


def batch(detector, X):
    return Batch(detector._ingest(X, reset=False).samples.x)


def terms(net, x):
    """Divergence, negative log-density by value, at the mean of the posterior."""
    mean, std = net.posterior(x)
    return kl_to_standard_normal(mean, std).sum(1), 0.5 * ((x - net.decode(mean)) ** 2 + math.log(2 * math.pi))


def test_gradient_of_the_divergence_agrees_with_finite_differences(fitted):
    fitted.set_params(localise="kl", smooth=0.0)
    X = planes(1, 1)
    found = fitted.anomaly_map(X)[0, 0]
    fitted.set_params(localise="product", smooth=3 / 64)
    net, x, slopes = fitted.net_.double(), batch(fitted, X).x.double(), np.zeros((12, 12))
    with torch.no_grad():
        for row in range(12):
            for column in range(12):
                step = torch.zeros_like(x)
                step[0, 0, row, column] = 1e-4
                slopes[row, column] = abs(float(terms(net, x + step)[0] - terms(net, x - step)[0]))
    net.float()
    assert found == pytest.approx(slopes / slopes.max(), abs=1e-2)


def test_map_is_the_smoothed_normalised_gradient_times_the_error(fitted):
    X = planes(3, 2)
    x = batch(fitted, X).x.requires_grad_()
    divergence, error = terms(fitted.net_, x)
    (gradient,) = torch.autograd.grad(divergence.sum(), x)
    size = gradient.abs() / gradient.abs().amax((1, 2, 3), keepdim=True)
    expected = gaussian_blur(size, 3 / 64 * 12) * (error - 0.5 * math.log(2 * math.pi))
    assert fitted.anomaly_map(X) == pytest.approx(expected.detach().numpy(), rel=1e-3, abs=1e-6)


def test_gradients_of_the_other_terms_are_offered(fitted):
    X = spotted(planes(3, 3))[0]
    maps = {}
    for name in ("product", "kl", "reconstruction", "elbo", "sum"):
        maps[name] = fitted.set_params(localise=name).anomaly_map(X)
    fitted.set_params(localise="product")
    assert all((found >= 0).all() for found in maps.values())
    assert len({found.tobytes() for found in maps.values()}) == 5
    assert maps["kl"].max() <= 1 + 1e-5


def test_score_is_divergence_plus_negative_log_density_in_nats(fitted):
    X = planes(5, 4)
    with torch.no_grad():
        divergence, error = terms(fitted.net_, batch(fitted, X).x)
    expected = {"kl": divergence, "reconstruction": error.sum((1, 2, 3))}
    expected["elbo"] = expected["kl"] + expected["reconstruction"]
    for name, value in expected.items():
        assert fitted.set_params(score_by=name).anomaly_score(X) == pytest.approx(value.numpy(), rel=1e-4)
    fitted.set_params(score_by="elbo")


def test_loss_is_the_negative_bound_with_unit_variance(fitted):
    part = batch(fitted, planes(6, 5))
    torch.manual_seed(0)
    found = fitted.loss(fitted.net_, part)
    torch.manual_seed(0)
    mean, std = fitted.net_.posterior(part.x)
    restored = fitted.net_.decode(mean + std * torch.randn_like(mean))
    bound = 0.5 * (part.x - restored).square().sum((1, 2, 3)) + kl_to_standard_normal(mean, std).sum(1)
    assert found == pytest.approx(float(bound.mean()) / 144, rel=1e-5)


def test_samples_keep_their_own_gradient_whatever_else_is_in_the_call(fitted):
    X = spotted(planes(20, 6))[0]
    together = fitted.anomaly_map(X)
    assert fitted.anomaly_map(X[7:8])[0] == pytest.approx(together[7], rel=1e-4, abs=1e-6)


def test_spots_are_detected_and_located(fitted):
    good = planes(40, 7)
    bad, mask = spotted(good)
    found = fitted.detect(np.concatenate([good, bad]))
    assert roc_auc_score(np.r_[np.zeros(40), np.ones(40)], found.scores) > 0.95
    assert roc_auc_score(mask.ravel(), found.maps[40:].ravel()) > 0.9


def test_error_is_not_smoothed(fitted):
    X = spotted(planes(1, 8))[0]
    with torch.no_grad():
        error = terms(fitted.net_, batch(fitted, X).x)[1].numpy() - 0.5 * math.log(2 * math.pi)
    fitted.set_params(smooth=0.9)
    wide = fitted.anomaly_map(X)
    fitted.set_params(smooth=3 / 64)
    # Under a gradient that is all but constant, the map is the error itself.
    assert np.corrcoef(wide.ravel(), error.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("shape", [(6,), (12, 2), (3, 1, 6, 6)])
def test_rows_windows_and_clips_have_maps_of_their_shape(shape):
    X = np.random.default_rng(0).normal(size=(60, *shape))
    found = VAEKLGradient(latent=3, training=QUICK).fit(X).detect(X)
    assert found.maps.shape == X.shape
    assert found.restored.shape == X.shape
    assert np.isfinite(found.maps).all()


def test_missing_pixels_have_no_part_in_map_or_score(fitted):
    X = planes(4, 9)
    X[:, :, :3, :3] = np.nan
    found = fitted.detect(X)
    assert np.isfinite(found.scores).all()
    assert not np.nan_to_num(found.maps[:, :, :3, :3]).any()


def test_decoder_generates_from_the_prior(fitted):
    drawn = fitted.sample(50)
    assert drawn.shape == (50, 1, 12, 12)
    assert 0.3 < drawn.std() < 2 * planes(300, 0).std()


def test_saved_and_loaded_maps_alike(fitted, tmp_path):
    X = planes(10, 10)
    again = load(fitted.save(tmp_path / "vae.genad"))
    assert (again.anomaly_map(X) == fitted.anomaly_map(X)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent": 0}, "latent: 0 was given"),
        ({"beta": -1.0}, "beta: -1.0 was given"),
        ({"smooth": 1.0}, "smooth: 1.0 was given"),
        ({"localise": "all"}, "localise: 'all' was given"),
        ({"score_by": "all"}, "score_by: 'all' was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        VAEKLGradient(**parameters).fit(planes(40, 0))


def test_relative_scores_divide_what_exceeds_a_perfect_reconstruction_by_the_contrast(fitted):
    X = planes(6, 8)
    least = 0.5 * math.log(2 * math.pi) * 144
    plain = fitted.anomaly_score(X)
    restored = batch(fitted, fitted.restore(X)).x
    found = fitted.set_params(relative=True).anomaly_score(X)
    fitted.set_params(relative=False)
    expected = (plain - least) / contrast(restored).square().numpy() + least
    assert found == pytest.approx(expected, rel=1e-3)
