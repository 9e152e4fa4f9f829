"""The joint energy model: a classifier of normal samples that is a density too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812

from genad import Backbone, Training, create
from genad.core.persistence import load
from genad.data.samples import Batch
from genad.errors import DataWarning, InputError

pytestmark = pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning")
SMALL = Backbone("mlp", (32, 32), "silu")
CENTRES = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])


def clusters(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 3, n)
    return CENTRES[c] + 0.3 * rng.normal(size=(n, 2)), c


@pytest.fixture(scope="module")
def fitted():
    X, c = clusters(1500)
    return create("jem", classes=3, backbone=SMALL, training=Training(updates=150, lr=5e-3)).fit(X, c + 2)


def test_the_energy_is_the_log_sum_of_the_classifier():
    torch.manual_seed(0)
    net = create("jem", classes=4).build((3,))
    x = torch.randn(6, 3)
    with torch.no_grad():
        net.visible += 0.5
    logits = net.features(x)
    assert logits.shape == (6, 4)
    density = logits.exp().mean(1).log() - 0.5 * (x - 0.5).square().sum(1)
    assert torch.allclose(-net(x), density, atol=1e-5)


def test_the_loss_is_the_contrast_and_the_cross_entropy():
    detector = create("jem", classes=3, jitter=0.0, class_weight=2.0)
    torch.manual_seed(0)
    net = detector.build((2,))
    x, labels = torch.randn(8, 2), torch.randint(3, (8,))

    def loss(told):
        net.chains.restart()
        torch.manual_seed(1)
        net.chains.restart()
        net.told.x, net.told.mask, net.told.labels = (
            (x, torch.ones_like(x, dtype=torch.bool), labels) if told else (x[:0], x[:0].bool(), labels[:0])
        )
        return detector.loss(net, Batch(x)).item()

    expected = 2 * F.cross_entropy(net.logits(x), labels).item() / 2
    assert loss(True) - loss(False) == pytest.approx(expected, abs=1e-5)


def test_it_names_classes_as_they_were_given(fitted):
    fresh, c = clusters(300, seed=1)
    assert (fitted.classify(fresh) == c + 2).mean() > 0.98
    assert fitted.net_.names.tolist() == [2, 3, 4]


def test_three_scores(fitted):
    fresh, _ = clusters(200, seed=1)
    between = np.array([[0.0, -1.0], [1.0, 0.5], [-1.0, 0.5], [5.0, 5.0]])
    x = fitted.adapter_.transform(between).samples.stretch(0, 4).x
    assert fitted.anomaly_score(between) == pytest.approx(fitted.net_(x).detach().numpy(), abs=1e-4)
    assert roc_auc_score(np.r_[np.zeros(200), np.ones(4)], fitted.anomaly_score(np.r_[fresh, between])) > 0.97
    X, c = clusters(400)
    for score_by in ("slope", "confidence"):
        other = create(
            "jem", score_by=score_by, classes=3, backbone=SMALL, training=Training(updates=100, lr=5e-3)
        ).fit(X, c + 2)
        found = other.anomaly_score(between)
        x = other.adapter_.transform(between).samples.stretch(0, 4).x.requires_grad_()
        if score_by == "slope":
            (slope,) = torch.autograd.grad(other.net_(x).sum(), x)
            assert found == pytest.approx(slope.square().mean(1).sqrt().numpy(), rel=1e-3)
        else:
            likely = other.net_.logits(x).softmax(1).amax(1)
            assert found == pytest.approx(-likely.log().detach().numpy(), abs=1e-4)
            # A point between two classes is unsure, one far beyond a single class is not.
            assert found[0] > np.median(other.anomaly_score(fresh))
        with pytest.raises(InputError, match="score_by='energy'"):
            other.log_prob(between)


def test_without_classes_clusters_stand_in_for_them():
    X, c = clusters(600)
    detector = create("jem", classes=3, backbone=SMALL, training=Training(updates=150, lr=5e-3)).fit(X)
    found = detector.classify(X)
    assert len(detector.net_.names) == 0
    assert all(len(np.unique(found[c == k])) == 1 for k in range(3))
    assert len(np.unique(found)) == 3


def test_labels_of_anomalies_keep_their_meaning():
    X, c = clusters(400)
    odd = np.full((10, 2), 50.0)
    y = np.r_[np.where(np.arange(400) < 200, c + 2, 0), np.ones(10, int)]
    detector = create("jem", classes=3, training=Training(updates=5)).fit(np.r_[X, odd], y)
    # Anomalies are neither trained on nor calibrated on, and do not set the scale; unnamed samples are both.
    assert len(detector.calibration_scores_) == 80
    assert detector.training_report_.samples == 320
    assert (detector.adapter_.transform(X).samples.stretch(0, 400).x.std(0) - 1).abs().max() < 0.05
    assert detector.net_.names.tolist() == [2, 3, 4]
    assert set(detector.classify(X)) <= {2, 3, 4}


def test_only_samples_that_are_trained_on_teach_classes(monkeypatch):
    X, c = clusters(200)
    detector = create("jem", classes=3, training=Training(updates=2))
    seen = []
    real = type(detector).loss
    monkeypatch.setattr(
        type(detector), "loss", lambda self, net, b: (seen.append(len(net.told)), real(self, net, b))[1]
    )
    detector.fit(X, c + 2)
    assert set(seen) == {160}
    assert len(detector.net_.told) == 0


def test_classes_survive_a_file(fitted, tmp_path):
    fresh, _ = clusters(40, seed=2)
    again = load(fitted.save(tmp_path / "model.genad"))
    assert np.array_equal(again.classify(fresh), fitted.classify(fresh))
    assert again.anomaly_score(fresh).tobytes() == fitted.anomaly_score(fresh).tobytes()


def test_more_classes_than_logits_are_refused():
    X, c = clusters(100)
    with pytest.raises(InputError, match="y: 3 classes of normal units were given, and classes=2; raise classes to 3"):
        create("jem", classes=2, training=Training(updates=2)).fit(X, c + 2)
    with pytest.raises(InputError, match="3 labels were given for 100"):
        create("jem", training=Training(updates=2)).fit(X, [2, 3, 4])
    with pytest.warns(DataWarning, match="y is ignored"):
        create("jem", training=Training(updates=2)).fit(X, c + 0.5)


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [("score_by", "mass", "'confidence'"), ("classes", 0, "at least 1"), ("class_weight", -1.0, r"\[0, inf\)")],
)
def test_wrong_parameters_are_named(parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("jem", **{parameter: value}).fit(clusters(50)[0])


def test_floor_on_a_real_table(one_class):
    X, test, y = one_class("thyroid")
    found = create("jem", training=Training(updates=100)).fit(X).anomaly_score(test)
    assert roc_auc_score(y, found) > 0.9
