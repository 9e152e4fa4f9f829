"""Products of one-dimensional kernel densities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde

from genad.nn.kernel_density import ProductKDE


def test_one_statistic_is_scott_s_kernel_density():
    points = np.random.default_rng(0).gamma(2.0, size=400)
    density = ProductKDE(1).fit_to(torch.from_numpy(points)[:, None])
    at = np.linspace(0.1, 8, 50)
    low, high = np.quantile(points, [0.25, 0.75])
    scale = min(points.std(), (high - low) / 1.349)
    expected = gaussian_kde(points, bw_method=len(points) ** -0.2 * scale / points.std(ddof=1)).logpdf(at)
    found = density(torch.from_numpy(at)[:, None]).numpy()
    # In units of the scale.
    np.testing.assert_allclose(found, -expected - np.log(scale), rtol=1e-9)


def test_several_statistics_multiply():
    rng = np.random.default_rng(1)
    points, at = torch.from_numpy(rng.normal(size=(300, 3))), torch.from_numpy(rng.normal(size=(20, 3)))
    each = [ProductKDE(1).fit_to(points[:, j : j + 1])(at[:, j : j + 1]) for j in range(3)]
    assert torch.allclose(ProductKDE(3).fit_to(points)(at), sum(each))


def test_it_is_a_density():
    points = torch.from_numpy(np.random.default_rng(2).normal(5.0, 3.0, size=(100, 1)))
    grid = torch.linspace(-30, 40, 20_001, dtype=torch.float64)[:, None]
    density = ProductKDE(1).fit_to(points)
    mass = torch.exp(-density(grid)).sum() * 70 / 20_000 / density.scale
    assert mass.item() == pytest.approx(1.0, abs=1e-6)


def test_constant_statistics_one_point_and_absurd_values_are_finite():
    density = ProductKDE(2).fit_to(torch.tensor([[3.0, 0.0]] * 5))
    usual, odd, absurd = density(torch.tensor([[3.0, 0.0], [4.0, 0.0], [1e30, -1e30]]))
    assert usual < odd < absurd
    assert absurd.isfinite()
    assert ProductKDE(1).fit_to(torch.tensor([[2.0]]))(torch.tensor([[2.0]])).isfinite().all()


def test_a_gross_value_does_not_widen_the_kernels():
    points = torch.from_numpy(np.random.default_rng(3).normal(size=(500, 1)))
    gross = torch.cat([points, torch.tensor([[1e6]])])
    assert ProductKDE(1).fit_to(gross).scale.item() == pytest.approx(ProductKDE(1).fit_to(points).scale.item(), rel=0.1)
    # Where most values are the same the quartiles say nothing.
    same = torch.zeros(100, 1)
    same[:10, 0] = torch.arange(10.0)
    assert ProductKDE(1).fit_to(same).scale.item() == pytest.approx(same.std(correction=0).item(), rel=1e-5)


def test_many_points_are_thinned_evenly():
    points = torch.arange(10_000.0)[:, None]
    density = ProductKDE(1).fit_to(points)
    assert density.points.shape == (2000, 1)
    assert density.centre.item() == pytest.approx(4999.5)
    assert density.points.max() == (9999 - density.centre) / density.scale
