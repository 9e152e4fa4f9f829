"""Intrinsic dimension by neighbours."""

from __future__ import annotations

import pytest
import torch

from genad.nn.intrinsic_dimension import neighbour_dimension


@pytest.mark.parametrize(("inner", "outer"), [(1, 5), (3, 8), (4, 4)])
def test_the_dimension_of_a_subspace(inner, outer):
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(outer, inner, generator=generator)).Q
    points = torch.randn(3000, inner, generator=generator) @ axes.T
    assert neighbour_dimension(points) == pytest.approx(inner, rel=0.12)


def test_a_curve_has_one_dimension():
    t = torch.linspace(0, 6, 2000)
    assert neighbour_dimension(torch.stack([t.sin(), t.cos(), t], 1)) == pytest.approx(1, abs=0.15)


def test_copies_do_not_count():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(800, 3, generator=generator)
    assert neighbour_dimension(points.repeat(2, 1), 30) == pytest.approx(neighbour_dimension(points), rel=0.25)


@pytest.mark.parametrize("points", [torch.zeros(1, 3), torch.ones(50, 3), torch.tensor([[0.0], [1.0]])])
def test_few_and_equal_points_give_a_number(points):
    assert 0 <= neighbour_dimension(points) <= points.shape[1]
