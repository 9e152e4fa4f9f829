"""DSEBM: an energy whose gradient is a denoiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Backbone, Ensemble, Training, create
from genad.errors import InputError

# Small data cannot keep the promise of the default threshold, and some tables have a constant
# column; neither is looked at here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=80)


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).normal(size=(3000, 3))


@pytest.fixture(scope="module")
def fitted(normal):
    return create("dsebm", training=Training(updates=600)).fit(normal)


def test_gradient_equals_finite_differences(fitted):
    net = fitted.net_.double()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradient = x - net.restored(x)
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    for j in range(3):
        slope = (net(x + step[j]) - net(x - step[j])) / 2e-5
        assert torch.allclose(gradient[:, j], slope, atol=1e-7)
    energy, restored = net.energy_and_restored(x)
    assert torch.allclose(energy, net(x))
    assert torch.allclose(restored, net.restored(x))
    net.float()


def test_gaussian_data_give_the_posterior_mean(fitted):
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    expected = x / (1 + fitted.noise**2)
    error = (fitted.net_.restored(x) - expected).square().mean().sqrt()
    assert error < 0.12
    assert error < 0.5 * (x - expected).square().mean().sqrt()


def test_energy_is_the_log_density_of_noised_data_in_nats(fitted):
    Z = np.random.default_rng(3).normal(size=(500, 3))
    score = fitted.anomaly_score(Z)
    truth = 0.5 * (Z**2).sum(1) / (1 + fitted.noise**2)
    # Known up to a constant, so slope and correlation are compared.
    assert np.polyfit(truth, score, 1)[0] == pytest.approx(1.0, abs=0.2)
    assert np.corrcoef(truth, score)[0, 1] > 0.95
    assert fitted.log_prob(Z) == pytest.approx(-score)


def test_two_scores(normal):
    energy = create("dsebm", training=QUICK).fit(normal)
    length = create("dsebm", score_by="reconstruction", training=QUICK).fit(normal)
    x = torch.tensor([[0.5, -1.0, 2.0]])
    z = length.adapter_.transform(x.double().numpy()).samples.stretch(0, len(x)).x
    gradient = z - length.net_.restored(z)
    assert length.anomaly_score(x.double().numpy())[0] == pytest.approx(
        gradient.square().mean().sqrt().item(), rel=1e-5
    )
    assert energy.anomaly_score(x.double().numpy())[0] == pytest.approx(
        energy.net_(z).item() / energy.noise**2, rel=1e-5
    )


def test_relu_becomes_softplus():
    net = create("dsebm", backbone=Backbone(hidden=(8,), activation="relu")).build((4,))
    kinds = {type(module).__name__ for module in net.modules()}
    assert "ReLU" not in kinds
    assert "Softplus" in kinds
    silu = create("dsebm", backbone=Backbone(hidden=(8,), activation="silu")).build((4,))
    assert "SiLU" in {type(module).__name__ for module in silu.modules()}


@pytest.mark.parametrize("shape", [(4,), (12, 2), (1, 12, 12), (4, 1, 8, 8)])
def test_every_shape_trains_and_restores(shape):
    X = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    detector = create("dsebm", training=Training(updates=10)).fit(X)
    found = detector.detect(X)
    assert np.isfinite(found.scores).all()
    assert np.shape(detector.restore(X)) == X.shape


def test_members_stack_under_vmap(normal):
    ensemble = Ensemble(create("dsebm", training=QUICK), n=3).fit(normal)
    assert type(ensemble.net_).__name__ == "Stacked"
    scores = ensemble.anomaly_score([[0.0, 0, 0], [5, 5, 5]])
    assert scores[1] > scores[0] + 5


def test_restore_descends_the_energy_and_leaves_typical_samples(fitted):
    odd = np.array([[6.0, 0.0, -6.0]])
    restored = fitted.restore(odd)
    assert fitted.anomaly_score(restored)[0] <= float(fitted.net_.typical_score) + 1e-3
    assert np.abs(restored).max() < 3
    calm = np.array([[0.1, 0.0, -0.1]])
    assert fitted.restore(calm) == pytest.approx(calm, abs=1e-5)


def test_absurd_values_stay_finite(fitted):
    scores = fitted.anomaly_score([[1e15, -1e15, 1e15], [1e3, 0, 0]])
    assert np.isfinite(scores).all()
    assert scores[0] > scores[1]
    assert np.isfinite(fitted.restore([[1e15, -1e15, 1e15]])).all()


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [("score_by", "both", "'energy' or"), ("noise", 0.0, r"\(0, inf\)")],
)
def test_wrong_parameters_are_named(normal, parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("dsebm", **{parameter: value}).fit(normal[:50])


def test_reconstruction_score_has_no_density(normal):
    detector = create("dsebm", score_by="reconstruction", training=Training(updates=5)).fit(normal)
    with pytest.raises(InputError, match="score_by='energy'"):
        detector.log_prob(normal[:3])


@pytest.mark.parametrize(("name", "floor"), [("cardio", 0.90), ("satellite", 0.85)])
def test_floor_on_real_tables(one_class, name, floor):
    scores = []
    for seed in (0, 1):
        X, test, y = one_class(name, seed)
        found = create("dsebm", random_state=seed).fit(X).anomaly_score(test)
        scores.append(roc_auc_score(y, found))
    assert np.mean(scores) > floor
