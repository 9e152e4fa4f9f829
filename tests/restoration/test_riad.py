from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.structural import gaussian_blur, msgms_map, ssim_map
from genad.restoration.riad import RIAD, split_grid

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=5)


def waves(n, seed, size=16):
    """Slanted waves of any phase: every part follows from the rest."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:size, :size]
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    return (0.5 + 0.4 * np.sin((row + 2 * column) * 2 * np.pi / 16 + phase))[:, None]


def with_defect(X, seed=0):
    """Put a 4 x 4 patch of noise somewhere in each image; return the images and the masks."""
    rng = np.random.default_rng(seed)
    bad, mask = X.copy(), np.zeros(X.shape, bool)
    for image, where, (row, column) in zip(bad, mask, rng.integers(1, 11, (len(X), 2)), strict=True):
        image[0, row : row + 4, column : column + 4] = rng.uniform(0, 1, (4, 4))
        where[0, row : row + 4, column : column + 4] = True
    return bad, mask


@pytest.fixture(scope="module")
def fitted():
    return RIAD(training=Training(updates=120, lr=3e-3)).fit(waves(120, 0))


def standardised(detector, X):
    return Batch(detector._ingest(X, reset=False).samples.x)


@pytest.mark.parametrize(("size", "cell", "sets"), [((16, 16), 4, 3), ((7, 10), 3, 2), ((1, 1), 1, 3), ((5, 5), 8, 2)])
def test_sets_are_disjoint_cover_the_image_and_are_made_of_whole_cells(size, cell, sets):
    parts = split_grid(size, cell, sets, rows=4)
    assert parts.shape == (4, sets, *size)
    assert (parts.sum(1) == 1).all()
    for row in range(0, size[0], cell):
        for column in range(0, size[1], cell):
            block = parts[:, :, row : row + cell, column : column + cell].flatten(2)
            assert (block.all(-1) | ~block.any(-1)).all()


def test_sets_are_of_one_size_up_to_a_cell_and_differ_between_divisions():
    torch.manual_seed(0)
    parts = split_grid((16, 16), 4, 3, rows=2)
    cells = parts.flatten(2).sum(-1) // 16
    assert cells.sort(1).values.tolist() == [[5, 5, 6], [5, 5, 6]]
    assert (parts[0] != parts[1]).any()


def test_cells_are_pixels_wide_and_every_size_has_its_divisions():
    net = RIAD(cells=(2, 8), sets=4, divisions=3, training=QUICK).fit(waves(20, 0)).net_
    assert net.cells == (2, 8)
    assert net.parts.shape == (6, 4, 16, 16)


def test_no_assembled_pixel_has_seen_itself(fitted):
    net = fitted.net_
    u = torch.rand(1, 1, 16, 16, requires_grad=True)
    part = net.parts[:1]
    made = net.assemble(u, torch.ones_like(u), part)
    for row, column in ((3, 3), (8, 12)):
        (slope,) = torch.autograd.grad(made[0, 0, row, column], u, retain_graph=True)
        own = part[0, :, row, column].nonzero().item()
        assert not slope[0, 0][part[0, own]].any()
        assert slope[0, 0][~part[0, own]].any()


def test_assembly_takes_each_pixel_from_the_pass_that_hid_it(fitted):
    net = fitted.net_
    u, seen = torch.rand(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    made = net.assemble(u, seen, net.parts[2:3])
    for part in net.parts[2]:
        hidden = part.float()[None, None]
        assert torch.allclose(made[..., part], net.fill(u, seen - hidden)[..., part], atol=1e-6)


def test_loss_is_squared_error_plus_dissimilarity_plus_gradient_distance(fitted):
    detector, net = RIAD(cells=(4,)), fitted.net_
    part = standardised(fitted, waves(6, 1))
    torch.manual_seed(3)
    found = detector.loss(net, part)
    torch.manual_seed(3)
    cell = net.cells[int(torch.randint(len(net.cells), ()))]
    u, seen = net.pixels(part)
    made = net.assemble(u, seen, split_grid(net.size, cell, 3, 6))
    expected = (made - u).square().mean() + 1 - ssim_map(made, u).mean() + msgms_map(made, u).mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_score_is_the_maximum_of_the_smoothed_mean_distance(fitted):
    X = waves(5, 2)
    net = fitted.net_
    u, seen = net.pixels(standardised(fitted, X))
    distance = torch.stack([msgms_map(net.assemble(u, seen, p[None]), u) for p in net.parts]).mean(0)
    expected = gaussian_blur(distance, 7 / 256 * 16).amax((1, 2, 3))
    assert fitted.anomaly_score(X) == pytest.approx(expected.numpy(), rel=1e-4)
    assert fitted.anomaly_map(X).max((1, 2, 3)) == pytest.approx(expected.numpy(), rel=1e-4)


def test_pixel_values_reach_the_network_within_zero_and_one(fitted):
    u = fitted.net_.pixels(standardised(fitted, waves(5, 2)))[0]
    assert u.numpy() == pytest.approx(waves(5, 2), abs=1e-4)


def test_defects_are_detected_and_located(fitted):
    good = waves(30, 3)
    bad, mask = with_defect(good)
    found = fitted.detect(np.concatenate([good, bad]))
    assert roc_auc_score(np.r_[np.zeros(30), np.ones(30)], found.scores) > 0.85
    assert roc_auc_score(mask.ravel(), found.maps[30:].ravel()) > 0.9


def test_hidden_pixels_never_reach_the_network(fitted):
    X = waves(4, 4)
    mask = torch.ones(4, 1, 16, 16, dtype=torch.bool)
    mask[:, :, 5:9, 5:9] = False
    x = standardised(fitted, X).x
    other = torch.where(mask, x, 100 * torch.randn_like(x))
    left, right = (fitted.infer(fitted.net_, Batch(v, mask), frozenset({"map", "restored"})) for v in (x, other))
    for name in ("score", "map", "restored"):
        assert torch.equal(getattr(left, name), getattr(right, name))
    assert not left.map[~mask].any()


def test_a_known_defect_is_inpainted(fitted):
    good = waves(30, 5)
    bad, mask = with_defect(good)
    hidden = np.where(mask, np.nan, bad)
    restored = fitted.restore(hidden)
    assert np.abs(restored - good)[mask].mean() < 0.5 * np.abs(bad - good)[mask].mean()
    assert np.abs(restored - good)[~mask].mean() < 0.05


def test_an_unknown_defect_is_reduced(fitted):
    good = waves(30, 6)
    bad, mask = with_defect(good)
    restored = fitted.restore(bad)
    assert np.abs(restored - good)[mask].mean() < 0.8 * np.abs(bad - good)[mask].mean()


def test_scores_have_no_randomness_of_their_own(fitted):
    X = waves(10, 7)
    assert (fitted.anomaly_score(X) == fitted.anomaly_score(X)).all()
    assert fitted.anomaly_score(X[3:4]) == pytest.approx(fitted.anomaly_score(X)[3:4], rel=1e-5)


def test_saved_and_loaded_scores_alike(fitted, tmp_path):
    X = waves(10, 8)
    again = load(fitted.save(tmp_path / "riad.genad"))
    assert (again.anomaly_score(X) == fitted.anomaly_score(X)).all()


def test_large_images_are_worked_on_at_the_resolution_and_answered_in_their_own_size():
    X = np.random.default_rng(0).uniform(size=(16, 3, 20, 40))
    detector = RIAD(resolution=16, training=QUICK).fit(X)
    assert detector.net_.size == (8, 16)
    found = detector.detect(X)
    assert found.restored.shape == X.shape
    assert found.maps.shape[-2:] == (20, 40)


def test_missing_pixels_in_training_do_no_harm():
    X = waves(40, 0)
    X[:, :, :4, :4] = np.nan
    detector = RIAD(training=QUICK).fit(X)
    assert np.isfinite(detector.anomaly_score(X)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cells": ()}, "cells: \\(\\) was given"),
        ({"cells": (0, 4)}, "cells: \\(0, 4\\) was given"),
        ({"cells": 4}, "cells: 4 was given"),
        ({"sets": 1}, "sets: 1 was given"),
        ({"divisions": 0}, "divisions: 0 was given"),
        ({"resolution": 4}, "resolution: 4 was given"),
        ({"smooth": 1.0}, "smooth: 1.0 was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        RIAD(**parameters).fit(waves(20, 0))
