from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, load
from genad.data.samples import Batch
from genad.errors import InputError
from genad.reconstruction.autoencoder.scae_svm import ContractiveLayer, StackedContractiveSVM

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=60)


@pytest.fixture(scope="module")
def plane():
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(500, 6))


@pytest.fixture(scope="module")
def fitted(plane):
    return StackedContractiveSVM(hidden=(16, 8), training=Training(updates=200)).fit(plane)


def test_contraction_is_the_norm_of_the_jacobian():
    torch.manual_seed(0)
    layer = ContractiveLayer(5, 3).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    found = layer.contraction(layer(x))
    for row, value in zip(x, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(layer, row)
        assert jacobian.square().sum().item() == pytest.approx(value.item(), rel=1e-9)


def test_contraction_is_averaged_over_rows_and_not_summed():
    detector = StackedContractiveSVM(hidden=(4,), contraction=2.0)
    torch.manual_seed(0)
    net = detector.build((3,))
    x = torch.randn(10, 3)
    layer = net.layers()[0]
    expected = (layer.decode(layer(x)) - x).square().mean() + 2.0 * layer.contraction(layer(x)).mean()
    assert torch.allclose(detector.layer_loss(net, Batch(x), 0), expected)
    assert torch.allclose(detector.layer_loss(net, Batch(x.repeat(7, 1)), 0), expected)


def test_layers_are_trained_one_after_the_other_on_the_codes_below(plane, monkeypatch):
    detector = StackedContractiveSVM(hidden=(8, 4, 3), training=Training(updates=90))
    seen = []
    loss = StackedContractiveSVM.layer_loss

    def spy(self, net, batch, depth):
        seen.append((depth, [layer.encode.weight.detach().clone() for layer in net.layers()]))
        return loss(self, net, batch, depth)

    monkeypatch.setattr(StackedContractiveSVM, "layer_loss", spy)
    detector.fit(plane)
    assert [depth for depth, _ in seen] == [0] * 30 + [1] * 30 + [2] * 30
    for k in range(3):
        during = [weights for depth, weights in seen if depth == k]
        assert not torch.equal(during[0][k], during[-1][k])
        for other in {0, 1, 2} - {k}:
            assert torch.equal(during[0][other], during[-1][other])


def test_codes_move_less_with_contraction(plane):
    z = torch.from_numpy(((plane - plane.mean(0)) / plane.std(0)).astype(np.float32))
    norms = []
    for weight in (0.0, 1.0):
        net = StackedContractiveSVM(hidden=(16,), contraction=weight, training=Training(updates=200)).fit(plane).net_
        layer = net.layers()[0]
        norms.append(float(layer.contraction(layer(z)).mean()))
    assert norms[1] < 0.5 * norms[0]


def test_the_machine_decides_and_not_the_error(fitted, plane):
    code = torch.from_numpy(fitted.encode(plane))
    assert fitted.anomaly_score(plane) == pytest.approx(fitted.net_.machine(code).numpy(), abs=1e-5)
    assert ((code > 0) & (code < 1)).all()


def test_anomalies_off_the_plane_are_found(fitted, plane):
    odd = plane[:100] + 2 * np.random.default_rng(1).normal(size=(100, 6))
    y = np.r_[np.zeros(400), np.ones(100)]
    assert roc_auc_score(y, fitted.anomaly_score(np.r_[plane[100:], odd])) > 0.9


def test_labelled_anomalies_make_two_classes(plane):
    rng = np.random.default_rng(2)
    near = plane[:60] + np.array([0.0, 0, 0, 0, 0.5, 0.5]) + 0.05 * rng.normal(size=(60, 6))
    X = np.r_[plane[100:], near[:30]]
    y = np.r_[np.zeros(400, int), np.ones(30, int)]
    test, truth = np.r_[plane[:100], near[30:]], np.r_[np.zeros(100), np.ones(30)]
    training = Training(updates=300)
    blind = StackedContractiveSVM(training=training).fit(X[:400])
    told = StackedContractiveSVM(training=training, cost=10.0).fit(X, y)
    auroc = [roc_auc_score(truth, detector.anomaly_score(test)) for detector in (blind, told)]
    assert auroc[1] > auroc[0] + 0.03
    # Nothing of the labelled rows stays behind on the detector.
    assert told._known is None


def test_too_few_labels_leave_one_class(plane):
    y = np.zeros(500, int)
    y[:5] = 1
    few = StackedContractiveSVM(training=QUICK).fit(plane, y)
    assert (few.net_.machine.weights > 0).all()
    y[:10] = 1
    enough = StackedContractiveSVM(training=QUICK).fit(plane, y)
    assert (enough.net_.machine.weights < 0).any()
    # A later fit without labels does not remember them.
    assert (enough.fit(plane).net_.machine.weights > 0).all()


def test_saved_and_loaded_scores_alike(fitted, plane, tmp_path):
    again = load(fitted.save(tmp_path / "scae.genad"))
    assert (again.anomaly_score(plane) == fitted.anomaly_score(plane)).all()


def test_real_table(one_class):
    train, test, y = one_class("thyroid")
    assert roc_auc_score(y, StackedContractiveSVM().fit(train).anomaly_score(test)) > 0.94


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden": ()}, r"hidden: \(\) was given; use a tuple of whole numbers"),
        ({"hidden": (8, 0)}, r"hidden: \(8, 0\) was given"),
        ({"hidden": 8}, "hidden: 8 was given"),
        ({"contraction": -1.0}, "contraction: -1.0 was given"),
        ({"nu": 0.0}, "nu: 0.0 was given"),
        ({"cost": 0.0}, "cost: 0.0 was given"),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        StackedContractiveSVM(**parameters).fit(np.random.default_rng(0).normal(size=(50, 3)))
