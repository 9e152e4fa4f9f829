from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import genad
from genad import Training
from genad.errors import InputError
from genad.reconstruction.diffusion.partial import PartialDiffusion
from genad.restoration.repaint import RePaint, resampling_path

# few images leave few to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def slopes(n, size=16, seed=0):
    """Draw images whose brightness rises along a random direction."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-1, 1, size)
    a, b = 0.4 * rng.normal(size=(2, n, 1, 1)).clip(-1, 1)
    return (0.5 + 0.4 * (a * grid[:, None] + b * grid))[:, None].astype(np.float32)


def defective(X, seed=0):
    """Return copies with a square of another brightness, and where it is."""
    rng = np.random.default_rng(seed)
    X, mask = X.copy(), np.zeros(X.shape, bool)
    for i in range(len(X)):
        row, column = rng.integers(1, X.shape[2] - 6, 2)
        mask[i, :, row : row + 5, column : column + 5] = True
        X[i][mask[i]] = X[i][mask[i]].mean() + rng.choice([-0.5, 0.5])
    return X, mask


@pytest.fixture(scope="module")
def fitted():
    return RePaint(training=Training(updates=400)).fit(slopes(150))


def test_the_path_goes_down_each_part_as_often_as_asked():
    assert resampling_path(5, 2, 1) == [5, 4, 3, 2, 1, 0]
    path = resampling_path(12, 4, 3)
    assert path[0] == 12
    assert path[-1] == 0
    steps = np.diff(path)
    assert set(steps.tolist()) == {-1, 1}
    down = [here for here, step in zip(path, steps, strict=False) if step < 0]
    assert all(down.count(height) == 3 for height in range(1, 13))


def test_it_is_a_partial_diffusion_trained_on_all_steps_without_masks():
    detector = RePaint()
    assert isinstance(detector, PartialDiffusion)
    assert RePaint.loss is PartialDiffusion.loss
    assert (detector.start, detector.horizon) == (249, 1000)
    assert detector.resamples > 1


def test_known_pixels_are_noised_to_the_current_level_before_every_step(fitted, monkeypatch):
    net, seen = fitted.net_, []
    predict = type(net.predict).forward

    def spy(self, x, t):
        seen.append((x.clone(), t.clone()))
        return predict(self, x, t)

    monkeypatch.setattr(type(net.predict), "forward", spy)
    x = torch.full((2, 1, 16, 16), 0.7)
    hidden = torch.zeros_like(x, dtype=torch.bool)
    hidden[..., 4:9, 4:9] = True
    with torch.no_grad():
        fitted.inpaint(net, x, hidden)
    path = fitted.path
    assert len(seen) == fitted.draws * sum(b < a for a, b in itertools.pairwise(path))
    assert int(seen[0][1][0]) == 999
    copies = []
    for x_t, t in seen[: len(seen) // fitted.draws]:
        abar = net.schedule.abar[t[0]]
        noise = ((x_t - abar.sqrt() * x) / (1 - abar).sqrt())[~hidden].view(2, -1)
        assert torch.equal(noise[0], noise[1])
        assert 0.8 < noise.std() < 1.2
        copies.append(noise[0])
    # a fresh copy each time
    assert torch.pdist(torch.stack(copies)).min() > 10


def test_restoring_draws_no_noise(fitted, monkeypatch):
    X, mask = defective(slopes(4, seed=1))
    for name in ("randn", "randn_like", "rand", "randint", "normal"):
        monkeypatch.setattr(torch, name, lambda *a, **k: pytest.fail("noise was drawn"))
    once, twice = (fitted.restore(np.where(mask, np.nan, X)) for _ in range(2))
    assert once.tobytes() == twice.tobytes()


def test_hidden_pixels_are_restored_and_the_others_left_exactly(fitted):
    true = slopes(40, seed=2)
    bad, mask = defective(true)
    restored = fitted.restore(np.where(mask, np.nan, bad))
    np.testing.assert_allclose(restored[~mask], true[~mask], atol=1e-6)
    inside = np.abs(restored - true)[mask].mean()
    assert inside < 0.5 * np.abs(bad - true)[mask].mean()
    # what was hidden is not looked at
    again = fitted.restore(np.where(mask, np.nan, true))
    np.testing.assert_array_equal(again, restored)


def test_without_a_mask_the_defect_is_found_and_restored(fitted):
    true = slopes(40, seed=3)
    bad, mask = defective(true)
    restored = fitted.restore(bad)
    assert np.abs(restored - true)[mask].mean() < 0.5 * np.abs(bad - true)[mask].mean()
    span = true.max() - true.min()
    assert np.abs(restored - true)[~mask].mean() < 0.05 * span
    scores = np.r_[fitted.anomaly_score(true), fitted.anomaly_score(bad)]
    assert roc_auc_score(np.repeat([0, 1], 40), scores) > 0.95
    assert roc_auc_score(mask.ravel(), fitted.anomaly_map(bad).ravel()) > 0.95


def test_the_limit_is_a_quantile_of_normal_errors_and_has_a_margin(fitted):
    net = fitted.net_
    assert net.limit.shape == (1, 16, 16)
    x = fitted._ingest(slopes(100, seed=4), reset=False).samples.batch(torch.arange(100)).x
    with torch.no_grad():
        errors = fitted.errors(x, fitted.regenerate(net, x))
    assert 0.001 < (errors.mean(1) > net.limit).float().mean() < 0.1
    one = torch.zeros(1, 1, 16, 16)
    one[..., 8, 8] = 1 + net.limit.max()
    found = fitted.suspicious(net, one)
    assert found.sum() == 9
    assert found[..., 7:10, 7:10].all()


def test_a_mask_that_is_given_says_all_that_is_restored(fitted):
    true = slopes(2, seed=5)
    bad, mask = defective(true)
    hole = np.zeros_like(mask)
    hole[0, :, 0:2, 0:2] = True
    mixed = fitted.restore(np.where(hole, np.nan, bad))
    # the first image has a mask: its defect stays; the second has none, and is restored as ever
    np.testing.assert_allclose(mixed[0][~hole[0]], bad[0][~hole[0]], atol=1e-6)
    np.testing.assert_allclose(mixed[1], fitted.restore(bad)[1], atol=1e-5)


def test_large_images_keep_every_pixel_outside_the_mask():
    X = np.repeat(np.repeat(slopes(30), 2, 2), 3, 3)
    detector = RePaint(resolution=16, training=Training(updates=20)).fit(X)
    holed = X[:3].copy()
    holed[:, :, 5:9, 10:22] = np.nan
    restored = detector.restore(holed)
    assert np.isfinite(restored).all()
    np.testing.assert_allclose(restored[np.isfinite(holed)], holed[np.isfinite(holed)], atol=1e-6)


def test_models_are_saved(fitted, tmp_path):
    X, _ = defective(slopes(6, seed=6))
    again = genad.load(fitted.save(tmp_path / "m"))
    assert np.array_equal(again.anomaly_score(X), fitted.anomaly_score(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"strides": 0}, "strides: 0"),
        ({"jump": 0}, "jump: 0"),
        ({"resamples": 0}, "resamples: 0"),
        ({"quantile": 1.0}, "quantile: 1"),
        ({"strides": 3, "jump": 4}, "jump: 4 was given for 3 strides"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        RePaint(**params).fit(slopes(20))
