"""Conditional flows over sensors."""

from __future__ import annotations

import math

import pytest
import torch

from genad.errors import InputError
from genad.nn.graph_flow import ConditionalMAF, SensorFlow


def maf_of(features, blocks=1, least=0.1):
    torch.manual_seed(0)
    flow = ConditionalMAF(features, 4, 8, blocks, least)
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_()
    return flow


@pytest.mark.parametrize(("features", "blocks"), [(1, 1), (3, 1), (3, 2)])
def test_log_determinant_and_inverse_are_those_of_the_map(features, blocks):
    flow = maf_of(features, blocks)
    x, context = torch.randn(features), torch.randn(4)
    z, log_det = flow(x, context)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v, context)[0], x)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(flow.inverse(z, context), x, atol=1e-4, rtol=1e-3)


def test_a_feature_depends_on_those_before_it_and_another_block_turns_the_order_round():
    one = torch.autograd.functional.jacobian(lambda v: maf_of(3)(v, torch.zeros(4))[0], torch.randn(3))
    assert (one.triu(1) == 0).all()
    assert (one.tril(-1)[torch.ones(3, 3).tril(-1) > 0] != 0).all()
    two = torch.autograd.functional.jacobian(lambda v: maf_of(3, 2)(v, torch.zeros(4))[0], torch.randn(3))
    assert (two.triu(1) != 0).any()
    assert (two.tril(-1) != 0).any()


def test_a_single_feature_is_gaussian_given_the_condition_and_the_condition_matters():
    flow = maf_of(1)
    x = torch.linspace(-3, 3, 7)[:, None]
    z, log_det = flow(x, torch.ones(7, 4))
    assert log_det.unique().numel() == 1
    torch.testing.assert_close(z.diff(dim=0), torch.exp(log_det[0]).expand(6, 1), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(flow(x, torch.zeros(7, 4))[0], z)


def test_scales_stay_within_bounds():
    flow = maf_of(1, least=0.2)
    context = 1e6 * torch.randn(500, 4)
    _, log_det = flow(torch.zeros(500, 1), context)
    # A value may round to the bound itself.
    assert log_det.max() <= math.log(5) + 1e-6
    assert log_det.min() >= -math.log(5) - 1e-6


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 4, 8), "features: found 0"),
        ((1, 0, 8), "context: found 0"),
        ((1, 4, 0), "hidden: found 0"),
        ((1, 4, 8, 0), "blocks: found 0"),
        ((1, 4, 8, 1, 1.0), "least: found 1.0"),
    ],
)
def test_sizes_are_checked(sizes, message):
    with pytest.raises(InputError, match=message):
        ConditionalMAF(*sizes)


def changed(net, graph, step, sensor):
    """Return which conditions (K, T) change with one value."""
    x = torch.randn(1, 6, 3)
    other = x.clone()
    other[0, step, sensor] += 1
    return (net.condition(x, graph) - net.condition(other, graph)).abs().sum(-1)[0] > 0


def test_a_value_depends_on_its_own_past_and_on_its_parents_up_to_the_present():
    torch.manual_seed(0)
    net = SensorFlow(3, 8, 0.1)
    graph = torch.zeros(3, 3)
    graph[0, 1] = 1.0
    assert changed(net, graph, 2, 0).int().tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0] * 6]
    assert changed(net, graph, 2, 1).int().tolist() == [[0] * 6, [0, 0, 0, 1, 1, 1], [0] * 6]


def test_windows_may_have_a_graph_each():
    torch.manual_seed(0)
    net = SensorFlow(3, 8, 0.1)
    x, graphs = torch.randn(4, 6, 3), torch.rand(4, 3, 3)
    whole = net.condition(x, graphs)
    for k in range(4):
        torch.testing.assert_close(whole[k : k + 1], net.condition(x[k : k + 1], graphs[k]))


def test_densities_add_up_to_one_and_peak_at_what_is_expected():
    torch.manual_seed(0)
    net = SensorFlow(1, 8, 0.1, own_means=True)
    with torch.no_grad():
        net.base.fill_(0.7)
    grid = torch.linspace(-12, 12, 4001)
    x = torch.zeros(4001, 3, 1)
    x[:, -1, 0] = grid
    condition = net.condition(x, torch.zeros(1, 1))
    nll = net.nll(x, condition)
    assert torch.trapezoid(torch.exp(-nll[:, -1, 0]), grid).item() == pytest.approx(1.0, abs=1e-3)
    peak = grid[nll[:, -1, 0].argmin()].item()
    assert net.expected(condition)[0, -1, 0].item() == pytest.approx(peak, abs=0.01)
    assert nll.min() >= net.lowest


def test_means_of_the_latent_are_learnt_only_if_wanted():
    assert "base" in dict(SensorFlow(3, 4, 0.1, own_means=True).named_parameters())
    assert "base" in dict(SensorFlow(3, 4, 0.1).named_buffers())
