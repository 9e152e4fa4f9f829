"""DDPM scores: the reverse chain from a clean sample, and the bound under fixed noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, create
from genad.data.samples import Batch
from genad.density.implicit.ddpm_score import ResidualMLP
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=300)
WAYS = ("reconstruction", "path", "elbo")


@pytest.fixture(scope="module")
def normal():
    z = np.random.default_rng(0).normal(size=(800, 2))
    return np.hstack([z, z @ np.array([[1.0, 0.5, -1.0], [0.5, -1.0, 0.2]])]) + 0.1


@pytest.fixture(scope="module")
def fitted(normal):
    return create("ddpm_score", training=QUICK).fit(normal)


def test_the_schedule_is_the_paper_s():
    beta = np.linspace(1e-4, 0.01, 1000)
    schedule = create("ddpm_score", steps=1000).build((4,)).schedule
    assert schedule.abar.numpy() == pytest.approx(np.cumprod(1 - beta), rel=1e-3)
    # Fewer steps end at about the same noise.
    assert create("ddpm_score").build((4,)).schedule.abar[-1].item() == pytest.approx(schedule.abar[-1].item(), rel=0.2)


def test_the_network_of_tables_is_residual_and_looks_at_one_row():
    net = create("ddpm_score").build((4,)).predict
    assert isinstance(net, ResidualMLP)
    assert len(net.blocks) == 2
    assert net.time[0].dim == 256
    assert not any("BatchNorm" in type(module).__name__ for module in net.modules())
    for block in net.blocks:
        torch.nn.init.zeros_(block[-1].weight)
        torch.nn.init.zeros_(block[-1].bias)
    x, t = torch.randn(3, 4), torch.tensor([1, 5, 9])
    # Without what the blocks add, the embedded row goes straight to the end.
    assert torch.allclose(net(x, t), net.last(net.first(x) + net.time(t)), atol=1e-6)


def test_the_loss_is_the_error_of_the_noise_at_every_step():
    detector = create("ddpm_score")
    net = detector.build((3,))
    seen = []

    def perfect(x_t, t):
        seen.append(t)
        return net.schedule.eps(x_t, t, torch.full_like(x_t, 2.0))

    net.noise = perfect
    torch.manual_seed(0)
    assert detector.loss(net, Batch(torch.full((4000, 3), 2.0))).item() < 1e-6
    assert seen[0].min() == 0
    assert seen[0].max() == 199


def test_the_clean_sample_starts_in_the_middle_of_the_chain_with_nothing_added(fitted):
    net = fitted.net_
    starts = []
    noise = net.noise
    net.noise = lambda x_t, t: starts.append((x_t.clone(), t)) or noise(x_t, t)
    x = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    try:
        restored, moves = fitted.chain(net, x)
    finally:
        del net.noise
    assert torch.equal(starts[0][0], x)
    assert [int(t[0]) for _, t in starts] == list(range(49, 0, -2))
    assert (net.fresh == 0).all()
    found = fitted.infer(net, Batch(x), frozenset({"restored"}))
    assert torch.allclose(found.score, (x - restored).square().mean(1))
    assert torch.equal(found.restored, restored)
    assert moves.shape == x.shape
    fitted.score_by = "path"
    try:
        assert torch.allclose(fitted.score_batch(net, Batch(x)), moves.mean(1))
    finally:
        fitted.score_by = "reconstruction"


def test_the_bound_is_the_mean_error_over_fixed_pairs(normal):
    detector = create("ddpm_score", score_by="elbo", pairs=4, training=Training(updates=20)).fit(normal)
    net = detector.net_
    assert net.steps.tolist() == [25, 75, 125, 175]
    x = torch.from_numpy(normal[:6]).float()
    expected = torch.zeros(6, 5)
    for t, noise in zip(net.steps, net.noises, strict=True):
        abar = net.schedule.abar[t]
        step = t.expand(6)
        expected += (net.noise(abar.sqrt() * x + (1 - abar).sqrt() * noise, step) - noise).square() / 4
    assert torch.allclose(detector.score_batch(net, Batch(x)), expected.mean(1), rtol=1e-5)
    # All rows meet the same noise.
    same = detector.anomaly_score(np.repeat(normal[:1], 40, axis=0))
    assert np.ptp(same) <= 1e-6 * same[0]


def test_the_weights_of_the_bound_favour_little_noise():
    detector = create("ddpm_score", weighting="vlb")
    schedule = detector.build((2,)).schedule
    weights = detector._weights(schedule)
    assert (weights.diff()[:5] < 0).all()
    beta, abar = schedule.beta[7], schedule.abar[7]
    assert weights[7].item() == pytest.approx((beta**2 / (2 * beta * (1 - beta) * (1 - abar))).item(), rel=1e-5)
    assert (create("ddpm_score")._weights(schedule) == 1).all()


@pytest.mark.parametrize("way", WAYS)
def test_every_score_finds_what_is_far(fitted, normal, way):
    fresh = normal[:100]
    odd = fresh + 8 * np.random.default_rng(1).choice([-1.0, 1.0], fresh.shape)
    fitted.score_by = way
    try:
        scores = fitted.anomaly_score(np.vstack([fresh, odd]))
    finally:
        fitted.score_by = "reconstruction"
    assert roc_auc_score(np.repeat([0, 1], 100), scores) > 0.97


def test_restoring_keeps_normal_rows_and_takes_odd_values_back(fitted, normal):
    fresh = normal[:100]
    odd = fresh.copy()
    odd[:, 3] += 6
    assert np.linalg.norm(fitted.restore(fresh) - fresh, axis=1).mean() < 1.0
    assert np.linalg.norm(fitted.restore(odd) - fresh, axis=1).mean() < 4.5
    assert (fitted.anomaly_map(odd).argmax(1) == 3).mean() > 0.8


def test_noise_is_added_only_when_asked_for_and_is_fixed(normal):
    detector = create("ddpm_score", noisy=True, training=Training(updates=20)).fit(normal)
    assert detector.net_.fresh.std().item() == pytest.approx(1.0, abs=0.2)
    assert detector.anomaly_score(normal[:5]).tobytes() == detector.anomaly_score(normal[:5]).tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(1,), (12, 2), (1, 8, 8), (3, 1, 8, 8)])
def test_every_shape_works_and_absurd_values_stay_finite(way, shape):
    X = np.random.default_rng(0).normal(size=(30, *shape)).astype(np.float32)
    detector = create("ddpm_score", score_by=way, strides=4, pairs=3, training=Training(updates=4)).fit(X)
    X[0] = 1e20
    found = detector.detect(X)
    assert np.isfinite(found.scores).all()
    assert found.scores[0] >= np.median(found.scores)
    assert np.isfinite(found.restored).all()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"score_by": "kl"}, "score_by: .*elbo"),
        ({"steps": 1}, "steps: .*at least 2"),
        ({"start": 0.0}, "start: .*1]"),
        ({"strides": 0}, "strides: .*at least 1"),
        ({"pairs": 0}, "pairs: .*at least 1"),
        ({"weighting": "snr"}, "weighting: .*vlb"),
    ],
)
def test_wrong_parameters_are_named(normal, parameters, words):
    with pytest.raises(InputError, match=words):
        create("ddpm_score", **parameters).fit(normal[:50])


@pytest.mark.parametrize(("way", "least"), [("reconstruction", 0.82), ("elbo", 0.82)])
def test_floor_on_real_tables(one_class, way, least):
    X, test, y = one_class("cardio")
    detector = create("ddpm_score", score_by=way, training=Training(updates=500)).fit(X)
    assert roc_auc_score(y, detector.anomaly_score(test)) > least
