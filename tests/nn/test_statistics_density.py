"""Densities of statistics: each kind orders vectors as it should, whatever they look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal, spearmanr

from genad.core.runtime import isolated_rng
from genad.nn.statistics_density import TAILS, StatisticsDensity, _chosen_components


@pytest.fixture(autouse=True)
def _one_start():
    """Let every flow begin with the same weights."""
    with isolated_rng(0, torch.device("cpu")):
        yield


@pytest.fixture(scope="module")
def ring():
    """Return vectors on two blobs that one Gaussian cannot tell from the gap between them."""
    rng = np.random.default_rng(0)
    side = np.where(rng.random(900) < 0.5, -3.0, 3.0)[:, None]
    return torch.from_numpy(rng.normal(size=(900, 3)) * 0.5 + side * np.array([1.0, 1.0, 0.0]) + 100)


@pytest.mark.parametrize("kind", TAILS)
def test_far_vectors_score_higher_and_absurd_ones_stay_finite(ring, kind):
    density = StatisticsDensity(3, kind).fit_to(ring, seed=0)
    known, far = density(ring), density(ring + 30)
    assert far.min() > known.max()
    absurd = density(torch.tensor([[1e20, -1e20, 1e30], [0.0, 0.0, 0.0]]))
    assert torch.isfinite(absurd).all()
    assert absurd[0] > far.max()


@pytest.mark.parametrize("kind", ["gmm", "flow", "nearest"])
def test_the_gap_between_two_blobs_is_unlikely(ring, kind):
    density = StatisticsDensity(3, kind).fit_to(ring, seed=0)
    gap = density(torch.full((1, 3), 100.0))
    assert (density(ring) < gap).double().mean() > 0.8
    assert StatisticsDensity(3, "gaussian").fit_to(ring, seed=0)(torch.full((1, 3), 100.0)) < density(ring + 30).min()


def test_the_gaussian_is_the_mahalanobis_distance():
    rows = np.random.default_rng(0).normal(size=(400, 3)) @ np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0, 0, 3]])
    density = StatisticsDensity(3, "gaussian").fit_to(torch.from_numpy(rows), seed=0)
    z = (rows - rows.mean(0)) / rows.std(0)
    expected = -multivariate_normal(np.zeros(3), np.cov(z.T, bias=True) + 1e-3 * np.eye(3)).logpdf(z)
    assert density(torch.from_numpy(rows)).numpy() == pytest.approx(expected)


def test_the_nearest_is_the_fifth_distance(ring):
    density = StatisticsDensity(3, "nearest").fit_to(ring, seed=0)
    fresh = ring[:50] + 0.3
    z, bank = ((v.numpy() - ring.numpy().mean(0)) / ring.numpy().std(0) for v in (fresh, ring))
    assert density(fresh).numpy() == pytest.approx(np.sort(cdist(z, bank), 1)[:, 4], abs=1e-4)


def test_cross_validation_chooses_more_than_one_component_where_there_are(ring):
    assert _chosen_components(ring.numpy(), 0) >= 2
    assert _chosen_components(np.random.default_rng(0).normal(size=(900, 3)), 0) == 1
    assert _chosen_components(ring.numpy()[:30], 0) == 1


def test_the_flow_learns_the_density():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(2000, 2)) * [1.0, 4.0] + [5.0, 0.0])
    score = StatisticsDensity(2, "flow").fit_to(rows, seed=0)(rows).numpy()
    z = (rows.numpy() - rows.numpy().mean(0)) / rows.numpy().std(0)
    assert score.mean() == pytest.approx(1 + np.log(2 * np.pi), abs=0.1)
    assert spearmanr(score, (z**2).sum(1)).statistic > 0.95


@pytest.mark.parametrize("kind", TAILS)
@pytest.mark.parametrize("rows", [torch.ones(1, 4), torch.zeros(50, 4), torch.full((3, 1), 7.0)])
def test_few_and_constant_vectors_will_do(kind, rows):
    density = StatisticsDensity(rows.shape[1], kind).fit_to(rows, seed=0)
    known, off = density(rows), density(rows + 5)
    assert torch.isfinite(known).all()
    assert off.min() > known.max()


@pytest.mark.parametrize("kind", TAILS)
def test_the_same_seed_gives_the_same_density(ring, kind):
    torch.manual_seed(3)
    one = StatisticsDensity(3, kind).fit_to(ring, seed=4)
    torch.manual_seed(3)
    two = StatisticsDensity(3, kind).fit_to(ring, seed=4)
    assert torch.equal(one(ring), two(ring))
