from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from genad.nn import mlp
from genad.nn.hypernetwork import WeightShift, run_shifted


def moved(net, condition=4):
    shift = WeightShift(condition, net, (8,))
    torch.nn.init.normal_(shift.body[-1].weight, std=0.3)
    torch.nn.init.normal_(shift.body[-1].bias, std=0.3)
    return shift


def test_each_row_runs_through_its_own_weights():
    torch.manual_seed(0)
    net = mlp([3, 5, 2], "leaky_relu")
    x, condition = torch.randn(6, 3), torch.randn(6, 4)
    shifts = moved(net)(condition)
    got = run_shifted(net, x, shifts)
    for i in range(6):
        w1, b1, w2, b2 = (part[i] for part in shifts)
        h = net[1](F.linear(x[i], net[0].weight + w1, net[0].bias + b1))
        torch.testing.assert_close(got[i], F.linear(h, net[2].weight + w2, net[2].bias + b2))
    assert not torch.allclose(got, net(x))


def test_the_shifted_network_itself_receives_no_gradient():
    net = mlp([3, 5, 2])
    shift = moved(net)
    run_shifted(net, torch.randn(6, 3), shift(torch.randn(6, 4))).sum().backward()
    assert all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in shift.parameters())


def test_a_gross_condition_does_not_overflow():
    net = mlp([3, 5, 2])
    shifts = moved(net)(torch.full((1, 4), 1e30))
    assert all(torch.isfinite(part).all() and part.abs().max() < 1e4 for part in shifts)
