"""Ranking losses."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from genad.nn.ranking import soft_auc


def test_far_apart_it_is_the_auc():
    generator = torch.Generator().manual_seed(0)
    high, low = torch.randn(40, generator=generator) + 0.5, torch.randn(30, generator=generator)
    truth = roc_auc_score([1] * 40 + [0] * 30, torch.cat([high, low]))
    assert soft_auc(1e4 * high, 1e4 * low).item() == pytest.approx(truth, abs=1e-4)
    assert soft_auc(torch.ones(3), torch.ones(2)).item() == 0.5


def test_the_gradient_parts_the_groups_and_fades():
    near, far = torch.zeros(1, requires_grad=True), torch.full((1,), 30.0, requires_grad=True)
    low = torch.zeros(1, requires_grad=True)
    soft_auc(near, low).backward()
    assert near.grad.item() == pytest.approx(0.25)
    assert low.grad.item() == pytest.approx(-0.25)
    soft_auc(far, low.detach()).backward()
    assert 0 <= far.grad.item() < 1e-9
