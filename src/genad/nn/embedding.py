"""Embeddings of numbers: sinusoidal time embedding and random Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genad.errors import InputError


class TimeEmbedding(nn.Module):
    """Embed a time or a noise level by sines and cosines of geometrically spaced frequencies.

    Parameters
    ----------
    dim : int
        Length of the embedding, at least 2; an odd length ends in a constant 0.
    max_period : float, default=10000.0
        Longest period, in the unit of ``t``. Times in [0, 1] should be multiplied by about 1000
        first, or neighbouring times look alike.

    References
    ----------
    Vaswani et al. (2017), Attention is all you need, NeurIPS.

    Examples
    --------
    >>> TimeEmbedding(4)(torch.tensor([0, 1])).round(decimals=3)
    tensor([[0.0000, 0.0000, 1.0000, 1.0000],
            [0.8410, 0.0100, 0.5400, 1.0000]])
    """

    frequencies: Tensor

    def __init__(self, dim: int, max_period: float = 10000.0) -> None:
        super().__init__()
        if dim < 2:
            msg = f"dim: found {dim}; accepted is a whole number of at least 2."
            raise InputError(msg)
        half = dim // 2
        steps = torch.arange(half, dtype=torch.float64) / half
        frequencies = torch.exp(-math.log(max_period) * steps).float()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        """Map times ``(...)`` to embeddings ``(..., dim)``: first the sines, then the cosines."""
        angle = t.unsqueeze(-1) * self.frequencies
        parts = [torch.sin(angle), torch.cos(angle)]
        if self.dim % 2:
            parts.append(torch.zeros_like(angle[..., :1]))
        return torch.cat(parts, dim=-1)


class FourierFeatures(nn.Module):
    """Embed vectors by cosines and sines of fixed random projections.

    Parameters
    ----------
    in_dim : int
        Length of the input.
    out_dim : int
        Length of the embedding, even.
    scale : float, default=1.0
        Standard deviation of the frequencies, in cycles per unit of the input: higher resolves
        finer detail.
    generator : torch.Generator or None, default=None
        Source of the frequencies.

    References
    ----------
    Tancik et al. (2020), Fourier features let networks learn high frequency functions in low
    dimensional domains, NeurIPS.

    Examples
    --------
    >>> FourierFeatures(2, 8)(torch.zeros(3, 2))[0]
    tensor([1., 1., 1., 1., 0., 0., 0., 0.])
    """

    projection: Tensor

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if out_dim < 2 or out_dim % 2:
            msg = f"out_dim: found {out_dim}; accepted is an even number of at least 2."
            raise InputError(msg)
        projection = 2 * math.pi * scale * torch.randn(in_dim, out_dim // 2, generator=generator)
        self.register_buffer("projection", projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_dim)`` to ``(..., out_dim)``: first the cosines, then the sines."""
        angle = x @ self.projection
        return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)
