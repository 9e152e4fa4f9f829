"""Kernel densities of a few statistics, one by one: the product of their densities is that of a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Points kept of those fitted on, evenly spaced.
_POINTS = 2000
# Standardised statistics are cut here, so that their squares stay finite.
_LARGEST = 1e12
# How far the quartiles of a Gaussian are apart, in standard deviations.
_QUARTILES = 1.349


class ProductKDE(nn.Module):
    """Score vectors of statistics by the product of one-dimensional Gaussian kernel densities.

    The bandwidth of each statistic is Scott's, its scale times ``n ** (-1/5)``, with a scale that a few gross values do
    not widen: the standard deviation, or that of a Gaussian with the same quartiles where this is smaller.

    Parameters
    ----------
    count : int
        Length S of a vector.

    Attributes
    ----------
    centre, scale : Tensor
        Buffers ``(S,)``, float64: mean and scale of the fitted vectors.
    points : Tensor
        Buffer ``(n, S)``, float64: the standardised vectors, at most 2000 of them.

    Examples
    --------
    >>> points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> density = ProductKDE(2).fit_to(points)
    >>> far, near = density(torch.tensor([[5.0, -5.0], [0.0, 0.0]]))
    >>> bool(far > near + 10)
    True
    """

    centre: Tensor
    scale: Tensor
    points: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(count, dtype=torch.float64))
        self.register_buffer("points", torch.zeros(1, count, dtype=torch.float64))

    def fit_to(self, vectors: Tensor) -> ProductKDE:
        """Take in vectors ``(n, S)``, at least one; return itself."""
        vectors = vectors.detach().double()
        self.centre = vectors.mean(0)
        few = _spaced(vectors)
        spread = vectors.std(0, correction=0)
        low, high = torch.quantile(few, torch.tensor([0.25, 0.75], dtype=few.dtype, device=few.device), dim=0)
        quartiles = (high - low) / _QUARTILES
        spread = torch.where(quartiles > 1e-6 * spread, torch.minimum(quartiles, spread), spread)
        # What does not vary is measured in units of its own size.
        self.scale = torch.where(spread > 1e-6 * self.centre.abs(), spread, self.centre.abs()).clamp_min(1e-6)
        self.points = self._standardised(few)
        return self

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the negative log-density of standardised vectors in nats, (B,), float64."""
        rows = self._standardised(vectors.double())
        n = len(self.points)
        width = n**-0.2
        total = math.log(n * width * math.sqrt(2 * math.pi)) * rows.new_ones(rows.shape)
        for j, held in enumerate(self.points.T):
            total[:, j] -= torch.logsumexp(-0.5 * ((rows[:, j, None] - held) / width).square(), 1)
        return total.sum(1)

    def _standardised(self, vectors: Tensor) -> Tensor:
        return ((vectors - self.centre) / self.scale).clamp(-_LARGEST, _LARGEST)


def _spaced(vectors: Tensor) -> Tensor:
    if len(vectors) <= _POINTS:
        return vectors
    return vectors[torch.linspace(0, len(vectors) - 1, _POINTS, device=vectors.device).long()]
