"""Learnt graphs without cycles."""

from __future__ import annotations

import math

import pytest
import torch

from genad.errors import InputError
from genad.nn.acyclic import LearntDAG, acyclicity, sources_first


def graph_of(edges, n=4):
    graph = torch.zeros(n, n)
    for i, j, weight in edges:
        graph[i, j] = weight
    return graph


def test_acyclicity_is_zero_without_cycles_and_known_for_one():
    assert acyclicity(graph_of([(3, 1, 0.9), (1, 0, 0.4), (3, 0, 1.0), (0, 2, 0.7)])) == 0
    # A cycle of length 2 whose squared weights multiply to w^2 has eigenvalues +w and -w.
    found = acyclicity(graph_of([(0, 1, 0.5), (1, 0, 0.8)]))
    assert found.item() == pytest.approx(2 * math.cosh(0.4) - 2, rel=1e-4)
    assert 0 < acyclicity(graph_of([(0, 1, 0.9), (1, 2, 0.9), (2, 0, 0.9)])) < found * 3


def test_its_gradient_presses_on_edges_of_cycles_alone():
    graph = graph_of([(0, 1, 0.5), (1, 0, 0.8), (2, 3, 0.9)]).requires_grad_()
    acyclicity(graph).backward()
    assert graph.grad[0, 1] > 0
    assert graph.grad[1, 0] > 0
    assert graph.grad[2, 3] == 0


def test_the_order_is_topological_and_gives_up_the_weakest_edges_of_cycles():
    assert sources_first(graph_of([(3, 1, 0.9), (1, 0, 0.4), (0, 2, 0.7)])).tolist() == [3, 1, 0, 2]
    order = sources_first(graph_of([(0, 1, 0.1), (1, 2, 0.9), (2, 3, 0.9), (3, 0, 0.9)])).tolist()
    assert order == [1, 2, 3, 0]


def test_a_graph_starts_with_cycles_and_without_edges_to_oneself():
    torch.manual_seed(0)
    graph = LearntDAG(6)()
    assert (graph.diagonal() == 0).all()
    assert (graph >= 0).all()
    assert acyclicity(graph) > 0.1


def test_gradients_reach_the_weights_cut_to_one():
    dag = LearntDAG(3)
    (1e6 * dag()).sum().backward()
    off = ~torch.eye(3, dtype=torch.bool)
    assert dag.raw.grad[off].unique().numel() == 1
    limit = dag.raw.grad[off].max().item()
    dag.raw.grad = None
    (-0.25 * dag()).sum().backward()
    torch.testing.assert_close(dag.raw.grad[off], torch.full((6,), -0.25 * limit))


def test_the_penalty_is_the_augmented_lagrangian_and_its_multipliers_follow_the_rule():
    torch.manual_seed(0)
    dag = LearntDAG(4)
    dag.stage.fill_(1)
    dag.search.fill_(100)
    dag.rho.fill_(3.0)
    dag.alpha.fill_(0.5)
    h = acyclicity(dag())
    torch.testing.assert_close(dag.penalty(dag()), 1.5 * h * h + 0.5 * h)
    dag.step()  # the first look has nothing to compare with: a round ends
    assert dag.rho == 3
    torch.testing.assert_close(dag.alpha, 0.5 + 3 * h.detach())
    torch.testing.assert_close(dag.before, h.detach())
    dag.step()  # no less cyclic than before
    assert dag.rho == 30
    assert dag.rounds == 1
    with torch.no_grad():
        dag.raw *= 0.8  # h falls to less than half
    dag.step()
    assert dag.rho == 30
    assert dag.rounds == 2
    torch.testing.assert_close(dag.alpha, 0.5 + 3 * h.detach() + 30 * acyclicity(dag()).detach())
    with torch.no_grad():
        dag.raw *= 0.1
    dag.step()
    assert dag.settled


@pytest.mark.parametrize(("search", "looks"), [(7, 7), (1000, 20)])
def test_the_search_ends_after_its_updates_or_twenty_rounds(search, looks):
    torch.manual_seed(0)
    dag = LearntDAG(5)
    dag.stage.fill_(1)
    dag.search.fill_(search)
    for _ in range(looks):
        assert not dag.settled
        dag.before.fill_(torch.inf)  # every look ends a round
        dag.step()
    assert dag.settled


def test_once_settled_no_edge_can_close_a_cycle():
    torch.manual_seed(0)
    dag = LearntDAG(6)
    assert acyclicity(dag()) > 0
    dag.settle()
    assert (dag() > 0).sum() == 15  # all pairs, one way each
    assert acyclicity(dag()) == 0
    assert dag.penalty(dag()) == 0
    with torch.no_grad():
        dag.raw.fill_(9.0)
    dag.step()
    assert acyclicity(dag()) == 0
    assert dag().max() == 1


def test_cycles_go_where_the_loss_is_indifferent_and_wanted_edges_stay():
    torch.manual_seed(0)
    dag = LearntDAG(4)
    dag.search.fill_(200)
    dag.stage.fill_(10)
    wanted = graph_of([(0, 1, 0.8), (1, 2, 0.8), (0, 3, 0.8)])
    optimizer = torch.optim.Adam(dag.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        ((dag() - wanted).square().sum() + dag.penalty(dag())).backward()
        optimizer.step()
        dag.step()
    assert dag.settled
    torch.testing.assert_close(dag().detach(), wanted, atol=0.05, rtol=0)


def test_a_graph_needs_a_node():
    with pytest.raises(InputError, match="nodes: found 0"):
        LearntDAG(0)
    dag = LearntDAG(1)
    dag.step()
    assert dag().item() == 0
