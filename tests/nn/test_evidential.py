from __future__ import annotations

import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence

from genad.nn.evidential import evidential_loss, uncertainties

ALPHA = torch.tensor([[1.0, 1.0, 1.0], [9.0, 2.0, 1.5], [300.0, 280.0, 1.0]])


def test_uncertainties_are_expectations_under_the_dirichlet():
    torch.manual_seed(0)
    p = Dirichlet(ALPHA).sample((200_000,))
    entropy = -(p * (p + 1e-30).log()).sum(-1).mean(0)
    mean = p.mean(0)
    data, unknown = uncertainties(ALPHA)
    torch.testing.assert_close(data, entropy, atol=3e-3, rtol=0)
    torch.testing.assert_close(unknown, -(mean * mean.log()).sum(-1) - entropy, atol=3e-3, rtol=0)


def test_the_loss_is_the_expected_squared_error_plus_a_divergence():
    torch.manual_seed(0)
    target = torch.eye(3)[[0, 2, 1]]
    p = Dirichlet(ALPHA).sample((200_000,))
    error = (target - p).square().sum(-1).mean(0)
    torch.testing.assert_close(evidential_loss(ALPHA, target, 0.0), error, atol=3e-3, rtol=0)
    wrong = Dirichlet(target + (1 - target) * ALPHA)
    divergence = kl_divergence(wrong, Dirichlet(torch.ones(3, 3)))
    both = evidential_loss(ALPHA, target, 0.5)
    torch.testing.assert_close(both, evidential_loss(ALPHA, target, 0.0) + 0.5 * divergence)
    assert float(divergence[0]) == pytest.approx(0.0, abs=1e-5)
