"""Small transformers for windows: positions, attention with its weights in the open, and encoder layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def positions(steps: int, width: int) -> Tensor:
    """Return the sinusoidal codes of positions, (steps, width).

    Examples
    --------
    >>> positions(3, 4).shape, positions(3, 4)[0].tolist()
    (torch.Size([3, 4]), [0.0, 1.0, 0.0, 1.0])
    """
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(steps)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :width]


class Attention(nn.Module):
    """Multi-head attention.

    Parameters
    ----------
    width : int
        Values of a token, a multiple of ``heads``.
    heads : int
        Heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Part tokens (B, T, width) into heads, (B, heads, T, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def merge(self, x: Tensor) -> Tensor:
        """Put the heads (B, heads, T, width / heads) of tokens together and mix them, (B, T, width)."""
        result: Tensor = self.output(x.transpose(-3, -2).flatten(-2))
        return result

    def forward(self, x: Tensor, memory: Tensor | None = None, causal: bool = False) -> Tensor:
        """Let tokens (B, T, width) look at those of ``memory`` (B, S, width), or at each other.

        Parameters
        ----------
        x, memory : Tensor
            Tokens that look, and tokens that are looked at.
        causal : bool
            Whether a token sees only itself and those before it.
        """
        key, value = self.key_value(x if memory is None else memory).chunk(2, -1)
        # Spelled out: over the few tokens of a window it is several times faster on a CPU than the fused kernel.
        query = self.split(self.query(x)) * (x.shape[-1] // self.heads) ** -0.5
        closeness = query @ self.split(key).transpose(-1, -2)
        if causal:
            later = torch.ones(closeness.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            closeness = closeness.masked_fill(later, -torch.inf)
        seen = closeness.softmax(-1) @ self.split(value)
        return self.merge(seen)


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between, for each token alone."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each on normalised tokens and added to them.

    Parameters
    ----------
    width, heads : int
        As in :class:`Attention`.
    inner : int
        Width of the feed-forward part.
    dropout : float
        Share of values dropped in training.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.forth = FeedForward(width, inner)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Map tokens (B, T, width) to the same shape."""
        x = x + self.drop(self.attention(self.first(x), causal=causal))
        result: Tensor = x + self.drop(self.forth(self.second(x)))
        return result


class DecoderLayer(EncoderLayer):
    """An encoder layer whose tokens also look at those of an encoder, between attention and feed-forward part."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__(width, heads, inner, dropout)
        self.cross = Attention(width, heads)
        self.between = nn.LayerNorm(width)

    def decode(self, x: Tensor, memory: Tensor, causal: bool = True) -> Tensor:
        """Map tokens (B, T, width), looking at ``memory`` (B, S, width), to the same shape."""
        x = x + self.drop(self.attention(self.first(x), causal=causal))
        x = x + self.drop(self.cross(self.between(x), memory))
        result: Tensor = x + self.drop(self.forth(self.second(x)))
        return result


def encoder_stack(width: int, heads: int, layers: int, inner: int, dropout: float = 0.0) -> nn.Sequential:
    """Return encoder layers one above the other, with a normalisation at the end.

    Examples
    --------
    >>> encoder_stack(8, 2, 1, 16)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """
    return nn.Sequential(*(EncoderLayer(width, heads, inner, dropout) for _ in range(layers)), nn.LayerNorm(width))
