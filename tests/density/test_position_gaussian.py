"""Whitening: known answers, shrinkage, positions."""

from __future__ import annotations

import torch

from genad.density.position_gaussian import PositionGaussian, SharedGaussian, whitener


def test_the_whitener_inverts_the_covariance():
    covariance = torch.tensor([[4.0, 1.0], [1.0, 2.0]])
    root = whitener(covariance, shrink=1e-6)
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(covariance), rtol=1e-3, atol=1e-3)


def test_full_shrinkage_scales_all_directions_alike():
    root = whitener(torch.tensor([[4.0, 1.0], [1.0, 2.0]]), shrink=1.0)
    torch.testing.assert_close(root, torch.eye(2) / 3.0**0.5, rtol=1e-3, atol=1e-3)


def test_each_position_has_its_own_gaussian():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, 3, generator=generator) * torch.tensor([1.0, 10.0])[:, None] + 5.0
    gaussian = PositionGaussian()
    gaussian.fit(x, components=3, shrink=1e-4)
    white = gaussian(x)
    for p in range(2):
        torch.testing.assert_close(torch.cov(white[:, p].T), torch.eye(3), atol=0.05, rtol=0)
    assert gaussian.whiteners.shape == (2, 3, 3)


def test_what_never_varies_stays_finite():
    shared, positions = SharedGaussian(), PositionGaussian()
    shared.fit(torch.ones(10, 3), shrink=0.1)
    positions.fit(torch.ones(10, 2, 3), components=2, shrink=0.1)
    assert shared(torch.ones(4, 3)).isfinite().all()
    assert positions(torch.ones(4, 2, 3)).isfinite().all()
