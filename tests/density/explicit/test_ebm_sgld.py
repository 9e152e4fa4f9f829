"""EBM trained by persistent Langevin chains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from genad import Backbone, Training, create
from genad.data.samples import Batch
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=30)


@pytest.fixture(scope="module")
def pair():
    """Two clusters of one feature, with a gap between them, and a second feature of noise."""
    rng = np.random.default_rng(0)
    side = rng.choice([-1.0, 1.0], 2000)
    return np.column_stack([side + 0.25 * rng.normal(size=2000), rng.normal(size=2000)])


@pytest.fixture(scope="module")
def fitted(pair):
    return create("ebm_sgld", backbone=Backbone("mlp", (32, 32), "silu"), training=Training(updates=300, lr=5e-3)).fit(
        pair
    )


def test_the_energy_is_that_of_the_known_density(fitted):
    rng = np.random.default_rng(1)
    side = rng.choice([-1.0, 1.0], 500)
    Z = np.column_stack([side + 0.25 * rng.normal(size=500), rng.normal(size=500)])
    # The density that is learnt is that of the data with the jitter of training.
    spread = np.hypot(0.25, fitted.jitter * np.sqrt(1 + 0.25**2))
    parts = [-0.5 * ((Z[:, 0] - c) / spread) ** 2 for c in (-1, 1)]
    truth = np.logaddexp(*parts) - 0.5 * Z[:, 1] ** 2 / (1 + fitted.jitter**2)
    assert np.corrcoef(truth, fitted.log_prob(Z))[0, 1] > 0.85


def test_the_gap_between_clusters_has_a_high_energy(fitted):
    gap, left, right = fitted.anomaly_score([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert gap > left + 0.5
    assert gap > right + 0.5
    far = fitted.anomaly_score([[30.0, -30.0], [1e6, 0.0]])
    assert far[1] > far[0] > gap + 50


def test_samples_lie_where_the_data_lie(fitted, pair):
    drawn = fitted.sample(400)
    assert drawn.shape == (400, 2)
    assert drawn.mean(0) == pytest.approx(pair.mean(0), abs=0.4)
    assert drawn.std(0) == pytest.approx(pair.std(0), rel=0.3)
    assert (np.abs(drawn[:, 0]) < 0.4).mean() < 0.25
    assert np.array_equal(drawn, fitted.sample(400))


def test_training_lowers_the_data_against_the_chains():
    torch.manual_seed(0)
    detector = create("ebm_sgld", calm=0.0, jitter=0.0)
    net = detector.build((2,))
    x = torch.randn(64, 2) + 2
    detector.loss(net, Batch(x)).backward()
    made = net.chains.store[:64]
    with torch.no_grad():
        before = (net(x).mean() - net(made).mean()).item()
        for p in net.parameters():
            p -= 0.05 * p.grad
        assert (net(x).mean() - net(made).mean()).item() < before


def test_no_gradient_flows_through_the_chains():
    torch.manual_seed(0)
    detector = create("ebm_sgld", calm=0.0, jitter=0.0, chains=64)
    net = detector.build((2,))
    x = torch.randn(64, 2)
    detector.loss(net, Batch(x)).backward()
    # The derivative by the offset with the chains held fixed; their path to where they are would add to it.
    assert torch.allclose(net.visible.grad, (net.chains.store.mean(0) - x.mean(0)) / 2, atol=1e-5)


def test_chains_start_in_the_cube_and_are_dropped_after_the_fit(fitted):
    net = create("ebm_sgld", chains=50).build((3,))
    assert net.chains.store.shape == (50, 3)
    assert net.chains.store.abs().max() <= 3
    assert len(fitted.net_.chains.store) == 0
    assert len(fitted.net_.safe) == 0


def test_the_sampled_network_is_in_evaluation_mode():
    detector = create("ebm_sgld", backbone=Backbone("mlp", (8,), "silu", dropout=0.5))
    net = detector.build((3,))
    seen = []
    net.features.register_forward_hook(lambda module, *_: seen.append(module.training))
    net.train()
    detector.loss(net, Batch(torch.randn(8, 3)))
    assert seen[: detector.steps] == [False] * detector.steps
    assert seen[-1]
    assert net.training


def test_a_diverged_training_goes_back_to_the_last_sound_copy():
    torch.manual_seed(0)
    detector = create("ebm_sgld")
    net = detector.build((2,))
    batch = Batch(torch.randn(16, 2))
    detector.loss(net, batch)
    sound = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    with torch.no_grad():
        net.features[-1].weight *= 1e9
    loss = detector.loss(net, batch)
    assert torch.isfinite(loss)
    assert torch.equal(nn.utils.parameters_to_vector(net.parameters()).detach(), sound)
    assert net.chains.store.isfinite().all()


def test_two_scores(pair):
    slope = create("ebm_sgld", score_by="slope", training=QUICK).fit(pair)
    x = slope.adapter_.transform(np.array([[0.5, 4.0]])).samples.stretch(0, 1).x.requires_grad_()
    (gradient,) = torch.autograd.grad(slope.net_(x).sum(), x)
    assert slope.anomaly_score([[0.5, 4.0]])[0] == pytest.approx(gradient.square().mean().sqrt().item(), rel=1e-4)
    with pytest.raises(InputError, match="score_by='energy'"):
        slope.log_prob(pair[:2])


def test_the_temperature_is_that_of_the_chains(pair):
    cold = create("ebm_sgld", step=0.1, noise=0.1, training=QUICK).fit(pair)
    assert cold.temperature == pytest.approx(0.05)
    x = cold.adapter_.transform(pair[:3]).samples.stretch(0, 3).x
    assert cold.anomaly_score(pair[:3]) == pytest.approx((cold.net_(x) / 0.05).detach().numpy(), rel=1e-5)
    assert create("ebm_sgld").temperature == 1.0


@pytest.mark.parametrize("shape", [(4,), (12, 2), (1, 12, 12), (4, 1, 8, 8)])
def test_every_shape_trains_and_restores(shape):
    X = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    detector = create("ebm_sgld", training=Training(updates=4)).fit(X)
    assert np.isfinite(detector.detect(X).scores).all()
    assert np.shape(detector.restore(X)) == X.shape
    kinds = {type(module).__name__ for module in detector.net_.modules()}
    assert "ReLU" not in kinds
    assert not any("BatchNorm" in kind for kind in kinds)


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("score_by", "both", "'energy' or"),
        ("steps", 0, "at least 1"),
        ("chains", 2.5, "at least 1"),
        ("step", 0.0, "0, inf"),
        ("noise", -1.0, "0, inf"),
        ("renewed", 1.5, r"\[0, 1\]"),
        ("jitter", -0.1, r"\[0, inf\)"),
        ("calm", None, r"\[0, inf\)"),
    ],
)
def test_wrong_parameters_are_named(pair, parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("ebm_sgld", **{parameter: value}).fit(pair[:50])


def test_floor_on_a_real_table(one_class):
    X, test, y = one_class("thyroid")
    found = create("ebm_sgld", training=Training(updates=150)).fit(X).anomaly_score(test)
    assert roc_auc_score(y, found) > 0.9
