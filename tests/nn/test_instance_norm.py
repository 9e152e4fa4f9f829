from __future__ import annotations

import torch

from genad.nn.instance_norm import window_moments


def test_moments_are_those_of_the_observed_steps():
    torch.manual_seed(0)
    x, seen = torch.randn(4, 30, 3), torch.rand(4, 30, 3) > 0.4
    mean, std = window_moments(torch.where(seen, x, torch.inf).nan_to_num(posinf=1e6), seen)
    for b in range(4):
        for c in range(3):
            known = x[b, seen[b, :, c], c]
            torch.testing.assert_close(mean[b, 0, c], known.mean(), atol=1e-2, rtol=0)
            torch.testing.assert_close(std[b, 0, c], known.std(correction=0), atol=1e-2, rtol=0)
    whole = window_moments(x)
    for one, other in zip(whole, window_moments(x, torch.ones_like(seen)), strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_observed_and_nothing_moving_stay_finite():
    mean, std = window_moments(torch.full((1, 5, 1), 3.0), torch.zeros(1, 5, 1, dtype=torch.bool))
    assert (mean.item(), std.item()) == (0.0, 1.0)
    mean, std = window_moments(torch.full((1, 5, 1), 3.0))
    assert mean.item() == 3.0
    assert 0.003 < std.item() < 0.0032
