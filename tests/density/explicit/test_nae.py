"""Normalized autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, create
from genad.data.samples import Batch
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=20)


@pytest.fixture(scope="module")
def ring():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 800)
    return np.column_stack([np.cos(angle), np.sin(angle)]) + 0.03 * rng.normal(size=(800, 2))


def batch_of(ring, n=64):
    return Batch(torch.from_numpy(ring[:n] / ring.std(0)).float())


def test_the_first_phase_is_an_autoencoder_and_the_second_ten_times_slower(ring):
    detector = create("nae", share=0.6, training=Training(lr=2e-3))
    net = detector.build((2,))
    first, second = detector.phases(net)
    assert first.loss == detector.autoencoder_loss
    assert second.loss == detector.loss
    assert (first.stop, second.start) == (0.6, 0.6)
    assert second.lr == pytest.approx(2e-4)
    batch = batch_of(ring)
    assert first.loss(net, batch).item() == pytest.approx((net(batch.x) - batch.x).square().mean().item(), rel=1e-5)


def test_chains_of_codes_go_down_the_error_of_what_they_decode_to():
    torch.manual_seed(0)
    detector = create("nae", code_steps=30, steps=0, code_noise=0.0, renewed=0.0, chains=64)
    net = detector.build((2,))
    before = net.energy(net.decode(net.chains.store)).mean().item()
    made = detector.negatives(net, 64)
    codes = net.chains.store
    assert torch.allclose(codes.norm(dim=1), torch.ones(64), atol=1e-5)
    assert net.energy(net.decode(codes)).mean().item() < before
    # Without a chain of samples the made-up samples are the decoded codes.
    assert sorted(made[:, 0].tolist()) == pytest.approx(sorted(net.decode(codes)[:, 0].tolist()), abs=1e-5)
    assert not made.requires_grad


def test_moves_of_the_chain_of_samples_are_clipped():
    torch.manual_seed(0)
    detector = create("nae", code_steps=0, steps=3, step=1e3, clip=0.1, temperature=1e-9, renewed=0.0, chains=16)
    net = detector.build((2,))
    start = {tuple(row) for row in net.decode(net.chains.store).detach().numpy().round(3).tolist()}
    made = detector.negatives(net, 16)
    nearest = [min(np.abs(np.subtract(row, s)).max() for s in start) for row in made.tolist()]
    assert 0.01 < max(nearest) < 0.3 + 0.01


def test_what_is_reconstructed_but_not_normal_is_pushed_up():
    """An autoencoder that copies a second cluster unlearns it as a density, and not by mere further training."""
    rng = np.random.default_rng(0)
    normal = torch.from_numpy(np.array([1.0, 1.0]) + 0.1 * rng.normal(size=(64, 2))).float()
    odd = torch.from_numpy(np.array([-1.0, -1.0]) + 0.1 * rng.normal(size=(64, 2))).float()
    errors = {}
    for way in ("density", "autoencoder"):
        torch.manual_seed(0)
        detector = create("nae", latent=3, steps=5, code_steps=5, chains=64)
        net = detector.build((2,))
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for k in range(200):
            pretraining = k < 150
            batch = Batch(torch.cat([normal, odd]) if pretraining else normal)
            optimizer.param_groups[0]["lr"] = 3e-3 if pretraining else 1e-3
            loss = detector.loss if way == "density" and not pretraining else detector.autoencoder_loss
            optimizer.zero_grad()
            loss(net, batch).backward()
            optimizer.step()
        errors[way] = (net.energy(odd).mean().item(), net.energy(normal).mean().item())
    assert errors["density"][0] > 3 * errors["autoencoder"][0]
    assert errors["density"][0] > 3 * errors["density"][1]


def test_the_objective_is_the_contrast_of_mean_energies(ring):
    torch.manual_seed(0)
    detector = create("nae", calm=0.0, temperature=0.5)
    net = detector.build((2,))
    batch = batch_of(ring)
    loss = detector.loss(net, batch)
    detector.negatives = lambda *_: batch.x  # the same samples on both sides leave the weights alone
    weights = sum(p.square().sum() for p in net.encode.parameters())
    assert detector.loss(net, batch).item() == pytest.approx(1e-4 * weights.item(), rel=1e-3)
    assert torch.isfinite(loss)
    detector.calm = 2.0
    energy = net.energy(batch.x) / 0.5
    expected = 4 * energy.square().mean() + 1e-4 * weights
    assert detector.loss(net, batch).item() == pytest.approx(expected.item(), rel=1e-3)


def test_score_map_and_restored_are_those_of_an_autoencoder(ring):
    detector = create("nae", training=QUICK).fit(ring)
    x = detector.adapter_.transform(ring[:5]).samples.stretch(0, 5).x
    residual = (x - detector.net_(x)).detach().numpy()
    found = detector.detect(ring[:5])
    assert found.scores == pytest.approx(np.sqrt((residual**2).mean(1)), rel=1e-4)
    assert found.maps == pytest.approx(residual**2, rel=1e-3, abs=1e-6)
    assert detector.encode(ring[:5]).shape == (5, 3)
    assert len(detector.net_.chains.store) == 0


def test_samples_lie_near_the_data(ring):
    detector = create("nae", training=Training(updates=400)).fit(ring)
    drawn = detector.sample(200)
    assert drawn.shape == (200, 2)
    assert np.median(np.abs(np.linalg.norm(drawn, axis=1) - 1)) < 0.35
    assert np.array_equal(drawn, detector.sample(200))


@pytest.mark.parametrize("shape", [(1,), (4,), (12, 2), (1, 12, 12), (4, 1, 8, 8)])
def test_every_shape_trains_and_restores(shape):
    X = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    detector = create("nae", training=Training(updates=4)).fit(X)
    assert np.isfinite(detector.detect(X).scores).all()
    assert np.shape(detector.restore(X)) == X.shape


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("latent", 1, "at least 2"),
        ("chains", 0, "at least 1"),
        ("steps", -1, "at least 0"),
        ("code_steps", 1.5, "at least 0"),
        ("share", 1.0, r"\(0, 1\)"),
        ("temperature", 0.0, "0, inf"),
        ("code_step", 0, "0, inf"),
        ("step", -1, "0, inf"),
        ("code_noise", -0.1, r"\[0, inf\)"),
        ("clip", -1, r"\[0, inf\)"),
        ("calm", "much", r"\[0, inf\)"),
        ("renewed", 2, r"\[0, 1\]"),
    ],
)
def test_wrong_parameters_are_named(ring, parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("nae", **{parameter: value}).fit(ring[:50])


def test_floor_on_a_real_table(one_class):
    X, test, y = one_class("thyroid")
    found = create("nae", training=Training(updates=300)).fit(X).anomaly_score(test)
    assert roc_auc_score(y, found) > 0.85
