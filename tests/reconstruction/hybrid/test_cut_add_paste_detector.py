"""CutAddPaste as a detector: pasted windows, the classifier, the choice of its weights, scores, and real data."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

import genad
from genad import CutAddPasteDetector, Training
from genad.core.windows import as_windows
from genad.data.samples import Batch
from genad.errors import CalibrationWarning, InputError

# short series leave few steps to calibrate on, which is not what is tested here
pytestmark = pytest.mark.filterwarnings("ignore:alpha=")


def named(n: int = 40, length: int = 32, channels: int = 2) -> torch.Tensor:
    """Return windows whose values name them: window i holds i + step / 1000 + channel / 10."""
    base = torch.arange(n, dtype=torch.float64)[:, None, None] + torch.arange(length)[:, None] / 1000
    return base + torch.arange(channels) / 10


def waves(n: int = 900, seed: int = 0) -> np.ndarray:
    t = np.arange(n)
    return np.c_[np.sin(t / 4), np.cos(t / 4)] + 0.05 * np.random.default_rng(seed).normal(size=(n, 2))


@pytest.fixture(scope="module")
def fitted():
    return CutAddPasteDetector(training=Training(updates=120)).fit(waves())


def test_every_window_gets_a_stretch_of_another_one():
    torch.manual_seed(0)
    x = named()
    before = x.clone()
    pasted = CutAddPasteDetector(trend=0.0).pasted(Batch(x))
    assert torch.equal(x, before)  # neither windows nor donors are written to
    moved = 0
    for i in range(len(x)):
        steps = (pasted[i] != x[i]).all(1).nonzero().flatten()
        assert 10 <= len(steps) <= 32
        assert (steps.diff() == 1).all()
        donor = pasted[i, steps, 0].floor()
        assert len(donor.unique()) == 1
        assert donor[0] != i
        moved += int(((pasted[i, steps[0], 0] - donor[0]) * 1000).round() != steps[0])
    assert moved > 20


def test_the_slope_has_either_sign_and_its_bound():
    torch.manual_seed(0)
    pasted = CutAddPasteDetector(trend=0.2).pasted(Batch(torch.zeros(400, 32, 3)))
    steps = pasted.diff(dim=1)
    # Within a stretch two differences in a row are equal; where it ends there is a jump.
    slopes = steps[:, 1:][(steps[:, 1:] != 0) & (steps[:, 1:] - steps[:, :-1]).abs().lt(1e-5)]
    assert 0.15 < float(slopes.abs().max()) <= 0.2 + 1e-5
    assert 0.4 < float((slopes > 0).double().mean()) < 0.6
    sloped = (pasted != 0).any(1)
    assert sloped.any(1).all()
    assert not sloped.all(1).all()


@pytest.mark.parametrize(("params", "length", "least"), [({}, 32, 10), ({}, 9, 3), ({"cut": 20}, 32, 20), ({}, 2, 1)])
def test_the_fewest_steps_of_a_stretch(params, length, least):
    torch.manual_seed(0)
    x = named(500, length, 1)
    pasted = CutAddPasteDetector(trend=0.0, **params).pasted(Batch(x))
    assert int((pasted != x).any(2).sum(1).min()) == least


def test_holes_stay_holes():
    torch.manual_seed(0)
    mask = torch.rand(30, 32, 2) > 0.3
    pasted = CutAddPasteDetector().pasted(Batch(torch.randn(30, 32, 2) * mask, mask))
    assert (pasted[~mask] == 0).all()


@pytest.mark.parametrize(("steps", "features"), [(64, 10), (32, 6)])
def test_the_network_is_that_of_the_paper(steps, features):
    net = CutAddPasteDetector(window=steps).build((steps, 3))
    convs = [part for part in net.modules() if isinstance(part, nn.Conv1d)]
    assert [(c.out_channels, c.kernel_size[0]) for c in convs] == [(32, 8), (64, 8), (64, 8)]
    assert [type(part) for part in net.blocks[1]] == [nn.Conv1d, nn.BatchNorm1d, nn.ReLU, nn.MaxPool1d]
    assert net.drop.p == 0.45
    assert [(p.in_features, p.out_features) for p in net.head if isinstance(p, nn.Linear)] == [
        (64 * features, 32 * features),
        (32 * features, 2),
    ]
    assert net(torch.randn(5, steps, 3)).shape == (5, 2)


def test_the_loss_is_the_cross_entropy_of_as_many_windows_of_either_class():
    detector = CutAddPasteDetector(dropout=0.0)
    net = detector.build((32, 2)).eval()
    batch = Batch(torch.randn(6, 32, 2))
    torch.manual_seed(3)
    pasted = detector.pasted(batch)
    torch.manual_seed(3)
    loss = detector.loss(net, batch)
    expected = functional.cross_entropy(net(torch.cat([batch.x, pasted])), torch.tensor([0] * 6 + [1] * 6))
    torch.testing.assert_close(loss, expected)


def test_the_score_is_the_probability_of_the_anomalous_class(fitted):
    batch = Batch(torch.randn(16, 32, 2))
    with torch.no_grad():
        score = fitted.score_batch(fitted.net_, batch)
        odds = fitted.net_(batch.x).double()
    torch.testing.assert_close(score, torch.sigmoid(odds[:, 1] - odds[:, 0]))
    assert score.dtype == torch.float64


def test_a_step_has_the_mean_of_the_windows_that_hold_it(fitted):
    X = waves(64, seed=3)
    x = fitted._ingest(X, reset=False).samples.x
    starts = [0, 8, 16, 24, 32]  # windows of 32 that share three quarters
    with torch.no_grad():
        each = fitted.score_batch(fitted.net_, Batch(torch.stack([x[a : a + 32] for a in starts])))
    expected = [np.mean([p for p, a in zip(each.tolist(), starts, strict=True) if a <= t < a + 32]) for t in range(64)]
    np.testing.assert_allclose(fitted.anomaly_score(X), expected, rtol=1e-5)


def test_the_weights_with_the_least_loss_on_later_windows_are_kept(monkeypatch):
    detector = CutAddPasteDetector(training=Training(updates=80, lr=3e-3))
    seen: list[tuple[float, torch.Tensor]] = []
    examined = CutAddPasteDetector._examined

    def noted(self, net):
        loss = examined(self, net)
        seen.append((float(loss), net.head[0].weight.detach().clone()))
        return loss

    monkeypatch.setattr(CutAddPasteDetector, "_examined", noted)
    # Noise: nothing but the windows themselves can be learnt, which does not help with later ones.
    detector.fit(np.random.default_rng(0).normal(size=(500, 2)))
    losses = [loss for loss, _ in seen]
    assert len(losses) == 5  # after 20, 40, 60 and 80 updates, and with the statistics settled
    best = int(np.argmin(losses))
    assert best < 3
    assert torch.equal(detector.net_.head[0].weight, seen[best][1])
    assert float(detector.net_.least) == pytest.approx(losses[best])
    assert len(detector.net_.best) == 0


def test_windows_that_choose_the_weights_share_no_step_with_the_others(monkeypatch):
    detector = CutAddPasteDetector(training=Training(updates=20))
    taken = {}
    finish = detector.finish

    def noted(net, samples):
        taken["rest"], taken["exam"] = as_windows(samples).starts, detector._exam
        finish(net, samples)

    monkeypatch.setattr(detector, "finish", noted)
    detector.fit(waves(1000))
    # 800 steps to learn from, of which the last 120 are kept apart.
    assert int(taken["rest"].max()) + 32 == 680
    assert len(taken["exam"].x) == 2 * (120 - 32 + 1)
    assert detector._exam is None


def test_a_short_series_keeps_the_last_weights():
    with pytest.warns(CalibrationWarning, match="calibration: only 100"):
        detector = CutAddPasteDetector(training=Training(updates=40), window=32).fit(waves(100))
    assert math.isinf(float(detector.net_.least))
    assert np.isfinite(detector.anomaly_score(waves(100))).all()


def test_the_normalisation_is_settled_with_the_final_weights():
    torch.manual_seed(0)
    net = CutAddPasteDetector().build((32, 2)).eval()
    x = 3.0 + torch.randn(200, 32, 2)
    net.settle(x)
    twin = copy.deepcopy(net).train()
    twin.drop.p = 0.0
    # Unbiased variances are noted, biased ones used in training.
    torch.testing.assert_close(net(x), twin(x), atol=2e-2, rtol=2e-2)
    assert not any(part.training for part in net.modules())
    assert all(part.momentum == 0.1 for part in net.modules() if isinstance(part, nn.BatchNorm1d))


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    def make(path=None):
        return CutAddPasteDetector(training=Training(updates=60, checkpoint=path, checkpoint_seconds=1e-9))

    X = waves(400)
    whole = make().fit(X)
    broken, calls = make(tmp_path / "c"), []
    loss = CutAddPasteDetector.loss

    def breaks(self, net, batch):
        calls.append(1)
        if len(calls) == 45:
            raise KeyboardInterrupt
        return loss(self, net, batch)

    monkeypatch.setattr(CutAddPasteDetector, "loss", breaks)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(X)
    monkeypatch.undo()
    again = make(tmp_path / "c").fit(X)
    assert torch.equal(again.net_.head[0].weight, whole.net_.head[0].weight)
    assert torch.equal(again.net_.least, whole.net_.least)


def test_a_stretch_out_of_step_is_found_and_told_where(fitted, tmp_path):
    X = waves(500, seed=2)
    X[300:320, 1] = X[308:328, 1].copy()
    found = fitted.detect(X)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    near = np.zeros(500, bool)
    near[270:350] = True
    assert found.scores[300:320].min() > np.quantile(found.scores[~near], 0.99)
    assert found.maps[300:320, 1].mean() > 3 * found.maps[300:320, 0].mean()
    again = genad.load(fitted.save(tmp_path / "m"))
    assert again.anomaly_score(X).tobytes() == found.scores.tobytes()


def test_what_is_restored_is_the_nearest_normal_window(fitted):
    bank = fitted.net_.bank
    restored = fitted.reconstruct(fitted.net_, Batch(bank[:16].view(16, 32, 2) + 0.01))
    torch.testing.assert_close(restored.flatten(1), bank[:16])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"trend": -0.1}, "trend: -0.1"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"cut": 0}, "cut: 0"),
        ({"cut": 17, "window": 16}, "cut: 17 was given; use at most window=16"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(InputError, match=message):
        CutAddPasteDetector(**params).fit(waves(100))


@pytest.mark.data
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_floor_on_a_real_series(data_dir, seed):
    # Blood pressure with one beat out of order: its values are all usual ones.
    path = next((data_dir / "series" / "ucr").glob("*InternalBleeding17*"))
    with np.load(path, allow_pickle=False) as file:
        train, test, y = file["train"], file["test"], file["test_label"]
    detector = CutAddPasteDetector(random_state=seed, training=Training(updates=120)).fit(train.reshape(-1, 1))
    assert roc_auc_score(y, detector.anomaly_score(test.reshape(-1, 1))) > 0.9
