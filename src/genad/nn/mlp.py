"""Fully connected networks: plain stacks of linear layers and activations."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from genad.errors import InputError
from genad.nn.activation import activation_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genad.nn.backbone import Backbone


def mlp(
    sizes: Sequence[int],
    activation: str = "relu",
    dropout: float = 0.0,
    out_activation: str | None = None,
) -> nn.Sequential:
    """Build a multilayer perceptron as one plain ``nn.Sequential``.

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output, at least two.
    activation : str, default="relu"
        Activation after every layer but the last.
    dropout : float, default=0.0
        Share of hidden units dropped in training; no layer is added for 0.
    out_activation : str or None, default=None
        Activation after the last layer; None for a linear output.

    Returns
    -------
    torch.nn.Sequential
        ``(..., sizes[0]) -> (..., sizes[-1])``.

    Raises
    ------
    InputError
        If there are fewer than two sizes, a size is below 1, or an activation is unknown.

    Examples
    --------
    >>> mlp([6, 4, 2])
    Sequential(
      (0): Linear(in_features=6, out_features=4, bias=True)
      (1): ReLU()
      (2): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    if len(sizes) < 2 or min(sizes) < 1:
        msg = (
            f"sizes: found {list(sizes)}; accepted are two or more widths, each at least 1. "
            "Give the input width, the hidden widths and the output width."
        )
        raise InputError(msg)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation_module(activation)]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    layers = layers[: -2 if dropout > 0 else -1]  # the output layer stays linear
    if out_activation is not None:
        layers.append(activation_module(out_activation))
    return nn.Sequential(*layers)


def mlp_widths(n: int) -> tuple[int, ...]:
    """Choose two hidden widths for ``n`` input values.

    The first is about twice the input, from 32 to 256; for very wide inputs it shrinks so that the
    first layer stays below half a million weights.

    Parameters
    ----------
    n : int
        Number of input values.

    Returns
    -------
    tuple of int
        Widths from input to code.

    Examples
    --------
    >>> mlp_widths(6), mlp_widths(38), mlp_widths(12288)
    ((32, 16), (128, 64), (40, 20))
    """
    first = min(256, max(32, 1 << (2 * n - 1).bit_length()))
    first = min(first, max(16, 500_000 // n))
    return first, max(8, first // 2)


def mlp_encoder(shape: tuple[int, ...], out: int, spec: Backbone) -> nn.Sequential:
    """Build ``(B, *shape) -> (B, out)``, flattening first when a sample is not a vector.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    out : int
        Length of the output vector.
    spec : Backbone
        Widths, activation and dropout.

    Returns
    -------
    torch.nn.Sequential
        The network.
    """
    n = math.prod(shape)
    net = mlp([n, *(spec.hidden or mlp_widths(n)), out], spec.activation, spec.dropout)
    return net if len(shape) == 1 else nn.Sequential(nn.Flatten(), *net)


def mlp_decoder(shape: tuple[int, ...], latent: int, spec: Backbone, heads: int = 1) -> nn.Sequential:
    """Build ``(B, latent) -> (B, *shape)``, with a head axis after the batch if ``heads > 1``.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    latent : int
        Length of the code.
    spec : Backbone
        Widths from input to code; they are used in reverse.
    heads : int, default=1
        Number of outputs of the sample's shape.

    Returns
    -------
    torch.nn.Sequential
        The network.
    """
    n = math.prod(shape)
    widths = (spec.hidden or mlp_widths(n))[::-1]
    net = mlp([latent, *widths, heads * n], spec.activation, spec.dropout)
    if heads > 1:
        return nn.Sequential(*net, nn.Unflatten(1, (heads, *shape)))
    return net if len(shape) == 1 else nn.Sequential(*net, nn.Unflatten(1, shape))


class ConditionalMLP(nn.Module):
    """Map a sample to one of the same shape under a condition vector.

    The condition is added to the first layer's input sum (the same as concatenating it to the
    input) and scales and shifts every later hidden layer (FiLM).

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample; samples that are not vectors are flattened inside.
    cond : int
        Length of the condition vector.
    hidden : tuple of int
        Hidden widths.
    activation : str, default="silu"
        Activation of the hidden layers.
    dropout : float, default=0.0
        Share of hidden units dropped in training.

    References
    ----------
    Perez et al. (2018), FiLM: visual reasoning with a general conditioning layer, AAAI.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        cond: int,
        hidden: tuple[int, ...],
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape = shape
        n = math.prod(shape)
        self.first = nn.Linear(n, hidden[0])
        self.condition = nn.Linear(cond, hidden[0] + 2 * sum(hidden[1:]), bias=False)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(hidden))
        self.act = activation_module(activation)
        self.drop = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.last = nn.Linear(hidden[-1], n)
        self._split = [hidden[0], *(w for h in hidden[1:] for w in (h, h))]

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map ``(B, *shape)`` and ``(B, cond)`` to ``(B, *shape)``."""
        shift0, *film = self.condition(cond).split(self._split, dim=-1)
        h = self.drop(self.act(self.first(x.flatten(1)) + shift0))
        for layer, scale, shift in zip(self.layers, film[::2], film[1::2], strict=True):
            h = self.drop(self.act(layer(h) * (1 + scale) + shift))
        result: Tensor = self.last(h).unflatten(1, self.shape)
        return result


def mlp_translator(shape: tuple[int, ...], spec: Backbone, cond: int = 0) -> nn.Module:
    """Build ``(B, *shape) -> (B, *shape)`` without a bottleneck.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample.
    spec : Backbone
        Widths, activation and dropout; the default is two layers of equal width.
    cond : int, default=0
        Length of the condition vector; 0 for none.

    Returns
    -------
    torch.nn.Module
        The network; it takes a second argument ``(B, cond)`` if ``cond > 0``.
    """
    n = math.prod(shape)
    hidden = spec.hidden or (max(16, min(256, 500_000 // n, 2 * mlp_widths(n)[0])),) * 2
    if cond > 0:
        return ConditionalMLP(shape, cond, hidden, spec.activation, spec.dropout)
    net = mlp([n, *hidden, n], spec.activation, spec.dropout)
    return net if len(shape) == 1 else nn.Sequential(nn.Flatten(), *net, nn.Unflatten(1, shape))
