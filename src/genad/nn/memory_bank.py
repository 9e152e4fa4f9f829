"""A memory of prototypes that is trained by gradient: what passes through it is a mixture of what is remembered."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError

_EPS = 1e-12
# Share of its largest weight that a query keeps above the threshold, whatever the threshold.
_KEEP = 0.999


def hard_shrink(weights: Tensor, threshold: float) -> Tensor:
    """Set addressing weights below a threshold to exactly 0, and bring the rest back to a sum of 1.

    ``w^ = relu(w - t) w / (|w - t| + eps)``, then ``w^ / sum w^``: the differentiable form of ``w if w > t else 0``.
    A threshold above the largest weight would leave nothing to read; it is lowered to just below that weight, so that
    such a query reads its nearest item alone.

    Parameters
    ----------
    weights : torch.Tensor
        Weights ``(..., N)``, at least 0, that sum to 1.
    threshold : float
        At least 0; 0 changes nothing.

    Returns
    -------
    torch.Tensor
        Weights ``(..., N)`` that sum to 1.

    Examples
    --------
    >>> hard_shrink(torch.tensor([0.5, 0.3, 0.15, 0.05]), 0.2)
    tensor([0.6250, 0.3750, 0.0000, 0.0000])
    >>> hard_shrink(torch.tensor([0.6, 0.4]), 0.9)
    tensor([1., 0.])
    """
    if threshold <= 0:
        return weights
    floor = (_KEEP * weights.detach().amax(-1, keepdim=True)).clamp(max=threshold)
    above = weights - floor
    kept = F.relu(above) * weights / (above.abs() + _EPS)
    return kept / kept.sum(-1, keepdim=True).clamp_min(_EPS)


def addressing_entropy(weights: Tensor) -> Tensor:
    """Return the entropy of addressing weights ``(..., N)`` in nats, ``(...)``: 0 for one item, log N for all alike.

    Examples
    --------
    >>> addressing_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0.0000, 0.6931])
    """
    return (weights * -torch.log(weights + _EPS)).sum(-1)


class SoftMemory(nn.Module):
    """Items that queries address by similarity; each query is answered by a sparse mixture of items.

    ``w = softmax(similarity(q, m_i))``, shrunk by :func:`hard_shrink`; the answer is ``sum_i w_i m_i``. The items are
    parameters. What is read never contains the query itself, only items.

    Parameters
    ----------
    items : int
        Number of items N.
    dim : int
        Length of an item and of a query.
    similarity : {"cosine", "dot"}, default="cosine"
        Cosine of the angle, or the plain inner product.
    shrink : float or None, default=None
        Threshold of the weights, in [0, 1); None for 1 / N, the weight of an item among equals. An absolute value
        must scale with the number of items: 0.0025 suits 400 items and shrinks nothing of 100.

    Raises
    ------
    InputError
        If a size is below 1, the similarity is unknown or the threshold lies outside [0, 1).

    References
    ----------
    Gong et al. (2019), Memorizing normality to detect anomaly: memory-augmented deep autoencoder for unsupervised
    anomaly detection, ICCV.

    Examples
    --------
    >>> memory = SoftMemory(items=50, dim=4)
    >>> answer, weights = memory(torch.ones(2, 9, 4))
    >>> answer.shape, weights.shape, bool((weights == 0).any())
    (torch.Size([2, 9, 4]), torch.Size([2, 9, 50]), True)
    """

    def __init__(
        self,
        items: int,
        dim: int,
        similarity: Literal["cosine", "dot"] = "cosine",
        shrink: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("items", items), ("dim", dim)):
            if value < 1:
                msg = f"{name}: found {value}; accepted is a whole number of at least 1."
                raise InputError(msg)
        if similarity not in {"cosine", "dot"}:
            msg = f"similarity: found {similarity!r}; accepted are 'cosine' and 'dot'."
            raise InputError(msg)
        if shrink is not None and not 0 <= shrink < 1:
            msg = f"shrink: found {shrink!r}; accepted is a number in [0, 1), or None for 1 / items."
            raise InputError(msg)
        self.similarity = similarity
        self.shrink = 1.0 / items if shrink is None else float(shrink)
        bound = 1.0 / math.sqrt(dim)
        self.rows = nn.Parameter(torch.empty(items, dim).uniform_(-bound, bound))

    def address(self, queries: Tensor) -> Tensor:
        """Return the weights ``(..., N)`` by which queries ``(..., dim)`` read the items."""
        if self.similarity == "cosine":
            likeness = F.normalize(queries, dim=-1) @ F.normalize(self.rows, dim=-1).T
        else:
            likeness = queries @ self.rows.T
        return hard_shrink(likeness.softmax(-1), self.shrink)

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return what queries ``(..., dim)`` read, ``(..., dim)``, and their weights ``(..., N)``."""
        weights = self.address(queries)
        return weights @ self.rows, weights
