"""Autoregressive density told by labelled anomalies where to be low."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

from genad import Backbone, Training, create
from genad.core.persistence import load
from genad.data.samples import Batch
from genad.density.explicit import supervised_ade
from genad.errors import InputError
from genad.nn.ranking import soft_auc

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
SMALL = Backbone("mlp", hidden=(32, 32))
COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])


def gaussian(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal([0, 0], COVARIANCE, n)


@pytest.fixture(scope="module")
def fitted():
    return create("supervised_ade", orders=3, backbone=SMALL, training=Training(updates=500)).fit(gaussian(2000))


def test_the_density_is_the_known_one(fitted):
    Z = gaussian(400, seed=1)
    truth = multivariate_normal([0, 0], COVARIANCE).logpdf(Z)
    assert np.mean(truth - fitted.log_prob(Z)) < 0.1
    assert np.corrcoef(truth, fitted.log_prob(Z))[0, 1] > 0.93


def test_the_density_has_mass_one(fitted):
    grid = torch.linspace(-8, 8, 161)
    x = torch.cartesian_prod(grid, grid)
    mass = fitted.log_density(fitted.net_, x).exp().sum() * (grid[1] - grid[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=0.02)


def test_the_density_is_the_mean_over_the_orders(fitted):
    net, x = fitted.net_, torch.randn(20, 2)
    each = torch.stack([net.conditionals(x, order).sum(1).exp() for order in range(3)])
    assert torch.allclose(fitted.score_batch(net, Batch(x)), -each.mean(0).log(), atol=1e-5)


def test_missing_values_leave_the_score_to_the_rest(fitted):
    net = fitted.net_
    x, mask = torch.tensor([[1.5, 0.0]]), torch.tensor([[True, False]])
    each = torch.stack([2 * net.conditionals(x, order)[0, 0] for order in range(3)])
    expected = -(each.exp().mean().log())
    assert fitted.score_batch(net, Batch(x, mask)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_objective_ranks_every_labelled_anomaly_below_every_normal_row():
    torch.manual_seed(0)
    detector = create("supervised_ade", orders=1)
    net = detector.build((3,))
    x, odd = torch.randn(16, 3), torch.randn(5, 3) + 1
    normal, lower = (net.conditionals(rows, 0).sum(1) for rows in (x, odd))
    assert detector.loss(net, Batch(x)).item() == pytest.approx(-normal.mean().item() / 3, rel=1e-5)
    net.told.x, net.told.mask = odd, torch.ones_like(odd, dtype=torch.bool)
    net.told.labels = torch.ones(5, dtype=torch.int64)
    net.weight.fill_(7.0)
    expected = -(normal.mean() + 7 * soft_auc(normal, lower)) / 3
    assert detector.loss(net, Batch(x)).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.fixture(scope="module")
def labelled():
    """Normal rows of one wide cluster, with anomalies that sit inside it, a few of them labelled."""
    rng = np.random.default_rng(0)
    X, odd = rng.normal(size=(1500, 2)), rng.normal([1.0, 1.0], 0.2, size=(20, 2))
    fresh = rng.normal(size=(500, 2)), rng.normal([1.0, 1.0], 0.2, size=(200, 2))
    return np.concatenate([X, odd]), np.r_[np.zeros(1500, int), np.ones(20, int)], fresh


def auc(detector, fresh) -> float:
    normal, odd = fresh
    return roc_auc_score(np.repeat([0, 1], [len(normal), len(odd)]), detector.anomaly_score(np.concatenate(fresh)))


def test_labels_find_anomalies_where_the_density_is_high(labelled):
    X, y, fresh = labelled
    make = {"backbone": SMALL, "orders": 3, "training": Training(updates=300, lr=5e-3)}
    without = create("supervised_ade", **make).fit(X[y == 0])
    told = create("supervised_ade", weight=100.0, **make).fit(X, y)
    assert auc(without, fresh) < 0.7
    assert auc(told, fresh) > 0.85
    # Weighed without bounds, the likelihood of an anomaly would fall for ever and take that of normal rows along.
    assert told.log_prob(fresh[0]).mean() > without.log_prob(fresh[0]).mean() - 1.5


def test_without_labels_it_is_a_plain_density(labelled):
    X, y, _ = labelled
    quick = {"backbone": SMALL, "orders": 2, "training": Training(updates=20)}
    plain = create("supervised_ade", **quick).fit(X)
    unlabelled = create("supervised_ade", weight=100.0, **quick).fit(X, np.where(y == 1, -1, y))
    assert float(plain.net_.weight) == float(unlabelled.net_.weight) == 0.0
    assert np.array_equal(plain.anomaly_score(X), unlabelled.anomaly_score(X))


def test_the_weight_is_chosen_on_validation_when_there_are_labels_enough(labelled, monkeypatch):
    X, y, _ = labelled
    monkeypatch.setattr(supervised_ade, "_WEIGHTS", (0.01, 300.0))
    quick = {"backbone": SMALL, "orders": 2, "training": Training(updates=150, lr=1e-2)}
    chosen = create("supervised_ade", **quick).fit(X, y)
    assert float(chosen.net_.weight) == 300.0
    few = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y)[:3]]
    brief = create("supervised_ade", **quick | {"training": Training(updates=2)}).fit(X[few], y[few])
    assert float(brief.net_.weight) == 100.0
    given = create("supervised_ade", weight=3.0, **quick | {"training": Training(updates=2)}).fit(X, y)
    assert float(given.net_.weight) == 3.0


def test_labelled_anomalies_do_not_stay_in_the_model_and_set_no_threshold(labelled, tmp_path):
    X, y, _ = labelled
    detector = create("supervised_ade", weight=10.0, backbone=SMALL, training=Training(updates=20)).fit(X, y)
    assert len(detector.net_.told) == 0
    assert len(detector.calibration_scores_) == 300
    again = load(detector.save(tmp_path / "model.genad"))
    assert np.array_equal(again.anomaly_score(X[:50]), detector.anomaly_score(X[:50]))


def test_columns_of_few_values_have_a_finite_density():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 2, 300), np.zeros(300), rng.normal(size=300)])
    detector = create("supervised_ade", backbone=SMALL, training=Training(updates=100)).fit(X)
    found = detector.anomaly_score(np.r_[X[:50], [[0.5, 9.0, 0.0]]])
    assert np.isfinite(found).all()
    # No value can be likelier than under the narrowest Gaussian.
    assert (found >= -3 * np.log(1 / (0.1 * np.sqrt(2 * np.pi)))).all()
    assert found[-1] > found[:-1].max()


def test_samples_lie_where_the_data_lie(fitted):
    drawn = fitted.sample(500)
    assert drawn.mean(0) == pytest.approx([0, 0], abs=0.2)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(0.8, abs=0.1)
    assert np.array_equal(drawn, fitted.sample(500))


def test_a_few_labels_help_on_a_real_table(data_dir):
    with np.load(data_dir / "tabular" / "adbench_annthyroid.npz", allow_pickle=False) as file:
        X, y = file["X"].astype(np.float32), file["y"].astype(int).ravel()
    rng = np.random.default_rng(0)
    normal, odd = rng.permutation(np.flatnonzero(y == 0)), rng.permutation(np.flatnonzero(y == 1))
    train, test = np.r_[normal[:3000], odd[:10]], np.r_[normal[3000:], odd[10:]]
    brief = {"backbone": SMALL, "orders": 2, "training": Training(updates=300, lr=5e-3)}
    told = create("supervised_ade", weight=100.0, **brief).fit(X[train], y[train])
    assert roc_auc_score(y[test], told.anomaly_score(X[test])) > 0.93


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("weight", -1.0, r"\[0, inf\)"),
        ("components", 0, "at least 1"),
        ("orders", 1.5, "at least 1"),
        ("min_std", 0.0, r"\(0, inf\)"),
    ],
)
def test_wrong_parameters_are_named(parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("supervised_ade", **{parameter: value}).fit(gaussian(50))
