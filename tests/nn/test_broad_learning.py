from __future__ import annotations

import copy

import pytest
import torch

from genad.nn import broad_learning
from genad.nn.broad_learning import BroadLearning


def made(ridge=1e-3, n=300):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin(), x[:, 3].square()], 1)
    net = BroadLearning(4, 3, groups=3, nodes=6, ridge=ridge)
    net.prepare(x, generator)
    return net, x, y, generator


def ridge_solution(net, x, y):
    wide = net.expand(x).double()
    loaded = wide.T @ wide + net.ridge * len(x) * torch.eye(wide.shape[1], dtype=torch.float64)
    return torch.linalg.solve(loaded, wide.T @ y.double()).float()


def test_the_output_is_ridge_regression_on_features_and_enhancement_nodes():
    net, x, y, generator = made()
    net.learn(x, y)
    before = float((net(x) - y).square().mean())
    net.grow(x, y, 30, generator)
    assert net.expand(x).shape == (300, 1 + 18 + 30)
    torch.testing.assert_close(net.output, ridge_solution(net, x, y), atol=1e-4, rtol=1e-3)
    assert float((net(x) - y).square().mean()) < 0.9 * before


def test_added_nodes_give_what_a_refit_gives_and_leave_the_old_ones_as_they_were():
    net, x, y, generator = made()
    net.learn(x, y)
    for _ in range(2):
        old = net.enhance.clone()
        net.grow(x, y, 15, generator)
        torch.testing.assert_close(net.enhance[:, : old.shape[1]], old)
    again = copy.deepcopy(net)
    again.gram, again.cross, again.count = (torch.zeros_like(v) for v in (net.gram, net.cross, net.count))
    again.learn(x, y)
    torch.testing.assert_close(net.output, again.output, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net.factor, again.factor)


def test_data_learnt_in_parts_give_what_all_of_them_give():
    whole, x, y, _ = made()
    parts = copy.deepcopy(whole)
    whole.learn(x, y)
    parts.learn(x[:100], y[:100])
    assert not torch.allclose(parts.output, whole.output, atol=1e-3)
    parts.learn(x[100:], y[100:])
    torch.testing.assert_close(parts.output, whole.output, atol=1e-5, rtol=1e-4)


def test_more_ridge_means_smaller_weights():
    sizes = []
    for ridge in (1e-6, 1e-2, 10.0):
        net, x, y, _ = made(ridge)
        net.learn(x, y)
        sizes.append(float(net.output.norm()))
    assert sizes[0] > sizes[1] > 10 * sizes[2]


def test_the_features_are_what_a_lasso_decodes_the_data_by(monkeypatch):
    x = made()[1]
    z = torch.tanh(x @ torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1)))

    def cost(weights):
        error = (z @ weights - x).square().sum((1, 2)) / (2 * len(x))
        return error + broad_learning._SPARSE * weights.abs().sum((1, 2))

    monkeypatch.setattr(broad_learning, "_SPARSE", 0.2)
    monkeypatch.setattr(broad_learning, "_STEPS", 300)
    found = BroadLearning._sparse_decoders(x, z)
    assert (found == 0).any()
    generator = torch.Generator().manual_seed(2)
    for size in (0.01, 0.1):
        assert (cost(found) < cost(found + size * torch.randn(found.shape, generator=generator))).all()
    assert (cost(found) < cost(torch.linalg.lstsq(z, x.expand(3, -1, -1)).solution)).all()


def test_features_are_refined_and_enhancement_weights_are_orthonormal_directions():
    net, x, y, generator = made()
    net.learn(x, y)
    net.grow(x, y, 10, generator)
    directions = net.enhance / net.enhance.norm(dim=0)
    torch.testing.assert_close(directions.T @ directions, torch.eye(10), atol=1e-5, rtol=0)
    reach = torch.cat([x, torch.ones(300, 1)], 1) @ net.features
    assert reach.std(0, correction=0).tolist() == pytest.approx([0.8] * 18, rel=1e-3)
