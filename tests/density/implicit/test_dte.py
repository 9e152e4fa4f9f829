"""DTE: the diffusion time that would have produced a sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from genad import Ensemble, Training, create
from genad.data.samples import Batch
from genad.density.implicit.dte import posterior_time
from genad.errors import InputError

VARIANTS = ("categorical", "inverse_gamma", "nonparametric")
# Small data cannot keep the promise of the default threshold, and some tables have a constant
# column; neither is looked at here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=150)


@pytest.fixture(scope="module")
def normal():
    return np.random.default_rng(0).normal(size=(1000, 6))


@pytest.fixture(scope="module", params=VARIANTS)
def fitted(request, normal):
    return create("dte", variant=request.param, training=QUICK).fit(normal)


def test_schedule_is_the_paper_s():
    variance = create("dte").build((4,)).variance
    beta = np.linspace(1e-4, 0.01, 400)
    assert variance.numpy() == pytest.approx(1 - np.cumprod(1 - beta), abs=1e-5)
    assert len(create("dte", variant="nonparametric").build((4,)).variance) == 300


def test_noise_adds_variance_without_shrinking_the_sample():
    detector = create("dte")
    net = detector.build((3,))
    seen = []
    project = net.project.forward
    net.project.forward = lambda x: seen.append(x) or project(x)
    torch.manual_seed(0)
    detector.loss(net, Batch(torch.full((20_000, 3), 10.0)))
    assert seen[0].mean().item() == pytest.approx(10.0, abs=0.02)
    assert seen[0].var().item() == pytest.approx(net.variance.mean().item(), rel=0.05)


def test_more_noise_means_a_later_time(fitted, normal):
    noise = np.random.default_rng(1).normal(size=normal.shape)
    means = [fitted.anomaly_score(normal + s * noise).mean() for s in (0.0, 1.0, 2.0, 4.0)]
    assert (np.diff(means) > 0).all()


def test_categorical_score_is_the_expected_bin_of_logits(normal):
    detector = create("dte", training=QUICK).fit(normal)
    net = detector.net_
    z = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    level = ((z - net.project(z)).square().mean(1) + 1e-4).log()
    logits = net.head(level)
    # Raw logits, which cross-entropy normalises once; probabilities would add up to one.
    assert not torch.allclose(logits.sum(1), torch.ones(8), atol=0.1)
    expected = logits.double().softmax(1) @ torch.arange(7.0, dtype=torch.float64)
    assert torch.allclose(detector.score_batch(net, Batch(z)), expected)
    assert (expected >= 0).all()
    assert (expected <= 6).all()


def test_expected_bin_rises_with_the_residual_everywhere(normal):
    detector = create("dte", training=QUICK).fit(normal)
    residual = torch.logspace(-6, 6, 200)
    time = detector.expected_time(detector.net_, residual)
    assert (time.diff() > 0).all()


def test_inverse_gamma_scores_its_positive_scale(normal):
    detector = create("dte", variant="inverse_gamma", training=QUICK).fit(normal)
    scores = detector.anomaly_score(np.vstack([normal, 100 * normal[:5]]))
    assert (scores > 0).all()
    assert scores[-5:].min() > scores[:-5].max()


def test_inverse_gamma_scale_minimises_its_loss():
    # Without dependence on x the best scale is (D/2 - 1) times the harmonic mean of the variance.
    detector = create("dte", variant="inverse_gamma", anchor=0.0)
    net = detector.build((6,))
    variance = net.variance.double()
    scale = torch.linspace(1e-4, 2, 20_000, dtype=torch.float64)
    loss = scale * (1 / variance).mean() - 2.0 * scale.log()
    assert scale[loss.argmin()].item() == pytest.approx((2 / (1 / variance).mean()).item(), rel=0.2)


def test_posterior_is_the_inverse_gamma_on_the_grid():
    variance = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    square = torch.tensor([0.5, 3.0, 8.0], dtype=torch.float64)
    from scipy.stats import invgamma

    density = invgamma(a=10 / 2 - 1, scale=square.numpy()[:, None] / 2).pdf(variance.numpy())
    weight = density / density.sum(1, keepdims=True)
    mean = weight @ np.arange(50) / 49
    assert posterior_time(square, variance, 10).numpy() == pytest.approx(-np.log1p(-mean))


def test_posterior_never_ties_and_takes_any_size():
    square = torch.logspace(-3, 12, 400, dtype=torch.float64)
    for dims in (1, 2, 3, 30):
        time = posterior_time(square, create("dte").build((4,)).variance, dims)
        assert torch.isfinite(time).all()
        assert (time.diff() > 0).all()


def test_nonparametric_tracks_nearest_neighbours(one_class):
    X, test, y = one_class("cardio")
    detector = create("dte", variant="nonparametric").fit(X)
    bank = detector.net_.bank.numpy()
    z = detector.adapter_.transform(test).samples.stretch(0, len(test)).x.numpy()
    distance = NearestNeighbors(n_neighbors=5).fit(bank).kneighbors(z)[0]
    scores = detector.anomaly_score(test)
    assert spearmanr(scores, (distance**2).mean(1)).statistic > 0.9999
    assert roc_auc_score(y, scores) == pytest.approx(roc_auc_score(y, distance.mean(1)), abs=0.01)
    assert detector.training_report_.updates == 0


def test_restore_moves_odd_values_back_and_normal_rows_little(fitted, normal):
    fresh = np.random.default_rng(2).normal(size=(200, 6))
    odd = fresh.copy()
    odd[:, 2] += 6
    back = fitted.restore(odd)
    assert np.linalg.norm(back - fresh, axis=1).mean() < 0.9 * 6
    maps = fitted.anomaly_map(odd)
    assert (maps.argmax(1) == 2).mean() > 0.5
    moved = np.linalg.norm(fitted.restore(normal) - normal, axis=1).mean()
    assert moved < (1.0 if fitted.variant != "nonparametric" else 1.6)


def test_missing_values_leave_the_trained_scores_to_the_rest(normal):
    detector = create("dte", training=QUICK).fit(normal)
    x = torch.zeros(2, 6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 0] = False
    net = detector.net_
    residual = (x - net.project(x)).square()
    expected = detector.expected_time(net, torch.stack([residual[0].mean(), residual[1, 1:].mean()]))
    assert torch.allclose(detector.score_batch(net, Batch(x, mask)), expected)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(1,), (12, 2), (1, 12, 12), (4, 1, 8, 8)])
def test_every_shape_works(variant, shape):
    X = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    detector = create("dte", variant=variant, training=Training(updates=10)).fit(X)
    assert np.isfinite(detector.detect(X).scores).all()
    assert np.shape(detector.restore(X)) == X.shape


def test_absurd_values_stay_finite(fitted):
    odd = np.full((1, 6), 1e15)
    assert np.isfinite(fitted.anomaly_score(odd)).all()
    assert np.isfinite(fitted.restore(odd)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_ensembles_stack_what_can_be_stacked(variant, normal):
    ensemble = Ensemble(create("dte", variant=variant, training=QUICK), n=2).fit(normal)
    kind = "Looped" if variant == "nonparametric" else "Stacked"
    assert type(ensemble.net_).__name__ == kind
    scores = ensemble.anomaly_score([[0.0] * 6, [5.0] * 6])
    assert scores[1] > scores[0]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"variant": "knn"}, "variant: .*categorical"),
        ({"bins": 1}, "bins: .*at least 2"),
        ({"neighbours": 0}, "neighbours: .*at least 1"),
        ({"steps": 1}, "steps: .*at least 2"),
        ({"steps": 5}, "bins: .*one bin a step"),
        ({"anchor": -1.0}, "anchor: .*at least 0"),
    ],
)
def test_wrong_parameters_are_named(normal, parameters, words):
    with pytest.raises(InputError, match=words):
        create("dte", **parameters).fit(normal[:50])


@pytest.mark.parametrize("variant", VARIANTS)
def test_floor_on_real_tables(one_class, variant):
    scores = []
    for seed in (0, 1):
        X, test, y = one_class("cardio", seed)
        found = create("dte", variant=variant, random_state=seed).fit(X).anomaly_score(test)
        scores.append(roc_auc_score(y, found))
    assert np.mean(scores) > 0.89
