"""Masked autoregressive networks: every value predicted from those before it, in several orders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from genad.errors import InputError
from genad.nn.activation import activation_module
from genad.nn.gaussian import gaussian_log_prob


class MaskedLinear(nn.Linear):
    """A linear layer whose weights a mask switches off, and that knows which of its inputs are switched on.

    Parameters
    ----------
    in_features, out_features : int
        Widths.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        # An input that is 0 and one that is masked look alike; these weights of the mask itself tell them apart.
        self.seen = nn.Parameter(torch.zeros(out_features, in_features))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``(B, in)`` to ``(B, out)`` through the weights where ``mask`` ``(out, in)`` is 1."""
        if mask is None:
            return super().forward(x)
        return F.linear(x, self.weight * mask, self.bias + (self.seen * mask).sum(1))


class MADE(nn.Module):
    """Predict every value of a vector from the values before it, one pass for all of them.

    The weights of a plain network are masked so that the outputs of a value hang on earlier values alone. What comes
    earlier is up to the order; the same weights serve several random ones, each with masks of its own.

    Parameters
    ----------
    dim : int
        Length of the vectors, at least 1.
    outputs : int
        Numbers predicted for each value.
    hidden : sequence of int
        Hidden widths, at least one.
    orders : int, default=1
        Number of random orders, at least 1.
    activation : str, default="relu"
        Activation of the hidden layers.

    Attributes
    ----------
    rank : Tensor of shape (orders, dim)
        Buffer: place of each value in each order, from 0.
    degrees : Tensor of shape (orders, sum(hidden))
        Buffer: the last place that each hidden unit sees.

    Raises
    ------
    InputError
        If a size is below 1, or there is no hidden layer.

    References
    ----------
    Germain, Gregor, Murray and Larochelle (2015), MADE: masked autoencoder for distribution estimation, ICML.

    Examples
    --------
    >>> net = MADE(4, 3, (16,), orders=2)
    >>> net(torch.zeros(5, 4), order=1).shape
    torch.Size([5, 4, 3])
    """

    rank: Tensor
    degrees: Tensor

    def __init__(
        self, dim: int, outputs: int, hidden: Sequence[int], orders: int = 1, activation: str = "relu"
    ) -> None:
        super().__init__()
        hidden = tuple(hidden)
        if not hidden or min(dim, outputs, orders, *hidden) < 1:
            msg = (
                f"dim, outputs, hidden, orders: found {dim}, {outputs}, {hidden} and {orders}; accepted are whole "
                "numbers of at least 1 and at least one hidden width."
            )
            raise InputError(msg)
        self.dim, self.outputs, self.hidden, self.orders = dim, outputs, hidden, orders
        widths = (dim, *hidden, dim * outputs)
        self.layers = nn.ModuleList(MaskedLinear(a, b) for a, b in itertools.pairwise(widths))
        self.act = activation_module(activation)
        self.register_buffer("rank", torch.stack([torch.randperm(dim) for _ in range(orders)]))
        # Units are dealt out evenly over the places, so that no place is without one while there are enough.
        dealt = [[torch.randperm(width) % max(1, dim - 1) for width in hidden] for _ in range(orders)]
        self.register_buffer("degrees", torch.stack([torch.cat(each) for each in dealt]))

    def masks(self, order: int) -> list[Tensor]:
        """Return the masks of the layers ``(out, in)`` in one of the orders."""
        rank = self.rank[order]
        inner = self.degrees[order].split(self.hidden)
        found = [inner[0][:, None] >= rank]
        found += [after[:, None] >= before for before, after in itertools.pairwise(inner)]
        found.append((rank[:, None] > inner[-1]).repeat_interleave(self.outputs, 0))
        return [mask.float() for mask in found]

    def forward(self, x: Tensor, order: int = 0) -> Tensor:
        """Map vectors ``(B, dim)`` to what is predicted of each value, ``(B, dim, outputs)``."""
        masks = self.masks(order)
        for layer, mask in zip(self.layers[:-1], masks[:-1], strict=True):
            x = self.act(layer(x, mask))
        found: Tensor = self.layers[-1](x, masks[-1])
        return found.unflatten(1, (self.dim, self.outputs))


def gaussian_mixture_log_prob(x: Tensor, told: Tensor, min_std: float) -> Tensor:
    """Return the log-density of each value under its own mixture of Gaussians, in nats.

    Parameters
    ----------
    x : Tensor of shape (...)
        Values.
    told : Tensor of shape (..., 3 K)
        What a network says of each value: K logits of the weights, K means and K raw standard deviations, of which
        softplus is taken.
    min_std : float
        Added to the standard deviations.

    Returns
    -------
    Tensor of shape (...)
        One log-density a value.

    Examples
    --------
    >>> gaussian_mixture_log_prob(torch.zeros(1), torch.zeros(1, 6), min_std=0.3068).round(decimals=3)
    tensor([-0.9190])
    """
    logits, mean, raw = told.chunk(3, -1)
    each = gaussian_log_prob(x.unsqueeze(-1), mean, F.softplus(raw) + min_std)
    return (logits.log_softmax(-1) + each).logsumexp(-1)
