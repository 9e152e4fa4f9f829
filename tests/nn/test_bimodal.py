"""Two Gaussians on a line."""

from __future__ import annotations

import pytest
import torch
from sklearn.mixture import GaussianMixture

from genad.nn.bimodal import separation, two_gaussians


@pytest.fixture(scope="module")
def values():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(900, generator=generator), 8 + 2 * torch.randn(100, generator=generator)
    return torch.cat([low, high])


def test_the_mixture_is_the_known_one(values):
    weights, means, stds = two_gaussians(values[None])
    assert weights[0].tolist() == pytest.approx([0.9, 0.1], abs=0.02)
    assert means[0].tolist() == pytest.approx([0, 8], abs=0.5)
    assert stds[0].tolist() == pytest.approx([1, 2], abs=0.3)
    truth = GaussianMixture(2, random_state=0, tol=1e-6).fit(values[:, None].numpy())
    assert means[0].sort().values.tolist() == pytest.approx(sorted(truth.means_.ravel()), abs=0.05)


def test_the_separation_is_the_squared_wasserstein_distance_on_the_unit_range(values):
    span = values.max() - values.min()
    _, means, stds = two_gaussians(((values - values.min()) / span)[None])
    # Standard deviations are compared, not variances.
    expected = (means[0, 0] - means[0, 1]) ** 2 + (stds[0, 0] - stds[0, 1]) ** 2
    assert separation(values[None]).item() == pytest.approx(expected.item())
    assert separation(7 * values[None] - 3).item() == pytest.approx(expected.item(), rel=1e-3)


def test_rows_do_not_meet(values):
    one = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    both = separation(torch.stack([values, one]))
    assert both[0].item() == pytest.approx(separation(values[None]).item())
    assert both[0] > both[1]


@pytest.mark.parametrize("row", [[2.0], [3.0, 3.0, 3.0], [0.0, 1.0]])
def test_few_and_equal_numbers_give_finite_answers(row):
    values = torch.tensor([row])
    assert all(part.isfinite().all() for part in two_gaussians(values))
    assert separation(values).isfinite().all()
    assert separation(torch.full((1, 5), 4.0)).item() == 0
