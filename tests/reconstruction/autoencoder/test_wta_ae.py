from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, Windowed, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.autoencoder.wta_ae import WinnerTakeAllAE, lifetime_winners, spatial_winners

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=20)


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    atoms = np.repeat(np.eye(4), 2, axis=1) * 3
    return atoms[rng.integers(4, size=500)] + 0.1 * rng.normal(size=(500, 8))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:12, :12]
    place = rng.uniform(3, 8, (120, 2, 1, 1))
    return np.exp(-((row - place[:, 0]) ** 2 + (column - place[:, 1]) ** 2) / 3)[:, None]


@pytest.fixture(scope="module")
def fitted(parts):
    return WinnerTakeAllAE(training=Training(updates=200)).fit(parts)


def test_units_not_samples_choose_their_winners():
    code = torch.rand(20, 7, generator=torch.Generator().manual_seed(0))
    kept = lifetime_winners(code, 0.1)
    assert ((kept > 0).sum(0) == 2).all()
    # Top-k of each sample would be another method.
    assert (kept > 0).sum(1).unique().numel() > 1
    assert torch.equal(kept.amax(0), code.amax(0))


def test_a_small_batch_keeps_one_winner_a_unit():
    assert ((lifetime_winners(torch.rand(5, 3) + 1, 0.05) > 0).sum(0) == 1).all()


def test_one_position_wins_even_among_equals():
    maps = torch.ones(2, 3, 4, 4)
    maps[0, 1, 2, 3] = 5.0
    kept = spatial_winners(maps)
    assert ((kept > 0).flatten(2).sum(2) == 1).all()
    assert kept[0, 1, 2, 3] == 5.0


def test_gradients_reach_the_winners_alone():
    code = torch.rand(10, 4, requires_grad=True)
    kept = lifetime_winners(code, 0.2)
    kept.sum().backward()
    assert torch.equal(code.grad, (kept > 0).float())
    maps = torch.rand(2, 3, 5, requires_grad=True)
    spatial_winners(maps).sum().backward()
    assert torch.equal(maps.grad.sum(2), torch.ones(2, 3))


def test_maps_compete_for_samples_after_positions_have_competed(images):
    detector = WinnerTakeAllAE(units=6, lifetime=0.25)
    maps = torch.rand(20, 6, 4, 4) + 0.1
    active = detector.compete(maps) > 0
    assert (active.flatten(2).sum(2) <= 1).all()
    assert (active.flatten(2).any(2).sum(0) == 5).all()


def test_loss_is_the_error_of_what_the_winners_draw(parts):
    detector = WinnerTakeAllAE()
    net = detector.build((8,))
    x = torch.from_numpy(parts[:60].astype(np.float32))
    expected = (net.decode(lifetime_winners(net.encode(x), 0.05)) - x).square().mean()
    assert torch.allclose(detector.loss(net, Batch(x)), expected)


def test_decoder_is_linear(images):
    for shape in ((5,), (1, 12, 12)):
        net = WinnerTakeAllAE(units=4).build(shape)
        code = torch.randn(3, 4, *shape[1:])
        zero = net.decode(torch.zeros_like(code))
        assert torch.allclose(net.decode(2 * code) - zero, 2 * (net.decode(code) - zero), atol=1e-4)


@pytest.mark.parametrize("score_by", ["svm", "reconstruction"])
@pytest.mark.parametrize("at_score", ["levels", "off"])
def test_scores_do_not_depend_on_the_other_samples(parts, score_by, at_score):
    detector = WinnerTakeAllAE(score_by=score_by, at_score=at_score, training=QUICK).fit(parts)
    whole = detector.anomaly_score(parts)
    assert detector.anomaly_score(parts[::-17])[::-1] == pytest.approx(whole[::-1][::17][::-1], rel=1e-5, abs=1e-6)
    assert detector.anomaly_score(parts[3:4]) == pytest.approx(whole[3:4], rel=1e-5, abs=1e-6)


def test_levels_are_exceeded_by_the_share_of_winners(fitted, parts):
    levels, code = fitted.net_.levels.numpy(), fitted.encode(parts)
    active = (code >= levels) & (code > 0)
    lively = levels > 0
    assert lively.any()
    assert active[:, lively].mean() == pytest.approx(0.05, abs=0.02)


def test_code_is_plain_relu(fitted, parts):
    z = torch.from_numpy(((parts - parts.mean(0)) / parts.std(0)).astype(np.float32))
    assert fitted.encode(parts) == pytest.approx(fitted.net_.encode(z).numpy(), abs=0.2)
    assert (fitted.encode(parts) >= 0).all()


def test_new_combinations_of_parts_are_found(fitted, parts):
    odd = parts[:100].copy()
    odd[:, 1::2] = np.roll(odd[:, 1::2], 1, axis=1)
    y = np.r_[np.zeros(100), np.ones(100)]
    assert roc_auc_score(y, fitted.anomaly_score(np.r_[parts[100:200], odd])) > 0.95


@pytest.mark.parametrize("shape", [(9, 2), (4, 1, 8, 8), (1, 7, 131), (2, 2, 3)])
def test_maps_come_back_in_the_shape_of_the_data(shape):
    X = np.random.default_rng(0).normal(size=(40, *shape))
    detector = WinnerTakeAllAE(training=Training(updates=3)).fit(X)
    assert detector.anomaly_map(X).shape[0] == 40
    assert np.asarray(detector.restore(X)).shape == X.shape


def test_windows_may_be_read_as_rows():
    net = WinnerTakeAllAE(backbone="mlp").build((9, 2))
    assert net.encode(torch.zeros(3, 9, 2)).shape == (3, 256)


def test_images_of_another_kind_are_found(images):
    rng = np.random.default_rng(1)
    odd = np.zeros((40, 1, 12, 12))
    for square, (row, column) in zip(odd, rng.integers(0, 6, (40, 2)), strict=True):
        square[0, row : row + 5, column : column + 5] = 1.0
    y = np.r_[np.zeros(120), np.ones(40)]
    detector = WinnerTakeAllAE(units=8, training=Training(updates=60)).fit(images)
    assert roc_auc_score(y, detector.anomaly_score(np.r_[images, odd])) > 0.9


def test_saved_and_loaded_scores_alike(fitted, parts, tmp_path):
    again = load(fitted.save(tmp_path / "wta.genad"))
    assert (again.anomaly_score(parts) == fitted.anomaly_score(parts)).all()


def test_real_table(one_class):
    train, test, y = one_class("thyroid")
    assert roc_auc_score(y, WinnerTakeAllAE().fit(train).anomaly_score(test)) > 0.95


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"units": 0}, "units: 0 was given"),
        ({"lifetime": 0.0}, "lifetime: 0.0 was given"),
        ({"score_by": "error"}, "score_by: 'error' was given; use 'svm' or 'reconstruction'"),
        ({"at_score": "on"}, "at_score: 'on' was given; use 'levels' or 'off'"),
        ({"nu": 1.0}, "nu: 1.0 was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        WinnerTakeAllAE(**parameters).fit(np.random.default_rng(0).normal(size=(50, 3)))


@pytest.mark.filterwarnings("ignore::genad.errors.GenadWarning")
def test_windows_are_scored_by_what_cannot_be_drawn():
    """A window that excites no unit looks ordinary to the machine, but cannot be drawn."""
    rng = np.random.default_rng(0)
    X = np.sin(np.arange(700) / 5)[:, None] * [1.0, 0.5] + 0.05 * rng.normal(size=(700, 2))
    bad = X[:300].copy()
    bad[150:170] = 0.0
    detector = Windowed(WinnerTakeAllAE(training=QUICK)).fit(X)
    by_error = Windowed(WinnerTakeAllAE(score_by="reconstruction", training=QUICK)).fit(X)
    np.testing.assert_array_equal(detector.anomaly_score(bad), by_error.anomaly_score(bad))
    assert 130 <= int(detector.anomaly_score(bad).argmax()) < 190
