"""Manifold projection-diffusion recovery."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, create
from genad.data.samples import Batch
from genad.errors import InputError
from genad.nn.langevin import to_sphere

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]


@pytest.fixture(scope="module")
def ring():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.03 * rng.normal(size=(400, 2))


def batch_of(ring, n=32):
    return Batch(torch.from_numpy(ring[:n] / ring.std(0)).float())


def test_the_manifolds_are_frozen_while_the_energy_learns(ring):
    torch.manual_seed(0)
    detector = create("mpdr", share=0.4)
    net = detector.build((2,))
    first, second = detector.phases(net)
    assert (tuple(first.modules), tuple(second.modules)) == (("manifolds",), ("model",))
    assert (first.stop, second.start) == (0.4, 0.4)
    ours = {id(p) for p in net.manifolds.parameters()}
    assert not ours & {id(p) for p in net.model.parameters()}
    detector.loss(net, batch_of(ring)).backward()
    assert all(p.grad is None for p in net.manifolds.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.model.parameters())


def test_an_ensemble_of_manifolds_with_codes_of_growing_length():
    net = create("mpdr", latent=4, manifolds=3).build((10,))
    assert [m.code(torch.zeros(1, 10)).shape[1] for m in net.manifolds] == [4, 6, 9]


def test_every_manifold_projects_a_part_of_the_batch(ring):
    torch.manual_seed(0)
    detector = create("mpdr", manifolds=2, code_steps=0, steps=0, noise=(1e-9,))
    net = detector.build((2,))
    x = batch_of(ring).x
    made = detector.negatives(net, x)
    expected = torch.cat([net.manifolds[0](x[:16]), net.manifolds[1](x[16:])])
    # Without noise and chains, what is made up is the projection itself.
    assert torch.allclose(made, expected, atol=1e-5)
    assert not made.requires_grad
    # A batch smaller than the number of manifolds still works.
    assert len(detector.negatives(net, x[:1])) == 1


def test_more_noise_moves_the_codes_farther(ring):
    x = batch_of(ring).x
    moved = []
    for level in (0.01, 1.0):
        torch.manual_seed(0)
        detector = create("mpdr", manifolds=1, code_steps=0, steps=0, noise=(level,))
        net = detector.build((2,))
        moved.append((detector.negatives(net, x) - net.manifolds[0](x)).square().mean().item())
    assert moved[1] > 10 * moved[0] > 0


def test_the_recovery_term_holds_the_chains_at_the_moved_code(ring):
    x = batch_of(ring).x
    away = []
    for recovery in (0.0, 10.0):
        torch.manual_seed(0)
        detector = create(
            "mpdr", manifolds=1, code_steps=0, steps=20, step=0.01, jitter=0.0, noise=(1.0,), recovery=recovery
        )
        net = detector.build((2,))
        manifold = net.manifolds[0]
        torch.manual_seed(1)
        torch.randint(1, (len(x), 1))
        code = manifold.code(x)
        moved = to_sphere(code + torch.randn_like(code))
        torch.manual_seed(1)
        away.append((manifold.code(detector.negatives(net, x)) - moved).square().sum(1).mean().item())
    assert away[1] < 0.9 * away[0]


def test_the_chain_of_codes_goes_down_the_energy(ring):
    x = batch_of(ring).x
    energies = []
    for steps in (0, 20):
        torch.manual_seed(0)
        detector = create("mpdr", manifolds=1, code_steps=steps, steps=0, recovery=0.0, noise=(0.3,))
        net = detector.build((2,))
        torch.manual_seed(1)
        energies.append(net.energy(detector.negatives(net, x)).mean().item())
    assert energies[1] < energies[0]


def test_the_objective_is_contrast_and_squared_energies(ring):
    torch.manual_seed(0)
    detector = create("mpdr", calm=2.0)
    net = detector.build((2,))
    x = batch_of(ring).x
    made = x + 1
    detector.negatives = lambda *_: made
    real, fake = net.energy(x), net.energy(made)
    expected = real.mean() - fake.mean() + 2 * (real.square().mean() + fake.square().mean())
    assert detector.loss(net, Batch(x)).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("model", ["autoencoder", "network"])
def test_the_score_is_the_energy_and_finds_what_is_off_the_ring(ring, model):
    detector = create("mpdr", model=model, training=Training(updates=120)).fit(ring)
    x = detector.adapter_.transform(ring[:4]).samples.stretch(0, 4).x
    assert detector.anomaly_score(ring[:4]) == pytest.approx(detector.net_.energy(x).detach().numpy(), rel=1e-4)
    scores = detector.anomaly_score(np.r_[ring[:200], 2.2 * ring[:200]])
    assert roc_auc_score(np.repeat([0, 1], 200), scores) > 0.9


@pytest.mark.parametrize("model", ["autoencoder", "network"])
@pytest.mark.parametrize("shape", [(1,), (4,), (12, 2), (1, 12, 12), (4, 1, 8, 8)])
def test_every_shape_trains_and_restores(shape, model):
    X = np.random.default_rng(0).normal(size=(24, *shape)).astype(np.float32)
    detector = create("mpdr", model=model, training=Training(updates=4)).fit(X)
    assert np.isfinite(detector.anomaly_score(X)).all()
    assert np.shape(detector.restore(X[:2])) == X[:2].shape


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("model", "both", "'autoencoder' or"),
        ("latent", 1, "at least 2"),
        ("manifolds", 0, "at least 1"),
        ("noise", 0.1, "a tuple of numbers above 0"),
        ("noise", (), "a tuple of numbers above 0"),
        ("noise", (0.1, 0), "a tuple of numbers above 0"),
        ("steps", -1, "at least 0"),
        ("code_steps", 0.5, "at least 0"),
        ("code_step", 0, "0, inf"),
        ("step", -1, "0, inf"),
        ("recovery", -1, r"\[0, inf\)"),
        ("jitter", -1, r"\[0, inf\)"),
        ("calm", -1, r"\[0, inf\)"),
        ("share", 0, r"\(0, 1\)"),
    ],
)
def test_wrong_parameters_are_named(ring, parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("mpdr", **{parameter: value}).fit(ring[:50])


def test_floor_on_a_real_table(one_class):
    X, test, y = one_class("cardio")
    found = create("mpdr", training=Training(updates=150)).fit(X).anomaly_score(test)
    assert roc_auc_score(y, found) > 0.85
