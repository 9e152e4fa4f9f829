"""Generalised Pareto fits against known parameters, and the quantile with its right sign."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import genpareto

from genad.core.calibration import GPD, fit_gpd, pot_quantile
from genad.errors import InputError


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 3e5])
def test_fit_recovers_known_parameters(shape: float, scale: float) -> None:
    y = genpareto.rvs(shape, scale=scale, size=20_000, random_state=np.random.default_rng(0))
    fit = fit_gpd(y)
    # The asymptotic standard error of the shape is (1 + shape) / sqrt(n) = 0.009 at most.
    assert abs(fit.shape - shape) < 4 * (1 + shape) / math.sqrt(y.size)
    assert abs(fit.scale / scale - 1) < 4 * math.sqrt(2 * (1 + shape) / y.size)


@pytest.mark.parametrize("shape", [-0.45, -0.2, 0.0, 0.2, 0.8, 2.0])
@pytest.mark.parametrize("n", [60, 600])
def test_no_fit_nearby_is_more_likely(shape: float, n: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = genpareto.rvs(shape, size=n, random_state=rng)
        fit = fit_gpd(y)
        best = fit.log_likelihood(y)
        truth = genpareto.logpdf(y, fit.shape, scale=fit.scale).sum()
        assert best == pytest.approx(truth, rel=1e-9)
        assert best >= GPD(shape, 1.0).log_likelihood(y) - 1e-9
        for step in rng.normal(scale=0.01, size=(20, 2)):
            other = GPD(fit.shape + step[0], fit.scale * math.exp(step[1]))
            assert other.log_likelihood(y) <= best + 1e-3


@pytest.mark.parametrize("shape", [-0.9, -0.45, 0.5])
def test_small_samples_are_at_least_as_likely_as_simple_estimates(shape: float) -> None:
    for seed in range(20):
        y = genpareto.rvs(shape, size=12, random_state=np.random.default_rng(seed))
        fit, ratio = fit_gpd(y), y.mean() ** 2 / y.var()
        simple = [GPD(0.0, y.mean()), GPD(0.5 * (1 - ratio), 0.5 * y.mean() * (1 + ratio))]
        assert fit.shape > -1
        for other in simple:
            assert fit.log_likelihood(y) >= other.log_likelihood(y) - 1e-9 or other.shape <= -1


def test_fit_scales_with_the_unit() -> None:
    y = genpareto.rvs(0.2, size=500, random_state=np.random.default_rng(1))
    one, other = fit_gpd(y), fit_gpd(y * 1e7)
    assert other.shape == pytest.approx(one.shape, rel=1e-6)
    assert other.scale == pytest.approx(one.scale * 1e7, rel=1e-6)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_censored_values_remove_the_bias_of_forgetting(shape: float) -> None:
    y = genpareto.rvs(shape, size=20_000, random_state=np.random.default_rng(2))
    cut = float(np.quantile(y, 0.8))
    kept, bounds = y[y <= cut], np.full((y > cut).sum(), cut)
    assert abs(fit_gpd(kept, bounds).shape - shape) < 0.06
    assert fit_gpd(kept).shape < shape - 0.2


def test_exponential_with_censoring_known_answer() -> None:
    assert fit_gpd([1.0, 2.0, 3.0], censored=[4.0, 5.0]) == GPD(0.0, 5.0)


def test_few_or_equal_excesses_are_exponential() -> None:
    assert fit_gpd([1.0, 2.0, 6.0]) == GPD(0.0, 3.0)
    assert fit_gpd([2.0] * 50) == GPD(0.0, 2.0)


def test_survival_equals_scipy() -> None:
    y = np.linspace(0, 5, 11)
    for shape in (-0.4, 0.0, 0.7):
        np.testing.assert_allclose(
            GPD(shape, 1.3).survival(y), genpareto.sf(y, shape, scale=1.3), rtol=1e-12, atol=1e-15
        )


@pytest.mark.parametrize("shape", [-0.4, -1e-3, 0.0, 1e-3, 0.5])
def test_quantile_inverts_the_tail(shape: float) -> None:
    gpd = GPD(shape, 2.0)
    z = pot_quantile(gpd, 10.0, q=1e-4, n=1000, n_excess=20)
    assert z > 10.0
    assert gpd.survival([z - 10.0])[0] * 20 / 1000 == pytest.approx(1e-4, rel=1e-9)


def test_quantile_of_exponential_data_is_minus_log_q() -> None:
    x = np.random.default_rng(3).exponential(size=200_000)
    t = float(np.quantile(x, 0.98))
    fit = fit_gpd(x[x > t] - t)
    z = pot_quantile(fit, t, 1e-4, x.size, int((x > t).sum()))
    assert abs(z + math.log(1e-4)) < 0.3
    exact = pot_quantile(GPD(0.0, 1.0), -math.log(0.02), 1e-4, 10_000, 200)
    assert exact == pytest.approx(-math.log(1e-4), rel=1e-12)


def test_quantile_is_continuous_at_shape_zero_and_above_the_threshold() -> None:
    at_zero = pot_quantile(GPD(0.0, 2.0), 5.0, 1e-4, 1000, 20)
    assert at_zero == pytest.approx(5.0 - 2.0 * math.log(1e-4 * 1000 / 20), rel=1e-15)
    assert at_zero > 5.0
    for gap in (1e-3, 1e-6, 1e-9, 1e-13, 1e-300):
        above = pot_quantile(GPD(gap, 2.0), 5.0, 1e-4, 1000, 20)
        below = pot_quantile(GPD(-gap, 2.0), 5.0, 1e-4, 1000, 20)
        # The derivative in the shape is scale * depth^2 / 2 = 28.
        assert abs(above - at_zero) <= 29 * gap + 1e-14
        assert abs(below - at_zero) <= 29 * gap + 1e-14
        assert below <= at_zero <= above


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fit_gpd([]), "excesses is empty"),
        (lambda: fit_gpd([1.0, 0.0]), "excesses must be above 0, found 0"),
        (lambda: fit_gpd([1.0, np.inf]), "NaN or infinite"),
        (lambda: fit_gpd([1.0], [-1.0]), "found -1"),
        (lambda: GPD(0.1, 0.0), "scale must lie in"),
        (lambda: GPD(math.nan, 1.0), "shape must lie in"),
        (lambda: pot_quantile(GPD(0.0, 1.0), 0.0, 0.1, 1000, 20), "at most n_excess / n = 0.02"),
        (lambda: pot_quantile(GPD(0.0, 1.0), 0.0, 0.0, 1000, 20), "q must lie in"),
        (lambda: pot_quantile(GPD(0.0, 1.0), 0.0, 0.1, 10, 0), "n_excess must be at least 1"),
    ],
)
def test_bad_values_are_named(call, match) -> None:
    with pytest.raises(InputError, match=match):
        call()
