"""Likelihood and local intrinsic dimension of a flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad import Training, create
from genad.data.samples import Batch
from genad.density.implicit.lid_likelihood import dual_threshold_auc, plateau, scale_of_dimension
from genad.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::genad.errors.CalibrationWarning"),
    pytest.mark.filterwarnings("ignore::genad.errors.DataWarning"),
]
QUICK = Training(updates=80)


def plane(n: int, seed: int = 0) -> np.ndarray:
    """Draw points near a plane in eight dimensions."""
    axes = np.linalg.qr(np.random.default_rng(9).normal(size=(8, 2)))[0]
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ axes.T + 0.01 * rng.normal(size=(n, 8))


@pytest.fixture(scope="module")
def fitted():
    return create("lid_likelihood", training=QUICK, scale="plateau").fit(plane(800))


def test_the_spectrum_is_that_of_the_decoder(fitted):
    net, x = fitted.net_, torch.from_numpy(plane(3, seed=1)).float()
    flow = net.flow
    for row, found in zip(x, net.spectrum(x), strict=True):
        latent, _ = flow.latent(flow.split(row[None])[0])

        def decode(z):
            return flow.join(flow.flow().transform.inv(z), torch.zeros(1, 8))[0]

        jacobian = torch.autograd.functional.jacobian(decode, latent.detach())[:, 0]
        expected = torch.linalg.svdvals(jacobian.double()).log()
        assert torch.allclose(found.sort(descending=True).values, expected, atol=1e-2)


def test_the_dimension_is_the_known_one(fitted):
    _, dimension = fitted.likelihood_and_dimension(plane(200, seed=1))
    assert np.median(dimension) == pytest.approx(2, abs=0.1)
    whole = create("lid_likelihood", scale="plateau", smooth=0.0, training=QUICK).fit(plane(800))
    counted = whole.likelihood_and_dimension(plane(200, seed=1))[1]
    assert (counted == np.rint(counted)).all()
    assert np.median(counted) == 2


def test_components_beyond_those_of_the_flow_count_by_their_spread():
    X = np.random.default_rng(0).normal(size=(120, 70))
    detector = create("lid_likelihood", scale=0.01, smooth=0.0, training=Training(updates=2)).fit(X)
    assert detector.net_.spectrum(torch.zeros(2, 70)).shape == (2, 70)
    assert detector.likelihood_and_dimension(X[:3])[1].tolist() == [70.0] * 3


def test_the_score_is_the_rarer_of_the_two(fitted):
    X = plane(50, seed=2)
    net = fitted.net_
    log_density, dimension = fitted.likelihood_and_dimension(X)
    unlikely, flat = net.unlikely(torch.from_numpy(-log_density)), net.flat(torch.from_numpy(-dimension))
    assert fitted.anomaly_score(X) == pytest.approx(torch.maximum(unlikely, flat).numpy(), rel=1e-4, abs=1e-5)
    assert (unlikely > flat).any()
    assert (flat > unlikely).any()
    # The likelihood is that of the flow inside.
    batch = fitted.adapter_.transform(X).samples.stretch(0, 50)
    assert log_density == pytest.approx(net.flow.log_prob(batch.x).detach().numpy(), abs=1e-3)


def test_a_likely_sample_of_low_dimension_is_an_anomaly(fitted):
    net, x = fitted.net_, torch.from_numpy(plane(40, seed=3)).float()
    before = fitted.infer(net, Batch(x), frozenset()).score
    real = type(net).dimension
    try:
        type(net).dimension = lambda self, x, smooth: real(self, x, smooth) - 1.5
        after = fitted.infer(net, Batch(x), frozenset()).score
    finally:
        type(net).dimension = real
    assert (after > before + 1).all()


def test_ranks_come_from_samples_the_flow_has_not_seen():
    X = plane(200)
    detector = create("lid_likelihood", training=Training(updates=2)).fit(X)
    # A fifth of the 160 rows that were not held out.
    assert len(detector.net_.unlikely.reference) == len(detector.net_.flat.reference) == 32
    assert detector.training_report_.samples <= 128


def test_scales_are_settled_on_spectra_alone():
    wide, narrow = torch.full((100, 3), 0.0), torch.full((100, 5), -4.0)
    spectra = torch.cat([wide, narrow], 1) + 0.1 * torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    spectra = spectra.double()
    assert -3.5 < plateau(spectra) < -0.5
    for dimension in (1.0, 3.0, 5.5):
        scale = scale_of_dimension(spectra, dimension)
        assert (spectra > scale).double().sum(1).mean().item() == pytest.approx(dimension, abs=0.02)
    assert np.isfinite(plateau(torch.zeros(1, 1)))
    given = create("lid_likelihood", scale=0.25, training=Training(updates=2)).fit(plane(60))
    assert given.net_.log_scale.exp().item() == pytest.approx(0.25)


def test_the_dual_threshold_is_no_score():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 1], [200, 50, 50])
    density = np.r_[rng.normal(size=200), rng.normal(-5, 1, 50), rng.normal(3, 1, 50)]
    dimension = np.r_[rng.normal(5, 0.3, 250), rng.normal(2, 0.3, 50)]
    both = dual_threshold_auc(density, dimension, y)
    assert both > 0.98
    assert roc_auc_score(y, -density) < 0.6
    assert dual_threshold_auc(density, np.zeros(300), y) == pytest.approx(roc_auc_score(y, -density), abs=0.01)
    with pytest.raises(InputError, match="y: 300 densities, 300 dimensions and 2 labels"):
        dual_threshold_auc(density, dimension, [0, 1])
    with pytest.raises(InputError, match="some of both"):
        dual_threshold_auc(density, dimension, np.zeros(300))


@pytest.mark.parametrize("shape", [(12, 2), (1, 8, 8)])
def test_other_shapes_work(shape):
    X = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    detector = create("lid_likelihood", training=Training(updates=3)).fit(X)
    assert np.isfinite(detector.detect(X).scores).all()
    assert detector.restore(X).shape == detector.sample(40).shape == X.shape


def test_floor_on_a_real_table(one_class):
    X, test, y = one_class("thyroid")
    chosen = np.r_[np.flatnonzero(y == 0)[:600], np.flatnonzero(y == 1)]
    found = create("lid_likelihood", training=Training(updates=150)).fit(X).anomaly_score(test[chosen])
    assert roc_auc_score(y[chosen], found) > 0.9


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("scale", "guess", "'plateau'"),
        ("scale", 0.0, r"\(0, inf\)"),
        ("smooth", -1.0, r"\[0, inf\)"),
        ("bijector", "none", "'spline'"),
    ],
)
def test_wrong_parameters_are_named(parameter, value, words):
    with pytest.raises(InputError, match=f"{parameter}: .*{words}"):
        create("lid_likelihood", **{parameter: value}).fit(plane(50))
