"""Directed graphs without cycles, learnt by gradient: how cyclic a graph is, and what presses it to be no more so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genad.errors import InputError

# The search ends when the graph is this little cyclic, or after so many rises of the multiplier.
_LITTLE, _ROUNDS = 1e-4, 20
# A round is over when a graph is this share as cyclic as before; until then the penalty grows, up to a largest one.
_LESS, _GROWTH, _LARGEST = 0.5, 10.0, 1e16
# Weights are stored in units of this: an optimiser moves every parameter by about its learning rate, so that weights
# get about in all their range in the time in which those of a network move a little.
_UNIT = 5.0


def acyclicity(graph: Tensor) -> Tensor:
    """Return ``tr(exp(A * A)) - K`` of weights A (K, K): 0 for a graph without cycles, and above 0 with any.

    Examples
    --------
    >>> acyclicity(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    tensor(0.)
    >>> acyclicity(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).round(decimals=3)
    tensor(1.0860)
    """
    return (torch.matrix_exp(graph * graph).diagonal() - 1.0).sum().clamp_min(0.0)


def sources_first(graph: Tensor) -> Tensor:
    """Return an order of the nodes that edges follow as far as they can, (K,).

    The node with the least weight coming in from those that are left is next. For a graph without cycles that weight
    is 0 each time, and all edges follow the order.

    Parameters
    ----------
    graph : Tensor of shape (K, K)
        Weight of the edge from each node (row) to each other (column), at least 0.

    Examples
    --------
    >>> sources_first(torch.tensor([[0.0, 0.1, 0.0], [0.9, 0.0, 0.0], [0.0, 0.7, 0.0]]))
    tensor([2, 1, 0])
    """
    incoming = graph.sum(0)
    order = []
    for _ in range(len(graph)):
        node = int(incoming.argmin())
        order.append(node)
        incoming = incoming - graph[node]
        incoming[node] = torch.inf
    return torch.tensor(order, device=graph.device)


class _Limited(torch.autograd.Function):
    """The identity, whose gradient is cut to [-1, 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - the signature that torch calls
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - the signature that torch calls
        return gradients[0].clamp(-1.0, 1.0)


class LearntDAG(nn.Module):
    """A weighted graph that a loss shapes and an augmented Lagrangian frees of cycles.

    Add :meth:`penalty`, ``rho / 2 h^2 + alpha h`` with h of :func:`acyclicity`, to the loss, and call :meth:`step`
    after every update. It keeps the weights in [0, 1], and after every ``stage`` updates looks at h: if it has not
    halved since the last round, rho grows tenfold; else alpha grows by ``rho h`` and a new round begins. The search
    ends when h is below 1e-4, after 20 rounds, or after ``search`` updates. What is left of cycles then, the edges
    against the order of :func:`sources_first`, is cut for good, so that the graph is acyclic to the last digit while
    the other weights go on learning.

    Parameters
    ----------
    nodes : int
        K, at least 1.

    Raises
    ------
    InputError
        If ``nodes`` is below 1.

    Attributes
    ----------
    raw : Parameter of shape (K, K)
        Weights of the edges from each node (row) to each other (column), in units of 5, since an optimiser is to move
        them faster than the parameters of a network.
    allowed : Tensor of shape (K, K)
        1 where there may be an edge; never from a node to itself.
    rho, alpha : Tensor
        Penalty and multiplier.
    before : Tensor
        h when the last round ended.
    rounds, updates : int64 Tensor
        Counted so far.
    search, stage : int64 Tensor
        Updates of the search at most, and between two looks at h; to be set before training.
    settled : bool Tensor
        Whether the search is over.

    References
    ----------
    Zheng, Aragam, Ravikumar and Xing (2018), DAGs with NO TEARS: continuous optimization for structure learning,
    NeurIPS.

    Examples
    --------
    >>> dag = LearntDAG(3)
    >>> dag.settle()
    >>> acyclicity(dag()).item()
    0.0
    """

    allowed: Tensor
    rho: Tensor
    alpha: Tensor
    before: Tensor
    rounds: Tensor
    updates: Tensor
    search: Tensor
    stage: Tensor
    settled: Tensor

    def __init__(self, nodes: int) -> None:
        super().__init__()
        if nodes < 1:
            raise InputError(f"nodes: found {nodes}; accepted is a whole number of at least 1.")
        start = nn.init.xavier_uniform_(torch.empty(nodes, nodes)).abs().fill_diagonal_(0.0)
        self.raw = nn.Parameter(start.clamp_max(1.0) / _UNIT)
        self.register_buffer("allowed", 1.0 - torch.eye(nodes))
        self.register_buffer("rho", torch.ones(()))
        self.register_buffer("alpha", torch.zeros(()))
        self.register_buffer("before", torch.tensor(torch.inf))
        for name, value in (("rounds", 0), ("updates", 0), ("search", 200), ("stage", 10)):
            self.register_buffer(name, torch.tensor(value))
        self.register_buffer("settled", torch.tensor(False))

    def forward(self) -> Tensor:
        """Return the weights of the edges that may be, (K, K); gradients reach them cut to [-1, 1]."""
        limited: Tensor = _Limited.apply(self.raw * _UNIT)
        return limited * self.allowed

    def penalty(self, graph: Tensor) -> Tensor:
        """Return what the cycles of :meth:`forward`'s graph cost now; nothing once the search is over."""
        if self.settled:
            return graph.new_zeros(())
        h = acyclicity(graph)
        return 0.5 * self.rho * h * h + self.alpha * h

    @torch.no_grad()
    def step(self) -> None:
        """Keep the weights in their range, and move the search on."""
        self.raw.clamp_(0.0, 1.0 / _UNIT).mul_(self.allowed)
        if self.settled:
            return
        self.updates += 1
        if self.updates % self.stage and self.updates < self.search:
            return
        h = acyclicity(self())
        if h > _LESS * self.before and self.rho < _LARGEST:
            self.rho *= _GROWTH
        else:
            self.alpha += self.rho * h
            self.before.copy_(h)
            self.rounds += 1
        if h < _LITTLE or self.rounds >= _ROUNDS or self.updates >= self.search:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """End the search: cut the edges that close cycles."""
        if self.settled:
            return
        place = torch.empty_like(order := sources_first(self()))
        place[order] = torch.arange(len(order), device=order.device)
        self.allowed.mul_(place[:, None] < place)
        self.raw.mul_(self.allowed)
        self.settled.fill_(True)
