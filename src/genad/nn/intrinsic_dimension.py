"""Intrinsic dimension of points, estimated from the distances to their neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from genad.nn.memory import nearest_neighbors

# Points whose neighbours are looked for, and those they are looked for among.
_QUERIES, _POINTS = 500, 4000


def neighbour_dimension(points: Tensor, neighbours: int = 20) -> float:
    """Estimate on how many dimensions points lie, by how fast the distance to the j-th neighbour grows with j.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        At least one; of many an evenly spaced part is looked at.
    neighbours : int, default=20
        Neighbours that are looked at, fewer where there are fewer points.

    Returns
    -------
    float
        In [0, d]; 0 where all points are the same.

    References
    ----------
    Levina and Bickel (2005), Maximum likelihood estimation of intrinsic dimension, NeurIPS; the inverses are averaged,
    as MacKay and Ghahramani (2005) remark.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> plane = torch.randn(1000, 2, generator=generator) @ torch.randn(2, 7, generator=generator)
    >>> round(neighbour_dimension(plane))
    2
    """
    n, d = points.shape
    bank = points[torch.linspace(0, n - 1, min(n, _POINTS), device=points.device).long()]
    queries = bank[torch.linspace(0, len(bank) - 1, min(len(bank), _QUERIES), device=points.device).long()]
    # A point is its own nearest neighbour, and copies of it say nothing of the space around it.
    distances = nearest_neighbors(queries, bank, min(neighbours + 1, len(bank)))[0].double()[:, 1:]
    reach = distances[:, -1:] if distances.shape[1] else distances
    apart = distances > 1e-6 * reach.clamp_min(1e-12)
    inverse = torch.where(apart, (reach / distances.clamp_min(1e-300)).log(), 0.0).sum(1)
    # The farthest neighbour is the measure of the others; the last of these is left out for an unbiased mean.
    count = apart.sum(1) - 2
    known = count > 0
    if not bool(known.any()):
        return 0.0
    mean = float((inverse[known] / count[known]).mean())
    return min(float(d), 1.0 / mean) if mean > 0 else float(d)
